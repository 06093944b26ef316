"""A network → Caffe's layers, in the authors' names where they have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape, elements
from vggkit.exchange.caffe.kinds import WRITING
from vggkit.exchange.caffe.rules import Fixed, Said
from vggkit.exchange.caffe.schema import BLOB, INPUT, LAYER, NET, SHAPE
from vggkit.exchange.files import Written
from vggkit.exchange.messages import Bulk, Message
from vggkit.network import Network, PlacedLayer, all_names
from vggkit.notation.layers import Flatten

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = "data"
"""The name of the images."""


def net_of(written: Written) -> Message:
    """Return a network as Caffe says it.

    Args:
        written: the network; its weights become blobs if it has them.

    Raises:
        LayerError: if Caffe has no word for a layer.
    """
    network = written.network
    net = Message(NET, name=network.name)
    shape = Message(SHAPE, dim=[1, *network.input_shape])
    net.add("layer", Message(LAYER, name=DATA, type="Input", top=DATA, input_param=Message(INPUT, shape=shape)))
    current = DATA
    for placed, name in zip(network, _names(network)):
        if _is_unsaid(network, placed):
            continue
        kind = WRITING.get(type(placed.layer))
        if kind is None:
            raise LayerError(f"Caffe has no layer for {placed.name} ({placed.layer.keyword})")
        try:
            said = kind.write(placed.layer, placed.input_shape)
        except LayerError as error:
            raise LayerError(f"{placed.name}: {error}") from None
        for number, one in enumerate(said):
            own = name if not number else f"{name}_{one.type.lower()}"
            in_place = bool(number) or placed.layer.storage() == "in place" or placed.layer.is_dropout
            top = current if in_place and current != DATA else own
            message = Message(LAYER, name=own, type=one.type, bottom=current, top=top)
            if (options := one.message()) is not None and one.options is not None:
                message.add(one.options[0], options)
            for blob in _blobs(written, placed, one):
                message.add("blobs", blob)
            net.add("layer", message)
            current = top
    return net


def _is_unsaid(network: Network, placed: PlacedLayer) -> bool:
    """Tell whether a layer flattens for an FC layer, which does so by itself in Caffe."""
    if placed.layer != Flatten() or placed is network.layers[-1]:
        return False
    return network.layers[network.layers.index(placed) + 1].layer.needs_flat


def _names(network: Network) -> list[str]:
    """Return the authors' names of the layers, or ours where they have none or have it already."""
    taken: set[str] = {DATA}
    names = []
    for placed, known in zip(network, all_names(network)):
        name = known.authors if known.authors and known.authors not in taken else placed.name
        taken.add(name)
        names.append(name)
    return names


def _blobs(written: Written, placed: PlacedLayer, said: Said) -> Iterator[Message]:
    if written.tensors is None:
        return
    for content in said.blobs:
        if isinstance(content, Fixed):
            shape: Shape = (1,) if content.is_one else placed.input_shape[:1]
            data: Any = [content.value] * elements(shape)
        else:
            shape = placed.held[content]
            data = _bulk(written.tensors[placed.name, content], 4 * elements(shape))
        blob = Message(BLOB, shape=Message(SHAPE, dim=[*shape]))
        blob.values["data"] = data if isinstance(data, list) else [data]
        yield blob


def _bulk(load: Callable[[], NDArray[Any]], size: int) -> Bulk:
    return Bulk(size, lambda: load().astype("<f4", copy=False))

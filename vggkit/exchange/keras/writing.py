"""A network → a Keras model: its description, and the weights under the paths where Keras looks for them."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape, elements
from vggkit.base.version import __version__
from vggkit.exchange.files import Written
from vggkit.exchange.keras.activations import name_of
from vggkit.exchange.keras.archive import CONFIG, METADATA, NO_WEIGHTS, WEIGHTS
from vggkit.exchange.keras.description import snake_case
from vggkit.exchange.keras.kinds import WRITING
from vggkit.exchange.keras.rules import Place, Said
from vggkit.exchange.keras.walk import is_flattened_in_any_order
from vggkit.network import Network, PlacedLayer
from vggkit.notation.layers import Flatten

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERAS_VERSION = "3.15.1"
"""Whose options these are. All but AdaptiveAveragePooling2D are those of 3.0."""

STATEMENT = "vggkit_config"
"""Under this key the metadata has the configuration, as YAML."""

IMAGE = "image"
"""The name of the input."""


class Named(NamedTuple):
    """A layer of Keras's.

    Args:
        name: its name.
        path: where its values are in the file of weights.
        said: what it is.
        placed: the layer that it is.
        maps: what it takes as flat features in the order that Keras flattens them in; None if it takes none.
    """

    name: str
    path: str
    said: Said
    placed: PlacedLayer
    maps: Shape | None


def model_of(network: Network) -> list[Named]:
    """Return a network as Keras says it.

    Raises:
        LayerError: if Keras has no word for a layer.
    """
    found: list[Named] = []
    names, counts = {IMAGE}, Counter[str]()
    maps: Shape | None = None
    for number, placed in enumerate(network):
        before, behind = (
            [one.layer for one in part] for part in (network.layers[:number], network.layers[number + 1 :])
        )
        if placed.layer == Flatten() and len(placed.input_shape) == 3 and is_flattened_in_any_order(behind):
            maps = placed.input_shape
        if _joins(placed, network.layers[:number], found):
            continue
        for said in _said(placed, Place(placed.input_shape, before, behind)):
            name = _new(f"{placed.name}_{said.suffix}" if said.suffix else placed.name, names)
            word = snake_case(said.word)
            path = f"layers/{word}_{counts[word]}" if counts[word] else f"layers/{word}"
            counts[word] += 1
            found.append(Named(name, path, said, placed, maps))
        maps = None if placed.layer.needs_flat else maps
    return found


def _said(placed: PlacedLayer, place: Place) -> list[Said]:
    kind = WRITING.get(type(placed.layer))
    if kind is None:
        raise LayerError(f"Keras has no layer for {placed.name} ({placed.layer.keyword})")
    try:
        return kind.write(placed.layer, place)
    except LayerError as error:
        raise LayerError(f"{placed.name}: {error}") from None


def _joins(placed: PlacedLayer, before: tuple[PlacedLayer, ...], found: list[Named]) -> bool:
    """Have the layer just before this one do its activation too, if that can say it."""
    options = found[-1].said.options if found and before[-1] is found[-1].placed else {}
    name = name_of(placed.layer) if options.get("activation") == "linear" else None
    if name is not None:
        options["activation"] = name
    return name is not None


def _new(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def description(network: Network, layers: list[Named]) -> dict[str, Any]:
    """Return the description of a model."""
    channels, height, width = network.input_shape
    image = {"batch_shape": [None, height, width, channels], "dtype": "float32", "name": IMAGE}
    said = [_layer("InputLayer", image)]
    said += [
        _layer(one.said.word, {"name": one.name, "trainable": True, "dtype": "float32", **one.said.options})
        for one in layers
    ]
    config = {"name": network.name, "trainable": True, "dtype": "float32", "layers": said}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def _layer(word: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": word, "config": options, "registered_name": None}


def write(file: IO[bytes], written: Written) -> list[Named]:
    """Write a model.

    Args:
        file: where to.
        written: what to write. Without weights, Keras finds kernels of 0 in it that take no place in the file.

    Returns:
        Its layers.

    Raises:
        LayerError: if Keras has no word for a layer, before anything is written.
    """
    network = written.network
    layers = model_of(network)
    metadata = {"keras_version": KERAS_VERSION, "vggkit_version": __version__, STATEMENT: str(network.config)}
    if written.tensors is None:
        metadata["weights"] = NO_WEIGHTS
    with tempfile.TemporaryFile() as weights, tempfile.TemporaryFile() as whole:
        _write_weights(weights, written, layers)
        weights.seek(0)
        target = file if file.readable() else whole  # the writer of an archive goes back, which no pipe allows
        with zipfile.ZipFile(target, "w") as archive:
            for member, said in ((METADATA, metadata), (CONFIG, description(network, layers))):
                with archive.open(_member(member), "w") as part:
                    part.write(json.dumps(said).encode())
            with archive.open(_member(WEIGHTS), "w", force_zip64=True) as part:
                shutil.copyfileobj(weights, part)
        whole.seek(0)
        shutil.copyfileobj(whole, file)
    return layers


def _member(name: str) -> zipfile.ZipInfo:
    """Return the head of a member: not compressed, and the same whenever it is written."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o600 << 16
    return member


def _write_weights(file: IO[bytes], written: Written, layers: list[Named]) -> None:
    import h5py

    with h5py.File(file, "w") as hdf5:  # through Python's file, whose errors are exceptions
        hdf5.create_group("vars").attrs["name"] = written.network.name
        for layer in layers:
            group = hdf5.create_group(f"{layer.path}/vars")
            group.attrs["name"] = layer.name
            for number, role in enumerate(layer.said.roles):
                if written.tensors is None:
                    shape = _keras_shape(layer.placed.held[role])
                    value = 1.0 if role == "running_var" or (role == "weight" and layer.placed.layer.is_norm) else 0.0
                    group.create_dataset(str(number), shape, "f4", fillvalue=value)  # takes no place until written
                else:
                    group[str(number)] = _turned(written.tensors[layer.placed.name, role](), layer.maps)


KERNELS = {4: (2, 3, 1, 0), 2: (1, 0)}
"""The axes of a kernel in Keras, by torch's, whose outputs and inputs are its first ones."""


def _keras_shape(shape: Shape) -> Shape:
    return tuple(shape[axis] for axis in KERNELS.get(len(shape), range(len(shape))))


def _turned(array: NDArray[Any], maps: Shape | None) -> NDArray[Any]:
    """Return a tensor with its axes as Keras has them, and flattened maps in its order."""
    if maps is not None and array.shape[-1] == elements(maps):
        array = array.reshape(-1, *maps).transpose(0, 2, 3, 1).reshape(array.shape)
    axes = KERNELS.get(array.ndim)
    return array if axes is None else array.transpose(axes)

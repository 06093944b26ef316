"""Caffe's two kinds of files."""

from __future__ import annotations

from typing import IO

from vggkit.base.errors import file_name
from vggkit.exchange import messages, prototext
from vggkit.exchange.caffe.reading import imported
from vggkit.exchange.caffe.schema import NET
from vggkit.exchange.caffe.writing import DATA, net_of
from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, ModelFile, Written, message_in, text_of
from vggkit.exchange.messages import MalformedError, Message
from vggkit.network import Network, PlacedLayer, place
from vggkit.notation.config import in_torchs_order
from vggkit.notation.layers import Flatten


class CaffeFile(ModelFile):
    """Abstract: what both have in common."""

    def suited(self, network: Network) -> Network:
        """Return the network that flattens maps as torch does, where an FC layer's weights can be so ordered."""
        turned = [placed for placed in network if placed.layer == Flatten("hwc")]
        if not turned or not all(_is_for_weights(network, placed) for placed in turned):
            return network
        return place(in_torchs_order(network.config))


def _is_for_weights(network: Network, flatten: PlacedLayer) -> bool:
    """Tell whether what a layer flattens goes to an FC layer as it is, but for what each value has for itself."""
    for placed in network.layers[network.layers.index(flatten) + 1 :]:
        if placed.layer.needs_flat:
            return True
        if not (placed.layer.is_activation or placed.layer.is_dropout):
            return False
    return False


class Prototxt(CaffeFile):
    """The layers as text."""

    title = "Caffe's prototxt"
    ending = ".prototxt"
    takes_weights = False
    needs_weights = False

    def read(self, given: Given) -> Imported:
        net = prototext.parse(text_of(given.path), NET)
        weights = None
        if given.weights is not None:
            try:
                weights = net_in(given.weights)
            except MalformedError as error:
                raise MalformedError(f"{file_name(given.weights)}: {error}") from None
        return imported(net, image=given.image, stem=given.stem, weights=weights)

    def write(self, file: IO[bytes], written: Written) -> str:
        net = net_of(written)
        file.write(prototext.written(net).encode())
        return _interface(net)


class CaffeModel(CaffeFile):
    """The layers with their weights."""

    title = "Caffe's caffemodel"
    ending = ".caffemodel"
    takes_weights = True
    needs_weights = True

    def read(self, given: Given) -> Imported:
        return imported(net_in(given.path), image=given.image, stem=given.stem)

    def write(self, file: IO[bytes], written: Written) -> str:
        net = net_of(written)
        messages.write(file, messages.serialized(net))
        return _interface(net)


def net_in(path: str) -> Message:
    """Return the network in a file of layers with their weights.

    Raises:
        MalformedError: if it is no such file.
        OSError: if it can't be read.
    """
    net = message_in(path, NET, "a network of Caffe")
    if "layer" not in net and "layers" not in net:
        raise MalformedError("expected a network of Caffe, found other bytes")
    return net


def _interface(net: Message) -> str:
    last = net.messages("layer")[-1]
    return f"input {DATA}, output {last.get('top')}"

"""The configuration that a file of our own states: what a graph does not say, such as names, blocks and momentum."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from vggkit.base.errors import VggkitError
from vggkit.exchange import messages
from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, Written, network_stated
from vggkit.exchange.messages import Message
from vggkit.exchange.onnx.constants import Constants, declared
from vggkit.exchange.onnx.graph import IMAGE, STATEMENT
from vggkit.exchange.onnx.nodes import Node, nodes_of
from vggkit.exchange.onnx.schema import MODEL
from vggkit.exchange.onnx.writing import model_of


def stated(model: Message, given: Given, constants: Constants) -> Imported | None:
    """Return the network that a file states, if its graph is what is written for that; None if it is any other.

    A graph may have been changed since it was written, and a statement may be a stranger's. It counts if the
    operations, their constants and the shapes of the tensors are those of its network.

    Args:
        model: the file's content.
        given: the file.
        constants: its tensors.
    """
    entries = model.messages("metadata_props")
    text = next((entry.get("value", "") for entry in entries if entry.get("key") == STATEMENT), None)
    if text is None:
        return None
    network = network_stated(text, given)
    if network is None:
        return None
    try:
        wanted = _as_read(model_of(Written(network, None)))
    except VggkitError:
        return None
    if given.image not in (None, network.input_shape) or not _is_graph_of(model, wanted, constants):
        return None
    names = {(placed.name, role): f"{placed.module}.{role}" for placed in network for role in placed.held}
    tensors = {key: constants.values[name] for key, name in names.items() if name in constants}
    return Imported(network, {key: values for key, values in tensors.items() if values.is_known})


def _as_read(model: Message) -> Message:
    """Return a model as it is when it was written and read: its numbers in single precision."""
    file = BytesIO()
    messages.write(file, messages.serialized(model))
    return messages.parse(memoryview(file.getvalue()), MODEL)


def _is_graph_of(model: Message, wanted: Message, constants: Constants) -> bool:
    """Tell whether a file's operations, constants and shapes are those of a model that has no weights."""
    import numpy

    graph, own = model.message("graph"), wanted.message("graph")
    if _plain(nodes_of(graph)) != _plain(nodes_of(own)) or _ends(graph) != _ends(own):
        return False
    for name, values in Constants(own, "", IMAGE).values.items():
        found = constants.values.get(name)
        if found is None or found.shape != values.shape:
            return False
        if values.is_known and not (found.is_known and numpy.array_equal(found.load(), values.load())):
            return False
    return True


def _ends(graph: Message) -> list[Any]:
    """Return what a graph takes as an image, and the names of what it makes."""
    image = graph.messages("input")[0]
    return [image.get("name"), (declared(image) or [])[1:], [one.get("name") for one in graph.messages("output")]]


def _plain(nodes: Iterable[Node]) -> list[Any]:
    return [
        (node.op, node.inputs, node.outputs, {word: one.plain() for word, one in node.attributes.items()})
        for node in nodes
    ]

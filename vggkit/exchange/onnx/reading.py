"""A graph of ONNX's → layers with their values.

A graph is followed from the image on. What is computed from shapes and constants is computed as it is read; what moves
values is kept until an operation needs them, and is then a flattening, or nothing. Operations that take a value
together with what another one made of it are told by what they compute together. A file of our own states its
configuration besides.
"""

from __future__ import annotations

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.shapes import Shape
from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, plain_name
from vggkit.exchange.messages import MalformedError, Message
from vggkit.exchange.onnx.constants import Constants, declared, fold
from vggkit.exchange.onnx.kinds import read
from vggkit.exchange.onnx.nodes import OWN, Node, nodes_of
from vggkit.exchange.onnx.patterns import joined, note_shape
from vggkit.exchange.onnx.stated import stated
from vggkit.exchange.onnx.walk import LAST, Walk
from vggkit.notation.preprocess import LARGEST_SIDE

BATCH = 2
"""Images, where the graph takes any number: with more than one, what mixes them up shows."""

MOST_CHANNELS = 2**20


def imported(model: Message, given: Given) -> Imported:
    """Read a network.

    Args:
        model: the file's content.
        given: the file.

    Raises:
        MalformedError: if it is no model.
        LayerError: if it is no chain, or has an operation that no layer of a configuration is.
    """
    graph = model.message("graph")
    nodes = nodes_of(graph)
    if not nodes:
        raise MalformedError("expected a model of ONNX with operations, found none")
    shapes = {one.get("name", ""): declared(one) for one in graph.messages("input")}
    stored = {tensor.get("name", "") for tensor in graph.messages("initializer")}
    image = next((name for name in shapes if name not in stored), None)
    if image is None:
        raise MalformedError("it has no input")
    constants = Constants(graph, given.path, image)
    if (found := stated(model, given, constants)) is not None:
        return found
    versions = [one.get("version", 1) for one in model.messages("opset_import") if one.get("domain", "") in OWN]
    is_turned = _turns(nodes, image, shapes[image], constants)
    walk = Walk(
        image,
        _image(image, shapes[image], given.image, is_turned),
        turned=is_turned,
        constants=constants,
        opset=max(versions, default=1),
    )
    has_turned_maps = _follow(nodes, walk, [one.get("name", "") for one in graph.messages("output")])
    own = model.get("producer_name") == "vggkit" and graph.get("name")
    network, tensors = walk.chain.network(plain_name(own or given.stem), walk.preprocess())
    notes = []
    if is_turned:
        _, height, width = walk.chain.image
        notes.append(f"its images are {height}×{width} with the channels last; here these are first")
    if has_turned_maps:
        notes.append("its output has the channels last; here these are first")
    return Imported(network, tensors, tuple(notes))


BEFORE_TURNS = ("Cast", "Identity", "Add", "Sub", "Mul", "Div", "Pad")
"""What may be done to images before their channels are put first."""


def _turns(nodes: list[Node], image: str, declared: list[int | None] | None, constants: Constants) -> bool:
    """Tell whether images have their channels last: what is done to them first puts these first."""
    for node in nodes:
        if image not in node.inputs or node.op == "Shape" or not node.outputs:
            continue
        if node.op == "Transpose":
            return node.integers("perm", ()) == (0, 3, 1, 2)
        if node.op == "Reshape" and declared is not None and declared[-1:] == [1]:  # which turns one channel, too
            sizes = constants.small(node.inputs[1])
            return sizes is not None and [*sizes[1:]] == [1, *declared[1:3]]
        if node.op not in BEFORE_TURNS:
            return False
        image = node.outputs[0]
    return False


def _image(name: str, declared: list[int | None] | None, asked: Shape | None, is_turned: bool) -> Shape:
    """Return the shape of a batch of images, as the graph has them."""
    if declared is None or len(declared) != 4:
        raise MalformedError(f"its input {escaped(shorten(name))} is no batch of images of known sizes")
    batch, *sizes = declared
    if asked is not None:
        sizes = [*asked[1:], asked[0]] if is_turned else [*asked]
    if not all(isinstance(size, int) and 1 <= size <= max(LARGEST_SIDE, MOST_CHANNELS) for size in sizes):
        raise MalformedError("it does not say the size of its images; --input says it")
    batch = batch if batch and 1 <= batch <= 2**10 else BATCH
    return (batch, *(int(size or 0) for size in sizes))


def _follow(nodes: list[Node], walk: Walk, outputs: list[str]) -> bool:
    """Follow the current value to the graph's output.

    Returns:
        Whether that has its channels last.

    Raises:
        LayerError: names the operation that can't be followed, and says why.
    """
    uses: dict[str, int] = {}
    for node in nodes:
        for name in {*node.inputs} if node.op != "Shape" else ():
            uses[name] = uses.get(name, 0) + 1
    for name in outputs:
        uses[name] = uses.get(name, 0) + 1
    behind: set[str] = set()
    place = -1
    while (place := place + 1) < len(nodes):
        node = nodes[place]
        try:
            if node.op == "Shape" and node.inputs[0] in walk.shapes:
                note_shape(node, walk)
            elif walk.current not in node.inputs:
                if again := next((name for name in node.inputs if name in behind), None):
                    raise LayerError(f"it takes {escaped(shorten(again))} again; a network here is a chain")
                if all(not name or name in walk.constants for name in node.inputs):
                    fold(node, walk.constants)
            elif uses[walk.current] > 1 or node.inputs.count(walk.current) > 1:
                behind.add(walk.current)
                place = joined(nodes, place, walk, uses)
            else:
                behind.add(walk.current)
                read(node, walk)
                walk.go_on(node.outputs[0])
        except LayerError as error:
            raise type(error)(f"{node.told}: {error}") from None
        except (IndexError, MalformedError) as error:
            raise LayerError(f"{node.told}: {error}") from None
    if walk.current not in outputs or len(outputs) != 1:
        raise MalformedError(f"expected one output that is made of the image, found {escaped(shorten(outputs))}")
    walk.finish()
    if walk.axes == LAST and len(walk.chain.shape) == 3:
        return True
    walk.settle()
    return False

"""The tensors that a file has, and what is computed from them and from shapes as the file is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.shapes import Shape, elements
from vggkit.exchange.files import content_of
from vggkit.exchange.messages import MalformedError, Message
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.schema import DTYPES
from vggkit.exchange.values import Values, in_file, listed, unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PRODUCT = 10**7
"""Values that an operation on constants may make, or choose from."""

MOST_CONSTANT = 100_000
"""Values of the largest tensor that is computed with; weights are not."""


def declared(info: Message) -> list[int | None] | None:
    """Return the sizes that an input has, None for one that may be any; None if nothing is said."""
    tensor = info.message("type").message("tensor_type")
    if "shape" not in tensor:
        return None
    return [dim.get("dim_value") or None for dim in tensor.message("shape").messages("dim")]


class Constants:
    """The tensors that a file has, and what is computed from them.

    Args:
        graph: the file's.
        path: of the file; tensors may lie in others beside it.
        image: the name of the images. All other inputs are tensors, whose values a file without weights does not have.
    """

    def __init__(self, graph: Message, path: str, image: str) -> None:
        self.path = path
        self.values: dict[str, Values] = {}
        self.files: dict[str, memoryview] = {}
        for tensor in graph.messages("initializer"):
            self.values[tensor.get("name", "")] = self.tensor(tensor)
        for one in graph.messages("input"):
            sizes, name = declared(one), one.get("name", "")
            if name != image and sizes is not None and all(sizes):
                self.values.setdefault(name, unknown(tuple(size for size in sizes if size is not None)))

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def tensor(self, tensor: Message) -> Values:
        """Return the values of a tensor of the file."""
        shape: Shape = tuple(tensor.all("dims"))
        dtype = DTYPES.get(tensor.get("data_type", 0), "")
        told = escaped(shorten(tensor.get("name", "")))
        if not dtype or len(shape) > 8 or not all(0 <= size < 2**40 for size in shape):
            raise MalformedError(f"the tensor {told} has the shape {shorten(shape)} and an unknown type")
        try:
            if tensor.get("data_location", 0):
                return in_file(self.external(tensor), shape, dtype)
            if "raw_data" in tensor:
                return in_file(tensor.get("raw_data"), shape, dtype)
            word = {"float32": "float_data", "float64": "double_data", "int64": "int64_data"}.get(dtype, "int32_data")
            if dtype == "bfloat16":
                raise MalformedError("expected its values as raw bytes")
            return listed(tensor.values.get(word, []), lambda: tensor.all(word), shape, dtype)
        except MalformedError as error:
            raise MalformedError(f"the tensor {told}: {error}") from None

    def external(self, tensor: Message) -> memoryview:
        """Return the bytes of a tensor that lie in a file beside this one."""
        said = {entry.get("key"): entry.get("value", "") for entry in tensor.messages("external_data")}
        place = said.get("location", "")
        if not place or place != os.path.basename(place) or place in (".", ".."):
            raise MalformedError(f"it lies in {escaped(shorten(place))}; expected a file beside this one")
        if place not in self.files:
            beside = os.path.join(os.path.dirname(self.path), place)
            if os.path.islink(beside) or not os.path.isfile(beside):
                raise MalformedError(f"it lies in {escaped(shorten(place))}, which is no file beside this one")
            self.files[place] = content_of(beside)
        content = self.files[place]
        numbers = [said.get("offset", "0"), said.get("length", str(len(content)))]
        if not all(number.isdecimal() and len(number) < 16 for number in numbers):
            raise MalformedError("its place in the file is no number")
        offset, length = map(int, numbers)
        return content[offset : offset + length]

    def small(self, name: str) -> NDArray[Any] | None:
        """Return the values of a tensor that is computed with; None if it is none, or weights."""
        found = self.values.get(name)
        if found is None or not found.is_known or elements(found.shape) > MOST_CONSTANT:
            return None
        return found.load()

    def set(self, name: str, array: NDArray[Any]) -> None:
        """Note a tensor that was computed."""
        if array.size > MOST_CONSTANT:
            raise LayerError(f"it computes {array.size:,} values of constants")
        self.values[name] = Values(tuple(array.shape), str(array.dtype), lambda: array)

    def inverted(self, name: str) -> str:
        """Return the name of a tensor that has the inverse of each value of another one.

        Raises:
            LayerError: if these are not known, or have none.
        """
        array = self.small(name)
        if array is None or not array.all():
            raise LayerError(f"expected numbers other than 0 that are known, found {escaped(shorten(name))}")
        self.set(f"1/{name}", 1 / array.astype("float64"))
        return f"1/{name}"

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return a tensor as whole numbers.

        Raises:
            LayerError: if it is not known, or has others.
        """
        array = self.small(name)
        if array is None or array.dtype.kind not in "iu":
            raise LayerError(f"expected whole numbers that are known, found {escaped(shorten(name))}")
        return tuple(int(number) for number in array.reshape(-1))

    def number(self, name: str) -> float:
        """Return a tensor of one number.

        Raises:
            LayerError: if it is not known, or has more.
        """
        array = self.small(name)
        if array is None or array.size != 1:
            raise LayerError(f"expected a number that is known, found {escaped(shorten(name))}")
        return float(array.reshape(-1)[0])


# What is computed


def axes_of(node: Node, constants: Constants) -> tuple[int, ...] | None:
    """Return the axes of a Squeeze, an Unsqueeze or a ReduceMean: an option once, an input today."""
    if "axes" in node.attributes:
        return node.integers("axes", ())
    return constants.numbers(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None


def _constant(node: Node, _: list[NDArray[Any]], constants: Constants) -> NDArray[Any]:
    import numpy

    value = node.attributes.get("value")
    if value is not None:
        return constants.tensor(value.message("t")).load()
    for word, field, kind in (
        ("value_int", "i", numpy.int64),
        ("value_ints", "ints", numpy.int64),
        ("value_float", "f", numpy.float32),
        ("value_floats", "floats", numpy.float32),
    ):
        if word in node.attributes:
            found = node.attributes[word].all(field) if field.endswith("s") else node.attributes[word].get(field, 0)
            return numpy.array(found, kind)
    raise LayerError("it has no value that is known")


def _slice(node: Node, inputs: list[NDArray[Any]], _: Constants) -> NDArray[Any]:
    array, *given = inputs
    if given:
        parts = [[int(number) for number in part.reshape(-1)] for part in given]
    else:  # options, before opset 10
        parts = [list(node.integers(word, ())) for word in ("starts", "ends", "axes")]
    starts, ends = parts[:2]
    axes = parts[2] if len(parts) > 2 and parts[2] else list(range(len(starts)))
    steps = parts[3] if len(parts) > 3 else [1] * len(starts)
    index = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        index[axis] = slice(start, end, step)
    return array[tuple(index)]


def _cast(node: Node, inputs: list[NDArray[Any]], _: Constants) -> NDArray[Any]:
    return inputs[0].astype(DTYPES.get(node.integer("to", 0), ""))


def _filled(node: Node, inputs: list[NDArray[Any]], constants: Constants) -> NDArray[Any]:
    import numpy

    value = node.attributes.get("value")
    fill = constants.tensor(value.message("t")).load().reshape(-1) if value is not None else numpy.zeros(1, "float32")
    shape = tuple(int(size) for size in inputs[0].reshape(-1))
    if elements(shape) > MOST_CONSTANT:
        raise LayerError(f"it makes {elements(shape):,} values")
    return numpy.full(shape, fill[0])


def _squeezed(node: Node, inputs: list[NDArray[Any]], constants: Constants) -> NDArray[Any]:
    import numpy

    axes = axes_of(node, constants)
    if node.op == "Squeeze":
        return numpy.squeeze(inputs[0], axes)
    return numpy.expand_dims(inputs[0], axes or ())


FOLDED: dict[str, Callable[[Node, list[NDArray[Any]], Constants], NDArray[Any]]] = {
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Slice": _slice,
    "Cast": _cast,
    "Squeeze": _squeezed,
    "Unsqueeze": _squeezed,
    "Identity": lambda _n, inputs, _: inputs[0],
    "Gather": lambda node, inputs, _: inputs[0].take(inputs[1], axis=node.integer("axis", 0)),
    "Reshape": lambda _n, inputs, _: inputs[0].reshape([int(size) for size in inputs[1].reshape(-1)]),
    "Transpose": lambda node, inputs, _: inputs[0].transpose(node.integers("perm", range(inputs[0].ndim)[::-1])),
    "Add": lambda _n, inputs, _: inputs[0] + inputs[1],
    "Sub": lambda _n, inputs, _: inputs[0] - inputs[1],
    "Mul": lambda _n, inputs, _: inputs[0] * inputs[1],
    "Div": lambda _n, inputs, _: _quotient(inputs[0], inputs[1]),
    "Shape": lambda _n, inputs, _: _sizes(inputs[0]),
    "Concat": lambda node, inputs, _: _joined(inputs, node.integer("axis", 0)),
}
"""What is computed from known tensors."""


def _quotient(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    quotient: NDArray[Any] = first // second if first.dtype.kind == "i" else first / second
    return quotient


def _sizes(array: NDArray[Any]) -> NDArray[Any]:
    import numpy

    return numpy.array(array.shape, numpy.int64)


def _joined(inputs: list[NDArray[Any]], axis: int) -> NDArray[Any]:
    import numpy

    return numpy.concatenate(inputs, axis=axis)


def _moved_weights(node: Node, weights: Values, constants: Constants) -> Values | None:
    """Return weights that are not computed with, but given another shape; None if more is done to them."""
    rank = len(weights.shape)
    if node.op == "Identity":
        return weights
    if node.op == "Transpose" and rank == 2 and node.integers("perm", (1, 0)) == (1, 0):
        return weights.turned()
    if node.op == "Reshape" and len(node.inputs) > 1:
        return weights.shaped(constants.numbers(node.inputs[1]))
    return None


def _check_size(node: Node, inputs: list[NDArray[Any]]) -> None:
    """Refuse what would make many values of few, before it does."""
    if node.op == "Gather" and len(inputs) == 2:
        size = inputs[1].size * inputs[0].size
    elif node.op in ("Add", "Sub", "Mul", "Div") and len(inputs) == 2:
        first, second = ((1,) * (8 - array.ndim) + array.shape for array in inputs)
        size = prod(map(max, zip(first, second)))
    else:
        return
    if size > MOST_PRODUCT:
        raise LayerError(f"it computes with {size:,} values of constants")


def fold(node: Node, constants: Constants) -> None:
    """Compute what an operation makes of known tensors, if it can; else nobody knows what it makes.

    Raises:
        LayerError: if the tensors don't fit.
    """
    if not all(name in constants for name in node.inputs if name):
        return
    inputs = [constants.small(name) for name in node.inputs if name]
    if node.inputs and inputs[0] is None and node.outputs:
        moved = _moved_weights(node, constants.values[node.inputs[0]], constants)
        if moved is not None:
            constants.values[node.outputs[0]] = moved
        return
    known = [array for array in inputs if array is not None]
    if node.op not in FOLDED or len(known) < len(inputs) or not node.outputs:
        return
    _check_size(node, known)
    try:
        constants.set(node.outputs[0], FOLDED[node.op](node, known, constants))
    except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, (LayerError, MalformedError)):
            raise
        raise LayerError(f"its tensors don't fit: {escaped(shorten(str(error)))}") from None

"""ONNX's operations that give values another shape or another order.

Source: docs/Operators.md in onnx/onnx.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Shape, times
from vggkit.exchange.onnx.constants import axes_of
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.readers import reads
from vggkit.exchange.onnx.walk import Walk

if TYPE_CHECKING:
    from numpy.typing import NDArray


@reads("Flatten")
def _(node: Node, walk: Walk) -> None:
    if node.integer("axis", 1) % len(walk.shape) != 1:
        raise LayerError(f"axis: expected 1, found {node.integer('axis', 1)}")
    size = prod(walk.shape[1:])
    walk.move(lambda array: array.reshape(array.shape[0], -1), (walk.batch, size), node.told)


@reads("Reshape")
def _(node: Node, walk: Walk) -> None:
    sizes = list(node.integers("shape", ()) if "shape" in node.attributes else walk.constants.numbers(node.inputs[1]))
    if not node.integer("allowzero", 0):
        sizes = [
            walk.shape[place] if size == 0 and place < len(walk.shape) else size for place, size in enumerate(sizes)
        ]
    whole = prod(walk.shape)
    known = prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1 or not known or whole % known or len(sizes) > 8:
        raise LayerError(f"it can't make {shorten(sizes)} of {times(walk.shape)}")
    shape = tuple(whole // known if size == -1 else size for size in sizes)
    if prod(shape) != whole:
        raise LayerError(f"it can't make {times(shape)} of {times(walk.shape)}")
    _reshape(node, walk, shape)


def _reshape(node: Node, walk: Walk, shape: Shape) -> None:
    if len(walk.shape) == 2 and len(shape) == 3:  # groups of flat features
        walk.settle()
    axes = walk.axes if shape == walk.shape else None
    walk.move(lambda array: array.reshape(shape), shape, node.told, axes=axes)


@reads("Concat")
def _(node: Node, _: Walk) -> None:
    if len(node.inputs) != 1:
        raise LayerError("it joins values with others; a network here is a chain")


@reads("Squeeze")
def _(node: Node, walk: Walk) -> None:
    rank = len(walk.shape)
    axes = axes_of(node, walk.constants)
    gone = {axis % rank for axis in axes} if axes else {p for p, size in enumerate(walk.shape) if size == 1 and p}
    if any(walk.shape[place] != 1 for place in gone):
        raise LayerError(f"it can't drop axes of {times(walk.shape)}")
    _reshape(node, walk, tuple(size for place, size in enumerate(walk.shape) if place not in gone))


@reads("Unsqueeze")
def _(node: Node, walk: Walk) -> None:
    axes = axes_of(node, walk.constants) or ()
    rank = len(walk.shape) + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) != len(axes) or rank > 8:
        raise LayerError("expected different axes")
    old = iter(walk.shape)
    _reshape(node, walk, tuple(1 if place in new else next(old) for place in range(rank)))


@reads("Transpose")
def _(node: Node, walk: Walk) -> None:
    rank = len(walk.shape)
    order = node.integers("perm", range(rank)[::-1])
    if sorted(order) != list(range(rank)):
        raise LayerError(f"perm: expected an order of {rank} axes, found {shorten(order)}")
    axes = None if walk.axes is None else tuple(walk.axes[place] for place in order)

    def move(array: NDArray[Any]) -> NDArray[Any]:
        return array.transpose(order)

    walk.move(move, tuple(walk.shape[place] for place in order), node.told, axes=axes, turns=True)

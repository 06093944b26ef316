"""What only moves values: views and permutations, and the layer that several of them are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Shape, elements, times
from vggkit.exchange.values import MisfitError
from vggkit.notation.layers import Flatten

MOST_VALUES = 2**22
"""Values of a batch that are followed into another order."""

MOST_MOVES = 50
"""One behind the other."""

MOST_AXES = 8


class Move(NamedTuple):
    """A change of shape, or of order.

    Args:
        shape: that values have afterwards, the batch included.
        order: of the axes before, as `permute` has it; None if values stay in their order.
    """

    shape: Shape
    order: tuple[int, ...] | None = None


def moves_of(op: str, x: Shape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Move] | None:
    """Return the moves that an operation of ATen is; None if it does more.

    Args:
        op: its name.
        x: the shape of its input, the batch included.
        args: its arguments behind the input.
        kwargs: the same by their names.

    Raises:
        LayerError: if the arguments don't fit the input.
    """
    maker = MOVES.get(op)
    if maker is None:
        return None
    try:
        found = maker(x, *args, **kwargs)
    except (TypeError, ValueError, IndexError):
        raise MisfitError(f"it can't move {times(x)} as {shorten(args)} say") from None
    if any(len(move.shape) > MOST_AXES or prod(move.shape) != prod(x) for move in found):
        raise MisfitError(f"it can't make {times(found[-1].shape)} of {times(x)}")
    return found


def _axis(x: Sequence[int], axis: int) -> int:
    if type(axis) is not int or not -len(x) <= axis < len(x):
        raise IndexError
    return axis % len(x)


def _reshape(x: Shape, *sizes: Any) -> list[Move]:
    wanted = [*sizes[0]] if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else [*sizes]
    if not all(type(size) is int and (size > 0 or size == -1) for size in wanted) or wanted.count(-1) > 1:
        raise ValueError
    known = prod(size for size in wanted if size != -1)
    return [Move(tuple(prod(x) // known if size == -1 else size for size in wanted))]


def _flatten(x: Shape, start_dim: int = 0, end_dim: int = -1) -> list[Move]:
    start, end = _axis(x, start_dim), _axis(x, end_dim)
    return [Move((*x[:start], prod(x[start : end + 1]), *x[end + 1 :]))]


def _unflatten(x: Shape, dim: int, sizes: Any) -> list[Move]:
    axis = _axis(x, dim)
    inner = _reshape((x[axis],), sizes)[0].shape
    return [Move((*x[:axis], *inner, *x[axis + 1 :]))]


def _squeeze(x: Shape, dim: Any = None) -> list[Move]:
    dims = range(len(x)) if dim is None else dim if isinstance(dim, (list, tuple)) else (dim,)
    gone = {_axis(x, one) for one in dims}
    return [Move(tuple(size for axis, size in enumerate(x) if size != 1 or axis not in gone))]


def _unsqueeze(x: Shape, dim: int) -> list[Move]:
    axis = _axis((*x, 1), dim)
    return [Move((*x[:axis], 1, *x[axis:]))]


def _permute(x: Shape, *dims: Any) -> list[Move]:
    said = dims[0] if len(dims) == 1 and isinstance(dims[0], (list, tuple)) else dims
    order = tuple(_axis(x, dim) for dim in said)
    if sorted(order) != list(range(len(x))):
        raise ValueError
    return [Move(tuple(x[axis] for axis in order), order)]


def _transpose(x: Shape, dim0: int, dim1: int) -> list[Move]:
    order = list(range(len(x)))
    first, second = _axis(x, dim0), _axis(x, dim1)
    order[first], order[second] = second, first
    return _permute(x, order)


def _channel_shuffle(x: Shape, groups: int) -> list[Move]:
    batch, channels, *sizes = x
    if channels % groups:
        raise ValueError
    split = (batch, groups, channels // groups, *sizes)
    order = (0, 2, 1, *range(3, len(split)))
    return [Move(split), *_permute(split, order), Move(x)]


MOVES: dict[str, Callable[..., list[Move]]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), _reshape),
    "flatten": _flatten,
    "unflatten": _unflatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    "channel_shuffle": _channel_shuffle,
}
"""Operations that only move values."""


def layer_of_moves(moves: Sequence[Move], x: Shape, batch: int) -> Flatten | None:
    """Return the layer that moves are together; None if they leave values as they were.

    Args:
        moves: one behind the other.
        x: the shape before them, for one image.
        batch: images.

    Raises:
        LayerError: if no layer moves values like that.
    """
    if len(moves) > MOST_MOVES:
        raise LayerError(f"expected at most {MOST_MOVES} moves of values before a layer, found more")
    shape = moves[-1].shape
    if shape == (batch, *x) and _are_in_order(moves, (batch, *x), range(len(x) + 1)):
        return None
    if shape == (batch, elements(x)) and len(x) == 3:
        for order, axes in (("chw", (0, 1, 2, 3)), ("hwc", (0, 2, 3, 1))):
            if _are_in_order(moves, (batch, *x), axes):
                return Flatten("hwc") if order == "hwc" else Flatten()
    raise MisfitError(
        f"no layer of a configuration moves values so, from {times(x)} to {times(shape[1:]) or 'nothing'}"
    )


def _are_in_order(moves: Sequence[Move], x: Shape, axes: Sequence[int]) -> bool:
    """Tell whether moves leave values in the order that they have with the axes in some order."""
    if all(move.order is None for move in moves):
        return [*axes] == [*range(len(x))]
    if prod(x) > MOST_VALUES:
        raise LayerError(f"more than {MOST_VALUES:,} values are not followed into another order")
    import numpy

    numbers = moved = numpy.arange(prod(x)).reshape(x)
    for move in moves:
        moved = moved.reshape(move.shape) if move.order is None else moved.transpose(move.order)
    return numpy.array_equal(moved.reshape(-1), numbers.transpose(tuple(axes)).reshape(-1))

"""Shapes of tensors, for one image: C×H×W, or (features,) once flattened. The batch is multiplied elsewhere."""

from __future__ import annotations

import msgspec

Shape = tuple[int, ...]
Pair = tuple[int, int]
"""Height and width."""


class Kept(msgspec.Struct, frozen=True):
    """A tensor that autograd keeps from the forward to the backward pass.

    Args:
        what: "input", "output", "clone of the input", or the name of a tensor that only the backward pass needs.
        shape: its shape; for input and output that of one image.
        element_bytes: bytes per element; None means the network's own dtype.
        per_image: whether it grows with the batch.
    """

    what: str
    shape: Shape
    element_bytes: int | None = None
    per_image: bool = True


def times(shape: Shape) -> str:
    """Return a shape as people write it.

    >>> times((64, 224, 224))
    '64×224×224'
    """
    return "×".join(map(str, shape))


def elements(shape: Shape) -> int:
    """Return the number of elements of a shape, exact however large.

    >>> elements((64, 224, 224))
    3211264
    """
    product = 1
    for size in shape:
        product *= size
    return product


def pair(size: int | Pair) -> Pair:
    """Return (height, width) of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else size

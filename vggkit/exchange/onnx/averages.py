"""Averages to a size that does not divide, as products with matrices: one for the height, one for the width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def averages(size: int, outputs: int) -> list[list[float]]:
    """Return a matrix whose i-th row averages the values from ⌊i·size/outputs⌋ to ⌈(i+1)·size/outputs⌉, as torch does.

    >>> averages(3, 2)
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    found = []
    for index in range(outputs):
        start, end = index * size // outputs, -(-(index + 1) * size // outputs)
        found.append([1 / (end - start) if start <= place < end else 0.0 for place in range(size)])
    return found


def averages_to(matrix: NDArray[Any] | None, size: int) -> int | None:
    """Return how many averages of so many values a matrix makes, each in a row; None if it does something else."""
    import numpy

    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != size:
        return None
    is_same = numpy.array_equal(matrix, numpy.array(averages(size, len(matrix)), matrix.dtype))
    return len(matrix) if is_same else None

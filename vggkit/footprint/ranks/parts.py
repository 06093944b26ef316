"""What ranks that have parts of parameters have in common: how many rows are whose."""

from __future__ import annotations


def rows_of(rows: int, ranks: int, rank: int) -> int:
    """Return how many rows a rank has: as many as the first, as long as there are so many (`torch.chunk`).

    >>> [rows_of(10, 4, rank) for rank in range(4)]
    [3, 3, 3, 1]
    """
    each = -(-rows // ranks)
    return max(0, min(each, rows - rank * each))

"""What a rank sends and receives in torch's collective operations.

The formulas are those of rings, as NCCL forms them: each rank has a neighbour to send to, and one to receive from
(P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", Journal of Parallel
and Distributed Computing 69, 2009; NVIDIA's nccl-tests, doc/PERFORMANCE.md). Another algorithm may send more.
"""

from __future__ import annotations

from typing import NamedTuple


class Traffic(NamedTuple):
    """What a rank sends and receives.

    Args:
        sent: bytes that it sends.
        received: bytes that it receives.
    """

    sent: int = 0
    received: int = 0

    def plus(self, other: Traffic) -> Traffic:
        """Return both together."""
        return Traffic(self.sent + other.sent, self.received + other.received)

    def times(self, count: int) -> Traffic:
        """Return so many of it together."""
        return Traffic(self.sent * count, self.received * count)


def all_reduce(size: int, ranks: int) -> Traffic:
    """Add up so many bytes of each rank, so that each has the sum: 2 · (ranks − 1) / ranks of them, rounded up.

    >>> all_reduce(1000, 8)
    Traffic(sent=1750, received=1750)
    """
    each = -(-2 * (ranks - 1) * size // ranks)
    return Traffic(each, each)


def broadcast(size: int, ranks: int, rank: int, source: int = 0) -> Traffic:
    """Hand so many bytes on from rank to rank, from the source to the one before it.

    >>> [broadcast(1000, 4, rank, source=2) for rank in range(3)]
    [Traffic(sent=1000, received=1000), Traffic(sent=0, received=1000), Traffic(sent=1000, received=0)]
    """
    return Traffic(size if rank != (source - 1) % ranks else 0, size if rank != source else 0)


def all_gather(size: int, ranks: int) -> Traffic:
    """Hand each rank's part of so many bytes to all others: (ranks − 1) / ranks of them, rounded up.

    >>> all_gather(1000, 8)
    Traffic(sent=875, received=875)
    """
    each = -(-(ranks - 1) * size // ranks)
    return Traffic(each, each)


def reduce_scatter(size: int, ranks: int) -> Traffic:
    """Add up so many bytes of each rank, so that each has its part of the sum: as much as `all_gather`."""
    return all_gather(size, ranks)

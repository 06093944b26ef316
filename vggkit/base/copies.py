"""The memory that CUDA's kernels take to copy many tensors at once: addresses and sizes, for a moment.

Both divide each tensor among blocks of threads, and have a list of them on the card
(aten/src/ATen/native/cuda/TensorShape.cu). How many blocks there are depends on the card: an A100 is assumed, as in
`vggkit.base.sums`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, sqrt

from vggkit.base.sums import MULTIPROCESSORS, THREADS

BLOCK_THREADS, THREAD_BYTES = 128, 16
"""Threads of a block, and bytes that each copies at once (BLOCK_SIZE, BYTES_PER_THREAD)."""

NUMBER_BYTES = 8
"""An int64."""


def splitting(chunks: Sequence[int], count: int) -> int:
    """Return the bytes that `split_with_sizes_copy` takes.

    Args:
        chunks: bytes of a chunk of each output.
        count: how many chunks each output has.

    >>> splitting([3456, 24, 3456, 24], 3)
    184
    """
    most_blocks = MULTIPROCESSORS * THREADS // BLOCK_THREADS * 2
    turns = ceil(_blocks(chunks) * count / most_blocks)
    chunks_of_block = min(ceil(sqrt(turns)), count)
    blocks = _blocks(chunks, times=ceil(turns / chunks_of_block))
    return NUMBER_BYTES * (4 * len(chunks) + 1 + blocks)


def chunking(chunks: Sequence[int]) -> int:
    """Return the bytes that `_chunk_cat` takes.

    Args:
        chunks: bytes of a chunk of each input, with padding.

    >>> chunking([3456, 24])
    136
    """
    return NUMBER_BYTES * (6 * len(chunks) + 2 + _blocks(chunks))


def _blocks(chunks: Iterable[int], times: int = 1) -> int:
    """Return how many blocks of threads copy a chunk of each tensor, if each thread copies so many times."""
    return sum(-(-chunk // (BLOCK_THREADS * THREAD_BYTES * times)) for chunk in chunks)

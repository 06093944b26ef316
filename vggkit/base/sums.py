"""The memory that CUDA's kernels take to add up many rows: FC layers' biases, batch norms, losses, Adafactor.

Such a kernel divides very many rows into parts, so that the whole card has work. It asks torch's allocator for memory
for the sums of each part, and for counters, and gives both back when it has run. The number of parts does not grow in a
line with the batch, and it depends on the card: an A100 is assumed. Sums over more than 2 GiB are not modelled, nor are
averages of maps of more than 131,071 positions, nor sums over more than 131,071 classes, or 4,095 at each position.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

MULTIPROCESSORS, THREADS = 108, 2048
"""An A100's multiprocessors, and the threads that each of them runs at a time (NVIDIA A100 white paper, table 4)."""

WARP = 32
"""Threads that run together."""

BLOCK = 512
"""Most threads of a block (aten/src/ATen/native/cuda: Reduce.cuh, mnt_wrapper; Normalization.cuh, MAX_BLOCK_SIZE)."""

FEWEST_ROWS = 16
"""Rows left to a thread at least (Reduce.cuh, min_values_per_thread; Normalization.cuh, ELEMENTS_PER_THREAD)."""

MOST_ROWS = 256
"""Rows left to a thread at most (Reduce.cuh, max_values_per_thread)."""

ENDLESS = 2**31
"""More rows than a kernel can count."""

COUNTER_BYTES = 4
"""An int32 for each column of blocks."""


class Split(NamedTuple):
    """How many parts rows are divided into.

    Args:
        rows_per_image: rows that are added up, for one image.
        height: rows that a block of threads reads at once.
        least: there are parts if a thread would have so many rows, or more, without.
        most: parts, after which the card has work enough.
        longest: rows that a thread has at most, even if there are more parts then.
    """

    rows_per_image: int
    height: int
    least: int
    most: int
    longest: int

    def parts(self, batch: int) -> int:
        """Return the number of parts; 0 if everything is added up at once."""
        rows = _ceil(self.rows_per_image * batch, self.height)  # of a thread
        if rows < self.least:
            return 0
        parts = min(max(self.most, _ceil(rows, self.longest)), _ceil(rows, FEWEST_ROWS))
        return parts if parts > 1 else 0


class PartialSums(NamedTuple):
    """Sums over rows, and what a kernel takes to make them in parts.

    Args:
        split: into how many parts.
        part_bytes: what the sums of a part take.
        counter_bytes: what the counters take.
    """

    split: Split
    part_bytes: int
    counter_bytes: int


def total(values_per_image: int, element_bytes: int) -> PartialSums:
    """Return the sum of all values of all images: of a single column, with a row for each value.

    Args:
        values_per_image: their number, for one image.
        element_bytes: of the elements in which they are added up.

    >>> total(1000, 4).split.parts(130), total(1000, 4).split.parts(131)
    (0, 16)
    """
    alone = column_sums(1, element_bytes)
    assert alone is not None
    return alone._replace(split=alone.split._replace(rows_per_image=values_per_image))


def column_sums(columns: int, element_bytes: int) -> PartialSums | None:
    """Return the sums of each column of a matrix with a row for each image (Reduce.cuh, setReduceConfig).

    Args:
        columns: their number.
        element_bytes: of the elements in which they are added up.

    Returns:
        The sums; None if there are so many columns that the card has work enough without parts.

    >>> column_sums(4096, 4).split.parts(1020), column_sums(4096, 4).split.parts(1021)
    (0, 16)
    """
    vector = gcd(columns, 4)  # columns that a thread reads at once (get_output_vec_size)
    groups, threads = columns // vector, BLOCK // vector
    width = min(_power_of_2(groups), WARP)
    blocks, most_blocks = _ceil(groups, width), MULTIPROCESSORS * (THREADS // threads)
    if blocks > most_blocks:
        return None
    split = Split(1, threads // width, least=MOST_ROWS, most=_ceil(most_blocks, blocks), longest=MOST_ROWS)
    return PartialSums(split, columns * width * vector * element_bytes, COUNTER_BYTES * blocks)


def channel_sums(channels: int, rows_per_image: int, element_bytes: int) -> PartialSums:
    """Return the sums of each channel, where channels lie side by side (Normalization.cuh, flexible_launch_configs).

    Args:
        channels: their number.
        rows_per_image: positions of an image.
        element_bytes: of what a part keeps of a channel.
    """
    width = min(_power_of_2(channels), WARP)
    split = Split(
        rows_per_image,
        height=BLOCK // width,
        least=7 * FEWEST_ROWS + 1,  # fewer than 8 parts are not worth it
        most=128,  # MAX_H_BLOCK
        longest=ENDLESS,
    )
    return PartialSums(split, channels * element_bytes, COUNTER_BYTES * _ceil(channels, width))


def _power_of_2(number: int) -> int:
    """Return the largest power of 2 up to a number."""
    return 1 << (number.bit_length() - 1)


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)

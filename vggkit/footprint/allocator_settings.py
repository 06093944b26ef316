"""The settings of torch's CUDA allocator, read from the text that PYTORCH_ALLOC_CONF takes.

Names, defaults and bounds are those of torch 2.14: c10/core/AllocatorConfig.h and .cpp, c10/cuda/CUDAAllocatorConfig.h.
torch takes a misspelt number as far as it can read it ("64x" is 64); here it is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgspec

from vggkit.base.eager import CUDA_BLOCK
from vggkit.base.errors import ArgumentError, did_you_mean, shorten

MIB = 1 << 20
"""What torch calls MB in its settings."""

INTERVALS = 16
"""Sizes are rounded by interval: up to 2 MiB, up to 4 MiB …, from 32 GiB on (kRoundUpPowerOfTwoIntervals)."""

UNLIMITED = sys.maxsize
"""The largest block that is split, if nothing is set: any."""

LARGE_SEGMENT = 20 * MIB
"""A segment for blocks of 1 to 10 MiB, and what an expandable segment grows by (large_segment_size)."""

Number = TypeVar("Number", int, float)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set of the allocator, in bytes.

    Args:
        expandable_segments: whether segments grow as memory is needed.
        large_segment: a segment for blocks of 1 to 10 MiB, and what an expandable segment grows by.
        max_split: blocks of this size are handed out whole, and only for requests of this size.
        max_rounding: from how many bytes on such a block is too large for a request; a large segment if not set.
        roundup_divisions: into how many steps the way to the next power of 2 is divided, for each of `INTERVALS`;
            0 or 1 where sizes are rounded to 512 bytes alone.
        garbage_collection_threshold: share of the limit beyond which blocks that have long been cached are given back;
            0 for never. Without a `memory_fraction` below 1 it has no effect.
        memory_fraction: share of the card that this process may have.

    >>> Settings.of("expandable_segments:True,max_split_size_mb:128").max_split
    134217728
    """

    expandable_segments: bool = False
    large_segment: int = LARGE_SEGMENT
    max_split: int = UNLIMITED
    max_rounding: int = LARGE_SEGMENT
    roundup_divisions: tuple[int, ...] = (0,) * INTERVALS
    garbage_collection_threshold: float = 0.0
    memory_fraction: float = 1.0

    @classmethod
    def of(cls, text: str) -> Settings:
        """Read settings: "key:value,key:value", as in PYTORCH_ALLOC_CONF.

        Raises:
            ArgumentError: says which setting is wrong, what was found and what is allowed.
        """
        said: dict[str, Any] = {}
        rest = "".join(text.split())
        while rest:
            pair = _PAIR.match(rest)
            if pair is None:
                raise ArgumentError(f"allocator: expected 'setting:value', found {shorten(rest)}")
            key, value = pair.groups()
            if key in _SETTINGS:
                field, read = _SETTINGS[key]
                said[field] = read(key, value)
            elif key not in _WITHOUT_EFFECT:
                _refuse_key(key)
            rest = rest[pair.end() :]
        segment = said.setdefault("large_segment", LARGE_SEGMENT)
        said.setdefault("max_rounding", segment)
        for key in ("max_split_size_mb", "max_non_split_rounding_mb"):
            size = said.get(_SETTINGS[key][0], segment)
            if size < segment:
                _refuse(key, f"at least {segment // MIB}, the size of a large segment", str(size // MIB))
        return cls(**said)

    @property
    def limits_splits(self) -> bool:
        """Whether there are blocks that are never split."""
        return self.max_split != UNLIMITED

    def limit(self, card_bytes: int) -> int | None:
        """Return what this process may have of a card, None where that is all of it."""
        return int(self.memory_fraction * card_bytes) if self.memory_fraction < 1 else None

    def lets_serve(self, block: int, size: int) -> bool:
        """Tell whether a free block may be handed out for a request, whose size is rounded (get_free_block)."""
        if size < self.max_split:
            return block < self.max_split
        return block < size + self.max_rounding

    def rounded(self, size: int) -> int:
        """Return the size of a block for a request (round_size)."""
        if size < CUDA_BLOCK:
            return CUDA_BLOCK
        interval = min(max(size.bit_length() - MIB.bit_length(), 0), INTERVALS - 1)
        divisions = self.roundup_divisions[interval]
        if divisions <= 1 or size <= CUDA_BLOCK * divisions:
            return -(-size // CUDA_BLOCK) * CUDA_BLOCK
        power = 1 << (size.bit_length() - 1)
        step = power // divisions
        return -(-size // step) * step


# Reading


_PAIR = re.compile(r"([^,:\[\]]+):(\[[^\[\]]*\]|[^,:\[\]]+)(?:,|$)")


def _refuse(key: str, expected: str, found: str) -> NoReturn:
    raise ArgumentError(f"allocator: {key}: expected {expected}, found {shorten(found)}")


def _refuse_key(key: str) -> NoReturn:
    known = ", ".join(_SETTINGS)
    raise ArgumentError(f"allocator: expected one of {known}, found {shorten(key)}.{did_you_mean(key, _SETTINGS)}")


def _number(kind: Callable[[str], Number], text: str) -> Number | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _flag(key: str, text: str) -> bool:
    if text not in ("True", "False"):
        _refuse(key, "True or False", text)
    return text == "True"


def _size(key: str, text: str) -> int:
    size = _number(int, text)
    if size is None or size < 0:
        _refuse(key, "a number of MiB", text)
    return min(size * MIB, UNLIMITED)


def _segment(key: str, text: str) -> int:
    size = _size(key, text)
    if size <= 10 * MIB:
        _refuse(key, "more than 10", text)
    return size


def _threshold(key: str, text: str) -> float:
    share = _number(float, text)
    if share is None or not 0 < share < 1:
        _refuse(key, "a number between 0 and 1", text)
    return share


def _fraction(key: str, text: str) -> float:
    share = _number(float, text)
    if share is None or not 0 <= share <= 1:
        _refuse(key, "a number from 0 to 1", text)
    return share


def _divisions(key: str, text: str) -> tuple[int, ...]:
    """Read one number for all intervals, or a list: the first holds for what is smaller, too, ">" for all the rest."""
    if not text.startswith("["):
        divisions = _power(text)
        if not divisions:
            _refuse(key, "a power of 2, or a list such as [256:1,512:2,>:4]", text)
        return (divisions,) * INTERVALS
    by_interval = [0] * INTERVALS
    last: int | None = None
    for pair in filter(None, text[1:-1].split(",")):
        boundary, _, value = pair.partition(":")
        size, divisions = _power(boundary), _power(value)
        if divisions is None or (boundary != ">" and not size):
            _refuse(key, "powers of 2, 'MiB:divisions', or '>:divisions' for all that are larger", pair)
        if size:
            interval = min(size.bit_length() - 1, INTERVALS - 1)
            if last is None:
                by_interval[:interval] = [divisions] * interval
            by_interval[interval] = divisions
            last = interval
        else:
            rest = (last or 0) + 1
            by_interval[rest:] = [divisions] * (INTERVALS - rest)
    return tuple(by_interval)


def _power(text: str) -> int | None:
    """Return a power of 2, or 0; None if it is neither."""
    number = _number(int, text)
    return number if number is not None and number >= 0 and number & (number - 1) == 0 else None


_SETTINGS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "expandable_segments": ("expandable_segments", _flag),
    "large_segment_size_mb": ("large_segment", _segment),
    "max_split_size_mb": ("max_split", _size),
    "max_non_split_rounding_mb": ("max_rounding", _size),
    "roundup_power2_divisions": ("roundup_divisions", _divisions),
    "garbage_collection_threshold": ("garbage_collection_threshold", _threshold),
    "per_process_memory_fraction": ("memory_fraction", _fraction),
}
"""Each setting: the field that it fills, and how its value is read."""

_WITHOUT_EFFECT = (
    "graph_capture_record_stream_reuse",
    "pinned_free_catch_all",
    "pinned_max_cached_size_mb",
    "pinned_max_round_threshold_mb",
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "pinned_use_background_threads",
    "pinned_use_cuda_host_register",
    "release_lock_on_cudamalloc",
)
"""What torch knows beside them: of other memory than the card's, or of no effect on what is allocated."""

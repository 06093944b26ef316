"""Loops of steps for a page's script, in few characters: most of a loop is the same for every optimizer and dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from vggkit.base.eager import Event, Storage
from vggkit.footprint.card import Loop


def loops_data(loops: Mapping[str, Mapping[str, Loop]]) -> dict[str, Any]:
    """Return loops with what they share written once.

    Args:
        loops: by dtype and step.

    Returns:
        `sizes`: constant bytes and bytes per image, each pair once. `parts`: lists of events, each once; an event is
        the number of the storage that it allocates, counted from 1; below 0 it frees it. `of`: for each dtype and step
        the storages by their places in `sizes`, and `before`, `first` and `later` of the loop by places in `parts`.
    """
    sizes: dict[tuple[int, int], int] = {}
    parts: dict[tuple[int, ...], int] = {}
    return {
        "of": {
            dtype: {word: _loop_data(loop, sizes, parts) for word, loop in of_dtype.items()}
            for dtype, of_dtype in loops.items()
        },
        "sizes": list(sizes),
        "parts": list(parts),
    }


def _loop_data(
    loop: Loop, sizes: dict[tuple[int, int], int], parts: dict[tuple[int, ...], int]
) -> dict[str, list[int]]:
    """Return a loop; its sizes and parts are added to those of the loops before."""
    numbers: dict[Storage, int] = {}

    def numbered(event: Event) -> int:
        _, storage, is_allocation = event
        number = numbers.setdefault(storage, len(numbers) + 1)
        return number if is_allocation else -number

    def places(events: Sequence[Event]) -> list[int]:
        by_phase = groupby(events, key=_phase)
        return [parts.setdefault(tuple(map(numbered, events)), len(parts)) for _, events in by_phase]

    written = {"before": places(loop.before), "first": places(loop.first), "later": places(loop.later)}
    storages = [sizes.setdefault((storage.constant, storage.per_image), len(sizes)) for storage in numbers]
    return {"storages": storages, **written}


def _phase(event: Event) -> str:
    """Return what the step is in: "forward" for "forward of block1_conv1"."""
    return event[0].partition(" of ")[0]

"""Loops of steps for a page's script, in few characters: most of a loop is the same for every optimizer and dtype."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from vggkit.base.eager import OPTIMIZER, Event, Storage
from vggkit.footprint.card import Loop


def loops_data(loops: Mapping[str, Mapping[str, Loop]]) -> dict[str, Any]:
    """Return loops with what they share written once.

    Args:
        loops: by dtype and step.

    Returns:
        `sizes`: the numbers that give the bytes of a storage (`Storage.rule`), each once. `storages`: lists of storages
        by their places in `sizes`, each list once. `parts`: lists of events, each once; an event is the number of the
        storage that it allocates, counted from 1; below 0 it frees it. `of`: for each dtype and step the `storages`,
        and `before`, `first` and `later` of the loop, all by the places of their lists.
    """
    sizes: dict[tuple[int, ...], int] = {}
    storages: dict[tuple[int, ...], int] = {}
    parts: dict[tuple[int, ...], int] = {}

    def written(loop: Loop) -> dict[str, list[int]]:
        of_network, of_optimizer = _network_storages(loop), _optimizer_storages(loop)
        numbers = {one: number for number, alike in enumerate([*of_network, *of_optimizer], 1) for one in alike}

        def places(events: Sequence[Event]) -> list[int]:
            signed = (
                tuple(numbers[storage] if is_allocation else -numbers[storage] for _, storage, is_allocation in part)
                for _, part in groupby(events, key=_phase)
            )
            return [parts.setdefault(part, len(parts)) for part in signed]

        def written_once(alikes: Iterable[Sequence[Storage]]) -> int:
            listed = tuple(sizes.setdefault(alike[0].rule, len(sizes)) for alike in alikes)
            return storages.setdefault(listed, len(storages))

        return {
            "storages": [written_once(of_network), written_once(of_optimizer)],
            "before": places(loop.before),
            "first": places(loop.first),
            "later": places(loop.later),
        }

    return {
        "of": {dtype: {word: written(loop) for word, loop in of_dtype.items()} for dtype, of_dtype in loops.items()},
        "sizes": list(sizes),
        "storages": list(storages),
        "parts": list(parts),
    }


def _network_storages(loop: Loop) -> list[list[Storage]]:
    """Return the storages that are not the optimizer's, each as one that shares its number with no other."""
    every = dict.fromkeys(storage for events in loop for _, storage, _ in events)
    return [[storage] for storage in every if storage.kind != OPTIMIZER]


def _optimizer_storages(loop: Loop) -> list[list[Storage]]:
    """Return the optimizer's storages, together those that share a number.

    A temporary one leaves its number to the next of its size, so that later steps need no more than the first one.
    """
    lasting = {storage for events in loop for storage in _lasting(events)}
    shared: list[list[Storage]] = []
    of: dict[Storage, list[Storage]] = {}
    free: defaultdict[tuple[int, ...], deque[list[Storage]]] = defaultdict(deque)
    for events in loop:
        for _, storage, is_allocation in events:
            if storage.kind != OPTIMIZER:
                continue
            if not is_allocation:
                free[storage.rule].append(of[storage])
            elif storage not in lasting and free[storage.rule]:
                of[storage] = free[storage.rule].popleft()
                of[storage].append(storage)
            else:
                of[storage] = [storage]
                shared.append(of[storage])
    return shared


def _lasting(events: Sequence[Event]) -> Iterator[Storage]:
    """Yield the storages that are there after events, or were before them."""
    alive = set()
    for _, storage, is_allocation in events:
        if is_allocation:
            alive.add(storage)
        elif storage in alive:
            alive.remove(storage)
        else:
            yield storage
    yield from alive


def _phase(event: Event) -> str:
    """Return what the step is in: "forward" for "forward of block1_conv1"."""
    return event[0].partition(" of ")[0]

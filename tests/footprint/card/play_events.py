"""Let torch's allocator play allocations: what it has handed out and reserved after each of them.

A question has the settings, the share of the card and the events: a positive number allocates so many bytes, -n frees
what the n-th allocation gave, 0 empties the cache. The answer has the figures and the segments after each event; it is
null if torch refuses the settings.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

BEFORE = "expandable_segments:False,large_segment_size_mb:20"
"""What would stay from one text of settings to the next."""

Answer = list[Any]


def figures() -> Answer:
    """Return what torch counts, and the segments with their blocks, which tile them."""
    statistics = torch.cuda.memory_stats_as_nested_dict()
    kinds = ("allocated", "requested", "reserved")
    peaks = [statistics[f"{kind}_bytes"]["all"][when] for when in ("current", "peak") for kind in kinds]
    segments = [
        [
            segment["segment_type"],
            segment["is_expandable"],
            [_block(**block) for block in segment["blocks"]],
        ]
        for segment in torch.cuda.memory._snapshot()["segments"]
    ]
    return [*peaks, statistics["num_alloc_retries"], statistics["num_ooms"], segments]


def _block(size: int, requested_size: int, state: str, **_: Any) -> Answer:
    """Return a block's size and what was asked for; a free one still has what was asked for before it was freed."""
    return [size, requested_size if state == "active_allocated" else 0, state]


def play(settings: str, share: float, events: list[int]) -> list[Answer] | None:
    """Play events on an empty card."""
    torch._C._accelerator_setAllocatorSettings(BEFORE)
    try:
        torch._C._accelerator_setAllocatorSettings(settings)
    except (ValueError, RuntimeError):
        return None
    torch.cuda.set_per_process_memory_fraction(share)
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.reset_accumulated_memory_stats()
    tensors: list[torch.Tensor | None] = []
    answers = []
    for event in events:
        if event > 0:
            try:
                tensors.append(torch.empty(event, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                tensors.append(None)
        elif event < 0:
            tensors[-event - 1] = None
        else:
            torch.cuda.empty_cache()
        answers.append(figures())
    tensors.clear()
    empty()
    return answers


def empty() -> None:
    """Empty the card. In either pool an expandable segment that never got memory goes when it has had some."""
    torch.cuda.empty_cache()
    for size in (1, 2 << 20):
        torch.empty(size, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(play(**json.loads(line))), flush=True)

"""A loop of steps → what PyTorch's memory viewer opens: a steady step, allocation by allocation.

The viewer is https://pytorch.org/memory_viz, and reads what `torch.cuda.memory._snapshot` returns: the segments with
their blocks when the step ends, and a trace of the allocations and frees that led there. The card has room for the
step. So the allocator asks the card for nothing in a steady step, gives nothing back, and the trace has no segments.
What is there before the step stands in the segments alone; the viewer's legend calls it "unknown".

Frames say what a call stack would say in torch's own snapshots: in the place of the file what the memory is for, in the
place of the line the number of the operation in the step (0 is before it), in the place of the function the operation.
"""

from __future__ import annotations

import pickle
from bisect import bisect_right
from itertools import groupby
from operator import attrgetter
from typing import Any

from vggkit.base.eager import (
    ACTIVATIONS,
    COMMUNICATION,
    GRADIENTS,
    MEMORY_KINDS,
    OPTIMIZER,
    PARAMETERS,
    TEMPORARIES,
    Event,
    Storage,
)
from vggkit.footprint.allocator import GAP, Allocator, Block, BlockInfo, Pool, SegmentInfo
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import UNBOUNDED, Loop, Player, run

PROTOCOL = 4
"""Of the file: the viewer reads 2 to 4 (torch/utils/viz/MemoryViz.js, unpickle)."""

CATEGORIES = {
    GRADIENTS: "gradient",
    ACTIVATIONS: "activation",
    TEMPORARIES: "temporary",
    OPTIMIZER: "temporary",  # its state is there before the step
    PARAMETERS: "parameter",  # those that a rank gathers for a while
    COMMUNICATION: "temporary",
}
"""What torch calls the kinds of memory that a step allocates (torch/profiler/_memory_profiler.py, Category)."""

UNKNOWN = "unknown"
"""The category of what has none. The viewer fails if no event has it (MemoryViz.js, annotate_snapshot)."""

Frames = list[dict[str, Any]]


def on_cuda(loop: Loop, batch: int, text: str) -> dict[str, Any]:
    """Return a steady step on a card that is never full.

    Args:
        loop: whose step.
        batch: number of images.
        text: settings of the allocator.
    """
    settings = Settings.of(text)
    allocator = Allocator(UNBOUNDED, settings)
    steps = len(run(loop, batch, UNBOUNDED, settings))
    recording = Recording(Player(loop, batch, allocator), steps)
    return recording.snapshot(allocator.snapshot(), text)


def on_cpu(loop: Loop, batch: int) -> dict[str, Any]:
    """Return the second step in an arena.

    Args:
        loop: whose step.
        batch: number of images.
    """
    arena = Arena()
    recording = Recording(Player(loop, batch, arena), steps=2)
    return recording.snapshot([arena.snapshot()], "")


def pickled(snapshot: dict[str, Any]) -> bytes:
    """Return a snapshot as the viewer's file."""
    return pickle.dumps(snapshot, PROTOCOL)


class Arena:
    """Memory in one piece. A block is as large as what is asked for, and takes the smallest hole that has room."""

    def __init__(self) -> None:
        self._pool = Pool(UNBOUNDED)
        self._pool.insert(Block(self._pool, 0, UNBOUNDED))
        self._live: dict[int, Block] = {}
        self._end = 0

    def allocate(self, requested: int, stream: int = 0) -> Block:  # the CPU has none
        """Hand out a block, in the hole at the lowest address of those of the same size."""
        pool = self._pool
        block = pool.free[pool.first_of(requested)][-1]
        pool.remove(block)
        if block.size > requested:
            rest = block
            block = rest.cut(requested)
            pool.insert(rest)
        block.is_free = False
        block.requested = requested
        self._live[block.address] = block
        self._end = max(self._end, block.address + block.size)
        return block

    def free(self, block: Block) -> None:
        """Take a block back."""
        del self._live[block.address]
        block.is_free = True
        block.requested = 0
        self._pool.merge(block)
        self._pool.insert(block)

    def blocks(self) -> list[Block]:
        """Return every block by address, holes included; the last hole has no end."""
        holes = [block for *_, block in self._pool.free]
        return sorted([*self._live.values(), *holes], key=attrgetter("address"))

    def snapshot(self) -> SegmentInfo:
        """Return the blocks as a segment, which ends where a block that was handed out once ended."""
        tiles = [
            BlockInfo(block.address, min(block.size, self._end - block.address), block.requested)
            for block in self.blocks()
            if block.address < self._end
        ]
        return SegmentInfo(0, is_small=False, is_expandable=False, blocks=tuple(tiles))


class Recording:
    """The last of some steps, recorded as it is played.

    Args:
        player: plays the loop, from the beginning.
        steps: how many; at least 2.

    Attributes:
        trace: what is allocated and freed in the last step; the addresses are the player's.
    """

    def __init__(self, player: Player, steps: int) -> None:
        self.player = player
        self.trace: list[dict[str, Any]] = []
        self._frames: dict[Storage, Frames] = {}
        loop = player.loop
        for event in (*loop.before, *loop.first):
            self._frames[event[1]] = _frames(event, 0)
        player.play(loop.before)
        for number in range(steps - 1):
            player.play(loop.step(number))
        operations = groupby(loop.step(steps - 1), key=lambda event: event[0])
        for number, (_, events) in enumerate(operations, 1):
            for event in events:
                self._record(event, _frames(event, number))

    def snapshot(self, segments: list[SegmentInfo], text: str) -> dict[str, Any]:
        """Return it in the form of torch's snapshots.

        Args:
            segments: those of the allocator, by address.
            text: its settings.
        """
        near = Near(segments)
        held = {block.address: storage for storage, blocks in self.player.blocks.items() for block in blocks}
        frames = {address: self._frames[storage] for address, storage in held.items()}
        trace = [{**action, "addr": near.address(action["addr"])} for action in self.trace]
        return {
            "segments": [_segment(segment, near, frames) for segment in segments],
            "device_traces": [[*trace, _action("snapshot", 0, 0, [], UNKNOWN, len(trace))]],
            "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": text},
        }

    def _record(self, event: Event, frames: Frames) -> None:
        _, storage, is_allocation = event
        if is_allocation:
            self.player.play([event])
            self._frames[storage] = frames
            self._act("alloc", storage, self.player.blocks[storage][-1], frames)
            return
        block = self.player.blocks[storage][0]
        for word in ("free_requested", "free_completed"):
            self._act(word, storage, block, frames)
        self.player.play([event])

    def _act(self, word: str, storage: Storage, block: Block, frames: Frames) -> None:
        category = CATEGORIES[storage.kind]
        stream, time = block.stream, len(self.trace)
        self.trace.append(_action(word, block.address, block.requested, frames, category, time, stream))


class Near:
    """Segments that lie side by side: the viewer counts to 2^53, which the addresses of a card without end exceed.

    Args:
        segments: by address.
    """

    def __init__(self, segments: list[SegmentInfo]) -> None:
        self._starts = [segment.address for segment in segments]
        self._shifts = []
        end = 0
        for segment in segments:
            self._shifts.append(end + GAP - segment.address)
            end += GAP + segment.size

    def address(self, far: int) -> int:
        """Return where an address of a segment lies now."""
        return far + self._shifts[bisect_right(self._starts, far) - 1]


def _frames(event: Event, number: int) -> Frames:
    """Return the frames of an allocation, or of what ends it."""
    operation, storage, _ = event
    return [{"filename": _WORDS[storage.kind], "line": number, "name": operation}]


_WORDS = tuple(MEMORY_KINDS.values())


def _action(
    word: str, address: int, size: int, frames: Frames, category: str, time: int, stream: int = 0
) -> dict[str, Any]:
    return {
        "action": word,
        "addr": address,
        "size": size,
        "stream": stream,
        "time_us": time,  # in the order of events: how long they take is not known
        "frames": frames,
        "category": category,
    }


def _segment(segment: SegmentInfo, near: Near, frames: dict[int, Frames]) -> dict[str, Any]:
    allocated = sum(block.size for block in segment.blocks if not block.is_free)
    return {
        "device": 0,
        "address": near.address(segment.address),
        "total_size": segment.size,
        "allocated_size": allocated,
        "active_size": allocated,
        "requested_size": sum(block.requested for block in segment.blocks),
        "stream": segment.stream,
        "segment_type": "small" if segment.is_small else "large",
        "segment_pool_id": (0, 0),
        "is_expandable": segment.is_expandable,
        "frames": [],
        "blocks": [
            {
                "address": near.address(block.address),
                "size": block.size,
                "requested_size": block.requested,
                "state": "inactive" if block.is_free else "active_allocated",
                "frames": frames.get(block.address, []),
            }
            for block in segment.blocks
        ],
    }

"""What lies where on a card: the segments of torch's allocator and their blocks, at one moment of a loop of steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

import msgspec

from vggkit.base.eager import MEMORY_KINDS, Event
from vggkit.footprint.allocator import Allocator, BlockInfo, OutOfMemory, SegmentInfo
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import UNBOUNDED, Loop, Player, run
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import runnable_step
from vggkit.network import Network
from vggkit.notation.layers import Shape

KINDS = tuple(MEMORY_KINDS)


class Refusal(msgspec.Struct, frozen=True):
    """A request that the card has no room for.

    Args:
        size: bytes of the block.
        kind: what it would be for: a key of `MEMORY_KINDS`.
    """

    size: int
    kind: str


class Snapshot(msgspec.Struct, frozen=True):
    """A card at the fullest moment of its last step, or when a step runs out of memory.

    Args:
        name: the network's.
        input: shape of one image.
        options: what the steps are like.
        card_bytes: what the card has.
        step: which step it is, counted from 1; 0 while the model, images and targets are made.
        event: what runs: "backward of block1_relu1".
        segments: what is reserved, by address; its blocks in order.
        kinds: what each block that is handed out is for, by its address: a key of `MEMORY_KINDS`.
        refusal: the request that ends the loop; None if it goes on.
    """

    name: str
    input: Shape
    options: StepOptions
    card_bytes: int
    step: int
    event: str
    segments: tuple[SegmentInfo, ...]
    kinds: dict[int, str]
    refusal: Refusal | None

    @property
    def is_bounded(self) -> bool:
        """Whether the card can be full."""
        return self.card_bytes < UNBOUNDED

    @property
    def reserved_bytes(self) -> int:
        """Bytes of the segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def allocated_bytes(self) -> int:
        """Bytes of the blocks that are handed out."""
        return self.reserved_bytes - sum(hole.size for hole in self.holes)

    @property
    def left_bytes(self) -> int:
        """Bytes of the card that nobody has reserved."""
        return self.card_bytes - self.reserved_bytes

    @property
    def holes(self) -> tuple[BlockInfo, ...]:
        """The free blocks, the largest first."""
        free = (block for segment in self.segments for block in segment.blocks if block.is_free)
        return tuple(sorted(free, key=lambda block: -block.size))


def snapshot(network: Network, options: StepOptions, card_bytes: int = UNBOUNDED) -> Snapshot:
    """Run a loop of steps on an empty card, and look at it in the last, when it is fullest.

    If a step runs out of memory, it is looked at then. Else the last is one from where on the loop repeats itself.

    Args:
        network: the network.
        options: what a step is like, checked; the device is cuda.
        card_bytes: what the card has for torch's allocator.

    Raises:
        ArgumentError: if torch refuses to run the step.

    >>> looked_at = snapshot(Network.of("A"), StepOptions(batch=388, device="cuda"), 24 * 2**30)
    >>> looked_at.step, looked_at.event, looked_at.refusal.size, looked_at.holes[0].size, looked_at.left_bytes
    (3, 'backward of block1_relu1', 4983881728, 4457365504, 4175429632)
    """
    step = runnable_step(network, options)
    settings = Settings.of(options.allocator)
    *before, last = run(step.loop, options.at_once, card_bytes, settings)
    allocator = Allocator(card_bytes, settings)
    player = Player(step.loop, options.at_once, allocator)
    refusal: Refusal | None = None
    number, operation = 0, ""
    for number, event in _from_an_empty_card(player.loop):
        operation, storage, _ = event
        try:
            player.play([event])
        except OutOfMemory:
            refusal = Refusal(storage.bytes_at(options.at_once), KINDS[storage.kind])
            break
        if last is not None and number > len(before) and allocator.allocated.current == last.allocated:
            break
    return Snapshot(
        name=network.name,
        input=network.input_shape,
        options=options,
        card_bytes=card_bytes,
        step=number,
        event=operation,
        segments=tuple(allocator.snapshot()),
        kinds={block.address: KINDS[storage.kind] for storage, blocks in player.blocks.items() for block in blocks},
        refusal=refusal,
    )


def _from_an_empty_card(loop: Loop) -> Iterator[tuple[int, Event]]:
    """Yield every event of a loop that has no end, each with the number of its step; 0 is before the first."""
    for number, events in chain([(0, loop.before)], ((number + 1, loop.step(number)) for number in count())):
        for event in events:
            yield number, event

"""What a card must have for a loop of steps: its allocations, played into torch's allocator from an empty card.

The loop is the plain one. The model is built on the card, then images and targets are made there, once for all steps:

    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(model(images), labels)  # the loss of the step before lives until this one is there
        loss.backward()
        optimizer.step()  # the first time it makes its state

In inference it is `scores = model(images)` without gradients; the scores before live until the new ones are there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from vggkit.base.eager import Event, Storage
from vggkit.footprint.allocator import Allocator, Block, OutOfMemory
from vggkit.footprint.allocator_settings import Settings

UNBOUNDED = 1 << 256
"""Bytes of a card that is never full, whatever a step asks for."""

MOST_STEPS = 40
"""Steps after which a loop is taken as it is, if it has not come back to a state.

On a card with room, small tensors may wander about in their segments for hundreds of steps, while the figures stay. On
a full one each loop that was tried ran out of memory or came back within 20 steps. Only expandable segments may take
hundreds there, if the card is full to the last percent; one in thirty that ran for 40 steps ran out later.
"""

State = tuple[tuple[object, ...], ...]
"""The blocks of a card, and whose they are."""


class Loop(NamedTuple):
    """The allocations of a loop of steps, and what ends them, at any batch.

    Every later step has the same events. A storage that it frees before it allocates it anew, or once more than it
    allocates it, is that of the step before.

    Args:
        before: what is there when the loop begins: the model, images and targets.
        first: the first step.
        later: each other step.
    """

    before: Sequence[Event]
    first: Sequence[Event]
    later: Sequence[Event]

    def at(self, batch: int) -> Loop:
        """Return it without the storages that have no bytes at a batch."""
        return Loop(*([event for event in events if event[1].bytes_at(batch)] for events in self))

    def step(self, number: int) -> Sequence[Event]:
        """Return the events of a step, counted from 0."""
        return self.later if number else self.first


class Figures(NamedTuple):
    """The most bytes in a step.

    Args:
        allocated: of blocks that are handed out.
        requested: of what was asked for.
        reserved: of segments, which the card must have.
        retries: how often everything cached had been given back by then, from the first step on.
    """

    allocated: int
    requested: int
    reserved: int
    retries: int


class HandsOut(Protocol):
    """What hands out blocks of memory and takes them back, as an allocator does."""

    def allocate(self, requested: int, stream: int = 0) -> Block:
        """Hand out a block, in a stream."""

    def free(self, block: Block) -> None:
        """Take a block back."""

    def blocks(self) -> list[Block]:
        """Return every block by address, free ones included."""


class Player:
    """A loop that runs in empty memory.

    Args:
        loop: the loop.
        batch: number of images.
        allocator: of the memory.

    Attributes:
        loop: the loop at this batch.
        blocks: those that each storage has; of two, the older one comes first.
    """

    def __init__(self, loop: Loop, batch: int, allocator: HandsOut) -> None:
        self.loop = loop.at(batch)
        self.batch = batch
        self.allocator = allocator
        self.blocks: defaultdict[Storage, list[Block]] = defaultdict(list)

    @property
    def state(self) -> State:
        """All that decides what further steps do: each block by address, with its owner, whatever the addresses."""
        owners = {block: (storage, turn) for storage, held in self.blocks.items() for turn, block in enumerate(held)}
        return tuple(
            (
                block.pool.segment,
                block.stream,
                block.previous is None,
                block.is_mapped,
                block.size,
                owners.get(block, block.age),
            )
            for block in self.allocator.blocks()
        )

    def play(self, events: Sequence[Event]) -> None:
        """Allocate and free in order.

        Raises:
            OutOfMemory: if the card has no room.
        """
        allocate, free, blocks, batch = self.allocator.allocate, self.allocator.free, self.blocks, self.batch
        for _, storage, is_allocation in events:
            if is_allocation:
                blocks[storage].append(allocate(storage.bytes_at(batch), storage.stream))
            else:
                free(blocks[storage].pop(0))


def run(
    loop: Loop, batch: int, card_bytes: int, settings: Settings, steps: int | None = None, *, taken: int = 0
) -> list[Figures | None]:
    """Run a loop on an empty card.

    Args:
        loop: the loop.
        batch: number of images.
        card_bytes: what the card has.
        settings: of the allocator.
        steps: how many; if absent, until the card is in a state in which an earlier step has left it, from where on
            the loop repeats itself for ever; but `MOST_STEPS` at most.

    Returns:
        The figures of each step; the last is None if it ran out of memory.
    """
    allocator = Allocator(card_bytes, settings, taken)
    player = Player(loop, batch, allocator)
    loop = player.loop  # at this batch
    done: list[Figures | None] = []
    left: set[State] = set()
    try:
        player.play(loop.before)
        for number in range(steps or MOST_STEPS):
            allocator.reset_peaks()
            _play_step(player, allocator, loop.step(number))
            peaks = allocator.allocated.peak, allocator.requested.peak, allocator.reserved.peak
            done.append(Figures(*peaks, allocator.retries))
            if steps is not None:
                continue
            state = player.state
            if state in left:
                break
            left.add(state)
    except OutOfMemory:
        done.append(None)
    return done


def _play_step(player: Player, allocator: Allocator, events: Sequence[Event]) -> None:
    """Play a step.

    Equal parts are played until the card is as it was after an earlier one. From there on they go round in circles, and
    whole rounds are left out.
    """
    again = repeated(events)
    player.play(events[: again.start])
    played, parts = 0, len(again)
    left: dict[tuple[State, int], int] = {}
    while played < parts:
        player.play(events[again.start : again.start + again.step])
        played += 1
        before = left.setdefault((player.state, allocator.retries), played)
        if before < played:
            parts = played + (parts - played) % (played - before)
    player.play(events[again.stop :])


def repeated(events: Sequence[Event]) -> range:
    """Return where the parts of a step begin that are equal and follow each other.

    They are the batches whose gradients are added to those of earlier ones.

    >>> one, two = (("forward", Storage(8, 0, 8, 0), is_allocation) for is_allocation in (True, False))
    >>> repeated([one, two]), repeated([two, two, one, two, one, two, one])
    (range(0, 0), range(1, 7, 2))
    """
    last_seen: dict[Event, int] = {}
    length = equal = 0  # so many events before this place are equal to those that stand so far before them
    for place, event in enumerate(events):
        apart = place - last_seen.get(event, place)
        if apart != length:
            if 1 < length <= equal:
                break
            length, equal = apart, 0
        equal += 1
        last_seen[event] = place
    else:
        place = len(events)
    if not 1 < length <= equal:
        return range(0)
    return range(place - length - equal, place - equal % length, length)


class CardUse(NamedTuple):
    """What a step of a loop that repeats itself takes of a card.

    Args:
        allocated_bytes: most bytes of the blocks that are handed out (`torch.cuda.max_memory_allocated`).
        reserved_bytes: most bytes of the segments (`torch.cuda.max_memory_reserved`): what the card must have.
        retries: how often everything cached is given back in the step, to make room.
    """

    allocated_bytes: int
    reserved_bytes: int
    retries: int


def card_use(loop: Loop, batch: int, settings: Settings, card_bytes: int = UNBOUNDED, taken: int = 0) -> CardUse | None:
    """Return what the steady step of a loop takes of a card, None if a step runs out of memory."""
    *before, last = run(loop, batch, card_bytes, settings, taken=taken)
    if last is None:
        return None
    earlier = before[-1].retries if before and before[-1] is not None else 0
    return CardUse(last.allocated, last.reserved, last.retries - earlier)

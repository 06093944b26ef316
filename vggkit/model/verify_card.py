"""The user's proof on a card: runs the loops there, and sets what torch's allocator took beside what was claimed.

On a card torch asks its allocator for more than tensors: cuDNN and cuBLAS have workspaces from it, whose sizes only
they know. So what was claimed is proved in two parts, and both are exact. Each allocation of the plan is found among
those that torch made, in the same order and with the same lifetime; the others are workspaces. And all that torch asked
for, played by vggkit's own allocator, gives torch's figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from vggkit.base.eager import Event, Storage
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator import Allocator, Block
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import UNBOUNDED, run
from vggkit.footprint.cards import card_of
from vggkit.footprint.plan import plan_of
from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import runnable_step
from vggkit.footprint.steps.step import Step
from vggkit.model.claims import Claim, Subject
from vggkit.model.recording import Recording, record
from vggkit.network import Network

HISTORY, ALLOCATED, RESERVED, USED = "memory history", "max_memory_allocated", "max_memory_reserved", "mem_get_info"
"""The judges, of torch.cuda."""


def verify_card(network: Network, options: StepOptions) -> Iterator[Claim]:
    """Measure on this machine's card what a plan says of it; with a training step, for a forward pass as well.

    Args:
        network: whose plan.
        options: what the step is like; on CUDA.

    Raises:
        ArgumentError: if torch refuses to run the step.
        BuildError: if there is no card, or it has no room for the step.
    """
    if options.group != NO_GROUP:
        yield from _claims_of_ranks(network, options)
        return
    steps = (options.forward_only(), options) if options.mode == "training" else (options,)
    for step in [runnable_step(network, one) for one in steps]:
        yield from claims(step, record(network, step.options, steps_of(step)), Subject(step.options.mode))


def _claims_of_ranks(network: Network, options: StepOptions) -> Iterator[Claim]:
    """Measure a step of each rank that differs from others, without the others."""
    from vggkit.model.verify_ranks import asked  # what runs several ranks takes seconds to import

    alike: dict[Step, list[int]] = {}
    for rank, step in asked(network, options):
        alike.setdefault(step, []).append(rank)
    for step, ranks in alike.items():
        recording = record(network, step.options.of_rank(ranks[0]), steps_of(step))
        yield from claims(step, recording, Subject.of_ranks(ranks))


def steps_of(step: Step) -> int:
    """Return how many steps a loop takes until it repeats itself, as planned."""
    return len(run(step.loop, step.options.at_once, UNBOUNDED, Settings.of(step.options.allocator)))


def claims(step: Step, recording: Recording, subject: Subject) -> Iterator[Claim]:
    """Compare what a plan says of a card with what was recorded on one.

    Where torch asked for nothing but the plan's tensors, the plan's own figures must be equal to torch's. Where there
    are workspaces, they are shown for information, and the figures with workspaces must be equal.

    Args:
        step: what was planned.
        recording: of a loop of such steps.
        subject: whose claims they are.
    """
    plan, torchs, claim = plan_of(step), recording.figures[-1], subject.claim
    assert plan.allocated_bytes is not None
    assert plan.reserved_bytes is not None
    parts = list(map(of_tensors, (step.loop.before, *map(step.loop.step, range(len(recording.figures))))))
    moments = [moment for moment, _, is_allocation in chain.from_iterable(parts) if is_allocation]
    planned = lifetimes(numbered(parts, step.options.at_once), streams_of(parts))
    made = lifetimes(recording.parts, recording.streams)
    found = places(planned, made)
    what = "allocations of the plan"
    if len(found) < len(planned):
        what += f", up to {moments[len(found)]}"
    workspaces = made_besides(found, made) if len(found) == len(planned) else {}
    yield claim(what, len(planned), len(found), HISTORY)
    yield claim("allocated", plan.allocated_bytes, torchs.allocated, ALLOCATED, exact=not workspaces)
    yield claim("reserved", plan.reserved_bytes, torchs.reserved, RESERVED, exact=not workspaces)
    if workspaces:
        most = most_at_once(workspaces)
        yield claim("workspaces of cuDNN and cuBLAS", 0, most, HISTORY, exact=False)
        allocated, reserved = played(recording, Settings.of(step.options.allocator))
        yield claim("allocated with workspaces", allocated, torchs.allocated, ALLOCATED)
        yield claim("reserved with workspaces", reserved, torchs.reserved, RESERVED)
    beside = recording.used_bytes - recording.reserved_bytes
    yield claim("CUDA context (and other processes)", context_bytes(recording), beside, USED, exact=False)


def context_bytes(recording: Recording) -> int:
    """Return what is assumed of CUDA's own memory on the card, or where its name isn't known, on any card."""
    try:
        return card_of(recording.card).context_bytes
    except ArgumentError:
        return card_of(recording.total_bytes).context_bytes


# Which of torch's allocations are the plan's


class Lifetime(NamedTuple):
    """An allocation among others.

    Args:
        part: of the loop: 0 before the steps, then the step, counted from 1.
        size: bytes that were asked for.
        end: how many allocations there had been when it was freed, or in all if it never was.
        stream: where it was asked for.
    """

    part: int
    size: int
    end: int
    stream: int = 0

    def is_like(self, other: Lifetime) -> bool:
        """Tell whether the same was asked for at the same time."""
        return (self.part, self.size, self.stream) == (other.part, other.size, other.stream)


def lifetimes(parts: Iterable[Iterable[int]], streams: Sequence[int] = ()) -> list[Lifetime]:
    """Return each allocation of a loop, whose parts and streams are as in a recording.

    >>> [tuple(lifetime) for lifetime in lifetimes([[512, 1024], [-1, 2048]])]
    [(0, 512, 2, 0), (0, 1024, 3, 0), (1, 2048, 3, 0)]
    """
    made: list[tuple[int, int]] = []
    ends: dict[int, int] = {}
    for part, events in enumerate(parts):
        for event in events:
            if event > 0:
                made.append((part, event))
            else:
                ends[-event] = len(made)
    return [
        Lifetime(part, size, ends.get(number, len(made)), streams[number - 1] if streams else 0)
        for number, (part, size) in enumerate(made, 1)
    ]


def streams_of(parts: Iterable[Iterable[Event]]) -> list[int]:
    """Return the streams of a planned loop's allocations as a recording has them."""
    seen = {0: 0}
    made = (storage for part in parts for _, storage, is_allocation in part if is_allocation)
    return [seen.setdefault(storage.stream, len(seen)) for storage in made]


def of_tensors(events: Iterable[Event]) -> list[Event]:
    """Return events without what kernels take for themselves, which depends on the card: it is found as a workspace."""
    return [event for event in events if not event[1].is_scratch]


def numbered(parts: Iterable[Iterable[Event]], batch: int) -> Iterator[list[int]]:
    """Return the parts of a planned loop as a recording has them."""
    numbers: dict[Storage, list[int]] = {}
    count = 0
    for part in parts:
        events = []
        for _, storage, is_allocation in part:
            if is_allocation:
                count += 1
                numbers.setdefault(storage, []).append(count)
                events.append(storage.bytes_at(batch))
            else:
                events.append(-numbers[storage].pop(0))
        yield events


def places(planned: Sequence[Lifetime], made: Sequence[Lifetime]) -> list[int]:
    """Return where each planned allocation stands among those that torch made, up to the first that is not there.

    Each stands at the first place behind the one before that is in the same part and stream, has its size and lives as
    long. What has its size and is freed before its time, or stands where an earlier tensor should be gone, is a
    workspace that happens to be as large.

    >>> places(lifetimes([[512, 1024, -1]]), lifetimes([[512, -1, 512, 1024, -2]]))
    [1, 2]
    """
    earliest = [0] * len(planned)
    while True:
        found: list[int] = []
        place = 0
        for wanted, first in zip(planned, earliest):
            place = max(place, first)
            while place < len(made) and not made[place].is_like(wanted):
                place += 1
            if place == len(made):
                return found
            found.append(place)
            place += 1
        for number, wanted in enumerate(planned):
            end, freed = wanted.end, made[found[number]].end
            if freed <= found[end - 1]:  # too early: the last allocation during its life comes later
                earliest[number] = found[number] + 1
                break
            if end < len(found) and freed > found[end]:  # too late: the first allocation after it comes earlier
                earliest[end] = freed
                break
        else:
            return found


def made_besides(found: Iterable[int], made: Sequence[Lifetime]) -> dict[int, Lifetime]:
    """Return torch's other allocations by their places."""
    planned = set(found)
    return {place: lifetime for place, lifetime in enumerate(made) if place not in planned}


def most_at_once(allocations: Mapping[int, Lifetime]) -> int:
    """Return the most bytes that are allocated at one moment.

    >>> most_at_once({0: Lifetime(0, 512, 3), 1: Lifetime(0, 1024, 2), 2: Lifetime(0, 256, 3)})
    1536
    """
    return max(
        sum(one.size for begin, one in allocations.items() if begin <= moment < one.end) for moment in allocations
    )


# What our own allocator makes of torch's allocations


def played(recording: Recording, settings: Settings) -> tuple[int, int]:
    """Return the most allocated and reserved bytes of the last step, if our allocator is asked for all of it."""
    allocator = Allocator(UNBOUNDED, settings, addresses=recording.addresses)
    blocks: dict[int, Block] = {}
    count = 0
    for events in recording.parts:
        allocator.reset_peaks()
        for event in events:
            if event > 0:
                blocks[count + 1] = allocator.allocate(event, recording.streams[count] if recording.streams else 0)
                count += 1
            else:
                allocator.free(blocks.pop(-event))
    return allocator.allocated.peak, allocator.reserved.peak

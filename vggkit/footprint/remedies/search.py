"""The search for what makes a step fit: every combination of up to three kinds of change.

A combination is left out where a part of its kinds does it, too, and runs no more again. Of the changes of the same
kinds the one that runs the least again is kept; of equal ones the mildest. What is left is every way that gives up
something that no other one keeps. A step is walked through only if `bounds` does not know yet that it holds too much.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, islice
from math import inf
from typing import Any, NamedTuple

from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import card_use
from vggkit.footprint.card_fit import Room
from vggkit.footprint.remedies.bounds import Bounds
from vggkit.footprint.remedies.kinds import KINDS, Change, Kind, Price, run_again
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import decided, steps_with_room
from vggkit.footprint.steps.step import Step
from vggkit.network import Network

MOST_KINDS = 3
"""A way changes at most so many kinds of options."""


MOST_ALONE = (1 << 16) - 1
"""Of the changes of one kind alone so many are tried at most, the mildest ones: all sets of 16 blocks to checkpoint."""

MOST_COMBINED = (1 << 8) - 1
"""And so many where several kinds are combined: all sets of 8 blocks. A step takes about a millisecond."""


MOST_MISSED = (1 << 9) - 1
"""On a card so many ways are played in vain, whose tensors have room and which run out of memory all the same: of each
kind alone, and of all that are combined. E has two hundred at most. A play takes some ten milliseconds."""

FEWEST_MISSED = 7
"""And so many of each combination, however many have been played before."""


class Taken(NamedTuple):
    """What a step takes of a memory.

    Args:
        bytes: those of its tensors, or on a card those that torch's allocator reserves.
        retries: how often the allocator gives back in each step what it has cached; None where there is no allocator.
    """

    bytes: int
    retries: int | None


def fullest(ranks: Iterable[Taken]) -> Taken:
    """Return what the fullest rank takes."""
    return max(ranks, key=lambda taken: taken.bytes)


class Place(ABC):
    """Memory of a given size, in which a step runs or does not.

    Args:
        room: the card, or the size of the memory.
    """

    def __init__(self, room: Room) -> None:
        self.room = room

    @abstractmethod
    def taken(self, step: Step) -> Taken | None:
        """Return what a loop of such steps takes, None if it does not run there."""

    @abstractmethod
    def needed(self, step: Step) -> Taken:
        """Return what it would take of a memory with room for it."""

    def all_taken(self, steps: Iterable[Step]) -> Taken | None:
        """Return what the fullest of several ranks takes, None if one of them does not run."""
        each: list[Taken] = []
        for step in steps:
            taken = self.taken(step)
            if taken is None:
                return None
            each.append(taken)
        return fullest(each)


class MainMemory(Place):
    """Memory in which tensors lie anywhere."""

    def taken(self, step: Step) -> Taken | None:
        return self.needed(step) if step.peak.size <= self.room.bytes else None

    def needed(self, step: Step) -> Taken:
        return Taken(step.peak.size, None)


class OnCard(Place):
    """A card, whose memory torch's allocator hands out."""

    def taken(self, step: Step) -> Taken | None:
        if step.peak.size > self.room.bytes:  # what the allocator reserves is never less
            return None
        settings, card = Settings.of(step.options.allocator), self.room.card.total_bytes
        use = card_use(step.loop, step.options.at_once, settings, card, self.room.taken_bytes)
        return None if use is None else Taken(use.reserved_bytes, use.retries)

    def needed(self, step: Step) -> Taken:
        use = step.card_use()
        return Taken(use.reserved_bytes, use.retries)


PLACES: dict[str, type[Place]] = {"cpu": MainMemory, "cuda": OnCard}
"""The place by a step's device."""


class Way(NamedTuple):
    """A step with some of its options changed.

    Args:
        kinds: which kinds of change were made.
        changes: one of each.
        steps: the step then; of several ranks a step of each sort of them.
        taken: what it takes where it must run; None if it does not run there.
    """

    kinds: tuple[Kind, ...]
    changes: tuple[Change, ...]
    steps: Sequence[Step]
    taken: Taken | None

    @property
    def step(self) -> Step:
        """That of the fullest rank."""
        return max(self.steps, key=lambda step: step.peak.size)

    @property
    def recomputed(self) -> int:
        """Multiply-accumulates that the backward pass runs again, for one image, with whatever was there before."""
        return sum(run_again(*self.steps).values())

    @property
    def price(self) -> Price:
        """What it is paid for with: the dearest of what its changes are paid for with."""
        return max((change.price for change in self.changes), default=Price.SETTING)

    @property
    def run_again(self) -> int:
        """Multiply-accumulates that the changes run again, for one image."""
        return spent(self.changes)

    @property
    def options(self) -> dict[str, Any]:
        """What is changed, as keywords of `memory`."""
        return {word: value for change in self.changes for word, value in change.options.items()}

    @property
    def typed(self) -> str:
        """The same as options of the command line."""
        return " ".join(change.typed for change in self.changes)

    @property
    def cost(self) -> tuple[int, int, int, int]:
        """What ways that run are sorted by, the cheapest first."""
        assert self.taken is not None
        return self.price, self.recomputed, len(self.kinds), self.taken.bytes


class Search:
    """A search for the ways in which a step runs.

    Args:
        network: the network.
        options: what the step is like as it is, checked.
        place: where it must run.

    Attributes:
        as_it_is: the step without a change.
        nearest: of the ways that `ways` tries until it finds one, the one whose tensors take the least.
    """

    def __init__(self, network: Network, options: StepOptions, place: Place) -> None:
        self.network = network
        self.options = options
        self.place = place
        self._bounds = Bounds(network)
        self._found: list[Way] = []
        self._allowed = MOST_MISSED
        self.as_it_is = self.nearest = self._way((), (), options)

    def ways(self, among: Sequence[Kind] = KINDS) -> list[Way]:
        """Return the ways in which it runs: one for a combination of kinds, the small combinations first.

        Args:
            among: the kinds that are combined.
        """
        for number in range(1, MOST_KINDS + 1):
            for kinds in combinations(among, number):
                enough = min((way.run_again for way in self._found if set(way.kinds) < set(kinds)), default=inf)
                way = self.cheapest(kinds, enough, MOST_ALONE if number == 1 else MOST_COMBINED)
                if way is not None:
                    self._found.append(way)
        return self._found

    def each(self, kind: Kind, most: int) -> Iterator[Way]:
        """Yield the step with each change of a kind, up to so many, whether it runs or not."""
        for change in islice(kind.changes(self.network, self.options), most):
            options = decided(self.network, self.options.replace(**change.options))
            if options is not None:
                yield self._way((kind,), (change,), options)

    def cheapest(self, kinds: tuple[Kind, ...], below: float = inf, most: int = MOST_ALONE) -> Way | None:
        """Return the way that runs the least again, of those that change certain kinds; None if it runs in none.

        Args:
            kinds: the kinds.
            below: the way must run less again than this.
            most: of each kind's changes so many are tried, the mildest ones.
        """
        allowed = MOST_MISSED if len(kinds) == 1 else max(self._allowed, FEWEST_MISSED)
        misses = allowed

        def found(made: tuple[Change, ...], options: StepOptions, below: float) -> Way | None:
            """Return that way, where changes of the first of these kinds have been made to the options."""
            nonlocal misses
            if len(made) == len(kinds):
                able = decided(self.network, options) if misses else None
                if able is None or self._bounds.exceed(able, self._worth_trying):
                    return None
                way = self._way(kinds, made, able)
                if way.taken is not None:
                    return way
                misses -= way.step.peak.size <= self.place.room.bytes
                return None
            best: Way | None = None
            for change in islice(kinds[len(made)].changes(self.network, options), most):
                changes = (*made, change)
                if spent(changes) >= below or not misses:  # so have all further ones
                    break
                cheaper = found(changes, options.replace(**change.options), below)
                if cheaper is not None:
                    best, below = cheaper, cheaper.run_again
            return best

        way = found((), self.options, below)
        if len(kinds) > 1:
            self._allowed -= allowed - misses
        return way

    @property
    def _worth_trying(self) -> int:
        """The peak above which a way is not tried: it does not run, nor is it the nearest, if there is one."""
        room = self.place.room.bytes
        return room if self._found else max(room, self.nearest.step.peak.size - 1)

    def _way(self, kinds: tuple[Kind, ...], changes: tuple[Change, ...], options: StepOptions) -> Way:
        """Try a way."""
        steps = steps_with_room(self.network, options)
        is_refused = any(step.refused for step in steps)
        way = Way(kinds, changes, steps, None if is_refused else self.place.all_taken(steps))
        if kinds and not is_refused and way.step.peak.size < self.nearest.step.peak.size:
            self.nearest = way
        return way


def spent(changes: Sequence[Change]) -> int:
    """Return the multiply-accumulates that changes run again, for one image."""
    return sum(change.run_again for change in changes)

"""Which batch really runs on a card: a loop of each is played in torch's allocator, from an empty card.

What the allocator leaves between its blocks depends on every size, so that a batch may run out of memory where a larger
one runs. The answer is the largest number such that it and every smaller one run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, SupportsIndex, cast

import msgspec

from vggkit.base.errors import ArgumentError, shorten
from vggkit.base.numbers import parse_bytes, whole
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import Figures, card_use, run
from vggkit.footprint.cards import Card, card_of
from vggkit.footprint.sought import Sought

EXPANDABLE = "expandable_segments:True"
"""The setting that makes the holes smaller."""

MOST_TRIED = 2048
"""So many numbers are tried at least, evenly spread, where there are more; a try takes two or three milliseconds."""

FINER = 16
"""Where a number fails, those before it are tried in strides so many times shorter, down to each."""

MOST_LARGER = 256
"""So many numbers beyond the answer are tried at most."""


class Room(NamedTuple):
    """A card, and what of it is not torch's.

    Args:
        card: the card.
        context_bytes: what CUDA itself takes.
        workspace_bytes: what cuDNN and cuBLAS take for themselves.
    """

    card: Card
    context_bytes: int
    workspace_bytes: int

    @property
    def taken_bytes(self) -> int:
        """What of it is not torch's."""
        return self.context_bytes + self.workspace_bytes

    @property
    def bytes(self) -> int:
        """What is left for torch's allocator; negative where the card is too small for the rest."""
        return self.card.total_bytes - self.taken_bytes


def room_of(limit: str | SupportsIndex, context: str | SupportsIndex | None, workspace: str | SupportsIndex) -> Room:
    """Return the room on a card.

    Args:
        limit: a card's name, a size such as "24GiB", or bytes.
        context: what CUDA itself takes; by default what `vggkit.footprint.cards` has for the card.
        workspace: what cuDNN and cuBLAS take.

    Raises:
        ArgumentError: if one of them can't be read.

    >>> room_of("24GiB", "300MiB", 0).bytes
    25455230976
    """
    card = card_of(limit)
    context_bytes = card.context_bytes if context is None else _amount(context, "context")
    return Room(card, context_bytes, _amount(workspace, "workspace"))


def _amount(amount: str | SupportsIndex, argument: str) -> int:
    """Read bytes, which may be 0."""
    if not isinstance(amount, str):
        try:
            return whole(amount, argument, least=0)
        except ArgumentError:
            raise ArgumentError(
                f"{argument}: expected bytes or text such as '400MiB', found {shorten(amount)}"
            ) from None
    if amount.strip() == "0":
        return 0
    try:
        return parse_bytes(amount)
    except ArgumentError as error:
        raise ArgumentError(f"{argument}: {error}") from None


class CardFit(msgspec.Struct, frozen=True, kw_only=True):
    """The largest step that runs on a card, and what else there is to know.

    Args:
        card: the card's name; None for a plain size.
        limit_bytes: what CUDA reports for it.
        context_bytes: what CUDA itself takes of that.
        workspace_bytes: what cuDNN and cuBLAS take.
        solved: what was asked for: a key of `SOUGHT`.
        largest: the number of images, or the side of a square image, such that it and every smaller one run; 0 if not
            even the smallest does.
        images: images of such a step, of all ranks and all batches whose gradients are added up; 0 if none runs.
        peak_bytes: most bytes of its tensors alive at one moment, or of the smallest if that does not run.
        reserved_bytes: what torch's allocator reserves for it, or would for the smallest on a larger card.
        left_bytes: what is left of the card then; negative if it does not run.
        next: one more than the largest, or the smallest if that does not run.
        missing_bytes: how much more the allocator reserves for the next on a larger card.
        without_retries: the largest such that it and every smaller one run without giving back what is cached.
        also_run: larger ones that run, too, though one before them does not.
        also_tried: the largest number that was tried for that.
        tensors_alone: the largest whose tensors have room, wherever the allocator would place them.
        expandable_segments: the largest if the allocator's segments are expandable; None if they are already.
        tried_every: of the smaller numbers every such one was tried: 1 for all of them.
    """

    card: str | None
    limit_bytes: int
    context_bytes: int
    workspace_bytes: int
    solved: str
    largest: int
    images: int
    peak_bytes: int
    reserved_bytes: int
    left_bytes: int
    next: int
    missing_bytes: int
    without_retries: int
    also_run: tuple[int, ...]
    also_tried: int
    tensors_alone: int
    expandable_segments: int | None
    tried_every: int

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


class Trial:
    """Steps of a network on a card, tried for one number after the other.

    Args:
        sought: what the step depends on.
        room: on the card.
        settings: of the allocator.

    Attributes:
        smallest: the smallest number with which torch runs the step.
        bound: the largest whose tensors have room: none beyond it can run.
        stride: of the numbers in between every such one is tried.
    """

    def __init__(self, sought: Sought, room: Room, settings: Settings) -> None:
        self.sought = sought = sought.within(room.bytes)
        self.room = room
        self.settings = settings
        self.smallest = sought.smallest
        self.bound = sought.largest_of_tensors(room.bytes)
        self.stride = max(1, (self.bound - self.smallest) // MOST_TRIED)
        self._last_steps = cache(self._play)

    def _play(self, number: int) -> list[Figures] | None:
        """Return the figures of the last step of each sort of ranks, None if one of them runs out of memory."""
        lasts = []
        for loop, batch in self.sought.loops(number):
            last = run(loop, batch, self.room.card.total_bytes, self.settings, taken=self.room.taken_bytes)[-1]
            if last is None:
                return None
            lasts.append(last)
        return lasts

    def runs(self, number: int) -> bool:
        """Tell whether every step runs."""
        return self._last_steps(number) is not None

    def runs_at_once(self, number: int) -> bool:
        """Tell whether every step runs without giving back what is cached."""
        lasts = self._last_steps(number)
        return lasts is not None and all(last.retries == 0 for last in lasts)

    @property
    def largest(self) -> int:
        """The largest number such that it and every smaller one run, 0 if the smallest doesn't."""
        return self._largest(self.runs, after=self.without_retries)

    @property
    def without_retries(self) -> int:
        """The largest such that it and every smaller one run and give nothing back, 0 if the smallest doesn't."""
        return self._largest(self.runs_at_once, after=0)

    def _largest(self, holds: Callable[[int], bool], after: int) -> int:
        """Return the last number before the first one of those tried for which something doesn't hold."""
        sound, stride = max(after, self.smallest - 1), self.stride
        while True:
            while sound < self.bound and holds(min(sound + stride, self.bound)):
                sound = min(sound + stride, self.bound)
            if stride == 1:
                return sound if sound >= self.smallest else 0
            stride = max(1, stride // FINER)

    def also_run(self, largest: int) -> tuple[int, ...]:
        """Return larger numbers that run."""
        first = max(largest + 1, self.smallest)
        return tuple(number for number in range(first, self.last_tried(largest) + 1) if self.runs(number))

    def last_tried(self, largest: int) -> int:
        """Return the largest number that is tried beyond the answer."""
        return min(self.bound, largest + MOST_LARGER)


def largest_on_card(sought: Sought, room: Room) -> int:
    """Return the largest number such that it and every smaller one run, 0 if not even the smallest does."""
    return Trial(sought, room, Settings.of(sought.options.allocator)).largest


def fit_on_card(sought: Sought, room: Room) -> CardFit:
    """Find the largest number such that it and every smaller one run, and what else runs.

    Args:
        sought: what is looked for; its options are for device cuda.
        room: the card.
    """
    settings = Settings.of(sought.options.allocator)
    trial = Trial(sought, room, settings)
    sought = trial.sought
    largest = trial.largest
    number = largest or trial.smallest
    reserved = _reserved(sought, number, settings, room) if largest else _reserved(sought, number, settings)
    following = largest + 1 if largest else number
    expandable = None
    if not settings.expandable_segments:
        expandable_settings = msgspec.structs.replace(settings, expandable_segments=True)
        expandable = sought.shown(Trial(sought, room, expandable_settings).largest)
    return CardFit(
        card=room.card.name,
        limit_bytes=room.card.total_bytes,
        context_bytes=room.context_bytes,
        workspace_bytes=room.workspace_bytes,
        solved=sought.word,
        largest=sought.shown(largest),
        images=sought.images(largest) if largest else 0,
        peak_bytes=sought.peak_bytes(number),
        reserved_bytes=reserved,
        left_bytes=room.bytes - reserved,
        next=sought.shown(following),
        missing_bytes=_reserved(sought, following, settings) - room.bytes,
        without_retries=sought.shown(trial.without_retries),
        also_run=tuple(map(sought.shown, trial.also_run(largest))),
        also_tried=sought.shown(trial.last_tried(largest)),
        tensors_alone=sought.shown(trial.bound) if trial.bound >= trial.smallest else 0,
        expandable_segments=expandable,
        tried_every=trial.stride,
    )


def _reserved(sought: Sought, number: int, settings: Settings, room: Room | None = None) -> int:
    """Return the most that the allocator of a rank reserves in a steady step; without a room, on an endless card."""
    card = () if room is None else (room.card.total_bytes, room.taken_bytes)
    uses = [card_use(*loop, settings, *card) for loop in sought.loops(number)]
    return max(use.reserved_bytes for use in uses if use is not None)

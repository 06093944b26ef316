"""What fits: the bytes of a step as lines over the batch, and the largest batch or image for a given memory.

On a card torch's allocator decides (`vggkit.footprint.card_fit`); on the CPU the tensors are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, cast

import msgspec

from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import grouped, mebibytes, megabytes
from vggkit.base.tables import Column, Table, grid
from vggkit.footprint.card import MOST_STEPS
from vggkit.footprint.card_fit import CardFit, Room, fit_on_card, largest_on_card, room_of
from vggkit.footprint.plan import plan_of
from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.sought import Sought, SoughtBatch
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import STEP_KEYWORDS, StepArguments, StepOptions, checked_options
from vggkit.footprint.steps.refusals import smallest_batch
from vggkit.network import Network, Source
from vggkit.notation.overrides import Overrides, divided

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LinearBytes(NamedTuple):
    """Bytes that are a straight line over the batch.

    Args:
        constant: bytes that don't grow with it.
        per_image: bytes that do, for one image.
    """

    constant: int
    per_image: int

    def at(self, batch: int) -> int:
        """Return the bytes at a batch."""
        return self.constant + self.per_image * batch


class LinearMoment(NamedTuple):
    """A moment of a step, at any batch.

    Args:
        event: what happens, as in the timeline of a plan.
        size: bytes in all.
        by_kind: bytes of each of `vggkit.base.eager.MEMORY_KINDS`.
    """

    event: str
    size: LinearBytes
    by_kind: tuple[LinearBytes, ...]


class LinearStep(msgspec.Struct, frozen=True):
    """A step at any batch.

    Args:
        moments: those that are the peak at some batch, in the step's order; the first of the highest is the peak.
        saved_for_backward: what autograd holds between the forward and the backward pass.
        steady_bytes: parameters, gradients and optimizer state.
        smallest_batch: the smallest that torch runs.
    """

    moments: tuple[LinearMoment, ...]
    saved_for_backward: LinearBytes
    steady_bytes: int
    smallest_batch: int

    def peak(self, batch: int) -> LinearMoment:
        """Return the moment of the peak at a batch."""
        return max(self.moments, key=lambda moment: moment.size.at(batch))


def linear_step(network: Network, options: StepOptions) -> LinearStep:
    """Walk through a step for every batch at once.

    The bytes of every storage are a line over the batch, and the batch does not change which are alive at a moment. So
    the steps at two batches give the lines.

    Args:
        network: the network.
        options: what the step is like, checked; their batch does not matter.

    Raises:
        ArgumentError: if the device is not the CPU: elsewhere each storage is rounded up.

    >>> peak = linear_step(Network.of("D"), StepOptions()).peak(64)
    >>> peak.event, peak.size.at(64)
    ('backward of block4_relu3', 6343885544)
    """
    if options.device != "cpu":
        raise ArgumentError(f"device: expected cpu, where bytes are a line over the batch, found {options.device}")
    one, two = (plan_of(step_of(network, options.replace(batch=batch))) for batch in (1, 2))
    moments = [
        LinearMoment(
            before.event, _through(before.size, after.size), tuple(map(_through, before.by_kind, after.by_kind))
        )
        for before, after in zip(one.timeline, two.timeline)
    ]
    saved = _through(one.saved_for_backward_bytes, two.saved_for_backward_bytes)
    return LinearStep(_highest(moments), saved, one.steady_bytes, smallest_batch(network, options))


def _through(one: int, two: int) -> LinearBytes:
    """Return the line that has these values at batch 1 and at batch 2."""
    return LinearBytes(2 * one - two, two - one)


def _highest(moments: list[LinearMoment]) -> tuple[LinearMoment, ...]:
    """Return the moments that are the first of the highest at some batch, in their order."""
    batch, highest = 1, [max(moments, key=lambda moment: moment.size.at(1))]
    while steeper := [moment for moment in moments if moment.size.per_image > highest[-1].size.per_image]:
        top = highest[-1].size
        overtaken = (
            -((moment.size.constant - top.constant) // (moment.size.per_image - top.per_image)) for moment in steeper
        )
        batch = max(batch + 1, min(overtaken))
        highest.append(max(moments, key=lambda moment: moment.size.at(batch)))
    return tuple(sorted(dict.fromkeys(highest), key=moments.index))


# The largest that fits


class Fit(msgspec.Struct, frozen=True):
    """The largest step whose tensors have room.

    Args:
        limit_bytes: the memory that there is.
        solved: what was asked for: a key of `vggkit.footprint.sought.SOUGHT`.
        largest: the number of images, or the side of a square image; 0 if not even the smallest fits.
        images: images of such a step, of all ranks and all batches whose gradients are added up; 0 if none fits.
        peak_bytes: the memory that the largest needs, or the smallest if it does not fit.
        left_bytes: the memory that is left then; negative if it does not fit.
        next: one more than the largest, or the smallest if it does not fit.
        missing_bytes: how much more memory the next needs.
    """

    limit_bytes: int
    solved: str
    largest: int
    images: int
    peak_bytes: int
    left_bytes: int
    next: int
    missing_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


class FitArguments(Overrides, StepArguments, total=False):
    """The keywords of `memory` except batch, for type checkers."""


def max_batch(
    source: Source,
    limit: str | SupportsIndex,
    *,
    context: str | SupportsIndex | None = None,
    workspace: str | SupportsIndex = 0,
    **arguments: Unpack[FitArguments],
) -> int:
    """Return the largest batch that runs on a card: such that it and every smaller one run.

    For each batch a loop of steps is played in torch's allocator, from an empty card, until it repeats itself.
    With `device="cpu"` tensors are counted instead, wherever they lie.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        limit: a card such as "RTX 4090", a size such as "24GiB", or bytes.
        context: what CUDA itself takes of the card; by default as documented for the card.
        workspace: what cuDNN and cuBLAS take for themselves; not modelled, so 0 by default.
        arguments: as for `memory`, except batch; the device is cuda if none is given.

    Returns:
        The number of images; 0 if not even one runs, or two where torch can't run a step of one.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> max_batch("D", "24GiB", context=0), max_batch("D", "24GiB", device="cpu")
    (292, 327)
    """
    given: dict[str, Any] = {"device": "cuda", **arguments}
    if "batch" in given:
        raise ArgumentError("batch: max_batch looks for it; leave it out")
    overrides, of_step = divided(max_batch, given, STEP_KEYWORDS)
    network = Network.of(source, **overrides)
    options = checked_options(network, **of_step)
    room = checked_room(options, limit, context, workspace)
    sought = SoughtBatch(network, options)
    if options.device == "cuda":
        return sought.shown(largest_on_card(sought, room))
    return tensors_fit(sought, room.bytes).largest


def checked_room(
    options: StepOptions,
    limit: str | SupportsIndex,
    context: str | SupportsIndex | None,
    workspace: str | SupportsIndex,
) -> Room:
    """Return the room for a step; `max_batch` explains the arguments.

    Raises:
        ArgumentError: if one of them can't be read, or says what CUDA takes where tensors are counted.
    """
    if options.device == "cuda":
        return room_of(limit, context, workspace)
    for word, given in (("context", context), ("workspace", workspace)):
        if given:
            raise ArgumentError(f"{word}: needs device cuda, found {options.device}, where tensors are counted")
    return room_of(limit, 0, 0)


def tensors_fit(sought: Sought, limit: int) -> Fit:
    """Find the largest number whose tensors have room in so many bytes, wherever they lie."""
    sought = sought.within(limit)
    smallest, largest = sought.smallest, sought.largest_of_tensors(limit)
    if largest < smallest:
        needed = sought.peak_bytes(smallest)
        return Fit(limit, sought.word, 0, 0, needed, limit - needed, sought.shown(smallest), needed - limit)
    needed, more = sought.peak_bytes(largest), sought.peak_bytes(largest + 1)
    images = sought.images(largest)
    shown, following = sought.shown(largest), sought.shown(largest + 1)
    return Fit(limit, sought.word, shown, images, needed, limit - needed, following, more - limit)


# Their tables

TENSORS_ARE_COUNTED = (
    "Tensors are counted, wherever they lie. A card must have more: --device cuda plays torch's allocator."
)
"""What is said where something is to fit in so many bytes on the CPU."""


def fits(sought: Sought, rooms: Iterable[Room]) -> list[Fit] | list[CardFit]:
    """Find the largest number for each card, on the device of the step."""
    if sought.options.device == "cuda":
        return [fit_on_card(sought, room) for room in rooms]
    return [tensors_fit(sought, room.bytes) for room in rooms]


def fits_table(sought: Sought, found: Sequence[Fit] | Sequence[CardFit], advice: Sequence[str] = ()) -> Table:
    """Return a row for what fits each card, and sentences on what else there is to know.

    Args:
        sought: what was looked for.
        found: what fits, one or more, as `fits` returns it.
        advice: sentences on other steps, such as `vggkit.footprint.remedies.advice` has.
    """
    on_cards = [fit for fit in found if isinstance(fit, CardFit)]
    if on_cards:
        return _cards_table(sought, on_cards, advice)
    return _tensors_table(sought, [fit for fit in found if isinstance(fit, Fit)], advice)


def _tensors_table(sought: Sought, fits: Sequence[Fit], advice: Sequence[str]) -> Table:
    columns: list[Column[Fit]] = [
        Column("memory", lambda fit: size_text(fit.limit_bytes), "right"),
        Column("fits", lambda fit: _largest(sought, fit), style="green"),
        Column("peak", lambda fit: megabytes(fit.peak_bytes), "right", rank=2),
        Column("left", lambda fit: megabytes(fit.left_bytes) if fit.largest else "–", "right", rank=1),
        Column(sought.next_title, lambda fit: str(fit.next), "right", rank=3),
        Column("memory it lacks", lambda fit: megabytes(fit.missing_bytes), "right", rank=4),
    ]
    return Table(
        grid(columns, fits, title=sought.title),
        records=[fit.to_dict() for fit in fits],
        notes=[*_in_all(sought, fits), *advice, TENSORS_ARE_COUNTED],
    )


def _cards_table(sought: Sought, fits: Sequence[CardFit], advice: Sequence[str]) -> Table:
    columns: list[Column[CardFit]] = [
        Column("card", name_of, "right"),
        Column("runs", lambda fit: _largest(sought, fit), style="green"),
        Column("without retries", lambda fit: _or_none(fit.without_retries), "right", rank=1),
        Column("tensors alone", lambda fit: _or_none(fit.tensors_alone), "right", rank=2),
        Column("expandable segments", lambda fit: _or_none(fit.expandable_segments), "right", rank=3),
        Column("reserved", lambda fit: megabytes(fit.reserved_bytes), "right", rank=4),
        Column(sought.next_title, lambda fit: str(fit.next), "right", rank=5),
        Column("memory it lacks", lambda fit: megabytes(fit.missing_bytes), "right", rank=6),
    ]
    if all(fit.expandable_segments is None for fit in fits):  # they are expandable already
        del columns[4]
    return Table(
        grid(columns, fits, title=sought.title),
        records=[_record(fit) for fit in fits],
        data=[fit.to_dict() for fit in fits],
        notes=[*_in_all(sought, fits), *_sentences(fits, advice)],
    )


def _sentences(fits: Sequence[CardFit], advice: Sequence[str]) -> list[str]:
    said = []
    for fit in fits:
        tried = f" (of those up to {fit.also_tried})" if fit.also_tried < fit.tensors_alone else ""
        if fit.also_run:
            said.append(f"On {name_of(fit)} larger ones happen to run{tried}: {ranges(fit.also_run)}.")
        if fit.tried_every > 1:
            said.append(f"On {name_of(fit)} every {fit.tried_every}th of the smaller ones was tried.")
    said += advice
    said.append(
        "Runs: every step of a loop finds room in torch's allocator, from an empty card until the loop repeats itself,"
        f" or for {MOST_STEPS} steps. In a retry the allocator gives back all that it has cached, which takes time."
    )
    contexts: dict[int, list[str]] = {}
    for fit in fits:
        contexts.setdefault(fit.context_bytes, []).append(name_of(fit))
    each = [
        megabytes(size) + (f" of {' and '.join(cards)}" if len(contexts) > 1 else "")
        for size, cards in contexts.items()
    ]
    said.append(
        f"CUDA's context takes {', '.join(each)} (--context), workspaces of cuDNN and cuBLAS"
        f" {megabytes(fits[0].workspace_bytes)} (--workspace)."
    )
    return said


def _in_all(sought: Sought, fits: Iterable[Fit | CardFit]) -> Iterator[str]:
    """Say how many images a step of several ranks has."""
    group = sought.options.group
    if group == NO_GROUP:
        return
    for fit in fits:
        if fit.images:
            yield (
                f"On {group.ranks} cards of {name_of(fit)}: {grouped(fit.images)} images in all by {group.parallel}."
                " `vggkit plan` has all strategies."
            )


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers, those that follow each other as a range.

    >>> ranges([294, 295, 296, 301, 307, 308])
    '294–296, 301, 307, 308'
    """
    said: list[str] = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        following = [number for _, number in group]
        said += [f"{following[0]}–{following[-1]}"] if len(following) > 2 else map(str, following)
    return ", ".join(said)


def _record(fit: CardFit) -> dict[str, Any]:
    """Return a row of CSV, whose cells are single values."""
    return {**fit.to_dict(), "also_run": " ".join(map(str, fit.also_run))}


def _largest(sought: Sought, fit: Fit | CardFit) -> str:
    return sought.spelled.format(fit.largest) if fit.largest else f"not even {sought.spelled.format(fit.next)}"


def _or_none(number: int | None) -> str:
    return str(number) if number else "none"


def name_of(fit: Fit | CardFit) -> str:
    """Return the name of the card, or what the memory has."""
    return (fit.card if isinstance(fit, CardFit) else None) or size_text(fit.limit_bytes)


def size_text(size: int) -> str:
    """Write a limit in the unit in which it is round."""
    return megabytes(size) if size % 10**6 == 0 else mebibytes(size)

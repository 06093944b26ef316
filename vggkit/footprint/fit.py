"""What fits: the bytes of a step as lines over the batch, and the largest batch or image for a given memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, cast

import msgspec

from vggkit.base.errors import ArgumentError, ConfigError, shorten
from vggkit.base.numbers import mebibytes, megabytes, parse_bytes, whole
from vggkit.base.tables import Column, Table, grid
from vggkit.footprint.plan import Step, StepOptions, checked_options, peak_bytes, smallest_batch
from vggkit.network import Dtype, Network, Source, place
from vggkit.notation.layers import LARGEST, Shape, times
from vggkit.notation.overrides import Overrides, check_keywords

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
    one, two = (Step(network, options.replace(batch=batch)).plan() for batch in (1, 2))
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
    """The largest step that fits.

    Args:
        limit_bytes: the memory that there is.
        solved: what was asked for: a key of `SOLVERS`.
        largest: the number of images, or the side of a square image; 0 if not even the smallest fits.
        peak_bytes: the memory that the largest needs, or the smallest if it does not fit.
        left_bytes: the memory that is left then; negative if it does not fit.
        next: one more than the largest, or the smallest if it does not fit.
        missing_bytes: how much more memory the next needs.
    """

    limit_bytes: int
    solved: str
    largest: int
    peak_bytes: int
    left_bytes: int
    next: int
    missing_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


class StepArguments(Overrides, total=False):
    """The keywords of `memory` except batch, for type checkers."""

    mode: str
    dtype: Dtype
    optimizer: str | None
    device: str
    freeze: str | Iterable[str]
    checkpoint: str | Iterable[str]
    autocast: bool
    allocator: str


def max_batch(source: Source, limit: str | SupportsIndex, **arguments: Unpack[StepArguments]) -> int:
    """Return the largest batch whose step fits.

    Args:
        source: a name, a path, a Config or a Network.
        limit: bytes, or text such as "24GiB".
        arguments: as for `memory`, except batch and allocator.

    Returns:
        The number of images; 0 if not even one fits, or two where torch can't run a step of one.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> max_batch("D", "24GiB")
    327
    """
    given: dict[str, Any] = {**arguments}
    if "batch" in given:
        raise ArgumentError("batch: max_batch looks for it; leave it out")
    if "allocator" in given:
        raise ArgumentError("allocator: max_batch counts tensors, whatever the allocator; leave it out")
    of_step = StepOptions.__struct_fields__
    check_keywords(max_batch, given, of_step)
    network = Network.of(source, **{word: value for word, value in given.items() if word not in of_step})
    options = checked_options(network, **{word: value for word, value in given.items() if word in of_step})
    return fit_batch(network, options, _limit_bytes(limit)).largest


def _limit_bytes(limit: str | SupportsIndex) -> int:
    if isinstance(limit, str):
        return parse_bytes(limit)
    try:
        return whole(limit, "limit")
    except ArgumentError:
        raise ArgumentError(f"limit: expected bytes or text such as '24GiB', found {shorten(limit)}") from None


def fit_batch(network: Network, options: StepOptions, limit: int) -> Fit:
    """Find the largest batch that fits, by arithmetic: every moment's bytes are a line over the batch.

    Args:
        network: the network.
        options: what the step is like, checked; their batch does not matter.
        limit: the memory there is, in bytes.
    """
    moments = [
        LinearBytes(moment.constant, moment.per_image) for moment in Step(network, options.replace(batch=1)).moments
    ]

    def peak(batch: int) -> int:
        if options.device == "cpu":
            return max(moment.at(batch) for moment in moments)
        return peak_bytes(network, options.replace(batch=batch))

    smallest = smallest_batch(network, options)
    if any(moment.constant > limit for moment in moments):
        largest = 0
    else:
        largest = min((limit - moment.constant) // moment.per_image for moment in moments if moment.per_image)
    while largest >= smallest and peak(largest) > limit:  # CUDA rounds up, to a little more than the line says
        largest -= 1
    return _fit(limit, "batch", largest, smallest, peak)


def fit_image(network: Network, options: StepOptions, limit: int) -> Fit:
    """Find the side of the largest square image that fits, where the network takes any size.

    Args:
        network: the network; the size of its own input does not matter.
        options: what the step is like, checked.
        limit: the memory there is, in bytes.

    Raises:
        ArgumentError: if its parameters depend on the image's size, or torch can't run the step at any.
    """
    if not _takes_any_size(network):
        raise ArgumentError(
            f"image: {network.name} has parameters that depend on the image's size: its FC layers are made for one"
            f" size of maps. Expected head=gap, a trunk, or an adaptive pool before them; or ask for the largest batch"
        )
    peak_bytes(_square(network, LARGEST), options)  # refuses what torch can't run at any size

    def runs(side: int) -> bool:
        try:
            return not Step(_square(network, side), options).refused
        except ConfigError:  # it is too small for a layer
            return False

    def peak(side: int) -> int:
        return peak_bytes(_square(network, side), options)

    smallest = _first(runs, 1)
    return _fit(limit, "image", _first(lambda side: peak(side) > limit, smallest) - 1, smallest, peak)


def _first(holds: Callable[[int], bool], start: int) -> int:
    """Return the first number from `start` on for which something holds; it holds for all larger ones as well."""
    low = high = start
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _fit(limit: int, solved: str, largest: int, smallest: int, peak: Callable[[int], int]) -> Fit:
    if largest < smallest:
        needed = peak(smallest)
        return Fit(limit, solved, 0, needed, limit - needed, smallest, needed - limit)
    needed = peak(largest)
    return Fit(limit, solved, largest, needed, limit - needed, largest + 1, peak(largest + 1) - limit)


def _square(network: Network, side: int) -> Network:
    shape = (network.input_shape[0], side, side)
    return place(msgspec.structs.replace(network.config, input=shape))


def _takes_any_size(network: Network) -> bool:
    """Tell whether the parameters are the same for images of any size.

    Maps never shrink where the image grows. So if the largest image gives the same parameters, all between do.
    """

    def parameters(of: Network) -> list[dict[str, Shape]]:
        return [placed.layer.parameters(placed.input_shape) for placed in of]

    try:
        return parameters(network) == parameters(_square(network, LARGEST))
    except ConfigError:  # this image does not fit, so the network does not take any size
        return False


class Solver(NamedTuple):
    """What can be looked for.

    Args:
        fit: finds the largest one that fits.
        of: describes the step, for a title.
        spelled: how a result is written, with a place for its number.
        next_title: title of the column with the next larger one.
    """

    fit: Callable[[Network, StepOptions, int], Fit]
    of: Callable[[Network, StepOptions], str]
    spelled: str
    next_title: str


SOLVERS = {
    "batch": Solver(
        fit_batch,
        lambda network, options: f"{times(network.input_shape)}, {options.words}",
        "batch {}",
        "next batch",
    ),
    "image": Solver(
        fit_image,
        lambda network, options: f"{network.input_shape[0]} channels, batch {options.batch}, {options.words}",
        "{0}×{0} images",
        "next side",
    ),
}
"""What can be looked for, by the word that asks for it."""


def fits_table(network: Network, options: StepOptions, fits: Sequence[Fit]) -> Table:
    """Return a row for each limit.

    Args:
        network: whose step.
        options: what the step is like.
        fits: what fits, one or more, all solved for the same.
    """
    solver = SOLVERS[fits[0].solved]

    def largest(fit: Fit) -> str:
        return solver.spelled.format(fit.largest) if fit.largest else f"not even {solver.spelled.format(fit.next)}"

    columns: list[Column[Fit]] = [
        Column("memory", lambda fit: _round(fit.limit_bytes), "right"),
        Column("fits", largest, style="green"),
        Column("peak", lambda fit: megabytes(fit.peak_bytes), "right", rank=2),
        Column("left", lambda fit: megabytes(fit.left_bytes) if fit.largest else "–", "right", rank=1),
        Column(solver.next_title, lambda fit: str(fit.next), "right", rank=3),
        Column("memory it lacks", lambda fit: megabytes(fit.missing_bytes), "right", rank=4),
    ]
    title = f"{network.name}: {solver.of(network, options)}"
    return Table(grid(columns, fits, title=title), records=[fit.to_dict() for fit in fits])


def _round(size: int) -> str:
    """Write a limit in the unit in which it is round."""
    return megabytes(size) if size % 10**6 == 0 else mebibytes(size)

"""The figures that networks are compared, searched and sorted by: one entry for each, with its names and rules.

`compare`, `find`, their options --only, --sort and --pareto, and find's conditions read this table. The command line
makes options from it before it knows which command runs. So slow modules are imported only where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import msgspec

from vggkit.base.errors import ArgumentError, MisleadingError, did_you_mean, shorten
from vggkit.base.numbers import grouped, megabytes, parse_bytes, parse_count, percent, signed, signed_megabytes

if TYPE_CHECKING:
    from vggkit.figures.summary import Summary
    from vggkit.network import Network
    from vggkit.notation.config import SingleScale

UNKNOWN = "–"
"""Shown where a network has no such figure."""


class Costs(Protocol):
    """What measures are worked out from: one network in `compare`, many that are treated as one in `find`."""

    @property
    def network(self) -> Network:
        """The network itself."""

    @property
    def summary(self) -> Summary:
        """Rows and totals."""

    @property
    def relative_parameters(self) -> float | None:
        """Parameters divided by those of the first network; None if there is none, or it has none."""

    @property
    def inference_peak_bytes(self) -> int | None:
        """Most bytes alive in a forward pass; None if torch can't run it."""

    @property
    def training_peak_bytes(self) -> int | None:
        """Most bytes alive in a training step; None if torch can't run it."""

    @property
    def saved_for_backward_bytes(self) -> int | None:
        """Bytes kept between forward and backward pass; None if torch can't run the step."""

    @property
    def reserved_bytes(self) -> int | None:
        """Bytes that a card must have for a training step; None if torch can't run it."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a network. Its class says how values of its kind are written, compared and read.

    Args:
        name: the key in JSON and the column in CSV.
        words: what people read.
        value: works it out; None if a network has none.
        short: a shorter name, which is also an option of `find`.
        aliases: other names that find it.
        step: the kind of step whose memory must be planned for it; None if it needs no step.
        larger_is_better: whether more of it may be better, as with the receptive field; False for a cost.
        in_compare: whether `compare` offers it.
        condition: the help text of its condition in `find`; None if `find` does not offer it.
        time_alone: how long it takes, if it must be worked out for each network alone; None if for many at once. Such a
            figure is shown only where it is asked for, and `find` works it out last.
    """

    name: str
    words: str
    value: Callable[[Costs], Any]
    short: str | None = None
    aliases: tuple[str, ...] = ()
    step: Literal["inference", "training"] | None = None
    larger_is_better: bool = False
    in_compare: bool = True
    condition: str | None = None
    time_alone: str | None = None

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every name that finds it."""
        return (self.name, *([self.short] if self.short else []), *self.aliases)

    def written(self, value: Any) -> str:
        """Write a value for people."""
        raise NotImplementedError  # abstract: the class of a kind of figure says it

    def cell(self, costs: Costs) -> str:
        """Write a network's value for a table of networks side by side."""
        value = self.value(costs)
        return UNKNOWN if value is None else self.written(value)

    def key(self, value: Any) -> Any:
        """Return what a value is compared by."""
        return value

    def sort_key(self, costs: Costs) -> Any:
        """Return what a network is sorted by; None if it has no such figure."""
        value = self.value(costs)
        return None if value is None else self.key(value)


class Count(Measure, frozen=True):
    """A whole number. Conditions can be set for it."""

    unit: ClassVar[str] = ""
    example: ClassVar[str] = "<15M, >=2.5G or 1M..5M"

    def written(self, value: int) -> str:
        return grouped(value)

    def written_difference(self, more: int) -> str:
        """Write by how much a value is larger than another."""
        return signed(more)

    def limit(self, text: str) -> int:
        """Read a limit of a condition.

        Raises:
            ArgumentError: if it can't be read.
        """
        _is_bare_number(text)
        return parse_count(text)

    def written_limit(self, limit: int) -> str:
        """Write a limit of a condition for people."""
        return self.written(limit)


class PartOfParameters(Count, frozen=True):
    """A part of the parameters. In a table of networks side by side, it is a share in percent."""

    def cell(self, costs: Costs) -> str:
        whole = costs.summary.totals.parameters
        return percent(self.value(costs), whole) if whole else UNKNOWN


class Bytes(Count, frozen=True):
    """A number of bytes, in MB for people; a condition must give the unit."""

    unit: ClassVar[str] = "B"
    example: ClassVar[str] = "<24GiB, >=800MB or 1GB..2GB"

    def written(self, value: int) -> str:
        return megabytes(value)

    def written_difference(self, more: int) -> str:
        return signed_megabytes(more)

    def limit(self, text: str) -> int:
        if _is_bare_number(text):
            raise MisleadingError(f"{text} has no unit; {text}B are bytes")
        return parse_bytes(text)


class PixelSize(Count, frozen=True):
    """Height and width of a part of the input, in pixels. The shorter side is compared."""

    def written(self, value: Any) -> str:
        from vggkit.notation.layers import times

        return times(value)

    def cell(self, costs: Costs) -> str:
        from vggkit.figures.summary import window

        return window(self.value(costs))

    def key(self, value: Any) -> int:
        shorter: int = min(value)
        return shorter

    def written_limit(self, limit: int) -> str:
        return grouped(limit)


class Ratio(Measure, frozen=True):
    """A ratio to the first network.

    Args:
        of: what is divided. Networks are sorted by it, since the first network is known only after sorting.
    """

    of: Callable[[Costs], Any]

    def written(self, value: float) -> str:
        return f"{value:.3f}"

    def sort_key(self, costs: Costs) -> Any:
        return self.of(costs)


class ReportedError(Measure, frozen=True):
    """An error that a network's publication gives, in percent; its value is the lowest of several.

    Args:
        of: reads it from one line of the publication's table.
    """

    of: Callable[[SingleScale], float]

    def written(self, value: float) -> str:
        return str(value)


def _is_bare_number(text: str) -> bool:
    """Tell whether a limit is a number without a unit.

    Raises:
        ArgumentError: if it is one, but not whole.
    """
    if not (text.isascii() and text.replace(".", "").isdigit()):
        return False
    if "." in text:
        raise ArgumentError("no whole number")
    return True


def _lowest(costs: Costs, error: Callable[[SingleScale], float]) -> float | None:
    reported = costs.network.config.reported
    return min(map(error, reported.single_scale), default=None) if reported else None


MEASURES: tuple[Measure, ...] = (
    Count(
        name="weight_layers",
        words="weight layers",
        value=lambda costs: costs.summary.totals.weight_layers,
        short="depth",
        larger_is_better=True,
        condition="Number of weight layers, such as 16, >11 or 11..16.",
    ),
    Count(
        name="parameters",
        words="parameters",
        value=lambda costs: costs.summary.totals.parameters,
        short="params",
        condition="Number of parameters, such as <15M, >=1M or 1M..15M; repeatable.",
    ),
    Ratio(
        name="relative_parameters",
        words="relative to first",
        value=lambda costs: costs.relative_parameters,
        of=lambda costs: costs.summary.totals.parameters,
        short="relative",
    ),
    Count(
        name="weights",
        words="weights",
        value=lambda costs: costs.summary.totals.weights,
        in_compare=False,
        condition="Number of weights.",
    ),
    Count(
        name="biases",
        words="biases",
        value=lambda costs: costs.summary.totals.biases,
        in_compare=False,
        condition="Number of biases.",
    ),
    PartOfParameters(
        name="conv_parameters",
        words="in convolutions",
        value=lambda costs: costs.summary.parameters_of("conv"),
        aliases=("conv", "conv_share"),
        condition="Number of parameters of convolutions.",
    ),
    PartOfParameters(
        name="fc_parameters",
        words="in FC layers",
        value=lambda costs: costs.summary.parameters_of("fc"),
        aliases=("fc", "fc_share"),
        condition="Number of parameters of FC layers.",
    ),
    Count(
        name="multiply_accumulates",
        words="MACs",
        value=lambda costs: costs.summary.totals.multiply_accumulates,
        short="macs",
        condition="Number of multiply-accumulates.",
    ),
    Bytes(
        name="activation_bytes",
        words="activations",
        value=lambda costs: costs.summary.totals.activation_bytes,
        short="activations",
        condition="Memory of the activations, such as <24GiB or 1GB..2GB.",
    ),
    Bytes(
        name="inference_peak_bytes",
        words="inference peak",
        value=lambda costs: costs.inference_peak_bytes,
        short="inference_peak",
        aliases=("inference",),
        step="inference",
        condition="Peak memory of a forward pass.",
    ),
    Bytes(
        name="training_peak_bytes",
        words="training peak",
        value=lambda costs: costs.training_peak_bytes,
        short="training_peak",
        aliases=("training",),
        step="training",
        condition="Peak memory of a training step.",
    ),
    Bytes(
        name="saved_for_backward_bytes",
        words="saved for backward",
        value=lambda costs: costs.saved_for_backward_bytes,
        short="saved",
        step="training",
        in_compare=False,
        condition="Memory kept for the backward pass.",
    ),
    Bytes(
        name="reserved_bytes",
        words="reserved CUDA memory",
        value=lambda costs: costs.reserved_bytes,
        short="reserved",
        step="training",
        condition="Memory that torch's allocator reserves on a CUDA card for training, such as <24GiB.",
        time_alone="2 to 4 ms",  # measured on one core: A 1.8 ms, D 2.4 ms, E 2.9 ms, D with batch norm 3.7 ms
    ),
    PixelSize(
        name="receptive_field",
        words="receptive field",
        value=lambda costs: costs.network.receptive_field,
        short="field",
        larger_is_better=True,
        condition="Shorter side of the receptive field, in pixels.",
    ),
    ReportedError(
        name="top1_error",
        words="top-1",
        value=lambda costs: _lowest(costs, lambda said: said.top1),
        of=lambda said: said.top1,
        short="top1",
    ),
    ReportedError(
        name="top5_error",
        words="top-5",
        value=lambda costs: _lowest(costs, lambda said: said.top5),
        of=lambda said: said.top5,
        short="top5",
    ),
)
"""Every figure, in the order in which `compare` shows them."""

COMPARED = {measure.name: measure for measure in MEASURES if measure.in_compare}
"""What `compare` offers."""

USUAL = tuple(name for name, measure in COMPARED.items() if measure.time_alone is None)
"""What `compare` shows if nothing else is asked for."""

FOUND: dict[str, Count] = {
    measure.name: measure
    for measure in sorted(MEASURES, key=lambda measure: measure.step is not None)
    if isinstance(measure, Count) and measure.condition is not None
}
"""What `find` offers, in the order of its columns: figures that need a planned step come last."""


def figure_name(word: str, argument: str, known: Mapping[str, Measure], others: tuple[str, ...] = ()) -> str:
    """Return the name of a figure.

    Args:
        word: any of its names; letter case and - or _ don't matter.
        argument: what it was given for, for the message.
        known: the figures that are offered.
        others: other words that are allowed.

    Raises:
        ArgumentError: if there is none of that name.

    >>> figure_name("MACs", "sort", FOUND)
    'multiply_accumulates'
    """
    names = {spelling: name for name, measure in known.items() for spelling in measure.spellings}
    names.update({other: other for other in others})
    plain = word.strip().lower().replace("-", "_")
    if plain not in names:
        advice = did_you_mean(plain, names) or f" Known: {', '.join((*known, *others))}"
        raise ArgumentError(f"{argument}: unknown figure {shorten(word)}.{advice}")
    return names[plain]


class Direction(NamedTuple):
    """A figure to sort by, and whether it starts from the largest.

    Args:
        figure: its name.
        descending: whether the largest is the best.
    """

    figure: str
    descending: bool = False

    def key(self, figures: Mapping[str, Any]) -> Any:
        """Return what is smaller for a better network, from its figures."""
        value = FOUND[self.figure].key(figures[self.figure])
        return -value if self.descending else value

    @property
    def words(self) -> str:
        """What comes first, for people: `least parameters`, `most MACs`."""
        return f"{'most' if self.descending else 'least'} {FOUND[self.figure].words}"

    def __str__(self) -> str:
        return f"-{self.figure}" if self.descending else self.figure


def direction(word: str, argument: str, known: Mapping[str, Measure]) -> Direction:
    """Read a figure to sort by; - before it means from the largest.

    Args:
        word: as it was given.
        argument: what it was given for, for the message.
        known: the figures that are offered.

    Raises:
        ArgumentError: if there is none of that name.

    >>> direction("-macs", "sort", FOUND)
    Direction(figure='multiply_accumulates', descending=True)
    """
    plain = word.strip()
    return Direction(figure_name(plain.removeprefix("-"), argument, known), plain.startswith("-"))

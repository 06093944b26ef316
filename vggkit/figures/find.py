"""Many networks → those that meet conditions: the zoo, or every combination of overrides, filtered and sorted.

The variants of a search are numbered, and worked on in chunks. In a chunk, those that differ in nothing but numbers
(width, classes, input, dropout) go through `place`, `summarize` and the walk of the memory plan together, as
`vggkit.many` makes possible: the rules are the same as for one network, and so are the figures.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property, lru_cache
from math import prod
from string import ascii_letters
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import msgspec
import numpy as np
from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, VggkitError, did_you_mean, shorten
from vggkit.base.many import Disagreement, largest, listed, many
from vggkit.base.numbers import parse_bytes, parse_count, plain, whole
from vggkit.base.tables import Shown, data_frame
from vggkit.figures.compared import split_changes
from vggkit.figures.summary import Summary, summarize
from vggkit.footprint import plan as liveness
from vggkit.footprint.plan import Options
from vggkit.network import Dtype, Network, Source, each_source, place, several
from vggkit.notation.config import Config
from vggkit.notation.document import setting
from vggkit.notation.overrides import OVERRIDES, Overrides, Width, check_keywords, read_override
from vggkit.notation.zoo import family_names, load, names

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from multiprocessing.synchronize import Event

    from rich.console import Group
    from typing_extensions import Unpack

    from vggkit.pictures.plot import Picture

Amount = str | SupportsIndex
"""A condition as text, or the number that a figure must be."""

CHUNK = 4096
"""Variants that are worked on at once: enough for numpy, and a few megabytes."""

MOST = 10**12
"""No search has more variants: it would take a year."""

FEW = 50_000
"""So many variants are faster done in one process than others are started."""


# Figures


class Costs:
    """What a network costs, each part worked out when it is asked for.

    Args:
        network: it may stand for many networks.
        options: batch, dtype and optimizer.
    """

    def __init__(self, network: Network, options: Options) -> None:
        self.network = network
        self.options = options

    @cached_property
    def summary(self) -> Summary:
        """Rows and totals."""
        return summarize(self.network, batch=self.options.batch, dtype=self.options.dtype)

    @cached_property
    def training(self) -> tuple[int, int]:
        """Peak and saved bytes of a training step."""
        return liveness.peak_and_saved_bytes(self.network, self.options, largest)

    @cached_property
    def inference(self) -> tuple[int, int]:
        """Peak and saved bytes of a forward pass."""
        options = replace(self.options, mode="inference", optimizer="none")
        return liveness.peak_and_saved_bytes(self.network, options, largest)


class Figure(NamedTuple):
    """A figure that a search can filter, sort and show.

    Args:
        aliases: other names that find it.
        value: a network's.
        is_bytes: whether conditions give it as 24GiB rather than as 15M.
    """

    aliases: tuple[str, ...]
    value: Callable[[Costs], Any]
    is_bytes: bool = False


FIGURES: dict[str, Figure] = {
    "weight_layers": Figure(("depth",), lambda costs: costs.summary.totals.weight_layers),
    "parameters": Figure(("params",), lambda costs: costs.summary.totals.parameters),
    "weights": Figure((), lambda costs: costs.summary.totals.weights),
    "biases": Figure((), lambda costs: costs.summary.totals.biases),
    "conv_parameters": Figure(("conv",), lambda costs: costs.summary.parameters_of("conv")),
    "fc_parameters": Figure(("fc",), lambda costs: costs.summary.parameters_of("fc")),
    "multiply_accumulates": Figure(("macs",), lambda costs: costs.summary.totals.multiply_accumulates),
    "activation_bytes": Figure(("activations",), lambda costs: costs.summary.totals.activation_bytes, True),
    "receptive_field": Figure(("field",), lambda costs: costs.network.receptive_field),
    "inference_peak_bytes": Figure(("inference_peak", "inference"), lambda costs: costs.inference[0], True),
    "training_peak_bytes": Figure(("training_peak", "training"), lambda costs: costs.training[0], True),
    "saved_for_backward_bytes": Figure(("saved",), lambda costs: costs.training[1], True),
}
"""Everything that can be asked for. A receptive field compares by its shorter side."""

SHOWN = ("weight_layers", "parameters", "multiply_accumulates", "activation_bytes")
"""The figures that are shown if nothing else is asked for."""

FRONT = ("parameters", "multiply_accumulates")
"""The two figures of the Pareto front if nothing else is asked for."""

WANTED = ("weight_layers", "receptive_field")
"""The figures that are no costs: who sorts them from the largest looks for large ones."""


def figure_name(word: str, argument: str) -> str:
    """Return the name of a figure.

    Args:
        word: its name or an alias; letter case and - or _ don't matter.
        argument: what it was given for, for the message.

    Raises:
        ArgumentError: if there is none of that name.

    >>> figure_name("MACs", "sort")
    'multiply_accumulates'
    """
    known = {alias: name for name, figure in FIGURES.items() for alias in (name, *figure.aliases)}
    plain = word.strip().lower().replace("-", "_")
    if plain not in known:
        advice = did_you_mean(plain, known) or f" Known: {', '.join(FIGURES)}"
        raise ArgumentError(f"{argument}: unknown figure {shorten(word)}.{advice}")
    return known[plain]


class Direction(NamedTuple):
    """A figure, and which end of it comes first.

    Args:
        figure: its name.
        descending: whether the largest is the best.
    """

    figure: str
    descending: bool = False

    def key(self, variant: Variant) -> Any:
        """Return what is smaller for a better variant."""
        value = ordered(variant.figures[self.figure])
        return -value if self.descending else value

    def __str__(self) -> str:
        return f"-{self.figure}" if self.descending else self.figure


def direction(word: str, argument: str) -> Direction:
    """Read a figure, with - before it from the largest.

    >>> direction("-macs", "sort")
    Direction(figure='multiply_accumulates', descending=True)
    """
    plain = word.strip()
    return Direction(figure_name(plain.removeprefix("-"), argument), plain.startswith("-"))


def ordered(value: Any) -> int:
    """Return what a figure is compared by: of a receptive field the shorter side."""
    number: int = min(value) if isinstance(value, (tuple, list)) else value
    return number


# Conditions


class Condition(NamedTuple):
    """What a figure must be.

    Args:
        figure: its name.
        low: the smallest that is allowed, or None.
        high: the largest that is allowed, or None.
    """

    figure: str
    low: int | None
    high: int | None

    def holds(self, value: Any) -> bool:
        """Tell whether a value of the figure is allowed."""
        number = ordered(value)
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


class _MeaningError(ArgumentError):
    """A condition that reads well and can't be meant."""


def condition(figure: str, text: str | int) -> Condition:
    """Read a condition.

    Args:
        figure: the figure's name.
        text: `<15M`, `<=15M`, `>1G`, `>=1G`, or a range whose ends belong to it: `1M..5M`; bytes as `<24GiB`. What a
            figure must be exactly is said in full: `=16`, `138357544`, `=602112B`; a number is one of bytes, too.

    Raises:
        ArgumentError: says what was found and what was expected.

    >>> condition("parameters", "<15M"), condition("training_peak_bytes", "1GB..24GiB")[1:]
    (Condition(figure='parameters', low=None, high=14999999), (1000000000, 25769803776))
    """
    whole = isinstance(text, int) and not isinstance(text, bool)
    try:
        return _condition(figure, f"{text}B" if whole and FIGURES[figure].is_bytes else str(text).strip())
    except ArgumentError as error:
        example = "<24GiB, >=800MB or 1GB..2GB" if FIGURES[figure].is_bytes else "<15M, >=2.5G or 1M..5M"
        why = f": {error}" if isinstance(error, _MeaningError) else ""
        raise ArgumentError(f"{figure}: expected a condition such as {example}, found {shorten(text)}{why}") from None


def _condition(figure: str, text: str) -> Condition:
    if ".." in text:
        low, high = (_amount(figure, part) for part in text.split("..", 1))
        if low > high:
            raise ArgumentError("an empty range")
        return Condition(figure, low, high)
    sign = next((sign for sign in ("<=", ">=", "<", ">", "=") if text.startswith(sign)), "")
    number = text.removeprefix(sign)
    amount = _amount(figure, number)
    if sign in ("<", "<="):
        return Condition(figure, None, amount - (sign == "<"))
    if sign in (">", ">="):
        return Condition(figure, amount + (sign == ">"), None)
    _refuse_rounded(figure, number.strip())
    return Condition(figure, amount, amount)


def _amount(figure: str, text: str) -> int:
    plain = text.strip()
    if plain.isascii() and plain.replace(".", "").isdigit():  # no unit
        if "." in plain:
            raise ArgumentError("no whole number")
        if FIGURES[figure].is_bytes:
            raise _MeaningError(f"{plain} has no unit; {plain}B are bytes")
        return parse_count(plain)
    return parse_bytes(plain) if FIGURES[figure].is_bytes else parse_count(plain)


def _refuse_rounded(figure: str, text: str) -> None:
    """Refuse a rounded number as the exact value of a figure, and give the range of what rounds to it."""
    number = text.rstrip(ascii_letters + " ")
    unit = text.removeprefix(number)
    decimals = len(number.partition(".")[2])
    if _amount(figure, f"1{unit}") <= 10**decimals:
        return
    value, half = Decimal(number), Decimal(5).scaleb(-decimals - 1)
    raise _MeaningError(
        f"{text} is rounded, and would have to be exact; what rounds to it is in"
        f" {value - half}{unit}..{value + half}{unit}"
    )


# What is searched


class Axis(NamedTuple):
    """An override and the values that are tried.

    Args:
        word: the override's name.
        values: as they were given.
        read: the same, checked and typed.
    """

    word: str
    values: tuple[Any, ...]
    read: tuple[Any, ...]

    def at(self, indices: Any) -> Any:
        """Return the values at indices, as one value that stands for them all."""
        distinct, inverse = np.unique(indices, return_inverse=True)
        values = [self.read[index] for index in distinct]
        if len(values) == 1:
            return values[0]
        if self.word == "width":
            return _Widths(values, inverse)
        if self.word == "input":
            return tuple(many([values[index][axis] for index in inverse]) for axis in range(3))
        return many([values[index] for index in inverse])


NUMBERS = ("num_classes", "input", "in_channels", "width", "dropout")
"""The overrides whose values are numbers, so that one walk does for all of them."""


class _Widths:
    """Width multipliers that are treated as one."""

    def __init__(self, widths: Sequence[Width], inverse: Any) -> None:
        self.widths = widths
        self.inverse = inverse

    def of(self, width: int) -> Any:
        """Return a number of channels or units, multiplied, as `Width.of` does."""
        scaled = [_scaled(one, width) for one in self.widths]
        if all(number is None for number in scaled):
            return self.widths[0].of(width)  # raises, and says why
        if None in scaled:
            raise Disagreement(np.array([number is None for number in scaled])[self.inverse].astype(int))
        return many([scaled[index] for index in self.inverse])


@lru_cache(maxsize=2**16)
def _scaled(by: Width, width: int) -> int | None:
    try:
        return by.of(width)
    except ValueError:
        return None


class Origin(NamedTuple):
    """A configuration that variants are made of.

    Args:
        name: its own.
        config: as it was loaded.
        changes: what was changed behind its name, as it was given.
        fixed: these and the changes to every configuration, checked and typed.
    """

    name: str
    config: Config
    changes: dict[str, Any]
    fixed: dict[str, Any]


class Query(msgspec.Struct, frozen=True):
    """A search that has been checked.

    Args:
        sources: the configurations.
        axes: the overrides that are varied, the last one fastest.
        figures: those that are shown.
        needed: those that are worked out.
        conditions: what the figures must be; all of them.
        sort: what comes first; None for the order of the variants.
        limit: how many are kept; None for all.
        pareto: the two figures of the front.
        options: batch, dtype and optimizer.
    """

    sources: tuple[Origin, ...]
    axes: tuple[Axis, ...]
    figures: tuple[str, ...]
    needed: tuple[str, ...]
    conditions: tuple[Condition, ...]
    sort: Direction | None
    limit: int | None
    pareto: tuple[Direction, Direction]
    options: Options

    @property
    def shape(self) -> tuple[int, ...]:
        """How many sources, and how many values of each axis."""
        return (len(self.sources), *(len(axis.values) for axis in self.axes))

    @property
    def total(self) -> int:
        """How many variants there are."""
        return prod(self.shape)

    @property
    def varied(self) -> tuple[str, ...]:
        """The overrides that are varied."""
        return tuple(axis.word for axis in self.axes)


class Variant(msgspec.Struct, frozen=True):
    """A network that was found.

    Args:
        name: of its configuration.
        changes: the overrides that were varied, as they were given.
        figures: by their names; counts and bytes are for the whole batch.
        front: whether no other variant that was found is better in one of the two figures of the Pareto front and as
            good in the other; None if that was not asked.
    """

    name: str
    changes: dict[str, Any]
    figures: dict[str, Any]
    front: bool | None = None

    @property
    def label(self) -> str:
        """Its name, and behind a colon what was changed: `compare` and `--set` take it back."""
        changes = ",".join(f"{word}={spelt(value)}" for word, value in self.changes.items())
        return f"{self.name}:{changes}" if changes else self.name


def spelt(value: Any) -> str:
    """Write the value of an override as it is typed.

    >>> spelt(True), spelt((3, 32, 32)), spelt(0.5), spelt({"leaky-relu": 0.2})
    ('true', '3x32x32', '0.5', '{leaky-relu: 0.2}')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{word}: {spelt(inner)}' for word, inner in value.items())}}}"
    return "x".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


class Chunk(NamedTuple):
    """What a part of a search gave.

    Args:
        variants: those that meet the conditions, in order.
        examined: how many there were.
        left_out: how many of them an override or the input does not fit.
        reason: why the first of those is left out.
    """

    variants: list[Variant]
    examined: int
    left_out: int
    reason: str | None


class Found(Shown, msgspec.Struct, frozen=True):
    """What a search gave. Iterating gives its variants.

    Args:
        query: what was asked.
        variants: those that meet the conditions, sorted, with the Pareto front marked.
        matches: how many there are without the limit.
        left_out: how many variants an override or the input does not fit.
        reason: why the first of those is left out.
    """

    query: Query
    variants: tuple[Variant, ...]
    matches: int
    left_out: int
    reason: str | None

    def __iter__(self) -> Iterator[Variant]:
        return iter(self.variants)

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, index: int) -> Variant:
        return self.variants[index]

    @property
    def front(self) -> tuple[Variant, ...]:
        """Those on the Pareto front."""
        return tuple(variant for variant in self.variants if variant.front)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        query = self.query
        return {
            "batch": query.options.batch,
            "dtype": query.options.dtype,
            "optimizer": query.options.optimizer,
            "pareto": [str(direction) for direction in query.pareto],
            "examined": query.total,
            "left_out": self.left_out,
            "matches": self.matches,
            "found": [
                {
                    "name": variant.name,
                    "changes": {word: _plain(value) for word, value in variant.changes.items()},
                    **{name: _plain(variant.figures[name]) for name in query.figures},
                    "pareto": variant.front,
                }
                for variant in self.variants
            ],
        }

    def to_dataframe(self) -> Any:
        """Return the variants as a pandas DataFrame, indexed by their names: what was changed, figures, Pareto front.

        Raises:
            VggkitError: if pandas is not installed.
        """
        rows: list[dict[str, Any]] = self.to_dict()["found"]
        return data_frame(({"name": row.pop("name"), **row.pop("changes"), **row} for row in rows), "name")

    def to_csv(self) -> str:
        """Return a line per variant, with its overrides and figures in columns."""
        from vggkit.figures.find_table import csv_text

        return csv_text(self)

    def plot(self) -> Picture:
        """Draw the two figures of the Pareto front against one another."""
        from vggkit.pictures.plot import plot_found

        return plot_found(self)

    def __str__(self) -> str:
        from vggkit.figures.find_table import table_text

        return table_text(self)

    def __rich__(self) -> Group:
        from vggkit.figures.find_table import table

        return table(self)

    def _repr_html_(self) -> str:
        from vggkit.figures.find_table import html_text

        return html_text(self)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(word): _plain(inner) for word, inner in value.items()}
    return value if isinstance(value, (bool, int, float, str)) else str(value)


# Searching


def find(
    *sources: Source | Iterable[Source],
    vary: Mapping[str, Iterable[Any]] | None = None,
    where: Mapping[str, Amount | Sequence[Amount]] | None = None,
    figures: str | Iterable[str] = (),
    sort: str | None = None,
    limit: SupportsIndex | None = None,
    pareto: str | Sequence[str] | None = None,
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    optimizer: str | None = None,
    processes: SupportsIndex = 1,
    **overrides: Unpack[Overrides],
) -> Found:
    """Search the zoo, or every combination of overrides, for networks that meet conditions.

    Args:
        sources: names, paths, Configs or Networks, or lists of them; behind a name or path may stand changes, as in
            `D:head=gap`. Without any, the paper's six and the family.
        vary: overrides and the values to try; every combination is a variant.
        where: figures and what they must be: `{"parameters": "<15M", "training_peak": [">1GiB", "<8GiB"]}`.
        figures: those to work out and show; if absent the usual ones and whatever else is asked for.
        sort: a figure; with - before it from the largest.
        limit: how many to keep, after sorting.
        pareto: the two figures of the Pareto front, smaller is better; with - before one larger is. If absent
            parameters, and multiply_accumulates or what is sorted by.
        batch: number of images.
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        optimizer: of the training step: none, sgd, sgd-momentum (if absent; without weight decay), adam or adamw.
        processes: how many processes work on a large search. Where more than one does, the calling program's main
            module must be importable, as `multiprocessing` asks.
        overrides: changes to make to every configuration, as for `load`.

    Returns:
        What was found, in an order that is always the same.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> found = find("A", "D", vary={"head": ["paper", "gap"], "width": [0.5, 1]}, where={"parameters": "<15M"})
    >>> [variant.label for variant in found]
    ['A:head=gap,width=0.5', 'A:head=gap,width=1', 'D:head=gap,width=0.5']
    """
    check_keywords(find, overrides)
    processes = whole(processes, "processes")
    query = prepared(
        each_source(sources), overrides, vary=vary or {}, where=where or {}, figures=figures, sort=sort, limit=limit,
        pareto=pareto, batch=batch, dtype=dtype, optimizer=optimizer,
    )  # fmt: skip
    return collected(query, chunks(query, processes))


def prepared(
    sources: Sequence[Source],
    overrides: Mapping[str, Any],
    *,
    vary: Mapping[str, Iterable[Any]],
    where: Mapping[str, Amount | Sequence[Amount]],
    figures: str | Iterable[str],
    sort: str | None,
    limit: SupportsIndex | None,
    pareto: str | Sequence[str] | None,
    batch: SupportsIndex,
    dtype: Dtype,
    optimizer: str | None,
) -> Query:
    """Check the arguments of `find`.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: names the argument, what was found and what is allowed.
    """
    wanted = {word: plain(given) for word, given in where.items()}
    conditions = tuple(
        condition(figure_name(word, "where"), text)
        for word, texts in wanted.items()
        for text in ((texts,) if isinstance(texts, (str, int)) else texts)
    )
    order = None if sort is None else direction(sort, "sort")
    front = _front_of(pareto, order)
    asked = [each.figure for each in (*conditions, *(() if order is None else (order,)), *(front if pareto else ()))]
    shown = tuple(dict.fromkeys(figure_name(word, "figures") for word in several(figures, "figures")))
    shown = shown or tuple(name for name in FIGURES if name in (*SHOWN, *asked))
    origins = tuple(_origin(source, overrides) for source in sources or (*names(), *family_names()))
    query = Query(
        sources=origins,
        axes=tuple(_axis(word, values, origins) for word, values in vary.items()),
        figures=shown,
        needed=tuple(name for name in FIGURES if name in (*shown, *asked, *(one.figure for one in front))),
        conditions=conditions,
        sort=order,
        limit=None if limit is None else whole(limit, "limit"),
        pareto=front,
        options=_options(origins[0].config, batch=batch, dtype=dtype, optimizer=optimizer),
    )  # fmt: skip
    if query.total > MOST:
        raise ArgumentError(f"vary: expected up to {MOST:.0e} variants, found {query.total:.1e}")
    return query


def _options(config: Config, **options: Any) -> Options:
    """Check what a step is like; that it is of this configuration makes no difference."""
    unsaid = {"mode": "training", "device": "cpu", "freeze": (), "checkpoint": (), "autocast": False}
    return liveness.checked_options(Network(config, ()), **unsaid, **options)


def _front_of(pareto: str | Sequence[str] | None, order: Direction | None) -> tuple[Direction, Direction]:
    if pareto is None:
        if order is None or order.figure in FRONT:
            return Direction(FRONT[0]), Direction(FRONT[1])
        return Direction(FRONT[0]), Direction(order.figure, order.descending and order.figure in WANTED)
    words = several(pareto, "pareto")
    named = [direction(word, "pareto") for word in words]
    if len(named) != 2 or named[0].figure == named[1].figure:
        found = ",".join(words) or "none"
        raise ArgumentError(f"pareto: expected two figures, such as parameters,macs, found {shorten(found)}")
    return named[0], named[1]


def _origin(source: Source, overrides: Mapping[str, Any]) -> Origin:
    """Load a configuration; the changes to it need not fit, and are made with those that are varied."""
    if isinstance(source, Network):
        source = source.config
    text, changes = ("", ()) if isinstance(source, Config) else split_changes(os.fspath(source))
    config = source if isinstance(source, Config) else load(text)
    try:
        own = dict(map(setting, changes))
        fixed = {word: read_override(word, value) for word, value in {**overrides, **own}.items() if value is not None}
    except ArgumentError as error:
        raise ArgumentError(f"{text}:{','.join(changes)}: {error}" if changes else str(error)) from None
    return Origin(config.name, config, own, fixed)


def _axis(word: str, values: Iterable[Any], origins: Sequence[Origin]) -> Axis:
    values = plain(values)
    given = (values,) if isinstance(values, (str, int, float, Mapping)) else tuple(map(plain, values))
    if not given:
        raise ArgumentError(f"vary: {word} has no values; expected some, such as width=0.5,1")
    try:
        axis = Axis(word, given, tuple(read_override(word, value) for value in given))
    except ArgumentError as error:
        raise ArgumentError(f"vary: {error}") from None
    if any(word in origin.fixed for origin in origins):
        raise ArgumentError(f"vary: {word} is varied and set; expected one of the two")
    return axis


def chunks(query: Query, processes: int = 1) -> Generator[Chunk, None, None]:
    """Work on the variants, chunk by chunk and in order; no more than a few chunks are in memory.

    Args:
        query: what is searched.
        processes: how many processes work on it if it is large.
    """
    parts = (range(start, min(start + CHUNK, query.total)) for start in range(0, query.total, CHUNK))
    if processes == 1 or query.total < FEW:
        yield from (chunk(query, part) for part in parts)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # to spawn is what works everywhere: a fork of a program that has threads may hang
    context = get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(processes, context, initializer=_set_query, initargs=(query, stop))
    try:
        yield from _in_order(executor, parts, ahead=2 * processes)
    except BrokenProcessPool:
        raise VggkitError("a process that took part in the search was ended from outside; try again") from None
    finally:
        stop.set()  # what is already on its way to a process can't be cancelled any more
        executor.shutdown(cancel_futures=True)


def cores() -> int:
    """Return how many processes can work at once on this machine, as far as this one may use it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 61)  # Windows can't wait for more


def _in_order(executor: Executor, parts: Iterable[range], ahead: int) -> Iterator[Chunk]:
    """Pass on the results in order, with no more than so many chunks being worked on or waiting."""
    waiting: deque[Future[Chunk]] = deque()
    for part in parts:
        if len(waiting) == ahead:
            yield waiting.popleft().result()
        with _interrupts_held():
            waiting.append(executor.submit(_chunk_of_query, part))
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait, and keep it from the processes that start meanwhile, which would print where they were."""
    import signal
    from threading import current_thread, main_thread

    if not hasattr(signal, "pthread_sigmask") or current_thread() is not main_thread():  # Windows; nobody interrupts it
        yield
        return
    held: list[int] = []
    # the mask is what new processes inherit; the handler is for the signal that another thread takes in our place
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if held:
        signal.raise_signal(signal.SIGINT)


_QUERY: list[tuple[Query, Callable[[], bool]]] = []
"""In a process that works on chunks, what is searched, and whether to stop."""


class Stopped(Exception):  # noqa: N818  # a signal
    """Nobody waits for the rest of a chunk."""


def _set_query(query: Query, stop: Event) -> None:
    """Make a process ready; Ctrl-C is left to the one that started it, which then stops the others."""
    from signal import SIG_IGN, SIGINT, signal
    from threading import Thread

    signal(SIGINT, SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _QUERY[:] = [(query, stop.is_set)]


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one: if it was killed, nobody else would end this one."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _chunk_of_query(part: range) -> Chunk:
    query, stopped = _QUERY[0]
    return chunk(query, part, stopped)


def chunk(query: Query, part: range, stopped: Callable[[], bool] = lambda: False) -> Chunk:
    """Work on the variants of these numbers.

    Args:
        query: what is searched.
        part: the numbers.
        stopped: asked between groups of variants.

    Raises:
        Stopped: as soon as `stopped` says so.
    """
    places = np.stack(np.unravel_index(np.arange(part.start, part.stop), query.shape))
    variants: list[tuple[int, Variant]] = []
    misfits: list[int] = []
    for group in _groups(query, places):
        for rows, columns in _costs(query, places, group):
            if stopped():
                raise Stopped
            if columns is None:
                misfits += rows.tolist()
            else:
                variants += _matching(query, places, rows, columns)
    variants.sort(key=lambda numbered: numbered[0])
    reason = _reason(query, places[:, min(misfits)]) if misfits else None
    return Chunk([variant for _, variant in variants], len(part), len(misfits), reason)


def _groups(query: Query, places: Any) -> Iterator[Any]:
    """Split the variants of a chunk into those that differ in nothing but numbers."""
    structural = [0, *(1 + number for number, word in enumerate(query.varied) if word not in NUMBERS)]
    _, labels = np.unique(places[structural], axis=1, return_inverse=True)
    labels = labels.reshape(-1)  # NumPy 2.0 gives it two dimensions
    yield from (np.flatnonzero(labels == label) for label in range(labels.max() + 1))


def _costs(query: Query, places: Any, group: Any) -> Iterator[tuple[Any, dict[str, list[Any]] | None]]:
    """Work out the figures of a group, or of the parts that it falls into; None for those that don't fit."""
    waiting = [group]
    while waiting:
        rows = waiting.pop()
        try:
            values = _values(query, places[:, rows])
        except Disagreement as signal:
            waiting += [rows[signal.labels == label] for label in np.unique(signal.labels)]
        except VggkitError:
            yield rows, None
        else:
            yield rows, {name: _column(value, len(rows)) for name, value in values.items()}


def _values(query: Query, places: Any) -> dict[str, Any]:
    """Work out the figures of variants that answer alike."""
    costs = Costs(place(_config(query, places)), query.options)
    return {name: FIGURES[name].value(costs) for name in query.needed}


def _column(value: Any, count: int) -> list[Any]:
    if isinstance(value, tuple):
        return list(zip(*(listed(side, count) for side in value)))
    return listed(value, count)


def _config(query: Query, places: Any) -> Config:
    """Return the configuration that stands for variants, with all changes made to it."""
    origin = query.sources[int(places[0][0])]
    changes = {**origin.fixed, **{axis.word: axis.at(indices) for axis, indices in zip(query.axes, places[1:])}}
    config = origin.config
    for word, override in OVERRIDES.items():
        if word in changes:
            try:
                config = override.apply(config, changes[word])
            except ValueError as error:
                raise ArgumentError(f"{word}: {error}") from None
    return config


def _matching(query: Query, places: Any, rows: Any, columns: dict[str, list[Any]]) -> Iterator[tuple[int, Variant]]:
    """Return the variants that meet the conditions, each with its number in the chunk."""
    for position, row in enumerate(rows.tolist()):
        if all(each.holds(columns[each.figure][position]) for each in query.conditions):
            figures = {name: column[position] for name, column in columns.items()}
            yield row, _variant(query, places[:, row].tolist(), figures)


def _variant(query: Query, indices: Sequence[int], figures: dict[str, Any]) -> Variant:
    origin = query.sources[indices[0]]
    varied = {axis.word: axis.values[index] for axis, index in zip(query.axes, indices[1:])}
    return Variant(origin.name, {**origin.changes, **varied}, figures)


def _reason(query: Query, indices: Any) -> str:
    """Say why a variant is left out."""
    try:
        _values(query, indices[:, None])
    except VggkitError as error:
        label = _variant(query, indices.tolist(), {}).label
        return f"{label}: {error}" if not str(error).startswith(label) else str(error)
    raise AssertionError("a variant that fits was left out")


# What is kept


def collected(query: Query, parts: Iterable[Chunk]) -> Found:
    """Keep what a search gives: all that match, or as many as the limit says, and the values of the Pareto front."""
    kept: list[Variant] = []
    front: list[Variant] = []
    matches = left_out = 0
    reason: str | None = None
    for part in parts:
        kept += part.variants
        if query.limit is not None:
            kept = _best(query, kept)
        front = pareto_front(front + part.variants, query.pareto)
        matches += len(part.variants)
        left_out += part.left_out
        reason = reason or part.reason
    best = {_point(variant, query.pareto) for variant in front}
    marked = tuple(replace(variant, front=_point(variant, query.pareto) in best) for variant in _best(query, kept))
    return Found(query, marked, matches, left_out, reason)


def _best(query: Query, variants: list[Variant]) -> list[Variant]:
    """Sort, those that are equal in the order in which they came, and cut off what is beyond the limit."""
    if query.sort is not None:
        variants.sort(key=query.sort.key)
    return variants if query.limit is None else variants[: query.limit]


def _point(variant: Variant, directions: tuple[Direction, Direction]) -> tuple[Any, Any]:
    return directions[0].key(variant), directions[1].key(variant)


def pareto_front(variants: Iterable[Variant], directions: tuple[Direction, Direction]) -> list[Variant]:
    """Return those that no other is better than in one figure without being worse in the other.

    Args:
        variants: those to choose from.
        directions: the two figures.
    """
    front: list[Variant] = []
    best: Any = None
    for variant in sorted(variants, key=lambda one: _point(one, directions)):
        point = _point(variant, directions)
        if best is None or point[1] < best[1] or point == best:
            front.append(variant)
            best = point
    return front

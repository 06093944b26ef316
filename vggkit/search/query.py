"""The arguments of a search, checked: configurations, overrides to vary, conditions, an order, and the Pareto front."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from math import prod
from string import ascii_letters
from typing import Any, NamedTuple, SupportsIndex

import msgspec
import numpy as np

from vggkit.base.errors import ArgumentError, MisleadingError, shorten
from vggkit.base.many import Disagreement, many
from vggkit.base.numbers import grouped, plain, whole
from vggkit.figures.compared import split_changes
from vggkit.figures.measures import FOUND, Count, Direction, direction, figure_name
from vggkit.footprint.ranks import STRATEGIES
from vggkit.footprint.steps.options import StepOptions, training_options
from vggkit.modules.told import is_module
from vggkit.network import Dtype, Network, Source, several
from vggkit.notation.config import Config
from vggkit.notation.document import setting
from vggkit.notation.overrides import Width, read_override
from vggkit.notation.zoo import family_names, load, names

Amount = str | SupportsIndex
"""A condition as text, or the number that a figure must be."""

MOST = 10**12
"""No search has more variants: it would take a year."""

NAMES_LENGTH = 60
"""Most characters of the names of what is searched in a title; with more, it says how many they are."""

SHOWN = ("weight_layers", "parameters", "multiply_accumulates", "activation_bytes")
"""The figures that are shown if nothing else is asked for."""

FRONT = ("parameters", "multiply_accumulates")
"""The two figures of the Pareto front if nothing else is asked for."""


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

    def __str__(self) -> str:
        measure = FOUND[self.figure]
        limits = (("≥", self.low), ("≤", self.high))
        return "; ".join(
            f"{measure.words} {sign} {measure.written_limit(limit)}" for sign, limit in limits if limit is not None
        )

    def holds(self, value: Any) -> bool:
        """Tell whether a value of the figure is allowed."""
        number = FOUND[self.figure].key(value)
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)


def condition(figure: str, text: str | int) -> Condition:
    """Read a condition.

    Args:
        figure: the figure's name.
        text: `<15M`, `<=15M`, `>1G`, `>=1G`, or a range, ends included: `1M..5M`; bytes as `<24GiB`. An exact value
            is written in full: `=16`, `138357544`, `=602112B`. An int is an exact value, too; of memory, in bytes.

    Raises:
        ArgumentError: says what was found and what was expected.

    >>> condition("parameters", "<15M"), condition("training_peak_bytes", "1GB..24GiB")[1:]
    (Condition(figure='parameters', low=None, high=14999999), (1000000000, 25769803776))
    """
    measure = FOUND[figure]
    exact = isinstance(text, int) and not isinstance(text, bool)
    try:
        low, high = _limits(measure, f"{text}{measure.unit}" if exact else str(text).strip())
    except ArgumentError as error:
        why = f": {error}" if isinstance(error, MisleadingError) else ""
        raise ArgumentError(
            f"{figure}: expected a condition such as {measure.example}, found {shorten(text)}{why}"
        ) from None
    return Condition(figure, low, high)


def _limits(measure: Count, text: str) -> tuple[int | None, int | None]:
    """Read the smallest and the largest value that a condition allows."""
    if ".." in text:
        low, high = (measure.limit(part.strip()) for part in text.split("..", 1))
        if low > high:
            raise ArgumentError("an empty range")
        return low, high
    sign = next((sign for sign in ("<=", ">=", "<", ">", "=") if text.startswith(sign)), "")
    number = text.removeprefix(sign).strip()
    limit = measure.limit(number)
    if sign in ("<", "<="):
        return None, limit - (sign == "<")
    if sign in (">", ">="):
        return limit + (sign == ">"), None
    _refuse_rounded(measure, number)
    return limit, limit


def _refuse_rounded(measure: Count, text: str) -> None:
    """Refuse a rounded number as the exact value of a figure, and give the range of what rounds to it."""
    number = text.rstrip(ascii_letters + " ")
    unit = text.removeprefix(number)
    decimals = len(number.partition(".")[2])
    if measure.limit(f"1{unit}") <= 10**decimals:
        return
    value, half = Decimal(number), Decimal(5).scaleb(-decimals - 1)
    raise MisleadingError(
        f"{text} is a rounded number; expected an exact one, or a range: {value - half}{unit}..{value + half}{unit}"
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
        """Return the values at indices, as one value that behaves like all of them."""
        distinct, inverse = np.unique(indices, return_inverse=True)
        values = [self.read[index] for index in distinct]
        if len(values) == 1:
            return values[0]
        if self.word == "width":
            return _Widths(values, inverse)
        if self.word == "input":
            return tuple(many([values[index][axis] for index in inverse]) for axis in range(3))
        return many([values[index] for index in inverse])


class _Widths:
    """Several width multipliers that are used as if they were one."""

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
        changes: those after its name, as they were given.
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
        together: those that are worked out for many variants at once.
        alone: those that are worked out for each variant alone, if it meets the conditions on the others.
        conditions: what the figures must be; all of them.
        sort: what comes first; None for the order of the variants.
        limit: how many are kept; None for all.
        pareto: the two figures of the front.
        options: what the training step is like, checked except for the names of blocks and layers.
    """

    sources: tuple[Origin, ...]
    axes: tuple[Axis, ...]
    figures: tuple[str, ...]
    together: tuple[str, ...]
    alone: tuple[str, ...]
    conditions: tuple[Condition, ...]
    sort: Direction | None
    limit: int | None
    pareto: tuple[Direction, Direction]
    options: StepOptions

    @property
    def shape(self) -> tuple[int, ...]:
        """How many sources, and how many values of each axis."""
        return (len(self.sources), *(len(axis.values) for axis in self.axes))

    @property
    def total(self) -> int:
        """How many variants there are."""
        return prod(self.shape)

    @property
    def last(self) -> tuple[str, ...]:
        """The figures that are worked out at the end, for each variant that is left after sorting and cutting."""
        return tuple(name for name in self.figures if name not in (*self.together, *self.alone))

    @property
    def varied(self) -> tuple[str, ...]:
        """The overrides that are varied."""
        return tuple(axis.word for axis in self.axes)

    @property
    def networks(self) -> str:
        """What is searched, in words: the configurations, or how many they are, and what is varied."""
        names = ", ".join(labelled(origin.name, origin.changes) for origin in self.sources)
        searched = names if len(names) <= NAMES_LENGTH else f"{grouped(len(self.sources))} configurations"
        return f"{searched} with varied {', '.join(self.varied)}" if self.axes else searched

    @property
    def best(self) -> str:
        """What is better on the Pareto front, in words: `least parameters and least MACs`."""
        return " and ".join(direction.words for direction in self.pareto)


# Checking


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
    training: Mapping[str, Any],
) -> Query:
    """Check the arguments of `find`.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: names the argument, what was found and what is allowed.
    """
    wanted = {word: plain(given) for word, given in where.items()}
    conditions = tuple(
        condition(figure_name(word, "where", FOUND), text)
        for word, texts in wanted.items()
        for text in ((texts,) if isinstance(texts, (str, int)) else texts)
    )
    order = None if sort is None else direction(sort, "sort", FOUND)
    front = _front_of(pareto, order)
    asked = {one.figure for one in (*conditions, *([order] if order else ()), *(front if pareto else ()))}
    shown = tuple(dict.fromkeys(figure_name(word, "figures", FOUND) for word in several(figures, "figures")))
    shown = shown or tuple(name for name in FOUND if name in (*SHOWN, *asked))
    needed = [name for name in FOUND if name in (*shown, *asked, *(one.figure for one in front))]
    together = tuple(name for name in needed if FOUND[name].time_alone is None)
    origins = tuple(_origin(source, overrides) for source in sources or (*names(), *family_names()))
    options = training_options(batch=batch, dtype=dtype, **training)
    for name in needed:
        if FOUND[name].time_alone is not None:
            _check_card(name, options)
    query = Query(
        sources=origins,
        axes=tuple(_axis(word, values, origins) for word, values in vary.items()),
        figures=shown,
        together=together,
        # what is only shown can wait for the end, unless every variant is shown
        alone=tuple(name for name in needed if name not in together and (limit is None or name in asked)),
        conditions=conditions,
        sort=order,
        limit=None if limit is None else whole(limit, "limit"),
        pareto=front,
        options=options,
    )
    if query.total > MOST:
        raise ArgumentError(f"vary: expected up to {MOST:.0e} variants, found {query.total:.1e}")
    return query


def _check_card(figure: str, options: StepOptions) -> None:
    """Refuse a figure of a card that is not known of what the ranks do."""
    try:
        STRATEGIES[options.group.parallel].check(options.group, options.replace(device="cuda"))
    except ArgumentError as error:
        raise ArgumentError(f"{figure}: {error}") from None


def _front_of(pareto: str | Sequence[str] | None, order: Direction | None) -> tuple[Direction, Direction]:
    if pareto is None:
        if order is None or order.figure in FRONT:
            return Direction(FRONT[0]), Direction(FRONT[1])
        return Direction(FRONT[0]), Direction(order.figure, order.descending and FOUND[order.figure].larger_is_better)
    words = several(pareto, "pareto")
    named = [direction(word, "pareto", FOUND) for word in words]
    if len(named) != 2 or named[0].figure == named[1].figure:
        found = ",".join(words) or "none"
        raise ArgumentError(f"pareto: expected two figures, such as parameters,macs, found {shorten(found)}")
    return named[0], named[1]


def _origin(source: Source, overrides: Mapping[str, Any]) -> Origin:
    """Load a configuration. Its changes are made later, with those that are varied: alone they need not fit."""
    if isinstance(source, Network) or is_module(source):
        source = Network.of(source, input=overrides.get("input") if is_module(source) else None).config
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


def labelled(name: str, changes: Mapping[str, Any]) -> str:
    """Return a name, a colon and the changes, as `compare` takes them."""
    spelt_changes = ",".join(f"{word}={spelt(value)}" for word, value in changes.items())
    return f"{name}:{spelt_changes}" if spelt_changes else name


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

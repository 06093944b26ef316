"""Search the zoo, or every combination of overrides, for networks that meet conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec
from msgspec.structs import replace

from vggkit.base import tables
from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import grouped, whole
from vggkit.base.tables import Column, DrawnTable, FittedTable, Grid, Shown, grid
from vggkit.figures.compare import CompareArguments
from vggkit.figures.compared import step_dict, step_title
from vggkit.figures.measures import FOUND, Direction
from vggkit.footprint.steps.options import TRAINING_KEYWORDS
from vggkit.network import Dtype, Source, each_source
from vggkit.notation.overrides import divided
from vggkit.search.chunks import Chunk, Variant, chunks, is_large, with_figures
from vggkit.search.query import Amount, Query, labelled, prepared, spelt

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggkit.pictures.plot import Picture


class Found(Shown, msgspec.Struct, frozen=True):
    """The result of a search. Iterating gives its variants.

    Args:
        query: what was asked.
        variants: those that meet the conditions, sorted, with the Pareto front marked.
        matches: how many there are without the limit.
        left_out: how many variants were skipped, because the input, an override or the step does not fit them.
        reason: why the first of those was.
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

    @property
    def title(self) -> str:
        """One line that says how many were found, and what the figures are of."""
        query = self.query
        cut = "" if len(self) == self.matches else f" ({grouped(len(self))} shown)"
        trained = any(FOUND[name].step == "training" for name in query.figures)
        step = step_title(query.options, trained=trained)
        return f"{grouped(self.matches)} of {grouped(query.total)}{cut}: {step}"

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        query = self.query
        return {
            **step_dict(query.options),
            "pareto": [str(direction) for direction in query.pareto],
            "examined": query.total,
            "left_out": self.left_out,
            "matches": self.matches,
            "found": [
                {
                    "name": variant.name,
                    "changes": {word: _json_value(value) for word, value in variant.changes.items()},
                    **{name: _json_value(variant.figures[name]) for name in query.figures},
                    "pareto": variant.front,
                }
                for variant in self.variants
            ],
        }

    def table(self) -> FoundTable:
        """Return a line for each variant, those on the Pareto front marked."""
        return FoundTable(self)

    def plot(self) -> Picture:
        """Draw the two figures of the Pareto front against one another.

        Raises:
            ArgumentError: if nothing was found.
        """
        from vggkit.pictures import front
        from vggkit.pictures.plot import draw, file_name

        if not self.variants:
            raise ArgumentError(
                "nothing was found, so there is nothing to draw; expected conditions that some networks meet"
            )
        first, second = (FOUND[direction.figure] for direction in self.query.pareto)
        shown = front.Points(
            things="networks",
            networks=self.query.networks,
            subtitle="; ".join([self.title, *map(str, self.query.conditions)]),
            measures=(first, second),
            best=self.query.best,
            points=tuple(
                front.Point(one.label, (one.figures[first.name], one.figures[second.name]), on_front=bool(one.front))
                for one in self.variants
            ),
        )
        return draw(front, shown, file_name("find", list(dict.fromkeys(one.name for one in self.variants))))


def _json_value(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, (tuple, list)):
        return [_json_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(word): _json_value(inner) for word, inner in value.items()}
    return value if isinstance(value, (bool, int, float, str)) else str(value)


# The table

MARK = "*"
"""Marks those on the Pareto front."""


class FoundTable(DrawnTable):
    """A line for each variant. CSV has changes as they are typed, so that they can be used in a command.

    Each form is made only when it is needed, since there may be a million variants.
    """

    def __init__(self, found: Found) -> None:
        super().__init__(records=(), columns=_header(found.query, marked=True), title=found.title)
        self.found = found

    @cached_property
    def grids(self) -> Sequence[Grid]:
        """One grid, the Pareto front marked."""
        query = self.found.query
        columns: list[Column[Variant]] = [
            Column("", lambda variant: MARK if variant.front else ""),
            Column("name", lambda variant: _name(query, variant), style="cyan"),
            *(_change_column(word) for word in query.varied),
            *(_figure_column(query, figure) for figure in query.figures),
        ]
        return [grid(columns, self.found.variants, title=self.title)]

    @cached_property
    def data(self) -> object:
        """The documented JSON."""
        return self.found.to_dict()

    @cached_property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """For data frames: the rows of JSON, with a column for each change."""
        rows: list[dict[str, Any]] = self.found.to_dict()["found"]
        return [{"name": row.pop("name"), **row.pop("changes"), **row} for row in rows]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        if not self.found.variants:
            return Text(self.title, style="bold")
        best = self.found.query.best
        said = f"{MARK} Pareto front of {best}: no other is as good in both and better in one."
        return Group(*map(FittedTable, self.grids), *([Text(f"\n{said}", style="dim")] if self.found.front else []))

    def to_csv(self) -> str:
        """Return a line for each variant, those on the Pareto front marked."""
        query = self.found.query
        return tables.csv(self.columns, [_spelt_row(query, variant, marked=True) for variant in self.found])


def _name(query: Query, variant: Variant) -> str:
    """Name a variant, with the changes to its configuration that have no column of their own."""
    return labelled(variant.name, {word: value for word, value in variant.changes.items() if word not in query.varied})


def _change_column(word: str) -> Column[Variant]:
    return Column(word, lambda variant: spelt(variant.changes[word]), "right")


def _figure_column(query: Query, figure: str) -> Column[Variant]:
    asked = {one.figure for one in (*query.conditions, *([query.sort] if query.sort else ()))}
    front = {direction.figure for direction in query.pareto}
    rank = 1 if figure in asked else 2 if figure in front else 3
    measure = FOUND[figure]
    return Column(measure.words, lambda variant: measure.written(variant.figures[figure]), "right", rank)


# CSV


def csv_header(query: Query) -> str:
    """Return the first line of the CSV that is written while a search goes on: without marks, as no front is known."""
    return tables.csv(_header(query, marked=False), [])


def csv_lines(query: Query, part: Chunk) -> str:
    """Return the lines of a part of the search."""
    rows = [_spelt_row(query, variant, marked=False) for variant in part.variants]
    return tables.csv(rows[0], rows[1:]) if rows else ""


def _header(query: Query, *, marked: bool) -> list[str]:
    return ["name", *query.varied, *query.figures, *(["pareto"] if marked else [])]


def _spelt_row(query: Query, variant: Variant, *, marked: bool) -> list[str]:
    return [
        _name(query, variant),
        *(spelt(variant.changes[word]) for word in query.varied),
        *(spelt(variant.figures[figure]) for figure in query.figures),
        *([spelt(bool(variant.front))] if marked else []),
    ]


def left_out(count: int, total: int, reason: str | None) -> str:
    """Say in one line how many of how many variants were skipped, and why the first of them was."""
    why = (reason or "").splitlines()[0]
    first = f"the first: {why}" if count > 1 else why
    skipped = f"{grouped(count)} of {grouped(total)} skipped"
    return f"{skipped}: the input, an override or the step does not fit {'them' if count > 1 else 'it'}; {first}"


def time_note(query: Query) -> str | None:
    """Say in one line why a large search takes long; None if it has no figure that is worked out one by one."""
    if not (query.alone and is_large(query)):
        return None
    takes = ", ".join(f"{FOUND[name].words} takes {FOUND[name].time_alone}" for name in query.alone)
    return f"{takes} for each variant that meets the other conditions; there are up to {grouped(query.total)}"


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
    processes: SupportsIndex = 1,
    **others: Unpack[CompareArguments],
) -> Found:
    """Search the zoo, or every combination of overrides, for networks that meet conditions.

    Args:
        sources: names, paths, Configs, Networks or torch modules, or lists of them. Changes may follow a name or path,
            as in `D:head=gap`. Without sources, the paper's six and the family.
        vary: overrides and the values to try; every combination is a variant.
        where: figures and what they must be: `{"parameters": "<15M", "training_peak": [">1GiB", "<8GiB"]}`.
        figures: those to show; by default the usual ones, and those in `where`, `sort` and `pareto`. reserved_bytes
            takes 2 to 4 ms for each variant: with a limit, of those that are shown; where it is in `where`, `sort` or
            `pareto`, of those that meet all other conditions.
        sort: a figure to sort by; "-macs" sorts from the largest.
        limit: how many to keep, after sorting.
        pareto: the two figures of the Pareto front. Smaller is better; with - before a figure, larger is. By default
            parameters, and the figure that is sorted by or multiply_accumulates.
        batch: number of images.
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        processes: how many processes work on a large search. Where more than one does, the calling program's main
            module must be importable, as `multiprocessing` asks.
        others: what is special about the training step, as for `compare`, and changes to make to every configuration,
            as for `load`. What does not have a block or layer that freeze or checkpoint names, or can't be
            run by the ranks, is skipped.

    Returns:
        What was found, in an order that is always the same.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> found = find("A", "D", vary={"head": ["paper", "gap"], "width": [0.5, 1]}, where={"parameters": "<15M"})
    >>> [variant.label for variant in found]
    ['A:head=gap,width=0.5', 'A:head=gap,width=1', 'D:head=gap,width=0.5']
    """
    overrides, of_training = divided(find, others, TRAINING_KEYWORDS)
    processes = whole(processes, "processes")
    query = prepared(
        each_source(sources),
        overrides,
        vary=vary or {},
        where=where or {},
        figures=figures,
        sort=sort,
        limit=limit,
        pareto=pareto,
        batch=batch,
        dtype=dtype,
        training=of_training,
    )
    return collected(query, chunks(query, processes))


def collected(query: Query, parts: Iterable[Chunk]) -> Found:
    """Gather the result of a search: all that match, or the first up to the limit, with the Pareto front marked."""
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
    marked = [replace(variant, front=_point(variant, query.pareto) in best) for variant in _best(query, kept)]
    if query.last:
        marked = [with_figures(query, variant, query.last) for variant in marked]
    return Found(query, tuple(marked), matches, left_out, reason)


def _best(query: Query, variants: list[Variant]) -> list[Variant]:
    """Sort, with equal ones in the order in which they came, and drop those beyond the limit."""
    order = query.sort
    if order is not None:
        variants.sort(key=lambda variant: order.key(variant.figures))
    return variants if query.limit is None else variants[: query.limit]


def _point(variant: Variant, directions: tuple[Direction, Direction]) -> tuple[Any, Any]:
    return directions[0].key(variant.figures), directions[1].key(variant.figures)


def pareto_front(variants: Iterable[Variant], directions: tuple[Direction, Direction]) -> list[Variant]:
    """Return the variants for which no other is as good in both figures and better in one.

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

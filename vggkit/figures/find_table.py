"""What a search found: a line per variant in the terminal, as Markdown, CSV, JSON and HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vggkit.base import tables
from vggkit.base.numbers import grouped, megabytes
from vggkit.base.tables import Column, FittedTable, Grid, grid
from vggkit.figures.find import spelt
from vggkit.notation.layers import times

if TYPE_CHECKING:
    from rich.console import Group

    from vggkit.figures.find import Chunk, Direction, Found, Query, Variant

WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "weight_layers": ("weight layers", str),
    "parameters": ("parameters", grouped),
    "weights": ("weights", grouped),
    "biases": ("biases", grouped),
    "conv_parameters": ("in convolutions", grouped),
    "fc_parameters": ("in FC layers", grouped),
    "multiply_accumulates": ("MACs", grouped),
    "activation_bytes": ("activations", megabytes),
    "receptive_field": ("receptive field", times),
    "inference_peak_bytes": ("inference peak", megabytes),
    "training_peak_bytes": ("training peak", megabytes),
    "saved_for_backward_bytes": ("saved for backward", megabytes),
}
"""What the figures are called for people, and how they are written."""

MARK = "*"
"""Of those on the Pareto front."""


def name(query: Query, variant: Variant) -> str:
    """Return what the first column says: the configuration, and what was changed behind its name."""
    changes = [f"{word}={spelt(value)}" for word, value in variant.changes.items() if word not in query.varied]
    return f"{variant.name}:{','.join(changes)}" if changes else variant.name


def lines(found: Found) -> Grid:
    """Return the table's lines."""
    query = found.query
    shown: list[Column[Variant]] = [
        Column("", lambda variant: MARK if variant.front else ""),
        Column("name", lambda variant: name(query, variant), style="cyan"),
        *(_change_column(word) for word in query.varied),
        *(_figure_column(query, figure) for figure in query.figures),
    ]
    return grid(shown, found.variants)


def _change_column(word: str) -> Column[Variant]:
    return Column(word, lambda variant: spelt(variant.changes[word]), "right")


def _figure_column(query: Query, figure: str) -> Column[Variant]:
    word, write = WORDS[figure]
    asked = {each.figure for each in (*query.conditions, *([query.sort] if query.sort else ()))}
    front = {each.figure for each in query.pareto}
    rank = 1 if figure in asked else 2 if figure in front else 3
    return Column(word, lambda variant: write(variant.figures[figure]), "right", rank)


def title(found: Found) -> str:
    """Return one line that says how many were found, and what the figures are of."""
    options = found.query.options
    shown = "" if len(found) == found.matches else f" ({grouped(len(found))} shown)"
    step = f"batch {options.batch}, {options.dtype}"
    memory = any(figure in ("training_peak_bytes", "saved_for_backward_bytes") for figure in found.query.figures)
    training = f", training with {options.optimizer}" if memory and options.optimizer != "none" else ""
    return f"{grouped(found.matches)} of {grouped(found.query.total)}{shown}: {step}{training}"


def note(found: Found) -> str:
    """Return one line that explains the mark."""
    first, second = map(end, found.query.pareto)
    return f"{MARK} Pareto front of {first} and {second}: no other is as good in both and better in one."


def end(direction: Direction) -> str:
    """Return which end of a figure is the better one.

    >>> from vggkit.figures.find import direction
    >>> end(direction("-macs", "pareto"))
    'most MACs'
    """
    return f"{'most' if direction.descending else 'least'} {WORDS[direction.figure][0]}"


def left_out(left_out: int, query: Query, reason: str | None) -> str:
    """Return one line that says what was left out, and why the first of it."""
    why = (reason or "").splitlines()[0]
    first = f"the first: {why}" if left_out > 1 else why
    counted = f"{grouped(left_out)} of {grouped(query.total)} left out"
    return f"{counted}, which the input, an override or the batch does not fit; {first}"


def table(found: Found) -> Group:
    """Return the table as rich renders it."""
    from rich.console import Group
    from rich.text import Text

    if not found.variants:
        return Group(Text(title(found), style="bold"))
    marked = [Text(f"\n{note(found)}", style="dim")] if found.front else []
    return Group(FittedTable(lines(found)._replace(title=title(found))), *marked)


def table_text(found: Found) -> str:
    """Return the table as plain text."""
    return tables.text(table(found)).rstrip("\n")


def html_text(found: Found) -> str:
    """Return the table as HTML, for notebooks."""
    return tables.html(lines(found)._replace(title=title(found)))


def header(query: Query, *, marked: bool) -> list[str]:
    """Return the names of the CSV's columns."""
    return ["name", *query.varied, *query.figures, *(["pareto"] if marked else [])]


def _values(query: Query, variant: Variant, *, marked: bool) -> list[str]:
    return [
        name(query, variant),
        *(spelt(variant.changes[word]) for word in query.varied),
        *(spelt(variant.figures[figure]) for figure in query.figures),
        *([spelt(bool(variant.front))] if marked else []),
    ]


def csv_text(found: Found) -> str:
    """Return a line per variant, the Pareto front marked."""
    query = found.query
    rows = [_values(query, variant, marked=True) for variant in found]
    return tables.csv(header(query, marked=True), rows)


def csv_header(query: Query) -> str:
    """Return the first line of the CSV that is written while the search goes on: without marks."""
    return tables.csv(header(query, marked=False), [])


def csv_lines(query: Query, part: Chunk) -> str:
    """Return the lines of a part of the search."""
    rows = [_values(query, variant, marked=False) for variant in part.variants]
    return tables.csv(rows[0], rows[1:]) if rows else ""


def in_format(found: Found, format: str) -> Any:
    """Return what was found in a format: a rich renderable for "table", text for json, csv and markdown."""
    if format == "table":
        return table(found)
    if format == "json":
        return tables.json(found.to_dict())
    return csv_text(found) if format == "csv" else tables.markdown(lines(found))

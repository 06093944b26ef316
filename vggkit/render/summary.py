"""A summary as a table in the terminal, in Markdown, LaTeX, HTML and CSV."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vggkit.layers import Pair, Shape, times
from vggkit.numbers import grouped, megabytes, shortened
from vggkit.render import columns
from vggkit.render.columns import Column, FittedTable, Grid, grid

if TYPE_CHECKING:
    from rich.console import Group

    from vggkit.analysis import Row, Summary
    from vggkit.liveness import SavedBytes


def window(size: Pair) -> str:
    """Write a size in one number if its sides are equal.

    >>> window((212, 212)), window((14, 6))
    ('212', '14×6')
    """
    return str(size[0]) if size[0] == size[1] else times(size)


def count(number: int) -> str:
    """Write a count in full, and nothing for zero."""
    return grouped(number) if number else ""


def weight_formula(row: Row, dot: str = "·") -> str:
    """Write how a layer's weights are counted: `(3·3·64)·64` for a convolution, `7·7·512·4096` for an FC layer.

    Args:
        row: the layer.
        dot: the sign for times.
    """
    if len(row.weight_shape) == 4:
        filters, channels, height, width = row.weight_shape
        return f"({height}{dot}{width}{dot}{channels}){dot}{filters}"
    if len(row.weight_shape) == 2:
        factors = [size for size in channels_last(row.input_shape) if size > 1] or [1]
        return dot.join(map(str, (*factors, row.weight_shape[0])))
    return "".join(map(str, row.weight_shape))


def channels_last(shape: Shape) -> Shape:
    """Return height, width, channels, as formulas are written."""
    return (*shape[1:], shape[0])


def _with_formula(formula: str, number: int) -> str:
    return with_formula(formula, number) if number else ""


def with_formula(formula: str, number: int) -> str:
    """Write a count behind its working, if there is any."""
    return grouped(number) if formula == str(number) else f"{formula} = {grouped(number)}"


def _weights(row: Row) -> str:
    return _with_formula(weight_formula(row), row.weights)


def _parameters(row: Row) -> str:
    bias = f" + {row.biases}" if row.biases else ""
    return _with_formula(weight_formula(row) + bias, row.parameters)


def _multiply_accumulates(summary: Summary) -> Any:
    batch = f"{summary.batch}·" if summary.batch > 1 else ""

    def cell(row: Row) -> str:
        positions = "".join(f"·{size}" for size in row.output_shape[1:])
        return _with_formula(f"{batch}{weight_formula(row)}{positions}", row.multiply_accumulates)

    return cell


def _block_cell(summary: Summary) -> Any:
    """Return a cell function that names a block in its first row only."""
    first: dict[str, str] = {}
    for row in summary:
        if row.block is not None:
            first.setdefault(row.block, row.name)
    starts = {name: block.removeprefix("block") for block, name in first.items()}
    return lambda row: starts.get(row.name, "")


ORDER = (
    "layer", "saved", "output shape", "weights", "biases", "activations",
    "what", "parameters", "MACs", "field", "block",
)  # fmt: skip
"""In a narrow terminal the last of these columns go first. Whoever asks for what is saved came for that."""

FORMULA_ORDER = (
    "layer", "weights", "biases", "output shape", "saved", "activations",
    "what", "MACs", "parameters", "field", "block",
)  # fmt: skip
"""The same where counts stand behind their workings: that of the parameters only repeats that of the weights."""


def table_columns(summary: Summary, formula: bool = False, saved: SavedBytes | None = None) -> list[Column[Row]]:
    """Return the table's columns.

    Args:
        summary: what is to be shown.
        formula: whether each count stands behind its working.
        saved: for a column of what is kept for the backward pass.
    """
    ranks = {header: rank for rank, header in enumerate(FORMULA_ORDER if formula else ORDER)}

    def column(header: str, cell: Callable[[Row], str], style: str = "", **options: Any) -> Column[Row]:
        return Column(header, cell, rank=ranks[header], style=style, **{"align": "right", **options})

    return [
        column("block", _block_cell(summary), "dim"),
        column("layer", lambda row: row.name, align="left"),
        column("what", lambda row: row.notation, "cyan", align="left"),
        column("output shape", lambda row: times(row.output_shape)),
        column("weights", _weights if formula else lambda row: count(row.weights)),
        column("biases", lambda row: count(row.biases)),
        column("parameters", _parameters if formula else lambda row: count(row.parameters), "green"),
        column("MACs", _multiply_accumulates(summary) if formula else lambda row: count(row.multiply_accumulates)),
        column("activations", lambda row: _memory(row.activation_bytes)),
        *([column("saved", lambda row: _memory(saved.by_row.get(row.name, 0)))] if saved is not None else []),
        column("field", lambda row: window(row.receptive_field), "dim"),
    ]


def _memory(size: int) -> str:
    return megabytes(size) if size else ""


def _footer(summary: Summary, saved_bytes: int | None) -> list[str]:
    totals = summary.totals
    counts = (totals.weights, totals.biases, totals.parameters, totals.multiply_accumulates)
    kept = [] if saved_bytes is None else [megabytes(saved_bytes)]
    return ["", "total", "", "", *map(grouped, counts), megabytes(totals.activation_bytes), *kept, ""]


def summary_grid(summary: Summary, formula: bool = False, saved: SavedBytes | None = None) -> Grid:
    """Return the summary as a grid, with a section behind the input and behind each block."""
    rows = list(summary)
    ends = frozenset(
        index for index, (row, after) in enumerate(pairwise(rows)) if row.block != after.block or row.layer is None
    )
    footer = _footer(summary, saved.total if saved else None)
    return grid(table_columns(summary, formula, saved), rows, footer, ends)


def title(summary: Summary) -> str:
    """Return one line that says what the table is of."""
    return f"{summary.name}: {times(summary.input)}, batch {summary.batch}, {summary.dtype}"


FIGURES_COLUMNS: list[Column[tuple[str, str, str]]] = [
    Column("", lambda figure: figure[0]),
    Column("", lambda figure: figure[1], "right", style="bold"),
    Column("", lambda figure: figure[2], style="dim", fold=16),
]


def figures(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the lines below the table: what, how much, and a word on it."""
    totals = summary.totals
    kinds = ", ".join(f"{number} {kind}" for kind, number in totals.layers_by_kind.items())
    statistics = ("running statistics", grouped(totals.statistics), megabytes(totals.statistics_bytes))
    operations = f"{shortened(totals.floating_point_operations)}FLOPs (two each)"
    return [
        ("weight layers", str(totals.weight_layers), kinds),
        ("MACs", grouped(totals.multiply_accumulates), operations),
        ("activations", grouped(totals.activation_elements), f"{megabytes(totals.activation_bytes)}, input included"),
        *([statistics] if totals.statistics else []),
        ("weights", grouped(totals.weights), f"{megabytes(totals.parameter_bytes)} with the biases"),
        ("biases", grouped(totals.biases), ""),
        ("parameters", grouped(totals.parameters), ""),
    ]


def table(summary: Summary, formula: bool = False, saved: SavedBytes | None = None) -> Group:
    """Return the summary for the terminal: a table that fits it, and the totals."""
    from rich.console import Group

    below = FittedTable(grid(FIGURES_COLUMNS, figures(summary)))
    return Group(FittedTable(summary_grid(summary, formula, saved), title(summary)), "", below)


def table_text(summary: Summary) -> str:
    """Return the table as plain text, without a line break at its end."""
    return columns.text(table(summary)).rstrip("\n")


def html_text(summary: Summary) -> str:
    """Return the table as HTML."""
    return columns.html(summary_grid(summary), title(summary))


def markdown_text(summary: Summary, formula: bool = False, saved: SavedBytes | None = None) -> str:
    """Return the table as Markdown."""
    return columns.markdown(summary_grid(summary, formula, saved))


def latex_text(summary: Summary, formula: bool = False, saved: SavedBytes | None = None) -> str:
    """Return the table as LaTeX."""
    return columns.latex(summary_grid(summary, formula, saved))


def csv_text(summary: Summary, saved: SavedBytes | None = None) -> str:
    """Return a line per row, with the JSON's keys as header."""
    rows = _dicts(summary, saved)
    return columns.csv(list(rows[0]), [list(row.values()) for row in rows])


def json_text(summary: Summary, saved: SavedBytes | None = None) -> str:
    """Return the documented JSON."""
    return columns.json({**summary.to_dict(), "layers": _dicts(summary, saved)})


def _dicts(summary: Summary, saved: SavedBytes | None) -> list[dict[str, Any]]:
    rows = [row.to_dict() for row in summary]
    return rows if saved is None else [{**row, "saved_bytes": saved.by_row.get(row["name"], 0)} for row in rows]

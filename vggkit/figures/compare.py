"""Several networks side by side: their layers as in the paper's Table 1, and their figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import msgspec
from msgspec.structs import replace

from vggkit.base import tables
from vggkit.base.errors import ArgumentError
from vggkit.base.tables import Column, DrawnTable, Shown, data_frame, grid
from vggkit.figures.alignment import AlignedRow, aligned
from vggkit.figures.compared import Compared, changed_network, compared, refusals, split_changes, step_dict, step_title
from vggkit.figures.diff import Diff, changes
from vggkit.figures.measures import COMPARED, UNKNOWN, USUAL, Direction, Measure, ReportedError, direction
from vggkit.footprint.steps.options import TRAINING_KEYWORDS, StepOptions, TrainingArguments, training_options
from vggkit.network import Dtype, Source, each_source
from vggkit.notation.config import SingleScale
from vggkit.notation.overrides import Overrides, divided
from vggkit.notation.zoo import names

if TYPE_CHECKING:
    from typing_extensions import Unpack

LAYERS = "layers"
"""The word that asks for the layers, beside the names of figures."""

EVERYTHING = (LAYERS, *COMPARED)
"""All that can be shown, in the order of the table."""

SHOWN = (LAYERS, *USUAL)
"""What is shown if nothing else is asked for."""

REPORTED_ERRORS = [measure for measure in COMPARED.values() if isinstance(measure, ReportedError)]
"""Reported errors. They share a row for each protocol (training and test sizes) under which they were measured."""


class Comparison(Shown, msgspec.Struct, frozen=True):
    """Networks side by side.

    Args:
        options: what the training step is like whose memory is given.
        networks: the columns.
        rows: their layers, aligned.
    """

    options: StepOptions
    networks: tuple[Compared, ...]
    rows: tuple[AlignedRow, ...]

    def diff(self) -> Diff:
        """Return what the second of two networks adds, removes and changes.

        Raises:
            ArgumentError: if there are not exactly two networks.
        """
        if len(self.networks) != 2:
            raise ArgumentError(f"diff: expected two networks, found {len(self.networks)}")
        changed = [change for row in self.rows if row.shown for change in changes(*row.cells)]
        return Diff(self.options, *self.networks, tuple(changed))

    def to_dict(self, only: Sequence[str] = SHOWN) -> dict[str, Any]:
        """Return the documented JSON: what the step is like, networks and rows.

        Args:
            only: what it has: "layers" and names of figures, in any order.
        """
        data: dict[str, Any] = {
            **step_dict(self.options),
            "networks": [
                {"name": one.label, "input": list(one.summary.input), **one.figures(only)} for one in self.networks
            ],
        }
        if any(error.name in only for error in REPORTED_ERRORS):
            for entry, one in zip(data["networks"], self.networks):
                entry["reported"] = msgspec.json.decode(msgspec.json.encode(one.reported))  # no tuples: JSON has none
        if LAYERS in only:
            data["rows"] = [
                {
                    "block": row.block,
                    "cells": [
                        {"layer": cell.row.name, "notation": cell.text, "differs": cell.differs} if cell else None
                        for cell in row.cells
                    ],
                }
                for row in self.rows
                if row.shown
            ]
        return data

    def to_dataframe(self) -> Any:
        """Return the figures as a pandas DataFrame, a row per network.

        Raises:
            VggkitError: if pandas is not installed.
        """
        return data_frame(({"name": one.label, **one.figures()} for one in self.networks), "name")

    def table(self, only: Sequence[str] = SHOWN) -> ComparisonTable:
        """Return the networks side by side.

        Args:
            only: what to show: "layers" and names of figures, in any order.
        """
        return ComparisonTable(self, only)


class CompareArguments(Overrides, TrainingArguments, total=False):
    """The keywords that `compare` and `find` pass on, for type checkers."""


def compare(
    *sources: Source | Iterable[Source],
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    sort: str | None = None,
    **others: Unpack[CompareArguments],
) -> Comparison:
    """Set networks side by side, as the paper's Table 1 does.

    Args:
        sources: names, paths, Configs, Networks or torch modules, or lists of them. Changes may follow a name or path,
            as in `D:batch_norm=true,width=0.5`. Without sources, the paper's six.
        batch: number of images.
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        sort: a figure to sort the columns by, such as parameters or macs; "-macs" sorts from the largest.
        others: what is special about the training step, as for `memory`: loss, optimizer and its own options
            (weight_decay, foreach, fused, nesterov, amsgrad, momentum, centered), freeze, checkpoint, autocast,
            allocator (for reserved_bytes), zero_grad, accumulate, ema, clip_grad and step_in_backward; what several
            ranks do (ranks, parallel, rank, bucket_cap_mb, static_graph, units, reshard_after_forward, replicas,
            param_dtype, reduce_dtype, cut, microbatches, schedule, balance), of which the fullest one counts if no
            rank is given; and changes to make to every network, as for `load`.

    Returns:
        The comparison.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> [one.training_peak_bytes for one in compare("A", "D:batch_norm=true,head=gap", batch=64).networks]
    [4749085928, 8306309968]
    """
    overrides, of_training = divided(compare, others, TRAINING_KEYWORDS)
    options = training_options(batch=batch, dtype=dtype, **of_training)
    order = None if sort is None else direction(sort, "sort", COMPARED)
    chosen = each_source(sources)
    changed = [changed_network(source, overrides) for source in chosen or names()]
    columns = [compared(*one, options) for one in changed]
    columns = _told_apart(columns, chosen)
    if order is not None:
        columns = _sorted(columns, order)
    first = columns[0].summary.totals.parameters
    return Comparison(
        options=options,
        networks=tuple(
            replace(one, relative_parameters=one.summary.totals.parameters / first if first else None)
            for one in columns
        ),
        rows=tuple(aligned([one.summary for one in columns])),
    )


def _told_apart(networks: list[Compared], sources: Sequence[Source]) -> list[Compared]:
    """Name networks with equal labels as they were typed, since that may tell them apart."""
    labels = [one.label for one in networks]
    return [
        replace(one, name=split_changes(os.fspath(source))[0])
        if isinstance(source, (str, os.PathLike)) and labels.count(one.label) > 1
        else one
        for one, source in zip(networks, sources or labels)
    ]


def _sorted(networks: list[Compared], order: Direction) -> list[Compared]:
    """Sort by a figure; networks without it come last."""
    key = COMPARED[order.figure].sort_key
    known = [one for one in networks if key(one) is not None]
    return sorted(known, key=key, reverse=order.descending) + [one for one in networks if key(one) is None]


# The table


class TableRow(NamedTuple):
    """A row of the table.

    Args:
        label: the heading at the left of the row.
        cells: a text for each network.
        bold: whether each differs from the one to the left.
        spans: whether all columns share one cell.
        section: whether a new section begins here, such as a block.
    """

    label: str
    cells: tuple[str, ...]
    bold: tuple[bool, ...]
    spans: bool = False
    section: bool = False


class ComparisonTable(DrawnTable):
    """Networks side by side. Each format marks in its own way what differs from the column to the left.

    Args:
        comparison: what is shown.
        only: what to show: "layers" and names of figures.
    """

    def __init__(self, comparison: Comparison, only: Sequence[str]) -> None:
        data = comparison.to_dict(only)
        self.networks = comparison.networks
        self.only = only
        self.heading = step_title(comparison.options)
        rows = [
            *(_layer_rows(comparison.rows) if LAYERS in only else ()),
            *_figure_rows(self.networks, [measure for name, measure in COMPARED.items() if name in only]),
        ]
        self.rows = [*(row._replace(section=False) for row in rows[:1]), *rows[1:]]
        columns = [Column[TableRow]("", lambda row: row.label)]
        columns += [_network_column(number, one.label) for number, one in enumerate(self.networks)]
        super().__init__(
            grid(columns, self.rows, title=", ".join(one.label for one in self.networks)),
            records=[{key: value for key, value in one.items() if key != "reported"} for one in data["networks"]],
            data=data,
        )

    def explanations(self, bold: str) -> list[str]:
        """Return the sentences below the table.

        Args:
            bold: how a layer that differs is marked.
        """
        said = []
        if LAYERS in self.only and len(self.networks) > 1:
            said.append(f"{bold}: differs from the column to the left.")
        errors = [error for error in REPORTED_ERRORS if error.name in self.only]
        if errors and any(one.reported for one in self.networks):
            words = " / ".join(error.words for error in errors)
            said.append(f"error S→Q: reported {words} in %; S, Q: shorter side of training and test images.")
        elif errors and len(errors) == len(set(self.only)):
            said.append("No errors are reported for these.")
        if any(measure.step for name, measure in COMPARED.items() if name in self.only):
            said += refusals(self.networks)
        return said

    def __rich__(self) -> Any:
        return SideBySide(self)

    def to_markdown(self) -> str:
        """Return a GitHub table, what differs in bold."""
        escaped = tables.markdown_cell
        heads = ["", *(escaped(one.label) for one in self.networks)]
        lines = [heads, ["---", *[":---:"] * len(self.networks)]]
        for row in self.rows:
            cells = [f"**{escaped(cell)}**" if bold else escaped(cell) for cell, bold in zip(row.cells, row.bold)]
            lines.append([escaped(row.label), *cells])
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return f"{text}\n{self.heading}. {' '.join(self.explanations('**Bold**'))}".rstrip() + "\n"

    def to_latex(self) -> str:
        """Return LaTeX that looks like the paper's Table 1; it needs the package booktabs."""
        escaped = tables.latex_cell
        count = len(self.networks)
        depths = [f"{one.summary.totals.weight_layers} weight" for one in self.networks]
        lines = [
            "% needs \\usepackage{booktabs}",
            f"% {self.heading}",
            f"\\begin{{tabular}}{{l{'c' * count}}}",
            "\\toprule",
            f"& \\multicolumn{{{count}}}{{c}}{{ConvNet Configuration}} \\\\",
            f"\\cmidrule(l){{2-{count + 1}}}",
            f"& {' & '.join(escaped(one.label) for one in self.networks)} \\\\",
            f"& {' & '.join(depths)} \\\\",
            f"& {' & '.join(['layers'] * count)} \\\\",
        ]
        ruled = True  # a rule stands before the first row, and on both sides of one whose columns share a cell
        for row in self.rows:
            if ruled or row.section or row.spans:
                lines.append("\\midrule")
            ruled = row.spans
            cells = [
                f"\\textbf{{{escaped(cell)}}}" if bold else escaped(cell) for cell, bold in zip(row.cells, row.bold)
            ]
            drawn = f"\\multicolumn{{{count}}}{{c}}{{{cells[0]}}}" if row.spans else " & ".join(cells)
            lines.append(f"{escaped(row.label)} & {drawn} \\\\".lstrip())
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"

    def to_html(self) -> str:
        """Return an HTML table, what differs in bold, and the sentences below it."""
        heads = "".join(f'<th scope="col">{escape(one.label)}</th>' for one in self.networks)
        body = []
        for row in self.rows:
            cells = [f"<b>{escape(cell)}</b>" if bold else escape(cell) for cell, bold in zip(row.cells, row.bold)]
            drawn = (
                f'<td colspan="{len(cells)}" style="text-align:center">{cells[0]}</td>'
                if row.spans
                else "".join(f'<td style="text-align:center">{cell}</td>' for cell in cells)
            )
            body.append(f'<tr><th scope="row" style="text-align:left">{escape(row.label)}</th>{drawn}</tr>')
        said = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.explanations("Bold"))
        return (
            f"<table><caption>{escape(self.heading)}</caption><thead><tr><td></td>{heads}</tr></thead>"
            f"<tbody>{''.join(body)}</tbody></table>{said}"
        )


def _network_column(number: int, label: str) -> Column[TableRow]:
    return Column(label, lambda row: row.cells[number])


def _layer_rows(aligned: Sequence[AlignedRow]) -> Iterable[TableRow]:
    before: object = ""
    for number, row in enumerate(row for row in aligned if row.shown):
        begins = number > 0 and row.block != before
        yield TableRow(
            label=(row.block or "classifier") if begins else "",
            cells=tuple(cell.text if cell else "" for cell in row.cells),
            bold=tuple(cell is not None and cell.differs for cell in row.cells),
            spans=row.spans,
            section=begins,
        )
        before = row.block if number else ""


def _figure_rows(networks: Sequence[Compared], measures: Sequence[Measure]) -> Iterable[TableRow]:
    plain = (False,) * len(networks)
    errors = [measure for measure in measures if isinstance(measure, ReportedError)]
    for number, measure in enumerate(measure for measure in measures if measure not in errors):
        yield TableRow(measure.words, tuple(map(measure.cell, networks)), plain, section=number == 0)
    protocols = dict.fromkeys(_protocol(said) for one in networks for said in one.reported) if errors else {}
    for number, protocol in enumerate(protocols):
        cells = tuple(_reported(one, protocol, errors) for one in networks)
        yield TableRow(f"error {protocol}", cells, plain, section=number == 0)


def _protocol(said: SingleScale) -> str:
    train = str(said.train) if isinstance(said.train, int) else f"[{said.train[0]};{said.train[1]}]"
    return f"{train}→{said.test}"


def _reported(one: Compared, protocol: str, errors: Sequence[ReportedError]) -> str:
    for said in one.reported:
        if _protocol(said) == protocol:
            return " / ".join(error.written(error.of(said)) for error in errors)
    return UNKNOWN


# The table in the terminal

CELL = 26
"""Most characters on a line of a cell; longer texts are folded."""

BETWEEN = 2
"""Characters between two columns."""


class SideBySide:
    """A rich renderable: as many columns beside one another as fit, the others below them."""

    def __init__(self, table: ComparisonTable) -> None:
        self.table = table

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.text import Text

        plain = console.color_system is None
        yield Text(f"{self.table.heading}\n", style="bold")
        for number, part in enumerate(self._parts(options.max_width, plain)):
            if number:
                yield Text("")
            yield from part
        if said := self.table.explanations("*conv*" if plain else "Bold"):
            yield Text("\n" + "\n".join(said), style="dim")

    def _parts(self, available: int, plain: bool) -> Iterable[list[Any]]:
        """Return what is printed for each part of the columns that fits."""
        from rich.cells import cell_len

        heads = [[*wrap(one.name, CELL), *one.changes] for one in self.table.networks]
        left = max((cell_len(row.label) for row in self.table.rows), default=0)
        widest = max(
            *(cell_len(word) for head in heads for word in head),
            *(
                cell_len(_marked(cell, bold and plain))
                for row in self.table.rows
                if not row.spans
                for cell, bold in zip(row.cells, row.bold)
            ),
        )
        width = max(8, min(widest, CELL, available - left - BETWEEN))
        fitting = max(1, (available - left) // (width + BETWEEN))
        parts = -(-len(heads) // fitting)
        size = -(-len(heads) // parts)
        for start in range(0, len(heads), size):
            columns = range(start, min(start + size, len(heads)))
            yield [
                *_headings([heads[index] for index in columns], left, width),
                *(text for row in self.table.rows for text in _drawn(row, columns, left, width, plain)),
            ]


def _centred(text: str, width: int) -> str:
    from rich.cells import cell_len

    left = (width - cell_len(text)) // 2
    return " " * left + text + " " * (width - cell_len(text) - left)


def _headings(heads: list[list[str]], left: int, width: int) -> Iterable[Any]:
    from rich.text import Text

    for number in range(max(map(len, heads))):
        text = Text(" " * left)
        for head in heads:
            text.append(" " * BETWEEN + _centred(head[number] if number < len(head) else "", width), style="bold cyan")
        yield text
    yield Text("─" * (left + len(heads) * (width + BETWEEN)))


def _drawn(row: TableRow, columns: range, left: int, width: int, plain: bool) -> Iterable[Any]:
    """Return the lines of a row: several if a cell is folded, none if every cell of this part is empty."""
    from rich.text import Text

    if not any(row.cells[index] for index in columns):
        return
    if row.section:
        yield Text("")
    label = Text(f"{row.label:<{left}}", style="dim")
    if row.spans:
        whole = len(columns) * (width + BETWEEN) - BETWEEN
        yield label + Text(" " * BETWEEN + _centred(row.cells[0], whole))
        return
    cells = [_marked(row.cells[index], row.bold[index] and plain) for index in columns]
    folded = [wrap(cell, width) or [""] for cell in cells]
    for number in range(max(map(len, folded))):
        text = label if number == 0 else Text(" " * left)
        for index, parts in zip(columns, folded):
            part = parts[number] if number < len(parts) else ""
            text.append(" " * BETWEEN + _centred(part, width), style="bold" if row.bold[index] else "")
        yield text


def _marked(cell: str, marked: bool) -> str:
    return f"*{cell}*" if marked else cell

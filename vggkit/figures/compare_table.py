"""Networks side by side as a table in the terminal, in Markdown, LaTeX and HTML, and their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base import tables
from vggkit.base.numbers import grouped, megabytes, percent, signed, signed_megabytes
from vggkit.base.tables import Column, FittedTable, Grid, grid
from vggkit.figures.summary import window
from vggkit.notation.layers import times

if TYPE_CHECKING:
    from rich.console import Group

    from vggkit.figures.compare import Change, Compared, Comparison, Diff, Difference
    from vggkit.notation.config import SingleScale

WORDS: dict[str, tuple[str, Callable[[Compared], str]]] = {
    "weight_layers": ("weight layers", lambda one: str(one.summary.totals.weight_layers)),
    "parameters": ("parameters", lambda one: grouped(one.summary.totals.parameters)),
    "relative_parameters": (
        "relative to first",
        lambda one: "–" if one.relative_parameters is None else f"{one.relative_parameters:.3f}",
    ),
    "conv_parameters": ("in convolutions", lambda one: _share(one.conv_parameters, one)),
    "fc_parameters": ("in FC layers", lambda one: _share(one.fc_parameters, one)),
    "multiply_accumulates": ("MACs", lambda one: grouped(one.summary.totals.multiply_accumulates)),
    "activation_bytes": ("activations", lambda one: megabytes(one.summary.totals.activation_bytes)),
    "inference_peak_bytes": ("inference peak", lambda one: _peak(one.inference_peak_bytes)),
    "training_peak_bytes": ("training peak", lambda one: _peak(one.training_peak_bytes)),
    "receptive_field": ("receptive field", lambda one: window(one.receptive_field)),
}
"""What the figures are called for people, and how they are written."""

ERRORS = {"top1_error": "top-1", "top5_error": "top-5"}
LAYERS = "layers"
"""The word for the layers, where it is chosen what is shown."""

EVERYTHING = (LAYERS, *WORDS, *ERRORS)


def _peak(size: int | None) -> str:
    return "–" if size is None else megabytes(size)


def _share(part: int, one: Compared) -> str:
    whole = one.summary.totals.parameters
    return percent(part, whole) if whole else "–"


class Line(NamedTuple):
    """A line of the table.

    Args:
        label: what stands before the columns.
        cells: a text for each network.
        bold: whether each differs from the one to the left.
        spans: whether all columns share one cell.
        section: whether something new begins here.
    """

    label: str
    cells: tuple[str, ...]
    bold: tuple[bool, ...]
    spans: bool = False
    section: bool = False


def lines(comparison: Comparison, only: Sequence[str] = EVERYTHING) -> list[Line]:
    """Return the table's lines.

    Args:
        comparison: what is to be shown.
        only: "layers" and names of figures, those that are wanted.
    """
    every = [
        *(_layer_lines(comparison) if LAYERS in only else ()),
        *_figure_lines(comparison.networks, [name for name in EVERYTHING if name in only]),
    ]
    return [*(line._replace(section=False) for line in every[:1]), *every[1:]]


def _layer_lines(comparison: Comparison) -> Iterable[Line]:
    before: object = ""
    for number, row in enumerate(row for row in comparison.rows if row.shown):
        begins = number > 0 and row.block != before
        yield Line(
            label=(row.block or "classifier") if begins else "",
            cells=tuple(cell.text if cell else "" for cell in row.cells),
            bold=tuple(cell is not None and cell.differs for cell in row.cells),
            spans=row.spans,
            section=begins,
        )
        before = row.block if number else ""


def _figure_lines(networks: Sequence[Compared], only: Sequence[str]) -> Iterable[Line]:
    plain = (False,) * len(networks)
    for number, name in enumerate(name for name in only if name in WORDS):
        word, cell = WORDS[name]
        yield Line(word, tuple(map(cell, networks)), plain, section=number == 0)
    errors = [name for name in ERRORS if name in only]
    protocols = dict.fromkeys(_protocol(line) for one in networks for line in one.reported) if errors else {}
    for number, protocol in enumerate(protocols):
        yield Line(
            label=f"error {protocol}",
            cells=tuple(_reported(one, protocol, errors) for one in networks),
            bold=plain,
            section=number == 0,
        )


def _protocol(line: SingleScale) -> str:
    train = str(line.train) if isinstance(line.train, int) else f"[{line.train[0]};{line.train[1]}]"
    return f"{train}→{line.test}"


def _reported(one: Compared, protocol: str, errors: Sequence[str]) -> str:
    for line in one.reported:
        if _protocol(line) == protocol:
            return " / ".join(str(line.top1 if name == "top1_error" else line.top5) for name in errors)
    return "–"


def title(comparison: Comparison | Diff) -> str:
    """Return one line that says what the figures are of."""
    step = f"batch {comparison.batch}, {comparison.dtype}"
    return f"{step}, training with {comparison.optimizer}" if comparison.optimizer != "none" else step


def notes(comparison: Comparison, only: Sequence[str], bold: str) -> list[str]:
    """Return what explains the table.

    Args:
        comparison: what is shown.
        only: what of it.
        bold: how a layer that differs is marked.
    """
    said = []
    if LAYERS in only and len(comparison.networks) > 1:
        said.append(f"{bold}: differs from the column to the left.")
    errors = [word for name, word in ERRORS.items() if name in only]
    reported = any(one.reported for one in comparison.networks)
    if errors and not reported and set(only) <= set(ERRORS):
        said.append("No errors are reported of these.")
    if errors and reported:
        said.append(f"error S→Q: reported {' / '.join(errors)} in %; S, Q: shorter side of training and test images.")
    if {"inference_peak_bytes", "training_peak_bytes"} & set(only):
        said += refusals(comparison.networks)
    return said


def refusals(networks: Sequence[Compared]) -> list[str]:
    """Return why torch can't run a step of some of the networks, and what would help."""
    return [f"{one.refusal}." for one in networks if one.refusal]


# Terminal

CELL = 26
"""Characters of a cell at most; longer ones are folded."""

BETWEEN = 2


class SideBySide:
    """A rich renderable: as many columns beside one another as fit, the others below them."""

    def __init__(self, comparison: Comparison, only: Sequence[str] = EVERYTHING) -> None:
        self.comparison = comparison
        self.only = only

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.text import Text

        plain = console.color_system is None
        every = lines(self.comparison, self.only)
        yield Text(f"{title(self.comparison)}\n", style="bold")
        for number, part in enumerate(self._parts(every, options.max_width, plain)):
            if number:
                yield Text("")
            yield from part
        said = notes(self.comparison, self.only, "*conv*" if plain else "Bold")
        if said:
            yield Text("\n" + "\n".join(said), style="dim")

    def _parts(self, every: list[Line], available: int, plain: bool) -> Iterable[list[Any]]:
        """Return the lines of each part of the columns that fits."""
        from rich.cells import cell_len

        heads = [[*wrap(one.name, CELL), *one.changes] for one in self.comparison.networks]
        left = max((cell_len(line.label) for line in every), default=0)
        widest = max(
            *(cell_len(word) for head in heads for word in head),
            *(
                cell_len(_marked(cell, bold and plain))
                for line in every
                if not line.spans
                for cell, bold in zip(line.cells, line.bold)
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
                *(text for line in every for text in _drawn(line, columns, left, width, plain)),
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


def _drawn(line: Line, columns: range, left: int, width: int, plain: bool) -> Iterable[Any]:
    """Return a line's texts: one, more if a cell is folded, none if no column of this part has one."""
    from rich.text import Text

    if not any(line.cells[index] for index in columns):
        return
    if line.section:
        yield Text("")
    label = Text(f"{line.label:<{left}}", style="dim")
    if line.spans:
        whole = len(columns) * (width + BETWEEN) - BETWEEN
        yield label + Text(" " * BETWEEN + _centred(line.cells[0], whole))
        return
    cells = [_marked(line.cells[index], line.bold[index] and plain) for index in columns]
    folded = [wrap(cell, width) or [""] for cell in cells]
    for number in range(max(map(len, folded))):
        text = label if number == 0 else Text(" " * left)
        for index, parts in zip(columns, folded):
            part = parts[number] if number < len(parts) else ""
            text.append(" " * BETWEEN + _centred(part, width), style="bold" if line.bold[index] else "")
        yield text


def _marked(cell: str, marked: bool) -> str:
    return f"*{cell}*" if marked else cell


def table(comparison: Comparison, only: Sequence[str] = EVERYTHING) -> Group:
    """Return the comparison for the terminal."""
    from rich.console import Group

    return Group(SideBySide(comparison, only))


def table_text(comparison: Comparison) -> str:
    """Return the table as plain text, without a line break at its end."""
    return tables.text(table(comparison)).rstrip("\n")


# Other formats


def markdown_text(comparison: Comparison, only: Sequence[str] = EVERYTHING) -> str:
    """Return the table as a GitHub table, what differs in bold."""
    escaped = tables.markdown_cell
    heads = ["", *(escaped(one.label) for one in comparison.networks)]
    rows = [heads, ["---", *[":---:"] * (len(heads) - 1)]]
    for line in lines(comparison, only):
        cells = [f"**{escaped(cell)}**" if bold else escaped(cell) for cell, bold in zip(line.cells, line.bold)]
        rows.append([escaped(line.label), *cells])
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    said = [title(comparison), *notes(comparison, only, "**Bold**")]
    return f"{text}\n{'  '.join(said[:1])}. {' '.join(said[1:])}".rstrip() + "\n"


def latex_text(comparison: Comparison, only: Sequence[str] = EVERYTHING) -> str:
    """Return the table as LaTeX that looks like the paper's Table 1; it needs the package booktabs."""
    escaped = tables.latex_cell
    count = len(comparison.networks)
    layers = [f"{one.summary.totals.weight_layers} weight" for one in comparison.networks]
    text = [
        "% needs \\usepackage{booktabs}",
        f"% {title(comparison)}",
        f"\\begin{{tabular}}{{l{'c' * count}}}",
        "\\toprule",
        f"& \\multicolumn{{{count}}}{{c}}{{ConvNet Configuration}} \\\\",
        f"\\cmidrule(l){{2-{count + 1}}}",
        f"& {' & '.join(escaped(one.label) for one in comparison.networks)} \\\\",
        f"& {' & '.join(layers)} \\\\",
        f"& {' & '.join(['layers'] * count)} \\\\",
    ]
    shared = False
    for number, line in enumerate(lines(comparison, only)):
        if number == 0 or line.section or line.spans or shared:
            text.append("\\midrule")
        shared = line.spans
        cells = [f"\\textbf{{{escaped(cell)}}}" if bold else escaped(cell) for cell, bold in zip(line.cells, line.bold)]
        drawn = f"\\multicolumn{{{count}}}{{c}}{{{cells[0]}}}" if line.spans else " & ".join(cells)
        text.append(f"{escaped(line.label)} & {drawn} \\\\".lstrip())
    return "\n".join([*text, "\\bottomrule", "\\end{tabular}"]) + "\n"


def html_text(comparison: Comparison, only: Sequence[str] = EVERYTHING) -> str:
    """Return the table as HTML, what differs in bold."""
    count = len(comparison.networks)
    heads = "".join(f'<th scope="col">{escape(one.label)}</th>' for one in comparison.networks)
    body = []
    for line in lines(comparison, only):
        cells = [f"<b>{escape(cell)}</b>" if bold else escape(cell) for cell, bold in zip(line.cells, line.bold)]
        drawn = (
            f'<td colspan="{count}" style="text-align:center">{cells[0]}</td>'
            if line.spans
            else "".join(f'<td style="text-align:center">{cell}</td>' for cell in cells)
        )
        body.append(f'<tr><th scope="row" style="text-align:left">{escape(line.label)}</th>{drawn}</tr>')
    said = "".join(f"<p>{escape(note)}</p>" for note in notes(comparison, only, "Bold"))
    return (
        f"<table><caption>{escape(title(comparison))}</caption><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{said}"
    )


def page(heading: str, content: str) -> str:
    """Return an HTML page that needs no other file.

    Args:
        heading: its title.
        content: HTML.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:1rem;overflow-x:auto}"
        "table{border-collapse:collapse}th,td{padding:.15rem .6rem;white-space:nowrap}"
        "th{font-weight:normal}thead th{font-weight:bold}tr{border-top:1px solid #8884}"
        "caption{text-align:left;padding:.3rem 0}</style></head>"
        f"<body><h1>{escape(heading)}</h1>{content}</body></html>\n"
    )


def in_format(comparison: Comparison, format: str, only: Sequence[str] = EVERYTHING) -> Any:
    """Return a comparison in a format: a rich renderable for "table", text for every other.

    Args:
        comparison: what is to be shown.
        format: table, json, csv, markdown, latex or html.
        only: "layers" and names of figures, those that are wanted.
    """
    if format == "table":
        return table(comparison, only)
    if format == "markdown":
        return markdown_text(comparison, only)
    if format == "latex":
        return latex_text(comparison, only)
    if format == "html":
        return page(", ".join(one.label for one in comparison.networks), html_text(comparison, only))
    data = _chosen(comparison.to_dict(), only)
    if format == "json":
        return tables.json(data)
    rows = [{word: value for word, value in row.items() if word != "reported"} for row in data["networks"]]
    return tables.csv(list(rows[0]), [list(row.values()) for row in rows])


def _chosen(data: dict[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """Leave out of the JSON what is not wanted."""
    left_out = {name for name in EVERYTHING if name not in only}
    if left_out >= set(ERRORS):
        left_out.add("reported")
    networks = [{word: value for word, value in row.items() if word not in left_out} for row in data["networks"]]
    kept = {word: value for word, value in data.items() if word != "rows" or LAYERS in only}
    return {**kept, "networks": networks}


# Differences

SIGNS = {"added": "+", "removed": "−", "changed": "~"}


def _pair(change: Change, word: Callable[[Any], str]) -> str:
    """Write what a layer was and is; once if that is the same."""
    there = [word(row) for row in (change.before, change.after) if row]
    return " → ".join(dict.fromkeys(there))


def _what(change: Change) -> str:
    notation = _pair(change, lambda row: row.notation)
    resized = change.before and change.after and change.before.notation == change.after.notation
    return f"{notation}, {_pair(change, lambda row: times(row.output_shape))}" if resized else notation


CHANGE_COLUMNS: list[Column[Change]] = [
    Column("", lambda change: SIGNS[change.change], style="bold"),
    Column("layer", lambda change: _pair(change, lambda row: row.name)),
    Column("what", _what, rank=1, style="cyan", fold=20),
    Column("parameters", lambda change: signed(change.parameters), "right", style="green"),
    Column("MACs", lambda change: signed(change.multiply_accumulates), "right", rank=2),
    Column("activations", lambda change: signed_megabytes(change.activation_bytes), "right", rank=3),
]


def _is_bytes(total: Difference) -> bool:
    return total.name.endswith("bytes")


TOTAL_COLUMNS: list[Column[Difference]] = [
    Column("", lambda total: WORDS[total.name][0]),
    Column("before", lambda total: (megabytes if _is_bytes(total) else grouped)(total.before), "right", rank=1),
    Column("after", lambda total: (megabytes if _is_bytes(total) else grouped)(total.after), "right", rank=1),
    Column("more", lambda total: (signed_megabytes if _is_bytes(total) else signed)(total.more), "right", style="bold"),
]


def changes_grid(diff: Diff) -> Grid:
    """Return a line per change, and the sum."""
    totals = {total.name: total.more for total in diff.totals}
    footer = [
        "", "in all", "", signed(totals["parameters"]), signed(totals["multiply_accumulates"]),
        signed_megabytes(totals["activation_bytes"]),
    ]  # fmt: skip
    return grid(CHANGE_COLUMNS, diff.changes, footer)


def totals_grid(diff: Diff) -> Grid:
    """Return a line per figure: of the first network, of the second, and the difference."""
    return grid(TOTAL_COLUMNS, diff.totals)


def diff_title(diff: Diff) -> str:
    """Return one line that says what is compared."""
    return f"{diff.before.label} → {diff.after.label}: {title(diff)}"


def diff_table(diff: Diff) -> Group:
    """Return the differences for the terminal."""
    from rich.console import Group
    from rich.text import Text

    said = refusals((diff.before, diff.after))
    return Group(
        FittedTable(changes_grid(diff)._replace(title=diff_title(diff))),
        "",
        FittedTable(totals_grid(diff)),
        *map(Text, said),
    )


def diff_text(diff: Diff) -> str:
    """Return the differences as plain text, without a line break at its end."""
    return tables.text(diff_table(diff)).rstrip("\n")


def diff_html(diff: Diff) -> str:
    """Return the differences as HTML."""
    return tables.html(changes_grid(diff)._replace(title=diff_title(diff))) + tables.html(
        totals_grid(diff)._replace(title="in all")
    )


def diff_in_format(diff: Diff, format: str) -> Any:
    """Return differences in a format, as `in_format` does."""
    if format == "table":
        return diff_table(diff)
    if format == "json":
        return tables.json(diff.to_dict())
    if format == "markdown":
        return f"{tables.markdown(changes_grid(diff))}\n{tables.markdown(totals_grid(diff))}"
    if format == "latex":
        return f"{tables.latex(changes_grid(diff))}\n{tables.latex(totals_grid(diff))}"
    if format == "html":
        return page(diff_title(diff), diff_html(diff))
    header = ["change", "before", "after", "parameters", "multiply_accumulates", "activation_bytes"]
    rows = [
        (change.change, change.before and change.before.name, change.after and change.after.name, *change.costs)
        for change in diff.changes
    ]
    return tables.csv(header, rows)

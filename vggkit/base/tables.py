"""Tables in every text format. A column is a value, a format is one function.

A value that people see inherits from `Shown` and defines its `Table` once. `FORMATS` has every format.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from vggkit.base import terminal
from vggkit.base.errors import ArgumentError, VggkitError, escaped, shorten

RowType = TypeVar("RowType")


class Column(msgspec.Struct, Generic[RowType], frozen=True):
    """A column of a table.

    Args:
        header: its title.
        cell: returns a row's text in this column.
        align: "left" or "right".
        rank: in a narrow terminal the columns of the highest rank are left out first; rank 0 always stays.
        style: rich's style for its cells.
        fold: for prose: its cells are folded to this width, before a column is left out, and an HTML page may break
            them. With 0 they are folded only if the columns of rank 0 don't fit otherwise.
    """

    header: str
    cell: Callable[[RowType], str]
    align: Literal["left", "right"] = "left"
    rank: int = 0
    style: str = ""
    fold: int = 0


class Grid(NamedTuple):
    """A table as text: what every format draws.

    Args:
        columns: titles, and how each column is drawn.
        rows: the cells.
        footer: cells of a last row of totals, or None.
        sections: the indexes of rows after which a new section starts.
        title: one line above the table.
    """

    columns: Sequence[Column[Any]]
    rows: Sequence[Sequence[str]]
    footer: Sequence[str] | None = None
    sections: frozenset[int] = frozenset()
    title: str = ""

    @property
    def headers(self) -> list[str]:
        """The titles of the columns."""
        return [column.header for column in self.columns]


def grid(
    columns: Sequence[Column[RowType]],
    rows: Iterable[RowType],
    footer: Sequence[str] | None = None,
    sections: frozenset[int] = frozenset(),
    title: str = "",
) -> Grid:
    """Fill a grid with each column's cell for each row. Line breaks and other control characters are escaped."""
    cells = [[escaped(column.cell(row)) for column in columns] for row in rows]
    return Grid(columns, cells, footer, sections, title)


GAP = 2
"""Spaces between two columns: one of padding and one that divides."""


class FittedTable:
    """A rich renderable that leaves out columns, by rank, until it fits the console's width. It names them below."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.text import Text

        if self.grid.title:
            yield Text(f"{self.grid.title}\n", style="bold")
        grid = _encoded(self.grid, console.encoding)
        kept = fitting(grid, options.max_width)
        yield self.table(grid, kept, options.max_width, options.ascii_only)
        if said := hidden(grid, kept, options.max_width):
            yield Text(f"\n{said}", style="dim")

    def table(self, grid: Grid, kept: Sequence[int], width: int, ascii_only: bool) -> Any:
        """Return the rich table of the kept columns. No number is cut."""
        from rich.box import SIMPLE_HEAD, Box
        from rich.table import Table
        from rich.text import Text

        box = Box(str(SIMPLE_HEAD).replace("─", "-"), ascii=True) if ascii_only else SIMPLE_HEAD
        table = Table(box=box, show_edge=False, show_header=any(grid.headers), padding=(0, 1, 0, 0), pad_edge=False)
        tight = least_width(grid, kept) > width
        for column in (grid.columns[index] for index in kept):
            header, justify, style = Text(column.header), column.align, column.style
            no_wrap = not column.fold and not (tight and column.align == "left")
            table.add_column(header, justify=justify, style=style, no_wrap=no_wrap, overflow="fold")
        for number, row in enumerate(grid.rows):
            table.add_row(*(Text(row[index]) for index in kept), end_section=number in grid.sections)
        if grid.footer is not None:
            table.add_section()
            footer = grid.footer
            table.add_row(*(Text(footer[index], style="bold") for index in kept))
        return table


def _encoded(grid: Grid, encoding: str) -> Grid:
    """Replace the characters that an encoding lacks, so that each column is as wide as what will be printed."""

    def line(cells: Sequence[str]) -> list[str]:
        return [terminal.shown(cell, encoding) for cell in cells]

    columns = [replace(column, header=header) for column, header in zip(grid.columns, line(grid.headers))]
    footer = None if grid.footer is None else line(grid.footer)
    return grid._replace(columns=columns, rows=list(map(line, grid.rows)), footer=footer)


def fitting(grid: Grid, width: int) -> list[int]:
    """Return the indexes of the columns that fit a width; those of rank 0 are always kept."""
    kept = list(range(len(grid.columns)))
    while least_width(grid, kept) > width and any(grid.columns[index].rank for index in kept):
        kept.remove(max(kept, key=lambda index: (grid.columns[index].rank, index)))
    return kept


def least_width(grid: Grid, kept: Sequence[int]) -> int:
    """Return the width that the kept columns need, if every column that can be folded is folded."""
    from rich.cells import cell_len

    lines = [grid.headers, *grid.rows, *([grid.footer] if grid.footer else [])]
    widths = (max(cell_len(line[index]) for line in lines) for index in kept)
    least = (min(width, grid.columns[index].fold or width) for index, width in zip(kept, widths))
    return sum(each + GAP for each in least) - GAP


def hidden(grid: Grid, kept: Sequence[int], width: int) -> str:
    """Return a line that names the columns that are left out, or an empty string if all are shown.

    A column without a header only repeats the column beside it in another form, so it is not named.
    """
    names = [header for index, header in enumerate(grid.headers) if header and index not in kept]
    if not names:
        return ""
    enough = least_width(grid, range(len(grid.columns)))
    return f"Not shown in {width} columns: {', '.join(names)}. All fit in {enough}."


def plain(grid: Grid, encoding: str = "utf-8") -> str:
    """Write a grid as text with every column in full, as `FittedTable` draws it in a wide terminal.

    Pipes and files get this one. It doesn't draw with rich, because that takes most of a short command's time.
    """
    from rich.cells import cell_len

    encoded = _encoded(grid, encoding)
    lines = [*encoded.rows, *([encoded.footer] if encoded.footer else [])]
    widths = [max(map(cell_len, cells)) for cells in zip(encoded.headers, *lines)]

    def drawn(cells: Sequence[str]) -> str:
        padded = []
        for cell, width, column in zip(cells, widths, encoded.columns):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if column.align == "right" else cell + space)
        return (" " * GAP).join(padded).rstrip()

    text = [grid.title, ""] if grid.title else []
    if any(grid.headers):
        rule = "─" if encoding.startswith("utf") else "-"
        text += [drawn(encoded.headers), rule * (sum(widths) + GAP * (len(widths) - 1))]
    for number, line in enumerate(lines):
        ends = number in grid.sections or number + 1 == len(encoded.rows)
        text += [drawn(line), *([""] if ends and number + 1 < len(lines) else [])]
    return "\n".join([*text, ""])


def markdown(grid: Grid) -> str:
    """Write a grid as a GitHub table."""
    rule = ["---:" if column.align == "right" else "---" for column in grid.columns]
    lines = [grid.headers, rule, *([markdown_cell(cell) for cell in row] for row in grid.rows)]
    if grid.footer is not None:
        lines.append([f"**{cell}**" if cell else "" for cell in grid.footer])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_cell(cell: str) -> str:
    """Escape the characters that have a meaning in Markdown."""
    return "".join(f"\\{char}" if char in "|\\`*_<[" else char for char in cell)


def latex(grid: Grid) -> str:
    """Write a grid as a LaTeX tabular; it needs the package booktabs."""
    spec = "".join(column.align[0] for column in grid.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
        _latex_row(grid.headers),
        "\\midrule",
    ]
    for number, row in enumerate(grid.rows):
        lines.append(_latex_row(row))
        if number in grid.sections and number + 1 < len(grid.rows):
            lines.append("\\addlinespace")
    if grid.footer is not None:
        lines += ["\\midrule", _latex_row(grid.footer)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


_LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "×": "$\\times$",
        "·": "$\\cdot$",
        "–": "--",
        "−": "$-$",
        "→": "$\\to$",
        "⁶": "$^6$",
        "÷": "$\\div$",
        "✓": "$\\surd$",
        "✗": "$\\times$",
        **{char: f"\\rule{{{eighths / 8}ex}}{{1ex}}" for eighths, char in enumerate("▏▎▍▌▋▊▉█", 1)},
    }
)


def _latex_row(cells: Sequence[str]) -> str:
    row = " & ".join(map(latex_cell, cells)) + " \\\\"
    # the \\ that ends the row before would read these as its option
    return f"{{}}{row}" if row.startswith(("*", "[")) else row


def latex_cell(cell: str) -> str:
    """Escape the characters that have a meaning in LaTeX."""
    return cell.translate(_LATEX)


def html(grid: Grid) -> str:
    """Write a grid as an HTML table."""
    from html import escape

    def style(column: Column[Any]) -> str:
        wrapped = f";white-space:normal;min-width:{column.fold}ch" if column.fold else ""
        return f"text-align:{column.align}{wrapped}"

    def line(cells: Sequence[str], tag: str) -> str:
        styled = zip(cells, map(style, grid.columns))
        return "".join(f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, style in styled)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in grid.rows)
    foot = f"<tfoot><tr>{line(grid.footer, 'th')}</tr></tfoot>" if grid.footer is not None else ""
    caption = f"<caption>{escape(grid.title)}</caption>" if grid.title else ""
    return f"<table>{caption}<thead><tr>{line(grid.headers, 'th')}</tr></thead><tbody>{body}</tbody>{foot}</table>"


def page(title: str, content: str) -> str:
    """Return an HTML page that needs no other file.

    Args:
        title: its heading.
        content: HTML.
    """
    from html import escape

    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:1rem;overflow-x:auto}"
        "table{border-collapse:collapse}th,td{padding:.15rem .6rem;white-space:nowrap}"
        "th{font-weight:normal}thead th{font-weight:bold}tr{border-top:1px solid #8884}"
        "caption{text-align:left;padding:.3rem 0}</style></head>"
        f"<body><h1>{escape(title)}</h1>{content}</body></html>\n"
    )


def preformatted(text: str) -> str:
    """Write a text as HTML that keeps its lines, for notebooks."""
    from html import escape

    return f"<pre>{escape(text)}</pre>"


def data_frame(rows: Iterable[Mapping[str, Any]], index: str) -> Any:
    """Return rows as a pandas DataFrame.

    Args:
        rows: values by the names of their columns.
        index: the column that names the rows.

    Raises:
        VggkitError: if pandas is not installed.
    """
    from importlib import import_module

    try:
        pandas = import_module("pandas")
    except ImportError:
        raise VggkitError("to_dataframe needs pandas, which is not installed; `pip install pandas`") from None
    kept = list(rows)
    names = pandas.Index([row[index] for row in kept], name=index)
    return pandas.DataFrame([{key: row[key] for key in row if key != index} for row in kept], index=names)


def csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write comma-separated values. Shapes are joined by x, as in 3x224x224, and lists of words by semicolons.

    A text that a spreadsheet would read as a formula gets an apostrophe before it.
    """
    import csv as csv_module
    import io

    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    writer.writerow(map(_csv_cell, header))
    for row in rows:
        writer.writerow(map(_csv_cell, row))
    return out.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, list):
        value = _joined(value)
    if not isinstance(value, str):
        return value
    is_formula = value.startswith(("=", "+", "-", "@")) and not _is_number(value)
    return f"'{escaped(value)}" if is_formula else escaped(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _joined(values: list[Any]) -> str:
    words = any(isinstance(value, str) for value in values)
    return ("; " if words else "x").join(map(str, values))


def json(value: object) -> str:
    """Write a value as indented JSON."""
    import json as json_module

    # json.dumps escapes some control characters itself; the line breaks come from its indentation
    return escaped(json_module.dumps(value, indent=2, ensure_ascii=False), keep="\n") + "\n"


PIPE_WIDTH = 10_000
"""Width without a terminal and without COLUMNS: no column is left out."""


def show(renderable: Any) -> None:
    """Print to stdout, as wide as the terminal. Through a pipe: without colour, and in full unless COLUMNS is set.

    Characters that the terminal's encoding lacks are written in ASCII.
    """
    columns, encoding = os.environ.get("COLUMNS", ""), terminal.encoding()
    width = int(columns) if columns.isdecimal() and int(columns) else None
    if not sys.stdout.isatty():
        in_full = isinstance(renderable, Table) and width is None
        sys.stdout.write(renderable.to_text(encoding) if in_full else text(renderable, width or PIPE_WIDTH, encoding))
        sys.stdout.flush()
        return
    from rich.console import Console

    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS" or width}
    sys.stdout.flush()
    with open(sys.stdout.fileno(), "w", encoding=encoding, errors=terminal.ERRORS, closefd=False) as out:
        Console(file=out, highlight=False, _environ=environment).print(renderable)


def text(renderable: Any, width: int = PIPE_WIDTH, encoding: str = "utf-8") -> str:
    """Return a renderable as plain text, without spaces at the ends of its lines.

    Args:
        renderable: what rich can print.
        width: of a line, in characters.
        encoding: characters that it lacks are written in ASCII.
    """
    import io

    from rich.console import Console

    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=terminal.ERRORS, newline="")
    options: dict[str, Any] = {"color_system": None, "highlight": False, "legacy_windows": False, "_environ": {}}
    Console(file=out, width=width, **options).print(renderable)
    out.seek(0)
    return "\n".join(line.rstrip() for line in out.read().splitlines()) + "\n"


# What a value shows


class Table:
    """What a value shows, for every format: grids and notes for people, records and data for programs.

    Each format has a method. A kind of value that needs another drawing in some format overrides it in a subclass.

    Args:
        grids: one or several.
        records: the rows of CSV and data frames, each by the names of the columns.
        data: for JSON; the records if absent.
        columns: names of the columns of the records; needed where there may be no record.
        below: grids below the others, in the terminal only.
        notes: lines of text after the grids, in the terminal only.
        title: one line that says what is shown; the first grid's if absent.
    """

    def __init__(
        self,
        *grids: Grid,
        records: Sequence[Mapping[str, Any]],
        data: object = None,
        columns: Sequence[str] = (),
        below: Sequence[Grid] = (),
        notes: Sequence[str] = (),
        title: str = "",
    ) -> None:
        self._grids = grids
        self._records = records
        self._data = data
        self.title = title or grids[0].title
        self.columns = columns or (list(records[0]) if records else [])
        self.below = below
        self.notes = notes

    # These three are properties, so that a table of a million rows can make each only when a format asks for it.

    @property
    def grids(self) -> Sequence[Grid]:
        """The grids that text formats draw."""
        return self._grids

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of CSV and data frames."""
        return self._records

    @property
    def data(self) -> object:
        """The value that JSON writes."""
        return list(self.records) if self._data is None else self._data

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = []
        for grid in (*self.grids, *self.below):
            parts += [*([Text()] if parts else []), FittedTable(grid)]
        return Group(*parts, *([Text()] if self.notes else []), *map(Text, self.notes))

    def to_text(self, encoding: str = "utf-8") -> str:
        """Return what a wide terminal shows.

        Args:
            encoding: characters that it lacks are written in ASCII.
        """
        parts = [plain(grid, encoding) for grid in (*self.grids, *self.below)]
        notes = [f"{note}\n" for note in self.notes]
        return terminal.shown("\n".join([*parts, *(["".join(notes)] if notes else [])]), encoding)

    def to_json(self) -> str:
        """Return the documented JSON."""
        return json(self.data)

    def to_csv(self) -> str:
        """Return the names of the columns, then a line per record."""
        return csv(self.columns, [list(record.values()) for record in self.records])

    def to_markdown(self) -> str:
        """Return each grid as a GitHub table."""
        return "\n".join(map(markdown, self.grids))

    def to_latex(self) -> str:
        """Return each grid as a LaTeX tabular."""
        return "\n".join(map(latex, self.grids))

    def to_html(self) -> str:
        """Return each grid as an HTML table: a part of a page, as notebooks need it."""
        return "".join(map(html, self.grids))


class DrawnTable(Table, ABC):
    """A table that draws its text in its own way, in `__rich__`."""

    @abstractmethod
    def __rich__(self) -> Any:
        """Return what rich draws."""

    def to_text(self, encoding: str = "utf-8") -> str:
        return text(self, encoding=encoding)


class Format(NamedTuple):
    """A format that every table can be written in.

    Args:
        endings: the endings of its files' names.
        write: writes a table.
    """

    endings: tuple[str, ...]
    write: Callable[[Table], str]


FORMATS = {
    "table": Format((".txt",), lambda table: table.to_text()),
    "json": Format((".json",), lambda table: table.to_json()),
    "csv": Format((".csv",), lambda table: table.to_csv()),
    "markdown": Format((".md",), lambda table: table.to_markdown()),
    "latex": Format((".tex",), lambda table: table.to_latex()),
    "html": Format((".html", ".htm"), lambda table: page(table.title, table.to_html())),
}
"""Every format, by the word that asks for it."""


class Shown:
    """A value that shows itself in every format, from one table. At the Python prompt it is as wide as the terminal."""

    __slots__ = ()

    def table(self) -> Table:
        """Return what it shows. A subclass may add options, each with a default."""
        raise NotImplementedError  # abstract; an ABC's metaclass would clash with that of msgspec's structs

    def __rich__(self) -> Any:
        return self.table()

    def __str__(self) -> str:
        return self.table().to_text().rstrip("\n")

    def __repr__(self) -> str:
        from shutil import get_terminal_size

        width = get_terminal_size((PIPE_WIDTH, 1)).columns
        return text(self, min(width, PIPE_WIDTH), terminal.encoding()).rstrip("\n")

    def _repr_html_(self) -> str:
        return self.table().to_html()

    def written(self, format: str = "table") -> str:
        """Return it as text.

        Args:
            format: table, json, csv, markdown, latex or html.

        Raises:
            ArgumentError: if the format is another.
        """
        if format not in FORMATS:
            raise ArgumentError(f"format: expected one of {', '.join(FORMATS)}, found {shorten(format)}")
        return FORMATS[format].write(self.table())

    def to_csv(self) -> str:
        """Return a line per row, with the JSON's keys as header."""
        return self.table().to_csv()

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame, indexed by their first column, as the CSV has them.

        Raises:
            VggkitError: if pandas is not installed.
        """
        table = self.table()
        return data_frame(table.records, table.columns[0])

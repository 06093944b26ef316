"""Tables of any rows: which columns fit, and what each format does to a cell."""

from __future__ import annotations

import csv
import io

import pytest
from rich.cells import cell_len

from vggkit.render import columns
from vggkit.render.columns import Column, FittedTable, Grid

ODD = ["a|b", "[red]x[/red]", "*b*", "`c`", "\\d", "<e>", "f_g", "50 %", "$x$", "#1", "{y}", "~", "^", "日本", "3×3·2"]


def table(cells: list[str]) -> Grid:
    """Return a grid of two columns, the first of which always stays."""
    both: list[Column[str]] = [
        Column("kept", lambda cell: cell),
        Column("twice", lambda cell: cell * 2, "right", rank=1),
    ]
    return columns.grid(both, cells, footer=["sum", ""])


@pytest.mark.parametrize("cell", ODD)
def test_a_cell_is_printed_as_it_is(cell: str) -> None:
    """In the terminal nothing is markup."""
    lines = columns.text(FittedTable(table([cell]))).splitlines()
    assert lines[2].split() == [*cell.split(), *(cell * 2).split()]


@pytest.mark.parametrize("cell", ODD)
def test_markdown_escapes_what_means_something(cell: str) -> None:
    """Each special character has a backslash, so that a cell stays one cell."""
    line = columns.markdown(table([cell])).splitlines()[2]
    assert line.replace("\\|", "").count("|") == 3
    assert "".join(char for i, char in enumerate(line) if char != "\\" or line[i - 1 : i] == "\\").startswith(
        f"| {cell} |"
    )


def test_latex_escapes_what_means_something() -> None:
    """Each special character is LaTeX's name for it."""
    text = columns.latex(table(["50 % & $x_1$ #{~^\\} 3×3·2"]))
    wanted = r"50 \% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\} 3$\times$3$\cdot$2 & "
    assert text.splitlines()[5].startswith(wanted)


def test_csv_can_be_read_back() -> None:
    """Commas, quotes and line breaks survive; lists are joined by x."""
    text = columns.csv(["a", "b"], [["1,2", 'x"y\nz'], [[3, 224], None]])
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ["1,2", 'x"y\nz'], ["3x224", ""]]


def test_html_escapes_cells_and_title() -> None:
    """No cell is a tag."""
    text = columns.html(table(["<b>&\"'"]), "<i>")
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_columns_go_by_rank_and_rank_0_stays() -> None:
    """Wide characters count twice; the narrowest console still has the first column."""
    grid = table(["日本"])
    need = cell_len("日本") + cell_len("日本日本") + columns.GAP + 1
    assert columns.fitting(grid, need) == [0, 1]
    assert columns.fitting(grid, need - 1) == [0]
    assert columns.fitting(grid, 1) == [0]

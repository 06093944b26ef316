"""Tables of any rows: which columns fit, and what each format does to a cell."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

import vggkit
from tests import scratch
from vggkit.base import tables
from vggkit.base.tables import Column, FittedTable, Grid, Table

ODD = ["a|b", "[red]x[/red]", "*b*", "`c`", "\\d", "<e>", "f_g", "50 %", "$x$", "#1", "{y}", "~", "^", "日本", "3×3·2"]


def table(cells: list[str]) -> Grid:
    """Return a grid of two columns, the first of which always stays."""
    both: list[Column[str]] = [
        Column("kept", lambda cell: cell),
        Column("twice", lambda cell: cell * 2, "right", rank=1),
    ]
    return tables.grid(both, cells, footer=["sum", ""])


@pytest.mark.parametrize("cell", ODD)
def test_a_cell_is_printed_as_it_is(cell: str) -> None:
    """In the terminal nothing is markup."""
    lines = tables.text(FittedTable(table([cell]))).splitlines()
    assert lines[2].split() == [*cell.split(), *(cell * 2).split()]


@pytest.mark.parametrize("cell", ODD)
def test_markdown_escapes_what_means_something(cell: str) -> None:
    """Each special character has a backslash, so that a cell stays one cell."""
    line = tables.markdown(table([cell])).splitlines()[2]
    assert line.replace("\\|", "").count("|") == 3
    assert "".join(char for i, char in enumerate(line) if char != "\\" or line[i - 1 : i] == "\\").startswith(
        f"| {cell} |"
    )


def test_latex_escapes_what_means_something() -> None:
    """Each special character is LaTeX's name for it."""
    text = tables.latex(table(["50 % & $x_1$ #{~^\\} 3×3·2"]))
    wanted = r"50 \% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\} 3$\times$3$\cdot$2 & "
    assert text.splitlines()[5].startswith(wanted)


@pytest.mark.parametrize("cell", ["*", "[1]"])
def test_a_latex_row_begins_with_no_option_of_the_row_before(cell: str) -> None:
    """`\\\\*` and `\\\\[1]` mean something, across line breaks too: the star would be lost."""
    text = tables.latex(table(["x", cell]))
    assert text.splitlines()[6].startswith(f"{{}}{cell} & ")


def test_csv_can_be_read_back() -> None:
    """Commas and quotes survive, a line break is written out so that a row stays a line; lists are joined by x."""
    text = tables.csv(["a", "b"], [["1,2", 'x"y\nz'], [[3, 224], None]])
    assert list(csv.reader(io.StringIO(text))) == [["a", "b"], ["1,2", 'x"y\\u000az'], ["3x224", ""]]


def test_html_escapes_cells_and_title() -> None:
    """No cell is a tag."""
    text = tables.html(table(["<b>&\"'"])._replace(title="<i>"))
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_columns_go_by_rank_and_rank_0_stays() -> None:
    """Wide characters count twice; the narrowest console still has the first column."""
    grid = table(["日本"])
    need = cell_len("日本") + cell_len("日本日本") + tables.GAP
    assert tables.fitting(grid, need) == [0, 1]
    assert tables.fitting(grid, need - 1) == [0]
    assert tables.fitting(grid, 1) == [0]


def test_columns_that_are_left_out_are_named_below() -> None:
    """With the width at which all are there; a column without a header is not named."""
    grid = table(["abcdef"])
    assert tables.hidden(grid, [0, 1], 80) == ""
    assert tables.hidden(grid, [0], 17) == "Not shown in 17 columns: twice. All fit in 20."
    unnamed: list[Column[str]] = [Column("kept", lambda cell: cell), Column("", lambda cell: cell * 2)]
    assert tables.hidden(tables.grid(unnamed, ["abcdef"]), [0], 17) == ""
    lines = tables.text(FittedTable(grid), 19).splitlines()
    assert " ".join(lines[-3:]) == "Not shown in 19 columns: twice. All fit in 20."
    assert "Not shown" not in tables.text(FittedTable(grid), 20)


PROSE = "one two three four five six"


def test_prose_is_folded_before_a_column_goes() -> None:
    """As far as its least width; beyond that it goes by its rank, as any other."""
    prose: list[Column[str]] = [Column("name", lambda _: "x"), Column("note", lambda cell: cell, rank=1, fold=13)]
    folded = tables.text(FittedTable(tables.grid(prose, [PROSE])), 19).splitlines()
    assert folded[2:] == ["x     one two three", "      four five six"]
    assert tables.fitting(tables.grid(prose, [PROSE]), 18) == [0]


def test_no_number_is_cut_where_even_the_first_columns_are_too_wide() -> None:
    """Words are folded instead."""
    rows: list[Column[str]] = [Column("what", lambda cell: cell), Column("bytes", lambda _: "11,555,184", "right")]
    lines = tables.text(FittedTable(tables.grid(rows, [PROSE])), 25).splitlines()
    assert max(map(len, lines)) <= 25
    assert lines[2].split() == ["one", "two", "three", "11,555,184"]
    assert " ".join(word for line in lines[2:] for word in line.split() if word.isalpha()) == PROSE


# A new format

RST = '''
def rst(table: Table) -> str:
    """Write the first grid as a list table of reStructuredText."""
    rows = (table.grids[0].headers, *table.grids[0].rows)
    return f".. list-table:: {table.title}\\n\\n" + "".join(f"   * - {' | '.join(row)}\\n" for row in rows)


FORMATS = {'''

USE_RST = """
import pathlib, vggkit
from vggkit.cli import main
for value in (vggkit.summarize('D'), vggkit.compare('A', 'D'), vggkit.find(['A', 'D'])):
    assert value.written('rst').startswith('.. list-table::'), value
for command in ('summarize D', 'compare A D', 'explain D conv3_1', 'find A D', 'list'):
    for arguments in ('--format rst -o by-word', '-o by-ending.rst'):
        main(f'{command} {arguments}'.split(), standalone_mode=False)
    text = pathlib.Path('by-word').read_text(encoding='utf-8')
    assert text.startswith('.. list-table::') and 'D' in text
    assert pathlib.Path('by-ending.rst').read_text(encoding='utf-8') == text
"""


def test_a_new_format_is_one_function_and_its_entry(tmp_path: Path) -> None:
    """Every value is written in it, every command offers it, and a file's ending asks for it."""
    file = scratch.package(tmp_path) / "base" / "tables.py"
    scratch.add(file, "\nFORMATS = {", RST.removesuffix("\nFORMATS = {"))
    scratch.add(file, '    "html": Format(', '    "rst": Format((".rst",), rst),\n')
    scratch.run(tmp_path, USE_RST)


def test_each_format_is_told_where_formats_are() -> None:
    """In the docstring of `written`, which is the reference's, and in the page on comparing."""
    pages = Path(__file__).parents[2] / "docs"
    for text in (tables.Shown.written.__doc__ or "", (pages / "compare.md").read_text(encoding="utf-8")):
        assert [word for word in tables.FORMATS if word not in text] == []


# In full, without rich


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("name", ["A", "C"])
@settings(max_examples=30)
@given(cells=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=9), max_size=4))
def test_a_table_in_full_is_what_a_wide_terminal_shows(cells: list[str], name: str, encoding: str) -> None:
    """Any text, wide characters too, in any encoding: pipes and files get the lines that rich would draw."""
    odd = table(cells)._replace(title="odd", sections=frozenset({1}))
    shown = Table(*vggkit.summarize(name).table().grids, records=[], below=[odd], notes=["one", "two"])
    assert shown.to_text(encoding) == tables.text(shown, encoding=encoding)


def test_no_plain_table_has_its_own_drawing() -> None:
    """A kind of table that says how rich draws it inherits from DrawnTable, so that its text is the same."""
    package = Path(vggkit.__file__).parent
    for path in package.rglob("*.py"):
        kinds = re.findall(r"^class \w+\(Table\):.*?(?=^\S|\Z)", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        assert path.name == "tables.py" or not [kind for kind in kinds if "def __rich__" in kind]

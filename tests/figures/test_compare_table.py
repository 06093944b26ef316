"""A comparison in every format: parsed again from each format, compiled, and as wide as the terminal at most."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment

import vggkit
from tests import judges
from vggkit import compare
from vggkit.base import tables
from vggkit.figures.compare import Comparison

ODD = '{name: "<i>x|y_1*&%#${}~^\\\\[z](u)", input: 3x16x16, blocks: [[conv3-4, {conv: 8, stride: 2, bias: false}]]}'


def odd() -> Comparison:
    """Return a comparison whose names have what Markdown, LaTeX and HTML take for their own."""
    return compare(vggkit.loads(ODD), "A")


COMPARISONS = {"six": compare, "odd": odd, "one": lambda: compare("D"), "changed": lambda: compare("D", "D:width=0.5")}
parametrized = pytest.mark.parametrize("comparison", [make() for make in COMPARISONS.values()], ids=list(COMPARISONS))


def plain(comparison: Comparison) -> list[list[tuple[str, bool]]]:
    """Return what each line must have: label and cells, each with whether it is bold."""
    return [
        [(row.label, False), *zip(row.cells, row.bold)] for row in comparison.table().rows
    ]  # fmt: skip


# Markdown


def tokens_of_cells(text: str) -> list[list[tuple[str, bool]]]:
    """Return the rows of the table that a Markdown renderer makes of a text: each cell's text and whether it's bold."""
    markdown_it = judges.package("markdown_it")
    rows: list[list[tuple[str, bool]]] = []
    inside = False
    for token in markdown_it.MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        inside = token.type in ("th_open", "td_open") or (inside and token.type == "inline")
        if token.type == "inline" and rows and inside:
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special", "strong_open", "strong_close"}
            said = "".join(child.content for child in children)
            rows[-1].append((said, any(child.type == "strong_open" for child in children)))
        if token.type == "table_close":
            break
    return rows


@parametrized
def test_markdown_is_one_table_with_every_cell(comparison: Comparison) -> None:
    """A Markdown renderer finds the heads, each label and cell, and in bold what differs, whatever the names."""
    heads, *rows = tokens_of_cells(comparison.table().to_markdown())
    assert [said for said, _ in heads] == ["", *(one.label for one in comparison.networks)]
    assert rows == plain(comparison)


# HTML


class _Reader(HTMLParser):
    """Collects the cells of tables: text, whether bold, and how many columns each spans."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[list[Any]]] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [str(given[word]) for word in ("src", "href") if word in given]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", False, int(given.get("colspan") or 1)])
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1][0] += data
            self.rows[-1][-1][1] = "b" in self.open


@parametrized
def test_html_is_well_formed_and_has_every_cell(comparison: Comparison) -> None:
    """The page closes what it opens, loads nothing, and its table has the cells, spanning where they span."""
    text = comparison.written("html")
    reader = _Reader()
    reader.feed(text)
    assert (reader.open, reader.links) == ([], [])
    assert "<i>" not in text
    heads, *rows = reader.rows
    assert [said for said, *_ in heads] == ["", *(one.label for one in comparison.networks)]
    count = len(comparison.networks)
    for cells, row in zip(rows, comparison.table().rows, strict=True):
        wanted = [[row.cells[0], False, count]] if row.spans else [[*cell, 1] for cell in zip(row.cells, row.bold)]
        assert cells == [[row.label, False, 1], *wanted]


def test_the_notebook_shows_the_same_table() -> None:
    """`_repr_html_` is the page's table, without a page around it; a diff has one, too."""
    comparison = compare("A", "D")
    assert comparison._repr_html_() in comparison.written("html")
    assert comparison._repr_html_().startswith("<table>")
    assert compare("A", "D").diff()._repr_html_().startswith("<table>")


# LaTeX


def cells_of_latex(text: str) -> list[list[str]]:
    """Return the cells of each row of a tabular."""
    rows = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", row)] for row in rows]


def test_latex_looks_like_the_papers_table() -> None:
    """Under one head the names and weight layers; pools and FC layers span; bold is what the paper has in bold."""
    rows = cells_of_latex(compare().table().to_latex())
    assert rows[0] == ["", r"\multicolumn{6}{c}{ConvNet Configuration}"]
    assert rows[1] == ["", "A", "A-LRN", "B", "C", "D", "E"]
    assert rows[2] == ["", *(f"{depth} weight" for depth in (11, 11, 13, 16, 16, 19))]
    assert rows[6] == ["", "", r"\textbf{LRN}", r"\textbf{conv3-64}", "conv3-64", "conv3-64", "conv3-64"]
    assert [row[1] for row in rows].count(r"\multicolumn{6}{c}{maxpool}") == 5
    bold = [cell for row in rows for cell in row if "textbf" in cell]
    assert bold == [rf"\textbf{{{word}}}" for word in (
        "LRN", "conv3-64", "conv3-128", *[f"conv{kernel}-{width}" for width in (256, 512, 512) for kernel in (1, 3, 3)],
    )]  # fmt: skip


DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\tiny
%s
\end{document}
"""


@pytest.mark.parametrize("what", ["six", "odd", "diff", "odd diff"])
def test_latex_compiles_with_booktabs(what: str, tmp_path: Path) -> None:
    """A document with the table in it compiles, and what the names hold is typeset, not executed."""
    tool = judges.program("pdflatex")
    if subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).returncode:
        judges.missing("LaTeX's package booktabs is not installed")
    comparison = COMPARISONS["odd"]() if "odd" in what else compare("C", "D") if "diff" in what else compare()
    table = (comparison.diff() if "diff" in what else comparison).written("latex")
    (tmp_path / "table.tex").write_text(DOCUMENT % table, encoding="utf-8")
    command = [tool, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "table.pdf").read_bytes().startswith(b"%PDF")
    assert b"Missing character" not in (tmp_path / "table.log").read_bytes()


# Terminal


def drawn(comparison: Comparison, width: int) -> str:
    """Return the table as it is without colours at a width."""
    return tables.text(comparison, width)


@parametrized
@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_table_is_as_wide_as_the_terminal_at_most(comparison: Comparison, width: int) -> None:
    """No line is longer, and no word is lost: what doesn't fit beside goes below."""
    text = drawn(comparison, width)
    assert max(map(cell_len, text.splitlines())) <= width
    words = text.replace("*", " ").split()
    for row in comparison.table().rows:
        for cell in row.cells:
            assert all(word in words or word.replace("*", "") in "".join(words) for word in cell.split())


def test_many_columns_go_below_one_another() -> None:
    """At 80 columns six networks are two tables of three, each with its labels; at 140 they are one."""
    heads = [line.split() for line in drawn(compare(), 80).splitlines() if set(line.split()) & {"A", "E"}]
    assert heads == [["A", "A-LRN", "B"], ["C", "D", "E"]]
    text = drawn(compare(), 80)
    assert text.count("training peak ") == 2
    assert drawn(compare(), 140).count("training peak ") == 1
    assert len(drawn(compare(*["A"] * 20), 60).splitlines()) < 500


def test_without_colour_a_star_marks_what_differs() -> None:
    """Through a pipe there is no bold: *conv1-256*; nothing else is starred."""
    starred = re.findall(r"\*(\S+)\*", drawn(compare(), 140).split("*conv*:")[0])
    assert len(starred) == 12
    assert starred[:3] == ["LRN", "conv3-64", "conv3-128"]


def segments(comparison: Comparison) -> list[Segment]:
    """Return what a terminal with colours is told."""
    console = Console(file=StringIO(), force_terminal=True, color_system="truecolor", width=140, _environ={})
    return list(console.render(comparison))


def test_in_a_terminal_it_is_bold() -> None:
    """What differs is bold and has no stars; every other layer is not bold."""
    every = [(segment.text.strip(), bool(segment.style and segment.style.bold)) for segment in segments(compare())]
    bold = [said for said, is_bold in every if is_bold and said.startswith(("conv", "LRN"))]
    assert bold[:4] == ["LRN", "conv3-64", "conv3-128", "conv1-256"]
    assert len(bold) == 12
    assert not any("*" in said for said, _ in every)


def test_every_number_of_the_table_is_in_the_data() -> None:
    """Counts in full are the JSON's; only chosen figures are shown, in the table, the JSON and the CSV."""
    comparison = compare("C", "D")
    data = comparison.to_dict()["networks"]
    numbers = {int(word.replace(",", "")) for word in re.findall(r"\d{1,3}(?:,\d{3})+", drawn(comparison, 140))}
    assert numbers == {one[key] for one in data for key in ("parameters", "multiply_accumulates")}
    only = ("parameters", "top5_error")
    assert [row.label for row in comparison.table(only).rows] == [
        "parameters", "error 256→256", "error 384→384", "error [256;512]→384",
    ]  # fmt: skip
    assert comparison.table(only).rows[1].cells == ("9.4", "8.8")
    assert comparison.table(only).to_csv().splitlines()[0] == "name,input,parameters,top5_error"
    assert '"rows"' not in comparison.table(only).to_json()
    assert '"reported"' not in comparison.table(("parameters",)).to_json()


def test_where_no_error_is_reported_it_is_said() -> None:
    """Nothing but errors is asked for, and there are none: a sentence in each format for people, not a blank."""
    changed = compare("A:head=gap", "vgg16_bn")
    table = changed.table(("top5_error",))
    for text in (table.to_markdown(), table.to_html()):
        assert "No errors are reported for these." in text
    assert "No errors are reported" in tables.text(changed.table(("top1_error", "top5_error")))
    assert "No errors are reported" not in drawn(changed, 140)


def test_text_and_rich_are_the_table() -> None:
    """str(), print of rich and a diff's str() give the tables."""
    comparison = compare("C", "D")
    assert str(comparison) == drawn(comparison, tables.PIPE_WIDTH).rstrip("\n")
    assert tables.text(comparison, 80) == drawn(comparison, 80)
    assert tables.text(comparison.diff()).rstrip("\n") == str(comparison.diff())

"""The summary's table in every text format: what stands in it, that it adds up, and that it fits."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

import vggkit
from tests.conftest import sample
from vggkit.base import tables
from vggkit.cli import main
from vggkit.figures.summary import summary_grid

Golden = Callable[[str, str], None]
LONG = "blocks: [[" + ", ".join(f"{{conv: 8, name: a_layer_with_quite_a_long_name_{n}}}" for n in range(30)) + "]]"
MARKUP = "[bold]x[/bold]"


def printed(*arguments: str, **environment: str) -> str:
    """Return what `vggkit summarize` prints through a pipe."""
    result = CliRunner().invoke(main, ["summarize", *arguments], env=environment)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def number(text: str) -> int:
    """Read a count as it is printed; nothing is zero."""
    return int(text.replace(",", "") or 0)


# golden


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_of_d_at_a_width_is_the_golden_one(width: int, golden: Golden) -> None:
    """A narrow terminal gets fewer columns, never broken lines."""
    golden(f"summary-D-{width}.txt", printed("D", COLUMNS=str(width)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("piped.txt", ()),
        ("formula.txt", ("--formula",)),
        ("expand.txt", ("--expand",)),
        ("training.txt", ("--training",)),
        ("markdown.md", ("--format", "markdown")),
        ("formula.md", ("--format", "markdown", "--formula")),
        ("latex.tex", ("--format", "latex")),
        ("csv.csv", ("--format", "csv")),
        ("json.json", ("--format", "json")),
        ("training.json", ("--format", "json", "--training")),
    ],
)
def test_the_summary_of_d_in_a_format_is_the_golden_one(name: str, options: tuple[str, ...], golden: Golden) -> None:
    """Every format and every option of the table, byte for byte."""
    golden(f"summary-D-{name}", printed("D", *options))


# it adds up


def markdown(*arguments: str) -> str:
    """Return what is printed as Markdown, without its backslashes."""
    return printed(*arguments, "--format", "markdown").replace("\\", "")


def cells(text: str) -> tuple[list[str], list[dict[str, str]]]:
    """Return a Markdown table's headers and its rows, the totals last."""
    lines = [[cell.strip("* ") for cell in line[1:-1].split(" | ")] for line in text.splitlines()]
    return lines[0], [dict(zip((header.strip() for header in lines[0]), line, strict=True)) for line in lines[2:]]


@pytest.mark.parametrize("options", [(), ("--batch", "3"), ("--set", "batch_norm=true"), ("--expand",)])
@pytest.mark.parametrize("name", vggkit.names())
def test_the_printed_columns_add_up_to_the_printed_totals(name: str, options: tuple[str, ...]) -> None:
    """Weights, biases, parameters and MACs: the sum of what a reader sees is what stands below."""
    _, rows = cells(markdown(name, *options))
    *layers, total = rows
    assert total["layer"] == "total"
    for column in ("weights", "biases", "parameters", "MACs"):
        assert sum(number(row[column]) for row in layers) == number(total[column]), column
    assert all(number(row["weights"]) + number(row["biases"]) == number(row["parameters"]) for row in rows)


def test_the_terminals_table_has_the_same_cells_as_the_markdown() -> None:
    """One grid, two drawings."""
    marked = [[cell for cell in row.values() if cell] for row in cells(markdown("D"))[1]]
    lines = [re.split(" {2,}", line.strip()) for line in printed("D").splitlines()[4:] if line and "─" not in line]
    assert lines[: len(marked)] == marked


def test_the_rows_of_json_and_csv_add_up() -> None:
    """The data formats' totals are the sums of their rows; both formats say the same."""
    data = json.loads(printed("D", "--format", "json"))
    for key in ("weights", "biases", "parameters", "multiply_accumulates", "activation_elements", "activation_bytes"):
        assert sum(row[key] for row in data["layers"]) == data["totals"][key]
    rows = list(csv.DictReader(io.StringIO(printed("D", "--format", "csv"))))
    assert list(rows[0]) == list(data["layers"][0])
    assert [row["parameters"] for row in rows] == [str(row["parameters"]) for row in data["layers"]]
    assert rows[1]["output_shape"] == "64x224x224"


def test_what_is_saved_adds_up_to_the_plans() -> None:
    """--training's column is, row by row, what the memory plan keeps for the backward pass."""
    data = json.loads(printed("D", "--training", "--format", "json"))
    by_hand = 73_254_912  # shared/DESIGN.md: measured on torch, before the loss
    assert sum(row["saved_bytes"] for row in data["layers"]) == by_hand


def test_the_last_line_ends_in_138357544() -> None:
    """Whatever the width: the last thing that a newcomer reads is the total."""
    for width in (40, 80, 200):
        assert printed("D", COLUMNS=str(width)).splitlines()[-1].endswith("138,357,544")
    assert printed("D").endswith("138,357,544\n")


# formulas


@pytest.mark.parametrize("options", [(), ("--batch", "4"), ("--set", "batch_norm=true"), ("--expand",)])
@pytest.mark.parametrize("name", ["A-LRN", "C", "D"])
def test_each_formula_is_worth_the_count_beside_it(name: str, options: tuple[str, ...]) -> None:
    """`(3·3·64)·64 = 36,864`, for weights, parameters and MACs."""
    _, rows = cells(markdown(name, *options, "--formula"))
    plain = cells(markdown(name, *options))[1]
    found = 0
    for row, counts in zip(rows[:-1], plain[:-1], strict=True):
        for column in ("weights", "parameters", "MACs"):
            assert bool(row[column]) == bool(counts[column])
            if row[column]:
                *working, count = row[column].split(" = ")
                formula = working[0] if working else count.replace(",", "")
                assert eval(formula.replace("·", "*")) == number(count) == number(counts[column])
                found += 1
    assert found >= 33


def test_a_grouped_rectangular_convolutions_formula_has_its_own_sizes() -> None:
    """Height, width, channels of one group, filters."""
    config = "input: 4x9x7\nblocks: [[{conv: 6, kernel: 3x1, groups: 2, bias: false}]]"
    text = vggkit.summarize(vggkit.loads(config)).table(formula=True).to_markdown()
    assert "(3·1·2)·6 = 36" in text
    assert "(3·1·2)·6·9·7 = 2,268" in text


# it fits


@pytest.mark.parametrize("source", sample(["D", "E", "long"], ["D", "long"]))
def test_no_line_is_wider_than_the_console(source: str) -> None:
    """From 47 to 200 columns; every layer keeps its one line, its name, its weights and its biases."""
    config = vggkit.loads(LONG) if source == "long" else vggkit.load(source)
    summary = vggkit.summarize(config)
    rows = [row for row in summary if row.layer is not None]
    for width in range(67 if source == "long" else 47, 201):
        lines = tables.text(summary, width).splitlines()
        assert max(map(cell_len, lines)) <= width
        for row in rows:
            (line,) = [line for line in lines if row.name in line.split()]
            assert {f"{row.weights:,}", f"{row.biases:,}"} - {"0"} <= set(line.split())


def test_a_wider_console_never_has_fewer_columns() -> None:
    """Columns go one after the other, by rank."""
    grid = summary_grid(vggkit.summarize("D"))
    kept = [set(tables.fitting(grid, width)) for width in range(20, 201)]
    assert all(narrow <= wide for narrow, wide in pairwise(kept))
    assert kept[-1] == set(range(len(grid.headers)))
    assert {grid.headers[index] for index in kept[0]} == {"layer"}


def headers(*arguments: str, columns: int) -> list[str]:
    """Return the headers of the table that `vggkit summarize` prints at a width."""
    return re.split(" {2,}", printed(*arguments, COLUMNS=str(columns)).splitlines()[2].strip())


WEIGHTS = ["output shape", "weights", "biases"]


@pytest.mark.parametrize(
    ("arguments", "columns", "shown"),
    [
        (("D",), 59, ["layer", *WEIGHTS]),
        (("D",), 60, ["layer", *WEIGHTS, "activations"]),
        (("D",), 80, ["layer", "what", *WEIGHTS, "activations"]),
        (("D",), 84, ["layer", "what", *WEIGHTS, "parameters", "activations"]),
        (("D",), 100, ["layer", "what", *WEIGHTS, "parameters", "MACs", "activations"]),
        (("D",), 107, ["layer", "what", *WEIGHTS, "parameters", "MACs", "activations", "field"]),
        (("D",), 114, ["block", "layer", "what", *WEIGHTS, "parameters", "MACs", "activations", "field"]),
        (("D", "--training"), 60, ["layer", *WEIGHTS, "saved"]),
        (("D", "--training"), 80, ["layer", *WEIGHTS, "activations", "saved"]),
        (("D", "--formula"), 60, ["layer", "weights", "biases"]),
        (("D", "--formula"), 140, ["layer", "what", *WEIGHTS, "MACs", "activations"]),
    ],
)
def test_the_table_shows_first_what_it_is_for(arguments: tuple[str, ...], columns: int, shown: list[str]) -> None:
    """Shape, weights, biases, activations; then what, parameters, MACs, field, block; what an option asks for stays."""
    assert headers(*arguments, columns=columns) == shown


def test_hidden_columns_are_named_before_the_totals() -> None:
    """With the width that shows them all; where nothing is hidden nothing is said."""
    lines = printed("D", COLUMNS="80").splitlines()
    note = lines.index("Not shown in 80 columns: block, parameters, MACs, field. All fit in 114.")
    assert lines[note + 2].startswith("weight layers")
    assert "Not shown" not in printed("D", COLUMNS="114")
    assert "Not shown" not in printed("D")


# names


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    """Square brackets are no style, in the title as in the totals."""
    summary = vggkit.summarize(vggkit.loads(f"name: '{MARKUP}'\nblocks: [[conv3-8]]"))
    assert str(summary).startswith(f"{MARKUP}: 3×224×224, batch 1, float32\n")


def test_html_is_escaped() -> None:
    """A name with tags in it is text in a notebook."""
    summary = vggkit.summarize(vggkit.loads("name: '<script>x</script> & \"y\"'\nblocks: [[conv3-8]]"))
    text = summary._repr_html_()
    assert "<script" not in text
    assert "&lt;script&gt;x&lt;/script&gt; &amp;" in text


def test_a_notebook_shows_every_count() -> None:
    """The HTML table has a row per layer, the headers and the totals."""
    summary = vggkit.summarize("D")
    text = summary._repr_html_()
    assert text.count("<tr>") == len(list(summary)) + 2
    assert all(f">{row.parameters:,}<" in text for row in summary if row.parameters)
    assert ">138,357,544<" in text


def test_statistics_have_a_line_where_there_are_any() -> None:
    """Batch norm's running statistics are no parameters, and stand on their own line."""
    text = printed("vgg16_bn")
    assert re.search(r"running statistics +8,448 ", text)  # a mean and a variance for each of 4,224 channels
    assert "running statistics" not in printed("D")


def test_text_and_rich_show_the_same() -> None:
    """`str`, `print` with rich and the command line are one table."""
    summary: Any = vggkit.summarize("D")
    assert str(summary) + "\n" == tables.text(summary) == printed("D")

"""A memory plan as a table: shares, bars, sentences, and what fits."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner

import vggkit
from vggkit.cli import main
from vggkit.footprint import plan_table as render

Golden = Callable[[str, str], None]
OPTIONS: list[dict[str, Any]] = [{}, {"optimizer": "adam"}, {"batch": 64}, {"mode": "inference"}, {"autocast": True}]


def printed(*arguments: str, exit_code: int = 0) -> str:
    """Return what `vggkit memory` prints through a pipe."""
    result = CliRunner().invoke(main, ["memory", *arguments])
    assert (result.exit_code, result.stderr) == (exit_code, "")
    return result.stdout


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memory-D.txt", ()),
        ("memory-D-adam.txt", ("--optimizer", "adam")),
        ("memory-D.md", ("--format", "markdown")),
        ("memory-D.csv", ("--format", "csv")),
        ("memory-D-fit.txt", ("--fit", "24GiB", "--fit", "80GB")),
    ],
)
def test_what_d_takes_is_the_golden_table(name: str, options: tuple[str, ...], golden: Golden) -> None:
    """Table, sentences, Markdown, CSV and what fits, byte for byte."""
    golden(name, printed("D", *options))


def test_what_does_not_fit_is_told_in_the_table() -> None:
    """Not even one image: nothing is left, and what is missing stands there."""
    line = printed("D", "--fit", "1MB", exit_code=1).splitlines()[-1]
    assert "not even batch 1" in line
    assert "–" in line


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_rows_add_up_to_the_peak(options: dict[str, Any]) -> None:
    """The bytes that a reader sees are the peak's; kinds of which there is nothing have no row."""
    plan = vggkit.memory("D", **options)
    grid = render.plan_grid(plan)
    sizes = [int(row[1].replace(",", "")) for row in grid.rows]
    assert sum(sizes) == plan.peak_bytes
    assert all(sizes)
    assert grid.footer is not None
    assert grid.footer[1] == f"{plan.peak_bytes:,}"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_shares_add_up_to_100_percent_but_for_rounding(options: dict[str, Any]) -> None:
    """Each share is rounded to a tenth of a percent, so that their sum is off by half of that for each row at most."""
    rows = render.plan_grid(vggkit.memory("D", **options)).rows
    shares = [Decimal(row[3].removesuffix(" %")) for row in rows]
    assert abs(sum(shares) - 100) <= Decimal("0.05") * len(shares)


def test_a_bar_is_as_long_as_its_share() -> None:
    """In eighths of a cell, from nothing to the whole."""
    assert render.bar(0, 7) == ""
    assert render.bar(7, 7) == "█" * render.BAR
    assert render.bar(1, 2) == "█" * (render.BAR // 2)
    assert [render.bar(n, render.BAR * 8) for n in range(1, 9)] == [*"▏▎▍▌▋▊▉█"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"optimizer": "adam"}, "the optimizer's own temporaries, not the activations, make the peak"),
        ({"device": "cuda"}, "Workspaces of cuDNN and cuBLAS and the CUDA context are not included."),
        ({}, "Kept for the backward pass: "),
    ],
)
def test_what_people_do_not_expect_is_said_only_where_it_is_so(options: dict[str, Any], sentence: str) -> None:
    """The sentence is there, and not in an inference on the CPU."""
    assert sentence in " ".join(render.sentences(vggkit.memory("D", **options)))
    assert sentence not in " ".join(render.sentences(vggkit.memory("D", mode="inference")))


def test_autocast_at_batch_1_is_said_to_hold_more() -> None:
    """The copies of the weights outweigh the smaller activations; at batch 64 they don't."""
    assert "Autocast holds more than plain float32 would" in printed("D", "--autocast")
    assert "Autocast holds more" not in printed("D", "--autocast", "--batch", "64")

"""The picture of strategies: each is a point, and the front is of those with which a step computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import vggkit
from tests.cli.test_app import printed, run
from tests.pictures.test_front import points
from tests.pictures.written import check_texts
from vggkit.base.errors import VggkitError
from vggkit.pictures import style
from vggkit.pictures.ranks import picture

COMMAND = ("plan", "A", "--ranks", "4", "--batch", "64", "--card", "24GiB")


def test_every_strategy_that_can_be_used_is_a_point() -> None:
    """What it sends to the right, what it holds upwards; those on the front in a colour, and the room as a line."""
    found = vggkit.plan("A", ranks=4, batch=64, card="24GiB")
    drawn = picture(found)
    axes = drawn.figure.axes[1]
    by_colour = points(axes)
    assert set(by_colour[style.VERMILION]) == {(float(way.sent_bytes), float(way.held_bytes)) for way in found.front()}
    every = {point for colour in (style.VERMILION, style.GREY, style.ORANGE) for point in by_colour.get(colour, ())}
    assert every == {(float(way.sent_bytes), float(way.held_bytes)) for way in found.runnable}
    [line] = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert set(line.get_ydata()) == {24 * 2**30}
    check_texts(drawn.figure)
    first, *_ = found.front()
    assert f"ways to share the work. On the Pareto front: {first.label}: " in drawn.description


def test_equal_ways_are_one_point_that_says_so() -> None:
    """The legend counts each of them, as the table does."""
    found = vggkit.plan("D", ranks=8, batch=256, card="24GiB")
    equal = [way for way in found.front() if way.label.startswith("pipeline+ddp --replicas 4")]
    assert len({(way.sent_bytes, way.held_bytes) for way in equal}) == 1
    assert len(equal) == 2
    figure = picture(found).figure
    named = {text.get_text() for text in figure.axes[1].texts}
    assert "pipeline+ddp --replicas 4 and 1 equal" in named
    assert len(named) == len(found.front()) - 1
    said = [text.get_text() for text in figure.axes[0].texts]
    others = [way for way in found.runnable if not way.on_front]
    assert f"on the Pareto front, the result the same: {len(found.front())}" in said
    assert f"others: {len([way for way in others if not way.changes_result])}" in said


def test_without_a_card_there_is_no_line() -> None:
    """As nobody says what each rank has."""
    axes = picture(vggkit.plan("A", ranks=4, batch=64)).figure.axes[1]
    assert not [line for line in axes.lines if line.get_linestyle() == "--"]


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_the_command_draws_it(ending: str, tmp_path: Path) -> None:
    """Beside the table that it prints."""
    file = tmp_path / f"ways.{ending}"
    result = run(*COMMAND, "--plot", str(file))
    assert (result.exit_code, result.stderr) == (0, f"{file} drawn\n")
    assert result.stdout == printed(*COMMAND)
    assert file.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r", b"%PDF-")


def test_where_no_strategy_can_be_used_nothing_is_drawn(tmp_path: Path) -> None:
    """One line says so, with the first reason."""
    found = vggkit.plan("A", ranks=1009, batch=4)
    with pytest.raises(VggkitError, match="A: no strategy can be used by 1009 ranks, so there is nothing to draw"):
        picture(found)
    file = tmp_path / "ways.svg"
    result = run("plan", "A", "--ranks", "1009", "--batch", "4", "--plot", str(file))
    assert result.exit_code == 1
    assert not file.exists()

"""The picture of remedies: each way is a point, and the front is of those with which a step computes the same."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

import vggkit
from tests.cli.test_app import printed, run, told
from tests.footprint.remedies.macs import recomputed_macs
from tests.pictures.test_front import points
from tests.pictures.written import check_texts
from vggkit import Network, Remedies
from vggkit.pictures import style
from vggkit.pictures.remedies import picture

TINY = Network.of("D", input="3x64x64", num_classes=10, width=0.25)
BLOCKS = ("block1", "block2", "block3", "block4", "block5")


@pytest.fixture(scope="module")
def found() -> Remedies:
    """Return what makes a small step fit."""
    whole = vggkit.memory(TINY, batch=64).peak_bytes
    return vggkit.remedies(TINY, whole * 8 // 10, batch=64)


def test_every_set_of_blocks_is_a_point(found: Remedies) -> None:
    """Those on the front in another colour: no set takes less and runs no more again."""
    sets = [chosen for size in range(6) for chosen in combinations(BLOCKS, size)]
    peaks = {chosen: vggkit.memory(TINY, batch=64, checkpoint=chosen).peak_bytes for chosen in sets}
    alone = {block: recomputed_macs(TINY, (block,)) for block in BLOCKS}
    at = {chosen: (float(sum(alone[block] for block in chosen)), float(peaks[chosen])) for chosen in sets}
    front = {
        one
        for one in at.values()
        if not any(two != one and two[0] <= one[0] and two[1] <= one[1] for two in at.values())
    }
    axes = picture(found).figure.axes[1]
    drawn = points(axes)
    assert set(drawn[style.VERMILION]) == front
    assert {*drawn[style.GREY], *drawn[style.VERMILION]} == {*at.values()}
    assert [(way.recomputed_multiply_accumulates, way.peak_bytes) for way in found.front()] == sorted(front)


def test_another_loop_and_another_result_are_points_beside_the_front(found: Remedies) -> None:
    """Each in its colour: every divisor of the batch, a step in the backward pass; autocast and what is not trained."""
    drawn = points(picture(found).figure.axes[1])
    loops = [{"batch": 64 // parts, "accumulate": parts} for parts in (2, 4, 8, 16, 32, 64)]
    peaks = [vggkit.memory(TINY, **{"batch": 64, **loop}).peak_bytes for loop in [*loops, {"step_in_backward": True}]]
    assert set(drawn[style.GREEN]) == {(0.0, float(peak)) for peak in peaks}
    changing = {(way.recomputed_multiply_accumulates, way.peak_bytes) for way in found if way.changes_result}
    assert changing
    assert set(drawn[style.ORANGE]) >= changing


def test_the_room_is_a_line(found: Remedies) -> None:
    """Below it lie those that fit; the legend says how much it is."""
    drawn = picture(found)
    [line] = [line for line in drawn.figure.axes[1].lines if line.get_linestyle() == "--"]
    assert set(line.get_ydata()) == {found.room.bytes}
    check_texts(drawn.figure)
    assert "ways to run the step. On the Pareto front: as it is: 0 MACs that are run again" in drawn.description


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_the_command_draws_it(ending: str, tmp_path: Path) -> None:
    """Beside the table that it prints; a set on a card has what its allocator reserves."""
    file = tmp_path / f"ways.{ending}"
    result = run("remedies", "A", "5GB", "--context", "0", "--batch", "64", "--plot", str(file))
    assert result.exit_code == 0
    assert result.stdout == printed("remedies", "A", "5GB", "--context", "0", "--batch", "64")
    assert result.stderr == f"{file} drawn\n"
    assert file.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r", b"%PDF-")


def test_another_ending_is_refused(tmp_path: Path) -> None:
    """Before anything is searched or written."""
    expected = "Error: --plot: expected a file that ends in .svg, .png or .pdf, found 'x.html'\n"
    assert told("remedies", "D", "5GB", "--plot", "x.html") == expected
    assert not list(tmp_path.iterdir())

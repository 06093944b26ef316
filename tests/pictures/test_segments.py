"""The map of a card: every byte once, in the colour of what it is for, and nothing over anything else."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

import vggkit
from tests.pictures.written import check_texts, texts, words
from vggkit.base.numbers import mebibytes
from vggkit.footprint.snapshot import Snapshot, snapshot
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network
from vggkit.notation.overrides import Overrides
from vggkit.pictures import segments
from vggkit.pictures.parts import MARGIN
from vggkit.pictures.plot import draw
from vggkit.pictures.timeline import COLOURS

MIB, GIB = 1 << 20, 1 << 30
EXPANDABLE = "expandable_segments:True"
NAMED = "{name: 'a long name, $x^2$ $\\foo$ \\u0001 <&> 网络', input: 3x8x8, blocks: [[conv3-64, maxpool]]}"

SHOWN: dict[str, tuple[Any, int | None, dict[str, Any]]] = {
    "never full": ("A", None, {"batch": 64}),
    "expandable": ("A", None, {"batch": 64, "allocator": EXPANDABLE}),
    "one image": ("D", 24 * GIB, {"optimizer": "adamw"}),
    "refused": ("A", 24 * GIB, {"batch": 388}),
    "refused, expandable": ("A", 24 * GIB, {"batch": 488, "allocator": EXPANDABLE}),
    "nearly full": ("A", 24 * GIB, {"batch": 388, "allocator": EXPANDABLE}),
    "full of parameters": ("D", 128 * MIB, {}),
    "too small for anything": ("D", 1 * MIB, {}),
    "inference": ("A-LRN", 8 * GIB, {"batch": 64, "mode": "inference"}),
    "batch norm": ("E", None, {"batch": 8, "batch_norm": True, "freeze": ["block1"], "checkpoint": ["block2"]}),
    "small": ("A", None, {"batch": 4, "input": "3x32x32", "width": 0.25, "num_classes": 10}),
    "named": (vggkit.loads(NAMED), None, {"batch": 1000}),
}
"""What is drawn, by words: the network, the card's bytes and what the steps are like."""


@cache
def shown(case: str) -> Snapshot:
    """Return what is drawn."""
    source, card_bytes, arguments = SHOWN[case]
    overrides: Any = {word: arguments[word] for word in Overrides.__annotations__ if word in arguments}
    others = {word: value for word, value in arguments.items() if word not in overrides}
    network = Network.of(source, **overrides)
    options = checked_options(network, device="cuda", **others)
    return snapshot(network, options) if card_bytes is None else snapshot(network, options, card_bytes)


@cache
def figure(case: str) -> Figure:
    """Draw it."""
    return draw(segments, shown(case), "segments").figure


def blocks(case: str) -> list[Polygon]:
    """Return what is drawn of blocks; the legend's squares are smaller."""
    polygons = figure(case).findobj(Polygon)
    return [polygon for polygon in polygons if abs(box(polygon)[3] - box(polygon)[1] - segments.BAR) < 1e-9]


def box(polygon: Polygon) -> tuple[float, float, float, float]:
    """Return left, lower, right and upper end of a rectangle, in inches."""
    corners = polygon.get_xy()
    return (*corners.min(axis=0), *corners.max(axis=0))


@pytest.mark.parametrize("case", SHOWN)
def test_every_byte_is_drawn_once_in_its_colour(case: str) -> None:
    """The widths of each colour add up to the bytes of its kind, all in the same scale."""
    seen = shown(case)
    bytes_of = dict.fromkeys([*COLOURS.values(), segments.HOLE_COLOUR], 0)
    for segment in seen.segments:
        for block in segment.blocks:
            bytes_of[segments.HOLE_COLOUR if block.is_free else COLOURS[seen.kinds[block.address]]] += block.size
    drawn = dict.fromkeys(bytes_of, 0.0)
    for polygon in blocks(case):
        left, _, right, _ = box(polygon)
        drawn[to_hex(polygon.get_facecolor()).upper()] += right - left
    whole = sum(drawn.values())
    for colour, size in bytes_of.items():
        # a width is the difference of two positions in floating point
        assert drawn[colour] == pytest.approx(size / seen.reserved_bytes * whole if size else 0)
    assert sum(bytes_of.values()) == seen.reserved_bytes


@pytest.mark.parametrize("case", SHOWN)
def test_nothing_leaves_its_row_or_lies_over_anything(case: str) -> None:
    """Blocks end within the row, and begin where the one before ends, or beyond."""
    rows: dict[float, list[tuple[float, float]]] = {}
    for polygon in blocks(case):
        left, lower, right, _ = box(polygon)
        rows.setdefault(round(lower, 6), []).append((left, right))
    for row in rows.values():
        ends = [MARGIN, *(right for _, right in sorted(row))]
        assert all(left >= end - 1e-9 for end, (left, _) in zip(ends, sorted(row)))
        assert ends[-1] <= MARGIN + segments.WIDTH + 1e-6


def upright(case: str) -> list[tuple[float, float]]:
    """Return the upright lines: where they stand, and their lower ends, in inches."""
    paths = [path.vertices.tolist() for lines in figure(case).findobj(LineCollection) for path in lines.get_paths()]
    return [tuple(ends[0]) for ends in paths if ends[0][0] == ends[1][0]]


@pytest.mark.parametrize(
    ("case", "left"), [("never full", 0), ("expandable", 0), ("refused", 4), ("nearly full", 2), ("one image", 1)]
)
def test_each_segment_is_open_where_it_goes_on(case: str, left: int) -> None:
    """Each has two ends, in however many rows it lies; what is not reserved has one if it is longer than a row."""
    assert len(upright(case)) == 2 * len(shown(case).segments) + left


def test_what_is_written_of_the_rest_stands_in_it_or_behind_it() -> None:
    """Where what is not reserved is narrower than its words, they begin where it ends."""
    (text,) = (text for text in texts(figure("nearly full")) if text.get_text().startswith("not reserved"))
    end, lower = max(upright("nearly full"), key=lambda line: (-line[1], line[0]))
    begin, middle = text.get_position()
    assert lower < middle < lower + segments.BAR
    assert 0 < begin - end < 2 * segments.LABEL_GAP


@pytest.mark.parametrize("case", SHOWN)
def test_no_text_leaves_the_canvas_or_covers_another(case: str) -> None:
    """Heading, legend, totals, blocks and what is not reserved each have their own place."""
    check_texts(figure(case))


def test_what_is_refused_is_said_in_numbers() -> None:
    """The picture and its description have what is reserved, allocated, left and asked for, and the largest hole."""
    seen = shown("refused")
    said = words(figure("refused"))
    for text in (
        "Step 3, backward of block1_relu1: 20.11 GiB of 24.00 GiB reserved, 10.99 GiB allocated.",
        "not reserved: 3.89 GiB",
        "asked for: 4.64 GiB (temporaries)",
        "4.15 GiB",
        "3.82 GiB",
    ):
        assert text in said
    described = segments.description(seen)
    assert "The largest hole has 4.15 GiB. Not reserved: 3.89 GiB. Asked for: 4.64 GiB (temporaries)." in described


@pytest.mark.parametrize("case", SHOWN)
def test_every_amount_is_the_snapshots(case: str) -> None:
    """Wherever a number of bytes stands, it is a block's, or one of the totals."""
    seen = shown(case)
    sizes = [block.size for segment in seen.segments for block in segment.blocks]
    sizes += [seen.reserved_bytes, seen.allocated_bytes, seen.card_bytes, seen.left_bytes]
    sizes += [] if seen.refusal is None else [seen.refusal.size]
    said = " ".join([*words(figure(case)), segments.description(seen)])
    amounts = re.findall(r"[0-9.,]+ [KMGT]?i?B\b", said)
    assert {*amounts} <= {*map(mebibytes, sizes)}
    assert amounts


def test_a_block_that_goes_on_is_labelled_once_with_all_of_it() -> None:
    """The 4.64 GiB of the first convolution's output lie in two rows, and the larger part has its size."""
    seen = shown("refused, expandable")
    largest = max(block.size for segment in seen.segments for block in segment.blocks if not block.is_free)
    said = words(figure("refused, expandable"))
    assert said.count(mebibytes(largest)) == sum(
        block.size == largest for segment in seen.segments for block in segment.blocks
    )


def test_a_file_has_the_description() -> None:
    """A screen reader reads what is drawn; the same snapshot is the same file."""
    seen = shown("named")
    first, second = (draw(segments, seen, "segments").to_bytes("svg") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert "The segments of torch's allocator" in str(root[1].text)
    assert r"$x^2$ $\foo$" in str(root[0].text)

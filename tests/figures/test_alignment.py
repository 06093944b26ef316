"""Layers side by side: the paper's Table 1, and what stands beside what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests import drawn
from tests.figures.beside import of, shown
from vggkit import Network, compare
from vggkit.figures.alignment import MOST_PAIRS

# The layers, as the paper's Table 1 has them; a star stands before what is bold there

TABLE_1 = """
input 3×224×224 | input 3×224×224 | input 3×224×224 | input 3×224×224 | input 3×224×224 | input 3×224×224
conv3-64        | conv3-64        | conv3-64        | conv3-64        | conv3-64        | conv3-64
                | *LRN            | *conv3-64       | conv3-64        | conv3-64        | conv3-64
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-128       | conv3-128       | conv3-128       | conv3-128       | conv3-128       | conv3-128
                |                 | *conv3-128      | conv3-128       | conv3-128       | conv3-128
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256
conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256
                |                 |                 | *conv1-256      | *conv3-256      | conv3-256
                |                 |                 |                 |                 | *conv3-256
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
                |                 |                 | *conv1-512      | *conv3-512      | conv3-512
                |                 |                 |                 |                 | *conv3-512
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
                |                 |                 | *conv1-512      | *conv3-512      | conv3-512
                |                 |                 |                 |                 | *conv3-512
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096
FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096
FC-1000         | FC-1000         | FC-1000         | FC-1000         | FC-1000         | FC-1000
soft-max        | soft-max        | soft-max        | soft-max        | soft-max        | soft-max
"""

SPANNING = ["input 3×224×224", *["maxpool"] * 5, "FC-4096", "FC-4096", "FC-1000", "soft-max"]
"""The rows that are one cell in the paper's table."""


def test_the_rows_are_the_papers_table_1() -> None:
    """Without any argument all six are compared, and each row and each bold layer is the paper's."""
    paper = [[cell.strip() for cell in line.split("|")] for line in TABLE_1.strip("\n").splitlines()]
    assert shown(compare()) == paper


def test_the_rows_that_span_are_the_papers() -> None:
    """The input, the pools and the classifier are one cell, and so are no convolutions however equal."""
    rows = [row for row in compare().rows if row.shown and row.spans]
    assert [row.cells[0] and row.cells[0].text for row in rows] == SPANNING
    assert not compare("A", "A:input=3x64x64").rows[0].spans


def test_bold_is_before_the_left_column_in_any_order() -> None:
    """With the columns turned round, what differs is told from the new left; what is missing is blank."""
    rows = shown(compare("E", "D", "C"))
    assert rows[7:11] == [
        ["conv3-256", "conv3-256", "conv3-256"],
        ["conv3-256", "conv3-256", "conv3-256"],
        ["conv3-256", "conv3-256", "*conv1-256"],
        ["conv3-256", "", ""],
    ]


@pytest.mark.parametrize(
    ("left", "right", "rows"),
    [
        (  # norms go between, and the convolutions stay side by side
            of("conv3-4, conv3-4, maxpool"),
            of("{conv: 4, norm: batch}, {conv: 4, norm: batch}, maxpool"),
            [["conv3-4"] * 2, ["", "*batchnorm"], ["conv3-4"] * 2, ["", "*batchnorm"], ["maxpool"] * 2],
        ),
        (of("conv3-4, maxpool"), of("conv3-8, maxpool"), [["conv3-4", "*conv3-8"], ["maxpool"] * 2]),
        (  # a layer before the equal ones is a row of its own
            of("conv3-8, conv3-8, maxpool"),
            of("conv1-4, conv3-8, conv3-8, maxpool"),
            [["", "*conv1-4"], ["conv3-8"] * 2, ["conv3-8"] * 2, ["maxpool"] * 2],
        ),
        (of("conv3-4, maxpool"), of("conv3-4, avgpool"), [["conv3-4"] * 2, ["maxpool", "*avgpool"]]),
        (  # ReLU is unsaid until somebody has something else
            of("conv3-4, conv3-8"),
            of("{conv: 4, activation: gelu}, conv3-8"),
            [["conv3-4"] * 2, ["relu", "*gelu"], ["conv3-8"] * 2],
        ),
        (of("conv3-4"), of("{conv: 4, activation: none}"), [["conv3-4"] * 2, ["relu", ""]]),
        (  # no other sort of layer takes the place of a ReLU
            of("conv3-4"),
            of("{conv: 4, activation: none}, LRN"),
            [["conv3-4"] * 2, ["relu", ""], ["", "*LRN"]],
        ),
        (  # the name decides which of two convolutions has become smaller
            of("{conv: 8, activation: none}, {conv: 8, name: mine, activation: none}"),
            of("{conv: 4, name: mine, activation: none}"),
            [["conv3-8", ""], ["conv3-8", "*conv3-4"]],
        ),
        (of("conv3-4"), of("conv3-4", "conv3-8"), [["conv3-4"] * 2, ["", "*conv3-8"]]),
    ],
)
def test_layers_stand_beside_their_like(left: Network, right: Network, rows: list[list[str]]) -> None:
    """Equal layers are side by side, then such of one sort; the rest goes between."""
    assert shown(compare(left, right))[1:-1] == rows


def test_another_head_leaves_the_last_layer_beside_the_last() -> None:
    """With head=gap FC-1000 still stands beside FC-1000."""
    tail = shown(compare("D", "D:head=gap"))[-5:]
    assert tail == [
        ["", "*global-avgpool"], ["FC-4096", ""], ["FC-4096", ""], ["FC-1000", "FC-1000"], ["soft-max", "soft-max"],
    ]  # fmt: skip


def test_a_dropout_that_is_missing_is_seen() -> None:
    """Dropout 0.5 is unsaid, but not where one network has none."""
    assert ["dropout", ""] in shown(compare("A", "A:dropout=0"))
    assert ["dropout", "*dropout 0.3"] in shown(compare("A", "A:dropout=0.3"))
    assert not any("dropout" in row for row in shown(compare("A", "B:dropout=0.5")))


@settings(max_examples=25, deadline=None)
@given(drawn.networks(), drawn.networks())
def test_each_layer_stands_in_one_row_in_order(left: Network, right: Network) -> None:
    """Whatever the networks, each column read from the top is its network, the input before it."""
    rows = compare(left, right).rows
    for column, network in enumerate((left, right)):
        cells = [row.cells[column] for row in rows]
        assert [cell.row.name for cell in cells if cell] == ["input", *(placed.name for placed in network)]
    assert all(any(row.cells) for row in rows)


def test_very_long_blocks_are_aligned_from_the_top() -> None:
    """Where looking for the best alignment would take long, layer stands beside layer."""
    count = int((MOST_PAIRS**0.5) / 2) + 1
    left, right = of(", ".join(["conv1-2"] * count)), of(", ".join(["conv1-2"] * (count + 1)))
    rows = compare(left, right).rows
    assert sum(None in row.cells for row in rows) == 2  # a convolution and its ReLU

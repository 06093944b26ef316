"""Layers of several networks, set side by side as in the paper's Table 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import msgspec

from vggkit.figures.summary import Row, Summary
from vggkit.notation.layers import times


class Cell(msgspec.Struct, frozen=True):
    """A layer in a row of a comparison.

    Args:
        row: the layer in its network's summary.
        differs: whether the column to the left has another layer or none; False in the first column.
    """

    row: Row
    differs: bool

    @property
    def text(self) -> str:
        """What the paper calls the layer; for the input, its shape."""
        return self.row.notation if self.row.layer else f"input {times(self.row.output_shape)}"


class AlignedRow(msgspec.Struct, frozen=True):
    """Layers of several networks, side by side.

    Args:
        block: the block they are in; None for the input and in the classifier.
        cells: a layer of each network, or None.
        shown: False for what the paper leaves out and all networks have: ReLU, dropout 0.5, flatten.
    """

    block: str | None
    cells: tuple[Cell | None, ...]
    shown: bool

    @property
    def spans(self) -> bool:
        """Whether all columns share one cell, as equal pools and classifier layers do in the paper's table."""
        first = self.cells[0]
        if first is None or any(cell is None or cell.text != first.text for cell in self.cells):
            return False
        return self.block is None or first.row.kind.endswith("pool")


Slot = list[Row | None]
"""A layer of each network, or None."""

EXACT, SIMILAR, SAME_NAME = 100, 50, 1
"""Scores of two layers side by side: for equal notation, for the same sort, and a little more for equal names."""

MOST_PAIRS = 250_000
"""Most pairs of layers that are compared for a block. Longer blocks are paired in order, from the top."""

UNSAID = ("relu", "dropout", "flatten")
"""Layers that the paper's table leaves out. They have no parameters and no output of their own, and cost nothing."""


def aligned(summaries: Sequence[Summary]) -> Iterable[AlignedRow]:
    """Set the layers of networks side by side, block by block.

    Args:
        summaries: of at least one network, with a row for every module.
    """
    parts = [_parts(summary) for summary in summaries]
    blocks = max(([block for block in part if block] for part in parts), key=len)
    yield AlignedRow(None, _cells([part[""][0] for part in parts]), shown=True)
    for block in (*blocks, None):
        slots = _align([part.get(block, []) for part in parts])
        for slot, shown in zip(slots, _shown(slots)):
            yield AlignedRow(block, _cells(slot), shown)


def _parts(summary: Summary) -> dict[str | None, list[Row]]:
    """Return the rows of each block, those of the classifier under None, and the input under ""."""
    parts: dict[str | None, list[Row]] = {}
    for row in summary:
        parts.setdefault(row.block if row.layer else "", []).append(row)
    return parts


def _cells(slot: Slot) -> tuple[Cell | None, ...]:
    texts = [Cell(row, False).text if row else None for row in slot]
    return tuple(
        Cell(row, differs=number > 0 and texts[number] != texts[number - 1]) if row else None
        for number, row in enumerate(slot)
    )


def sort_of(row: Row) -> str:
    """Return the sort of a layer. Layers of one sort are alike: those with weights, pools, norms …"""
    return "input" if row.layer is None else row.layer.sort


def _follows(row: Row) -> bool:
    """Tell whether a layer belongs to the one before it. Such a layer is paired only with one of its own sort."""
    return sort_of(row) in ("norm", "activation", "dropout", "flatten")


def _align(columns: Sequence[list[Row]]) -> list[Slot]:
    """Set lists of layers side by side, one list after the other from the left."""
    slots: list[Slot] = [[row] for row in columns[0]]
    for number, column in enumerate(columns[1:], start=1):
        slots = [[*(slot or [None] * number), row] for slot, row in _pairs(slots, column)]
    return slots


def _pairs(slots: list[Slot], column: list[Row]) -> Iterable[tuple[Slot | None, Row | None]]:
    """Pair slots with layers so that the sum of their scores is largest; of equal pairings the one nearest the top.

    This is the algorithm of Needleman & Wunsch (1970); a gap costs nothing.
    """
    if len(slots) * len(column) > MOST_PAIRS:
        yield from zip_longest(slots, column)
        return
    scores = [[_score(slot, row) for row in column] for slot in slots]
    best = [[0] * (len(column) + 1) for _ in range(len(slots) + 1)]
    for i in reversed(range(len(slots))):
        for j in reversed(range(len(column))):
            best[i][j] = max(scores[i][j] + best[i + 1][j + 1], best[i + 1][j], best[i][j + 1])
    i = j = 0
    while i < len(slots) and j < len(column):
        if scores[i][j] + best[i + 1][j + 1] == best[i][j]:
            yield slots[i], column[j]
            i, j = i + 1, j + 1
        elif best[i + 1][j] == best[i][j]:
            yield slots[i], None
            i += 1
        else:
            yield None, column[j]
            j += 1
    yield from ((slot, None) for slot in slots[i:])
    yield from ((None, row) for row in column[j:])


def _score(slot: Slot, row: Row) -> int:
    """Return the score of a layer beside those of a slot; below 0 if they must not be paired."""
    there = [other for other in slot if other]
    same_name = SAME_NAME if any(other.name == row.name for other in there) else 0
    if any(other.notation == row.notation for other in there):
        return EXACT + same_name
    if any(sort_of(other) == sort_of(row) for other in there):
        return SIMILAR + same_name
    return -1 if _follows(row) or any(map(_follows, there)) else 0


def _shown(slots: list[Slot]) -> Iterable[bool]:
    """Tell for each slot of a block whether it is shown. What the paper leaves out is shown if networks differ."""
    before: Slot = []
    for slot in slots:
        there = [row for row in slot if row]
        if any(row.notation not in UNSAID for row in there):
            yield True
        else:
            yield any(row is None and weight and sort_of(weight) == "weight" for row, weight in zip(slot, before))
        if not any(map(_follows, there)):
            before = slot

"""A network block by block, a box for each layer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from vggkit.notation.layers import times
from vggkit.pictures import style
from vggkit.pictures.parts import (
    LINE_HEIGHT,
    MARGIN,
    Canvas,
    Group,
    colour_of,
    colours_of,
    counted,
    groups,
    rectangle,
    subtitle,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from vggkit.figures.summary import Row, Summary

__all__ = ["description", "figure", "title"]

COLUMNS = 7
"""Columns side by side."""

BOXES = 9
"""Boxes in a column; a longer block continues in the next one."""

LABEL_WIDTH = 22
"""Characters of a line in a box."""

PADDING = 0.09
"""Inches between a box and the frame around its column."""

GUTTER = 0.26
"""Inches between two columns, where the arrows run."""

BETWEEN = 0.16
"""Inches between two boxes."""

HEADER = 0.24
"""Inches of a column's name, with the room below it."""


class Box(NamedTuple):
    """A layer at its place.

    Args:
        row: the layer.
        lines: what is written in it.
        x: of its left side.
        top: of its upper side.
        width: of the box.
        height: of the box.
    """

    row: Row
    lines: tuple[str, ...]
    x: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.x + self.width / 2, self.top - self.height / 2


class BoxColumn(NamedTuple):
    """Boxes one below the other.

    Args:
        name: the heading above them.
        boxes: in the order in which the layers run.
    """

    name: str
    boxes: tuple[Box, ...]

    @property
    def bottom(self) -> float:
        """Where its last box ends."""
        return self.boxes[-1].top - self.boxes[-1].height


def figure(summary: Summary) -> Figure:
    """Draw a network.

    Args:
        summary: with a row for every module.
    """
    columns = arrange(groups(summary))
    colours = colours_of(box.row for column in columns for box in column.boxes)
    right = max(box.x + box.width + PADDING for column in columns for box in column.boxes)
    depth = PADDING - min(column.bottom for column in columns)
    canvas = Canvas(title(summary), subtitle(summary), colours, right, depth)
    for column in columns:
        _draw(canvas, column)
    for before, after in pairwise(columns):
        _lead(canvas, before.boxes[-1], after)
    return canvas.figure


def description(summary: Summary) -> str:
    """Say in words what the picture shows."""
    parts = [f"{group.name}: {', '.join(counted(group.rows))}" for group in groups(summary)]
    return f"The layers of {title(summary)}, with {subtitle(summary)}, a box for each. {'; '.join(parts)}."


def arrange(parts: Sequence[Group]) -> list[BoxColumn]:
    """Place every layer in columns from left to right, and in a new row below where a row of columns is full."""
    stacks = [
        (name, rows[start : start + BOXES]) for name, rows in columns_of(parts) for start in range(0, len(rows), BOXES)
    ]
    width = max(style.text_width(line, bold=True) for _, rows in stacks for row in rows for line in _lines(row))
    width = max(width, *(style.text_width(name) for name, _ in stacks)) + 2 * PADDING
    columns: list[BoxColumn] = []
    top = 0.0
    for number, (name, rows) in enumerate(stacks):
        place = number % COLUMNS
        if number and place == 0:
            top = min(column.bottom for column in columns) - GUTTER - BETWEEN
        x = MARGIN + PADDING + place * (width + 2 * PADDING + GUTTER)
        columns.append(BoxColumn(name, _boxes(rows, x, top - HEADER, width)))
    return columns


def columns_of(parts: Sequence[Group]) -> list[tuple[str, tuple[Row, ...]]]:
    """Return the name and layers of each column: the input, each block, and the classifier."""
    image, *layers = parts
    blocks = [(part.name, part.rows) for part in layers if part.block]
    behind = tuple(row for part in layers if not part.block for row in part.rows)
    return [("", image.rows), *blocks, *([("classifier", behind)] if behind else [])]


def _lines(row: Row) -> list[str]:
    return [*wrapped(row.notation, LABEL_WIDTH), times(row.output_shape)]


def _boxes(rows: Sequence[Row], x: float, top: float, width: float) -> tuple[Box, ...]:
    boxes: list[Box] = []
    for row in rows:
        lines = tuple(_lines(row))
        boxes.append(Box(row, lines, x, top, width, LINE_HEIGHT * len(lines) + PADDING))
        top -= boxes[-1].height + BETWEEN
    return tuple(boxes)


def _draw(canvas: Canvas, column: BoxColumn) -> None:
    top = canvas.top
    first = column.boxes[0]
    height = first.top - column.bottom + HEADER + PADDING
    frame = rectangle(first.x - PADDING, top + column.bottom - PADDING, first.width + 2 * PADDING, height)
    canvas.shape(frame, facecolor=style.BAND, edgecolor="none", zorder=0)
    canvas.text(first.middle[0], top + first.top + 0.09, column.name, ha="center", color=style.FAINT_INK)
    for box in column.boxes:
        canvas.shape(
            rectangle(box.x, top + box.top - box.height, box.width, box.height),
            facecolor=style.lighter(colour_of(box.row), 0.55),
            edgecolor=colour_of(box.row),
            linewidth=1.2,
            label=box.row.name,
        )
        for number, line in enumerate(box.lines):
            last = number == len(box.lines) - 1
            canvas.text(
                box.middle[0],
                top + box.top - PADDING / 2 - (number + 0.76) * LINE_HEIGHT,
                line,
                ha="center",
                weight="normal" if last else "bold",
            )
    for before, after in pairwise(column.boxes):
        x = before.middle[0]
        _arrow(canvas, [(x, top + before.top - before.height), (x, top + after.top)])


def _lead(canvas: Canvas, before: Box, after: BoxColumn) -> None:
    """Draw an arrow from a column's last box to the next column's first, through the gutters."""
    top, first = canvas.top, after.boxes[0]
    start = (before.x + before.width, top + before.middle[1])
    end = (first.x, top + first.middle[1])
    right = before.x + before.width + PADDING + GUTTER / 2
    left = first.x - PADDING - GUTTER / 2
    if first.x > before.x:
        _arrow(canvas, [start, (right, start[1]), (right, end[1]), end])
        return
    between = top + first.top + HEADER + BETWEEN / 2 + GUTTER / 4
    _arrow(canvas, [start, (right, start[1]), (right, between), (left, between), (left, end[1]), end])


def _arrow(canvas: Canvas, points: list[tuple[float, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    canvas.axes.add_patch(
        FancyArrowPatch(
            path=Path(points),
            arrowstyle="-|>",
            mutation_scale=7,
            linewidth=0.9,
            color=style.INK,
            joinstyle="miter",
            shrinkA=0,
            shrinkB=0,
        )
    )

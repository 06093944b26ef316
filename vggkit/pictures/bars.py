"""A sheet with a line for each layer, from the top down, and panels of bars beside the names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from vggkit.pictures import style
from vggkit.pictures.parts import MARGIN, Canvas, rectangle, shortened_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggkit.figures.summary import Row

ROW = 0.185
"""Height of a layer's line, in inches."""

BAR = 0.74
"""Bar height as a fraction of ROW."""

PANEL = 2.35
"""Width of a panel, in inches: the longest bar with its label."""

LABEL_GAP = 4 / 72
"""Inches from the end of a bar to its label."""

BETWEEN = 0.22
"""Inches between two panels."""

HEADER = 0.45
"""Inches of a panel's two lines of heading, with the room above them."""

NAME_LENGTH = 30
NOTATION_LENGTH = 34
"""Longest name and notation, in characters; the rest is cut."""


class Sheet:
    """A heading, a legend, the names of layers, and room for panels beside them.

    Args:
        rows: the layers.
        heading: title and subtitle.
        legend: the colour of each name in it.
        panels: how many there will be.
    """

    def __init__(self, rows: Sequence[Row], heading: tuple[str, str], legend: Mapping[str, str], panels: int) -> None:
        self.rows = rows
        self.names = [name_of(row) for row in rows]
        self.name_width = max(map(style.text_width, self.names)) + 0.14
        notations = ["" if row.layer is None else shortened_text(row.notation, NOTATION_LENGTH) for row in rows]
        self.left = MARGIN + self.name_width + max(map(style.text_width, notations)) + 0.12
        self.height = ROW * len(rows)
        right = self.left + panels * (PANEL + BETWEEN) - BETWEEN
        self.canvas = Canvas(*heading, legend, right, HEADER + self.height)
        self._bands()
        for number, (name, notation) in enumerate(zip(self.names, notations)):
            y = MARGIN + self.height - (number + 0.7) * ROW
            self.canvas.text(MARGIN, y, name)
            self.canvas.text(MARGIN + self.name_width, y, notation, color=style.FAINT_INK)

    @property
    def figure(self) -> Figure:
        """The whole figure."""
        return self.canvas.figure

    def background(self, number: int) -> str:
        """Return the colour behind a layer: every second block stands on a grey band."""
        blocks = list(dict.fromkeys(row.block for row in self.rows))
        return style.BAND if blocks.index(self.rows[number].block) % 2 else "white"

    def panel(self, number: int, name: str, note: str) -> Axes:
        """Return axes for bars, with the layers at 0, 1, 2 … from the top.

        Args:
            number: of the panel, from the left.
            name: what stands above it.
            note: what stands below the name.
        """
        x = self.left + number * (PANEL + BETWEEN)
        self.canvas.text(x, MARGIN + self.height + 0.25, name, weight="bold")
        self.canvas.text(x, MARGIN + self.height + 0.09, note, color=style.FAINT_INK)
        axes = self.canvas.panel(x, MARGIN, PANEL, self.height)
        axes.set_ylim(len(self.rows) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.patch.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.spines["left"].set_color(style.FAINT_INK)
        return axes

    def bars(
        self,
        axes: Axes,
        values: Sequence[int],
        colours: str | Sequence[str],
        height: float = BAR,
        shift: float = 0.0,
    ) -> None:
        """Draw a bar for each layer.

        Args:
            axes: the panel.
            values: the bars' lengths.
            colours: one for each, or one for all.
            height: of a bar, as a fraction of `ROW`.
            shift: how far down the bars stand from the middle of their lines, as a fraction of `ROW`.
        """
        places = [number + shift for number in range(len(values))]
        lengths = list(map(float, values))  # numpy has no integers as large as counts may be
        axes.barh(places, lengths, height, color=colours, edgecolor=style.INK, linewidth=0.4)

    def label(self, axes: Axes, number: int, value: float, text: str, bold: bool = False) -> None:
        """Write a text after a bar, on one line with the layer's name (`bar_label` would centre it on the bar).

        Args:
            axes: the panel.
            number: of the layer.
            value: where the bar ends.
            text: what is written.
            bold: whether it is in bold.
        """
        axes.annotate(
            text,
            (value, number + 0.2),
            xytext=(LABEL_GAP * 72, 0),
            textcoords="offset points",
            va="baseline",
            fontsize=style.TEXT_SIZE,
            weight="bold" if bold else "normal",
        )

    def _bands(self) -> None:
        width = self.canvas.width - 2 * MARGIN + 0.12
        top = MARGIN + self.height
        for colour, numbers in groupby(range(len(self.rows)), key=self.background):
            height = ROW * len(list(numbers))
            top -= height
            if colour == style.BAND:
                self.canvas.shape(rectangle(MARGIN - 0.06, top, width, height), color=colour, linewidth=0, zorder=0)


def name_of(row: Row) -> str:
    """Return a layer's name as it is drawn."""
    return shortened_text(style.printable(row.name), NAME_LENGTH)


def limit(values: Mapping[int, int], labels: Mapping[int, str]) -> float:
    """Return the value at a panel's right edge, so that every bar and its label have room.

    Args:
        values: where bars end, by the layer's number.
        labels: what is written after their ends.
    """
    rooms = {number: 1 - label_width(text) / PANEL for number, text in labels.items()}
    return max((value / rooms.get(number, 1.0) for number, value in values.items()), default=0.0) or 1.0


def label_width(text: str) -> float:
    """Return the inches that a label takes after a bar, with the gaps before and after it."""
    return style.text_width(text, bold=True) + 2 * LABEL_GAP

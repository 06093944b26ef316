"""What the pictures of networks share: which layers are drawn, in which colours, and a canvas measured in inches."""

from __future__ import annotations

import re
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base.numbers import grouped, shortened
from vggkit.notation.layers import times
from vggkit.pictures import style

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggkit.figures.summary import Row, Summary

COLOURS = {
    "input": style.GREY,
    "convolution": style.SKY_BLUE,
    "normalization": style.PURPLE,
    "activation": style.ORANGE,
    "pooling": style.VERMILION,
    "fully connected": style.BLUE,
    "soft-max": style.YELLOW,
}
"""The colour of each category of layer; they differ in lightness too, for a print in grey."""

MARGIN = 0.2
"""Inches around a picture."""

HEADING = 0.48
"""Inches that the heading takes, with the room below it."""

LEGEND = 0.3
"""Inches that the legend takes, with the room below it."""

ENTRY_WIDTH = 0.37
"""Inches of a legend's entry beside its text: the coloured square, and what is free around it."""

LINE_HEIGHT = 0.155
"""Inches from one line of text to the next."""

HINTING = 1.03
"""How much wider than its outlines a renderer may draw a line of text: it moves letters to whole pixels."""

LONGEST_TITLE = 100
"""Longest title, in characters; the rest is cut."""


class Group(NamedTuple):
    """Layers that belong together.

    Args:
        name: of the block, or of the one layer.
        block: whether it is a block.
        rows: its layers.
    """

    name: str
    block: bool
    rows: tuple[Row, ...]


def category(row: Row) -> str:
    """Return which category of layer a row is: a key of `COLOURS`."""
    layer = row.layer
    if layer is None:
        return "input"
    if layer.is_weight_layer:
        return "convolution" if len(row.output_shape) == 3 else "fully connected"
    if layer.is_activation:
        return "activation"
    if layer.is_pool or layer.fixes_size:
        return "pooling"
    return "soft-max" if layer.normalizes_scores else "normalization"


def colour_of(row: Row) -> str:
    """Return a layer's colour."""
    return COLOURS[category(row)]


def drawn(summary: Summary) -> list[Row]:
    """Return the rows that are drawn: the input, layers with parameters or an output of their own, and soft-max.

    Args:
        summary: with a row for every module.
    """
    return [
        row
        for row in summary
        if row.activation_elements or row.parameters or (row.layer and row.layer.normalizes_scores)
    ]


def groups(summary: Summary) -> list[Group]:
    """Group the drawn rows by block. Outside of blocks a layer is alone, with the norm and activation after it.

    So is the input, which is none of the network's layers.
    """
    found: list[Group] = []
    for block, rows in groupby(drawn(summary), key=lambda row: row.block):
        if block is not None:
            found.append(Group(block, True, tuple(rows)))
            continue
        for row in rows:
            if category(row) in ("normalization", "activation") and _is_layer(found[-1]):
                found[-1] = found[-1]._replace(rows=(*found[-1].rows, row))
            else:
                found.append(Group(row.name, False, (row,)))
    return found


def _is_layer(group: Group) -> bool:
    """Tell whether a group is a layer outside of the blocks."""
    return not group.block and group.rows[0].layer is not None


def counted(rows: Iterable[Row]) -> list[str]:
    """Return the notation of each layer in order, with equal ones counted together.

    >>> from vggkit import summarize
    >>> counted(row for row in summarize("C") if row.block == "block3")
    ['conv3-256 ×2', 'conv1-256', 'maxpool']
    """
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.notation] = counts.get(row.notation, 0) + 1
    return [notation if count == 1 else f"{notation} ×{count}" for notation, count in counts.items()]


def title(summary: Summary) -> str:
    """Return one line that says which network is drawn."""
    name = style.printable(summary.name)
    return f"{shortened_text(name, LONGEST_TITLE)}: {times(summary.input)}"


def subtitle(summary: Summary) -> str:
    """Return one line of totals."""
    totals = summary.totals
    return " · ".join(
        (
            f"{totals.weight_layers} weight layers",
            f"{grouped(totals.parameters)} parameters",
            f"{shortened(totals.multiply_accumulates)} MACs",
        )
    )


def shortened_text(text: str, longest: int) -> str:
    """Return a text, cut to a number of characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines of a number of characters at most, after commas where possible.

    >>> wrapped("conv3-1024, dilation 6", 20)
    ['conv3-1024,', 'dilation 6']
    """
    if len(text) <= width:
        return [text]
    lines: list[str] = []
    for part in re.split("(?<=,) ", text):
        if lines and len(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines += wrap(part, width)
    return lines


class Canvas:
    """A figure with two lines of heading and a legend, whose coordinates are inches from its lower left corner.

    The figure is as large as its texts and its content need. matplotlib's layouts do the reverse: they fit content into
    a figure of a given size, so that long names would overlap or be cut.

    Args:
        title: the first line.
        subtitle: the second.
        legend: the colour of each name in it; empty for none.
        right: where what is drawn ends on the right.
        height: of what is drawn below heading and legend.
    """

    def __init__(self, title: str, subtitle: str, legend: Mapping[str, str], right: float, height: float) -> None:
        from matplotlib.figure import Figure

        widths = {name: ENTRY_WIDTH + style.text_width(name, style.SMALL_SIZE) for name in legend}
        heading = max(style.text_width(title, style.TITLE_SIZE, bold=True), style.text_width(subtitle)) * HINTING
        self.width = max(right, MARGIN + heading, MARGIN + sum(widths.values())) + MARGIN
        self.top = MARGIN + height
        """Where what is drawn begins below heading and legend."""
        self.height = self.top + (LEGEND if legend else 0.0) + HEADING + MARGIN
        self.figure: Figure = Figure(figsize=(self.width, self.height))
        self.axes = self.panel(0, 0, self.width, self.height)
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(0, self.height)
        self.axes.axis("off")
        top = self.height - MARGIN
        self.text(MARGIN, top - 0.12, title, style.TITLE_SIZE, weight="bold")
        self.text(MARGIN, top - 0.32, subtitle, color=style.FAINT_INK)
        x, y = MARGIN, top - HEADING
        for name, colour in legend.items():
            self.shape(rectangle(x, y - 0.1, 0.14, 0.1), facecolor=colour, edgecolor=style.INK, linewidth=0.5)
            self.text(x + 0.19, y - 0.09, name, style.SMALL_SIZE)
            x += widths[name]

    def panel(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes at a place."""
        return self.figure.add_axes((x / self.width, y / self.height, width / self.width, height / self.height))

    def plane(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes with a grid, for points."""
        axes = self.panel(x, y, width, height)
        axes.tick_params(labelsize=style.TEXT_SIZE)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=style.LINE, linewidth=0.4)
        axes.set_axisbelow(True)
        return axes

    def text(self, x: float, y: float, text: str, size: float = style.TEXT_SIZE, **options: Any) -> None:
        """Write a text."""
        self.axes.text(x, y, text, fontsize=size, **{"va": "baseline", **options})

    def shape(self, corners: Iterable[tuple[float, float]], **options: Any) -> None:
        """Draw a closed outline."""
        from matplotlib.patches import Polygon

        self.axes.add_artist(Polygon(list(corners), closed=True, **options))  # add_patch would measure it


def colours_of(rows: Iterable[Row]) -> dict[str, str]:
    """Return the colour of each category that occurs, in the palette's order."""
    there = {category(row) for row in rows}
    return {name: colour for name, colour in COLOURS.items() if name in there}


def rectangle(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Return a rectangle's corners, the lower left first."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]

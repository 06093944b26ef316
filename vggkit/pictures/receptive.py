"""How the receptive field and the stride grow from layer to layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vggkit.figures.summary import window
from vggkit.notation.layers import Pair, times
from vggkit.pictures import parts, style
from vggkit.pictures.bars import BAR, PANEL, Sheet, label_width, limit
from vggkit.pictures.parts import colour_of, colours_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.figure import Figure

    from vggkit.figures.summary import Summary

SUBTITLE = "in input pixels; padding is ignored, so a field may be larger than the input"

HEIGHT_AND_WIDTH = {"height": style.BLUE, "width": style.VERMILION}


class Panel(NamedTuple):
    """How something grows.

    Args:
        name: of the figure.
        note: a line below the name.
        pairs: height and width, for each layer.
        lines: the colours of dashed lines, by their positions.
    """

    name: str
    note: str
    pairs: tuple[Pair, ...]
    lines: Mapping[int, str]


def figure(summary: Summary) -> Figure:
    """Draw how much of the input each layer sees.

    Args:
        summary: with a row for each layer that owns parameters or an output.
    """
    image = (summary.input[1], summary.input[2])
    fields = tuple(row.receptive_field for row in summary)
    strides = tuple(row.stride for row in summary)
    square = image[0] == image[1] and all(height == width for height, width in (*fields, *strides))
    sheet = Sheet(summary.rows, (title(summary), SUBTITLE), colours_of(summary) if square else HEIGHT_AND_WIDTH, 2)
    lines = {image[0]: style.INK} if square else dict(zip(image, HEIGHT_AND_WIDTH.values()))
    panels = (
        Panel("receptive field", f"input {window(image)}, dashed", fields, lines),
        Panel("stride", "from one value to the next", strides, {}),
    )
    for place, panel in enumerate(panels):
        axes = sheet.panel(place, panel.name, panel.note)
        heights, widths = zip(*panel.pairs)
        if square:
            sheet.bars(axes, heights, list(map(colour_of, summary)))
        else:
            sheet.bars(axes, heights, HEIGHT_AND_WIDTH["height"], BAR / 2, -BAR / 4)
            sheet.bars(axes, widths, HEIGHT_AND_WIDTH["width"], BAR / 2, BAR / 4)
        labels = {number: window(pair) for number, pair in enumerate(panel.pairs)}
        ends = {number: max(pair) for number, pair in enumerate(panel.pairs)}
        ends, whole = apart(ends, labels, panel.lines)
        for number, text in labels.items():
            sheet.label(axes, number, ends[number], text)
        axes.set_xlim(0, whole)
        for size, colour in panel.lines.items():
            axes.axvline(size, color=colour, linestyle="--", linewidth=1, zorder=1.5)
    return sheet.figure


def apart(ends: Mapping[int, int], labels: Mapping[int, str], lines: Iterable[int]) -> tuple[dict[int, int], float]:
    """Return where each label begins, so that no line runs through it, and the value at the panel's right edge.

    Args:
        ends: where the bars end, by the layer's number.
        labels: the texts after the bars.
        lines: positions of the lines.
    """
    placed = dict(ends)
    while True:
        whole = max(limit(placed, labels), *(line * 1.03 for line in lines), 1.0)
        moved = {
            number: line
            for line in sorted(lines)
            for number, end in placed.items()
            if end < line < end + label_width(labels[number]) / PANEL * whole
        }
        if not moved:
            return placed, whole
        placed |= moved  # the panel may now end at a larger value, so that labels reach further


def title(summary: Summary) -> str:
    """Return one line that says what is drawn."""
    return f"{parts.title(summary)}, receptive field and stride"


def description(summary: Summary) -> str:
    """Say in words what the picture shows."""
    last = {row.block or row.name: row for row in summary if row.layer is not None}
    grown = [f"{row.name} {window(row.receptive_field)}, stride {window(row.stride)}" for row in last.values()]
    return (
        f"How the receptive field and the stride of {parts.title(summary)} grow from layer to layer, in input pixels."
        f" {'; '.join(grown)}. The input is {times(summary.input[1:])}."
    )

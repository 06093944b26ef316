"""How the receptive field and the stride grow from layer to layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vggkit.figures.summary import window
from vggkit.notation.layers import Pair, times
from vggkit.pictures import parts, style
from vggkit.pictures.bars import BAR, PANEL, Sheet, label_width, limit
from vggkit.pictures.parts import COLOURS, colours_of, sort

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggkit.figures.summary import Summary

SUBTITLE = "in input pixels; padding is ignored, so a field may be larger than the input"

HEIGHT_AND_WIDTH = {"height": style.BLUE, "width": style.VERMILION}


class Panel(NamedTuple):
    """How something grows.

    Args:
        name: what it is.
        note: a word on it.
        pairs: height and width at each layer.
    """

    name: str
    note: str
    pairs: tuple[Pair, ...]


def figure(summary: Summary) -> Figure:
    """Draw how much of the input each layer sees.

    Args:
        summary: with a row for each layer that owns parameters or an output.
    """
    image = (summary.input[1], summary.input[2])
    fields = tuple(row.receptive_field for row in summary)
    strides = tuple(row.stride for row in summary)
    square = image[0] == image[1] and all(height == width for height, width in (*fields, *strides))
    sorts = [sort(row) for row in summary]
    sheet = Sheet(summary.rows, (title(summary), SUBTITLE), colours_of(summary) if square else HEIGHT_AND_WIDTH, 2)
    colours = [COLOURS[name] for name in sorts] if square else []
    panels = (
        Panel("receptive field", f"input {window(image)}, dashed", fields),
        Panel("stride", "from one value to the next", strides),
    )
    for place, panel in enumerate(panels):
        axes = sheet.panel(place, panel.name, panel.note)
        _draw(axes, panel.pairs, colours)
        labels = {number: window(pair) for number, pair in enumerate(panel.pairs)}
        ends = {number: max(pair) for number, pair in enumerate(panel.pairs)}
        lines = () if place else image
        ends, whole = apart(ends, labels, lines)
        for number, text in labels.items():
            sheet.label(axes, number, ends[number], text)
        axes.set_xlim(0, whole)
        if lines:
            _draw_input(axes, image, square)
    return sheet.figure


def apart(ends: Mapping[int, int], labels: Mapping[int, str], lines: Iterable[int]) -> tuple[dict[int, int], float]:
    """Return what each label stands behind, its bar or a line that would run through it, and the panel's width.

    Args:
        ends: of the bars, by the layer's number.
        labels: what is written behind them.
        lines: where lines stand.
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
        placed |= moved  # which may make the panel stand for more, and the labels reach further


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


def _draw(axes: Axes, pairs: tuple[Pair, ...], colours: list[str]) -> None:
    """Draw a bar for each layer, or two of half the height if height and width are to be told apart."""
    numbers = range(len(pairs))
    if colours:
        axes.barh(
            numbers, [float(height) for height, _ in pairs], BAR, color=colours, edgecolor=style.INK, linewidth=0.4
        )
        return
    for axis, colour in enumerate(HEIGHT_AND_WIDTH.values()):
        places = [number + (axis - 0.5) * BAR / 2 for number in numbers]
        sizes = [float(pair[axis]) for pair in pairs]
        axes.barh(places, sizes, BAR / 2, color=colour, edgecolor=style.INK, linewidth=0.4)


def _draw_input(axes: Axes, image: Pair, square: bool) -> None:
    """Draw the input's size as a line."""
    lines = {image[0]: style.INK} if square else dict(zip(image, HEIGHT_AND_WIDTH.values()))
    for size, colour in lines.items():
        axes.axvline(size, color=colour, linestyle="--", linewidth=1, zorder=1.5)

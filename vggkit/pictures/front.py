"""What a search found: two figures against one another, the Pareto front as a line."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from vggkit.base.numbers import grouped
from vggkit.figures.find import ordered, spelt
from vggkit.figures.find_table import WORDS, end
from vggkit.figures.find_table import title as search_title
from vggkit.pictures import style
from vggkit.pictures.parts import MARGIN, Canvas, shortened_text
from vggkit.pictures.scatter import Box, Bubble, Plane, draw_label, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggkit.figures.find import Found, Variant

PLANE = Plane(6.4, 4.2)
LEFT = 0.7
BOTTOM = 0.5
"""Inches of the plane, and of what stands at its left and below it."""

RADIUS = 0.045
LINE_WIDTH = 0.02
"""Inches of a point's radius and of the front's line, with what is free around them."""

SEARCHED_LENGTH = 60
SUBTITLE_LENGTH = 120
MOST_LABELS = 8
LABEL_LENGTH = 44

WIDE = 100
"""An axis whose largest value is so many times the smallest one is logarithmic."""

MOST_SHAPES = 2_000
"""More points become one image inside the picture, or an SVG would have megabytes."""


def figure(found: Found) -> Figure:
    """Draw the variants.

    Args:
        found: at least one.
    """
    right, height = MARGIN + LEFT + PLANE.width, PLANE.height + BOTTOM
    canvas = Canvas(title(found), _subtitle(found), _legend(found), right, height)
    axes = canvas.panel(MARGIN + LEFT, MARGIN + BOTTOM, *PLANE)
    _draw_axes(axes, found)
    others = [_point(found, variant) for variant in found if not variant.front]
    front = sorted(found.front, key=lambda variant: _point(found, variant))
    if others:
        many = len(others) > MOST_SHAPES
        x, y = _columns(others)
        axes.scatter(x, y, s=9, color=style.GREY, linewidths=0, zorder=2, rasterized=many)
    if front:
        x, y = _columns([_point(found, variant) for variant in front])
        axes.plot(x, y, color=style.VERMILION, linewidth=1.0, zorder=3, drawstyle="steps-post")
        axes.scatter(x, y, s=22, color=style.VERMILION, edgecolors=style.INK, linewidths=0.5, zorder=4)
    _draw_labels(axes, found, front)
    return canvas.figure


def title(found: Found) -> str:
    """Return one line that says what is drawn: of which networks, and which two figures."""
    first, second = (WORDS[direction.figure][0] for direction in found.query.pareto)
    varied = f" with varied {', '.join(found.query.varied)}" if found.query.varied else ""
    return f"{_searched(found)}{varied}: {first} against {second}"


def _searched(found: Found) -> str:
    """Name the configurations that were searched, or say how many they are."""
    names = [
        ":".join(filter(None, (one.name, ",".join(f"{word}={spelt(value)}" for word, value in one.changes.items()))))
        for one in found.query.sources
    ]
    said = style.printable(", ".join(names))
    return said if len(said) <= SEARCHED_LENGTH else f"{grouped(len(names))} configurations"


def _subtitle(found: Found) -> str:
    """Say how many of how many were found, at which step, and what they had to meet."""
    conditions = [
        f"{WORDS[one.figure][0]} {sign} {WORDS[one.figure][1](limit)}"
        for one in found.query.conditions
        for sign, limit in (("≥", one.low), ("≤", one.high))
        if limit is not None
    ]
    said = "; ".join([search_title(found), *conditions])
    return shortened_text(said, SUBTITLE_LENGTH)


def _legend(found: Found) -> dict[str, str]:
    """Return the colour of what the points are."""
    front = f"on the Pareto front, {' and '.join(map(end, found.query.pareto))}: {grouped(len(found.front))}"
    others = len(found) - len(found.front)
    return {front: style.VERMILION, **({f"others: {grouped(others)}": style.GREY} if others else {})}


def description(found: Found) -> str:
    """Say in words what the picture shows."""
    words = [WORDS[direction.figure][0] for direction in found.query.pareto]
    said = "; ".join(_described(found, variant) for variant in found.front[:MOST_LABELS])
    more = f"; and {len(found.front) - MOST_LABELS} more" if len(found.front) > MOST_LABELS else ""
    return f"{words[0]} against {words[1]} of {grouped(len(found))} networks. On the Pareto front: {said}{more}."


def _described(found: Found, variant: Variant) -> str:
    figures = (
        f"{WORDS[direction.figure][1](variant.figures[direction.figure])} {WORDS[direction.figure][0]}"
        for direction in found.query.pareto
    )
    return f"{variant.label}: {', '.join(figures)}"


def _point(found: Found, variant: Variant) -> tuple[float, float]:
    first, second = (float(ordered(variant.figures[direction.figure])) for direction in found.query.pareto)
    return first, second


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _labelled(front: list[Variant]) -> list[Variant]:
    """Return those that get a label: both ends, and some between them."""
    if len(front) <= MOST_LABELS:
        return front
    last = len(front) - 1
    return [front[round(number * last / (MOST_LABELS - 1))] for number in range(MOST_LABELS)]


def _draw_axes(axes: Axes, found: Found) -> None:
    from matplotlib.ticker import EngFormatter

    columns = _columns([_point(found, variant) for variant in found])
    for axis, direction, values in zip((axes.xaxis, axes.yaxis), found.query.pareto, columns):
        if min(values) > 0 and max(values) > WIDE * min(values):
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        word, unit = WORDS[direction.figure][0], "B" if direction.figure.endswith("_bytes") else ""
        axis.set_major_formatter(EngFormatter(unit=unit, sep=" " if unit else "\N{NARROW NO-BREAK SPACE}"))
        axis.set_label_text(word, fontsize=style.TEXT_SIZE)
    axes.margins(0.08)
    axes.tick_params(labelsize=style.TEXT_SIZE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=style.LINE, linewidth=0.4)
    axes.set_axisbelow(True)


def _draw_labels(axes: Axes, found: Found, front: list[Variant]) -> None:
    """Write the names of those on the front that get a label, on no point and not on the front's line."""
    axes.autoscale_view()
    inches = axes.transData + PLANE.transform(axes).inverted()

    def bubble(variant: Variant) -> Bubble:
        x, y = inches.transform(_point(found, variant))
        return Bubble(x, y, RADIUS, shortened_text(style.printable(variant.label), LABEL_LENGTH))

    steps = [inches.transform(_point(found, variant)) for variant in front]
    line = [
        Box(min(x, end_x), min(y, end_y), abs(end_x - x) + LINE_WIDTH, abs(end_y - y) + LINE_WIDTH)
        for (left, low), (right, high) in pairwise(steps)
        for (x, y), (end_x, end_y) in (((left, low), (right, low)), ((right, low), (right, high)))
    ]
    labelled = [bubble(variant) for variant in _labelled(front)]
    seen = front if len(found) > MOST_SHAPES else found  # a cloud leaves no room beside it
    taken = [*line, *(bubble(variant).box for variant in seen)]
    for one, place in zip(labelled, places(labelled, PLANE, taken)):
        draw_label(axes, PLANE, one, place)

"""What a search found: two figures against one another, the Pareto front as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.numbers import grouped
from vggkit.render import style
from vggkit.render.plot.parts import HEADING, MARGIN, Canvas, heading_width, shortened_text
from vggkit.render.search import WORDS
from vggkit.render.search import title as search_title
from vggkit.search import ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggkit.search import Found, Variant

WIDTH = 6.4
HEIGHT = 4.2
LEFT = 0.7
BOTTOM = 0.5
"""Inches of the plane, and of what stands at its left and below it."""

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
    heading = (title(found), f"{grouped(len(found.front))} on the Pareto front")
    width = max(LEFT + WIDTH + 2 * MARGIN, 2 * MARGIN + heading_width(*heading))
    canvas = Canvas(width, 2 * MARGIN + HEADING + HEIGHT + BOTTOM)
    canvas.heading(*heading)
    axes = canvas.panel(MARGIN + LEFT, MARGIN + BOTTOM, WIDTH, HEIGHT)
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
    for variant in _labelled(front):
        _draw_label(axes, found, variant)
    return canvas.figure


def title(found: Found) -> str:
    """Return one line that says what is drawn."""
    return search_title(found)


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


def _draw_label(axes: Axes, found: Found, variant: Variant) -> None:
    text = style.printable(variant.label)
    options: dict[str, Any] = {"textcoords": "offset points", "fontsize": style.SMALL_SIZE, "parse_math": False}
    axes.annotate(shortened_text(text, LABEL_LENGTH), _point(found, variant), xytext=(4, 4), zorder=5, **options)

"""A network as cuboids in perspective: as high and deep as its maps, as thick as it has channels."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from vggkit.layers import times
from vggkit.render import style
from vggkit.render.plot.parts import (
    COLOURS,
    HEADING,
    LEGEND,
    LINE,
    MARGIN,
    Canvas,
    Group,
    colours_of,
    counted,
    groups,
    heading_width,
    legend_width,
    sort,
    subtitle,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from vggkit.analysis import Row, Summary

SIDE = 0.16
"""Inches of a map's side for the root of its pixels …"""

SIDES = (1.3, 2.5)
"""… within which the largest map is drawn."""

THICKNESS = 0.0094
"""Inches for the root of a layer's channels …"""

THICKEST = (0.2, 0.75)
"""… within which the thickest layer is drawn, …"""

ALL_THICKNESSES = 7.0
"""… and all of them together at most."""

SLICE = 0.055
"""Inches of a layer that changes maps without making channels of its own: pooling, normalization."""

BAR = 0.11
"""Inches of the height and depth of what is flat and has no map."""

THINNEST = 0.025
SHORTEST = 0.09

DEPTH = (0.34, 0.26)
"""To the right and up, for an inch of depth."""

GAP = 0.05
"""Inches from one group to the next."""

LABEL_GAP = 0.14
LABEL_WIDTH = 20
"""Characters of a label's line."""

NOTE = "Height and depth: a map's height and width. Thickness: channels or units. All drawn by their square roots."


class Scale(NamedTuple):
    """How large things are drawn.

    Args:
        side: inches for the root of a map's pixels along one side.
        thickness: inches for the root of a layer's channels.
    """

    side: float
    thickness: float


class Cuboid(NamedTuple):
    """A layer in space, centred on the axis that all stand on.

    Args:
        row: the layer.
        x: where it begins, on the axis.
        thickness: along the axis.
        height: of its front.
        depth: behind its front.
    """

    row: Row
    x: float
    thickness: float
    height: float
    depth: float

    @property
    def left(self) -> float:
        """The leftmost point, which is in front."""
        return self.x - self.depth * DEPTH[0] / 2

    @property
    def right(self) -> float:
        """The rightmost point, which is at the back."""
        return self.end + self.depth * DEPTH[0] / 2

    @property
    def end(self) -> float:
        """Where it ends on the axis."""
        return self.x + self.thickness

    @property
    def reach(self) -> float:
        """How far it goes up and down from the axis."""
        return self.height / 2 + self.depth * DEPTH[1] / 2


class Placed(NamedTuple):
    """A group at its place.

    Args:
        group: the layers.
        cuboids: one for each.
        label: the lines below it.
    """

    group: Group
    cuboids: tuple[Cuboid, ...]
    label: tuple[str, ...]

    @property
    def middle(self) -> float:
        """Where its label is centred."""
        return (self.cuboids[0].x + self.cuboids[-1].end) / 2


def figure(summary: Summary) -> Figure:
    """Draw a network.

    Args:
        summary: with a row for every module.
    """
    placed = arrange(groups(summary))
    colours = colours_of(cuboid.row for part in placed for cuboid in part.cuboids)
    heading = (title(summary), subtitle(summary))
    reach = max(cuboid.reach for part in placed for cuboid in part.cuboids)
    labels = LINE * max(len(part.label) for part in placed)
    width = max(
        *(end for part in placed for end in (part.cuboids[-1].right, part.middle + _label_width(part.label) / 2)),
        MARGIN + heading_width(*heading),
        MARGIN + legend_width(colours),
        MARGIN + style.text_width(NOTE, style.SMALL_SIZE),
    )
    canvas = Canvas(width + MARGIN, 2 * MARGIN + HEADING + LEGEND + 2 * reach + 0.15 + labels + 0.25)
    canvas.heading(*heading)
    canvas.legend(colours, canvas.height - MARGIN - HEADING)
    axis = canvas.height - MARGIN - HEADING - LEGEND - reach
    canvas.axes.plot(
        [placed[0].cuboids[0].x, placed[-1].cuboids[-1].end], [axis, axis], color=style.LINE, linewidth=1, zorder=1
    )
    for part in placed:
        for cuboid in part.cuboids:
            _draw(canvas, cuboid, axis)
        _write(canvas, part, axis - reach - 0.15)
    canvas.text(MARGIN, MARGIN, NOTE, style.SMALL_SIZE, color=style.FAINT_INK)
    return canvas.figure


def description(summary: Summary) -> str:
    """Say in words what the picture shows."""
    parts = [
        f"{group.name} {times(group.rows[-1].output_shape)}"
        if group.name == "input"
        else f"{group.name}: {', '.join(counted(group.rows))} to {times(group.rows[-1].output_shape)}"
        for group in groups(summary)
    ]
    return (
        f"The layers of {title(summary)}, with {subtitle(summary)}, as cuboids from left to right. {'; '.join(parts)}."
    )


def arrange(parts: Sequence[Group]) -> list[Placed]:
    """Place groups side by side, so that no label touches another and no cuboid hides the one before it."""
    scale = scale_of([row for part in parts for row in part.rows])
    placed: list[Placed] = []
    for part in parts:
        cuboids = _cuboids(part.rows, scale)
        label = tuple(_label(part))
        half_label = _label_width(label) / 2
        middle = cuboids[-1].end / 2
        if placed:
            before = placed[-1]
            shift = max(
                max(cuboid.right for cuboid in before.cuboids) + GAP - min(cuboid.left for cuboid in cuboids),
                before.middle + _label_width(before.label) / 2 + LABEL_GAP + half_label - middle,
            )
        else:
            shift = MARGIN + max(-min(cuboid.left for cuboid in cuboids), half_label - middle)
        moved = tuple(cuboid._replace(x=cuboid.x + shift) for cuboid in cuboids)
        placed.append(Placed(part, moved, label))
    return placed


def scale_of(rows: Sequence[Row]) -> Scale:
    """Return a scale by which all layers can be seen and fit a page."""
    side = max((sqrt(size) for row in rows for size in row.output_shape[1:]), default=1.0)
    roots = [sqrt(row.output_shape[0]) for row in rows if _makes_channels(row)] or [1.0]
    thickest = min(max(THICKNESS * max(roots), THICKEST[0]), THICKEST[1])
    return Scale(
        side=min(max(SIDE * side, SIDES[0]), SIDES[1]) / side,
        thickness=min(thickest / max(roots), ALL_THICKNESSES / sum(roots)),
    )


def _makes_channels(row: Row) -> bool:
    return sort(row) in ("input", "convolution", "fully connected", "soft-max")


def _cuboids(rows: Sequence[Row], scale: Scale) -> list[Cuboid]:
    """Return layers one behind the other, the first at 0."""
    cuboids: list[Cuboid] = []
    for row in rows:
        channels, *sides = row.output_shape
        height, depth = (max(scale.side * sqrt(size), SHORTEST) for size in sides) if sides else (BAR, BAR)
        cuboids.append(
            Cuboid(
                row=row,
                x=cuboids[-1].end if cuboids else 0.0,
                thickness=max(scale.thickness * sqrt(channels), THINNEST) if _makes_channels(row) else SLICE,
                height=height,
                depth=depth,
            )
        )
    return cuboids


def _label(part: Group) -> list[str]:
    """Return the lines below a group: its name, its layers, and the shape that comes out."""
    shape = times(part.rows[-1].output_shape)
    names = [part.name] if part.block or part.rows[0].parameters else []
    layers = [part.name] if part.name == "input" else counted(part.rows)
    lines = [line for text in (*names, *layers) for line in wrapped(text, LABEL_WIDTH).split("\n")]
    return [*lines, shape if part.name == "input" else f"→ {shape}"]


def _label_width(label: Sequence[str]) -> float:
    return max(style.text_width(line, bold=not number) for number, line in enumerate(label))


def _write(canvas: Canvas, part: Placed, top: float) -> None:
    for number, line in enumerate(part.label):
        canvas.text(
            part.middle,
            top - (number + 0.8) * LINE,
            line,
            ha="center",
            weight="normal" if number else "bold",
            color=style.FAINT_INK if line == part.label[-1] else style.INK,
        )


def _draw(canvas: Canvas, cuboid: Cuboid, axis: float) -> None:
    """Draw a cuboid's front, top and right side."""
    right, up = cuboid.depth * DEPTH[0], cuboid.depth * DEPTH[1]
    left, low = cuboid.left, axis - cuboid.reach
    end, high = left + cuboid.thickness, low + cuboid.height
    faces = (
        ("front", 0.0, ((left, low), (end, low), (end, high), (left, high))),
        ("top", 0.45, ((left, high), (end, high), (end + right, high + up), (left + right, high + up))),
        ("side", 0.2, ((end, low), (end + right, low + up), (end + right, high + up), (end, high))),
    )
    for name, lightness, corners in faces:
        canvas.shape(
            corners,
            facecolor=style.lighter(COLOURS[sort(cuboid.row)], lightness),
            edgecolor=style.INK,
            linewidth=0.5,
            joinstyle="round",
            label=f"{cuboid.row.name} {name}",
            zorder=2,
        )

"""A network as cuboids in perspective: as high and deep as its maps, as thick as it has channels.

matplotlib's mplot3d has no oblique projection and lets texts overlap, so faces are drawn as polygons here.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from math import inf, sqrt
from typing import TYPE_CHECKING, NamedTuple

from vggkit.notation.layers import times
from vggkit.pictures import style
from vggkit.pictures.parts import (
    LINE_HEIGHT,
    MARGIN,
    Canvas,
    Group,
    category,
    colour_of,
    colours_of,
    counted,
    groups,
    subtitle,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

    from vggkit.figures.summary import Row, Summary

__all__ = ["description", "figure", "title"]

SIDE = 0.16
"""Inches of a map's side for each root of its pixels."""

SIDES = (1.3, 2.5)
"""Least and most inches of the largest map's side."""

THICKNESS = 0.0094
"""Inches of thickness for each root of a layer's channels."""

THICKEST = (0.2, 0.75)
"""Least and most inches of the thickest layer."""

ALL_THICKNESSES = 7.0
"""Most inches of all layers' thicknesses together."""

SLICE = 0.055
"""Thickness in inches of a layer that makes no channels of its own: pooling, normalization."""

PLATE = 0.5
"""Thickness of a slice on a larger face, as a fraction of the greatest that does not stick out over its edge."""

BAR = 0.11
"""Height and depth in inches of a layer without maps."""

THINNEST = 0.025
SHORTEST = 0.09
"""Least inches of a thickness, and of a height or depth."""

DEPTH = (0.34, 0.26)
"""Inches to the right and upwards for an inch of depth."""

GAP = 0.1
"""Least inches from one group to the next."""

EVEN_GAP = 0.6
"""Most inches of the equal gaps between blocks, and between the layers after them; a wide label may need more."""

LABEL_GAP = 0.14
"""Inches between the labels of two groups."""

LABEL_WIDTH = 20
"""Characters of a label's line."""

LABELS_GAP = 0.15
"""Inches from the largest cuboid down to the labels."""

NOTE_HEIGHT = 0.25
"""Inches of the note at the bottom, with the room above it."""

NOTE = "Height and depth: a map's height and width. Thickness: channels or units. All drawn by their square roots."


class Scale(NamedTuple):
    """The scale of the drawing.

    Args:
        side: inches for each root of a map's pixels along one side.
        thickness: inches for each root of a layer's channels.
    """

    side: float
    thickness: float


class Cuboid(NamedTuple):
    """A layer in space, centred on the axis of the network.

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


class Size(NamedTuple):
    """A volume's shape, written above it.

    Args:
        text: the shape.
        x: where it is centred.
    """

    text: str
    x: float

    @property
    def left(self) -> float:
        """Where it begins."""
        return self.x - style.text_width(self.text) / 2

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.x + style.text_width(self.text) / 2


class Placed(NamedTuple):
    """A group at its place.

    Args:
        group: the layers.
        cuboids: one for each.
        label: the lines below it.
        sizes: the shapes above it.
    """

    group: Group
    cuboids: tuple[Cuboid, ...]
    label: tuple[str, ...]
    sizes: tuple[Size, ...]

    @property
    def middle(self) -> float:
        """Where its label is centred."""
        return (self.cuboids[0].x + self.cuboids[-1].end) / 2

    @property
    def half_label(self) -> float:
        """How far its label goes to either side."""
        return max(style.text_width(line, bold=not number) for number, line in enumerate(self.label)) / 2

    @property
    def left(self) -> float:
        """Where its cuboids begin."""
        return min(cuboid.left for cuboid in self.cuboids)

    @property
    def right(self) -> float:
        """Where its cuboids end."""
        return max(cuboid.right for cuboid in self.cuboids)

    @property
    def reach(self) -> float:
        """How far its cuboids go up and down from the axis."""
        return max(cuboid.reach for cuboid in self.cuboids)

    def moved(self, shift: float) -> Placed:
        """Return it, moved to the right."""
        return self._replace(
            cuboids=tuple(cuboid._replace(x=cuboid.x + shift) for cuboid in self.cuboids),
            sizes=tuple(size._replace(x=size.x + shift) for size in self.sizes),
        )


def figure(summary: Summary) -> Figure:
    """Draw a network.

    Args:
        summary: with a row for every module.
    """
    placed = arrange(groups(summary))
    colours = colours_of(cuboid.row for part in placed for cuboid in part.cuboids)
    reach = max(part.reach for part in placed)
    labels = LINE_HEIGHT * max(len(part.label) for part in placed)
    right = max(
        *(end for part in placed for end in (part.right, part.middle + part.half_label)),
        *(size.right for part in placed for size in part.sizes),
        MARGIN + style.text_width(NOTE, style.SMALL_SIZE),
    )
    height = LINE_HEIGHT + 2 * reach + LABELS_GAP + labels + NOTE_HEIGHT
    canvas = Canvas(title(summary), subtitle(summary), colours, right, height)
    axis = canvas.top - LINE_HEIGHT - reach
    canvas.axes.plot([placed[0].middle, placed[-1].middle], [axis, axis], color=style.LINE, linewidth=1, zorder=1)
    for part in placed:
        for cuboid in part.cuboids:
            _draw(canvas, cuboid, axis)
        for size in part.sizes:
            canvas.text(size.x, axis + part.reach + 0.06, size.text, ha="center", color=style.FAINT_INK)
        _write(canvas, part, axis - reach - LABELS_GAP)
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
    """Place groups side by side: no text touches another, and no group hides the one before it."""
    scale = scale_of([row for part in parts for row in part.rows])
    placed = [_placed(part, scale) for part in parts]
    first = placed[0]
    starts = [first.left, first.middle - first.half_label, *(size.left for size in first.sizes)]
    placed[0] = first.moved(MARGIN - min(starts))
    for number, gap in enumerate(_gaps(placed), start=1):
        placed[number] = placed[number].moved(placed[number - 1].right + gap - placed[number].left)
    return placed


def _placed(part: Group, scale: Scale) -> Placed:
    """Return a group that begins at 0 on the axis."""
    cuboids = cuboids_of(part.rows, scale)
    return Placed(part, tuple(cuboids), tuple(_label(part)), tuple(_sizes(cuboids)))


def _gaps(placed: Sequence[Placed]) -> Iterator[float]:
    """Yield the inches from each group to the next: equal ones, unless a text needs more."""
    for _, pairs in groupby(pairwise(placed), key=lambda pair: pair[1].group.block):
        needed = [_needed(before, after) for before, after in pairs]
        even = min(max(needed), EVEN_GAP)
        yield from (max(gap, even) for gap in needed)


def _needed(before: Placed, after: Placed) -> float:
    """Return the least inches between the cuboids of two groups."""
    behind = max([0.0, *(size.right - before.right for size in before.sizes)])
    ahead = max([0.0, *(after.left - size.left for size in after.sizes)])
    labels = before.middle + before.half_label - before.right + after.left - after.middle + after.half_label
    return max(GAP + behind + ahead, LABEL_GAP + labels)


def scale_of(rows: Sequence[Row]) -> Scale:
    """Return a scale at which every layer is visible and the whole fits a page."""
    side = max((sqrt(size) for row in rows for size in row.output_shape[1:]), default=1.0)
    roots = [sqrt(row.output_shape[0]) for row in rows if makes_channels(row)] or [1.0]
    thickest = min(max(THICKNESS * max(roots), THICKEST[0]), THICKEST[1])
    return Scale(
        side=min(max(SIDE * side, SIDES[0]), SIDES[1]) / side,
        thickness=min(thickest / max(roots), ALL_THICKNESSES / sum(roots)),
    )


def makes_channels(row: Row) -> bool:
    """Tell whether a layer's channels or units are its own, and not those of the layer before it."""
    return category(row) in ("input", "convolution", "fully connected", "soft-max")


def cuboids_of(rows: Sequence[Row], scale: Scale) -> list[Cuboid]:
    """Return layers one behind the other, the first at 0."""
    cuboids: list[Cuboid] = []
    face: Cuboid | None = None
    for row in rows:
        channels, *sides = row.output_shape
        height, depth = (max(scale.side * sqrt(size), SHORTEST) for size in sides) if sides else (BAR, BAR)
        cuboid = Cuboid(row, cuboids[-1].end if cuboids else 0.0, SLICE, height, depth)
        if makes_channels(row):
            cuboid = cuboid._replace(thickness=max(scale.thickness * sqrt(channels), THINNEST))
        elif face and cuboid.height < face.height and cuboid.depth < face.depth:
            cuboid = cuboid._replace(thickness=min(SLICE, PLATE * _room(face, cuboid)))
            cuboids.append(cuboid)
            continue
        cuboids.append(cuboid)
        face = cuboid
    return cuboids


def _room(face: Cuboid, plate: Cuboid) -> float:
    """Return how thick a plate on a volume's face can be before it sticks out over an edge."""
    right = (face.depth - plate.depth) / 2 * DEPTH[0]
    low = (face.height - plate.height) / 2 * DEPTH[0] / DEPTH[1]
    return min(right, low) - (plate.x - face.end)


def _sizes(cuboids: Sequence[Cuboid]) -> Iterator[Size]:
    """Yield the shape above each run of equal maps, without channels if they differ, where there is room for it."""
    end = -inf
    volumes = [cuboid for cuboid in cuboids if makes_channels(cuboid.row) and len(cuboid.row.output_shape) == 3]
    for sides, run in groupby(volumes, key=lambda cuboid: cuboid.row.output_shape[1:]):
        alike = list(run)
        shapes = {cuboid.row.output_shape for cuboid in alike}
        shape = shapes.pop() if len(shapes) == 1 else sides
        size = Size(times(shape), (alike[0].left + alike[-1].right) / 2)
        if size.left >= end + GAP:
            yield size
            end = size.right


def _label(part: Group) -> list[str]:
    """Return the lines below a group: its name, its layers, and the shape that comes out."""
    if part.name == "input":
        return [part.name]
    names = [part.name] if part.block or part.rows[0].parameters else []
    lines = [line for text in (*names, *counted(part.rows)) for line in wrapped(text, LABEL_WIDTH)]
    return [*lines, f"→ {times(part.rows[-1].output_shape)}"]


def _write(canvas: Canvas, part: Placed, top: float) -> None:
    for number, line in enumerate(part.label):
        canvas.text(
            part.middle,
            top - (number + 0.8) * LINE_HEIGHT,
            line,
            ha="center",
            weight="normal" if number else "bold",
            color=style.FAINT_INK if line.startswith("→") else style.INK,
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
            facecolor=style.lighter(colour_of(cuboid.row), lightness),
            edgecolor=style.INK,
            linewidth=0.5,
            joinstyle="round",
            label=f"{cuboid.row.name} {name}",
            zorder=2,
        )

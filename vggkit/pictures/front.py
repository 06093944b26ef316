"""Networks, or ways to run one, as points: two figures against one another, the Pareto front as a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vggkit.base.numbers import grouped
from vggkit.pictures import style
from vggkit.pictures.parts import MARGIN, Canvas, shortened_text
from vggkit.pictures.scatter import Bubble, Plane, Rectangle, draw_label, places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANE = Plane(6.4, 4.2)
LEFT = 0.7
BOTTOM = 0.5
"""Inches of the plane, and of the room at its left and below it."""

RADIUS = 0.045
LINE_WIDTH = 0.02
"""Inches of a point's radius and of the front's line, with the room around them."""

SUBTITLE_LENGTH = 120
MOST_LABELS = 8
LABEL_LENGTH = 44
"""Most characters of the subtitle, most labels on the front, and most characters of a label."""

WIDE = 100
"""An axis is logarithmic if its largest value is more than this many times its smallest."""

MOST_SHAPES = 2_000
"""More points become one image inside the picture: as shapes, an SVG would have megabytes."""


class Figured(Protocol):
    """A figure that things are drawn by; `vggkit.figures.measures.Count` is one."""

    @property
    def words(self) -> str:
        """What people read."""

    @property
    def unit(self) -> str:
        """Its unit, empty for a plain number."""

    def written(self, value: Any) -> str:
        """Write a value for people."""

    def key(self, value: Any) -> Any:
        """Return the number that stands for a value."""


class Point(NamedTuple):
    """A network, or another thing, in the plane.

    Args:
        label: its name.
        values: its two figures.
        on_front: whether it is on the Pareto front.
        kind: what it is if it is not; a key of `Points.kinds`.
    """

    label: str
    values: tuple[Any, Any]
    on_front: bool
    kind: str = "others"


class Points(NamedTuple):
    """Networks, or other things, in a plane of two figures.

    Args:
        things: what they are, in the plural.
        networks: which they are, or whose, in words.
        subtitle: how many they are, and under which conditions.
        measures: the figure to the right, and the one upwards.
        best: which end of each is the better one, in words.
        points: at least one.
        limit: a value of the figure upwards at which a line is drawn; None for no line.
        kinds: what those are that are not on the front, in words, each with its colour.
    """

    things: str
    networks: str
    subtitle: str
    measures: tuple[Figured, Figured]
    best: str
    points: tuple[Point, ...]
    limit: int | None = None
    kinds: Mapping[str, str] = {"others": style.GREY}  # a default that nothing changes

    @property
    def front(self) -> list[Point]:
        """Those on the Pareto front."""
        return [point for point in self.points if point.on_front]

    def others(self, kind: str) -> list[Point]:
        """Those of a kind that are not on it."""
        return [point for point in self.points if not point.on_front and point.kind == kind]

    def position(self, point: Point) -> tuple[float, float]:
        """Return where a point stands."""
        x, y = (float(measure.key(value)) for measure, value in zip(self.measures, point.values))
        return x, y

    def positions(self, points: Iterable[Point]) -> tuple[list[float], list[float]]:
        """Return where points stand: to the right, and upwards."""
        both = [self.position(point) for point in points]
        return [x for x, _ in both], [y for _, y in both]


def figure(shown: Points) -> Figure:
    """Draw points, those on the Pareto front in a colour and with a line of steps."""
    right, height = MARGIN + LEFT + PLANE.width, PLANE.height + BOTTOM
    canvas = Canvas(title(shown), shortened_text(shown.subtitle, SUBTITLE_LENGTH), _legend(shown), right, height)
    axes = canvas.plane(MARGIN + LEFT, MARGIN + BOTTOM, *PLANE)
    _draw_axes(axes, shown)
    front = sorted(shown.front, key=shown.position)
    for kind, colour in shown.kinds.items():
        others = shown.others(kind)
        if others:
            x, y = shown.positions(others)
            axes.scatter(x, y, s=9, color=colour, linewidths=0, zorder=2, rasterized=len(others) > MOST_SHAPES)
    if front:
        x, y = shown.positions(front)
        axes.plot(x, y, color=style.VERMILION, linewidth=1.0, zorder=3, drawstyle="steps-post")
        axes.scatter(x, y, s=22, color=style.VERMILION, edgecolors=style.INK, linewidths=0.5, zorder=4)
    if shown.limit is not None:
        axes.axhline(shown.limit, color=style.BLUE, linewidth=1.0, linestyle="--", zorder=1)
    _draw_labels(axes, shown, front)
    return canvas.figure


def title(shown: Points) -> str:
    """Return one line that says what is drawn: which networks, and which two figures."""
    first, second = (measure.words for measure in shown.measures)
    return f"{style.printable(shown.networks)}: {first} against {second}"


def description(shown: Points) -> str:
    """Say in words what the picture shows."""
    first, second = (measure.words for measure in shown.measures)
    said = "; ".join(_described(shown, point) for point in shown.front[:MOST_LABELS])
    more = f"; and {len(shown.front) - MOST_LABELS} more" if len(shown.front) > MOST_LABELS else ""
    return (
        f"{first} against {second} of {grouped(len(shown.points))} {shown.things}. On the Pareto front: {said}{more}."
    )


def _described(shown: Points, point: Point) -> str:
    figures = (f"{measure.written(value)} {measure.words}" for measure, value in zip(shown.measures, point.values))
    return f"{point.label}: {', '.join(figures)}"


def _legend(shown: Points) -> dict[str, str]:
    """Return the colour of what the points are."""
    legend = {f"on the Pareto front, {shown.best}: {grouped(len(shown.front))}": style.VERMILION}
    for kind, colour in shown.kinds.items():
        if others := shown.others(kind):
            legend[f"{kind}: {grouped(len(others))}"] = colour
    if shown.limit is not None:
        legend[f"room: {shown.measures[1].written(shown.limit)}"] = style.BLUE
    return legend


def _apart(shown: Points, front: list[Point]) -> list[Point]:
    """Return those that stand at different places: of equal ones the first, which says how many more there are."""
    at: dict[tuple[float, float], list[Point]] = {}
    for point in front:
        at.setdefault(shown.position(point), []).append(point)
    return [
        first._replace(label=f"{first.label} and {grouped(len(equal))} equal") if equal else first
        for first, *equal in at.values()
    ]


def _labelled(front: list[Point]) -> list[Point]:
    """Return those that get a label: both ends, and some between them."""
    if len(front) <= MOST_LABELS:
        return front
    last = len(front) - 1
    return [front[round(number * last / (MOST_LABELS - 1))] for number in range(MOST_LABELS)]


def _draw_axes(axes: Axes, shown: Points) -> None:
    from matplotlib.ticker import EngFormatter

    for axis, measure, values in zip((axes.xaxis, axes.yaxis), shown.measures, shown.positions(shown.points)):
        if min(values) > 0 and max(values) > WIDE * min(values):
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        separator = " " if measure.unit else "\N{NARROW NO-BREAK SPACE}"
        axis.set_major_formatter(EngFormatter(unit=measure.unit, sep=separator))
        axis.set_label_text(measure.words, fontsize=style.TEXT_SIZE)
    axes.margins(0.08)


def _draw_labels(axes: Axes, shown: Points, front: list[Point]) -> None:
    """Write the names of those on the front that get a label, on no point and not on the front's line."""
    axes.autoscale_view()
    inches = axes.transData + PLANE.transform(axes).inverted()

    def bubble(point: Point) -> Bubble:
        x, y = inches.transform(shown.position(point))
        return Bubble(x, y, RADIUS, shortened_text(style.printable(point.label), LABEL_LENGTH))

    steps = [inches.transform(shown.position(point)) for point in front]
    line = [
        Rectangle(min(x, end_x), min(y, end_y), abs(end_x - x) + LINE_WIDTH, abs(end_y - y) + LINE_WIDTH)
        for (left, low), (right, high) in pairwise(steps)
        for (x, y), (end_x, end_y) in (((left, low), (right, low)), ((right, low), (right, high)))
    ]
    labelled = [bubble(point) for point in _labelled(_apart(shown, front))]
    seen = front if len(shown.points) > MOST_SHAPES else shown.points  # a cloud of points leaves no room
    taken = [*line, *(bubble(point).box for point in seen)]
    for one, place in zip(labelled, places(labelled, PLANE, taken)):
        draw_label(axes, PLANE, one, place)

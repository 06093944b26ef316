"""Networks side by side: parameters against MACs, training memory as area, reported error as colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import atan2, cos, hypot, pi, radians, sin, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import grouped, megabytes, shortened
from vggkit.pictures import style
from vggkit.pictures.parts import MARGIN, Canvas, shortened_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vggkit.figures.compare import Comparison
    from vggkit.figures.compared import Compared
    from vggkit.notation.config import SingleScale

RADIUS = 0.2
"""Radius of the largest bubble, in inches."""

SMALLEST = 0.02
"""Least radius of a bubble, in inches: a smaller one would not be seen."""

ALIKE = 0.85
"""If the smallest radius is at least this fraction of the largest, the legend has one bubble for both."""

HIDDEN = 0.5
"""Bubbles whose centres are nearer than this fraction of a radius share a circle, with a sector each."""

ROOM = 0.22
"""Free margin on each side of the bubbles, as a fraction of the plane."""

NAMES_LENGTH = 44
NAME_LENGTH = 32
"""Most characters of the names in the title, and of the name in a label; the rest is cut."""
HOLLOW = "hollow: none reported"
DIRECTIONS = 24
DISTANCES = (0.06, 0.14, 0.24, 0.36, 0.5, 0.7, 0.95, 1.3, 1.7, 2.2, 2.8, 3.5)
"""Places tried for a label: in this many directions, at each distance in inches from the bubble's edge."""


class Protocol(NamedTuple):
    """How an error was measured.

    Args:
        train: sides of the training images.
        test: side of the test images.
    """

    train: int | tuple[int, int]
    test: int

    def __str__(self) -> str:
        train = str(self.train) if isinstance(self.train, int) else "–".join(map(str, self.train))
        return f"trained at {train}, tested at {self.test}"


class Rectangle(NamedTuple):
    """A rectangle, in inches.

    Args:
        x: of its left side.
        y: of its lower side.
        width: from left to right.
        height: from bottom to top.
    """

    x: float
    y: float
    width: float
    height: float

    def touches(self, other: Rectangle) -> bool:
        """Tell whether two boxes overlap."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


class Plane(NamedTuple):
    """Where networks are drawn, in inches.

    Args:
        width: from left to right.
        height: from bottom to top.
    """

    width: float
    height: float

    def transform(self, axes: Axes) -> Any:
        """Return the transform of inches from the lower left corner of axes that are as large."""
        from matplotlib.transforms import Affine2D

        return Affine2D().scale(1 / self.width, 1 / self.height) + axes.transAxes


class Bubble(NamedTuple):
    """A network at its place in the plane, in inches.

    Args:
        x: of its centre.
        y: of its centre.
        radius: the area of the whole circle is proportional to the training memory.
        text: its label: name, and error if there is one.
        sector: the part of the circle that is drawn: from and to which degrees, counterclockwise.
    """

    x: float
    y: float
    radius: float
    text: str
    sector: tuple[float, float] = (0, 360)

    @property
    def whole(self) -> bool:
        """Whether it has the circle to itself."""
        return self.sector == (0, 360)

    @property
    def direction(self) -> float:
        """Preferred direction of its label, in radians: to the upper right, or to its sector's side."""
        return pi / 4 if self.whole else radians((self.sector[0] + self.sector[1]) / 2)

    def hides(self, other: Bubble) -> bool:
        """Tell whether one of two whole circles would hide the other."""
        return hypot(self.x - other.x, self.y - other.y) < HIDDEN * min(self.radius, other.radius)

    @property
    def box(self) -> Rectangle:
        """The square around it."""
        return Rectangle(self.x - self.radius, self.y - self.radius, 2 * self.radius, 2 * self.radius)


PLANE = Plane(5.0, 3.9)
LEFT = 0.62
BOTTOM = 0.5
SIDE = 1.75
"""Inches of the plane, and of the room at its left, below it and at its right."""


def figure(comparison: Comparison) -> Figure:
    """Draw networks.

    Args:
        comparison: of at least one.
    """
    networks = comparison.networks
    protocol = protocol_of(networks)
    errors = [error_of(one, protocol) for one in networks]
    subtitle = "bubble area: peak memory of a training step"
    canvas = Canvas(title(comparison), subtitle, {}, MARGIN + LEFT + PLANE.width + SIDE, PLANE.height + BOTTOM)
    axes = canvas.plane(MARGIN + LEFT, MARGIN + BOTTOM, *PLANE)
    _draw_axes(axes, networks)
    bubbles = _bubbles(axes, networks, errors)
    colours = _Colours(errors)
    for number in sorted(range(len(bubbles)), key=lambda number: -bubbles[number].radius):
        _draw_bubble(axes, bubbles[number], colours.of(errors[number]))
    for bubble, place in zip(bubbles, places(bubbles, PLANE)):
        draw_label(axes, PLANE, bubble, place)
    x = MARGIN + LEFT + PLANE.width + 0.25
    _draw_sizes(canvas, networks, x, canvas.top - 0.1)
    _draw_errors(canvas, colours, protocol, x, MARGIN + BOTTOM)
    return canvas.figure


def title(comparison: Comparison) -> str:
    """Return one line that says what is drawn."""
    names = style.printable(", ".join(one.label for one in comparison.networks))
    options = f"batch {comparison.options.batch}, {comparison.options.dtype}, {comparison.options.optimizer}"
    return f"{shortened_text(names, NAMES_LENGTH)}: {options}"


def description(comparison: Comparison) -> str:
    """Say in words what the picture shows."""
    protocol = protocol_of(comparison.networks)
    said = []
    for one in comparison.networks:
        error = error_of(one, protocol)
        figures = (
            f"{grouped(one.summary.totals.parameters)} parameters",
            f"{shortened(one.summary.totals.multiply_accumulates)} MACs",
            f"{megabytes(training_peak(one))} in training",
            *([] if error is None else [f"{error} % top-5 error"]),
        )
        said.append(f"{one.label}: {', '.join(figures)}")
    errors = f" Reported errors: single scale, {protocol}." if protocol else ""
    return f"Parameters against MACs, the area of each bubble by training memory. {'; '.join(said)}.{errors}"


def protocol_of(networks: Sequence[Compared]) -> Protocol | None:
    """Return the protocol under which most of the networks have a reported error; the first of them wins a tie."""
    protocols = Counter(protocol for one in networks for protocol in dict.fromkeys(map(_protocol, one.reported)))
    return max(protocols, key=protocols.__getitem__, default=None)


def error_of(one: Compared, protocol: Protocol | None) -> float | None:
    """Return a network's top-5 error in percent, or None if none is reported under a protocol."""
    return next((said.top5 for said in one.reported if _protocol(said) == protocol), None)


def _protocol(said: SingleScale) -> Protocol:
    return Protocol(said.train, said.test)


def places(bubbles: Sequence[Bubble], plane: Plane, others: Iterable[Rectangle] = ()) -> list[Rectangle]:
    """Return a place for each label: inside the plane, on no bubble, on no other label.

    matplotlib does not keep labels apart.

    Args:
        bubbles: those that have labels.
        plane: the labels stay in it.
        others: what labels must not cover either.
    """
    taken = [*others, *(bubble.box for bubble in bubbles)]
    chosen: list[Rectangle] = []
    for bubble in bubbles:
        boxes = list(_around(bubble, plane))
        free = (box for box in boxes if not any(map(box.touches, (*taken, *chosen))))
        apart = (box for box in boxes if not any(map(box.touches, chosen)))
        chosen.append(next(free, None) or next(apart, None) or boxes[0])
    return chosen


def _around(bubble: Bubble, plane: Plane) -> Iterator[Rectangle]:
    """Yield the places around a bubble that are inside the plane, the nearest first."""
    width, height = style.text_width(bubble.text, bold=True) + 0.06, 0.17
    turns = sorted(range(DIRECTIONS), key=lambda turn: min(turn, DIRECTIONS - turn))
    for distance in DISTANCES:
        for turn in turns:
            angle = bubble.direction - 2 * pi * turn / DIRECTIONS
            reach = bubble.radius + distance
            x = bubble.x + reach * cos(angle) - width * (1 - cos(angle)) / 2
            y = bubble.y + reach * sin(angle) - height * (1 - sin(angle)) / 2
            if 0.03 < x < plane.width - width - 0.03 and 0.03 < y < plane.height - height - 0.03:
                yield Rectangle(x, y, width, height)


def _draw_axes(axes: Axes, networks: Sequence[Compared]) -> None:
    from matplotlib.ticker import MaxNLocator

    totals = [one.summary.totals for one in networks]
    for axis, name, values in (
        (axes.xaxis, "parameters", [total.parameters for total in totals]),
        (axes.yaxis, "MACs", [total.multiply_accumulates for total in totals]),
    ):
        low, high = min(values), max(values)
        room = (high - low) * ROOM / (1 - 2 * ROOM) or max(high / 10, 1.0)
        unit, letter = _unit(high)
        start, end = low - room, high + room
        (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(start, end)
        ticks = [tick for tick in MaxNLocator(5).tick_values(start, end) if max(start, 0) <= tick <= end]
        axis.set_ticks(ticks, [f"{tick / unit:g}" for tick in ticks])
        axis.set_label_text(f"{name} ({letter})" if letter else name, fontsize=style.TEXT_SIZE)


def _unit(number: int) -> tuple[int, str]:
    units = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
    return next(((size, letter) for size, letter in units if number >= size), (1, ""))


def _bubbles(axes: Axes, networks: Sequence[Compared], errors: Sequence[float | None]) -> list[Bubble]:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    bubbles: list[Bubble] = []
    for one, error in zip(networks, errors):
        totals = one.summary.totals
        parameters, macs = totals.parameters, totals.multiply_accumulates
        name = shortened_text(style.printable(one.label), NAME_LENGTH)
        bubbles.append(
            Bubble(
                x=(parameters - left) / (right - left) * PLANE.width,
                y=(macs - low) / (high - low) * PLANE.height,
                radius=radius_of(one, networks),
                text=name if error is None else f"{name}, {error} %",
            )
        )
    return _shared(bubbles)


def _shared(bubbles: Sequence[Bubble]) -> list[Bubble]:
    """Give each of the bubbles that would hide one another a sector of a circle."""
    groups: list[list[int]] = []
    for number, bubble in enumerate(bubbles):
        near = next((group for group in groups if bubble.hides(bubbles[group[0]])), None)
        if near is None:
            groups.append([number])
        else:
            near.append(number)
    shared = list(bubbles)
    for group in groups:
        turn = 360 / len(group)
        for place, number in enumerate(group if len(group) > 1 else ()):
            shared[number] = bubbles[number]._replace(sector=(90 + place * turn, 90 + (place + 1) * turn))
    return shared


def training_peak(one: Compared) -> int:
    """Return the peak of a training step, which a bubble's area shows.

    Raises:
        ArgumentError: if torch can't run a training step.
    """
    if one.training_peak_bytes is None:
        raise ArgumentError(str(one.refusal))
    return one.training_peak_bytes


def radius_of(one: Compared, networks: Sequence[Compared]) -> float:
    """Return a bubble's radius in inches: areas are proportional to training memory."""
    share = training_peak(one) / max(map(training_peak, networks))
    return max(RADIUS * sqrt(share), SMALLEST)


def _draw_bubble(axes: Axes, bubble: Bubble, colour: Any) -> None:
    from matplotlib.patches import Wedge

    axes.add_artist(
        Wedge(
            (bubble.x, bubble.y),
            bubble.radius,
            *bubble.sector,
            transform=PLANE.transform(axes),
            facecolor=colour,
            edgecolor=style.INK,
            linewidth=0.8,
            joinstyle="round",
            zorder=3,
            label=bubble.text,
        )
    )


def draw_label(axes: Axes, plane: Plane, bubble: Bubble, place: Rectangle) -> None:
    """Write a bubble's label, with a line to the bubble if it stands away from it."""
    transform = plane.transform(axes)
    nearest = (min(max(bubble.x, place.x), place.x + place.width), min(max(bubble.y, place.y), place.y + place.height))
    away = hypot(nearest[0] - bubble.x, nearest[1] - bubble.y)
    if away > bubble.radius + 0.12:
        towards = atan2(nearest[1] - bubble.y, nearest[0] - bubble.x) if bubble.whole else bubble.direction
        edge = (bubble.x + bubble.radius * cos(towards), bubble.y + bubble.radius * sin(towards))
        axes.plot(
            [edge[0], nearest[0]],
            [edge[1], nearest[1]],
            transform=transform,
            color=style.INK,
            linewidth=0.6,
            zorder=4,
        )
    axes.text(
        place.x + place.width / 2,
        place.y + place.height / 2,
        bubble.text,
        transform=transform,
        ha="center",
        va="center_baseline",
        weight="bold",
        fontsize=style.TEXT_SIZE,
        zorder=5,
    )


class _Colours:
    """The colours of errors: lower ones are darker.

    Args:
        errors: one for each network; None if none is known.
    """

    def __init__(self, errors: Sequence[float | None]) -> None:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        self.known = [error for error in errors if error is not None]
        self.all_known = len(self.known) == len(errors)
        low, high = min(self.known, default=0.0), max(self.known, default=1.0)
        self.scale: Any = ScalarMappable(Normalize(low, high if high > low else low + 1), colormaps["cividis"])

    def of(self, error: float | None) -> Any:
        """Return the colour of an error; none is hollow."""
        return "none" if error is None else self.scale.to_rgba(error)


def _draw_sizes(canvas: Canvas, networks: Sequence[Compared], x: float, top: float) -> None:
    """Draw the legend of sizes: the smallest and the largest bubble, or one for both if they look alike."""
    from matplotlib.patches import Circle

    ordered = sorted(networks, key=training_peak)
    sizes = {megabytes(training_peak(one)): radius_of(one, networks) for one in (ordered[0], ordered[-1])}
    if min(sizes.values()) >= ALIKE * max(sizes.values()):
        sizes = {"\nto ".join(sizes): max(sizes.values())}
    canvas.text(x, top - 0.1, "training memory", weight="bold")
    y = top - 0.24
    for text, radius in sizes.items():
        canvas.axes.add_artist(
            Circle((x + RADIUS, y - radius), radius, facecolor="none", edgecolor=style.INK, linewidth=0.8)
        )
        canvas.text(x + 2 * RADIUS + 0.1, y - radius, text, va="center_baseline", linespacing=1.3)
        y -= max(2 * radius, 0.14) + 0.12


def _draw_errors(canvas: Canvas, colours: _Colours, protocol: Protocol | None, x: float, bottom: float) -> None:
    """Draw the colour bar, if an error is known, and say what hollow bubbles are."""
    if not colours.all_known:
        canvas.text(x, bottom, HOLLOW, style.SMALL_SIZE, color=style.FAINT_INK)
    if protocol is None:
        return
    height = 1.35
    canvas.text(x, bottom + height + 0.7, "top-5 error (%)", weight="bold")
    canvas.text(x, bottom + height + 0.55, "reported, single scale,", style.SMALL_SIZE, color=style.FAINT_INK)
    canvas.text(x, bottom + height + 0.42, str(protocol), style.SMALL_SIZE, color=style.FAINT_INK)
    best, worst = min(colours.known), max(colours.known)
    if best == worst:
        return
    bar = canvas.figure.colorbar(colours.scale, cax=canvas.panel(x, bottom + 0.22, 0.16, height))
    bar.set_ticks([best, worst])
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(labelsize=style.TEXT_SIZE)

"""Networks as bubbles: at their figures, as large as their memory, as dark as their error is low."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Wedge
from matplotlib.text import Text

import vggkit
from tests import drawn
from tests.pictures.drawings import NUMBER, ODD, SIX, network
from tests.pictures.written import check_texts, texts, words
from vggkit.base.numbers import megabytes
from vggkit.notation.zoo import family_names
from vggkit.pictures import scatter


def bubbles(figure: Figure) -> dict[str, Wedge]:
    """Return the bubbles by their labels."""
    return {str(patch.get_label()): patch for patch in figure.findobj(Wedge)}


def test_bubbles_stand_at_their_figures_and_are_as_large_as_their_memory() -> None:
    """Position in the axes' own coordinates; area by peak of a training step."""
    drawing = vggkit.plot(kind="compare", batch=8).figure
    axes = drawing.axes[1]
    found = {name.split(",")[0]: patch for name, patch in bubbles(drawing).items()}
    assert set(found) == set(SIX)
    areas = set()
    for name, patch in found.items():
        x, y = axes.transData.inverted().transform(patch.get_data_transform().transform(patch.center))
        totals = vggkit.summarize(name, batch=8).totals
        # from pixels back to figures, in floating point
        assert (x, y) == pytest.approx((totals.parameters, totals.multiply_accumulates))
        areas.add(round(patch.r**2 / vggkit.memory(name, batch=8).peak_bytes * 1e15))
    assert len(areas) == 1


def sector(patch: Wedge) -> tuple[float, float]:
    """Return what is drawn of a circle, in degrees."""
    return patch.theta1, patch.theta2


def test_networks_at_one_place_share_a_circle() -> None:
    """A-LRN has A's parameters and MACs: half of the circle is A's, with its colour and its label on its side."""
    drawing = vggkit.plot(kind="compare").figure
    found = bubbles(drawing)
    assert sector(found["A, 10.4 %"]) == (90, 270)
    assert sector(found["A-LRN, 10.5 %"]) == (270, 450)
    assert {sector(found[name]) for name in found if not name.startswith("A")} == {(0, 360)}
    assert found["A, 10.4 %"].get_facecolor() != found["A-LRN, 10.5 %"].get_facecolor()
    middle = found["A, 10.4 %"].get_data_transform().transform(found["A, 10.4 %"].center)[0]
    boxes = {text.get_text(): box for text, box in texts(drawing).items()}
    assert boxes["A, 10.4 %"].x1 < middle < boxes["A-LRN, 10.5 %"].x0
    three = vggkit.plot("D", "D", "D", "A", kind="compare").figure
    assert sorted(map(sector, three.findobj(Wedge))) == [(0, 360), (90, 210), (210, 330), (330, 450)]


def test_the_legend_has_one_bubble_for_sizes_that_look_alike() -> None:
    """The six train in 1.64 to 1.79 GB; against cnn_f the difference is seen, and two are drawn."""
    alike = vggkit.plot(kind="compare").figure
    assert len(legend_of_sizes(alike)) == 1
    assert "1.64 GB\nto 1.79 GB" in words(alike)
    apart = vggkit.plot("D", "cnn_f", kind="compare").figure
    small, large = legend_of_sizes(apart)
    assert small / large == pytest.approx((739_949_136 / 1_719_651_084) ** 0.5, abs=1e-3)  # of sizes in three digits
    assert {"739.95 MB", "1.72 GB"} <= set(words(apart))


def legend_of_sizes(figure: Figure) -> list[float]:
    """Return the radii of the circles in the legend."""
    return [patch.radius for patch in figure.findobj(Circle)]


def luminance(colour: Sequence[float]) -> float:
    """Return how light a colour is."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def test_the_error_is_the_papers_and_darker_where_it_is_lower() -> None:
    """Table 3, trained and tested at 256, which all six have; the colours' bar goes from the best to the worst."""
    paper = {"A": 10.4, "A-LRN": 10.5, "B": 9.9, "C": 9.4, "D": 8.8, "E": 9.0}
    drawing = vggkit.plot(kind="compare").figure
    found = bubbles(drawing)
    assert set(found) == {f"{name}, {error} %" for name, error in paper.items()}
    light = sorted(found, key=lambda label: luminance(found[label].get_facecolor()))
    assert light == sorted(found, key=lambda label: paper[label.split(",")[0]])
    assert {"8.8", "10.5", "trained at 256, tested at 256"} <= set(words(drawing))
    assert len(drawing.findobj(QuadMesh)) == 1


def test_what_has_no_reported_error_is_hollow() -> None:
    """And the picture says so; without any error there is no bar of colours."""
    drawing = vggkit.plot("D", "vgg16_bn", kind="compare").figure
    found = bubbles(drawing)
    assert found["D-BN"].get_facecolor()[3] == 0
    assert found["D, 8.8 %"].get_facecolor()[3] == 1
    assert scatter.HOLLOW in words(drawing)
    plain = vggkit.plot("D", "A", kind="compare", num_classes=7).figure
    assert plain.findobj(QuadMesh) == []
    assert "top-5 error (%)" not in words(plain)
    assert scatter.HOLLOW not in words(vggkit.plot("D", kind="compare").figure)


LINE_UP = [
    list(SIX),
    ["D"],
    ["D", "D", "D"],
    ["A", "A-LRN"],
    [*SIX, *ODD],
    [*ODD],
    ["five layers", "E"],
    family_names()[::4],
]


@pytest.mark.parametrize("names", LINE_UP, ids=lambda names: f"{len(names)} from {names[0]}")
def test_labels_cover_neither_one_another_nor_a_bubble(names: list[str]) -> None:
    """Nor does any other text of the picture leave the canvas."""
    drawing = vggkit.plot(*map(network, names), kind="compare", batch=2).figure  # what torch can train
    check_texts(drawing)
    check_labels(drawing)


def check_labels(drawing: Figure) -> None:
    """Hold that no bubble's own square is under a label."""
    renderer: Any = drawing.canvas.get_renderer()
    circles = list(bubbles(drawing).values())
    labels = [text for text in texts(drawing) if text.get_text() in bubbles(drawing)]
    assert {label.get_text() for label in labels} == set(bubbles(drawing))
    for label in labels:
        box = Text.get_window_extent(label, renderer)
        assert not any(box.overlaps(circle.get_window_extent()) for circle in circles), label


@given(st.lists(st.one_of(drawn.networks(), st.sampled_from(SIX)), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_networks_can_be_compared(sources: list[Any]) -> None:
    """Also those without parameters or multiply-accumulates."""
    check_texts(vggkit.plot(*sources, kind="compare", batch=2).figure)


def test_every_number_of_a_comparison_is_in_the_data() -> None:
    """Ticks stand where they say; what else is written are the paper's errors, memory, and the options."""
    drawing = vggkit.plot(*SIX, kind="compare", batch=16, dtype="float64").figure
    said = words(drawing)
    axes = drawing.axes[1]
    ticks = list(ticks_of(axes.xaxis, 1e6)) + list(ticks_of(axes.yaxis, 1e9))
    assert all(float(text.replace("−", "-")) == value for text, value in ticks)
    peaks = {megabytes(vggkit.memory(name, batch=16, dtype="float64").peak_bytes).split()[0] for name in SIX}
    errors = {"10.4", "10.5", "9.9", "9.4", "8.8", "9.0", "5"}  # top-5
    allowed = peaks | errors | {"16", "64", "256"} | {text for text, _ in ticks}
    assert {number for text in said for number in NUMBER.findall(text)} <= allowed


def test_changes_stand_behind_a_name_as_in_compare() -> None:
    """And in the label of their bubble; what was changed has no reported error."""
    found = bubbles(vggkit.plot("D", "D:width=0.5", kind="compare").figure)
    assert set(found) == {"D, 8.8 %", "D:width=0.5"}


def ticks_of(axis: Any, unit: float) -> Iterator[tuple[str, float]]:
    """Return what stands at an axis, and where in its unit."""
    for tick in axis.get_major_ticks():
        if tick.label1.get_text():
            yield tick.label1.get_text(), pytest.approx(tick.get_loc() / unit)  # the axis is in floating point

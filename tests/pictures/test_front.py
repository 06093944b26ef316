"""The picture of a search: each variant is a point at its figures, and what stands out is the front."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.path import Path
from matplotlib.text import Text

import vggkit
from tests.pictures.written import check_texts
from vggkit.figures.measures import FOUND, direction
from vggkit.pictures import front, style
from vggkit.search.find import Found

VARY: dict[str, list[Any]] = {"width": [0.25, 0.5, 1], "head": ["paper", "gap"]}


def found(**options: Any) -> Found:
    """Return variants of three networks, of which some are on the front and some are not."""
    options = {"pareto": ("params", "-macs"), **options}
    return vggkit.find("A", "C", "E", vary=VARY, batch=2, **options)


def plane(search: Found) -> Axes:
    """Return the axes that the variants are drawn in."""
    axes = search.plot().figure.axes[1]
    assert isinstance(axes, Axes)
    return axes


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return where the points are, by their colour."""
    colours = [to_hex(dots.get_facecolor()[0]).upper() for dots in axes.collections]
    places = [[(float(x), float(y)) for x, y in dots.get_offsets()] for dots in axes.collections]
    return dict(zip(colours, places, strict=True))


@pytest.mark.parametrize("pareto", [("params", "-macs"), ("macs", "training_peak")])
def test_each_variant_is_a_point_at_its_two_figures(pareto: tuple[str, str]) -> None:
    """The first figure to the right, the second upwards; those on the front in another colour, and only they."""
    search = found(pareto=pareto)
    first, second = (direction(word, "pareto", FOUND).figure for word in pareto)
    at = [(float(one.figures[first]), float(one.figures[second])) for one in search]
    drawn = points(plane(search))
    assert set(drawn) == {style.GREY, style.VERMILION}
    assert drawn[style.GREY] == [place for place, one in zip(at, search) if not one.front]
    assert drawn[style.VERMILION] == sorted(place for place, one in zip(at, search) if one.front)


def test_the_fronts_line_goes_in_steps_through_its_points() -> None:
    """What lies beyond a step is worse than a point; a slanted line would promise what nobody found."""
    axes = plane(found())
    [line] = [line for line in axes.lines if line.get_drawstyle() != "default"]  # the others lead to labels
    assert line.get_drawstyle() == "steps-post"
    assert [tuple(map(float, place)) for place in line.get_xydata()] == points(axes)[style.VERMILION]


def test_an_axis_is_logarithmic_where_its_figures_are_far_apart() -> None:
    """From a hundred times the smallest on."""
    for widths, scale in (([1, 0.5], "linear"), ([1, 0.01], "log")):
        axes = plane(vggkit.find("D", vary={"width": widths}))
        assert (axes.get_xscale(), axes.get_yscale()) == (scale, scale)


def test_many_points_become_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """And few stay shapes, which can be picked out of an SVG."""
    search = found()
    others = len(search) - len(search.front)
    for most, images in ((others, 0), (others - 1, 1)):
        monkeypatch.setattr(front, "MOST_SHAPES", most)
        assert search.plot().to_bytes("svg").count(b"<image") == images


def test_a_long_front_has_its_ends_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And as many between them as there is room for; a short one has all named."""
    search = found()
    labels = [one.label for one in sorted(search.front, key=lambda one: one.figures["parameters"])]
    assert len(labels) > 3
    monkeypatch.setattr(front, "MOST_LABELS", len(labels))
    assert [text.get_text() for text in plane(search).texts] == labels
    monkeypatch.setattr(front, "MOST_LABELS", 3)
    named = [text.get_text() for text in plane(search).texts]
    assert (len(named), named[0], named[-1]) == (3, labels[0], labels[-1])


def test_the_title_means_something_alone() -> None:
    """Which networks, what was varied, which two figures; below it how many, at which step, under which conditions."""
    picture = found(where={"params": "<1G", "training_peak": ">=1kB"}).plot()
    assert picture.title == "A, C, E with varied width, head: parameters against MACs"
    said = [text.get_text() for text in picture.figure.axes[0].texts]
    assert said[:3] == [
        picture.title,
        "18 of 18: batch 2, float32, training with sgd-momentum; parameters ≤ 999,999,999; training peak ≥ 1.00 kB",
        f"on the Pareto front, least parameters and most MACs: {len(found().front)}",
    ]  # fmt: skip
    assert vggkit.find().plot().title == "76 configurations: parameters against MACs"
    assert vggkit.find("D:head=gap", "E").plot().title == "D:head=gap, E: parameters against MACs"


def test_a_condition_of_the_receptive_field_is_written() -> None:
    """It is of the shorter side, one number, whereas the field itself has two."""
    picture = vggkit.find("A", "D", where={"field": "100..200"}, pareto=["params", "-field"]).plot()
    said = [text.get_text() for text in picture.figure.axes[0].texts]
    assert said[1] == "1 of 2: batch 1, float32; receptive field ≥ 100; receptive field ≤ 200"
    assert picture.description.endswith("On the Pareto front: A: 132,863,336 parameters, 150×150 receptive field.")


@pytest.mark.parametrize("pareto", [("params", "-macs"), ("macs", "training_peak"), ("-params", "-macs")])
def test_labels_cover_neither_one_another_nor_the_front(pareto: tuple[str, str]) -> None:
    """They stay on the canvas and in the plane, on no point and not on the line."""
    figure = found(pareto=pareto).plot().figure
    check_texts(figure)
    axes = figure.axes[1]
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert boxes
    [line] = [line for line in axes.lines if line.get_drawstyle() != "default"]
    points = [axes.transData.transform(place) for dots in axes.collections for place in dots.get_offsets()]
    steps = [axes.transData.transform(place) for place in line.get_xydata()]
    corners = [corner for start, end in pairwise(steps) for corner in (start, (end[0], start[1]))] + steps[-1:]
    for box in boxes:
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
        assert not any(box.contains(*point) for point in points)
        assert not Path(corners).intersects_bbox(box, filled=False)

"""The picture of a step: real text in it, the plan's own numbers, and nothing over anything else."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest

import vggkit
from vggkit.numbers import megabytes
from vggkit.render import timeline
from vggkit.render.memory import title

PLANS: list[tuple[str, dict[str, Any]]] = [
    ("D", {}),
    ("D", {"batch": 64, "optimizer": "adam"}),
    ("A-LRN", {"mode": "inference"}),
    ("E", {"batch": 8, "checkpoint": ["block1", "block2"], "autocast": True}),
]


@pytest.fixture(scope="module")
def svg() -> str:
    """Draw D's training step."""
    return timeline.picture(vggkit.memory("D"), "svg").decode()


def test_an_svg_has_real_text_a_title_and_a_description(svg: str) -> None:
    """A screen reader reads it, and a search finds its words."""
    plan = vggkit.memory("D")
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img"
    assert (root[0].tag, root[0].text) == (f"{space}title", title(plan))
    assert (root[1].tag, root[1].text) == (f"{space}desc", timeline.description(plan))
    words = " ".join("".join(text.itertext()) for text in root.iter(f"{space}text"))
    for wanted in (
        "parameters",
        "activations",
        "forward",
        "backward",
        "alive GB",
        f"peak {megabytes(plan.peak_bytes)}",
    ):
        assert wanted in words


def test_every_amount_in_it_is_the_plans(svg: str) -> None:
    """Wherever a number of bytes stands, it is the peak."""
    amounts = set(re.findall(r"[0-9.,]+ [kMG]B", svg))
    assert amounts == {megabytes(vggkit.memory("D").peak_bytes)}


def test_the_same_plan_is_the_same_picture(svg: str) -> None:
    """No date and no random identifiers."""
    assert timeline.picture(vggkit.memory("D"), "svg").decode() == svg


def test_a_png_is_a_png() -> None:
    """By its first bytes."""
    assert timeline.picture(vggkit.memory("A"), "png").startswith(b"\x89PNG\r\n\x1a\n")


def test_an_html_page_is_self_contained_and_described() -> None:
    """Nothing is fetched, no script runs, the description can be read."""
    plan = vggkit.memory("A")
    page = timeline.picture(plan, "html").decode()
    assert page.startswith("<!doctype html>")
    assert f"<figcaption>{timeline.description(plan)}</figcaption>" in page
    assert re.findall(r"<script|<link|<img|@import|url\(http|src=", page) == []


@pytest.mark.parametrize(("name", "options"), PLANS, ids=str)
def test_no_text_leaves_the_canvas_or_covers_another(name: str, options: dict[str, Any]) -> None:
    """Title, axes, phases, peak and legend each have their own place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize=timeline.SIZE, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    timeline._draw(vggkit.memory(name, **options), figure.add_subplot())
    canvas.draw()
    (axes,) = figure.axes
    hidden = [
        tick.label1
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for tick in axis.get_major_ticks()
        if not low <= tick.get_loc() <= high  # matplotlib draws no tick outside of its axis
    ]
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    texts = [text for text in texts if text not in hidden]
    boxes = {text: Text.get_window_extent(text, canvas.get_renderer()) for text in texts}
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    assert [(a.get_text(), b.get_text()) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])] == []


@pytest.mark.parametrize("format", ["svg", "png", "html"])
def test_a_name_with_dollar_signs_is_no_formula(format: str) -> None:
    """A title stands as it is, though what is between its dollar signs is no formula that could be set."""
    plan = vggkit.memory(vggkit.loads(r"{name: '$\foo$ {$', input: 3x8x8, blocks: [[conv3-4]]}"))
    content = timeline.picture(plan, format)
    if format != "png":
        assert r"$\foo$ {$: 3×8×8" in content.decode()

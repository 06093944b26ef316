"""The picture of a step: real text in it, the plan's own numbers, and nothing over anything else."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any
from xml.etree import ElementTree

import pytest

import vggkit
from tests.pictures.written import check_texts, texts
from vggkit.base.numbers import megabytes
from vggkit.pictures import timeline
from vggkit.pictures.web import script_hash

PLANS: list[tuple[str, dict[str, Any]]] = [
    ("D", {}),
    ("D", {"batch": 64, "optimizer": "adam"}),
    ("A-LRN", {"mode": "inference"}),
    ("E", {"batch": 8, "checkpoint": ["block1", "block2"], "autocast": True}),
    ("D", {"device": "cuda"}),
    ("D", {"batch": 6, "device": "cuda"}),
    ("A-LRN", {"mode": "inference", "device": "cuda"}),
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
    assert (root[0].tag, root[0].text) == (f"{space}title", plan.title)
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


@pytest.mark.parametrize("allocator", ["", "expandable_segments:True"])
def test_on_cuda_a_line_says_what_is_reserved(allocator: str) -> None:
    """At its height, with its bytes in the legend and in the description; on the CPU there is none."""
    plan = vggkit.memory("D", batch=16, device="cuda", allocator=allocator)
    assert plan.reserved_bytes is not None
    (axes,) = timeline.figure(plan).axes
    label = f"reserved {megabytes(plan.reserved_bytes)}"
    (line,) = (line for line in axes.lines if line.get_label() == label)
    assert set(line.get_ydata()) == {plan.reserved_bytes / 1e9}
    assert axes.get_ylim()[1] > plan.reserved_bytes / 1e9
    assert axes.get_legend().get_texts()[0].get_text() == label
    assert f"what torch's allocator reserves, {megabytes(plan.reserved_bytes)}." in timeline.description(plan)
    on_cpu = vggkit.memory("D", batch=16)
    assert "reserve" not in timeline.picture(on_cpu, "svg").decode()


def test_the_same_plan_is_the_same_picture(svg: str) -> None:
    """No date and no random identifiers."""
    assert timeline.picture(vggkit.memory("D"), "svg").decode() == svg


def test_a_png_is_a_png() -> None:
    """By its first bytes."""
    assert timeline.picture(vggkit.memory("A"), "png").startswith(b"\x89PNG\r\n\x1a\n")


def test_an_html_page_is_self_contained_and_described() -> None:
    """Nothing is fetched, no script runs but its own, the description can be read."""
    plan = vggkit.memory("A")
    page = timeline.picture(plan, "html").decode()
    assert page.startswith("<!doctype html>")
    assert f"<figcaption>{timeline.description(plan)}</figcaption>" in page
    assert re.findall(r"<link|<img|@import|url\(http|src=|https?:(?!//www.w3.org/2000/svg\")", page) == []
    script, *others = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert others == []
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{script_hash(script)}'" in page


def test_texts_of_a_file_stay_texts_in_the_page() -> None:
    """A name of markup ends no element and no script."""
    nasty = "</script><!--<b>&\"'"
    config = vggkit.loads(json.dumps({"input": "3x8x8", "blocks": [[{"conv": 4, "name": "x"}]], "name": nasty}))
    page = timeline.picture(vggkit.memory(config), "html").decode()
    assert nasty not in page
    assert page.count("</script>") == 2
    assert f"<title>{escape(nasty)}" in page


@pytest.mark.parametrize(("name", "options"), PLANS, ids=str)
def test_no_text_leaves_the_canvas_or_covers_another(name: str, options: dict[str, Any]) -> None:
    """Title, axes, phases, peak and legend each have their own place."""
    check_texts(timeline.figure(vggkit.memory(name, **options)))


@pytest.mark.parametrize(("name", "options"), PLANS, ids=str)
def test_no_line_runs_through_a_word(name: str, options: dict[str, Any]) -> None:
    """The dotted lines between the phases end below their names, and the peak's words are above what is reserved."""
    drawn = timeline.figure(vggkit.memory(name, **options))
    boxes = texts(drawn)
    (axes,) = drawn.axes
    lines = [line.get_window_extent() for line in axes.lines]
    between_phases = 0 if options.get("mode") == "inference" else 2
    assert len(lines) == between_phases + (options.get("device") == "cuda")
    for line in lines:
        assert [text for text, box in boxes.items() if box.overlaps(line)] == []


@pytest.mark.parametrize("format", ["svg", "png", "html"])
def test_a_name_with_dollar_signs_is_no_formula(format: str) -> None:
    """A title stands as it is, though what is between its dollar signs is no formula that could be set."""
    plan = vggkit.memory(vggkit.loads(r"{name: '$\foo$ {$', input: 3x8x8, blocks: [[conv3-4]]}"))
    content = timeline.picture(plan, format)
    if format != "png":
        assert r"$\foo$ {$: 3×8×8" in content.decode()

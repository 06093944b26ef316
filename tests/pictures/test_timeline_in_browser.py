"""The page of a timeline in a real browser: its crosshair names the moment under the pointer, and goes by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vggkit
from tests.pictures.browsing import PHONE, Tab
from vggkit.base.eager import MEMORY_KINDS
from vggkit.base.numbers import grouped, megabytes
from vggkit.footprint.plan import MemoryPlan
from vggkit.pictures import timeline

PLAN = vggkit.memory("A-LRN", batch=4)
PEAK = next(index for index, moment in enumerate(PLAN.timeline) if moment.size == PLAN.peak_bytes)
LAST = len(PLAN.timeline) - 1


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page."""
    path = tmp_path_factory.mktemp("timeline") / "step.html"
    path.write_bytes(timeline.picture(PLAN, "html"))
    return path


@pytest.fixture(params=[{}, {"viewport": PHONE}], ids=["desktop", "phone"])
def tab(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """Open the page, on a desk and on a phone."""
    tab = Tab(browser, file, **request.param)
    yield tab
    tab.close()


def check_moment(tab: Tab, index: int) -> None:
    """Hold that the page says which operation it is, and what is alive of each kind, to the byte."""
    moment = PLAN.timeline[index]
    assert tab.page.locator("#moment p").inner_text() == f"{moment.event}, operation {index + 1} of {LAST + 1}"
    rows = [row.locator("th, td").all_inner_texts() for row in tab.page.locator("#moment tr").all()]
    alive = {MEMORY_KINDS[kind]: size for kind, size in zip(timeline.COLOURS, moment.by_kind)}
    wanted = {word: alive[word] for word, *_ in rows[:-1]} | {"alive": moment.size}
    assert rows == [[word, megabytes(size), grouped(size)] for word, size in wanted.items()]
    # A-LRN has no running statistics, and one rank sends nothing
    assert set(alive) - set(wanted) <= {MEMORY_KINDS[kind] for kind in ("buffers", "communication")}
    slider = tab.page.get_by_role("slider", name="Moment of the step")
    assert slider.get_attribute("aria-valuenow") == str(index + 1)
    assert slider.get_attribute("aria-valuetext") == f"{moment.event}: {megabytes(moment.size)}"


def test_it_begins_at_the_peak(tab: Tab) -> None:
    """Which the picture names, too."""
    check_moment(tab, PEAK)


def place(tab: Tab, index: float, height: float = 0.5, plan: MemoryPlan = PLAN) -> tuple[float, float]:
    """Return where a moment is on the screen, by the lines that the picture itself has."""
    left, top, right, bottom = tab.page.evaluate(
        """() => { const box = document.getElementById("timeline-patch_2").getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom]; }"""
    )
    return left + (right - left) * index / len(plan.timeline), bottom + (top - bottom) * height


def test_the_pointer_names_the_moment_that_it_is_at(tab: Tab) -> None:
    """From the first to the last; beside the axes the nearest."""
    for index in (0, 1, 17, PEAK, LAST - 1, LAST):
        tab.page.mouse.move(*place(tab, index + 0.5))
        check_moment(tab, index)
    for index, nearest in ((-0.4, 0), (LAST + 1.2, LAST)):
        tab.page.mouse.move(*place(tab, index))
        check_moment(tab, nearest)


def test_arrow_keys_go_from_moment_to_moment(tab: Tab) -> None:
    """With the focus on the picture, which is seen; no further than the ends."""
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, index in (
        ("ArrowRight", PEAK + 1), ("ArrowLeft", PEAK), ("ArrowLeft", PEAK - 1), ("Home", 0), ("ArrowLeft", 0),
        ("PageUp", 10), ("End", LAST), ("ArrowRight", LAST), ("PageDown", LAST - 10),
    ):  # fmt: skip
        tab.page.keyboard.press(key)
        check_moment(tab, index)


def test_the_lines_cross_where_the_bytes_of_the_moment_end(tab: Tab) -> None:
    """Upright through the moment, level at what is alive, in the picture's own scale."""
    for index in (0, PEAK, LAST):
        tab.page.mouse.move(*place(tab, index + 0.5))
        boxes = [line.bounding_box() for line in tab.page.locator("svg > line").all()]
        x, y = place(tab, index + 0.5, PLAN.timeline[index].size / (PLAN.peak_bytes * 1.25))
        upright, level = boxes
        assert upright is not None
        assert level is not None
        assert upright["x"] + upright["width"] / 2 == pytest.approx(x, abs=1)  # a pixel: lines are as wide
        assert level["y"] + level["height"] / 2 == pytest.approx(y, abs=1)
        assert level["x"] + level["width"] == pytest.approx(x, abs=1)


def test_the_page_is_as_wide_as_the_screen(tab: Tab) -> None:
    """It doesn't scroll sideways, on a phone either."""
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_its_script_the_picture_and_its_description_are_there(browser: Any, file: Path) -> None:
    """And no empty table."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("svg").is_visible()
    assert page.locator("figcaption").inner_text() == timeline.description(PLAN)
    assert not page.locator("#moment").is_visible()
    assert page.get_by_role("slider").count() == 0
    context.close()


def test_on_cuda_the_last_row_says_what_is_reserved(browser: Any, tmp_path: Path) -> None:
    """It is the same at every moment, and the slider still says what is alive."""
    plan = vggkit.memory("A-LRN", batch=4, device="cuda")
    assert plan.reserved_bytes is not None
    path = tmp_path / "step.html"
    path.write_bytes(timeline.picture(plan, "html"))
    tab = Tab(browser, path)
    for index in (0, 17, len(plan.timeline) - 1):
        tab.page.mouse.move(*place(tab, index + 0.5, plan=plan))
        moment = plan.timeline[index]
        *_, alive, reserved = [row.locator("th, td").all_inner_texts() for row in tab.page.locator("#moment tr").all()]
        assert alive == ["alive", megabytes(moment.size), grouped(moment.size)]
        assert reserved == ["reserved", megabytes(plan.reserved_bytes), grouped(plan.reserved_bytes)]
        slider = tab.page.get_by_role("slider", name="Moment of the step")
        assert slider.get_attribute("aria-valuetext") == f"{moment.event}: {megabytes(moment.size)}"
    tab.close()

"""The page of a report in a real browser: its controls, its tables, its colours, at every width, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vggkit
from tests.pictures import browsing
from vggkit.base.eager import MEMORY_KINDS
from vggkit.base.numbers import mebibytes, megabytes, percent
from vggkit.pictures.report.page import STEPS
from vggkit.pictures.report.report import report

NAMES = ("D", "A-LRN")
LONG = json.dumps({"name": "long" * 40, "note": "noted" * 90, "input": "3x8x8", "blocks": [["conv3-4", "gelu"]]})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the page of one network, of two, and of two with names that are too long."""
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "one": report("D", batch=3, dtype="float16"),
        "two": report(*NAMES),
        "long": report(vggkit.loads(LONG), vggkit.loads(LONG)),
    }
    for name, one in made.items():
        (folder / f"{name}.html").write_text(one.to_html(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


class Tab(browsing.Tab):
    """The page of a report in the browser."""

    def choose(self, batch: int, dtype: str, step: str, card: str = "24") -> None:
        """Set the controls as a person does."""
        self.page.get_by_label("Batch, images").fill(str(batch))
        self.page.get_by_label("dtype", exact=True).select_option(dtype)
        self.page.get_by_label("Step", exact=True).select_option(step)
        self.page.get_by_label("Card, GiB").fill(card)

    def choose_quickly(self, batch: int, dtype: str, step: str, card: str = "24") -> None:
        """Set the controls at once."""
        self.page.evaluate(
            """chosen => {
                for (const [id, value] of Object.entries(chosen)) document.getElementById(id).value = value;
                document.getElementById("batch").dispatchEvent(new Event("input", {bubbles: true}));
            }""",
            {"batch": str(batch), "dtype": dtype, "step": step, "card": card},
        )

    def shown(self, number: int) -> dict[str, str]:
        """Return every figure of a network that the page shows."""
        pairs = self.page.evaluate(
            """number => [...document.querySelectorAll(`[data-network="${number}"]`)].flatMap(part =>
                [...part.querySelectorAll("[data-figure]")].map(one => [one.dataset.figure, one.textContent]))""",
            number,
        )
        shown = dict(pairs)
        assert all(shown[name] == text for name, text in pairs)  # wherever a figure stands twice, it is the same
        return shown

    def column(self, table: str, header: str) -> list[str]:
        """Return the texts of a column of a table, in the order in which they stand."""
        return list(
            self.page.evaluate(
                """([table, header]) => {
                    const found = document.getElementById(table).closest("table");
                    const column = [...found.tHead.rows[0].cells].findIndex(cell => cell.textContent === header);
                    return [...found.tBodies[0].rows].map(row => row.cells[column].textContent);
                }""",
                [table, header],
            )
        )


@pytest.fixture
def two(browser: Any, files: dict[str, Path]) -> Iterator[Tab]:
    """Open the page of two networks."""
    tab = Tab(browser, files["two"])
    yield tab
    tab.close()


def figures(name: str, batch: int, dtype: str, step: str, card: str = "24") -> dict[str, str]:
    """Return what the page must show of a network."""
    options = STEPS[step]
    plan = vggkit.memory(name, batch=batch, dtype=dtype, **options)
    fits = vggkit.max_batch(name, f"{card}GiB", device="cpu", dtype=dtype, **options)
    limit = vggkit.base.numbers.parse_bytes(f"{card}GiB")
    peak = vggkit.memory(name, batch=fits, dtype=dtype, **options).peak_bytes if fits else 0
    wanted = {
        "peak": megabytes(plan.peak_bytes), "peak_bytes": f"{plan.peak_bytes:,}", "peak_at": plan.peak_at,
        "peak_binary": mebibytes(plan.peak_bytes), "saved": megabytes(plan.saved_for_backward_bytes),
        "steady": megabytes(plan.steady_bytes), "fits": f"batch {fits:,}" if fits else "not even batch 1",
        "left": megabytes(limit - peak) if fits else "–",
    }  # fmt: skip
    for kind, size in plan.by_kind.items():
        wanted |= {kind: megabytes(size), f"{kind}_bytes": f"{size:,}", f"{kind}_share": percent(size, plan.peak_bytes)}
    return wanted


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_figures_are_those_of_memory(two: Tab, dtype: str) -> None:
    """At every dtype and step, for batches from one image to the largest."""
    for step, batch in product(STEPS, (1, 2, 3, 10, 64, 999, 65_536)):
        two.choose_quickly(batch, dtype, step)
        for number, name in enumerate(NAMES):
            assert two.shown(number) == figures(name, batch, dtype, step), (name, step, batch)


def test_a_person_changes_the_figures(two: Tab) -> None:
    """Typing and choosing does it; sums over the layers and the captions follow."""
    for batch, dtype, step in ((64, "bfloat16", "adamw"), (7, "float64", "inference")):
        two.choose(batch, dtype, step)
        assert two.shown(0) == figures("D", batch, dtype, step)
        summary = vggkit.summarize("D", batch=batch, dtype=dtype)
        assert two.column("network-0-layers", "MACs") == [
            f"{row.multiply_accumulates:,}" if row.multiply_accumulates else "" for row in summary
        ]
        assert two.column("network-0-layers", "activations") == [megabytes(row.activation_bytes) for row in summary]
        assert two.column("memory-table", "MACs")[0] == f"{summary.totals.multiply_accumulates:,}"
        assert two.column("memory-table", "activations")[0] == megabytes(summary.totals.activation_bytes)
        foot = two.page.locator("#network-0 table").first.locator("tfoot").inner_text()
        assert f"{summary.totals.multiply_accumulates:,}" in foot
        assert f"batch {batch}, {dtype}" in two.page.locator("#network-0-layers").inner_text()
        assert (
            f"batch {batch}, {dtype}, {'training, ' if step == 'adamw' else ''}{step}"
            in two.page.locator("#memory-table").inner_text()
        )


@pytest.mark.parametrize("card", ["0.001", "0.5", "1.6", "1.605", "4.123", "24", "80", "4096"])
def test_the_largest_batch_is_that_of_fit(two: Tab, card: str) -> None:
    """For small and large cards, in training and in inference."""
    for step in ("sgd-momentum", "inference", "adam"):
        two.choose(1, "float32", step, card)
        for number, name in enumerate(NAMES):
            assert two.shown(number) == figures(name, 1, "float32", step, card)


def test_numbers_are_written_as_vggkit_writes_them(two: Tab) -> None:
    """Halves go to the even digit, and what rounds up to a thousand takes the next unit."""
    numbers = [0, 1, 999, 1000, 1023, 1024, 1125, 1375, 1625, 1875, 2125, 999_994, 999_995, 999_996, 999_999, 1_000_000]
    numbers += [1_048_570, 1_048_571, 1_048_576, 2**53 - 1, *(3**power for power in range(33)), 1_005_000, 1_152, 1_408]
    numbers += [125 * odd * 10**power for odd in range(1, 60, 2) for power in (1, 3, 4)]
    assert two.page.evaluate("numbers => numbers.map(megabytes)", numbers) == list(map(megabytes, numbers))
    assert two.page.evaluate("numbers => numbers.map(mebibytes)", numbers) == list(map(mebibytes, numbers))
    assert two.page.evaluate("numbers => numbers.map(grouped)", numbers) == [f"{number:,}" for number in numbers]
    parts = [(part, whole) for whole in (1, 3, 8, 400, 2000, 4000, 10**12 + 39) for part in range(min(whole, 2000) + 1)]
    assert two.page.evaluate("parts => parts.map(([part, whole]) => percent(part, whole))", parts) == [
        percent(part, whole) for part, whole in parts
    ]


def test_of_two_moments_that_are_as_high_the_first_is_the_peak(two: Tab) -> None:
    """At the batch where they meet; around it the higher one is."""
    steep, flat = {"event": "steep", "size": [0, 2]}, {"event": "flat", "size": [2, 1]}
    for moments, at_two in (([steep, flat], "steep"), ([flat, steep], "flat")):
        peaks = two.page.evaluate("step => [1, 2, 3].map(batch => peakOf(step, batch).event)", {"moments": moments})
        assert peaks == ["flat", at_two, "steep"]


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("Batch, images", "0", "Batch: expected a whole number from 1 to 65,536, found 0."),
        ("Batch, images", "-3", "Batch: expected a whole number from 1 to 65,536, found -3."),
        ("Batch, images", "2.5", "Batch: expected a whole number from 1 to 65,536, found 2.5."),
        ("Batch, images", "65537", "Batch: expected a whole number from 1 to 65,536, found 65537."),
        ("Batch, images", "", "Batch: expected a whole number from 1 to 65,536, found nothing."),
        ("Card, GiB", "0", "Card: expected GiB from 0.001 to 4,096, with up to three decimals, found 0."),
        ("Card, GiB", "4097", "Card: expected GiB from 0.001 to 4,096, with up to three decimals, found 4097."),
        ("Card, GiB", "1.0005", "Card: expected GiB from 0.001 to 4,096, with up to three decimals, found 1.0005."),
    ],
)
def test_a_wrong_value_is_told_and_changes_nothing(two: Tab, label: str, value: str, message: str) -> None:
    """The message says what was expected and found, and goes with the next right value."""
    before = two.shown(0)
    control = two.page.get_by_label(label)
    control.fill(value)
    assert two.page.get_by_role("alert").inner_text() == message
    assert control.get_attribute("aria-invalid") == "true"
    assert two.shown(0) == before
    control.fill("2")
    assert two.page.locator("#message").inner_text() == ""
    assert control.get_attribute("aria-invalid") is None
    assert two.shown(0) == figures(
        "D", *((2, "float32", "sgd-momentum") if "Batch" in label else (1, "float32", "sgd-momentum", "2"))
    )


def test_columns_are_sorted_by_mouse(two: Tab) -> None:
    """Up, then down; equal rows stay in the network's order, and the name's column brings that order back."""
    rows = vggkit.summarize("D").rows
    heading = two.page.locator("#network-0 table").first.locator("th", has_text="MACs")
    for direction, sign in (("ascending", 1), ("descending", -1)):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == direction
        ordered = sorted(rows, key=lambda row: sign * row.multiply_accumulates)
        assert two.column("network-0-layers", "layer") == [row.name for row in ordered]
    two.page.locator("#network-0 table").first.get_by_role("button", name="biases").click()
    by_biases = sorted(rows, key=lambda row: row.biases)
    assert two.column("network-0-layers", "layer") == [row.name for row in by_biases]
    two.page.locator("#network-0 table").first.get_by_role("button", name="layer").click()
    assert heading.get_attribute("aria-sort") is None
    assert two.column("network-0-layers", "layer") == [row.name for row in rows]


def test_columns_are_sorted_by_keyboard(two: Tab) -> None:
    """With Enter and with the space bar; words by their numbers, sizes by their bytes and not by their digits."""
    table = two.page.locator("#network-0 table").first
    table.get_by_role("button", name="activations").focus()
    two.page.keyboard.press("Enter")
    rows = sorted(vggkit.summarize("D"), key=lambda row: row.activation_bytes)
    assert two.column("network-0-layers", "activations") == [megabytes(row.activation_bytes) for row in rows]
    table.get_by_role("button", name="output shape").focus()
    two.page.keyboard.press("Space")
    shapes = two.column("network-0-layers", "output shape")
    assert shapes == ["×".join(map(str, shape)) for shape in sorted(row.output_shape for row in rows)]


def test_a_sorted_table_stays_sorted(two: Tab) -> None:
    """When the controls change its figures, its rows change places: D has more parameters, A-LRN more activations."""
    two.page.locator("#memory").get_by_role("button", name="peak", exact=True).click()
    for batch, ordered in ((1, ["A-LRN", "D"]), (1024, ["D", "A-LRN"])):
        two.choose(batch, "float32", "sgd-momentum")
        assert sorted(NAMES, key=lambda name: vggkit.memory(name, batch=batch).peak_bytes) == ordered
        assert two.column("memory-table", "network") == ordered


def test_tabs_open_by_mouse_and_keyboard(two: Tab) -> None:
    """One network is shown at a time; the arrow keys go around."""
    page = two.page
    page.get_by_role("tab", name="A-LRN").click()
    assert [page.locator(f"#network-{number}").is_visible() for number in (0, 1)] == [False, True]
    for key, open_one in (("ArrowRight", 0), ("ArrowLeft", 1), ("Home", 0), ("End", 1)):
        page.keyboard.press(key)
        assert [page.locator(f"#network-{number}").is_visible() for number in (0, 1)] == [open_one == 0, open_one == 1]
        focused = page.evaluate("[document.activeElement.textContent, document.activeElement.ariaSelected]")
        assert focused == [NAMES[open_one], "true"]


def test_everything_is_reached_by_keyboard_and_seen(two: Tab) -> None:
    """Every control comes in turn, with an outline and a name."""
    reached = set()
    for _ in range(60):
        two.page.keyboard.press("Tab")
        name, style = two.page.evaluate(
            """() => { const one = document.activeElement;
                return [one.id || one.textContent, getComputedStyle(one).outlineStyle]; }"""
        )
        if name and one_of_the_page(two):
            assert style != "none", name
            reached.add(name)
    assert {"theme", "batch", "dtype", "step", "card", "network-0-tab", "MACs", "output shape"} <= reached


def one_of_the_page(tab: Tab) -> bool:
    """Tell whether the focus is in the page, and not on the browser itself."""
    return bool(tab.page.evaluate("document.activeElement !== document.body"))


@pytest.mark.parametrize("name", ["one", "two", "long"])
def test_the_page_is_as_wide_as_a_phone(browser: Any, files: dict[str, Path], name: str) -> None:
    """It doesn't scroll sideways, with any network open and any message; wide tables scroll in their own place."""
    tab = Tab(browser, files[name], viewport=browsing.PHONE)

    def widths() -> list[int]:
        return list(tab.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]"))

    assert max(widths()) <= 390
    for one in tab.page.get_by_role("tab").all():
        one.click()
        assert max(widths()) <= 390
    tab.page.get_by_label("Card, GiB").fill("1.00005")
    assert max(widths()) <= 390
    wide = tab.page.evaluate("[...document.querySelectorAll('.scroll')].some(one => one.scrollWidth > one.clientWidth)")
    assert wide
    tab.close()


COLOURS = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
};
const linear = value => value <= 0.04045 * 255 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const contrast = (a, b) => {
    const [one, other] = [luminance(a), luminance(b)];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
};
"""
"""What a colour is made of, and how far two are apart: their contrast, as WCAG 2 defines it."""

CONTRASTS = """() => { COLOURS
    const behind = one => {
        const found = rgb(getComputedStyle(one).backgroundColor);
        return found[3] === 255 || !one.parentElement ? found : behind(one.parentElement);
    };
    const hasText = one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    return [...document.querySelectorAll("body *")]
        .filter(one => hasText(one) && !one.closest("svg, script, noscript") && one.checkVisibility())
        .map(one => [contrast(rgb(getComputedStyle(one).color), behind(one)), one.outerHTML.slice(0, 80)]);
}""".replace("COLOURS", COLOURS)
"""The contrast of each text that is seen to what is behind it."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_light_and_dark(browser: Any, files: dict[str, Path], scheme: str) -> None:
    """The contrast is what WCAG 2 asks for (AA, 4.5:1), as the system prefers and as the button says."""
    tab = Tab(browser, files["two"], color_scheme=scheme)
    tab.page.get_by_label("Batch, images").fill("0")  # the message, too
    tab.page.evaluate("document.body.classList.remove('stale')")
    backgrounds = []
    for _ in range(2):
        contrasts = tab.page.evaluate(CONTRASTS)
        assert len(contrasts) > 100
        assert [text for contrast, text in contrasts if contrast < 4.5] == []
        backgrounds.append(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.page.locator("#theme").click()
    dark, light = "rgb(21, 24, 27)", "rgb(255, 255, 255)"
    assert backgrounds == ([light, dark] if scheme == "light" else [dark, light])
    tab.close()


PICTURES = """() => { COLOURS
    const probe = document.body.appendChild(document.createElement("i"));
    const named = name => { probe.style.color = `var(--${name})`; return rgb(getComputedStyle(probe).color); };
    const papers = [named("paper"), named("band")];
    return {
        texts: [...document.querySelectorAll("figure text")].map(text => [
            Math.min(...papers.map(paper => contrast(rgb(getComputedStyle(text).fill), paper))),
            text.textContent,
        ]),
        backgrounds: [...document.querySelectorAll("figure svg")].map(svg => [
            String(rgb(getComputedStyle(svg.querySelector("path")).fill)) === String(papers[0]),
            getComputedStyle(svg.closest(".scroll")).backgroundColor,
        ]),
    };
}""".replace("COLOURS", COLOURS)
"""Of each text of a picture the contrast to what may be behind it; whether each picture's background is the page's."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_light_and_dark_as_the_page(browser: Any, files: dict[str, Path], scheme: str) -> None:
    """Their background is the page's, their texts stand out from it, and in the dark hardly a place is white."""
    tab = Tab(browser, files["two"], color_scheme=scheme)
    seen = tab.page.evaluate(PICTURES)
    assert len(seen["texts"]) > 100
    assert [text for contrast, text in seen["texts"] if contrast < 4.5] == []
    assert seen["backgrounds"] == [[True, "rgba(0, 0, 0, 0)"]] * 5
    for drawn in tab.page.locator("figure:visible").all():
        picture = Image.open(BytesIO(drawn.locator("svg").screenshot())).convert("L")
        white = picture.point(lambda value: 255 if value > 250 else 0).histogram()[255]
        assert (white < 0.02 * picture.width * picture.height) == (scheme == "dark")
    tab.close()


def test_pictures_are_whole_on_a_phone_and_can_be_enlarged(browser: Any, files: dict[str, Path]) -> None:
    """None is cut; enlarged, one scrolls in its own box, and is as large as it is on a wide screen."""
    tab = Tab(browser, files["two"], viewport=browsing.PHONE)
    for drawn in tab.page.locator("figure:visible").all():
        box, button = drawn.locator(".scroll"), drawn.get_by_role("button", name="Enlarge")
        cut = "box => box.scrollWidth > box.clientWidth"
        bounds = drawn.locator("svg").bounding_box()
        assert bounds is not None
        assert bounds["x"] >= 0
        assert bounds["x"] + bounds["width"] <= browsing.PHONE["width"]
        assert not box.evaluate(cut)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert box.evaluate(cut)
        assert drawn.locator("svg").evaluate("svg => svg.getBoundingClientRect().width") == 62 * 16
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= browsing.PHONE["width"]
        button.click()
        assert not box.evaluate(cut)
    tab.close()
    wide = Tab(browser, files["two"])
    assert not any(button.is_visible() for button in wide.page.get_by_role("button", name="Enlarge").all())
    wide.close()


def test_what_stands_below_a_heading_is_what_it_says(two: Tab) -> None:
    """Under share are shares, that of the peak too; its size in binary units stands apart."""
    rows = two.page.locator("#network-0 .breakdown tr").all()
    heads, *cells = [row.locator("th, td").all_inner_texts() for row in rows if row.is_visible()]
    assert heads == ["what", "bytes", "size", "share", ""]
    assert all(row[heads.index("share")].endswith(" %") for row in cells)
    peak = vggkit.memory("D").peak_bytes
    assert cells[-1] == ["peak", f"{peak:,}", megabytes(peak), "100.0 %", mebibytes(peak)]


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_page_is_right_without_its_script(browser: Any, files: dict[str, Path], name: str) -> None:
    """What is written in it is what the script writes at first; every network is open, and no dead control is there."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files[name].as_uri())
    assert not page.locator("#controls").is_visible()
    assert page.locator("noscript").inner_text().startswith("The figures are those of batch ")
    assert all(one.is_visible() for one in page.locator("article.network").all())
    live = "[data-figure], [data-macs], [data-elements], [data-chosen]"
    written = [one.text_content() for one in page.locator(live).all()]
    context.close()
    tab = Tab(browser, files[name])
    assert tab.page.locator(live).all_text_contents() == written
    assert len(written) > 30
    tab.close()


def test_the_kinds_that_are_alive_are_shown(two: Tab) -> None:
    """A row for each, a bar as long as its share, and none for what is not there."""
    two.choose(1, "float32", "inference")
    plan = vggkit.memory("D", mode="inference")
    rows = two.page.locator("#network-0 .breakdown tbody tr")
    shown = [row for row in rows.all() if row.is_visible()]
    assert [row.locator("th").inner_text() for row in shown] == [
        MEMORY_KINDS[kind] for kind, size in plan.by_kind.items() if size
    ]
    for row in shown:
        bar, place = row.locator(".bar").bounding_box(), row.locator(".bars").bounding_box()
        share = float(row.locator("[data-figure$=_share]").inner_text().removesuffix(" %"))
        assert bar is not None
        assert place is not None
        # to a pixel: the share that is written is rounded
        assert bar["width"] == pytest.approx((place["width"] - 20) * share / 100, abs=1)

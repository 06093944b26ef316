"""The page of a report in a real browser: its controls, its tables, its colours, at every width, without a network."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vggkit
from tests.footprint.card import Cards
from tests.pictures import browsing
from vggkit.base.eager import MEMORY_KINDS
from vggkit.base.numbers import mebibytes, megabytes, parse_bytes, percent
from vggkit.footprint import card_fit
from vggkit.footprint.allocator_settings import MIB, Settings
from vggkit.footprint.card import card_use, run
from vggkit.footprint.card_fit import EXPANDABLE
from vggkit.footprint.sought import SoughtBatch
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network
from vggkit.pictures.report.page import ALLOCATORS, CONTEXT_MIB, STEPS
from vggkit.pictures.report.report import report

NAMES = ("D", "A-LRN")
GIB = 1 << 30
LONG = json.dumps({"name": "long" * 40, "note": "noted" * 90, "input": "3x8x8", "blocks": [["conv3-4", "gelu"]]})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the page of one network, of two, and of two with names that are too long."""
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "one": report("D", batch=560, dtype="float16"),  # it runs out of memory on the card
        "two": report(*NAMES),
        "long": report(vggkit.loads(LONG), vggkit.loads(LONG)),
    }
    for name, one in made.items():
        (folder / f"{name}.html").write_text(one.to_html(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


class Tab(browsing.Tab):
    """The page of a report in the browser."""

    def choose(self, batch: int, dtype: str, step: str, card: str = "24") -> None:
        """Set the controls of the step and the card's size as a person does."""
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

    def play(self, cases: list[tuple[int, str, str, int, int, bool]]) -> list[list[list[int] | None]]:
        """Play loops in the page's allocator.

        Args:
            cases: number of the network, dtype, step, batch, bytes of the card, whether segments are expandable.

        Returns:
            For each the allocated bytes, reserved bytes and retries of its steps; None for one that runs out of memory.
        """
        return list(
            self.page.evaluate(
                """cases => cases.map(([network, dtype, step, batch, room, isExpandable]) => {
                    const loop = loopOf(data.networks[network].loops, dtype, step);
                    const steps = run(loop, batch, { bytes: room, room }, isExpandable);
                    return steps.map(one => one && [one.allocated, one.reserved, one.retries]);
                })""",
                cases,
            )
        )

    def largest(self, number: int) -> str:
        """Return the largest batch of a network that the page says to run, once it has found it."""
        self.page.locator("[aria-busy]").wait_for(state="detached")
        return self.page.locator(f'[data-network="{number}"] [data-largest]').inner_text()

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


def figures(name: str, batch: int, dtype: str, step: str) -> dict[str, str]:
    """Return what the page must show of a network's tensors."""
    plan = vggkit.memory(name, batch=batch, dtype=dtype, **STEPS[step])
    wanted = {
        "peak": megabytes(plan.peak_bytes), "peak_bytes": f"{plan.peak_bytes:,}", "peak_at": plan.peak_at,
        "peak_binary": mebibytes(plan.peak_bytes), "saved": megabytes(plan.saved_for_backward_bytes),
        "steady": megabytes(plan.steady_bytes),
    }  # fmt: skip
    for kind, size in plan.by_kind.items():
        wanted |= {kind: megabytes(size), f"{kind}_bytes": f"{size:,}", f"{kind}_share": percent(size, plan.peak_bytes)}
    return wanted


def card_figures(
    name: str, batch: int, dtype: str, step: str, card: str = "24", context: int = CONTEXT_MIB, allocator: str = ""
) -> dict[str, str]:
    """Return what the page must show of a network on a card, but for the largest batch that runs."""
    options = checked_options(
        Network.of(name), batch=batch, dtype=dtype, device="cuda", allocator=allocator, **STEPS[step]
    )
    plan = vggkit.memory(name, batch=batch, dtype=dtype, device="cuda", allocator=allocator, **STEPS[step])
    assert plan.allocated_bytes is not None
    assert plan.reserved_bytes is not None
    sought, room = SoughtBatch(Network.of(name), options), parse_bytes(f"{card}GiB") - context * MIB
    steps = run(sought.loops(1)[0].loop, batch, room, Settings.of(allocator))
    retries = steps[-1].retries if steps[-1] else None
    alone = sought.largest_of_tensors(room)
    return {
        "allocated": megabytes(plan.allocated_bytes),
        "reserved": megabytes(plan.reserved_bytes),
        "reserved_bytes": f"{plan.reserved_bytes:,}",
        "holes": percent(plan.reserved_bytes - plan.allocated_bytes, plan.reserved_bytes),
        "verdict": {None: f"runs out in step {len(steps)}", 0: "runs"}.get(retries, "runs, with retries"),
        "tensors_alone": f"batch {alone:,}" if alone else "not even batch 1",
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_figures_are_those_of_memory(two: Tab, dtype: str) -> None:
    """At every dtype and step, for batches from one image to the largest."""
    for step, batch in product(STEPS, (1, 2, 3, 10, 64, 999, 65_536)):
        two.choose_quickly(batch, dtype, step)
        for number, name in enumerate(NAMES):
            assert two.shown(number).items() >= figures(name, batch, dtype, step).items(), (name, step, batch)


def test_a_person_changes_the_figures(two: Tab) -> None:
    """Typing and choosing does it; sums over the layers and the captions follow."""
    for batch, dtype, step in ((64, "bfloat16", "adamw"), (7, "float64", "inference")):
        two.choose(batch, dtype, step)
        assert two.shown(0) == figures("D", batch, dtype, step) | card_figures("D", batch, dtype, step)
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


# On a card


def test_loops_run_as_in_vggkits_allocator(two: Tab) -> None:
    """In every dtype and step, with both kinds of segments, each step of a loop takes and retries as much.

    A loop of any batch up to the largest is tried on a card with room, and on one that lacks a little.
    """
    drawn = random.Random(1)
    cases, wanted = [], []
    for number, dtype, word in product(range(len(NAMES)), ("float32", "bfloat16", "float64"), STEPS):
        network = Network.of(NAMES[number])
        loop = step_of(network, checked_options(network, dtype=dtype, device="cuda", **STEPS[word])).loop
        for text in ALLOCATORS:
            batch = drawn.choice([1, 2, 65_536, drawn.randrange(1, 1000)])
            use = card_use(loop, batch, Settings.of(text))
            assert use is not None
            for share in (1, drawn.choice([0.9, 0.95, 0.99])):
                room = int(share * use.reserved_bytes)
                cases.append((number, dtype, word, batch, room, text == EXPANDABLE))
                steps = run(loop, batch, room, Settings.of(text))
                wanted.append([one and [one.allocated, one.reserved, one.retries] for one in steps])
    assert {(steps[-1] is None, bool(steps[-1] and steps[-1][2])) for steps in wanted} == {
        (False, False),  # some run at once,
        (False, True),  # some with retries,
        (True, False),  # and some run out of memory
    }
    assert two.play(cases) == wanted


def test_sums_that_are_made_at_once_take_no_block(two: Tab) -> None:
    """A storage without bytes at a batch asks for no segment; at a larger batch it has one."""
    split = [1, 16, 256, 432, 256]
    reserved = two.page.evaluate(
        """size => [1, 5000].map(batch => {
            const loop = { sizes: [size], before: [], first: [1, -1], later: [1, -1] };
            return steadyUse(loop, batch, false).reserved;
        })""",
        [0, 512, *split],
    )
    assert reserved == [0, 2 << 20]


@pytest.mark.parametrize(("allocator", "batches"), [("", (64, 292, 293, 294)), (EXPANDABLE, (64, 324, 325))])
def test_loops_run_as_in_torchs_allocator(two: Tab, cards: Cards, allocator: str, batches: tuple[int, ...]) -> None:
    """On 24 GiB the same batches of D run, with the same figures in each step, and the same run out of memory."""
    played = two.play([(0, "float32", "sgd-momentum", batch, 24 * GIB, allocator == EXPANDABLE) for batch in batches])
    assert {steps[-1] is None for steps in played} == {True, False}
    for batch, steps in zip(batches, played):
        said = cards("play_steps.py", 24 * GIB, allocator).ask(name="D", batch=batch, steps=len(steps))
        assert [one and [one["allocated"], one["reserved"], one["retries"]] for one in said] == steps, batch


def test_the_tensors_on_a_card_are_those_of_memory(two: Tab) -> None:
    """The most bytes of a step that are alive at one moment, in every step, without what the step before leaves."""
    cases = list(product(range(len(NAMES)), ("float32", "float16"), STEPS, (1, 63)))
    counted = two.page.evaluate(
        """cases => cases.map(([network, dtype, step, batch]) =>
            tensorBytes(loopOf(data.networks[network].loops, dtype, step), batch))""",
        cases,
    )
    assert counted == [
        vggkit.memory(NAMES[number], batch=batch, dtype=dtype, device="cuda", **STEPS[step]).peak_bytes
        for number, dtype, step, batch in cases
    ]


CHOSEN: list[dict[str, Any]] = [
    {"card": "24", "context": CONTEXT_MIB},
    {"card": "6.5", "context": 0},
    {"card": "6.5", "context": 300, "allocator": EXPANDABLE},
    {"card": "4.123", "context": 0, "step": "adamw", "dtype": "bfloat16"},
    {"card": "4.123", "context": 1, "step": "adamw", "dtype": "bfloat16", "allocator": EXPANDABLE},
    {"card": "1.605", "context": 0, "step": "sgd"},
    {"card": "0.001", "context": 0, "step": "inference"},
    {"card": "2", "context": 500, "step": "inference", "dtype": "float16"},
    {"card": "5", "context": 1, "step": "none", "dtype": "float64"},
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: ", ".join(map(str, chosen.values())))
def test_the_figures_on_a_card_are_those_of_memory_and_fit(two: Tab, chosen: dict[str, Any]) -> None:
    """For small and large cards, with CUDA's context and without, and with the allocator's settings."""
    dtype, step = chosen.get("dtype", "float32"), chosen.get("step", "sgd-momentum")
    on_card = {word: chosen.get(word, "") for word in ("card", "context", "allocator")}
    two.page.get_by_label("CUDA context, MiB").fill(str(chosen["context"]))
    two.page.get_by_label("Allocator").select_option(on_card["allocator"])
    for batch in (1, 64):
        two.choose(batch, dtype, step, chosen["card"])
        for number, name in enumerate(NAMES):
            wanted = card_figures(name, batch, dtype, step, **on_card)
            assert two.shown(number).items() >= wanted.items(), name
    for number, name in enumerate(NAMES):
        fits = vggkit.max_batch(
            name,
            f"{chosen['card']}GiB",
            context=chosen["context"] * MIB,
            dtype=dtype,
            device="cuda",
            allocator=on_card["allocator"],
            **STEPS[step],
        )
        assert two.largest(number) == (f"batch {fits:,}" if fits else "not even batch 1")
    said = f"On a card of {chosen['card']} GiB less CUDA's {chosen['context']} MiB"
    ending = ", expandable segments" if on_card["allocator"] else ""
    assert f"{said}{ending}: batch 64, {dtype}, " in two.page.locator("#card-table").inner_text()


def test_every_choice_has_its_own_largest_batch(two: Tab) -> None:
    """What was found for one kind of segments is not shown for the other, and is there when it is chosen again."""
    two.choose(1, "float32", "sgd-momentum", "6")
    found = []
    for allocator in ("", EXPANDABLE, ""):
        two.page.get_by_label("Allocator").select_option(allocator)
        found.append(two.largest(0))
        assert found[-1] == f"batch {vggkit.max_batch('D', '6GiB', context=CONTEXT_MIB * MIB, allocator=allocator)}"
    assert found[0] != found[1]


def test_of_very_many_batches_some_are_tried(two: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where vggkit tries every tenth or hundredth, the page tries the same ones."""
    exact = vggkit.max_batch("D", "24GiB", context=0)
    two.page.get_by_label("CUDA context, MiB").fill("0")
    for most in (30, 10):
        monkeypatch.setattr(card_fit, "MOST_TRIED", most)
        two.page.evaluate("most => { rules.most_tried = most; searches.clear(); }", most)
        for card in ("4", "24"):
            two.choose(1, "float32", "sgd-momentum", card)
            for number, name in enumerate(NAMES):
                assert two.largest(number) == f"batch {vggkit.max_batch(name, f'{card}GiB', context=0)}"
        assert two.largest(0) != f"batch {exact}"  # larger ones happen to run, and what lies between is not tried


def test_a_new_search_ends_an_older_one(two: Tab) -> None:
    """If another card is chosen while the page looks for the largest batch, the figure is that of the last card."""
    shown, were_busy = two.page.evaluate(
        """async () => {
            const busy = () => document.querySelector("[aria-busy]") !== null;
            const searches = ["80", "6"].map(card => {
                document.getElementById("card").value = card;
                return [search(choice()), busy()];
            });
            await Promise.all(searches.map(([done]) => done));
            return [document.querySelector("[data-largest]").textContent, [...searches.map(([, was]) => was), busy()]];
        }"""
    )
    assert were_busy == [True, True, False]
    assert shown == f"batch {vggkit.max_batch('D', '6GiB', context=CONTEXT_MIB * MIB)}"


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


CONTEXT = "CUDA context: expected a whole number of MiB from 0, less than the card has, found "


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
        ("CUDA context, MiB", "", f"{CONTEXT}nothing."),
        ("CUDA context, MiB", "-1", f"{CONTEXT}-1."),
        ("CUDA context, MiB", "0.5", f"{CONTEXT}0.5."),
        ("CUDA context, MiB", "24576", f"{CONTEXT}24576."),
    ],
)
def test_a_wrong_value_is_told_and_changes_nothing(two: Tab, label: str, value: str, message: str) -> None:
    """The message says what was expected and found, and goes with the next right value."""
    two.largest(0)
    before = two.shown(0)
    control = two.page.get_by_label(label)
    control.fill(value)
    assert two.page.get_by_role("alert").inner_text() == message
    assert control.get_attribute("aria-invalid") == "true"
    assert two.shown(0) == before
    control.fill("2")
    assert two.page.locator("#message").inner_text() == ""
    assert control.get_attribute("aria-invalid") is None
    batch, card = (2 if "Batch" in label else 1), ("2" if "Card" in label else "24")
    context = 2 if "CUDA" in label else CONTEXT_MIB
    wanted = figures("D", batch, "float32", "sgd-momentum")
    assert two.shown(0) == wanted | card_figures("D", batch, "float32", "sgd-momentum", card, context)


def test_a_card_smaller_than_cudas_context_is_told(two: Tab) -> None:
    """The message is about the context, which no longer fits."""
    two.page.get_by_label("Card, GiB").fill("0.4")
    assert two.page.get_by_role("alert").inner_text() == f"{CONTEXT}{CONTEXT_MIB}."
    assert two.page.get_by_label("CUDA context, MiB").get_attribute("aria-invalid") == "true"


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
    assert {
        "theme",
        "batch",
        "dtype",
        "step",
        "card",
        "context",
        "allocator",
        "network-0-tab",
        "MACs",
        "output shape",
    } <= reached


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
    """What is written in it is what the script writes at first, but for the largest batch, which is not looked for.

    Every network is open, and no dead control is there.
    """
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files[name].as_uri())
    assert not page.locator("#controls").is_visible()
    assert page.locator("noscript").inner_text().startswith("The figures are those of batch ")
    assert all(one.is_visible() for one in page.locator("article.network").all())
    live = "[data-figure], [data-macs], [data-elements], [data-chosen]"
    written = [one.text_content() for one in page.locator(live).all()]
    assert set(page.locator("[data-largest]").all_text_contents()) == {"needs JavaScript"}
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

"""The page of a report, read as text: it is whole, needs nothing else, and has the right figures in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings

import vggkit
from tests.drawn import networks
from vggkit.base.eager import Storage
from vggkit.base.numbers import grouped, megabytes
from vggkit.footprint.card import Loop
from vggkit.footprint.fit import LinearStep
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import checked_options
from vggkit.network import ELEMENT_BYTES, Network
from vggkit.pictures.report import page
from vggkit.pictures.report.page import STEPS
from vggkit.pictures.report.report import report
from vggkit.pictures.web import embedded

SIX = ("A", "A-LRN", "B", "C", "D", "E")
VOID = {"meta", "input", "br", "link", "img", "hr"}
NASTY = "</script><!--<b>&\"'"


class Reader(HTMLParser):
    """Reads a page: its elements with their attributes, its texts by element, what is not closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if len({name for name, _ in attrs}) < len(attrs):
            self.wrong.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def values(self, attribute: str) -> list[str]:
        """Return every value of an attribute."""
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="module")
def six() -> str:
    """Make the page of the paper's six."""
    return report(*SIX).to_html()


def nasty() -> str:
    """Make the page of two networks whose every text is meant to break out of its place."""
    text = json.dumps({"name": NASTY, "source": NASTY, "note": NASTY, "input": "3x8x8", "blocks": [["conv3-4"]]})
    return report(vggkit.loads(text), vggkit.loads(text)).to_html()


def data(text: str) -> Any:
    """Return what a page has for its script."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_six_configurations_are_less_than_a_megabyte(six: str) -> None:
    """The whole page."""
    assert len(six.encode()) < 10**6


@pytest.mark.parametrize("name", ["D", "six", "nasty"])
def test_elements_are_closed_and_ids_are_unique_and_found(name: str, six: str) -> None:
    """What an attribute names is there once."""
    read = Reader({"D": lambda: report("D").to_html(), "six": lambda: six, "nasty": nasty}[name]())
    assert read.wrong == []
    ids = read.values("id")
    assert len(set(ids)) == len(ids)
    named = {word for name in ("aria-labelledby", "aria-describedby", "aria-controls") for value in read.values(name)
             for word in value.split()}  # fmt: skip
    named |= set(read.values("for"))
    named |= {value[1:] for value in read.values("href") if value.startswith("#")}
    named |= {value for text in read.values("clip-path") for value in re.findall(r"url\(#(.*?)\)", text)}
    assert named <= set(ids)


def test_nothing_of_the_page_lies_elsewhere(six: str) -> None:
    """No address but of places in the page and pictures in it, and a policy that forbids the network."""
    read = Reader(six)
    addresses = [value for name in ("href", "src", "action", "xlink:href") for value in read.values(name)]
    assert addresses
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in addresses)
    assert not re.search(r"https?:|@import|url\((?!#)", re.sub(r"<(pre|p)\b.*?</\1>", "", six, flags=re.DOTALL))
    (policy,) = [value for value in read.values("content") if value.startswith("default-src")]
    scripts = re.findall(r"<script>(.*?)</script>", six, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_every_figure_is_there(six: str) -> None:
    """Of each row of each network, of the totals, of the plan; the notation, and the layers side by side."""
    texts = [text for _, text in Reader(six).texts]
    for name in SIX:
        summary, plan = vggkit.summarize(name), vggkit.memory(name)
        for row in summary:
            wanted = {row.name, row.notation, "×".join(map(str, row.output_shape)), str(row.receptive_field[0])}
            numbers = (row.weights, row.biases, row.parameters, row.multiply_accumulates)
            assert wanted | {grouped(number) for number in numbers if number} <= set(texts)
            assert megabytes(row.activation_bytes) in texts
        totals = summary.totals
        assert {grouped(totals.weights), grouped(totals.parameters), grouped(totals.multiply_accumulates)} <= set(texts)
        assert {grouped(size) for size in plan.by_kind.values() if size} <= set(texts)
        wanted = {grouped(plan.peak_bytes), plan.peak_at, megabytes(plan.saved_for_backward_bytes)}
        assert wanted | {megabytes(plan.steady_bytes)} <= set(texts)
        on_card = vggkit.memory(name, device="cuda")
        assert on_card.allocated_bytes is not None
        assert on_card.reserved_bytes is not None
        assert {megabytes(on_card.allocated_bytes), grouped(on_card.reserved_bytes), "runs"} <= set(texts)
        assert vggkit.dump(name).strip() in texts
    assert {"conv1-512", "LRN", "27.3 / 8.8", "1.041", "89.4 %"} <= set(texts)


def test_texts_of_a_configuration_stay_texts() -> None:
    """A name, a source and a note of markup are shown as they are, and end no script."""
    text = nasty()
    assert NASTY not in text
    read = Reader(text)
    assert read.wrong == []
    assert [tag for tag, _ in read.elements].count("script") == 2
    shown = [text for _, text in read.texts]
    assert shown.count(NASTY) >= 4


def test_data_may_hold_any_text() -> None:
    """It is the same when it is read again, and has no sign that HTML would take for its own."""
    text = embedded({"event": f"forward of {NASTY}\u2028"})
    assert "<" not in text
    assert json.loads(text) == {"event": f"forward of {NASTY}\u2028"}


# What the script computes with


def assert_data_is_the_plans(text: str, *networks: Network) -> None:
    """Evaluate the lines of a page as its script does, and hold them against the plan."""
    read = data(text)
    for network, one in zip(networks, read["networks"]):
        for dtype in ELEMENT_BYTES:
            for word, options in STEPS.items():
                step = one["steps"][one["step_of"][dtype][word]]
                for batch in (read["smallest_batch"], 2, 3, 17, 64, read["largest_batch"]):
                    plan = vggkit.memory(network, batch=batch, dtype=dtype, **options)

                    def at(line: Any, batch: int = batch) -> int:
                        constant, per_image = line
                        return int(constant + per_image * batch)

                    peak = max(step["moments"], key=lambda moment: at(moment["size"]))
                    assert (peak["event"], at(peak["size"])) == (plan.peak_at, plan.peak_bytes)
                    assert dict(zip(read["kinds"], map(at, peak["by_kind"]))) == plan.by_kind
                    assert at(step["saved_for_backward"]) == plan.saved_for_backward_bytes
                    assert step["steady_bytes"] == plan.steady_bytes


def test_the_embedded_lines_are_the_memory_of_the_six(six: str) -> None:
    """For every dtype and step, from one image to the most that the control takes."""
    assert_data_is_the_plans(six, *map(Network.of, SIX))


@given(networks())
@settings(max_examples=8, deadline=None)
def test_so_they_are_of_any_network(network: Network) -> None:
    """Random small networks with every kind of layer."""
    text = embedded(page.data(report(network, batch=2)))
    script = f'<script type="application/json" id="data">{text}</script>'
    assert_data_is_the_plans(script, network)
    assert_loops_are_the_steps(script, network)


def in_sizes(loop: Loop) -> list[tuple[int, ...]]:
    """Return three steps of a loop: of an allocation what its size follows from, of an end -1 and which."""
    allocations: dict[Storage, list[int]] = {}
    said = []
    for count, (_, storage, is_allocation) in enumerate([*loop.before, *loop.first, *loop.later, *loop.later]):
        if is_allocation:
            allocations.setdefault(storage, []).append(count)
            said.append(storage.rule)
        else:
            said.append((-1, allocations[storage].pop(0)))
    return said


def read_in_sizes(loops: Any, dtype: str, step: str) -> list[tuple[int, ...]]:
    """Return the same, as a page's script reads it."""
    read = loops["of"][dtype][step]
    storages = [size for place in read["storages"] for size in loops["storages"][place]]
    parts = [*read["before"], *read["first"], *read["later"], *read["later"]]
    allocations: dict[int, list[int]] = {}
    said = []
    for count, event in enumerate(event for part in parts for event in loops["parts"][part]):
        if event > 0:
            allocations.setdefault(event, []).append(count)
            said.append(tuple(loops["sizes"][storages[event - 1]]))
        else:
            said.append((-1, allocations[-event].pop(0)))
    return said


def assert_loops_are_the_steps(text: str, *networks: Network) -> None:
    """Hold the allocations in a page against those of the steps."""
    for network, one in zip(networks, data(text)["networks"]):
        for dtype in ELEMENT_BYTES:
            for word, options in STEPS.items():
                step = step_of(network, checked_options(network, dtype=dtype, batch=2, device="cuda", **options))
                assert read_in_sizes(one["loops"], dtype, word) == in_sizes(step.loop), (network.name, dtype, word)


def test_the_embedded_loops_are_the_allocations_of_the_six(six: str) -> None:
    """Of every dtype and step, in order, and each is freed when it is freed in the step."""
    assert_loops_are_the_steps(six, *map(Network.of, SIX))


def test_what_loops_share_is_in_the_page_once(six: str) -> None:
    """Every training step of a network has the same forward and backward pass, whatever the optimizer and dtype."""
    for one in data(six)["networks"]:
        loops = one["loops"]
        for lists in ("sizes", "storages", "parts"):
            assert len(set(map(tuple, loops[lists]))) == len(loops[lists])
        training = [loop for of_dtype in loops["of"].values() for word, loop in of_dtype.items() if word != "inference"]
        assert len({tuple(loop["first"][:2]) for loop in training}) == 1


def test_only_the_lines_that_matter_are_in_the_page(six: str) -> None:
    """A step of a hundred moments needs a few."""
    for one in data(six)["networks"]:
        assert all(len(step["moments"]) <= 6 for step in one["steps"])


def test_a_step_is_written_with_every_line() -> None:
    """Nothing of what was computed is lost on the way."""
    step: LinearStep = report("A", input="3x32x32").networks[0].steps["float64"]["adam"]
    one = data(report("A", input="3x32x32").to_html())["networks"][0]
    read = one["steps"][one["step_of"]["float64"]["adam"]]
    assert [moment["event"] for moment in read["moments"]] == [moment.event for moment in step.moments]
    assert [tuple(moment["size"]) for moment in read["moments"]] == [moment.size for moment in step.moments]

"""All strategies side by side: each figure is that of `memory`, and what fits is what an exhaustive walk finds."""

from __future__ import annotations

import json
import shlex
from itertools import count
from typing import Any

import pytest

import vggkit
from tests.cli.test_app import printed, run, told
from vggkit import GroupPlan, StrategyPlan
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import run as played
from vggkit.footprint.card_fit import room_of
from vggkit.footprint.group_plan import PLAN_KEYWORDS, SORTS
from vggkit.footprint.ranks import STRATEGIES, Alone
from vggkit.footprint.sharing import sharings
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network

SMALL = {"input": "3x32x32", "width": 0.25, "num_classes": 10}
LOOPS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "batch_norm": True},
    {"optimizer": "adam", "foreach": True},
    {"accumulate": 3, "ema": True, "dtype": "bfloat16"},
    {"freeze": "block1", "clip_grad": True, "checkpoint": "block2"},
    {"optimizer": "none"},
    {"step_in_backward": True},
]


def of_way(way: StrategyPlan, ranks: int) -> dict[str, Any]:
    """Return the keywords of `memory` that ask for a way."""
    return {"ranks": ranks, "parallel": way.parallel, **way.options}


@pytest.mark.parametrize("loop", LOOPS, ids=str)
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_row_is_what_memory_says_of_that_strategy(ranks: int, loop: dict[str, Any]) -> None:
    """Of what is the same images whatever the ranks do; a row without figures has the reason that `memory` gives."""
    options = {**SMALL, **loop}
    found = vggkit.plan("A", ranks=ranks, batch=12 * ranks, **options)
    assert found.images == 12 * ranks
    assert len(found.runnable) > 0 or "step_in_backward" in loop
    for way in found:
        if way.reason is not None:
            with pytest.raises(ArgumentError) as refused:
                vggkit.memory("A", **of_way(way, ranks), **options)
            assert str(refused.value) == way.reason
            continue
        alone = vggkit.memory("A", batch=way.batch, **of_way(way, ranks), **options)
        assert alone.images == way.batches * way.batch * loop.get("accumulate", 1) == found.images
        assert (way.peak_bytes, way.fullest) == (alone.peak_bytes, alone.options.group.rank)
        assert way.sent_bytes == max(rank.sent_bytes for rank in alone.by_rank)
        assert way.received_bytes == max(rank.received_bytes for rank in alone.by_rank)
        assert (way.reserved_bytes, way.retries, way.fits, way.largest) == (None, None, None, None)


def test_on_a_card_each_row_has_what_the_allocator_reserves() -> None:
    """Where that is known; elsewhere tensors are counted, and the table says so."""
    found = vggkit.plan("A", ranks=4, batch=64, device="cuda", **SMALL)
    counted = []
    for way in found.runnable:
        asked = {"batch": way.batch, **of_way(way, 4), **SMALL}
        try:
            plan = vggkit.memory("A", device="cuda", **asked)
        except ArgumentError:
            plan = vggkit.memory("A", **asked)
            counted.append(way.label)
        assert (way.reserved_bytes, way.held_bytes) == (plan.reserved_bytes, max(rank.bytes for rank in plan.by_rank))
    assert {"ddp", "zero1"} & {*counted} == set()
    assert (f"Of {', '.join(counted)} tensors are counted" in str(found)) == bool(counted)


def test_the_most_images_are_found_by_an_exhaustive_walk() -> None:
    """Every smaller number has room on all ranks, and the next one has not."""
    limit = vggkit.memory("A", batch=40, **SMALL).peak_bytes
    found = vggkit.plan("A", ranks=4, batch=96, card=limit, **SMALL)
    assert {way.fits for way in found.runnable} == {True, False}
    for way in found.runnable:
        parts = {"pipeline": 4, "pipeline+ddp": 2}.get(way.parallel, 1)  # as many microbatches as stages
        asked = {**of_way(way, 4), **SMALL, **({"microbatches": parts} if parts > 1 else {})}
        first = next(n for n in count(parts, parts) if vggkit.memory("A", batch=n, **asked).peak_bytes > limit)
        assert way.largest == (first - parts) * way.batches
        assert way.fits == (way.peak_bytes <= limit)
    assert found.room is not None
    assert f"{found.room.bytes}" == str(limit)


def test_on_a_card_all_ranks_must_run() -> None:
    """Each rank's loop is played on the card; the most images are those of the rank that runs the fewest."""
    asked: dict[str, Any] = {"ranks": 3, "parallel": "zero1", "optimizer": "adamw"}
    network, size = Network.of("A", **SMALL), 80 << 20
    room = room_of(size, 0, 0)
    [way] = [
        way
        for way in vggkit.plan(network, ranks=3, batch=123, card=size, context=0, optimizer="adamw")
        if way.parallel == "zero1"
    ]
    ends = []
    for rank in range(3):
        options = checked_options(network, batch=41, rank=rank, device="cuda", **asked)
        ends.append(played(step_of(network, options).loop, 41, room.card.total_bytes, Settings())[-1])
    assert way.fits == (None not in ends)
    each = [vggkit.max_batch(network, size, context=0, rank=rank, **asked) for rank in range(3)]
    assert way.largest == 3 * min(each) > 0
    assert len(set(each)) > 1


def test_the_front_is_what_nothing_else_beats() -> None:
    """By brute force: no other holds and sends as little, and less of one of them."""
    for source, options in (("D", {}), ("A", SMALL)):
        found = vggkit.plan(source, ranks=8, batch=64, **options)
        same = [(way.held_bytes, way.sent_bytes) for way in found.runnable if not way.changes_result]
        for way in found.runnable:
            own = (way.held_bytes, way.sent_bytes)
            beaten = any(held <= own[0] and sent <= own[1] and (held, sent) != own for held, sent in same)
            assert way.on_front == (own in same and not beaten)
        assert found.front() == tuple(way for way in found.runnable if way.on_front) != ()


@pytest.mark.parametrize("ranks", [2, 6, 8])
def test_every_strategy_is_there_with_options_that_it_has(ranks: int) -> None:
    """First as it is, then with what is worth comparing; what is typed asks `memory` for the same."""
    ways = list(sharings(ranks))
    assert list(dict.fromkeys(way.strategy for way in ways)) == [
        kind for kind in STRATEGIES.values() if kind is not Alone
    ]
    assert len({str(way.options) for way in ways}) == len(ways)
    for way in ways:
        assert set(way.choice.options) <= set(way.strategy.takes)


def test_what_is_typed_asks_for_the_same() -> None:
    """Each row's options can be pasted behind `vggkit memory`."""
    found = vggkit.plan("A", ranks=4, batch=16, **SMALL)
    changed = shlex.split("--input 3x32x32 --set width=0.25 --set num_classes=10 --ranks 4 --format json")
    for way in found.runnable:
        said = json.loads(printed("memory", "A", *changed, "--batch", str(way.batch), *way.typed.split()))
        assert said["peak_bytes"] == way.peak_bytes
        assert {word: said[word] for word in way.options} == way.options


def test_images_that_cant_be_shared_out_evenly_are_the_reason() -> None:
    """Of the strategies that would have to; those that have all images on all ranks go on."""
    found = vggkit.plan("A", ranks=4, batch=30, accumulate=2, **SMALL)
    reasons = {way.parallel: way.reason for way in found}
    assert reasons["ddp"] == "batch: expected a multiple of 8, found 30"
    text = str(vggkit.plan("D", ranks=3, batch=8))
    assert "ddp, ddp-view, zero1, fsdp" in text
    assert "can't be used: batch: expected a multiple of 3, found 8." in text
    assert "tensor+ddp can't be used: ranks: parallel tensor+ddp expected a product of two numbers above 1" in text


@pytest.mark.parametrize("figure", SORTS)
def test_strategies_are_sorted(figure: str) -> None:
    """From the least or from the most; those that can't be used come last."""
    asked: dict[str, Any] = {"ranks": 3, "batch": 9, "card": "4GB"}
    for sort in (figure, f"-{figure}"):
        found = vggkit.plan("D", sort=sort, **asked)
        values = [SORTS[figure](way) for way in found]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=sort.startswith("-"))
        assert values == [*known, *[None] * (len(values) - len(known))]
        assert {way.label for way in found} == {way.label for way in vggkit.plan("D", **asked)}


def test_the_json_has_every_field() -> None:
    """What the step is like without one strategy's options, the card, and each strategy as it is."""
    found = vggkit.plan("A", ranks=2, batch=4, card="RTX 3090", device="cpu", optimizer="adamw", **SMALL)
    said = found.to_dict()
    assert said == json.loads(json.dumps(said))
    step = {word: said[word] for word in PLAN_KEYWORDS}
    assert (step["optimizer"], step["device"], said["card"]) == ("adamw", "cpu", "RTX 3090")
    assert [said[word] for word in ("name", "ranks", "images")] == ["A", 2, 4]
    assert [tuple(way) for way in said["strategies"]] == [StrategyPlan.__struct_fields__] * len(found)
    assert found.to_csv().splitlines()[0].split(",") == list(StrategyPlan.__struct_fields__)
    assert found.to_dataframe().shape[0] == len(found)


def test_the_command_prints_what_the_function_returns() -> None:
    """And ends with 1 if nothing has room, or no strategy can be used."""
    found = vggkit.plan("D", ranks=8, batch=256, card="24GiB", sort="sent")
    assert isinstance(found, GroupPlan)
    assert printed("plan", "D", "--ranks", "8", "--batch", "256", "--card", "24GiB", "--sort", "sent") == f"{found}\n"
    assert run("plan", "D", "--ranks", "8", "--batch", "256", "--card", "1GB").exit_code == 1
    assert run("plan", "D", "--ranks", "1009", "--batch", "8").exit_code == 1
    assert vggkit.plan("D", ranks=8).images == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ranks", "1"], "Error: ranks: expected a whole number from 2 to 4096, found 1"),
        (["--ranks", "2", "--card", "24"], "Error: --card: expected a number and a unit"),
        (["--ranks", "2", "--context", "1GB"], "Error: --context: needs --card, such as --card 24GiB"),
        (["--ranks", "2", "--workspace", "1GB"], "Error: --workspace: needs --card, such as --card 24GiB"),
        (["--ranks", "2", "--sort", "memory"], "Error: sort: expected one of held, sent, received, images"),
        (["--ranks", "2", "--optimizer", "adan"], "Error: optimizer: expected one of"),
        (["--ranks", "2", "--plot", "x.html"], "Error: --plot: expected a file that ends in .svg, .png or .pdf"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(arguments: list[str], said: str) -> None:
    """In one line, before anything is worked out."""
    text = told("plan", "D", *arguments)
    assert text.startswith(said)
    assert text.count("\n") == 1


def test_the_function_names_what_is_wrong_too() -> None:
    """A card that isn't there has no context, and a strategy can't be asked for."""
    with pytest.raises(ArgumentError, match="context: needs a card, such as 24GiB"):
        vggkit.plan("D", ranks=2, context="1GB")
    with pytest.raises(ArgumentError, match="parallel"):
        vggkit.plan("D", ranks=2, parallel="ddp")  # type: ignore[call-arg]  # wrong on purpose

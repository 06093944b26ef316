"""The search, held against every combination of changes, each tried by itself."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, combinations, product
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.remedies.macs import recomputed_macs
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import run
from vggkit.footprint.remedies import bounds, search
from vggkit.footprint.steps import refusals, step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.footprint.steps.step import Step
from vggkit.network import Network

TINY = Network.of(
    vggkit.loads(
        "{input: 4x16x16, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool], [conv3-16, gelu], [conv3-32, maxpool]],"
        " classifier: [FC-300, FC-5]}"
    )
)
BLOCKS = ("block1", "block2", "block3")

Choice = dict[str, Any]


BATCH = 49
"""It has two divisors that make it smaller."""


def choices(device: str) -> dict[str, list[Choice]]:
    """Return what each kind may change of a step with AdamW in float32, the mildest first, as its page has it."""
    is_cuda = device == "cuda"
    kinds: dict[str, list[Choice]] = {
        "optimizer": [{"optimizer": "sgd-momentum"}, {"optimizer": "sgd"}],
        "freeze": [{"freeze": BLOCKS[:number]} for number in (1, 2, 3)],
        "autocast": [{"autocast": True}],
        "fused": [{"fused": True}],
        "foreach": [{"foreach": False}] if is_cuda else [],
        "step_in_backward": [{"step_in_backward": True}],
        "accumulate": [{"batch": 7, "accumulate": 7}, {"batch": 1, "accumulate": 49}],
        "allocator": [{"allocator": "expandable_segments:True"}] if is_cuda else [],
        "checkpoint": [{"checkpoint": chosen} for size in (1, 2, 3) for chosen in combinations(BLOCKS, size)],
    }
    return kinds


EXCLUSIVE = [{"fused", "foreach"}, {"step_in_backward", "accumulate"}]
"""Kinds of which torch, or the loop, has one at a time."""


def computes_something_else(options: Choice) -> bool:
    """Tell whether a step has another result; the batch norm is in the first block."""
    parts_its_statistics = "accumulate" in options and "block1" not in options.get("freeze", ())
    return parts_its_statistics or not {"optimizer", "freeze", "autocast"}.isdisjoint(options)


@cache
def macs(checkpoint: tuple[str, ...], freeze: tuple[str, ...]) -> int:
    """Return what torch runs again."""
    return recomputed_macs(TINY, checkpoint, freeze)


def runs(device: str, limit: int, options: Choice) -> bool:
    """Tell whether a step runs: by the plan's peak, or in a whole loop on a card."""
    given: Choice = {"batch": BATCH, "optimizer": "adamw", **options}
    if peak(device, str(options)) > limit:  # an allocator can't have less
        return False
    if device == "cpu":
        return True
    step = step_of(TINY, checked_options(TINY, device=device, **given))
    return run(step.loop, given["batch"], limit, Settings.of(options.get("allocator", "")))[-1] is not None


@cache
def peak(device: str, options: str) -> int:
    """Return the peak of a plan with changed options, which are written as Python has them."""
    given: Choice = {"batch": BATCH, "optimizer": "adamw", "device": device, **literal_eval(options)}
    return step_of(TINY, checked_options(TINY, **given)).peak.size


def every_way(device: str) -> Iterator[tuple[tuple[str, ...], Choice]]:
    """Yield each combination of up to three kinds with each of their choices."""
    kinds = choices(device)
    for names in chain.from_iterable(combinations(kinds, number) for number in (1, 2, 3)):
        exclusive = any(pair <= set(names) for pair in EXCLUSIVE)
        for chosen in product(*(kinds[name] for name in names)) if not exclusive else ():
            yield names, {word: value for choice in chosen for word, value in choice.items()}


def searched_by_hand(device: str, limit: int) -> set[tuple[tuple[str, ...], int]]:
    """Return the kinds and the cost of each way that gives up something which no other one keeps."""
    cheapest: dict[tuple[str, ...], int] = {}
    for names, options in every_way(device):
        if runs(device, limit, options):
            cost = macs(options.get("checkpoint", ()), options.get("freeze", ()))
            cheapest[names] = min(cost, cheapest.get(names, cost))
    return {
        (names, cost)
        for names, cost in cheapest.items()
        if not any(set(fewer) < set(names) and less <= cost for fewer, less in cheapest.items())
    }


def limits(device: str) -> list[int]:
    """Return sizes from what hardly anything makes fit to what nearly everything does."""
    if device == "cuda":
        return [number << 20 for number in range(1, 9)]
    lowest = min(peak(device, str(way)) for _, way in every_way(device))
    highest = peak(device, "{}")
    return [lowest + (highest - 1 - lowest) * number // 7 for number in range(8)]


CASES = [("cpu", number) for number in range(8)] + [("cuda", number) for number in range(8)]


@pytest.mark.parametrize("case", sample(CASES, [("cpu", 0), ("cpu", 1), ("cpu", 4), ("cuda", 0), ("cuda", 3)]))
def test_the_remedies_are_those_of_a_search_by_hand(case: tuple[str, int]) -> None:
    """Every combination is tried by itself, and torch's counter says what it runs again."""
    device, number = case
    limit = limits(device)[number]
    arguments: Choice = {"batch": BATCH, "optimizer": "adamw", "device": device}
    found = vggkit.remedies(TINY, limit, context=0, **arguments)
    expected = set() if found.fits else searched_by_hand(device, limit)
    assert {(remedy.kinds, remedy.recomputed_multiply_accumulates) for remedy in found} == expected
    for remedy in found:
        assert runs(device, limit, remedy.options)
        plan = vggkit.memory(TINY, **{**arguments, **remedy.options})
        assert remedy.peak_bytes == plan.peak_bytes
        assert remedy.changes_result == computes_something_else(remedy.options)
    if not expected and not found.fits:
        assert found.nearest is not None
        assert found.nearest.peak_bytes == min(peak(device, str(options)) for _, options in every_way(device))


RANKS, IMAGES = 4, 48
"""Of several ranks: how many there are, and images of a step of all of them."""


def choices_of_ranks(ways: Iterable[vggkit.StrategyPlan], batch: int) -> dict[str, list[Choice]]:
    """Return what each kind may change, where a batch has so many images."""
    parts = [number for number in range(2, batch + 1) if batch % number == 0]
    return {
        "parallel": [{"parallel": way.parallel, "batch": way.batch, **way.options} for way in ways],
        "optimizer": [{"optimizer": "sgd-momentum"}, {"optimizer": "sgd"}],
        "freeze": [{"freeze": BLOCKS[:number]} for number in (1, 2, 3)],
        "autocast": [{"autocast": True}],
        "fused": [{"fused": True}],
        "step_in_backward": [{"step_in_backward": True}],
        "accumulate": [{"batch": batch // number, "accumulate": number} for number in parts],
        "checkpoint": [{"checkpoint": chosen} for size in (1, 2, 3) for chosen in combinations(BLOCKS, size)],
    }


def every_way_of_ranks(parallel: str) -> Iterator[tuple[tuple[str, ...], Choice, int]]:
    """Yield combinations of up to two kinds, what they change, and the fullest rank's peak; not what is refused."""
    own = {"parallel": parallel, "batch": IMAGES // (1 if parallel in ("tensor", "pipeline") else RANKS)}
    ways = vggkit.plan(TINY, ranks=RANKS, batch=IMAGES).runnable
    others = [way for way in ways if way.options or way.parallel != parallel]
    kinds = choices_of_ranks(others, own["batch"])
    for names in chain.from_iterable(combinations(kinds, number) for number in (1, 2)):
        for first in kinds[names[0]]:
            again = choices_of_ranks(others, {**own, **first}["batch"])[names[1]] if names[1:] else [{}]
            for second in again:
                options = {**own, "optimizer": "adamw", "ranks": RANKS, **first, **second}
                try:
                    yield names, {**first, **second}, vggkit.memory(TINY, **options).peak_bytes
                except ArgumentError:
                    continue


PARALLEL = sample(["ddp", "ddp-view", "zero1", "fsdp", "tensor", "pipeline"], ["pipeline"])


@pytest.mark.parametrize("parallel", PARALLEL)
def test_the_remedies_of_several_ranks_are_those_of_a_search_by_hand(
    parallel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every combination of two kinds is planned by itself, other strategies with the same images included."""
    monkeypatch.setattr(search, "MOST_KINDS", 2)
    every = list(every_way_of_ranks(parallel))
    assert any("parallel" in names for names, _, _ in every)
    lowest, highest = (choose(peak for _, _, peak in every) for choose in (min, max))
    own = {"parallel": parallel, "batch": IMAGES // (1 if parallel in ("tensor", "pipeline") else RANKS)}
    for part in (-1, 1, 3, 6):
        limit = lowest + (highest - lowest) * part // 12
        found = vggkit.remedies(TINY, limit, ranks=RANKS, optimizer="adamw", **own)
        cheapest: dict[tuple[str, ...], int] = {}
        for names, options, peak in every:
            if peak <= limit:
                cost = macs(options.get("checkpoint", ()), options.get("freeze", ()))
                cheapest[names] = min(cost, cheapest.get(names, cost))
        expected = {
            (names, cost)
            for names, cost in cheapest.items()
            if not any(set(fewer) < set(names) and less <= cost for fewer, less in cheapest.items())
        }
        if found.fits:
            continue
        assert {(remedy.kinds, remedy.recomputed_multiply_accumulates) for remedy in found} == expected
        for remedy in found:
            asked = {"ranks": RANKS, "optimizer": "adamw", **own, **remedy.options}
            assert remedy.peak_bytes == vggkit.memory(TINY, **asked).peak_bytes <= limit
        if not expected:
            assert found.nearest is not None
            assert found.nearest.peak_bytes == lowest


def test_a_search_without_an_answer_does_not_try_every_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen equal blocks have 65,536 sets, and each of the other changes has them, too; some hundreds of walks do."""
    walks: list[StepOptions] = []

    def counted(network: Network, options: StepOptions) -> Step:
        walks.append(options)
        return step_of(network, options)

    for module in (bounds, refusals):
        monkeypatch.setattr(module, "step_of", counted)
    text = f"{{input: 2x8x8, blocks: [{', '.join(['[conv3-2, conv3-2]'] * 16)}], classifier: [FC-2]}}"
    found = vggkit.remedies(Network.of(vggkit.loads(text)), 5_000, optimizer="sgd")
    assert found.nearest is not None
    assert found.nearest.changes_result
    assert len(walks) < 1000

"""The search, held against every combination of changes, each tried by itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations, product
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.remedies.macs import recomputed_macs
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import run
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network

TINY = Network.of(
    vggkit.loads(
        "{input: 4x16x16, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool], [conv3-16, gelu], [conv3-32, maxpool]],"
        " classifier: [FC-300, FC-5]}"
    )
)
BLOCKS = ("block1", "block2", "block3")

Choice = dict[str, Any]


def choices(device: str) -> dict[str, list[Choice]]:
    """Return what each kind may change of a step with AdamW in float32, the mildest first, as its page has it."""
    kinds: dict[str, list[Choice]] = {
        "optimizer": [{"optimizer": "sgd-momentum"}, {"optimizer": "sgd"}],
        "freeze": [{"freeze": BLOCKS[:number]} for number in (1, 2, 3)],
        "autocast": [{"autocast": True}],
        "allocator": [{"allocator": "expandable_segments:True"}] if device == "cuda" else [],
        "checkpoint": [{"checkpoint": chosen} for size in (1, 2, 3) for chosen in combinations(BLOCKS, size)],
    }
    return kinds


@cache
def macs(checkpoint: tuple[str, ...], freeze: tuple[str, ...]) -> int:
    """Return what torch runs again."""
    return recomputed_macs(TINY, checkpoint, freeze)


def runs(batch: int, device: str, limit: int, options: Choice) -> bool:
    """Tell whether a step runs: by the plan's peak, or in a whole loop on a card."""
    given = {"batch": batch, "optimizer": "adamw", **options}
    if device == "cpu":
        return vggkit.memory(TINY, **given).peak_bytes <= limit
    step = step_of(TINY, checked_options(TINY, device=device, **given))
    return run(step.loop, batch, limit, Settings.of(options.get("allocator", "")))[-1] is not None


def every_way(device: str) -> Iterator[tuple[tuple[str, ...], Choice]]:
    """Yield each combination of up to three kinds with each of their choices."""
    kinds = choices(device)
    for names in chain.from_iterable(combinations(kinds, number) for number in (1, 2, 3)):
        for chosen in product(*(kinds[name] for name in names)):
            yield names, {word: value for choice in chosen for word, value in choice.items()}


def searched_by_hand(batch: int, device: str, limit: int) -> set[tuple[tuple[str, ...], int]]:
    """Return the kinds and the cost of each way that gives up something which no other one keeps."""
    cheapest: dict[tuple[str, ...], int] = {}
    for names, options in every_way(device):
        if runs(batch, device, limit, options):
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
    lowest = min(
        vggkit.memory(TINY, **{"batch": 64, "optimizer": "adamw", **way}).peak_bytes for _, way in every_way(device)
    )
    highest = vggkit.memory(TINY, batch=64, optimizer="adamw").peak_bytes
    return [lowest + (highest - 1 - lowest) * number // 7 for number in range(8)]


CASES = [("cpu", number) for number in range(8)] + [("cuda", number) for number in range(8)]


@pytest.mark.parametrize("case", sample(CASES, [("cpu", 0), ("cpu", 3), ("cpu", 7), ("cuda", 3), ("cuda", 5)]))
def test_the_remedies_are_those_of_a_search_by_hand(case: tuple[str, int]) -> None:
    """Every combination is tried by itself, and torch's counter says what it runs again."""
    device, number = case
    limit = limits(device)[number]
    arguments: Choice = {"batch": 64, "optimizer": "adamw", "device": device}
    found = vggkit.remedies(TINY, limit, context=0, **arguments)
    expected = set() if found.fits else searched_by_hand(64, device, limit)
    assert {(remedy.kinds, remedy.recomputed_multiply_accumulates) for remedy in found} == expected
    for remedy in found:
        assert runs(64, device, limit, remedy.options)
        plan = vggkit.memory(TINY, **{**arguments, **remedy.options})
        assert remedy.peak_bytes == plan.peak_bytes
    if not expected and not found.fits:
        peaks = [vggkit.memory(TINY, **{**arguments, **options}).peak_bytes for _, options in every_way(device)]
        assert found.nearest is not None
        assert found.nearest.peak_bytes == min(peaks)

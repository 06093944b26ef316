"""What lies where on a card, held against torch on a card that isn't there, and against the plan."""

from __future__ import annotations

import re
from typing import Any

import pytest

import vggkit
from tests.conftest import ROOT, sample
from tests.footprint.card import Cards
from vggkit.base.eager import MEMORY_KINDS
from vggkit.base.errors import ArgumentError
from vggkit.footprint.snapshot import Refusal, Snapshot, snapshot
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.network import Network
from vggkit.notation.overrides import Overrides

MIB, GIB = 1 << 20, 1 << 30
EXPANDABLE = "expandable_segments:True"


def looked_at(name: str, card_bytes: int | None = None, **arguments: Any) -> Snapshot:
    """Return a card in the steps of a network; the arguments are overrides and what the steps are like."""
    overrides: Any = {word: arguments.pop(word) for word in Overrides.__annotations__ if word in arguments}
    network = Network.of(name, **overrides)
    options = checked_options(network, device="cuda", **arguments)
    return snapshot(network, options) if card_bytes is None else snapshot(network, options, card_bytes)


REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "the third step": ("A", "", {"batch": 388}),
    "the fourth step": ("D", "", {"batch": 316}),
    "the first step": ("E", "", {"batch": 400, "optimizer": "adamw"}),
    "inference": ("A-LRN", "", {"batch": 2000, "mode": "inference"}),
    "small images": ("A", "", {"batch": 20_000, "input": "3x32x32", "num_classes": 10, "optimizer": "adam"}),
    "expandable segments": ("A", EXPANDABLE, {"batch": 488}),
}
"""Loops that run out of memory on 24 GiB: the network, the allocator's settings and what the steps are like."""


@pytest.mark.parametrize("words", sample([*REFUSED], [*REFUSED][:-1]))
def test_a_card_that_refuses_a_request_is_torchs(cards: Cards, words: str) -> None:
    """It has torch's segments and blocks, what was asked for each, what is left, the step and what it is refused."""
    name, settings, arguments = REFUSED[words]
    said = cards("play_steps.py", 24 * GIB, settings).ask(name=name, refused=True, steps=10, **arguments)
    seen = looked_at(name, 24 * GIB, allocator=settings, **arguments)
    segments = [
        ["small" if segment.is_small else "large", [[block.size, block.requested] for block in segment.blocks]]
        for segment in seen.segments
    ]
    assert segments == said["segments"]
    assert (seen.left_bytes, seen.step) == (said["left"], said["step"])
    assert seen.refusal is not None
    assert -(-seen.refusal.size // (2 * MIB)) * 2 * MIB == said["segment"]  # as large requests are rounded


def test_the_documentations_message_is_torchs(cards: Cards) -> None:
    """What the page "What the card takes" begins with is what torch says, word for word, to its last number."""
    said = cards("play_steps.py", 24 * GIB, "").ask(name="A", batch=388, refused=True, steps=10)
    page = (ROOT / "docs" / "card.md").read_text(encoding="utf-8")
    shown = " ".join(re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0].split())
    assert said["message"].startswith(f"{shown} If reserved but unallocated memory is large")
    assert said["step"] == 3


TRAINING: list[dict[str, Any]] = [
    {"batch": 64},
    {"batch": 2, "optimizer": "adamw"},
    {"batch": 8, "freeze": ["block1"], "checkpoint": ["block3"], "batch_norm": True},
]

STAGE: dict[str, Any] = {"batch": 8, "ranks": 2, "parallel": "pipeline", "cut": ["block3"], "rank": 1}
"""A step of a rank that runs a batch in parts."""


@pytest.mark.parametrize("settings", ["", EXPANDABLE])
@pytest.mark.parametrize("arguments", [*TRAINING, STAGE, {"mode": "inference"}], ids=str)
def test_a_card_that_is_never_full_is_shown_at_its_fullest(settings: str, arguments: dict[str, Any]) -> None:
    """Its blocks are what `memory` says is allocated, its segments what it says is reserved."""
    seen = looked_at("A", allocator=settings, **arguments)
    plan = vggkit.memory("A", device="cuda", allocator=settings, **arguments)
    assert (seen.allocated_bytes, seen.reserved_bytes) == (plan.allocated_bytes, plan.reserved_bytes)
    assert (seen.refusal, seen.is_bounded) == (None, False)


@pytest.mark.parametrize("arguments", TRAINING, ids=str)
def test_the_blocks_are_for_what_the_plan_says(arguments: dict[str, Any]) -> None:
    """Where each tensor has a block of its size, the fullest moment is the plan's peak, with as much of each kind."""
    seen = looked_at("A", allocator=EXPANDABLE, **arguments)
    plan = vggkit.memory("A", device="cuda", allocator=EXPANDABLE, **arguments)
    blocks = [block for segment in seen.segments for block in segment.blocks if not block.is_free]
    by_kind = {kind: sum(block.size for block in blocks if seen.kinds[block.address] == kind) for kind in MEMORY_KINDS}
    assert by_kind == plan.by_kind
    assert seen.event == plan.peak_at


def test_a_model_that_has_no_room_is_refused_before_the_first_step() -> None:
    """Its parameters lie there in order, up to the one that the card has no room for: fc1's weight."""
    seen = looked_at("D", 128 * MIB)
    assert (seen.step, seen.refusal) == (0, Refusal(4 * 512 * 7 * 7 * 4096, "parameters"))
    assert {*seen.kinds.values()} == {"parameters"}


def test_what_torch_refuses_to_run_has_no_snapshot() -> None:
    """Batch norm of a single value is refused as `memory` refuses it."""
    network = Network.of(vggkit.loads("{input: 1x1x1, blocks: [[{conv: 4, kernel: 1, norm: batch}]]}"))
    with pytest.raises(ArgumentError, match="batch 2 or more"):
        snapshot(network, StepOptions(device="cuda"))


def test_the_holes_come_largest_first() -> None:
    """They are the free blocks, and with the allocated bytes they are what is reserved."""
    seen = looked_at("A", batch=64)
    sizes = [hole.size for hole in seen.holes]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) + seen.allocated_bytes == seen.reserved_bytes
    assert len(sizes) == sum(block.is_free for segment in seen.segments for block in segment.blocks) > 0

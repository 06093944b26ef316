"""Drawn combinations of all that a step can be, each held against torch on the CPU and on a card that isn't there."""

from __future__ import annotations

import pickle

import pytest

from tests.footprint.card import Cards
from tests.footprint.grid import (
    EXPANDABLE,
    ROOMY,
    Question,
    assert_torchs_plan,
    drawn_perceptual_losses,
    drawn_steps,
    loop_of,
    network_of,
    of_drawn_networks,
    split,
)
from tests.footprint.test_viewer import assert_timelines, reserved_bytes
from vggkit.footprint.plan import MemoryPlan, plan_step
from vggkit.footprint.steps.options import checked_options
from vggkit.model.verify import MEMORY_CLAIMS
from vggkit.pictures import timeline

KINDS = {"steps": drawn_steps, "perceptual losses": drawn_perceptual_losses}
PICTURES = 50
"""One of so many timelines is drawn, which takes far longer than all else."""


@pytest.mark.filterwarnings("ignore:`parameters` is an empty generator")  # of clip_grad_norm_: a network may have none
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("steps", 12),
        ("perceptual losses", 6),
        pytest.param("steps", 300, marks=pytest.mark.slow),
        pytest.param("perceptual losses", 100, marks=pytest.mark.slow),
    ],
)
def test_combinations_have_torchs_figures(cards: Cards, kind: str, count: int) -> None:
    """Optimizers and their options, loops, parts frozen and checkpointed, dtypes, layers of every kind: all together.

    On the CPU the peak by kind is MemTracker's and what is saved is autograd's. On the card each step allocates and
    reserves what torch's allocator does, with both kinds of segments.
    """
    for number, question in enumerate(of_drawn_networks(count, KINDS[kind])):
        plan = planned(question, "cpu")
        claims = list(MEMORY_CLAIMS[plan.options.mode](plan))
        assert all(claim.holds for claim in claims), (question, claims)
        assert_timelines(plan)
        on_card = planned(question, "cuda")
        training = loop_of(question)
        assert training is not None
        for text in ("", EXPANDABLE):
            assert_torchs_plan(cards("play_steps.py", ROOMY, text), training, question, text)
        assert reserved_bytes(on_card) == on_card.reserved_bytes
        for each in (plan, on_card):
            assert_is_one(each)
            if number % PICTURES == 0:
                assert timeline.figure(each).axes


def planned(question: Question, device: str) -> MemoryPlan:
    """Return the plan of a question on a device."""
    network = network_of(question)
    _, options = split(question)
    return plan_step(network, checked_options(network, device=device, **options))


def assert_is_one(plan: MemoryPlan) -> None:
    """Hold a plan's figures, its timeline and the viewer's file against each other."""
    assert sum(plan.by_kind.values()) == plan.peak_bytes == max(moment.size for moment in plan.timeline)
    assert all(sum(moment.by_kind) == moment.size for moment in plan.timeline)
    assert pickle.loads(plan.to_pickle()) == plan.torch_snapshot()

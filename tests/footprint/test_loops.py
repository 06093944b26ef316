"""Training loops as people write them, held against MemTracker, and against torch on a card that isn't there."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card, Cards
from tests.footprint.grid import EXPANDABLE, ROOMY, assert_torchs_order, assert_torchs_steps
from tests.footprint.test_card import SMALL, WAYS, loop
from tests.footprint.updates import NETWORKS as SMALLEST
from tests.footprint.updates import cases, few, fewer, sampled
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import NONE, OPTIMIZERS, Update
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import MOST_ACCUMULATED, checked_options
from vggkit.model import verify
from vggkit.network import Network

LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "set to zero": {"zero_grad": "zero"},
    "accumulated twice": {"accumulate": 2},
    "accumulated, set to zero": {"accumulate": 3, "zero_grad": "zero"},
    "moving average": {"ema": True},
    "clipped": {"clip_grad": True},
    "in backward": {"step_in_backward": True},
    "in backward, moving average": {"step_in_backward": True, "ema": True},
    "all that go together": {"accumulate": 4, "ema": True, "clip_grad": True, "zero_grad": "zero"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "A": {},
    "batch norm": {"batch_norm": True},
    "no dropout": {"dropout": 0},
    "no FC layers": {"head": "gap"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd-momentum": {},
    "adamw": {"optimizer": "adamw"},
    "checkpointed": {"checkpoint": ["block1", "block3"]},
    "frozen": {"freeze": ["block1", "fc1"]},
    "all frozen": {"freeze": ["block1", "block2", "block3", "block4", "block5", "fc1", "fc2", "predictions"]},
    "autocast": {"autocast": True, "optimizer": "adamw"},
    "bfloat16": {"dtype": "bfloat16", "optimizer": "sgd"},
}
CASES = [
    f"{word}; {network}; {step}"
    for word, network, step in product(LOOPS, NETWORKS, OPTIONS)
    if not (network == "no FC layers" and "frozen" in step)
]
SOME = sample(
    CASES,
    [f"{word}; {others}" for word in LOOPS for others in ("A; adamw", "batch norm; checkpointed")],
)
"""A loop, a network and other options of the step."""


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A card with room for everything, with torch's own settings."""
    return cards("play_steps.py", ROOMY, "")


@pytest.mark.parametrize("case", SOME)
def test_each_loop_has_memtrackers_peak(case: str) -> None:
    """The peak by kind, and what is saved for the backward pass, equal their judges' where each option meets others."""
    word, network, step = case.split("; ")
    small = Network.of("A", **SMALL, **NETWORKS[network])
    for batch in (2, 50):
        options = checked_options(small, batch=batch, **LOOPS[word], **OPTIONS[step])
        plan = plan_step(small, options)
        assert plan.by_kind == verify.training_peak(small, options)
        assert plan.saved_for_backward_bytes == verify.saved_bytes(small, options)


@pytest.mark.parametrize("case", SOME)
def test_each_loop_is_allocated_and_freed_in_torchs_order(card: Card, case: str) -> None:
    """From an empty card through three steps torch asks for the same bytes, and gives the same back in between."""
    word, network, step = case.split("; ")
    question = {"name": "A", "batch": 2, **SMALL, **NETWORKS[network], **OPTIONS[step]}
    assert_torchs_order(card, {**question, "loop": LOOPS[word]})


@pytest.mark.parametrize("word", ["set to zero", "in backward", "all that go together"])
@pytest.mark.parametrize(("name", "update"), sampled(few(list(cases(WAYS))), fewer))
def test_each_optimizer_meets_each_loop(card: Card, name: str, update: Update, word: str) -> None:
    """With its options, in each of torch's implementations: MemTracker's peak, and torch's order on the card."""
    if (name, word) == (NONE, "in backward"):
        return  # refused
    network = Network.of(vggkit.loads(SMALLEST["weights first"]))
    options = checked_options(network, batch=2, optimizer=name, **update.given, **LOOPS[word])
    assert plan_step(network, options).by_kind == verify.training_peak(network, options)
    question = {"config": SMALLEST["weights first"], "batch": 2, "optimizer": name, **update.given}
    early = OPTIMIZERS[name].early_steps(update, "cuda")
    assert_torchs_order(card, {**question, "loop": LOOPS[word]}, early=early)


@pytest.mark.parametrize("word", LOOPS)
def test_each_loop_has_torchs_figures_on_a_card(cards: Cards, word: str) -> None:
    """The figures of each step of D equal those of torch's allocator, with both kinds of segments."""
    for text in ("", EXPANDABLE):
        training = loop(Network.of("D"), batch=8, optimizer="adamw", **LOOPS[word])
        question = {"name": "D", "batch": 8, "optimizer": "adamw", "loop": LOOPS[word]}
        assert_torchs_steps(cards("play_steps.py", ROOMY, text), training, question, ROOMY, text)


@pytest.mark.parametrize(
    ("options", "one", "many"),
    [
        ({"zero_grad": "zero"}, 2_144_622_064, 6_760_843_240),
        ({"ema": True}, 2_276_423_056, 6_897_315_720),
        ({"clip_grad": True}, 1_722_992_880, 6_343_885_544),
        ({"step_in_backward": True}, 1_591_191_888, 6_207_413_064),
        ({"step_in_backward": True, "optimizer": "adamw"}, 2_966_572_656, 7_575_439_464),
    ],
)
def test_the_published_figures_of_d(options: dict[str, Any], one: int, many: int) -> None:
    """D's loops need at batch 1 and 64 what MemTracker said when the design was written."""
    assert [vggkit.memory("D", batch=batch, **options).peak_bytes for batch in (1, 64)] == [one, many]


def test_eight_batches_of_eight() -> None:
    """However many batches are accumulated, the peak is that of the second, and that of gradients set to zero."""
    steps = [{"accumulate": 8}, {"accumulate": 2}, {"zero_grad": "zero"}]
    assert {vggkit.memory("D", batch=8, **options).peak_bytes for options in steps} == {2_657_535_528}


def test_every_batch_of_an_accumulation_is_in_the_timeline() -> None:
    """The timeline has each forward and backward pass once."""
    events = [moment.event for moment in vggkit.memory("A", accumulate=5).timeline]
    assert events.count("backward of predictions") == 5 * [
        moment.event for moment in vggkit.memory("A").timeline
    ].count("backward of predictions")


def test_what_stays_between_steps() -> None:
    """A moving average stays, batch norm's statistics with it; a step in the backward pass leaves no gradients."""
    parameters, buffers = 4 * 132_868_840, 4 * 5_504 + 8 * 8
    plain, average, alone = (
        vggkit.memory("A", batch=2, batch_norm=True, **options).steady_bytes
        for options in ({}, {"ema": True}, {"step_in_backward": True})
    )
    assert (average - plain, plain - alone) == (parameters + buffers, parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_grad": "none"}, "zero_grad: expected one of set_to_none, zero, found 'none'"),
        ({"accumulate": 0}, "accumulate: expected"),
        ({"accumulate": MOST_ACCUMULATED + 1}, "accumulate: expected a whole number from 1 to 1000, found 1001"),
        ({"accumulate": 2, "step_in_backward": True}, "accumulate: can't be combined with step_in_backward"),
        ({"clip_grad": True, "step_in_backward": True}, "clip_grad: can't be combined with step_in_backward"),
        ({"zero_grad": "zero", "step_in_backward": True}, "zero_grad: can't be combined with step_in_backward"),
        ({"optimizer": "none", "step_in_backward": True}, "step_in_backward: needs an optimizer, found none"),
        ({"mode": "inference", "ema": True}, "ema: needs mode training, found inference"),
        ({"mode": "inference", "accumulate": 2}, "accumulate: needs mode training, found inference"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    """Wrong values, and options that exclude each other, are refused in a line that names them."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("A", **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)

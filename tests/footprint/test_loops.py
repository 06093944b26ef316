"""Training loops as people write them, held against MemTracker, and against torch on a card that isn't there."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card, Cards
from tests.footprint.grid import (
    EXPANDABLE,
    ROOMY,
    WAYS,
    Question,
    assert_torchs_order,
    assert_torchs_plan,
    assert_torchs_steps,
    loop_of,
    network_of,
    split,
)
from tests.footprint.test_card import SMALL
from tests.footprint.updates import NETWORKS as SMALLEST
from tests.footprint.updates import cases, fewer, one_of_each, sampled
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import NONE, Update
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import MOST_ACCUMULATED, checked_options
from vggkit.model.verify import Trainer

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
    for (number, word), (turn, step) in product(enumerate(LOOPS), enumerate(OPTIONS))
    for network in ["A" if "frozen" in step else [*NETWORKS][(number + turn) % len(NETWORKS)]]
]
"""A loop, a network and other options of the step: each loop with each step, and each network with all of either."""
SOME = sample(CASES, [case for case in CASES if case.endswith(("; adamw", "; checkpointed"))])


def question_of(case: str) -> Question:
    """Return what the card's process is asked."""
    word, network, step = case.split("; ")
    return {"name": "A", "batch": 2, **SMALL, **NETWORKS[network], **OPTIONS[step], **LOOPS[word]}


def assert_memtrackers_peak(question: Question, *batches: int) -> None:
    """Hold the peak by kind, and what is saved for the backward pass, against their judges."""
    network = network_of(question)
    _, options = split(question)
    trainer = Trainer(network, checked_options(network, **options))
    for batch in batches:
        plan = plan_step(network, trainer.options.replace(batch=batch))
        assert plan.by_kind == trainer.training_peak(batch)
        assert plan.saved_for_backward_bytes == trainer.saved_bytes(batch)


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A card with room for everything, with torch's own settings."""
    return cards("play_steps.py", ROOMY, "")


@pytest.mark.parametrize("case", SOME)
def test_each_loop_has_memtrackers_peak(case: str) -> None:
    """On the CPU, where each option meets others; at two images, and at fifty, where activations make the peak."""
    assert_memtrackers_peak(question_of(case), 2, 50)


@pytest.mark.parametrize("case", SOME)
def test_each_loop_is_allocated_and_freed_in_torchs_order(card: Card, case: str) -> None:
    """From an empty card through three steps torch asks for the same bytes, and gives the same back in between."""
    assert_torchs_order(card, question_of(case))


@pytest.mark.parametrize("dropout", [0, 0.5])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("accumulate", [2, 3, pytest.param(8, marks=pytest.mark.slow)])
def test_accumulation_meets_batch_norm_and_dropout(
    card: Card, accumulate: int, batch_norm: bool, dropout: float
) -> None:
    """MemTracker's peak, and torch's order, allocated and reserved bytes on the card."""
    network = {"name": "A", **SMALL, "batch_norm": batch_norm, "dropout": dropout}
    question = {**network, "batch": 2, "accumulate": accumulate}
    assert_memtrackers_peak(question, 2)
    assert_torchs_order(card, question)
    training = loop_of(question)
    assert training is not None
    assert_torchs_plan(card, training, question, "")


@pytest.mark.parametrize("word", ["set to zero", "in backward", "all that go together"])
@pytest.mark.parametrize(("name", "update"), sampled(one_of_each(list(cases(WAYS))), fewer))
def test_each_optimizer_meets_each_loop(card: Card, name: str, update: Update, word: str) -> None:
    """With all its options on, in each of torch's implementations: MemTracker's peak, and torch's order on the card."""
    if (name, word) == (NONE, "in backward"):
        return  # refused
    question = {"config": SMALLEST["weights first"], "batch": 2, "optimizer": name, **update.given, **LOOPS[word]}
    assert_memtrackers_peak(question, 2)
    assert_torchs_order(card, question)


@pytest.mark.parametrize("word", LOOPS)
def test_each_loop_has_torchs_figures_on_a_card(cards: Cards, word: str) -> None:
    """The figures of each step of D equal those of torch's allocator, with both kinds of segments."""
    for text in ("", EXPANDABLE):
        question = {"name": "D", "batch": 8, "optimizer": "adamw", **LOOPS[word]}
        training = loop_of(question)
        assert training is not None
        assert_torchs_steps(cards("play_steps.py", ROOMY, text), training, question, ROOMY, text)


FIGURES: list[tuple[dict[str, Any], int, int]] = [
    ({}, 1_722_992_880, 6_343_885_544),
    ({"weight_decay": 5e-4}, 2_071_934_444, 6_343_885_544),
    ({"optimizer": "paper"}, 2_071_934_444, 6_343_885_544),
    ({"optimizer": "paper", "weight_decay": 0}, 1_722_992_880, 6_343_885_544),
    ({"optimizer": "paper", "foreach": True}, 2_214_322_828, 6_343_885_544),
    ({"optimizer": "adamw"}, 3_036_408_588, 6_897_315_848),
    ({"optimizer": "adamw", "foreach": True}, 2_767_753_132, 6_897_315_848),
    ({"optimizer": "adamw", "fused": True}, 2_276_423_184, 6_897_315_848),
    ({"optimizer": "adamw", "step_in_backward": True}, 2_966_572_656, 7_575_439_464),
    ({"step_in_backward": True}, 1_591_191_888, 6_207_413_064),
    ({"ema": True}, 2_276_423_056, 6_897_315_720),
    ({"clip_grad": True}, 1_722_992_880, 6_343_885_544),
    ({"zero_grad": "zero"}, 2_144_622_064, 6_760_843_240),
]
"""A loop of D, and what MemTracker measured of it in torch alone, in its second step at batch 1 and at 64.

Where the optimizer's step makes the peak, the loss of 4 bytes is in it: the loop holds it in a variable.
"""


@pytest.mark.parametrize(("options", "one", "many"), FIGURES, ids=str)
def test_the_published_figures_of_d(options: dict[str, Any], one: int, many: int) -> None:
    """Each loop needs to the byte what was measured before there was a plan of it."""
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

"""Figures and verdicts of whole grids, held against torch's allocator on a card that isn't there.

`python -m tests.footprint.grid` plays all that the grids have.
"""

from __future__ import annotations

from itertools import product

import pytest

from tests.conftest import sample
from tests.footprint.card import Cards
from tests.footprint.grid import (
    CONFIGURATIONS,
    EXPANDABLE,
    FAMILY,
    SMALL_CARD,
    USUAL,
    WINDOW_STEPS,
    WINDOWS,
    Figures,
    assert_torchs_steps,
    figures,
    full_cards,
    loop_of,
    of_optimizers,
    of_options,
    plans,
)
from vggkit.footprint.card import MOST_STEPS
from vggkit.footprint.optimizers import OPTIMIZERS

# Figures


@pytest.mark.parametrize("name", sample(CONFIGURATIONS, ["A"]))
def test_plans_of_a_configuration_are_torchs(cards: Cards, name: str) -> None:
    """At several batches, for both kinds of segments: allocated and reserved bytes."""
    for check in plans(cards, of_optimizers([name], (1, 2, 8, 33), USUAL)):
        check()


@pytest.mark.parametrize("optimizer", sample([*OPTIMIZERS], ["paper", "adafactor"]))
def test_plans_of_an_optimizer_are_torchs(cards: Cards, optimizer: str) -> None:
    """The same with every optimizer, all parameters together, one by one, or in one kernel."""
    for question, way in product(of_optimizers(["A"], (3,), [optimizer]), [{}, {"foreach": False}, {"fused": True}]):
        if set(way) <= set(OPTIMIZERS[optimizer].takes):
            for check in plans(cards, [{**question, **way}]):
                check()


@pytest.mark.parametrize("name", sample(FAMILY, ["cnn_m", "cifar_chengyangfu_vgg16_bn"]))
def test_plans_of_the_family_are_torchs(cards: Cards, name: str) -> None:
    """The same for each network of the family; one of them takes 2 MiB more from its seventh step on."""
    for check in plans(cards, of_optimizers([name], (1, 16), USUAL)):
        check()


@pytest.mark.parametrize("name", sample(CONFIGURATIONS, ["A"]))
def test_plans_of_frozen_checkpointed_and_cast_steps_are_torchs(cards: Cards, name: str) -> None:
    """The same with parts frozen and checkpointed, with batch norm, in every dtype, with autocast, and in inference."""
    for check in plans(cards, of_options(name)[::11]):
        check()


# Verdicts


@pytest.mark.parametrize(
    ("name", "batches", "optimizer", "text"),
    [("A", range(377, 384), "sgd-momentum", ""), *(pytest.param(*case, marks=pytest.mark.slow) for case in WINDOWS)],
)
def test_the_batches_that_run_are_those_that_run_in_torch(
    cards: Cards, name: str, batches: range, optimizer: str, text: str
) -> None:
    """On 24 GiB the same steps run, with the same figures and as many retries, and the same ones run out of memory."""
    card = cards("play_steps.py", SMALL_CARD, text)
    training = loop_of({"name": name, "batch": batches[0], "optimizer": optimizer})
    assert training is not None
    for batch in batches:
        question = {"name": name, "batch": batch, "optimizer": optimizer}
        assert_torchs_steps(card, training, question, SMALL_CARD, text, WINDOW_STEPS)


@pytest.mark.parametrize("name", sample(FAMILY, ["cifar_chengyangfu_vgg16_bn"]))
def test_batches_that_nearly_fill_a_card_run_as_in_torch(cards: Cards, name: str) -> None:
    """The same for each network of the family on 4 GiB, where batches are as large as thousands."""
    for check in full_cards(cards, [name], ["sgd-momentum"], 5):
        check()


@pytest.mark.parametrize(
    ("name", "batch", "optimizer", "text", "runs"),
    [
        ("D", 316, "sgd-momentum", "", 3),
        ("A", 380, "sgd-momentum", "", 2),
        ("B", 288, "sgd-momentum", "", 3),
        ("E", 285, "adamw", "", 10),
        ("D", 325, "sgd-momentum", EXPANDABLE, 19),
    ],
)
def test_a_loop_may_run_out_after_some_steps(
    cards: Cards, name: str, batch: int, optimizer: str, text: str, runs: int
) -> None:
    """Where each step gives back all that is cached, it leaves other holes, until a step finds no room."""
    question = {"name": name, "batch": batch, "optimizer": optimizer}
    training = loop_of(question)
    assert training is not None
    done = assert_torchs_steps(cards("play_steps.py", SMALL_CARD, text), training, question, SMALL_CARD, text)
    assert (len(done) - 1, done[-1]) == (runs, None)


@pytest.mark.parametrize(
    ("name", "batch", "text"),
    [
        *(("A", batch, "") for batch in (378, 381, 383, 392)),
        *(("B", batch, "") for batch in (285, 294, 300)),
        *(("D", batch, "") for batch in (292, 302, 308, 310)),  # 302 takes twelve steps to come to rest
        *(("D", batch, EXPANDABLE) for batch in (318, 320)),
    ],
)
def test_a_loop_that_comes_back_to_a_state_runs_on(cards: Cards, name: str, batch: int, text: str) -> None:
    """No step of torch's forty runs out, and the figures are those of the steps up to where the state came back."""
    question = {"name": name, "batch": batch}
    training = loop_of(question)
    assert training is not None
    done = figures(training, batch, SMALL_CARD, text)
    assert len(done) < MOST_STEPS
    card = cards("play_steps.py", SMALL_CARD, text)
    all_steps = assert_torchs_steps(card, training, question, SMALL_CARD, text, MOST_STEPS)
    assert len(all_steps) == MOST_STEPS
    assert None not in all_steps
    assert reserved(all_steps[len(done) :]) <= reserved(done)


def reserved(steps: Figures) -> set[int]:
    """Return the reserved bytes of steps."""
    return {step["reserved"] for step in steps if step is not None}

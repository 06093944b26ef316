"""Losses of a training step, held against MemTracker, and against torch on a card that isn't there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy, mse_loss

import vggkit
from tests import scratch
from tests.conftest import sample
from tests.drawn import networks
from tests.footprint.card import Card, Cards
from tests.footprint.grid import EXPANDABLE, ROOMY, assert_torchs_order, assert_torchs_plan, loop_of
from tests.footprint.test_card import SMALL
from vggkit.base.errors import ArgumentError
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.losses import LOSSES
from vggkit.footprint.steps.options import checked_options
from vggkit.footprint.steps.refusals import refusal
from vggkit.model import verify
from vggkit.network import ELEMENT_BYTES, Network

NETWORKS: dict[str, dict[str, Any]] = {
    "A": {"name": "A", **SMALL},
    "batch norm, one class": {"name": "A", **SMALL, "num_classes": 1, "batch_norm": True},
    "trunk": {"config": "{input: 3x12x10, blocks: [[conv3-8, maxpool], [conv3-6, conv1-4]]}"},
    "trunk of one channel": {"config": "{input: 3x12x10, blocks: [[conv3-8, maxpool], [conv3-6, conv1-1]]}"},
    "trunk of softmax": {"config": "{input: 3x9x7, blocks: [[conv3-4, maxpool], [conv3-6, soft-max]]}"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "autocast": {"autocast": True, "optimizer": "adamw"},
    "bfloat16": {"dtype": "bfloat16", "optimizer": "sgd"},
    "float64": {"dtype": "float64", "step_in_backward": True, "ema": True},
    "checkpointed": {"checkpoint": ["block1", "block2"]},
    "frozen": {"freeze": ["block1"]},
    "accumulated, autocast": {"accumulate": 3, "autocast": True},
    "accumulated, bfloat16": {"accumulate": 2, "dtype": "bfloat16", "zero_grad": "zero"},
}
CASES = [f"{loss}; {network}; {step}" for loss, network, step in product(LOSSES, NETWORKS, OPTIONS)]
FEW = ("A; plain", "trunk; autocast", "trunk of one channel; accumulated, bfloat16", "batch norm, one class; float64")
SOME = sample(CASES, [f"{loss}; {others}" for loss, others in product(LOSSES, FEW) if loss != "cross-entropy"])
"""A loss, a network and other options of the step."""


def network_of(word: str) -> Network:
    """Return one of the networks."""
    given = dict(NETWORKS[word])
    if "config" in given:
        return Network.of(vggkit.loads(given["config"]))
    return Network.of(given.pop("name"), **given)


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A card with room for everything, with torch's own settings."""
    return cards("play_steps.py", ROOMY, "")


@pytest.mark.parametrize("case", SOME)
def test_each_loss_has_memtrackers_peak(case: str) -> None:
    """The peak by kind, and what is saved for the backward pass, equal their judges' where each option meets others."""
    loss, word, step = case.split("; ")
    network = network_of(word)
    for batch in (2, 50):
        options = checked_options(network, batch=batch, loss=loss, **OPTIONS[step])
        plan = plan_step(network, options)
        assert plan.by_kind == verify.training_peak(network, options)
        assert plan.saved_for_backward_bytes == verify.saved_bytes(network, options)


@pytest.mark.parametrize("case", SOME)
def test_each_loss_is_allocated_and_freed_in_torchs_order(card: Card, case: str) -> None:
    """From an empty card through three steps torch asks for the same bytes, and gives the same back in between."""
    loss, word, step = case.split("; ")
    assert_torchs_order(card, {**NETWORKS[word], **OPTIONS[step], "batch": 2, "loss": loss})


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["D", "its trunk"])
def test_each_loss_has_torchs_figures_on_a_card(cards: Cards, name: str, loss: str) -> None:
    """What is allocated and reserved for D and for its trunk equals what torch's allocator says."""
    network = {"name": "D"} if name == "D" else {"config": "{extends: D, classifier: null}"}
    question = {**network, "batch": 8, "loss": loss}
    training = loop_of(question)
    assert training is not None
    for text in ("", EXPANDABLE):
        assert_torchs_plan(cards("play_steps.py", ROOMY, text), training, question, text)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "cross-entropy"])
@pytest.mark.parametrize(
    ("config", "batches"),
    [
        ("{input: 4x1x1, classifier: [FC-1000]}", (130, 131, 6000)),
        ("{input: 4x1x1, classifier: [FC-1]}", (130_560, 130_561)),
        ("{input: 2x24x24, blocks: [[conv1-10]]}", (22, 23, 226, 227)),
    ],
)
def test_sums_over_many_values_take_what_torchs_kernels_take(
    card: Card, config: str, batches: Iterable[int], loss: str
) -> None:
    """They are added up in parts of the same bytes: of scores, of labels, and of each position of maps."""
    for batch, step in product(batches, ({}, {"dtype": "float64"}, {"dtype": "bfloat16"}, {"autocast": True})):
        question = {"config": config, "batch": batch, "loss": loss, "optimizer": "none", **step}
        assert_torchs_order(card, question, steps=1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(networks(), st.sampled_from([*LOSSES]), st.sampled_from([*ELEMENT_BYTES]), st.booleans(), st.integers(1, 3))
def test_drawn_networks_are_exact(network: Network, loss: str, dtype: str, autocast: bool, accumulate: int) -> None:
    """With every kind of layer, each loss has MemTracker's peak."""
    dtype = "float32" if autocast else dtype
    options = checked_options(network, batch=2, loss=loss, dtype=dtype, autocast=autocast, accumulate=accumulate)
    if refusal(network, options) is None:
        assert plan_step(network, options).by_kind == verify.training_peak(network, options)


CALLS: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "cross-entropy": (cross_entropy, lambda output: torch.zeros_like(output[:, 0], dtype=torch.int64)),
    "label-smoothing": (
        partial(cross_entropy, label_smoothing=0.1),
        lambda output: torch.zeros_like(output[:, 0], dtype=torch.int64),
    ),
    "soft-labels": (cross_entropy, torch.zeros_like),
    "mean-squared-error": (mse_loss, torch.zeros_like),
}
"""Each loss as people call it, and what they compare an output with."""


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("text", ["{extends: D, overrides: {num_classes: 30000}}", "{extends: D, classifier: null}"])
def test_the_loop_that_people_write_has_this_peak(text: str, loss: str) -> None:
    """On fake tensors, with as many classes as make a difference, and for a trunk."""
    network = Network.of(vggkit.loads(text), input="3x32x32")
    call, targets_of = CALLS[loss]
    with FakeTensorMode():
        model = vggkit.build(network)
        images = torch.zeros(300, 3, 32, 32)
        targets = targets_of(model(images).detach())

        def step() -> None:
            model.zero_grad()
            value = call(model(images), targets)
            value.backward()

        step()
        tracker = MemTracker()
        tracker.track_external(model, images, targets)
        with tracker:
            step()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    assert vggkit.memory(network, batch=300, loss=loss, optimizer="none").peak_bytes == peak["Total"]


@pytest.mark.parametrize(
    ("loss", "targets"),
    [("cross-entropy", 8), ("label-smoothing", 8), ("soft-labels", 4000), ("mean-squared-error", 4000)],
)
def test_the_inputs_count_the_targets(loss: str, targets: int) -> None:
    """An image of D comes with a class, with a probability of each class, or with a value for each score."""
    assert vggkit.memory("D", loss=loss).by_kind["inputs"] == 4 * 3 * 224 * 224 + targets
    assert vggkit.memory("D", loss=loss, dtype="float64", input="3x32x32").to_dict()["loss"] == loss


HUBER = """
class Huber(MeanSquaredError):
    name = "huber"
    words = "Huber's loss"

    def torch_loss(self, output, targets, functional):
        return functional.huber_loss(output, targets)


LOSSES: dict"""

USE_HUBER = """
from click.testing import CliRunner
from vggkit.cli import main
from vggkit.cli.completion import losses
run = CliRunner().invoke
verified = run(main, 'verify A --input 3x32x32 --set width=0.25 --batch 50 --loss huber'.split())
assert not verified.exit_code, verified.output
assert "sgd-momentum, Huber's loss, cpu" in verified.stdout
assert 'mean-squared-error or huber.' in ' '.join(run(main, ['memory', '--help']).stdout.split())
assert losses(None, None, 'hu') == ['huber']
"""


def test_a_new_loss_is_one_class(tmp_path: Path) -> None:
    """A class and its place in the table are planned, verified to the byte, asked for, completed and in the help."""
    path = scratch.package(tmp_path) / "footprint" / "steps" / "losses.py"
    text = path.read_text(encoding="utf-8")
    table = "MeanSquaredError())"
    assert table in text
    text = text.replace("LOSSES: dict", HUBER).replace(table, "MeanSquaredError(), Huber())")
    path.write_text(text, encoding="utf-8")
    scratch.run(tmp_path, USE_HUBER)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "soft"},
            "loss: expected one of cross-entropy, label-smoothing, soft-labels, mean-squared-error, found 'soft'",
        ),
        ({"loss": "label_smoothing"}, "Did you mean 'label-smoothing'?"),
        ({"loss": "soft-labels", "mode": "inference"}, "loss: needs mode training, found inference"),
        (
            {"loss": "mean-squared-error", "mode": "perceptual", "taps": ["relu1_1"]},
            "loss: needs mode training, found perceptual",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    """A wrong word, and a loss where none is computed or another, are refused in a line."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("A", **options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_title_names_a_loss_that_is_not_the_default() -> None:
    """So do what remedies tries, and the JSON; a step without a loss of its own has none."""
    assert "training, sgd-momentum, labels smoothed, cpu" in vggkit.memory("A", loss="label-smoothing").title
    assert "cross" not in vggkit.memory("A").title
    assert vggkit.memory("A", mode="inference").to_dict()["loss"] is None
    found = vggkit.remedies("A", "3GB", batch=64, loss="soft-labels", device="cpu")
    assert found.options.loss == "soft-labels"


def test_the_largest_batch_depends_on_the_loss() -> None:
    """Probabilities of 200,000 classes are more than 200,000 labels."""
    options: dict[str, Any] = {"num_classes": 200_000, "head": "gap", "input": "3x32x32", "device": "cpu"}
    labels, soft = (vggkit.max_batch("A", "8GB", loss=loss, **options) for loss in ("cross-entropy", "soft-labels"))
    assert labels > soft > 0
    for batch, fits in ((soft, True), (soft + 1, False)):
        peak = vggkit.memory("A", batch=batch, loss="soft-labels", **options).peak_bytes
        assert (peak <= 8 * 10**9) is fits

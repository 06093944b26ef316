"""Copies of a model whose FC layers are divided, held against torch's DistributedDataParallel on a mesh."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card
from tests.footprint.ranks.divided import DividedTraining, Seen, meshes_of, seen
from tests.footprint.ranks.loop import group_of
from tests.footprint.ranks.test_replicas import assert_torchs_order, assert_torchs_steps
from tests.footprint.ranks.test_tensors import NETWORKS, THREE, drawn_steps, network_of
from vggkit.base.errors import ArgumentError
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks.tensor_replicas import TensorReplicas
from vggkit.footprint.ranks.traffic import Traffic, all_reduce
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.network import Network

PARALLEL = "tensor+ddp"

pytestmark = [
    # it has each rank draw for itself, as it does for plain tensors
    pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support on cpu"),
    pytest.mark.filterwarnings("ignore:Grad strides do not match"),  # of a part of a single row it is slow, not wrong
]


def planned(network: Network, options: StepOptions) -> Seen:
    """Return what a plan says of the rank."""
    strategy = step_of(network, options).strategy
    assert isinstance(strategy, TensorReplicas)
    plan = plan_step(network, options)
    buckets = [bucket.constant for bucket in strategy.replicas.buckets]
    return Seen(plan.peak_bytes, buckets, Traffic(plan.sent_bytes, plan.received_bytes))


# Figures that were measured in torch alone


def test_peaks_of_d_are_those_that_were_measured() -> None:
    """By MemTracker on real tensors, at batch 1: two copies of four parts, and four copies of two."""
    assert vggkit.memory("D", ranks=8, parallel=PARALLEL).peak_bytes == 792_757_936
    plan = vggkit.memory("D", ranks=8, parallel=PARALLEL, replicas=4)
    assert plan.peak_bytes == sum(plan.by_kind.values()) == 1_287_312_976
    assert [rank.peak_bytes for rank in plan.by_rank] == [plan.peak_bytes] * 8


# Against torch

MESHES = {"2 of 2": (4, 2, (0, 3)), "2 of 3": (6, 2, (5,)), "2 of 8": (16, 2, (0, 12, 15)), "4 of 2": (8, 4, (6, 7))}
"""Ranks, copies, and the ranks that are measured: of ten classes some have fewer, or none."""

CASES = [f"{network}; {mesh}; {batch}" for network, mesh, batch in product(NETWORKS, MESHES, (1, 2, 40))]
FEW = ["three FC layers; 2 of 8; 2", "four; 2 of 2; 40", "A; 2 of 3; 1", "on images; 4 of 2; 2"]


@pytest.mark.parametrize("case", sample(CASES, FEW))
def test_each_rank_has_memtrackers_peak_and_torchs_buckets(case: str) -> None:
    """Whatever the mesh, at a batch whose activations matter and at those where not."""
    name, mesh, batch = case.split("; ")
    network = network_of(name)
    ranks, replicas, measured = MESHES[mesh]
    for rank in measured:
        group: dict[str, Any] = {"ranks": ranks, "replicas": replicas, "rank": rank, "parallel": PARALLEL}
        options = checked_options(network, batch=int(batch), **group)
        assert planned(network, options) == seen(network, options)


LOOPS: dict[str, dict[str, Any]] = {
    "small buckets": {"bucket_cap_mb": 0.002},
    "adamw, foreach": {"optimizer": "adamw", "foreach": True},
    "adam, fused": {"optimizer": "adam", "fused": True},
    "adafactor": {"optimizer": "adafactor"},
    "rprop": {"optimizer": "rprop"},
    "radam": {"optimizer": "radam"},
    "none": {"optimizer": "none"},
    "accumulated": {"accumulate": 3, "bucket_cap_mb": 0.002},
    "set to zero": {"zero_grad": "zero"},
    "set to zero, accumulated": {"zero_grad": "zero", "accumulate": 2},
    "moving average": {"ema": True},
    "frozen": {"freeze": ["block1"]},
    "checkpointed": {"checkpoint": ["block1"]},
    "label smoothing": {"loss": "label-smoothing"},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("word", sample([*LOOPS], ["small buckets", "adam, fused", "moving average", "accumulated"]))
def test_each_loop_has_memtrackers_peak_and_torchs_buckets(word: str) -> None:
    """On a rank that has fewer classes than the first one of its copy."""
    network = Network.of(vggkit.loads(THREE))
    for batch in (2, 40):
        options = checked_options(network, batch=batch, ranks=8, rank=7, parallel=PARALLEL, **LOOPS[word])
        assert planned(network, options) == seen(network, options)


def test_a_model_forgets_the_parts_of_fc_layers_in_its_first_forward_pass() -> None:
    """So that an optimizer must be made before, and `model.zero_grad()` is not enough, as the page says."""
    network = Network.of(vggkit.loads(THREE))
    options = checked_options(network, batch=2, ranks=4, parallel=PARALLEL)
    with group_of(options):
        training = DividedTraining(network, options, meshes_of(options))
        before = len(list(training.model.parameters()))
        training.step()
        assert (before, len(list(training.model.parameters()))) == (12, 6)


@pytest.mark.slow
@given(drawn_steps(PARALLEL))
@settings(max_examples=100, deadline=None)
def test_each_rank_of_a_drawn_network_has_memtrackers_peak(drawn: tuple[Network, StepOptions]) -> None:
    """Of one to five FC layers, with and without biases, activations and dropout, behind whatever blocks."""
    assert planned(*drawn) == seen(*drawn)


# Against torch's allocator, on the card that isn't there

ON_A_CARD: dict[str, dict[str, Any]] = {
    "plain": {},
    "autocast": {"autocast": True, "optimizer": "adamw"},
    "many images, squares": {"batch": 300, "loss": "mean-squared-error"},
    **LOOPS,
}


@pytest.mark.parametrize("word", sample([*ON_A_CARD], ["autocast", "small buckets", "set to zero, accumulated"]))
def test_each_loop_takes_of_a_card_what_torchs_allocator_says(card: Card, word: str) -> None:
    """All that is allocated and freed, in order, and each step's figures, in both copies."""
    for rank in (0, 7):
        group = {"ranks": 8, "rank": rank, "parallel": PARALLEL}
        question = {"config": THREE, "batch": 2, **group, **ON_A_CARD[word]}
        assert_torchs_order(card, question)
        assert_torchs_steps(card, question)


def test_a_card_must_have_what_was_measured() -> None:
    """By torch's allocator on the card that isn't there, for 64 images on each of two copies of four ranks."""
    plan = vggkit.memory("D", batch=64, device="cuda", ranks=8, parallel=PARALLEL)
    assert (plan.allocated_bytes, plan.reserved_bytes) == (5_416_733_696, 8_359_247_872)


# What a plan says


def test_the_batch_is_one_copys() -> None:
    """The title and the table say so, and a step has the images of all copies."""
    plan = vggkit.memory("D", batch=16, ranks=8, parallel=PARALLEL, replicas=4, rank=5)
    assert "batch 16 on each replica" in plan.title
    assert "rank 5 of 8 ranks by tensor+ddp, replicas 4" in plan.title
    assert plan.images == 64
    assert "The batch is one replica's, so that a step has 64 images in all." in str(plan)


def test_what_is_sent_are_activations_within_a_copy_and_gradients_between_copies() -> None:
    """Those of a rank's own parts; with batch norm the running statistics of the first copy, too."""
    within = vggkit.memory("D", ranks=4, parallel="tensor")
    plan = vggkit.memory("D", ranks=8, parallel=PARALLEL)
    gradients = plan.by_kind["communication"]
    assert gradients == within.steady_bytes // 3 == plan.steady_bytes // 4
    assert plan.sent_bytes == plan.received_bytes == within.sent_bytes + all_reduce(gradients, 2).sent
    normed = vggkit.memory("A", batch=2, batch_norm=True, ranks=8, parallel=PARALLEL)
    first, last = normed.by_rank[0], normed.by_rank[7]
    buffers = normed.by_kind["buffers"]
    assert (first.sent_bytes - last.sent_bytes, last.received_bytes - first.received_bytes) == (buffers, buffers)


def test_the_timeline_names_what_is_sent() -> None:
    """Within a copy activations, and before the forward pass the running statistics of the first copy."""
    plan = vggkit.memory("A", batch=2, ranks=8, parallel=PARALLEL, batch_norm=True)
    events = dict.fromkeys(moment.event for moment in plan.timeline)
    assert [event for event in events if event.startswith(("all-", "broadcast"))] == [
        "broadcast of running statistics",
        "all-reduce of fc2",
        "all-gather of predictions",
        "all-reduce of predictions",
        "all-reduce of fc1",
    ]


def test_the_largest_batch_fits() -> None:
    """It is one copy's, for a rank's card."""
    group: dict[str, Any] = {"ranks": 8, "parallel": PARALLEL}
    most = vggkit.max_batch("D", "8GB", device="cpu", **group)
    peaks = [vggkit.memory("D", batch=most + more, **group).peak_bytes for more in (0, 1)]
    assert peaks[0] <= 8_000_000_000 < peaks[1]


# What can't be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ranks": 7}, "ranks: parallel tensor+ddp expected a product of two numbers above 1, found 7"),
        ({"ranks": 2}, "ranks: parallel tensor+ddp expected a product of two numbers above 1, found 2"),
        ({"ranks": 12, "replicas": 12}, "replicas: 12 ranks by tensor+ddp expected one of 2, 3, 4, 6, found 12"),
        ({"ranks": 12, "replicas": 5}, "replicas: 12 ranks by tensor+ddp expected one of 2, 3, 4, 6, found 5"),
        ({"replicas": 1}, "replicas: expected a whole number from 2 to 4096, found 1"),
        (
            {"parallel": "ddp", "replicas": 4},
            "replicas: expected a parallel that has it (tensor+ddp, pipeline+ddp), found ddp",
        ),
        ({"ranks": 50}, "ranks: parallel tensor+ddp expected at most as many as fc1 has units, 24, found 25"),
        ({"static_graph": True}, "static_graph: expected a parallel that has it (ddp, ddp-view, zero1), found tensor+"),
        ({"freeze": ["fc2"]}, "freeze: parallel tensor+ddp can't freeze fc2, as torch trains every parameter that"),
        ({"clip_grad": True}, "clip_grad: can't be combined with parallel tensor+ddp, where torch would take the norm"),
        ({"step_in_backward": True}, "step_in_backward: can't be combined with parallel"),
    ],
    ids=str,
)
def test_what_copies_can_not_do_is_refused(options: dict[str, Any], said: str) -> None:
    """In one line that names the argument."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory(vggkit.loads(THREE), **{"ranks": 8, "parallel": PARALLEL, **options})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)

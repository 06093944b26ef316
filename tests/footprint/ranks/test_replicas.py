"""Ranks that have the whole model, held against torch's DistributedDataParallel and ZeroRedundancyOptimizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch.distributed.optim import ZeroRedundancyOptimizer

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card
from tests.footprint.grid import (
    ROOMY,
    Question,
    drawn_steps,
    in_order,
    network_of,
    numbered,
    of_drawn_networks,
    split,
)
from tests.footprint.ranks.loop import group_of
from tests.footprint.ranks.tracked import peak_and_buckets
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import run
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks import STRATEGIES
from vggkit.footprint.ranks.replicas import Replicas
from vggkit.footprint.ranks.traffic import all_reduce
from vggkit.footprint.remedies.advice import advice
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.network import Network

REPLICAS = ("ddp", "ddp-view", "zero1")
LARGE_FC = 411_041_792
"""Bytes of fc1's weight in D."""

SMALL: dict[str, Any] = {"input": "3x32x32", "width": 0.25, "num_classes": 10}
TINY = """{name: tiny, input: 3x12x12, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool], [conv3-16]],
classifier: [FC-60, FC-40, FC-5]}"""


def buckets_of(network: Network, options: StepOptions) -> list[int]:
    """Return the bytes of each bucket, in the order in which they are sent."""
    strategy = step_of(network, options).strategy
    assert isinstance(strategy, Replicas)
    return [bucket.constant for bucket in strategy.buckets]


# Figures that were measured in torch alone


@pytest.mark.parametrize(
    ("options", "peak"),
    [
        ({"parallel": "ddp"}, 2_276_423_056),
        ({"parallel": "ddp-view"}, 2_144_622_064),
        ({"parallel": "ddp", "static_graph": True}, 2_276_423_056 + 2 * 32 * 4),
    ],
    ids=str,
)
def test_peaks_of_d_are_those_that_were_measured(options: dict[str, Any], peak: int) -> None:
    """By MemTracker, at batch 1, whatever the number of ranks."""
    for ranks in (2, 8):
        plan = vggkit.memory("D", ranks=ranks, **options)
        assert plan.peak_bytes == sum(plan.by_kind.values()) == peak
        assert [rank.peak_bytes for rank in plan.by_rank] == [peak] * ranks


def test_buckets_of_d_are_those_that_were_measured() -> None:
    """In the order in which gradients come: of FC layers the bias first, of convolutions the weight."""
    network = Network.of("D")
    buckets = [16_388_000, 67_125_248, 411_058_176, 28_315_648, 28_320_768, 2_222_336]
    assert buckets_of(network, checked_options(network, ranks=8, parallel="ddp")) == buckets


@pytest.mark.parametrize(("parallel", "peak"), [("ddp", 29_185_864), ("ddp-view", 26_539_296)])
def test_peaks_of_a_small_network_are_those_that_were_measured(parallel: str, peak: int) -> None:
    """The same for A on small images, at batch 4."""
    assert vggkit.memory("A", batch=4, ranks=4, parallel=parallel, **SMALL).peak_bytes == peak


@pytest.mark.parametrize(
    ("parallel", "allocated", "reserved"),
    [("ddp", 3_370_953_728, 4_028_628_992), ("ddp-view", 3_254_518_784, 3_374_317_568)],
)
def test_a_card_must_have_what_was_measured(parallel: str, allocated: int, reserved: int) -> None:
    """By torch's allocator on the card that isn't there, for 16 images on each of 8 ranks."""
    plan = vggkit.memory("D", batch=16, device="cuda", ranks=8, parallel=parallel)
    assert (plan.allocated_bytes, plan.reserved_bytes) == (allocated, reserved)


def test_the_optimizers_state_is_spread_by_whole_parameters() -> None:
    """The rank with fc1's weight keeps three quarters of D's momentum; the plan is that of the fullest rank."""
    plans = [vggkit.memory("D", ranks=8, parallel="zero1", rank=rank) for rank in range(8)]
    kept = [plan.by_kind["optimizer"] for plan in plans]
    assert kept[0] == LARGE_FC
    assert sum(kept) == vggkit.memory("D").by_kind["parameters"]
    fullest = vggkit.memory("D", ranks=8, parallel="zero1")
    assert fullest == plans[0]
    assert [rank.peak_bytes for rank in fullest.by_rank] == [plan.peak_bytes for plan in plans]


# Against torch, by MemTracker on real tensors

LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one bucket each": {"bucket_cap_mb": 1e-6},
    "just full": {"bucket_cap_mb": 820 / 2**20},  # bytes of the last layer
    "small buckets": {"bucket_cap_mb": 0.005},
    "static graph": {"static_graph": True},
    "adamw": {"optimizer": "adamw"},
    "adamw, foreach": {"optimizer": "adamw", "foreach": True},
    "paper": {"optimizer": "paper"},
    "radam": {"optimizer": "radam"},
    "accumulated twice": {"accumulate": 2},
    "accumulated": {"accumulate": 4, "bucket_cap_mb": 0.005},
    "set to zero": {"zero_grad": "zero"},
    "set to zero, accumulated": {"zero_grad": "zero", "accumulate": 3},
    "clipped": {"clip_grad": True},
    "moving average": {"ema": True},
    "frozen": {"freeze": ["block1", "fc1"], "bucket_cap_mb": 0.005},
    "checkpointed": {"checkpoint": ["block1", "block2"]},
    "bfloat16": {"dtype": "bfloat16"},
}
CASES = [f"{parallel}; {word}" for parallel, word in product(REPLICAS, LOOPS)]
FEW = [
    *("ddp; just full", "ddp; static graph", "ddp; small buckets", "ddp; accumulated"),
    *("ddp-view; plain", "ddp-view; accumulated", "ddp-view; set to zero", "ddp-view; frozen"),
    *("zero1; adamw", "zero1; clipped"),
]


@pytest.mark.parametrize("case", sample(CASES, FEW))
def test_each_rank_has_memtrackers_peak(case: str) -> None:
    """With each loop, at a batch whose activations matter and at one where they don't; its buckets are torch's, too."""
    parallel, word = case.split("; ")
    network = Network.of(vggkit.loads(TINY))
    for ranks, rank, batch in ((2, 0, 2), (3, 2, 40)):
        options = checked_options(network, batch=batch, ranks=ranks, rank=rank, parallel=parallel, **LOOPS[word])
        peak, buckets = peak_and_buckets(network, options)
        assert plan_step(network, options).peak_bytes == peak
        assert buckets_of(network, options) == buckets


GRID = [
    f"{parallel}; {name}; {ranks}; {batch}; {optimizer}"
    for parallel, name, ranks, batch, optimizer in product(
        REPLICAS, ("A", "A-LRN", "B", "C", "D", "E"), (2, 3, 4, 8, 16), (1, 16), ("sgd-momentum", "adamw")
    )
]
OFTEN = ["ddp; D; 3; 1; adamw", "ddp-view; A-LRN; 16; 16; sgd-momentum", "zero1; E; 8; 1; adamw"]


@pytest.mark.parametrize("case", sample(GRID, OFTEN))
def test_the_papers_networks_have_memtrackers_peak(case: str) -> None:
    """On small images, on the last rank; its buckets are torch's, too."""
    parallel, name, ranks, batch, optimizer = case.split("; ")
    network = Network.of(vggkit.load(name, **SMALL))
    group: dict[str, Any] = {"ranks": int(ranks), "rank": int(ranks) - 1, "parallel": parallel}
    options = checked_options(network, batch=int(batch), optimizer=optimizer, **group)
    assert (plan_step(network, options).peak_bytes, buckets_of(network, options)) == peak_and_buckets(network, options)


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_drawn_networks_have_memtrackers_peak(count: int) -> None:
    """The same for drawn networks with every kind of layer, and drawn steps in float32, which the CPU has all of."""
    for place, question in enumerate(of_drawn_networks(count, lambda _: drawn_steps(st.integers(1, 4) | st.just(40)))):
        question["dtype"] = "float32"
        group: dict[str, Any] = {"ranks": 3, "rank": place % 3, "parallel": REPLICAS[place % 3], "bucket_cap_mb": 1e-3}
        try:
            network = network_of(question)
            options = checked_options(network, **split(question)[1], **group)
        except ArgumentError:  # nothing is trained, or it is inference
            continue
        if options.autocast or options.loss == "mean-squared-error":  # real tensors take more than fake ones
            continue
        found = peak_and_buckets(network, options)
        assert (plan_step(network, options).peak_bytes, buckets_of(network, options)) == found, question


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"autocast": True}, lambda _: 2 * 8 * 2),  # statistics of 8 channels in float32, not in bfloat16
        ({"loss": "mean-squared-error"}, lambda batch: (batch * 5 - 1) * 4),  # squares in the loss's memory
    ],
)
def test_real_tensors_take_more_than_fake_ones(options: dict[str, Any], more: Callable[[int], int]) -> None:
    """A plan on the CPU is that of fake tensors, whose kernels make less in two places, as the page says."""
    network = Network.of(vggkit.loads(TINY))
    for batch in (2, 40):
        asked = checked_options(network, batch=batch, ranks=2, parallel="ddp", **options)
        assert peak_and_buckets(network, asked)[0] - plan_step(network, asked).peak_bytes == more(batch)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_parameters_are_spread_as_torch_does(ranks: int) -> None:
    """Each rank's optimizer has torch's parameters, in torch's order."""
    network = Network.of(vggkit.loads(TINY))
    model = vggkit.build(network)
    for rank in range(ranks):
        options = checked_options(network, ranks=ranks, rank=rank, parallel="zero1")
        with group_of(options):
            optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
            torchs = [tuple(one.shape) for one in optimizer._partition_parameters()[rank][0]["params"]]
        assert [parameter.shape for parameter in step_of(network, options).strategy.owned] == torchs


# Against torch's allocator, on the card that isn't there


STEPS = 4


def assert_torchs_steps(card: Card, question: Question) -> None:
    """Hold the figures of each step from the second on against torch's: our first one has torch's early steps in it."""
    network = network_of(question)
    options = checked_options(network, device="cuda", **split(question)[1])
    step = step_of(network, options)
    ours = run(step.loop, step.options.at_once, ROOMY, Settings.of(""), STEPS)
    early = options.first_steps
    theirs = card.ask(**question, steps=early + STEPS - 1)
    assert [figures and figures._asdict() for figures in ours[1:]] == theirs[early:], question


ON_A_CARD: dict[str, dict[str, Any]] = {
    **{word: LOOPS[word] for word in ("plain", "accumulated", "set to zero", "frozen", "moving average", "clipped")},
    "autocast": {"autocast": True, "optimizer": "adamw"},
    "set to zero, small buckets": {"zero_grad": "zero", "bucket_cap_mb": 0.5},
    "set to zero, accumulated": {"zero_grad": "zero", "accumulate": 2},
    "static graph": {"static_graph": True},
    "static graph, set to zero": {"static_graph": True, "zero_grad": "zero", "loss": "mean-squared-error"},
}
OF_A_CARD = [f"{parallel}; {word}" for parallel, word in product(REPLICAS, ON_A_CARD)]


@pytest.mark.parametrize("case", sample(OF_A_CARD, ["ddp; plain", "ddp-view; set to zero", "zero1; autocast"]))
def test_each_rank_takes_of_a_card_what_torchs_allocator_says(card: Card, case: str) -> None:
    """Requested, allocated and reserved bytes of each step, with and without batch norm."""
    parallel, word = case.split("; ")
    for batch_norm in (False, True):
        shape = {"name": "A", **SMALL, "batch_norm": batch_norm}
        group = {"ranks": 4, "rank": 1, "parallel": parallel}
        assert_torchs_steps(card, {**shape, "batch": 16, **group, **ON_A_CARD[word]})


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_drawn_networks_take_of_a_card_what_torchs_allocator_says(card: Card, count: int) -> None:
    """The same for drawn networks with every kind of layer, and drawn steps."""
    strategies = [parallel for parallel in REPLICAS for _ in range(2)]
    for place, question in enumerate(of_drawn_networks(count)):
        group = {"ranks": 3, "rank": place % 3, "parallel": strategies[place % len(strategies)]}
        try:
            checked_options(network_of(question), **split(question)[1], **group)
        except ArgumentError:  # nothing is trained, or it is inference
            continue
        assert_torchs_steps(card, {**question, **group, "bucket_cap_mb": 1e-4})


def assert_torchs_order(card: Card, question: Question) -> None:
    """Hold what is asked of the allocator and given back to it, from an empty card on, against torch's."""
    network = network_of(question)
    options = checked_options(network, device="cuda", **split(question)[1])
    step = step_of(network, options)
    early = options.first_steps
    said = card.ask(**question, steps=early + STEPS - 1, events=True)
    assert in_order(numbered(step.loop, step.options.at_once, STEPS)) == in_order(said), question


OF_EVERY_STEP = {
    "plain": {},
    "static graph": {"static_graph": True},
    "static graph, set to zero": {"static_graph": True, "zero_grad": "zero"},
    "set to zero, accumulated": {"zero_grad": "zero", "accumulate": 2},
}


@pytest.mark.parametrize(("parallel", "word"), [*product(REPLICAS, OF_EVERY_STEP)])
def test_each_rank_allocates_and_frees_in_torchs_order(card: Card, parallel: str, word: str) -> None:
    """From an empty card, the broadcast of running statistics and the new buckets included; the first step, too."""
    question = {"name": "A", **SMALL, "batch_norm": True, "batch": 2, "ranks": 4, "rank": 1, "parallel": parallel}
    assert_torchs_order(card, {**question, **OF_EVERY_STEP[word]})


# What is sent


def test_what_is_sent_follows_from_the_buckets() -> None:
    """All-reduces of each bucket; with batch norm the running statistics as well; of zero1 the parameters."""
    size = vggkit.summarize("A").totals.parameter_bytes
    plan = vggkit.memory("A", ranks=4, parallel="ddp")
    assert plan.sent_bytes == plan.received_bytes == all_reduce(size, 4).sent == size * 3 // 2
    first, *_, last = vggkit.memory("A", ranks=4, parallel="zero1").by_rank
    own = vggkit.memory("A", ranks=4, parallel="zero1", rank=0).by_kind["optimizer"]
    assert first.received_bytes == size * 3 // 2 + size - own
    assert sum(rank.sent_bytes for rank in (first, *_, last)) == 4 * size * 3 // 2 + 3 * size
    buffers = vggkit.memory("A", batch=2, batch_norm=True).by_kind["buffers"]
    plain, *_, last = vggkit.memory("A", batch=2, batch_norm=True, ranks=4, parallel="ddp").by_rank
    assert (plain.sent_bytes - last.sent_bytes, last.received_bytes - plain.received_bytes) == (buffers, buffers)


# What can't be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ranks": 8}, "parallel: 8 ranks need one of ddp, ddp-view, zero1, fsdp, tensor"),
        ({"parallel": "ddp"}, "ranks: parallel ddp needs 2 or more, found 1"),
        (
            {"ranks": 2, "parallel": "dpp"},
            "parallel: expected one of none, ddp, ddp-view, zero1, fsdp, tensor, tensor+ddp, pipeline, pipeline+ddp,"
            " found 'dpp'.",
        ),
        ({"ranks": 0, "parallel": "ddp"}, "ranks: expected a whole number from 1 to 4096, found 0"),
        ({"ranks": 2, "parallel": "ddp", "rank": 2}, "rank: expected a whole number from 0 to 1, found 2"),
        ({"rank": 0}, "rank: needs several ranks"),
        *(
            (
                {"ranks": 2, "parallel": "ddp", "bucket_cap_mb": number},
                f"bucket_cap_mb: expected a number above 0 and below 1e+12, found {number}",
            )
            for number in (0, -1.0, 1e12, float("inf"), float("nan"))
        ),
        ({"ranks": 2, "parallel": "ddp", "static_graph": 1}, "static_graph: expected True or False, found 1"),
        ({"static_graph": True}, "static_graph: expected a parallel that has it (ddp, ddp-view, zero1), found none"),
        ({"ranks": 2, "parallel": "ddp", "mode": "inference"}, "parallel: needs mode training, found inference"),
        ({"ranks": 2, "parallel": "ddp", "step_in_backward": True}, "step_in_backward: can't be combined with parall"),
        ({"ranks": 2, "parallel": "zero1", "optimizer": "none"}, "parallel: zero1 needs an optimizer, found none"),
        (
            {"ranks": 2, "parallel": "ddp", "static_graph": True, "accumulate": 2},
            "static_graph: can't be combined with accumulate, as torch fails in a first backward pass that",
        ),
        (
            {"ranks": 2, "parallel": "ddp", "freeze": ["block1", "block2", "block3", "block4", "block5", "fc1", "fc2"]},
            None,
        ),
        (
            {
                "ranks": 2,
                "parallel": "ddp",
                "freeze": [*(f"block{number}" for number in range(1, 6)), "fc1", "fc2", "predictions"],
            },
            "parallel: ddp needs a parameter that is trained, and A has none",
        ),
    ],
    ids=str,
)
def test_what_ranks_can_not_do_is_refused(options: dict[str, Any], said: str | None) -> None:
    """In one line that names the argument."""
    if said is None:
        assert vggkit.memory("A", **options).by_rank
        return
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("A", **options)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_the_largest_batch_of_one_of_several_ranks() -> None:
    """Of ranks that hold different amounts all must have room, unless one is asked for."""
    alone, ddp = (
        vggkit.max_batch("D", "8GB", device="cpu", **group) for group in ({}, {"ranks": 2, "parallel": "ddp"})
    )
    peaks = [vggkit.memory("D", batch=ddp + more, ranks=2, parallel="ddp").peak_bytes for more in (0, 1)]
    assert peaks[0] <= 8_000_000_000 < peaks[1]
    assert ddp < alone
    first, second = (
        vggkit.max_batch("D", "8GB", device="cpu", ranks=2, parallel="zero1", rank=rank) for rank in range(2)
    )
    assert ddp < first < second
    assert vggkit.max_batch("D", "8GB", device="cpu", ranks=2, parallel="zero1") == first
    on_card = [vggkit.max_batch("D", "8GB", ranks=2, parallel="zero1", rank=rank) for rank in (None, 0, 1)]
    assert on_card[0] == min(on_card[1:])


# What a plan says


def test_a_plan_says_whose_memory_it_is() -> None:
    """The title, the sentences and the JSON name the ranks; of a single process they name none."""
    plan = vggkit.memory("D", batch=4, ranks=8, parallel="zero1", rank=3, bucket_cap_mb=10)
    assert "batch 4 on each rank" in plan.title
    assert "rank 3 of 8 ranks by zero1, bucket cap mb 10, cpu" in plan.title
    text = str(plan)
    assert "a step has 32 images in all" in text
    assert "Rank 0 holds the most" in text
    data = plan.to_dict()
    assert [data[word] for word in ("ranks", "parallel", "rank", "bucket_cap_mb")] == [8, "zero1", 3, 10]
    assert [rank["rank"] for rank in data["by_rank"]] == list(range(8))
    alone = vggkit.memory("D")
    assert "rank" not in str(alone)
    assert (alone.by_rank, alone.sent_bytes) == ((), 0)


def test_every_strategy_is_in_the_help_of_what_takes_one() -> None:
    """The docstring of `memory` names the options, and `--help` the strategies."""
    from tests.cli.test_app import printed

    text = " ".join(printed("memory", "--help").split())
    assert f"{', '.join([*STRATEGIES][1:-1])} or {[*STRATEGIES][-1]}." in text


@pytest.mark.parametrize("parallel", [*REPLICAS, "fsdp", "tensor"])
def test_a_rank_can_be_looked_at_in_pytorchs_viewer(parallel: str) -> None:
    """Its file has the step's peak: what is there before, and what is allocated and freed until then."""
    plan = vggkit.memory("A", batch=2, ranks=4, rank=1, parallel=parallel, **SMALL)
    snapshot = plan.torch_snapshot()
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    alive = peak = sum(block["requested_size"] for block in blocks if block["state"] == "active_allocated")
    for event in reversed(snapshot["device_traces"][0]):  # back from the end of the step
        alive += {"alloc": -1, "free_completed": 1}.get(event["action"], 0) * event["size"]
        peak = max(peak, alive)
    assert peak - plan.peak_bytes in (0, 4)  # the loss of the step before


@pytest.mark.parametrize("parallel", [*REPLICAS, "fsdp", "tensor"])
@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_advice_for_several_ranks_is_of_steps_that_they_can_run(parallel: str, optimizer: str) -> None:
    """Typed behind the command it gives the peak that it says."""
    from tests.cli.test_app import printed

    asked = ["memory", "A", "--batch", "8", "--ranks", "2", "--parallel", parallel, "--optimizer", optimizer]
    options = checked_options(Network.of("A"), batch=8, ranks=2, parallel=parallel, optimizer=optimizer)
    [sentence] = list(advice(Network.of("A"), options)) or [""]
    if sentence:
        typed, peak = re.match("With (--.*) it would be (.*?), at", sentence).groups()
        assert f"The peak is {peak} (" in printed(*asked, *typed.split())

"""Ranks that have a part of each FC layer, held against torch's `parallelize_module`."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card
from tests.footprint.ranks.divided import Seen, seen
from tests.footprint.ranks.test_replicas import SMALL, assert_torchs_order, assert_torchs_steps
from tests.footprint.updates import cases as updates
from tests.footprint.updates import fewer, sampled
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import Update
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks.tensors import NOT_ON_PARTS
from vggkit.footprint.ranks.traffic import Traffic
from vggkit.footprint.steps.options import StepOptions, check_ranks, checked_options
from vggkit.network import Network

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

pytestmark = pytest.mark.filterwarnings(  # it has each rank draw for itself, as it does for plain tensors
    "ignore:DTensor random operators may not have complete support on cpu"
)

THREE = (
    "{name: x, input: 3x8x8, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool]], classifier: [FC-24, FC-48, FC-10]}"
)


def planned(network: Network, options: StepOptions) -> Seen:
    """Return what a plan says that the rank holds and sends."""
    plan = plan_step(network, options)
    return Seen(plan.peak_bytes, [], Traffic(plan.sent_bytes, plan.received_bytes))


# Figures that were measured in torch alone


def test_peaks_are_those_that_were_measured() -> None:
    """By MemTracker on fake tensors, of D on eight ranks and of a small A on two, which hold the same."""
    plan = vggkit.memory("D", batch=64, ranks=8, parallel="tensor")
    assert plan.peak_bytes == sum(plan.by_kind.values()) == 5_045_678_564
    assert {rank.peak_bytes for rank in plan.by_rank} == {plan.peak_bytes}
    assert vggkit.memory("A", batch=4, ranks=2, parallel="tensor", **SMALL).peak_bytes == 14_964_068


# Against torch

NETWORKS = {
    "three FC layers": THREE,
    "four": "{name: x, input: 3x8x8, blocks: [[conv3-8, maxpool]], classifier: [FC-24, FC-7, FC-48, FC-10]}",
    "one": "{name: x, input: 3x8x8, blocks: [[conv3-8, maxpool]], classifier: [FC-10]}",
    "without biases": "{name: x, input: 3x8x8, blocks: [[conv3-8, maxpool]], defaults: {FC: {bias: false}},"
    " classifier: [FC-24, FC-48, FC-10]}",
    "on images": "{name: x, input: 3x8x8, classifier: [flatten, FC-24, FC-48, FC-10]}",
    "other activations": "{name: x, input: 3x8x8, blocks: [[conv3-8]], classifier: [{fc: 24, activation: silu,"
    " dropout: 0}, {fc: 48, activation: leaky-relu}, {fc: 24, activation: gelu}, FC-9, FC-48]}",
    "uneven": "{name: x, input: 3x8x8, blocks: [[conv3-8, maxpool]], classifier: [FC-25, FC-7, FC-31, FC-10]}",
    "uneven, one output": "{name: x, input: 3x8x8, blocks: [[conv3-8]], classifier: [FC-25, FC-1]}",
    "A": "{extends: A, input: 3x32x32, width: 0.25, num_classes: 10}",
}
RANKS = {"2": (0, 1), "3": (0, 1, 2), "4": (0, 2, 3), "8": (0, 4, 5, 7)}
"""The ranks that are measured: of ten classes some have fewer, or none."""

CASES = [f"{network}; {ranks}; {batch}" for network, ranks, batch in product(NETWORKS, RANKS, (1, 2, 40))]
FEW = [
    *("three FC layers; 4; 2", "three FC layers; 8; 1", "four; 2; 40", "uneven; 4; 2", "A; 3; 1"),
    *("on images; 3; 2", "other activations; 4; 40"),
]


def network_of(name: str) -> Network:
    """Return a network by its name here."""
    return Network.of(vggkit.load("A", **SMALL) if name == "A" else vggkit.loads(NETWORKS[name]))


@pytest.mark.parametrize("case", sample(CASES, FEW))
def test_each_rank_has_memtrackers_peak(case: str) -> None:
    """With even and uneven parts, at a batch whose activations matter and at those where not."""
    name, ranks, batch = case.split("; ")
    network = network_of(name)
    for rank in RANKS[ranks]:
        options = checked_options(network, batch=int(batch), ranks=int(ranks), rank=rank, parallel="tensor")
        assert planned(network, options) == seen(network, options)


ON_PARTS = [(name, update) for name, update in updates([{}]) if name not in NOT_ON_PARTS]


@pytest.mark.parametrize(("name", "update"), sampled(ON_PARTS, lambda every: fewer(every)[::4]))
def test_each_optimizer_has_memtrackers_peak(name: str, update: Update) -> None:
    """On a rank that has fewer classes than the first, with padding."""
    network = Network.of(vggkit.loads(THREE))
    options = checked_options(network, batch=2, ranks=4, rank=3, parallel="tensor", optimizer=name, **update.given)
    assert planned(network, options) == seen(network, options)


LOOPS: dict[str, dict[str, Any]] = {
    "frozen": {"freeze": ["block1", "fc2"]},
    "all FC layers frozen": {"freeze": ["fc1", "fc2", "predictions"]},
    "checkpointed": {"checkpoint": ["block1"]},
    "autocast": {"autocast": True},
    "autocast, checkpointed, frozen": {"autocast": True, "checkpoint": ["block1"], "freeze": ["fc1"]},
    "accumulated": {"accumulate": 3},
    "set to zero": {"zero_grad": "zero"},
    "set to zero, accumulated": {"zero_grad": "zero", "accumulate": 2},
    "moving average": {"ema": True, "optimizer": "adamw"},
    "stepped in backward": {"step_in_backward": True, "ema": True},
    "squares": {"loss": "mean-squared-error"},
    "soft labels": {"loss": "soft-labels"},
}


@pytest.mark.parametrize("word", sample([*LOOPS], ["frozen", "autocast", "moving average", "stepped in backward"]))
def test_each_loop_has_memtrackers_peak(word: str) -> None:
    """On a rank that has fewer classes than the first, with padding."""
    network = Network.of(vggkit.loads(THREE))
    for batch in (2, 40):
        options = checked_options(network, batch=batch, ranks=4, rank=3, parallel="tensor", **LOOPS[word])
        assert planned(network, options) == seen(network, options)


def test_another_dtype_has_memtrackers_peak() -> None:
    """The model, its images and all that is sent in bfloat16."""
    network = Network.of(vggkit.loads(THREE))
    options = checked_options(network, batch=3, ranks=4, rank=3, parallel="tensor", dtype="bfloat16")
    assert planned(network, options) == seen(network, options)


# Against torch's allocator, on the card that isn't there

ON_A_CARD: dict[str, dict[str, Any]] = {
    "plain": {},
    "one image": {"batch": 1},
    "many images, autocast": {"batch": 300, "autocast": True},
    **{word: options for word, options in LOOPS.items() if word != "squares"},
    "squares": {"loss": "mean-squared-error", "dtype": "bfloat16"},
    **{word: {"optimizer": word} for word in ("none", "adamw", "radam", "adadelta", "paper")},
}


@pytest.mark.parametrize("word", sample([*ON_A_CARD], ["plain", "autocast", "moving average"]))
def test_each_loop_takes_of_a_card_what_torchs_allocator_says(card: Card, word: str) -> None:
    """All that is allocated and freed, in order, and each step's figures; on the first rank, and one with padding."""
    for rank in (0, 3):
        group = {"ranks": 4, "rank": rank, "parallel": "tensor"}
        question = {"config": THREE, "batch": 2, **group, **ON_A_CARD[word]}
        assert_torchs_order(card, question)
        assert_torchs_steps(card, question)


@pytest.mark.parametrize("name", sample([*NETWORKS], ["uneven", "other activations"]))
def test_each_network_takes_of_a_card_what_torchs_allocator_says(card: Card, name: str) -> None:
    """The same for networks with other FC layers."""
    shape = {"name": "A", **SMALL} if name == "A" else {"config": NETWORKS[name]}
    assert_torchs_order(card, {**shape, "batch": 3, "ranks": 4, "rank": 2, "parallel": "tensor"})


@pytest.mark.parametrize("word", sample([*ON_A_CARD], ["accumulated"]))
@pytest.mark.parametrize("name", ["uneven", "A"])
def test_uneven_parts_take_of_a_card_what_torchs_allocator_says(card: Card, name: str, word: str) -> None:
    """Of three ranks that have different numbers of units in hidden layers, too: the first and the last one."""
    shape = {"name": "A", **SMALL} if name == "A" else {"config": NETWORKS[name]}
    for rank in (0, 2):
        question = {**shape, "batch": 2, "ranks": 3, "rank": rank, "parallel": "tensor", **ON_A_CARD[word]}
        assert_torchs_order(card, question)
        assert_torchs_steps(card, question)


def test_a_card_must_have_what_was_measured() -> None:
    """By torch's allocator on the card that isn't there, for one batch of 64 images on 8 ranks."""
    plan = vggkit.memory("D", batch=64, device="cuda", ranks=8, parallel="tensor")
    assert (plan.allocated_bytes, plan.reserved_bytes) == (5_049_973_760, 8_046_772_224)
    assert "no foreach" in plan.title


# Drawn networks

ACTIVATIONS = ["relu", "leaky-relu", "elu", "silu", "hardtanh", "gelu", "tanh", "sigmoid", "none"]
OF_UNEVEN = [word for word in ACTIVATIONS if word != "hardtanh"]


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_uneven_parts_are_refused_where_torch_refuses_them(word: str) -> None:
    """Whatever torch trains is planned, and what it has no rule for is refused."""
    text = f"{{input: 2x8x8, blocks: [[conv3-4, maxpool]], classifier: [{{fc: 7, activation: {word}}}, FC-5]}}"
    network = Network.of(vggkit.loads(text))
    alike = checked_options(network, batch=2, ranks=7, parallel="tensor", rank=0)
    assert planned(network, alike) == seen(network, alike)
    uneven = alike.replace(ranks=3)
    if word in OF_UNEVEN:
        assert planned(network, uneven) == seen(network, uneven)
        return
    with pytest.raises(NotImplementedError, match="does not have a sharding strategy"):
        seen(network, uneven)
    with pytest.raises(ArgumentError, match="ranks: parallel tensor expected a number that divides the 7 units of fc1"):
        check_ranks(network, uneven)


@st.composite
def drawn_steps(draw: DrawFn, parallel: str) -> tuple[Network, StepOptions]:
    """Draw a network whose FC layers can be divided, and a rank's step of it."""
    ranks = draw(st.integers(2, 5))
    maps = st.sampled_from(["conv3-6", {"conv": 4, "norm": "batch"}, {"conv": 3, "activation": "silu"}, "LRN"])
    blocks = draw(st.lists(st.lists(maps, min_size=1, max_size=3).map(lambda block: [*block, "maxpool"]), max_size=2))
    units = [draw(st.integers(1 if place % 2 else ranks, 40)) for place in range(draw(st.integers(0, 4)))]
    classifier = [
        {
            "fc": number,
            "bias": draw(st.booleans()),
            "activation": draw(st.sampled_from(ACTIVATIONS if number % ranks == 0 else OF_UNEVEN)),
            "dropout": draw(st.sampled_from([0, 0.3])),
        }
        for number in units
    ]
    classifier.append({"fc": draw(st.integers(ranks, 12)), "bias": draw(st.booleans())})
    document = {"name": "drawn", "input": "2x8x8", "blocks": blocks, "classifier": ["flatten", *classifier]}
    network = Network.of(vggkit.loads(yaml.safe_dump({word: value for word, value in document.items() if value})))
    if parallel != "tensor":
        ranks *= 2
    blocks_of = [f"block{place}" for place in range(1, len(blocks) + 1)]
    options: dict[str, Any] = {
        "batch": draw(st.integers(2, 4) | st.integers(50, 200)),
        "optimizer": draw(st.sampled_from(["sgd", "sgd-momentum", "adamw", "adadelta"])),
        "ema": draw(st.booleans()),
        "zero_grad": draw(st.sampled_from(["set_to_none", "zero"])),
        "accumulate": draw(st.sampled_from([1, 1, 2, 3])),
        "checkpoint": [block for block in blocks_of if draw(st.booleans())],
        "ranks": ranks,
        "rank": draw(st.integers(0, ranks - 1)),
        "parallel": parallel,
    }
    return network, checked_options(network, **options)


@pytest.mark.slow
@given(drawn_steps("tensor"))
@settings(max_examples=200, deadline=None)
def test_each_rank_of_a_drawn_network_has_memtrackers_peak(drawn: tuple[Network, StepOptions]) -> None:
    """Of one to five FC layers, with and without biases, activations and dropout, behind whatever blocks and loops."""
    assert planned(*drawn) == seen(*drawn)


GRID = [
    f"{name}; {ranks}; {batch}; {optimizer}"
    for name, ranks, batch, optimizer in product(
        ("A", "A-LRN", "B", "C", "D", "E"), (2, 3, 4, 8, 16), (1, 16), ("sgd-momentum", "adamw")
    )
]


OFTEN = ["A-LRN; 8; 16; sgd-momentum", "C; 16; 1; adamw", "D; 3; 16; adamw", "E; 2; 16; adamw"]


@pytest.mark.parametrize("case", sample(GRID, OFTEN))
def test_the_papers_networks_have_memtrackers_peak(case: str) -> None:
    """On small images, on the last rank."""
    name, ranks, batch, optimizer = case.split("; ")
    network = Network.of(vggkit.load(name, input="3x32x32", width=0.25, num_classes=16))
    group: dict[str, Any] = {"ranks": int(ranks), "rank": int(ranks) - 1, "parallel": "tensor"}
    options = checked_options(network, batch=int(batch), optimizer=optimizer, **group)
    assert planned(network, options) == seen(network, options)


# What a plan says


def test_the_batch_is_the_groups() -> None:
    """The title names no batch of each rank, and the table says how many images a step has."""
    plan = vggkit.memory("D", batch=64, ranks=8, parallel="tensor")
    assert "batch 64, float32" in plan.title
    assert plan.images == 64
    assert "The batch is the group's, so that a step has 64 images in all." in str(plan)


def test_what_is_sent_are_activations_of_fc_layers() -> None:
    """fc2's output and two inputs' gradients, added up, and the scores, gathered with padding."""
    plan = vggkit.memory("D", batch=2, ranks=8, parallel="tensor")
    assert plan.sent_bytes == plan.received_bytes == 2 * 4 * (2 * (4096 + 25088 + 4096) + 1000) * 7 // 8
    padded = vggkit.memory("D", batch=2, ranks=16, parallel="tensor")
    assert padded.sent_bytes == 2 * 4 * (2 * (4096 + 25088 + 4096) + 1008) * 15 // 16


def test_the_timeline_names_what_is_added_up_and_gathered() -> None:
    """In the forward pass the second layer's output and the scores, in the backward pass the others' gradients."""
    plan = vggkit.memory("D", ranks=8, parallel="tensor")
    assert [event for event in dict.fromkeys(moment.event for moment in plan.timeline) if event.startswith("all-")] == [
        "all-reduce of fc2",
        "all-gather of predictions",
        "all-reduce of predictions",
        "all-reduce of fc1",
    ]


def test_the_largest_batch_fits() -> None:
    """Of ranks that have different numbers of classes the fullest one counts, or the one that is asked for."""
    group = {"ranks": 8, "parallel": "tensor"}
    most = vggkit.max_batch("D", "8GB", device="cpu", **group)
    peaks = [vggkit.memory("D", batch=most + more, **group).peak_bytes for more in (0, 1)]
    assert peaks[0] <= 8_000_000_000 < peaks[1]
    uneven = {"ranks": 16, "parallel": "tensor"}
    each = [vggkit.max_batch("D", "8GB", device="cpu", rank=rank, **uneven) for rank in range(16)]
    assert vggkit.max_batch("D", "8GB", device="cpu", **uneven) == min(each) > most


# What can't be


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (THREE, {"ranks": 25}, "ranks: parallel tensor expected at most as many as fc1 has units, 24, found 25"),
        (
            "{name: x, input: 3x8x8, blocks: [[conv3-8]]}",
            {},
            "parallel: tensor needs FC layers, and x has none",
        ),
        (
            "{name: x, input: 3x8x8, blocks: [[conv3-8]], classifier: [{fc: 24, norm: batch}, FC-10]}",
            {},
            "parallel: tensor can't divide fc1, as norm1 behind it needs all of its units",
        ),
        (
            "{name: x, input: 3x8x8, blocks: [[conv3-8]], classifier: [FC-1]}",
            {},
            "ranks: parallel tensor expected at most as many as predictions has units, 1, found 2",
        ),
        (THREE, {"clip_grad": True}, "clip_grad: can't be combined with parallel tensor"),
        (THREE, {"optimizer": "rprop"}, "optimizer: rprop can't be combined with parallel tensor: torch can't run"),
        (THREE, {"foreach": True}, "foreach: can't be combined with parallel tensor, as torch joins no parts and"),
        (THREE, {"optimizer": "adam", "fused": True}, "fused: can't be combined with parallel tensor"),
        (THREE, {"units": "root"}, "units: expected a parallel that has it (fsdp), found tensor"),
    ],
    ids=str,
)
def test_what_tensor_can_not_do_is_refused(text: str, options: dict[str, Any], said: str) -> None:
    """In one line that names the argument."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory(vggkit.loads(text), **{"ranks": 2, "parallel": "tensor", **options})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)

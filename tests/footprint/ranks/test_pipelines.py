"""Ranks that run a stage of a network each, held against torch's pipelining."""

from __future__ import annotations

from itertools import cycle, product
from typing import TYPE_CHECKING, Any

import pytest
import torch.distributed as dist
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.distributed.pipelining import schedules

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card
from tests.footprint.ranks.staged import bytes_of, peak, tracked
from tests.footprint.ranks.test_replicas import SMALL, assert_torchs_order, assert_torchs_steps
from tests.footprint.updates import cases as updates
from tests.footprint.updates import fewer, sampled
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import Update
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks import SCHEDULES, stages_of
from vggkit.footprint.steps.losses import LOSSES
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.network import Network

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

TINY = """{name: tiny, input: 3x12x12, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool], [conv3-16, conv3-8]],
classifier: [FC-60, FC-40, FC-5]}"""


def planned(network: Network, options: StepOptions) -> int:
    """Return what a plan says that the rank holds."""
    return plan_step(network, options).peak_bytes


def ranks_of(network: Network, cut: list[str], **arguments: Any) -> list[StepOptions]:
    """Return what the step of each rank is like."""
    group = {"ranks": len(cut) + 1, "parallel": "pipeline", "cut": cut}
    return [checked_options(network, **group, rank=rank, **arguments) for rank in range(len(cut) + 1)]


# Figures that were measured in torch alone


@pytest.mark.parametrize(
    ("schedule", "measured"),
    [("gpipe", [3_611_542_016, 3_272_932_124]), ("1f1b", [1_069_261_568, 2_341_571_844])],
)
def test_peaks_of_d_are_those_that_were_measured(schedule: str, measured: list[int]) -> None:
    """By MemTracker on fake tensors, of 64 images in eight parts."""
    group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "block3", "microbatches": 8}
    plan = vggkit.memory("D", batch=64, schedule=schedule, **group)
    assert [rank.peak_bytes for rank in plan.by_rank] == measured
    assert plan.peak_bytes == sum(plan.by_kind.values()) == max(measured)


@pytest.mark.parametrize(
    ("schedule", "measured"), [("gpipe", [1_679_104, 26_010_804]), ("1f1b", [1_011_328, 25_635_852])]
)
def test_peaks_of_a_small_network_are_those_that_were_measured(schedule: str, measured: list[int]) -> None:
    """A on small images; gloo holds another gradient of 16,384 bytes here and there, until its send is waited for."""
    group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "block3", "microbatches": 4}
    plan = vggkit.memory("A", batch=8, schedule=schedule, **group, **SMALL)
    assert [rank.peak_bytes for rank in plan.by_rank] == measured


# Against torch

CUTS = {
    "at a block": ["block2"],
    "inside of blocks": ["block1_conv2", "block2_conv2"],
    "behind a convolution": ["block1_relu1", "fc1"],
    "at each of several kinds": ["block1_norm2", "block2_relu1", "flatten", "relu1"],
    "in the classifier": ["fc1", "fc2", "predictions"],
}
CASES = [
    f"{cut}; {schedule}; {parts}; {images}"
    for cut, schedule, (parts, images) in product(CUTS, SCHEDULES, ((1, 40), (2, 2), (2, 40), (5, 40)))
    if parts > len(CUTS[cut]) or schedule == "gpipe"
]
FEW = ["at a block; 1f1b; 2; 2", "at each of several kinds; gpipe; 2; 40", "inside of blocks; 1f1b; 5; 40"]


@pytest.mark.parametrize("case", sample(CASES, FEW))
def test_each_rank_has_memtrackers_peak(case: str) -> None:
    """Wherever it is cut, in each schedule, with one microbatch and with several."""
    cut, schedule, *numbers = case.split("; ")
    parts, images = map(int, numbers)
    network = Network.of(vggkit.loads(TINY))
    for options in ranks_of(network, CUTS[cut], schedule=schedule, microbatches=parts, batch=parts * images):
        assert planned(network, options) == peak(network, options)


BLOCKS = [f"block{number}" for number in range(2, 6)]
OF_THE_SIX = {
    "2": ["block3"],
    "3": ["block3", "flatten"],
    "4": ["block2", "block4_conv2", "fc1"],
    "8": [*BLOCKS, "fc1", "fc2", "predictions"],
}
SIX = [
    f"{name}; {ranks}; {schedule}; {batch}; {optimizer}"
    for (name, ranks), (schedule, batch, optimizer) in zip(
        product(("A", "A-LRN", "B", "C", "D", "E"), OF_THE_SIX),
        cycle(product(SCHEDULES, (8, 64), ("sgd-momentum", "adamw", "sgd-momentum"))),
    )
]


@pytest.mark.parametrize("case", sample(SIX, SIX[5:6]))
def test_each_rank_of_the_six_has_memtrackers_peak(case: str) -> None:
    """On 2 to 8 ranks, in eight microbatches: the first, the last and one between them."""
    name, ranks, schedule, batch, optimizer = case.split("; ")
    network, arguments = Network.of(name), {"schedule": schedule, "optimizer": optimizer, "microbatches": 8}
    every = ranks_of(network, OF_THE_SIX[ranks], batch=int(batch), **arguments)
    for options in dict.fromkeys((every[0], every[len(every) // 2], every[-1])):
        assert planned(network, options) == peak(network, options)


OF_16 = [
    f"{name}; {rank}; {schedule}"
    for (name, rank), schedule in zip(product("CDE", (0, 1, 7, 15)), cycle(["1f1b", "gpipe", "1f1b"]))
]


@pytest.mark.parametrize("case", sample(OF_16, ["E; 1; 1f1b"]))
def test_each_of_16_ranks_has_memtrackers_peak(case: str) -> None:
    """C and D have 16 weight layers, one for each stage; of E the last stage has the last four."""
    name, rank, schedule = case.split("; ")
    network = Network.of(name)
    cut = [placed.name for placed in network.weight_layers[1:16]]
    options = ranks_of(network, cut, batch=32, schedule=schedule, microbatches=16)[int(rank)]
    assert planned(network, options) == peak(network, options)


@pytest.mark.parametrize(("name", "update"), sampled(list(updates([{}])), lambda every: fewer(every)[::5]))
def test_each_optimizer_has_memtrackers_peak(name: str, update: Update) -> None:
    """On the stage that has most parameters."""
    network = Network.of(vggkit.loads(TINY))
    options = ranks_of(network, ["block2"], batch=4, microbatches=2, optimizer=name, **update.given)[1]
    assert planned(network, options) == peak(network, options)


LOOPS: dict[str, dict[str, Any]] = {
    "frozen": {"freeze": ["block1_conv2", "fc1"]},
    "checkpointed": {"checkpoint": ["block1", "block2"]},
    "gradients set to zero": {"zero_grad": "zero"},
    "moving average": {"ema": True},
    "bfloat16": {"dtype": "bfloat16"},
    "autocast": {"autocast": True},
    "autocast, checkpointed": {"autocast": True, "checkpoint": ["block1", "block2"]},
    "all together, 1f1b": {"freeze": "fc1", "checkpoint": "block1", "zero_grad": "zero", "ema": True},
    **{loss: {"loss": loss} for loss in LOSSES},
}


@pytest.mark.parametrize("loop", sample(list(LOOPS), ["all together, 1f1b", "label-smoothing"]))
def test_each_option_of_a_loop_has_memtrackers_peak(loop: str) -> None:
    """On each rank, with a cut inside of a block."""
    network = Network.of(vggkit.loads(TINY))
    arguments = {"schedule": "1f1b" if loop.endswith("1f1b") else "gpipe", **LOOPS[loop]}
    for options in ranks_of(network, ["block1_conv2", "fc1"], batch=60, microbatches=3, **arguments):
        assert planned(network, options) == peak(network, options)


# Against torch's allocator, on the card that isn't there

ON_A_CARD = {
    **LOOPS,
    "one image each": {"batch": 3},
    **{word: {"optimizer": word} for word in ("none", "adamw", "adadelta", "paper", "radam")},
}


@pytest.mark.parametrize("loop", sample(list(ON_A_CARD), ["all together, 1f1b", "adamw"]))
def test_each_loop_takes_of_a_card_what_torchs_allocator_says(card: Card, loop: str) -> None:
    """All that is allocated and freed, in order, and each step's figures; with tensors to receive into from then on."""
    for rank, schedule in product(range(3), SCHEDULES):
        group = {"ranks": 3, "rank": rank, "parallel": "pipeline", "cut": ["block1_norm2", "fc1"], "microbatches": 3}
        question = {"config": TINY, "batch": 60, **group, "schedule": schedule, **ON_A_CARD[loop]}
        assert_torchs_order(card, question)
        assert_torchs_steps(card, question)


def test_a_card_must_have_what_was_measured(card: Card) -> None:
    """Each rank of D, cut before block3, in eight microbatches."""
    group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "block3", "microbatches": 8, "batch": 64}
    plan = vggkit.memory("D", device="cuda", schedule="1f1b", **group)
    for rank in plan.by_rank:
        *_, last = card.ask(name="D", steps=4, rank=rank.rank, schedule="1f1b", **group)
        assert rank.reserved_bytes == last["reserved"]


# Drawn networks


@st.composite
def drawn_steps(draw: DrawFn) -> tuple[Network, StepOptions]:
    """Draw a network that is cut anywhere, and a rank's step of it."""
    maps = st.sampled_from(
        ["conv3-6", {"conv": 4, "norm": "batch"}, {"conv": 3, "activation": "silu"}, "LRN", "batchnorm", "avgpool"]
    )
    blocks = draw(st.lists(st.lists(maps, min_size=1, max_size=3), min_size=1, max_size=3))
    classifier = [
        {
            "fc": draw(st.integers(1, 12)),
            "bias": draw(st.booleans()),
            "activation": draw(st.sampled_from(["relu", "elu", "silu", "hardtanh", "gelu", "tanh", "none"])),
            "dropout": draw(st.sampled_from([0, 0.3])),
        }
        for _ in range(draw(st.integers(0, 3)))
    ]
    classifier += [{"fc": draw(st.integers(2, 12)), "bias": draw(st.booleans())}]
    whole = {"name": "drawn", "input": "2x8x8", "blocks": blocks, "classifier": ["flatten", *classifier]}
    try:
        network = Network.of(vggkit.loads(yaml.safe_dump(whole)))
    except vggkit.ConfigError:  # the maps are too small for all the pools
        assume(False)
    names = [placed.name for placed in network.modules()[1:]]
    cut = sorted(draw(st.sets(st.sampled_from(names), min_size=1, max_size=3)), key=names.index)
    schedule = draw(st.sampled_from(list(SCHEDULES)))
    parts = draw(st.integers(SCHEDULES[schedule].least(len(cut) + 1), 6))
    arguments: dict[str, Any] = {
        "batch": parts * (draw(st.integers(1, 4) | st.integers(20, 60))),
        "microbatches": parts,
        "schedule": schedule,
        "optimizer": draw(st.sampled_from(["sgd", "sgd-momentum", "adamw", "adadelta", "none"])),
        "zero_grad": draw(st.sampled_from(["zero", "set_to_none"])),
        "freeze": draw(st.lists(st.sampled_from(names), max_size=1)),
        "checkpoint": draw(st.lists(st.sampled_from(["block1"]), max_size=1)),
    }
    try:
        options = ranks_of(network, cut, **arguments)[draw(st.integers(0, len(cut)))]
        plan_step(network, options)
    except ArgumentError:  # a stage trains nothing, or a normalisation would see a single value
        assume(False)
    return network, options


@pytest.mark.slow
@given(drawn_steps())
@settings(max_examples=200, deadline=None)
def test_each_rank_of_a_drawn_network_has_memtrackers_peak(drawn: tuple[Network, StepOptions]) -> None:
    """Cut anywhere, with blocks that are run again and frozen layers."""
    assert planned(*drawn) == peak(*drawn)


WITH_LRN = """{name: lrn, input: 3x12x12, blocks: [[conv3-8, LRN, maxpool], [conv3-8, conv3-8]],
classifier: [FC-60, FC-5]}"""


@pytest.mark.parametrize("cut", [["block1_lrn", "block2_conv2"], ["block1_pool", "fc1"]], ids=str)
def test_what_autocast_sends_has_the_dtype_of_the_layer_before(cut: list[str]) -> None:
    """Behind a convolution bfloat16, behind LRN float32, which the stage behind casts in each microbatch."""
    network = Network.of(vggkit.loads(WITH_LRN))
    for options in ranks_of(network, cut, batch=80, microbatches=4, autocast=True):
        assert planned(network, options) == peak(network, options)
    stays = [plan_step(network, options).steady_bytes for options in ranks_of(network, cut, batch=4, autocast=True)]
    assert len(set(stays)) == 3


def test_what_stays_between_steps_is_what_torch_keeps() -> None:
    """With what is received into, and on the last rank the outputs; without images, targets and running statistics."""
    network = Network.of(vggkit.loads(TINY))
    for options in ranks_of(network, ["block2"], batch=12, microbatches=3):
        with tracked(network, options) as (training, tracker):
            training.step()
            others = [training.images, training.targets, *training.stage.buffers()]
            held = bytes_of(tracker, "current") - sum(one.nbytes for one in others if one is not None)
        assert plan_step(network, options).steady_bytes == held


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_sent_is_what_torch_sends(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations to the next rank and their gradients to the one before, of each microbatch."""
    network = Network.of(vggkit.loads(TINY))
    for options in ranks_of(network, ["block2", "fc2"], batch=12, microbatches=4, schedule=schedule):
        done: list[tuple[Any, int]] = []

        def note(operations: list[dist.P2POp], done: list[tuple[Any, int]] = done, **_: Any) -> list[Any]:
            done += [(one.op, one.tensor.nbytes) for one in operations]
            return []

        with tracked(network, options) as (training, _), monkeypatch.context() as patched:
            training.step()
            patched.setattr(schedules, "_batch_p2p", note)
            training.step()
        sent, received = (sum(size for op, size in done if op is one) for one in (dist.isend, dist.irecv))
        plan = plan_step(network, options)
        assert (plan.sent_bytes, plan.received_bytes) == (sent, received)


# What a plan says


def test_a_plan_says_what_the_stages_are() -> None:
    """Whose the batch is, with what the stages begin and in how many parts the batch runs, chosen if nobody says."""
    plan = vggkit.memory("D", batch=64, ranks=3, parallel="pipeline", cut=["conv3_1", "fc6"])
    assert "batch 64, float32" in plan.title
    assert "3 ranks by pipeline, cut at conv3_1 and fc6, microbatches 4" in plan.title
    assert "The batch is the group's, so that a step has 64 images in all." in str(plan)
    assert "The stages behind the first begin with conv3_1 and fc6; the batch runs in 4 parts of 16." in str(plan)
    assert (plan.to_dict()["cut"], plan.to_dict()["microbatches"]) == (("conv3_1", "fc6"), 4)


def test_the_layers_and_the_timeline_are_those_of_the_rank() -> None:
    """The second rank receives, runs its layers and sends gradients back; the first has no loss."""
    group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "block3", "batch": 8}
    first, second = (vggkit.memory("D", rank=rank, **group) for rank in (0, 1))
    assert first.layers[-1].name == "block2_pool"
    assert [second.layers[0].name, second.layers[-1].name] == ["block3_conv1", "loss"]
    events = [moment.event for moment in second.timeline]
    assert events.count("forward of block3_conv1") == events.count("backward of receive") == 2
    assert "joining the outputs" in events
    assert "joining the outputs" not in [moment.event for moment in first.timeline]


@pytest.mark.parametrize(("schedule", "in_flight"), [("gpipe", 4), ("1f1b", 2)])
def test_kept_is_what_the_microbatches_in_flight_keep(schedule: str, in_flight: int) -> None:
    """Four in GPipe, on the first of two ranks two in 1F1B; the images are kept once."""
    group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "block3", "rank": 0}
    one = vggkit.memory("D", batch=2, microbatches=1, **group).saved_for_backward_bytes
    images = 2 * 3 * 224 * 224 * 4
    plan = vggkit.memory("D", batch=8, microbatches=4, schedule=schedule, **group)
    assert plan.saved_for_backward_bytes == in_flight * (one - images) + 4 * images


def test_the_largest_batch_is_one_that_the_parts_divide() -> None:
    """It is the group's, and the microbatches stay as many; by default as many as there are stages."""
    for options, step in (({"microbatches": 8}, 8), ({}, 2)):
        group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "block3", **options}
        most = vggkit.max_batch("D", "8GB", device="cpu", **group)
        assert most % step == 0
        group["microbatches"] = step
        peaks = [vggkit.memory("D", batch=most + more, **group).peak_bytes for more in (0, step)]
        assert peaks[0] <= 8_000_000_000 < peaks[1]


def test_stages_have_names_in_any_vocabulary() -> None:
    """The authors', torchvision's, ours, and blocks."""
    every = [stages_of(Network.of("D"), [name]) for name in ("block3", "block3_conv1", "conv3_1", "features.10")]
    assert all(stages == every[0] for stages in every)


# What can't be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cut": "block9"}, "cut: D has no block or layer 'block9'. Did you mean 'block5'?"),
        ({"cut": "block1"}, "cut: expected what the second stage begins with, found block1, which is the first"),
        ({"cut": ["block3", "block2"], "ranks": 3}, "cut: expected names in the network's order, each once, found"),
        ({"cut": ["block3", "conv3_1"], "ranks": 3}, "cut: expected names in the network's order, each once, found"),
        (
            {"cut": ["block3"], "ranks": 3},
            "cut: 3 ranks by pipeline expected a name for each of 3 stages but the first, found 1",
        ),
        ({"cut": ["auto", "block3"], "ranks": 3}, "cut: auto can't be combined with names, found 'auto, block3'"),
        ({"cut": "prob"}, "cut: prob is not part of the model, which returns the scores before it"),
        ({"cut": 3}, "cut: expected a name or several, found 3"),
        (
            {"cut": ["relu7", "fc8"], "ranks": 3},
            "parallel: pipeline needs a parameter that is trained, and the stage from relu2 on has none",
        ),
        (
            {"freeze": ["block1", "block2"]},
            "parallel: pipeline needs a parameter that is trained, and the stage from block1_conv1 on has none",
        ),
        ({"microbatches": 0}, "microbatches: expected a whole number from 1"),
        ({"microbatches": 4, "batch": 10}, "microbatches: 10 images can't be divided into 4 equal parts, and torch's"),
        ({"batch": 1009}, "microbatches: expected at most 1000, found 1009 that divide 1009"),
        ({"microbatches": 1, "schedule": "1f1b"}, "microbatches: schedule 1f1b needs as many as there are stages, 2"),
        ({"schedule": "1f1b"}, "batch: schedule 1f1b needs 2 images for as many stages, found 1"),
        ({"schedule": "zb"}, "schedule: expected one of gpipe, 1f1b, found 'zb'"),
        ({"balance": "macs"}, "balance: needs cut auto, found names"),
        ({"accumulate": 2}, "accumulate: can't be combined with parallel pipeline, whose microbatches are just that"),
        ({"clip_grad": True}, "clip_grad: can't be combined with parallel pipeline, as clip_grad_norm_ would see"),
        ({"step_in_backward": True}, "step_in_backward: can't be combined with parallel pipeline, where the gradients"),
        ({"units": "root"}, "units: expected a parallel that has it (fsdp), found pipeline"),
        ({"parallel": "ddp", "cut": "block3"}, "cut: expected a parallel that has it (pipeline, pipeline+ddp), found"),
    ],
    ids=str,
)
def test_what_a_pipeline_can_not_do_is_refused(options: dict[str, Any], said: str) -> None:
    """In one line that names the argument."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("D", **{"ranks": 2, "parallel": "pipeline", "cut": "block3", **options})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_normalisation_of_one_value_is_refused_on_any_rank() -> None:
    """It sees a microbatch, so that what helps is a batch of two images in each."""
    text = "{name: x, input: 3x8x8, blocks: [[conv3-8]], classifier: [{fc: 24, norm: batch}, FC-10]}"
    group: dict[str, Any] = {"ranks": 2, "parallel": "pipeline", "cut": "fc1", "microbatches": 4}
    with pytest.raises(ArgumentError, match=r"norm1 would normalize a single value .* batch 8 or more"):
        vggkit.memory(vggkit.loads(text), batch=4, **group)
    assert vggkit.max_batch(vggkit.loads(text), "1MB", device="cpu", **group) % 4 == 0
    assert vggkit.max_batch(vggkit.loads(text), 1, device="cpu", **group) == 0

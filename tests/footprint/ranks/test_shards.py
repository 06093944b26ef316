"""Ranks that have a part of each parameter, held against torch's FSDP2."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch.distributed.device_mesh import init_device_mesh

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card, Cards
from tests.footprint.grid import (
    CONFIGURATIONS,
    FULL_CARD,
    ROOMY,
    Question,
    assert_torchs_order,
    figures,
    loop_of,
    network_of,
    of_drawn_shards,
    of_shards,
    split,
)
from tests.footprint.ranks.loop import group_of
from tests.footprint.ranks.sharded import Sharded, peak
from tests.footprint.ranks.test_replicas import SMALL, TINY, assert_torchs_steps
from tests.footprint.updates import cases as updates
from tests.footprint.updates import fewer, sampled
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import Update
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks import UNITS
from vggkit.footprint.ranks.shards import FUSED, REFUSED
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network

# Figures that were measured in torch alone


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        ({}, 1_139_629_356),
        ({"batch": 64}, 5_755_850_532),
        ({"batch": 64, "optimizer": "adamw"}, 5_825_029_432),
        ({"batch": 64, "reshard_after_forward": False}, 5_838_752_296),
        ({"batch": 64, "units": "root"}, 5_933_788_784),
        ({"batch": 64, "param_dtype": "bfloat16", "reduce_dtype": "float32"}, 3_550_864_160),
    ],
    ids=str,
)
def test_peaks_of_d_are_those_that_were_measured(options: dict[str, Any], measured: int) -> None:
    """By MemTracker on fake tensors, for eight ranks, which hold the same."""
    plan = vggkit.memory("D", ranks=8, parallel="fsdp", **options)
    assert plan.peak_bytes == sum(plan.by_kind.values()) == measured
    assert {rank.peak_bytes for rank in plan.by_rank} == {measured}


def test_the_peak_of_a_small_network_is_that_which_was_measured() -> None:
    """The same for A on small images, on two ranks."""
    assert vggkit.memory("A", batch=4, ranks=2, parallel="fsdp", **SMALL).peak_bytes == 17_175_052


# Against torch

NETWORKS = {
    "tiny": TINY,
    "no FC layers": "{name: x, input: 3x12x12, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool],"
    " [conv3-16, conv3-16]], classifier: [global-avgpool, FC-5]}",
    "trunk": "{name: x, input: 3x12x12, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool], [conv3-16, maxpool]]}",
}
CASES = [f"{network}; {units}; {stay}" for network, units, stay in product(NETWORKS, UNITS, ("freed", "kept"))]


@pytest.mark.parametrize(
    "case", sample(CASES, ["tiny; blocks; freed", "no FC layers; layers; kept", "trunk; root; freed"])
)
def test_each_rank_has_memtrackers_peak(case: str) -> None:
    """With even and uneven parts, some of them empty, at a batch whose activations matter and at one where not."""
    network, units, stay = case.split("; ")
    placed = Network.of(vggkit.loads(NETWORKS[network]))
    for ranks, rank, batch in ((2, 0, 2), (3, 2, 40), (16, 9, 2)):
        group = {"ranks": ranks, "rank": rank, "units": units, "reshard_after_forward": stay == "freed"}
        options = checked_options(placed, batch=batch, parallel="fsdp", **group)
        assert plan_step(placed, options).peak_bytes == peak(placed, options)


ON_PARTS = [
    (name, update)
    for name, update in updates([{}, {"foreach": True}, {"fused": True}])
    if name not in REFUSED and (name in FUSED or not update.fused)
]


@pytest.mark.parametrize(("name", "update"), sampled(ON_PARTS, lambda every: fewer(every)[::4]))
def test_each_optimizer_has_memtrackers_peak(name: str, update: Update) -> None:
    """On parts of parameters, which are smaller on the last rank."""
    network = Network.of(vggkit.loads(TINY))
    options = checked_options(network, batch=2, ranks=3, rank=2, parallel="fsdp", optimizer=name, **update.given)
    assert plan_step(network, options).peak_bytes == peak(network, options)


TWICE = """{name: twice, input: 3x12x12, blocks: [[conv3-8, conv3-8, maxpool], [conv3-16, conv3-16, maxpool]],
classifier: [FC-60, FC-40, FC-5]}"""
LOOPS: dict[str, dict[str, Any]] = {
    "bfloat16 parameters": {"param_dtype": "bfloat16"},
    "mixed": {"param_dtype": "bfloat16", "reduce_dtype": "float32"},
    "bfloat16 sums": {"reduce_dtype": "bfloat16"},
    "float16 of bfloat16": {"dtype": "bfloat16", "param_dtype": "float16", "loss": "mean-squared-error"},
    "bfloat16": {"dtype": "bfloat16"},
    "float64": {"dtype": "float64"},
    "first block frozen": {"freeze": ["block1"]},
    "parts of units frozen": {"freeze": ["block1_conv1", "block2", "fc1"], "reshard_after_forward": False},
    "checkpointed": {"checkpoint": ["block1", "block2"]},
    "checkpointed, kept": {"checkpoint": ["block2"], "reshard_after_forward": False, "freeze": ["block1"]},
    "checkpointed, mixed": {"checkpoint": ["block1"], "param_dtype": "bfloat16", "reduce_dtype": "float32"},
    "accumulated": {"accumulate": 4},
    "accumulated twice, mixed": {"accumulate": 2, "param_dtype": "bfloat16"},
    "set to zero": {"zero_grad": "zero"},
    "set to zero, accumulated": {"zero_grad": "zero", "accumulate": 2},
    "clipped": {"clip_grad": True},
    "moving average": {"ema": True, "freeze": ["block1"]},
    "stepped in backward": {"step_in_backward": True, "optimizer": "adamw"},
    "paper": {"optimizer": "paper"},
    "autocast": {"autocast": True},
    "autocast, checkpointed": {"autocast": True, "checkpoint": ["block1"], "param_dtype": "float32"},
    "autocast of bfloat16": {"autocast": True, "param_dtype": "bfloat16"},
    "label smoothing": {"loss": "label-smoothing"},
    "soft labels": {"loss": "soft-labels", "param_dtype": "bfloat16"},
}
FEW_LOOPS = ["mixed", "first block frozen", "checkpointed", "stepped in backward", "autocast, checkpointed"]


@pytest.mark.parametrize("loop", sample([*LOOPS], FEW_LOOPS))
def test_each_loop_has_memtrackers_peak(loop: str) -> None:
    """With every dtype and option of a loop, on a rank that has less than others, at a small and a large batch."""
    units = [*UNITS][[*LOOPS].index(loop) % len(UNITS)]
    network = Network.of(vggkit.loads(TWICE))
    for ranks, rank, batch in ((2, 0, 2), (3, 2, 40)):
        options = checked_options(
            network, batch=batch, ranks=ranks, rank=rank, parallel="fsdp", units=units, **LOOPS[loop]
        )
        assert plan_step(network, options).peak_bytes == peak(network, options)


@pytest.mark.parametrize("optimizer", REFUSED)
def test_torch_refuses_the_same_optimizers(optimizer: str) -> None:
    """For the reason that is given, with and without foreach."""
    network = Network.of(vggkit.loads(TWICE))
    usual = checked_options(network, batch=2, ranks=2, rank=0, parallel="fsdp")
    for foreach in (False, True):
        options = usual.replace(optimizer=optimizer, foreach=foreach)
        with pytest.raises(
            (RuntimeError, NotImplementedError), match=r"in-place operations that require|_foreach_copy_"
        ):
            peak(network, options)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("dtype", "param_dtype"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_torch_refuses_the_same_batch_norms(affine: bool, dtype: str, param_dtype: str) -> None:
    """Real ones: those with parameters, and all whose running statistics are not float32."""
    text = f"{{name: x, input: 3x6x6, blocks: [[conv3-8, {{batchnorm: {{affine: {str(affine).lower()}}}}}]]}}"
    network = Network.of(vggkit.loads(text))
    options = checked_options(network, batch=2, ranks=2, rank=0, parallel="fsdp", dtype=dtype)
    group = replace(options.group, param_dtype=param_dtype)

    def step() -> None:
        with group_of(options):
            Sharded(network, options.replace(group=group), init_device_mesh("cpu", (2,))).step()

    if dtype == "float32" and not affine:
        step()
        assert plan_step(network, options.replace(group=group)).peak_bytes
        return
    with pytest.raises(RuntimeError, match=r"expected scalar type|mixed dtype"):
        step()
    with pytest.raises(ArgumentError, match=f"param_dtype: {param_dtype} can't be combined with block1_norm1"):
        checked_options(network, batch=2, ranks=2, parallel="fsdp", dtype=dtype, param_dtype=param_dtype)


# Against torch's allocator, on the card that isn't there


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A rank's card with room for everything."""
    return cards(PLAYER, ROOMY, "")


PLAYER = "../ranks/play_card.py"
FULL_STEPS = 6
OF_A_CARD = [f"{units}; {loop}" for units, loop in product(UNITS, LOOPS)]


def assert_torchs(card: Card, question: Question) -> None:
    """Hold the figures of each step, and what is allocated and freed in which order, against torch's."""
    assert_torchs_steps(card, question)
    assert_torchs_order(card, question)


@pytest.mark.parametrize("case", sample(OF_A_CARD, OF_A_CARD[::6]))
def test_each_loop_takes_of_a_card_what_torchs_allocator_says(card: Card, case: str) -> None:
    """In three streams, whose blocks never serve each other, with what kernels take for themselves."""
    units, loop = case.split("; ")
    place = OF_A_CARD.index(case)
    ranks = (2, 3, 16)[place % 3]
    group = {"parallel": "fsdp", "ranks": ranks, "rank": place % ranks, "units": units}
    assert_torchs(card, {"config": TWICE, "batch": (1, 7, 300)[place // 3 % 3], **group, **LOOPS[loop]})


@pytest.mark.parametrize(("name", "update"), sampled(ON_PARTS, lambda every: fewer(every)[::3]))
def test_each_optimizer_takes_of_a_card_what_torchs_allocator_says(card: Card, name: str, update: Update) -> None:
    """On parts of parameters, some of which are empty."""
    group = {"parallel": "fsdp", "ranks": 16, "rank": 9}
    assert_torchs(card, {"config": TINY, "batch": 2, **group, "optimizer": name, **update.given})


@pytest.mark.parametrize(
    "options", [{}, {"checkpoint": ["block1"]}, {"freeze": ["block1"], "units": "layers"}], ids=str
)
def test_autocast_widens_what_is_gathered_for_a_group_norm(card: Card, options: dict[str, Any]) -> None:
    """On a card, where it runs in float32: its parameters are cast, too, and no cast of them is kept for later."""
    text = "{name: x, input: 3x8x8, blocks: [[conv3-8, {groupnorm: 2}, maxpool], [conv3-8, {groupnorm: 4}]]}"
    group = {"parallel": "fsdp", "ranks": 3, "rank": 1, "param_dtype": "bfloat16", "autocast": True, **options}
    assert_torchs(card, {"config": text, "batch": 3, **group})


def test_gradients_that_stay_lie_in_the_stream_in_which_they_were_added_up(card: Card) -> None:
    """Where that shows: in the layers' stream they would lie in the way of a large tensor's segment."""
    text = "{name: x, input: 4x5x9, blocks: [[batchnorm, maxpool, soft-max, leaky-relu], [LRN, batchnorm, soft-max],\
 [maxpool, LRN]], classifier: [flatten, log-softmax]}"
    group = {"parallel": "fsdp", "ranks": 4, "rank": 1, "checkpoint": ["block1", "block2", "block3"]}
    loop = {"optimizer": "adam", "ema": True, "zero_grad": "zero", "accumulate": 3}
    for batch in range(14_380, 14_385):
        assert_torchs(card, {"config": text, "batch": batch, **group, **loop})


def test_every_rank_takes_of_a_card_what_torchs_allocator_says(card: Card) -> None:
    """Where parameters can't be divided evenly, and some ranks have none of a layer."""
    for rank in range(16):
        question = {"config": TINY, "batch": 3, "parallel": "fsdp", "ranks": 16, "rank": rank, "clip_grad": True}
        assert_torchs(card, question)


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_drawn_networks_take_of_a_card_what_torchs_allocator_says(card: Card, count: int) -> None:
    """Drawn steps with drawn units and dtypes."""
    questions = of_drawn_shards(count)
    assert len(questions) == count
    for question in questions:
        assert_torchs(card, question)


GRID = of_shards(CONFIGURATIONS, (2, 3, 4, 8, 16), (1, 16, 64))


ASKED = {" ".join(map(str, question.values())): question for question in GRID}


@pytest.mark.parametrize("word", sample([*ASKED][::11], [*ASKED][:99:44]))
def test_configurations_take_of_a_card_what_torchs_allocator_says(card: Card, word: str) -> None:
    """The paper's, on 2 to 16 ranks, at batches up to 64, by several optimizers; `tests.footprint.grid` plays all."""
    assert_torchs(card, ASKED[word])


@pytest.mark.parametrize("word", sample([*ASKED][::77], [*ASKED][77:78]))
def test_configurations_have_memtrackers_peak(word: str) -> None:
    """The same on the CPU."""
    network = network_of(ASKED[word])
    options = checked_options(network, **split(ASKED[word])[1])
    assert plan_step(network, options).peak_bytes == peak(network, options)


def test_a_viewers_file_has_the_streams() -> None:
    """Segments of the layers' stream, and of those of gathered parameters and of added gradients."""
    plan = vggkit.memory("A", batch=2, ranks=4, parallel="fsdp", device="cuda", **SMALL)
    snapshot = plan.torch_snapshot()
    assert {segment["stream"] for segment in snapshot["segments"]} == {0, 1, 2}
    starts = {segment["address"]: segment for segment in snapshot["segments"]}
    for event in snapshot["device_traces"][0][:-1]:
        segment = starts[max(start for start in starts if start <= event["addr"])]
        assert event["stream"] == segment["stream"]


def test_a_card_must_have_what_was_measured() -> None:
    """D with 16 images on each of 8 ranks, by torch's allocator alone."""
    plan = vggkit.memory("D", batch=16, device="cuda", ranks=8, parallel="fsdp")
    assert (plan.allocated_bytes, plan.reserved_bytes) == (2_247_942_144, 3_594_518_528)


FULL: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("", {"param_dtype": "bfloat16", "reduce_dtype": "float32", "units": "layers"}),
    ("expandable_segments:True", {}),
    ("max_split_size_mb:128", {}),
    ("per_process_memory_fraction:0.9,garbage_collection_threshold:0.7", {"param_dtype": "bfloat16"}),
]


@pytest.mark.parametrize(
    ("text", "options"), [FULL[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in FULL[1:])]
)
def test_the_largest_batch_is_the_largest_that_torch_runs(cards: Cards, text: str, options: dict[str, Any]) -> None:
    """D on a card that it fills: around the largest batch every step's figures are torch's, and the next one fails."""
    shape, group = {"name": "D", "input": "3x128x128"}, {"parallel": "fsdp", "ranks": 4, "rank": 0, **options}
    card = cards(PLAYER, FULL_CARD, text)
    of_d = {"context": 0, "input": "3x128x128", "allocator": text}
    largest = vggkit.max_batch("D", FULL_CARD, **of_d, **group)
    runs = {}
    for batch in range(largest - 2, largest + 3):
        question = {**shape, "batch": batch, **group}
        loop = loop_of(question)
        assert loop is not None
        ours = figures(loop, batch, FULL_CARD, text, FULL_STEPS)
        theirs = card.ask(**question, steps=FULL_STEPS)
        assert ours[1:] == theirs[1:], (question, text)
        runs[batch] = None not in theirs
    assert [runs[batch] for batch in (largest - 2, largest - 1, largest, largest + 1)] == [True, True, True, False]


# What a plan says


def test_ranks_hold_parts_that_are_even_with_padding() -> None:
    """Between steps each has an eighth of parameters and gradients; rows that are left over make no rank fuller."""
    plan = vggkit.memory("D", ranks=8, parallel="fsdp")
    assert plan.steady_bytes * 8 == vggkit.memory("D").steady_bytes
    uneven = vggkit.memory("D", ranks=7, parallel="fsdp")
    first, *others = [rank.peak_bytes for rank in uneven.by_rank]
    assert first == uneven.peak_bytes == max(others) > min(others)
    assert vggkit.max_batch("D", "24GiB", device="cpu", ranks=7, parallel="fsdp") > 327


def test_what_is_sent_is_all_parameters_three_times() -> None:
    """Gathered in both passes, and reduced; a third less where they stay in between."""
    size = vggkit.summarize("D").totals.parameter_bytes * 7 // 8
    plan = vggkit.memory("D", ranks=8, parallel="fsdp")
    assert plan.sent_bytes == plan.received_bytes == 3 * size
    kept = vggkit.memory("D", ranks=8, parallel="fsdp", reshard_after_forward=False)
    assert kept.sent_bytes == 2 * size


@pytest.mark.parametrize(
    "loop",
    [{}, LOOPS["mixed"], LOOPS["accumulated"], LOOPS["first block frozen"], LOOPS["parts of units frozen"]],
    ids=str,
)
def test_what_is_sent_is_what_torch_hands_to_the_group(loop: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the dtypes of mixed precision, once for each batch, and nothing for gradients of what is frozen."""
    network = Network.of(vggkit.loads(TWICE))
    options = checked_options(network, batch=2, ranks=2, rank=0, parallel="fsdp", **loop)
    sent: list[int] = []

    def noting(function: str, whole: str) -> None:
        original = getattr(torch.distributed, function)

        def noted(**arguments: Any) -> Any:
            sent.append(arguments[whole].nbytes // 2)
            return original(**arguments)

        def positional(*tensors: Any, **arguments: Any) -> Any:
            return noted(**dict(zip(("output_tensor", "input_tensor"), tensors)), **arguments)

        monkeypatch.setattr(torch.distributed, function, positional)

    noting("all_gather_single", "output_tensor")
    noting("reduce_scatter_single", "input")
    with group_of(options):
        training = Sharded(network, options, init_device_mesh("cpu", (2,)))
        training.step()
        sent.clear()
        training.step()
    plan = plan_step(network, options)
    assert plan.sent_bytes == plan.received_bytes == sum(sent)


def test_the_timeline_names_what_is_gathered_and_reduced() -> None:
    """Each unit once in the forward and once in the backward pass, where the one before it is gathered in advance."""
    plan = vggkit.memory("D", ranks=8, parallel="fsdp")
    events = [moment.event for moment in plan.timeline if " of " in moment.event and "ward" not in moment.event]
    units = [f"block{number}" for number in range(1, 6)] + ["fc1", "fc2", "predictions"]
    assert [event for event in dict.fromkeys(events) if event.startswith("all-gather")] == [
        f"all-gather of {unit}" for unit in units
    ]
    reduced = [event for event in dict.fromkeys(events) if event.startswith("reduce-scatter")]
    assert reduced == [f"reduce-scatter of {unit}" for unit in reversed(units)]
    assert "no reshard after forward" in vggkit.memory("D", ranks=8, parallel="fsdp", reshard_after_forward=False).title


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "adafactor"}, "optimizer: adafactor can't be combined with parallel fsdp: torch can't run"),
        ({"optimizer": "rprop"}, "optimizer: rprop can't be combined with parallel fsdp: torch can't write"),
        ({"autocast": True, "param_dtype": "float16"}, "autocast: expected param_dtype bfloat16 or float32 with it"),
        ({"param_dtype": "int8"}, "param_dtype: expected one of bfloat16, float16, float32, found 'int8'"),
        (
            {"parallel": "ddp", "reduce_dtype": "float16"},
            "reduce_dtype: expected a parallel that has it (fsdp), found ddp",
        ),
        ({"optimizer": "sgd", "fused": True}, "fused: parallel fsdp expects one of adam, adamw, found sgd"),
        ({"units": "stages"}, "units: expected one of blocks, layers, root, found 'stages'"),
        (
            {"bucket_cap_mb": 1},
            "bucket_cap_mb: expected a parallel that has it (ddp, ddp-view, zero1, tensor+ddp, pipeline+ddp), found",
        ),
        ({"reshard_after_forward": 0}, "reshard_after_forward: expected True or False, found 0"),
    ],
    ids=str,
)
def test_what_fsdp_can_not_do_is_refused(options: dict[str, Any], said: str) -> None:
    """In one line that names the argument."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("A", **{"ranks": 2, "parallel": "fsdp", **options})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)

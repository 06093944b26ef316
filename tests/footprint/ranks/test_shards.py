"""Ranks that have a part of each parameter, held against torch's FSDP2."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.ranks.sharded import peak
from tests.footprint.ranks.test_replicas import SMALL, TINY
from tests.footprint.updates import cases as updates
from tests.footprint.updates import fewer, sampled
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import Update
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks import UNITS
from vggkit.footprint.ranks.parts import REFUSED
from vggkit.footprint.ranks.shards import FUSED
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


def test_another_dtype_has_memtrackers_peak() -> None:
    """The model, its images and all that is sent in bfloat16."""
    network = Network.of(vggkit.loads(TINY))
    options = checked_options(network, batch=3, ranks=4, parallel="fsdp", dtype="bfloat16")
    assert plan_step(network, options).peak_bytes == peak(network, options)


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
        (
            {"device": "cuda"},
            "device: can't be combined with parallel fsdp, whose figures are of plain loops on the CPU",
        ),
        ({"freeze": "block1"}, "freeze: can't be combined with parallel fsdp"),
        ({"checkpoint": "block1"}, "checkpoint: can't be combined with parallel fsdp"),
        ({"accumulate": 2}, "accumulate: can't be combined with parallel fsdp"),
        ({"optimizer": "adafactor"}, "optimizer: adafactor can't be combined with parallel fsdp: its state depends on"),
        ({"optimizer": "rprop"}, "optimizer: rprop can't be combined with parallel fsdp: torch can't run its step"),
        ({"optimizer": "sgd", "fused": True}, "fused: parallel fsdp expects one of adam, adamw, found sgd"),
        ({"units": "stages"}, "units: expected one of blocks, layers, root, found 'stages'"),
        (
            {"bucket_cap_mb": 1},
            "bucket_cap_mb: expected a parallel that has it (ddp, ddp-view, zero1, tensor+ddp), found fsdp",
        ),
        ({"reshard_after_forward": 0}, "reshard_after_forward: expected True or False, found 0"),
    ],
    ids=str,
)
def test_what_fsdp_can_not_do_is_refused(options: dict[str, Any], said: str) -> None:
    """In one line that names the argument."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("A", ranks=2, parallel="fsdp", **options)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)

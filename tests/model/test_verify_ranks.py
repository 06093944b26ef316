"""What measures several ranks, held against torch used by hand, and against plans that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vggkit
from tests.cli.test_app import printed, run
from tests.conftest import Run, sample
from tests.footprint.ranks import divided, sharded, staged, tracked
from tests.footprint.ranks.test_replicas import LOOPS, REPLICAS, TINY
from vggkit.base.eager import PARAMETERS, Storage
from vggkit.footprint.ranks import shards
from vggkit.footprint.ranks.replicas import Replicas
from vggkit.footprint.ranks.tensors import TensorParallel
from vggkit.footprint.ranks.traffic import Traffic, all_gather, all_reduce, broadcast, reduce_scatter
from vggkit.footprint.ranks.zero import ShardedOptimizer
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.footprint.steps.refusals import steps_with_room
from vggkit.model.rank import measure_alone
from vggkit.model.verify import verify
from vggkit.network import Network

NETWORK = Network.of(vggkit.loads(TINY))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file that describes two blocks and three FC layers."""
    path = tmp_path_factory.mktemp("verify") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return str(path)


def step(**options: Any) -> StepOptions:
    """Return the step of one rank of three, unless something else is asked for."""
    return checked_options(NETWORK, **{"batch": 3, "ranks": 3, **options})


# On fake tensors, and without the other ranks

OPTIONS: dict[str, dict[str, Any]] = {
    **LOOPS,
    "root": {"units": "root"},
    "kept": {"reshard_after_forward": False},
    "mixed": {"param_dtype": "bfloat16", "reduce_dtype": "float32", "batch_norm": False},
    "stepped in backward": {"step_in_backward": True},
    "gpipe": {"schedule": "gpipe"},
    "1f1b": {"schedule": "1f1b"},
    "cut where it balances": {"cut": "auto"},
    "in autocast": {"autocast": True},
}
OF_DDP = ("bucket_cap_mb", "static_graph")
PARTS = [word for word in LOOPS if not any(option in LOOPS[word] for option in OF_DDP)]
STAGED = (
    "gpipe",
    "1f1b",
    "cut where it balances",
    "adamw",
    "moving average",
    "checkpointed",
    "set to zero",
    "in autocast",
)
DIVIDED = ("plain", "adamw", "paper", "accumulated", "set to zero", "moving average", "bfloat16")
CASES = [
    *(f"{parallel}; {word}" for parallel in REPLICAS for word in LOOPS),
    *(f"fsdp; {word}" for word in (*PARTS, "root", "kept", "stepped in backward")),
    *(f"tensor; {word}" for word in DIVIDED),
    *(f"tensor+ddp; {word}" for word in DIVIDED),
    *(f"pipeline; {word}" for word in STAGED),
]


RANKS = {"tensor": 2, "tensor+ddp": 4}
"""How many ranks there are, where not three."""


def of_case(case: str) -> dict[str, Any]:
    """Return the options of a case; those of `ddp` alone are left out elsewhere."""
    parallel, word = case.split("; ")
    given = {key: value for key, value in OPTIONS[word].items() if parallel == "ddp" or key not in OF_DDP}
    if parallel == "pipeline":
        return {"parallel": parallel, "batch": 8, "microbatches": 4, "cut": ["block2", "fc2"], **given}
    return {"parallel": parallel, "ranks": RANKS.get(parallel, 3), **given}


def by_hand(options: StepOptions) -> int:
    """Return the peak of a loop that is written in torch alone, of replicas on real tensors."""
    if options.group.parallel in REPLICAS:
        return tracked.peak_and_buckets(NETWORK, options)[0]
    if options.group.parallel == "pipeline":
        return staged.peak(NETWORK, step_of(NETWORK, options).options)
    return (sharded if options.group.parallel == "fsdp" else divided).peak(NETWORK, options)


FEW = [
    *("ddp; static graph", "ddp-view; set to zero", "zero1; adamw", "fsdp; kept", "tensor; plain"),
    *("tensor+ddp; accumulated", "pipeline; 1f1b"),
]


@pytest.mark.parametrize("case", sample(CASES, FEW))
def test_the_peak_is_that_of_a_loop_written_by_hand(case: str) -> None:
    """In which DistributedDataParallel runs on real tensors; and all that is claimed of the rank holds."""
    options = step(**of_case(case), rank=1)
    claims = list(verify(NETWORK, options))
    assert {claim.what: claim.measured for claim in claims}["rank 1, peak"] == by_hand(options)
    assert all(claim.holds for claim in claims), [claim for claim in claims if not claim.holds]


def test_what_is_sent_is_counted_in_torchs_operations() -> None:
    """Buckets and running statistics; a unit's parameters and gradients; what is divided: by the formulas, by hand."""
    _, buckets = tracked.peak_and_buckets(NETWORK, step(parallel="ddp", rank=2))
    statistics = 2 * 8 * 4 + 8  # mean and variance of eight maps, and a counter
    sent = broadcast(statistics, 3, 2)
    for bucket in buckets:
        sent = sent.plus(all_reduce(bucket, 3))
    assert sent_by("ddp", rank=2) == sent
    model = vggkit.build(NETWORK)
    units = [[*unit.parameters()] for unit in model.children() if [*unit.parameters()]]
    sent = Traffic()
    for unit in units:
        rows = sum(-(-len(tensor) // 3) * (tensor.numel() // len(tensor)) for tensor in unit)
        for operation in (all_gather, all_gather, reduce_scatter):
            sent = sent.plus(operation(3 * rows * 4, 3))
    assert sent_by("fsdp") == sent
    features = model.get_parameter("fc1.weight").shape[1]
    scores = all_gather(4 * 3 * 6, 2)  # five classes, padded
    assert sent_by("tensor", ranks=2) == all_reduce(4 * 3 * (40 + 40 + features), 2).plus(scores)


def sent_by(parallel: str, **options: Any) -> Traffic:
    """Return what a rank sends and receives, as measured."""
    measured = measure_alone(NETWORK, step(parallel=parallel, **{"rank": 0, **options}))
    return Traffic(measured.sent_bytes, measured.received_bytes)


def test_any_batch_is_measured_on_any_machine() -> None:
    """D at batch 64, of which eight ranks hold 6.9 GB each with buckets."""
    options = checked_options(Network.of("D"), batch=64, ranks=8, rank=7, parallel="ddp")
    assert measure_alone(Network.of("D"), options).peak_bytes == 6_897_315_720


def test_ranks_with_different_numbers_of_units_are_measured() -> None:
    """A of three ranks, of which the last one has fewer units of each FC layer, and of each copy of two."""
    network = Network.of(vggkit.load("A", input="3x32x32", width=0.25, num_classes=10))
    for parallel, ranks, rank in (("tensor", 3, 2), ("tensor+ddp", 6, 5)):
        options = checked_options(network, batch=3, ranks=ranks, rank=rank, parallel=parallel)
        [own] = {one.peak.size for one in steps_with_room(network, options)}
        assert own < vggkit.memory(network, batch=3, ranks=ranks, parallel=parallel).peak_bytes
        assert measure_alone(network, options).peak_bytes == own


def test_what_torch_makes_once_in_a_process_is_none_of_the_model(tmp_path: Path, process: Run) -> None:
    """It has no rule of its own for this gradient on DTensors, and makes what it needs to find one."""
    file = tmp_path / "x.yaml"
    file.write_text("{input: 2x8x8, blocks: [[conv3-4]], classifier: [{fc: 7, activation: leaky-relu}, FC-5]}")
    result = process("verify", str(file), "--batch", "2", "--ranks", "3", "--parallel", "tensor")
    assert (result.returncode, "✗" in result.stdout.decode()) == (0, False)


# Every rank


def claims_of(*options: str) -> list[dict[str, Any]]:
    """Return the claims that the command prints as JSON."""
    found: list[dict[str, Any]] = json.loads(printed("verify", *options, "--format", "json"))
    return found


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (("--ranks", "4", "--parallel", "ddp"), [[0], [1, 2], [3]]),
        (("--ranks", "5", "--parallel", "ddp", "--set", "batch_norm=false"), [[0, 1, 2, 3, 4]]),
        (("--ranks", "3", "--parallel", "zero1"), [[0], [1], [2]]),
        (("--ranks", "4", "--parallel", "tensor"), [[0, 1], [2], [3]]),
        (("--ranks", "4", "--parallel", "tensor", "--rank", "3"), [[3]]),
        (("--ranks", "16", "--parallel", "fsdp", "--rank", "5"), [[5]]),
    ],
    ids=str,
)
def test_every_rank_is_in_one_line_for_each_figure(
    tiny: str, options: tuple[str, ...], groups: list[list[int]]
) -> None:
    """Ranks of which the same is claimed stand together, and the one that is asked for alone."""
    claims = [claim for claim in claims_of(tiny, *options) if claim["ranks"]]
    assert [claim["ranks"] for claim in claims if claim["what"].endswith(", peak")] == groups
    figures = ["peak", "parameters", "between steps", "sent in a step", "received in a step"]
    assert [claim["what"].partition(", ")[2] for claim in claims if claim["ranks"] == groups[0]] == figures
    assert all(claim["equal"] and claim["exact"] for claim in claims)


def test_the_network_is_verified_as_for_a_process_that_is_alone(tiny: str) -> None:
    """Parameters, shapes and multiply-accumulates come first, and are no rank's."""
    options = ("--ranks", "2", "--parallel", "ddp")
    claims = [claim for claim in claims_of(tiny, *options) if not claim["ranks"]]
    assert [claim["what"] for claim in claims] == ["parameters", "layers of equal output shape", "multiply-accumulates"]


# What does not hold


def broken_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan have a parameter more."""
    own = Replicas.kept.fget
    assert own is not None
    monkeypatch.setattr(Replicas, "kept", property(lambda rank: (*own(rank), Storage(0, 4, 4, PARAMETERS))))


def broken_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan's first rank keep all of the optimizer's state."""
    monkeypatch.setattr(ShardedOptimizer, "owned", property(lambda rank: rank.trained))


def broken_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan give all ranks a row more."""
    own = shards.rows_of
    monkeypatch.setattr(shards, "rows_of", lambda *arguments: own(*arguments) + 1)


def broken_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan send nothing for the scores."""
    monkeypatch.setattr(TensorParallel, "traffic", lambda *_: Traffic())


BROKEN: list[tuple[str, Callable[[pytest.MonkeyPatch], None], list[str]]] = [
    ("ddp", broken_parameters, ["parameters", "between steps"]),
    ("zero1", broken_owner, ["peak", "between steps"]),
    ("fsdp", broken_rows, ["peak", "parameters", "between steps", "sent in a step", "received in a step"]),
    ("tensor", broken_gather, ["sent in a step", "received in a step"]),
]


@pytest.mark.parametrize(("parallel", "broken", "wrong"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_wrong_plan_ends_in_1(
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
    parallel: str,
    broken: Callable[[pytest.MonkeyPatch], None],
    wrong: list[str],
) -> None:
    """The lines that do not hold are marked, and no others."""
    broken(monkeypatch)
    result = run("verify", tiny, "--ranks", "2", "--rank", "0", "--parallel", parallel, COLUMNS="140")
    assert result.exit_code == 1
    marked = [line.split("  ")[1].strip() for line in result.stdout.splitlines() if line.startswith("✗")]
    assert marked == [f"rank 0, {what}" for what in wrong]


# What is said


@pytest.mark.parametrize(
    ("version", "note"),
    [
        ("2.14.1+cu130", None),
        ("2.11.0", "What several ranks hold is claimed as in torch 2.14; torch 2.11.0 is installed."),
        ("2.140.0", "What several ranks hold is claimed as in torch 2.14; torch 2.140.0 is installed."),
    ],
)
def test_another_version_of_torch_is_named(
    tiny: str, monkeypatch: pytest.MonkeyPatch, version: str, note: str | None
) -> None:
    """Below the claims of several ranks, whose figures depend on it."""
    monkeypatch.setattr(torch, "__version__", version)
    said = run("verify", tiny, "--ranks", "2", "--parallel", "ddp", COLUMNS="140").stdout.splitlines()
    assert [line.rstrip() for line in said if "installed" in line] == ([] if note is None else [note])
    assert "installed" not in run("verify", tiny, "--mode", "inference", COLUMNS="140").stdout

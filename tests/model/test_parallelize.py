"""Models on several ranks, held against torch's functions called by hand."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

import vggkit
from tests.conftest import sample
from tests.footprint.ranks import divided, loop, sharded, staged, tracked
from tests.model import play_ranks
from vggkit.base.errors import ArgumentError
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks import SCHEDULES, STRATEGIES, Group
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.model.parallelize import SET_UPS
from vggkit.network import Network

TEXT = (
    "{name: x, input: 3x8x8, blocks: [[conv3-8, {conv: 8, norm: batch}, maxpool], [conv3-8]],"
    " classifier: [FC-24, FC-48, FC-10]}"
)
NETWORK = Network.of(vggkit.loads(TEXT))
PLAIN = Network.of(vggkit.loads(TEXT.replace("{conv: 8, norm: batch}", "conv3-8")))
"""The same without batch norm, which has no place in mixed precision."""


def small(**options: Any) -> vggkit.VGG:
    """Return a model of two blocks and three FC layers."""
    return vggkit.build(NETWORK, **options)


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Be rank 1 of four, of which the others don't exist."""
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
    yield init_device_mesh("cpu", (4,))
    dist.destroy_process_group()


def test_every_strategy_is_set_up() -> None:
    """Those that are planned, but for a process alone."""
    assert set(SET_UPS) == set(STRATEGIES) - {"none"}


# What a rank holds is what the plan says

REPLICAS: list[tuple[str, dict[str, Any]]] = [
    ("ddp", {}),
    ("ddp", {"bucket_cap_mb": 0.001}),
    ("ddp", {"static_graph": True}),
    ("ddp-view", {}),
    ("zero1", {}),
]


@pytest.mark.parametrize(("parallel", "options"), REPLICAS, ids=str)
def test_replicas_hold_what_is_planned(parallel: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MemTracker's peak of a step, and the buckets, are those of DistributedDataParallel made by hand."""
    asked = checked_options(NETWORK, batch=3, ranks=4, rank=2, parallel=parallel, **options)
    by_hand = tracked.peak_and_buckets(NETWORK, asked)
    monkeypatch.setattr(
        loop, "DistributedDataParallel", lambda model, **_: vggkit.parallelize(model, parallel, **options)
    )
    assert tracked.peak_and_buckets(NETWORK, asked) == by_hand
    assert by_hand[0] == plan_step(NETWORK, asked).peak_bytes


DIVIDED: list[tuple[str, dict[str, Any]]] = [
    ("fsdp", {}),
    ("fsdp", {"units": "layers"}),
    ("fsdp", {"units": "root"}),
    ("fsdp", {"reshard_after_forward": False}),
    ("fsdp", {"param_dtype": "bfloat16", "reduce_dtype": "float32"}),
    ("tensor", {}),
]


def set_up(model: nn.Module, mesh: DeviceMesh, group: Group) -> None:
    """Divide a model as its users do."""
    assert vggkit.parallelize(model, group.parallel, mesh, **group.given) is model


@pytest.mark.parametrize(("parallel", "options"), DIVIDED, ids=str)
def test_parts_hold_what_is_planned(parallel: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MemTracker's peak of a step is that of a model divided by hand, on a rank that has padding."""
    network = PLAIN if "param_dtype" in options else NETWORK
    asked = checked_options(network, batch=3, ranks=4, rank=3, parallel=parallel, **options)
    by_hand = sharded.peak(network, asked)
    monkeypatch.setitem(sharded.DIVIDED, parallel, set_up)
    assert sharded.peak(network, asked) == by_hand == plan_step(network, asked).peak_bytes


STAGES = ["block2", "block2_relu1", "fc1", "flatten", "relu1_2 fc2", "conv1_2 block2 relu1"]
"""Between blocks, inside of one and of the classifier, and where a stage begins with what usually works in place."""


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("names", sample(STAGES, ["block2_relu1", "flatten"]))
def test_stages_hold_what_is_planned(names: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MemTracker's peak of each rank's step is that of a model that was cut by hand."""
    cut = tuple(names.split())
    ranks = len(cut) + 1

    def mesh_of(options: StepOptions) -> DeviceMesh:
        meshes.append(init_device_mesh("cpu", (ranks,)))  # torch can't make one where tensors are fake
        return by_hand_on(options)

    def stage_of(network: Network, options: StepOptions, _: int) -> nn.Module:
        model = vggkit.build(network, freeze=options.freeze, checkpoint=options.checkpoint).train()
        stage: nn.Module = vggkit.parallelize(model, "pipeline", meshes[-1], cut=cut).submod
        return stage

    meshes: list[DeviceMesh] = []
    by_hand_on = staged.mesh_of
    options: dict[str, Any] = {"batch": 8, "ranks": ranks, "parallel": "pipeline", "cut": cut, "schedule": schedule}
    every = [
        checked_options(NETWORK, rank=rank, freeze="block1_norm2", checkpoint="block1", **options)
        for rank in range(ranks)
    ]
    by_hand = [staged.peak(NETWORK, asked) for asked in every]
    monkeypatch.setattr(staged, "stage_of", stage_of)
    monkeypatch.setattr(staged, "mesh_of", mesh_of)
    assert [staged.peak(NETWORK, asked) for asked in every] == by_hand
    assert by_hand == [plan_step(NETWORK, asked).peak_bytes for asked in every]


@pytest.mark.usefixtures("mesh")
def test_replicas_of_stages_are_on_a_mesh() -> None:
    """Rank 1 of two replicas of two stages has the second stage, with rank 3 of the other replica."""
    stage = vggkit.parallelize(small(), "pipeline+ddp", cut="block2", bucket_cap_mb=1)
    assert isinstance(stage.submod, DistributedDataParallel)
    assert [name for name, _ in stage.submod.module.named_children()][:2] == ["block2", "flatten"]
    assert (stage.stage_index, stage.num_stages) == (1, 2)
    assert dist.get_process_group_ranks(stage.group) == [0, 1]
    assert dist.get_process_group_ranks(stage.submod.process_group) == [1, 3]
    assert stage.submod.bucket_bytes_cap == 2**20


def test_a_stage_knows_what_it_receives_and_sends() -> None:
    """From the batch and the microbatches, without a microbatch that is run to find out."""
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        options: dict[str, Any] = {"cut": "block2", "batch": 12, "microbatches": 3}
        stage = vggkit.parallelize(small(dtype="float64"), "pipeline", **options)
        asked, found = stage._user_meta, vggkit.parallelize(small(), "pipeline", cut="block2")._user_meta
    finally:
        dist.destroy_process_group()
    ((received,), (sent,)) = asked.inputs, asked.outputs
    assert (received.shape, received.dtype, received.requires_grad) == ((4, 8, 4, 4), torch.float64, True)
    assert (sent.shape, sent.dtype, sent.requires_grad) == ((4, 10), torch.float64, True)
    assert (found.inputs, found.outputs) == (None, None)


def parts(model: nn.Module) -> list[tuple[Any, ...]]:
    """Return of each module what is divided how."""
    return [
        (
            name,
            isinstance(module, FSDPModule),
            getattr(module, "inplace", None),
            [
                (word, tensor.placements, tensor.to_local().shape, tensor.requires_grad)
                for word, tensor in module.named_parameters(recurse=False)
                if isinstance(tensor, DTensor)
            ],
        )
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize(("parallel", "options"), DIVIDED, ids=str)
def test_parts_are_those_of_a_model_divided_by_hand(parallel: str, options: dict[str, Any], mesh: DeviceMesh) -> None:
    """The same modules are units, the same rows and columns are this rank's, and the same activations have outputs."""
    network = PLAIN if "param_dtype" in options else NETWORK
    by_hand, ours = (vggkit.build(network, freeze="block1") for _ in range(2))
    group = Group(4, parallel, **options)
    sharded.DIVIDED[parallel](by_hand, mesh, group)
    vggkit.parallelize(ours, parallel, mesh, **options)
    assert parts(ours) == parts(by_hand) != parts(vggkit.build(network))


def test_what_is_between_uneven_parts_knows_all_units(mesh: DeviceMesh) -> None:
    """torch's default takes 4 times this rank's units for all of them, which fails behind the first layer."""
    network = Network.of(vggkit.loads(TEXT.replace("FC-24", "{fc: 25, dropout: 0}").replace("FC-48", "FC-30")))
    by_hand, ours = vggkit.build(network), vggkit.parallelize(vggkit.build(network), "tensor", mesh)
    by_hand.get_submodule("relu1").inplace = False
    styles: dict[str, Any] = {"fc1": ColwiseParallel(), "fc2": RowwiseParallel()}
    parallelize_module(by_hand, mesh, styles)
    with pytest.raises(RuntimeError, match=r"must have same reduction dim, but got \[2, 28\] X \[25, 30\]"):
        by_hand(torch.zeros(2, 3, 8, 8))
    assert ours(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    assert [ours.get_parameter(f"{fc}.weight").to_local().shape for fc in ("fc1", "fc2")] == [(7, 128), (30, 7)]


def test_the_scores_of_divided_layers_are_whole(mesh: DeviceMesh) -> None:
    """Ten classes on four ranks, three of which have three each."""
    scores = vggkit.parallelize(small(), "tensor", mesh)(torch.zeros(2, 3, 8, 8))
    assert scores.shape == (2, 10)
    assert not isinstance(scores, DTensor)


@pytest.mark.parametrize("options", [{}, {"bucket_cap_mb": 0.001}], ids=str)
def test_replicas_of_parts_hold_what_is_planned(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MemTracker's peak of a step, and the buckets, are those of a model divided and wrapped by hand."""
    asked = checked_options(NETWORK, batch=3, ranks=8, rank=7, parallel="tensor+ddp", **options)
    by_hand = divided.seen(NETWORK, asked)

    whole: list[DeviceMesh] = []

    def meshes_of(_: object) -> divided.Meshes:
        whole.append(init_device_mesh("cpu", (2, 4), mesh_dim_names=("copies", "parts")))
        return divided.Meshes(whole[-1]["copies"], whole[-1]["parts"])

    def wrap(training: divided.DividedTraining, model: nn.Module, _: object = None) -> nn.Module:
        wrapped = vggkit.parallelize(model, "tensor+ddp", whole[-1], **options)
        wrapped.register_comm_hook(training.sent, lambda sent, bucket: loop.averaged(sent, bucket))
        return wrapped

    monkeypatch.setattr(divided, "meshes_of", meshes_of)
    monkeypatch.setattr(divided.DividedTraining, "built", loop.Training.built)
    monkeypatch.setattr(divided.DividedTraining, "wrap", wrap)
    list_of_ranks = 8 * 4  # the mesh has one on the CPU, which the tracker sees as it is sliced; by hand it is before
    assert divided.seen(NETWORK, asked) == by_hand._replace(peak=by_hand.peak + list_of_ranks)
    assert by_hand.peak == plan_step(NETWORK, asked).peak_bytes


@pytest.mark.usefixtures("mesh")
def test_all_ranks_are_the_mesh_if_none_is_given() -> None:
    """Of the process group, on the model's device."""
    model = vggkit.parallelize(small(), "fsdp")
    weight = model.get_parameter("fc1.weight")
    assert isinstance(weight, DTensor)
    assert (weight.device_mesh.device_type, weight.device_mesh.size()) == ("cpu", 4)
    assert weight.device_mesh.mesh_dim_names == ("ranks",)


@pytest.mark.usefixtures("mesh")
def test_a_mesh_may_have_some_of_the_ranks() -> None:
    """Gradients are averaged over them, and parameters divided among them."""
    half = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))["dp"]
    replicas = vggkit.parallelize(small(), "ddp", half)
    assert isinstance(replicas, DistributedDataParallel)
    assert dist.get_process_group_ranks(replicas.process_group) == [1, 3]
    weight = vggkit.parallelize(small(), "tensor", half).get_parameter("fc1.weight")
    assert isinstance(weight, DTensor)
    assert weight.to_local().shape[0] == 12


def test_a_model_without_values_is_divided_before_it_has_some(mesh: DeviceMesh) -> None:
    """By `fsdp`, which sends none then; all other strategies are refused."""
    model = vggkit.parallelize(small(device="meta"), "fsdp", mesh)
    model.to_empty(device="cpu")
    weight = model.get_parameter("fc1.weight")
    assert isinstance(weight, DTensor)
    assert weight.to_local().shape[0] == 6


# Real processes


Played = Callable[[play_ranks.Case], Path]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Let gloo processes train, save and load by every strategy of so many ranks: the folder that they write to."""

    @cache
    def folder_of(ranks: int) -> Path:
        folder = tmp_path_factory.mktemp("ranks")
        started = play_ranks.start(["-m", play_ranks.__name__, "play"], ranks, folder)
        said = [process.communicate(timeout=600)[0].decode() for process in started]
        assert [process.returncode for process in started] == [0] * ranks, said
        return folder

    return lambda case: folder_of(case.ranks)


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train the same in one process: its losses, and its weights."""
    model = play_ranks.small(seed=0)
    return play_ranks.train(model, "none", slice(None)), model.state_dict()


CASES = {case.name: case for case in play_ranks.CASES}
OF_TWO = [name for name, case in CASES.items() if case.ranks == 2]
WHOLE = [name for name, case in CASES.items() if case.is_whole]
IN_PARTS = [name for name, case in CASES.items() if case.is_in_parts]


def of_file(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file or folder, loaded in this process."""
    model = play_ranks.small(seed=1)
    report = vggkit.load_weights(model, path)
    assert (len(report.loaded), report.left, report.notes) == (6, (), ())
    return dict(model.state_dict())


@pytest.mark.parametrize("name", sample(list(CASES), OF_TWO))
def test_losses_and_weights_are_those_of_one_process(
    name: str, played: Played, alone: tuple[list[float], dict[str, torch.Tensor]]
) -> None:
    """Within rounding, though each rank's model began with other weights: the first one's are everybody's."""
    losses, weights = alone
    folder = played(CASES[name])
    # sums in another order, whose differences grow from step to step
    assert json.loads((folder / f"{name}.json").read_text()) == pytest.approx(losses, rel=1e-5)
    loaded = of_file(folder / (f"{name}.safetensors" if CASES[name].is_whole else name))
    assert list(loaded) == list(weights)
    for weight, value in weights.items():
        torch.testing.assert_close(loaded[weight], value, rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, play_ranks.small(seed=0).state_dict()[weight])


@pytest.mark.parametrize("name", sample(WHOLE, OF_TWO))
def test_a_model_is_loaded_as_it_was_saved(name: str, played: Played) -> None:
    """Loaded into another model of the same strategy, and saved again, it is the same file, to the byte."""
    folder = played(CASES[name])
    assert (folder / f"{name}.again").read_bytes() == (folder / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("name", [name for name in IN_PARTS if name in WHOLE])
def test_parts_are_loaded_in_one_process(name: str, played: Played) -> None:
    """A folder of torch.distributed.checkpoint has, to the bit, what the whole file has."""
    folder = played(CASES[name])
    play_ranks.check_equal(of_file(folder / f"{name}.safetensors"), of_file(folder / name))


@pytest.mark.parametrize("name", sample(WHOLE, OF_TWO))
def test_the_first_rank_writes_a_divided_model(name: str, played: Played) -> None:
    """All ranks must save it; of replicas each has the whole model, and whoever saves it writes it."""
    file = played(CASES[name]) / f"{name}.safetensors"
    other = file.with_name(f"{file.name}1")
    assert other.exists() == (name in ("ddp", "ddp-view", "zero1"))
    if other.exists():
        assert other.read_bytes() == file.read_bytes()


DEAD = r"Connection closed by peer|Connection reset by peer|Timed out|Broken pipe"


@pytest.mark.parametrize("name", sample(list(CASES), ["fsdp"]))
def test_a_rank_that_is_killed_ends_the_others(name: str, tmp_path: Path) -> None:
    """With an error that says whose connection is closed, and before their time-out."""
    others = CASES[name].ranks - 1
    started = play_ranks.start(["-m", play_ranks.__name__, name], others + 1, tmp_path)
    said = [process.communicate(timeout=2 * play_ranks.SECONDS)[0].decode() for process in started]
    assert [process.returncode for process in started] == [*[1] * others, -signal.SIGKILL], said
    for text in said[:others]:
        assert re.search(DEAD, text), text


# What can't be


@pytest.mark.parametrize(
    ("model", "parallel", "options", "said"),
    [
        (
            small,
            "fdsp",
            {},
            "parallel: expected one of ddp, ddp-view, zero1, fsdp, tensor, tensor+ddp, pipeline, pipeline+ddp",
        ),
        (small, "none", {}, "parallel: expected one of ddp,"),
        (lambda: nn.Linear(2, 2), "ddp", {}, "model: expected a model of vggkit.build that nothing wraps, found 'Line"),
        (
            lambda: nn.DataParallel(small()),
            "ddp",
            {},
            "model: expected a model of vggkit.build that nothing wraps, fou",
        ),
        (
            lambda: vggkit.parallelize(small(), "fsdp"),
            "tensor",
            {},
            "model: expected one that is not divided yet, foun",
        ),
        (
            lambda: small(freeze=["block1", "block2", "fc1", "fc2", "predictions"]),
            "ddp",
            {},
            "model: parallel ddp need",
        ),
        (lambda: small(device="meta"), "fsdp", {}, "mesh: expected one, as the model is on the meta device"),
        (small, "ddp", {"units": "root"}, "units: expected a parallel that has it (fsdp), found ddp"),
        (
            small,
            "fsdp",
            {"param_dtype": "bfloat16"},
            "param_dtype: bfloat16 can't be combined with block1_norm2, as its",
        ),
        (small, "fsdp", {"units": "rows"}, "units: expected one of blocks, layers, root, found 'rows'"),
        (small, "ddp", {"bucket_cap_mb": 0}, "bucket_cap_mb: expected a number above 0 and"),
        (small, "tensor+ddp", {"replicas": 3}, "replicas: 4 ranks by tensor+ddp expected 2, found 3"),
        (
            lambda: small(freeze="fc1"),
            "tensor+ddp",
            {},
            "freeze: parallel tensor+ddp can't freeze fc1, as torch trains",
        ),
        (small, "pipeline", {}, "cut: expected names of blocks or layers, such as block3, found 'auto'; a plan of"),
        (small, "pipeline", {"cut": "block2"}, "cut: 4 ranks by pipeline expected a name for each of 4 stages but"),
        (small, "pipeline+ddp", {"cut": ["block2", "fc1"]}, "cut: 4 ranks by pipeline+ddp expected a name for each"),
        (small, "pipeline+ddp", {"replicas": 3}, "replicas: 4 ranks by pipeline+ddp expected 2, found 3"),
        (
            small,
            "pipeline",
            {"cut": "block2", "microbatches": 2},
            "microbatches: expected a batch with it, which is",
        ),
        (
            small,
            "pipeline",
            {"batch": 9, "microbatches": 2},
            "microbatches: 9 images can't be divided into 2 equal parts",
        ),
        (small, "fsdp", {"batch": 4}, "batch: expected a parallel that has it (pipeline, pipeline+ddp), found fsdp"),
        (small, "pipeline", {"batch": 0}, "batch: expected a whole number from 1 to 1e+18, found 0"),
        (small, "pipeline", {"cut": ["block2", "fc1", "block1"]}, "cut: expected what the second stage begins with"),
        (small, "pipeline", {"cut": ["block2", "fc1", "fc9"]}, "cut: x has no block or layer 'fc9'"),
        (small, "pipeline", {"schedule": "1f1b"}, "parallelize: unknown keyword 'schedule'. A schedule of torch"),
        (small, "fsdp", {"unit": "root"}, "parallelize: unknown keyword 'unit'. Did you mean 'units'?"),
        (small, "fsdp", {"ranks": 4}, "parallelize: unknown keyword 'ranks'. Known: batch, bucket_cap_mb, cut,"),
        (small, "fsdp", {"cut": "block2"}, "cut: expected a parallel that has it (pipeline, pipeline+ddp), found"),
        (small, "tensor", {"mesh": "cpu"}, "mesh: expected a DeviceMesh of torch, found 'str'"),
        (
            lambda: vggkit.build(vggkit.loads(TEXT.replace("FC-24", "FC-3"))),
            "tensor",
            {},
            "ranks: parallel tensor expected at most as many as fc1 has units, 3, found 4",
        ),
    ],
)
@pytest.mark.usefixtures("mesh")
def test_what_can_not_be_set_up_is_refused(model: Any, parallel: str, options: dict[str, Any], said: str) -> None:
    """In one line that names the argument, before anything is changed."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.parallelize(model(), parallel, **options)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("parallel", ["ddp", "ddp-view", "zero1", "tensor"])
def test_values_are_needed_where_they_are_sent(parallel: str, mesh: DeviceMesh) -> None:
    """A model on the meta device is refused."""
    with pytest.raises(ArgumentError, match=f"model: parallel {parallel} expected values, found the meta device"):
        vggkit.parallelize(small(device="meta"), parallel, mesh)


@pytest.mark.usefixtures("mesh")
def test_a_mesh_of_other_ranks_is_refused() -> None:
    """With more dimensions, another device, a single rank, or without this one."""
    flat = init_device_mesh("cpu", (4,), mesh_dim_names=("ranks",))
    with pytest.raises(ArgumentError, match=r"mesh: parallel tensor\+ddp expected 2 dimensions \(dp, tp\), found 1"):
        vggkit.parallelize(small(), "tensor+ddp", flat)
    with pytest.raises(ArgumentError, match="mesh: expected names of its dimensions, such as"):
        vggkit.parallelize(small(), "tensor+ddp", init_device_mesh("cpu", (2, 2)))
    wrong = {
        "parallel fsdp expected 1 dimension (ranks), found 2": init_device_mesh("cpu", (2, 2)),
        "expected the model's device, cpu, found meta": DeviceMesh("meta", [0, 1, 2, 3]),
        "expected one that has this rank, 1, found": DeviceMesh("cpu", [0, 2]),
    }
    for said, given in wrong.items():
        with pytest.raises(ArgumentError) as refused:
            vggkit.parallelize(small(), "fsdp", given)
        assert str(refused.value).startswith(f"mesh: {said}")
    with pytest.raises(ArgumentError, match="ranks: parallel fsdp needs 2 or more"):
        vggkit.parallelize(small(), "fsdp", DeviceMesh("cpu", [1]))


def test_without_a_process_group_it_is_said_what_makes_one() -> None:
    """torch's own error says nothing of torchrun."""
    with pytest.raises(ArgumentError, match=r"expected a process group, found none: call .*init_process_group\(\)"):
        vggkit.parallelize(small(), "ddp")


def test_a_refused_model_stays_as_it_was(mesh: DeviceMesh) -> None:
    """Its activations still work in place."""
    model = small(device="meta")
    before = parts(model)
    with pytest.raises(ArgumentError):
        vggkit.parallelize(model, "tensor", mesh)
    assert parts(model) == before

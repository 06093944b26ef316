"""A model on several ranks: torch's own engines, set up as `vggkit.footprint.ranks` plans them.

Each strategy there has a class here, its half in torch, under the same word. A new one is one class, and its place in
`SET_UPS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsIndex, TypedDict, overload

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from torch.distributed.tensor.parallel.ddp import _pre_dp_module_transform
from torch.nn.parallel import DistributedDataParallel

from vggkit.base.errors import ArgumentError, did_you_mean, one_of, shorten
from vggkit.footprint.ranks import AUTO, Group, checked_group
from vggkit.footprint.ranks.mesh import Mesh, check_mesh
from vggkit.footprint.ranks.pipeline_replicas import PipelineReplicas
from vggkit.footprint.ranks.pipelines import Pipeline, stages_of
from vggkit.footprint.ranks.pipelines import Stage as Part
from vggkit.footprint.ranks.replicas import Replicas, ReplicasInViews
from vggkit.footprint.ranks.shards import FullyShard
from vggkit.footprint.ranks.strategy import Strategy
from vggkit.footprint.ranks.tensor_replicas import TensorReplicas
from vggkit.footprint.ranks.tensors import TensorParallel
from vggkit.footprint.ranks.zero import ShardedOptimizer
from vggkit.model.module import VGG
from vggkit.model.stage import Stage
from vggkit.network import Dtype, PlacedLayer, check_batch

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SetUpArguments(TypedDict, total=False):
    """The options of strategies as keywords, for type checkers: those of `Group` that a model is set up with."""

    bucket_cap_mb: float | None
    static_graph: bool
    units: str
    reshard_after_forward: bool
    param_dtype: Dtype | None
    reduce_dtype: Dtype | None
    replicas: SupportsIndex
    cut: str | Iterable[str]
    batch: SupportsIndex | None
    microbatches: SupportsIndex | None


@overload
def parallelize(
    model: nn.Module,
    parallel: Literal["ddp", "ddp-view", "zero1", "tensor+ddp"],
    mesh: DeviceMesh | None = None,
    **options: Unpack[SetUpArguments],
) -> DistributedDataParallel: ...


@overload
def parallelize(
    model: nn.Module,
    parallel: Literal["fsdp", "tensor"],
    mesh: DeviceMesh | None = None,
    **options: Unpack[SetUpArguments],
) -> VGG: ...


@overload
def parallelize(
    model: nn.Module,
    parallel: Literal["pipeline", "pipeline+ddp"],
    mesh: DeviceMesh | None = None,
    **options: Unpack[SetUpArguments],
) -> PipelineStage: ...


@overload
def parallelize(
    model: nn.Module, parallel: str, mesh: DeviceMesh | None = None, **options: Unpack[SetUpArguments]
) -> Any: ...


def parallelize(
    model: nn.Module, parallel: str, mesh: DeviceMesh | None = None, **options: Unpack[SetUpArguments]
) -> Any:
    """Set a model up on this rank as `memory(..., parallel=...)` plans it, with torch's own engine.

    Every rank of the mesh calls it, once its process group is there, and before it makes an optimizer. All ranks begin
    with the weights of the first one.

    Args:
        model: of `build`, on the rank's device; of `pipeline` it may be on the CPU, from where only the rank's layers
            are moved to the mesh's device.
        parallel: `ddp`, `ddp-view`, `zero1`, `fsdp`, `tensor`, `tensor+ddp`, `pipeline` or `pipeline+ddp`.
        mesh: the ranks; None for all of the process group. Of `tensor+ddp` and `pipeline+ddp` it has two named
            dimensions: the replicas, and the ranks that have one together.
        options: as `memory` has them: bucket_cap_mb and static_graph (`ddp`), units, reshard_after_forward, param_dtype
            and reduce_dtype (`fsdp`), replicas (of both that have a mesh of two dimensions, if none is given), and of
            `pipeline` cut, batch and microbatches. cut has names, such as those that a plan of `cut="auto"` has found.
            batch and microbatches say which shapes are sent, in the parameters' dtype. Without a batch torch runs one
            microbatch to find out, which autocast needs, and with which ScheduleGPipe fails in `pipeline+ddp` (2.14).

    Returns:
        What torch returns: a DistributedDataParallel around the model (`ddp`, `ddp-view`, `tensor+ddp`; `zero1`, whose
        optimizer is then a `torch.distributed.optim.ZeroRedundancyOptimizer`); the model itself, whose parameters are
        DTensors now (`fsdp`, `tensor`); or a PipelineStage, which a schedule of `torch.distributed.pipelining` runs,
        and whose `submod` has this rank's layers (`pipeline`, `pipeline+ddp`).

    Raises:
        ArgumentError: if an argument is outside its allowed values, the model can't be divided so, or there is no
            process group.

    >>> import torch.distributed as dist
    >>> from vggkit import build
    >>> dist.init_process_group("fake", rank=0, world_size=2)  # torchrun's processes have a real one
    >>> model = parallelize(build("A", input="3x32x32", width=0.1), "fsdp")
    >>> model.fc1.weight.placements
    (Shard(dim=0),)
    >>> dist.destroy_process_group()
    """
    set_up = SET_UPS[one_of(SET_UPS, parallel, "parallel")]
    for word in options:
        if word not in SetUpArguments.__optional_keys__:
            raise ArgumentError(f"parallelize: unknown keyword {shorten(word)}.{_advice(word)}")
    if not isinstance(model, VGG):
        raise ArgumentError(
            f"model: expected a model of vggkit.build that nothing wraps, found {shorten(type(model).__name__)}"
        )
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise ArgumentError("model: expected one that is not divided yet, found parameters that are DTensors")
    given = _checked_mesh(mesh, model, set_up)
    if given is not None and given.ndim > 1:
        options["replicas"] = given.size(0)
    of_group: dict[str, Any] = {**options}
    batch = of_group.pop("batch", None)
    group = checked_group(dist.get_world_size() if given is None else given.size(), parallel, **of_group)
    made = set_up()
    if batch is None and group.microbatches is not None:
        raise ArgumentError("microbatches: expected a batch with it, which is divided into so many")
    if batch is not None:
        made.batch = set_up.checked_batch(group, check_batch(batch))
    return made.applied(model, mesh_of(_device(model), group) if given is None else given, group)


def _advice(word: str) -> str:
    """Say where an option belongs that is none of the set-up."""
    if word == "schedule":
        return " A schedule of torch runs the stage, such as ScheduleGPipe(stage, n_microbatches=8, loss_fn=…)"
    known = sorted(SetUpArguments.__optional_keys__)
    return did_you_mean(word, known) or f" Known: {', '.join(known)}"


def mesh_of(device: str, group: Group) -> DeviceMesh:
    """Return all ranks of the process group, side by side as a strategy has them.

    Args:
        device: where the model is: "cpu" or "cuda".
        group: how many they are, and what they do.
    """
    set_up = SET_UPS[group.parallel]
    return init_device_mesh(device, set_up.sides(group), mesh_dim_names=set_up.dimensions)


def _device(model: VGG) -> str:
    return next((parameter.device.type for parameter in model.parameters()), "cpu")


def _checked_mesh(mesh: DeviceMesh | None, model: VGG, set_up: type[SetUp]) -> DeviceMesh | None:
    """Check a mesh.

    Raises:
        ArgumentError: if there is no process group, or the mesh has other dimensions, another device or other ranks.
    """
    if not dist.is_initialized():
        raise ArgumentError(
            "mesh: expected a process group, found none: call torch.distributed.init_process_group() first, in each"
            " process that torchrun starts"
        )
    device = _device(model)
    if mesh is None:
        if device == "meta":
            raise ArgumentError("mesh: expected one, as the model is on the meta device, which says no device of ranks")
        return None
    if not isinstance(mesh, DeviceMesh):
        raise ArgumentError(f"mesh: expected a DeviceMesh of torch, found {shorten(type(mesh).__name__)}")
    names = set_up.dimensions
    if mesh.ndim != len(names):
        raise ArgumentError(
            f"mesh: parallel {set_up.kind.name} expected {len(names)} dimension{'s' * (len(names) > 1)}"
            f" ({', '.join(names)}), found {mesh.ndim}"
        )
    if mesh.ndim > 1 and mesh.mesh_dim_names is None:
        raise ArgumentError(f"mesh: expected names of its dimensions, such as mesh_dim_names={names}, found none")
    if device not in (mesh.device_type, "meta", *set_up.moved_from):
        raise ArgumentError(f"mesh: expected the model's device, {device}, found {mesh.device_type}")
    if mesh.get_coordinate() is None:
        raise ArgumentError(f"mesh: expected one that has this rank, {dist.get_rank()}, found {shorten(mesh)}")
    return mesh


class SetUp(ABC):
    """How torch sets up a strategy.

    Args:
        init_sync: whether all ranks begin with the first one's weights, as DistributedDataParallel has it; they must
            have equal ones else.
    """

    kind: ClassVar[type[Strategy]]
    """The strategy's plan."""

    dimensions: ClassVar[tuple[str, ...]] = ("ranks",)
    """The dimensions of the mesh."""

    batch: int | None = None
    """How many images a step has, if that was said."""

    sent_dtypes: Mapping[tuple[str, str], torch.dtype] = MappingProxyType({})
    """Dtypes of modules' inputs and outputs, by name and PipelineStage's word, where they aren't the parameters'."""

    moved_from: ClassVar[tuple[str, ...]] = ()
    """Devices from which it moves what the rank has of the model to the mesh's."""

    @classmethod
    def checked_batch(cls, group: Group, batch: int) -> int:  # noqa: ARG003  # some have it
        """Return a number of images, if the strategy asks how many there are.

        Raises:
            ArgumentError: if it does not, or so many can't be divided.
        """
        having = ", ".join(word for word, kind in SET_UPS.items() if issubclass(kind, PipelineSetUp))
        raise ArgumentError(f"batch: expected a parallel that has it ({having}), found {group.parallel}")

    optimizers: ClassVar[Any] = torch.optim
    """Where the optimizers are, by the names that they have in `torch.optim`."""

    def __init__(self, *, init_sync: bool = True) -> None:
        self.init_sync = init_sync
        self._meshes: list[DeviceMesh] = []

    def meshes_of(self, mesh: DeviceMesh) -> list[DeviceMesh]:
        """Return the dimensions of a mesh. They are made once, as each has a list of its ranks on the CPU."""
        if not self._meshes:
            self._meshes = [mesh[name] for name in mesh.mesh_dim_names or ()] if mesh.ndim > 1 else [mesh]
        return self._meshes

    def without_sending(self, run: nn.Module) -> AbstractContextManager[Any]:  # some need it
        """Return the context of a batch whose gradients are not sent, as those of another one are added to them.

        Args:
            run: what `applied` has returned.
        """
        return nullcontext()

    def averaged(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:  # some need them
        """Return a second model, or its part, for moving averages of the parameters that the rank has of the first one.

        The arguments are those of `applied`.
        """
        return model

    def _begin_alike(self, model: VGG, mesh: DeviceMesh) -> None:
        """Give all ranks the first one's parameters and buffers, as DistributedDataParallel does."""
        for tensor in chain(model.parameters(), model.buffers()) if self.init_sync else ():
            if not tensor.is_meta:
                there = tensor.detach().to(mesh.device_type)
                dist.broadcast(there, group=mesh.get_group(), group_src=0)
                if there.device != tensor.device:
                    tensor.detach().copy_(there)

    @classmethod
    def sides(cls, group: Group) -> tuple[int, ...]:
        """Return how long each dimension of the mesh is.

        Raises:
            ArgumentError: if the ranks can't stand so.
        """
        return (group.ranks,)

    @abstractmethod
    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module | PipelineStage:
        """Set up a model on this rank.

        Args:
            model: the model.
            mesh: the ranks, of these dimensions.
            group: how many they are, and the strategy's options.

        Returns:
            What torch returns.

        Raises:
            ArgumentError: if the model can't be divided so.
        """


class ReplicasSetUp(SetUp):
    """DistributedDataParallel, which begins with a broadcast of the first rank's model."""

    kind: ClassVar[type[Strategy]] = Replicas
    in_views: ClassVar[bool] = False
    """Whether gradients are views of the buckets."""

    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> DistributedDataParallel:
        _check_values(model, group)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ArgumentError(
                f"model: parallel {group.parallel} needs a parameter that is trained, and all are frozen"
            )
        return DistributedDataParallel(
            model,
            process_group=mesh.get_group(),
            init_sync=self.init_sync,
            bucket_cap_mb=group.bucket_cap_mb,
            gradient_as_bucket_view=self.in_views,
            static_graph=group.static_graph,
        )

    def without_sending(self, run: nn.Module) -> AbstractContextManager[Any]:
        assert isinstance(run, DistributedDataParallel)
        return run.no_sync()


class ReplicasInViewsSetUp(ReplicasSetUp):
    """The same with `gradient_as_bucket_view`."""

    kind = ReplicasInViews
    in_views = True


class _ShardedOptimizers:
    """The optimizers of `torch.optim`, each with its state spread over the ranks."""

    def __getattr__(self, name: str) -> Any:
        return partial(ZeroRedundancyOptimizer, optimizer_class=getattr(torch.optim, name))


class ShardedOptimizerSetUp(ReplicasSetUp):
    """The same as `ddp`: the optimizer makes the difference, which is the user's to make."""

    kind = ShardedOptimizer
    optimizers = _ShardedOptimizers()


class FullyShardSetUp(SetUp):
    """`fully_shard` of each unit, and then of the root."""

    kind = FullyShard

    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        if group.param_dtype is not None:  # without one any model can be divided, also one that nothing describes
            self.kind.check_dtype(group, model.network, _dtype_name(model) or group.param_dtype)
        self._begin_alike(model, mesh)
        precision = MixedPrecisionPolicy(_torch_dtype(group.param_dtype), _torch_dtype(group.reduce_dtype))
        for unit in (*UNITS[group.units](model), model):
            if any(True for _ in unit.parameters()):
                fully_shard(unit, mesh=mesh, reshard_after_forward=group.reshard_after_forward, mp_policy=precision)
        return model

    def averaged(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        return self.applied(model, mesh, group)


def _dtype_name(model: nn.Module) -> str | None:
    """Return the dtype of a model's parameters; whoever asks holds none of them while they are divided."""
    return next((str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()), None)


def _torch_dtype(name: str | None) -> torch.dtype | None:
    dtype: torch.dtype | None = None if name is None else getattr(torch, name)
    return dtype


def _leaves(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if not any(True for _ in module.children()))


UNITS: dict[str, Callable[[VGG], Iterator[nn.Module]]] = {
    "blocks": lambda model: model.children(),
    "layers": _leaves,
    "root": lambda _: iter(()),
}
"""The modules of each unit beside the root, by the words of `vggkit.footprint.ranks.UNITS`."""


class TensorParallelSetUp(SetUp):
    """`parallelize_module` of the FC layers: by columns and by rows in turn, and whole at the end."""

    kind = TensorParallel

    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        self.kind.check_network(group, model.network)
        _check_values(model, group)
        self._begin_alike(model, mesh)
        return _divided(model, mesh)

    def averaged(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        return self.applied(model, mesh, group)


class TensorReplicasSetUp(ReplicasSetUp):
    """The same of each replica, in a DistributedDataParallel that knows of the mesh."""

    kind = TensorReplicas
    dimensions = ("dp", "tp")

    @classmethod
    def sides(cls, group: Group) -> tuple[int, ...]:
        check_mesh(group)
        return tuple(Mesh.of(group))

    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> DistributedDataParallel:
        self.sides(group)
        network = model.network
        self.kind.check_network(group, network)
        self.kind.check_frozen(network, model.frozen)
        _check_values(model, group)
        _check_trained(model, group)
        replicas, parts = self.meshes_of(mesh)
        self._begin_alike(model, parts)
        divided = _divided(model, parts)
        return DistributedDataParallel(
            divided, device_mesh=replicas, bucket_cap_mb=group.bucket_cap_mb, init_sync=self.init_sync
        )

    def averaged(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        """Return it divided; DistributedDataParallel makes the parts plain tensors, so that they are some here, too."""
        _, parts = self.meshes_of(mesh)
        divided = _divided(model, parts)
        _pre_dp_module_transform(divided)
        return divided


class PipelineSetUp(SetUp):
    """A PipelineStage of this rank's layers, which alone are moved to the mesh's device."""

    kind: ClassVar[type[Pipeline]] = Pipeline
    moved_from = ("cpu",)

    @classmethod
    def checked_batch(cls, group: Group, batch: int) -> int:
        cls.kind.check_batch(group, batch)
        return batch

    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> PipelineStage:
        stages = self._stages(model, group)
        self._begin_alike(model, mesh)
        return self._made(model, stages[mesh.get_local_rank()], mesh, group)

    def averaged(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        return self._stage(model, self._stages(model, group)[mesh.get_local_rank()], mesh)

    def _stages(self, model: VGG, group: Group) -> list[Part]:
        """Return the stages of a model.

        Raises:
            ArgumentError: if it can't be cut so.
        """
        if group.cut == AUTO:
            raise ArgumentError(
                f"cut: expected names of blocks or layers, such as block3, found {AUTO!r}; a plan of memory(…,"
                f" cut={AUTO!r}) has those that balance best"
            )
        _check_values(model, group)
        if model.ends_in_softmax:
            raise ArgumentError(f"model: parallel {group.parallel} needs one that returns scores, found softmax=True")
        self.kind.check_cut(group)
        return stages_of(model.network, group.cut)

    def _made(self, model: VGG, own: Part, mesh: DeviceMesh, group: Group) -> PipelineStage:
        """Make a stage.

        Args:
            model: whose layers it takes.
            own: which.
            mesh: the ranks that have the other stages.
            group: how many they are.
        """
        run = self._wrapped(self._stage(model, own, mesh), group)
        device = next((parameter.device for parameter in run.parameters()), torch.device(mesh.device_type))
        return PipelineStage(
            run, own.place, own.stages, device, group=mesh.get_group(), **self._sent(model, own, group)
        )

    def _stage(self, model: VGG, own: Part, mesh: DeviceMesh) -> Stage:
        if not own.is_first:
            _keep_received(model, own.layers)
        stage = Stage(model, own.layers)
        return stage if _device(model) == mesh.device_type else stage.to(mesh.device_type)

    def _wrapped(self, stage: Stage, group: Group) -> nn.Module:
        """Return what runs a stage."""
        return stage

    def _sent(self, model: VGG, own: Part, group: Group) -> dict[str, Any]:
        """Return what a stage receives and sends, without values; nothing if torch is to find out."""
        if self.batch is None:
            return {}
        images = self.batch // self.kind.microbatches(group, self.batch)
        dtype = next(model.parameters()).dtype
        first, last = own.layers[0], own.layers[-1]
        return {
            word: torch.empty(
                images,
                *shape,
                dtype=self.sent_dtypes.get((placed.module, word), dtype),
                device="meta",
                requires_grad=word == "output_args" or not own.is_first,
            )
            for word, placed, shape in (
                ("input_args", first, first.input_shape),
                ("output_args", last, last.output_shape),
            )
        }


class PipelineReplicasSetUp(PipelineSetUp):
    """The same of a DistributedDataParallel of the stage, which the replicas have in common."""

    kind = PipelineReplicas
    dimensions = ("dp", "pp")

    @classmethod
    def sides(cls, group: Group) -> tuple[int, ...]:
        check_mesh(group)
        return tuple(Mesh.of(group))

    def applied(self, model: VGG, mesh: DeviceMesh, group: Group) -> PipelineStage:
        self.sides(group)
        stages = self._stages(model, group)
        self._replicas, parts = self.meshes_of(mesh)
        self._begin_alike(model, parts)  # DistributedDataParallel then hands out the stages of the first replica
        own = stages[parts.get_local_rank()]
        return self._made(model, own, parts, group)

    def averaged(self, model: VGG, mesh: DeviceMesh, group: Group) -> nn.Module:
        _, parts = self.meshes_of(mesh)
        return super().averaged(model, parts, group)

    def _wrapped(self, stage: Stage, group: Group) -> nn.Module:
        if not any(parameter.requires_grad for parameter in stage.parameters()):
            raise ArgumentError(f"model: parallel {group.parallel} needs parameters that are trained in each stage")
        return DistributedDataParallel(
            stage,
            process_group=self._replicas.get_group(),
            init_sync=self.init_sync,
            bucket_cap_mb=group.bucket_cap_mb,
        )


def _keep_received(model: VGG, layers: Iterable[PlacedLayer]) -> None:
    """Let no layer overwrite what a stage receives, which autograd refuses: neither the first nor one on a view."""
    for placed in layers:
        _keep_input(model.get_submodule(placed.module))
        if placed.layer.storage() != "view":
            return


def _divided(model: VGG, mesh: DeviceMesh) -> nn.Module:
    """Divide a model's FC layers.

    Where not all ranks have as many units, the next layer must be told: what is between them are DTensors.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    styles: dict[str, ParallelStyle] = {
        name: RowwiseParallel() if place % 2 else ColwiseParallel(use_local_output=fc.out_features % mesh.size() == 0)
        for place, (name, fc) in enumerate(layers.items())
    }
    if len(layers) % 2:
        styles[[*layers][-1]] = ColwiseParallel(output_layouts=Replicate())
    _let_outputs_be(model, next(iter(layers)))
    return parallelize_module(model, mesh, styles)


def _let_outputs_be(model: nn.Module, first: str) -> None:
    """Let no layer behind the first FC layer overwrite its input, a view of a DTensor, which autograd refuses."""
    modules = dict(model.named_modules())
    for name in list(modules)[list(modules).index(first) :]:
        _keep_input(modules[name])


def _keep_input(module: Any) -> None:
    """Let a module not work in place."""
    if hasattr(module, "inplace"):
        module.inplace = False


def _check_values(model: VGG, group: Group) -> None:
    """Refuse a model without values where torch would send them."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ArgumentError(
            f"model: parallel {group.parallel} expected values, found the meta device, which has none; only fsdp"
            " divides a model before it has values"
        )


def _check_trained(model: VGG, group: Group) -> None:
    """Refuse a model without gradients where torch would average them."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ArgumentError(f"model: parallel {group.parallel} needs a parameter that is trained, and all are frozen")


SET_UPS: dict[str, type[SetUp]] = {
    kind.kind.name: kind
    for kind in (
        ReplicasSetUp,
        ReplicasInViewsSetUp,
        ShardedOptimizerSetUp,
        FullyShardSetUp,
        TensorParallelSetUp,
        TensorReplicasSetUp,
        PipelineSetUp,
        PipelineReplicasSetUp,
    )
}
"""How torch sets up each strategy, by the word that asks for it."""

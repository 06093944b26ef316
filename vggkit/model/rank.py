"""One rank of several in torch: the loop as its users write it, and what torch's engine holds and sends in it.

`measure` runs in a process group. In `fake_group` a single process is any rank of it, and the others don't exist; their
figures on fake tensors are those of any machine. In a real one each process is a rank.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import FakeWork
from torch.distributed._tools.fake_collectives import CollectiveOp, collective_ops, sync_ops
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._pytree import tree_leaves, tree_map_only

from vggkit.base.errors import BuildError
from vggkit.footprint.ranks import Group
from vggkit.footprint.ranks.traffic import Traffic, all_gather, all_reduce, broadcast, reduce_scatter
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.module import VGG
from vggkit.model.parallelize import SET_UPS, PipelineReplicasSetUp, PipelineSetUp, SetUp, mesh_of
from vggkit.model.steps import Training, autocast, images_of, model_of
from vggkit.model.tracking import FakeTensors, no_garbage_collection
from vggkit.network import Network


class Measured(msgspec.Struct, frozen=True):
    """What a rank holds and sends in a step that is like all later ones.

    Args:
        peak_bytes: most bytes alive at one moment.
        parameter_bytes: those of the parameters between steps.
        steady_bytes: what stays between steps.
        sent_bytes: what it sends.
        received_bytes: what it receives.
        peak_with_copies: most bytes alive at one moment, with the copies that gloo makes; the same without any.
        is_exact: whether the peak is; gloo may hold what it sends to one rank until somebody waits for that.
    """

    peak_bytes: int
    parameter_bytes: int
    steady_bytes: int
    sent_bytes: int
    received_bytes: int
    peak_with_copies: int
    is_exact: bool = True


@contextmanager
def fake_group(group: Group) -> Iterator[None]:
    """Be a rank of a group whose others don't exist: what they would send is whatever is there already."""
    # it has meshes in which this process is another rank; torch has no types here
    _clear_sharding_prop_cache()  # type: ignore[no-untyped-call]
    dist.init_process_group("fake", store=FakeStore(), rank=group.own, world_size=group.ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def measure_alone(network: Network, options: StepOptions) -> Measured:
    """Measure a rank in this process, on fake tensors, without the other ranks."""
    with fake_group(options.group):
        mesh = measured_mesh(options)
        with FakeTensors(), warnings.catch_warnings():
            # of the CPU's random numbers; no tensor has values here
            warnings.filterwarnings("ignore", "DTensor random operators may not have complete support")
            return measure(network, options, mesh)


def measured_mesh(options: StepOptions) -> DeviceMesh:
    """Return all ranks, when everything is made that torch makes once and that is none of the model.

    From the first operation on that it has no rule for on DTensors, it keeps a list of one rank on the CPU
    (torch/distributed/tensor/_decompositions.py, `_get_fake_mesh`).
    """
    made_up: Any = getattr(DTensor._op_dispatcher.sharding_propagator, "decomp_strategy", None)
    if made_up is not None:  # older versions of torch have none
        made_up._get_fake_mesh(options.device)
    return mesh_of(options.device, options.group)


EARLY = 3
"""So many steps come before the one that is measured: with a static graph buckets are made in the third, and what runs
on DTensors for the first time allocates to find out how its result is divided."""


def measure(network: Network, options: StepOptions, mesh: DeviceMesh) -> Measured:
    """Measure the rank that this process is.

    Args:
        network: what is trained.
        options: what a step is like; its rank is the process's.
        mesh: all ranks, as `measured_mesh` returns them.
    """
    tracker, set_up = RankTracker(), set_up_of(options)
    set_up.meshes_of(mesh)  # which are none of the model
    with no_garbage_collection(), tracker:
        training = training_of(network, options, mesh, set_up)
        for _ in range(max(EARLY, options.first_steps + 1)):
            training.step()
        training.loss = None  # a plan on the CPU does not count the loss of the step before
        steady = tracker.alive - bytes_of((training.images, training.targets, *training.model.buffers()))
        tracker.begin()
        training.step()
        sent = tracker.traffic
        return Measured(
            peak_bytes=tracker.peak,
            parameter_bytes=bytes_of(training.parameters),
            steady_bytes=steady,
            sent_bytes=sent.sent,
            received_bytes=sent.received,
            peak_with_copies=tracker.peak_with_copies,
            is_exact=not tracker.is_sending,
        )


class RankTraining(Training):
    """The training loop of the rank that this process is.

    Args:
        network: what is trained.
        options: what a step is like.
        mesh: all ranks, as `vggkit.model.parallelize.mesh_of` returns them.
        set_up: how the strategy is set up: `set_up_of`.
    """

    def __init__(self, network: Network, options: StepOptions, mesh: DeviceMesh, set_up: SetUp) -> None:
        self.network, self.mesh, self.set_up = network, mesh, set_up
        super().__init__(network, options)

    def _set_up(self, model: VGG) -> nn.Module:
        run: Any = self.set_up.applied(model, self.mesh, self.options.group)
        self._answer(run)
        module: nn.Module = run
        return module

    def _answer(self, run: Any) -> None:
        """Answer a DistributedDataParallel that waits for averages, if they come from nobody."""
        if not self.set_up.init_sync and isinstance(run, DistributedDataParallel):
            # torch looks at the annotations, and wants no text there
            run.register_comm_hook(run.process_group, lambda ranks, bucket: _sent(ranks, bucket))

    def _set_up_average(self, model: VGG) -> nn.Module:
        return self.set_up.averaged(model, self.mesh, self.options.group)

    @property
    def _optimizers(self) -> Any:
        return self.set_up.optimizers

    def _context_of(self, batch: int) -> AbstractContextManager[Any]:
        is_last = batch == self.options.accumulate - 1
        return super()._context_of(batch) if is_last else self.set_up.without_sending(self.run)


class StageTraining(RankTraining):
    """The training loop of a stage of a pipeline: the first one has the images, and the last one the targets.

    The model is built on the CPU, so that the rank's device has its stage alone. With autocast it is on in the stage's
    forward pass and in the loss.
    """

    def __init__(self, network: Network, options: StepOptions, mesh: DeviceMesh, set_up: SetUp) -> None:
        set_up.batch = options.batch  # a rank that is alone can't ask the one before for the shapes
        set_up.sent_dtypes = _dtypes(network, options) if options.autocast else {}
        super().__init__(network, options, mesh, set_up)
        self._given = (self.images,) if self.stage.is_first else ()
        self._wanted = {"target": self.targets} if self.stage.is_last else {}

    def _built(self, network: Network) -> VGG:
        return model_of(network, self.options.replace(device="cpu"))

    @property
    def _batch_of_images(self) -> int:
        return self.options.batch if self.stage.is_first else 0

    @property
    def _batch_of_targets(self) -> int:
        return self.options.batch if self.stage.is_last else 0

    def _set_up(self, model: VGG) -> nn.Module:
        options = self.options
        made: Any = self.set_up.applied(model, self.mesh, options.group)
        self.stage: PipelineStage = made
        self._answer(self.stage.submod)
        self.model = getattr(self.stage.submod, "module", self.stage.submod)
        if options.autocast:
            self.model.forward = _in_autocast(options, self.model.forward)
        loss = _in_autocast(options, partial(options.loss_rules.torch_loss, functional=nn.functional))
        self.schedule = SCHEDULES[options.group.schedule](self.stage, options.microbatches, loss_fn=loss)
        return self.model

    def run_batches(self) -> None:
        self.schedule.step(*self._given, **self._wanted)


def _in_autocast(options: StepOptions, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that runs in autocast, if a step does."""

    def run(*arguments: Any) -> Tensor:
        with autocast(options):
            return function(*arguments)

    return run


def _dtypes(network: Network, options: StepOptions) -> dict[tuple[str, str], torch.dtype]:
    """Return the dtype of each module's input and output in autocast, by its name and PipelineStage's word for it."""
    found: dict[tuple[str, str], torch.dtype] = {}
    of_cpu = options.replace(device="cpu")
    model = model_of(network, of_cpu).eval()
    for name, module in model.named_modules():

        def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor, name: str = name) -> None:
            found[name, "input_args"], found[name, "output_args"] = given[0].dtype, made.dtype

        module.register_forward_hook(note)
    with torch.no_grad(), autocast(of_cpu):
        model(images_of(network, of_cpu, 1))
    return found


SCHEDULES: dict[str, Any] = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
"""torch's schedules by their words."""

TRAININGS: dict[type[SetUp], type[RankTraining]] = {
    PipelineSetUp: StageTraining,
    PipelineReplicasSetUp: StageTraining,
}
"""The loops of strategies whose loop is another one."""


def set_up_of(options: StepOptions) -> SetUp:
    """Return how torch sets up a strategy: a rank that is alone has nobody's weights to begin with but its own."""
    return SET_UPS[options.group.parallel](init_sync=dist.get_backend() != "fake")


def training_of(network: Network, options: StepOptions, mesh: DeviceMesh, set_up: SetUp) -> RankTraining:
    """Return the training loop of the rank that this process is; the arguments are those of `RankTraining`."""
    return TRAININGS.get(SET_UPS[options.group.parallel], RankTraining)(network, options, mesh, set_up)


def _sent(ranks: dist.ProcessGroup, bucket: Any) -> torch.futures.Future[Tensor]:
    """Send a bucket, and return it as it is."""
    buffer = bucket.buffer()
    dist.all_reduce(buffer, group=ranks)
    future: torch.futures.Future[Tensor] = (
        torch.futures.Future(devices=[buffer.device]) if buffer.is_cuda else torch.futures.Future()
    )
    future.set_result(buffer)
    return future


def bytes_of(tensors: Any) -> int:
    """Return the bytes of tensors, of what a rank has of each."""
    return sum(storage.nbytes() for storage in {one._cdata: one for one in map(_storage, tensors)}.values())


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    local: Tensor = getattr(tensor, "_local_tensor", tensor)
    return local.untyped_storage()


# What is sent


def _size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tree_leaves(tensors) if isinstance(tensor, Tensor))


c10d, functional = torch.ops.c10d, torch.ops._c10d_functional

SENT: dict[Any, Callable[[Any, Any, dist.ProcessGroup], Traffic]] = {
    c10d.allreduce_.default: lambda args, _, group: all_reduce(_size(args[0]), group.size()),
    functional.all_reduce.default: lambda args, _, group: all_reduce(_size(args[0]), group.size()),
    functional.all_reduce_.default: lambda args, _, group: all_reduce(_size(args[0]), group.size()),
    c10d._allgather_base_.default: lambda args, _, group: all_gather(_size(args[0]), group.size()),
    functional.all_gather_into_tensor.default: lambda _, made, group: all_gather(_size(made), group.size()),
    c10d._reduce_scatter_base_.default: lambda args, _, group: reduce_scatter(_size(args[1]), group.size()),
    functional.reduce_scatter_tensor.default: lambda args, _, group: reduce_scatter(_size(args[0]), group.size()),
    c10d.broadcast_.default: lambda args, _, group: broadcast(_size(args[0]), group.size(), group.rank(), args[2]),
    c10d.send.default: lambda args, _made, _group: Traffic(_size(args[0]), 0),
    c10d.recv_.default: lambda args, _made, _group: Traffic(0, _size(args[0])),
}
"""What a rank sends and receives in each of torch's operations, from its arguments, its result and the ranks."""


class RankTracker(MemTracker):  # type: ignore[no-untyped-call]  # torch does not type its __init_subclass__
    """MemTracker that is there before the model is, and sees what is sent, too.

    gloo's threads hold what they send for a little longer than whoever waits for it, now and then. They get copies that
    are not counted, so that what is alive does not depend on them.

    Attributes:
        peak: most bytes alive at one moment.
        peak_with_copies: the same with the copy that gloo itself makes.
        counts: whether the step is measured.
        traffic: what has been sent and received in it.
        is_sending: whether gloo may still hold something that has been sent to one rank.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.peak_with_copies = 0
        self.traffic = Traffic()
        self.counts = self.is_sending = False

    def begin(self) -> None:
        """Begin the step that is measured."""
        self.peak = self.peak_with_copies = 0
        self.counts = True

    @property
    def alive(self) -> int:
        """Bytes that are alive."""
        return int(sum(one["Total"] for device, one in self._curr_mem_snap.items() if device.type == "cpu"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in collective_ops or func in sync_ops:
            return self._run(func, types, args, kwargs)
        if self.counts and func not in SENT:
            raise BuildError(f"parallel: torch sends by {func}, and how many bytes that are is not known")
        group = CollectiveOp.get_process_group(func, args)
        is_gloo = dist.get_backend(group) == "gloo"
        by_copies = is_gloo and func in BY_COPIES
        made = self._run(partial(_by_copies, func) if by_copies else func, types, args, kwargs)
        if is_gloo:
            self._note_gloo(func, args)
        if self.counts:
            self.traffic = self.traffic.plus(SENT[func](args, made, group))
        return made

    def _run(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]  # nor here

    def _note_gloo(self, func: Any, args: Any) -> None:
        """Note what gloo holds, or may hold, of what it sends."""
        self.is_sending |= func is c10d.send.default
        if func is c10d._reduce_scatter_base_.default:
            copied = _size(args[1])  # gloo reduces a copy of its input (ProcessGroupGloo.cpp, reduce_scatter)
            self.peak_with_copies = max(self.peak_with_copies, self.alive + copied)

    def _update_peak_stats(self, peak_state: Any) -> None:
        self.peak = max(self.peak, self.alive)
        self.peak_with_copies = max(self.peak_with_copies, self.peak)

    # Modules may run twice in a step, and in wrappers; what is asked for is not the figures of each

    def _pre_fw_hook(self, *_: Any) -> None:
        return

    def _post_fw_hook(self, *_: Any) -> None:
        return

    def _pre_bw_hook(self, *_: Any) -> None:
        return

    def _post_bw_hook(self, *_: Any) -> None:
        return


BY_COPIES = frozenset(
    {
        c10d._allgather_base_.default,
        c10d._reduce_scatter_base_.default,
        c10d.broadcast_.default,
        functional.all_reduce.default,
        functional.all_gather_into_tensor.default,
        functional.reduce_scatter_tensor.default,
    }
)
"""What gloo does with copies: what all ranks do at once, so that each can wait for it. Those of c10d write their first
argument. `allreduce_` is not here: it sends the buckets of DistributedDataParallel, which stay from step to step, and
DistributedDataParallel goes on with the tensors that come back."""


def _by_copies(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run one of torch's operations on copies of its tensors, and return its result when it is there.

    Args:
        func: the operation, one of `BY_COPIES`.
        args: its arguments.
        kwargs: its arguments that have words.
    """
    copies = tree_map_only(Tensor, torch.clone, args)
    made = func(*copies, **kwargs)
    if func.namespace == functional.name:
        return tree_map_only(Tensor, lambda one: functional.wait_tensor.default(one).clone(), made)
    _, work = made
    work.wait()
    for tensor, copy in zip(tree_leaves(args[0]), tree_leaves(copies[0])):
        tensor.copy_(copy)
    # whoever waits for the true one again has gloo's copy of what it reduces in sight
    return args[0], FakeWork().boxed()

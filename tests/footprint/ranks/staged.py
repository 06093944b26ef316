"""What MemTracker sees of a rank's step that runs a stage of a network: on fake tensors, of copies on real ones."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed import pipelining
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.pipelining import PipelineStage
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import vggkit
from tests.footprint.card.play_steps import LOSSES
from tests.footprint.ranks.loop import averaged, group_of
from tests.footprint.ranks.tracked import Tracker
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.tracking import FakeTensors

SCHEDULES = {"gpipe": pipelining.ScheduleGPipe, "1f1b": pipelining.Schedule1F1B}


class Stage(nn.Module):
    """Some of a model's layers, by block, which run as in the model.

    Args:
        layers: the layers, by their paths in the model.
        options: with blocks that are run again in the backward pass, and autocast.
    """

    def __init__(self, layers: dict[str, nn.Module], options: StepOptions) -> None:
        super().__init__()
        blocks: dict[str, OrderedDict[str, nn.Module]] = {}
        for path, module in layers.items():
            block, _, child = path.rpartition(".")
            blocks.setdefault(block or path, OrderedDict())[child] = module
        for name, inside in blocks.items():
            self.add_module(name, inside[name] if name in inside else nn.Sequential(inside))
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layers."""
        with autocast_of(self.options):
            for name, module in self.named_children():
                x = checkpoint(module, x, use_reentrant=False) if name in self.options.checkpoint else module(x)
        return x


def autocast_of(options: StepOptions) -> torch.autocast:
    """Return the context in which a stage and the loss run."""
    return torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.autocast)


def dtypes_of(network: vggkit.Network, options: StepOptions) -> dict[str, torch.dtype]:
    """Return the dtype of each layer's input, and of the output; on the CPU, so that a card stays empty."""
    found: dict[str, torch.dtype] = {}
    dtype = getattr(torch, options.dtype)
    model = vggkit.build(network, dtype=options.dtype).eval()
    for path, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda _, args, path=path: found.update({path: args[0].dtype}))
    with torch.no_grad(), autocast_of(options.replace(device="cpu")):
        found[""] = model(torch.zeros(2, *network.input_shape, dtype=dtype)).dtype
    return found


def stage_of(network: vggkit.Network, options: StepOptions, own: int) -> Stage:
    """Return one of the stages of a model, in which nothing that was received is overwritten."""
    of_build: Any = {"freeze": options.freeze, "checkpoint": options.checkpoint}
    model = vggkit.build(network, dtype=options.dtype, **of_build).train()
    paths = [path for path, module in model.named_modules() if not list(module.children())]
    begins = [0, *(paths.index(first_in(network, name).module) for name in options.group.cut), len(paths)]
    layers = {path: model.get_submodule(path) for path in paths[begins[own] : begins[own + 1]]}
    if own:
        for module in layers.values():
            if hasattr(module, "inplace"):
                module.inplace = False
            if not isinstance(module, nn.Flatten):
                break
    return Stage(layers, options)


def first_in(network: vggkit.Network, name: str) -> vggkit.network.PlacedLayer:
    """Return a layer by its name, or the first one of a block."""
    return next((placed for placed in network if placed.block == name), None) or network.layer(name)


def mesh_of(options: StepOptions) -> DeviceMesh:
    """Return the ranks in copies of a pipeline, one or several."""
    group = options.group
    copies = group.replicas if group.parallel == "pipeline+ddp" else 1
    return init_device_mesh(options.device, (copies, group.ranks // copies), mesh_dim_names=("dp", "pp"))


def training_of(network: vggkit.Network, options: StepOptions) -> Training:
    """Return the loop of the rank that this process is."""
    return Training(network, options, mesh_of(options), dtypes_of(network, options))


class Training:
    """The loop of a rank; what it is made of is made in this order.

    Args:
        network: what to train.
        options: what a step is like.
        mesh: of `mesh_of`.
        of_borders: of `dtypes_of`.
    """

    def __init__(
        self, network: vggkit.Network, options: StepOptions, mesh: DeviceMesh, of_borders: dict[str, torch.dtype]
    ) -> None:
        self.options = options
        group = options.group
        copies, stages = mesh.shape
        own = group.own % stages
        dtype, device = getattr(torch, options.dtype), torch.device(options.device)
        self.stage = stage_of(network, options, own)
        if options.device == "cuda":  # fake tensors can't be moved
            self.stage.to(device)
        self.sent: list[int] = []
        run: nn.Module = self.stage
        if copies > 1:
            averaging = mesh.get_group("dp")
            run = DistributedDataParallel(
                run,
                device_ids=[0] if options.device == "cuda" else None,
                process_group=averaging,
                init_sync=False,
                bucket_cap_mb=group.bucket_cap_mb,
            )
            run.register_comm_hook(self.sent, lambda sent, bucket: averaged(sent, bucket))
        self.average = stage_of(network, options, own) if options.ema else None
        if options.device == "cuda" and self.average is not None:
            self.average.to(device)
        self.loss_of, shape, made = LOSSES[options.loss](network.output_shape, dtype)
        self.images, self.targets = (
            torch.zeros(options.batch, *shape_of, dtype=of, device=device) if is_here else None
            for shape_of, of, is_here in ((network.input_shape, dtype, own == 0), (shape, made, own == stages - 1))
        )
        firsts = [first_in(network, name) for name in group.cut]
        borders = [network.input_shape, *(placed.input_shape for placed in firsts), network.output_shape]
        dtypes = [dtype, *(of_borders[placed.module] for placed in firsts), of_borders[""]]
        batch = options.batch // options.microbatches
        received, sent = (
            torch.empty(batch, *borders[border], dtype=dtypes[border], device="meta", requires_grad=border > 0)
            for border in (own, own + 1)
        )
        of_copy = mesh.get_group("pp")
        part = PipelineStage(run, own, stages, device, input_args=received, output_args=sent, group=of_copy)
        self.schedule = SCHEDULES[group.schedule](part, options.microbatches, loss_fn=self._loss)
        trained = [parameter for parameter in self.stage.parameters() if parameter.requires_grad]
        self.optimizer = options.rules.torch_optimizer(trained, options.update, torch.optim)

    def _loss(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with autocast_of(self.options):
            loss: torch.Tensor = self.loss_of(output, targets)
            return loss

    def step(self) -> None:
        """Run a step."""
        self.stage.zero_grad(set_to_none=self.options.zero_grad == "set_to_none")
        images = () if self.images is None else (self.images,)
        self.schedule.step(*images, target=self.targets)
        if self.optimizer is not None:
            self.optimizer.step()
        if self.average is not None:
            with torch.no_grad():
                for average, parameter in zip(self.average.parameters(), self.stage.parameters()):
                    average.lerp_(parameter, 0.001)


@contextmanager
def tracked(network: vggkit.Network, options: StepOptions) -> Iterator[tuple[Training, Tracker]]:
    """Be a rank whose tensors are fake; DistributedDataParallel needs real ones."""
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    fake = FakeTensors() if options.group.parallel == "pipeline" else nullcontext()
    try:
        with group_of(options):
            mesh, dtypes = mesh_of(options), dtypes_of(network, options)
            with fake, (tracker := Tracker()):
                yield Training(network, options, mesh, dtypes), tracker
    finally:
        gc.enable()


def bytes_of(tracker: Tracker, when: str) -> int:
    """Return what a tracker has seen on the CPU."""
    total: int = tracker.get_tracker_snapshot(when)[torch.device("cpu")]["Total"]
    return total


def peak(network: vggkit.Network, options: StepOptions) -> int:
    """Measure the peak of a step that is like all later ones."""
    with tracked(network, options) as (training, tracker):
        for _ in range(max(options.early_steps, 2) + 1):
            training.step()
        tracker.begin()
        training.step()
        return bytes_of(tracker, "peak")

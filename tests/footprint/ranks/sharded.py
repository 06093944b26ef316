"""What MemTracker sees of a rank's step that has parts of parameters, on fake tensors."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy

import vggkit
from tests.footprint.ranks.loop import group_of
from tests.footprint.ranks.tracked import Tracker
from vggkit.footprint.ranks import Group
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import _FakeTensors


def shard(model: nn.Module, mesh: DeviceMesh, group: Group) -> None:
    """Divide a model as `fully_shard` does."""
    for unit in units_of(model, group.units):
        if list(unit.parameters()):
            fully_shard(unit, mesh=mesh, reshard_after_forward=group.reshard_after_forward)
    fully_shard(model, mesh=mesh, reshard_after_forward=group.reshard_after_forward)


def units_of(model: nn.Module, units: str) -> Iterator[nn.Module]:
    """Yield the modules that are units of their own, beside the root."""
    if units == "blocks":
        yield from model.children()
    elif units == "layers":
        yield from (module for module in model.modules() if not list(module.children()))


def divide(model: nn.Module, mesh: DeviceMesh, _: Group) -> None:
    """Divide a model's FC layers as `parallelize_module` does, by columns and rows in turn, whole at the end."""
    is_behind = False
    layers: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            layers.append(name)
            is_behind = True
        elif is_behind and hasattr(module, "inplace"):
            module.inplace = False
    plan: dict[str, ParallelStyle] = {
        name: RowwiseParallel() if place % 2 else ColwiseParallel() for place, name in enumerate(layers)
    }
    if len(layers) % 2:
        plan[layers[-1]] = ColwiseParallel(output_layouts=Replicate())
    parallelize_module(model, mesh, plan)


DIVIDED = {"fsdp": shard, "tensor": divide}
"""How a rank's model is made, by strategy."""


def peak(network: vggkit.Network, options: StepOptions) -> int:
    """Measure the peak of a step that is like all later ones."""
    group = options.group
    _clear_sharding_prop_cache()  # it has meshes in which this process is another rank
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    try:
        with group_of(options):
            mesh = init_device_mesh("cpu", (group.ranks,))
            with _FakeTensors(), (tracker := Tracker()):
                model = vggkit.build(network, dtype=options.dtype).train()
                DIVIDED[group.parallel](model, mesh, group)
                images = torch.zeros(options.batch, *network.input_shape, dtype=getattr(torch, options.dtype))
                labels = torch.zeros(options.batch, *network.output_shape[1:], dtype=torch.int64)
                optimizer = options.rules.torch_optimizer(list(model.parameters()), options.update, torch.optim)
                for number in range(options.early_steps + 2):
                    if number > options.early_steps:
                        tracker.begin()
                    model.zero_grad()
                    loss = cross_entropy(model(images), labels)
                    loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
                    if optimizer is not None:
                        optimizer.step()
                    if number == options.early_steps:
                        del loss  # a plan on the CPU does not count the loss of the step before
            total: int = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
            return total
    finally:
        gc.enable()

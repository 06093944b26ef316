"""What MemTracker sees of a rank's step that has parts of parameters, on fake tensors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

import vggkit
from tests.footprint.ranks.loop import Training, group_of
from tests.footprint.ranks.tracked import Tracker
from vggkit.footprint.ranks import Group
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.tracking import FakeTensors


def shard(model: nn.Module, mesh: DeviceMesh, group: Group) -> None:
    """Divide a model as `fully_shard` does."""
    param_dtype, reduce_dtype = (dtype and getattr(torch, dtype) for dtype in (group.param_dtype, group.reduce_dtype))
    policies: Any = {
        "mesh": mesh,
        "reshard_after_forward": group.reshard_after_forward,
        "mp_policy": MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=reduce_dtype),
    }
    for unit in units_of(model, group.units):
        if list(unit.parameters()):
            fully_shard(unit, **policies)
    fully_shard(model, **policies)


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


class Sharded(Training):
    """The loop of a model that has parts of parameters."""

    def __init__(self, network: vggkit.Network, options: StepOptions, mesh: DeviceMesh) -> None:
        self.mesh = mesh
        super().__init__(network, options)

    def built(self, network: vggkit.Network) -> nn.Module:
        model = super().built(network)
        DIVIDED[self.options.group.parallel](model, self.mesh, self.options.group)
        return model

    def wrap(self, model: nn.Module, _: object = None) -> nn.Module:
        return model


def peak(network: vggkit.Network, options: StepOptions) -> int:
    """Measure the peak of a step that is like all later ones."""
    _clear_sharding_prop_cache()  # it has meshes in which this process is another rank
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    try:
        with group_of(options):
            mesh = init_device_mesh("cpu", (options.group.ranks,))
            with FakeTensors(), (tracker := Tracker()):
                training = Sharded(network, options, mesh)
                for _ in range(options.early_steps + 1):
                    training.step()
                training.loss = None  # a plan on the CPU does not count the loss of the step before
                tracker.begin()
                training.step()
            total: int = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
            return total
    finally:
        gc.enable()


def training_of(network: vggkit.Network, options: StepOptions) -> Training:
    """Return a rank's loop, on real tensors."""
    if options.group.parallel != "fsdp":
        return Training(network, options)
    return Sharded(network, options, init_device_mesh(options.device, (options.group.ranks,)))

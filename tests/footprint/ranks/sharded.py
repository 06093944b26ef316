"""What MemTracker sees of a rank's step with FSDP2, on fake tensors."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import vggkit
from tests.footprint.ranks.loop import group_of
from tests.footprint.ranks.tracked import Tracker
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import _FakeTensors


def units_of(model: nn.Module, units: str) -> Iterator[nn.Module]:
    """Yield the modules that are units of their own, beside the root."""
    if units == "blocks":
        yield from model.children()
    elif units == "layers":
        yield from (module for module in model.modules() if not list(module.children()))


def peak(network: vggkit.Network, options: StepOptions) -> int:
    """Measure the peak of a step that is like all later ones."""
    group = options.group
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    try:
        with group_of(options):
            mesh = init_device_mesh("cpu", (group.ranks,))
            with _FakeTensors(), (tracker := Tracker()):
                model = vggkit.build(network, dtype=options.dtype).train()
                for unit in units_of(model, group.units):
                    if list(unit.parameters()):
                        fully_shard(unit, mesh=mesh, reshard_after_forward=group.reshard_after_forward)
                fully_shard(model, mesh=mesh, reshard_after_forward=group.reshard_after_forward)
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

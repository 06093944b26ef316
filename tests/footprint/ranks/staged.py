"""What MemTracker sees of a rank's step that runs a stage of a network, on fake tensors."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage
from torch.utils.checkpoint import checkpoint

import vggkit
from tests.footprint.card.play_steps import LOSSES
from tests.footprint.ranks.loop import group_of
from tests.footprint.ranks.tracked import Tracker
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import _FakeTensors

SCHEDULES = {"gpipe": pipelining.ScheduleGPipe, "1f1b": pipelining.Schedule1F1B}


class Stage(nn.Module):
    """Some of a model's layers, by block, which run as in the model.

    Args:
        layers: the layers, by their paths in the model.
        checkpointed: blocks that are run again in the backward pass.
    """

    def __init__(self, layers: dict[str, nn.Module], checkpointed: tuple[str, ...]) -> None:
        super().__init__()
        blocks: dict[str, OrderedDict[str, nn.Module]] = {}
        for path, module in layers.items():
            block, _, child = path.rpartition(".")
            blocks.setdefault(block or path, OrderedDict())[child] = module
        for name, inside in blocks.items():
            self.add_module(name, inside[name] if name in inside else nn.Sequential(inside))
        self.checkpointed = checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layers."""
        for name, module in self.named_children():
            x = checkpoint(module, x, use_reentrant=False) if name in self.checkpointed else module(x)
        return x


def stage_of(network: vggkit.Network, options: StepOptions) -> Stage:
    """Return a rank's stage of a model, in which nothing that was received is overwritten."""
    of_build: Any = {"freeze": options.freeze, "checkpoint": options.checkpoint}
    model = vggkit.build(network, dtype=options.dtype, **of_build).train()
    paths = [path for path, module in model.named_modules() if not list(module.children())]
    begins = [0, *(paths.index(first_in(network, name).module) for name in options.group.cut), len(paths)]
    own = options.group.own
    layers = {path: model.get_submodule(path) for path in paths[begins[own] : begins[own + 1]]}
    if own:
        for module in layers.values():
            if hasattr(module, "inplace"):
                module.inplace = False
            if not isinstance(module, nn.Flatten):
                break
    return Stage(layers, options.checkpoint)


def first_in(network: vggkit.Network, name: str) -> vggkit.network.PlacedLayer:
    """Return a layer by its name, or the first one of a block."""
    return next((placed for placed in network if placed.block == name), None) or network.layer(name)


class Training:
    """The loop of a rank; what it is made of is made in this order.

    Args:
        network: what to train.
        options: what a step is like.
    """

    def __init__(self, network: vggkit.Network, options: StepOptions) -> None:
        self.options = options
        group = options.group
        dtype, device = getattr(torch, options.dtype), torch.device(options.device)
        self.is_first, self.is_last = group.own == 0, group.own == group.ranks - 1
        self.stage = stage_of(network, options)
        self.average = stage_of(network, options) if options.ema else None
        self.loss_of, shape, made = LOSSES[options.loss](network.output_shape, dtype)
        self.images = torch.zeros(options.batch, *network.input_shape, dtype=dtype, device=device)
        self.targets = torch.zeros(options.batch, *shape, dtype=made, device=device)
        if not self.is_first:
            del self.images
        if not self.is_last:
            del self.targets
        borders = [network.input_shape, *(first_in(network, name).input_shape for name in group.cut)]
        borders.append(network.output_shape)
        batch = options.batch // options.microbatches
        received, sent = (
            torch.empty(batch, *borders[border], dtype=dtype, device="meta", requires_grad=border > 0)
            for border in (group.own, group.own + 1)
        )
        part = PipelineStage(self.stage, group.own, group.ranks, device, input_args=received, output_args=sent)
        self.schedule = SCHEDULES[group.schedule](part, options.microbatches, loss_fn=self.loss_of)
        trained = [parameter for parameter in self.stage.parameters() if parameter.requires_grad]
        self.optimizer = options.rules.torch_optimizer(trained, options.update, torch.optim)

    def step(self) -> None:
        """Run a step."""
        self.stage.zero_grad(set_to_none=self.options.zero_grad == "set_to_none")
        images = (self.images,) if self.is_first else ()
        targets = {"target": self.targets} if self.is_last else {}
        self.schedule.step(*images, **targets)
        if self.optimizer is not None:
            self.optimizer.step()
        if self.average is not None:
            with torch.no_grad():
                for average, parameter in zip(self.average.parameters(), self.stage.parameters()):
                    average.lerp_(parameter, 0.001)


@contextmanager
def tracked(network: vggkit.Network, options: StepOptions) -> Iterator[tuple[Training, Tracker]]:
    """Be a rank whose tensors are fake."""
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    try:
        with group_of(options), _FakeTensors(), (tracker := Tracker()):
            yield Training(network, options), tracker
    finally:
        gc.enable()


def bytes_of(tracker: Tracker, when: str) -> int:
    """Return what a tracker has seen on the CPU."""
    total: int = tracker.get_tracker_snapshot(when)[torch.device("cpu")]["Total"]
    return total


def peak(network: vggkit.Network, options: StepOptions) -> int:
    """Measure the peak of a step that is like all later ones."""
    with tracked(network, options) as (training, tracker):
        for _ in range(options.early_steps + 1):
            training.step()
        tracker.begin()
        training.step()
        return bytes_of(tracker, "peak")

"""A training loop on a rank that has a part of each FC layer, and what MemTracker sees of it."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

import vggkit
from tests.footprint.ranks.loop import Training, group_of
from tests.footprint.ranks.tracked import EARLY
from vggkit.footprint.ranks.traffic import Traffic, all_reduce
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.rank import RankTracker, measured_mesh
from vggkit.model.tracking import FakeTensors


def styles_of(model: nn.Module, parts: int) -> dict[str, ParallelStyle]:
    """Return how FC layers are divided: by columns and rows in turn, whole at the end.

    torch takes a part's units times the number of ranks for all of them, and fails where ranks have different numbers,
    unless what is between two layers stays a DTensor.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    layers = list(linear)
    styles: dict[str, ParallelStyle] = {}
    for place, name in enumerate(layers):
        is_even = linear[name].out_features % parts == 0
        styles[name] = RowwiseParallel() if place % 2 else ColwiseParallel(use_local_output=is_even)
    if len(layers) % 2:
        styles[layers[-1]] = ColwiseParallel(output_layouts=Replicate())
    return styles


class Meshes(NamedTuple):
    """Whom a rank works with: the same part of other copies of the model, and the other parts of its own copy."""

    copies: DeviceMesh
    parts: DeviceMesh


def meshes_of(options: StepOptions) -> Meshes:
    """Return them. Each has a list of its ranks on the CPU, which is not of the model."""
    group = options.group
    copies = group.replicas if group.parallel == "tensor+ddp" else 1
    mesh = init_device_mesh(options.device, (copies, group.ranks // copies), mesh_dim_names=("dp", "tp"))
    return Meshes(mesh["dp"], mesh["tp"])


class DividedTraining(Training):
    """The loop of a model whose FC layers are divided; of several copies, where their gradients are averaged."""

    def __init__(self, network: vggkit.Network, options: StepOptions, meshes: Meshes) -> None:
        self.meshes = meshes
        super().__init__(network, options)

    def built(self, network: vggkit.Network) -> nn.Module:
        """Return the model, divided; no activation behind an FC layer works in place."""
        model = super().built(network)
        is_behind = False
        for module in model.modules():
            is_behind = is_behind or isinstance(module, nn.Linear)
            if is_behind and hasattr(module, "inplace"):
                module.inplace = False
        return parallelize_module(model, self.meshes.parts, styles_of(model, self.meshes.parts.size()))

    def averages(self, network: vggkit.Network) -> list[torch.Tensor]:
        """Return the parameters of a second model, as those are that are trained."""
        every = super().averages(network)
        if self.meshes.copies.size() == 1:
            return every
        return [parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in every]

    def wrap(self, model: nn.Module, _: object = None) -> nn.Module:
        """Return what runs the model."""
        copies = self.meshes.copies
        return super().wrap(model, copies) if copies.size() > 1 else model


def training_of(network: vggkit.Network, options: StepOptions) -> DividedTraining:
    """Return a rank's loop, on real tensors."""
    return DividedTraining(network, options, meshes_of(options))


class Seen(NamedTuple):
    """What is seen of a step.

    Args:
        peak: most bytes alive at one moment.
        buckets: bytes of each bucket of gradients, in the order in which they are sent.
        traffic: what the rank sends and receives by the operations that torch calls.
    """

    peak: int
    buckets: list[int]
    traffic: Traffic


def peak(network: vggkit.Network, options: StepOptions) -> int:
    """Measure the peak of a step that is like all later ones."""
    return seen(network, options).peak


def seen(network: vggkit.Network, options: StepOptions) -> Seen:
    """Look at a step that is like all later ones, on fake tensors unless DistributedDataParallel runs."""
    _clear_sharding_prop_cache()  # it has meshes in which this process is another rank
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    is_fake = options.group.parallel == "tensor"
    try:
        with group_of(options):
            measured_mesh(options)  # for what torch makes once in a process
            meshes = meshes_of(options)
            with FakeTensors() if is_fake else nullcontext(), (tracker := RankTracker()):
                training = DividedTraining(network, options, meshes)
                # what runs on DTensors for the first time allocates to find out how its result is divided
                for _ in range(max(EARLY, options.early_steps + 1)):
                    training.step()
                training.loss = None  # a plan on the CPU does not count the loss of the step before
                training.sent.clear()
                tracker.begin()
                training.step()
            traffic = tracker.traffic
            for size in training.sent:  # the hook sends nothing
                traffic = traffic.plus(all_reduce(size, meshes.copies.size()))
            return Seen(tracker.peak, training.sent, traffic)
    finally:
        gc.enable()

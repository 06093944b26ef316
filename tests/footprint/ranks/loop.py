"""A training loop on one rank of several, in torch alone, as its users write it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

import vggkit
from tests.footprint.card.play_steps import LOSSES, change
from vggkit.footprint.steps.options import StepOptions


@contextmanager
def group_of(options: StepOptions) -> Iterator[None]:
    """Be a rank of a group whose others don't exist: what they would send is whatever is there already."""
    dist.init_process_group("fake", store=FakeStore(), rank=options.group.own, world_size=options.group.ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def averaged(sent: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Note a bucket's bytes, and return it as it is."""
    buffer = bucket.buffer()
    sent.append(buffer.untyped_storage().nbytes())
    future: torch.futures.Future[torch.Tensor] = (
        torch.futures.Future(devices=[buffer.device]) if buffer.is_cuda else torch.futures.Future()
    )
    future.set_result(buffer)
    return future


class ShardedOptimizers:
    """The optimizers of `torch.optim`, each with its state spread over the ranks."""

    def __getattr__(self, name: str) -> Any:
        kind = getattr(torch.optim, name)
        return lambda parameters, **options: ZeroRedundancyOptimizer(parameters, kind, **options)


OPTIMIZERS: dict[str, Any] = {"zero1": ShardedOptimizers()}
"""Where a strategy's optimizers are, if not in `torch.optim`."""


class Training:
    """The loop; what it is made of is made in this order.

    Args:
        network: what to train.
        options: what a step is like.
    """

    def __init__(self, network: vggkit.Network, options: StepOptions) -> None:
        self.options = options
        group = options.group
        dtype, device = getattr(torch, options.dtype), options.device
        self.sent: list[int] = []
        self.model = self.built(network)
        self.wrapped = self.wrap(self.model)
        self.every = list(self.model.parameters())  # of divided ones the model forgets some in a forward pass
        self.trained = [parameter for parameter in self.every if parameter.requires_grad]
        self.average = self.averages(network) if options.ema else []
        self.images = torch.zeros(options.batch, *network.input_shape, dtype=dtype, device=device)
        self.loss_of, shape, made = LOSSES[options.loss](network.output_shape, getattr(torch, options.output_dtype))
        self.targets = torch.zeros(options.batch, *shape, dtype=made, device=device)
        optimizers = OPTIMIZERS.get(group.parallel, torch.optim)
        self.loss: torch.Tensor | None = None
        groups = [[parameter] for parameter in self.trained] if options.step_in_backward else [self.trained]
        self.optimizers = [options.rules.torch_optimizer(group, options.update, optimizers) for group in groups]
        if options.step_in_backward:
            for parameter, optimizer in zip(self.trained, self.optimizers):
                assert optimizer is not None
                parameter.register_post_accumulate_grad_hook(partial(change, weakref.ref(optimizer)))  # type: ignore[no-untyped-call]  # torch has no types here

    def built(self, network: vggkit.Network) -> nn.Module:
        """Return the model."""
        options = self.options
        of_build = {"freeze": options.freeze, "checkpoint": options.checkpoint, "device": options.device}
        return vggkit.build(network, dtype=options.dtype, **of_build).train()

    def averages(self, network: vggkit.Network) -> list[torch.Tensor]:
        """Return the parameters of a second model."""
        self.second = self.built(network)
        return list(self.second.parameters())

    def wrap(self, model: nn.Module, mesh: DeviceMesh | None = None) -> nn.Module:
        """Return what runs the model, and averages gradients over all ranks or over those of a mesh."""
        group = self.options.group
        wrapped = DistributedDataParallel(
            model,
            device_ids=[0] if self.options.device == "cuda" else None,
            init_sync=False,
            bucket_cap_mb=group.bucket_cap_mb,
            gradient_as_bucket_view=group.parallel == "ddp-view",
            static_graph=group.static_graph,
            device_mesh=mesh,
        )
        # torch looks at the hook's annotations, and wants no text there
        wrapped.register_comm_hook(self.sent, lambda sent, bucket: averaged(sent, bucket))
        return wrapped

    def _syncing(self, position: int) -> AbstractContextManager[Any]:
        is_last = position == self.options.accumulate - 1
        if is_last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()

    def _zero_grad(self) -> None:
        for parameter in self.trained:
            if self.options.zero_grad == "set_to_none":
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def step(self) -> None:
        """Run a step; its loss lives until the next one is there, as a variable of a loop does."""
        options = self.options
        if not options.step_in_backward:
            self._zero_grad()
        for position in range(options.accumulate):
            with self._syncing(position):
                with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.autocast):
                    if options.accumulate == 1:
                        self.loss = self.loss_of(self.wrapped(self.images), self.targets)
                    else:
                        self.loss = self.loss_of(self.wrapped(self.images), self.targets) / options.accumulate
                self.loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        if options.clip_grad:
            nn.utils.clip_grad_norm_(self.trained, max_norm=1.0)
        for optimizer in self.optimizers if not options.step_in_backward else ():
            if optimizer is not None:
                optimizer.step()
        if options.ema:
            with torch.no_grad():
                for average, parameter in zip(self.average, self.every):
                    average.lerp_(parameter, 0.001)

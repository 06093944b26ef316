"""A training loop on one rank of several, in torch alone, as its users write it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

import vggkit
from tests.footprint.card.play_steps import LOSSES
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
        of_build = {"freeze": options.freeze, "checkpoint": options.checkpoint, "device": device}
        self.model = vggkit.build(network, dtype=options.dtype, **of_build).train()
        self.wrapped = DistributedDataParallel(
            self.model,
            device_ids=[0] if device == "cuda" else None,
            init_sync=False,
            bucket_cap_mb=group.bucket_cap_mb,
            gradient_as_bucket_view=group.parallel == "ddp-view",
            static_graph=group.static_graph,
        )
        self.sent: list[int] = []
        # torch looks at the hook's annotations, and wants no text there
        self.wrapped.register_comm_hook(self.sent, lambda sent, bucket: averaged(sent, bucket))
        self.average = vggkit.build(network, dtype=options.dtype, **of_build).train() if options.ema else None
        self.images = torch.zeros(options.batch, *network.input_shape, dtype=dtype, device=device)
        self.loss_of, shape, made = LOSSES[options.loss](network.output_shape, dtype)
        self.targets = torch.zeros(options.batch, *shape, dtype=made, device=device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizers = OPTIMIZERS.get(group.parallel, torch.optim)
        self.loss: torch.Tensor | None = None
        self.optimizer = options.rules.torch_optimizer(trained, options.update, optimizers)

    def _syncing(self, position: int) -> AbstractContextManager[Any]:
        return nullcontext() if position == self.options.accumulate - 1 else self.wrapped.no_sync()

    def step(self) -> None:
        """Run a step; its loss lives until the next one is there, as a variable of a loop does."""
        options = self.options
        self.model.zero_grad(set_to_none=options.zero_grad == "set_to_none")
        for position in range(options.accumulate):
            with self._syncing(position):
                with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.autocast):
                    if options.accumulate == 1:
                        self.loss = self.loss_of(self.wrapped(self.images), self.targets)
                    else:
                        self.loss = self.loss_of(self.wrapped(self.images), self.targets) / options.accumulate
                self.loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        if options.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=1.0)
        if self.optimizer is not None:
            self.optimizer.step()
        if self.average is not None:
            with torch.no_grad():
                for average, parameter in zip(self.average.parameters(), self.model.parameters()):
                    average.lerp_(parameter, 0.001)

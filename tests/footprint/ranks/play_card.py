"""Let torch train a model on one rank of several, on the card that isn't there.

A question has the network, what the steps are like, and how many there are. The answer has each step's figures, or what
was allocated and freed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch.distributed.tensor import _random
from torch.distributed.tensor.debug import _clear_sharding_prop_cache

from tests.footprint.card import play_steps
from tests.footprint.grid import network_of, split
from tests.footprint.ranks import divided, sharded, staged
from tests.footprint.ranks.loop import Training, group_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.network import Network

MADE: dict[str, Callable[[Network, StepOptions], Training | staged.Training]] = {
    "tensor": divided.training_of,
    "tensor+ddp": divided.training_of,
    "pipeline": staged.training_of,
    "pipeline+ddp": staged.training_of,
}
"""How the training of a divided model is made."""


# of the card that isn't there nothing can be read back, and so no state of its random numbers
_random.OffsetBasedRNGTracker._set_device_state = lambda *_: None  # type: ignore[method-assign]  # as said above


class _Forgetting(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # torch types it loosely
        _clear_sharding_prop_cache()
        return gradient


def forget() -> None:
    """Forget how operations on DTensors were divided, where this process was another rank: each thread knows it.

    And that a dropout on one has already been there.
    """
    _clear_sharding_prop_cache()
    _random._rng_tracker = None
    x = torch.zeros(1, device="cuda", requires_grad=True)
    _Forgetting.apply(x).backward()  # in the thread of backward passes


def answer(steps: int, events: bool = False, **question: Any) -> list[Any]:
    """Train on an empty card, and leave an empty one.

    Args:
        steps: how many.
        events: whether to answer with what was allocated and freed, in place of the figures.
        question: what to train, and how.
    """
    network = network_of(question)
    options = checked_options(network, device="cuda", **split(question)[1])
    forget()
    torch.cuda.empty_cache()
    torch.cuda.reset_accumulated_memory_stats()
    if events:
        torch.cuda.memory._record_memory_history("all", context=None, clear_history=True)
    done: list[Any] = []
    with group_of(options):
        training = MADE.get(options.group.parallel, sharded.training_of)(network, options)
        with suppress(torch.OutOfMemoryError):
            for _ in range(steps):
                done.append(None)  # of a step that runs out of memory
                torch.cuda.reset_peak_memory_stats()
                training.step()
                done[-1] = play_steps.figures()
        said = play_steps.allocations() if events else done
        del training
    play_steps.empty()
    return said


if __name__ == "__main__":
    play_steps.serve(answer)

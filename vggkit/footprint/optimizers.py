"""Optimizers: one class each, with all its rules.

A class has what the optimizer keeps between steps, what its step allocates and frees, and its class of `torch.optim`.
A new optimizer is one class in this file. The rules are those of torch's default arguments: on the CPU torch takes the
parameters one by one (`_single_tensor_…`), on CUDA all of them together (`_multi_tensor_…`, foreach).

`torch.optim` is an argument, as `torch.nn` is for the layers, so that nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from vggkit.base.eager import Eager, Storage

COUNTER_BYTES = 4
"""The step counter of a parameter: a float32 on the CPU (torch/optim/optimizer.py, _get_scalar_dtype)."""


class Optimizer(ABC):
    """An optimizer. `OPTIMIZERS` has one of each final class."""

    name: ClassVar[str]
    """The word that asks for it."""

    @abstractmethod
    def state(self, size: int, device: str) -> tuple[int, ...]:
        """Return the bytes of each tensor that is kept for a parameter, on the parameter's device.

        Args:
            size: the parameter's bytes.
            device: "cpu" or "cuda".
        """

    @abstractmethod
    def step(self, sizes: Sequence[int], eager: Eager) -> None:
        """Run a step: allocate, note and release its temporaries as torch does.

        Args:
            sizes: bytes of each trained parameter.
            eager: where the step runs.
        """

    @abstractmethod
    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        """Return torch's optimizer, or None if there is no step.

        Args:
            parameters: the trained parameters.
            optim: the namespace `torch.optim`.
        """


class NoOptimizer(Optimizer):
    """Computes gradients, but changes no parameter."""

    name = "none"

    def state(self, size: int, device: str) -> tuple[int, ...]:
        return ()

    def step(self, sizes: Sequence[int], eager: Eager) -> None:
        return

    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        return None


class SGD(Optimizer):
    """Plain stochastic gradient descent, which works in place (torch/optim/sgd.py)."""

    name = "sgd"

    def state(self, size: int, device: str) -> tuple[int, ...]:
        return ()

    def step(self, sizes: Sequence[int], eager: Eager) -> None:
        eager.note()

    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        return optim.SGD(parameters, lr=0.01)


class MomentumSGD(Optimizer):
    """Stochastic gradient descent with momentum, which works in place on its buffers (torch/optim/sgd.py)."""

    name = "sgd-momentum"

    def state(self, size: int, device: str) -> tuple[int, ...]:
        return (size,)

    def step(self, sizes: Sequence[int], eager: Eager) -> None:
        eager.note()

    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        return optim.SGD(parameters, lr=0.01, momentum=0.9)


class _MomentEstimating(Optimizer):
    """Keeps estimates of the gradient's first two moments, and divides by √v, the root of the second."""

    def state(self, size: int, device: str) -> tuple[int, ...]:
        moments = (size, size)
        return (COUNTER_BYTES, *moments) if device == "cpu" else moments  # the counter stays on the CPU

    def step(self, sizes: Sequence[int], eager: Eager) -> None:
        eager.note()
        if eager.device == "cuda":
            self._step_together(sizes, eager)
        else:
            self._step_one_by_one(sizes, eager)

    def _step_together(self, sizes: Sequence[int], eager: Eager) -> None:
        """Take √v of all parameters at once (torch/optim/adam.py, _multi_tensor_adam, exp_avg_sq_sqrt)."""
        roots = [eager.new(0, size) for size in sizes]
        eager.note()
        eager.release(*roots)

    def _step_one_by_one(self, sizes: Sequence[int], eager: Eager) -> None:
        """Take √v and the denominator of one parameter after the other (torch/optim/adam.py, _single_tensor_adam).

        A denominator lives until `denom` is bound to that of the next parameter.
        """
        denominator: Storage | None = None
        for size in sizes:
            root = eager.new(0, size)
            eager.note()
            quotient = eager.new(0, size)
            eager.note()
            eager.release(root, denominator)
            denominator = quotient
        eager.release(denominator)


class Adam(_MomentEstimating):
    """Adam (torch/optim/adam.py)."""

    name = "adam"

    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        return optim.Adam(parameters)


class AdamW(_MomentEstimating):
    """Adam with decoupled weight decay, which works in place (torch/optim/adamw.py)."""

    name = "adamw"

    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        return optim.AdamW(parameters)


OPTIMIZERS: dict[str, Optimizer] = {
    kind.name: kind()
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Optimizer) and not kind.__abstractmethods__
}
"""Every optimizer by its name: each final class above."""

NONE, DEFAULT = NoOptimizer.name, MomentumSGD.name
"""The optimizer if none is asked for: in inference, and in training."""

"""Gradient descent: plain, with momentum, as in the paper, and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from vggkit.base.eager import Parameter
from vggkit.footprint.optimizers.rules import NUMBER_BYTES, Call, Optimizer, Update, size_of


class NoOptimizer(Optimizer):
    """Computes gradients, but changes no parameter."""

    name = "none"
    takes = ()

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return ()

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        return

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        return

    def step(self, call: Call) -> None:
        return

    def torch_optimizer(self, parameters: Sequence[Any], update: Update, optim: Any) -> Any:
        return None


class SGD(Optimizer):
    """Plain stochastic gradient descent, which works in place (torch/optim/sgd.py)."""

    name = "sgd"
    torch_name = "SGD"
    fixed: ClassVar[dict[str, Any]] = {"lr": 0.01}
    takes = ("weight_decay", "foreach", "fused")

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return ()

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        return

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        return


class MomentumSGD(Optimizer):
    """Stochastic gradient descent with momentum, which works in place on its buffers (torch/optim/sgd.py)."""

    name = "sgd-momentum"
    torch_name = "SGD"
    fixed: ClassVar[dict[str, Any]] = {"lr": 0.01, "momentum": 0.9}
    takes = ("weight_decay", "foreach", "fused", "nesterov")

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (size_of(parameter),)

    def prepare(self, call: Call) -> None:
        """Only `_fused_sgd` makes the buffers first; the others copy the gradients, once these have their decay."""
        if call.update.fused:
            self.make_state(call)

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.keep(*map(size_of, group))
        if call.update.nesterov:
            call.like("grad", group)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        call.keep(*map(size_of, group))  # Nesterov's momentum is added to the gradients, or their copies, in place


class PaperSGD(MomentumSGD):
    """Momentum SGD with weight decay, as in the paper: arXiv:1409.1556, section 3.1."""

    name = "paper"
    weight_decay = 5e-4


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (torch/optim/asgd.py), before it begins to average, after 10⁶ steps."""

    name = "asgd"
    torch_name = "ASGD"

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        """Return step, eta, mu, which are numbers on the parameter's device, and the average."""
        return (NUMBER_BYTES, NUMBER_BYTES, NUMBER_BYTES, size_of(parameter))

    def prepare(self, call: Call) -> None:
        """Make the state; eta is a copy of another number."""
        for parameter in call.parameters if call.is_first else ():
            step, *others = self.state(parameter, call.update, call.eager.device)
            call.keep(step)
            call.new("lr", NUMBER_BYTES)
            call.keep(others.pop(0))
            call.delete("lr")
            call.keep(*others)

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        if call.is_on_cpu:
            call.new("new_eta", NUMBER_BYTES)
            call.new("new_mu", NUMBER_BYTES)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        if not call.holds("grad"):
            call.like("grad", group)  # intermediate = grad + lambd · param
        call.delete("grad")
        call.like("difference", group)
        call.delete("difference")
        for number, _ in enumerate(group):  # lr / ((1 + lambd · lr · step) ** alpha), operation by operation
            for name in ("value", "value", "value", "reciprocal", f"new_eta {number}"):
                call.new(name, NUMBER_BYTES)
            call.delete("reciprocal", "value")
        for number, _ in enumerate(group):
            call.new(f"new_mu {number}", NUMBER_BYTES)

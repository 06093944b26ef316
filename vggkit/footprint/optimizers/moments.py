"""Adam and its variants: moving averages of the gradient and of its square, or of its absolute value."""

from __future__ import annotations

from collections.abc import Sequence

from vggkit.base.eager import Parameter
from vggkit.footprint.optimizers.rules import Call, Optimizer, Update, counters, size_of


class _Moments(Optimizer):
    """Keeps two moments of the gradient, and divides by √v, the root of the second."""

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        moments = 3 if update.amsgrad else 2
        return (*counters(1, update, device), *[size_of(parameter)] * moments)

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("root", group)
        call.like("denom", group)  # the root divided by a number, or the root of such a quotient
        call.delete("root")

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        call.delete("grad")
        call.like("root", group)


class Adam(_Moments):
    """Adam (torch/optim/adam.py)."""

    name = "adam"
    torch_name = "Adam"
    takes = ("weight_decay", "foreach", "fused", "amsgrad")


class AdamW(Adam):
    """Adam with decoupled weight decay, which works in place (torch/optim/adamw.py)."""

    name = "adamw"
    torch_name = "AdamW"
    weight_decay = 0.01
    decays_gradients = False


class NAdam(_Moments):
    """Adam with Nesterov's momentum (torch/optim/nadam.py), which needs the gradient once more at the end."""

    name = "nadam"
    torch_name = "NAdam"

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (*counters(2, update, device), size_of(parameter), size_of(parameter))

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("root", group)


class RAdam(_Moments):
    """Adam whose first steps are not divided by √v, as that is not known well enough yet (torch/optim/radam.py)."""

    name = "radam"
    torch_name = "RAdam"

    UNRECTIFIED = 5
    """So many steps have ρ ≤ 5: for β₂ = 0.999, ρ = 1999 − 2 t β₂ᵗ / (1 − β₂ᵗ) is 4.998 at t = 5 and 5.997 at t = 6."""

    def early_steps(self, update: Update, device: str) -> int:
        return 1 if self.is_foreach(update, device) else self.UNRECTIFIED

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("bias_corrected_exp_avg", group)
        if call.number <= self.UNRECTIFIED:
            call.use(*map(size_of, group))
            return
        call.like("product", group)  # bias_corrected_exp_avg · lr
        call.like("root", group)
        call.like("reciprocal", group)
        call.like("adaptive_lr", group)  # a number / the root: the reciprocal · the number
        call.delete("reciprocal", "root")
        call.like("product", group)  # · adaptive_lr
        call.delete("adaptive_lr")
        call.like("product", group)  # · a number
        call.delete("product")


class Adamax(Optimizer):
    """Adam with the largest absolute value in the place of √v (torch/optim/adamax.py)."""

    name = "adamax"
    torch_name = "Adamax"

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (*counters(1, update, device), size_of(parameter), size_of(parameter))

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.use(*map(size_of, group))  # grad.abs()

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        if not call.holds("grad"):  # in a copy absolute values are taken in place
            call.like("grad", group)

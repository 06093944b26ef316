"""An optimizer that looks at the signs of gradients only."""

from __future__ import annotations

from collections.abc import Sequence

from vggkit.base.eager import Parameter
from vggkit.footprint.optimizers.rules import Call, Optimizer, Update, counters, size_of


class Rprop(Optimizer):
    """Resilient backpropagation: steps grow while a gradient keeps its sign (torch/optim/rprop.py)."""

    name = "rprop"
    torch_name = "Rprop"
    takes = ("foreach",)

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (*counters(1, update, device), size_of(parameter), size_of(parameter))

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        [parameter] = group
        call.like("product", group)  # grad.mul(prev)
        call.like("sign", group)
        call.delete("product")
        self._set_by_sign(parameter, 3, call)
        call.like("grad", group)  # grad.clone()
        self._set_by_sign(parameter, 1, call)
        call.use(size_of(parameter))  # grad.sign()

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("signs", group[:-1])
        call.like("sign", group[-1:])
        for parameter in group:
            self._set_by_sign(parameter, 3, call)
        for parameter in group:  # torch.where(sign.eq(etaminus), 0, grad)
            call.use(_mask(parameter), parameter.element_bytes, size_of(parameter))
        call.delete("signs")  # but the variable of the loop, `sign`, still has the last one
        call.like("grad_signs", group)

    @staticmethod
    def _set_by_sign(parameter: Parameter, times: int, call: Call) -> None:
        """Set values where a mask says so, several times: `sign[sign.gt(0)] = etaplus`; the number is on the CPU."""
        for _ in range(times):
            call.use(_mask(parameter), *[parameter.element_bytes] * call.is_on_cpu)


def _mask(parameter: Parameter) -> int:
    """Return the bytes of a mask, which has a byte for each element."""
    return size_of(parameter) // parameter.element_bytes

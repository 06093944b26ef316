"""Optimizers that divide by the root of squared gradients, summed, averaged or factored."""

from __future__ import annotations

from collections.abc import Sequence

from vggkit.base.eager import WIDE, Parameter
from vggkit.base.sums import column_sums, total
from vggkit.footprint.optimizers.rules import Call, Optimizer, Update, counters, size_of
from vggkit.notation.layers import elements


class RMSprop(Optimizer):
    """Divides by the root of an average of squared gradients (torch/optim/rmsprop.py)."""

    name = "rmsprop"
    torch_name = "RMSprop"
    takes = ("weight_decay", "foreach", "momentum", "centered")

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        copies = 1 + (update.momentum > 0) + update.centered
        return (*counters(1, update, device), *[size_of(parameter)] * copies)

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("avg", group)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        self.single(group, call)


class Adagrad(Optimizer):
    """Divides by the root of a sum of squared gradients, which its constructor makes (torch/optim/adagrad.py)."""

    name = "adagrad"
    torch_name = "Adagrad"
    takes = ("weight_decay", "foreach", "fused")

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (*counters(1, update, device), size_of(parameter))

    def construct(self, call: Call) -> None:
        self.make_state(call)

    def prepare(self, call: Call) -> None:
        return

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("std", group)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("std", group)
        if not call.holds("grad"):  # a copy is multiplied in place
            call.like("numerator", group)


class Adadelta(Optimizer):
    """Divides by the root of an average of squared gradients, and learns its own rate (torch/optim/adadelta.py)."""

    name = "adadelta"
    torch_name = "Adadelta"

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (*counters(1, update, device), size_of(parameter), size_of(parameter))

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("std", group)
        call.like("delta", group)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        self.single(group, call)


class Adafactor(Optimizer):
    """Keeps only sums over the rows and columns of squared gradients (torch/optim/_adafactor.py).

    The last two dimensions of a weight are rows and columns, so a convolution has a matrix of its kernel's size for
    each pair of channels. What has one dimension is not factored.
    """

    name = "adafactor"
    torch_name = "Adafactor"
    decays_gradients = False
    foreach_on_cuda = False

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        kept = _factors(parameter) if _is_factored(parameter) else (size_of(parameter),)
        return (*counters(1, update, device), *kept)

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        [parameter] = group
        _run_norm(parameter, call)  # param.norm(2)
        if _is_factored(parameter):
            rows, columns = _factors(parameter)
            call.new("row_mean", rows)
            call.new("norm", columns)
            _add_up_columns(parameter, call)
            call.rename("norm", "col_mean")
            call.like("var_estimate", group)  # row_var @ col_var
            call.use(_means_of_rows(parameter))
        else:
            call.like("grad_squared", group)
            call.like("var_estimate", group)
        call.rename("var_estimate", "update")
        _run_norm(parameter, call)  # update.norm(2)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        factored = [parameter for parameter in group if _is_factored(parameter)]
        others = [parameter for parameter in group if not _is_factored(parameter)]
        # those like the first parameter come first (_group_tensors_by_device_dtype_and_is_multidim)
        for alike in sorted(filter(None, (factored, others)), key=lambda alike: alike[0] is not group[0]):
            for parameter in alike:
                _run_norm(parameter, call)
            if alike is factored:
                call.use(*(_factors(parameter)[0] for parameter in alike))
                col_means = {f"col_mean of {number}": parameter for number, parameter in enumerate(alike)}
                for name, parameter in col_means.items():
                    call.new(name, _factors(parameter)[1])
                    _add_up_columns(parameter, call)
                call.delete(*col_means)
                call.like("var_estimates", alike)
                call.use(*map(_means_of_rows, alike))
            else:
                call.use(*map(size_of, alike))  # grads_squared
                call.like("var_estimates", alike)
            call.rename("var_estimates", "updates")
            for parameter in alike:
                _run_norm(parameter, call)


def _run_norm(parameter: Parameter, call: Call) -> None:
    """Run the norm of all elements, and read it."""
    call.new("norm", parameter.element_bytes)
    call.add_up(total(1, _wide(parameter)), elements(parameter.shape))
    call.delete("norm")


def _add_up_columns(parameter: Parameter, call: Call) -> None:
    """Add up the squares in each column, of which kernels of convolutions have few."""
    *_, rows, columns = parameter.shape
    call.add_up(column_sums(columns, _wide(parameter)), rows)


def _wide(parameter: Parameter) -> int:
    """Return the bytes of an element in which elements are added up."""
    return max(parameter.element_bytes, WIDE)


def _is_factored(parameter: Parameter) -> bool:
    return len(parameter.shape) > 1


def _factors(parameter: Parameter) -> tuple[int, int]:
    """Return the bytes of the sums over the elements of each row, and of each column."""
    *_, rows, columns = parameter.shape
    return size_of(parameter) // columns, size_of(parameter) // rows


def _means_of_rows(parameter: Parameter) -> int:
    """Return the bytes of the mean over all rows, of each matrix."""
    *_, rows, columns = parameter.shape
    return size_of(parameter) // (rows * columns)

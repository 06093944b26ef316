"""Casts that autocast makes."""

from __future__ import annotations

from typing import Literal

from vggkit.base.eager.graph import Graph
from vggkit.base.eager.tensors import Parameter, Storage, Tensor


class Autocast(Graph):
    """Operands in the dtypes of autocast.

    Args:
        batch: number of images.
        device: "cpu" or "cuda".
        training: as of `Graph`.

    Attributes:
        autocast: whether operations run in autocast now.
    """

    def __init__(self, batch: int, device: Literal["cpu", "cuda"], *, training: bool) -> None:
        super().__init__(batch, device, training=training)
        self.autocast = False
        self._casts: dict[Tensor | Parameter, Tensor | Parameter] = {}
        self._cast_in_backward = False

    def cast(
        self, tensor: Tensor | Parameter | None, element_bytes: int
    ) -> tuple[Tensor | Parameter | None, Storage | None]:
        """Cast an operand as autocast does.

        Returns:
            The operand, and what must be released when the operation has returned. The narrower copy of a leaf that
            requires a gradient is kept until autocast ends, so the operation must not release it.
        """
        if tensor is None or tensor.element_bytes == element_bytes:
            return tensor, None
        if tensor in self._casts:
            return self._casts[tensor], None
        is_kept = tensor.is_leaf and element_bytes < tensor.element_bytes
        node = self.node([tensor.edge], always=is_kept)
        if node is not None:
            node.backward = self._makes(tensor.size)
        storage = self.new(*tensor.cast_size(element_bytes))
        self.note()
        copy: Tensor | Parameter
        if isinstance(tensor, Tensor):
            copy = Tensor(storage, tensor.shape, element_bytes, node)
        else:
            copy = Parameter(storage, tensor.shape, element_bytes, requires_grad=False)
            copy.node = node
        if is_kept:
            self._casts[tensor] = copy
            return copy, None
        return copy, storage

    def lower(
        self, x: Tensor, weight: Parameter, bias: Parameter | None
    ) -> tuple[Tensor, Parameter, Parameter | None, list[Storage | None]]:
        """Cast the operands of a convolution or an FC layer, the last one first; without autocast, return them."""
        if not self.autocast:
            return x, weight, bias, []
        low_bias, of_bias = self.cast(bias, 2)
        low_weight, of_weight = self.cast(weight, 2)
        low_x, of_x = self.cast(x, 2)
        assert isinstance(low_x, Tensor)
        assert isinstance(low_weight, Parameter)
        assert not isinstance(low_bias, Tensor)
        return low_x, low_weight, low_bias, [of_bias, of_weight, of_x]

    def raise_precision(self, x: Tensor, only_on: str | None = None) -> tuple[Tensor, Storage | None]:
        """Cast the input of an operation that autocast runs in float32; without autocast, return it.

        The operations are those of ATen/autocast_mode.h for CUDA, and of ATen/autocast_mode.cpp for the CPU.

        Args:
            x: the input.
            only_on: the only device on which autocast runs the operation in float32; if absent, it does so on both.
        """
        if not self.autocast or only_on not in (None, self.device):
            return x, None
        high, cast = self.cast(x, 4)
        assert isinstance(high, Tensor)
        return high, cast

    def raise_parameters(
        self, parameters: dict[str, Parameter], only_on: str
    ) -> tuple[dict[str, Parameter], list[Storage | None]]:
        """Cast the parameters of such an operation, the last one first, before its input."""
        raised, casts = dict(parameters), []
        for word, parameter in reversed(parameters.items()) if self.autocast and only_on == self.device else ():
            high, cast = self.cast(parameter, 4)
            assert isinstance(high, Parameter)
            raised[word] = high
            casts.append(cast)
        return raised, casts

    def end_autocast(self) -> None:
        """Leave the autocast context: the casts of the parameters are freed, unless the graph holds them."""
        self.release(*self._casts.values())
        self._casts = {}
        self._cast_in_backward, self.autocast = self.autocast, False

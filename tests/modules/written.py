"""The same layers, written as code for them may be: modules in a row, or functions and methods in `forward`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Call = Callable[[Tensor], Tensor]


def in_a_row(modules: Sequence[nn.Module]) -> nn.Module:
    """Write layers as modules in a row, in nested groups of three."""
    groups = [nn.Sequential(*modules[start : start + 3]) for start in range(0, len(modules), 3)]
    return nn.Sequential(*groups)


class Functional(nn.Module):
    """Writes layers as functions and methods, but for those that only a module can be.

    Convolutions that pad with other values than zeros call two functions; batch norm's function has no momentum None.

    Args:
        modules: whose parameters it takes over, and of whose arguments it makes those of the calls.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        for index, module in enumerate(modules):
            if getattr(module, "padding_mode", "zeros") != "zeros" or getattr(module, "momentum", 0.1) is None:
                self.add_module(f"module{index}", module)
                self.calls.append(module)
                continue
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                if isinstance(tensor, nn.Parameter):
                    self.register_parameter(f"{name}{index}", tensor)
                else:
                    self.register_buffer(f"{name}{index}", tensor)
            self.calls.append(self.call(module.eval(), index))

    def held(self, index: int, *names: str) -> list[Tensor | None]:
        """Return tensors of a layer; None for one that it does without."""
        return [getattr(self, f"{name}{index}", None) for name in names]

    def call(self, module: Any, index: int) -> Call:
        """Return what does the same as a module."""
        kind = type(module).__name__
        if kind == "Conv2d":
            return lambda x: functional.conv2d(
                x,
                *self.held(index, "weight", "bias"),
                stride=module.stride,
                padding=module.padding,
                dilation=module.dilation,
                groups=module.groups,
            )
        if kind == "Linear":
            return lambda x: functional.linear(x, *self.held(index, "weight", "bias"))
        if kind.startswith("BatchNorm"):
            return lambda x: functional.batch_norm(
                x,
                *self.held(index, "running_mean", "running_var", "weight", "bias"),
                training=not module.track_running_stats,
                momentum=module.momentum,
                eps=module.eps,
            )
        if kind == "GroupNorm":
            return lambda x: functional.group_norm(
                x, module.num_groups, *self.held(index, "weight", "bias"), eps=module.eps
            )
        if kind == "Sequential":  # flatten in Keras's order
            return lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1) if x.ndim == 4 else x
        return CALLS[kind](module)

    def forward(self, x: Tensor) -> Tensor:
        """Call one behind the other."""
        for call in self.calls:
            x = call(x)
        return x


CALLS: dict[str, Callable[[Any], Call]] = {
    "ReLU": lambda m: lambda x: x.relu_() if m.inplace else torch.relu(x),
    "LeakyReLU": lambda m: lambda x: functional.leaky_relu(x, m.negative_slope, m.inplace),
    "ELU": lambda m: lambda x: functional.elu(x, alpha=m.alpha, inplace=m.inplace),
    "SiLU": lambda m: lambda x: functional.silu(x, inplace=m.inplace),
    "Hardtanh": lambda m: lambda x: functional.hardtanh(x, m.min_val, m.max_val, m.inplace),
    "GELU": lambda m: lambda x: functional.gelu(x, approximate=m.approximate),
    "Tanh": lambda _: torch.tanh,
    "Sigmoid": lambda _: lambda x: x.sigmoid(),
    "Dropout": lambda m: lambda x: functional.dropout(x, m.p, training=m.training),
    "Softmax": lambda _: lambda x: functional.softmax(x, dim=-3 if x.ndim == 4 else -1),
    "LogSoftmax": lambda _: lambda x: x.log_softmax(1),
    "Flatten": lambda _: lambda x: x.view(x.size(0), -1) if x.is_contiguous() else x.flatten(1),
    "LocalResponseNorm": lambda m: lambda x: functional.local_response_norm(x, m.size, m.alpha, m.beta, m.k),
    "MaxPool2d": lambda m: (
        lambda x: functional.max_pool2d(x, m.kernel_size, m.stride, m.padding, m.dilation, ceil_mode=m.ceil_mode)
    ),
    "AvgPool2d": lambda m: (
        lambda x: functional.avg_pool2d(
            x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
        )
    ),
    "AdaptiveAvgPool2d": lambda m: (
        lambda x: (
            x.mean((2, 3), keepdim=True) if m.output_size == 1 else functional.adaptive_avg_pool2d(x, m.output_size)
        )
    ),
}
"""A function or method for each kind of module without parameters."""

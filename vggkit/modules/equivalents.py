"""A step of a module as it runs → modules of `torch.nn` that do the same, which layers can be read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape
from vggkit.modules.trace import Given, Step

Maker = Callable[..., Sequence[nn.Module]]
"""Returns modules, given the shape of a batch of inputs and the function's arguments behind the input."""


def equivalents(step: Step) -> Sequence[nn.Module]:
    """Return the modules that do what a step does.

    Raises:
        LayerError: if there are none; says why, if there is more to say.
    """
    function, x = step.function, step.input_shape
    if step.args[:1] != (Given,) and step.kwargs.get("input") is not Given:
        raise LayerError
    if isinstance(function, nn.Module):
        return _plain(function, x)
    if function not in MAKERS:
        raise LayerError
    args, kwargs = step.args[1:], {word: value for word, value in step.kwargs.items() if word != "input"}
    try:
        with torch.device("meta"):
            modules = MAKERS[function](x, *args, **kwargs)
    except TypeError:  # arguments that the module does not take
        raise LayerError from None
    for module in modules:
        if function.__name__.endswith("_") and "inplace" in vars(module):
            vars(module)["inplace"] = True
    return modules


def _plain(module: nn.Module, x: Shape) -> Sequence[nn.Module]:
    """Return what does the same as one of torch's modules, with arguments as a layer gives them."""
    if isinstance(vars(module).get("weight"), Tensor):  # as torch.nn.utils.prune and the old weight_norm set it
        raise LayerError(COMPUTED)
    if isinstance(module, nn.Dropout):
        return [nn.Dropout(module.p)] if module.p else []  # in evaluation it returns its input, in place or not
    if isinstance(module, nn.Softmax):
        return _softmax(x, module.dim)
    if isinstance(module, nn.LogSoftmax):
        return _log_softmax(x, module.dim)
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:
        pads = _pads(module.padding, module.kernel_size, module.dilation)
        mode = module.padding_mode if any(pads) else "zeros"
        if (pads, mode) != (module.padding, module.padding_mode):
            return [_convolution(module.weight, module.bias, module.stride, pads, module.dilation, module.groups, mode)]
    return [module]


def _pads(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Return the padding of a convolution as numbers."""
    if padding == "valid":
        return (0, 0)
    if padding != "same":
        return (padding, padding) if isinstance(padding, int) else tuple(padding)
    around = [step * (size - 1) for size, step in zip(kernel, dilation)]
    if any(size % 2 for size in around):
        raise LayerError("it pads one side more than the other")
    return tuple(size // 2 for size in around)


COMPUTED = (
    "its weights are computed as it runs; torch.nn.utils.parametrize.remove_parametrizations, and prune.remove for"
    " pruned ones, make them plain"
)


def _own(module: nn.Module, **parameters: Tensor | None) -> nn.Module:
    """Give a module parameters of another one."""
    for name, parameter in parameters.items():
        if parameter is not None and not isinstance(parameter, nn.Parameter):
            raise LayerError(COMPUTED)
        module._parameters[name] = parameter
    return module


def _convolution(
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: tuple[int, ...],
    dilation: Any,
    groups: int,
    padding_mode: Any = "zeros",
) -> nn.Module:
    units, channels, *kernel = weight.shape
    with torch.device("meta"):
        made = nn.Conv2d(
            channels * groups,
            units,
            (kernel[0], kernel[1]),
            stride,
            (padding[0], padding[1]),
            dilation,
            groups,
            bias is not None,
            padding_mode,
        )
    return _own(made, weight=weight, bias=bias)


def _conv2d(
    _: Shape,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Sequence[nn.Module]:
    steps = (dilation, dilation) if isinstance(dilation, int) else tuple(dilation)
    return [_convolution(weight, bias, stride, _pads(padding, weight.shape[2:], steps), steps, groups)]


def _linear(_: Shape, weight: Tensor, bias: Tensor | None = None) -> Sequence[nn.Module]:
    return [_own(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight=weight, bias=bias)]


def _batch_norm(
    x: Shape,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Sequence[nn.Module]:
    if training and running_mean is not None:
        raise LayerError("it measures the batch in evaluation too; expected training=self.training")
    kind = nn.BatchNorm2d if len(x) == 4 else nn.BatchNorm1d
    made = kind(x[1], eps, momentum, weight is not None, running_mean is not None)
    if running_mean is not None:
        made.running_mean, made.running_var = running_mean, running_var
        made.num_batches_tracked = torch.tensor(0, device="cpu")  # a function counts none
    return [_own(made, weight=weight, bias=bias)]


def _group_norm(
    x: Shape, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Sequence[nn.Module]:
    return [_own(nn.GroupNorm(num_groups, x[1], eps, weight is not None), weight=weight, bias=bias)]


def _max_pool(
    _: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Sequence[nn.Module]:
    return [nn.MaxPool2d(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)]


def _avg_pool(_: Shape, kernel_size: Any, stride: Any = None, *args: Any, **kwargs: Any) -> Sequence[nn.Module]:
    return [nn.AvgPool2d(kernel_size, stride or None, *args, **kwargs)]


def _mean(x: Shape, dim: Any, keepdim: bool = False) -> Sequence[nn.Module]:
    """Return the average of whole maps; torch's adaptive pool to 1×1 is this mean (aten/AdaptiveAveragePooling.cpp)."""
    axes = {axis % len(x) for axis in ((dim,) if isinstance(dim, int) else dim)}
    if len(x) != 4 or axes != {2, 3}:
        raise LayerError
    return [nn.AdaptiveAvgPool2d(1), *([] if keepdim else [nn.Flatten()])]


def _dropout(x: Shape, p: float = 0.5, training: bool = True, inplace: bool = False) -> Sequence[nn.Module]:
    if training:
        raise LayerError("it drops values in evaluation too; expected training=self.training")
    return _plain(nn.Dropout(p, inplace), x)


def _over_channels(x: Shape, dim: int | None, dtype: Any) -> None:
    if dim is None:
        dim = 0 if len(x) in (0, 1, 3) else 1  # torch.nn.functional._get_softmax_dim
    if dim % len(x) != 1 or dtype is not None:
        raise LayerError


def _softmax(x: Shape, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Sequence[nn.Module]:
    _over_channels(x, dim, dtype)
    return [nn.Softmax(1)]


def _log_softmax(x: Shape, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Sequence[nn.Module]:
    _over_channels(x, dim, dtype)
    return [nn.LogSoftmax(1)]


def _same_arguments(kind: type[nn.Module]) -> Maker:
    """Return the maker for a function whose arguments behind the input are those of a module."""
    return lambda _, *args, **kwargs: [kind(*args, **kwargs)]


_BY_NAME: dict[str, Maker] = {
    "adaptive_avg_pool2d": _same_arguments(nn.AdaptiveAvgPool2d),
    "avg_pool2d": _avg_pool,
    "batch_norm": _batch_norm,
    "conv2d": _conv2d,
    "dropout": _dropout,
    "elu": _same_arguments(nn.ELU),
    "gelu": _same_arguments(nn.GELU),
    "group_norm": _group_norm,
    "hardtanh": _same_arguments(nn.Hardtanh),
    "leaky_relu": _same_arguments(nn.LeakyReLU),
    "linear": _linear,
    "local_response_norm": _same_arguments(nn.LocalResponseNorm),
    "log_softmax": _log_softmax,
    "max_pool2d": _max_pool,
    "mean": _mean,
    "relu": _same_arguments(nn.ReLU),
    "relu6": _same_arguments(nn.ReLU6),
    "sigmoid": _same_arguments(nn.Sigmoid),
    "silu": _same_arguments(nn.SiLU),
    "softmax": _softmax,
    "tanh": _same_arguments(nn.Tanh),
}

_LIKE_FUNCTIONAL = {"batch_norm", "dropout", "group_norm"}
"""Functions whose arguments in `torch` have another order than in `torch.nn.functional`."""

MAKERS: dict[Callable[..., Any], Maker] = {
    getattr(home, word): maker
    for name, maker in _BY_NAME.items()
    for home in ((functional,) if name in _LIKE_FUNCTIONAL else (functional, torch, Tensor))
    for word in (name, f"{name}_")
    if hasattr(home, word)
}
"""Functions and methods by what does the same as a module; those that end in _ work in place."""

"""A step of a module as it runs → modules of `torch.nn` that do the same, which layers can be read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn import functional

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape
from vggkit.modules.aten import READERS, Padding, Read, convolution, read, read_recorded
from vggkit.modules.trace import Given, Step

Arguments = tuple[Sequence[Any], Mapping[str, Any]]
"""Of an operation, behind its input."""


def equivalents(step: Step) -> Sequence[nn.Module] | Padding:
    """Return the modules that do what a step does; or what it adds around maps.

    Raises:
        LayerError: if there are none; says why, if there is more to say.
    """
    function, x = step.function, step.input_shape[1:]
    if step.args[:1] != (Given,) and step.kwargs.get("input") is not Given and step.kwargs.get("self") is not Given:
        raise LayerError
    if isinstance(function, nn.Module):
        return _of_module(function, x)
    args: Sequence[Any] = step.args[1:]
    kwargs: Mapping[str, Any] = {word: value for word, value in step.kwargs.items() if value is not Given}
    if isinstance(function, OpOverload) and function.namespace == "aten":
        return _modules(read_recorded(function._opname, x, args, kwargs), x)
    if function not in FUNCTIONS:
        raise LayerError
    op, arguments = FUNCTIONS[function]
    try:
        args, kwargs = arguments(*args, **kwargs)
    except TypeError:  # arguments that the function does not take
        raise LayerError from None
    return _of_operation(op, x, args, kwargs)


def _of_module(module: nn.Module, x: Shape) -> Sequence[nn.Module] | Padding:
    """Return what does the same as one of torch's modules, with arguments as a layer gives them."""
    if isinstance(vars(module).get("weight"), Tensor):  # as torch.nn.utils.prune and the old weight_norm set it
        raise LayerError(COMPUTED)
    if isinstance(module, nn.Dropout):
        return _of_operation("dropout", x, [module.p, False], {})  # in evaluation it returns its input, in place or not
    if isinstance(module, (nn.Softmax, nn.LogSoftmax)):
        op = "softmax" if isinstance(module, nn.Softmax) else "log_softmax"
        return _of_operation(op, x, *_softmax(module.dim))
    for kind, mode in PADS:
        if isinstance(module, kind):
            return _of_operation("pad", x, [module.padding, mode, getattr(module, "value", None)], {})
    if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward:
        return [module]
    said = isinstance(module.padding, tuple) and (module.padding_mode == "zeros" or any(module.padding))
    return [module] if said else [_built(_read(module), x)]


PADS: tuple[tuple[type[Any], str], ...] = (
    (nn.ConstantPad2d, "constant"),  # ZeroPad2d is one
    (nn.ReflectionPad2d, "reflect"),
    (nn.ReplicationPad2d, "replicate"),
    (nn.CircularPad2d, "circular"),
)
"""Modules that only pad, and what with."""


def _read(conv: nn.Conv2d) -> Read:
    """Return a convolution whose padding is said in numbers, and has no mode where there is none."""
    args = [conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups]
    return Padding(conv.padding_mode, (0, 0)).joined(convolution(*args))


def joined(padding: Padding, modules: Sequence[nn.Module] | Padding, x: Shape) -> Sequence[nn.Module]:
    """Return the convolution that pads its input as it was padded before.

    Args:
        padding: what was added around maps.
        modules: what comes next.
        x: the shape of one image, before it was padded.

    Raises:
        LayerError: if that is no convolution, or pads otherwise itself.
    """
    conv = modules[0] if not isinstance(modules, Padding) and len(modules) == 1 else None
    if not isinstance(conv, nn.Conv2d):
        raise LayerError("its input was padded, which is said of a convolution alone")
    return [_built(padding.joined(_read(conv)), x)]


# Operations

COMPUTED = (
    "its weights are computed as it runs; torch.nn.utils.parametrize.remove_parametrizations, and prune.remove for"
    " pruned ones, make them plain"
)


def _of_operation(op: str, x: Shape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[nn.Module] | Padding:
    """Return the modules that do what an operation of ATen does, with its tensors."""
    return _modules(read(op, x, args, kwargs), x)


def _modules(found: Sequence[Read] | Padding, x: Shape) -> Sequence[nn.Module] | Padding:
    """Return the modules of layers, with their tensors."""
    if isinstance(found, Padding):
        return found
    made = []
    for one in found:
        made.append(_built(one, x))
        x = one.layer.output_shape(x)
    return made


def _built(one: Read, x: Shape) -> nn.Module:
    """Return the module of a layer, with the tensors that its operation has."""
    with torch.device("meta"):
        made: nn.Module = one.layer.module(x, nn)
    for name in made._parameters:
        tensor = one.tensors.get(name)
        if tensor is not None and not isinstance(tensor, nn.Parameter):
            raise LayerError(COMPUTED)
        made._parameters[name] = tensor
    for name, held in made._buffers.items():
        if held is not None:
            made._buffers[name] = one.tensors.get(name, torch.tensor(0, device="cpu"))  # a function counts no batches
    return made


# Functions, whose arguments are those of the operation unless this says otherwise


def _same(*args: Any, **kwargs: Any) -> Arguments:
    return args, kwargs


def _batch_norm(
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Arguments:
    return (weight, bias, running_mean, running_var, training, *args), kwargs


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> Arguments:  # noqa: ARG001  # as in evaluation
    return (p, training), {}


def _elu(alpha: float = 1.0, inplace: bool = False) -> Arguments:
    return (alpha,), {"inplace": inplace}


def _softmax(dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Arguments:
    # without one it is over the channels of maps and of flat features (torch.nn.functional._get_softmax_dim)
    return (1 if dim is None else dim, dtype), {}


_OF_FUNCTIONAL: dict[str, Callable[..., Arguments]] = {
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "elu": _elu,
    "log_softmax": _softmax,
    "softmax": _softmax,
}
"""Functions of `torch.nn.functional` whose arguments have another order than the operation's."""

FUNCTIONS: dict[Callable[..., Any], tuple[str, Callable[..., Arguments]]] = {
    getattr(home, word): (word, _OF_FUNCTIONAL.get(word, _same) if home is functional else _same)
    for home in (torch, Tensor, functional)
    for op in READERS
    for word in (op, f"{op}_")
    if hasattr(home, word)
}
"""Functions and methods by the operation that they are; those that end in _ work in place."""

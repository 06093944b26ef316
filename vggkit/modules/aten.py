"""torch's operations by their names in ATen, with their arguments → layers.

Files name them so (torch's exported programs, TorchScript), and so do the graphs that torch exports.

Source: aten/src/ATen/native/native_functions.yaml in pytorch/pytorch, for the names, order and defaults of arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from vggkit.base.entries import entering
from vggkit.base.errors import LayerError
from vggkit.base.shapes import Pair, Shape, times
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.spelling import fields, typed


class Read(NamedTuple):
    """A layer that an operation is.

    Args:
        layer: the layer.
        tensors: what it holds, by torch's names; as the operation has them.
    """

    layer: Layer
    tensors: Mapping[str, Any] = {}


class Padding(NamedTuple):
    """What is added around maps, and belongs to the convolution that comes next.

    Args:
        mode: torch's name of what it holds, as a convolution has it.
        pads: on both sides in height and in width.
    """

    mode: str
    pads: Pair

    def joined(self, read: Read) -> Read:
        """Return the convolution that pads its input like this.

        Raises:
            LayerError: if it is none, or pads otherwise itself.
        """
        layer = read.layer
        if not isinstance(layer, notation.Conv2d):
            raise LayerError("its input was padded, which only a convolution is said to do")
        (top, left), (height, width) = self.pads, layer.pads()
        if (height, width) != (0, 0) and (self.mode, layer.padding_mode) != ("zeros", "zeros"):
            raise LayerError(f"its input was padded with {self.mode}, and it pads with {layer.padding_mode} itself")
        return Read(replace(layer, padding=(top + height, left + width), padding_mode=self.mode).plain(), read.tensors)


Reader = Callable[..., Sequence[Read] | Padding]
"""Returns layers, given the shape of one input and the arguments behind the input."""

READERS: dict[str, Reader] = {}
"""What reads each operation."""

reads = entering(READERS)
"""Has a function read operations, by their names."""


def read(op: str, x: Shape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Read] | Padding:
    """Return the layers that an operation is, none if it returns its input, or the padding that it adds.

    Args:
        op: its name, such as `conv2d`; one that ends in _ works in place.
        x: the shape of its input, for one image.
        args: its arguments behind the input.
        kwargs: the same by their names. A tensor is anything that has a `shape`.

    Raises:
        LayerError: if no layer does what it does; says why, if there is more to say.
    """
    reader = READERS.get(op) or READERS.get(op.removesuffix("_"))
    if reader is None:
        raise LayerError
    try:
        found = reader(x, *args, **kwargs)
    except (TypeError, AttributeError):  # arguments that it does not take, or that are none
        raise LayerError from None
    if op.endswith("_") and not isinstance(found, Padding):
        return [_in_place(one) for one in found]
    return found


def read_recorded(op: str, x: Shape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Read] | Padding:
    """Return what `read` does, of an operation that torch recorded as a model ran.

    Where a batch normalisation's momentum is None, torch records 0 (torch/nn/modules/batchnorm.py, forward).
    """
    found = read(op, x, args, kwargs)
    return found if isinstance(found, Padding) else [_with_recorded_momentum(one) for one in found]


def _with_recorded_momentum(one: Read) -> Read:
    layer = one.layer
    if isinstance(layer, notation.BatchNorm) and layer.momentum == 0:
        return one._replace(layer=replace(layer, momentum=None))
    return one


def _in_place(one: Read) -> Read:
    has_choice = "inplace" in one.layer.__struct_fields__
    return one._replace(layer=replace(one.layer, inplace=True)) if has_choice else one


def _layer(kind: type[Layer], **values: Any) -> Layer:
    """Return a layer whose options were checked.

    Raises:
        LayerError: says which option has a value that it can't have.
    """
    checked = {}
    for field in fields(kind).values():
        if field.name in values:
            value = values[field.name]
            try:
                checked[field.name] = typed(list(value) if isinstance(value, tuple) else value, field.type)
            except ValueError as error:
                raise LayerError(f"{field.name}: {error}") from None
    return kind(**checked)


def _sizes(value: Any) -> Any:
    """Return one size for height and width, or both."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


# Windows


def convolution(
    weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1
) -> Read:
    """Return the convolution that has these arguments, behind its input."""
    if len(weight.shape) != 4:
        raise LayerError(f"expected weights in height and width, found {times(tuple(weight.shape))}")
    units, _, height, width = weight.shape
    layer = _layer(
        notation.Conv2d,
        out_channels=units,
        kernel_size=(height, width),
        stride=_sizes(stride),
        padding=(0, 0) if padding == "valid" else _sizes(padding),
        dilation=_sizes(dilation),
        groups=groups,
        bias=bias is not None,
    )
    assert isinstance(layer, notation.Conv2d)  # as asked for
    if padding == "same" and any(step * (size - 1) % 2 for size, step in zip(layer.kernel_size, layer.dilation)):
        raise LayerError("it pads one side more than the other")
    return Read(layer.plain(), {"weight": weight} if bias is None else {"weight": weight, "bias": bias})


@reads("conv2d", "_convolution_mode")
def _(_: Shape, *args: Any, **kwargs: Any) -> Sequence[Read]:
    return [convolution(*args, **kwargs)]


@reads("_convolution", "convolution")
def _(
    _: Shape,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,  # noqa: ARG001  # of transposed ones
    groups: Any,
    *how: Any,  # noqa: ARG001  # it is computed
) -> Sequence[Read]:
    if transposed:
        raise LayerError("it is a transposed convolution")
    return [convolution(weight, bias, stride, padding, dilation, groups)]


PAD_MODES = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
"""How a convolution calls what `pad` pads with."""


@reads("pad")
def _(x: Shape, pad: Any, mode: str = "constant", value: Any = None) -> Sequence[Read] | Padding:
    sides = [*pad, *[0] * (4 - len(pad))]
    if len(x) != 3 or not all(type(side) is int and side >= 0 for side in sides) or any(sides[4:]):
        raise LayerError("expected a padding of maps in height and width")
    left, right, top, bottom = sides[:4]
    if (left, top) != (right, bottom):
        raise LayerError("it pads one side more than the other")
    if not any(sides):
        return []
    if mode not in PAD_MODES or (mode == "constant" and value not in (None, 0)):
        raise LayerError(f"it pads with {mode if value is None else value}, which no convolution does")
    return Padding(PAD_MODES[mode], (top, left))


@reads("constant_pad_nd")
def _(x: Shape, pad: Any, value: Any = 0) -> Sequence[Read] | Padding:
    return READERS["pad"](x, pad, "constant", value)


@reads("reflection_pad2d")
def _(x: Shape, padding: Any) -> Sequence[Read] | Padding:
    return READERS["pad"](x, padding, "reflect")


@reads("replication_pad2d")
def _(x: Shape, padding: Any) -> Sequence[Read] | Padding:
    return READERS["pad"](x, padding, "replicate")


@reads("max_pool2d")
def _(
    _: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: Any = False,
    return_indices: bool = False,
) -> Sequence[Read]:
    if return_indices:
        raise LayerError("it returns the places of the largest values, too")
    layer = _layer(
        notation.MaxPool2d,
        kernel_size=_sizes(kernel_size),
        stride=_sizes(stride or kernel_size),
        padding=_sizes(padding),
        dilation=_sizes(dilation),
        ceil_mode=ceil_mode,
    )
    return [Read(layer)]


@reads("avg_pool2d")
def _(
    _: Shape,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: Any = False,
    count_include_pad: Any = True,
    divisor_override: Any = None,
) -> Sequence[Read]:
    layer = _layer(
        notation.AvgPool2d,
        kernel_size=_sizes(kernel_size),
        stride=_sizes(stride or kernel_size),
        padding=_sizes(padding),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
    )
    return [Read(layer)]


@reads("adaptive_avg_pool2d")
def _(x: Shape, output_size: Any) -> Sequence[Read]:
    found = _sizes(output_size)
    if isinstance(found, (list, tuple)):  # None keeps a size
        found = [size if one is None else one for one, size in zip(found, x[1:])]
    if found in (1, [1, 1]):
        return [Read(notation.GlobalAvgPool2d())]
    return [Read(_layer(notation.AdaptiveAvgPool2d, output_size=found))]


@reads("mean")
def _(x: Shape, dim: Any, keepdim: bool = False, dtype: Any = None) -> Sequence[Read]:
    """Return the average of whole maps; torch's adaptive pool to 1×1 is this mean (aten/AdaptiveAveragePooling.cpp)."""
    rank = len(x) + 1
    axes = {axis % rank for axis in ((dim,) if isinstance(dim, int) else dim)}
    if len(x) != 3 or axes != {2, 3} or dtype is not None:
        raise LayerError
    return [Read(notation.GlobalAvgPool2d()), *([] if keepdim else [Read(notation.Flatten())])]


# Weights, norms


@reads("linear")
def _(_: Shape, weight: Any, bias: Any = None) -> Sequence[Read]:
    if len(weight.shape) != 2:
        raise LayerError(f"expected units × features as weights, found {times(tuple(weight.shape))}")
    layer = _layer(notation.Linear, out_features=weight.shape[0], bias=bias is not None)
    return [Read(layer, {"weight": weight} if bias is None else {"weight": weight, "bias": bias})]


def _affine(weight: Any, bias: Any) -> dict[str, Any]:
    """Return the scale and the shift of a norm, if it has them."""
    if (weight is None) != (bias is None):
        raise LayerError("expected a scale and a shift of each channel, or neither")
    return {} if weight is None else {"weight": weight, "bias": bias}


@reads("batch_norm")
def _(
    _: Shape,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001  # how it is computed
) -> Sequence[Read]:
    if training and running_mean is not None:
        raise LayerError("it measures the batch in evaluation too; expected training=self.training")
    tensors = _affine(weight, bias)
    layer = _layer(
        notation.BatchNorm,
        eps=eps,
        momentum=momentum,
        affine=bool(tensors),
        track_running_stats=running_mean is not None,
    )
    if running_mean is not None:
        tensors |= {"running_mean": running_mean, "running_var": running_var}
    return [Read(layer, tensors)]


@reads("group_norm")
def _(
    _: Shape,
    num_groups: Any,
    weight: Any = None,
    bias: Any = None,
    eps: Any = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001  # how it is computed
) -> Sequence[Read]:
    tensors = _affine(weight, bias)
    return [Read(_layer(notation.GroupNorm, num_groups=num_groups, eps=eps, affine=bool(tensors)), tensors)]


@reads("local_response_norm")  # of torch.nn.functional; ATen has none
def _(_: Shape, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> Sequence[Read]:
    return [Read(_layer(notation.LocalResponseNorm, size=size, alpha=alpha, beta=beta, k=k))]


# What each value has for itself


@reads("relu")
def _(_: Shape, inplace: Any = False) -> Sequence[Read]:
    return [Read(_layer(notation.ReLU, inplace=inplace))]


@reads("silu")
def _(_: Shape, inplace: Any = False) -> Sequence[Read]:
    return [Read(_layer(notation.SiLU, inplace=inplace))]


@reads("leaky_relu")
def _(_: Shape, negative_slope: Any = 0.01, inplace: Any = False) -> Sequence[Read]:
    return [Read(_layer(notation.LeakyReLU, negative_slope=negative_slope, inplace=inplace))]


@reads("elu")
def _(_: Shape, alpha: Any = 1.0, scale: Any = 1, input_scale: Any = 1, inplace: Any = False) -> Sequence[Read]:
    if (scale, input_scale) != (1, 1):
        raise LayerError("expected scales of 1")
    return [Read(_layer(notation.ELU, alpha=alpha, inplace=inplace))]


@reads("hardtanh")
def _(_: Shape, min_val: Any = -1.0, max_val: Any = 1.0, inplace: Any = False) -> Sequence[Read]:
    return [Read(_layer(notation.Hardtanh, min_val=min_val, max_val=max_val, inplace=inplace))]


@reads("relu6")
def _(x: Shape, inplace: Any = False) -> Sequence[Read] | Padding:
    return READERS["hardtanh"](x, 0.0, 6.0, inplace)


@reads("gelu")
def _(_: Shape, approximate: Any = "none") -> Sequence[Read]:
    return [Read(_layer(notation.GELU, approximate=approximate))]


@reads("sigmoid")
def _(_: Shape) -> Sequence[Read]:
    return [Read(notation.Sigmoid())]


@reads("tanh")
def _(_: Shape) -> Sequence[Read]:
    return [Read(notation.Tanh())]


@reads("dropout")
def _(_: Shape, p: Any, train: bool) -> Sequence[Read]:
    if train:
        raise LayerError("it drops values in evaluation too; expected training=self.training")
    return [Read(_layer(notation.Dropout, p=p))] if p else []


def _over_channels(x: Shape, dim: Any, dtype: Any) -> None:
    if dim % (len(x) + 1) != 1 or dtype is not None:
        raise LayerError("expected it over the channels")


@reads("softmax")
def _(x: Shape, dim: Any, dtype: Any = None) -> Sequence[Read]:
    _over_channels(x, dim, dtype)
    return [Read(notation.Softmax())]


@reads("log_softmax")
def _(x: Shape, dim: Any, dtype: Any = None) -> Sequence[Read]:
    _over_channels(x, dim, dtype)
    return [Read(notation.LogSoftmax())]

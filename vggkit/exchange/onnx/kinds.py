"""ONNX's operations, one by one: what layer each is.

Source: docs/Operators.md and docs/Changelog.md in onnx/onnx, from opset 1 on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Pair, Shape, times
from vggkit.exchange.onnx.constants import axes_of
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.schema import DTYPES
from vggkit.exchange.onnx.walk import Padding, Walk
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.layers.windows import SteppingPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

Reader = Callable[[Node, Walk], None]

READERS: dict[str, Reader] = {}
"""What reads each operation."""


def reads(*ops: str) -> Callable[[Reader], Reader]:
    """Have a function read operations."""

    def add(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(ops, reader))
        return reader

    return add


def read(node: Node, walk: Walk) -> None:
    """Read an operation on the current value alone.

    Raises:
        LayerError: if no layer does what it does.
    """
    reader = READERS.get(node.op)
    if reader is None:
        raise LayerError(f"no layer of a configuration does that for an input of {times(walk.chain.shape)}")
    if node.inputs[0] != walk.current and node.op not in EITHER:
        raise LayerError("it takes its input as something else than values; a network here is a chain")
    reader(node, walk)


EITHER = ("Add", "Mul", "MatMul")
"""What may take the value as either of its inputs."""


# Windows


def _window(node: Node, walk: Walk, kernel: Sequence[int]) -> tuple[Pair, Pair, Pair, tuple[int, int, int, int]]:
    """Return kernel, stride, dilation and the padding of a window: before in height and width, then behind."""
    sizes = [
        node.integers("kernel_shape", kernel),
        node.integers("strides", (1, 1)),
        node.integers("dilations", (1, 1)),
    ]
    if any(len(size) != 2 or min(size) < 1 or max(size) > 2**31 for size in sizes):
        raise LayerError(f"expected a kernel, strides and dilations in height and width, found {shorten(sizes)}")
    (kh, kw), (sh, sw), (dh, dw) = sizes
    pads = node.integers("pads", (0, 0, 0, 0))
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        x = walk.maps()
        room = [
            max((-(-size // step) - 1) * step + (k - 1) * d + 1 - size, 0)
            for size, step, k, d in zip(x[1:], (sh, sw), (kh, kw), (dh, dw))
        ]
        less, more = [one // 2 for one in room], [one - one // 2 for one in room]
        pads = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
    elif auto == "VALID":
        pads = (0, 0, 0, 0)
    if len(pads) != 4 or not all(0 <= pad <= 2**31 for pad in pads):
        raise LayerError(f"pads: expected four sizes from 0, found {shorten(pads)}")
    return (kh, kw), (sh, sw), (dh, dw), (pads[0], pads[1], pads[2], pads[3])


def _even(pads: tuple[int, int, int, int]) -> Pair:
    """Return height and width of a padding that is the same on both sides."""
    if pads[:2] != pads[2:]:
        raise LayerError(f"pads: expected the same on both sides, found {', '.join(map(str, pads))}")
    return pads[0], pads[1]


@reads("Conv")
def _(node: Node, walk: Walk) -> None:
    x = walk.maps()
    padding = walk.take_padding()
    shape = walk.tensor(node.inputs[1]).shape
    if len(shape) != 4:
        raise LayerError(f"expected weights in height and width, found {times(shape)}")
    kernel, stride, dilation, pads = _window(node, walk, shape[2:])
    mode, pad = _joined_padding(padding, _even(pads))
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2])
    layer = notation.Conv2d(
        shape[0],
        kernel_size=kernel,
        stride=stride,
        padding=pad,
        dilation=dilation,
        groups=node.integer("group", 1),
        bias=has_bias,
        padding_mode=mode,  # type: ignore[arg-type] # one of its words
    )
    if layer.groups < 1:
        raise LayerError(f"group: expected a whole number from 1, found {layer.groups}")
    same = replace(layer, padding="same")
    if all(size % 2 for size in kernel) and same.pads() == pad:
        layer = same
    if shape != (wanted := layer.parameters(x)["weight"]):
        raise LayerError(f"expected weights of {times(wanted)}, found {times(shape)}")
    bias = {"bias": (node.inputs[2], shape[:1])} if has_bias else {}
    walk.layer(node, layer, walk.held(weight=(node.inputs[1], shape), **bias))


MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
"""torch's words for ONNX's, but for constants."""


def _joined_padding(padding: Padding | None, pads: Pair) -> tuple[str, Pair]:
    """Return what a convolution pads with, and how much, given what was padded before it."""
    if padding is None:
        return "zeros", pads
    if padding.mode == "constant" and padding.value == 0:
        before = _even(padding.pads)
        return "zeros", (before[0] + pads[0], before[1] + pads[1])
    if padding.mode in MODES and pads == (0, 0):
        return MODES[padding.mode], _even(padding.pads)
    raise LayerError(f"no layer of a configuration pads with {padding.mode} {padding.value:g} before it")


@reads("MaxPool")
def _(node: Node, walk: Walk) -> None:
    x = walk.maps()
    padding = walk.take_padding()
    kernel, stride, dilation, pads = _window(node, walk, ())
    ceil = bool(node.integer("ceil_mode", 0))
    if padding is not None:
        if padding.value != -inf or any(pads):
            raise LayerError(f"no layer of a configuration pads with {padding.value:g} before it")
        pads = padding.pads
    layer = notation.MaxPool2d(kernel, stride=stride, padding=pads[:2], dilation=dilation, ceil_mode=ceil)
    walk.layer(node, _rounded(layer, pads, x))


@reads("AveragePool")
def _(node: Node, walk: Walk) -> None:
    x = walk.maps()
    padding = walk.take_padding()
    kernel, stride, dilation, pads = _window(node, walk, ())
    if dilation != (1, 1):
        raise LayerError("no average pool of a configuration has dilations")
    counted, divisor = bool(node.integer("count_include_pad", 0)), None
    if padding is not None:
        if padding.mode != "constant" or padding.value != 0 or any(pads[:2]):
            raise LayerError("no average pool of a configuration has such a padding before it")
        counted = True
        if padding.pads[:2] != padding.pads[2:] and not any(pads):
            pads, divisor = padding.pads, prod(kernel)  # what a last window needs beyond the padding counts, too
        else:
            before = _even(padding.pads)
            pads = (*before, before[0] + pads[2], before[1] + pads[3])
    layer = notation.AvgPool2d(
        kernel,
        stride=stride,
        padding=pads[:2],
        ceil_mode=bool(node.integer("ceil_mode", 0)),
        count_include_pad=counted or not any(pads[:2]),
        divisor_override=divisor,
    )
    if counted and padding is None and pads[:2] != pads[2:]:
        raise LayerError(f"pads: expected the same on both sides, found {', '.join(map(str, pads))}")
    walk.layer(node, _rounded(layer, pads, x))


def _rounded(layer: SteppingPool, pads: tuple[int, ...], x: Shape) -> Layer:
    """Return a pool that rounds up, if that is what a longer padding behind the maps means."""
    before, behind = pads[:2], pads[2:]
    if before == behind:
        return layer
    up: Any = replace(layer, ceil_mode=True)
    ends = tuple(
        max(axis.padding, (axis.number - 1) * axis.stride + axis.extent - axis.size - axis.padding)
        for axis in up.places(x)
    )
    if ends != behind:
        raise LayerError(f"pads: expected the same on both sides, found {', '.join(map(str, pads))}")
    return up  # type: ignore[no-any-return] # as `layer`


@reads("GlobalAveragePool")
def _(node: Node, walk: Walk) -> None:
    walk.maps()
    walk.layer(node, notation.GlobalAvgPool2d())


@reads("GlobalMaxPool")
def _(node: Node, walk: Walk) -> None:
    _, height, width = walk.maps()
    walk.layer(node, notation.MaxPool2d((height, width), stride=(1, 1)))


@reads("ReduceMean")
def _(node: Node, walk: Walk) -> None:
    axes = axes_of(node, walk.constants)
    rank = len(walk.shape)
    if walk.axes is None or rank != 4 or axes is None:
        raise LayerError(f"it averages {times(walk.shape[1:])}; expected maps, in height and width")
    walk.finish()
    places = {axis % rank for axis in axes}
    if {walk.axes[place] for place in places} != {2, 3}:
        raise LayerError("expected an average over height and width")
    first = walk.axes
    walk.chain.add(node.name, notation.GlobalAvgPool2d())
    channels = walk.chain.shape[0]
    kept = bool(node.integer("keepdims", 1))
    moves, walk.moves, walk.is_turned = walk.moves, [], False
    walk.shape = (walk.batch, channels, 1, 1)
    if kept and moves:
        walk.move(lambda array: array.transpose(first), tuple(walk.shape[a] for a in first), node.told, axes=first)
    elif not kept:
        walk.move(lambda array: array.reshape(array.shape[0], -1), (walk.batch, channels), node.told)
    else:
        walk.axes = (0, 1, 2, 3)


@reads("Pad")
def _(node: Node, walk: Walk) -> None:
    mode = node.text("mode", "constant")
    pads = node.integers("pads", ()) or walk.constants.numbers(node.inputs[1])
    value = node.number("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2]:
        value = walk.constants.number(node.inputs[2])
    if len(node.inputs) > 3 and node.inputs[3]:
        raise LayerError("expected pads for all axes")
    walk.maps()
    if len(pads) != 8 or any((pads[0], pads[1], pads[4], pads[5])) or min(pads) < 0:
        raise LayerError(f"expected pads in height and width, found {shorten(pads)}")
    walk.finish()
    if any(pads):
        walk.padding = Padding(mode, (pads[2], pads[3], pads[6], pads[7]), value)


# Layers with weights


@reads("Gemm")
def _(node: Node, walk: Walk) -> None:
    node.check(alpha=1.0, transA=0)
    inputs = walk.flat()
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2])
    if has_bias:
        node.check(beta=1.0)
    _linear(node, walk, inputs, turned=not node.integer("transB", 0), bias=node.inputs[2] if has_bias else None)


@reads("MatMul")
def _(node: Node, walk: Walk) -> None:
    first, second = node.inputs
    if second == walk.current:
        walk.average_height(first)
    elif walk.rows is not None:
        walk.average_width(node, second)
    else:
        _linear(node, walk, walk.flat(), turned=True, bias=None)


def _linear(node: Node, walk: Walk, inputs: int, *, turned: bool, bias: str | None) -> None:
    values = walk.tensor(node.inputs[1])
    values = values.turned() if turned else values
    if len(values.shape) != 2 or values.shape[1] != inputs:
        raise LayerError(f"expected weights for {inputs} inputs, found {times(values.shape)}")
    units = values.shape[0]
    held = {"weight": values} | ({} if bias is None else walk.held(bias=(bias, (units,))))
    walk.layer(node, notation.Linear(units, bias=bias is not None), held)


@reads("Add")
def _(node: Node, walk: Walk) -> None:
    walk.add_shift(node, next(name for name in node.inputs if name != walk.current))


@reads("Mul")
def _(node: Node, walk: Walk) -> None:
    factor = next(name for name in node.inputs if name != walk.current)
    if not walk.divide(factor):
        walk.multiply(node, factor)


@reads("Sub")
def _(node: Node, walk: Walk) -> None:
    walk.subtract(node, node.inputs[1])


# Normalisations


def _maps_or_flat(walk: Walk) -> Shape:
    walk.settle()
    return walk.chain.shape


@reads("BatchNormalization")
def _(node: Node, walk: Walk) -> None:
    node.check(training_mode=0, spatial=1)
    channels = _maps_or_flat(walk)[:1]
    names = zip(("weight", "bias", "running_mean", "running_var"), node.inputs[1:5])
    values = walk.held(**{role: (name, channels) for role, name in names})
    walk.layer(node, notation.BatchNorm(eps=node.number("epsilon", 1e-5)), values)


@reads("InstanceNormalization")
def _(node: Node, walk: Walk) -> None:
    x = walk.chain.shape
    groups = walk.shape[1]
    if walk.is_turned or len(walk.shape) < 3 or walk.shape[0] != walk.batch or x[0] % groups:
        raise LayerError(f"it normalises {times(walk.shape[1:])}; expected groups of channels")
    weight, bias = (walk.constants.small(name) for name in node.inputs[1:3])
    eps = node.number("epsilon", 1e-5)
    if weight is None or bias is None:
        raise LayerError("expected a scale and a shift that are known")
    if (weight == 1).all() and (bias == 0).all():
        walk.pointwise(node, notation.GroupNorm(groups, eps=eps, affine=False))
    elif groups == x[0]:
        layer = notation.GroupNorm(groups, eps=eps)
        walk.layer(node, layer, walk.held(weight=(node.inputs[1], x[:1]), bias=(node.inputs[2], x[:1])))
    else:
        raise LayerError("expected a scale and a shift of each channel")


@reads("GroupNormalization")
def _(node: Node, walk: Walk) -> None:
    if walk.opset < 21:
        raise LayerError("before opset 21 it has a scale of each group; expected one of each channel")
    channels = _maps_or_flat(walk)[:1]
    layer = notation.GroupNorm(node.integer("num_groups", 0), eps=node.number("epsilon", 1e-5))
    if layer.num_groups == 0:
        raise LayerError("expected num_groups")
    walk.layer(node, layer, walk.held(weight=(node.inputs[1], channels), bias=(node.inputs[2], channels)))


@reads("LRN")
def _(node: Node, walk: Walk) -> None:
    walk.maps()
    size = node.integer("size", 0)
    if size < 1 or size % 2 == 0:
        raise LayerError(f"size: expected an odd number, found {size}")
    layer = notation.LocalResponseNorm(
        size, alpha=node.number("alpha", 1e-4), beta=node.number("beta", 0.75), k=node.number("bias", 1.0)
    )
    walk.layer(node, layer)


# What each value has for itself

POINTWISE: dict[str, Callable[[Node], Layer]] = {
    "Relu": lambda _: notation.ReLU(),
    "Sigmoid": lambda _: notation.Sigmoid(),
    "Tanh": lambda _: notation.Tanh(),
    "LeakyRelu": lambda node: notation.LeakyReLU(negative_slope=node.number("alpha", 0.01)),
    "Elu": lambda node: notation.ELU(alpha=node.number("alpha", 1.0)),
    "Gelu": lambda node: notation.GELU(node.text("approximate", "none")),  # type: ignore[arg-type] # checked below
}
"""Activations, by the operation."""


@reads(*POINTWISE)
def _(node: Node, walk: Walk) -> None:
    if node.op == "Gelu" and node.text("approximate", "none") not in ("none", "tanh"):
        raise LayerError(f"approximate: expected none or tanh, found {shorten(node.text('approximate', ''))}")
    walk.pointwise(node, POINTWISE[node.op](node))


@reads("Swish")
def _(node: Node, walk: Walk) -> None:
    node.check(alpha=1.0)
    walk.pointwise(node, notation.SiLU())


@reads("Clip")
def _(node: Node, walk: Walk) -> None:
    bounds = [node.number("min", -inf), node.number("max", inf)]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            bounds[place] = walk.constants.number(name)
    low, high = bounds
    if (low, high) == (0, inf):
        walk.pointwise(node, notation.ReLU())
        return
    if -inf in bounds or inf in bounds:
        raise LayerError(f"expected two bounds, found {low:g} and {high:g}")
    walk.pointwise(node, notation.Hardtanh(min_val=low, max_val=high))


@reads("Dropout")
def _(node: Node, walk: Walk) -> None:
    rate = node.number("ratio", 0.5)
    if len(node.inputs) > 1 and node.inputs[1]:
        rate = walk.constants.number(node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2] and walk.constants.number(node.inputs[2]):
        raise LayerError("it drops values when it runs; expected training_mode false")
    if not 0 <= rate < 1:
        raise LayerError(f"ratio: expected a number from 0 to below 1, found {rate:g}")
    walk.pointwise(node, notation.Dropout(rate))


@reads("Identity")
def _(*_: object) -> None:
    """Nothing is done."""


@reads("Cast")
def _(node: Node, _: Walk) -> None:
    found = DTYPES.get(node.integer("to", 0), "")
    if found != "float32":
        raise LayerError(f"it changes values to {found or 'an unknown type'}; expected float32")


@reads("Softmax", "LogSoftmax")
def _(node: Node, walk: Walk) -> None:
    layer = notation.Softmax() if node.op == "Softmax" else notation.LogSoftmax()
    rank = len(walk.shape)
    axis = node.integer("axis", -1 if walk.opset >= 13 else 1) % rank
    if walk.opset < 13 and rank != 2 and prod(walk.shape[axis + 1 :]) != 1:
        raise LayerError("before opset 13 it is over all values; expected one over the channels")
    if rank == 4 and walk.axes is not None:
        if walk.axes[axis] != 1:
            raise LayerError("expected it over the channels")
        walk.pointwise(node, layer)
        return
    walk.settle()
    if axis != 1:
        raise LayerError("expected it over the channels")
    walk.layer(node, layer)


# Moves


@reads("Flatten")
def _(node: Node, walk: Walk) -> None:
    if node.integer("axis", 1) % len(walk.shape) != 1:
        raise LayerError(f"axis: expected 1, found {node.integer('axis', 1)}")
    size = prod(walk.shape[1:])
    walk.move(lambda array: array.reshape(array.shape[0], -1), (walk.batch, size), node.told)


@reads("Reshape")
def _(node: Node, walk: Walk) -> None:
    sizes = list(node.integers("shape", ()) if "shape" in node.attributes else walk.constants.numbers(node.inputs[1]))
    if not node.integer("allowzero", 0):
        sizes = [
            walk.shape[place] if size == 0 and place < len(walk.shape) else size for place, size in enumerate(sizes)
        ]
    whole = prod(walk.shape)
    known = prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1 or not known or whole % known or len(sizes) > 8:
        raise LayerError(f"it can't make {shorten(sizes)} of {times(walk.shape)}")
    shape = tuple(whole // known if size == -1 else size for size in sizes)
    if prod(shape) != whole:
        raise LayerError(f"it can't make {times(shape)} of {times(walk.shape)}")
    _reshape(node, walk, shape)


def _reshape(node: Node, walk: Walk, shape: Shape) -> None:
    axes = walk.axes if shape == walk.shape else None
    walk.move(lambda array: array.reshape(shape), shape, node.told, axes=axes)


@reads("Squeeze")
def _(node: Node, walk: Walk) -> None:
    rank = len(walk.shape)
    axes = axes_of(node, walk.constants)
    gone = {axis % rank for axis in axes} if axes else {p for p, size in enumerate(walk.shape) if size == 1 and p}
    if any(walk.shape[place] != 1 for place in gone):
        raise LayerError(f"it can't drop axes of {times(walk.shape)}")
    _reshape(node, walk, tuple(size for place, size in enumerate(walk.shape) if place not in gone))


@reads("Unsqueeze")
def _(node: Node, walk: Walk) -> None:
    axes = axes_of(node, walk.constants) or ()
    rank = len(walk.shape) + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) != len(axes) or rank > 8:
        raise LayerError("expected different axes")
    old = iter(walk.shape)
    _reshape(node, walk, tuple(1 if place in new else next(old) for place in range(rank)))


@reads("Transpose")
def _(node: Node, walk: Walk) -> None:
    rank = len(walk.shape)
    order = node.integers("perm", range(rank)[::-1])
    if sorted(order) != list(range(rank)):
        raise LayerError(f"perm: expected an order of {rank} axes, found {shorten(order)}")
    axes = None if walk.axes is None else tuple(walk.axes[place] for place in order)

    def move(array: NDArray[Any]) -> NDArray[Any]:
        return array.transpose(order)

    walk.move(move, tuple(walk.shape[place] for place in order), node.told, axes=axes, turns=True)

"""ONNX's operations on windows: convolutions and pools, with the padding before them.

Source: docs/Operators.md and docs/Changelog.md in onnx/onnx, from opset 1 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

from msgspec.structs import replace

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Pair, Shape, times
from vggkit.exchange.layers import largest
from vggkit.exchange.onnx.constants import axes_of
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.readers import reads
from vggkit.exchange.onnx.walk import Padding, Walk
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.layers.windows import SteppingPool


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
    layer = layer.plain()
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
        if any(pads) or not _changes_no_maximum(padding, walk, dilation):
            raise LayerError(f"no layer of a configuration pads with {padding.mode} {padding.value:g} before it")
        pads = padding.pads
    layer = notation.MaxPool2d(kernel, stride=stride, padding=pads[:2], dilation=dilation, ceil_mode=ceil)
    walk.layer(node, _rounded(layer, pads, x))


def _changes_no_maximum(padding: Padding, walk: Walk, dilation: Pair) -> bool:
    """Tell whether a padding is as one with nothing: a window that reaches into it has larger values, or the same."""
    if padding.mode == "edge":
        return dilation == (1, 1)
    return padding.mode == "constant" and (padding.value == -inf or (padding.value == 0 and walk.is_above_zero()))


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
    walk.layer(node, largest(walk.maps()))


@reads("ReduceMean", "ReduceMax")
def _(node: Node, walk: Walk) -> None:
    axes = axes_of(node, walk.constants)
    rank = len(walk.shape)
    if walk.axes is None or rank != 4 or axes is None:
        raise LayerError(f"its input is {times(walk.shape[1:])}; expected maps, in height and width")
    walk.finish()
    places = {axis % rank for axis in axes}
    if {walk.axes[place] for place in places} != {2, 3}:
        raise LayerError("expected it over height and width")
    first = walk.axes
    whole = notation.GlobalAvgPool2d() if node.op == "ReduceMean" else largest(walk.chain.maps())
    walk.chain.add(node.name, whole)
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
    walk.finish()
    axes = walk.axes or (0, 1, 2, 3)
    if walk.axes is None:
        walk.maps()
    if len(pads) != 8 or min(pads) < 0:
        raise LayerError(f"expected pads in height and width, found {shorten(pads)}")
    before, behind = dict(zip(axes, pads[:4])), dict(zip(axes, pads[4:]))
    if before[0] or before[1] or behind[0] or behind[1]:
        raise LayerError(f"expected pads in height and width, found {shorten(pads)}")
    if any(pads):
        walk.padding = Padding(mode, (before[2], before[3], behind[2], behind[3]), value)

"""Caffe's layers that look at windows."""

from __future__ import annotations

from msgspec.structs import replace

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Pair, Shape, times
from vggkit.exchange.caffe.rules import CaffeKind, Said, Sought, Weighted, count_of
from vggkit.exchange.layers import largest, with_windows
from vggkit.exchange.messages import Message
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.layers.windows import Places, SteppingPool


def _pair(options: Message, word: str, short: str, default: int | None) -> Pair:
    """Return height and width of something that may be given once, for both, or under two names."""
    both, given = options.all(word), [options.get(f"{short}_{axis}") for axis in "hw"]
    if any(value is not None for value in given):
        if both or (None in given and default is None):
            raise LayerError(f"expected {word}, or {short}_h and {short}_w")
        height, width = (default if value is None else value for value in given)
    elif len(both) > 2 or (not both and default is None):
        raise LayerError(f"expected {word} once or twice, found {len(both)} times")
    else:
        height, width = both[0] if both else default, both[-1] if both else default
    if not all(isinstance(value, int) and 0 <= value <= 10**9 for value in (height, width)):
        raise LayerError(f"{word}: expected a whole number from 0, found {shorten((height, width))}")
    return int(height or 0), int(width or 0)


def _written_pair(word: str, short: str, value: Pair, default: int | None) -> dict[str, int]:
    if value == (default, default):
        return {}
    return {word: value[0]} if value[0] == value[1] else {f"{short}_h": value[0], f"{short}_w": value[1]}


class Convolution(Weighted):
    """Convolution."""

    word = "Convolution"
    options = "convolution_param"
    takes = (notation.Conv2d,)

    def read(self, sought: Sought) -> Layer:
        options = sought.options
        if options.get("axis", 1) != 1:
            raise LayerError(f"its channels are axis {options.get('axis')}; expected axis 1")
        kernel, padding = _pair(options, "kernel_size", "kernel", None), _pair(options, "pad", "pad", 0)
        dilation = options.all("dilation") or [1]
        layer = notation.Conv2d(
            count_of(options, "num_output"),
            kernel_size=kernel,
            stride=_pair(options, "stride", "stride", 1),
            padding=padding,
            dilation=(dilation[0], dilation[-1]),
            groups=options.get("group", 1),
            bias=options.get("bias_term", True),
        )
        if min(*layer.kernel_size, *layer.stride, *layer.dilation, layer.groups) < 1:
            raise LayerError("expected a kernel, stride, dilation and group of at least 1")
        return layer.plain()

    def write(self, layer: notation.Conv2d, x: Shape) -> list[Said]:
        pads = layer.pads()
        if layer.padding_mode != "zeros" and any(pads):
            raise LayerError(f"Caffe pads with zeros only, not with padding_mode {layer.padding_mode}")
        dilation = [*layer.dilation] if layer.dilation[0] != layer.dilation[1] else [layer.dilation[0]]
        options = {
            "num_output": layer.out_channels,
            **_written_pair("pad", "pad", pads, 0),
            **_written_pair("kernel_size", "kernel", layer.kernel_size, None),
            **_written_pair("stride", "stride", layer.stride, 1),
            **({"dilation": dilation} if layer.dilation != (1, 1) else {}),
            **({"group": layer.groups} if layer.groups > 1 else {}),
        }
        return self.said(options, bias=layer.bias)


class Pooling(CaffeKind):
    """Pooling, whose output's size is rounded up unless round_mode says otherwise (pooling_layer.cpp)."""

    word = "Pooling"
    options = "pooling_param"
    takes = (notation.MaxPool2d, notation.AvgPool2d, notation.AdaptiveAvgPool2d, notation.GlobalAvgPool2d)

    def read(self, sought: Sought) -> Layer:
        options, x = sought.options, sought.input_shape
        method = options.get("pool", "MAX")
        if method not in ("MAX", "AVE"):
            raise LayerError(f"it pools with {shorten(method)}; expected MAX or AVE")
        if len(x) != 3:
            raise LayerError(f"its input is flat ({x[0]} features)")
        if options.get("global_pooling", False):
            if method == "AVE":
                return notation.GlobalAvgPool2d()
            return largest(x)
        kernel, stride = _pair(options, "kernel_size", "kernel", None), _pair(options, "stride", "stride", 1)
        padding = _pair(options, "pad", "pad", 0)
        if min(*kernel, *stride) < 1:
            raise LayerError("expected a kernel and a stride of at least 1")
        pool = notation.MaxPool2d if method == "MAX" else notation.AvgPool2d
        layer: SteppingPool = pool(kernel, stride=stride, padding=padding)
        if options.get("round_mode") == "FLOOR" or options.get("ceil_mode") is False:
            return layer
        up = replace(layer, ceil_mode=True)
        if up.output_shape(x)[1:] != tuple(map(_caffes_places, up.places(x))):
            raise LayerError(f"its last window lies outside its {times(x[1:])} input")
        makes_a_difference = any(axis.number != there.number for axis, there in zip(layer.places(x), up.places(x)))
        return up if makes_a_difference else layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        if isinstance(layer, notation.AdaptiveAvgPool2d):
            if (same := with_windows(layer, x)) is not None:
                return self.write(same, x)
            sizes = f"{times(x[1:])} to {times(layer.output_size)}"
            raise LayerError(f"Caffe has no average pool from {sizes}, which does not divide it")
        if isinstance(layer, notation.GlobalAvgPool2d):
            return [Said(self.word, (self.options, {"pool": "AVE", "global_pooling": True}))]
        assert isinstance(layer, (notation.MaxPool2d, notation.AvgPool2d))
        if isinstance(layer, notation.AvgPool2d) and layer.divisor_override is not None:
            raise LayerError("Caffe's average pool has no divisor_override")
        if isinstance(layer, notation.AvgPool2d) and not layer.count_include_pad and any(layer.padding):
            raise LayerError("Caffe's average pool counts the padding; count_include_pad: false has no word there")
        if isinstance(layer, notation.MaxPool2d) and layer.in_inference(x) != replace(layer, dilation=(1, 1)):
            raise LayerError("Caffe's pools have no dilation")
        up = tuple(map(_caffes_places, replace(layer, ceil_mode=True).places(x)))
        options = {
            "pool": "MAX" if isinstance(layer, notation.MaxPool2d) else "AVE",
            **_written_pair("kernel_size", "kernel", layer.kernel_size, None),
            **_written_pair("stride", "stride", layer.stride, 1),
            **_written_pair("pad", "pad", layer.padding, 0),
        }
        if layer.output_shape(x)[1:] == up:
            return [Said(self.word, (self.options, options))]
        if layer.ceil_mode:
            raise LayerError(
                f"Caffe makes {times(up)} of its {times(x[1:])} input, not {times(layer.output_shape(x)[1:])}"
            )
        return [Said(self.word, (self.options, {**options, "round_mode": "FLOOR"}))]


def _caffes_places(axis: Places) -> int:
    """Return how many windows Caffe has along an axis, rounded up (`PoolingLayer::Reshape`)."""
    count = -(-(axis.size + 2 * axis.padding - axis.kernel) // axis.stride) + 1
    if axis.padding and (count - 1) * axis.stride >= axis.size + axis.padding:
        count -= 1
    return count

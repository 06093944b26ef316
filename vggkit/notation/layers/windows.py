"""Layers whose window steps over maps: convolutions and pools."""

from __future__ import annotations

from abc import abstractmethod
from math import gcd, prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec.structs import force_setattr, replace

from vggkit.base.errors import LayerError, TooSmallError
from vggkit.base.shapes import Kept, Pair, Shape, pair, times
from vggkit.notation.layers.fields import Allowed, Count, Flag, Padding, PaddingOrSame, Size
from vggkit.notation.layers.rules import Counted, Factor, Layer, Product, Untrained, Window, Working

if TYPE_CHECKING:
    from vggkit.base.eager import Eager, Parameter, Tensor


class Places(msgspec.Struct, frozen=True):
    """The places that a window takes along one axis: a size of the output.

    Args:
        symbol: of the axis: h or w.
        size: of the input.
        kernel: of the window.
        stride: how far the window steps.
        padding: on each side.
        dilation: distance between the window's elements.
        ceil: whether a last window that only partly fits counts.
    """

    symbol: str
    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int = 1
    ceil: bool = False

    @property
    def extent(self) -> int:
        """How many values of the input the window spans."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def number(self) -> int:
        """How many places there are, by the formula in torch's pooling and convolution docs."""
        room = self.size + 2 * self.padding - self.extent
        count = (room + (self.stride - 1 if self.ceil else 0)) // self.stride + 1
        if self.ceil and (count - 1) * self.stride >= self.size + self.padding:
            count -= 1  # no window may start in the padding on the right
        return count

    @property
    def working(self) -> Working:
        """How many places there are, and why."""
        symbol, size, k, s, p, d = self.symbol, self.size, self.kernel, self.stride, self.padding, self.dilation
        room, room_numbers = f"{symbol} + 2·p − k", f"{size} + 2·{p} − {k}"
        if d > 1:
            room, room_numbers = f"{symbol} + 2·p − d·(k − 1) − 1", f"{size} + 2·{p} − {d}·({k} − 1) − 1"
        left, right = "⌈⌉" if self.ceil else "⌊⌋"
        fewer = " − 1" if self.ceil and self.number < -(-(size + 2 * p - self.extent) // s) + 1 else ""
        if self.number == size and s == 1:
            why = "padding keeps the size" if p else "a window of one value keeps the size"
        elif 2 * self.number == size and s == 2:
            why = "a stride of 2 halves the size"
        else:
            why = "the steps that fit, plus the starting position"
        if fewer:
            why += "; the last would start in the padding, and does not count"
        return Working(f"{left}({room})/s{right} + 1{fewer}", f"{left}({room_numbers})/{s}{right} + 1{fewer}", why)

    @property
    def may_miss(self) -> bool:
        """Whether some window sees only padding.

        torch accepts such a window, gives it an index outside the maps, and writes there in the backward pass.
        """
        if self.dilation <= self.size:
            return False
        before = range(-self.padding, 0, self.stride)[: self.number]
        return any(start % self.dilation >= self.size or -(start // self.dilation) >= self.kernel for start in before)


def _set_pairs(layer: Layer, *names: str) -> None:
    """Turn fields that were given as one number into pairs."""
    for name in names:
        force_setattr(layer, name, pair(getattr(layer, name)))


def _undilated(kernel: Pair, dilation: Pair) -> Pair:
    """Return a dilation, set to 1 along each axis where the window has one value and a dilation has no effect."""
    return 1 if kernel[0] == 1 else dilation[0], 1 if kernel[1] == 1 else dilation[1]


class Conv2d(Layer, frozen=True, rename={"out_channels": "channels", "kernel_size": "kernel"}):
    """A convolution; by default its stride is 1 and it keeps the size of the maps (paper, Sect. 2.1).

    Args:
        out_channels: number of output channels.
        kernel_size: height and width of the filters.
        stride: height and width of a step.
        padding: zeros on each side; "same" is (k−1)/2 times the dilation.
        dilation: distance between the filter's elements.
        groups: number of independent groups that the input's channels are split into.
        bias: whether a bias is added.
        padding_mode: torch's name of what the padding holds.
    """

    out_channels: Count
    kernel_size: Size = (3, 3)
    stride: Size = (1, 1)
    padding: PaddingOrSame = "same"
    dilation: Size = (1, 1)
    groups: Count = 1
    bias: Flag = True
    padding_mode: Annotated[
        Literal["zeros", "reflect", "replicate", "circular"],
        Allowed("zeros, reflect, replicate or circular"),
    ] = "zeros"

    keyword = "conv"
    primary = "out_channels"
    stem = "conv"
    role = "weight"
    followers = ("norm", "activation")
    is_convolution = True
    caffe_in_block = "conv{block}_{number}"
    keras_type = "Conv2D"
    named_in_keras = True

    def __post_init__(self) -> None:
        _set_pairs(self, "kernel_size", "stride", "dilation", *(["padding"] if self.padding != "same" else []))

    def pads(self) -> Pair:
        """Return the zeros added on each side (height, width)."""
        if self.padding != "same":
            return self.padding
        height, width = self._extent()
        if height % 2 == 0 or width % 2 == 0:
            raise LayerError(
                f"padding 'same' needs an odd window, and this one is {height}×{width}; give the padding as a number"
            )
        return height // 2, width // 2

    def plain(self) -> Conv2d:
        """Return the same convolution in the fewest words: padded by "same" where that is what its numbers are."""
        pads = self.pads()
        mode = self.padding_mode if any(pads) else "zeros"
        height, width = self._extent()
        is_same = (2 * pads[0] + 1, 2 * pads[1] + 1) == (height, width)
        return replace(self, padding="same" if is_same else pads, padding_mode=mode)

    def _extent(self) -> Pair:
        (height, width), dilation = self.kernel_size, self.dilation
        return dilation[0] * (height - 1) + 1, dilation[1] * (width - 1) + 1

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        channels, *sizes = self.maps(x)
        for what, count in (("input", channels), ("output", self.out_channels)):
            if count % self.groups:
                raise LayerError(f"{self.groups} groups do not divide its {count} {what} channels")
        extent, pads = self._extent(), self.pads()
        if extent[0] > sizes[0] + 2 * pads[0] or extent[1] > sizes[1] + 2 * pads[1]:
            raise TooSmallError(
                f"a {times(extent)} window does not fit its {times(tuple(sizes))} input padded by {times(pads)}"
            )
        # torch.nn.functional.pad: reflection needs one value more than it mirrors, a circle as many as it repeats
        spare = {"reflect": 1, "circular": 0}.get(self.padding_mode)
        if spare is not None and (pads[0] + spare > sizes[0] or pads[1] + spare > sizes[1]):
            raise LayerError(
                f"{self.padding_mode} padding of {times(pads)} is too wide for its {times(tuple(sizes))} input"
            )
        places = zip("hw", sizes, self.kernel_size, self.stride, pads, self.dilation)
        return Product.of("one for each filter", ("f", self.out_channels)), *(Places(*axis) for axis in places)

    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        height, width = self.kernel_size
        rows, columns = ("k", "k") if height == width else ("k_h", "k_w")
        inputs = Factor("c", x[0])
        if self.groups > 1:
            inputs = Factor("(c/g)", x[0] // self.groups, f"({x[0]}/{self.groups})")
        filters = Factor("f", self.out_channels)
        weight = Product(
            "each filter has a weight for each place of its window in each channel that it sees",
            (Factor(rows, height), Factor(columns, width), inputs, filters),
        )
        bias = {"bias": Product("one for each filter", (filters,))} if self.bias else {}
        return {"weight": weight, **bias}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def operation_count(self, x: Shape) -> Product:
        _, height, width = self.output_shape(x)
        return Product(
            "each weight is used once at each place of the output; adding biases is not counted",
            (*self.parameter_counts(x)["weight"].factors, Factor("H", height), Factor("W", width)),
        )

    def window(self, x: Shape) -> Window:
        return Window(self._extent(), self.stride)

    def storage(self) -> Literal["new", "in place", "view"]:
        return "new"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        return self

    def in_inference(self, x: Shape) -> Layer | None:
        pads, dilation = self.pads(), _undilated(self.kernel_size, self.dilation)
        return replace(self, padding=pads, dilation=dilation, padding_mode=self.padding_mode if any(pads) else "zeros")

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Conv2d(
            x[0],
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.pads(),
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias,
            padding_mode=self.padding_mode if any(self.pads()) else "zeros",
        )

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        padded = self._padded(x, eager)
        source, weight, bias, casts = eager.lower(padded or x, parameters["weight"], parameters.get("bias"))
        y = eager.op(source, weight, bias, shape=self.output_shape(x.shape), keeps=(source, weight))
        eager.release(*casts, padded)
        return y

    def _padded(self, x: Tensor, eager: Eager) -> Tensor | None:
        """Return a padded copy, as torch's module makes for any padding but zeros; None where it makes none."""
        height, width = self.pads()
        if self.padding_mode == "zeros" or (height, width) == (0, 0):
            return None
        channels, *sizes = x.shape
        shape = (channels, sizes[0] + 2 * height, sizes[1] + 2 * width)
        if self.padding_mode == "circular":
            return eager.pad_circular(x, shape, (height, width))
        source, cast = eager.raise_precision(x, only_on="cpu")
        padded = eager.op(source, shape=shape, keeps=(source,))
        eager.release(cast)
        return padded


class SteppingPool(Untrained, frozen=True):
    """Abstract: pooling with a window that steps over the maps."""

    stem = "pool"
    role = "other"
    is_pool = True
    caffe_in_block = "pool{block}"
    named_in_keras = True

    @abstractmethod
    def places(self, x: Shape) -> tuple[Places, Places]:
        """Return the window's places along the height and the width of the input."""

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        channels, *sizes = self.maps(x)
        places = height, width = self.places(x)
        # torch/aten Pool.h: "pad should be smaller than or equal to half of kernel size", dilated or not
        if any(2 * axis.padding > axis.kernel for axis in places):
            padding = times((height.padding, width.padding))
            raise LayerError(f"padding {padding} is more than half of its {height.kernel}×{width.kernel} pool")
        if any(axis.number < 1 for axis in places):
            window = times((height.extent, width.extent))
            raise TooSmallError(f"a {window} pool does not fit its {times(tuple(sizes))} input")
        if any(axis.may_miss for axis in places):
            dilation = times((height.dilation, width.dilation))
            raise TooSmallError(f"a dilation of {dilation} steps over its {times(tuple(sizes))} input")
        return Product.of("each channel is pooled by itself", ("c", channels)), *places

    def window(self, x: Shape) -> Window:
        height, width = self.places(x)
        return Window((height.extent, width.extent), (height.stride, width.stride))


class MaxPool2d(SteppingPool, frozen=True, rename={"kernel_size": "kernel"}):
    """Max pooling; by default 2×2 with stride 2 (paper, Sect. 2.1).

    Args:
        kernel_size: height and width of the window.
        stride: height and width of a step.
        padding: minus infinity on each side.
        dilation: distance between the window's elements.
        ceil_mode: whether a last window that only partly fits counts.
    """

    kernel_size: Size = (2, 2)
    stride: Size = (2, 2)
    padding: Padding = (0, 0)
    dilation: Size = (1, 1)
    ceil_mode: Flag = False

    keyword = "maxpool"
    primary = "kernel_size"
    keras_type = "MaxPooling2D"

    def __post_init__(self) -> None:
        _set_pairs(self, "kernel_size", "stride", "padding", "dilation")

    def places(self, x: Shape) -> tuple[Places, Places]:
        (k_h, k_w), (s_h, s_w), (p_h, p_w), (d_h, d_w) = self.kernel_size, self.stride, self.padding, self.dilation
        height = Places("h", x[1], k_h, s_h, p_h, d_h, self.ceil_mode)
        return height, Places("w", x[2], k_w, s_w, p_w, d_w, self.ceil_mode)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # torch keeps an int64 index per output: which input value was the largest
        return Kept("input", x), Kept("indices", self.output_shape(x), element_bytes=8)

    def in_inference(self, x: Shape) -> Layer | None:
        if self.kernel_size == self.stride == (1, 1):
            return None
        return replace(self, dilation=_undilated(self.kernel_size, self.dilation))

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.MaxPool2d(
            self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation, ceil_mode=self.ceil_mode
        )


class AvgPool2d(SteppingPool, frozen=True, rename={"kernel_size": "kernel"}):
    """Average pooling; by default 2×2 with stride 2.

    Args:
        kernel_size: height and width of the window.
        stride: height and width of a step.
        padding: zeros on each side.
        ceil_mode: whether a last window that only partly fits counts.
        count_include_pad: whether the padding's zeros count in the average.
        divisor_override: a divisor to use instead of the window's size.
    """

    kernel_size: Size = (2, 2)
    stride: Size = (2, 2)
    padding: Padding = (0, 0)
    ceil_mode: Flag = False
    count_include_pad: Flag = True
    divisor_override: Annotated[int | None, Allowed("a whole number from 1, or null", minimum=1)] = None

    keyword = "avgpool"
    primary = "kernel_size"
    keras_type = "AveragePooling2D"

    def __post_init__(self) -> None:
        _set_pairs(self, "kernel_size", "stride", "padding")

    def places(self, x: Shape) -> tuple[Places, Places]:
        (k_h, k_w), (s_h, s_w), (p_h, p_w) = self.kernel_size, self.stride, self.padding
        height = Places("h", x[1], k_h, s_h, p_h, ceil=self.ceil_mode)
        return height, Places("w", x[2], k_w, s_w, p_w, ceil=self.ceil_mode)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        counted = self.count_include_pad or self.padding == (0, 0) or self.divisor_override is not None
        own = self.divisor_override == prod(self.kernel_size) and not self.ceil_mode  # there a last window may be cut
        plain = replace(self, count_include_pad=counted, divisor_override=None if own else self.divisor_override)
        return None if plain == AvgPool2d((1, 1), stride=(1, 1), ceil_mode=self.ceil_mode) else plain

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.AvgPool2d(
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            divisor_override=self.divisor_override,
        )


class FixedSizePool(Untrained, frozen=True):
    """Abstract: average pooling to a given size, whatever the input's."""

    stem = "avgpool"
    role = "other"
    fixes_size = True

    @abstractmethod
    def size(self) -> Pair:
        """Return height and width of the output."""

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        channels, _, _ = self.maps(x)
        given = (Product.of("a fixed size, whatever the input's", (str(n), n)) for n in self.size())
        return Product.of("each channel is averaged by itself", ("c", channels)), *given

    def window(self, x: Shape) -> Window:
        """Return the largest window and the largest step: they vary where the sizes don't divide."""
        _, *sizes = self.maps(x)
        extents, steps = zip(*map(_adaptive_axis, sizes, self.size()))
        return Window(extents, steps)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # for 1×1, torch computes a mean, whose gradient needs no values
        return () if self.size() == (1, 1) else (Kept("input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        return None if x[1:] == self.size() else AdaptiveAvgPool2d(self.size())


class AdaptiveAvgPool2d(FixedSizePool, frozen=True, rename={"output_size": "size"}):
    """Average pooling to a given output size, whatever the input's (torchvision's `avgpool`).

    Args:
        output_size: height and width of the output.
    """

    output_size: Size

    keyword = "adaptive-avgpool"
    primary = "output_size"
    keras_type = "AdaptiveAveragePooling2D"

    def __post_init__(self) -> None:
        _set_pairs(self, "output_size")

    def size(self) -> Pair:
        return self.output_size

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.AdaptiveAvgPool2d(self.output_size)


def _adaptive_axis(size: int, outputs: int) -> tuple[int, int]:
    """Return the largest window and step along one axis, where output i averages from ⌊i·size/n⌋ to ⌈(i+1)·size/n⌉."""
    quotient, rest = divmod(size, outputs)
    if rest == 0:
        return quotient, quotient
    # i·rest mod n runs through the multiples of their gcd; the largest, n − gcd, makes the largest window and step
    divisor = gcd(rest, outputs)
    extent = quotient + (2 if rest > divisor else 1)
    last_only = rest == divisor == 1  # then the only larger step would come after the last window
    return extent, quotient + (0 if last_only else 1)


class GlobalAvgPool2d(FixedSizePool, frozen=True):
    """The average of each whole map: C×H×W becomes C×1×1."""

    keyword = "global-avgpool"
    keras_type = "GlobalAveragePooling2D"

    def size(self) -> Pair:
        return 1, 1

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.AdaptiveAvgPool2d(1)

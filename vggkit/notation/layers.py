"""One class per layer kind, and in it every rule of that kind.

A rule takes the shape of the layer's input, for one image, and answers for that kind alone. Shapes are C×H×W, or
(features,) once flattened; the batch is multiplied elsewhere, in one place. Parameter and buffer rules return shapes
under torch's names, so that one value counts, is compared with a `state_dict()` and checks a checkpoint. Sizes are
pairs (height, width). Nothing here imports torch: `module` is handed the `torch.nn` namespace.

A class is either abstract or final, and no rule has a default: a kind that forgets one can't be constructed.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from math import gcd
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
from msgspec.structs import force_setattr, replace

from vggkit.base.errors import LayerError, TooSmallError
from vggkit.base.shapes import Kept as Kept
from vggkit.base.shapes import Pair as Pair
from vggkit.base.shapes import Shape as Shape
from vggkit.base.shapes import elements as elements
from vggkit.base.shapes import pair as pair
from vggkit.base.shapes import times as times

if TYPE_CHECKING:
    from vggkit.base.eager import Eager, Parameter, Tensor

Role = Literal["weight", "norm", "activation", "dropout", "other"]
Storage = Literal["new", "in place", "view"]


LARGEST = 10**18
"""No number in a configuration is larger; sums and products of them may be."""


class Allowed(NamedTuple):
    """What values a field may have, beyond their Python type.

    It does the work of msgspec.Meta, which can crash the interpreter when it exits (msgspec's issue 717).

    Args:
        description: the allowed values in words, for messages and the schema.
        minimum: the smallest, of each number.
        above: an excluded lower bound.
        below: an excluded upper bound.
        maximum: the largest.
    """

    description: str
    minimum: int | None = None
    above: int | None = None
    below: int | None = None
    maximum: int | None = None

    def admits(self, value: Any) -> bool:
        """Tell whether a value, or each one inside a tuple, is finite and within the bounds."""
        if isinstance(value, tuple):
            return all(map(self.admits, value))
        return not isinstance(value, (int, float)) or (
            -LARGEST <= value <= LARGEST
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.maximum is None or value <= self.maximum)
        )


Count = Annotated[int, Allowed("a whole number from 1", minimum=1)]
Size = Annotated[Pair, Allowed("a whole number from 1, or height × width as in 3x1", minimum=1)]
Padding = Annotated[
    Pair | Literal["same"], Allowed("same, a whole number from 0, or height × width as in 1x0", minimum=0)
]
Table = Annotated[
    int | tuple[Pair, ...], Allowed("a whole number from 1, or one for each width as in {64: 4, 128: 8}", minimum=1)
]
Padding2d = Annotated[Pair, Allowed("a whole number from 0, or height × width as in 1x0", minimum=0)]
Number = Annotated[float, Allowed("a number")]
Positive = Annotated[float, Allowed("a number above 0", above=0)]
Rate = Annotated[float, Allowed("a number from 0 to below 1", minimum=0, below=1)]
Flag = Annotated[bool, Allowed("true or false")]


class Window(NamedTuple):
    """How far along each axis one output value looks at its input, and how far its neighbour is from it.

    Args:
        extent: height and width of the smallest rectangle that holds every input value that is looked at.
        step: distance, in input values, between the rectangles of neighbouring outputs.
    """

    extent: Pair
    step: Pair


POINT = Window((1, 1), (1, 1))


class Working(NamedTuple):
    """How a count comes about, as one would write it on paper.

    Args:
        rule: in symbols, which `vggkit.figures.explain.SYMBOLS` spells out.
        numbers: the same with this layer's numbers put in; its value is the count.
        why: the reason, in words.
    """

    rule: str
    numbers: str
    why: str


class _LayerMeta(msgspec.StructMeta, ABCMeta):
    """Lets a msgspec struct be abstract."""


class Layer(msgspec.Struct, frozen=True, metaclass=_LayerMeta):
    """What every layer kind says of itself.

    The names of the fields are torch's; where the notation uses a shorter word, `rename` gives it.
    """

    keyword: ClassVar[str]
    """Its word in the notation, in the paper's spelling."""
    primary: ClassVar[str | None]
    """The field that stands directly behind the keyword in the long form, `{maxpool: 3}`."""
    stem: ClassVar[str]
    """Its name in a network: `conv` in `block1_conv1`."""
    role: ClassVar[Role]
    """What it can be behind another layer; "weight" are the layers that the paper counts."""
    followers: ClassVar[tuple[str, ...]]
    """Which of a configuration's defaults (norm, activation, dropout) stand behind it in a hidden layer."""
    keras_type: ClassVar[str]
    """The class that Keras's summary prints for it."""

    @abstractmethod
    def output_shape(self, x: Shape) -> Shape:
        """Return the output's shape, or raise LayerError if the layer does not fit its input."""

    @abstractmethod
    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        """Return how each size of the output's shape comes about."""

    @abstractmethod
    def parameters(self, x: Shape) -> dict[str, Shape]:
        """Return the shape of each parameter, by torch's name."""

    @abstractmethod
    def parameters_working(self, x: Shape) -> dict[str, Working]:
        """Return how the number of elements of each parameter comes about, by torch's name."""

    @abstractmethod
    def buffers(self, x: Shape) -> dict[str, Shape]:
        """Return the shape of each buffer (state that is not trained), by torch's name."""

    @abstractmethod
    def multiply_accumulates(self, x: Shape) -> int:
        """Return the multiply-accumulates for one image; bias additions are not counted."""

    @abstractmethod
    def multiply_accumulates_working(self, x: Shape) -> Working:
        """Return how they come about, for one image."""

    @abstractmethod
    def window(self, x: Shape) -> Window:
        """Return what one output value sees of the input (of a C×H×W input; flat ones have one position)."""

    @abstractmethod
    def storage(self) -> Storage:
        """Return where the output lives: in memory of its own, in the input's place, or as a view of the input."""

    @abstractmethod
    def kept(self, x: Shape) -> tuple[Kept, ...]:
        """Return the buffers that the backward pass keeps, parameters and their like excluded."""

    @abstractmethod
    def in_inference(self, x: Shape) -> Layer | None:
        """Return the plainest layer that computes the same in inference; None if that hands on its input.

        Layers that say the same here have equal outputs, given equal parameters: what only training needs (a momentum,
        working in place) has its default, and what has no effect (the padding's mode where nothing is padded) too.
        """

    @abstractmethod
    def module(self, x: Shape, nn: Any) -> Any:
        """Return the torch module, built from the `torch.nn` namespace that is handed in."""

    @abstractmethod
    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it on a tensor without values, by the operations that torch's code for it calls.

        Args:
            x: its input.
            parameters: by torch's names.
            eager: has the operations.

        Returns:
            The output, with a reference to it.
        """

    def as_one_operation(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it as one operation that does what the other rules say."""
        in_place = self.storage() == "in place"
        return eager.apply(x, parameters, shape=self.output_shape(x.shape), keeps=self.kept(x.shape), in_place=in_place)

    @property
    def kind(self) -> str:
        """The keyword in lower case, as data formats print it."""
        return self.keyword.lower()


def _maps(layer: Layer, x: Shape) -> tuple[int, int, int]:
    if len(x) != 3:
        raise LayerError(f"{layer.keyword} needs channels × height × width, but its input is flat ({x[0]} features)")
    return x[0], x[1], x[2]


def _outputs(size: int, extent: int, stride: int, padding: int, ceil: bool) -> int:
    """Count the positions of a window along one axis, by the formula in torch's pooling and convolution docs."""
    room = size + 2 * padding - extent
    count = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1  # no window may start in the padding on the right
    return count


def _outputs_working(
    axis: int, size: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool
) -> Working:
    """Return how `_outputs` counts along one axis, 0 for the height and 1 for the width."""
    symbol, k, s, p, d = "hw"[axis], kernel[axis], stride[axis], padding[axis], dilation[axis]
    extent = d * (k - 1) + 1
    count = _outputs(size, extent, s, p, ceil)
    room, room_numbers = f"{symbol} + 2·p − k", f"{size} + 2·{p} − {k}"
    if d > 1:
        room, room_numbers = f"{symbol} + 2·p − d·(k − 1) − 1", f"{size} + 2·{p} − {d}·({k} − 1) − 1"
    left, right = "⌈⌉" if ceil else "⌊⌋"
    fewer = " − 1" if ceil and count < -(-(size + 2 * p - extent) // s) + 1 else ""
    if count == size and s == 1:
        why = "padding keeps the size" if p else "a window of one value keeps the size"
    elif 2 * count == size and s == 2:
        why = "a stride of 2 halves the size"
    else:
        why = "so many places has the window, and one more for where it starts"
    if fewer:
        why += "; the last would start in the padding, and is left out"
    return Working(f"{left}({room})/s{right} + 1{fewer}", f"{left}({room_numbers})/{s}{right} + 1{fewer}", why)


def _unchanged(x: Shape) -> tuple[Working, ...]:
    """Return the working of a shape that is the input's."""
    symbols = "chw" if len(x) == 3 else "n"
    return tuple(Working(symbol, str(size), "as the input") for symbol, size in zip(symbols, x))


NOTHING_MULTIPLIED = Working("0", "0", "only convolutions and FC layers are counted; the rest is a few steps a value")


def _extent(kernel: Pair, dilation: Pair) -> Pair:
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


class Conv2d(Layer, frozen=True, rename={"out_channels": "channels", "kernel_size": "kernel"}):
    """A convolution, stride 1 and size-preserving unless said otherwise (paper, Sect. 2.1).

    Args:
        out_channels: number of output channels.
        kernel_size: height and width of the filters.
        stride: height and width of a step.
        padding: zeros on each side; "same" is (k−1)/2 times the dilation.
        dilation: distance between the filter's elements.
        groups: the input's channels are split into so many independent groups.
        bias: whether a bias is added.
        padding_mode: torch's name of what the padding holds.
    """

    out_channels: Count
    kernel_size: Size = (3, 3)
    stride: Size = (1, 1)
    padding: Padding = "same"
    dilation: Size = (1, 1)
    groups: Count = 1
    bias: Flag = True
    padding_mode: Annotated[
        Literal["zeros", "reflect", "replicate", "circular"],
        Allowed("zeros, reflect, replicate or circular"),
    ] = "zeros"

    keyword: ClassVar[str] = "conv"
    primary: ClassVar[str | None] = "out_channels"
    stem: ClassVar[str] = "conv"
    role: ClassVar[Role] = "weight"
    followers: ClassVar[tuple[str, ...]] = ("norm", "activation")
    keras_type: ClassVar[str] = "Conv2D"

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "dilation"):
            force_setattr(self, name, pair(getattr(self, name)))
        if self.padding != "same":
            force_setattr(self, "padding", pair(self.padding))

    def pads(self) -> Pair:
        """Return the zeros added on each side (height, width)."""
        if self.padding != "same":
            return self.padding
        height, width = _extent(self.kernel_size, self.dilation)
        if height % 2 == 0 or width % 2 == 0:
            raise LayerError(
                f"padding 'same' needs an odd window, and this one is {height}×{width}; say the padding as a number"
            )
        return height // 2, width // 2

    def output_shape(self, x: Shape) -> Shape:
        channels, *sizes = _maps(self, x)
        for what, count in (("input", channels), ("output", self.out_channels)):
            if count % self.groups:
                raise LayerError(f"{self.groups} groups do not divide its {count} {what} channels")
        extent, pads = _extent(self.kernel_size, self.dilation), self.pads()
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
        height, width = (
            _outputs(size, extent[axis], self.stride[axis], pads[axis], ceil=False) for axis, size in enumerate(sizes)
        )
        return self.out_channels, height, width

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        pads = self.pads()
        return Working("f", str(self.out_channels), "one for each filter"), *(
            _outputs_working(axis, x[1 + axis], self.kernel_size, self.stride, pads, self.dilation, ceil=False)
            for axis in (0, 1)
        )

    def parameters(self, x: Shape) -> dict[str, Shape]:
        weight = (self.out_channels, x[0] // self.groups, *self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        height, width = self.kernel_size
        kernel = "k·k" if height == width else "k_h·k_w"
        channels, number = ("c", f"{x[0]}") if self.groups == 1 else ("(c/g)", f"({x[0]}/{self.groups})")
        why = "each filter has a weight for each place of its window in each channel that it sees"
        weight = Working(f"{kernel}·{channels}·f", f"{height}·{width}·{number}·{self.out_channels}", why)
        bias = Working("f", str(self.out_channels), "one for each filter")
        return {"weight": weight, "bias": bias} if self.bias else {"weight": weight}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def multiply_accumulates(self, x: Shape) -> int:
        _, height, width = self.output_shape(x)
        return elements(self.parameters(x)["weight"]) * height * width

    def multiply_accumulates_working(self, x: Shape) -> Working:
        _, height, width = self.output_shape(x)
        weight = self.parameters_working(x)["weight"]
        why = "each weight is used once at each place of the output; adding biases is not counted"
        return Working(f"{weight.rule}·H·W", f"{weight.numbers}·{height}·{width}", why)

    def window(self, x: Shape) -> Window:
        return Window(_extent(self.kernel_size, self.dilation), self.stride)

    def storage(self) -> Storage:
        return "new"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

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
        source, cast = eager.raise_precision(x)
        padded = eager.op(source, shape=shape, keeps=(source,))
        eager.release(cast)
        return padded

    def in_inference(self, x: Shape) -> Layer | None:
        pads = self.pads()
        return replace(
            self,
            padding=pads,
            dilation=tuple(1 if side == 1 else gap for side, gap in zip(self.kernel_size, self.dilation)),
            padding_mode=self.padding_mode if any(pads) else "zeros",
        )

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Conv2d(
            x[0], self.out_channels, self.kernel_size, stride=self.stride, padding=self.pads(), dilation=self.dilation,
            groups=self.groups, bias=self.bias, padding_mode=self.padding_mode if any(self.pads()) else "zeros",
        )  # fmt: skip


class _Pool2d(Layer, frozen=True):
    """Abstract: what max and average pooling have in common. No parameters, no multiply-accumulates."""

    role: ClassVar[Role] = "other"
    followers: ClassVar[tuple[str, ...]] = ()
    stem: ClassVar[str] = "pool"

    def parameters(self, x: Shape) -> dict[str, Shape]:
        return {}

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        return {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def multiply_accumulates(self, x: Shape) -> int:
        return 0

    def multiply_accumulates_working(self, x: Shape) -> Working:
        return NOTHING_MULTIPLIED

    def storage(self) -> Storage:
        return "new"

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return self.as_one_operation(x, parameters, eager)


def _pooled(layer: MaxPool2d | AvgPool2d, x: Shape, dilation: Pair) -> Shape:
    channels, *sizes = _maps(layer, x)
    kernel, padding, extent = layer.kernel_size, layer.padding, _extent(layer.kernel_size, dilation)
    # torch/aten Pool.h: "pad should be smaller than or equal to half of kernel size", dilated or not
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise LayerError(f"padding {times(padding)} is more than half of its {times(kernel)} pool")
    height, width = (
        _outputs(size, extent[axis], layer.stride[axis], padding[axis], layer.ceil_mode)
        for axis, size in enumerate(sizes)
    )
    if height < 1 or width < 1:
        raise TooSmallError(f"a {times(extent)} pool does not fit its {times(tuple(sizes))} input")
    for axis, (size, outputs) in enumerate(zip(sizes, (height, width))):
        if dilation[axis] > size and any(
            _steps_over(start, kernel[axis], dilation[axis], size)
            for start in range(-padding[axis], 0, layer.stride[axis])[:outputs]
        ):
            raise TooSmallError(f"a dilation of {times(dilation)} steps over its {times(tuple(sizes))} input")
    return channels, height, width


def _steps_over(start: int, kernel: int, dilation: int, size: int) -> bool:
    """Tell whether a window that starts in the padding sees nothing else.

    torch takes it, gives its largest value an index outside the maps, and writes there in the backward pass.
    """
    return start % dilation >= size or -(start // dilation) >= kernel


def _pooled_working(layer: MaxPool2d | AvgPool2d, x: Shape, dilation: Pair) -> tuple[Working, ...]:
    return Working("c", str(x[0]), "each channel is pooled by itself"), *(
        _outputs_working(
            axis, x[1 + axis], layer.kernel_size, layer.stride, layer.padding, dilation, ceil=layer.ceil_mode
        )
        for axis in (0, 1)
    )


def _given_working(x: Shape, size: Pair) -> tuple[Working, ...]:
    """Return the working of a shape whose height and width are given."""
    kept = Working("c", str(x[0]), "each channel is averaged by itself")
    return kept, *(Working(str(side), str(side), "the size that is asked for, whatever the input's") for side in size)


class MaxPool2d(_Pool2d, frozen=True, rename={"kernel_size": "kernel"}):
    """Max pooling, 2×2 with stride 2 unless said otherwise (paper, Sect. 2.1).

    Args:
        kernel_size: height and width of the window.
        stride: height and width of a step.
        padding: minus infinity on each side.
        dilation: distance between the window's elements.
        ceil_mode: whether a last window that only partly fits counts.
    """

    kernel_size: Size = (2, 2)
    stride: Size = (2, 2)
    padding: Padding2d = (0, 0)
    dilation: Size = (1, 1)
    ceil_mode: Flag = False

    keyword: ClassVar[str] = "maxpool"
    primary: ClassVar[str | None] = "kernel_size"
    keras_type: ClassVar[str] = "MaxPooling2D"

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "padding", "dilation"):
            force_setattr(self, name, pair(getattr(self, name)))

    def output_shape(self, x: Shape) -> Shape:
        return _pooled(self, x, self.dilation)

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _pooled_working(self, x, self.dilation)

    def window(self, x: Shape) -> Window:
        return Window(_extent(self.kernel_size, self.dilation), self.stride)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # torch keeps an int64 index per output: which input value was the largest
        return Kept("input", x), Kept("indices", self.output_shape(x), element_bytes=8)

    def in_inference(self, x: Shape) -> Layer | None:
        dilation = tuple(1 if side == 1 else gap for side, gap in zip(self.kernel_size, self.dilation))
        return None if self.kernel_size == self.stride == (1, 1) else replace(self, dilation=dilation)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.MaxPool2d(
            self.kernel_size, stride=self.stride, padding=self.padding, dilation=self.dilation, ceil_mode=self.ceil_mode
        )


class AvgPool2d(_Pool2d, frozen=True, rename={"kernel_size": "kernel"}):
    """Average pooling, 2×2 with stride 2 unless said otherwise.

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
    padding: Padding2d = (0, 0)
    ceil_mode: Flag = False
    count_include_pad: Flag = True
    divisor_override: Annotated[int | None, Allowed("a whole number from 1, or null", minimum=1)] = None

    keyword: ClassVar[str] = "avgpool"
    primary: ClassVar[str | None] = "kernel_size"
    keras_type: ClassVar[str] = "AveragePooling2D"

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "padding"):
            force_setattr(self, name, pair(getattr(self, name)))

    def output_shape(self, x: Shape) -> Shape:
        return _pooled(self, x, dilation=(1, 1))

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _pooled_working(self, x, dilation=(1, 1))

    def window(self, x: Shape) -> Window:
        return Window(self.kernel_size, self.stride)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        counted = self.count_include_pad or self.padding == (0, 0) or self.divisor_override is not None
        plain = replace(self, count_include_pad=counted)
        return None if plain == AvgPool2d((1, 1), stride=(1, 1), ceil_mode=self.ceil_mode) else plain

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.AvgPool2d(
            self.kernel_size, stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad, divisor_override=self.divisor_override,
        )  # fmt: skip


class AdaptiveAvgPool2d(_Pool2d, frozen=True, rename={"output_size": "size"}):
    """Average pooling to a given output size, whatever the input's (torchvision's `avgpool`).

    Args:
        output_size: height and width of the output.
    """

    output_size: Size

    keyword: ClassVar[str] = "adaptive-avgpool"
    primary: ClassVar[str | None] = "output_size"
    stem: ClassVar[str] = "avgpool"
    keras_type: ClassVar[str] = "AdaptiveAveragePooling2D"

    def __post_init__(self) -> None:
        force_setattr(self, "output_size", pair(self.output_size))

    def output_shape(self, x: Shape) -> Shape:
        return (_maps(self, x)[0], *self.output_size)

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _given_working(x, self.output_size)

    def window(self, x: Shape) -> Window:
        """Return the largest of the windows and of their steps: they vary where the sizes don't divide."""
        _, *sizes = _maps(self, x)
        extents, steps = zip(*map(_adaptive_axis, sizes, self.output_size))
        return Window(extents, steps)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # to 1×1 torch takes a mean, whose gradient needs no values
        return () if self.output_size == (1, 1) else (Kept("input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        return None if x[1:] == self.output_size else self

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
    last_only = rest == divisor == 1  # then the only larger step would be the one behind the last window
    return extent, quotient + (0 if last_only else 1)


class GlobalAvgPool2d(_Pool2d, frozen=True):
    """The average of each whole map: C×H×W becomes C×1×1."""

    keyword: ClassVar[str] = "global-avgpool"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "avgpool"
    keras_type: ClassVar[str] = "GlobalAveragePooling2D"

    def output_shape(self, x: Shape) -> Shape:
        return _maps(self, x)[0], 1, 1

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _given_working(x, (1, 1))

    def window(self, x: Shape) -> Window:
        _, height, width = _maps(self, x)
        return Window((height, width), (height, width))

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return ()

    def in_inference(self, x: Shape) -> Layer | None:
        return AdaptiveAvgPool2d((1, 1)).in_inference(x)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.AdaptiveAvgPool2d(1)


class LocalResponseNorm(Layer, frozen=True):
    """Local response normalisation over neighbouring channels (Krizhevsky et al. 2012, Sect. 3.3).

    The options are torch's and Caffe's, where alpha is divided by the size: alpha 5e-4 here, over 5 channels, is
    Krizhevsky's alpha 1e-4 (k 2, n 5, beta 0.75), which the VGG paper takes over.

    Args:
        size: number of neighbouring channels.
        alpha: factor of their sum of squares, before it is divided by size.
        beta: exponent.
        k: additive constant.
    """

    size: Count = 5
    alpha: Number = 5e-4
    beta: Number = 0.75
    k: Number = 2.0

    keyword: ClassVar[str] = "LRN"
    primary: ClassVar[str | None] = "size"
    stem: ClassVar[str] = "lrn"
    role: ClassVar[Role] = "other"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "LocalResponseNormalization"

    def output_shape(self, x: Shape) -> Shape:
        return _maps(self, x)

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _unchanged(x)

    def parameters(self, x: Shape) -> dict[str, Shape]:
        return {}

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        return {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def multiply_accumulates(self, x: Shape) -> int:
        return 0

    def multiply_accumulates_working(self, x: Shape) -> Working:
        return NOTHING_MULTIPLIED

    def window(self, x: Shape) -> Window:
        return POINT

    def storage(self) -> Storage:
        return "new"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # torch.nn.functional.local_response_norm: x / (k + alpha · mean of the padded squares) ** beta
        channels, height, width = _maps(self, x)
        padded = (channels + self.size - 1, height, width)
        return Kept("input", x), Kept("padded squares", padded), Kept("base", x), Kept("divisor", x)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        squares = eager.op(x, x, keeps=(x, x))
        padded = eager.op(squares, shape=(x.shape[0] + self.size - 1, *x.shape[1:]))
        eager.release(squares)
        source, cast = eager.raise_precision(padded)
        means = eager.op(source, shape=x.shape, keeps=(source,))
        eager.release(cast, padded)
        scaled = eager.op(means)
        base = eager.add_number(scaled)
        eager.release(scaled)
        divisor = eager.power(base)
        eager.release(base, means)
        y = eager.divide(x, divisor)
        eager.release(divisor)
        return y

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.LocalResponseNorm(self.size, alpha=self.alpha, beta=self.beta, k=self.k)


class _Normalization(Layer, frozen=True):
    """Abstract: what batch and group normalisation have in common. They look at one position of the maps."""

    role: ClassVar[Role] = "norm"
    followers: ClassVar[tuple[str, ...]] = ()
    stem: ClassVar[str] = "norm"

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _unchanged(x)

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        scale = Working("c", str(x[0]), "a scale for each channel")
        shift = Working("c", str(x[0]), "a shift for each channel")
        return {name: {"weight": scale, "bias": shift}[name] for name in self.parameters(x)}

    def multiply_accumulates(self, x: Shape) -> int:
        return 0

    def multiply_accumulates_working(self, x: Shape) -> Working:
        return NOTHING_MULTIPLIED

    def window(self, x: Shape) -> Window:
        return POINT

    def storage(self) -> Storage:
        return "new"


class BatchNorm(_Normalization, frozen=True):
    """Batch normalisation (Ioffe & Szegedy 2015) of maps or of flat features.

    Args:
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics; None averages them all.
        affine: whether each channel has a trainable scale and shift.
        track_running_stats: whether running statistics are kept.
    """

    eps: Positive = 1e-5
    momentum: Annotated[float | None, Allowed("a number from 0 to 1, or null", minimum=0, maximum=1)] = 0.1
    affine: Flag = True
    track_running_stats: Flag = True

    keyword: ClassVar[str] = "batchnorm"
    primary: ClassVar[str | None] = None
    keras_type: ClassVar[str] = "BatchNormalization"

    def output_shape(self, x: Shape) -> Shape:
        return x

    def parameters(self, x: Shape) -> dict[str, Shape]:
        return {"weight": x[:1], "bias": x[:1]} if self.affine else {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        if not self.track_running_stats:
            return {}
        return {"running_mean": x[:1], "running_var": x[:1], "num_batches_tracked": ()}

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return Kept("input", x), Kept("mean", x[:1], per_image=False), Kept("inverse deviation", x[:1], per_image=False)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        of_batch = (eager.training and not eager.frozen) or not self.track_running_stats
        return eager.normalize(x, parameters, self.kept(x.shape)[1:] if of_batch else ())

    def in_inference(self, x: Shape) -> Layer | None:
        return replace(self, momentum=None)

    def module(self, x: Shape, nn: Any) -> Any:
        kind = nn.BatchNorm2d if len(x) == 3 else nn.BatchNorm1d
        return kind(
            x[0], eps=self.eps, momentum=self.momentum, affine=self.affine, track_running_stats=self.track_running_stats
        )


class GroupNorm(_Normalization, frozen=True, rename={"num_groups": "groups"}):
    """Group normalisation (Wu & He 2018; 32 groups are their default).

    Args:
        num_groups: the channels are split into so many groups, each normalised by itself; or a table of pairs, how
            many groups for how many channels.
        eps: added to the variance.
        affine: whether each channel has a trainable scale and shift.
    """

    num_groups: Table = 32
    eps: Positive = 1e-5
    affine: Flag = True

    keyword: ClassVar[str] = "groupnorm"
    primary: ClassVar[str | None] = "num_groups"
    keras_type: ClassVar[str] = "GroupNormalization"

    def settled(self, x: Shape) -> GroupNorm:
        """Return the same with the number of groups that the table has for so many channels."""
        return GroupNorm(self._groups(x), self.eps, self.affine)

    def _groups(self, x: Shape) -> int:
        if isinstance(self.num_groups, int):
            return self.num_groups
        groups = dict(self.num_groups)
        if x[0] not in groups:
            raise LayerError(f"its table of groups has no {x[0]} channels, only {', '.join(map(str, groups))}")
        return groups[x[0]]

    def output_shape(self, x: Shape) -> Shape:
        groups = self._groups(x)
        if x[0] % groups:
            raise LayerError(f"{groups} groups do not divide its {x[0]} channels")
        return x

    def parameters(self, x: Shape) -> dict[str, Shape]:
        return {"weight": x[:1], "bias": x[:1]} if self.affine else {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        groups = (self._groups(x),)
        return Kept("input", x), Kept("mean", groups), Kept("inverse deviation", groups)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return eager.normalize(x, parameters, self.kept(x.shape)[1:], decomposed=True)

    def in_inference(self, x: Shape) -> Layer | None:
        return self.settled(x)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.GroupNorm(self._groups(x), x[0], eps=self.eps, affine=self.affine)


class _ElementWise(Layer, frozen=True):
    """Abstract: what treats each value by itself. It changes no shape, has no parameters and sees one position."""

    def output_shape(self, x: Shape) -> Shape:
        return x

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return _unchanged(x)

    def parameters(self, x: Shape) -> dict[str, Shape]:
        return {}

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        return {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def multiply_accumulates(self, x: Shape) -> int:
        return 0

    def multiply_accumulates_working(self, x: Shape) -> Working:
        return NOTHING_MULTIPLIED

    def window(self, x: Shape) -> Window:
        return POINT


class _Activation(_ElementWise, frozen=True):
    """Abstract: an activation function that torch can only compute into new memory."""

    role: ClassVar[Role] = "activation"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "Activation"

    def storage(self) -> Storage:
        return "new"

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return self.as_one_operation(x, parameters, eager)


class InPlaceActivation(_ElementWise, frozen=True):
    """Abstract: an activation function that torch can compute in the input's place.

    Args:
        inplace: whether it does; the network switches it off where the input is needed elsewhere.
    """

    inplace: Flag = True

    role: ClassVar[Role] = "activation"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "Activation"

    def storage(self) -> Storage:
        return "in place" if self.inplace else "new"

    def in_inference(self, x: Shape) -> Layer | None:
        return replace(self, inplace=False)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return self.as_one_operation(x, parameters, eager)


class ReLU(InPlaceActivation, frozen=True):
    """max(0, x), behind every hidden layer of the paper (Sect. 2.1)."""

    keyword: ClassVar[str] = "relu"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "relu"
    keras_type: ClassVar[str] = "ReLU"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.ReLU(inplace=self.inplace)


class LeakyReLU(InPlaceActivation, frozen=True, kw_only=True):
    """x, or a fraction of it below 0.

    Args:
        negative_slope: that fraction.
    """

    negative_slope: Number = 0.01

    keyword: ClassVar[str] = "leaky-relu"
    primary: ClassVar[str | None] = "negative_slope"
    stem: ClassVar[str] = "leakyrelu"
    keras_type: ClassVar[str] = "LeakyReLU"

    def __post_init__(self) -> None:
        if self.negative_slope < 0:  # torch has no gradient for it in place
            force_setattr(self, "inplace", False)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output" if self.inplace else "input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        if self.negative_slope in (0, 1):
            return None if self.negative_slope else ReLU(inplace=False)
        return replace(self, inplace=False)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.LeakyReLU(self.negative_slope, inplace=self.inplace)


class ELU(InPlaceActivation, frozen=True, kw_only=True):
    """x, or alpha·(exp(x)−1) below 0.

    Args:
        alpha: that factor.
    """

    alpha: Number = 1.0

    keyword: ClassVar[str] = "elu"
    primary: ClassVar[str | None] = "alpha"
    stem: ClassVar[str] = "elu"
    keras_type: ClassVar[str] = "ELU"

    def __post_init__(self) -> None:
        if self.alpha < 0:  # torch has no gradient for it in place
            force_setattr(self, "inplace", False)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output" if self.inplace else "input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        return replace(self, inplace=False) if self.alpha else ReLU(inplace=False)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.ELU(self.alpha, inplace=self.inplace)


class SiLU(InPlaceActivation, frozen=True):
    """x·sigmoid(x)."""

    keyword: ClassVar[str] = "silu"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "silu"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # its gradient needs the input: working in place, autograd clones it first
        return (Kept("clone of the input" if self.inplace else "input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.SiLU(inplace=self.inplace)


class Hardtanh(InPlaceActivation, frozen=True, kw_only=True):
    """x, kept between two bounds.

    Args:
        min_val: the lower bound.
        max_val: the upper bound.
    """

    min_val: Number = -1.0
    max_val: Number = 1.0

    keyword: ClassVar[str] = "hardtanh"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "hardtanh"

    def output_shape(self, x: Shape) -> Shape:
        if self.max_val <= self.min_val:
            raise LayerError(f"max_val {self.max_val} is not above min_val {self.min_val}")
        return x

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("clone of the input" if self.inplace else "input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Hardtanh(self.min_val, self.max_val, inplace=self.inplace)


class GELU(_Activation, frozen=True):
    """x·Φ(x) (Hendrycks & Gimpel 2016).

    Args:
        approximate: "none", or "tanh" for the approximation.
    """

    approximate: Annotated[Literal["none", "tanh"], Allowed("none or tanh")] = "none"

    keyword: ClassVar[str] = "gelu"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "gelu"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.GELU(approximate=self.approximate)


class Tanh(_Activation, frozen=True):
    """The hyperbolic tangent."""

    keyword: ClassVar[str] = "tanh"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "tanh"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Tanh()


class Sigmoid(_Activation, frozen=True):
    """1/(1+exp(−x))."""

    keyword: ClassVar[str] = "sigmoid"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "sigmoid"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Sigmoid()


class Dropout(_ElementWise, frozen=True):
    """In training, sets values to zero with probability p (paper, Sect. 3.1: 0.5 behind the hidden FC layers).

    Args:
        p: that probability.
    """

    p: Rate = 0.5

    keyword: ClassVar[str] = "dropout"
    primary: ClassVar[str | None] = "p"
    stem: ClassVar[str] = "dropout"
    role: ClassVar[Role] = "dropout"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "Dropout"

    def storage(self) -> Storage:
        return "view"  # outside training it hands its input on

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        if not eager.training or self.p == 0:
            return eager.alias(x)
        if eager.device == "cuda":  # one kernel makes the output and a mask of bools
            return eager.op(x, extras=((elements(x.shape), 0),))
        mask = eager.like(x)
        y = eager.op(x, keeps=(mask,))
        eager.release(mask)
        return y

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("mask", x),) if self.p else ()

    def in_inference(self, x: Shape) -> Layer | None:
        return None

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Dropout(self.p)


class Flatten(Layer, frozen=True):
    """C×H×W to a flat vector.

    Args:
        order: "chw" as torch and Caffe flatten, or "hwc" as Keras does.
    """

    order: Annotated[Literal["chw", "hwc"], Allowed("chw or hwc")] = "chw"

    keyword: ClassVar[str] = "flatten"
    primary: ClassVar[str | None] = "order"
    stem: ClassVar[str] = "flatten"
    role: ClassVar[Role] = "other"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "Flatten"

    def output_shape(self, x: Shape) -> Shape:
        return (elements(x),)

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        rule = "c·h·w" if len(x) == 3 else "n"
        return (Working(rule, "·".join(map(str, x)), "all values, one behind the other"),)

    def parameters(self, x: Shape) -> dict[str, Shape]:
        return {}

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        return {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def multiply_accumulates(self, x: Shape) -> int:
        return 0

    def multiply_accumulates_working(self, x: Shape) -> Working:
        return NOTHING_MULTIPLIED

    def window(self, x: Shape) -> Window:
        """Return the whole map: a flat vector has one position, as if the layer behind it were a convolution."""
        return Window((x[1], x[2]), (1, 1)) if len(x) == 3 else POINT

    def storage(self) -> Storage:
        return "view" if self.order == "chw" else "new"

    def settled(self, x: Shape) -> Flatten:
        """Return the same as a view where both orders are one: of flat features, one channel, or one position."""
        return Flatten() if len(x) != 3 or x[0] == 1 or x[1:] == (1, 1) else self

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        if self.order == "chw":
            return eager.view(x, self.output_shape(x.shape))
        shuffled = self.as_one_operation(x, parameters, eager)
        flat = eager.view(shuffled, shuffled.shape)  # the last of its modules flattens without a copy
        eager.release(shuffled)
        return flat

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return ()

    def in_inference(self, x: Shape) -> Layer | None:
        return self.settled(x) if elements(x) > x[0] else None

    def module(self, x: Shape, nn: Any) -> Any:
        if self.order == "chw":
            return nn.Flatten()
        # a shuffle in C groups transposes C × (H·W), and so puts the channels last
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (elements(x), 1)), nn.ChannelShuffle(x[0]), nn.Flatten())


class Linear(Layer, frozen=True, rename={"out_features": "units"}):
    """A fully connected layer (FC in the paper).

    Args:
        out_features: number of units.
        bias: whether a bias is added.
    """

    out_features: Count
    bias: Flag = True

    keyword: ClassVar[str] = "FC"
    primary: ClassVar[str | None] = "out_features"
    stem: ClassVar[str] = "fc"
    role: ClassVar[Role] = "weight"
    followers: ClassVar[tuple[str, ...]] = ("activation", "dropout")
    keras_type: ClassVar[str] = "Dense"

    def output_shape(self, x: Shape) -> Shape:
        if len(x) != 1:
            raise LayerError(f"FC needs a flat input, but gets {times(x)}; put flatten before it")
        return (self.out_features,)

    def shape_working(self, x: Shape) -> tuple[Working, ...]:
        return (Working("m", str(self.out_features), "one for each unit"),)

    def parameters(self, x: Shape) -> dict[str, Shape]:
        weight = (self.out_features, x[0])
        return {"weight": weight, "bias": (self.out_features,)} if self.bias else {"weight": weight}

    def parameters_working(self, x: Shape) -> dict[str, Working]:
        weight = Working("n·m", f"{x[0]}·{self.out_features}", "each unit has a weight for each input")
        bias = Working("m", str(self.out_features), "one for each unit")
        return {"weight": weight, "bias": bias} if self.bias else {"weight": weight}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def multiply_accumulates(self, x: Shape) -> int:
        return x[0] * self.out_features

    def multiply_accumulates_working(self, x: Shape) -> Working:
        why = "each weight is used once; adding biases is not counted"
        return Working("n·m", f"{x[0]}·{self.out_features}", why)

    def window(self, x: Shape) -> Window:
        return POINT

    def storage(self) -> Storage:
        return "new"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return eager.linear(x, parameters["weight"], parameters.get("bias"), self.output_shape(x.shape))

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Linear(x[0], self.out_features, bias=self.bias)


class Softmax(_ElementWise, frozen=True):
    """Scores to probabilities, over the channels or features."""

    keyword: ClassVar[str] = "soft-max"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "softmax"
    role: ClassVar[Role] = "other"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "Softmax"

    def storage(self) -> Storage:
        return "new"

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return self.as_one_operation(x, parameters, eager)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Softmax(dim=1)


class LogSoftmax(_ElementWise, frozen=True):
    """The logarithm of soft-max; where a network ends in it, its output is log-probabilities."""

    keyword: ClassVar[str] = "log-softmax"
    primary: ClassVar[str | None] = None
    stem: ClassVar[str] = "logsoftmax"
    role: ClassVar[Role] = "other"
    followers: ClassVar[tuple[str, ...]] = ()
    keras_type: ClassVar[str] = "Activation"

    def storage(self) -> Storage:
        return "new"

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return self.as_one_operation(x, parameters, eager)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.LogSoftmax(dim=1)


KINDS: tuple[type[Layer], ...] = tuple(
    kind
    for kind in list(globals().values())
    if isinstance(kind, _LayerMeta) and issubclass(kind, Layer) and not getattr(kind, "__abstractmethods__", ())
)
"""Every layer kind: each final class above."""

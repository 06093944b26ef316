"""The types of Caffe's layers: one class for each, with how it is read and how it is written.

What a layer computes is said in Caffe's own sources, src/caffe/layers in BVLC/caffe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from msgspec.structs import replace

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Pair, Shape, elements, times
from vggkit.exchange.caffe.schema import OPTIONS
from vggkit.exchange.chain import Chain
from vggkit.exchange.layers import dropout, largest, with_windows
from vggkit.exchange.messages import Message
from vggkit.exchange.values import Values
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.layers.windows import Places, SteppingPool


class Sought(NamedTuple):
    """A layer that is read.

    Args:
        options: of its type.
        input_shape: of one image.
        blobs: its values, if the file has them.
    """

    options: Message
    input_shape: Shape
    blobs: Sequence[Values]


class Fixed(NamedTuple):
    """A blob that has no tensor: the same value everywhere.

    Args:
        value: that value.
        is_one: whether it is one value, rather than one for each channel.
    """

    value: float
    is_one: bool = False


class Said(NamedTuple):
    """A layer as Caffe says it.

    Args:
        type: Caffe's.
        options: the name of its options, and what they are; None if it has none.
        blobs: its values: tensors, by torch's names, and what has none.
    """

    type: str
    options: tuple[str, dict[str, Any]] | None = None
    blobs: tuple[str | Fixed, ...] = ()

    def message(self) -> Message | None:
        """Return its options as a message."""
        return None if self.options is None else Message(OPTIONS[self.options[0]][0], **self.options[1])


class CaffeKind(ABC):
    """A type of Caffe's layers."""

    word: ClassVar[str]
    """Its word."""
    options: ClassVar[str | None] = None
    """The name of its options."""
    takes: ClassVar[tuple[type[Layer], ...]] = ()
    """The layers that are written as it."""

    @abstractmethod
    def read(self, sought: Sought) -> Layer:
        """Return the layer that a layer of this type is.

        Raises:
            LayerError: if there is none; says why.
        """

    @abstractmethod
    def write(self, layer: Any, x: Shape) -> list[Said]:
        """Return the layers of Caffe that a layer is, one behind the other.

        Args:
            layer: of one of the kinds in `takes`.
            x: the shape of its input.

        Raises:
            LayerError: if there is none; says why.
        """

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        """Return the values of a layer, by torch's names."""
        if sought.blobs:
            raise LayerError(f"expected no blobs, found {len(sought.blobs)}")
        return {}

    def extend(self, chain: Chain, name: str, sought: Sought) -> None:
        """Add what a layer of this type is to a chain.

        Raises:
            LayerError: if no layer of a configuration is that; says why.
        """
        if sought.options.unknown:
            raise LayerError(f"{self.options} has {shorten(sought.options.unknown[0])}, which is not known")
        layer = self.read(sought)
        if layer.needs_flat:
            sought = sought._replace(input_shape=(elements(sought.input_shape),))
        chain.add(name, layer, self.values(sought, layer))


class Weighted(CaffeKind):
    """Abstract: a weight and perhaps a bias."""

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        wanted = layer.parameters(sought.input_shape)
        if not sought.blobs:
            return {}
        if len(sought.blobs) != len(wanted):
            raise LayerError(f"expected {len(wanted)} blobs, found {len(sought.blobs)}")
        return {
            role: self.turned(blob, sought).shaped(shape) for (role, shape), blob in zip(wanted.items(), sought.blobs)
        }

    def turned(self, blob: Values, sought: Sought) -> Values:
        """Return a blob with its axes in torch's order."""
        return blob

    def said(self, options: dict[str, Any], *, bias: bool) -> list[Said]:
        """Return it with options, and with a bias unless it says that it has none."""
        assert self.options is not None
        if bias:
            return [Said(self.word, (self.options, options), ("weight", "bias"))]
        return [Said(self.word, (self.options, {**options, "bias_term": False}), ("weight",))]


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


def _count(options: Message, word: str) -> int:
    value = options.get(word)
    if not isinstance(value, int) or not 1 <= value <= notation.LARGEST:
        raise LayerError(f"{word}: expected a whole number from 1, found {shorten(value)}")
    return value


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
            _count(options, "num_output"),
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


class InnerProduct(Weighted):
    """A fully connected layer, which flattens its input by itself."""

    word = "InnerProduct"
    options = "inner_product_param"
    takes = (notation.Linear,)

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("axis", 1) != 1:
            raise LayerError(f"it begins at axis {sought.options.get('axis')}; expected axis 1")
        return notation.Linear(_count(sought.options, "num_output"), bias=sought.options.get("bias_term", True))

    def turned(self, blob: Values, sought: Sought) -> Values:
        is_turned = sought.options.get("transpose", False) and len(blob.shape) == 2
        return blob.turned() if is_turned else blob

    def write(self, layer: notation.Linear, x: Shape) -> list[Said]:
        return self.said({"num_output": layer.out_features}, bias=layer.bias)


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


class LocalResponseNorm(CaffeKind):
    """LRN, with alpha divided by the size as in torch."""

    word = "LRN"
    options = "lrn_param"
    takes = (notation.LocalResponseNorm,)

    def read(self, sought: Sought) -> Layer:
        options = sought.options
        if options.get("norm_region", "ACROSS_CHANNELS") != "ACROSS_CHANNELS":
            raise LayerError("it normalises within each channel; expected ACROSS_CHANNELS")
        size = options.get("local_size", 5)
        if size % 2 == 0:
            raise LayerError(f"local_size: expected an odd number, found {size}")
        return notation.LocalResponseNorm(
            size, alpha=options.get("alpha", 1.0), beta=options.get("beta", 0.75), k=options.get("k", 1.0)
        )

    def write(self, layer: notation.LocalResponseNorm, x: Shape) -> list[Said]:
        if layer.size % 2 == 0:
            raise LayerError(f"Caffe's LRN has an odd size, and this one is {layer.size}")
        options = {"local_size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "k": layer.k}
        return [Said(self.word, (self.options, options))]


class BatchNorm(CaffeKind):
    """Batch normalisation without a scale and a shift, which are a layer of their own behind it.

    Its blobs are the sums of the means and of the variances, and how many were added up.
    """

    word = "BatchNorm"
    options = "batch_norm_param"
    takes = (notation.BatchNorm,)

    def read(self, sought: Sought) -> Layer:
        tracked = sought.options.get("use_global_stats", True)
        return notation.BatchNorm(eps=sought.options.get("eps", 1e-5), affine=False, track_running_stats=tracked)

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        if not sought.blobs or not layer.buffers(sought.input_shape):
            return {}
        if len(sought.blobs) != 3:
            raise LayerError(f"expected 3 blobs, found {len(sought.blobs)}")
        mean, variance, count = sought.blobs
        count = count.shaped((1,))
        channels = sought.input_shape[:1]
        return {
            "running_mean": _divided(mean.shaped(channels), count),
            "running_var": _divided(variance.shaped(channels), count),
        }

    def write(self, layer: notation.BatchNorm, x: Shape) -> list[Said]:
        options = {"use_global_stats": layer.track_running_stats, "eps": layer.eps}
        nothing = Fixed(0.0)
        blobs: tuple[str | Fixed, ...] = (nothing, nothing, Fixed(0.0, is_one=True))
        if layer.track_running_stats:
            blobs = ("running_mean", "running_var", Fixed(1.0, is_one=True))
        said = [Said(self.word, (self.options, options), blobs)]
        if layer.affine:
            said.append(Said(Scale.word, (Scale.options, {"bias_term": True}), ("weight", "bias")))
        return said


def _divided(sums: Values, count: Values) -> Values:
    def load() -> Any:
        (number,) = count.load()
        return sums.load() / number if number else sums.load() * 0

    return Values(sums.shape, sums.dtype, load)


class Scale(Weighted):
    """A scale of each channel, and perhaps a shift: what belongs to the batch normalisation before it."""

    word = "Scale"
    options = "scale_param"

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("axis", 1) != 1 or sought.options.get("num_axes", 1) != 1:
            raise LayerError("expected a scale of each channel: axis 1, one axis")
        return notation.BatchNorm()

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        wanted = 2 if sought.options.get("bias_term", False) else 1
        if sought.blobs and len(sought.blobs) != wanted:
            raise LayerError(f"expected {wanted} blobs, found {len(sought.blobs)}")
        channels = sought.input_shape[:1]
        return {role: blob.shaped(channels) for role, blob in zip(("weight", "bias"), sought.blobs)}

    def extend(self, chain: Chain, name: str, sought: Sought) -> None:
        chain.scale(self.values(sought, self.read(sought)))

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        raise NotImplementedError  # it is written by BatchNorm


class Dropout(CaffeKind):
    """Dropout."""

    word = "Dropout"
    options = "dropout_param"
    takes = (notation.Dropout,)

    def read(self, sought: Sought) -> Layer:
        if not sought.options.get("scale_train", True):
            raise LayerError("it scales values when it runs, not in training; expected scale_train: true")
        return dropout(sought.options.get("dropout_ratio", 0.5), "dropout_ratio")

    def write(self, layer: notation.Dropout, x: Shape) -> list[Said]:
        return [Said(self.word, (self.options, {"dropout_ratio": layer.p}))]


class ReLU(CaffeKind):
    """ReLU, with a slope below 0 leaky ReLU."""

    word = "ReLU"
    options = "relu_param"
    takes = (notation.ReLU, notation.LeakyReLU)

    def read(self, sought: Sought) -> Layer:
        slope = sought.options.get("negative_slope", 0.0)
        return notation.LeakyReLU(negative_slope=slope) if slope else notation.ReLU()

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        slope = layer.negative_slope if isinstance(layer, notation.LeakyReLU) else 0.0
        return [Said(self.word, (self.options, {"negative_slope": slope}) if slope else None)]


class ELU(CaffeKind):
    """ELU."""

    word = "ELU"
    options = "elu_param"
    takes = (notation.ELU,)

    def read(self, sought: Sought) -> Layer:
        return notation.ELU(alpha=sought.options.get("alpha", 1.0))

    def write(self, layer: notation.ELU, x: Shape) -> list[Said]:
        return [Said(self.word, (self.options, {"alpha": layer.alpha}) if layer.alpha != 1 else None)]


class Swish(CaffeKind):
    """x·sigmoid(beta·x)."""

    word = "Swish"
    options = "swish_param"
    takes = (notation.SiLU,)

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("beta", 1.0) != 1:
            raise LayerError(f"beta: expected 1, found {sought.options.get('beta')}")
        return notation.SiLU()

    def write(self, layer: notation.SiLU, x: Shape) -> list[Said]:
        return [Said(self.word)]


class Clip(CaffeKind):
    """Values between two bounds."""

    word = "Clip"
    options = "clip_param"
    takes = (notation.Hardtanh,)

    def read(self, sought: Sought) -> Layer:
        low, high = sought.options.get("min"), sought.options.get("max")
        if low is None or high is None:
            raise LayerError("expected min and max")
        return notation.Hardtanh(min_val=low, max_val=high)

    def write(self, layer: notation.Hardtanh, x: Shape) -> list[Said]:
        return [Said(self.word, (self.options, {"min": layer.min_val, "max": layer.max_val}))]


class Plain(CaffeKind):
    """Abstract: a type that is one layer without options."""

    layer: ClassVar[Layer]

    def read(self, sought: Sought) -> Layer:
        return self.layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        return [Said(self.word)]


class Sigmoid(Plain):
    """The logistic function."""

    word = "Sigmoid"
    options = "sigmoid_param"
    takes = (notation.Sigmoid,)
    layer = notation.Sigmoid()


class TanH(Plain):
    """The hyperbolic tangent."""

    word = "TanH"
    options = "tanh_param"
    takes = (notation.Tanh,)
    layer = notation.Tanh()


class Softmax(Plain):
    """Soft-max over the channels; behind it, a logarithm makes it log-soft-max."""

    word = "Softmax"
    options = "softmax_param"
    takes = (notation.Softmax, notation.LogSoftmax)
    layer = notation.Softmax()

    def read(self, sought: Sought) -> Layer:
        axis = sought.options.get("axis", 1)
        if axis % (len(sought.input_shape) + 1) != 1:
            raise LayerError(f"axis: expected 1, the channels, found {axis}")
        return self.layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        said = [Said(self.word)]
        return [*said, Said(Log.word)] if isinstance(layer, notation.LogSoftmax) else said


class Log(CaffeKind):
    """The natural logarithm, of a soft-max."""

    word = "Log"
    options = "log_param"

    def read(self, sought: Sought) -> Layer:
        options = sought.options
        if (options.get("base", -1.0), options.get("scale", 1.0), options.get("shift", 0.0)) != (-1, 1, 0):
            raise LayerError("expected a natural logarithm")
        return notation.LogSoftmax()

    def extend(self, chain: Chain, name: str, sought: Sought) -> None:
        if not chain.parts or chain.parts[-1].layer != notation.Softmax():
            raise LayerError("expected a soft-max before it")
        chain.parts[-1] = chain.parts[-1]._replace(layer=self.read(sought))

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        raise NotImplementedError  # it is written by Softmax


class SoftmaxWithLoss(Plain):
    """A loss behind soft-max, which is what a deployed network has in its place."""

    word = "SoftmaxWithLoss"
    options = "softmax_param"
    layer = notation.Softmax()


class Flatten(Plain):
    """Maps to a flat vector."""

    word = "Flatten"
    options = "flatten_param"
    takes = (notation.Flatten,)
    layer = notation.Flatten()

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("axis", 1) != 1 or sought.options.get("end_axis", -1) not in (-1, 3):
            raise LayerError("expected all axes behind the first to be flattened")
        return self.layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        if layer != notation.Flatten():
            raise LayerError("Caffe flattens channel by channel; another order has no word there")
        return super().write(layer, x)


_ALL: tuple[CaffeKind, ...] = (
    Convolution(), InnerProduct(), Pooling(), LocalResponseNorm(), BatchNorm(), Scale(), Dropout(), ReLU(), ELU(),
    Swish(), Clip(), Sigmoid(), TanH(), Softmax(), SoftmaxWithLoss(), Log(), Flatten(),
)  # fmt: skip

CAFFE_KINDS: dict[str, CaffeKind] = {kind.word: kind for kind in _ALL}
"""Every type that is read, by its word."""

WRITING: dict[type[Layer], CaffeKind] = {layer: kind for kind in _ALL for layer in kind.takes}
"""What each layer is written as."""

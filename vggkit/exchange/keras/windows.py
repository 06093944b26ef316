"""Keras's layers whose window steps over maps, and what is put around maps for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Pair, Shape, times
from vggkit.exchange.keras.rules import CHANNELS_LAST, KerasKind, Options, Place, Said, WrittenKind, format_fault, made
from vggkit.exchange.keras.rules import pair as read_pair
from vggkit.exchange.keras.walk import NONE, Pads, Walk, is_positive
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.layers.windows import SteppingPool

UNEVEN = "padding 'same', more on one side"


def same_pads(sizes: Pair, extent: Pair, strides: Pair) -> Pads:
    """Return what Keras adds for `padding="same"`: as many windows as strides fit, more behind than before.

    Source: `_compute_padding_length` in keras/src/backend/torch/nn.py.
    """
    totals = [
        max((-(-size // stride) - 1) * stride + window - size, 0) if stride > 1 else window - 1
        for size, window, stride in zip(sizes, extent, strides)
    ]
    before = totals[0] // 2, totals[1] // 2
    return Pads(before, (totals[0] - before[0], totals[1] - before[1]))


def counts(sizes: Pair, pads: Pads, extent: Pair, strides: Pair) -> Pair:
    """Return how many windows there are in height and width."""
    height, width = (
        (size + before + behind - window) // stride + 1
        for size, before, behind, window, stride in zip(sizes, pads.before, pads.behind, extent, strides)
    )
    return height, width


def are_as_even(sizes: Pair | None, pads: Pads, extent: Pair, strides: Pair) -> bool:
    """Tell whether windows see the same if as much is added behind the maps as before."""
    if sizes is None:
        return pads.is_even
    even = Pads(pads.before, pads.before)
    return counts(sizes, even, extent, strides) == counts(sizes, pads, extent, strides)


class Window(KerasKind):
    """Abstract: a layer with a window."""

    takes_zeros = True

    def pads(self, options: Options, walk: Walk, extent: Pair, strides: Pair) -> Pads:
        """Return what it adds around the maps itself."""
        padding = options.get("padding")
        if padding in (None, "valid"):
            return NONE
        if padding != "same":
            raise ValueError(f"padding: expected valid or same, found {shorten(padding)}")
        if walk.shape is None and strides != (1, 1):
            raise ValueError("it depends on the size of the input")
        return same_pads(_sizes(walk) or (1, 1), extent, strides)


def _sizes(walk: Walk) -> Pair | None:
    """Return height and width of the maps, with the zeros that were added around them."""
    if walk.shape is None:
        return None
    height, width = _sides(walk.shape)
    (top, left), (bottom, right) = walk.zeros
    return height + top + bottom, width + left + right


def _sides(shape: Shape) -> Pair:
    """Return height and width of maps."""
    if len(shape) != 3:
        raise LayerError(f"its input is flat ({shape[0]} features)")
    return shape[1], shape[2]


def _sum(one: Pads, other: Pads) -> Pads:
    (top, left), (bottom, right) = one
    (above, before), (below, behind) = other
    return Pads((top + above, left + before), (bottom + below, right + behind))


def zeros(pads: Pads) -> Said:
    """Return the layer that adds zeros around maps."""
    (top, left), (bottom, right) = pads
    return Said(ZeroPadding2D.word, {"padding": [[top, bottom], [left, right]], **CHANNELS_LAST}, suffix="pad")


class ZeroPadding2D(KerasKind):
    """Zeros around maps, which belong to the window that comes next."""

    word = "ZeroPadding2D"
    takes_zeros = True

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        padding = options.get("padding", 1)
        sides = [read_pair(side, 0) for side in (padding if isinstance(padding, list) else [padding] * 2)]
        (top, bottom), (left, right) = sides
        walk.zeros = _sum(walk.zeros, Pads((top, left), (bottom, right)))
        yield from format_fault(options)


class Conv2D(Window, WrittenKind):
    """A convolution, with the activation behind it."""

    word = "Conv2D"
    takes = (notation.Conv2d,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        kernel, strides = read_pair(options["kernel_size"]), read_pair(options.get("strides", 1))
        dilation = read_pair(options.get("dilation_rate", 1))
        extent = dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1
        own = self.pads(options, walk, extent, strides)
        around = walk.take_zeros()
        pads = _sum(own, around)
        sizes = None if walk.shape is None else _sides(walk.shape)
        same = pads.before == (extent[0] // 2, extent[1] // 2) and extent[0] % 2 == extent[1] % 2 == 1
        yield made(
            "conv",
            channels=options["filters"],
            kernel=kernel,
            stride=strides,
            padding="same" if same else pads.before,
            dilation=dilation,
            groups=options.get("groups", 1),
            bias=options.get("use_bias", True),
        )
        yield from format_fault(options)
        if not are_as_even(sizes, pads, extent, strides):
            yield UNEVEN if own else "zeros, more on one side"

    def roles(self, options: Options) -> tuple[str, ...]:
        return ("weight", "bias") if options.get("use_bias", True) else ("weight",)

    def write(self, layer: notation.Conv2d, place: Place) -> list[Said]:
        plain = layer.in_inference(place.input_shape)
        assert isinstance(plain, notation.Conv2d)
        if plain.padding_mode != "zeros":
            raise LayerError(f"Keras has no layer that pads with padding_mode {layer.padding_mode}")
        if max(plain.stride) > 1 and max(plain.dilation) > 1:
            raise LayerError("Keras has no convolution with a stride and a dilation")
        (height, width), dilation = plain.kernel_size, plain.dilation
        extent = dilation[0] * (height - 1) + 1, dilation[1] * (width - 1) + 1
        before, padding = _around(plain.pads(), place, extent, plain.stride)
        options = {
            "filters": layer.out_channels,
            "kernel_size": [*plain.kernel_size],
            "strides": [*plain.stride],
            "padding": padding,
            "dilation_rate": [*plain.dilation],
            "groups": layer.groups,
            "use_bias": layer.bias,
            "activation": "linear",
            **CHANNELS_LAST,
        }
        return [*before, Said(self.word, options, self.roles(options))]


def _around(pads: Pair, place: Place, extent: Pair, strides: Pair) -> tuple[list[Said], str]:
    """Return how Keras says a padding with zeros: as a layer, and as the option of the layer behind it."""
    even = Pads(pads, pads)
    if not even:
        return [], "valid"
    _, height, width = place.input_shape
    same = same_pads((height, width), extent, strides)
    if same.before == pads and are_as_even((height, width), same, extent, strides):
        return [], "same"
    return [zeros(even)], "valid"


class Pool(Window, WrittenKind):
    """Abstract: a pool with a window."""

    def window(self, options: Options) -> tuple[Pair, Pair]:
        """Return the window's size, and how far it steps."""
        kernel = read_pair(options.get("pool_size", 2))
        return kernel, kernel if options.get("strides") is None else read_pair(options["strides"])

    def said(self, kernel: Pair, strides: Pair, padding: str, suffix: str = "") -> Said:
        """Return a pool of this class."""
        options = {"pool_size": [*kernel], "strides": [*strides], "padding": padding, **CHANNELS_LAST}
        return Said(self.word, options, suffix=suffix)


class MaxPooling2D(Pool):
    """Max pooling; what is around the maps is never the largest."""

    word = "MaxPooling2D"
    takes = (notation.MaxPool2d,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        kernel, strides = self.window(options)
        own = self.pads(options, walk, kernel, strides)
        around = walk.take_zeros()
        pads = _sum(own, around)
        plain: Any = made("maxpool", kernel=kernel, stride=strides, padding=pads.before)
        up = replace(plain, ceil_mode=True)
        if walk.shape is None:
            yield plain if pads.is_even else up
        else:
            wanted = counts(_sides(walk.shape), pads, kernel, strides)
            fitting = [layer for layer in (plain, up) if _places(layer, walk.shape) == wanted]
            yield fitting[0] if fitting else up
            if not fitting:
                yield UNEVEN if own else "zeros, more on one side"
        yield from format_fault(options)
        if around and not walk.is_positive():
            yield "zeros around maps with values below 0"

    def write(self, layer: notation.MaxPool2d, place: Place) -> list[Said]:
        x = place.input_shape
        plain = layer.in_inference(x) or layer
        assert isinstance(plain, notation.MaxPool2d)
        if plain.dilation != (1, 1):
            raise LayerError("Keras's pools have no dilation")
        kernel, strides, pads = plain.kernel_size, plain.stride, plain.padding
        _, height, width = x
        sizes, wanted = (height, width), layer.output_shape(x)[1:]
        if pads == (0, 0) and counts(sizes, NONE, kernel, strides) == wanted:
            return [self.said(kernel, strides, "valid")]
        same = same_pads(sizes, kernel, strides)
        if same.before == pads and counts(sizes, same, kernel, strides) == wanted:
            return [self.said(kernel, strides, "same")]
        if is_positive([*place.before]):
            return [zeros(Pads(pads, _ends(plain, x))), self.said(kernel, strides, "valid")]
        # the largest of each window at every place, and of these the first and every so many behind it
        every = same_pads(sizes, kernel, (1, 1))
        if every.before == pads and counts(sizes, NONE, (1, 1), strides) == wanted:
            return [self.said(kernel, (1, 1), "same"), self.said((1, 1), strides, "valid", "stride")]
        raise LayerError(f"Keras has no max pool that pads its {times(sizes)} input by {times(pads)} as this one does")


def _places(pool: SteppingPool, x: Shape) -> Pair | None:
    """Return how many windows a pool has in height and width; None where not even one fits."""
    try:
        _, height, width = pool.output_shape(x)
    except LayerError:
        return None
    return height, width


def _ends(layer: SteppingPool, x: Shape) -> Pair:
    """Return what its windows need behind the maps."""
    height, width = (
        max((axis.number - 1) * axis.stride + axis.kernel - axis.size - axis.padding, 0) for axis in layer.places(x)
    )
    return height, width


class AveragePooling2D(Pool):
    """Average pooling over what of a window lies in the maps."""

    word = "AveragePooling2D"
    takes = (notation.AvgPool2d, notation.AdaptiveAvgPool2d)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        kernel, strides = self.window(options)
        own = self.pads(options, walk, kernel, strides)
        around = walk.take_zeros()
        pads = _sum(own, around)
        sizes = None if walk.shape is None else _sides(walk.shape)
        yield made("avgpool", kernel=kernel, stride=strides, padding=pads.before, count_include_pad=not own)
        if own and (around or not own.is_even):  # Keras's backends differ where more is on one side
            yield "padding 'same'"
        elif not are_as_even(sizes, pads, kernel, strides):
            yield "zeros, more on one side"
        yield from format_fault(options)

    def write(self, layer: Layer, place: Place) -> list[Said]:
        if isinstance(layer, notation.AdaptiveAvgPool2d):
            return _to_size(layer.output_size, place)
        assert isinstance(layer, notation.AvgPool2d)
        x, (height, width) = place.input_shape, layer.kernel_size
        if layer.divisor_override not in (None, height * width):
            raise LayerError("Keras's average pool divides by its window's size; divisor_override has no word there")
        even, sizes = Pads(layer.padding, layer.padding), (x[1], x[2])
        if counts(sizes, even, layer.kernel_size, layer.stride) != layer.output_shape(x)[1:]:
            raise LayerError("Keras has no average pool whose last window lies partly outside of the maps")
        window = self.said(layer.kernel_size, layer.stride, "valid")
        if not even:
            return [window]
        if layer.count_include_pad or layer.divisor_override is not None:
            return [zeros(even), window]
        if same_pads(sizes, layer.kernel_size, layer.stride) == even:
            return [self.said(layer.kernel_size, layer.stride, "same")]
        raise LayerError(
            f"Keras has no average pool that pads its {times(sizes)} input by {times(layer.padding)}, which does not"
            f" count"
        )


def _to_size(size: Pair, place: Place) -> list[Said]:
    _, height, width = place.input_shape
    if size == (1, 1):
        return GlobalAveragePooling2D().write(notation.GlobalAvgPool2d(), place)
    if height % size[0] or width % size[1]:
        return [Said(AdaptiveAveragePooling2D.word, {"output_size": [*size], **CHANNELS_LAST})]
    window = height // size[0], width // size[1]
    return [AveragePooling2D().said(window, window, "valid")]


class AdaptiveAveragePooling2D(KerasKind):
    """Average pooling to a given size."""

    word = "AdaptiveAveragePooling2D"

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield made("adaptive-avgpool", size=read_pair(options["output_size"]))
        yield from format_fault(options)


class GlobalPool(KerasKind):
    """Abstract: one value for each map. Keras has flat features then, unless it is asked to keep the axes."""

    is_top = True

    def _reduced(self, options: Options, walk: Walk) -> None:
        walk.is_flat = walk.owes_flatten = not options.get("keepdims")


class GlobalAveragePooling2D(GlobalPool, WrittenKind):
    """The average of each map."""

    word = "GlobalAveragePooling2D"
    takes = (notation.GlobalAvgPool2d,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield made("global-avgpool")
        self._reduced(options, walk)
        yield from format_fault(options)

    def write(self, layer: Layer, place: Place) -> list[Said]:
        keeps = not (place.behind and place.behind[0].flattens)
        return [Said(self.word, {"keepdims": keeps, **CHANNELS_LAST})]


class GlobalMaxPooling2D(GlobalPool):
    """The largest value of each map."""

    word = "GlobalMaxPooling2D"

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        if walk.shape is None:
            yield made("global-avgpool")  # in its place
            yield "the largest value of maps of any size"
        else:
            sides = _sides(walk.shape)
            yield made("maxpool", kernel=sides, stride=sides)
        self._reduced(options, walk)
        yield from format_fault(options)

"""What a Keras model's description says: its layers, a configuration, and what of it no configuration can express.

Source for what each option means: the `get_config` and `call` of each layer in the Keras documentation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import VggkitError, escaped, shorten
from vggkit.model.weights.container import MOST_NAME
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import Conv2d, Dropout, Flatten, GroupNorm, Layer, Pair, Shape
from vggkit.notation.spelling import parse, spell_value

# Its layers

MOST_LAYERS = 10**4
MOST_PIXELS = 10**6


class KerasLayer(msgspec.Struct, frozen=True):
    """A layer of a description.

    Args:
        word: Keras's class.
        name: its name.
        options: its options.
        inputs: names of the layers whose outputs it takes, where they are said.
    """

    word: str
    name: str
    options: dict[str, Any]
    inputs: tuple[str, ...] = ()


class KerasLayers(msgspec.Struct, frozen=True):
    """What a description says.

    Args:
        layers: in order.
        input: channels × height × width of an image; None if it takes several sizes.
        channels: of an image; None if that is not said.
    """

    layers: tuple[KerasLayer, ...] = ()
    input: Shape | None = None
    channels: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, in order."""
        return tuple(layer.name for layer in self.layers)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of layers that take several outputs, or whose output several layers take."""
        taken = Counter(name for layer in self.layers for name in layer.inputs)
        return tuple(layer.name for layer in self.layers if len(layer.inputs) > 1 or taken[layer.name] > 1)


def keras_layers(description: Any) -> KerasLayers:
    """Read the description of a model, the JSON of its configuration.

    Args:
        description: anybody's; what Keras would not write is passed by.
    """
    layers = tuple(islice(_layers(description), MOST_LAYERS))
    channels, height, width = next(filter(None, map(_sides, layers)), (None, None, None))
    shape = (channels, height, width) if channels and height and width else None
    return KerasLayers(layers, shape, channels)


def _layers(description: Any) -> Iterator[KerasLayer]:
    """Yield the layers of a model in order, those of models inside it too."""
    waiting = [description]
    while waiting:
        layer = waiting.pop()
        config = layer.get("config") if isinstance(layer, dict) else None
        if not isinstance(config, dict):
            continue
        inner = config.get("layers")
        if isinstance(inner, list):
            waiting += reversed(inner)
        elif isinstance(config.get("name"), str):
            inputs = tuple(islice(_inputs(layer.get("inbound_nodes")), MOST_LAYERS))
            yield KerasLayer(_shown(layer.get("class_name")), _shown(config["name"]), config, inputs)


def _shown(name: Any) -> str:
    """Return a name as it may be printed."""
    return escaped(name if isinstance(name, str) and len(name) <= MOST_NAME else shorten(name))


def _inputs(nodes: Any) -> Iterator[str]:
    """Yield the names in `["conv", 0, 0]`, which stand for a layer's output, wherever they are in its calls."""
    waiting = [nodes]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list) and len(node) > 2 and isinstance(node[0], str) and node[1:3] == [0, 0]:
            yield node[0]
        elif isinstance(node, list):
            waiting += node


def _sides(layer: KerasLayer) -> tuple[int | None, int | None, int | None] | None:
    """Return an image's sides in torch's order of axes; an input layer has them behind the batch."""
    said = layer.options.get("batch_shape") or layer.options.get("batch_input_shape")
    if not isinstance(said, list) or len(said) != 4:
        return None
    height, width, channels = (side if _is_side(side) else None for side in said[1:])
    return channels, height, width


def _is_side(side: Any) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MOST_PIXELS


# Its configuration


class Departure(NamedTuple):
    """What a description says and no configuration can express.

    Args:
        text: it, in Keras's words.
        behind: how many convolutions and FC layers come before it, counting the one that it belongs to.
        top: whether it stands behind the maps, in the classifier.
    """

    text: str
    behind: int
    top: bool


class Description(NamedTuple):
    """What a description says of a network.

    Args:
        config: as much of it as a configuration can express; None if that is nothing.
        departures: the rest.
    """

    config: Config | None
    departures: tuple[Departure, ...]


def described_config(said: KerasLayers, name: str, channels: int) -> Description:
    """Write a description as a configuration.

    Args:
        said: the layers in order.
        name: what to call the network.
        channels: of the input, where the description has none.
    """
    reader = _Reader(said, channels)
    for layer in said.layers:
        reader.read(layer)
    for branching in said.branches:
        reader.departs(f"more than one way through {branching}")
    return Description(reader.config(name), tuple(reader.departures))


class _Reader:
    """Reads one layer after the other.

    Args:
        said: the layers in order.
        channels: of the input, where the description has none.
    """

    def __init__(self, said: KerasLayers, channels: int) -> None:
        self.input = said.input
        self.channels = said.channels or channels
        self.shape: Shape | None = said.input
        self.entries: list[Entry] = []
        self.tops: list[bool] = []
        self.departures: list[Departure] = []
        self.top = self.flat = False

    def departs(self, text: str) -> None:
        behind = sum(entry.layer.is_weight_layer for entry in self.entries)
        self.departures.append(Departure(text, behind, self.top))

    def read(self, layer: KerasLayer) -> None:
        reader = READERS.get(layer.word)
        if layer.word.startswith("Random") or layer.word in TRAINING_ALONE:
            return
        if layer.word in TOP:
            self.top = True
        if reader is None:
            self.departs(f"{layer.word} of {layer.name}")
            return
        try:
            for word in reader(self, layer.options):
                if isinstance(word, Layer):
                    self.add(word)
                else:
                    self.departs(f"{word} of {layer.name}")
        except (VggkitError, ValueError, TypeError, KeyError, OverflowError):  # anybody may have written it
            self.departs(f"options of {layer.name}")

    def add(self, layer: Layer) -> None:
        """Place a layer: in the entry before it where that takes it, else in an entry of its own."""
        self.shape = None if self.shape is None else layer.output_shape(self.shape)
        last = self.entries[-1] if self.entries and self.tops[-1] == self.top else None
        free = last is not None and last.layer.is_weight_layer and last.activation is None and not last.dropout
        if last is not None and free and layer.is_norm and last.norm is None:
            self.entries[-1] = replace(last, norm=layer)
        elif last is not None and free and layer.is_activation:
            self.entries[-1] = replace(last, activation=layer)
        elif last is not None and isinstance(layer, Dropout) and last.layer.is_weight_layer and not last.dropout:
            self.entries[-1] = replace(last, dropout=layer.p)
        else:
            self.entries.append(Entry(layer))
            self.tops.append(self.top)

    def config(self, name: str) -> Config | None:
        """Return all that was read, its blocks ending in pools."""
        blocks: list[tuple[Entry, ...]] = []
        block: list[Entry] = []
        for entry, top in zip(self.entries, self.tops):
            if not top:
                block.append(entry)
            if block and not top and entry.layer.is_pool:
                blocks.append(tuple(block))
                block = []
        blocks += [tuple(block)] if block else []
        classifier = list(_without_plain_flatten([entry for entry, top in zip(self.entries, self.tops) if top]))
        if not self.entries:
            return None
        return Config(name, input=self.input or self._any_input(), blocks=tuple(blocks), classifier=tuple(classifier))

    def _any_input(self) -> Shape:
        """Return an input that ends in maps of 7×7, as the paper's does."""
        height = width = 7
        for entry in self.entries:
            stride: Pair = getattr(entry.layer, "stride", (1, 1))
            height, width = height * stride[0], width * stride[1]
        return self.channels, height, width

    # Kinds of layers: each yields layers, and words for what a configuration can't express

    def convolution(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        kernel, strides = _pair(options["kernel_size"]), _pair(options.get("strides", 1))
        dilation = _pair(options.get("dilation_rate", 1))
        extent = dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1
        pads, odd = self._pads(options.get("padding"), extent, strides)
        fault = self._fault(options) or ("padding 'same', more on one side" if odd else None)
        same = pads == (extent[0] // 2, extent[1] // 2) and extent[0] % 2 == extent[1] % 2 == 1
        yield _layer(
            "conv",
            channels=options["filters"],
            kernel=kernel,
            stride=strides,
            padding="same" if same else pads,
            dilation=dilation,
            groups=options.get("groups", 1),
            bias=options.get("use_bias", True),
        )
        if fault:
            yield fault
        yield from _activated(options)

    def max_pool(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        kernel = _pair(options.get("pool_size", 2))
        strides = kernel if options.get("strides") is None else _pair(options["strides"])
        pads, odd = self._pads(options.get("padding"), kernel, strides)
        # values behind the right and lower edge are never the largest: a last window may be cut off there
        yield _layer("maxpool", kernel=kernel, stride=strides, padding=pads, ceil_mode=odd)
        if fault := self._fault(options):
            yield fault

    def average_pool(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        kernel = _pair(options.get("pool_size", 2))
        strides = kernel if options.get("strides") is None else _pair(options["strides"])
        pads, odd = self._pads(options.get("padding"), kernel, strides)
        yield _layer("avgpool", kernel=kernel, stride=strides)
        if odd or pads != (0, 0):  # Keras averages what is inside
            yield "padding 'same'"
        if fault := self._fault(options):
            yield fault

    def global_average(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        yield _layer("global-avgpool")
        self.flat = not options.get("keepdims")
        if fault := self._fault(options):
            yield fault

    def global_max(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        if self.shape is None:
            yield _layer("global-avgpool")  # in its place
            yield "the largest value of maps of any size"
        else:
            yield _layer("maxpool", kernel=self.shape[1:], stride=self.shape[1:])
        self.flat = not options.get("keepdims")
        if fault := self._fault(options):
            yield fault

    def flatten(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        if not self.flat:
            yield Flatten()
        self.flat = True
        if fault := self._fault(options):
            yield fault

    def dense(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        flat, self.flat = self.flat or (self.shape is not None and len(self.shape) == 1), True
        if self.shape is not None and len(self.shape) == 3:
            self.shape = Flatten().output_shape(self.shape)
        yield _layer("FC", units=options["units"], bias=options.get("use_bias", True))
        if not flat:
            yield "maps that are not flattened"
        yield from _activated(options)

    def batch_norm(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        yield _layer("batchnorm", eps=options.get("epsilon", 1e-3), momentum=1 - options.get("momentum", 0.99))
        if fault := self._norm_fault(options):
            yield fault

    def group_norm(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        groups = options.get("groups", 32)
        if groups == -1:  # one for each channel
            widths = [entry.layer.out_channels for entry in self.entries if isinstance(entry.layer, Conv2d)]
            groups = (widths or [self.channels])[-1]
        yield _layer("groupnorm", groups=groups, eps=options.get("epsilon", 1e-3))
        if fault := self._norm_fault(options):
            yield fault

    def dropout(self, options: dict[str, Any]) -> Iterator[Layer | str]:
        if options.get("rate"):
            yield _layer("dropout", p=options["rate"])

    def _fault(self, options: dict[str, Any]) -> str | None:
        format = options.get("data_format")
        return f"data_format {shorten(format)}" if format not in (None, "channels_last") else None

    def _norm_fault(self, options: dict[str, Any]) -> str | None:
        axis = options.get("axis", -1)
        last = [-1] if self.flat else [-1, 3]
        if axis not in (*last, *([one] for one in last)):
            return f"axis {shorten(axis)}"
        return next((f"{word} {options[word]}" for word in ("center", "scale") if options.get(word) is False), None)

    def _pads(self, padding: Any, extent: Pair, strides: Pair) -> tuple[Pair, bool]:
        """Return the padding before the first row and column, and whether there is one more after the last."""
        if padding in (None, "valid"):
            return (0, 0), False
        if padding != "same":
            raise ValueError(padding)
        if self.shape is None and strides != (1, 1):
            raise ValueError("it depends on the size of the input")
        sizes = (1, 1) if self.shape is None else self.shape[1:]
        totals = [
            max((-(-size // stride) - 1) * stride + window - size, 0)
            for size, window, stride in zip(sizes, extent, strides)
        ]
        return (totals[0] // 2, totals[1] // 2), any(total % 2 for total in totals)


def _without_plain_flatten(entries: list[Entry]) -> Iterator[Entry]:
    """Yield entries: an FC layer flattens by itself, and what else takes flattened maps has them in Keras's order."""
    for place, entry in enumerate(entries):
        if not entry.layer.flattens:
            yield entry
            continue
        behind = entries[place + 1 :]
        until = next((n for n, other in enumerate(behind) if other.layer.needs_flat), None)
        between = behind[:until]
        if until is None or any(isinstance(other.layer, GroupNorm) for other in between):
            yield Entry(Flatten("hwc"))
        elif between:
            yield entry


def _layer(keyword: str, **options: Any) -> Layer:
    """Return a layer by the notation's words, every value checked as that of a file."""
    return parse({keyword: {word: spell_value(value) for word, value in options.items()}}).layer()


def _pair(value: Any) -> Pair:
    """Return height and width of an option, which may be given as one number."""
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or not all(isinstance(side, int) and 0 < side < 10**6 for side in sides):
        raise ValueError(value)
    return sides


# Activations


def _activated(options: dict[str, Any]) -> Iterator[Layer | str]:
    """Yield the activation that a layer has as an option: its name, or a layer as JSON."""
    yield from _activation(options.get("activation"))


def _activation(said: Any) -> Iterator[Layer | str]:
    if isinstance(said, dict) and isinstance(said.get("config"), dict):
        yield from ACTIVATIONS.get(str(said.get("class_name")), _unknown(said.get("class_name")))(said["config"])
    elif isinstance(said, dict) and isinstance(said.get("config"), str):  # a function
        yield from _activation(said["config"])
    elif said not in (None, "linear"):
        words = NAMED.get(said) if isinstance(said, str) else None
        yield f"activation {shorten(said)}" if words is None else parse(words).layer()


def _unknown(word: Any) -> Callable[[dict[str, Any]], Iterable[Layer | str]]:
    return lambda _: [f"activation {shorten(word)}"]


NAMED: dict[str, Any] = {
    "relu": "relu",
    "elu": "elu",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softmax": "soft-max",
    "log_softmax": "log-softmax",
    "leaky_relu": {"leaky-relu": 0.2},
    "relu6": {"hardtanh": {"min_val": 0, "max_val": 6}},
    "hard_tanh": "hardtanh",
}
"""Keras's names of activations, in the notation."""


def _relu(options: dict[str, Any]) -> Iterator[Layer | str]:
    slope, most, threshold = (options.get(word) for word in ("negative_slope", "max_value", "threshold"))
    if threshold:
        yield f"threshold {shorten(threshold)}"
    if most is not None and slope:
        yield f"max_value {shorten(most)}"
    elif most is not None:
        yield _layer("hardtanh", min_val=0, max_val=most)
    else:
        yield _layer("leaky-relu", negative_slope=slope) if slope else parse("relu").layer()


def _leaky(options: dict[str, Any]) -> Iterator[Layer | str]:
    yield _layer("leaky-relu", negative_slope=options.get("negative_slope", options.get("alpha", 0.3)))


def _elu(options: dict[str, Any]) -> Iterator[Layer | str]:
    yield _layer("elu", alpha=options.get("alpha", 1.0))


def _softmax(options: dict[str, Any]) -> Iterator[Layer | str]:
    axis = options.get("axis", -1)
    yield parse("soft-max").layer() if axis in (-1, [-1]) else f"axis {shorten(axis)}"


ACTIVATIONS: dict[str, Callable[[dict[str, Any]], Iterable[Layer | str]]] = {
    "Activation": _activated,
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": _elu,
    "Softmax": _softmax,
}
"""Keras's layers that are activations."""

Reader = Callable[[_Reader, dict[str, Any]], Iterable[Layer | str]]


def _apart(function: Callable[[dict[str, Any]], Iterable[Layer | str]]) -> Reader:
    return lambda _, options: function(options)


READERS: dict[str, Reader] = {
    "InputLayer": lambda *_: (),
    "Conv2D": _Reader.convolution,
    "MaxPooling2D": _Reader.max_pool,
    "AveragePooling2D": _Reader.average_pool,
    "GlobalAveragePooling2D": _Reader.global_average,
    "GlobalMaxPooling2D": _Reader.global_max,
    "Flatten": _Reader.flatten,
    "Dense": _Reader.dense,
    "BatchNormalization": _Reader.batch_norm,
    "GroupNormalization": _Reader.group_norm,
    "Dropout": _Reader.dropout,
    **{word: _apart(function) for word, function in ACTIVATIONS.items()},
}
"""Keras's layers that the notation has."""

TRAINING_ALONE = (
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
)
"""Layers that do nothing in inference and have no place in the notation; so do those that change pictures at random."""

TOP = ("Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Dense")
"""The classifier begins with one of these."""

"""Config → Network: the flat, ordered list of placed layers, each with its name and shapes.

What the notation leaves implicit (ReLU, normalisation, dropout, flatten) is made explicit here, once. The figures, the
memory plan, the torch module and the weights all read this list, and nobody walks the shapes a second time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol, SupportsIndex

import msgspec

from vggkit.base.errors import (
    ArgumentError,
    ConfigError,
    LayerError,
    Position,
    Problem,
    TooSmallError,
    did_you_mean,
    shorten,
)
from vggkit.base.numbers import whole
from vggkit.base.shapes import Pair, Shape, times
from vggkit.base.tables import Column, Table, grid, html
from vggkit.modules.told import TorchModule, is_module
from vggkit.notation.config import Config, Entry, last_weight
from vggkit.notation.layers import LARGEST, Dropout, Flatten, Layer
from vggkit.notation.overrides import Overrides
from vggkit.notation.spelling import FOLLOWERS, describe
from vggkit.notation.zoo import load

if TYPE_CHECKING:
    from typing_extensions import Unpack

ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
"""Bytes per element of each dtype, by torch's name."""


class TorchDtype(Protocol):
    """A dtype of torch, described so that a type checker needs no torch."""

    @property
    def is_floating_point(self) -> bool:
        """Whether its elements are floating-point numbers."""


Dtype = str | TorchDtype
"""A dtype, by torch's name or torch's own."""


def dtype_name(dtype: Dtype) -> str:
    """Return torch's name of a dtype.

    Args:
        dtype: `"float16"` or `torch.float16`.

    Raises:
        ArgumentError: if networks can't be built in it.

    >>> dtype_name("float16")
    'float16'
    """
    name = str(dtype).removeprefix("torch.")
    if name in ELEMENT_BYTES:
        return name
    advice = did_you_mean(name, ELEMENT_BYTES)
    raise ArgumentError(f"dtype: expected one of {', '.join(ELEMENT_BYTES)}, found {shorten(dtype)}.{advice}")


def check_batch(batch: SupportsIndex) -> int:
    """Check a number of images.

    Raises:
        ArgumentError: if it is not a whole number from 1; says what was found and what was expected.
    """
    return whole(batch, "batch", largest=LARGEST)


def several(names: str | Iterable[str], argument: str) -> tuple[str, ...]:
    """Return one name, or several, as a tuple.

    Args:
        names: one name, or several.
        argument: the argument's name, for messages.

    Raises:
        ArgumentError: if one of them is not text.

    >>> several("block1", "freeze"), several(["block1", "fc1"], "freeze")
    (('block1',), ('block1', 'fc1'))
    """
    given = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    for name in given:
        if not isinstance(name, str):
            raise ArgumentError(f"{argument}: expected a name or several, found {shorten(name)}")
    return given


class PlacedLayer(msgspec.Struct, frozen=True):
    """A layer at its place in a network.

    Args:
        name: `block1_conv1`, or the name that the configuration gives it.
        module: the path of its torch module: `block1.conv1`.
        block: the block that it is in; None in the classifier.
        layer: the layer itself.
        input_shape: of one image.
        output_shape: of one image.
        receptive_field: height and width of the input region that one output value sees, padding ignored.
        stride: distance in input pixels between the regions of neighbouring output values.
    """

    name: str
    module: str
    block: str | None
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    receptive_field: Pair
    stride: Pair

    @property
    def held(self) -> dict[str, Shape]:
        """The shape of each parameter and then of each buffer, by torch's names."""
        return {**self.layer.parameters(self.input_shape), **self.layer.buffers(self.input_shape)}


class Network(msgspec.Struct, frozen=True):
    """A configuration with every layer placed.

    Args:
        config: what it was made from.
        layers: in the order in which they run.
    """

    config: Config
    layers: tuple[PlacedLayer, ...]

    def __hash__(self) -> int:  # a configuration has none
        return hash((self.name, self.layers))

    @classmethod
    def of(cls, source: Source, **overrides: Unpack[Overrides]) -> Network:
        """Return the network of a configuration.

        Args:
            source: a name, a path, a Config, a Network, or a torch module, which is described as `describe` does.
            overrides: changes to make, as for `load`; of a torch module, `input` is the image that it is described for.

        Raises:
            ConfigError: if the configuration can't be found, is wrong, or a layer does not fit its input.
            ArgumentError: if an override is unknown or its value is not allowed, or a torch module is no chain.

        >>> Network.of("D").layers[0].output_shape
        (64, 224, 224)
        """
        if isinstance(source, Network):
            if not any(value is not None for value in overrides.values()):
                return source
            source = source.config
        elif is_module(source):
            from vggkit.modules.describe import describe

            source = describe(source, input=overrides.pop("input", None))
        return place(load(source, **overrides))

    @property
    def name(self) -> str:
        """The configuration's name."""
        return self.config.name

    @property
    def input_shape(self) -> Shape:
        """Channels × height × width of one image."""
        return self.config.input

    @property
    def output_shape(self) -> Shape:
        """Shape of the last layer's output, for one image."""
        return self.layers[-1].output_shape

    @property
    def receptive_field(self) -> Pair:
        """Height and width of the input that one value after the last block sees; without blocks, after all layers."""
        behind = [placed for placed in self.layers if placed.block] or self.layers
        return behind[-1].receptive_field

    @property
    def ends_in_softmax(self) -> bool:
        """Whether its classifier ends in a soft-max. If so, a model can return scores or probabilities."""
        last = self.layers[-1]
        return last.block is None and last.layer.gives_probabilities

    @property
    def weight_layers(self) -> tuple[PlacedLayer, ...]:
        """The convolutions and FC layers, which the paper counts."""
        return tuple(placed for placed in self.layers if placed.layer.is_weight_layer)

    @property
    def head(self) -> tuple[PlacedLayer, ...]:
        """The weight layers of the classifier; a trunk has none."""
        return tuple(placed for placed in self.weight_layers if placed.block is None)

    def __iter__(self) -> Iterator[PlacedLayer]:
        return iter(self.layers)

    def _repr_html_(self) -> str:
        columns: list[Column[PlacedLayer]] = [
            Column("layer", lambda placed: placed.name),
            Column("what", lambda placed: describe(placed.layer)),
            Column("output shape", lambda placed: times(placed.output_shape), "right"),
        ]
        return html(grid(columns, self.layers, title=f"{self.name}: {times(self.input_shape)}"))

    def __len__(self) -> int:
        return len(self.layers)

    def modules(self, *, softmax: bool = False) -> tuple[PlacedLayer, ...]:
        """Return the layers that are modules of a model, in the order in which they run.

        A model returns its classifier's scores, so it leaves out a soft-max at the end of the classifier. Anywhere
        else a soft-max is an ordinary layer.

        Args:
            softmax: whether the model was built with softmax=True and returns probabilities.

        >>> len(Network.of("D")) - len(Network.of("D").modules())
        1
        """
        return self.layers[:-1] if self.ends_in_softmax and not softmax else self.layers

    def layer(self, name: str) -> PlacedLayer:
        """Return a layer by its name here, in the original authors' model or in torchvision's.

        Raises:
            ArgumentError: if no layer has that name.
        """
        known: dict[str, PlacedLayer] = {}
        for placed, names in zip(self, all_names(self)):
            for word in (names.name, names.module, names.authors, names.torchvision):
                if word is not None:
                    known.setdefault(word, placed)
        # a name here wins over the same word in another vocabulary
        known.update({placed.name: placed for placed in self})
        if name not in known:
            parts: dict[str, list[str]] = {}
            for placed in self:
                parts.setdefault(placed.block or "classifier", []).append(placed.name)
            if name in parts:
                raise ArgumentError(f"{self.name}: {name} is not a layer; its layers are {', '.join(parts[name])}")
            advice = did_you_mean(name, known) or f" `vggkit names {self.name}` lists them"
            raise ArgumentError(f"{self.name} has no layer {shorten(name)}.{advice}")
        return known[name]

    def parts(self, names: str | Iterable[str], argument: str) -> frozenset[str]:
        """Return the names of the layers that are named themselves or by their block.

        Args:
            names: `block1`, `fc1`, `conv4_3`, …; one or several.
            argument: the argument's name, for messages.

        Raises:
            ArgumentError: if there is no such block or layer.
        """
        found: set[str] = set()
        for name in several(names, argument):
            block = [placed.name for placed in self.layers if placed.block == name]
            try:
                found.update(block or [self.layer(name).name])
            except ArgumentError:
                known = [part for placed in self.layers for part in (placed.block or placed.name, placed.name)]
                advice = did_you_mean(name, known) or f" `vggkit names {self.name}` lists them"
                message = f"{argument}: {self.name} has no block or layer {shorten(name)}.{advice}"
                raise ArgumentError(message) from None
        return frozenset(found)

    def blocks(self, names: str | Iterable[str], argument: str) -> frozenset[str]:
        """Check names of blocks.

        Args:
            names: `block1`, `block2`, …; one or several.
            argument: the argument's name, for messages.

        Returns:
            The names.

        Raises:
            ArgumentError: if there is no such block.
        """
        known = list(dict.fromkeys(placed.block for placed in self.layers if placed.block))
        named = several(names, argument)
        for name in named:
            if name not in known:
                allowed = f"expected {known[0]} … {known[-1]} of {self.name}" if known else f"{self.name} has no blocks"
                raise ArgumentError(f"{argument}: {allowed}, found {shorten(name)}")
        return frozenset(named)

    def trunk_of(self, taps: Iterable[str]) -> Network:
        """Return the network that is built for the activations of some layers: this one, or without its classifier.

        Args:
            taps: the layers' names; the classifier is left out if none of them is in it.

        Raises:
            ArgumentError: if no layer has one of the names.

        >>> [placed.name for placed in Network.of("D").trunk_of(["relu1_2"])][-1]
        'block5_pool'
        """
        if any(self.layer(name).block is None for name in taps):
            return self
        return place(msgspec.structs.replace(self.config, classifier=()))

    def up_to(self, taps: Iterable[str]) -> tuple[PlacedLayer, ...]:
        """Return the layers as they run to hand out the activations of some of them: up to the last.

        An activation function that would overwrite what is handed out works in new memory. That costs what a copy of
        the activation would, and is faster by the copying.

        Args:
            taps: the layers' names, at least one.

        Raises:
            ArgumentError: if no layer has one of the names.

        >>> [placed.layer.storage() for placed in Network.of("A").up_to(["conv1_1", "relu2_1"])]
        ['new', 'new', 'new', 'new', 'in place']
        """
        wanted = {self.layer(name).name for name in taps}
        last = max(index for index, placed in enumerate(self) if placed.name in wanted)
        layers: list[PlacedLayer] = []
        handed_out = False
        for placed in self.layers[: last + 1]:
            layer = placed.layer.settled(placed.input_shape, writable=not handed_out)
            layers.append(msgspec.structs.replace(placed, layer=layer))
            handed_out = placed.name in wanted or (handed_out and layer.storage() == "view")
        return tuple(layers)

    def notes(self) -> list[str]:
        """Return what a user should know of this network, one line each."""
        flatten = next((index for index, placed in enumerate(self.layers) if placed.layer.flattens), None)
        if flatten is None or flatten + 1 >= len(self.layers):
            return []
        maps, first = self.layers[flatten], self.layers[flatten + 1]
        if maps.input_shape[1:] != (1, 1) or maps.block or self.layers[flatten - 1].block is None:
            return []
        if not first.layer.needs_flat or first.output_shape[0] <= maps.output_shape[0]:
            return []
        return [
            f"{self.name} at {times(self.input_shape)}: the maps end at 1×1, so {first.name} has"
            f" {first.input_shape[0]:,} inputs for {first.output_shape[0]:,} units. head=gap classifies without the"
            f" wide FC layers; another input, such as 3x224x224, gives them larger maps."
        ]


Source = str | os.PathLike[str] | Config | Network | TorchModule
"""What a network is made of: a name, a path, a Config, the Network itself, or a module of torch."""


def each_source(given: Iterable[Source | Iterable[Source]]) -> list[Source]:
    """Return sources as one flat list, whether they were given one by one or in lists.

    Args:
        given: names, paths, Configs, Networks and modules of torch, or lists of them.

    Raises:
        ArgumentError: if there is anything else among them, or an empty list.

    >>> each_source(["A", ["D", "E"]])
    ['A', 'D', 'E']
    """
    sources: list[Source] = []
    for source in given:
        if isinstance(source, (str, os.PathLike, Config, Network)) or is_module(source):
            sources.append(source)
            continue
        listed = each_source(source) if isinstance(source, Iterable) else []
        if not listed:
            raise ArgumentError(
                f"source: expected a name, a path, a Config, a Network or a torch module, found {shorten(source)}"
            )
        sources += listed
    return sources


def place(config: Config) -> Network:
    """Place every layer of a configuration.

    Raises:
        ConfigError: if a layer does not fit its input, or two layers have the same name, with the place in the file;
            or if there is no layer.
    """
    walk = _Walk(config)
    for number, block in enumerate(config.blocks, start=1):
        walk.enter(f"block{number}")
        for entry in block:
            walk.place_entry(entry)
    walk.enter(None)
    last = last_weight(config)
    for entry in config.classifier:
        walk.place_entry(entry, last=entry is last)
    if not walk.layers:  # an override may take away all that a file has
        raise ConfigError([Problem(f"{config.name}: no layer is left")])
    return Network(config, tuple(walk.layers))


class _Walk:
    """The one walk over the shapes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shape = config.input
        self.receptive_field: Pair = (1, 1)
        self.stride: Pair = (1, 1)
        self.writable = False  # whether a layer may overwrite its input; the first one's belongs to the caller
        self.layers: list[PlacedLayer] = []
        self.names: set[str] = {f"block{number}" for number in range(1, len(config.blocks) + 1)}
        self.enter(None)

    def enter(self, block: str | None) -> None:
        """Begin a block, or the classifier."""
        if block is not None:
            self.writable = False  # a checkpointed block starts a second time from its input
        self.block = block
        self.counts: Counter[str] = Counter()
        self.number = ""
        self.children: set[str] = set()
        self.repeats: dict[str, int] = {}

    def place_entry(self, entry: Entry, *, last: bool = False) -> None:
        if entry.layer.needs_flat and len(self.shape) == 3:
            self.place(Flatten(), None, entry.position)
        self.place(entry.layer, entry.name or ("predictions" if last else None), entry.position)
        for layer in (entry.norm, entry.activation, Dropout(entry.dropout) if entry.dropout else None):
            if layer is not None:
                self.place(layer, None, entry.position)

    def place(self, layer: Layer, given: str | None, position: Position | None) -> None:
        child = self.child_name(layer)
        full = f"{self.block}_{child}" if self.block and not given else given or child
        child = given or child
        if full in self.names or child in self.children:
            raise self.error(f"two parts of the network are named '{child}'; give this one another name", position)
        self.names.add(full)
        self.children.add(child)
        try:
            output, window = layer.output_shape(self.shape), layer.window(self.shape)
        except LayerError as error:
            raise self.error(f"{full}: {error}{self.history(error)}", position) from None
        layer = layer.settled(self.shape, writable=self.writable)
        keeps_output = any(kept.what == "output" for kept in layer.kept(self.shape))
        self.writable = not keeps_output and (layer.storage() != "view" or self.writable)
        self.receptive_field = _grown(self.receptive_field, window.extent, self.stride)
        self.stride = (self.stride[0] * window.step[0], self.stride[1] * window.step[1])
        self.layers.append(
            PlacedLayer(
                name=full,
                module=f"{self.block}.{child}" if self.block else child,
                block=self.block,
                layer=layer,
                input_shape=self.shape,
                output_shape=output,
                receptive_field=self.receptive_field,
                stride=self.stride,
            )
        )
        self.shape = output

    def child_name(self, layer: Layer) -> str:
        """Name a layer inside its block. Weight layers are numbered from 1; what follows one has its number."""
        stem = layer.stem
        if layer.is_weight_layer:
            self.counts[stem] += 1
            self.number = str(self.counts[stem])
            return f"{stem}{self.number}"
        attached = layer.role in FOLLOWERS
        base, joint = (f"{stem}{self.number}", "_") if attached else (stem, "")
        repeat = self.repeats.get(base, 1)  # lower numbers are taken already
        while (name := base if repeat == 1 else f"{base}{joint}{repeat}") in self.children:
            repeat += 1
        self.repeats[base] = repeat
        return name

    def history(self, error: LayerError) -> str:
        """Say how the maps became so small, for the message of a window that does not fit."""
        height, width = self.stride
        if not isinstance(error, TooSmallError) or (height, width) == (1, 1):
            return ""
        halvings = height.bit_length() - 1
        done = f"halved {halvings} times" if height == width == 2**halvings else f"divided by {times(self.stride)}"
        return f" ({times(self.config.input)} has been {done.replace(' 1 times', ' once')} before it)"

    def error(self, message: str, position: Position | None) -> ConfigError:
        if position is None:
            message = f"{self.config.name}: {message}"
        return ConfigError([Problem(message, position)])


def _grown(field: Pair, extent: Pair, stride: Pair) -> Pair:
    """Grow a receptive field by a window that steps over it (Araujo et al. 2019, "Computing receptive fields")."""
    return field[0] + (extent[0] - 1) * stride[0], field[1] + (extent[1] - 1) * stride[1]


# The names of a layer elsewhere


class Names(NamedTuple):
    """The names of one layer; None where the other side has no such layer.

    Args:
        name: in vggkit.
        module: the path of its torch module in vggkit.
        authors: in the Caffe models that the authors published (`conv1_1`, `relu1_1`, `pool1`, `fc6`, `prob`).
        torchvision: in a torchvision model with these layers (`features.0`, `classifier.6`).
        keras: in keras.applications; an activation there is part of the layer before it.
    """

    name: str
    module: str
    authors: str | None
    torchvision: str | None
    keras: str | None


def all_names(network: Network) -> list[Names]:
    """Return the names of every layer, in order.

    >>> all_names(Network.of("D"))[0]
    Names(name='block1_conv1', module='block1.conv1', authors='conv1_1', torchvision='features.0', keras='block1_conv1')
    """
    run = {placed.name for placed in network.modules()}
    blocks = len(network.config.blocks)
    weights: Counter[str | None] = Counter()  # so far, in each block
    pools: Counter[str | None] = Counter()
    features, classifier = count(), count()
    keras: str | None = None
    found: list[Names] = []
    for placed in network:
        layer, block = placed.layer, placed.block
        weights[block] += layer.is_weight_layer
        pools[block] += layer.is_pool

        number = weights[block]
        pattern = layer.caffe_in_block if block else layer.caffe_in_classifier
        authors: str | None = None
        if placed.name not in run:
            authors = "prob"
        elif pattern and (number or "{number}" not in pattern) and not (layer.is_pool and pools[block] > 1):
            index = block.removeprefix("block") if block else ""
            authors = pattern.format(block=index, number=number if block else blocks + number)

        torchvision: str | None = None
        if block:
            torchvision = f"features.{next(features)}"
        elif placed.name in run and layer.fixes_size:
            torchvision = "avgpool"
        elif placed.name in run and not layer.flattens:
            torchvision = f"classifier.{next(classifier)}"

        if not layer.fused_in_keras:
            keras = placed.name if layer.named_in_keras else None
        found.append(Names(placed.name, placed.module, authors, torchvision, keras))
    return found


NAMES_COLUMNS: list[Column[Names]] = [
    Column("vggkit", lambda names: names.name, style="cyan"),
    Column("module", lambda names: names.module, rank=4),
    Column("authors (Caffe)", lambda names: names.authors or "–", rank=2),
    Column("torchvision", lambda names: names.torchvision or "–", rank=1),
    Column("Keras", lambda names: names.keras or "–", rank=3),
]


def names_table(network: Network) -> Table:
    """Return the names of every layer, side by side."""
    every = all_names(network)
    return Table(
        grid(NAMES_COLUMNS, every),
        records=[names._asdict() for names in every],
        title=f"{network.name}: the names of its layers",
    )

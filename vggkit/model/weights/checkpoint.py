"""An open checkpoint: its weight layers in order, whatever their names, axes and wrapping, and what it says of itself.

PyTorch's convolutions are out × in × height × width and its FC layers out × in; Keras's are height × width × in × out
and in × out, and its flattened maps run over height, width, channels. From here on all are as PyTorch's.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO, TYPE_CHECKING, ClassVar, Literal, NamedTuple

import msgspec

from vggkit.base.errors import CheckpointError, VggkitError
from vggkit.exchange.keras.description import KerasLayers
from vggkit.model.weights.container import CONFIG_KEY, Container, Stored
from vggkit.model.weights.keras_description import Departure, described_config
from vggkit.network import Network, PlacedLayer
from vggkit.notation.config import Config
from vggkit.notation.layers import Flatten, Pair, Shape
from vggkit.notation.preprocess import Preprocess
from vggkit.notation.zoo import loads

if TYPE_CHECKING:
    from torch import Tensor

StoredKind = Literal["conv", "fc", "norm", "other"]

Order = Literal["chw", "hwc"]
"""How the values of flattened maps follow each other: as PyTorch's do, or as Keras's; there is no third."""


class Flattened(NamedTuple):
    """Maps that are flattened.

    Args:
        maps: channels × height × width, before they are flattened.
        order: of their values.
    """

    maps: Shape
    order: Order


def flattened(network: Network, placed: PlacedLayer) -> Flattened | None:
    """Return the maps whose values a layer takes one by one, and their order; None if it takes no flattened maps.

    Args:
        network: the network.
        placed: a layer of it. An FC layer takes them, and a normalisation that stands before it.
    """
    if not (placed.layer.needs_flat or (placed.layer.is_norm and len(placed.input_shape) == 1)):
        return None
    for before in reversed(network.layers[: network.layers.index(placed)]):
        if isinstance(before.layer, Flatten) and len(before.input_shape) == 3:
            return Flattened(before.input_shape, before.layer.order)
        if before.layer.is_weight_layer or before.input_shape != before.output_shape:
            return None
    return None


def reordered(tensor: Tensor, to: Flattened) -> Tensor:
    """Put the values of flattened maps into another order.

    Args:
        tensor: a value for each of theirs, or units with so many each.
        to: the maps, and the order that is wanted.
    """
    channels, height, width = to.maps
    if to.order == "chw":
        return tensor.reshape(-1, height, width, channels).permute(0, 3, 1, 2).reshape(tensor.shape)
    return tensor.reshape(-1, channels, height, width).permute(0, 2, 3, 1).reshape(tensor.shape)


class StoredLayer(msgspec.Struct, frozen=True):
    """A layer's tensors in a file, not read yet.

    Args:
        name: in the file's words, without what wraps all of them.
        kind: what the shapes tell that it is.
        tensors: by torch's names (weight, bias, running_mean, …).
        shapes: the same in torch's order of axes; an FC layer that is kept as a convolution is flat.
        maps: channels × height × width of what an FC layer takes, if it is kept as a convolution.
    """

    name: str
    kind: StoredKind
    tensors: dict[str, Stored]
    shapes: dict[str, Shape]
    maps: Shape | None = None


class OwnNetwork(msgspec.Struct, frozen=True):
    """What a file says of its own network.

    Args:
        network: as much of it as a configuration can express; None if that is no network.
        departures: the rest.
        prepares: what its own layers do to pictures, which a configuration has as its `preprocess`.
    """

    network: Network | None
    departures: tuple[Departure, ...] = ()
    prepares: Preprocess | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """An open file whose layers are known.

    Args:
        container: the file.
        layout: whose names and axes it has.
        layers: those with tensors, in order.
        others: names of layers without any, where the file has them: pools, flatten.
        ordered: whether the file itself tells the order.
        described: Keras's description of the model, if the file has one.
    """

    container: Container
    layout: Layout
    layers: tuple[StoredLayer, ...]
    others: tuple[str, ...] = ()
    ordered: bool = True
    described: KerasLayers = KerasLayers()

    @property
    def path(self) -> str:
        """The file, as the user gave it."""
        return self.container.path

    @property
    def network_name(self) -> str:
        """A name for its network, made of the file's."""
        stem = re.split(r"[/\\]", self.path)[-1].split(".")[0]
        plain = re.sub(r"[^A-Za-z0-9_-]", "", stem)
        return plain if re.match(r"[A-Za-z]", plain) else f"network{plain}"

    @property
    def says_something(self) -> bool:
        """Whether the file says of itself what its network is."""
        return CONFIG_KEY in self.container.metadata or bool(self.described.layers)

    def own(self) -> OwnNetwork | None:
        """Return the network that the file says it is of; None if it says nothing.

        vggkit's files carry their configuration, Keras's models a description.

        Raises:
            ConfigError: if a configuration in it makes no sense.
        """
        text = self.container.metadata.get(CONFIG_KEY)
        if text is not None:
            return OwnNetwork(_configured(text, self.path))
        if not self.described.layers:
            return None
        channels = (layer.shapes["weight"][1] for layer in self.layers if layer.kind in ("conv", "fc"))
        config, departures = described_config(self.described, self.network_name, next(channels, Config("").input[0]))
        network = None
        if config is not None:
            with suppress(VggkitError):
                network = Network.of(config)
        return OwnNetwork(network, departures, None if config is None else config.preprocess)

    def order(self, layer: StoredLayer) -> Order:
        """Return the order in which a layer of the file takes the values of flattened maps."""
        if self.described.layers:
            return self.described.order
        if self.layout.order is not None:
            return self.layout.order
        own = None
        if layer.kind != "conv":
            with suppress(VggkitError):  # whoever asks for the network itself is told
                own = self.own()
        layers = (placed.layer for placed in (own.network if own else None) or ())
        return next((layer.order for layer in layers if isinstance(layer, Flatten)), "chw")

    def read(self, layer: StoredLayer, role: str, shape: Shape, to: Flattened | None) -> Tensor:
        """Read a tensor of a layer in torch's order of axes.

        Args:
            layer: whose.
            role: torch's name: weight, bias, running_mean, …
            shape: the wanted one, of as many elements.
            to: the order that is wanted of flattened maps, the tensor's inputs; None leaves theirs.
        """
        return self.layout.to_torch(self.container.read(layer.tensors[role].name), to).reshape(shape)


@lru_cache(maxsize=4)  # a file is asked several times while its layers are matched
def _configured(text: str, path: str) -> Network:
    return Network.of(loads(text, f"{path}, its configuration"))


class ExportedLayer(NamedTuple):
    """A layer that is to be written.

    Args:
        placed: the layer.
        name: in the layout; None where it has none there.
        flattened: the maps whose values it takes one by one, if it does.
        tensors: what reads each of its tensors, in the layout's order of axes and of flattened maps; by torch's names.
    """

    placed: PlacedLayer
    name: str | None
    flattened: Flattened | None
    tensors: Mapping[str, Callable[[], Tensor]]


class Export(NamedTuple):
    """What is to be written in a layout.

    Args:
        path: of the file that it is read from.
        config: the configuration that goes with it.
        layers: all of the network's, in order.
    """

    path: str
    config: Config
    layers: Sequence[ExportedLayer]


class Layout(ABC):
    """How a library names, orders and turns the tensors of a network: one class for each, with every rule of it."""

    name: ClassVar[str]
    """The word that asks for it."""
    title: ClassVar[str]
    """What it is called for people."""
    library: ClassVar[str]
    """Whose models have it."""
    preset: ClassVar[str | None]
    """How pictures are usually prepared for its weights, by a name in `PRESETS`; None if nothing is usual."""
    endings: ClassVar[tuple[str, ...]]
    """Of the files that it can be written in, the usual ones first."""
    default_endings: ClassVar[tuple[str, ...]]
    """Those among them that stand for it, where no layout is asked for."""
    order: ClassVar[Order | None]
    """How its models flatten maps; None if each file's network says that."""
    norm_epsilon: ClassVar[float | None]
    """Batch norm's epsilon in its models, where the file says none; None if it is the configuration's."""
    is_indexed: ClassVar[bool]
    """Whether layers without parameters, too, are counted in its names, so that gaps tell where they are."""
    stretches_to: ClassVar[Pair | None]
    """Height and width that its models give their last maps, whatever the input's size; None if they don't."""
    has_convolved_fc: ClassVar[bool]
    """Whether an FC layer may be kept as the convolution that it is."""

    @abstractmethod
    def recognises(self, container: Container) -> bool:
        """Tell whether an open file has this layout."""

    @abstractmethod
    def read(self, container: Container) -> Checkpoint:
        """Find the layers of an open file."""

    @abstractmethod
    def vocabularies(self, network: Network) -> list[list[str | None]]:
        """Return the names that a network's layers may have, in order; the first are those that are written.

        A layer without a name there has None.
        """

    @abstractmethod
    def to_torch(self, tensor: Tensor, to: Flattened | None) -> Tensor:
        """Put a tensor of a file into torch's order of axes.

        Args:
            tensor: as the file has it.
            to: the order that is wanted of flattened maps, the tensor's inputs; None leaves theirs.
        """

    @abstractmethod
    def from_torch(self, tensor: Tensor, to: Flattened | None) -> Tensor:
        """Put a tensor of torch's into the layout's order of axes: the inverse of `to_torch`."""

    @abstractmethod
    def write(self, file: IO[bytes], ending: str, export: Export) -> None:
        """Write a file.

        Args:
            file: where to.
            ending: of the file's name, one of `endings`.
            export: what to write.

        Raises:
            CheckpointError: if the format has no place for something.
        """

    def check(self, export: Export) -> None:
        """Refuse what the layout has no place for, before anything is written.

        Raises:
            CheckpointError: says what it is.
        """
        nameless = next((layer for layer in export.layers if layer.tensors and layer.name is None), None)
        if nameless is not None:
            raise CheckpointError(f"{export.path}: {nameless.placed.name} has no name in {self.name}'s layout")

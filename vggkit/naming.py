"""The names that a layer goes by: here, in the original authors' Caffe model, in torchvision and in Keras."""

from __future__ import annotations

from typing import NamedTuple

from vggkit.errors import ArgumentError, did_you_mean, shorten
from vggkit.network import Network, PlacedLayer


class Names(NamedTuple):
    """The names of one layer; None where the other side has no such layer.

    Args:
        name: here.
        module: the path of its torch module here.
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

    >>> from vggkit.network import Network
    >>> all_names(Network.of("D"))[0]
    Names(name='block1_conv1', module='block1.conv1', authors='conv1_1', torchvision='features.0', keras='block1_conv1')
    """
    naming = _Naming(network)
    return [naming.names(placed) for placed in network]


def find(network: Network, name: str) -> PlacedLayer:
    """Return the layer of a name in any of the vocabularies.

    Raises:
        ArgumentError: if there is none.
    """
    known: dict[str, PlacedLayer] = {}
    for placed, names in zip(network, all_names(network)):
        for word in (names.name, names.module, names.authors, names.torchvision):
            if word is not None:
                known.setdefault(word, placed)
    # a name here wins over the same word in another vocabulary
    known.update({placed.name: placed for placed in network})
    if name not in known:
        parts: dict[str, list[str]] = {}
        for placed in network:
            parts.setdefault(placed.block or "classifier", []).append(placed.name)
        if name in parts:
            raise ArgumentError(f"{network.name}: {name} is no layer; it has the layers {', '.join(parts[name])}")
        advice = did_you_mean(name, known) or f" `vggkit names {network.name}` lists them"
        raise ArgumentError(f"{network.name} has no layer {shorten(name)}.{advice}")
    return known[name]


class _Naming:
    """Counts layers as the others do."""

    def __init__(self, network: Network) -> None:
        self.blocks = len(network.config.blocks)
        self.modules = {placed.name for placed in network.modules()}
        self.features = -1  # index in torchvision's `features`
        self.classifier = -1  # and in its `classifier`
        self.weights: dict[str | None, int] = {}
        self.pools: dict[str | None, int] = {}
        self.keras: str | None = None

    def names(self, placed: PlacedLayer) -> Names:
        if placed.layer.role == "weight":
            self.weights[placed.block] = self.weights.get(placed.block, 0) + 1
        return Names(placed.name, placed.module, self.authors(placed), self.torchvision(placed), self.in_keras(placed))

    def authors(self, placed: PlacedLayer) -> str | None:
        stem, block = placed.layer.stem, placed.block
        number = self.weights.get(block, 0)
        if placed.name not in self.modules:
            return "prob"
        if block is None:
            caffe = {"fc": "fc", "relu": "relu", "dropout": "drop"}.get(stem)
            return f"{caffe}{self.blocks + number}" if caffe and number else None
        index = block.removeprefix("block")
        if stem in ("conv", "relu") and number:
            return f"{stem}{index}_{number}"
        if stem == "pool":
            self.pools[block] = self.pools.get(block, 0) + 1
            return f"pool{index}" if self.pools[block] == 1 else None
        return f"norm{index}" if stem == "lrn" else None

    def torchvision(self, placed: PlacedLayer) -> str | None:
        if placed.block is not None:
            self.features += 1
            return f"features.{self.features}"
        if placed.layer.stem == "flatten" or placed.name not in self.modules:
            return None
        if placed.layer.stem == "avgpool":
            return "avgpool"
        self.classifier += 1
        return f"classifier.{self.classifier}"

    def in_keras(self, placed: PlacedLayer) -> str | None:
        fused = placed.layer.role == "activation" or placed.layer.stem == "softmax"
        if not fused:
            plain = placed.layer.role == "weight" or placed.layer.stem in ("pool", "flatten")
            self.keras = placed.name if plain else None
        return self.keras

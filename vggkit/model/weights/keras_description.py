"""The network that a Keras model describes: a configuration, and what of it no configuration can express."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from vggkit.base.errors import VggkitError
from vggkit.exchange.keras.description import KerasLayer, KerasLayers
from vggkit.exchange.keras.kinds import KERAS_KINDS, found, is_for_training
from vggkit.exchange.keras.walk import Walk, is_flattened_in_any_order
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import Dropout, Flatten, Layer, Pair, Shape


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
    reader.finish()
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
        self.walk = Walk(said.input, said.channels or channels)
        self.entries: list[Entry] = []
        self.tops: list[bool] = []
        self.departures: list[Departure] = []
        self.top = False

    def departs(self, text: str) -> None:
        behind = sum(entry.layer.is_weight_layer for entry in self.entries)
        self.departures.append(Departure(text, behind, self.top))

    def read(self, layer: KerasLayer) -> None:
        if is_for_training(layer):
            return
        kind = KERAS_KINDS.get(layer.word)
        self.top = self.top or (kind is not None and kind.is_top)
        try:
            for word in found(layer, self.walk):
                if isinstance(word, Layer):
                    self.add(word)
                else:
                    self.departs(f"{word} of {layer.name}")
        except (VggkitError, ValueError, TypeError, KeyError, OverflowError):  # anybody may have written it
            self.departs(f"options of {layer.name}")

    def finish(self) -> None:
        """Add the flattening that is due."""
        for layer in self.walk.finish():
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Place a layer: in the entry before it where that takes it, else in an entry of its own."""
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
        return Config(
            name,
            input=self.walk.image or self._any_input(),
            preprocess=self.walk.preparation.preprocess(),
            blocks=tuple(blocks),
            classifier=tuple(classifier),
        )

    def _any_input(self) -> Shape:
        """Return an input that ends in maps of 7×7, as the paper's does."""
        height = width = 7
        for entry in self.entries:
            stride: Pair = getattr(entry.layer, "stride", (1, 1))
            height, width = height * stride[0], width * stride[1]
        return self.walk.channels, height, width


def _without_plain_flatten(entries: list[Entry]) -> Iterator[Entry]:
    """Yield entries: an FC layer flattens by itself, and what else takes flattened maps has them in Keras's order."""
    for place, entry in enumerate(entries):
        behind = [other.layer for other in entries[place + 1 :]]
        if entry.layer == Flatten("hwc") and is_flattened_in_any_order(behind):
            entry = replace(entry, layer=Flatten())
        if entry.layer != Flatten() or not behind or not behind[0].needs_flat:
            yield entry

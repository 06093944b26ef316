"""The layers of a Keras model in order, as a file describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from vggkit.base.errors import escaped, shorten
from vggkit.notation.layers import Shape

MOST_LAYERS = 10**4
MOST_NAME = 1_000
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
        description: of anybody's making; what is not as Keras writes it says nothing.
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

"""What a Keras model says of itself in JSON: its layers in order, and where their weights are in its file.

Nothing that it names is imported, and no function in it is called.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, Literal

import msgspec

from vggkit.base.errors import escaped, shorten
from vggkit.base.shapes import Shape

MOST_LAYERS = 10**4
MOST_PIXELS = 10**6
MOST_NAME = 1_000
"""Characters."""


class KerasLayer(msgspec.Struct, frozen=True):
    """A layer of a description.

    Args:
        word: Keras's class; what a class of somebody else's is registered as.
        name: its name.
        options: its options.
        path: where its values are in the file of weights, as Keras 3 writes it.
    """

    word: str
    name: str
    options: dict[str, Any]
    path: str = ""


class KerasLayers(msgspec.Struct, frozen=True):
    """What a description says.

    Args:
        layers: in order.
        input: channels × height × width of an image; None if it takes several sizes.
        channels: of an image; None if that is not said.
        branches: names of layers that take several outputs, or whose output not exactly one layer takes.
    """

    layers: tuple[KerasLayer, ...] = ()
    input: Shape | None = None
    channels: int | None = None
    branches: tuple[str, ...] = ()

    @property
    def order(self) -> Literal["chw", "hwc"]:
        """How its model flattens maps: as Keras does, unless it puts the channels first."""
        return "chw" if any(layer.word == "Permute" for layer in self.layers) else "hwc"

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, in order."""
        return tuple(layer.name for layer in self.layers)


def keras_layers(description: Any) -> KerasLayers:
    """Read the description of a model, the JSON of its configuration.

    Args:
        description: anybody's; what Keras would not write is passed by.
    """
    layers = tuple(islice(_layers(description), MOST_LAYERS))
    said = (layer.options.get("batch_shape") or layer.options.get("batch_input_shape") for layer in layers)
    shapes = filter(None, map(_sides, (*said, *_built_for(description))))
    channels, height, width = next(shapes, (None, None, None))
    shape = (channels, height, width) if channels and height and width else None
    branches = chain.from_iterable(map(_branches, islice(_models(description), MOST_LAYERS)))
    return KerasLayers(layers, shape, channels, tuple(map(_shown, islice(branches, MOST_LAYERS))))


def _config(layer: Any) -> dict[str, Any] | None:
    config = layer.get("config") if isinstance(layer, dict) else None
    return config if isinstance(config, dict) else None


def _inside(layer: Any) -> list[Any] | None:
    """Return the layers of a model; None of what is none."""
    config = _config(layer)
    inner = None if config is None else config.get("layers")
    return inner if isinstance(inner, list) else None


def _models(description: Any) -> Iterator[Any]:
    """Yield a model, and the models inside it."""
    waiting = [description]
    while waiting:
        model = waiting.pop()
        yield model
        waiting += [layer for layer in _inside(model) or () if _inside(layer) is not None]


def _layers(description: Any) -> Iterator[KerasLayer]:
    """Yield the layers of a model in order, those of models inside it too."""
    waiting = [(description, "")]
    while waiting:
        layer, path = waiting.pop()
        config, inner = _config(layer), _inside(layer)
        if inner is not None:
            waiting += reversed([*_placed(_in_order(inner), path)])
        elif config is not None and isinstance(config.get("name"), str):
            yield KerasLayer(_shown(_class_of(layer)), _shown(config["name"]), config, path)


def _placed(layers: Sequence[Any], path: str) -> Iterator[tuple[Any, str]]:
    """Yield each layer of a model with its path in the file: its class in snake case, numbered if there are several.

    Source: `_save_container_state` in keras/src/saving/saving_lib.py.
    """
    counts: Counter[str] = Counter()
    for layer in layers:
        said = layer.get("class_name") if isinstance(layer, dict) else None
        word = snake_case(said) if isinstance(said, str) and len(said) <= MOST_NAME else ""
        word = "functional" if word == "model" else word  # as it was called before Keras 2.4
        yield layer, f"{path}/layers/{word}_{counts[word]}" if counts[word] else f"{path}/layers/{word}"
        counts[word] += 1


def snake_case(word: str) -> str:
    """Return a class's name as Keras has it in paths.

    >>> snake_case("MaxPooling2D"), snake_case("ReLU")
    ('max_pooling2d', 're_lu')
    """
    plain = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", word))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", plain).lower()


def _class_of(layer: dict[str, Any]) -> Any:
    """Return a layer's class; what it is registered as if it isn't one of Keras's own."""
    word, module, registered = (layer.get(key) for key in ("class_name", "module", "registered_name"))
    if registered not in (None, word):
        return registered
    is_own = module is None or (isinstance(module, str) and re.match(r"(tf_)?keras(\.|$)", module))
    return word if is_own else f"{module}.{word}"


def _shown(name: Any) -> str:
    """Return a name as it may be printed."""
    return escaped(name if isinstance(name, str) and len(name) <= MOST_NAME else shorten(name))


# The ways through a model


def _name(layer: Any) -> Any:
    said = layer.get("name") if isinstance(layer, dict) else None
    return said if isinstance(said, str) else (_config(layer) or {}).get("name")


def _inputs(nodes: Any) -> Iterator[str]:
    """Yield the names in `["conv", 0, 0]`, which stand for a layer's output, wherever they are in its calls."""
    waiting = [nodes]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list) and len(node) > 2 and isinstance(node[0], str) and _are_indices(node[1:3]):
            yield node[0]
        elif isinstance(node, list):
            waiting += node


def _are_indices(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)


def _in_order(layers: list[Any]) -> list[Any]:
    """Return the layers of a model in the order in which they run, if they form a chain."""
    taking: dict[str, Any] = {}
    first: list[Any] = []
    for layer in layers:
        inputs = [*islice(_inputs(layer.get("inbound_nodes")), 2)] if isinstance(layer, dict) else []
        if len(inputs) > 1:
            return layers
        if inputs:
            taking[inputs[0]] = layer
        else:
            first.append(layer)
    if len(first) != 1 or not taking:
        return layers
    found = first
    while len(found) <= len(layers) and (then := taking.get(_name(found[-1]))) is not None:
        found.append(then)
    return found if len(found) == len(layers) else layers


def _branches(model: Any) -> Iterator[Any]:
    """Yield the names of layers with more than one way in, or more or less than one way out."""
    inner, outputs = _inside(model) or [], (_config(model) or {}).get("output_layers")
    if outputs is None:  # one behind the other
        return
    inputs = [[*islice(_inputs(layer.get("inbound_nodes")), 3)] if isinstance(layer, dict) else [] for layer in inner]
    taken = Counter(name for one in inputs for name in one) + Counter(islice(_inputs(outputs), MOST_LAYERS))
    for layer, one in zip(inner, inputs):
        name = _name(layer)
        if len(one) > 1 or not isinstance(name, str) or taken[name] != 1:
            yield name


# The image


def _built_for(description: Any) -> Iterator[Any]:
    """Yield the shapes that a model without an input layer says it was built for."""
    yield (_config(description) or {}).get("build_input_shape")
    built = description.get("build_config") if isinstance(description, dict) else None
    yield built.get("input_shape") if isinstance(built, dict) else None


def _sides(said: Any) -> tuple[int | None, int | None, int | None] | None:
    """Return an image's sides in torch's order of axes; Keras has them behind the batch."""
    if not isinstance(said, list) or len(said) != 4:
        return None
    height, width, channels = (side if _is_side(side) else None for side in said[1:])
    return channels, height, width


def _is_side(side: Any) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MOST_PIXELS

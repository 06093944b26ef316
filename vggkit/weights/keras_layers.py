"""What a Keras file says of its layers besides their tensors, where it has a description of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import msgspec

from vggkit.errors import shorten
from vggkit.layers import Shape, times

MOST_LAYERS = 10**4
MOST_PIXELS = 10**6


class KerasLayers(msgspec.Struct, frozen=True):
    """What a description says.

    Args:
        names: of the layers, in order.
        pools: behind which convolutions, counted from 0, a pool stands; None if there is no description.
        epsilons: of batch norms, by name.
        input: channels × height × width of an image; None if it takes several sizes.
        departures: what neither shapes nor names of tensors tell and is not as in a VGG network, in words.
    """

    names: tuple[str, ...] = ()
    pools: frozenset[int] | None = None
    epsilons: dict[str, float] = {}
    input: Shape | None = None
    departures: tuple[str, ...] = ()


class _Layer(msgspec.Struct, frozen=True):
    """A layer of a description: Keras's class, its name, its options."""

    word: str
    name: str
    options: dict[str, Any]

    @property
    def has_weights(self) -> bool:
        return self.word in ("Conv2D", "Dense")

    @property
    def is_activation(self) -> bool:
        """Whether what it returns is activated."""
        return self.word == "ReLU" or self.options.get("activation") not in (None, "linear")


def keras_layers(description: Any) -> KerasLayers:
    """Read the description of a model, the JSON of its configuration.

    Args:
        description: of anybody's making; what is not as Keras writes it says nothing.
    """
    layers = list(_layers(description))
    if not layers:
        return KerasLayers()
    epsilons = {layer.name: layer.options.get("epsilon") for layer in layers if layer.word == "BatchNormalization"}
    return KerasLayers(
        names=tuple(layer.name for layer in layers),
        pools=frozenset(_pools(layers)),
        epsilons={name: value for name, value in epsilons.items() if isinstance(value, float) and 0 < value < 1},
        input=next(filter(None, map(_shape, layers)), None),
        departures=(*(f"{what} of {layer.name}" for layer in layers for what in _departures(layer)), *_order(layers)),
    )


def _pools(layers: Iterable[_Layer]) -> Iterator[int]:
    convolutions = 0
    for layer in layers:
        convolutions += layer.word == "Conv2D"
        if layer.word == "MaxPooling2D":
            yield convolutions - 1


def _order(layers: Sequence[_Layer]) -> Iterator[str]:
    """Say where an activation or a batch norm does not stand where a VGG network has it."""
    last = max((place for place, layer in enumerate(layers) if layer.has_weights), default=0)
    for place, layer in enumerate(layers):
        before = layers[place - 1] if place else layer
        if layer.word == "BatchNormalization" and (not before.has_weights or before.is_activation):
            yield f"{layer.name} behind {before.name}"
        if layer.has_weights and (place < last or layer.word == "Conv2D"):
            behind = takewhile(lambda other: not other.has_weights, layers[place + 1 :])
            if not any(other.is_activation for other in (layer, *behind)):
                yield f"no activation behind {layer.name}"


def _layers(layer: Any) -> Iterator[_Layer]:
    """Yield a layer, or those inside a model."""
    config = layer.get("config") if isinstance(layer, dict) else None
    if not isinstance(config, dict):
        return
    inner = config.get("layers")
    if isinstance(inner, list):
        for part in inner[:MOST_LAYERS]:
            yield from _layers(part)
    elif isinstance(config.get("name"), str):
        yield _Layer(str(layer.get("class_name")), config["name"], config)


def _shape(layer: _Layer) -> Shape | None:
    """Return an image's shape in torch's order of axes; an input layer has it behind the batch."""
    said = layer.options.get("batch_shape") or layer.options.get("batch_input_shape")
    if not isinstance(said, list) or len(said) != 4:
        return None
    sides = said[1:]
    if not all(isinstance(side, int) and 0 < side <= MOST_PIXELS for side in sides):
        return None
    return sides[2], sides[0], sides[1]


def _departures(layer: _Layer) -> Iterator[str]:
    if layer.word.startswith("Random"):  # changes pictures in training alone
        return
    if layer.word not in _USUAL:
        yield layer.word
        return
    options = layer.options
    for option, is_usual in _USUAL[layer.word].items():
        if option in options and not is_usual(options[option]):
            yield f"{option} {_told(options[option])}"
    if layer.word == "Conv2D" and options.get("padding") == "valid" and _pair(options.get("kernel_size")) != [1, 1]:
        yield "padding valid"


def _told(value: Any) -> str:
    return (
        times(tuple(value))
        if isinstance(value, list) and all(isinstance(one, int) for one in value)
        else shorten(value)
    )


def _pair(value: Any) -> Any:
    """Return an option of two sides, which may be given as one number."""
    return [value, value] if isinstance(value, int) else value


def _is_pair(*sides: int) -> Callable[[Any], bool]:
    return lambda value: value is None or _pair(value) in [[side, side] for side in sides]


def _is_one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


_USUAL: dict[str, dict[str, Callable[[Any], bool]]] = {
    "Conv2D": {
        "strides": _is_pair(1),
        "dilation_rate": _is_pair(1),
        "activation": _is_one_of("relu", "linear"),
        "data_format": _is_one_of("channels_last"),
    },
    "MaxPooling2D": {"pool_size": _is_pair(2), "strides": _is_pair(2), "padding": _is_one_of("valid")},
    "Dense": {"activation": _is_one_of("relu", "linear", "softmax")},
    "Activation": {"activation": _is_one_of("relu", "linear", "softmax")},
    "ReLU": {"max_value": lambda value: value is None, "negative_slope": lambda value: not value},
    "InputLayer": {},
    "BatchNormalization": {},
    "GlobalAveragePooling2D": {},
    "Flatten": {},
    "Dropout": {},
    "Softmax": {},
}
"""The layers of a VGG network with the options of theirs that the tensors don't tell, and whether a value is the usual.

Source: the `get_config` of each in the Keras documentation.
"""

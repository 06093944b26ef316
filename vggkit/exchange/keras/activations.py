"""Keras's activations: names that a layer may have as an option, and layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vggkit.base.errors import LayerError, shorten
from vggkit.exchange.keras.rules import Options, Place, Said, WrittenKind, made
from vggkit.exchange.keras.walk import Walk
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.spelling import parse

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


def name_of(layer: Layer) -> str | None:
    """Return Keras's name of an activation; None if it has none.

    >>> name_of(notation.Softmax()), name_of(notation.ELU(alpha=2.0))
    ('softmax', None)
    """
    plain = layer.in_inference((1, 1, 1)) or layer
    return next((name for name, words in NAMED.items() if parse(words).layer().in_inference((1, 1, 1)) == plain), None)


def activation(said: Any, walk: Walk) -> Iterator[Layer | str]:
    """Yield the activation that a layer has as an option: its name, or a layer or function as JSON."""
    config = said.get("config") if isinstance(said, dict) else None
    if isinstance(said, dict) and isinstance(config, dict):
        word = said.get("class_name")
        kind = ACTIVATIONS.get(word) if isinstance(word, str) else None
        yield from [f"activation {shorten(word)}"] if kind is None else kind.read(config, walk)
    elif isinstance(config, str):
        yield from _named(config)
    elif said not in (None, "linear"):
        yield from _named(said)


def _named(name: Any) -> Iterator[Layer | str]:
    words = NAMED.get(name) if isinstance(name, str) else None
    if name != "linear":
        yield f"activation {shorten(name)}" if words is None else parse(words).layer()


class Activation(WrittenKind):
    """An activation by its name."""

    word = "Activation"
    takes = (notation.SiLU, notation.GELU, notation.Tanh, notation.Sigmoid, notation.LogSoftmax)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield from activation(options.get("activation"), walk)

    def write(self, layer: Layer, place: Place) -> list[Said]:
        name = name_of(layer)
        if name is None:
            raise LayerError("Keras's gelu is exact; approximate: tanh has no word there")
        return [Said(self.word, {"activation": name})]


class ReLU(WrittenKind):
    """ReLU, with a slope below 0 or a largest value."""

    word = "ReLU"
    takes = (notation.ReLU, notation.Hardtanh)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        slope, most, threshold = (options.get(word) for word in ("negative_slope", "max_value", "threshold"))
        if threshold:
            yield f"threshold {shorten(threshold)}"
        if most is not None and slope:
            yield f"max_value {shorten(most)}"
        elif most is not None:
            yield made("hardtanh", min_val=0, max_val=most)
        else:
            yield made("leaky-relu", negative_slope=slope) if slope else parse("relu").layer()

    def write(self, layer: Layer, place: Place) -> list[Said]:
        if not isinstance(layer, notation.Hardtanh):
            return [Said(self.word, {})]
        if layer.min_val == 0:
            return [Said(self.word, {"max_value": layer.max_val})]
        if name := name_of(layer):
            return [Said(Activation.word, {"activation": name})]
        raise LayerError(f"Keras has no activation from {layer.min_val:g} to {layer.max_val:g}")


class LeakyReLU(WrittenKind):
    """Leaky ReLU."""

    word = "LeakyReLU"
    takes = (notation.LeakyReLU,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield made("leaky-relu", negative_slope=options.get("negative_slope", options.get("alpha", 0.3)))

    def write(self, layer: notation.LeakyReLU, place: Place) -> list[Said]:
        if layer.negative_slope < 0:
            raise LayerError(f"Keras's leaky ReLU has a slope from 0, and this one {layer.negative_slope:g}")
        return [Said(self.word, {"negative_slope": layer.negative_slope})]


class ELU(WrittenKind):
    """ELU."""

    word = "ELU"
    takes = (notation.ELU,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield made("elu", alpha=options.get("alpha", 1.0))

    def write(self, layer: notation.ELU, place: Place) -> list[Said]:
        return [Said(self.word, {"alpha": layer.alpha})]


class Softmax(WrittenKind):
    """Soft-max over the channels."""

    word = "Softmax"
    takes = (notation.Softmax,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        axis = options.get("axis", -1)
        yield parse("soft-max").layer() if axis in (-1, [-1]) else f"axis {shorten(axis)}"

    def write(self, layer: notation.Softmax, place: Place) -> list[Said]:
        return [Said(self.word, {"axis": -1})]


ACTIVATIONS: dict[str, WrittenKind] = {
    kind.word: kind for kind in (Activation(), ReLU(), LeakyReLU(), ELU(), Softmax())
}
"""Those that are layers."""

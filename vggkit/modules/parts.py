"""The layers of a chain of modules → the entries of a configuration."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import Dropout, Flatten, Layer, Shape
from vggkit.notation.reading import parse_config
from vggkit.notation.spelling import FOLLOWERS


class Part(NamedTuple):
    """A layer of a chain.

    Args:
        path: of its module.
        layer: what it is.
        input_shape: of one image.
    """

    path: str
    layer: Layer
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """The shape of its output, for one image."""
        return self.layer.output_shape(self.input_shape)


def entries(parts: Sequence[Part], named: Container[str] = ()) -> tuple[Entry, ...]:
    """Return the entries of a block or classifier; the norm, activation and dropout after a weight layer join its own.

    Args:
        parts: its layers.
        named: paths whose last word becomes the layer's name.
    """
    found: list[Entry] = []
    for part, after in zip(parts, (*parts[1:], None)):
        layer, last = part.layer, found[-1] if found else None
        unsaid = layer == Flatten() and len(part.input_shape) == 3  # before an FC layer
        if unsaid and after is not None and after.layer.needs_flat:
            continue
        if last is not None and last.layer.is_weight_layer and part.path not in named and _may_follow(last, layer):
            value = layer.p if isinstance(layer, Dropout) else layer
            found[-1] = replace(last, **{layer.role: value})
        else:
            name = part.path.rpartition(".")[2] if part.path in named else None
            found.append(Entry(layer, name=name))
    return tuple(found)


def _may_follow(entry: Entry, layer: Layer) -> bool:
    if layer.role not in FOLLOWERS or layer == Dropout(0.0):
        return False
    later = FOLLOWERS[FOLLOWERS.index(layer.role) :]
    return not any(getattr(entry, word) for word in later)


def said(config: Config) -> Config:
    """Return a configuration if a file can say it.

    Raises:
        ArgumentError: if it reads back otherwise than it was written.
    """
    try:
        if parse_config(str(config), "model", _nothing_extended) == config:
            return config
    except ConfigError as error:
        raise ArgumentError(f"model: no configuration has its layers: {error}") from None
    raise ArgumentError("model: no configuration has its layers")


def _nothing_extended(name: str) -> Config:
    raise AssertionError(f"a configuration that was written extends {name}")

"""The layers of a chain of modules → the entries of a configuration."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from itertools import chain, groupby
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.notation.config import Config, Defaults, Entry, last_weight
from vggkit.notation.layers import Conv2d, Dropout, Flatten, Layer, Linear, Shape
from vggkit.notation.reading import parse_config
from vggkit.notation.spelling import FOLLOWERS, Spec


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


def configured(name: str, image: Shape, parts: Sequence[Part]) -> Config:
    """Return the configuration that layers form, in as few words as its defaults allow.

    Args:
        name: its name.
        image: the shape of one image.
        parts: its layers; paths such as `block1.conv2` say in which block each is.

    Raises:
        ArgumentError: if a file can't say it.
    """
    head = _classifier_start(parts)
    blocks = tuple(entries(block) for block in _blocks(parts[:head]))
    classifier = entries(parts[head:])
    return said(Config(name, input=image, defaults=_defaults(blocks, classifier), blocks=blocks, classifier=classifier))


def _classifier_start(parts: Sequence[Part]) -> int:
    """Return where the classifier begins: at flatten, or at the pool to a given size before it."""
    flat = next((index for index, part in enumerate(parts) if len(part.output_shape) == 1), len(parts))
    start = flat
    for index in range(min(flat, len(parts) - 1), -1, -1):
        layer = parts[index].layer
        if layer.is_weight_layer or layer.is_pool:
            break
        start = index if layer.fixes_size and flat < len(parts) else start
    return start


_OWN_BLOCK = re.compile(r"(?:^|\.)block(\d+)\.")


def _blocks(parts: Sequence[Part]) -> list[list[Part]]:
    """Divide layers into the blocks that their paths name, or else before the first weight layer behind a pool."""
    named = [_OWN_BLOCK.search(part.path) for part in parts]
    if parts and all(named):
        return [list(block) for _, block in groupby(parts, key=lambda part: _OWN_BLOCK.findall(part.path)[0])]
    blocks: list[list[Part]] = []
    begins = True
    for part in parts:
        if not blocks or (begins and part.layer.is_weight_layer):
            blocks.append([])
            begins = False
        blocks[-1].append(part)
        begins = begins or part.layer.is_pool
    return blocks


def _defaults(blocks: Iterable[Iterable[Entry]], classifier: Sequence[Entry]) -> Defaults:
    """Return what most hidden layers have behind them, so that no layer has to repeat it."""
    last = last_weight(Config("", classifier=tuple(classifier)))
    hidden = [entry for entry in chain(*blocks, classifier) if entry.layer.is_weight_layer and entry is not last]
    convolutions = [entry for entry in hidden if isinstance(entry.layer, Conv2d)]
    paper = Defaults()
    biased = _usual([entry.layer.bias for entry in convolutions if isinstance(entry.layer, Conv2d)], True)
    return Defaults(
        activation=_usual([entry.activation for entry in hidden], paper.activation),
        norm=_usual([entry.norm for entry in convolutions], paper.norm),
        dropout=_usual([entry.dropout for entry in hidden if isinstance(entry.layer, Linear)], paper.dropout),
        kinds={} if biased else {Conv2d.keyword: Spec(Conv2d, {"bias": False}, {})},
    )


Value = TypeVar("Value")


def _usual(values: Sequence[Value], otherwise: Value) -> Value:
    """Return the value that occurs most often, and of equally frequent ones rather the paper's."""
    return max([otherwise, *values], key=lambda value: (values.count(value), value == otherwise))

"""Keras's layers of a classifier: from maps to flat features, and on."""

from __future__ import annotations

from collections.abc import Iterator

from vggkit.base.shapes import elements
from vggkit.exchange.keras.rules import CHANNELS_LAST, KerasKind, Options, Place, Said, WrittenKind, format_fault, made
from vggkit.exchange.keras.walk import Walk, is_flattened_in_any_order
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


def _flattened(walk: Walk) -> Iterator[Layer]:
    """Yield the flattening of maps; Keras's runs over height, width and channels, unless these were put first."""
    if not walk.is_flat:
        is_one = walk.shape is not None and walk.shape[1:] in ((), (1, 1))
        yield notation.Flatten() if walk.is_turned or is_one else notation.Flatten("hwc")
    walk.is_flat, walk.is_turned = True, False


class Flatten(WrittenKind):
    """Maps to flat features."""

    word = "Flatten"
    is_top = True
    takes = (notation.Flatten,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield from _flattened(walk)
        yield from format_fault(options)

    def write(self, layer: notation.Flatten, place: Place) -> list[Said]:
        if place.before and isinstance(place.before[-1], notation.GlobalAvgPool2d):
            return []  # its features are flat already
        said = Said(self.word, {**CHANNELS_LAST})
        x = place.input_shape
        is_plain = len(x) == 1 or x[0] == 1 or x[1:] == (1, 1)
        if is_plain or layer.order == "hwc" or is_flattened_in_any_order([*place.behind]):
            return [said]
        return [Said(Permute.word, {"dims": [*CHANNELS_FIRST]}, suffix="permute"), said]


CHANNELS_FIRST = (3, 1, 2)
"""Channels, height and width, among axes counted from 1."""


class Permute(KerasKind):
    """Axes in another order: channels first, to be flattened so."""

    word = "Permute"

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        if tuple(options["dims"]) == CHANNELS_FIRST and not walk.is_flat and not walk.is_turned:
            walk.is_turned = True
        else:
            yield self.word


class Reshape(KerasKind):
    """Values in another shape: a flattening, or nothing."""

    word = "Reshape"
    is_top = True

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        target = list(options["target_shape"])
        size = None if walk.shape is None else elements(walk.shape)
        there = None if walk.shape is None or walk.is_flat else [*walk.shape[1:], walk.shape[0]]
        if target == [-1] or (len(target) == 1 and target == [size]):
            yield from _flattened(walk)
        elif walk.owes_flatten and target in ([1, 1, size], [1, 1, -1]):
            walk.is_flat = walk.owes_flatten = False
        elif target != there:
            yield self.word


class Dense(WrittenKind):
    """A fully connected layer, with the activation behind it."""

    word = "Dense"
    is_top = True
    takes = (notation.Linear,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        flat, walk.is_flat = walk.is_flat or (walk.shape is not None and len(walk.shape) == 1), True
        yield made("FC", units=options["units"], bias=options.get("use_bias", True))
        if not flat:
            yield "maps that are not flattened"

    def roles(self, options: Options) -> tuple[str, ...]:
        return ("weight", "bias") if options.get("use_bias", True) else ("weight",)

    def write(self, layer: notation.Linear, place: Place) -> list[Said]:
        options = {"units": layer.out_features, "use_bias": layer.bias, "activation": "linear"}
        return [Said(self.word, options, self.roles(options))]


class Dropout(WrittenKind):
    """Dropout."""

    word = "Dropout"
    takes = (notation.Dropout,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        if options.get("rate"):
            yield made("dropout", p=options["rate"])

    def write(self, layer: notation.Dropout, place: Place) -> list[Said]:
        return [Said(self.word, {"rate": layer.p})]

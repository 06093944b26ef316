"""Keras's layers for pictures, before a network's own, and those that do something in training alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from vggkit.exchange.keras.rules import KerasKind, Options, format_fault
from vggkit.exchange.keras.rules import pair as read_pair
from vggkit.exchange.keras.walk import Walk
from vggkit.notation.layers import Layer
from vggkit.notation.preprocess import INTERPOLATIONS


class InputLayer(KerasKind):
    """The image."""

    word = "InputLayer"

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield from ()


class Prepares(KerasKind):
    """Abstract: what is done to pictures. Behind another layer no configuration has it."""

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        if walk.passed or walk.zeros or walk.is_turned or walk.channels not in (1, 3):
            yield self.word
        else:
            yield from self.prepare(options, walk)
            walk.preparation.preprocess()  # which a configuration must allow

    @abstractmethod
    def prepare(self, options: Options, walk: Walk) -> Iterator[str]:
        """Note what is done; yield words for what no configuration can express."""


class Rescaling(Prepares):
    """Values times a scale, plus an offset."""

    word = "Rescaling"

    def prepare(self, options: Options, walk: Walk) -> Iterator[str]:
        walk.preparation.rescale(options["scale"], options.get("offset", 0.0))
        yield from ()


class Normalization(Prepares):
    """Values minus their mean, divided by their standard deviation, which are stated."""

    word = "Normalization"

    def prepare(self, options: Options, walk: Walk) -> Iterator[str]:
        mean, variance, axis = (options.get(word) for word in ("mean", "variance", "axis"))
        if mean is None or variance is None or options.get("invert") or axis not in (-1, 3, [-1], [3], None):
            yield self.word
        else:
            walk.preparation.normalize(mean, variance)


class Resizing(Prepares):
    """Pictures in another size."""

    word = "Resizing"

    def prepare(self, options: Options, walk: Walk) -> Iterator[str]:
        size = read_pair([options["height"], options["width"]])
        way = str(options.get("interpolation", "bilinear")).rstrip("35")  # lanczos3 and lanczos5
        preserved = ("crop_to_aspect_ratio", "pad_to_aspect_ratio")
        if way not in INTERPOLATIONS or any(options.get(word) for word in preserved) or walk.preparation.sizes:
            yield self.word
        walk.preparation.resize("resize", size, interpolation=way)
        walk.image = walk.shape = (walk.channels, *size)
        yield from format_fault(options)


class CenterCrop(Prepares):
    """The middle of pictures."""

    word = "CenterCrop"

    def prepare(self, options: Options, walk: Walk) -> Iterator[str]:
        size = read_pair([options["height"], options["width"]])
        walk.preparation.resize("crop", size)
        walk.image = walk.shape = (walk.channels, *size)
        yield from format_fault(options)

"""The way of a value through a Keras model: which layers it has passed, and how it lies there now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vggkit.base.shapes import Pair, Shape, elements
from vggkit.exchange.pictures import Preparation
from vggkit.notation.layers import Dropout, Flatten, Hardtanh, Layer, ReLU, Sigmoid, Softmax


class Pads(NamedTuple):
    """What is added around maps, in height and width.

    Args:
        before: above, and on the left.
        behind: below, and on the right.
    """

    before: Pair
    behind: Pair

    @property
    def is_even(self) -> bool:
        """Whether it is the same on both sides."""
        return self.before == self.behind

    def __bool__(self) -> bool:
        return any((*self.before, *self.behind))


NONE = Pads((0, 0), (0, 0))


class Walk:
    """Follows an image through layers.

    Args:
        image: its shape; None if that is not known.
        channels: of the image.
    """

    def __init__(self, image: Shape | None, channels: int) -> None:
        self.image = self.shape = image
        self.channels = channels
        self.passed: list[Layer] = []
        self.preparation = Preparation(channels)
        self.zeros = NONE
        """That were added around the maps, and belong to the window that comes next."""
        self.is_flat = False
        """Whether Keras has flat features."""
        self.owes_flatten = False
        """Whether they are maps of one position here."""
        self.is_turned = False
        """Whether the channels were put first, to be flattened so."""

    def add(self, layer: Layer) -> Iterator[Layer]:
        """Note a layer; yield it, behind the flattening that it needs.

        Raises:
            LayerError: if it does not fit its input.
        """
        if self.owes_flatten and not (layer.is_activation or layer.is_dropout or layer.needs_flat):
            yield from self.finish()
        self.owes_flatten = self.owes_flatten and not layer.needs_flat
        if self.shape is not None:
            flat = layer.needs_flat and len(self.shape) == 3
            self.shape = layer.output_shape((elements(self.shape),) if flat else self.shape)
        self.passed.append(layer)
        yield layer

    def finish(self) -> Iterator[Layer]:
        """Yield the flattening that is due."""
        if self.owes_flatten:
            self.owes_flatten = False
            yield from self.add(Flatten())

    def take_zeros(self) -> Pads:
        """Return what was added around the maps, which is now done with."""
        taken, self.zeros = self.zeros, NONE
        return taken

    def is_positive(self) -> bool:
        """Tell whether no value is below 0, so that zeros are never the largest."""
        return is_positive(self.passed)


def is_positive(layers: list[Layer]) -> bool:
    """Tell whether what layers make is never below 0."""
    last = next((layer for layer in reversed(layers) if not (layer.is_pool or isinstance(layer, Dropout))), None)
    return isinstance(last, (ReLU, Sigmoid, Softmax)) or (isinstance(last, Hardtanh) and last.min_val >= 0)


def is_flattened_in_any_order(behind: list[Layer]) -> bool:
    """Tell whether what follows a flattening takes its values in any order, as its weights can be put into it.

    Args:
        behind: the layers behind it.
    """
    place = next((place for place, layer in enumerate(behind) if layer.needs_flat), None)
    return place is not None and all(layer.keyword not in IN_ORDER for layer in behind[:place])


IN_ORDER = ("groupnorm", "LRN")
"""What takes neighbours together."""

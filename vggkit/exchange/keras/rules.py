"""What a class of Keras's layers must say of itself: how it is read, and how it is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from vggkit.base.errors import shorten
from vggkit.base.shapes import Pair, Shape
from vggkit.exchange.keras.walk import Walk
from vggkit.notation.layers import Layer
from vggkit.notation.spelling import parse, spell_value

Options = Mapping[str, Any]
"""A layer's options, as JSON has them."""


class KerasKind(ABC):
    """A class of Keras's layers."""

    word: ClassVar[str]
    """Its name."""
    is_top: ClassVar[bool] = False
    """Whether a classifier begins with it."""
    takes_zeros: ClassVar[bool] = False
    """Whether it is a window, to which zeros around the maps may belong."""

    @abstractmethod
    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        """Yield the layers that one of this class is, and words for what no configuration can express.

        Args:
            options: its options, which anybody may have written.
            walk: where it stands.

        Raises:
            ValueError, TypeError, KeyError, LayerError: if its options make no sense.
        """

    def roles(self, options: Options) -> tuple[str, ...]:
        """Return what its tensors are, by torch's names, in the order of the file."""
        return ()


class Said(NamedTuple):
    """A layer as Keras says it.

    Args:
        word: its class.
        options: its options.
        roles: its tensors, by torch's names, in the order of the file.
        suffix: of its name, where a layer is several of Keras's.
    """

    word: str
    options: dict[str, Any]
    roles: tuple[str, ...] = ()
    suffix: str = ""


class Place(NamedTuple):
    """Where a layer stands that is written.

    Args:
        input_shape: of one image.
        before: the layers before it.
        behind: the layers behind it.
    """

    input_shape: Shape
    before: Sequence[Layer]
    behind: Sequence[Layer]


class WrittenKind(KerasKind):
    """Abstract: a class that layers are written as."""

    takes: ClassVar[tuple[type[Layer], ...]]
    """Those layers."""

    @abstractmethod
    def write(self, layer: Any, place: Place) -> list[Said]:
        """Return the layers of Keras that a layer is, one behind the other.

        Raises:
            LayerError: if Keras has none; says why.
        """


CHANNELS_LAST = {"data_format": "channels_last"}


def made(keyword: str, **options: Any) -> Layer:
    """Return a layer by the notation's words, every value checked as that of a file."""
    return parse({keyword: {word: spell_value(value) for word, value in options.items()}}).layer()


def pair(value: Any, least: int = 1) -> Pair:
    """Return height and width of an option, which may be given as one number.

    Raises:
        ValueError: if they are no such numbers.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or not all(type(side) is int and least <= side < 10**6 for side in sides):
        raise ValueError(f"expected height and width, found {shorten(value)}")
    return sides


def format_fault(options: Options) -> Iterator[str]:
    """Yield words for an order of axes that is not read."""
    said = options.get("data_format")
    if said not in (None, "channels_last"):
        yield f"data_format {shorten(said)}"


def axis_fault(options: Options, walk: Walk) -> Iterator[str]:
    """Yield words for an axis that is not that of the channels."""
    axis = options.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in ((-1,) if walk.is_flat else (-1, 3)):
        yield f"axis {shorten(axis)}"

"""What a type of Caffe's layers is: how it is read, and how it is written.

What a layer computes is said in Caffe's own sources, src/caffe/layers in BVLC/caffe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Shape, elements
from vggkit.exchange.caffe.schema import OPTIONS
from vggkit.exchange.chain import Chain
from vggkit.exchange.messages import Message
from vggkit.exchange.values import Values
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


class Sought(NamedTuple):
    """A layer that is read.

    Args:
        options: of its type.
        input_shape: of one image.
        blobs: its values, if the file has them.
    """

    options: Message
    input_shape: Shape
    blobs: Sequence[Values]


class Fixed(NamedTuple):
    """A blob that has no tensor: the same value everywhere.

    Args:
        value: that value.
        is_one: whether it is one value, rather than one for each channel.
    """

    value: float
    is_one: bool = False


class Said(NamedTuple):
    """A layer as Caffe says it.

    Args:
        type: Caffe's.
        options: the name of its options, and what they are; None if it has none.
        blobs: its values: tensors, by torch's names, and what has none.
    """

    type: str
    options: tuple[str, dict[str, Any]] | None = None
    blobs: tuple[str | Fixed, ...] = ()

    def message(self) -> Message | None:
        """Return its options as a message."""
        return None if self.options is None else Message(OPTIONS[self.options[0]][0], **self.options[1])


class CaffeKind(ABC):
    """A type of Caffe's layers."""

    word: ClassVar[str]
    """Its word."""
    options: ClassVar[str | None] = None
    """The name of its options."""
    takes: ClassVar[tuple[type[Layer], ...]] = ()
    """The layers that are written as it."""

    @abstractmethod
    def read(self, sought: Sought) -> Layer:
        """Return the layer that a layer of this type is.

        Raises:
            LayerError: if there is none; says why.
        """

    @abstractmethod
    def write(self, layer: Any, x: Shape) -> list[Said]:
        """Return the layers of Caffe that a layer is, one behind the other.

        Args:
            layer: of one of the kinds in `takes`.
            x: the shape of its input.

        Raises:
            LayerError: if there is none; says why.
        """

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        """Return the values of a layer, by torch's names."""
        if sought.blobs:
            raise LayerError(f"expected no blobs, found {len(sought.blobs)}")
        return {}

    def extend(self, chain: Chain, name: str, sought: Sought) -> None:
        """Add what a layer of this type is to a chain.

        Raises:
            LayerError: if no layer of a configuration is that; says why.
        """
        if sought.options.unknown:
            raise LayerError(f"{self.options} has {shorten(sought.options.unknown[0])}, which is not known")
        layer = self.read(sought)
        if layer.needs_flat:
            sought = sought._replace(input_shape=(elements(sought.input_shape),))
        chain.add(name, layer, self.values(sought, layer))


class Weighted(CaffeKind):
    """Abstract: a weight and perhaps a bias."""

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        wanted = layer.parameters(sought.input_shape)
        if not sought.blobs:
            return {}
        if len(sought.blobs) != len(wanted):
            raise LayerError(f"expected {len(wanted)} blobs, found {len(sought.blobs)}")
        return {
            role: self.turned(blob, sought).shaped(shape) for (role, shape), blob in zip(wanted.items(), sought.blobs)
        }

    def turned(self, blob: Values, sought: Sought) -> Values:
        """Return a blob with its axes in torch's order."""
        return blob

    def said(self, options: dict[str, Any], *, bias: bool) -> list[Said]:
        """Return it with options, and with a bias unless it says that it has none."""
        assert self.options is not None
        if bias:
            return [Said(self.word, (self.options, options), ("weight", "bias"))]
        return [Said(self.word, (self.options, {**options, "bias_term": False}), ("weight",))]


class Plain(CaffeKind):
    """Abstract: a type that is one layer without options."""

    layer: ClassVar[Layer]

    def read(self, sought: Sought) -> Layer:
        return self.layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        return [Said(self.word)]


def count_of(options: Message, word: str) -> int:
    """Return an option that is a number of channels or units.

    Raises:
        LayerError: if there is none.
    """
    value = options.get(word)
    if not isinstance(value, int) or not 1 <= value <= notation.LARGEST:
        raise LayerError(f"{word}: expected a whole number from 1, found {shorten(value)}")
    return value

"""Layers that are read one behind the other, with their values → a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, LayerError
from vggkit.base.shapes import Shape, elements, times
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.values import MisfitError, Tensors, Values, constant
from vggkit.modules.parts import Part, configured
from vggkit.network import Network, place
from vggkit.notation.config import Config
from vggkit.notation.layers import LARGEST, BatchNorm, Flatten, Layer
from vggkit.notation.preprocess import Preprocess

MOST_LAYERS = 2_000


class Imported(NamedTuple):
    """What a file says.

    Args:
        network: it.
        tensors: of its layers; empty if the file has none.
        notes: what it says that is not read, one line each.
    """

    network: Network
    tensors: Tensors
    notes: tuple[str, ...] = ()


class Chain:
    """Layers in the order in which they run.

    Args:
        image: the shape of one image.
    """

    def __init__(self, image: Shape) -> None:
        self.image = self.shape = image
        self.parts: list[Part] = []
        self.values: list[Mapping[str, Values]] = []
        self.last: tuple[Layer, Mapping[str, Values]] | None = None
        """The layer that was added last, or could not be."""

    def may_be_for(self, image: Shape) -> bool:
        """Tell whether the layers that were added fit another image, the one that could not be among them."""
        shape = image
        try:
            for part in self.parts:
                shape = part.layer.output_shape(shape)
            layer, values = self.last or (Flatten(), {})
            layer.output_shape(shape)
            held = {**layer.parameters(shape), **layer.buffers(shape)}
        except LayerError:
            return False
        return all(tensor.shape == held[role] for role, tensor in values.items())

    def add(self, path: str, layer: Layer, values: Mapping[str, Values] | None = None) -> None:
        """Add a layer.

        Args:
            path: its name in the file.
            layer: the layer.
            values: of its parameters and buffers, by torch's names; nothing if the file has none.

        Raises:
            LayerError: if it does not fit its input; MisfitError if its values don't fit it.
        """
        if len(self.parts) >= MOST_LAYERS:
            raise LayerError(f"expected at most {MOST_LAYERS:,} layers, found more")
        if layer.needs_flat and len(self.shape) == 3:
            self.add(path, Flatten())
        self.last = layer, values or {}
        part = Part(path, layer, self.shape)
        output = part.output_shape
        if elements(output) > LARGEST:
            raise LayerError(f"its output is {times(output)}")
        held = {**layer.parameters(self.shape), **layer.buffers(self.shape)}
        for role, tensor in (values or {}).items():
            if tensor.shape != held[role]:
                raise MisfitError(f"expected a {role} of {times(held[role])}, found {times(tensor.shape)}")
        self.parts.append(part)
        self.values.append(values or {})
        self.shape = output

    def maps(self) -> Shape:
        """Return the shape of maps.

        Raises:
            LayerError: if it is flat.
        """
        if len(self.shape) != 3:
            raise LayerError(f"its input is flat ({self.shape[0]} features)")
        return self.shape

    def scale(self, values: Mapping[str, Values]) -> None:
        """Give the batch normalisation that was added last a scale and a shift of each channel.

        Args:
            values: `weight` and `bias`; nothing if the file has none.

        Raises:
            LayerError: if none was added last, or it has them already.
        """
        last = self.parts[-1].layer if self.parts else None
        if not isinstance(last, BatchNorm) or last.affine:
            raise LayerError("a scale of each channel belongs behind a batch normalisation")
        part, before = self.parts.pop(), self.values.pop()
        self.shape = part.input_shape
        whole = {**values, **before}
        if values and "bias" not in values:
            whole["bias"] = constant(0.0, part.input_shape[:1])
        self.add(part.path, replace(last, affine=True), whole)

    def network(self, name: str, preprocess: Preprocess | None = None) -> tuple[Network, Tensors]:
        """Return the network that the layers form, and its tensors.

        Args:
            name: its name.
            preprocess: how a picture becomes its input.

        Raises:
            MalformedError: if there is no layer, or no configuration can say them.
        """
        if not self.parts:
            raise MalformedError("it has no layers")
        try:
            config = configured(name, self.image, self.parts)
        except ArgumentError as error:
            raise MalformedError(str(error).removeprefix("model: ")) from None
        network = place(replace(config, preprocess=preprocess))
        held = (
            values
            for part, values in zip(self.parts, self.values)
            if part.layer.parameters(part.input_shape) or part.layer.buffers(part.input_shape)
        )
        tensors = {
            (placed.name, role): tensor
            for placed, values in zip((placed for placed in network if placed.held), held, strict=True)
            for role, tensor in values.items()
            if tensor.is_known
        }
        return network, tensors


def likely_sides() -> Iterable[int]:
    """Return the sides that the images of a network may have, the likely ones first: those that five pools halve."""
    return dict.fromkeys((Config("").input[1], *range(32, 513, 32), *range(1, 513)))

"""Activation functions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec.structs import force_setattr, replace

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Kept, Shape
from vggkit.notation.layers.fields import Allowed, Flag, Number
from vggkit.notation.layers.rules import Counted, ElementWise, Layer


class Activation(ElementWise, frozen=True):
    """Abstract: an activation function. Its output has memory of its own, unless it can work in place (below)."""

    role = "activation"
    keras_type = "Activation"
    fused_in_keras = True


class InPlaceActivation(Activation, frozen=True):
    """Abstract: an activation function that torch can compute in the input's place.

    Args:
        inplace: whether it works in place; the network switches this off where the input is needed elsewhere.
    """

    inplace: Flag = True

    def storage(self) -> Literal["new", "in place", "view"]:
        return "in place" if self.inplace else "new"

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        return self if writable or not self.inplace else replace(self, inplace=False)

    def in_inference(self, x: Shape) -> Layer | None:
        return replace(self, inplace=False)


class ReLU(InPlaceActivation, frozen=True):
    """max(0, x), after every hidden layer of the paper (Sect. 2.1)."""

    keyword = "relu"
    stem = "relu"
    caffe_in_block = "relu{block}_{number}"
    caffe_in_classifier = "relu{number}"
    keras_type = "ReLU"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.ReLU(inplace=self.inplace)


class LeakyReLU(InPlaceActivation, frozen=True, kw_only=True):
    """x, or a fraction of it below 0.

    Args:
        negative_slope: that fraction.
    """

    negative_slope: Number = 0.01

    keyword = "leaky-relu"
    primary = "negative_slope"
    stem = "leakyrelu"
    keras_type = "LeakyReLU"

    def __post_init__(self) -> None:
        if self.negative_slope < 0:  # torch has no gradient for it in place
            force_setattr(self, "inplace", False)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output" if self.inplace else "input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        if self.negative_slope in (0, 1):
            return None if self.negative_slope else ReLU(inplace=False)
        return replace(self, inplace=False)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.LeakyReLU(self.negative_slope, inplace=self.inplace)


class ELU(InPlaceActivation, frozen=True, kw_only=True):
    """x, or alpha·(exp(x)−1) below 0.

    Args:
        alpha: that factor.
    """

    alpha: Number = 1.0

    keyword = "elu"
    primary = "alpha"
    stem = "elu"
    keras_type = "ELU"

    def __post_init__(self) -> None:
        if self.alpha < 0:  # torch has no gradient for it in place
            force_setattr(self, "inplace", False)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output" if self.inplace else "input", x),)

    def in_inference(self, x: Shape) -> Layer | None:
        return replace(self, inplace=False) if self.alpha else ReLU(inplace=False)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.ELU(self.alpha, inplace=self.inplace)


class SiLU(InPlaceActivation, frozen=True):
    """x·sigmoid(x)."""

    keyword = "silu"
    stem = "silu"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # its gradient needs the input: working in place, autograd clones it first
        return (Kept("clone of the input" if self.inplace else "input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.SiLU(inplace=self.inplace)


class Hardtanh(InPlaceActivation, frozen=True, kw_only=True):
    """x, kept between two bounds.

    Args:
        min_val: the lower bound.
        max_val: the upper bound.
    """

    min_val: Number = -1.0
    max_val: Number = 1.0

    keyword = "hardtanh"
    stem = "hardtanh"

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        if self.max_val <= self.min_val:
            raise LayerError(f"max_val {self.max_val} is not above min_val {self.min_val}")
        return super().output_sizes(x)

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("clone of the input" if self.inplace else "input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Hardtanh(self.min_val, self.max_val, inplace=self.inplace)


class GELU(Activation, frozen=True):
    """x·Φ(x) (Hendrycks & Gimpel 2016).

    Args:
        approximate: "none", or "tanh" for the approximation.
    """

    approximate: Annotated[Literal["none", "tanh"], Allowed("none or tanh")] = "none"

    keyword = "gelu"
    stem = "gelu"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.GELU(approximate=self.approximate)


class Tanh(Activation, frozen=True):
    """The hyperbolic tangent."""

    keyword = "tanh"
    stem = "tanh"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Tanh()


class Sigmoid(Activation, frozen=True):
    """1/(1+exp(−x))."""

    keyword = "sigmoid"
    stem = "sigmoid"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Sigmoid()

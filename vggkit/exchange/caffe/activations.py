"""Caffe's activations."""

from __future__ import annotations

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape
from vggkit.exchange.caffe.rules import CaffeKind, Plain, Said, Sought
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


class ReLU(CaffeKind):
    """ReLU, with a slope below 0 leaky ReLU."""

    word = "ReLU"
    options = "relu_param"
    takes = (notation.ReLU, notation.LeakyReLU)

    def read(self, sought: Sought) -> Layer:
        slope = sought.options.get("negative_slope", 0.0)
        return notation.LeakyReLU(negative_slope=slope) if slope else notation.ReLU()

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        slope = layer.negative_slope if isinstance(layer, notation.LeakyReLU) else 0.0
        return [Said(self.word, (self.options, {"negative_slope": slope}) if slope else None)]


class ELU(CaffeKind):
    """ELU."""

    word = "ELU"
    options = "elu_param"
    takes = (notation.ELU,)

    def read(self, sought: Sought) -> Layer:
        return notation.ELU(alpha=sought.options.get("alpha", 1.0))

    def write(self, layer: notation.ELU, x: Shape) -> list[Said]:
        return [Said(self.word, (self.options, {"alpha": layer.alpha}) if layer.alpha != 1 else None)]


class Swish(CaffeKind):
    """x·sigmoid(beta·x)."""

    word = "Swish"
    options = "swish_param"
    takes = (notation.SiLU,)

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("beta", 1.0) != 1:
            raise LayerError(f"beta: expected 1, found {sought.options.get('beta')}")
        return notation.SiLU()

    def write(self, layer: notation.SiLU, x: Shape) -> list[Said]:
        return [Said(self.word)]


class Clip(CaffeKind):
    """Values between two bounds."""

    word = "Clip"
    options = "clip_param"
    takes = (notation.Hardtanh,)

    def read(self, sought: Sought) -> Layer:
        low, high = sought.options.get("min"), sought.options.get("max")
        if low is None or high is None:
            raise LayerError("expected min and max")
        return notation.Hardtanh(min_val=low, max_val=high)

    def write(self, layer: notation.Hardtanh, x: Shape) -> list[Said]:
        return [Said(self.word, (self.options, {"min": layer.min_val, "max": layer.max_val}))]


class Sigmoid(Plain):
    """The logistic function."""

    word = "Sigmoid"
    options = "sigmoid_param"
    takes = (notation.Sigmoid,)
    layer = notation.Sigmoid()


class TanH(Plain):
    """The hyperbolic tangent."""

    word = "TanH"
    options = "tanh_param"
    takes = (notation.Tanh,)
    layer = notation.Tanh()

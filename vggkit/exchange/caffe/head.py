"""Caffe's layers of a classifier."""

from __future__ import annotations

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape
from vggkit.exchange.caffe.rules import CaffeKind, Plain, Said, Sought, Weighted, count_of
from vggkit.exchange.chain import Chain
from vggkit.exchange.layers import dropout
from vggkit.exchange.values import Values
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


class InnerProduct(Weighted):
    """A fully connected layer, which flattens its input by itself."""

    word = "InnerProduct"
    options = "inner_product_param"
    takes = (notation.Linear,)

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("axis", 1) != 1:
            raise LayerError(f"it begins at axis {sought.options.get('axis')}; expected axis 1")
        return notation.Linear(count_of(sought.options, "num_output"), bias=sought.options.get("bias_term", True))

    def turned(self, blob: Values, sought: Sought) -> Values:
        is_turned = sought.options.get("transpose", False) and len(blob.shape) == 2
        return blob.turned() if is_turned else blob

    def write(self, layer: notation.Linear, x: Shape) -> list[Said]:
        return self.said({"num_output": layer.out_features}, bias=layer.bias)


class Dropout(CaffeKind):
    """Dropout."""

    word = "Dropout"
    options = "dropout_param"
    takes = (notation.Dropout,)

    def read(self, sought: Sought) -> Layer:
        if not sought.options.get("scale_train", True):
            raise LayerError("it scales values when it runs, not in training; expected scale_train: true")
        return dropout(sought.options.get("dropout_ratio", 0.5), "dropout_ratio")

    def write(self, layer: notation.Dropout, x: Shape) -> list[Said]:
        return [Said(self.word, (self.options, {"dropout_ratio": layer.p}))]


class Softmax(Plain):
    """Soft-max over the channels; behind it, a logarithm makes it log-soft-max."""

    word = "Softmax"
    options = "softmax_param"
    takes = (notation.Softmax, notation.LogSoftmax)
    layer = notation.Softmax()

    def read(self, sought: Sought) -> Layer:
        axis = sought.options.get("axis", 1)
        if axis % (len(sought.input_shape) + 1) != 1:
            raise LayerError(f"axis: expected 1, the channels, found {axis}")
        return self.layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        said = [Said(self.word)]
        return [*said, Said(Log.word)] if isinstance(layer, notation.LogSoftmax) else said


class Log(CaffeKind):
    """The natural logarithm, of a soft-max."""

    word = "Log"
    options = "log_param"

    def read(self, sought: Sought) -> Layer:
        options = sought.options
        if (options.get("base", -1.0), options.get("scale", 1.0), options.get("shift", 0.0)) != (-1, 1, 0):
            raise LayerError("expected a natural logarithm")
        return notation.LogSoftmax()

    def extend(self, chain: Chain, name: str, sought: Sought) -> None:
        if not chain.parts or chain.parts[-1].layer != notation.Softmax():
            raise LayerError("expected a soft-max before it")
        chain.parts[-1] = chain.parts[-1]._replace(layer=self.read(sought))

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        raise NotImplementedError  # it is written by Softmax


class SoftmaxWithLoss(Plain):
    """A loss behind soft-max, which is what a deployed network has in its place."""

    word = "SoftmaxWithLoss"
    options = "softmax_param"
    layer = notation.Softmax()


class Flatten(Plain):
    """Maps to a flat vector."""

    word = "Flatten"
    options = "flatten_param"
    takes = (notation.Flatten,)
    layer = notation.Flatten()

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("axis", 1) != 1 or sought.options.get("end_axis", -1) not in (-1, 3):
            raise LayerError("expected all axes behind the first to be flattened")
        return self.layer

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        if layer != notation.Flatten():
            raise LayerError("Caffe flattens channel by channel; another order has no word there")
        return super().write(layer, x)

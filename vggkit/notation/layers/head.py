"""What classifiers are made of: dropout, flattening, fully connected layers and soft-max."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Kept, Shape, elements, times
from vggkit.notation.layers.fields import Allowed, Count, Flag, Rate
from vggkit.notation.layers.rules import POINT, Counted, ElementWise, Factor, Layer, Product, Untrained, Window

if TYPE_CHECKING:
    from vggkit.base.eager import Eager, Parameter, Tensor


class Dropout(ElementWise, frozen=True):
    """In training, sets values to zero with probability p (paper, Sect. 3.1: 0.5 after the hidden FC layers).

    Args:
        p: that probability.
    """

    p: Rate = 0.5

    keyword = "dropout"
    primary = "p"
    stem = "dropout"
    role = "dropout"
    caffe_in_classifier = "drop{number}"
    keras_type = "Dropout"

    def storage(self) -> Literal["new", "in place", "view"]:
        return "view"  # outside training it returns its input

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("mask", x),) if self.p else ()

    def in_inference(self, x: Shape) -> Layer | None:
        return None

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Dropout(self.p)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        if not eager.training or self.p == 0:
            return eager.alias(x)
        if eager.device == "cuda":  # one kernel makes a mask of bools and the output
            return eager.op(x, extras_before=((elements(x.shape), 0),))
        mask = eager.like(x)
        y = eager.op(x, keeps=(mask,))
        eager.release(mask)
        return y


class Flatten(Untrained, frozen=True):
    """C×H×W to a flat vector.

    Args:
        order: "chw" as torch and Caffe flatten, or "hwc" as Keras does.
    """

    order: Annotated[Literal["chw", "hwc"], Allowed("chw or hwc")] = "chw"

    keyword = "flatten"
    primary = "order"
    stem = "flatten"
    role = "other"
    flattens = True
    keras_type = "Flatten"
    named_in_keras = True

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        symbols = "chw" if len(x) == 3 else "n"
        return (Product.of("all values, one behind the other", *zip(symbols, x)),)

    def window(self, x: Shape) -> Window:
        """Return the whole map: a flat vector has one position, and the layer after it sees all of the map."""
        return Window((x[1], x[2]), (1, 1)) if len(x) == 3 else POINT

    def storage(self) -> Literal["new", "in place", "view"]:
        return "view" if self.order == "chw" else "new"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return ()

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        """Return a plain view if both orders are the same: for flat features, one channel, or one position."""
        return Flatten() if len(x) != 3 or x[0] == 1 or x[1:] == (1, 1) else self

    def in_inference(self, x: Shape) -> Layer | None:
        return self.settled(x, writable=False) if elements(x) > x[0] else None

    def module(self, x: Shape, nn: Any) -> Any:
        if self.order == "chw":
            return nn.Flatten()
        # a shuffle in C groups transposes C × (H·W), and so puts the channels last
        return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (elements(x), 1)), nn.ChannelShuffle(x[0]), nn.Flatten())

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        if len(x.shape) == 1:
            return eager.alias(x)  # torch returns what is flat already as it is
        if self.order == "chw":
            return eager.view(x, self.output_shape(x.shape))
        shuffled = self.as_one_operation(x, parameters, eager)
        flat = eager.view(shuffled, shuffled.shape)  # the last of its modules flattens without a copy
        eager.release(shuffled)
        return flat


class Linear(Layer, frozen=True, rename={"out_features": "units"}):
    """A fully connected layer (FC in the paper).

    Args:
        out_features: number of units.
        bias: whether a bias is added.
    """

    out_features: Count
    bias: Flag = True

    keyword = "FC"
    primary = "out_features"
    stem = "fc"
    role = "weight"
    followers = ("activation", "dropout")
    needs_flat = True
    caffe_in_classifier = "fc{number}"
    keras_type = "Dense"
    named_in_keras = True

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        if len(x) != 1:
            raise LayerError(f"FC needs a flat input, but gets {times(x)}; put flatten before it")
        return (Product.of("one for each unit", ("m", self.out_features)),)

    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        units = Factor("m", self.out_features)
        weight = Product("each unit has a weight for each input", (Factor("n", x[0]), units))
        bias = {"bias": Product("one for each unit", (units,))} if self.bias else {}
        return {"weight": weight, **bias}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def operation_count(self, x: Shape) -> Product:
        weight = self.parameter_counts(x)["weight"]
        return Product("each weight is used once; adding biases is not counted", weight.factors)

    def window(self, x: Shape) -> Window:
        return POINT

    def storage(self) -> Literal["new", "in place", "view"]:
        return "new"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        return self

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Linear(x[0], self.out_features, bias=self.bias)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return eager.linear(x, parameters["weight"], parameters.get("bias"), self.output_shape(x.shape))


class Softmax(ElementWise, frozen=True):
    """Scores to probabilities, over the channels or features."""

    keyword = "soft-max"
    stem = "softmax"
    role = "other"
    normalizes_scores = True
    gives_probabilities = True
    keras_type = "Softmax"
    fused_in_keras = True

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Softmax(dim=1)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return eager.softmax(x)


class LogSoftmax(ElementWise, frozen=True):
    """The logarithm of soft-max; where a network ends in it, its output is log-probabilities."""

    keyword = "log-softmax"
    stem = "logsoftmax"
    role = "other"
    normalizes_scores = True
    keras_type = "Activation"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("output", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.LogSoftmax(dim=1)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        scores, cast = eager.raise_precision(x, only_on="cuda")
        y = eager.op(scores, keeps_output=True)
        eager.release(cast)
        return y

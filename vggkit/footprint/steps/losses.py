"""Losses of a training step: one class for each, with all its rules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from vggkit.base.eager import INDEX_BYTES, Eager, Tensor
from vggkit.network import ELEMENT_BYTES
from vggkit.notation.layers import Shape, elements


class Targets(NamedTuple):
    """What an output is compared with.

    Args:
        shape: for one image.
        dtype: torch's name of it.
    """

    shape: Shape
    dtype: str

    @property
    def element_bytes(self) -> int:
        """Bytes of one of them."""
        return INDEX_BYTES if self.dtype == "int64" else ELEMENT_BYTES[self.dtype]

    @property
    def per_image(self) -> int:
        """Bytes for one image."""
        return elements(self.shape) * self.element_bytes


class Loss(ABC):
    """A loss, as `torch.nn.functional` has it, with its default of a mean over the batch."""

    name: ClassVar[str]
    """The word that asks for it."""

    words: ClassVar[str]
    """What it is called in a title."""

    @abstractmethod
    def targets(self, output: Shape, dtype: str) -> Targets:
        """Return what it compares an output with.

        Args:
            output: the output's shape for one image.
            dtype: of the network.
        """

    @abstractmethod
    def run(self, eager: Eager, output: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of an output; both belong to the caller."""

    @abstractmethod
    def torch_loss(self, output: Any, targets: Any, functional: Any) -> Any:
        """Return the loss of torch's tensors.

        Args:
            output: what a model returned.
            targets: what it is compared with.
            functional: `torch.nn.functional`.
        """


class OfScores(Loss, ABC):
    """A loss that begins with the log-softmax of class scores (aten/src/ATen/native/LossNLL.cpp)."""

    def run(self, eager: Eager, output: Tensor, targets: Tensor) -> Tensor:
        scores, cast = eager.raise_precision(output, only_on="cpu")
        log_softmax = eager.log_softmax(scores)
        loss = self.of_log_softmax(eager, log_softmax, targets)
        eager.release(log_softmax, cast)
        return loss

    @abstractmethod
    def of_log_softmax(self, eager: Eager, log_softmax: Tensor, targets: Tensor) -> Tensor:
        """Return the loss; what it is made of belongs to the caller."""


class OfLabels(OfScores, ABC):
    """A loss that compares scores with a class for each image; a trunk's maps with one for each of their places."""

    def targets(self, output: Shape, dtype: str) -> Targets:  # classes are numbers in every dtype
        return Targets(output[1:], "int64")


class CrossEntropy(OfLabels):
    """`cross_entropy(output, classes)`."""

    name = "cross-entropy"
    words = "cross-entropy"

    def of_log_softmax(self, eager: Eager, log_softmax: Tensor, targets: Tensor) -> Tensor:
        return eager.nll_loss(log_softmax, targets)

    def torch_loss(self, output: Any, targets: Any, functional: Any) -> Any:
        return functional.cross_entropy(output, targets)


class LabelSmoothing(OfLabels):
    """`cross_entropy(output, classes, label_smoothing=0.1)`: in part the mean over all classes."""

    name = "label-smoothing"
    words = "labels smoothed"

    def of_log_softmax(self, eager: Eager, log_softmax: Tensor, targets: Tensor) -> Tensor:
        of_label = eager.nll_loss(log_softmax, targets)
        added = eager.sum_classes(log_softmax)
        negated = eager.op(added)
        eager.release(added)
        ignored = eager.mask(targets)
        of_all = eager.op(negated, keeps=(ignored,), in_place=True)
        mean = self._mean(eager, of_all, ignored)
        parts = eager.scale_number(mean), eager.scale_number(of_label)
        loss = eager.add_numbers(*parts)
        eager.release(*parts, mean, ignored, of_all, negated, of_label)
        return loss

    def _mean(self, eager: Eager, x: Tensor, ignored: Tensor) -> Tensor:
        """Return the mean over what is not ignored."""
        counted = eager.mask(ignored)
        count = eager.count(counted)
        total = eager.sum(x)
        mean = eager.divide_number(total, count)
        eager.release(total, count, counted)
        return mean

    def torch_loss(self, output: Any, targets: Any, functional: Any) -> Any:
        return functional.cross_entropy(output, targets, label_smoothing=0.1)


class SoftLabels(OfScores):
    """`cross_entropy(output, probabilities)`: one of each class, in float32, as torchvision's MixUp makes them."""

    name = "soft-labels"
    words = "soft labels"

    def targets(self, output: Shape, dtype: str) -> Targets:  # MixUp does not ask
        return Targets(output, "float32")

    def of_log_softmax(self, eager: Eager, log_softmax: Tensor, targets: Tensor) -> Tensor:
        product = eager.multiply(log_softmax, targets)
        total = eager.sum(product)
        negated = eager.scale_number(total)
        loss = eager.scale_number(negated)
        eager.release(negated, total, product)
        return loss

    def torch_loss(self, output: Any, targets: Any, functional: Any) -> Any:
        return functional.cross_entropy(output, targets)


class MeanSquaredError(Loss):
    """`mse_loss(output, targets)`: of each value of the output, as in distillation of features."""

    name = "mean-squared-error"
    words = "mean squared error"

    def targets(self, output: Shape, dtype: str) -> Targets:
        return Targets(output, dtype)

    def run(self, eager: Eager, output: Tensor, targets: Tensor) -> Tensor:
        return eager.mse_loss(output, targets)

    def torch_loss(self, output: Any, targets: Any, functional: Any) -> Any:
        return functional.mse_loss(output, targets)


LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (CrossEntropy(), LabelSmoothing(), SoftLabels(), MeanSquaredError())
}
"""Every loss by its name."""

DEFAULT_LOSS = CrossEntropy.name
"""The loss if none is asked for."""

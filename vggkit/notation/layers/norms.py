"""Normalisations: of neighbouring channels, of a batch, of groups of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec.structs import replace

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Kept, Shape
from vggkit.notation.layers.fields import Allowed, Count, CountByWidth, Flag, Number, Positive
from vggkit.notation.layers.rules import (
    NOTHING_MULTIPLIED,
    POINT,
    Counted,
    ElementWise,
    Layer,
    Product,
    Window,
    unchanged,
)

if TYPE_CHECKING:
    from vggkit.base.eager import Eager, Parameter, Tensor


class LocalResponseNorm(ElementWise, frozen=True):
    """Local response normalisation over neighbouring channels (Krizhevsky et al. 2012, Sect. 3.3).

    The options are torch's and Caffe's, where alpha is divided by the size: alpha 5e-4 here, over 5 channels, is
    Krizhevsky's alpha 1e-4 (k 2, n 5, beta 0.75), which the VGG paper takes over.

    Args:
        size: number of neighbouring channels.
        alpha: factor of their sum of squares, before it is divided by size.
        beta: exponent.
        k: additive constant.
    """

    size: Count = 5
    alpha: Number = 5e-4
    beta: Number = 0.75
    k: Number = 2.0

    keyword = "LRN"
    primary = "size"
    stem = "lrn"
    role = "other"
    caffe_in_block = "norm{block}"
    keras_type = "LocalResponseNormalization"

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        return unchanged(self.maps(x))

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        # torch.nn.functional.local_response_norm: x / (k + alpha · mean of the padded squares) ** beta
        channels, height, width = self.maps(x)
        padded = (channels + self.size - 1, height, width)
        return Kept("input", x), Kept("padded squares", padded), Kept("base", x), Kept("divisor", x)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.LocalResponseNorm(self.size, alpha=self.alpha, beta=self.beta, k=self.k)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        squares = eager.op(x, x, keeps=(x, x))
        padded = eager.op(squares, shape=(x.shape[0] + self.size - 1, *x.shape[1:]))
        eager.release(squares)
        source, cast = eager.raise_precision(padded, only_on="cpu")
        means = eager.op(source, shape=x.shape, keeps=(source,))
        eager.release(cast, padded)
        scaled = eager.op(means)
        base = eager.add_number(scaled)
        eager.release(scaled)
        high, cast = eager.raise_precision(base)
        divisor = eager.power(high)
        eager.release(cast, base, means)
        y = eager.divide(x, divisor)
        eager.release(divisor)
        return y


class Normalization(Layer, frozen=True):
    """Abstract: what batch and group normalisation have in common."""

    stem = "norm"
    role = "norm"

    def operation_count(self, x: Shape) -> Product:
        return NOTHING_MULTIPLIED

    def window(self, x: Shape) -> Window:
        return POINT

    def storage(self) -> Literal["new", "in place", "view"]:
        return "new"


def _scale_and_shift(channels: int) -> dict[str, Product]:
    """Return the parameters of an affine normalisation."""
    scale = Product.of("a scale for each channel", ("c", channels))
    return {"weight": scale, "bias": Product.of("a shift for each channel", ("c", channels))}


class BatchNorm(Normalization, frozen=True):
    """Batch normalisation (Ioffe & Szegedy 2015) of maps or of flat features.

    Args:
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics; None averages them all.
        affine: whether each channel has a trainable scale and shift.
        track_running_stats: whether running statistics are kept.
    """

    eps: Positive = 1e-5
    momentum: Annotated[float | None, Allowed("a number from 0 to 1, or null", minimum=0, maximum=1)] = 0.1
    affine: Flag = True
    track_running_stats: Flag = True

    keyword = "batchnorm"
    keras_type = "BatchNormalization"

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        return unchanged(x)

    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        return _scale_and_shift(x[0]) if self.affine else {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        if not self.track_running_stats:
            return {}
        return {"running_mean": x[:1], "running_var": x[:1], "num_batches_tracked": ()}

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return Kept("input", x), Kept("mean", x[:1], per_image=False), Kept("inverse deviation", x[:1], per_image=False)

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        return self

    def in_inference(self, x: Shape) -> Layer | None:
        return replace(self, momentum=None)

    def module(self, x: Shape, nn: Any) -> Any:
        kind = nn.BatchNorm2d if len(x) == 3 else nn.BatchNorm1d
        return kind(
            x[0], eps=self.eps, momentum=self.momentum, affine=self.affine, track_running_stats=self.track_running_stats
        )

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        of_batch = (eager.training and not eager.frozen) or not self.track_running_stats
        return eager.batch_norm(x, parameters, self.kept(x.shape)[1:] if of_batch else ())


class GroupNorm(Normalization, frozen=True, rename={"num_groups": "groups"}):
    """Group normalisation (Wu & He 2018; 32 groups are their default).

    Args:
        num_groups: number of groups of channels, each normalised by itself; or pairs of a number of channels and the
            number of groups for it.
        eps: added to the variance.
        affine: whether each channel has a trainable scale and shift.
    """

    num_groups: CountByWidth = 32
    eps: Positive = 1e-5
    affine: Flag = True

    keyword = "groupnorm"
    primary = "num_groups"
    keras_type = "GroupNormalization"

    def _groups(self, x: Shape) -> int:
        if isinstance(self.num_groups, int):
            return self.num_groups
        groups = dict(self.num_groups)
        if x[0] not in groups:
            raise LayerError(f"its table of groups has no {x[0]} channels, only {', '.join(map(str, groups))}")
        return groups[x[0]]

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        groups = self._groups(x)
        if x[0] % groups:
            raise LayerError(f"{groups} groups do not divide its {x[0]} channels")
        return unchanged(x)

    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        return _scale_and_shift(x[0]) if self.affine else {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        groups = (self._groups(x),)
        return Kept("input", x), Kept("mean", groups), Kept("inverse deviation", groups)

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        """Return the layer with one number of groups: its table's number for the input's channels."""
        return GroupNorm(self._groups(x), self.eps, self.affine)

    def in_inference(self, x: Shape) -> Layer | None:
        return self.settled(x, writable=False)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.GroupNorm(self._groups(x), x[0], eps=self.eps, affine=self.affine)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        raised, casts = eager.raise_parameters(parameters, only_on="cuda")
        source, cast = eager.raise_precision(x, only_on="cuda")
        y = eager.group_norm(source, raised, self.kept(x.shape)[1:])
        eager.release(cast, *casts)
        return y

"""Caffe's layers that normalise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape
from vggkit.exchange.caffe.rules import CaffeKind, Fixed, Said, Sought, Weighted
from vggkit.exchange.chain import Chain
from vggkit.exchange.values import Values
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


class LocalResponseNorm(CaffeKind):
    """LRN, with alpha divided by the size as in torch."""

    word = "LRN"
    options = "lrn_param"
    takes = (notation.LocalResponseNorm,)

    def read(self, sought: Sought) -> Layer:
        options = sought.options
        if options.get("norm_region", "ACROSS_CHANNELS") != "ACROSS_CHANNELS":
            raise LayerError("it normalises within each channel; expected ACROSS_CHANNELS")
        size = options.get("local_size", 5)
        if size % 2 == 0:
            raise LayerError(f"local_size: expected an odd number, found {size}")
        return notation.LocalResponseNorm(
            size, alpha=options.get("alpha", 1.0), beta=options.get("beta", 0.75), k=options.get("k", 1.0)
        )

    def write(self, layer: notation.LocalResponseNorm, x: Shape) -> list[Said]:
        if layer.size % 2 == 0:
            raise LayerError(f"Caffe's LRN has an odd size, and this one is {layer.size}")
        options = {"local_size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "k": layer.k}
        return [Said(self.word, (self.options, options))]


class BatchNorm(CaffeKind):
    """Batch normalisation without a scale and a shift, which are a layer of their own behind it.

    Its blobs are the sums of the means and of the variances, and how many were added up.
    """

    word = "BatchNorm"
    options = "batch_norm_param"
    takes = (notation.BatchNorm,)

    def read(self, sought: Sought) -> Layer:
        tracked = sought.options.get("use_global_stats", True)
        return notation.BatchNorm(eps=sought.options.get("eps", 1e-5), affine=False, track_running_stats=tracked)

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        if not sought.blobs or not layer.buffers(sought.input_shape):
            return {}
        if len(sought.blobs) != 3:
            raise LayerError(f"expected 3 blobs, found {len(sought.blobs)}")
        mean, variance, count = sought.blobs
        count = count.shaped((1,))
        channels = sought.input_shape[:1]
        return {
            "running_mean": _divided(mean.shaped(channels), count),
            "running_var": _divided(variance.shaped(channels), count),
        }

    def write(self, layer: notation.BatchNorm, x: Shape) -> list[Said]:
        options = {"use_global_stats": layer.track_running_stats, "eps": layer.eps}
        nothing = Fixed(0.0)
        blobs: tuple[str | Fixed, ...] = (nothing, nothing, Fixed(0.0, is_one=True))
        if layer.track_running_stats:
            blobs = ("running_mean", "running_var", Fixed(1.0, is_one=True))
        said = [Said(self.word, (self.options, options), blobs)]
        if layer.affine:
            said.append(Said(Scale.word, (Scale.options, {"bias_term": True}), ("weight", "bias")))
        return said


def _divided(sums: Values, count: Values) -> Values:
    def load() -> Any:
        (number,) = count.load()
        return sums.load() / number if number else sums.load() * 0

    return Values(sums.shape, sums.dtype, load)


class Scale(Weighted):
    """A scale of each channel, and perhaps a shift: what belongs to the batch normalisation before it."""

    word = "Scale"
    options = "scale_param"

    def read(self, sought: Sought) -> Layer:
        if sought.options.get("axis", 1) != 1 or sought.options.get("num_axes", 1) != 1:
            raise LayerError("expected a scale of each channel: axis 1, one axis")
        return notation.BatchNorm()

    def values(self, sought: Sought, layer: Layer) -> Mapping[str, Values]:
        wanted = 2 if sought.options.get("bias_term", False) else 1
        if sought.blobs and len(sought.blobs) != wanted:
            raise LayerError(f"expected {wanted} blobs, found {len(sought.blobs)}")
        channels = sought.input_shape[:1]
        return {role: blob.shaped(channels) for role, blob in zip(("weight", "bias"), sought.blobs)}

    def extend(self, chain: Chain, name: str, sought: Sought) -> None:
        chain.scale(self.values(sought, self.read(sought)))

    def write(self, layer: Layer, x: Shape) -> list[Said]:
        raise NotImplementedError  # it is written by BatchNorm

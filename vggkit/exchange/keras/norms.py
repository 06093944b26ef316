"""Keras's normalisations."""

from __future__ import annotations

from collections.abc import Iterator

from vggkit.base.errors import LayerError
from vggkit.exchange.keras.rules import KerasKind, Options, Place, Said, WrittenKind, axis_fault, made
from vggkit.exchange.keras.walk import Walk
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer

AFFINE = {"scale": "weight", "center": "bias"}
"""torch's names of what Keras's options ask for."""


class Norm(KerasKind):
    """Abstract: a normalisation with a scale and a shift, with both or without."""

    def roles(self, options: Options) -> tuple[str, ...]:
        return tuple(role for word, role in AFFINE.items() if options.get(word, True))

    def is_affine(self, options: Options) -> bool:
        """Tell whether it has a scale or a shift."""
        return any(options.get(word, True) for word in AFFINE)

    def half(self, options: Options) -> Iterator[str]:
        """Yield words for a scale without a shift, or the other way round."""
        there = [word for word in AFFINE if options.get(word, True)]
        if len(there) == 1:
            yield f"{next(word for word in AFFINE if word not in there)} False"


class BatchNormalization(Norm, WrittenKind):
    """Batch normalisation. Its momentum is the weight of the statistics so far, torch's that of the newest."""

    word = "BatchNormalization"
    takes = (notation.BatchNorm,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        yield made(
            "batchnorm",
            eps=options.get("epsilon", 1e-3),
            momentum=_other(options.get("momentum", 0.99)),
            affine=self.is_affine(options),
        )
        yield from axis_fault(options, walk)
        yield from self.half(options)
        if options.get("renorm"):
            yield "renorm True"

    def roles(self, options: Options) -> tuple[str, ...]:
        return (*super().roles(options), "running_mean", "running_var")

    def write(self, layer: notation.BatchNorm, place: Place) -> list[Said]:
        if not layer.track_running_stats:
            raise LayerError("Keras's batch normalisation keeps running statistics")
        if layer.momentum is None:
            raise LayerError("Keras's batch normalisation has a momentum, and does not average all batches")
        options = {
            "axis": -1,
            "momentum": _other(layer.momentum),
            "epsilon": layer.eps,
            "center": layer.affine,
            "scale": layer.affine,
        }
        return [Said(self.word, options, self.roles(options))]


def _other(momentum: float) -> float:
    return round(1 - momentum, 12)  # 1 - 0.99 is 0.01, and not 0.010000000000000009


class GroupNormalization(Norm, WrittenKind):
    """Group normalisation."""

    word = "GroupNormalization"
    takes = (notation.GroupNorm,)

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        groups = options.get("groups", 32)
        if groups == -1:  # one for each channel
            widths = [layer.out_channels for layer in walk.passed if isinstance(layer, notation.Conv2d)]
            groups = walk.shape[0] if walk.shape else (widths or [walk.channels])[-1]
        yield made("groupnorm", groups=groups, eps=options.get("epsilon", 1e-3), affine=self.is_affine(options))
        yield from axis_fault(options, walk)
        yield from self.half(options)

    def write(self, layer: notation.GroupNorm, place: Place) -> list[Said]:
        options = {
            "groups": layer.num_groups,
            "axis": -1,
            "epsilon": layer.eps,
            "center": layer.affine,
            "scale": layer.affine,
        }
        return [Said(self.word, options, self.roles(options))]


class LayerNormalization(Norm):
    """Layer normalisation: of flat features, or of whole maps without a scale and a shift, that of one group."""

    word = "LayerNormalization"

    def read(self, options: Options, walk: Walk) -> Iterator[Layer | str]:
        axis = options.get("axis", -1)
        axes = sorted(axis) if isinstance(axis, list) else [axis]
        whole = axes == [1, 2, 3] and not self.is_affine(options)
        if options.get("rms_scaling") or not (whole or (walk.is_flat and axes in ([-1], [1]))):
            yield self.word
            return
        yield made("groupnorm", groups=1, eps=options.get("epsilon", 1e-3), affine=self.is_affine(options))
        yield from self.half(options)

"""A model's network and tensors → another's: batch norm folded into convolutions, FC layers as convolutions."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor

from vggkit.base.errors import ArgumentError
from vggkit.network import Network, PlacedLayer, place
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    Linear,
    Shape,
)

Tensors = dict[tuple[str, str], Tensor]
"""Parameters and buffers, by a layer's name and their own."""


class Rewritten(NamedTuple):
    """The parts of a model that is made from another one.

    Args:
        config: its configuration.
        tensors: the tensors of its layers; unchanged ones are those of the other model.
        frozen: the names of its layers that are frozen.
    """

    config: Config
    tensors: Tensors
    frozen: list[str]


# Folding


def folded(network: Network, tensors: Tensors, frozen: Container[str]) -> Rewritten:
    """Fold every batch norm right after a convolution or FC layer into that layer.

    In inference a batch norm multiplies each channel and adds to it, which the layer before it can do as well. Batch
    norms that measure the batch at hand can't be folded and are kept.

    Args:
        network: the model's.
        tensors: what its layers hold.
        frozen: its layers that are frozen.
    """
    old = network.config
    config = replace(
        old,
        name=f"{old.name.removesuffix('-BN')}-folded",
        aliases=(),
        defaults=replace(old.defaults, norm=None, kinds={}),
        blocks=tuple(map(_folded_entries, old.blocks)),
        classifier=_folded_entries(old.classifier),
    )
    rewritten = Rewritten(config, {}, [])
    for placed, before in zip(place(config), _kept(network), strict=True):
        if before.layer.name in frozen and (before.norm or before.layer).name in frozen:
            rewritten.frozen.append(placed.name)
        weights = {role: tensors[before.layer.name, role] for role in before.layer.held}
        if before.norm is not None:
            statistics = {role: tensors[before.norm.name, role] for role in before.norm.held}
            weights = _folded(weights, statistics, before.norm.layer)
        rewritten.tensors.update({(placed.name, role): tensor for role, tensor in weights.items()})
    return rewritten


class _Before:
    """A layer, and the batch norm after it that is folded into it."""

    def __init__(self, layer: PlacedLayer) -> None:
        self.layer = layer
        self.norm: PlacedLayer | None = None


def _kept(network: Network) -> list[_Before]:
    kept: list[_Before] = []
    for placed in network:
        last = kept[-1] if kept else None
        beside = last is not None and last.norm is None and last.layer.block == placed.block
        if last is not None and beside and _foldable(last.layer.layer, placed.layer):
            last.norm = placed
        else:
            kept.append(_Before(placed))
    return kept


def _foldable(layer: Layer, norm: Layer | None) -> bool:
    return layer.is_weight_layer and isinstance(norm, BatchNorm) and norm.track_running_stats


def _folded_entries(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    folded: list[Entry] = []
    bare = False  # whether the last one is a weight layer with nothing behind it, and nothing folded into it
    for entry in entries:
        if bare and _foldable(folded[-1].layer, entry.layer):
            behind = {"norm": entry.norm, "activation": entry.activation, "dropout": entry.dropout}
            folded[-1] = replace(_biased(folded[-1]), **behind)
            bare = False
            continue
        bare = not (entry.norm or entry.activation or entry.dropout)
        folded.append(replace(_biased(entry), norm=None) if _foldable(entry.layer, entry.norm) else entry)
    return tuple(folded)


def _biased(entry: Entry) -> Entry:
    return replace(entry, layer=replace(entry.layer, bias=True))


def _folded(weights: dict[str, Tensor], statistics: dict[str, Tensor], norm: Layer) -> dict[str, Tensor]:
    """Return weight and bias with a batch norm in them: y = γ·(x − μ)/√(σ² + ε) + β (Ioffe & Szegedy 2015)."""
    assert isinstance(norm, BatchNorm)
    mean, variance = statistics["running_mean"].double(), statistics["running_var"].double()
    factor = (variance + norm.eps).rsqrt()
    if "weight" in statistics:
        factor = factor * statistics["weight"].double()
    weight = weights["weight"]
    bias = (weights["bias"].double() if "bias" in weights else torch.zeros_like(mean)) - mean
    shift = statistics["bias"].double() if "bias" in statistics else torch.zeros_like(mean)
    scaled = weight.double() * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return {"weight": scaled.to(weight.dtype), "bias": (bias * factor + shift).to(weight.dtype)}


# Fully convolutional


def fully_convolutional(network: Network, tensors: Tensors, frozen: Container[str]) -> Rewritten | None:
    """Make the FC layers convolutions, and average the scores over all positions.

    The last of several FC layers stays as it is, behind the average: the scores of an average are the average of the
    scores.

    Args:
        network: the model's.
        tensors: what its layers hold.
        frozen: its layers that are frozen.

    Returns:
        None if the maps are averaged before the FC layers: such a network takes any size already.

    Raises:
        ArgumentError: if the classifier is not maps, flattened, then FC layers.
    """
    head = [placed for placed in network if placed.block is None]
    if any(placed.layer.fixes_size and placed.output_shape[1:] == (1, 1) for placed in head):
        return None
    flatten = _checked_flatten(network, head)
    classifier = _dense_classifier(network.config.classifier, head, flatten.input_shape)
    config = replace(network.config, name=f"{network.config.name}-dense", aliases=(), classifier=classifier)
    rewritten = Rewritten(config, {}, [])
    weights = (placed for placed in network if placed.held)
    for placed, old in zip((placed for placed in place(config) if placed.held), weights, strict=True):
        if old.name in frozen:
            rewritten.frozen.append(placed.name)
        for role, shape in placed.held.items():
            tensor = tensors[old.name, role]
            same = tensor.shape == shape
            rewritten.tensors[placed.name, role] = tensor if same else _as_kernel(tensor, shape, flatten.layer)
    return rewritten


def _checked_flatten(network: Network, head: list[PlacedLayer]) -> PlacedLayer:
    """Return the layer that makes the classifier's maps flat, if all of the classifier has a convolutional form."""
    connected = False  # whether each feature is one channel of the convolutional form
    for placed in head:
        layer, flat = placed.layer, len(placed.input_shape) == 1
        resized = layer.fixes_size and placed.output_shape != placed.input_shape
        over_channels = isinstance(layer, BatchNorm) or layer.normalizes_scores
        over_positions = flat and (isinstance(layer, GroupNorm) or (over_channels and not connected))
        if layer.is_convolution or resized or over_positions:
            raise ArgumentError(
                f"{network.name}: expected a classifier of maps, flattened, then FC layers; found {placed.name}"
                f" ({layer.keyword}) in it, which can't be evaluated at every position"
            )
        connected = connected or layer.needs_flat
    flattens = [placed for placed in head if placed.layer.flattens and len(placed.input_shape) == 3]
    if not flattens or not connected:
        raise ArgumentError(f"{network.name} has no FC layers behind its maps that could become convolutions")
    return flattens[0]


def _dense_classifier(entries: tuple[Entry, ...], head: list[PlacedLayer], maps: Shape) -> tuple[Entry, ...]:
    """Return the classifier with convolutions for FC layers, each with the name that it had."""
    names = iter(placed.name for placed in head if placed.layer.needs_flat)
    kernel = (maps[1], maps[2])
    dense: list[Entry] = []
    end = _averaged(entries)
    for entry in entries[:end]:
        layer = entry.layer
        if layer.flattens or layer.fixes_size:
            dense += _followers(entry)
        elif isinstance(layer, Linear):
            convolution = Conv2d(layer.out_features, kernel_size=kernel, padding=(0, 0), bias=layer.bias)
            dense.append(replace(entry, layer=convolution, name=next(names), position=None))
            kernel = (1, 1)
        else:
            dense.append(replace(entry, position=None))
    rest = (replace(entry, position=None) for entry in entries[end:])
    return (*dense, Entry(GlobalAvgPool2d()), Entry(Flatten()), *rest)


def _averaged(entries: tuple[Entry, ...]) -> int:
    """Return how many entries stand before the average."""
    end = len(entries) - (1 if entries[-1].layer.normalizes_scores else 0)
    last = entries[end - 1]
    several = sum(entry.layer.needs_flat for entry in entries) > 1
    return end - 1 if several and last.layer.needs_flat and not _followers(last) else end


def _followers(entry: Entry) -> list[Entry]:
    """Return the norm, activation and dropout after a layer, without the layer."""
    behind = (entry.norm, entry.activation, Dropout(entry.dropout) if entry.dropout else None)
    return [Entry(layer) for layer in behind if layer is not None]


def _as_kernel(weight: Tensor, shape: Shape, flatten: Layer) -> Tensor:
    units, channels, height, width = shape
    if isinstance(flatten, Flatten) and flatten.order == "hwc":
        return weight.reshape(units, height, width, channels).permute(0, 3, 1, 2)
    return weight.reshape(shape)

"""A model → another of the same weights: batch norm folded into convolutions, FC layers as convolutions."""

from __future__ import annotations

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from vggkit.base.errors import ArgumentError
from vggkit.model.module import VGG, vgg_in
from vggkit.network import Network, PlacedLayer, place
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import (
    AdaptiveAvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    Linear,
    LogSoftmax,
    Shape,
    Softmax,
)

State = dict[tuple[str, str], Tensor]
"""Tensors by a layer's name and their own."""


# Folding


def fold_batch_norm(model: VGG) -> VGG:
    """Return the model with every batch norm that stands right behind a convolution or FC layer folded into that.

    In inference a batch norm multiplies each channel and adds to it, which the layer before it can do as well.

    Args:
        model: stays as it is. Batch norms that measure the batch at hand can't be folded and are kept.

    Returns:
        A new model in evaluation mode, with the same outputs in inference. Layers that nothing was folded into share
        their weights with the model.
    """
    config = replace(
        model.config,
        name=f"{model.config.name.removesuffix('-BN')}-folded",
        aliases=(),
        defaults=replace(model.config.defaults, norm=None, kinds={}),
        blocks=tuple(map(_folded_entries, model.config.blocks)),
        classifier=_folded_entries(model.config.classifier),
    )
    values = _values(model)
    state: State = {}
    frozen: list[str] = []
    for placed, before in zip(place(config), _kept(model.network), strict=True):
        if {before.layer.name, (before.norm or before.layer).name} <= set(model.frozen):
            frozen.append(placed.name)
        weights = {role: values[before.layer.name, role] for role in before.layer.held}
        if before.norm is not None:
            statistics = {role: values[before.norm.name, role] for role in before.norm.held}
            weights = _folded(weights, statistics, before.norm.layer)
        state.update({(placed.name, role): tensor for role, tensor in weights.items()})
    return _rebuilt(model, config, state, frozen).eval()


class _Before:
    """A layer, and the batch norm behind it that is folded into it."""

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
    return isinstance(layer, (Conv2d, Linear)) and isinstance(norm, BatchNorm) and norm.track_running_stats


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


def to_fully_convolutional(model: nn.Module) -> VGG:
    """Return the model with its FC layers as convolutions, for pictures of any size at or above the one it is for.

    As the paper evaluates (Sect. 3.2): the first FC layer becomes a convolution as large as the maps, the hidden ones
    behind it 1×1, and the scores are averaged over all positions. The last of several FC layers stays as it is, behind
    the average: the scores of an average are the average of the scores. So does timm, and to the last bit.

    Args:
        model: stays as it is, and shares its weights with the new one; also as torch.compile or DataParallel wraps it.

    Returns:
        A new model, whose scores at the old size are those of the old one; the model itself if its maps are averaged
        before its FC layers, as it takes any size already.

    Raises:
        ArgumentError: if the classifier is not maps, flattened, then FC layers.

    >>> from vggkit import build
    >>> model = build("A", input="3x64x64", width=0.1)
    >>> to_fully_convolutional(model).fc1.weight.shape
    torch.Size([409, 51, 2, 2])
    """
    model = vgg_in(model)
    head = [placed for placed in model.network if placed.block is None]
    if any(_averages(placed.layer) for placed in head):
        return model
    flatten = _checked_flatten(model.network, head)
    classifier = _dense_classifier(model.config.classifier, head, flatten.input_shape)
    config = replace(model.config, name=f"{model.config.name}-dense", aliases=(), classifier=classifier)
    values = _values(model)
    state: State = {}
    frozen: list[str] = []
    weights = (placed for placed in model.network if placed.held)
    for placed, old in zip((placed for placed in place(config) if placed.held), weights, strict=True):
        if old.name in model.frozen:
            frozen.append(placed.name)
        for role, shape in placed.held.items():
            tensor = values[old.name, role]
            state[placed.name, role] = tensor if tensor.shape == shape else _as_kernel(tensor, shape, flatten.layer)
    return _rebuilt(model, config, state, frozen)


def _averages(layer: Layer) -> bool:
    return isinstance(layer, GlobalAvgPool2d) or (isinstance(layer, AdaptiveAvgPool2d) and layer.output_size == (1, 1))


def _checked_flatten(network: Network, head: list[PlacedLayer]) -> PlacedLayer:
    """Return the layer that makes the classifier's maps flat, if all of the classifier has a convolutional form."""
    connected = False  # whether each feature is one channel of the convolutional form
    for placed in head:
        layer, flat = placed.layer, len(placed.input_shape) == 1
        resized = isinstance(layer, AdaptiveAvgPool2d) and placed.output_shape != placed.input_shape
        over_channels = isinstance(layer, (BatchNorm, Softmax, LogSoftmax))
        over_positions = flat and (isinstance(layer, GroupNorm) or (over_channels and not connected))
        if isinstance(layer, Conv2d) or resized or over_positions:
            raise ArgumentError(
                f"{network.name}: expected a classifier of maps, flattened, then FC layers; found {placed.name}"
                f" ({layer.keyword}) in it, which can't be evaluated at every position"
            )
        connected = connected or isinstance(layer, Linear)
    flattens = [placed for placed in head if isinstance(placed.layer, Flatten) and len(placed.input_shape) == 3]
    if not flattens or not connected:
        raise ArgumentError(f"{network.name} has no FC layers behind its maps that could become convolutions")
    return flattens[0]


def _dense_classifier(entries: tuple[Entry, ...], head: list[PlacedLayer], maps: Shape) -> tuple[Entry, ...]:
    """Return the classifier with convolutions for FC layers, each with the name that it had."""
    names = iter(placed.name for placed in head if isinstance(placed.layer, Linear))
    kernel = (maps[1], maps[2])
    dense: list[Entry] = []
    end = _averaged(entries)
    for entry in entries[:end]:
        layer = entry.layer
        if isinstance(layer, (Flatten, AdaptiveAvgPool2d)):
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
    end = len(entries) - (1 if isinstance(entries[-1].layer, (Softmax, LogSoftmax)) else 0)
    last = entries[end - 1]
    several = sum(isinstance(entry.layer, Linear) for entry in entries) > 1
    return end - 1 if several and isinstance(last.layer, Linear) and not _followers(last) else end


def _followers(entry: Entry) -> list[Entry]:
    """Return what stands behind a layer, without it."""
    behind = (entry.norm, entry.activation, Dropout(entry.dropout) if entry.dropout else None)
    return [Entry(layer) for layer in behind if layer is not None]


def _as_kernel(weight: Tensor, shape: Shape, flatten: Layer) -> Tensor:
    units, channels, height, width = shape
    if isinstance(flatten, Flatten) and flatten.order == "hwc":
        return weight.reshape(units, height, width, channels).permute(0, 3, 1, 2)
    return weight.reshape(shape)


# Moving weights


def _values(model: VGG) -> State:
    return {
        (placed.name, role): getattr(model.get_submodule(placed.module), role)
        for placed in model.network
        for role in placed.held
    }


def _rebuilt(model: VGG, config: Config, state: State, frozen: list[str]) -> VGG:
    """Return a model of a configuration that holds these tensors, in the old one's mode, with its end and checkpoints.

    Some of its layers are frozen.

    Parameters share the tensors' memory; statistics, which a forward pass in training changes, are copied.
    """
    network = place(config)
    with torch.device("meta"):
        new = VGG(network, softmax=model.ends_in_softmax, checkpoint=model.checkpoint)
    for placed in network:
        for role in placed.held:
            module = new.get_submodule(placed.module)
            tensor = state[placed.name, role]
            if isinstance(getattr(module, role), nn.Parameter):
                setattr(module, role, nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad))
            else:
                setattr(module, role, tensor.clone())
    return (new.freeze(frozen) if frozen else new).train(model.training)

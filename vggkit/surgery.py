"""A model → another of the same weights: batch norm folded into convolutions, FC layers as convolutions."""

from __future__ import annotations

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from vggkit.config import Config, Entry
from vggkit.errors import ArgumentError
from vggkit.layers import (
    AdaptiveAvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    Shape,
    Softmax,
)
from vggkit.model import VGG
from vggkit.network import Network, PlacedLayer, place

State = dict[tuple[str, str], Tensor]
"""Tensors by a layer's name and their own."""


# Folding


def fold_batch_norm(model: VGG) -> VGG:
    """Return the model with every batch norm that stands right behind a convolution or FC layer folded into that.

    In inference a batch norm multiplies each channel and adds to it, which the layer before it can do as well.

    Args:
        model: stays as it is. Batch norms that measure the batch at hand can't be folded and are kept.

    Returns:
        A new model in evaluation mode, with the same outputs in inference.
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
    names = iter(_kept(model.network))
    state: State = {}
    for placed in place(config):
        before = next(names)
        weights = {role: values[before.layer.name, role] for role in _roles(before.layer)}
        if before.norm is not None:
            statistics = {role: values[before.norm.name, role] for role in _roles(before.norm)}
            weights = _folded(weights, statistics, before.norm.layer)
        state.update({(placed.name, role): tensor for role, tensor in weights.items()})
    return _rebuilt(model, config, state).eval()


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
            folded[-1] = replace(_biased(folded[-1]), activation=entry.activation, dropout=entry.dropout)
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


def to_fully_convolutional(model: VGG) -> VGG:
    """Return the model with its FC layers as convolutions, for pictures of any size at or above the one it is for.

    As the paper evaluates (Sect. 3.2): the first FC layer becomes a convolution as large as the maps, the others 1×1,
    and the scores are averaged over all positions.

    Args:
        model: stays as it is, and shares its weights with the new one.

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
    if any(isinstance(placed.layer, GlobalAvgPool2d) for placed in model.network if placed.block is None):
        return model
    config = replace(model.config, name=f"{model.config.name}-dense", aliases=(), classifier=_dense_classifier(model))
    values = _values(model)
    state: State = {}
    weights = {placed.name: placed for placed in model.network if _roles(placed)}
    for placed in place(config):
        for role, shape in _shapes(placed).items():
            tensor = values[placed.name, role]
            old = weights[placed.name]
            if role == "weight" and isinstance(old.layer, Linear) and tensor.shape != shape:
                tensor = _as_kernel(tensor, shape, _order(model.network, old))
            state[placed.name, role] = tensor
    return _rebuilt(model, config, state)


def _as_kernel(weight: Tensor, shape: Shape, order: str) -> Tensor:
    if order == "hwc":
        units, channels, height, width = shape
        return weight.reshape(units, height, width, channels).permute(0, 3, 1, 2)
    return weight.reshape(shape)


def _order(network: Network, placed: PlacedLayer) -> str:
    before = network.layers[: network.layers.index(placed)]
    flattens = [other.layer for other in before if isinstance(other.layer, Flatten) and len(other.input_shape) == 3]
    return flattens[-1].order if flattens else "chw"


def _dense_classifier(model: VGG) -> tuple[Entry, ...]:
    """Return the classifier with convolutions for FC layers, each with the name that it had."""
    network, entries = model.network, model.config.classifier
    maps: Shape | None = next((p.input_shape for p in network if p.block is None and len(p.input_shape) == 3), None)
    if maps is None or not any(isinstance(entry.layer, Linear) for entry in entries):
        raise ArgumentError(f"{network.name} has no FC layers behind its maps that could become convolutions")
    names = iter(placed.name for placed in network if placed.block is None and placed.layer.role == "weight")
    dense: list[Entry] = []
    for entry in entries:
        layer = entry.layer
        if isinstance(layer, AdaptiveAvgPool2d) and layer.output_shape(maps) == maps:
            continue  # it does nothing at the network's own size
        if isinstance(layer, (AdaptiveAvgPool2d, Conv2d)):
            raise ArgumentError(f"{network.name}: expected a classifier of FC layers, found {layer.keyword} in it")
        if isinstance(layer, Flatten):
            continue
        if isinstance(layer, Linear):
            kernel = (maps[1], maps[2])
            convolution = Conv2d(layer.out_features, kernel_size=kernel, padding=(0, 0), bias=layer.bias)
            dense.append(replace(entry, layer=convolution, name=next(names), position=None))
            maps = (layer.out_features, 1, 1)
            continue
        if isinstance(layer, Softmax):
            dense += [Entry(GlobalAvgPool2d()), Entry(Flatten())]
        dense.append(replace(entry, name=None, position=None))
    if not isinstance(entries[-1].layer, Softmax):
        dense += [Entry(GlobalAvgPool2d()), Entry(Flatten())]
    return tuple(dense)


# Moving weights


def _roles(placed: PlacedLayer) -> list[str]:
    return [*placed.layer.parameters(placed.input_shape), *placed.layer.buffers(placed.input_shape)]


def _shapes(placed: PlacedLayer) -> dict[str, Shape]:
    return {**placed.layer.parameters(placed.input_shape), **placed.layer.buffers(placed.input_shape)}


def _values(model: VGG) -> State:
    return {
        (placed.name, role): getattr(model.get_submodule(placed.module), role).detach()
        for placed in model.network
        for role in _roles(placed)
    }


def _rebuilt(model: VGG, config: Config, state: State) -> VGG:
    """Return a model of a configuration that holds these tensors, in the old one's mode and with its end."""
    network = place(config)
    with torch.device("meta"):
        new = VGG(network, softmax=model.ends_in_softmax)
    for placed in network:
        for role in _roles(placed):
            module = new.get_submodule(placed.module)
            tensor = state[placed.name, role]
            old = getattr(module, role)
            setattr(module, role, nn.Parameter(tensor) if isinstance(old, nn.Parameter) else tensor)
    return new.train(model.training)

"""The current modules of a model → the Network that they form.

A model may be changed once it is built: a layer is replaced, channels are pruned, an activation is swapped. Its network
is then read off its modules and checked: each layer that is read off must build the same module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import torch
from msgspec.structs import replace
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from vggkit.base.errors import ArgumentError, ConfigError, LayerError, shorten
from vggkit.network import Network, PlacedLayer, place
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import KINDS, Dropout, Flatten, Layer, Shape, times
from vggkit.notation.reading import parse_config
from vggkit.notation.spelling import FOLLOWERS, typed

Chain = Sequence[tuple[str, nn.Module]]
"""Modules by their paths, in the order in which they run."""


def described(network: Network, chain: Chain, *, softmax: bool) -> Network:
    """Return the network of a model's current modules.

    Args:
        network: the one it was built from.
        chain: its modules, now.
        softmax: whether it was built with softmax=True.

    Returns:
        The same network if nothing was changed. Else one with each layer as it is; a layer with parameters keeps its
        name, so that a `state_dict()` fits.

    Raises:
        ArgumentError: if no configuration says what a module does.
    """
    if _all_as_placed(network.modules(softmax=softmax), chain):
        return network
    parts = _parts(network, chain)
    if len(network.layers) > len(network.modules(softmax=softmax)):  # the model hands on scores
        last = network.layers[-1]
        parts.append(_Part(last.module, last.layer, parts[-1].output_shape if parts else ()))
    changed = _placed(_changed(network.config, parts), parts)
    modules = changed.modules(softmax=softmax)
    if not _all_as_placed(modules, chain):
        unlike = next((path for (path, module), placed in zip(chain, modules) if not _is(module, placed)), "its end")
        raise ArgumentError(f"model: no configuration has its layers as they are at {unlike}")
    return changed


# A module and a layer


class _Traits(NamedTuple):
    """Everything that defines a module except its values."""

    kind: type[nn.Module]
    settings: dict[str, Any]
    tensors: dict[str, Shape]
    children: tuple[_Traits, ...]


def _traits(module: nn.Module) -> _Traits:
    settings = {
        name: _collapsed(value) for name, value in vars(module).items() if name[0] != "_" and name != "training"
    }
    tensors = {name: tuple(tensor.shape) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    return _Traits(type(module), settings, tensors, tuple(map(_traits, module.children())))


def _collapsed(value: Any) -> Any:
    """Return a pair of equal sizes as one: torch takes either."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(size, int) and size == value[0] for size in value):
        return value[0]
    return value


@lru_cache(1024)
def _built(layer: Layer, x: Shape) -> _Traits:
    with unset_fake_temporarily(), torch.device("meta"):
        return _traits(layer.module(x, nn))


def _same_kind(found: type[nn.Module], built: type[nn.Module]) -> bool:
    if issubclass(found, nn.SyncBatchNorm):  # a batch norm whose batch is that of all processes
        return issubclass(built, nn.modules.batchnorm._BatchNorm)
    return issubclass(found, built) and found.forward is built.forward


def _alike(found: _Traits, built: _Traits) -> bool:
    """Tell whether a layer builds this module; a tool may have replaced its class by a subclass."""
    return (
        _same_kind(found.kind, built.kind)
        and "forward" not in found.settings
        and all(name in found.settings and found.settings[name] == built.settings[name] for name in built.settings)
        and found.tensors == built.tensors
        and len(found.children) == len(built.children)
        and all(map(_alike, found.children, built.children))
    )


def _is(module: nn.Module, placed: PlacedLayer) -> bool:
    return _alike(_traits(module), _built(placed.layer, placed.input_shape))


def _all_as_placed(placed: Sequence[PlacedLayer], chain: Chain) -> bool:
    return len(placed) == len(chain) and all(
        (path == each.module or not each.held) and _is(module, each) for (path, module), each in zip(chain, placed)
    )


def _read(module: nn.Module, x: Shape) -> Layer | None:
    """Return the layer that builds such a module: the fields of a kind have torch's names."""
    found = _traits(module)
    for kind in KINDS:
        try:
            layer = kind(**dict(_fields(kind, module)))
            if _alike(found, _built(layer, x)):
                return _plainest(layer, found, x)
        except (TypeError, ValueError):  # it is another kind's module, or has what no layer has
            continue
    return None


def _plainest(layer: Layer, found: _Traits, x: Shape) -> Layer:
    """Return a layer with the defaults that make no difference: a padding of 1 is `same` for a kernel of 3."""
    for field in msgspec.structs.fields(layer):
        if not field.required and getattr(layer, field.name) != field.default:
            plainer = replace(layer, **{field.name: field.default})
            with suppress(ValueError):  # a default that does not fit this input
                layer = plainer if _alike(found, _built(plainer, x)) else layer
    return layer


def _fields(kind: type[Layer], module: nn.Module) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(kind):
        if field.name in module._parameters:
            yield field.name, module._parameters[field.name] is not None
        elif hasattr(module, field.name):
            yield field.name, typed(_collapsed(getattr(module, field.name)), field.type)


# Modules and a configuration


class _Part(NamedTuple):
    """A module's path, its layer, and the shape of its input."""

    path: str
    layer: Layer
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        return self.layer.output_shape(self.input_shape)


def _parts(network: Network, chain: Chain) -> list[_Part]:
    """Return the layers of the modules; unchanged ones keep their notation."""
    before = {placed.module: placed.layer for placed in network}
    parts: list[_Part] = []
    x = network.input_shape
    convolution = next((module for _, module in chain if isinstance(module, nn.Conv2d)), None)
    if convolution is not None:
        x = (convolution.in_channels, *x[1:])
    for path, module in chain:
        old = before.get(path)
        same = old is not None and _alike(_traits(module), _built(old, x))
        layer = old if same else _read(module, x)
        if layer is None:
            said = shorten(" ".join(repr(module).split()))
            raise ArgumentError(
                f"model: no layer of a configuration is what {path} is for an input of {times(x)}: {said}"
            )
        part = _Part(path, layer, x)
        try:
            x = part.output_shape
        except LayerError as error:
            raise ArgumentError(f"model: {path}: {error}") from None
        parts.append(part)
    return parts


def _changed(config: Config, parts: Sequence[_Part], named: frozenset[str] = frozenset()) -> Config:
    """Return a configuration with these layers, without the published figures of the old one."""
    blocks: list[tuple[Entry, ...]] = []
    classifier: tuple[Entry, ...] = ()
    for block, members in groupby(parts, key=lambda part: part.path.rpartition(".")[0]):
        entries = tuple(_entries(list(members), named))
        if block:
            blocks.append(entries)
        else:
            classifier = entries
    shape = parts[0].input_shape if parts else config.input
    return replace(
        config, aliases=(), source=None, reported=None, input=shape, blocks=tuple(blocks), classifier=classifier
    )


def _entries(parts: Sequence[_Part], named: frozenset[str]) -> list[Entry]:
    """Return entries; the norm, activation and dropout after a weight layer are part of its entry."""
    entries: list[Entry] = []
    for part, after in zip(parts, (*parts[1:], None)):
        layer, last = part.layer, entries[-1] if entries else None
        unsaid = layer == Flatten() and len(part.input_shape) == 3  # before an FC layer
        if unsaid and after is not None and after.layer.needs_flat:
            continue
        if last is not None and last.layer.is_weight_layer and part.path not in named and _may_follow(last, layer):
            value = layer.p if isinstance(layer, Dropout) else layer
            entries[-1] = replace(last, **{layer.role: value})
        else:
            name = part.path.rpartition(".")[2] if part.path in named else None
            entries.append(Entry(layer, name=name))
    return entries


def _may_follow(entry: Entry, layer: Layer) -> bool:
    if layer.role not in FOLLOWERS or layer == Dropout(0.0):
        return False
    later = FOLLOWERS[FOLLOWERS.index(layer.role) :]
    return not any(getattr(entry, word) for word in later)


def _placed(config: Config, parts: Sequence[_Part]) -> Network:
    """Place a configuration, with names for the layers whose parameters would have others; it can be written and read.

    Raises:
        ArgumentError: if it can't be said in a file.
    """
    try:
        network = place(config)
        named = frozenset(
            part.path for part, placed in zip(parts, network) if placed.held and placed.module != part.path
        )
        if named:
            network = place(_changed(config, parts, named))
        if parse_config(str(network.config), "model", _nothing_extended) == network.config:
            return network
    except ConfigError as error:
        raise ArgumentError(f"model: no configuration has its layers: {error}") from None
    raise ArgumentError("model: no configuration has its layers")


def _nothing_extended(name: str) -> Config:
    raise AssertionError(f"a configuration that was written extends {name}")

"""The current modules of a model → the Network that they form.

A model may be changed once it is built: a layer is replaced, channels are pruned, an activation is swapped. Its network
is then read off its modules and checked: each layer that is read off must build the same module.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from msgspec.structs import replace
from torch import nn

from vggkit.base.errors import ArgumentError, ConfigError, LayerError, shorten
from vggkit.modules.layers import builds, layer_of
from vggkit.modules.parts import Part, entries, said
from vggkit.network import Network, PlacedLayer, place
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import times

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
        parts.append(Part(last.module, last.layer, parts[-1].output_shape if parts else ()))
    changed = _placed(_changed(network.config, parts), parts)
    modules = changed.modules(softmax=softmax)
    if not _all_as_placed(modules, chain):
        unlike = next((path for (path, module), placed in zip(chain, modules) if not _is(module, placed)), "its end")
        raise ArgumentError(f"model: no configuration has its layers as they are at {unlike}")
    return changed


def _is(module: nn.Module, placed: PlacedLayer) -> bool:
    return builds(placed.layer, placed.input_shape, module)


def _all_as_placed(placed: Sequence[PlacedLayer], chain: Chain) -> bool:
    return len(placed) == len(chain) and all(
        (path == each.module or not each.held) and _is(module, each) for (path, module), each in zip(chain, placed)
    )


# Modules and a configuration


def _parts(network: Network, chain: Chain) -> list[Part]:
    """Return the layers of the modules; unchanged ones keep their notation."""
    before = {placed.module: placed.layer for placed in network}
    parts: list[Part] = []
    x = network.input_shape
    convolution = next((module for _, module in chain if isinstance(module, nn.Conv2d)), None)
    if convolution is not None:
        x = (convolution.in_channels, *x[1:])
    for path, module in chain:
        old = before.get(path)
        same = old is not None and builds(old, x, module)
        layer = old if same else layer_of(module, x)
        if layer is None:
            said = shorten(" ".join(repr(module).split()))
            raise ArgumentError(
                f"model: no layer of a configuration is what {path} is for an input of {times(x)}: {said}"
            )
        part = Part(path, layer, x)
        try:
            x = part.output_shape
        except LayerError as error:
            raise ArgumentError(f"model: {path}: {error}") from None
        parts.append(part)
    return parts


def _changed(config: Config, parts: Sequence[Part], named: frozenset[str] = frozenset()) -> Config:
    """Return a configuration with these layers, without the published figures of the old one."""
    blocks: list[tuple[Entry, ...]] = []
    classifier: tuple[Entry, ...] = ()
    for block, members in groupby(parts, key=lambda part: part.path.rpartition(".")[0]):
        found = entries(list(members), named)
        if block:
            blocks.append(found)
        else:
            classifier = found
    shape = parts[0].input_shape if parts else config.input
    return replace(
        config, aliases=(), source=None, reported=None, input=shape, blocks=tuple(blocks), classifier=classifier
    )


def _placed(config: Config, parts: Sequence[Part]) -> Network:
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
    except ConfigError as error:
        raise ArgumentError(f"model: no configuration has its layers: {error}") from None
    said(network.config)
    return network

"""One layout → another, losing nothing: every tensor to the bit, its dtype, and the configuration."""

from __future__ import annotations

import os
from functools import partial

from torch import Tensor

from vggkit.base.errors import ArgumentError, CheckpointError, shorten
from vggkit.base.files import opened
from vggkit.model.weights.checkpoint import Checkpoint, Export, ExportedLayer, Flattened, Layout, flattened
from vggkit.model.weights.differences import differences
from vggkit.model.weights.identification import assumed, identify
from vggkit.model.weights.layouts import LAYOUTS, open_checkpoint
from vggkit.model.weights.loading import warn
from vggkit.model.weights.matching import LayerPair, Matching, match, misfit
from vggkit.network import Network
from vggkit.notation.config import in_torchs_order


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    layout: str | None = None,
    config: str | os.PathLike[str] | Network | None = None,
) -> Network:
    """Write a checkpoint in another layout.

    Args:
        source: a checkpoint.
        target: where to; its ending says the format: .pth, .pt or .bin is PyTorch's, .safetensors, .h5 is Keras's
            legacy format, .weights.h5 Keras 3's.
        layout: torchvision, timm, keras, keras3 or vggkit; None is the one that the ending stands for.
        config: which configuration the source is, if its shapes don't tell.

    Returns:
        The network that the checkpoint is of.

    Raises:
        CheckpointError: if the source can't be read or told, or something in it has no place in the layout.
        ArgumentError: if the ending or the layout is unknown, they don't go together, or the target is the source.
        VggkitError: if the target can't be written.

    >>> import pathlib, tempfile
    >>> from vggkit import build, save_weights
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "small.safetensors"
    >>> save_weights(build("A", input="3x32x32", width=0.1), file)
    >>> convert(file, file.with_suffix(".h5")).name
    'A'
    """
    _asked(os.fspath(target), layout)
    checkpoint = open_checkpoint(source)
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ArgumentError(f"{os.fspath(target)}: expected another file than the one that is converted")
    return converted(checkpoint, target, layout=layout, config=config)


def converted(
    checkpoint: Checkpoint,
    target: str | os.PathLike[str],
    *,
    layout: str | None = None,
    config: str | os.PathLike[str] | Network | None = None,
) -> Network:
    """Write an open checkpoint in another layout.

    Args:
        checkpoint: the checkpoint.
        target: as for `convert`.
        layout: as for `convert`.
        config: as for `convert`.

    Returns:
        The network that the checkpoint is of.

    Raises:
        CheckpointError: as for `convert`.
        ArgumentError: as for `convert`.
        VggkitError: as for `convert`.
    """
    ending, to = _asked(os.fspath(target), layout)
    network, matching, notes = _told(checkpoint, config)
    if matching.unused:
        raise CheckpointError(f"{checkpoint.path}: {shorten(matching.unused[0])} has no place in {to.name}'s layout")
    export = _export(checkpoint, network, matching, to)
    to.check(export)
    warn(notes)
    with opened(target) as file:
        to.write(file, ending, export)
    return network


def _asked(target: str, name: str | None) -> tuple[str, Layout]:
    """Return the ending of a file's name, and the layout that is asked for or that the ending stands for."""
    standing = {ending: layout for layout in LAYOUTS.values() for ending in layout.default_endings}
    ending = max((ending for ending in standing if target.lower().endswith(ending)), key=len, default=None)
    if ending is None:
        raise ArgumentError(f"{target}: expected a file that ends in {', '.join(standing)}")
    if name and name not in LAYOUTS:
        raise ArgumentError(f"layout: expected one of {', '.join(LAYOUTS)}, found {shorten(name)}")
    layout = LAYOUTS[name] if name else standing[ending]
    if ending not in layout.endings:
        wanted = " or ".join(layout.endings[:2])
        raise ArgumentError(f"{target}: expected a file that ends in {wanted} for {layout.name}'s layout")
    return ending, layout


def _told(
    checkpoint: Checkpoint, config: str | os.PathLike[str] | Network | None
) -> tuple[Network, Matching, tuple[str, ...]]:
    """Return the network of a file, which layer is which, and what is assumed about it."""
    if config is None:
        identity = identify(checkpoint)
        return identity.network, identity.matching, identity.notes
    network = Network.of(config)
    matching = match(network, checkpoint)
    if matching.differences:
        raise misfit(network, checkpoint, matching.differences)
    if others := differences(network, checkpoint, matching):
        raise misfit(network, checkpoint, others, "leave --config out to convert it as what it says it is")
    return network, matching, tuple(assumed(checkpoint, matching))


def _export(checkpoint: Checkpoint, network: Network, matching: Matching, layout: Layout) -> Export:
    """Return what is to be written, no tensor of it read yet."""
    pairs = {pair.placed.name: pair for pair in matching.pairs}
    layers = []
    for placed, name in zip(network, layout.vocabularies(network)[0]):
        flat, pair = flattened(network, placed), pairs.get(placed.name)
        to = Flattened(flat.maps, layout.order) if flat and layout.order and layout.order != flat.order else None
        tensors = {role: partial(_read, checkpoint, pair, role, layout, to) for role, _ in pair.roles()} if pair else {}
        layers.append(ExportedLayer(placed, name, flat, tensors))
    config = in_torchs_order(network.config) if layout.order == "chw" else network.config
    return Export(checkpoint.path, config, layers)


def _read(checkpoint: Checkpoint, pair: LayerPair, role: str, layout: Layout, to: Flattened | None) -> Tensor:
    """Read a layer's tensor in a layout's order of axes and of flattened maps."""
    return layout.from_torch(pair.read(checkpoint, role), to if pair.is_per_input(role) else None)

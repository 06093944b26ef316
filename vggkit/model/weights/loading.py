"""Loading weights into a model, growing one from another, and saving weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TypedDict

import torch
from torch import Tensor, nn

from vggkit.base.errors import ArgumentError, CheckpointError, VggkitError, shorten
from vggkit.base.files import opened
from vggkit.model.module import VGG, LoadReport, vgg_in
from vggkit.model.weights.checkpoint import Checkpoint, flattened, reordered
from vggkit.model.weights.container import CONFIG_KEY, write_safetensors
from vggkit.model.weights.differences import ADVICE, differences
from vggkit.model.weights.divided import divided_parameters, is_first, part_of, whole
from vggkit.model.weights.held import checkpoint_in
from vggkit.model.weights.identification import assumed, identify
from vggkit.model.weights.layouts import open_checkpoint
from vggkit.model.weights.matching import LayerPair, match, misfit
from vggkit.network import Network, PlacedLayer

WeightsSource = str | os.PathLike[str]
"""A file, or "imagenet"."""

logger = logging.getLogger("vggkit")


class LoadArguments(TypedDict, total=False):
    """The keywords of `load_weights` that `build` takes too, for type checkers."""

    strict: bool
    include_top: bool
    adapt_input: bool


def resolve(source: WeightsSource, network: Network) -> str:
    """Return the file of a source; what `imagenet` stands for is downloaded if it is not there yet.

    Args:
        source: a path, or "imagenet".
        network: which network's.

    Raises:
        ArgumentError: if there are no published weights for it.
        VggkitError: if they can't be downloaded.
    """
    if os.fspath(source) != "imagenet":
        return os.fspath(source)
    from vggkit.model.weights.download import fetch
    from vggkit.model.weights.published import imagenet

    return os.fspath(fetch(imagenet(network.name)))


def checkpoint_of(source: WeightsSource | nn.Module, network: Network) -> Checkpoint:
    """Open a source of weights for a network.

    Args:
        source: a file, "imagenet", or a module that runs as a chain of layers on the network's input.
        network: which is to have them.

    Raises:
        CheckpointError: if a file can't be read.
        ArgumentError: if it is none of these, there are no published weights for the network, or a module can't be
            described.
    """
    if isinstance(source, nn.Module):
        return checkpoint_in(source, network.input_shape)
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            f"weights: expected a file, 'imagenet' or a torch module, found {shorten(type(source).__name__)}; a state"
            " dict does not say how its layers run, its module does"
        )
    return open_checkpoint(resolve(source, network), network.input_shape)


def load_weights(
    model: nn.Module,
    source: WeightsSource | nn.Module,
    *,
    strict: bool = True,
    include_top: bool = True,
    head: str | None = None,
    adapt_input: bool = True,
) -> LoadReport:
    """Load a checkpoint into a model; the layout is recognised by its content.

    Args:
        model: where to; also as torch.compile or DataParallel wraps it. What is on the meta device takes the file's
            tensors as they are, memory-mapped where the format allows; else the values are copied, so that an
            optimizer's references stay good. If its parameters are divided among ranks, each reads the file and takes
            its parts.
        source: a file of torchvision, timm, Keras or vggkit, "imagenet", or a module that `describe` takes; its values
            are copied.
        strict: False loads the layers that fit, leaves the others as they are, and notes what the file says of its
            network that would change the answers; else that is refused.
        include_top: False leaves the classifier as it is.
        head: "new" is another word for include_top=False.
        adapt_input: whether a first convolution for 3 colours may serve another number of channels: for 1 its kernels
            are summed up over the colours, for others repeated and rescaled.

    Returns:
        What was loaded; also kept as `model.report`.

    Raises:
        CheckpointError: if it can't be read, does not fit, or is of a network with other answers; with everything that
            differs.
        ArgumentError: if an argument is outside its allowed values.

    >>> from vggkit import build, save_weights
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "small.safetensors"
    >>> save_weights(build("A", input="3x32x32", width=0.1), file)
    >>> print(load_weights(build("A", input="3x32x32", width=0.1), file).loaded["fc1"])
    fc1
    """
    model = vgg_in(model)
    if head not in (None, "new"):
        raise ArgumentError(f"head: expected 'new', found {shorten(head)}")
    with divided_parameters(model):
        checkpoint = checkpoint_of(source, model.network)
        return load_checkpoint(
            model, checkpoint, strict=strict, include_top=include_top and head is None, adapt_input=adapt_input
        )


def load_checkpoint(
    model: VGG,
    checkpoint: Checkpoint,
    *,
    strict: bool = True,
    include_top: bool = True,
    adapt_input: bool = True,
    notes: Iterable[str] = (),
) -> LoadReport:
    """Load an open checkpoint into a model.

    Args:
        model: where to.
        checkpoint: where from.
        strict: as for `load_weights`.
        include_top: as for `load_weights`.
        adapt_input: as for `load_weights`.
        notes: what the file does not say and was assumed; kept in the report and logged, as is what is changed.

    Raises:
        CheckpointError: if it does not fit.
    """
    network = model.network
    matching = match(network, checkpoint, include_top=include_top)
    adapted = [pair for pair in matching.pairs if pair.adapted]
    misfits = [*matching.differences, *(map(_told_refused, adapted) if not adapt_input else ())]
    if strict and misfits:
        raise misfit(network, checkpoint, [*misfits, *_what_it_is(checkpoint, network)])
    others = differences(network, checkpoint, matching, include_top=include_top)
    if strict and others:
        raise misfit(network, checkpoint, others, ADVICE)
    for pair in matching.pairs:
        _assign(model, checkpoint, pair)
    all_notes = (*notes, *assumed(checkpoint, matching), *misfits, *others, *map(_told_adapted, adapted))
    warn(all_notes)
    loaded = {pair.placed.name: pair.stored.name for pair in matching.pairs}
    report = LoadReport(checkpoint.path, loaded, _unloaded(network, loaded), all_notes, checkpoint.layout.name)
    model.report = report
    logger.info("%s", report)
    return report


def warn(notes: Iterable[str]) -> None:
    """Log each note as a warning; the command line prints them."""
    for note in notes:
        logger.warning("%s", note)


def _what_it_is(checkpoint: Checkpoint, network: Network) -> list[str]:
    """Tell of which configuration a checkpoint is, if that is another one."""
    try:
        identity = identify(checkpoint)
    except VggkitError:
        return []
    same = identity.known in (network.name, network.name.removesuffix("-BN"))
    return [] if same or identity.known is None else [f"the checkpoint is {identity.description}"]


def _unloaded(network: Network, loaded: Iterable[str]) -> tuple[str, ...]:
    loaded = set(loaded)
    return tuple(
        placed.name for placed in network if placed.layer.parameters(placed.input_shape) and placed.name not in loaded
    )


def _told_refused(pair: LayerPair) -> str:
    return (
        f"{pair.placed.name}: checkpoint has 3 input channels, model has {pair.placed.input_shape[0]}; adapt_input=True"
        f" converts its kernels"
    )


def _told_adapted(pair: LayerPair) -> str:
    channels = pair.placed.input_shape[0]
    if channels == 1:
        return f"{pair.placed.name}: its kernels for 3 colours were summed up for 1 channel"
    return f"{pair.placed.name}: its kernels for 3 colours were repeated and rescaled for {channels} channels"


def _assign(model: VGG, checkpoint: Checkpoint, pair: LayerPair) -> None:
    module = model.get_submodule(pair.placed.module)
    for role, shape in pair.roles():
        tensor = pair.read(checkpoint, role)
        set_tensor(module, role, _adapted(tensor, shape[1]) if role == "weight" and pair.adapted else tensor)
    counter = getattr(module, "num_batches_tracked", None)
    if isinstance(counter, Tensor) and counter.is_meta:  # Keras doesn't count
        module.num_batches_tracked = torch.zeros_like(counter, device="cpu")


def _adapted(weight: Tensor, channels: int) -> Tensor:
    """Convert kernels for 3 colours so that a grey picture, or one repeated over the channels, has the same outputs."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)


def set_tensor(module: nn.Module, role: str, tensor: Tensor) -> None:
    """Give a module a value: in place, or as it is where there is nothing yet.

    Args:
        module: the module.
        role: the parameter's or buffer's name.
        tensor: the value.
    """
    old: Tensor = getattr(module, role)
    tensor = part_of(tensor, old)
    if not old.is_meta:
        with torch.no_grad():
            old.copy_(tensor)
        return
    tensor = tensor if old.dtype == tensor.dtype else tensor.to(old.dtype)
    if isinstance(old, nn.Parameter):
        setattr(module, role, nn.Parameter(tensor, requires_grad=old.requires_grad))
    else:
        setattr(module, role, tensor)


# Growing


FIRST_CONVOLUTIONS = 4
"""How many of a shallow network's convolutions start a deeper one (paper, Sect. 3.1)."""


def grow(model: VGG, source: WeightsSource | nn.Module) -> LoadReport:
    """Copy the first four convolutions and the FC layers of a shallower network, as the paper did (Sect. 3.1).

    Args:
        model: the deeper network; its other layers stay as they are.
        source: a model, or a file.

    Returns:
        What was copied.

    Raises:
        CheckpointError: if a file can't be read, or nothing fits.
    """
    donor, state, name, notes = _donor(source, model.network)
    loaded: dict[str, str] = {}
    for ours, theirs in _grown_pairs(model.network, donor):
        wanted = ours.layer.parameters(ours.input_shape)
        taken, given = flattened(model.network, ours), flattened(donor, theirs)
        if wanted != theirs.layer.parameters(theirs.input_shape) or (taken and given and taken.maps != given.maps):
            continue
        for role in wanted:
            tensor = state(theirs, role)
            if role == "weight" and taken and given and taken.order != given.order:
                tensor = reordered(tensor, taken)
            # a copy: growing must not tie two models together
            set_tensor(model.get_submodule(ours.module), role, tensor.clone())
        loaded[ours.name] = theirs.name
    if not loaded:
        raise CheckpointError(
            f"init_from: no layer of {name} has the shape of one of {model.network.name}'s to start from"
        )
    warn(notes)
    report = LoadReport(name, loaded, _unloaded(model.network, loaded), notes)
    model.report = report
    logger.info("%s", report)
    return report


def _donor(
    source: WeightsSource | nn.Module, network: Network
) -> tuple[Network, Callable[[PlacedLayer, str], Tensor], str, tuple[str, ...]]:
    """Return the donor's network, a way to read its tensors, its name, and what is assumed about it."""
    if isinstance(source, VGG):
        given: VGG = source

        def of_model(placed: PlacedLayer, role: str) -> Tensor:
            tensor: Tensor = getattr(given.get_submodule(placed.module), role)
            return tensor.detach()

        return source.network, of_model, source.network.name, ()
    checkpoint = checkpoint_of(source, network)
    identity = identify(checkpoint)
    pairs = {pair.placed.name: pair for pair in identity.matching.pairs}

    def of_file(placed: PlacedLayer, role: str) -> Tensor:
        return pairs[placed.name].read(checkpoint, role)

    return identity.network, of_file, checkpoint.path, identity.notes


def _grown_pairs(network: Network, donor: Network) -> list[tuple[PlacedLayer, PlacedLayer]]:
    """Return the layers that start from each other.

    A's first four convolutions are conv1_1, conv2_1, conv3_1 and conv3_2: in a deeper network those with the same
    names have their shapes. The classifier's layers are taken in order.
    """
    ours = {placed.name: placed for placed in network}
    convolutions = [placed for placed in donor if placed.layer.is_convolution and placed.block is not None]
    first = [(ours[donated.name], donated) for donated in convolutions[:FIRST_CONVOLUTIONS] if donated.name in ours]
    return [*first, *zip(network.head, donor.head)]


# Saving


def save_weights(model: nn.Module, path: WeightsSource) -> None:
    """Save a model's weights as safetensors, with its configuration: `load_model` needs nothing else.

    The configuration is of the model as it is now: layers may have been replaced or pruned since it was built.

    Args:
        model: what to save; also as torch.compile, DataParallel or DistributedDataParallel wrap it. If its parameters
            are divided among ranks, all of them must call this; the first one writes the file.
        path: where to; whole or not at all.

    Raises:
        VggkitError: if it can't be written.
        ArgumentError: if no configuration says what the model is, or it holds more than its layers do.

    >>> import pathlib, tempfile
    >>> from vggkit import build, load_model, save_weights
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "small.safetensors"
    >>> save_weights(build("A", input="3x32x32", width=0.1), file)
    >>> load_model(file).network.name
    'A'
    """
    model = vgg_in(model)
    with divided_parameters(model):
        _save(model, path)


def _save(model: VGG, path: WeightsSource) -> None:
    state = {
        f"{placed.module}.{role}": whole(getattr(module, role))
        for placed, module in model.layers()
        for role in placed.held
    }
    if more := [name for name in model.state_dict() if name.replace("_orig_mod.", "") not in state]:
        raise ArgumentError(f"model: expected no more than the network's layers hold, found {', '.join(more[:5])}")
    if any(tensor.is_meta for tensor in state.values()):
        raise ArgumentError("model: it is on the meta device and has no values to save")
    metadata = {"format": "pt", CONFIG_KEY: str(model.config)}
    if is_first(model):
        with opened(path) as file:
            write_safetensors(file, state, metadata)

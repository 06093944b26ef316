"""One layout → another, losing nothing: every tensor to the bit, its dtype, and the configuration."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import torch
from msgspec.structs import replace
from torch import Tensor

from vggkit.base.errors import ArgumentError, CheckpointError, shorten
from vggkit.base.files import opened
from vggkit.model.weights.aligned import write_safetensors
from vggkit.model.weights.container import CONFIG_KEY
from vggkit.model.weights.differences import differences
from vggkit.model.weights.identification import assumed, identify
from vggkit.model.weights.layouts import LAYOUTS, ROLES, Checkpoint, Reorder, reordered, to_keras
from vggkit.model.weights.loading import open_checkpoint, warn
from vggkit.model.weights.matching import TIMM_HEAD, Matching, flattened, match, misfit, names_in
from vggkit.network import Network
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import Flatten, Linear, Shape

DEFAULT_LAYOUTS = {
    ".weights.h5": "keras3", ".h5": "keras", ".safetensors": "vggkit", ".pth": "torchvision", ".pt": "torchvision",
    ".bin": "timm",
}  # fmt: skip
"""The layout that a file's ending stands for, where none is asked for."""


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
    ending, layout = _asked(os.fspath(target), layout)
    checkpoint = open_checkpoint(source)
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ArgumentError(f"{os.fspath(target)}: expected another file than the one that is converted")
    network, matching, notes = _told(checkpoint, config)
    if matching.unused:
        raise CheckpointError(f"{checkpoint.path}: {shorten(matching.unused[0])} has no place in {layout}'s layout")
    job = _Job(checkpoint, network, matching, layout)
    job.check()
    warn(notes)
    with opened(target) as file:
        WRITERS[ending](file, job)
    return network


def _asked(target: str, layout: str | None) -> tuple[str, str]:
    ending = next((ending for ending in DEFAULT_LAYOUTS if target.lower().endswith(ending)), None)
    if ending is None:
        raise ArgumentError(f"{target}: expected a file that ends in {', '.join(DEFAULT_LAYOUTS)}")
    layout = layout or DEFAULT_LAYOUTS[ending]
    if layout not in LAYOUTS:
        raise ArgumentError(f"layout: expected one of {', '.join(LAYOUTS)}, found {shorten(layout)}")
    needed = {"keras": ".h5", "keras3": ".weights.h5"}.get(layout)
    if (needed or ending) != ending or (needed is None and ending.endswith(".h5")):
        wanted = needed or ".pth or .safetensors"
        raise ArgumentError(f"{target}: expected a file that ends in {wanted} for {layout}'s layout")
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


TORCHS_ORDER = ("torchvision", "timm")
"""The layouts whose models flatten maps as PyTorch does, whatever the file's own network does."""


def _in_torchs_order(config: Config) -> Config:
    """Return a configuration that flattens maps channel by channel."""

    def plain(entry: Entry) -> Entry:
        return replace(entry, layer=Flatten()) if isinstance(entry.layer, Flatten) else entry

    return replace(
        config,
        blocks=tuple(tuple(map(plain, block)) for block in config.blocks),
        classifier=tuple(map(plain, config.classifier)),
    )


class _Job:
    """What is to be written, and the names that it gets.

    Args:
        checkpoint: where the tensors are.
        network: what they are of.
        matching: which layer is which.
        layout: whose names to give.
    """

    def __init__(self, checkpoint: Checkpoint, network: Network, matching: Matching, layout: str) -> None:
        self.checkpoint = checkpoint
        self.network = network
        self.layout = layout
        self.config = _in_torchs_order(network.config) if layout in TORCHS_ORDER else network.config
        self.pairs = {pair.placed.name: pair for pair in matching.pairs}
        self.names = dict(zip((placed.name for placed in network), names_in(network, layout)))

    def check(self) -> None:
        """Refuse what the layout has no place for, before anything is written."""
        nameless = next((name for name in self.pairs if self.names[name] is None), None)
        if self.layout == "timm":
            self._check_timm()
        if nameless is not None:
            raise CheckpointError(f"{self.checkpoint.path}: {nameless} has no name in {self.layout}'s layout")

    def _check_timm(self) -> None:
        head = [placed for placed in self.network if placed.block is None and placed.name in self.pairs]
        plain = [placed for placed in head if isinstance(placed.layer, Linear) and placed.layer.bias]
        if head and (len(head) != len(TIMM_HEAD) or plain != head):
            raise CheckpointError(
                f"{self.checkpoint.path}: timm's layout has three FC layers with biases behind the blocks;"
                f" {self.network.name} has {', '.join(placed.name for placed in head)}"
            )

    def roles(self, name: str) -> dict[str, Shape]:
        """Return the tensors that a layer has in the file, with their shapes; none for a layer without any."""
        return dict(self.pairs[name].roles()) if name in self.pairs else {}

    def read(self, name: str, role: str) -> Tensor:
        """Read a layer's tensor in torch's order of axes, and of flattened maps where the layout has no other."""
        pair = self.pairs[name]
        tensor = pair.read(self.checkpoint, role)
        flatten = flattened(self.network, pair.placed)
        if flatten is None or flatten.order == "chw" or self.layout not in TORCHS_ORDER or not pair.is_per_input(role):
            return tensor
        return reordered(tensor, Reorder(flatten.maps, "chw"))

    def maps(self, name: str) -> Shape | None:
        """Return the maps whose values a layer takes one by one in PyTorch's order, if it does."""
        flatten = flattened(self.network, self.pairs[name].placed)
        return flatten.maps if flatten is not None and flatten.order == "chw" else None


# PyTorch and safetensors


def _state(job: _Job) -> OrderedDict[str, Tensor]:
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, pair in job.pairs.items():
        prefix = str(job.names[name])
        for role in job.roles(name):
            tensor = job.read(name, role)
            if job.layout == "timm" and role == "weight" and prefix in TIMM_HEAD[:2]:
                maps = pair.stored.maps or job.maps(name) or (pair.placed.input_shape[0], 1, 1)
                tensor = tensor.reshape(tensor.shape[0], *maps)
            state[f"{prefix}.{role}"] = tensor
    return state


def _write_pytorch(file: IO[bytes], job: _Job) -> None:
    state = _state(job)
    # torch keeps a state dict's metadata when it saves it, and passes by what it doesn't know when it loads it
    state._metadata = {CONFIG_KEY: {"yaml": str(job.config)}}  # type: ignore[attr-defined] # torch's own
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch can't end its archive where a write has failed
            raise error.__context__ from None
        raise


def _write_safetensors(file: IO[bytes], job: _Job) -> None:
    write_safetensors(file, _state(job), {"format": "pt", CONFIG_KEY: str(job.config)})


# Keras

MOST_ATTRIBUTE = 60_000
"""HDF5 keeps attributes up to 64 KiB."""

KERAS_WORDS = {"weight": ("kernel", "bias"), "norm": ("gamma", "beta", "moving_mean", "moving_variance")}
"""What Keras calls the tensors of weight layers and of normalisations."""
KERAS_CLASSES = {
    "conv": "conv2d", "FC": "dense", "batchnorm": "batch_normalization", "groupnorm": "group_normalization",
    "maxpool": "max_pooling2d", "avgpool": "average_pooling2d", "flatten": "flatten",
    "global-avgpool": "global_average_pooling2d", "LRN": "lrn",
}  # fmt: skip
"""Keras's classes in snake case, by our keywords; it keeps layers under these."""


def _array(job: _Job, name: str, role: str) -> Any:
    tensor = job.read(name, role)
    if tensor.dtype == torch.bfloat16:
        raise CheckpointError(f"{job.checkpoint.path}: HDF5 has no bfloat16; it can't be written there unchanged")
    return (to_keras(tensor, job.maps(name)) if job.pairs[name].is_per_input(role) else tensor).numpy()


@contextmanager
def _hdf5(file: IO[bytes]) -> Iterator[Any]:
    """Write HDF5 through Python's file, whose errors are exceptions: HDF5's own files crash on a full disk."""
    import h5py

    place = file if file.readable() else io.BytesIO()  # HDF5 goes back and forth, which no pipe allows
    with h5py.File(place, "w") as hdf5:
        yield hdf5
    if isinstance(place, io.BytesIO):
        file.write(place.getbuffer())


def _write_legacy(out: IO[bytes], job: _Job) -> None:
    """Write the layout of keras.applications: a group per layer, lists of names as attributes."""
    shown = [placed for placed in job.network if placed.name in job.pairs or placed.layer.role == "other"]
    with _hdf5(out) as file:
        _write_config(file, job.config)
        file.attrs["layer_names"] = [placed.name.encode() for placed in shown]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
        for placed in shown:
            group = file.create_group(placed.name)
            names = []
            words = KERAS_WORDS["norm" if placed.layer.role == "norm" else "weight"]
            for word, role in zip(words, ROLES[:4]):
                if role in job.roles(placed.name):
                    names.append(f"{placed.name}/{word}:0")
                    group[names[-1]] = _array(job, placed.name, role)
            group.attrs["weight_names"] = [name.encode() for name in names]
            _write_counter(group, job, placed.name)


def _write_config(file: Any, config: Config) -> None:
    import numpy

    text = str(config).encode()
    if len(text) < MOST_ATTRIBUTE:
        file.attrs[CONFIG_KEY] = numpy.bytes_(text)


def _write_counter(group: Any, job: _Job, name: str) -> None:
    """Keep the number of batches that a batch norm has seen, which Keras has no place for and passes by."""
    if "num_batches_tracked" in job.roles(name):
        group["num_batches_tracked"] = _array(job, name, "num_batches_tracked")


def _write_keras3(out: IO[bytes], job: _Job) -> None:
    """Write Keras 3's layout: groups by class, numbered, the layer's name as an attribute."""
    counts: dict[str, int] = {}
    with _hdf5(out) as file:
        _write_config(file, job.config)
        file.create_group("vars").attrs["name"] = job.network.name
        file.create_group("layers/input_layer/vars").attrs["name"] = "input_layer"
        for placed in job.network:
            kind = KERAS_CLASSES.get(placed.layer.keyword)
            if kind is None:  # part of the layer before it there
                continue
            number = counts[kind] = counts.get(kind, -1) + 1
            owner = file.create_group(f"layers/{kind}_{number}" if number else f"layers/{kind}")
            group = owner.create_group("vars")
            group.attrs["name"] = placed.name
            for index, role in enumerate(role for role in ROLES[:4] if role in job.roles(placed.name)):
                group[str(index)] = _array(job, placed.name, role)
            _write_counter(owner, job, placed.name)


WRITERS: dict[str, Callable[[IO[bytes], _Job], None]] = {
    ".pth": _write_pytorch,
    ".pt": _write_pytorch,
    ".bin": _write_pytorch,
    ".safetensors": _write_safetensors,
    ".h5": _write_legacy,
    ".weights.h5": _write_keras3,
}
"""How each format is written, by the file's ending."""

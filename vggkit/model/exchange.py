"""Networks with their weights in other tools' files: in, and out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex

from vggkit.base.errors import ArgumentError, escaped, file_name
from vggkit.base.files import opened
from vggkit.exchange.files import Given, Written
from vggkit.exchange.kinds import kind_asked_for, kind_to_write
from vggkit.modules.told import TorchModule, is_module
from vggkit.network import Network, Source
from vggkit.notation.config import Config, input_shape
from vggkit.notation.overrides import Overrides

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from vggkit.model.weights.checkpoint import Checkpoint
    from vggkit.model.weights.loading import WeightsSource
    from vggkit.model.weights.matching import LayerPair

logger = logging.getLogger("vggkit")


def import_config(
    path: str | os.PathLike[str],
    values: str | os.PathLike[str] | None = None,
    *,
    input: str | Sequence[SupportsIndex] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Config:
    """Read a network from another tool's file.

    Args:
        path: the file; its ending says whose it is: .onnx, torch's .pt2, Keras's .keras, or Caffe's .prototxt or
            .caffemodel; TorchScript is known by what is in it.
        values: the .caffemodel with the weights of a .prototxt.
        input: shape of one image, "3x224x224"; if absent, the file's.
        weights: where to write the weights, with the configuration; the ending says the format, as for `convert`.

    Returns:
        The configuration. What the file says of pictures is its `preprocess`.

    Raises:
        CheckpointError: if it can't be read, is no chain, or has a layer that no configuration says.
        ArgumentError: if an argument is outside its allowed values, or there are no weights to write.
        VggkitError: if the weights can't be written.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "deploy.prototxt"
    >>> export("A", file)
    'input data, output prob'
    >>> import_config(file).blocks == Network.of("A").config.blocks
    True
    """
    kind = kind_asked_for(path)
    given = Given(
        os.fspath(path),
        None if input is None else _image(input),
        None if values is None else os.fspath(values),
    )
    if values is not None and kind.takes_weights:
        raise ArgumentError(f"{file_name(path)} holds its weights itself; expected no second file")
    found = kind.imported(given)
    for note in found.notes:
        logger.warning("%s: %s", escaped(file_name(path)), note)
    if weights is not None:
        if not found.tensors:
            raise ArgumentError(f"weights: {escaped(file_name(path))} holds no weights")
        from vggkit.model.weights.container import Exchanged
        from vggkit.model.weights.conversion import converted
        from vggkit.model.weights.layouts import checkpoint_in_container

        _check_other(weights, path, *([] if values is None else [values]))
        converted(checkpoint_in_container(Exchanged(given.path, found)), weights)
    return found.network.config


def _image(value: Any) -> tuple[int, ...]:
    try:
        return input_shape(value)
    except ValueError as error:
        raise ArgumentError(f"input: {error}") from None


def _check_other(target: str | os.PathLike[str], *sources: str | os.PathLike[str]) -> None:
    for source in sources:
        if os.path.exists(target) and os.path.samefile(source, target):
            raise ArgumentError(f"{file_name(target)}: expected another file than the one that is read")


def export(
    source: Source,
    path: str | os.PathLike[str],
    *,
    weights: WeightsSource | TorchModule | None = None,
    **overrides: Unpack[Overrides],
) -> str:
    """Write a network as another tool's file.

    Args:
        source: a name, a path, a Config, a Network, or a torch module, which goes with its own weights.
        path: where to; the ending says whose it is: .onnx, torch's .pt2, Keras's .keras, or Caffe's .prototxt or
            .caffemodel.
        weights: a file, "imagenet", or a module that has this network's weights. None writes the layers alone.
        overrides: changes to the configuration.

    Returns:
        What someone who uses the file must know: its version, the names of its input and output.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if the ending is none of these, the format has no place for a layer, or weights are given that it
            has no place for, or are missing that it needs.
        CheckpointError: if the weights can't be read, or are another network's.
        VggkitError: if the file can't be written.

    >>> import pathlib, tempfile
    >>> export("D", pathlib.Path(tempfile.mkdtemp()) / "D.prototxt")
    'input data, output prob'
    """
    kind = kind_to_write(path)
    network = kind.suited(Network.of(source, **overrides))
    if weights is None and is_module(source) and kind.takes_weights:
        weights = source
    if weights is None and kind.needs_weights:
        raise ArgumentError(f"{file_name(path)}: a {kind.ending} holds weights; expected a checkpoint that has them")
    if weights is not None and not kind.takes_weights:
        raise ArgumentError(f"weights: a {kind.ending} has no place for weights")
    tensors = None if weights is None else _tensors(network, weights)
    with opened(path) as file:
        return kind.exported(file, Written(network, tensors))


def _tensors(network: Network, weights: Any) -> dict[tuple[str, str], Callable[[], NDArray[Any]]]:
    """Return what reads each tensor of a network from a source of weights."""
    from vggkit.model.weights.differences import differences
    from vggkit.model.weights.identification import assumed
    from vggkit.model.weights.loading import checkpoint_of, warn
    from vggkit.model.weights.matching import match, misfit

    checkpoint = checkpoint_of(weights, network)
    matching = match(network, checkpoint)
    adapted = [
        f"{pair.placed.name}: its kernels are for another number of channels" for pair in matching.pairs if pair.adapted
    ]
    if wrong := (*matching.differences, *adapted, *differences(network, checkpoint, matching)):
        raise misfit(network, checkpoint, wrong)
    warn(assumed(checkpoint, matching))
    return {
        (pair.placed.name, role): partial(_read, checkpoint, pair, role)
        for pair in matching.pairs
        for role, _ in pair.roles()
    }


def _read(checkpoint: Checkpoint, pair: LayerPair, role: str) -> NDArray[Any]:
    import torch

    values: NDArray[Any] = pair.read(checkpoint, role).to(torch.float32).contiguous().numpy()
    return values

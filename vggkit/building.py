"""A configuration and weights → a model that is ready."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

from vggkit.config import Config
from vggkit.errors import ArgumentError, BuildError, did_you_mean, shorten
from vggkit.layers import Shape, Softmax, elements
from vggkit.model import INITIALIZERS, VGG, initialize
from vggkit.network import ELEMENT_BYTES, Network, several
from vggkit.numbers import megabytes
from vggkit.weights.identification import identify
from vggkit.weights.loading import Source, grow, load_checkpoint, open_checkpoint, resolve


def build(
    config: str | os.PathLike[str] | Config | Network,
    *,
    num_classes: int | None = None,
    input: str | Shape | None = None,
    in_channels: int | None = None,
    batch_norm: bool | None = None,
    dropout: float | None = None,
    width: float | str | None = None,
    activation: str | None = None,
    inplace: bool | None = None,
    pool: str | None = None,
    head: str | None = None,
    init: str = "kaiming",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    softmax: bool = False,
    seed: int | None = None,
    freeze: str | Iterable[str] = (),
    checkpoint: str | Iterable[str] = (),
    weights: Source | None = None,
    strict: bool = True,
    include_top: bool = True,
    adapt_input: bool = True,
    init_from: Source | VGG | None = None,
) -> VGG:
    """Build a network as a PyTorch model.

    Args:
        config: a name, a path, a Config or a Network.
        num_classes: units of the last layer.
        input: shape of one image, `"3x224x224"`.
        in_channels: channels of the input.
        batch_norm: whether batch norm stands behind the convolutions.
        dropout: rate behind the hidden FC layers.
        width: multiplies all channels and units but the classes: 0.5, or with its rounding "0.5 multiple of 8".
        activation: in place of every ReLU.
        inplace: False gives each activation memory of its own, which full backward hooks need.
        pool: "max" or "avg".
        head: "paper" or "gap"; with weights also "new", the configuration's own head without the weights for it.
        init: "kaiming" (torchvision's), "paper" or "xavier".
        device: torch's; "meta" allocates nothing.
        dtype: of the parameters; torch's default if absent.
        softmax: whether `forward` ends in probabilities, if the configuration does; else it gives scores.
        seed: makes the weights reproducible without touching torch's global generator.
        freeze: blocks and layers that are not trained, a name or several; as for `VGG.freeze`.
        checkpoint: blocks that are run again in the backward pass, a name or several, through `torch.utils.checkpoint`.
        weights: a checkpoint of torchvision, timm, Keras or vggkit, or "imagenet"; as for `load_weights`, like the
            next three.
        strict: False loads the layers that fit, and only notes where the file says that its network answers otherwise.
        include_top: False loads no weights for the classifier.
        adapt_input: whether kernels for 3 colours may serve another number of channels.
        init_from: a shallower model or its checkpoint, whose first four convolutions and FC layers start this one
            (paper, Sect. 3.1).

    Returns:
        The model, in training mode. `model.report` says what was loaded.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.
        BuildError: if the parameters are more than the device holds.
        CheckpointError: if the weights can't be read, or don't fit.

    >>> sum(p.numel() for p in build("D", device="meta").parameters())
    138357544
    """
    if head == "new":
        head, include_top = None, False
    network = Network.of(
        config, num_classes=num_classes, input=input, in_channels=in_channels, batch_norm=batch_norm, dropout=dropout,
        width=width, activation=activation, inplace=inplace, pool=pool, head=head,
    )  # fmt: skip
    if init not in INITIALIZERS:
        raise ArgumentError(f"init: expected one of {', '.join(INITIALIZERS)}, found {shorten(init)}")
    target, number = _device(device), _dtype(dtype)
    if softmax and not isinstance(network.layers[-1].layer, Softmax):
        raise ArgumentError(f"softmax: expected False, found True: {network.name} does not end in soft-max")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        raise ArgumentError(f"seed: expected a whole number from 0, found {shorten(seed)}")
    if weights is not None and init_from is not None:
        raise ArgumentError("init_from: expected no weights= with it: one of them gives the first values")
    if weights is None and not include_top:
        raise ArgumentError("head: 'new' and include_top=False say what of weights= is loaded, and there are none")
    if target.type == "meta" and (weights is not None or init_from is not None):
        raise ArgumentError("device: 'meta' has no room for values; expected another with weights= or init_from=")
    _check_size(network, target, number)
    with torch.device("meta"):
        model = VGG(network, softmax=softmax, checkpoint=checkpoint).to(number)
    if frozen := several(freeze, "freeze"):
        model.freeze(frozen)
    if target.type == "meta":
        return model
    if weights is not None:
        opened = open_checkpoint(resolve(weights, network))
        load_checkpoint(model, opened, strict=strict, include_top=include_top, adapt_input=adapt_input)
    materialize(model, target, init, seed)
    if init_from is not None:
        grow(model, init_from)
    return model


def materialize(model: VGG, device: torch.device, init: str, seed: int | None) -> None:
    """Move a model to a device; what has no values yet is initialised.

    Args:
        model: some or all of whose tensors are on the meta device.
        device: where to.
        init: a key of INITIALIZERS.
        seed: for the random numbers; None takes torch's.
    """
    fresh = []
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device=device, recurse=False)
            fresh.append(module)
    model.to(device)
    with torch.no_grad():
        initialize(fresh, init, None if seed is None else torch.Generator(device).manual_seed(seed))


def load_model(
    path: Source, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> VGG:
    """Build the model that a checkpoint is of, with its weights.

    Args:
        path: a file of `save_weights`, which holds its configuration, or one whose configuration its shapes tell.
        device: torch's.
        dtype: of the parameters; torch's default if absent.

    Returns:
        The model, in training mode.

    Raises:
        CheckpointError: if the file can't be read, or its configuration can't be told.

    >>> import pathlib, tempfile
    >>> from vggkit import build, save_weights
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "small.safetensors"
    >>> save_weights(build("A", input="3x32x32", width=0.1), file)
    >>> load_model(file).block1.conv1.weight.shape
    torch.Size([6, 3, 3, 3])
    """
    opened = open_checkpoint(path)
    identity = identify(opened)
    network = identity.network
    target, number = _device(device), _dtype(dtype)
    _check_size(network, target, number)
    with torch.device("meta"):
        model = VGG(network).to(number)
    if target.type != "meta":
        load_checkpoint(model, opened, notes=identity.notes)
        materialize(model, target, "kaiming", None)
    return model


def _device(device: str | torch.device | None) -> torch.device:
    try:
        return torch.get_default_device() if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise ArgumentError(
            f"device: expected cpu, cuda, cuda:1, meta or another of torch's, found {shorten(device)}."
            + did_you_mean(str(device), ("cpu", "cuda", "meta"))
        ) from None


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    chosen = (
        torch.get_default_dtype() if dtype is None else getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    )
    if isinstance(chosen, torch.dtype) and str(chosen).removeprefix("torch.") in ELEMENT_BYTES:
        return chosen
    raise ArgumentError(f"dtype: expected one of {', '.join(ELEMENT_BYTES)}, found {shorten(dtype)}")


def _check_size(network: Network, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what can't be allocated before torch is asked for it, with the memory that it would need."""
    shapes = [shape for placed in network for shape in placed.layer.parameters(placed.input_shape).values()]
    needed = sum(map(elements, shapes)) * dtype.itemsize
    largest = max(map(elements, shapes), default=0) * dtype.itemsize
    if largest >= 2**63:
        raise BuildError(f"{network.name}: one parameter would need {megabytes(largest)}, more than torch can address")
    available = _memory(device)
    if available is not None and needed > available:
        raise BuildError(
            f"{network.name}: its parameters need {megabytes(needed)}, and {device} has {megabytes(available)}."
            f" Build it with device='meta', or narrower with width="
        )


def _memory(device: torch.device) -> int | None:
    """Return the bytes that a device has in all, if that can be known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None

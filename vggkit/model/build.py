"""A configuration and weights → a model that is ready to use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from vggkit.base.errors import ArgumentError, BuildError, did_you_mean, shorten
from vggkit.base.numbers import megabytes, whole
from vggkit.model.module import VGG
from vggkit.model.weights.identification import identify
from vggkit.model.weights.layouts import open_checkpoint
from vggkit.model.weights.loading import LoadArguments, WeightsSource, checkpoint_of, grow, load_checkpoint
from vggkit.network import Network, Source, dtype_name, several
from vggkit.notation.layers import elements
from vggkit.notation.overrides import Overrides, check_keywords

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Changes(Overrides, LoadArguments, total=False):
    """The keywords of `build` that other functions explain: those of `load` and of `load_weights`."""


class BuildArguments(Changes, total=False):
    """The keywords of `build` that `features` takes too, for type checkers."""

    init: str
    device: str | torch.device | None
    dtype: str | torch.dtype | None
    seed: SupportsIndex | None
    freeze: str | Iterable[str]
    checkpoint: str | Iterable[str]
    init_from: WeightsSource | nn.Module | None


def build(
    config: Source,
    *,
    init: str = "kaiming",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    softmax: bool = False,
    seed: SupportsIndex | None = None,
    freeze: str | Iterable[str] = (),
    checkpoint: str | Iterable[str] = (),
    weights: WeightsSource | nn.Module | None = None,
    init_from: WeightsSource | nn.Module | None = None,
    **changes: Unpack[Changes],
) -> VGG:
    """Build a network as a PyTorch model.

    Of the options of `memory` a model has dtype, freeze and checkpoint. All others are of the loop that trains it.

    Args:
        config: a name, a path, a Config, a Network, or a torch module, as `describe` takes it.
        init: "kaiming" (torchvision's), "paper" or "xavier".
        device: torch's; "meta" allocates nothing.
        dtype: of the parameters; torch's default if absent.
        softmax: whether `forward` ends in probabilities, if the configuration does; else it gives scores.
        seed: makes the weights reproducible without touching torch's global generator.
        freeze: blocks and layers that are not trained, a name or several; as for `VGG.freeze`.
        checkpoint: blocks that are run again in the backward pass, a name or several, through `torch.utils.checkpoint`.
        weights: a checkpoint of torchvision, timm, Keras or vggkit, "imagenet", or a module whose layers these are.
        init_from: a shallower model or its checkpoint, whose first four convolutions and FC layers start this one
            (paper, Sect. 3.1).
        changes: changes to make to the configuration, as for `load`: num_classes, input, in_channels, batch_norm,
            dropout, width, activation, inplace, pool and head. With weights, also strict, include_top and adapt_input,
            as for `load_weights`; and head="new" is the configuration's own head, without the weights for it.

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
    check_keywords(build, changes, LoadArguments.__optional_keys__)
    loading, overrides = _divided(changes)
    network = Network.of(config, **overrides)
    if init not in INITIALIZERS:
        raise ArgumentError(f"init: expected one of {', '.join(INITIALIZERS)}, found {shorten(init)}")
    if softmax and not network.layers[-1].layer.gives_probabilities:
        raise ArgumentError(f"softmax: expected False, found True: {network.name} does not end in soft-max")
    if seed is not None:
        seed = whole(seed, "seed", least=0, largest=2**63 - 1)
    if weights is not None and init_from is not None:
        raise ArgumentError("init_from: expected no weights= with it: one of them gives the first values")
    if weights is None and not loading.get("include_top", True):
        raise ArgumentError("head='new' and include_top=False need weights=")
    target, number = _device(device), _dtype(dtype)
    fake = _fake_tensors()
    if (fake or target.type == "meta") and (weights is not None or init_from is not None):
        where = "FakeTensorMode" if fake else "device: 'meta'"
        raise ArgumentError(f"{where} has no room for values; expected another with weights= or init_from=")
    if not fake:
        _check_size(network, target, number)
    model = _without_values(network, number, softmax=softmax, checkpoint=checkpoint)
    if frozen := several(freeze, "freeze"):
        model.freeze(frozen)
    if fake:
        for module in model.modules():
            allocate(module, target)
        return model
    if target.type == "meta":
        return model
    if weights is not None:
        load_checkpoint(model, checkpoint_of(weights, network), **loading)
    materialize(model, target, init, seed)
    if init_from is not None:
        grow(model, init_from)
    return model


def _divided(changes: Changes) -> tuple[LoadArguments, Overrides]:
    """Divide the keywords into those of loading and those of the configuration; head="new" is of both."""
    words = LoadArguments.__optional_keys__
    loading = {word: value for word, value in changes.items() if word in words}
    overrides = {word: value for word, value in changes.items() if word not in words}
    if overrides.get("head") == "new":
        del overrides["head"]
        loading["include_top"] = False
    return cast(LoadArguments, loading), cast(Overrides, overrides)


def _without_values(network: Network, dtype: torch.dtype, **options: Any) -> VGG:
    """Return a model on the meta device, inside FakeTensorMode too."""
    with unset_fake_temporarily(), torch.device("meta"):
        return VGG(network, **options).to(dtype)


def _fake_tensors() -> bool:
    """Tell whether FakeTensorMode is on: tensors have sizes and no values."""
    return isinstance(torch.empty(0), FakeTensor)


def load_model(
    path: WeightsSource, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> VGG:
    """Build the model of a checkpoint, with its weights.

    Args:
        path: a file of `save_weights`, which holds its configuration, or one whose configuration can be recognised
            from its shapes.
        device: torch's.
        dtype: of the parameters; torch's default if absent.

    Returns:
        The model, in training mode.

    Raises:
        CheckpointError: if the file can't be read, or its configuration can't be recognised.

    >>> import pathlib, tempfile
    >>> from vggkit import build, save_weights
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "small.safetensors"
    >>> save_weights(build("A", input="3x32x32", width=0.1), file)
    >>> load_model(file).block1.conv1.weight.shape
    torch.Size([6, 3, 3, 3])
    """
    opened = open_checkpoint(path)
    identity = identify(opened)
    target, number = _device(device), _dtype(dtype)
    _check_size(identity.network, target, number)
    model = _without_values(identity.network, number)
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
    chosen: torch.dtype = getattr(torch, dtype_name(torch.get_default_dtype() if dtype is None else dtype))
    return chosen


def _check_size(network: Network, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model that is too large for the device, and name the memory that it would need."""
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
    """Return the total bytes of a device, or None if they are unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


# First values


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
            allocate(module, device)
            fresh.append(module)
    model.to(device)
    with torch.no_grad():
        initialize(fresh, init, None if seed is None else torch.Generator(device).manual_seed(seed))


def allocate(module: nn.Module, device: torch.device) -> None:
    """Give a module's own parameters and buffers memory on a device, and no values.

    `Module.to_empty` would convert them, which torch refuses inside FakeTensorMode.
    """
    for name, parameter in module._parameters.items():
        if parameter is not None:
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:  # a count as a value: FakeTensorMode keeps it, and a cumulative average reads it
            options: dict[str, Any] = {"dtype": buffer.dtype, "device": device}
            module._buffers[name] = torch.empty(buffer.shape, **options) if buffer.ndim else torch.tensor(0, **options)


Initializer = Callable[[Tensor, "torch.Generator | None"], object]


def _kaiming(weight: Tensor, generator: torch.Generator | None) -> None:
    """As torchvision does: He et al. 2015 (fan out, ReLU) for convolutions, N(0, 0.01²) for FC layers."""
    if weight.ndim == 4:
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=generator)
    else:
        nn.init.normal_(weight, 0.0, 0.01, generator=generator)


def _paper(weight: Tensor, generator: torch.Generator | None) -> None:
    """As the paper does (Sect. 3.1): a normal distribution of variance 1e-2, which is a deviation of 0.1."""
    nn.init.normal_(weight, 0.0, 0.1, generator=generator)


def _xavier(weight: Tensor, generator: torch.Generator | None) -> None:
    """Glorot & Bengio 2010, which the paper's Sect. 3.1 found to work without pre-training."""
    nn.init.xavier_uniform_(weight, generator=generator)


INITIALIZERS: dict[str, Initializer] = {"kaiming": _kaiming, "paper": _paper, "xavier": _xavier}
"""How weights can be initialised; biases are 0, and normalisations start as the identity."""


def initialize(modules: Iterable[nn.Module], init: str, generator: torch.Generator | None) -> None:
    """Give modules their first weights.

    Args:
        modules: convolutions, FC layers, and others that have a `reset_parameters` of their own.
        init: a key of INITIALIZERS.
        generator: where the random numbers come from; None is torch's.

    Raises:
        BuildError: if nothing says how a module begins.
    """
    for module in modules:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            INITIALIZERS[init](module.weight, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)):
            module.reset_parameters()
        elif callable(reset := getattr(module, "reset_parameters", None)):
            with _drawing_from(generator):
                reset()
        else:
            kind = type(module).__name__
            raise BuildError(f"{kind}: nothing says what its parameters begin as; give it a method reset_parameters()")


@contextmanager
def _drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Make code that draws from torch's own generator draw from another one; torch's own stays as it was."""
    if generator is None:
        yield
        return
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        yield

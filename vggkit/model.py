"""Network → VGG, an ordinary `torch.nn.Module`."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again

from vggkit.config import Config
from vggkit.errors import ArgumentError, BuildError, shorten
from vggkit.layers import Flatten, Linear, Shape, Softmax, elements, times
from vggkit.network import ELEMENT_BYTES, Network, PlacedLayer
from vggkit.numbers import megabytes


class VGG(nn.Module):
    """A VGG network: `block1` … `blockN` are `nn.Sequential`s, then the classifier's layers by their names.

    Args:
        network: what to build; its parameters are made by torch's defaults, `build` initialises them.
        softmax: whether the output is probabilities, if the configuration ends in soft-max; else it is scores.
        checkpoint: blocks that are run again in the backward pass instead of keeping what it needs.
    """

    def __init__(self, network: Network, *, softmax: bool = False, checkpoint: Iterable[str] = ()) -> None:
        super().__init__()
        self.network = network
        self._checkpoint = network.blocks(checkpoint, "checkpoint")
        self._blocks: list[str] = []
        self._classifier: list[str] = []
        blocks: dict[str, OrderedDict[str, nn.Module]] = {}
        for placed in network:
            if placed.block is not None:
                child = placed.module.removeprefix(f"{placed.block}.")
                blocks.setdefault(placed.block, OrderedDict())[child] = placed.layer.module(placed.input_shape, nn)
        for name, children in blocks.items():
            self.add_module(name, nn.Sequential(children))
            self._blocks.append(name)
        for placed in _classifier(network, softmax):
            self.add_module(placed.module, placed.layer.module(placed.input_shape, nn))
            self._classifier.append(placed.module)
        self._flat = _flat_input(network)

    @property
    def config(self) -> Config:
        """The configuration that this was built from."""
        return self.network.config

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last block's output.

        Args:
            x: images, batch × channels × height × width.
        """
        for name in self._blocks:
            block = getattr(self, name)
            x = run_again(block, x, use_reentrant=False) if name in self._checkpoint else block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of each class (probabilities if built with softmax=True).

        Args:
            x: images, batch × channels × height × width.

        Raises:
            ValueError: if the FC layers were made for another input.
        """
        y = self.forward_features(x)
        maps = y.shape[-2:]
        for name in self._classifier:
            y = getattr(self, name)(y)
            if name == self._flat[0] and y.shape[-1] != self._flat[1]:
                raise ValueError(self._misfit(x, maps))
        return y

    def freeze(self, *names: str) -> VGG:
        """Stop training the parameters of blocks and layers.

        Args:
            names: `block1`, `fc1`, `conv4_3`, …

        Returns:
            The model itself.

        Raises:
            ArgumentError: if there is no such block or layer.
        """
        frozen = self.network.parts(names, "freeze")
        for placed in self.network:
            if placed.name in frozen and placed.layer.parameters(placed.input_shape):
                self.get_submodule(placed.module).requires_grad_(False)
        return self

    def _misfit(self, x: Tensor, features: torch.Size) -> str:
        maps = times(tuple(features))
        expected = times(next(p.output_shape for p in reversed(self.network.layers) if p.block is not None)[1:])
        fed = "x".join(map(str, x.shape[1:]))
        return (
            f"{self.network.name}: an input of {times(tuple(x.shape[1:]))} ends in {maps} maps, but the FC layers were"
            f" made for the {expected} maps of {times(self.network.input_shape)}. Nothing is stretched: build it with"
            f" input='{fed}' for FC layers of that size, or with head='gap' for any size"
        )


def _classifier(network: Network, softmax: bool) -> list[PlacedLayer]:
    placed = [placed for placed in network if placed.block is None]
    if placed and isinstance(placed[-1].layer, Softmax) and not softmax:
        placed.pop()
    return placed


def _flat_input(network: Network) -> tuple[str, int]:
    """Return the module behind which the classifier's values are flat, and how many its first FC layer takes."""
    for before, after in zip(network.layers, network.layers[1:]):
        if before.block is None and isinstance(before.layer, Flatten) and isinstance(after.layer, Linear):
            return before.module, after.input_shape[0]
    return "", 0


# Initialisation

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


def _initialize(model: VGG, init: str, generator: torch.Generator | None) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            INITIALIZERS[init](module.weight, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)):
            module.reset_parameters()


# Building


def build(
    config: str | os.PathLike[str] | Config | Network,
    *,
    num_classes: int | None = None,
    input: str | Shape | None = None,
    in_channels: int | None = None,
    batch_norm: bool | None = None,
    dropout: float | None = None,
    width: float | None = None,
    activation: str | None = None,
    pool: str | None = None,
    head: str | None = None,
    init: str = "kaiming",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    softmax: bool = False,
    seed: int | None = None,
    freeze: Iterable[str] = (),
    checkpoint: Iterable[str] = (),
) -> VGG:
    """Build a network as a PyTorch model.

    Args:
        config: a name, a path, a Config or a Network.
        num_classes: units of the last layer.
        input: shape of one image, `"3x224x224"`.
        in_channels: channels of the input.
        batch_norm: whether batch norm stands behind the convolutions.
        dropout: rate behind the hidden FC layers.
        width: multiplies all channels and units but the classes.
        activation: in place of every ReLU.
        pool: "max" or "avg".
        head: "paper" or "gap".
        init: "kaiming" (torchvision's), "paper" or "xavier".
        device: torch's; "meta" allocates nothing.
        dtype: of the parameters; torch's default if absent.
        softmax: whether `forward` ends in probabilities, if the configuration does; else it gives scores.
        seed: makes the weights reproducible without touching torch's global generator.
        freeze: blocks and layers whose parameters are not trained.
        checkpoint: blocks that are run again in the backward pass, through `torch.utils.checkpoint`.

    Returns:
        The model, in training mode.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.
        BuildError: if the parameters are more than the device holds.

    >>> sum(p.numel() for p in build("D", device="meta").parameters())
    138357544
    """
    network = Network.of(
        config, num_classes=num_classes, input=input, in_channels=in_channels, batch_norm=batch_norm, dropout=dropout,
        width=width, activation=activation, pool=pool, head=head,
    )  # fmt: skip
    if init not in INITIALIZERS:
        raise ArgumentError(f"init: expected one of {', '.join(INITIALIZERS)}, found {shorten(init)}")
    target, number = _device(device), _dtype(dtype)
    if softmax and not isinstance(network.layers[-1].layer, Softmax):
        raise ArgumentError(f"softmax: expected False, found True: {network.name} does not end in soft-max")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        raise ArgumentError(f"seed: expected a whole number from 0, found {shorten(seed)}")
    _check_size(network, target, number)
    with torch.device("meta"):
        model = VGG(network, softmax=softmax, checkpoint=checkpoint).to(number).freeze(*freeze)
    if target.type == "meta":
        return model
    model.to_empty(device=target)
    with torch.no_grad():
        _initialize(model, init, None if seed is None else torch.Generator(target).manual_seed(seed))
    return model


def _device(device: str | torch.device | None) -> torch.device:
    try:
        return torch.get_default_device() if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise ArgumentError(
            f"device: expected cpu, cuda, cuda:1, meta or another of torch's, found {shorten(device)}"
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

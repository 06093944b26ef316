"""Network → VGG, an ordinary `torch.nn.Module`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again

from vggkit.config import Config
from vggkit.errors import ArgumentError, BuildError
from vggkit.layers import Conv2d, Flatten, Linear, Pair, times
from vggkit.network import Network, several

if TYPE_CHECKING:
    from vggkit.weights.loading import LoadReport


class VGG(nn.Module):
    """A VGG network: `block1` … `blockN`, each an `nn.Sequential`, then the classifier's layers by their names.

    Args:
        network: what to build; its parameters are made by torch's defaults, `build` initialises them.
        softmax: whether the output is probabilities, if the configuration ends in soft-max; else it is scores.
        checkpoint: blocks that are run again in the backward pass instead of keeping what it needs.
    """

    if TYPE_CHECKING:  # what torch says of any module is that it takes and gives anything

        def __call__(self, x: Tensor) -> Tensor: ...

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, network: Network, *, softmax: bool = False, checkpoint: str | Iterable[str] = ()) -> None:
        super().__init__()
        self.network = network
        self.ends_in_softmax = softmax
        self.checkpoint = network.blocks(checkpoint, "checkpoint")
        self._blocks: list[str] = []
        self._classifier: list[str] = []
        blocks: dict[str, OrderedDict[str, nn.Module]] = {}
        classifier: dict[str, nn.Module] = {}
        for placed in network.modules(softmax=softmax):
            module = placed.layer.module(placed.input_shape, nn)
            if placed.block is None:
                classifier[placed.module] = module
            else:
                child = placed.module.removeprefix(f"{placed.block}.")
                blocks.setdefault(placed.block, OrderedDict())[child] = module
        for name, children in blocks.items():
            self.add_module(name, nn.Sequential(children))
            self._blocks.append(name)
        for name, module in classifier.items():
            self.add_module(name, module)
            self._classifier.append(name)
        self._flat = _flat_input(network)
        self._least = _least_maps(network)
        self._frozen: frozenset[str] = frozenset()
        self.report: LoadReport | None = None
        """What was loaded last, if anything was."""

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
            x = run_again(block, x, use_reentrant=False) if name in self.checkpoint else block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of each class (probabilities if built with softmax=True).

        Args:
            x: images, batch × channels × height × width.

        Raises:
            ValueError: if the FC layers were made for another input, or it is too small for them as convolutions.
        """
        y = self.forward_features(x)
        maps = y.shape[-2:]
        if maps[0] < self._least[0] or maps[1] < self._least[1]:
            raise ValueError(self._too_small(x, maps))
        for name in self._classifier:
            y = getattr(self, name)(y)
            if name == self._flat[0] and y.shape[-1] != self._flat[1]:
                raise ValueError(self._misfit(x, maps))
        return y

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the layers that are frozen."""
        return tuple(placed.name for placed in self.network if placed.module in self._frozen)

    def freeze(self, *names: str | Iterable[str]) -> VGG:
        """Stop training blocks and layers: their parameters, and the running statistics of their batch norms.

        A frozen batch norm works as in evaluation, in `.train()` too, as Keras's does with `trainable=False`.

        Args:
            names: `block1`, `fc1`, `conv4_3`, …; one or several.

        Returns:
            The model itself.

        Raises:
            ArgumentError: if none is named, or there is no such block or layer.
        """
        return self._set_frozen(names, True)

    def unfreeze(self, *names: str | Iterable[str]) -> VGG:
        """Train blocks and layers again, their batch norms' running statistics too.

        Args:
            names: as for `freeze`; `*model.frozen` is every layer that is frozen.

        Returns:
            The model itself.

        Raises:
            ArgumentError: if none is named, or there is no such block or layer.
        """
        return self._set_frozen(names, False)

    def _set_frozen(self, names: Iterable[str | Iterable[str]], frozen: bool) -> VGG:
        word = "freeze" if frozen else "unfreeze"
        named = [name for given in names for name in several(given, word)]
        if not named:
            raise ArgumentError(f"{word}: expected names of blocks and layers, such as block1, found none")
        meant = self.network.parts(named, word)
        changed = {placed.module for placed in self.network if placed.name in meant and placed.held}
        self._frozen = self._frozen | changed if frozen else self._frozen - changed
        for module in map(self.get_submodule, changed):
            module.requires_grad_(not frozen).train(self.training)
            if frozen:
                hold_statistics(module)
        return self

    def train(self, mode: bool = True) -> VGG:
        """Set training or evaluation mode; frozen batch norms stay in evaluation mode.

        Args:
            mode: whether it is training mode.

        Returns:
            The model itself.
        """
        super().train(mode)
        for name, module in self.named_modules():
            if name in self._frozen:
                hold_statistics(module)
        return self

    def fold_batch_norm(self) -> VGG:
        """Return a model for inference, with every batch norm right behind a convolution or FC layer folded into that.

        Returns:
            A new model in evaluation mode; its outputs are this one's in evaluation mode, but for rounding.
        """
        from vggkit.surgery import fold_batch_norm

        return fold_batch_norm(self)

    def _misfit(self, x: Tensor, features: torch.Size) -> str:
        maps = times(tuple(features))
        expected = times(next(p.output_shape for p in reversed(self.network.layers) if p.block is not None)[1:])
        fed = "x".join(map(str, x.shape[1:]))
        return (
            f"{self.network.name}: an input of {times(tuple(x.shape[1:]))} ends in {maps} maps, but the FC layers were"
            f" made for the {expected} maps of {times(self.network.input_shape)}. Nothing is stretched: build it with"
            f" input='{fed}' for FC layers of that size, or with head='gap' for any size"
        )

    def _too_small(self, x: Tensor, features: torch.Size) -> str:
        fed, made_for = times(tuple(x.shape[1:])), times(self.network.input_shape)
        return (
            f"{self.network.name}: an input of {fed} ends in {times(tuple(features))} maps, but the classifier's"
            f" convolutions need {times(self._least)} maps at least, as of {made_for}"
        )


def _flat_input(network: Network) -> tuple[str, int]:
    """Return the module behind which the classifier's values are flat, and how many its first FC layer takes."""
    for before, after in zip(network.layers, network.layers[1:]):
        if before.block is None and isinstance(before.layer, Flatten) and isinstance(after.layer, Linear):
            return before.module, after.input_shape[0]
    return "", 0


def _least_maps(network: Network) -> Pair:
    """Return the smallest maps that a convolution right behind the blocks takes."""
    first = next((placed for placed in network if placed.block is None and placed.layer.role != "dropout"), None)
    if first is None or not isinstance(first.layer, Conv2d):
        return 0, 0
    extent, pads = first.layer.window(first.input_shape).extent, first.layer.pads()
    return extent[0] - 2 * pads[0], extent[1] - 2 * pads[1]


def hold_statistics(module: nn.Module) -> None:
    """Put a module that keeps statistics of its batches, as a batch norm does, into evaluation mode."""
    if any(True for _ in module.buffers(recurse=False)):
        module.eval()


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
    """Let what draws from torch's own generator draw from another, and leave torch's as it was."""
    if generator is None:
        yield
        return
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        yield

"""Named activations of a pretrained network, for perceptual losses, detectors and segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again

from vggkit.base.errors import ArgumentError
from vggkit.model.build import BuildArguments, build
from vggkit.model.module import VGG, blocked_hooks, hold_statistics
from vggkit.model.weights.loading import WeightsSource
from vggkit.network import Network, PlacedLayer, Source, several
from vggkit.notation.layers import times
from vggkit.notation.overrides import OVERRIDES, check_keywords

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Features(nn.Module):
    """The part of a model up to the last of some layers, which returns their activations by name.

    Args:
        model: whose layers; they are shared with it, not copied. Blocks that it runs again in the backward pass are run
            again here.
        layers: names of layers in any vocabulary; the activations get these names.
        frozen: whether the layers are frozen, in the model too, and evaluation mode is kept.
    """

    def __init__(self, model: VGG, layers: Sequence[str], *, frozen: bool = False) -> None:
        super().__init__()
        network = model.network
        wanted: dict[str, list[str]] = {}
        for name in dict.fromkeys(layers):
            wanted.setdefault(network.layer(name).name, []).append(name)
        steps = network.up_to(layers)
        self.layers = tuple(layers)
        modules = {placed.name: module for placed, module in model.layers()}
        self.body = nn.Sequential(*(_step(modules, placed, step, frozen) for placed, step in zip(network, steps)))
        self.frozen = frozen
        self.input_shape = network.input_shape
        if frozen and (held := [step.name for step in steps if step.held]):
            model.freeze(held)
        still = set(model.frozen)
        self._frozen = frozenset(index for index, step in enumerate(steps) if step.name in still)
        self.training = self.body.training = model.training
        if frozen:
            self.eval()
        self._names = [wanted.get(step.name, []) for step in steps]
        self._parts = [(part, block in model.checkpoint) for block, part in _parts(steps)]

    def train(self, mode: bool = True) -> Features:
        """Set training or evaluation mode; what is frozen, batch norms of the model or all, stays in evaluation mode.

        Args:
            mode: whether it is training mode.

        Returns:
            The module itself.
        """
        super().train(mode and not self.frozen)
        for index in self._frozen:
            hold_statistics(self.body[index])
        return self

    def extra_repr(self) -> str:
        """Return the words that are printed beside its layers."""
        taps = [f"taps: {', '.join(self.layers)}{' (frozen)' if self.frozen else ''}"]
        return "\n".join([*taps, f"input: {times(self.input_shape)}, normalised as it was for the weights"])

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Run `forward`; if torch refuses full backward hooks, raise an error that says what would help."""
        try:
            return cast(dict[str, Tensor], super().__call__(x))
        except RuntimeError as error:
            if (refused := blocked_hooks(error)) is None:
                raise
            raise refused from error

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the activations, by the names that were asked for.

        Args:
            x: images, batch × channels × height × width.
        """
        found: dict[str, Tensor] = {}
        for part, again in self._parts:
            x, taken = run_again(self._run, part, x, use_reentrant=False) if again else self._run(part, x)
            found.update(taken)
        return {name: found[name] for name in self.layers}

    def _run(self, part: range, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Run some layers; return their output, and the wanted activations among them."""
        taken: dict[str, Tensor] = {}
        for index in part:
            x = self.body[index](x)
            taken.update(dict.fromkeys(self._names[index], x))
        return x, taken


def _parts(steps: Sequence[PlacedLayer]) -> Iterator[tuple[str | None, range]]:
    """Return the places of each block's layers, those of the classifier under None."""
    for block, places in groupby(range(len(steps)), key=lambda place: steps[place].block):
        first, *more = places
        yield block, range(first, first + 1 + len(more))


def _step(modules: dict[str, nn.Module], placed: PlacedLayer, step: PlacedLayer, frozen: bool) -> nn.Module:
    """Return the module of a layer: the model's own, or a new one where the layer runs in another way here.

    A model that gives scores has no soft-max of its own. A frozen dropout must not drop when the model goes back to
    training.

    Args:
        modules: the model's, by the layers' names.
        placed: the layer as it runs in the model.
        step: the layer as it runs here.
        frozen: whether it is frozen.
    """
    if step == placed and step.name in modules and not (frozen and step.layer.is_dropout):
        return modules[step.name]
    module: nn.Module = step.layer.module(step.input_shape, nn)
    return module


def features(
    model: VGG | Source,
    layers: str | Iterable[str],
    *,
    weights: WeightsSource | nn.Module | None = None,
    frozen: bool = False,
    **options: Unpack[BuildArguments],
) -> Features:
    """Return a module that gives a network's activations at named layers.

    Its input is normalised as it was when the weights were trained. For torchvision's weights that means values from 0
    to 1, less the mean (0.485, 0.456, 0.406) and divided by the deviation (0.229, 0.224, 0.225) of each channel.
    `Classifier.preprocess` says what it means for a checkpoint.

    Args:
        model: a model, whose layers are shared; or what `build` takes. Another torch module's weights are copied.
        layers: names of layers as here (block3_conv3), as the authors' (relu4_3, pool5) or torchvision's
            (features.29); `vggkit names D` lists them. It stops at the last of them.
        weights: with a name or configuration: what `build` takes as weights; the classifier's are not loaded.
        frozen: whether no parameter is trained and evaluation mode is kept, as a perceptual loss wants it: the
            activations have a graph only where the input has one. A model's own layers are then frozen in the model.
        options: further keywords of `build`, softmax aside: the soft-max is a layer that can be named, as prob. Blocks
            that are checkpointed are run again in the backward pass, and give the same activations.

    Returns:
        A module, images → {name: activation}, in the model's mode; a new model is in evaluation mode.

    Raises:
        ArgumentError: if there is no such layer, or a keyword does not fit.
        CheckpointError: if the weights can't be read, or don't fit.

    >>> import torch
    >>> taps = features("A", ["conv3_1", "relu3_1", "block4_pool"], input="3x32x32", width=0.1)
    >>> {name: tuple(tap.shape) for name, tap in taps(torch.zeros(1, 3, 32, 32)).items()}
    {'conv3_1': (1, 25, 8, 8), 'relu3_1': (1, 25, 8, 8), 'block4_pool': (1, 51, 2, 2)}
    """
    names = several(layers, "layers")
    if not names:
        raise ArgumentError("layers: expected names of layers, such as relu4_3, found none")
    if isinstance(model, VGG):
        given = [*(["weights"] if weights is not None else []), *options]
        if given:
            raise ArgumentError(f"{given[0]}: expected none with a model that is built already")
        return Features(model, names, frozen=frozen)
    if isinstance(model, nn.Module) and weights is None:
        weights = model
    further: dict[str, Any] = {**options}
    if further.pop("softmax", False):
        raise ArgumentError("softmax: expected none with features; name the soft-max among the layers, as prob")
    check_keywords(features, further, BuildArguments.__optional_keys__)
    overrides = {word: further.pop(word) for word in OVERRIDES if word in further and further[word] != "new"}
    network = Network.of(model, **overrides)
    trunk = network.trunk_of(names)
    if trunk is not network:  # a classifier that nobody asks for is never given memory
        still = network.parts(further.get("freeze", ()), "freeze")
        further["freeze"] = [placed.name for placed in trunk if placed.name in still]
        if weights is not None:
            further["include_top"] = False
    return Features(build(trunk, weights=weights, **further), names, frozen=frozen).train(False)

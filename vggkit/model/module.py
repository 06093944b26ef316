"""Network → VGG, an ordinary `torch.nn.Module`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec
import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]  # torch does not list it
from torch.utils.checkpoint import checkpoint as run_again

from vggkit.base.errors import ArgumentError, ConfigError, shorten
from vggkit.footprint.remedies.remedies import Remedy
from vggkit.model import rewrite
from vggkit.model.description import described
from vggkit.network import Network, PlacedLayer, place, several
from vggkit.notation.config import Config
from vggkit.notation.layers import Conv2d, Pair, Shape, times


class LoadReport(msgspec.Struct, frozen=True):
    """What was loaded into a model.

    Args:
        source: the file, or what it was loaded from.
        loaded: the network's layers that have its weights, and the names that they have there.
        left: layers with weights that received none.
        notes: what was changed on the way, what the file does not say and was assumed, and with strict=False what it
            says and the model does otherwise.
        layout: the file's; empty if it was loaded from a model.
    """

    source: str
    loaded: dict[str, str]
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layout: str = ""

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} layers loaded"]
        lines += [f"  new: {', '.join(self.left)}"] if self.left else []
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


class VGG(nn.Module):
    """A VGG network: `block1` … `blockN`, each an `nn.Sequential`, then the classifier's layers by their names.

    Args:
        network: what to build; its parameters are made by torch's defaults, `build` initialises them.
        softmax: whether the output is probabilities, if the configuration ends in soft-max; else it is scores.
        checkpoint: blocks that are run again in the backward pass instead of keeping what it needs.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    # TorchScript compiles all other properties
    __jit_unused_properties__: ClassVar[tuple[str, ...]] = ("config", "frozen", "network")

    def __init__(self, network: Network, *, softmax: bool = False, checkpoint: str | Iterable[str] = ()) -> None:
        super().__init__()
        self._network = network
        self.ends_in_softmax = softmax
        self.checkpoint = network.blocks(checkpoint, "checkpoint")
        blocks: dict[str, OrderedDict[str, nn.Module]] = {}
        classifier: dict[str, nn.Module] = {}
        for placed in network.modules(softmax=softmax):
            module = placed.layer.module(placed.input_shape, nn)
            if placed.block is None:
                classifier[placed.module] = module
            else:
                child = placed.module.removeprefix(f"{placed.block}.")
                blocks.setdefault(placed.block, OrderedDict())[child] = module
        for name, module in {**{name: nn.Sequential(block) for name, block in blocks.items()}, **classifier}.items():
            self.add_module(name, module)
        self._is_block = {**dict.fromkeys(blocks, True), **dict.fromkeys(classifier, False)}
        self._frozen: frozenset[str] = frozenset()
        self.report: LoadReport | None = None
        """What was loaded last, if anything was."""

    @property
    def network(self) -> Network:
        """The network of the current modules: the one it was built from, unless modules were changed.

        Raises:
            ArgumentError: if no configuration says what they are.
        """
        return described(self._network, self._chain(), softmax=self.ends_in_softmax)

    @property
    def config(self) -> Config:
        """The configuration of that network."""
        return self.network.config

    def layers(self) -> list[tuple[PlacedLayer, nn.Module]]:
        """Return the network's layers, each with its module, in the order in which they run."""
        modules = (module for _, module in self._chain())
        return list(zip(self.network.modules(softmax=self.ends_in_softmax), modules))

    def _chain(self) -> list[tuple[str, nn.Module]]:
        """Return the modules that run, each with its path, without an nn.Identity that replaces a removed layer."""
        modules: list[tuple[str, nn.Module]] = []
        for name, child in self.named_children():
            child = _compiled(child)
            if self._is_block.get(name) and isinstance(child, nn.Sequential):
                modules += [(f"{name}.{inner}", _compiled(module)) for inner, module in child.named_children()]
            elif name in self._is_block:
                modules.append((name, child))
        return [(path, module) for path, module in modules if not isinstance(module, nn.Identity)]

    def __call__(self, x: Tensor) -> Tensor:
        """Run `forward`; if torch refuses the input, raise an error that names the network's sizes.

        Raises:
            ValueError: if the images have a size that the network can't take.
            RuntimeError: if torch fails.
        """
        try:
            return cast(Tensor, super().__call__(x))
        except RuntimeError as error:
            if (refused := self._refused(x, error)) is None:
                raise
            raise refused from error

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last block's output.

        Args:
            x: images, batch × channels × height × width.
        """
        for name, block in self.named_children():
            if self._is_block.get(name, False):
                if is_scripting():  # TorchScript has no checkpoints
                    x = block(x)
                elif name in self.checkpoint:
                    x = run_again(block, x, use_reentrant=False)
                else:
                    x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of each class (probabilities if built with softmax=True).

        It has no control flow that depends on the images: torch.fx and TorchScript take it.

        Args:
            x: images, batch × channels × height × width.
        """
        x = self.forward_features(x)
        for name, layer in self.named_children():
            if not self._is_block.get(name, True):
                x = layer(x)
        return x

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

    def apply_remedy(self, remedy: Remedy) -> dict[str, Any]:
        """Set up what of a remedy is the model's: blocks to checkpoint, blocks and layers that are not trained.

        The model is then as if it had been built with the remedy's `build_options`.

        Args:
            remedy: one of those that `vggkit.remedies` finds.

        Returns:
            What is left to do, in the loop and around it: the remedy's `loop_options`.

        Raises:
            ArgumentError: if it is no remedy, or the model has no such block or layer.
        """
        options = _checked(remedy).build_options
        checkpoint = self.network.blocks(options.get("checkpoint", self.checkpoint), "checkpoint")
        if "freeze" in options:
            self.freeze(options["freeze"])
        self.checkpoint = checkpoint
        return remedy.loop_options

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
        """Return a model for inference: each batch norm right after a convolution or FC layer is folded into it.

        Returns:
            A new model in evaluation mode; its outputs are this one's in evaluation mode, but for rounding. Layers
            without a folded batch norm share their weights with this model.
        """
        return self._rewritten(rewrite.folded(self.network, self._tensors(), self.frozen)).eval()

    def _tensors(self) -> rewrite.Tensors:
        return {
            (placed.name, role): getattr(self.get_submodule(placed.module), role)
            for placed in self.network
            for role in placed.held
        }

    def _rewritten(self, rewritten: rewrite.Rewritten) -> VGG:
        """Return a new model in this one's mode, with its end and its checkpoints.

        Parameters share the tensors' memory; statistics, which a forward pass in training changes, are copied.
        """
        network = place(rewritten.config)
        with torch.device("meta"):
            new = VGG(network, softmax=self.ends_in_softmax, checkpoint=self.checkpoint)
        for placed in (placed for placed in network if placed.held):
            module = new.get_submodule(placed.module)
            for role in placed.held:
                tensor = rewritten.tensors[placed.name, role]
                if isinstance(getattr(module, role), nn.Parameter):
                    setattr(module, role, nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad))
                else:
                    setattr(module, role, tensor.clone())
        return (new.freeze(rewritten.frozen) if rewritten.frozen else new).train(self.training)

    def _refused(self, x: Tensor, error: RuntimeError) -> Exception | None:
        """Return an error that explains why torch failed, if the reason is known."""
        if told := blocked_hooks(error):
            return told
        try:
            network = self.network
        except ArgumentError:
            return None
        if x.ndim != 4 or x.shape[1] != network.input_shape[0]:
            return None
        told_misfit = _misfit(network, tuple(x.shape[1:]))
        return None if told_misfit is None else ValueError(f"{network.name}: {told_misfit}")


def _checked(remedy: object) -> Remedy:
    if isinstance(remedy, Remedy):
        return remedy
    found = shorten(type(remedy).__name__)
    raise ArgumentError(f"remedy: expected one of those that vggkit.remedies finds, found {found}")


def _compiled(module: nn.Module) -> nn.Module:
    """Return the module inside torch.compile's wrapper, or the module itself if there is none."""
    inner: nn.Module = getattr(module, "_orig_mod", module)
    return inner


def vgg_in(module: object) -> VGG:
    """Return the model inside wrappers such as torch.compile, DataParallel and DistributedDataParallel.

    Raises:
        ArgumentError: if there is none.
    """
    inner = module
    while isinstance(inner, nn.Module) and not isinstance(inner, VGG):
        inner = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
    if not isinstance(inner, VGG):
        raise ArgumentError(f"model: expected a model of vggkit.build, found {shorten(type(module).__name__)}")
    return inner


def to_fully_convolutional(model: nn.Module) -> VGG:
    """Return the model with its FC layers as convolutions, for pictures of any size at or above the one it is for.

    As the paper evaluates (Sect. 3.2): the first FC layer becomes a convolution as large as the maps, the hidden ones
    behind it 1×1, and the scores are averaged over all positions. The last of several FC layers stays as it is, behind
    the average: the scores of an average are the average of the scores. So does timm, and to the last bit.

    Args:
        model: stays as it is, and shares its weights with the new one; also as torch.compile or DataParallel wraps it.

    Returns:
        A new model, whose scores at the old size are those of the old one; the model itself if its maps are averaged
        before its FC layers, as it takes any size already.

    Raises:
        ArgumentError: if the classifier is not maps, flattened, then FC layers.

    >>> from vggkit import build
    >>> model = build("A", input="3x64x64", width=0.1)
    >>> to_fully_convolutional(model).fc1.weight.shape
    torch.Size([409, 51, 2, 2])
    """
    model = vgg_in(model)
    rewritten = rewrite.fully_convolutional(model.network, model._tensors(), model.frozen)
    return model if rewritten is None else model._rewritten(rewritten)


def blocked_hooks(error: RuntimeError) -> RuntimeError | None:
    """Return what to do if full backward hooks met an activation that works in place."""
    if "BackwardHookFunction" not in str(error):
        return None
    return RuntimeError(
        "full backward hooks need each layer's own output, and activations that work in place overwrite it. Build the"
        " model with inplace=False"
    )


def _misfit(network: Network, fed: Shape) -> str | None:
    """Return why a network can't take images of a shape, or None if it can.

    Args:
        network: as it is.
        fed: the shape of one image.
    """
    blocks = replace(network.config, input=fed, classifier=())
    try:
        maps = _last_maps(place(blocks)) if blocks.blocks else fed[1:]
    except ConfigError as error:
        return f"an input of {times(fed)} is too small: {error}"
    said = f"an input of {times(fed)} ends in {times(maps)} maps, but"
    least = _least_maps(network)
    if maps[0] < least[0] or maps[1] < least[1]:
        return (
            f"{said} the classifier's convolutions need {times(least)} maps at least, as of"
            f" {times(network.input_shape)}"
        )
    try:
        other = place(replace(network.config, input=fed))
    except ConfigError as error:
        return f"{said} {error}"
    if all(one.held == another.held for one, another in zip(network, other)):
        return None
    return (
        f"{said} the FC layers were made for the {times(_last_maps(network))} maps of {times(network.input_shape)}."
        f" Nothing is stretched: build it with input='{'x'.join(map(str, fed))}' for FC layers of that size, or with"
        f" head='gap' for any size"
    )


def _last_maps(network: Network) -> Shape:
    """Return height and width of the last maps of the blocks; the input's if there are none."""
    shapes = [placed.output_shape for placed in network if placed.block is not None]
    return next((shape[1:] for shape in reversed(shapes) if len(shape) == 3), network.input_shape[1:])


def _least_maps(network: Network) -> Pair:
    """Return the smallest maps that a convolution right behind the blocks takes."""
    first = next((placed for placed in network if placed.block is None and not placed.layer.is_dropout), None)
    if first is None or not isinstance(first.layer, Conv2d):
        return 0, 0
    extent, pads = first.layer.window(first.input_shape).extent, first.layer.pads()
    return extent[0] - 2 * pads[0], extent[1] - 2 * pads[1]


def hold_statistics(module: nn.Module) -> None:
    """Put a module that keeps statistics of its batches, as a batch norm does, into evaluation mode."""
    if any(True for _ in module.buffers(recurse=False)):
        module.eval()

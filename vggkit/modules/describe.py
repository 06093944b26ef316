"""A torch module that runs as a chain → the configuration that says what it does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor, nn

from vggkit.base.errors import ArgumentError, LayerError, shorten
from vggkit.base.shapes import Shape, elements, times
from vggkit.modules.aten import Padding
from vggkit.modules.equivalents import equivalents, joined
from vggkit.modules.layers import layer_of
from vggkit.modules.parts import Part, configured
from vggkit.modules.told import TorchModule
from vggkit.modules.trace import BATCH, Given, Step, bare, public, trace
from vggkit.notation.config import Config, input_shape
from vggkit.notation.layers import Flatten, Layer


class Described(NamedTuple):
    """A module as a chain of layers.

    Args:
        config: what it does.
        parts: its layers.
        modules: for each of them the module that holds its tensors; not always one of the module's own.
    """

    config: Config
    parts: list[Part]
    modules: list[nn.Module]


def describe(module: TorchModule, *, input: str | Sequence[SupportsIndex] | None = None) -> Config:
    """Describe a module that runs as a chain of layers.

    Args:
        module: any, also as torch.compile or DataParallel wraps it. It runs once, in evaluation mode and on images
            without values, and is not changed. How it is written does not matter: modules and functions may be mixed.
        input: shape of one image, "3x224x224"; if absent, 224×224 with the channels of its first convolution.

    Returns:
        The configuration. `build(config, weights=module)` has the same outputs to the last bit.

    Raises:
        ArgumentError: if it can't be run, is no chain, or does something that no layer of a configuration does.

    >>> from torch import nn
    >>> features = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    >>> model = nn.Sequential(*features, nn.Flatten(), nn.Linear(128, 10))
    >>> print(describe(model, input="3x8x8"), end="")
    name: Sequential
    input: 3x8x8
    blocks:
      - [conv3-8, maxpool]
    classifier: [FC-10]
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError(f"model: expected a torch.nn.Module, found {shorten(type(module).__name__)}")
    module = bare(module)
    image = _image(module, input)
    own = own_config(module)
    return own if own and image == own.input else described(module, image).config


def own_config(module: nn.Module) -> Config | None:
    """Return the configuration of a model of `vggkit.build`, which knows what it is; None for any other module.

    It has the last soft-max, which such a model leaves out when it runs. A class made of the model's own may run
    otherwise; then it is a module like any other.
    """
    kind = next((kind for kind in type(module).__mro__ if isinstance(vars(kind).get("config"), property)), None)
    if kind is None or type(module).forward is not getattr(kind, "forward", None):
        return None
    config = module.config
    return config if isinstance(config, Config) else None


def _image(module: nn.Module, input: Any) -> Shape:
    """Return the shape of one image: the given one, or one that suits the module."""
    if input is not None:
        try:
            return input_shape(input)
        except ValueError as error:
            raise ArgumentError(f"input: {error}") from None
    own = getattr(module, "config", None)
    if isinstance(own, Config):
        return own.input
    return suited(Config("").input, module)


def suited(image: Shape, module: nn.Module) -> Shape:
    """Return the shape of an image with the channels that a module's first convolution takes."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return image if first is None else (first.in_channels, *image[1:])


def described(module: nn.Module, image: Shape) -> Described:
    """Return a module's layers, with the configuration that they form.

    Args:
        module: as for `describe`.
        image: the shape of one image.

    Raises:
        ArgumentError: as for `describe`.
    """
    module = bare(module)
    reader = _Reader(image)
    for moves, steps in groupby(trace(module, image), key=_moves):
        if moves:
            reader.move(list(steps))
        else:
            for step in steps:
                reader.read(step)
    reader.check()
    return Described(configured(type(module).__name__, image, reader.parts), reader.parts, reader.modules)


# Steps to layers

_METHODS = ("flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view")
_RESHAPES = {
    *(getattr(home, word) for word in _METHODS for home in (torch, Tensor) if hasattr(home, word)),
    nn.Flatten, nn.Identity, nn.Sequential, nn.Unflatten,
}  # fmt: skip
"""What gives values another shape, and leaves them in their order."""

_ORDERS = {
    *(getattr(home, word) for word in ("movedim", "permute", "swapaxes", "transpose") for home in (torch, Tensor)),
    torch.channel_shuffle, nn.ChannelShuffle,
}  # fmt: skip
"""What puts values into another order."""


def _called(step: Step) -> Any:
    return type(step.function) if isinstance(step.function, nn.Module) else public(step.function)


def _moves(step: Step) -> bool:
    """Tell whether a step changes the shape or the order of values, and no value."""
    return _called(step) in _RESHAPES or _called(step) in _ORDERS


MOST_NUMBERS = 2**26
"""Values of one image; the first maps of the paper's networks have a twentieth of them."""


class _Reader:
    """Reads layers off steps, one behind the other.

    Args:
        image: the shape of one image.
    """

    def __init__(self, image: Shape) -> None:
        self.shape = image
        self.parts: list[Part] = []
        self.modules: list[nn.Module] = []
        self.padded: tuple[Padding, Step] | None = None
        """What was added around the maps, and belongs to the convolution that comes next."""

    def move(self, steps: Sequence[Step]) -> None:
        """Read a flattening off steps that only move values; often they leave all where it was."""
        self.check_padding()
        output, x = self.output(steps[-1]), self.shape
        if output == x and self.in_order(steps, x):
            return
        order = next((order for order in (Flatten(), Flatten("hwc")) if self.flattens(steps, order)), None)
        if order is None:
            raise ArgumentError(
                f"model: no layer of a configuration moves values as {steps[-1].name} does, from {times(x)} to"
                f" {times(output)}"
            )
        self.add(steps[-1], order, nn.Flatten())

    def flattens(self, steps: Sequence[Step], layer: Flatten) -> bool:
        x = self.shape
        if self.output(steps[-1]) != (elements(x),) or len(x) != 3:
            return False
        return self.in_order(steps, x if layer.order == "chw" else (x[1], x[2], x[0]))

    def in_order(self, steps: Sequence[Step], shape: Shape) -> bool:
        """Tell whether steps leave values in the order that they have in a shape: the input's, or channels last."""
        last = shape != self.shape
        if not any(_called(step) in _ORDERS for step in steps):
            return not last
        if elements(self.shape) > MOST_NUMBERS:
            raise self.refused(steps[-1], f"more than {MOST_NUMBERS:,} values are not followed into another order")
        numbers = torch.arange(BATCH * elements(self.shape), device="cpu").reshape(BATCH, *self.shape)
        moved = numbers
        for step in steps:
            moved = _again(step, moved)
        wanted = numbers.permute(0, 2, 3, 1) if last else numbers
        return torch.equal(moved.reshape(-1), wanted.reshape(-1))

    def read(self, step: Step) -> None:
        """Read the layers of a step."""
        output = self.output(step)
        try:
            modules = equivalents(step)
            if self.padded:
                modules = joined(self.padded[0], modules, self.shape)
                self.padded = None
        except LayerError as error:
            raise self.refused(step, str(error)) from None
        if isinstance(modules, Padding):
            self.padded = modules, step
            return
        for module in modules:
            layer = layer_of(module, self.shape)
            if layer is None:
                raise self.refused(step)
            self.add(step, layer, module)
        if self.shape != output:
            raise self.refused(step)

    def add(self, step: Step, layer: Layer, module: nn.Module) -> None:
        part = Part(step.path, layer, self.shape)
        try:
            self.shape = part.output_shape
        except LayerError as error:
            raise ArgumentError(f"model: {step.name}: {error}") from None
        self.parts.append(part)
        self.modules.append(module)

    def output(self, step: Step) -> Shape:
        """Return the shape of a step's output, for one image."""
        shape = step.output_shape
        if shape is None:
            raise self.refused(step, "it returns more than one tensor, or changes the dtype")
        if shape[:1] != (BATCH,) or len(shape) not in (2, 4):
            raise self.refused(step, f"of {BATCH} images it makes {times(shape)}")
        return shape[1:]

    def refused(self, step: Step, why: str = "") -> ArgumentError:
        if not why and isinstance(step.function, nn.Module):
            why = shorten(" ".join(repr(step.function).split()), 120)
        given = f" for an input of {times(step.input_shape[1:])}"
        return ArgumentError(
            f"model: no layer of a configuration does what {step.name} does{given}" + (f": {why}" if why else "")
        )

    def check_padding(self) -> None:
        """Refuse maps that were padded for no convolution."""
        if self.padded:
            raise self.refused(self.padded[1], "no convolution comes next")

    def check(self) -> None:
        """Refuse a chain without layers, and weights that are used twice."""
        self.check_padding()
        if not self.parts:
            raise ArgumentError("model: it returns its image; expected a module with layers")
        seen: dict[int, str] = {}
        for part, module in zip(self.parts, self.modules):
            for tensor in module.parameters():
                if (first := seen.get(id(tensor))) is not None:
                    raise ArgumentError(
                        f"model: the weights of {first or 'it'} run again in {part.path or 'it'}; expected weights of"
                        " its own for each layer"
                    )
            seen.update(dict.fromkeys(map(id, module.parameters()), part.path))


def _again(step: Step, value: Tensor) -> Tensor:
    """Run a step on another value."""
    args = [value if arg is Given else arg for arg in step.args]
    moved: Tensor = step.function(*args, **{word: value if arg is Given else arg for word, arg in step.kwargs.items()})
    return moved

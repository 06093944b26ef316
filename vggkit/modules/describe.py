"""A torch module that runs as a chain → the configuration that says what it does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple, SupportsIndex, TypeVar

import torch
from torch import Tensor, nn

from vggkit.base.errors import ArgumentError, LayerError, shorten
from vggkit.base.shapes import Shape, elements, times
from vggkit.modules.equivalents import equivalents
from vggkit.modules.layers import layer_of
from vggkit.modules.parts import Part, entries, said
from vggkit.modules.told import TorchModule
from vggkit.modules.trace import BATCH, Given, Step, bare, trace
from vggkit.notation.config import Config, Defaults, Entry, input_shape, last_weight
from vggkit.notation.layers import Conv2d, Flatten, Layer, Linear
from vggkit.notation.spelling import Spec


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
    own = vars(type(module)).get("config")  # a model of vggkit.build knows what it is
    if isinstance(own, property) and isinstance(config := module.config, Config) and image == config.input:
        return config
    return described(module, image).config


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
    return Described(_config(type(module).__name__, image, reader.parts), reader.parts, reader.modules)


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
    return type(step.function) if isinstance(step.function, nn.Module) else step.function


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

    def move(self, steps: Sequence[Step]) -> None:
        """Read a flattening off steps that only move values; often they leave all where it was."""
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
        except LayerError as error:
            raise self.refused(step, str(error)) from None
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

    def check(self) -> None:
        """Refuse a chain without layers, and weights that are used twice."""
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


# Layers to a configuration


def _config(name: str, image: Shape, parts: Sequence[Part]) -> Config:
    """Return the configuration that layers form, in as few words as its defaults allow."""
    head = _classifier_start(parts)
    blocks = tuple(entries(block) for block in _blocks(parts[:head]))
    classifier = entries(parts[head:])
    return said(Config(name, input=image, defaults=_defaults(blocks, classifier), blocks=blocks, classifier=classifier))


def _classifier_start(parts: Sequence[Part]) -> int:
    """Return where the classifier begins: at flatten, or at the pool to a given size before it."""
    flat = next((index for index, part in enumerate(parts) if len(part.output_shape) == 1), len(parts))
    start = flat
    for index in range(min(flat, len(parts) - 1), -1, -1):
        layer = parts[index].layer
        if layer.is_weight_layer or layer.is_pool:
            break
        start = index if layer.fixes_size and flat < len(parts) else start
    return start


_OWN_BLOCK = re.compile(r"(?:^|\.)block(\d+)\.")


def _blocks(parts: Sequence[Part]) -> list[list[Part]]:
    """Divide layers into the blocks that their paths name, or else before the first weight layer behind a pool."""
    named = [_OWN_BLOCK.search(part.path) for part in parts]
    if parts and all(named):
        return [list(block) for _, block in groupby(parts, key=lambda part: _OWN_BLOCK.findall(part.path)[0])]
    blocks: list[list[Part]] = []
    begins = True
    for part in parts:
        if not blocks or (begins and part.layer.is_weight_layer):
            blocks.append([])
            begins = False
        blocks[-1].append(part)
        begins = begins or part.layer.is_pool
    return blocks


def _defaults(blocks: Iterable[Iterable[Entry]], classifier: Sequence[Entry]) -> Defaults:
    """Return what most hidden layers have behind them, so that no layer has to repeat it."""
    last = last_weight(Config("", classifier=tuple(classifier)))
    hidden = [entry for entry in chain(*blocks, classifier) if entry.layer.is_weight_layer and entry is not last]
    convolutions = [entry for entry in hidden if isinstance(entry.layer, Conv2d)]
    paper = Defaults()
    biased = _usual([entry.layer.bias for entry in convolutions if isinstance(entry.layer, Conv2d)], True)
    return Defaults(
        activation=_usual([entry.activation for entry in hidden], paper.activation),
        norm=_usual([entry.norm for entry in convolutions], paper.norm),
        dropout=_usual([entry.dropout for entry in hidden if isinstance(entry.layer, Linear)], paper.dropout),
        kinds={} if biased else {Conv2d.keyword: Spec(Conv2d, {"bias": False}, {})},
    )


Value = TypeVar("Value")


def _usual(values: Sequence[Value], otherwise: Value) -> Value:
    """Return the value that occurs most often, and of equally frequent ones rather the paper's."""
    return max([otherwise, *values], key=lambda value: (values.count(value), value == otherwise))

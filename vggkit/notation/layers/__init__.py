"""One class per layer kind, and in it every rule of that kind.

`rules` has the rules that each kind must define. Each family of kinds has a file; a new kind is one class in one of
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from vggkit.base.shapes import Kept, Pair, Shape, elements, times
from vggkit.notation.layers import activations, head, norms, windows
from vggkit.notation.layers.activations import (
    ELU,
    GELU,
    Hardtanh,
    InPlaceActivation,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Tanh,
)
from vggkit.notation.layers.fields import (
    LARGEST,
    Allowed,
    Count,
    CountByWidth,
    Flag,
    Padding,
    PaddingOrSame,
    Positive,
    Rate,
    Size,
)
from vggkit.notation.layers.head import Dropout, Flatten, Linear, LogSoftmax, Softmax
from vggkit.notation.layers.norms import BatchNorm, GroupNorm, LocalResponseNorm
from vggkit.notation.layers.rules import POINT, Layer, Product, Window, Working
from vggkit.notation.layers.windows import AdaptiveAvgPool2d, AvgPool2d, Conv2d, GlobalAvgPool2d, MaxPool2d

__all__ = [
    "ELU",
    "GELU",
    "KINDS",
    "LARGEST",
    "POINT",
    "AdaptiveAvgPool2d",
    "Allowed",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Count",
    "CountByWidth",
    "Dropout",
    "Flag",
    "Flatten",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Hardtanh",
    "InPlaceActivation",
    "Kept",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MaxPool2d",
    "Padding",
    "PaddingOrSame",
    "Pair",
    "Positive",
    "Product",
    "Rate",
    "ReLU",
    "Shape",
    "SiLU",
    "Sigmoid",
    "Size",
    "Softmax",
    "Tanh",
    "Window",
    "Working",
    "elements",
    "times",
]


def _kinds_in(family: ModuleType) -> Iterator[type[Layer]]:
    """Yield the final classes of a module, in order."""
    for kind in vars(family).values():
        own = isinstance(kind, type) and kind.__module__ == family.__name__
        if own and issubclass(kind, Layer) and not kind.__abstractmethods__:
            yield kind


KINDS = (*_kinds_in(windows), *_kinds_in(norms), *_kinds_in(activations), *_kinds_in(head))
"""Every layer kind."""

"""The layer that builds a module is read off it, with the fewest options."""

from __future__ import annotations

import pytest
from torch import nn

from vggkit.modules.layers import layer_of
from vggkit.notation.layers import (
    AdaptiveAvgPool2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Hardtanh,
    Layer,
    MaxPool2d,
    Shape,
)

READ: dict[str, tuple[nn.Module, Shape, Layer]] = {
    "padding that keeps the size": (nn.Conv2d(3, 4, 3, padding=1), (3, 8, 8), Conv2d(4)),
    "sizes in a list": (nn.MaxPool2d([3, 2], stride=[2, 1]), (3, 8, 8), MaxPool2d((3, 2), (2, 1))),
    "one place of the maps": (nn.AdaptiveAvgPool2d((1, 1)), (3, 8, 8), GlobalAvgPool2d()),
    "several places": (nn.AdaptiveAvgPool2d((2, 1)), (3, 8, 8), AdaptiveAvgPool2d((2, 1))),
    "a subclass": (nn.ReLU6(inplace=True), (3, 8, 8), Hardtanh(min_val=0.0, max_val=6.0)),
    "channels last": (Flatten("hwc").module((3, 2, 2), nn), (3, 2, 2), Flatten("hwc")),
}
"""A module, the shape of its input, and its layer."""


@pytest.mark.parametrize("case", READ)
def test_the_layer_of_a_module(case: str) -> None:
    """Torch takes sizes in several forms, and has subclasses that differ in their arguments alone."""
    module, x, layer = READ[case]
    assert layer_of(module, x) == layer


@pytest.mark.parametrize(
    "module", [nn.PReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d((None, 2)), nn.Conv1d(3, 3, 1)]
)
def test_other_modules_have_none(module: nn.Module) -> None:
    """A kind that the notation lacks, other input channels, an option that no layer has."""
    assert layer_of(module, (3, 8, 8)) is None

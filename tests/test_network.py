"""Placing layers: names, what becomes explicit, receptive fields, and what is said where a layer does not fit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vggkit
from tests import drawn
from vggkit import Network
from vggkit.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Layer, MaxPool2d

# Receptive fields, against the gradient of single outputs

SIDE = 256
"""Wide enough that the field of an output in the middle is not clipped: three layers see at most 53 values."""


def seeing(layer: Layer) -> nn.Module:
    """Return a module that looks at every value of a layer's window: a convolution of ones, or an average."""
    if isinstance(layer, AvgPool2d):
        module: nn.Module = layer.module((1, SIDE, SIDE), nn)
        return module
    assert isinstance(layer, (Conv2d, MaxPool2d))
    padding = layer.pads() if isinstance(layer, Conv2d) else layer.padding
    conv = nn.Conv2d(1, 1, layer.kernel_size, layer.stride, padding, layer.dilation, bias=False)
    nn.init.ones_(conv.weight)
    return conv


def reached(y: Tensor, x: Tensor, row: int, column: int) -> tuple[range, range]:
    """Return the rows and columns of x that one value of y depends on."""
    (gradient,) = torch.autograd.grad(y[0, 0, row, column], x, retain_graph=True)
    rows, columns = (gradient[0, 0] != 0).nonzero(as_tuple=True)
    return range(int(rows.min()), int(rows.max()) + 1), range(int(columns.min()), int(columns.max()) + 1)


@settings(max_examples=60, deadline=None)
@given(drawn.window_configs(SIDE))
def test_receptive_field_and_stride_are_what_a_gradient_reaches(config: vggkit.Config) -> None:
    """An inner output depends on a region of the receptive field's size, and its neighbour on one a stride away."""
    network = Network.of(config)
    x = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    y: Tensor = nn.Sequential(*(seeing(placed.layer) for placed in network)).double()(x)
    row, column = (size // 2 for size in y.shape[-2:])
    here, there = reached(y, x, row, column), reached(y, x, row + 1, column + 1)
    last = network.layers[-1]
    assert (len(here[0]), len(here[1])) == last.receptive_field
    assert (there[0].start - here[0].start, there[1].start - here[1].start) == last.stride


def windows(size: int, outputs: int) -> list[range]:
    """Return which inputs each output of torch's adaptive average pool looks at."""
    looks = nn.functional.adaptive_avg_pool1d(torch.eye(size)[None], outputs)[0] > 0
    return [range(int(i.min()), int(i.max()) + 1) for i in (column.nonzero() for column in looks.T)]


@pytest.mark.parametrize("outputs", range(1, 29))
def test_an_adaptive_pools_window_is_the_largest_of_torchs(outputs: int) -> None:
    """Extent and step are the largest of all windows, whether or not the sizes divide, up or down."""
    for size in range(1, 41):
        seen = windows(size, outputs)
        steps = [after.start - before.start for before, after in pairwise(seen)]
        window = AdaptiveAvgPool2d((outputs, 1)).window((1, size, 1))
        assert window.extent[0] == max(map(len, seen)), size
        assert window.step[0] == max(steps, default=size), size


@given(st.integers(1, 10**18), st.integers(1, 10**18))
def test_a_huge_adaptive_pool_is_answered_at_once(size: int, outputs: int) -> None:
    """No loop runs over the outputs, so that the largest sizes have a window too."""
    extent, step = AdaptiveAvgPool2d((outputs, 1)).window((1, size, 1))
    assert -(-size // outputs) <= extent[0] <= size // outputs + 2
    assert size // outputs <= step[0] <= size // outputs + 1


def test_an_adaptive_pool_grows_the_field_of_what_is_before_it() -> None:
    """Behind two convolutions and a pool, the largest field of an adaptive pool's outputs is the claimed one."""
    text = (
        "{input: 1x34x23, defaults: {activation: none}, blocks: [[conv3-1, avgpool, conv3-1, {adaptive-avgpool: 5x3}]]}"
    )
    network = Network.of(vggkit.loads(text))
    x = torch.zeros(1, 1, 34, 23, dtype=torch.float64, requires_grad=True)
    modules = [
        layer.module((1, 17, 11), nn) if isinstance(layer := placed.layer, AdaptiveAvgPool2d) else seeing(layer)
        for placed in network
    ]
    y = nn.Sequential(*modules).double()(x)
    fields = [reached(y, x, row, column) for row in range(5) for column in range(3)]
    largest = max(len(rows) for rows, _ in fields), max(len(columns) for _, columns in fields)
    assert largest == network.layers[-1].receptive_field

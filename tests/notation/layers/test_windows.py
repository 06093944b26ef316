"""Every small window: pools, convolutions and adaptive pools against torch, one by one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import nn

from tests.notation.layers.test_layers import torchs
from vggkit.base.errors import LayerError
from vggkit.notation.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Layer, MaxPool2d, Shape


def rules_say(layer: Layer, x: Shape) -> Shape | None:
    """Return the output shape that the rules give, or None where they refuse."""
    try:
        return layer.output_shape(x)
    except LayerError:
        return None


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_pools_of_every_small_size_are_torchs(kernel: int, ceil_mode: bool) -> None:
    """Over sizes, strides, paddings and dilations: the same shape as torch's, and refused exactly where it refuses."""
    for size, stride, padding, dilation in product(range(1, 10), range(1, 5), range(3), (1, 2)):
        x = (1, size, 9)
        window = ((kernel, 1), (stride, 1), (padding, 0))
        pools: list[Layer] = [MaxPool2d(*window, (dilation, 1), ceil_mode)]
        if dilation == 1:
            pools.append(AvgPool2d(*window, ceil_mode))
        for pool in pools:
            assert rules_say(pool, x) == torchs(pool, x), (pool, x)


def test_the_plainest_average_is_the_same_average() -> None:
    """To the last bit, and an average whose divisor is its window's size says none, unless a window may be cut off."""
    numbers = torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    for kernel, stride, padding, *flags, divisor in product(
        [(2, 2), (3, 2)], (1, 2), (0, 1), (False, True), (False, True), (None, 4, 6, 7)
    ):
        pool = AvgPool2d(kernel, (stride, stride), (padding, padding), *flags, divisor)
        plain = pool.in_inference((1, 5, 6))
        assert isinstance(plain, AvgPool2d)
        assert torch.equal(plain.module((1, 5, 6), nn)(numbers), pool.module((1, 5, 6), nn)(numbers)), pool
        if not pool.ceil_mode:
            assert plain.divisor_override == (divisor if divisor != kernel[0] * kernel[1] else None), pool


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_convolutions_of_every_small_size_are_torchs(padding_mode: str) -> None:
    """Over sizes, kernels, strides, paddings and dilations: torch's shape, and refused exactly where it refuses."""
    for size, kernel, stride, padding, dilation in product(range(1, 7), range(1, 4), (1, 2, 3), range(4), (1, 2)):
        x = (1, size, 6)
        layer = Conv2d(1, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), padding_mode=padding_mode)
        assert rules_say(layer, x) == torchs(layer, x), (layer, x)


def test_adaptive_windows_are_torchs() -> None:
    """Over sizes and outputs: the largest window and step are those that a gradient shows."""
    for size, outputs in product(range(1, 13), range(1, 13)):
        x = torch.ones(1, 1, size, 1, requires_grad=True)
        y = nn.AdaptiveAvgPool2d((outputs, 1))(x)
        rows = [torch.autograd.grad(y[0, 0, i, 0], x, retain_graph=True)[0].flatten().nonzero() for i in range(outputs)]
        extents = [int(row[-1] - row[0]) + 1 for row in rows]
        steps = [int(after[0] - before[0]) for before, after in pairwise(rows)]
        window = AdaptiveAvgPool2d((outputs, 1)).window((1, size, 1))
        assert window.extent[0] == max(extents)
        if steps:
            assert window.step[0] == max(steps), (size, outputs)

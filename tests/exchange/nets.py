"""Networks as the tests of other tools' files hold them against each other."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy
import torch
from msgspec.structs import replace
from torch import nn

import vggkit
from vggkit import Network
from vggkit.base.errors import LayerError
from vggkit.notation.layers import AdaptiveAvgPool2d, AvgPool2d


def layers(source: Any) -> list[Any]:
    """Return a network's layers."""
    return [placed.layer for placed in Network.of(source)]


def plainest(network: Network) -> list[Any]:
    """Return what a network's layers compute, for its input: whether a pool rounds up may make no difference,
    and an average to a size that divides is one with a window.
    """
    found = []
    for placed in network:
        layer, x = placed.layer.in_inference(placed.input_shape), placed.input_shape
        if getattr(layer, "ceil_mode", False):
            down = replace(layer, ceil_mode=False)
            with suppress(LayerError):  # a window that fits nowhere, rounded down
                layer = down.in_inference(x) if down.output_shape(x) == layer.output_shape(x) else layer
        if isinstance(layer, AdaptiveAvgPool2d) and layer.output_size != (1, 1):
            (height, height_left), (width, width_left) = (divmod(*axis) for axis in zip(x[1:], layer.output_size))
            same = AvgPool2d((height, width), stride=(height, width)) if height and width else layer
            layer = same if not height_left and not width_left else layer
        found += [layer] if layer else []
    return found


def with_statistics(network: Network) -> vggkit.VGG:
    """Return a model whose biases and statistics are not those of a new one, which tools leave out."""
    model = vggkit.build(network, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "bias")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def assert_close(found: numpy.ndarray[Any, Any], model: vggkit.VGG, images: torch.Tensor, bound: float = 1e-6) -> None:
    """Hold what another library computes against a model, in parts of the largest value if that is above 1.

    Libraries add the same numbers in another order, and so round differently. How much that matters torch says itself,
    which in double precision differs from its own single precision by the same: much behind a normalisation that
    divides by a deviation near 0. Where that has no deviation at all, torch may subtract the mean without rounding, and
    others need not. Four times that is allowed, beside the bound.
    """
    wanted = scores(model, images)
    rounding = numpy.abs(scores(deepcopy(model).double(), images.double()) - wanted).max()
    rounding = max(rounding, rounding_of_norms(model, images))
    assert found.shape == wanted.shape
    assert numpy.abs(found - wanted).max() <= bound * max(1.0, numpy.abs(wanted).max()) + 4 * rounding


def rounding_of_norms(model: vggkit.VGG, images: torch.Tensor) -> float:
    """Return how far normalisations by their input's own deviation are off, if each mean is by four of the last digits.

    One that follows another divides what that is off, too.
    """
    off = 0.0

    def note(norm: nn.Module, given: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        x = given[0].double()
        over = x.transpose(0, 1).flatten(1)
        if isinstance(norm, nn.GroupNorm):
            over = x.reshape(len(x) * norm.num_groups, -1)
        deviation = (over.var(1, correction=0) + norm.eps).sqrt()
        nonlocal off
        off = float(((off + over.abs().amax(1) * 4 * torch.finfo(torch.float32).eps) / deviation).max())

    norms = [norm for norm in model.modules() if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm))]
    hooks = [norm.register_forward_hook(note) for norm in norms if getattr(norm, "running_mean", None) is None]
    scores(model, images)
    for hook in hooks:
        hook.remove()
    return off


def scores(model: vggkit.VGG, images: torch.Tensor) -> numpy.ndarray[Any, Any]:
    """Return a model's output, with the soft-max at its end."""
    with torch.no_grad():
        found = model(images)
    return (found.softmax(dim=1) if model.network.ends_in_softmax else found).numpy()

"""The torch module: what it is made of, what it computes, and everything that torch does with a module."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.multiprocessing
from hypothesis import given, settings
from torch import Tensor

import vggkit
from tests import drawn
from vggkit import Network
from vggkit.notation import layers

TINY = """
name: tiny
input: 3x8x12
blocks:
  - [conv3-4, maxpool]
  - [conv3x1-6, {conv: 8, groups: 2}, maxpool]
classifier: [FC-10, FC-9, FC-5, soft-max]
"""


def tiny(**overrides: Any) -> Network:
    """Return a network of two blocks and three FC layers that takes no time."""
    return Network.of(vggkit.loads(TINY, **overrides))


def images(network: Network, batch: int = 2) -> Tensor:
    """Return random images for a network."""
    return torch.randn(batch, *network.input_shape, generator=torch.Generator().manual_seed(0))


# Against what torch makes of drawn networks


@contextmanager
def outputs(model: vggkit.VGG, network: Network) -> Iterator[dict[str, Tensor]]:
    """Note the output of each layer's module."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda *arguments: seen.update({name: arguments[-1]})

    hooks = [model.get_submodule(p.module).register_forward_hook(note(p.name)) for p in network.modules()]
    yield seen
    for hook in hooks:
        hook.remove()


@settings(max_examples=150, deadline=None)
@given(drawn.networks())
def test_each_layers_output_shape_is_its_modules(network: Network) -> None:
    """Every placed layer's output has the shape, name and order that the model's own tensors have."""
    model = vggkit.build(network)
    with outputs(model, network) as seen:
        model(images(network))
    assert {name: tuple(output.shape) for name, output in seen.items()} == {
        placed.name: (2, *placed.output_shape) for placed in network.modules()
    }
    assert list(seen) == [placed.name for placed in network.modules()]


@settings(max_examples=150, deadline=None)
@given(drawn.networks())
def test_each_layers_parameters_and_buffers_are_its_modules(network: Network) -> None:
    """Names, order and shapes of parameters and buffers are what torch's modules register."""
    model = vggkit.build(network, device="meta")
    for placed in network.modules():
        module = model.get_submodule(placed.module)
        parameters = [(name, tuple(value.shape)) for name, value in module.named_parameters()]
        buffers = [(name, tuple(value.shape)) for name, value in module.named_buffers()]
        assert parameters == list(placed.layer.parameters(placed.input_shape).items())
        assert buffers == list(placed.layer.buffers(placed.input_shape).items())
    assert [name for name, _ in model.named_parameters()] == [
        f"{placed.module}.{name}"
        for placed in network.modules()
        for name in placed.layer.parameters(placed.input_shape)
    ]


def out_of_place(model: vggkit.VGG) -> vggkit.VGG:
    """Return a copy in which nothing works in place."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return plain


def step(model: vggkit.VGG, x: Tensor) -> list[Tensor | None]:
    """Run forward and backward with a fixed dropout; return the output and every gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        y = model(x)
    if y.requires_grad:
        (y * torch.arange(1.0, y.numel() + 1).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wants_gradient", [True, False])
@settings(max_examples=100, deadline=None)
@given(network=drawn.networks())
def test_a_model_computes_and_trains_as_if_nothing_worked_in_place(
    training: bool, wants_gradient: bool, network: Network
) -> None:
    """Forward and backward run, leave the input as it was, and equal those of the same network out of place."""
    model = vggkit.build(network, seed=0).train(training)
    plain = out_of_place(model)
    x = images(network)
    ours, theirs = (
        step(each, x.clone().requires_grad_(wants_gradient)) if wants_gradient else step(each, x)
        for each in (model, plain)
    )
    assert torch.equal(x, images(network))
    assert [value is None for value in ours] == [value is None for value in theirs]
    # torch rounds ELU's gradient differently when it has only the output
    exact = 1 if any(isinstance(p.layer, layers.ELU) and p.layer.inplace for p in network) else len(ours)
    for own, other in zip(ours[:exact], theirs[:exact]):
        torch.testing.assert_close(own, other, rtol=0, atol=0, equal_nan=True)

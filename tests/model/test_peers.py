"""The built model is torchvision's and timm's, to the last bit."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import vggkit
from tests.conftest import sample
from vggkit import Network

SHARED = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
"""Our names of the networks that torchvision and timm have too, and theirs."""

OTHERS = [f"{name}{ending}" for name in SHARED.values() for ending in ("", "_bn")]
SOME = sample(OTHERS, ["vgg11_bn", "vgg16"])
"""All of them, for what takes half a gigabyte of weights each: but for two they are slow."""

Shapes = list[tuple[int, ...]]


def torchvisions(name: str) -> nn.Module:
    """Return torchvision's model on the meta device."""
    with torch.device("meta"):
        model: nn.Module = torchvision.models.get_model(name, weights=None)
        return model


def timms(name: str) -> nn.Module:
    """Return timm's model on the meta device."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, pretrained=False)
        return model


def small(name: str) -> Network:
    """Return the network with torchvision's adaptive pool before its FC layers, at 32×32."""
    text = "{extends: %s, input: 3x32x32, classifier: [{adaptive-avgpool: 7}, FC-4096, FC-4096, FC-1000, soft-max]}"
    return Network.of(vggkit.loads(text % name))


def shapes(tensors: Iterable[Tensor]) -> Shapes:
    """Return the tensors' shapes."""
    return [tuple(tensor.shape) for tensor in tensors]


def fill(model: nn.Module) -> dict[str, Tensor]:
    """Return random values for everything a model holds, of a size that keeps its activations finite."""
    generator = torch.Generator().manual_seed(0)
    values = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.int64:
            values[name] = torch.zeros(tuple(tensor.shape), dtype=torch.int64)
            continue
        values[name] = torch.rand(tuple(tensor.shape), generator=generator)
        if tensor.ndim > 1:
            values[name].sub_(0.5).mul_((12 / prod(tensor.shape[1:])) ** 0.5)
    return values


def take(model: nn.Module, values: Iterable[Tensor]) -> nn.Module:
    """Give a model on the meta device its values, in order, whatever they were called; they are not copied."""
    state = {
        name: value.view(tensor.shape) for (name, tensor), value in zip(model.state_dict().items(), values, strict=True)
    }
    model.load_state_dict(state, assign=True)
    return model.eval()


@pytest.mark.parametrize("name", OTHERS)
def test_parameters_in_order_are_torchvisions(name: str) -> None:
    """Everything that a model holds has torchvision's shapes in torchvision's order, layer by layer."""
    ours, theirs = vggkit.build(name, device="meta"), torchvisions(name)
    assert shapes(ours.parameters()) == shapes(theirs.parameters())
    assert shapes(ours.buffers()) == shapes(theirs.buffers())
    assert shapes(ours.state_dict().values()) == shapes(theirs.state_dict().values())


@pytest.mark.parametrize("name", OTHERS)
def test_parameters_in_order_are_timms(name: str) -> None:
    """The same for timm, whose FC layers are convolutions with as many values per unit."""
    ours, theirs = vggkit.build(name, device="meta"), timms(name)

    def per_unit(tensors: Iterable[Tensor]) -> Shapes:
        return [(*shape[:1], prod(shape[1:])) for shape in shapes(tensors)]

    assert per_unit(ours.state_dict().values()) == per_unit(theirs.state_dict().values())
    convolutions = [value for key, value in theirs.named_parameters() if key.startswith("features")]
    assert shapes(ours.parameters())[: len(convolutions)] == shapes(convolutions)


@pytest.mark.parametrize("name", SOME)
def test_logits_are_torchvisions_bit_for_bit(name: str) -> None:
    """With torchvision's values, the same images give the same scores to the last bit."""
    theirs = torchvisions(name)
    values = fill(theirs)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = take(theirs, values.values())(images)
        logits = take(vggkit.build(small(name), device="meta"), values.values())(images)
    assert logits.std() > 0
    assert torch.equal(logits, expected)


def test_logits_at_the_papers_size_are_torchvisions_bit_for_bit() -> None:
    """At 224×224 the network of the paper, without an adaptive pool, gives torchvision's scores."""
    theirs = torchvisions("vgg16_bn")
    values = fill(theirs)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = take(theirs, values.values())(image)
        logits = take(vggkit.build("vgg16_bn", device="meta"), values.values())(image)
    assert logits.std() > 0
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("name", SOME)
def test_logits_are_timms_bit_for_bit(name: str) -> None:
    """The same with timm's values; two in each row of the head, as timm adds them up in another order."""
    theirs = timms(name)
    values = fill(theirs)
    for key, value in values.items():
        if key.startswith(("pre_logits", "head")):
            rows = value.view(value.shape[0], -1)
            row = torch.arange(len(rows))
            kept = [(step * row) % rows.shape[1] for step in (7, 11)] if value.ndim > 1 else []
            signs = torch.where(row % 3 == 0, -1.0, 1.0)
            rows.zero_()
            for column in kept:
                rows[row, column] = signs
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = take(theirs, values.values())(images)
        logits = take(vggkit.build(small(name), device="meta"), values.values())(images)
    assert logits.std() > 0
    assert torch.equal(logits, expected)

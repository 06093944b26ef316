"""Freezing and checkpointing on the built model."""

from __future__ import annotations

import pytest
import torch

import vggkit
from vggkit import VGG, ArgumentError


def trained(model: VGG) -> set[str]:
    """Return the names of the parameters that are trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_blocks_and_layers_are_not_trained() -> None:
    """Blocks by name, layers in any vocabulary; everything else stays."""
    model = vggkit.build("D", device="meta", freeze=["block1", "conv2_1", "features.7", "fc1"])
    frozen = {name for name, _ in model.named_parameters()} - trained(model)
    layers = ("block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "fc1")
    assert frozen == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_freeze_is_a_method_too() -> None:
    """`model.freeze` does what `build(freeze=…)` does, and returns the model."""
    model = vggkit.build("A", device="meta")
    assert model.freeze("block1", "block2") is model
    assert trained(model) == trained(vggkit.build("A", device="meta", freeze=["block1", "block2"]))


def test_checkpointing_changes_no_gradient() -> None:
    """A checkpointed network has the scores and gradients of one that is not."""
    gradients = []
    for blocks in ((), ("block1", "block2", "block3", "block4", "block5")):
        model = vggkit.build(
            "A-LRN", input="3x32x32", num_classes=5, width=0.1, batch_norm=True, dropout=0, seed=3, checkpoint=blocks
        )
        torch.manual_seed(0)
        scores = model(torch.randn(4, 3, 32, 32))
        scores.square().sum().backward()
        gradients.append([scores, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients))


@pytest.mark.parametrize("argument", ["freeze", "checkpoint"])
def test_a_part_that_is_not_there_is_named(argument: str) -> None:
    """A block that the network has not: the argument, the network and what was found."""
    with pytest.raises(ArgumentError, match=f"{argument}: .*block7"):
        vggkit.build("A", device="meta", **{argument: ["block7"]})

"""Freezing and checkpointing on the built model."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import vggkit
from tests.keras_process import Keras
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


def normed(**options: Any) -> VGG:
    """Return a network with batch norms, in training mode."""
    return vggkit.build("A", input="3x32x32", num_classes=5, width=0.1, batch_norm=True, seed=3, **options)


def statistics(model: VGG) -> dict[str, torch.Tensor]:
    """Return a copy of every running mean, variance and counter."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def changed(model: VGG, before: dict[str, torch.Tensor]) -> set[str]:
    """Return the blocks whose statistics are not what they were."""
    return {name.split(".")[0] for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}


def test_a_frozen_batch_norm_keeps_its_statistics_in_training_too() -> None:
    """Frozen by build, by the method or by a layer's name, and after any call of train; unfrozen, it learns again."""
    images = torch.randn(4, 3, 32, 32)
    model = normed(freeze="block1").freeze(["block2"], "block4_norm1")
    before = statistics(model)
    for mode in (True, False, True):
        model.train(mode)(images)
    assert changed(model, before) == {"block3", "block4", "block5"}
    assert torch.equal(model.block4.norm1.running_mean, before["block4.norm1.running_mean"])
    model.unfreeze("block1", ["block2"])
    before = statistics(model)
    model(images)
    assert changed(model, before) == {f"block{number}" for number in range(1, 6)}
    assert trained(model) == {name for name, _ in model.named_parameters() if not name.startswith("block4.norm1")}
    assert model.unfreeze(model.frozen).frozen == ()


def test_a_frozen_dropout_still_drops() -> None:
    """Only what keeps statistics leaves training mode, as in Keras, where trainable is no word of dropout's."""
    model = vggkit.build("A", input="3x32x32", width=0.1, freeze=["dropout1", "fc1"])
    assert model.dropout1.training
    assert model.fc1.training
    assert model.frozen == ("fc1",)


KERAS_LAYER = """
import json, keras, numpy
layer = keras.layers.BatchNormalization(axis=1, epsilon=1e-5, momentum=0.9)
images = numpy.arange(24, dtype="float32").reshape(2, 3, 2, 2)
layer(images, training=True)
layer.trainable = False
outputs = layer(images, training=True)
outputs = outputs.detach().numpy()
print(json.dumps([[weight.value.detach().numpy().tolist() for weight in layer.weights], outputs.tolist()]))
"""


def test_frozen_means_what_kerass_trainable_means(keras: Keras, tmp_path: Path) -> None:
    """Keras's own layer, frozen after one step and called in training, has the statistics and the outputs of ours."""
    weights, outputs = json.loads(keras.run(KERAS_LAYER, tmp_path))
    model = vggkit.build(vggkit.loads("input: 3x2x2\nblocks: [[batchnorm]]"))
    norm, images = model.block1.norm, torch.arange(24.0).reshape(2, 3, 2, 2)
    for parameter, theirs in zip((norm.weight, norm.bias, norm.running_mean, norm.running_var), weights):
        parameter.data = torch.tensor(theirs)  # Keras takes the batch's own variance, torch the unbiased one
    before = statistics(model)
    torch.testing.assert_close(model.freeze("block1").train()(images), torch.tensor(outputs))
    assert not changed(model, before)


@pytest.mark.parametrize("derived", ["deepcopy", "pickle", "fold", "dense", "features", "sync"])
def test_what_is_made_of_a_model_is_frozen_as_it_is(derived: str) -> None:
    """A copy, a folded and a convolutional form, its features and synchronised norms keep the same layers frozen."""
    model = normed(freeze=["block1", "block2", "fc1"])
    made: torch.nn.Module = {
        "deepcopy": lambda: copy.deepcopy(model),
        "pickle": lambda: pickle.loads(pickle.dumps(model)),
        "fold": model.fold_batch_norm,
        "dense": lambda: vggkit.to_fully_convolutional(model),
        "features": lambda: vggkit.features(model, ["block3_pool"]),
        "sync": lambda: torch.nn.SyncBatchNorm.convert_sync_batchnorm(model),
    }[derived]()
    for mode in (False, True):
        norms = [
            module for module in made.train(mode).modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        ]
        assert [norm.training for norm in norms] == [mode and index > 1 for index in range(len(norms))]
    if isinstance(made, VGG):
        assert {name.split("_")[0] for name in made.frozen} == {"block1", "block2", "fc1"}
        assert {name.split(".")[0] for name, _ in made.named_parameters()} - {
            name.split(".")[0] for name in trained(made)
        } == {"block1", "block2", "fc1"}


@pytest.mark.parametrize("word", ["freeze", "unfreeze"])
def test_naming_nothing_or_no_name_is_an_error(word: str) -> None:
    """A call without names, or with something else than names, changes nothing and says so."""
    model = vggkit.build("A", device="meta")
    for names, said in (((), "found none"), (([],), "found none"), ((3,), "found 3"), ((["fc1", None],), "found None")):
        with pytest.raises(ArgumentError, match=f"{word}: expected .*{said}"):
            getattr(model, word)(*names)
    assert model.frozen == ()


@pytest.mark.parametrize("word", ["freeze", "checkpoint"])
def test_one_name_is_as_good_as_a_list_of_one(word: str) -> None:
    """Wherever blocks and layers are named: build, memory, max_batch and a step's options."""
    one, several = {word: "block1"}, {word: ["block1"]}
    options = {"input": "3x32x32", "width": 0.1}
    built, listed = (vggkit.build("A", device="meta", **options, **each) for each in (one, several))
    assert (trained(built), built.checkpoint) == (trained(listed), listed.checkpoint)
    assert vggkit.memory("A", **options, **one) == vggkit.memory("A", **options, **several)
    largest = [vggkit.max_batch("A", "30MB", context=0, **options, **each) for each in (one, several)]
    assert largest[0] == largest[1] > 0
    taps = vggkit.features("A", "relu2_1", **options, **one)
    assert vggkit.features("A", ["relu2_1"], **options, **several).layers == taps.layers == ("relu2_1",)

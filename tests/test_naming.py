"""The names that a layer has elsewhere, against those who gave them."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import vggkit
from vggkit import Network
from vggkit.base.errors import ArgumentError
from vggkit.network import Names, PlacedLayer, all_names

SHARED = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
OTHERS = [f"{name}{ending}" for name in SHARED.values() for ending in ("", "_bn")]


def test_a_block_is_told_with_its_layers() -> None:
    """Whoever names a block where a layer is asked for, or the classifier, sees which there are."""
    for part in ("block3", "classifier"):
        names = ", ".join(placed.name for placed in Network.of("D") if (placed.block or "classifier") == part)
        with pytest.raises(ArgumentError) as told:
            Network.of("D").layer(part)
        assert str(told.value) == f"D: {part} is no layer; it has the layers {names}"


def named(name: str) -> list[tuple[PlacedLayer, Names]]:
    """Return each layer of a network with its names."""
    network = Network.of(name)
    return list(zip(network, all_names(network), strict=True))


@pytest.mark.parametrize("name", OTHERS)
def test_torchvisions_names_are_those_of_its_modules(name: str) -> None:
    """Each module of torchvision's model stands under exactly one of our layers, of the same class and shapes."""
    with torch.device("meta"):
        theirs = dict(torchvision.models.get_model(name, weights=None).named_modules())
    ours = vggkit.build(name, device="meta")
    told = [(placed, names.torchvision) for placed, names in named(name) if names.torchvision]
    for placed, path in told:
        module, other = ours.get_submodule(placed.module), theirs[path]
        assert type(module) is type(other)
        assert [value.shape for value in module.state_dict().values()] == [
            value.shape for value in other.state_dict().values()
        ]
    leaves = [path for path, module in theirs.items() if not list(module.children())]
    assert [path for _, path in told] == [path for path in leaves if not isinstance(theirs[path], nn.AdaptiveAvgPool2d)]


def test_torchvisions_adaptive_pool_has_its_name() -> None:
    """The pool that torchvision puts between features and classifier is `avgpool`, and counts in neither."""
    network = Network.of(
        vggkit.loads("{extends: D, classifier: [{adaptive-avgpool: 7}, FC-4096, FC-4096, FC-1000, soft-max]}")
    )
    told = {names.name: names.torchvision for names in all_names(network)}
    assert (told["avgpool"], told["fc1"], told["predictions"]) == ("avgpool", "classifier.0", "classifier.6")


@pytest.mark.parametrize(("name", "other"), [("D", "VGG16"), ("E", "VGG19")])
def test_kerass_names_are_those_that_keras_prints(name: str, other: str, keras_says: dict[str, Any]) -> None:
    """The layers of keras.applications, in order, each at least once; an activation is part of the layer before it."""
    printed = re.findall(r"^│ (\w+) \((?!InputLayer)", keras_says[f"{other} 140"], re.MULTILINE)
    told = [names.keras for _, names in named(name) if names.keras]
    assert len(printed) == {"D": 22, "E": 25}[name]
    assert list(dict.fromkeys(told)) == printed
    for (_, before), (placed, names) in pairwise(named(name)):
        if placed.layer.role == "activation":
            assert names.keras == before.keras


AUTHORS = """
conv1_1 relu1_1 conv1_2 relu1_2 pool1
conv2_1 relu2_1 conv2_2 relu2_2 pool2
conv3_1 relu3_1 conv3_2 relu3_2 conv3_3 relu3_3 pool3
conv4_1 relu4_1 conv4_2 relu4_2 conv4_3 relu4_3 pool4
conv5_1 relu5_1 conv5_2 relu5_2 conv5_3 relu5_3 pool5
fc6 relu6 drop6 fc7 relu7 drop7 fc8 prob
"""
"""The layers of VGG_ILSVRC_16_layers_deploy.prototxt, which has no flatten."""


def test_the_authors_names_are_those_of_their_prototxt() -> None:
    """The sixteen-layer Caffe model of the authors, from conv1_1 to prob."""
    assert [names.authors for _, names in named("D") if names.authors] == AUTHORS.split()


@pytest.mark.parametrize("name", ["A", "A-LRN", "B", "C", "D", "E", "vgg16_bn"])
def test_no_name_stands_for_two_layers(name: str) -> None:
    """In each vocabulary a name is one layer's, and our paths are those of the built model."""
    everyone = [names for _, names in named(name)]
    for words in zip(*((names.name, names.module, names.authors, names.torchvision) for names in everyone)):
        said = [word for word in words if word is not None]
        assert len(said) == len(set(said))
    model = vggkit.build(name, device="meta", softmax=True)
    assert [names.module for names in everyone] == [
        path for path, module in model.named_modules() if path and not list(module.children())
    ]


def test_a_soft_max_that_is_run_is_a_module_like_others() -> None:
    """The authors' prob is the one behind the scores; any other takes a place in torchvision's sequence."""
    text = "{input: 3x8x8, blocks: [[conv3-4, soft-max]], classifier: [FC-5, soft-max, FC-3, soft-max]}"
    told = {names.name: (names.authors, names.torchvision) for names in all_names(Network.of(vggkit.loads(text)))}
    assert told["block1_softmax"] == (None, "features.2")
    assert told["softmax"] == (None, "classifier.3")
    assert (told["predictions"], told["softmax2"]) == (("fc3", "classifier.4"), ("prob", None))

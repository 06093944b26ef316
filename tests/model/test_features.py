"""Named activations, held against torchvision's extractor and against networks in which nothing is overwritten."""

from __future__ import annotations

import copy
import gc
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import vgg as torchvisions
from torchvision.models.feature_extraction import create_feature_extractor

import vggkit
from tests import drawn
from tests.model.test_module import images, out_of_place, outputs
from tests.model.test_peers import take
from tests.model.weights.makers import LAYOUT_FILES, in_layout, small
from vggkit import VGG, ArgumentError, CheckpointError, Network
from vggkit.base.errors import BuildError
from vggkit.notation.layers import InPlaceActivation, MaxPool2d, ReLU


class Trunk(nn.Module):
    """A torchvision trunk with an eighth of the channels."""

    def __init__(self, name: str, batch_norm: bool) -> None:
        super().__init__()
        cfg = [entry if entry == "M" else int(entry) // 8 for entry in torchvisions.cfgs[name]]
        self.features = torchvisions.make_layers(cfg, batch_norm=batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.features(x)
        return result


def both(name: str, batch_norm: bool = False) -> tuple[VGG, Trunk]:
    """Return our network and torchvision's trunk with the same weights."""
    theirs = Trunk(name, batch_norm)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) - 0.5, alpha=0.1)
    options = {"input": "3x32x32", "width": 1 / 8, "batch_norm": batch_norm}
    network = Network.of(vggkit.loads(f"{{extends: {name}, classifier: []}}"), **options)
    ours = vggkit.build(network, device="meta")
    take(ours, theirs.state_dict().values())
    return ours, theirs.eval()


def picture(size: int = 32) -> Tensor:
    """Return two random pictures."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) - 0.3


def untouched(trunk: Trunk, x: Tensor) -> list[Tensor]:
    """Return every activation of a trunk, none overwritten."""
    found = []
    for module in copy.deepcopy(trunk.features):
        if isinstance(module, nn.ReLU):
            module.inplace = False
        x = module(x)
        found.append(x)
    return found


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["A", "B", "D", "E"])
def test_activations_are_torchvisions_bit_for_bit(name: str, batch_norm: bool) -> None:
    """Behind every ReLU and pool, create_feature_extractor's tensors on the same weights."""
    ours, theirs = both(name, batch_norm)
    indices = [i for i, placed in enumerate(ours.network) if isinstance(placed.layer, (ReLU, MaxPool2d))]
    names = [f"features.{index}" for index in indices]
    with torch.no_grad():
        expected = create_feature_extractor(theirs, names)(picture(64))
        found = vggkit.features(ours, names)(picture(64))
    assert len(found) == len(indices) > 12
    for tap in names:
        assert expected[tap].std() > 0
        assert torch.equal(found[tap], expected[tap])


SYNONYMS = {
    "features.0": ["block1_conv1", "block1.conv1", "conv1_1"],
    "features.14": ["block3_conv3", "block3.conv3", "conv3_3"],
    "features.15": ["block3_relu3", "block3.relu3", "relu3_3"],
    "features.22": ["block4_relu3", "relu4_3"],
    "features.29": ["block5_relu3", "relu5_3"],
    "features.30": ["block5_pool", "block5.pool", "pool5"],
}
"""Torchvision's names of VGG16's layers, and ours and the authors'."""


def test_every_vocabulary_names_the_same_tensors() -> None:
    """A layer's activation comes under each name that was asked for, also under several at once, in that order."""
    ours, theirs = both("D")
    expected = untouched(theirs, picture())
    names = [name for theirs, others in reversed(SYNONYMS.items()) for name in (*others, theirs)]
    found = vggkit.features(ours, names)(picture())
    assert list(found) == names
    for torchvisions_name, others in SYNONYMS.items():
        for name in (torchvisions_name, *others):
            assert torch.equal(found[name], expected[int(torchvisions_name.removeprefix("features."))])
            (alone,) = vggkit.features(ours, name)(picture()).values()
            assert torch.equal(alone, found[name])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_tap_before_an_in_place_relu_is_the_value_before_it(batch_norm: bool) -> None:
    """ESRGAN's tap, also beside SRGAN's behind the ReLU, where torchvision's extractor gives the latter for both."""
    ours, theirs = both("E", batch_norm)
    before, after = ("block5_norm4", "relu5_4") if batch_norm else ("conv5_4", "relu5_4")
    index = 51 if batch_norm else 35
    expected = untouched(theirs, picture())
    extractor = create_feature_extractor(theirs, [f"features.{index - 1}", f"features.{index}"])
    with torch.no_grad():
        overwritten, behind = extractor(picture()).values()
        alone = vggkit.features(ours, [before])(picture())
        together = vggkit.features(ours, [after, before])(picture())
    assert expected[index - 1].min() < 0 < expected[index].max()
    assert torch.equal(overwritten, behind)
    assert torch.equal(behind, expected[index])
    assert torch.equal(alone[before], expected[index - 1])
    assert torch.equal(together[before], expected[index - 1])
    assert torch.equal(together[after], expected[index])


IN_A_ROW = """
name: in a row
input: 3x8x8
blocks:
  - [{conv: 4, activation: silu}, silu, {hardtanh: {min_val: -0.2}}, {dropout: 0.5}, relu, maxpool]
  - [{conv: 6, activation: silu}, {dropout: 0.5}, silu, maxpool]
classifier: [flatten, silu, {dropout: 0.5}, hardtanh, {FC: 5, activation: silu}, silu, FC-4, soft-max]
"""


def judged(network: Network, taps: list[str]) -> None:
    """Hold taps and the gradients of their input against the same network in which nothing works in place."""
    model = vggkit.build(network, seed=0).double().eval()
    plain = out_of_place(model)
    ours = images(network).double().requires_grad_()
    theirs = images(network).double().requires_grad_()
    found = vggkit.features(model, taps)(ours)
    with outputs(plain, network) as seen:
        plain(theirs)
    expected = {name: seen[name] for name in taps}
    assert list(found) == list(expected)
    for name, activation in expected.items():
        assert torch.equal(found[name].nan_to_num(), activation.nan_to_num()), name
    gradients: list[Tensor] = []
    for x, activations in ((ours, found), (theirs, expected)):
        total = sum((tap * torch.arange(1.0, tap.numel() + 1).view_as(tap)).sum() for tap in activations.values())
        assert isinstance(total, Tensor)
        gradients += torch.autograd.grad(total, x)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_activations_in_a_row_overwrite_no_tap() -> None:
    """Two and three in-place activations in a row, also behind dropout and flatten, which hand on their input."""
    network = Network.of(vggkit.loads(IN_A_ROW))
    in_place = [p for p in network if isinstance(p.layer, InPlaceActivation) and p.layer.inplace]
    assert len(in_place) >= 8
    names = [placed.name for placed in network.modules()]
    judged(network, names)
    for name in names:
        judged(network, [name, names[-1]])


@settings(max_examples=150, deadline=None)
@given(drawn.networks(), st.data())
def test_taps_of_any_network_are_what_its_layers_put_out(network: Network, data: Any) -> None:
    """Any of the layers of any network, and the gradients through them, as if nothing worked in place."""
    names = [placed.name for placed in network.modules()]
    assume(names)  # a soft-max alone is no module
    judged(network, data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))


def test_probabilities_are_tapped_from_a_model_that_gives_scores() -> None:
    """The soft-max is a layer that can be named, whether or not the model was built to end in it."""
    scores, probabilities = small("A"), small("A", softmax=True)
    x = picture(64)
    for model in (scores, probabilities):
        found = vggkit.features(model, ["fc8", "prob"])(x)
        assert torch.equal(found["fc8"], scores(x))
        assert torch.equal(found["prob"], probabilities(x))


def test_it_stops_at_the_last_layer_asked_for() -> None:
    """Of the model's modules, those behind the last tap are not run."""
    model = small("A")
    with outputs(model, model.network) as seen:
        vggkit.features(model, ["relu3_1", "pool1"])(picture(64))
    assert list(seen) == [placed.name for placed in model.network][:8]
    assert list(seen)[-1] == "block3_relu1"


def test_it_holds_nothing_behind_the_last_layer() -> None:
    """VGG16 up to relu3_3 has the parameters of its first seven convolutions, in storages no larger than they are."""

    def models() -> int:
        gc.collect()
        return sum(type(each) is VGG for each in gc.get_objects())

    before = models()
    taps = vggkit.features("D", ["relu3_3"], input="3x32x32")
    assert models() == before
    parameters = list(taps.parameters())
    convolutions = [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256)]
    expected = [shape for outputs, inputs in convolutions for shape in ((outputs, inputs, 3, 3), (outputs,))]
    assert [tuple(parameter.shape) for parameter in parameters] == expected
    assert [p.untyped_storage().nbytes() for p in parameters] == [4 * p.numel() for p in parameters]


def test_a_classifier_that_nobody_asks_for_is_never_given_memory() -> None:
    """A network whose classes fill no memory has features nevertheless."""
    options: dict[str, Any] = {"input": "3x32x32", "width": 0.05, "num_classes": 10**10}
    with pytest.raises(BuildError):
        vggkit.build("A", **options)
    assert list(vggkit.features("A", ["pool5"], **options)(picture())) == ["pool5"]
    with pytest.raises(BuildError):
        vggkit.features("A", ["fc6"], **options)


@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_weights_are_those_of_a_file_whose_classifier_may_not_fit(layout: str, tmp_path: Path) -> None:
    """Features of a checkpoint for other pictures and classes, from each layout."""
    source = small("A")
    path = in_layout(source, layout, tmp_path)
    names = ["relu2_1", "pool5"]
    expected = vggkit.features(source, names)(picture(96))
    for changes in ({}, {"num_classes": 7}, {"head": "new"}, {"head": "gap"}, {"include_top": False}):
        found = vggkit.features("A", names, weights=path, **{"input": "3x96x96", "width": 0.05, **changes})(picture(96))
        assert all(torch.equal(found[name], expected[name]) for name in names)


def test_a_tapped_classifier_needs_weights_that_fit(tmp_path: Path) -> None:
    """Taps of FC layers load them, and say what does not fit; head='new' leaves them new."""
    source = small("A")
    path = in_layout(source, "vggkit", tmp_path)
    options: dict[str, Any] = {"input": "3x64x64", "width": 0.05, "weights": path}
    found = vggkit.features("A", ["relu7", "conv1_1"], num_classes=7, **options)(picture(64))
    expected = vggkit.features(source, ["relu7", "conv1_1"])(picture(64))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    fresh = vggkit.features("A", ["relu7", "conv1_1"], head="new", num_classes=3, **options)(picture(64))
    assert torch.equal(fresh["conv1_1"], expected["conv1_1"])
    assert not torch.equal(fresh["relu7"], expected["relu7"])
    with pytest.raises(CheckpointError, match="predictions: checkpoint has 7 classes, model has 3"):
        vggkit.features("A", ["relu7"], num_classes=3, **options)
    with pytest.raises(CheckpointError, match="block1_conv1"):
        vggkit.features("A", ["relu1_1"], **{**options, "width": 0.1})


def test_a_models_layers_are_shared_and_stay_in_its_mode() -> None:
    """The parameters are the model's own, frozen as they are there; nothing changes its mode or its input."""
    model = small("A", batch_norm=True).freeze("block1")
    for training in (True, False):
        model.train(training)
        taps = vggkit.features(model, ["relu2_1", "conv1_1"])
        for module in (*taps.modules(), *model.modules()):
            assert module.training == (training and module is not model.block1.norm1)
        ours, theirs = list(taps.parameters()), list(model.parameters())[:8]
        assert all(a is b for a, b in zip(ours, theirs, strict=True))
        assert [parameter.requires_grad for parameter in ours] == [False] * 4 + [True] * 4
    x = picture(64)
    taps(x)
    assert torch.equal(x, picture(64))


def test_a_new_model_is_in_evaluation_mode() -> None:
    """Pretrained features are for looking at; parameters are frozen if that is asked for."""
    taps = vggkit.features("vgg11_bn", ["relu2_1"], input="3x32x32", width=0.1, freeze=["block2"])
    assert not any(module.training for module in taps.modules())
    assert [parameter.requires_grad for parameter in taps.parameters()] == [True] * 4 + [False] * 4


def test_features_are_pickled_and_compiled_whole() -> None:
    """What a worker of a data loader or `torch.compile` makes of them gives the same."""
    taps = vggkit.features("A", ["conv1_1", "pool2", "relu1_1"], input="3x32x32", width=0.1)
    expected = taps(picture())
    whole = torch.compile(taps, fullgraph=True, backend="eager")
    for other in (pickle.loads(pickle.dumps(taps)), whole):
        found = other(picture())
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


CHECKPOINTED = ["conv1_2", "relu1_2", "pool1", "relu2_1", "conv3_1", "relu3_1"]
"""Taps inside checkpointed blocks, at their ends, and in a block that is not run to its end."""


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_checkpointed_blocks_are_run_again_with_equal_values_and_gradients(built: bool, batch_norm: bool) -> None:
    """Each of their layers runs twice in a step, every other once, whether it was asked of features or of the model."""
    network = Network.of("B", input="3x32x32", width=0.1, batch_norm=batch_norm)
    blocks = [placed.block for placed in network]

    def step(checkpoint: Sequence[str]) -> list[Tensor]:
        options: dict[str, Any] = {"checkpoint": checkpoint, "seed": 0}
        if built:
            taps = vggkit.features(vggkit.build(network, **options).eval(), CHECKPOINTED)
        else:
            taps = vggkit.features(network, CHECKPOINTED, **options)
        runs: Counter[nn.Module] = Counter()
        for layer in taps.body:
            layer.register_forward_pre_hook(lambda layer, _: runs.update([layer]))
        x = picture().requires_grad_()
        found = taps(x)
        assert list(found) == CHECKPOINTED
        torch.stack([(tap * torch.arange(tap.numel()).view_as(tap)).sum() for tap in found.values()]).sum().backward()
        assert [runs[layer] for layer in taps.body] == [1 + (block in checkpoint) for block in blocks][: len(taps.body)]
        return [*found.values(), *(tensor.grad for tensor in (x, *taps.parameters()) if tensor.grad is not None)]

    plain, again = step([]), step(["block1", "block3"])
    assert len(plain) > len(CHECKPOINTED) + 10
    assert all(torch.equal(*pair) for pair in zip(plain, again, strict=True))


def test_what_is_frozen_may_lie_behind_the_last_layer() -> None:
    """The names are those of the whole network; what it does not have is told."""
    options: dict[str, Any] = {"input": "3x32x32", "width": 0.1}
    taps = vggkit.features("A", ["relu2_1"], freeze=["fc1", "conv1_1", "block5"], **options)
    assert [parameter.requires_grad for parameter in taps.parameters()] == [False, False, True, True]
    with pytest.raises(ArgumentError, match="freeze: A has no block or layer 'fc9'"):
        vggkit.features("A", ["relu2_1"], freeze=["fc9"], **options)


@pytest.mark.parametrize("layers", [["relu1_1"], ["relu1_1", "prob"]])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"softmax": True}, "softmax: expected none with features; name the soft-max among the layers, as prob"),
        ({"include_top": False}, "head='new' and include_top=False need weights="),
        ({"checkpoint": ["fc1"]}, "checkpoint: expected block1 … block5 of A, found 'fc1'"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 9e+18, found -1"),
    ],
)
def test_a_keyword_that_can_have_no_effect_is_refused(layers: list[str], options: dict[str, Any], said: str) -> None:
    """In the same line whether or not the classifier is among what is asked for."""
    with pytest.raises(ArgumentError) as caught:
        vggkit.features("A", layers, **{"input": "3x32x32", "width": 0.1, **options})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("layers", "options", "said"),
    [
        (["relu3_5"], {}, "A has no layer 'relu3_5'. Did you mean"),
        ([], {}, "layers: expected names of layers, such as relu4_3, found none"),
        ("", {}, "A has no layer ''."),
        ([3], {}, "layers: expected a name or several, found 3"),
        (None, {}, "layers: expected a name or several, found None"),
        (["relu1_1"], {"weights": "x"}, "weights: expected none with a model that is built already"),
        (["relu1_1"], {"width": 0.5}, "width: expected none with a model that is built already"),
    ],
)
def test_wrong_arguments_end_in_one_line(layers: Any, options: dict[str, Any], said: str) -> None:
    """What is asked wrongly of a model, or of a name before anything is built."""
    for model in ("A", small("A")):
        if options and isinstance(model, str):
            continue
        with pytest.raises(ArgumentError) as caught:
            vggkit.features(model, layers, **options)
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)


def test_a_new_head_needs_weights() -> None:
    """As for `build`: head='new' leaves out part of a checkpoint, so there must be one."""
    with pytest.raises(ArgumentError, match="head='new' and include_top=False need weights="):
        vggkit.features("A", ["relu1_1"], input="3x32x32", width=0.1, head="new")


def test_frozen_features_train_nothing_and_keep_evaluation_mode() -> None:
    """No parameter is trained, no statistic or dropout changes a thing in training; a graph is the input's alone."""
    names = ["relu3_1", "relu6", "drop6"]
    model = small("A", batch_norm=True).train()
    taps = vggkit.features(model, names, frozen=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    expected = vggkit.features(copy.deepcopy(model).eval(), names)(picture(64))
    for module in (model, taps):
        module.train()
        found = taps(picture(64))
        assert all(torch.equal(found[name], expected[name]) for name in names)
        assert not any(tensor.requires_grad for tensor in found.values())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert not any(parameter.requires_grad for parameter in taps.parameters())
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        f"{layer}.{role}" for layer in ("fc2", "predictions") for role in ("weight", "bias")
    }
    x = picture(64).requires_grad_()
    taps(x)["relu3_1"].sum().backward()
    assert x.grad is not None
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_a_new_networks_features_are_frozen_too() -> None:
    """By its name, with batch norms and other keywords of build; a graph is made of nothing."""
    taps = vggkit.features("vgg11_bn", "relu2_1", input="3x32x32", width=0.1, freeze="block1", frozen=True).train()
    assert not any(module.training for module in taps.modules())
    assert not any(parameter.requires_grad for parameter in taps.parameters())
    assert not taps(picture())["relu2_1"].requires_grad


def test_features_print_their_taps_and_what_they_expect() -> None:
    """The names that were asked for, whether they are frozen, and that the input is normalised."""
    options: dict[str, Any] = {"input": "3x32x48", "width": 0.1}
    lines = repr(vggkit.features("A", ["relu1_1", "pool2"], **options)).splitlines()
    assert lines[1:3] == ["  taps: relu1_1, pool2", "  input: 3×32×48, normalised as it was for the weights"]
    assert "taps: relu1_1 (frozen)" in repr(vggkit.features("A", "relu1_1", frozen=True, **options))

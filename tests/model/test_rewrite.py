"""Models made from models: batch norm folded away, FC layers as convolutions; held against torch and the originals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import vggkit
from tests import drawn
from tests.model.test_module import images
from vggkit import VGG, ArgumentError, Network
from vggkit.notation.layers import Linear


def scattered(network: Network, **options: Any) -> VGG:
    """Return a model in evaluation mode whose every value is random, its running statistics included."""
    model = vggkit.build(network, seed=0, **options).eval()
    generator = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator) - 0.5, alpha=0.1)
    return model


def of(text: str) -> Network:
    """Return the network of a file's blocks and classifier, on 3×8×8."""
    return Network.of(vggkit.loads(f"name: small\ninput: 3x8x8\n{text}"))


def again(model: VGG, path: Path) -> VGG:
    """Return a model saved and loaded, its configuration written and read on the way."""
    assert vggkit.loads(str(model.config)) == model.config
    vggkit.save_weights(model, path)
    return vggkit.load_model(path).eval()


# Folding

FOLDED: dict[str, tuple[Network, list[str]]] = {
    "vgg11_bn": (Network.of("A", batch_norm=True, input="3x32x32", width=0.1), []),
    "vgg13_bn": (Network.of("B", batch_norm=True, input="3x32x32", width=0.1, head="gap"), []),
    "eps": (of("defaults: {norm: {batchnorm: {eps: 0.1}}}\nblocks: [[conv3-4, conv3-5, maxpool]]"), []),
    "not affine": (of("blocks: [[{conv: 4, norm: {batchnorm: {affine: false}}}, conv3-5]]"), []),
    "no bias": (of("defaults: {norm: batch, conv: {bias: false}}\nblocks: [[conv3-4, {conv: 8, groups: 2}]]"), []),
    "padding": (
        of("defaults: {norm: batch}\nblocks: [[{conv: 4, padding: 2, stride: 2, padding_mode: reflect}]]"),
        [],
    ),
    "own layer": (of("blocks: [[{conv: 4, activation: none}, batchnorm, relu, maxpool]]\nclassifier: [FC-3]"), []),
    "own layer with more behind it": (
        of("blocks: [[{conv: 4, activation: none}, {batchnorm: {}, norm: batch, activation: elu, dropout: 0.1}]]"),
        ["block1_norm1"],
    ),
    "named": (
        of("blocks: [[{conv: 4, name: c, activation: none}, {batchnorm: {}, name: n}, relu, batchnorm]]"),
        ["block1_norm1"],
    ),
    "classifier": (
        of(
            "defaults: {dropout: 0}\nblocks: [[conv3-4]]\n"
            "classifier: [{FC: 5, bias: false, activation: none}, batchnorm, relu, FC-3, batchnorm]"
        ),
        [],
    ),
    "classifier, not affine": (
        of("blocks: [[conv3-4]]\nclassifier: [FC-5, {FC: 3, activation: none}, {batchnorm: {affine: false}}]"),
        [],
    ),
    "twice": (of("blocks: [[{conv: 4, norm: batch, activation: none}, batchnorm, relu]]"), ["block1_norm1"]),
    "not behind a convolution": (
        of("blocks: [[batchnorm, conv3-4, batchnorm, maxpool, batchnorm], [batchnorm, conv3-4]]"),
        ["block1_norm", "block1_norm1", "block1_norm1_2", "block2_norm"],
    ),
    "behind dropout": (of("blocks: [[conv3-4]]\nclassifier: [{FC: 5, activation: none}, batchnorm, FC-3]"), ["norm1"]),
    "of the batch": (
        of("blocks: [[{conv: 4, norm: {batchnorm: {track_running_stats: false}}}, conv3-4]]"),
        ["block1_norm1"],
    ),
    "of groups": (of("blocks: [[{conv: 4, norm: {groupnorm: 2}}]]"), ["block1_norm1"]),
}
"""Networks, and the normalisations that are left when they are folded."""

folding = pytest.mark.parametrize(("network", "left"), FOLDED.values(), ids=FOLDED)


def norms(model: VGG) -> list[nn.Module]:
    """Return a model's normalisations."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)
    return [module for module in model.modules() if isinstance(module, kinds)]


@folding
def test_a_folded_model_is_equal_in_inference(network: Network, left: list[str]) -> None:
    """The same scores, to rounding in double precision and to 1e-5 in single, with no batch norm that can go."""
    double, single = scattered(network, dtype="float64"), scattered(network)
    x = images(network).double()
    with torch.no_grad():
        expected = double(x)
        torch.testing.assert_close(double.fold_batch_norm()(x), expected, rtol=1e-12, atol=1e-12 * expected.abs().max())
        found = single.fold_batch_norm()(x.float())
        expected = single(x.float())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
    folded = single.fold_batch_norm()
    assert [placed.name for placed in folded.network if placed.layer.role == "norm"] == left
    assert len(norms(folded)) == len(left)
    assert not any(module.training for module in folded.modules())


@settings(max_examples=150, deadline=None)
@given(drawn.networks())
def test_any_network_folds(network: Network) -> None:
    """Whatever stands before and behind a batch norm, the outputs are the same in inference."""
    model = scattered(network, dtype="float64")
    x = images(network).double()
    with torch.no_grad():
        expected, folded = model(x), model.fold_batch_norm()
        # tiny variances of batch and group norms magnify rounding
        torch.testing.assert_close(folded(x), expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert len(norms(folded)) <= len(norms(model))


@pytest.mark.parametrize("case", ["vgg11_bn", "eps", "not affine", "no bias", "padding", "own layer", "classifier"])
def test_folded_weights_are_those_of_torchs_fusion(case: str) -> None:
    """Each weight layer holds what torch.nn.utils.fusion makes of it and the batch norm behind it."""
    network, _ = FOLDED[case]
    model = scattered(network, dtype="float64")
    folded = model.fold_batch_norm()
    fused: list[nn.Conv2d | nn.Linear] = []
    layers = [model.get_submodule(placed.module) for placed in network.modules()]
    for layer, behind in zip(layers, [*layers[1:], None]):
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            continue
        if isinstance(behind, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
            fused.append(fuse_conv_bn_eval(layer, behind))
        elif isinstance(behind, nn.BatchNorm1d) and isinstance(layer, nn.Linear):
            fused.append(fuse_linear_bn_eval(layer, behind))
        else:
            fused.append(layer)
    ours = [module for module in folded.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(ours) == len(fused)
    for own, other in zip(ours, fused):
        torch.testing.assert_close(own.weight, other.weight, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(own.bias, other.bias, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("network", [network for network, _ in FOLDED.values()], ids=FOLDED)
def test_a_folded_models_configuration_is_its_own(network: Network, tmp_path: Path) -> None:
    """It is written, read and summarized as what it is, and saved and loaded with its weights."""
    model = scattered(network)
    folded = model.fold_batch_norm()
    loaded = again(folded, tmp_path / "folded")
    with torch.no_grad():
        assert torch.equal(loaded(images(network)), folded(images(network)))
    summary = vggkit.summarize(folded.network)
    assert summary.totals.parameters == sum(parameter.numel() for parameter in folded.parameters())
    assert [name for name, _ in folded.named_parameters()] == [name for name, _ in loaded.named_parameters()]


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"])
def test_the_published_networks_fold_into_their_plain_forms(name: str) -> None:
    """Every batch norm goes, and what is left has the parameters of the network without."""
    folded = vggkit.build(name, device="meta").fold_batch_norm()
    plain = vggkit.build(name.removesuffix("_bn"), device="meta")
    assert [(n, p.shape) for n, p in folded.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]
    assert not list(folded.buffers())
    assert "norm" not in str(folded.config)


def test_folding_leaves_the_model_as_it_was() -> None:
    """Its values, mode and statistics stay, also when the folded one is trained on."""
    network, _ = FOLDED["own layer with more behind it"]
    model = scattered(network).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = model.fold_batch_norm()
    assert not any(module.training for module in folded.modules())
    folded.train()(images(network))
    folded.requires_grad_(False)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_folded_model_keeps_its_end_and_dtype() -> None:
    """Probabilities stay probabilities, half stays half."""
    network = Network.of("A", batch_norm=True, input="3x32x32", width=0.1)
    model = scattered(network, softmax=True, dtype="bfloat16")
    folded = model.fold_batch_norm()
    assert folded.ends_in_softmax
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.bfloat16}


# Fully convolutional

DENSE = {
    "A": Network.of("A", input="3x64x64", width=0.1, num_classes=7),
    "vgg11_bn": Network.of("A", batch_norm=True, input="3x32x64", width=0.1, num_classes=7),
    "one FC layer": of("blocks: [[conv3-4, maxpool]]\nclassifier: [FC-3, soft-max]"),
    "Keras's order": of("blocks: [[conv3-4, maxpool]]\nclassifier: [{flatten: hwc}, FC-6, FC-5, FC-3]"),
    "batch norm": of(
        "blocks: [[conv3-4, maxpool]]\n"
        "classifier: [{FC: 5, activation: none, bias: false}, {batchnorm: {}, name: n}, {relu: {}, name: r}, FC-3]"
    ),
    "adaptive pool": of("blocks: [[conv3-4, maxpool]]\nclassifier: [{adaptive-avgpool: 4}, FC-6, FC-3]"),
    "activation behind flatten": of(
        "blocks: [[conv3-4, maxpool]]\nclassifier: [{flatten: chw, activation: tanh, dropout: 0.1}, FC-6, FC-3]"
    ),
    "activation behind": of("blocks: [[conv3-4, maxpool]]\nclassifier: [FC-6, {FC: 3, activation: sigmoid}]"),
    "activation at the end": of("blocks: [[conv3-4, maxpool]]\nclassifier: [FC-6, FC-3, tanh]"),
    "soft-max amid": of("blocks: [[conv3-4, maxpool]]\nclassifier: [FC-6, soft-max, FC-3, soft-max]"),
    "pool in the head": of(
        "blocks: [[conv3-4]]\nclassifier: [maxpool, {LRN: 3}, {flatten: chw}, relu, {FC: 6, name: q}, FC-3]"
    ),
    "no padding": of("blocks: [[{conv: 4, kernel: 3, padding: 0}, maxpool]]\nclassifier: [FC-6, FC-5, FC-3, soft-max]"),
}
"""Networks whose FC layers can be convolutions."""

dense = pytest.mark.parametrize("network", DENSE.values(), ids=DENSE)


def classified(model: VGG, maps: Tensor) -> Tensor:
    """Return a classifier's scores of maps of its own size."""
    for placed in model.network.modules():
        if placed.block is None:
            maps = model.get_submodule(placed.module)(maps)
    return maps


def windows(maps: Tensor, height: int, width: int, step: int = 1) -> list[Tensor]:
    """Return all windows of a size, batch by batch."""
    rows = range(0, maps.shape[2] - height + 1, step)
    columns = range(0, maps.shape[3] - width + 1, step)
    return [maps[:, :, row : row + height, column : column + width] for row in rows for column in columns]


@dense
def test_at_its_own_size_the_dense_form_is_the_fc_form(network: Network) -> None:
    """The same scores, to rounding."""
    x = images(network).double()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        model = scattered(network, dtype=dtype)
        with torch.no_grad():
            expected, found = model(x.to(dtype)), vggkit.to_fully_convolutional(model)(x.to(dtype))
        assert expected.std() > 0
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@dense
def test_on_a_larger_picture_it_is_the_mean_over_all_positions(network: Network) -> None:
    """The FC layers on every window of the maps, one by one, and their scores averaged."""
    model = scattered(network, dtype="float64")
    _, height, width = network.input_shape
    strides = next(placed for placed in reversed(network.layers) if placed.block).stride
    x = torch.rand(2, 3, height + 3 * strides[0], width + 2 * strides[1], dtype=torch.float64)
    head = next(placed for placed in network if placed.block is None)
    with torch.no_grad():
        maps = model.forward_features(x)
        size, step = head.input_shape[1:], 2 if head.layer.stem == "pool" else 1
        positions = [classified(model, window) for window in windows(maps, size[0], size[1], step)]
        found = vggkit.to_fully_convolutional(model)(x)
    assert len(positions) >= 4
    torch.testing.assert_close(found, torch.stack(positions).mean(0), rtol=1e-12, atol=1e-12)


def test_without_padding_it_is_the_mean_over_all_crops() -> None:
    """Where no border is padded, cropping the picture itself at the network's stride gives the same."""
    model = scattered(DENSE["no padding"], dtype="float64")
    x = torch.rand(1, 3, 12, 14, dtype=torch.float64)
    with torch.no_grad():
        crops = [model(crop) for crop in windows(x, 8, 8, 2)]
        found = vggkit.to_fully_convolutional(model)(x)
    assert len(crops) == 12
    torch.testing.assert_close(found, torch.stack(crops).mean(0), rtol=1e-12, atol=1e-14)


def test_scores_are_averaged_before_they_become_probabilities() -> None:
    """Of a model that ends in soft-max too."""
    for name in ("A", "one FC layer"):
        scores, probabilities = scattered(DENSE[name]), scattered(DENSE[name], softmax=True)
        x = torch.rand(2, 3, 160, 160)
        with torch.no_grad():
            expected = vggkit.to_fully_convolutional(scores)(x).softmax(1)
            found = vggkit.to_fully_convolutional(probabilities)(x)
        assert torch.equal(found, expected)
        assert expected.max() < 1


def test_scores_are_averaged_before_they_become_log_probabilities() -> None:
    """A log-soft-max at the end stands behind the average, as a soft-max does."""
    text = "blocks: [[conv3-4, maxpool]]\nclassifier: [FC-6, FC-3%s]"
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        scores = vggkit.to_fully_convolutional(scattered(of(text % "")))(x)
        found = vggkit.to_fully_convolutional(scattered(of(text % ", log-softmax")))(x)
    assert torch.equal(found, scores.log_softmax(1))


@dense
def test_a_dense_models_configuration_is_its_own(network: Network, tmp_path: Path) -> None:
    """Each layer has the name that it had; it is written, summarized, saved and loaded as any other."""
    model = scattered(network)
    new = vggkit.to_fully_convolutional(model)
    assert [name for name, _ in new.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert vggkit.summarize(new.network).totals.parameters == vggkit.summarize(network).totals.parameters
    with torch.no_grad():
        torch.testing.assert_close(again(new, tmp_path / "dense")(images(network)), new(images(network)))


def test_weights_are_shared_and_the_rest_stays_as_it_was() -> None:
    """The dense form takes no memory for weights; training one trains the other; what is frozen stays frozen."""
    for name in ("A", "Keras's order", "vgg11_bn"):
        model = vggkit.build(DENSE[name], seed=0).freeze("block1", "fc1")
        config = model.config
        new = vggkit.to_fully_convolutional(model)
        assert new.training
        ours, theirs = list(new.parameters()), list(model.parameters())
        assert [p.data_ptr() for p in ours] == [p.data_ptr() for p in theirs]
        assert [p.requires_grad for p in ours] == [p.requires_grad for p in theirs]
        assert not all(p.requires_grad for p in ours)
        statistics = [buffer.clone() for buffer in model.buffers()]
        new(torch.rand(2, 3, 64, 64))
        assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))
        assert model.config == config
        assert not vggkit.to_fully_convolutional(model.eval()).training


@pytest.mark.parametrize(
    "network",
    [
        Network.of("A", input="3x32x32", width=0.1, head="gap"),
        of("blocks: [[conv3-4]]\nclassifier: [{adaptive-avgpool: 1}, FC-6, FC-3]"),
        of("blocks: [[conv3-4]]\nclassifier: [conv1-3, global-avgpool, flatten]"),
        vggkit.to_fully_convolutional(vggkit.build(DENSE["A"], device="meta")).network,
    ],
)
def test_a_model_that_averages_its_maps_is_returned_itself(network: Network) -> None:
    """It takes pictures of any size as it is."""
    model = vggkit.build(network, seed=0)
    assert vggkit.to_fully_convolutional(model) is model
    model(torch.rand(2, 3, 96, 64))


@pytest.mark.parametrize(
    ("classifier", "said"),
    [
        ("[]", "small has no FC layers behind its maps that could become convolutions"),
        ("[flatten]", "small has no FC layers behind its maps that could become convolutions"),
        ("[{conv: 4, kernel: 8, padding: 0}, flatten]", "predictions (conv)"),
        ("[conv1-4, FC-3]", "conv1 (conv)"),
        ("[{adaptive-avgpool: 2}, FC-3]", "avgpool (adaptive-avgpool)"),
        ("[flatten, batchnorm, FC-3]", "norm (batchnorm)"),
        ("[flatten, soft-max, FC-3]", "softmax (soft-max)"),
        ("[FC-4, {groupnorm: 2}, FC-3]", "norm1 (groupnorm)"),
    ],
)
def test_other_classifiers_are_refused_in_one_line(classifier: str, said: str) -> None:
    """What can't be evaluated at every position of larger maps is named."""
    model = vggkit.build(of(f"blocks: [[conv3-4]]\nclassifier: {classifier}"))
    with pytest.raises(ArgumentError) as caught:
        vggkit.to_fully_convolutional(model)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flat_blocks_and_other_models_are_refused_in_one_line() -> None:
    """A network without maps before its FC layers, and what is no model of vggkit."""
    flat = vggkit.build(of("blocks: [[conv3-4, flatten]]\nclassifier: [FC-3]"))
    with pytest.raises(ArgumentError, match="small has no FC layers behind its maps that could become convolutions"):
        vggkit.to_fully_convolutional(flat)
    with pytest.raises(ArgumentError, match="model: expected a model of vggkit"):
        vggkit.to_fully_convolutional(nn.Linear(1, 1))  # type: ignore[arg-type] # that is the mistake


def test_a_picture_below_the_networks_own_size_is_refused_in_one_line() -> None:
    """As small as it was made for, and not a pixel less on either side."""
    model = vggkit.to_fully_convolutional(vggkit.build("A", input="3x64x96", width=0.05, num_classes=3)).eval()
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 3)
    for size, maps in (((63, 96), "1×3"), ((64, 95), "2×2"), ((32, 32), "1×1")):
        with pytest.raises(ValueError, match=f"A-dense: an input of 3×{size[0]}×{size[1]} ends in {maps}") as caught:
            model(torch.zeros(1, 3, *size))
        assert str(caught.value).endswith("need 2×3 maps at least, as of 3×64×96")


def test_a_dense_model_runs_the_same_blocks_again() -> None:
    """What is checkpointed stays so."""
    model = vggkit.build("A", input="3x32x32", width=0.05, checkpoint=["block2"])
    assert vggkit.to_fully_convolutional(model).checkpoint == {"block2"} == model.fold_batch_norm().checkpoint


@settings(max_examples=150, deadline=None)
@given(drawn.networks())
def test_any_network_is_equal_at_its_own_size_or_refused(network: Network) -> None:
    """Whatever stands between the FC layers."""
    model = scattered(network, dtype="float64")
    x = images(network).double()
    try:
        new = vggkit.to_fully_convolutional(model)
    except ArgumentError:
        return
    assert new is model or sum(isinstance(placed.layer, Linear) for placed in new.network) <= 1
    with torch.no_grad():
        torch.testing.assert_close(new(x), model(x), rtol=1e-6, atol=1e-6, equal_nan=True)

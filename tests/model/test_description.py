"""A model that was changed is what it is now: its network, its YAML and its checkpoint are of its live modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_pruning
from hypothesis import given, settings
from torch import Tensor, nn

import vggkit
from tests import drawn
from vggkit import VGG, ArgumentError, Network
from vggkit.modules.layers import layer_of
from vggkit.notation.spelling import spell


def tiny(name: str = "A", **changes: Any) -> VGG:
    """Return a small model in evaluation mode."""
    options = {"input": "3x32x32", "num_classes": 5, "width": 0.05, "seed": 0, **changes}
    return vggkit.build(name, **options).eval()


def images(channels: int = 3, side: int = 32) -> Tensor:
    """Return random images."""
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def assert_saved_as_it_is(model: VGG, folder: Path, x: Tensor) -> None:
    """Saving, loading and inspecting give the same network, the same parameters and the same outputs."""
    file = folder / "changed.safetensors"
    vggkit.save_weights(model, file)
    loaded = vggkit.load_model(file).eval()
    assert torch.equal(loaded(x), model(x))
    assert loaded.network == model.network
    assert vggkit.loads(vggkit.inspect(file).yaml or "") == model.config
    assert vggkit.summarize(model.network).totals.parameters == sum(p.numel() for p in model.parameters())
    assert {name: value.shape for name, value in loaded.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


@settings(max_examples=100, deadline=None)
@given(drawn.networks())
def test_a_model_that_was_not_changed_is_what_it_was_built_from(network: Network) -> None:
    """The modules of any network are that network's, and each of them alone tells the layer that builds it."""
    model = vggkit.build(network, device="meta")
    assert model.network is network
    for placed, module in model.layers():
        layer = layer_of(module, placed.input_shape)
        assert layer is not None
        built = layer.module(placed.input_shape, nn)
        assert repr(built).replace("(1, 1)", "1") == repr(module).replace("(1, 1)", "1")  # torch takes either
        assert layer.parameters(placed.input_shape) == placed.layer.parameters(placed.input_shape)


def replace_head(model: VGG) -> None:
    """Give a model a head for three classes."""
    model.predictions = nn.Linear(model.predictions.in_features, 3)


def swap_activations(model: VGG) -> None:
    """Put other activations in the place of ReLUs, under their names."""
    model.block1.relu1, model.block2.relu1, model.relu1 = nn.GELU(), nn.LeakyReLU(0.2), nn.Tanh()


def swap_pool(model: VGG) -> None:
    """Average where the maximum was taken."""
    model.block1.pool = nn.AvgPool2d(2)


def take_away(model: VGG) -> None:
    """Put nothing in the place of a convolution, its ReLU, and a dropout."""
    model.block5.conv1, model.block5.relu1, model.dropout2 = nn.Identity(), nn.Identity(), nn.Identity()


def cut_off(model: VGG) -> None:
    """Take the last layer away: what stands before it is the output."""
    model.predictions = nn.Identity()


def widen(model: VGG) -> None:
    """Take a convolution of another size, another norm, and one layer more at a block's end."""
    model.block1.conv1 = nn.Conv2d(3, 6, 5, padding=2)
    model.block2.conv1 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
    model.block5.add_module("head1x1", nn.Conv2d(model.fc1.in_features, 7, 1))
    model.fc1 = nn.Linear(7, model.fc1.out_features)


def without_inplace(model: VGG) -> None:
    """Do what code for Grad-CAM does: switch it off module by module."""
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


CHANGES: dict[str, tuple[Callable[[VGG], None], str]] = {
    "another head": (replace_head, "FC-3"),
    "other activations": (swap_activations, "activation: gelu"),
    "another pool": (swap_pool, "avgpool"),
    "layers away": (take_away, "dropout: 0"),
    "no last layer": (cut_off, "name: fc2"),
    "other convolutions": (widen, "name: head1x1"),
    "nothing in place": (without_inplace, "inplace: false"),
}
"""What people do to a model, and what its YAML says then."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_saved_as_it_is_now(change: str, tmp_path: Path) -> None:
    """The forward pass runs, and network, checkpoint and YAML describe the live modules."""
    model = tiny()
    made, said = CHANGES[change]
    made(model)
    assert said in vggkit.dump(model.config)
    assert model.config.reported is None
    assert_saved_as_it_is(model, tmp_path, images())


def test_a_first_convolution_for_other_channels_changes_the_input(tmp_path: Path) -> None:
    """Replaced by one for grey pictures, it makes the network one for grey pictures."""
    model = tiny()
    model.block1.conv1 = nn.Conv2d(1, model.block1.conv1.out_channels, 3, padding=1)
    assert model.network.input_shape == (1, 32, 32)
    assert_saved_as_it_is(model, tmp_path, images(channels=1))


def test_a_replaced_head_takes_part_in_everything() -> None:
    """Loading, freezing, features and later changes see the new layer, as the figures do."""
    model = tiny()
    replace_head(model)
    assert model.network.layers == Network.of(tiny().config, num_classes=3).layers
    model.freeze("predictions")
    assert not model.predictions.weight.requires_grad
    assert vggkit.features(model, ["predictions"])(images())["predictions"].shape == (2, 3)
    dense = vggkit.to_fully_convolutional(model)
    # the same products, summed up in another order
    torch.testing.assert_close(dense(images()), model(images()))


@pytest.mark.parametrize("head", ["paper", "gap"])
@pytest.mark.parametrize("name", ["A", "D", "vgg13_bn", "A-LRN"])
def test_a_pruned_model_is_saved_as_it_is_now(name: str, head: str, tmp_path: Path) -> None:
    """Torch-Pruning takes half of the channels away; what is left runs, trains, is described, saved and loaded."""
    model, before = tiny(name, head=head), tiny(name, head=head).network
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        torch.zeros(1, 3, 32, 32),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[model.predictions],
    )
    pruner.step()
    assert model(images()).shape == (2, 5)
    assert 0 < vggkit.summarize(model.network).totals.parameters < vggkit.summarize(before).totals.parameters / 2
    assert_saved_as_it_is(model, tmp_path, images())
    assert spell(model.network.layers[0].layer).startswith("conv3-")
    model.train()(images()).sum().backward()
    if head == "gap":
        assert model(images(side=64)).shape == (2, 5)
    else:
        with pytest.raises(ValueError, match="3×64×64 ends in 2×2 maps"):
            model(images(side=64))


def spoil_with_prelu(model: VGG) -> None:
    """Take an activation with parameters, which no layer kind is."""
    model.block1.relu1 = nn.PReLU()


def spoil_with_sequential(model: VGG) -> None:
    """Take several modules in the place of one."""
    model.predictions = nn.Sequential(nn.Linear(model.fc2.out_features, 6), nn.ReLU(), nn.Linear(6, 3))


def spoil_the_chain(model: VGG) -> None:
    """Take a layer for other features than those it is given."""
    model.predictions = nn.Linear(7, 3)


def spoil_with_a_buffer(model: VGG) -> None:
    """Hold a tensor that no layer holds."""
    model.register_buffer("mean", torch.zeros(3))


def spoil_a_forward(model: VGG) -> None:
    """Compute something else in a layer's name."""
    model.block1.conv1.forward = lambda x: x  # type: ignore[method-assign] # as a user might


def spoil_a_padding(model: VGG) -> None:
    """Pad as the notation does not know it."""
    model.block1.conv1 = nn.Conv2d(3, model.block1.conv1.out_channels, 3, padding="valid")


SPOILT: dict[str, tuple[Callable[[VGG], None], str]] = {
    "an unknown module": (spoil_with_prelu, "what block1.relu1 is for an input of 3×32×32: 'PReLU(num_parameters=1)'"),
    "several modules": (spoil_with_sequential, "what predictions is for an input of 204: 'Sequential( (0): Linear("),
    "a gap in the chain": (spoil_the_chain, "what predictions is for an input of 204: 'Linear(in_features=7"),
    "another tensor": (spoil_with_a_buffer, "expected no more than the network's layers hold, found mean"),
    "another forward pass": (spoil_a_forward, "what block1.conv1 is for an input of 3×32×32: 'Conv2d(3, 3"),
    "padding in words": (spoil_a_padding, "what block1.conv1 is for an input of 3×32×32: 'Conv2d(3, 3"),
}
"""What no configuration says, and what the error says of it."""


@pytest.mark.parametrize("change", SPOILT)
def test_what_cannot_be_described_is_refused_when_it_is_saved(change: str, tmp_path: Path) -> None:
    """The error is one line, names the module, and leaves no file behind."""
    model = tiny()
    made, said = SPOILT[change]
    made(model)
    with pytest.raises(ArgumentError) as caught:
        vggkit.save_weights(model, tmp_path / "changed.safetensors")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_synchronised_batch_norms_are_the_batch_norms_that_they_were() -> None:
    """What torch makes of a model for several processes has the same configuration."""
    model = vggkit.build("A", input="3x32x32", width=0.1, batch_norm=True)
    before = model.network
    assert nn.SyncBatchNorm.convert_sync_batchnorm(model).network == before

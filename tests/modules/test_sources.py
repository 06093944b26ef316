"""Whatever takes a configuration takes a torch module, and the answer is that for what the module is described as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import vggkit
from tests import judges
from vggkit import ArgumentError, Network

INPUT = "3x16x16"
OTHER = vggkit.loads("{name: other, blocks: [[conv3-4, maxpool]], classifier: [FC-5]}")


def net(channels: int = 3, classes: int = 5) -> nn.Sequential:
    """Return a small network as research code writes it."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(16, classes),
    )


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "Network.of": lambda source: Network.of(source, input=INPUT).layers,
    "summarize": lambda source: str(vggkit.summarize(source, input=INPUT)),
    "memory": lambda source: str(vggkit.memory(source, input=INPUT, batch=2)),
    "max_batch": lambda source: str(vggkit.max_batch(source, "1GB", input=INPUT)),
    "remedies": lambda source: str(vggkit.remedies(source, "1MB", input=INPUT, batch=8)),
    "compare": lambda source: str(vggkit.compare(source, OTHER, input=INPUT)),
    "compare in a list": lambda source: str(vggkit.compare([source, source], input=INPUT)),
    "explain": lambda source: str(vggkit.explain(source, "block1_conv1", input=INPUT)),
    "reconcile": lambda source: str(vggkit.reconcile(source, "2.8k", input=INPUT)),
    "find": lambda source: str(vggkit.find(source, vary={"width": [0.5, 1]}, input=INPUT)),
    "plot": lambda source: vggkit.plot(source, input=INPUT).to_bytes(),
    "report": lambda source: str(vggkit.report(source, input=INPUT)),
    "overrides": lambda source: str(vggkit.summarize(source, input=INPUT, num_classes=3, width=0.5)),
}
"""What the public functions answer of a source."""


@pytest.mark.parametrize("asked", ANSWERS)
def test_a_module_is_a_source(asked: str) -> None:
    """The answer is the one for its configuration."""
    module = net()
    assert ANSWERS[asked](module) == ANSWERS[asked](vggkit.describe(module, input=INPUT))


def test_figures_are_those_of_the_module() -> None:
    """Its parameters are counted once; without input= its images are 224×224, of its own channels."""
    convolutions = net(channels=1)[:2]
    summary = vggkit.summarize(convolutions)
    assert summary.input == (1, 224, 224)
    assert summary.totals.parameters == sum(tensor.numel() for tensor in convolutions.parameters())


def test_what_does_not_run_is_refused_everywhere() -> None:
    """Its FC layer was made for 16×16; the line says how to say so."""
    for answer in (vggkit.summarize, vggkit.compare, vggkit.find, vggkit.plot):
        with pytest.raises(ArgumentError, match=r"3 can't run on 2 images of 3×224×224: .*; input= gives the shape"):
            answer(net())


def test_blocks_are_divided_by_pools_and_the_classifier_begins_at_flatten() -> None:
    """What most layers have behind them is said once."""
    assert vggkit.dump(vggkit.describe(net(), input=INPUT)) == (
        "name: Sequential\ninput: 3x16x16\ndefaults:\n  norm: batch\nblocks:\n"
        "  - [conv3-4, maxpool]\n  - [conv3-8, maxpool]\nclassifier: [FC-16, FC-5]\n"
    )


def test_defaults_say_what_most_layers_are() -> None:
    """Convolutions without bias, another activation, and another dropout stand in `defaults` once."""
    layers = [(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.ELU(inplace=True)) for _ in range(3)]
    head = nn.Flatten(), nn.Linear(48, 4), nn.ELU(inplace=True), nn.Dropout(0.2), nn.Linear(4, 2)
    module = nn.Sequential(*(part for pair in layers for part in pair), *head)
    assert vggkit.dump(vggkit.describe(module, input="3x4x4")) == (
        "name: Sequential\ninput: 3x4x4\ndefaults:\n  activation: elu\n  dropout: 0.2\n  conv: {bias: false}\nblocks:\n"
        "  - [conv3-3, conv3-3, conv3-3]\nclassifier: [FC-4, FC-2]\n"
    )


# Models of vggkit


def test_a_model_of_ours_is_its_own_configuration() -> None:
    """With its name, its blocks and the soft-max that it leaves out; its input need not be said."""
    model = vggkit.build("A", input="3x32x32", width=0.05, num_classes=4)
    assert vggkit.describe(model) == model.config
    assert vggkit.describe(nn.DataParallel(model)) == model.config


def test_a_changed_model_of_ours_is_described_as_it_is_now() -> None:
    """A replaced head."""
    model = vggkit.build("A", input="3x32x32", width=0.05, num_classes=4)
    model.predictions = nn.Linear(model.predictions.in_features, 7)
    assert Network.of(model).output_shape == (7,)


def test_a_model_of_ours_inside_another_keeps_its_blocks() -> None:
    """Two convolutions in a block without a pool stay one block, for their paths name it."""
    config = vggkit.loads("{input: 3x8x8, blocks: [[conv3-4], [conv3-4, maxpool], [conv3-2]], classifier: [FC-3]}")
    described = vggkit.describe(nn.Sequential(vggkit.build(config)), input="3x8x8")
    assert described.blocks == config.blocks
    assert described.classifier == config.classifier


def test_another_input_of_a_model_of_ours_is_tried() -> None:
    """Its FC layers don't fit it."""
    model = vggkit.build("A", input="3x32x32", width=0.05)
    with pytest.raises(ArgumentError, match="can't run on 2 images of 3×64×64"):
        vggkit.describe(model, input="3x64x64")
    trunk = vggkit.build(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4]]}"))
    assert vggkit.describe(trunk, input="3x9x9").input == (3, 9, 9)


# Weights


def filled(module: nn.Module) -> nn.Module:
    """Give a module's norms statistics that show where they are used."""
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1)
    return module.eval()


def test_a_modules_weights_are_copied() -> None:
    """They are the same and not shared; the report names the layers."""
    module = filled(net())
    config = vggkit.describe(module, input=INPUT)
    model = vggkit.build(config, weights=module).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), module(x))
    assert model.report is not None
    assert list(model.report.loaded) == [
        "block1_conv1", "block1_norm1", "block2_conv1", "block2_norm1", "fc1", "predictions",
    ]  # fmt: skip
    before = model(x)
    nn.init.zeros_(module[6].weight)
    assert torch.equal(model(x), before)


def test_weights_of_a_module_are_loaded_as_those_of_a_file(tmp_path: Path) -> None:
    """Into a model that is there, without the head, for other channels, and as the start of another one."""
    module = filled(net())
    config = vggkit.describe(module, input=INPUT)
    model = vggkit.build(config)
    assert set(vggkit.load_weights(model, nn.DataParallel(module)).loaded) >= {"block1_norm1", "predictions"}
    new = vggkit.build(config, weights=module, num_classes=7, head="new")
    assert torch.equal(new.block1.conv1.weight, module[0][0].weight)
    grey = vggkit.build(config, weights=module, in_channels=1)
    assert torch.equal(grey.block1.conv1.weight, module[0][0].weight.sum(dim=1, keepdim=True))
    deeper = vggkit.build(config, init_from=module)
    assert torch.equal(deeper.predictions.weight, module[6].weight)
    with pytest.raises(vggkit.CheckpointError, match="does not fit Sequential: predictions: checkpoint has 5 classes"):
        vggkit.build(config, weights=module, num_classes=7)
    vggkit.save_weights(model, tmp_path / "x.safetensors")
    assert vggkit.load_model(tmp_path / "x.safetensors").config == config


@pytest.mark.parametrize("source", [net().state_dict(), 5])
def test_weights_are_a_file_or_a_module(source: Any) -> None:
    """A state dict has names and shapes alone, which may fit in more than one way."""
    config = vggkit.describe(net(), input=INPUT)
    for use in ({"weights": source}, {"init_from": source}):
        with pytest.raises(ArgumentError, match=r"a file, 'imagenet' or a torch module, found .*its module does"):
            vggkit.build(config, **use)
    with pytest.raises(ArgumentError, match="expected a file, 'imagenet' or a torch module"):
        vggkit.load_weights(vggkit.build(config), source)


def test_features_of_a_module_are_its_own() -> None:
    """Its layers can be named as those of a configuration, and their activations are what its own modules return."""
    module = filled(net())
    x = torch.randn(2, 3, 16, 16)
    taps = vggkit.features(module, ["relu1_1", "block2_norm1"], input=INPUT)(x)
    assert torch.equal(taps["relu1_1"], module[0][:3](x))
    assert torch.equal(taps["block2_norm1"], module[1][:2](module[0](x)))
    wrapped = vggkit.build(vggkit.describe(module, input=INPUT), weights=module).eval()
    assert torch.equal(vggkit.features(nn.DataParallel(wrapped), ["relu1_1"])(x)["relu1_1"], taps["relu1_1"])


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn"])
def test_what_is_kept_for_the_backward_pass_is_what_the_module_keeps(name: str) -> None:
    """Bytes that autograd holds of torchvision's own modules and of the loss, each storage once; without values."""
    torchvision = judges.package("torchvision")
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode():
        module = torchvision.models.get_model(name, weights=None).train()
        own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        images, targets = torch.empty(2, 3, 224, 224), torch.zeros(2, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = nn.functional.cross_entropy(module(images), targets)
        assert loss.requires_grad
        held = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
        assert vggkit.memory(module, batch=2).saved_for_backward_bytes == held


def test_a_module_without_values_has_no_weights() -> None:
    """On the meta device it can be described, and not loaded from."""
    module = net().to("meta")
    config = vggkit.describe(module, input=INPUT)
    with pytest.raises(ArgumentError, match="the module is on the meta device and has no values"):
        vggkit.build(config, weights=module)

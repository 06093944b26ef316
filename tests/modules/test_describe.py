"""A module that runs as a chain is described by running it, and its weights give the same outputs to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor, nn

import vggkit
from tests import drawn, judges
from tests.conftest import sample
from tests.modules.written import Functional, in_a_row
from vggkit import ArgumentError, Config, Network
from vggkit.model.hub import HubVGG
from vggkit.notation.layers import Layer, Shape

FAMILY = json.loads((Path(__file__).parents[1] / "data" / "family.json").read_text(encoding="utf-8"))


def held_against(module: nn.Module, config: Config) -> None:
    """Hold a module against the model that is built of a configuration with the module's weights."""
    module = module if isinstance(module, torch.fx.GraphModule) else module.eval()  # an exported one is as it is
    x = torch.randn(2, *config.input, generator=torch.Generator().manual_seed(0))
    model = vggkit.build(config, weights=module, softmax=Network.of(config).ends_in_softmax).eval()
    with torch.no_grad():
        assert torch.equal(model(x.clone()).nan_to_num(), module(x.clone()).nan_to_num())


def randomized(module: nn.Module) -> nn.Module:
    """Give a module's buffers and norms values that show where they are used."""
    generator = torch.Generator().manual_seed(1)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.25, 1, generator=generator).sub_(0.5 * (tensor.ndim > 1))
    return module


# Drawn networks


Facts = tuple[str, Shape, dict[str, Shape]]


def facts(network: Network) -> list[Facts]:
    """Return what each layer's module is, without layers that return their input."""

    def does_nothing(layer: Layer, x: Shape) -> bool:
        return (layer.flattens and len(x) == 1) or (layer.is_dropout and not getattr(layer, "p", 0))

    with torch.device("meta"):
        return [
            (
                repr(placed.layer.module(placed.input_shape, nn)).replace("(1, 1)", "1"),  # torch takes either
                placed.input_shape,
                placed.layer.parameters(placed.input_shape),
            )
            for placed in network
            if not does_nothing(placed.layer, placed.input_shape)
        ]


def modules_of(network: Network) -> list[nn.Module]:
    """Return the modules of all layers of a network, the last soft-max too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [placed.layer.module(placed.input_shape, nn) for placed in network]


def assert_described(network: Network, write: Callable[[Sequence[nn.Module]], nn.Module]) -> None:
    """Write a network as code, and describe that: the same layers, and the same outputs."""
    module = randomized(write(modules_of(network)))
    if not facts(network):
        with pytest.raises(ArgumentError, match="returns its image"):
            vggkit.describe(module, input=network.input_shape)
        return
    config = vggkit.describe(module, input=network.input_shape)
    assert facts(Network.of(config)) == facts(network)
    assert vggkit.loads(vggkit.dump(config)) == config
    held_against(module, config)


WRITTEN: dict[str, Callable[[Sequence[nn.Module]], nn.Module]] = {"modules": in_a_row, "functions": Functional}


@pytest.mark.parametrize("written", WRITTEN)
@settings(max_examples=25, deadline=None)
@given(network=drawn.networks())
@example(network=Network.of(vggkit.loads("{input: 2x3x3, blocks: [[conv1-1, {conv: 1, padding_mode: reflect}]]}")))
@example(network=Network.of(vggkit.loads("{input: 3x4x5, classifier: [{flatten: hwc}, FC-2, log-softmax]}")))
@example(network=Network.of(vggkit.loads("{input: 2x3x3, blocks: [[conv1-1, {batchnorm: {momentum: 0}}]]}")))
def test_a_drawn_network_is_described_as_it_is(written: str, network: Network) -> None:
    """Whatever the grammar can say is read off modules and off functions, layer by layer."""
    assert_described(network, WRITTEN[written])


@pytest.mark.slow
@pytest.mark.parametrize("written", WRITTEN)
@settings(max_examples=300, deadline=None)
@given(network=drawn.networks())
def test_many_drawn_networks_are_described_as_they_are(written: str, network: Network) -> None:
    """The same for more of them."""
    assert_described(network, WRITTEN[written])


def exported(modules: Sequence[nn.Module], x: Shape) -> nn.Module:
    """Return the graph of operations that torch exports of modules in a row."""
    images = {0: torch.export.Dim.DYNAMIC}
    return torch.export.export(nn.Sequential(*modules).eval(), (torch.rand(2, *x),), dynamic_shapes=(images,)).module()


def check_exported(network: Network) -> None:
    """Describe the graph that torch exports of a network: where it does not train, momentum None is 0 in it."""
    known = facts(network)
    if not known:  # torch refuses to export what has no operation
        return
    module = randomized(exported(modules_of(network), network.input_shape))
    config = vggkit.describe(module, input=network.input_shape)
    wanted = [(text.replace("momentum=0.0", "momentum=None"), *rest) for text, *rest in known]
    assert [(text, *rest) for text, *rest in facts(Network.of(config))] == wanted
    held_against(module, config)


@settings(max_examples=8, deadline=None)
@given(network=drawn.networks())
@example(network=Network.of(vggkit.loads("{input: 2x3x3, blocks: [[{conv: 1, padding_mode: reflect}, {LRN: 4}]]}")))
@example(network=Network.of(vggkit.loads("{input: 3x4x5, classifier: [{flatten: hwc}, FC-2, log-softmax]}")))
@pytest.mark.filterwarnings("ignore")  # torch's, of itself
def test_the_graph_that_torch_exports_is_described_as_what_it_was(network: Network) -> None:
    """Its operations have ATen's names and arguments, and LRN is ten of them."""
    check_exported(network)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(network=drawn.networks())
@pytest.mark.filterwarnings("ignore")  # torch's, of itself
def test_so_are_many_of_them(network: Network) -> None:
    """The same for more of them."""
    check_exported(network)


@pytest.mark.parametrize("size", [3, (3, 5)])
@pytest.mark.parametrize(
    ("pad", "mode"),
    [(nn.ZeroPad2d, "zeros"), (nn.ReflectionPad2d, "reflect"), (nn.ReplicationPad2d, "replicate"),
     (nn.CircularPad2d, "circular")],
)  # fmt: skip
def test_a_padding_before_a_convolution_is_the_convolutions(pad: Any, mode: str, size: Any) -> None:
    """As a module and as a function; torch computes the same, for zeros up to the order of sums."""
    sides = (size // 2,) * 4 if isinstance(size, int) else (2, 2, 1, 1)
    word = {"zeros": "constant"}.get(mode, mode)

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, size)

        def forward(self, x: Tensor) -> Tensor:
            padded: Tensor = self.conv(nn.functional.pad(x, sides, mode=word))
            return padded

    torch.manual_seed(0)
    module = Padded().eval()
    x = torch.randn(2, 3, 8, 8)
    for one in (module, nn.Sequential(pad(sides), module.conv)):
        config = vggkit.describe(one, input="3x8x8")
        (layer,) = (placed.layer for placed in Network.of(config))
        assert (layer.padding, layer.padding_mode) == ("same", mode)
        found = vggkit.build(config, weights=one).eval()(x)
        if mode == "zeros":  # oneDNN adds up in another order where it pads itself
            torch.testing.assert_close(found, module(x), rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found, module(x))


def test_zeros_before_a_convolution_are_added_to_its_own() -> None:
    """A padding of 1 before one of 1 is one of 2."""
    module = nn.Sequential(nn.ZeroPad2d((2, 2, 1, 1)), nn.Conv2d(3, 4, 3, padding=1))
    (layer,) = (placed.layer for placed in Network.of(vggkit.describe(module, input="3x8x8")))
    assert layer.pads() == (2, 3)


# Networks that others have written


def module_of(facts: dict[str, Any], x: Shape) -> nn.Module:
    """Return the module for a layer of the family's data."""
    op = facts["op"]
    if op == "conv":
        return nn.Conv2d(x[0], facts["out"], facts["k"], facts["s"], facts["p"], facts["d"], facts["g"], facts["bias"])
    if op == "linear":
        return nn.Linear(x[0], facts["out"], facts["bias"])
    if op == "batchnorm":
        return (nn.BatchNorm2d if len(x) == 3 else nn.BatchNorm1d)(
            x[0], facts.get("eps", 1e-5), affine=facts.get("affine", True)
        )
    if op == "groupnorm":
        return nn.GroupNorm(facts["groups"] or GROUPS[x[0]], x[0])
    if op == "maxpool":
        return nn.MaxPool2d(facts["k"], facts["s"], facts["p"], ceil_mode=facts["ceil"])
    if op == "avgpool":
        return nn.AvgPool2d(facts["k"], facts["s"], facts["p"], facts["ceil"])
    if op == "adaptiveavgpool":
        return nn.AdaptiveAvgPool2d(facts["size"])
    if op == "lrn":
        return nn.LocalResponseNorm(facts["size"], facts["alpha"], facts["beta"], facts["k"])
    if op == "flatten" and facts["order"] == "hwc":
        return KerasFlatten()
    return OTHERS[op](facts)


GROUPS = {64: 8, 128: 8, 256: 16, 512: 32}
"""By the number of channels, where the data names none; configs/family/cifar_vgg16_gn.yaml has the source."""


class KerasFlatten(nn.Module):
    """Flattens as Keras does, channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn the maps, and flatten them."""
        return x.permute(0, 2, 3, 1).flatten(1)


OTHERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "relu": lambda _: nn.ReLU(inplace=True),
    "hardtanh": lambda _: nn.Hardtanh(inplace=True),
    "dropout": lambda facts: nn.Dropout(facts["p"]),
    "flatten": lambda _: nn.Flatten(),
    "softmax": lambda _: nn.Softmax(dim=-1),
    "logsoftmax": lambda _: nn.LogSoftmax(dim=-1),
}

QUICK = [
    "cnn_f",
    "binarynet_pytorch_vgg",
    "cifar_vgg11_gn",
    "mnist_vgg16_4pool",
    "panns_cnn14_trunk",
    "ssd300_vgg16_base",
]


@pytest.mark.parametrize("name", sample(list(FAMILY), QUICK))
def test_the_family_by_hand_is_described_as_its_configurations_say(name: str) -> None:
    """Each of the 70 networks as a Sequential of its layers in the data: as its own file has them."""
    x: Shape = tuple(FAMILY[name]["input"])
    modules = []
    with torch.device("meta"):
        for layer in FAMILY[name]["layers"]:
            modules.append(module_of(layer, x))
            x = tuple(layer["out_shape"])
    config = vggkit.describe(nn.Sequential(*modules), input=FAMILY[name]["input"])
    described, shipped = Network.of(config), Network.of(name)
    assert facts(described) == facts(shipped)
    assert vggkit.summarize(described).totals.parameters == FAMILY[name]["params_total"]


VGGS = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


@pytest.mark.parametrize("norm", ["", "_bn"])
@pytest.mark.parametrize("letter", VGGS)
def test_torchvisions_are_the_papers_with_an_adaptive_pool(letter: str, norm: str) -> None:
    """Its blocks and FC layers are those of the paper's configuration; its pool to 7×7 stands before them."""
    torchvision = judges.package("torchvision")
    with torch.device("meta"):
        module = torchvision.models.get_model(VGGS[letter] + norm, weights=None)
    described, paper = vggkit.describe(module), vggkit.load(letter, batch_norm=bool(norm) or None)
    assert described.blocks == paper.blocks
    assert vggkit.dump(described).splitlines()[-1] == "classifier: [{adaptive-avgpool: 7}, FC-4096, FC-4096, FC-1000]"
    assert described.classifier[1:] == paper.classifier[:-1]  # scores, no soft-max


@pytest.mark.parametrize("name", sample([*VGGS.values(), *(f"{name}_bn" for name in VGGS.values())], ["vgg11_bn"]))
def test_torchvisions_outputs_are_the_same(name: str) -> None:
    """With its weights, to the last bit; on a small image."""
    torchvision = judges.package("torchvision")
    module = randomized(torchvision.models.get_model(name, weights=None))
    held_against(module, vggkit.describe(module, input="3x32x32"))


def test_alexnet() -> None:
    """A dropout stands before its first FC layer, and none before the last."""
    torchvision = judges.package("torchvision")
    module = torchvision.models.alexnet(weights=None)
    config = vggkit.describe(module, input="3x64x64")
    assert vggkit.dump(config) == (
        "name: AlexNet\ninput: 3x64x64\nblocks:\n"
        "  - [{conv: 64, kernel: 11, stride: 4, padding: 2}, {maxpool: 3}]\n"
        "  - [conv5-192, {maxpool: 3}]\n"
        "  - [conv3-384, conv3-256, conv3-256, {maxpool: 3}]\n"
        "classifier: [{adaptive-avgpool: 6}, flatten, dropout, FC-4096, {FC: 4096, dropout: 0.0}, FC-1000]\n"
    )
    held_against(module, config)


@pytest.mark.parametrize("norm", ["", "_bn"])
@pytest.mark.parametrize("letter", VGGS)
def test_timms_fully_connected_layers_are_convolutions(letter: str, norm: str) -> None:
    """Its blocks are the paper's; its first two FC layers run as convolutions over the last maps."""
    timm = judges.package("timm")
    with torch.device("meta"):
        module = timm.create_model(VGGS[letter] + norm, num_classes=10)
    config = vggkit.describe(module)
    paper = vggkit.load(letter, batch_norm=bool(norm) or None)
    assert config.blocks[:5] == paper.blocks
    told = vggkit.dump(config).splitlines()[-2:]
    none = ", norm: none" if norm else ""
    last = "{conv: 4096, kernel: 1, norm: none}" if norm else "conv1-4096"
    assert told == [f"  - [{{conv: 4096, kernel: 7, padding: 0{none}}}, {last}]", "classifier: [global-avgpool, FC-10]"]
    assert vggkit.summarize(config).totals.parameters == sum(tensor.numel() for tensor in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn"])
def test_timms_outputs_are_the_same(name: str) -> None:
    """With its weights, to the last bit."""
    timm = judges.package("timm")
    module = randomized(timm.create_model(name, num_classes=10))
    held_against(module, vggkit.describe(module))


class Squared(vggkit.VGG):
    """A model that runs otherwise than its configuration says."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the network, and square its scores."""
        return super().forward(x) ** 2


def test_a_class_made_of_a_models_is_what_it_runs_as() -> None:
    """It has the configuration of the model's class, and says nothing else if it does nothing else."""
    config = vggkit.loads("{name: small, input: 3x4x4, blocks: [[conv3-4]], classifier: [FC-4, soft-max]}")
    model = vggkit.build(config)
    assert vggkit.describe(HubVGG.of(model)) == config
    model.__class__ = Squared
    with pytest.raises(ArgumentError, match=r"no layer of a configuration does what torch\.Tensor\.__pow__ does"):
        vggkit.describe(model)

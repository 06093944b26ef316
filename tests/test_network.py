"""Placing layers: names here and elsewhere, what becomes explicit, receptive fields, and what is said of a misfit."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vggkit
from tests import drawn
from vggkit import ArgumentError, ConfigError, Network
from vggkit import network as network_module
from vggkit.network import Names, PlacedLayer, all_names
from vggkit.notation.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Layer, MaxPool2d

# Receptive fields, against the gradient of single outputs

SIDE = 256
"""Wide enough that the field of an output in the middle is not clipped: three layers see at most 53 values."""


def seeing(layer: Layer) -> nn.Module:
    """Return a module that looks at every value of a layer's window: a convolution of ones, or an average."""
    if isinstance(layer, AvgPool2d):
        module: nn.Module = layer.module((1, SIDE, SIDE), nn)
        return module
    assert isinstance(layer, (Conv2d, MaxPool2d))
    padding = layer.pads() if isinstance(layer, Conv2d) else layer.padding
    conv = nn.Conv2d(1, 1, layer.kernel_size, layer.stride, padding, layer.dilation, bias=False)
    nn.init.ones_(conv.weight)
    return conv


def reached(y: Tensor, x: Tensor, row: int, column: int) -> tuple[range, range]:
    """Return the rows and columns of x that one value of y depends on."""
    (gradient,) = torch.autograd.grad(y[0, 0, row, column], x, retain_graph=True)
    rows, columns = (gradient[0, 0] != 0).nonzero(as_tuple=True)
    return range(int(rows.min()), int(rows.max()) + 1), range(int(columns.min()), int(columns.max()) + 1)


@settings(max_examples=60, deadline=None)
@given(drawn.window_configs(SIDE))
def test_receptive_field_and_stride_are_what_a_gradient_reaches(config: vggkit.Config) -> None:
    """An inner output depends on a region of the receptive field's size, and its neighbour on one a stride away."""
    network = Network.of(config)
    x = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    y: Tensor = nn.Sequential(*(seeing(placed.layer) for placed in network)).double()(x)
    row, column = (size // 2 for size in y.shape[-2:])
    here, there = reached(y, x, row, column), reached(y, x, row + 1, column + 1)
    last = network.layers[-1]
    assert (len(here[0]), len(here[1])) == last.receptive_field
    assert (there[0].start - here[0].start, there[1].start - here[1].start) == last.stride


def windows(size: int, outputs: int) -> list[range]:
    """Return which inputs each output of torch's adaptive average pool looks at."""
    looks = nn.functional.adaptive_avg_pool1d(torch.eye(size)[None], outputs)[0] > 0
    return [range(int(i.min()), int(i.max()) + 1) for i in (column.nonzero() for column in looks.T)]


@pytest.mark.parametrize("outputs", range(1, 29))
def test_an_adaptive_pools_window_is_the_largest_of_torchs(outputs: int) -> None:
    """Extent and step are the largest of all windows, whether or not the sizes divide, up or down."""
    for size in range(1, 41):
        seen = windows(size, outputs)
        steps = [after.start - before.start for before, after in pairwise(seen)]
        window = AdaptiveAvgPool2d((outputs, 1)).window((1, size, 1))
        assert window.extent[0] == max(map(len, seen)), size
        assert window.step[0] == max(steps, default=size), size


@given(st.integers(1, 10**18), st.integers(1, 10**18))
def test_a_huge_adaptive_pool_is_answered_at_once(size: int, outputs: int) -> None:
    """No loop runs over the outputs, so that the largest sizes have a window too."""
    window = AdaptiveAvgPool2d((outputs, 1)).window((1, size, 1))
    assert -(-size // outputs) <= window.extent[0] <= size // outputs + 2
    assert size // outputs <= window.step[0] <= size // outputs + 1


def test_an_adaptive_pool_grows_the_field_of_what_is_before_it() -> None:
    """Behind two convolutions and a pool, the largest field of an adaptive pool's outputs is the claimed one."""
    text = (
        "{input: 1x34x23, defaults: {activation: none}, blocks: [[conv3-1, avgpool, conv3-1, {adaptive-avgpool: 5x3}]]}"
    )
    network = Network.of(vggkit.loads(text))
    x = torch.zeros(1, 1, 34, 23, dtype=torch.float64, requires_grad=True)
    modules = [
        layer.module((1, 17, 11), nn) if isinstance(layer := placed.layer, AdaptiveAvgPool2d) else seeing(layer)
        for placed in network
    ]
    y = nn.Sequential(*modules).double()(x)
    fields = [reached(y, x, row, column) for row in range(5) for column in range(3)]
    largest = max(len(rows) for rows, _ in fields), max(len(columns) for _, columns in fields)
    assert largest == network.layers[-1].receptive_field


@pytest.mark.parametrize(
    ("blocks", "line"),
    [
        ("[conv3-4, {conv: 4, name: conv1}]", 1),
        ("[{conv: 4, name: conv2}, conv3-4, conv3-4]", 1),
        ("[{conv: 4, name: taken}, {conv: 4, name: taken}]", 1),
        ("[{conv: 4, name: block1}]", 1),
    ],
)
def test_two_parts_cannot_have_one_name(blocks: str, line: int) -> None:
    """A given name that is another layer's, or a block's, is refused where it stands."""
    with pytest.raises(ConfigError, match="two parts of the network are named") as caught:
        Network.of(vggkit.loads(f"blocks: [{blocks}]", file="mine.yaml"))
    assert str(caught.value).startswith(f"mine.yaml:{line}:")


def test_names_are_those_that_keras_users_know() -> None:
    """D's layers, in order, what is implicit in the notation included."""
    names = [placed.name for placed in Network.of("vgg16_bn")]
    assert names[:7] == [
        "block1_conv1", "block1_norm1", "block1_relu1", "block1_conv2", "block1_norm2", "block1_relu2", "block1_pool",
    ]  # fmt: skip
    assert names[-9:] == [
        "flatten", "fc1", "relu1", "dropout1", "fc2", "relu2", "dropout2", "predictions", "softmax",
    ]  # fmt: skip


def test_a_network_said_two_ways_has_the_same_layers() -> None:
    """What stands behind a layer and what stands on its own behind it are the same network."""
    behind = "blocks: [[{conv: 4, norm: batch, activation: gelu, dropout: 0.2}]]"
    alone = "blocks: [[{conv: 4, activation: none}, batchnorm, gelu, {dropout: 0.2}]]"
    assert Network.of(vggkit.loads(behind)).layers == Network.of(vggkit.loads(alone)).layers


@pytest.mark.parametrize(("image", "blocks", "history"), [
    ("3x16x16", ["maxpool"] * 5, "3×16×16 has been halved 4 times before it"),
    ("3x2x2", ["maxpool"] * 2, "3×2×2 has been halved once before it"),
    ("3x12x12", ["{maxpool: 3, stride: 3}", "{maxpool: 2, stride: 4}", "maxpool"], "3×12×12 has been divided by 12×12"),
])  # fmt: skip
def test_a_pool_that_does_not_fit_says_why_the_maps_are_small(image: str, blocks: list[str], history: str) -> None:
    """The message has the input and what has been done to it."""
    text = f"input: {image}\nblocks: [[{', '.join(blocks)}]]"
    with pytest.raises(ConfigError) as caught:
        Network.of(vggkit.loads(text))
    assert f"a 2×2 pool does not fit its 1×1 input ({history}" in str(caught.value)


def test_d_at_32_says_that_its_maps_end_at_one_by_one() -> None:
    """The note names the maps, the FC layer, head=gap and another input; D at its own size needs none."""
    (note,) = Network.of("D", input="3x32x32").notes()
    for words in ("the maps end at 1×1", "fc1 has 512 inputs for 4,096 units", "head=gap", "3x224x224"):
        assert words in note
    assert Network.of("D").notes() == Network.of("D", input="3x32x32", head="gap").notes() == []
    narrow = "{{extends: D, input: 3x32x32, classifier: [FC-{}, FC-10]}}"
    assert [len(Network.of(vggkit.loads(narrow.format(units))).notes()) for units in (512, 513)] == [0, 1]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("block3_conv2", "block3_conv2"), ("block3.conv2", "block3_conv2"), ("conv3_2", "block3_conv2"),
        ("relu5_3", "block5_relu3"), ("pool4", "block4_pool"), ("features.28", "block5_conv3"), ("fc7", "fc2"),
        ("drop6", "dropout1"), ("fc8", "predictions"), ("classifier.6", "predictions"), ("prob", "softmax"),
    ],
)  # fmt: skip
def test_a_layer_is_found_by_each_of_its_names(name: str, found: str) -> None:
    """Our name, the module's path, the authors' and torchvision's lead to the same layer."""
    assert Network.of("D").layer(name).name == found


def test_a_layer_that_is_not_there_is_told_with_the_nearest_name() -> None:
    """A misspelt name gets a suggestion."""
    with pytest.raises(ArgumentError) as caught:
        Network.of("D").layer("conv3_9")
    assert str(caught.value).startswith("D has no layer 'conv3_9'. Did you mean 'conv3_")


def test_layers_of_one_kind_are_numbered_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that a file gives are passed over, and thousands of layers take as many steps, not as many squared."""
    given = "[tanh, {tanh: null, name: tanh_3}, tanh, tanh, maxpool, {maxpool: 2, name: pool3}, maxpool, maxpool]"
    names = [placed.module for placed in Network.of(vggkit.loads(f"input: 3x64x64\nblocks: [{given}]"))]
    assert names == [f"block1.{name}" for name in "tanh tanh_3 tanh_2 tanh_4 pool pool3 pool2 pool4".split()]  # noqa: SIM905
    steps = 0

    class Counted(set[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal steps
            steps += 1
            return super().__contains__(name)

    monkeypatch.setattr(network_module, "set", Counted, raising=False)
    many = vggkit.loads(f"input: 3x8x8\nblocks: [[{', '.join(['tanh'] * 2000)}]]")
    assert Network.of(many).layers[-1].name == "block1_tanh_2000"
    assert 2000 <= steps < 5 * 2000


# Taps


def test_what_is_built_for_taps_has_no_classifier_that_nobody_asks_for() -> None:
    """A tap in the classifier needs it; the layers of the blocks are the same in either way."""
    network = Network.of("A")
    trunk = network.trunk_of(["relu1_1", "features.3", "block4_pool"])
    assert trunk.layers == tuple(placed for placed in network if placed.block)
    assert network.trunk_of(["relu1_1", "fc6"]) is network
    with pytest.raises(ArgumentError, match="A has no layer 'relu9_1'"):
        network.trunk_of(["relu9_1"])


@pytest.mark.parametrize(
    ("taps", "new"),
    [
        (["conv1_1"], []),
        (["conv1_1", "relu2_1"], ["block1_relu1"]),
        (["relu1_1", "conv3_1", "pool3"], ["block3_relu1"]),
        (["pool5", "relu6"], []),
        (["flatten", "prob"], []),
        (["fc6", "drop6", "fc7", "relu7"], ["relu1", "relu2"]),
    ],
)
def test_nothing_overwrites_what_is_handed_out(taps: list[str], new: list[str]) -> None:
    """The layers end with the last tap; the activations behind a tap that would overwrite it work in new memory."""
    network = Network.of("A")
    layers = network.up_to(taps)
    assert layers[-1].name == network.layer(taps[-1]).name
    changed = [run for placed, run in zip(network, layers) if run != placed]
    assert [run.name for run in changed] == new
    assert all(run.layer.storage() == "new" for run in changed)


# The names that a layer has elsewhere, against those who gave them

SHARED = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
OTHERS = [f"{name}{ending}" for name in SHARED.values() for ending in ("", "_bn")]


def test_a_block_is_told_with_its_layers() -> None:
    """Whoever names a block where a layer is asked for, or the classifier, sees which there are."""
    for part in ("block3", "classifier"):
        names = ", ".join(placed.name for placed in Network.of("D") if (placed.block or "classifier") == part)
        with pytest.raises(ArgumentError) as told:
            Network.of("D").layer(part)
        assert str(told.value) == f"D: {part} is not a layer; its layers are {names}"


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

"""The family: 70 networks of research code, each held against what its original's own class says of it.

`data/family.json` has every layer's shape, parameters, multiply-accumulates, receptive field and stride, most taken
from the original repository's class as it runs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from click import Context, Option
from click.testing import CliRunner
from torch import nn

import vggkit
from vggkit import Network
from vggkit.base.errors import ConfigError
from vggkit.cli import main
from vggkit.cli.completion import configurations
from vggkit.footprint.steps.options import StepOptions
from vggkit.model import verify
from vggkit.network import PlacedLayer
from vggkit.notation import zoo
from vggkit.notation.layers import KINDS, Conv2d, Flatten, GlobalAvgPool2d, GroupNorm, Layer

Facts = dict[str, Any]
FAMILY: dict[str, Facts] = json.loads((Path(__file__).parents[1] / "data" / "family.json").read_text(encoding="utf-8"))
every_network = pytest.mark.parametrize("name", FAMILY)


def path(name: str) -> Path:
    """Return a network's file."""
    return zoo.folder() / "family" / f"{name}.yaml"


# What it is: each figure of each layer, from the analyzer

KEYWORDS = {kind.keyword.replace("-", "").lower(): kind for kind in KINDS}
OPTIONS = {"k": "kernel_size", "s": "stride", "p": "padding", "d": "dilation", "g": "groups", "bias": "bias",
           "ceil": "ceil_mode", "eps": "eps", "affine": "affine", "order": "order", "size": "size",
           "alpha": "alpha", "beta": "beta"}  # fmt: skip
"""The original's options, by their short names in the data."""


def kind_of(op: str) -> str:
    """Return our keyword for an operation of the data, which has an adaptive pool to 1×1 for the global one."""
    if op == "adaptiveavgpool":
        return "global-avgpool"
    return "FC" if op == "linear" else KEYWORDS[op].keyword


def option(layer: Layer, word: str) -> Any:
    """Return a layer's option as the data has it: lists for sizes, `same` as the padding that it is."""
    if isinstance(layer, Conv2d) and word == "p":
        return list(layer.pads())
    value = getattr(layer, word if hasattr(layer, word) else OPTIONS[word])
    return list(value) if isinstance(value, tuple) else value


def options(placed: PlacedLayer, facts: Facts) -> Facts:
    """Return the options that the data has of a layer, as the layer has them."""
    words = [word for word in facts if word in OPTIONS]
    either = isinstance(placed.layer, Flatten) and placed.input_shape[1:] == (1, 1)  # the order of one position
    if either or isinstance(placed.layer, GlobalAvgPool2d):
        words = []
    return {word: option(placed.layer, word) for word in words}


Claim = tuple[str, object, object]
"""What is compared, what vggkit says of it, and what the original does."""


def wrong(claims: Iterable[Claim]) -> list[Claim]:
    """Return the claims that do not hold."""
    return [(what, ours, originals) for what, ours, originals in claims if ours != originals]


@every_network
def test_what_is_said_of_a_network_is_true_of_the_original(name: str, tmp_path: Path) -> None:
    """Each layer of the analyzer, the totals, the names, the memory of a step, and the file that describes it."""
    network = Network.of(name)
    assert wrong(layers_claims(network)) == []
    assert wrong(totals_claims(name)) == []
    assert wrong(memory_claims(name)) == []
    assert wrong(file_claims(name, tmp_path / "x.yaml")) == []


def layers_claims(network: Network) -> Iterator[Claim]:
    """Layers in order with every option, shapes, parameters, MACs, receptive fields, strides, and original names.

    conv4_3, fc6, fc8a, conv4_3_CPM are found as layers; RepVGG's dots are underscores, as a module's name has none.
    """
    facts = FAMILY[network.name]
    yield "input", list(network.input_shape), facts["input"]
    yield "output", list(network.output_shape), facts["out_shape"]
    kinds, originals = [placed.layer.keyword for placed in network], [kind_of(layer["op"]) for layer in facts["layers"]]
    yield "kinds", kinds, originals
    if kinds != originals:
        return  # no layer stands beside its own
    for placed, layer in zip(network, facts["layers"]):
        own, x, norm = options(placed, layer), placed.input_shape, placed.layer.role == "norm"
        sizes = {word: prod(shape) for word, shape in placed.layer.parameters(x).items()}
        half = layer.get("norm", 0) // 2  # of a norm the data has weights and biases together
        yield f"{placed.name}: output", list(placed.output_shape), layer["out_shape"]
        yield f"{placed.name}: options", own, {word: layer[word] for word in own}
        yield f"{placed.name}: weights", sizes.get("weight", 0), half if norm else layer.get("w", 0)
        yield f"{placed.name}: biases", sizes.get("bias", 0), half if norm else layer.get("b", 0)
        yield f"{placed.name}: MACs", placed.layer.multiply_accumulates(x), layer.get("macs", 0)
        if "rf" in layer:
            yield f"{placed.name}: receptive field", list(placed.receptive_field), layer["rf"]
            yield f"{placed.name}: stride", list(placed.stride), layer["jump"]
        if original := layer.get("name"):
            yield f"{placed.name} by its original name", network.layer(original.replace(".", "_")) is placed, True


def totals_claims(name: str) -> Iterator[Claim]:
    """Parameters, of which weights and biases, and multiply-accumulates."""
    facts, totals = FAMILY[name], vggkit.summarize(name).totals
    yield "parameters", totals.parameters, facts["params_total"]
    yield "all but buffers", totals.weights + totals.biases, facts["weights"] + facts["biases"] + facts["norm_affine"]
    yield "MACs", totals.multiply_accumulates, facts["macs_total"]
    yield "MACs of conv and FC", totals.multiply_accumulates, facts["macs_conv"] + facts["macs_fc"]


def memory_claims(name: str) -> Iterator[Claim]:
    """Float32 parameters and the same of momentum, whatever else a step holds, and a class for each place of maps."""
    facts, by_kind = FAMILY[name], vggkit.memory(name, batch=2).by_kind
    yield "bytes of parameters", by_kind["parameters"], 4 * facts["params_total"]
    yield "bytes of momentum", by_kind["optimizer"], 4 * facts["params_total"]
    yield "bytes of input", by_kind["inputs"], 2 * (4 * prod(facts["input"]) + 8 * prod(facts["out_shape"][1:]))


def file_claims(name: str, dumped: Path) -> Iterator[Claim]:
    """Schema, name, source and note; what `show` prints is the whole network, and `validate` accepts it."""
    lines, config = path(name).read_text(encoding="utf-8").splitlines(), vggkit.load(name)
    yield "its first lines", lines[:2], ["# yaml-language-server: $schema=../schema.json", f"name: {name}"]
    yield "that its lines are short", max(map(len, lines)) <= 120, True
    yield "its name", config.name, name
    yield "that it has source and note", (bool(config.source), bool(config.note)), (True, True)
    yield "loaded from its path", vggkit.load(path(name)), config
    yield "its dump", vggkit.loads(vggkit.dump(config, dumped)), config
    yield "its dump in a file", vggkit.load(dumped), config
    for file in (dumped, path(name)):
        yield f"validate {file}", CliRunner().invoke(main, ["validate", str(file)]).exit_code, 0


# What it becomes: the built model


@every_network
def test_the_built_model_is_the_original(name: str, tmp_path: Path) -> None:
    """Its sizes and shapes are the original's, features are found by the original's names, and weights are kept."""
    model = vggkit.build(name, device="meta").eval()
    assert wrong(model_claims(model)) == []
    assert wrong(features_claims(model)) == []
    assert wrong(weights_claims(name, tmp_path / "x.safetensors")) == []


def model_claims(model: vggkit.VGG) -> Iterator[Claim]:
    """The parameters and buffers of torch's modules, and the shape of each output in a pass without values."""
    facts = FAMILY[model.network.name]
    yield "parameters", sum(parameter.numel() for parameter in model.parameters()), facts["params_total"]
    yield "buffers", sum(buffer.numel() for buffer in model.buffers()), facts["buffers"]
    shapes: dict[str, list[int]] = {}
    for placed in model.network:
        if placed.layer.keyword != "soft-max":
            model.get_submodule(placed.module).register_forward_hook(
                lambda _module, _x, y, name=placed.name: shapes.update({name: list(y.shape[1:])})
            )
    model(torch.empty(1, *facts["input"], device="meta"))
    layers = [layer for layer in facts["layers"] if layer["op"] != "softmax"]
    yield "outputs", list(shapes.values()), [layer["out_shape"] for layer in layers]


def features_claims(model: vggkit.VGG) -> Iterator[Claim]:
    """Every layer that the original names can be tapped by that name."""
    facts = FAMILY[model.network.name]
    layers = {layer["name"].replace(".", "_"): layer["out_shape"] for layer in facts["layers"] if "name" in layer}
    layers = layers or {next(iter(model.network)).name: facts["layers"][0]["out_shape"]}  # or by ours
    taps = vggkit.features(model, layers)(torch.empty(1, *facts["input"], device="meta"))
    yield "features", {word: list(tap.shape[1:]) for word, tap in taps.items()}, layers


def weights_claims(name: str, file: Path) -> Iterator[Claim]:
    """A narrow copy is saved with its configuration, and loaded."""
    table = name.endswith("_gn")  # widths that its table of groups has
    model = vggkit.build(name, width=None if table else "0.05 ceil", seed=1)
    vggkit.save_weights(model, file)
    loaded = vggkit.load_model(file)
    yield "its configuration in the file", loaded.config, model.config
    for (word, one), (other_word, other) in zip(model.named_parameters(), loaded.named_parameters()):
        yield word, (other_word, torch.equal(one, other)), (word, True)


# What it costs

ODDITIES = {
    "asymmetric pools": "blocks: [[conv3x1-4/2x1, {maxpool: 3x2, stride: 2x1, padding: 1x0}],"
    " [conv1x4-6, {avgpool: 2x1, stride: 2x1}]]\ndefaults: {conv: {padding: 0}}\nclassifier: [FC-5]\ninput: 1x20x9",
    "group norm by a table": "{extends: cifar_vgg11_gn, classifier: [global-avgpool, FC-10]}",
    "ceil_mode": "{extends: espnet_vgg2l, input: 1x30x21, overrides: {width: 0.1}, classifier: [FC-7]}",
    "no bias": "{extends: slim_vgg19_p0.7}",
    "average pools": "{extends: panns_cnn14_trunk, input: 1x75x64, overrides: {width: 0.05}, classifier: [FC-5]}",
    "hwc flatten": "{extends: mnist_vgg16_4pool, input: 1x48x40, overrides: {width: 0.1}}",
    "batch norm behind the activation": "{extends: cifar_geifman_vgg16, input: 3x64x64, overrides: {width: 0.1}}",
    "pools before batch norm, log-softmax": "{extends: binarynet_pytorch_vgg, overrides: {width: 0.05}}",
    "local response norm": "{extends: cnn_m, input: 3x80x90, overrides: {width: 0.1}}",
    "groups": "{extends: vgg16_cam_caffe, overrides: {width: 0.0625}, input: 3x224x240}",
    "strides and dropout on the input": "{extends: allcnn_c, overrides: {width: 0.2}}",
    "dilation, maps at the end": "{extends: ssd300_vgg16_base, input: 3x100x90, overrides: {width: 0.1}}",
    "padding of 35": "{extends: hed_trunk, input: 3x20x30, overrides: {width: 0.1}}",
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_verify_finds_every_claim_of_each_oddity_true(oddity: str) -> None:
    """Parameters and shapes by torchinfo, multiply-accumulates by torch, saved bytes and both peaks by the trackers."""
    claims = list(verify.verify(Network.of(vggkit.loads(ODDITIES[oddity])), StepOptions(batch=2)))
    assert [claim for claim in claims if not claim.holds] == []
    assert len(claims) > 5


def test_all_70_are_set_side_by_side() -> None:
    """`compare` has each one's figures, in the order in which they were named."""
    comparison = vggkit.compare(*FAMILY)
    assert [one.name for one in comparison.networks] == list(FAMILY)
    for one, facts in zip(comparison.networks, FAMILY.values()):
        assert one.summary.totals.parameters == facts["params_total"]
        assert one.summary.totals.multiply_accumulates == facts["macs_total"]


@pytest.mark.parametrize("kind", ["architecture", "cost", "receptive"])
@pytest.mark.parametrize("name", ["panns_cnn14_trunk", "cnn_f", "allcnn_c", "repvgg_a0_deploy", "cifar_vgg16_gn"])
def test_it_is_drawn(name: str, kind: str, tmp_path: Path) -> None:
    """Trunks, strides for pools, inputs that are not square: every picture is made."""
    done = CliRunner().invoke(main, ["plot", name, "--kind", kind, "-o", str(tmp_path / "x.svg")])
    assert (done.exit_code, done.exception) == (0, None)
    assert name in (tmp_path / "x.svg").read_text(encoding="utf-8")


# How it is written


def test_the_files_are_the_70_networks_and_short() -> None:
    """None over 40 lines, the median under 15."""
    lengths = [len(path(name).read_text(encoding="utf-8").splitlines()) for name in zoo.family_names()]
    assert sorted(zoo.family_names()) == sorted(FAMILY)
    assert len(lengths) == 70
    assert max(lengths) <= 40
    assert median(lengths) < 15


def test_related_files_extend_and_do_not_copy() -> None:
    """No two files write the same blocks."""
    written: dict[str, str] = {}
    for name in zoo.family_names():
        blocks = yaml.safe_load(path(name).read_text(encoding="utf-8")).get("blocks")
        if isinstance(blocks, list):
            assert written.setdefault(json.dumps(blocks), name) == name


PAGE = (zoo.folder().parent / "docs" / "notation.md").read_text(encoding="utf-8")
FORMS = re.findall(r"^\| `(.+)` \| `(\w[\w.]*)` \|$", PAGE.split("## Each form")[1].split("## Names")[0], re.MULTILINE)


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_a_form_of_the_grammar_page_stands_in_the_network_that_it_names(form: str, name: str) -> None:
    """Word for word, in the file as it is written."""
    assert form in path(name).read_text(encoding="utf-8")


def test_the_grammar_page_shows_forms_of_every_kind_that_the_family_uses() -> None:
    """A kind or option that a file uses is on the page with a network."""
    assert len(FORMS) > 35
    shown = " ".join(form for form, _ in FORMS)
    words = {placed.layer.keyword for name in FAMILY for placed in Network.of(name)} - {"relu", "soft-max"}
    assert all(re.search(rf"\b{word}", shown, re.IGNORECASE) for word in words)


# How it is found


def plain(name: str) -> str:
    """Take away what doesn't matter in a name."""
    return re.sub("[-_ ]", "", name).lower()


def test_every_name_and_alias_finds_one_network() -> None:
    """In all, the paper's included; and as files are searched for them without being parsed."""
    known = {name: [name, *vggkit.load(name).aliases] for name in (*zoo.names(), *zoo.family_names())}
    every = [plain(word) for words in known.values() for word in words]
    assert len(set(every)) == len(every)
    assert sorted(zoo.known_names()) == sorted(word for words in known.values() for word in words)
    for name, words in known.items():
        for word in words:
            assert vggkit.load(word).name == vggkit.load(word.upper().replace("-", "_")).name == name


def test_the_shell_completes_names_and_aliases() -> None:
    """As for the paper's."""

    def completed(begun: str) -> set[str]:
        return {item.value for item in configurations(Context(main), Option(["--x"]), begun)}

    assert {"slim_vgg19", "slim_vgg19_p0.7", "slimming_vgg19"} <= completed("slim")
    assert "SSD300" in completed("ssd")


@pytest.mark.parametrize(
    ("name", "nearest"), [("ssd", "SSD300"), ("vgg_fce", "vgg_face"), ("places365", "places365_vgg16")]
)
def test_a_misspelt_name_is_told_with_the_nearest(name: str, nearest: str) -> None:
    """By its beginning, or by its letters."""
    with pytest.raises(ConfigError, match=f"unknown configuration '{name}'. Did you mean '{nearest}'"):
        vggkit.load(name)


@pytest.mark.parametrize("name", ["D", "vgg16", "vgg16_bn", "cnn_f", "SSD300"])
def test_finding_one_parses_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for 70 files to be parsed."""
    spy = Mock(wraps=zoo.parse_config)
    monkeypatch.setattr(zoo, "parse_config", spy)
    zoo._shipped.cache_clear()  # as in a process that has read none
    zoo.load(name)
    assert spy.call_count == (2 if name == "SSD300" else 1)  # SSD300 extends D


def test_the_family_is_listed_with_its_notes() -> None:
    """In every format; `vggkit list` alone stays the paper's six."""
    data = json.loads(CliRunner().invoke(main, ["list", "--family", "--format", "json"]).stdout)
    assert {row["name"]: row["parameters"] for row in data} == {n: facts["params_total"] for n, facts in FAMILY.items()}
    assert all(row["note"] == vggkit.load(row["name"]).note for row in data)
    for format in ("table", "csv", "markdown"):
        text = CliRunner().invoke(main, ["list", "--family", "--format", format], env={"COLUMNS": "300"}).stdout
        text = text.replace("\\", "")  # Markdown's
        assert all(row["name"] in text and row["note"] in text for row in data)
    rows = csv.DictReader(CliRunner().invoke(main, ["list", "--family", "--format", "csv"]).stdout.splitlines())
    assert [row["aliases"] for row in rows] == ["; ".join(row["aliases"]) for row in data]
    assert len(json.loads(CliRunner().invoke(main, ["list", "--format", "json"]).stdout)) == 6


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, ["name", "what is different"]),
        (80, ["name", "parameters", "what is different"]),
        (100, ["name", "parameters", "MACs", "what is different"]),
        (140, ["name", "input", "weight layers", "parameters", "MACs", "what is different"]),
        (300, ["name", "aliases", "input", "weight layers", "parameters", "MACs", "what is different"]),
    ],
)
def test_a_narrow_list_of_the_family_keeps_names_and_what_is_different(width: int, shown: list[str]) -> None:
    """A network's name is on one line; what is different about it is folded, and all of it is there."""
    text = CliRunner().invoke(main, ["list", "--family"], env={"COLUMNS": str(width)}).stdout
    lines = text.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    assert re.split(" {2,}", lines[0].strip()) == shown
    assert [line.split()[0] for line in lines[2:] if line[:1].islower()] == zoo.family_names()
    start = lines[0].index("what is different")
    notes = " ".join(" ".join(line[start:] for line in lines[2:]).split())
    assert all(str(vggkit.load(name).note) in notes for name in zoo.family_names())


# What is told apart


def test_padded_1x1_convolutions_are_not_configuration_c() -> None:
    """The parameters are C's, and the shapes, the multiply-accumulates and every later map are not."""
    padded = "{extends: C, blocks: {3: [conv3-256, conv3-256, {conv: 256, kernel: 1, padding: 1}, maxpool]}}"
    c, other = vggkit.summarize("C"), vggkit.summarize(vggkit.loads(padded))
    weights = [row.weights for row in c if row.block]
    assert [row.weights for row in other if row.block] == weights
    assert [row.output_shape for row in other] != [row.output_shape for row in c]
    assert other.totals.multiply_accumulates > c.totals.multiply_accumulates
    model = vggkit.build(vggkit.loads(padded), device="meta")
    assert list(model.forward_features(torch.empty(1, 3, 224, 224, device="meta")).shape[1:]) == [512, 7, 7]


def test_32_groups_of_49_channels_are_refused_on_one_line() -> None:
    """As a pruned network's group norm is met; torch refuses it, too, with three."""
    with pytest.raises(ValueError, match="must be divisible"):
        nn.GroupNorm(32, 49)
    with pytest.raises(ConfigError) as caught:
        Network.of(vggkit.loads("blocks: [[{conv: 49, norm: group}]]", "x.yaml"))
    assert str(caught.value) == "x.yaml:1:11: block1_norm1: 32 groups do not divide its 49 channels"


def test_a_width_without_groups_is_refused_on_one_line() -> None:
    """A table has no groups for the widths of a narrower network."""
    with pytest.raises(ConfigError) as caught:
        Network.of("cifar_vgg16_gn", width=0.5)
    assert str(caught.value).endswith("block1_norm1: its table of groups has no 32 channels, only 64, 128, 256, 512")
    settled = [placed.layer for placed in Network.of("cifar_vgg16_gn") if isinstance(placed.layer, GroupNorm)]
    assert [layer.num_groups for layer in settled] == [8] * 4 + [16] * 3 + [32] * 6

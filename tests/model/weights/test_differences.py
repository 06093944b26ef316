"""What a file says of its own network is compared with what it is loaded into; the judge is the source model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import vggkit
from tests.cli.test_app import run
from tests.conftest import sample
from tests.drawn import configs
from tests.model.weights.makers import LAYOUT_FILES, images
from vggkit import VGG, CheckpointError
from vggkit.model.weights.conversion import convert
from vggkit.model.weights.inspection import inspect
from vggkit.notation.config import Config

PLAIN = """
name: plain
input: 3x16x16
blocks: [[conv3-4, conv3-6, maxpool], [conv3-6, maxpool]]
classifier: [FC-5, FC-3, soft-max]
"""
NORMED = PLAIN.replace("input", "defaults: {conv: {norm: batch}}\ninput")

CASES: dict[str, tuple[str, tuple[str, str], list[str]]] = {
    "activation": (
        PLAIN, ("[conv3-4,", "[{conv: 4, activation: gelu},"),
        ["block1_conv1: the file's activation is gelu, this configuration's relu"],
    ),
    "activation of FC": (
        PLAIN, ("[FC-5,", "[{FC: 5, activation: tanh},"),
        ["fc1: the file's activation is tanh, this configuration's relu"],
    ),
    "activation behind scores": (
        PLAIN, ("FC-3,", "{FC: 3, activation: sigmoid},"),
        ["predictions: the file's activation is sigmoid, this configuration's none"],
    ),
    "no activation": (
        PLAIN, ("[conv3-6,", "[{conv: 6, activation: none},"),
        ["block2_conv1: the file's activation is none, this configuration's relu"],
    ),
    "pool's kind": (
        PLAIN, ("[conv3-6, maxpool]", "[conv3-6, avgpool]"),
        ["block2_pool: the file's pool is avgpool, this configuration's maxpool"],
    ),
    "pool's window": (
        PLAIN, ("[conv3-6, maxpool]", "[conv3-6, {maxpool: 3, padding: 1}]"),
        [
            "block2_pool: the file's kernel is 3, this configuration's 2",
            "block2_pool: the file's padding is 1, this configuration's 0",
        ],
    ),
    "pool's place": (
        PLAIN, ("[conv3-4, conv3-6, maxpool]", "[conv3-4, maxpool, conv3-6]"),
        [
            "block1_conv1: behind it the file has maxpool, this configuration has none",
            "block1_pool: the file has no maxpool there, this configuration has",
        ],
    ),
    "epsilon": (
        NORMED, ("[conv3-4,", "[{conv: 4, norm: {batchnorm: {eps: 0.5}}},"),
        ["block1_norm1: the file's eps is 0.5, this configuration's 1e-05"],
    ),
    "order of norm and activation": (
        NORMED, ("[conv3-4,", "[{conv: 4, norm: none, activation: none}, relu, batchnorm,"),
        ["block1_conv1: behind it the file has relu, batchnorm, this configuration batchnorm, relu"],
    ),
    "padding mode": (
        PLAIN, ("[conv3-4,", "[{conv: 4, padding_mode: reflect},"),
        ["block1_conv1: the file's padding_mode is reflect, this configuration's zeros"],
    ),
    "dilation": (
        PLAIN, ("[conv3-4,", "[{conv: 4, dilation: 2, padding: 2},"),
        [
            "block1_conv1: the file's padding is 2, this configuration's 1",
            "block1_conv1: the file's dilation is 2, this configuration's 1",
        ],
    ),
    "stride": (
        PLAIN, ("[conv3-4, conv3-6, maxpool]", "[conv3-4, conv3-6/2]"),
        [
            "block1_conv2: the file's stride is 2, this configuration's 1",
            "block1_pool: the file has no maxpool there, this configuration has",
        ],
    ),
    "LRN": (
        PLAIN, ("[conv3-4,", "[conv3-4, {LRN: 3, alpha: 0.5},"),
        ["block1_conv1: behind it the file has LRN, this configuration has none"],
    ),
    "LRN's options": (
        PLAIN.replace("[conv3-4,", "[conv3-4, {LRN: 3, k: 1},"), ("k: 1", "k: 2"),
        ["block1_lrn: the file's k is 2.0, this configuration's 1.0"],
    ),
    "number of groups": (
        PLAIN.replace("[conv3-4,", "[conv3-4, {groupnorm: 2},"), ("{groupnorm: 2}", "{groupnorm: 1}"),
        ["block1_norm1: the file's groups is 1, this configuration's 2"],
    ),
    "group norm for batch norm": (
        PLAIN.replace("[conv3-4,", "[conv3-4, {batchnorm: {track_running_stats: false}},"),
        ("{batchnorm: {track_running_stats: false}}", "{groupnorm: 2}"),
        ["block1_conv1: the file's norm is groupnorm, this configuration's batchnorm"],
    ),
    "before all": (
        PLAIN, ("[conv3-4,", "[{avgpool: 3, stride: 1, padding: 1}, conv3-4,"),
        ["input: behind it the file has avgpool, this configuration has none"],
    ),
    "maps of another shape": (
        PLAIN.replace("3x16x16", "3x16x8"), ("3x16x8", "3x8x16"),
        ["fc1: the file's takes maps of 6×2×4, this configuration's 6×4×2"],
    ),
}  # fmt: skip
"""A configuration, what the file's has otherwise, and what is said."""

OWN = sample([layout for layout in LAYOUT_FILES if layout != "timm"], ["torchvision", "vggkit"])
"""All but timm's, which has three FC layers."""


def config_of(case: str) -> tuple[Config, Config]:
    """Return the wanted configuration and the file's."""
    text, (old, new), _ = CASES[case]
    assert text.count(old) == 1
    return vggkit.loads(text), vggkit.loads(text.replace(old, new))


def filled(config: Config) -> VGG:
    """Return a model whose every parameter and statistic has values that matter."""
    model = vggkit.build(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            shift = 0.5 if name.endswith("running_var") else -0.4
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + shift)
    return model.eval()


def saved(model: VGG, layout: str, folder: Path) -> Path:
    """Save a model in a layout; each carries the configuration."""
    vggkit.save_weights(model, folder / "own")
    if layout == "vggkit":
        return folder / "own"
    convert(folder / "own", folder / LAYOUT_FILES[layout], layout=layout)
    return folder / LAYOUT_FILES[layout]


def outputs(model: VGG, source: VGG) -> torch.Tensor:
    """Return a model's outputs of images that fit its source as well, if any do."""
    x = images(source.network, batch=4)
    with torch.no_grad():
        result: torch.Tensor = model.eval()(x if x.shape[1:] == model.network.input_shape else x.transpose(2, 3))
    return result


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Tell whether outputs are equal up to the rounding of another order of sums (the weights' columns move)."""
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", OWN)
@pytest.mark.parametrize("case", CASES)
def test_what_would_change_the_answers_is_refused_or_noted(
    case: str, layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each difference in the network's terms; loaded all the same, it is noted, and the answers are others."""
    wanted, own = config_of(case)
    source, said = filled(own), CASES[case][2]
    path = saved(source, layout, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        vggkit.build(wanted, weights=path)
    for line in said:
        assert line in str(caught.value)
    assert "strict=False loads its weights into this one all the same" in str(caught.value)
    with caplog.at_level(logging.WARNING, "vggkit"):
        loaded = vggkit.build(wanted, weights=path, strict=False)
    assert loaded.report is not None
    assert list(loaded.report.notes) == said
    assert [record.getMessage() for record in caplog.records] == said
    assert list(inspect(path, vggkit.Network.of(wanted)).notes) == said
    expected = outputs(source, source)
    assert expected.std() > 0
    assert not same(outputs(loaded, source), expected)
    again = vggkit.load_model(path)
    assert again.report is not None
    assert again.report.notes == ()
    assert same(outputs(again, source), expected)
    with pytest.raises(CheckpointError, match="leave --config out"):
        convert(path, tmp_path / "x.safetensors", config=vggkit.Network.of(wanted))


SAME: dict[str, tuple[str, tuple[str, str]]] = {
    "dropout": (PLAIN, ("FC-5", "{FC: 5, dropout: 0.2}")),
    "name and source": (PLAIN, ("name: plain", "name: other\nsource: somewhere")),
    "budget": (PLAIN, ("name: plain", "name: plain\nbudget: {parameters: 1}")),
    "in place": (PLAIN, ("[conv3-4", "[{conv: 4, activation: {relu: {inplace: false}}}")),
    "padding as a number": (PLAIN, ("[conv3-4", "[{conv: 4, padding: 1}")),
    "padding mode without padding": (
        PLAIN.replace("[conv3-4", "[{conv: 4, kernel: 1}"), ("kernel: 1", "kernel: 1, padding_mode: circular")
    ),
    "momentum": (
        PLAIN.replace("[conv3-4", "[{conv: 4, norm: batch}"), ("norm: batch", "norm: {batchnorm: {momentum: 0.5}}")
    ),
    "no slope": (PLAIN, ("[conv3-4", "[{conv: 4, activation: {leaky-relu: 0}}")),
    "average of everything": (
        PLAIN.replace("[FC-5", "[global-avgpool, FC-5"), ("global-avgpool", "{adaptive-avgpool: 1}")
    ),
    "soft-max": (PLAIN, (", soft-max", "")),
    "adaptive pool of the same size": (PLAIN, ("[FC-5", "[{adaptive-avgpool: 4}, FC-5")),
    "input of an average": (PLAIN.replace("[FC-5", "[global-avgpool, FC-5"), ("3x16x16", "3x24x16")),
    "order of flattened maps": (PLAIN, ("[FC-5", "[{flatten: hwc}, FC-5")),
    "the other order": (PLAIN.replace("[FC-5", "[{flatten: hwc}, FC-5"), ("{flatten: hwc}", "{flatten: chw}")),
    "order before a batch norm": (PLAIN.replace("[FC-5", "[flatten, batchnorm, FC-5"), ("flatten", "{flatten: hwc}")),
    "FC layers as convolutions": (
        PLAIN.replace("[FC-5, FC-3", "[{conv: 5, kernel: 4, padding: 0}, {conv: 3, kernel: 1, activation: none},"
                      " global-avgpool, flatten"),
        ("[{conv: 5, kernel: 4, padding: 0}, {conv: 3, kernel: 1, activation: none}, global-avgpool, flatten",
         "[FC-5, FC-3"),
    ),
    "FC layers as convolutions, hwc": (
        PLAIN.replace("[FC-5, FC-3", "[{conv: 5, kernel: 4, padding: 0}, {conv: 3, kernel: 1, activation: none},"
                      " global-avgpool, flatten"),
        ("[{conv: 5, kernel: 4, padding: 0}, {conv: 3, kernel: 1, activation: none}, global-avgpool, flatten",
         "[{flatten: hwc}, FC-5, FC-3"),
    ),
}  # fmt: skip
"""A configuration, and what the file's has otherwise without other answers."""


@pytest.mark.parametrize("layout", OWN)
@pytest.mark.parametrize("case", SAME)
def test_what_changes_no_answer_is_no_difference(
    case: str, layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It loads without a note, into a model of the same outputs; the order of flattened maps is converted."""
    text, (old, new) = SAME[case]
    assert text.count(old) == 1
    wanted, source = vggkit.loads(text), filled(vggkit.loads(text.replace(old, new)))
    if "convolutions" in case and layout.startswith("keras"):
        pytest.skip("Keras's order of axes tells a convolution from an FC layer")
    path = saved(source, layout, tmp_path)
    with caplog.at_level(logging.WARNING, "vggkit"):
        loaded = vggkit.build(wanted, weights=path)
    assert loaded.report is not None
    assert loaded.report.notes == ()
    assert caplog.records == []
    x = images(source.network, batch=4)
    with torch.no_grad():
        assert same(loaded.eval()(x), source(x))
    assert inspect(path, vggkit.Network.of(wanted)).notes == ()


def test_a_replaced_head_is_not_compared(tmp_path: Path) -> None:
    """With head='new' only the blocks' differences count, and features compare no classifier either."""
    other = PLAIN.replace("[FC-5", "[{FC: 7, activation: gelu}, {FC: 5, activation: tanh}")
    path = saved(filled(vggkit.loads(other)), "vggkit", tmp_path)
    model = vggkit.build(vggkit.loads(PLAIN), weights=path, head="new")
    assert model.report is not None
    assert model.report.notes == ()
    vggkit.features(vggkit.loads(PLAIN), ["block2_pool"], weights=path)
    changed = vggkit.loads(PLAIN.replace("[conv3-6, maxpool]", "[conv3-6, avgpool]"))
    for options in ({"head": "new"}, {"include_top": False}):
        with pytest.raises(CheckpointError, match="block2_pool: the file's pool is maxpool, this configuration's avgp"):
            vggkit.build(changed, weights=path, **options)  # type: ignore[arg-type] # a mapping of mixed values
    with pytest.raises(CheckpointError, match="block2_pool: the file's pool is maxpool"):
        vggkit.features(changed, ["block2_pool"], weights=path)
    assert vggkit.features(changed, ["block2_pool"], weights=path, strict=False)


def test_layers_that_a_trunk_leaves_out_are_told(tmp_path: Path) -> None:
    """Names and shapes of a shorter trunk are all in the file, but its network has a layer between them."""
    deep = "{name: deep, input: 3x8x8, blocks: [[conv3-4, conv3-4, maxpool], [conv3-4]], classifier: [FC-3]}"
    path = saved(filled(vggkit.loads(deep)), "vggkit", tmp_path)
    shallow = vggkit.loads(deep.replace("conv3-4, conv3-4", "conv3-4"))
    with pytest.raises(CheckpointError, match="block2_conv1: the file has block1_conv2 before it"):
        vggkit.build(shallow, weights=path, head="new")


def test_what_fits_is_compared_where_something_does_not(tmp_path: Path) -> None:
    """strict=False: the misfit and the other answer are both noted; strict tells the misfit first."""
    source = filled(vggkit.loads(PLAIN.replace("[conv3-4,", "[{conv: 4, activation: gelu},")))
    path = saved(source, "vggkit", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        vggkit.build(vggkit.loads(PLAIN), num_classes=9, weights=path)
    assert "gelu" not in str(caught.value)
    model = vggkit.build(vggkit.loads(PLAIN), num_classes=9, weights=path, strict=False)
    assert model.report is not None
    first, second = model.report.notes
    assert first.startswith("predictions: checkpoint has 3 classes, model has 9")
    assert second == "block1_conv1: the file's activation is gelu, this configuration's relu"
    assert first in str(model.report)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{blocks: [[nonsense]]}", "the file's own configuration can't be used: .*nonsense"),
        ("{name: liar, blocks: [[conv3-9]]}", "what the file says of its network is not of its tensors: block1_conv1"),
    ],
)
def test_a_configuration_that_is_wrong_is_no_leave_to_load(text: str, words: str, tmp_path: Path) -> None:
    """A file that says nonsense of itself, or what its tensors don't bear out, is refused unless strict=False."""
    source = filled(vggkit.loads(PLAIN))
    save_file(source.state_dict(), tmp_path / "x", {"vggkit.config": text})
    with pytest.raises(CheckpointError, match=words):
        vggkit.build(vggkit.loads(PLAIN), weights=tmp_path / "x")
    model = vggkit.build(vggkit.loads(PLAIN), weights=tmp_path / "x", strict=False)
    assert model.report is not None
    assert len(model.report.notes) == 1
    assert torch.equal(outputs(model, source), outputs(source, source))


def test_the_commands_say_it(tmp_path: Path) -> None:
    """Exit 2 with the difference from classify and convert, 1 from inspect, which lists it."""
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text(PLAIN)
    path = saved(filled(vggkit.loads(PLAIN.replace("[conv3-4,", "[{conv: 4, activation: gelu},"))), "vggkit", tmp_path)
    line = "block1_conv1: the file's activation is gelu, this configuration's relu"
    from PIL import Image

    Image.new("RGB", (20, 20), "orange").save(tmp_path / "orange.png")
    commands: dict[str, list[Any]] = {
        "classify": [tmp_path / "orange.png", "--weights", path, "--preprocess", "torch"],
        "convert": [path, tmp_path / "x.pth"],
    }
    for command, arguments in commands.items():
        done = run(command, *map(str, arguments), "--config", str(wanted))
        assert (done.exit_code, line in done.stderr) == (2, True)
    assert not (tmp_path / "x.pth").exists()
    done = run("inspect", str(path), "--config", str(wanted), COLUMNS="200")
    assert (done.exit_code, line in done.stdout) == (1, True)


@pytest.mark.parametrize("from_file", [False, True])
def test_growing_converts_the_order_of_flattened_maps(from_file: bool, tmp_path: Path) -> None:
    """The paper's way from a shallow network to a deeper one, whose FC layer takes the maps in another order."""
    donor = filled(vggkit.loads(PLAIN.replace("[FC-5", "[{flatten: hwc}, FC-5")))
    source = saved(donor, "vggkit", tmp_path) if from_file else donor
    grown = vggkit.build(vggkit.loads(PLAIN), init_from=source)
    maps = torch.rand(2, 6, 4, 4)
    with torch.no_grad():
        assert same(grown.fc1(grown.flatten(maps)), donor.fc1(donor.flatten(maps)))


@given(text=configs(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_drawn_change_is_refused_or_the_outputs_are_equal(
    text: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For two configurations whose tensors have the same names and shapes, a silent load has the source's outputs."""
    own = vggkit.loads(text)
    wanted = data.draw(changed(own))
    source = filled(own)
    shapes = {name: tensor.shape for name, tensor in source.state_dict().items()}
    network = vggkit.Network.of(wanted)
    if not any(placed.layer.role == "weight" for placed in network):
        return
    loaded = vggkit.build(network, device="meta")
    if {name: tensor.shape for name, tensor in loaded.state_dict().items()} != shapes:
        return
    path = tmp_path_factory.mktemp("drawn") / "x"
    vggkit.save_weights(source, path)
    try:
        loaded = vggkit.build(network, weights=path).eval()
    except CheckpointError:
        return
    x = images(network, batch=2)
    with torch.no_grad():
        found, expected = loaded(x), source(x)
    assert found.numel() == expected.numel()
    torch.testing.assert_close(found.flatten(), expected.flatten(), rtol=1e-3, atol=1e-4, equal_nan=True)


SHAPING = ("out_channels", "kernel_size", "groups", "bias")
"""A convolution's options that the shapes of its tensors tell."""


@st.composite
def changed(draw: st.DrawFn, config: Config) -> Config:
    """Draw a configuration that differs in the options of some layers, or in a layer without parameters."""
    from msgspec.structs import replace

    from tests.drawn import ACTIVATIONS, long_form
    from vggkit.notation import spelling as notation

    def entry(old: Any) -> Any:
        if draw(st.integers(0, 2)):
            return old
        kind = type(old.layer)
        if kind.role != "weight":
            words = ACTIVATIONS if kind.role == "activation" else [kind.keyword]
            new = notation.parse(draw(long_form(draw(st.sampled_from(words))))).layer()
            return replace(old, layer=new)
        if draw(st.booleans()):
            new = notation.parse(draw(long_form(draw(st.sampled_from(ACTIVATIONS))))).layer()
            return replace(old, activation=draw(st.sampled_from([None, new])))
        if kind.keyword != "conv":
            return old
        options = notation.parse(draw(long_form("conv"))).fields
        return replace(old, layer=replace(old.layer, **{k: v for k, v in options.items() if k not in SHAPING}))

    new = replace(
        config,
        blocks=tuple(tuple(map(entry, block)) for block in config.blocks),
        classifier=tuple(map(entry, config.classifier)),
    )
    try:
        vggkit.Network.of(new)
    except vggkit.VggkitError:
        return config
    return new

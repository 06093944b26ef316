"""Converting: every tensor to the bit, there and back, and the libraries themselves read what is written."""

from __future__ import annotations

import math
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import nn
from torchvision.models import vgg as torchvisions

import vggkit
from tests.base.test_files import file_size_limit
from tests.cli.test_app import run, told
from tests.keras_process import Keras
from tests.model.test_peers import fill, take
from tests.model.weights.makers import LAYOUT_FILES, images, in_layout, scores, small, without_configuration
from vggkit import VGG, ArgumentError, CheckpointError, VggkitError
from vggkit.model.weights.checkpoint import Flattened
from vggkit.model.weights.conversion import convert
from vggkit.model.weights.layouts import LAYOUTS, open_checkpoint

pytestmark = pytest.mark.usefixtures("rehearsed_here")

PAIRS = [(*pair, "float32") for pair in permutations(LAYOUTS, 2)]
PAIRS += [
    (*pair, dtype) for dtype in ("float16", "bfloat16", "float64") for pair in pairwise([*LAYOUTS, next(iter(LAYOUTS))])
]
"""Every ordered pair, and a ring through all layouts for the other dtypes."""


def trunk(**changes: Any) -> VGG:
    """Return a small model without a classifier."""
    config = replace(small("B", **changes).config, classifier=())
    return vggkit.build(config, seed=0)


@pytest.mark.parametrize(("first", "second", "dtype"), PAIRS)
def test_there_and_back_gives_the_same_bytes(first: str, second: str, dtype: str, tmp_path: Path) -> None:
    """Through any two layouts, statistics and counters of batch norm and the configuration included."""
    own, back = tmp_path / "own.safetensors", tmp_path / "back.safetensors"
    vggkit.save_weights(small("vgg13_bn", dtype=dtype), own)
    one, two = tmp_path / f"one-{LAYOUT_FILES[first]}", tmp_path / f"two-{LAYOUT_FILES[second]}"
    if dtype == "bfloat16" and "keras" in first + second:
        with pytest.raises(CheckpointError, match="HDF5 has no bfloat16; it can't be written there unchanged"):
            convert(own, two if "keras" in second else one, layout=second if "keras" in second else first)
        return
    convert(own, one, layout=first)
    convert(one, two, layout=second)
    convert(two, back)
    assert [open_checkpoint(path).layout.name for path in (one, two)] == [first, second]
    assert back.read_bytes() == own.read_bytes()


@pytest.mark.parametrize("norm", ["", "batchnorm, "])
def test_torchvisions_layout_flattens_as_pytorch_does(norm: str, tmp_path: Path) -> None:
    """Of a network that flattens as Keras does, PyTorch's own modules give the same scores, as does what is read."""
    model = vggkit.build(
        vggkit.loads(
            "{name: x, input: 3x8x8, blocks: [[conv3-4, maxpool]],"
            f" classifier: [{{flatten: hwc}}, {norm}FC-5, FC-3, soft-max]}}"
        ),
        seed=0,
    ).eval()
    model.load_state_dict(fill(model))
    vggkit.save_weights(model, tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / "x.pth")
    classifier = [nn.BatchNorm1d(64)] if norm else []
    classifier += [nn.Linear(64, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)]
    theirs = nn.Module()
    theirs.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    theirs.classifier = nn.Sequential(*classifier)
    theirs.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True))
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = theirs.eval().classifier(theirs.features(x).flatten(1))
        assert torch.allclose(said, model(x), atol=1e-6)  # sums run in another order
        assert torch.allclose(vggkit.load_model(tmp_path / "x.pth").eval()(x), said, atol=1e-6)  # as above


def test_timms_first_fc_layer_is_a_convolution_over_the_maps_whatever_their_order(tmp_path: Path) -> None:
    """Of a network that flattens as Keras does, too: its kernel has the maps' channels, height and width."""
    text = "{name: x, input: 3x8x8, blocks: [[conv3-4, maxpool]], classifier: [{flatten: hwc}, FC-6, FC-5, FC-3]}"
    model = vggkit.build(vggkit.loads(text), seed=0).eval()
    vggkit.save_weights(model, tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / "x.bin")
    state = torch.load(tmp_path / "x.bin", weights_only=True)
    assert state["pre_logits.fc1.weight"].shape == (6, 4, 4, 4)
    assert state["pre_logits.fc2.weight"].shape == (5, 6, 1, 1)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model.block1(x)
        said = torch.nn.functional.conv2d(maps, state["pre_logits.fc1.weight"], state["pre_logits.fc1.bias"]).flatten(1)
        assert torch.allclose(said, model.fc1(model.flatten(maps)), atol=1e-6)  # a convolution sums in another order


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "model",
    [small("A-LRN"), small("C"), small("E", head="gap"), small("D", in_channels=1, input="1x32x96"), trunk()],
    ids=["A-LRN", "C", "gap", "grey oblong", "trunk"],
)
def test_other_networks_come_back_equal(model: VGG, layout: str, tmp_path: Path) -> None:
    """Local response normalisation, 1×1 kernels, other heads and none; or the layout has no place for it."""
    own, back = tmp_path / "own.safetensors", tmp_path / "back.safetensors"
    vggkit.save_weights(model, own)
    path = tmp_path / LAYOUT_FILES[layout]
    head = [placed for placed in model.network if placed.layer.role == "weight" and placed.block is None]
    if layout == "timm" and len(head) == 1:
        with pytest.raises(CheckpointError, match="timm's layout has three FC layers with biases behind the blocks"):
            convert(own, path, layout=layout)
        assert not path.exists()
        return
    convert(own, path, layout=layout)
    convert(path, back)
    assert back.read_bytes() == own.read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_without_its_configuration_keeps_its_tensors(layout: str, tmp_path: Path) -> None:
    """As another library's file has none: it is told from the shapes."""
    model = small("vgg16_bn")
    path = without_configuration(in_layout(model, layout, tmp_path))
    convert(path, tmp_path / "back.safetensors")
    found = vggkit.load_model(tmp_path / "back.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor), name


@given(
    maps=st.tuples(*[st.integers(1, 4)] * 3),
    units=st.integers(1, 4),
    kernel=st.tuples(*[st.integers(1, 3)] * 4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.int64]),
)
@settings(deadline=None)
def test_keras_axes_are_turned_there_and_back(
    maps: tuple[int, int, int], units: int, kernel: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    """Reading and writing are each other's inverse, and an FC layer gives the same sums on Keras's order of maps."""

    def values(*shape: int) -> torch.Tensor:
        return torch.arange(math.prod(shape)).reshape(shape).to(dtype)

    vector = values(units)
    layout, hwc, chw = LAYOUTS["keras"], Flattened(maps, "hwc"), Flattened(maps, "chw")
    for weight, to, back in (
        (values(*kernel), None, None),
        (values(units, math.prod(maps)), hwc, chw),
        (vector, None, None),
    ):
        written = layout.from_torch(weight, to)
        assert torch.equal(layout.to_torch(written, back), weight)
    picture = values(*maps).long()
    dense = values(units, math.prod(maps)).long()
    theirs = picture.permute(1, 2, 0).reshape(-1) @ layout.from_torch(dense, hwc)
    assert torch.equal(theirs, dense @ picture.reshape(-1))


# The libraries themselves


@pytest.mark.parametrize("batch_norm", [False, True])
def test_torchvision_loads_its_layout(batch_norm: bool, tmp_path: Path) -> None:
    """Strictly, into layers made by torchvision's own function, with the same scores to the last bit."""
    model = small("A", batch_norm=batch_norm or None, input="3x32x32")
    plan = [3, "M", 6, "M", 12, 12, "M", 25, 25, "M", 25, 25, "M"]
    theirs = torchvisions.VGG(torchvisions.make_layers(plan, batch_norm), num_classes=7, init_weights=False)
    theirs.avgpool = nn.Identity()
    hidden = [nn.Linear(25, 204), nn.ReLU(), nn.Dropout(), nn.Linear(204, 204), nn.ReLU(), nn.Dropout()]
    theirs.classifier = nn.Sequential(*hidden, nn.Linear(204, 7))
    path = in_layout(model, "torchvision", tmp_path)
    theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(theirs.eval()(images(model.network)), scores(model))


def test_torchvisions_own_model_loads_its_layout(tmp_path: Path) -> None:
    """A full one with batch norm, converted from timm's file, has timm's values."""
    theirs = timm.create_model("vgg11_bn", pretrained=False)
    take(theirs, fill(theirs).values())
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    convert(tmp_path / "timm.pth", tmp_path / "torchvision.pth")
    ours = torchvisions.vgg11_bn(weights=None, init_weights=False)
    ours.load_state_dict(torch.load(tmp_path / "torchvision.pth", weights_only=True, mmap=True), strict=True)
    assert torch.equal(ours.features[25].weight, theirs.features[25].weight)
    assert torch.equal(ours.classifier[0].weight, theirs.pre_logits.fc1.weight.flatten(1))
    convert(tmp_path / "torchvision.pth", tmp_path / "again.bin")
    again = torch.load(tmp_path / "again.bin", weights_only=True, mmap=True)
    with torch.device("meta"):
        fresh = timm.create_model("vgg11_bn", pretrained=False)
    fresh.load_state_dict(again, strict=True, assign=True)
    assert all(torch.equal(again[name], value) for name, value in theirs.state_dict().items())


KERAS = """
import keras, numpy, h5py
from keras import layers
from keras.src.legacy.saving import legacy_h5_format

def made(top, norm):
    x = image = keras.Input((64, 64, 3))
    for number, (channels, count) in enumerate([(3, 2), (6, 2), (12, 2), (25, 2), (25, 2)], start=1):
        for index in range(1, count + 1):
            x = layers.Conv2D(channels, 3, padding="same", name=f"block{number}_conv{index}")(x)
            if norm:
                x = layers.BatchNormalization(epsilon=1e-5, name=f"block{number}_norm{index}")(x)
            x = layers.ReLU(name=f"block{number}_relu{index}")(x)
        x = layers.MaxPooling2D(name=f"block{number}_pool")(x)
    if top:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(204, activation="relu", name="fc1")(x)
        x = layers.Dense(204, activation="relu", name="fc2")(x)
        x = layers.Dense(7, activation="softmax", name="predictions")(x)
    return keras.Model(image, x)

image = numpy.load("image.npy").transpose(0, 2, 3, 1)
for stem in ("top", "trunk", "top_bn", "trunk_bn"):
    for ending in (".h5", ".weights.h5"):
        model = made("top" in stem, "bn" in stem)
        if ending == ".h5":
            with h5py.File(stem + ending) as file:
                legacy_h5_format.load_weights_from_hdf5_group(file, model)
        else:
            model.load_weights(stem + ending)
        numpy.save(stem + ending, model.predict(image, verbose=0))
"""


def test_keras_loads_both_of_its_layouts(keras: Keras, tmp_path: Path) -> None:
    """With and without top, with and without batch norm: the same probabilities and maps to 1e-5."""
    import numpy

    models = {"top": small("B"), "trunk": trunk(), "top_bn": small("vgg13_bn"), "trunk_bn": trunk(batch_norm=True)}
    for stem, model in models.items():
        vggkit.save_weights(model, tmp_path / f"{stem}.safetensors")
        for ending in (".h5", ".weights.h5"):
            convert(tmp_path / f"{stem}.safetensors", tmp_path / f"{stem}{ending}")
    numpy.save(tmp_path / "image.npy", images(models["top"].network).numpy())
    keras.run(KERAS, tmp_path)
    for stem, model in models.items():
        ours = scores(model)
        ours = ours.softmax(dim=1) if "top" in stem else ours.permute(0, 2, 3, 1)
        assert ours.std() > 0
        for ending in (".h5", ".weights.h5"):
            theirs = torch.from_numpy(numpy.load(tmp_path / f"{stem}{ending}.npy"))
            torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-8 if "top" in stem else 1e-6)


# What is refused


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


REFUSED: dict[str, tuple[list[str], str]] = {
    "unknown ending": (["own.safetensors", "x.onnx"], "x.onnx: expected a file that ends in .pth, .pt, "),
    "unknown layout": (
        ["own.safetensors", "old.pth", "--layout", "caffe"],
        "layout: expected one of torchvision, timm, keras, keras3, vggkit, found 'caffe'",
    ),
    "wrong ending": (["own.safetensors", "old.pth", "--layout", "keras"], "expected a file that ends in .h5 for keras"),
    "Keras's two endings": (["own.safetensors", "x.h5", "--layout", "keras3"], "ends in .weights.h5 for keras3's"),
    "torch in HDF5": (["own.safetensors", "x.h5", "--layout", "timm"], "ends in .pth or .safetensors for timm's"),
    "no place": (["gap.safetensors", "old.pth", "--layout", "timm"], "timm's layout has three FC layers with biases"),
    "itself": (["own.safetensors", "own.safetensors"], "expected another file than the one that is converted"),
    "itself by another name": (["own.safetensors", "../{}/own.safetensors"], "expected another file than the one"),
    "no such file": (["nothing.pth", "old.pth"], "nothing.pth: can't be read: No such file or directory"),
    "a folder": (["folder.pth", "old.pth"], "folder.pth: expected a folder of 1 to 4,096 safetensors files"),
    "no checkpoint": (["text.pth", "old.pth"], "expected a checkpoint of PyTorch, safetensors, HDF5 or Keras, found"),
    "wrong configuration": (["own.safetensors", "old.pth", "--config", "narrow.yaml"], "checkpoint has 7 classes"),
    "unknown configuration": (["own.safetensors", "old.pth", "--config", "Z"], "unknown configuration 'Z'"),
    "more than is meant": (["more.pth", "old.pth"], "'extra.scale' has no place in torchvision's layout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_asked_wrongly_ends_in_one_line_and_leaves_all_as_it_was(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, behind whatever was to be noted, and the file that was there before is still the same."""
    monkeypatch.chdir(tmp_path)
    model = small("A")
    vggkit.save_weights(model, "own.safetensors")
    vggkit.save_weights(small("A", head="gap"), "gap.safetensors")
    Path("narrow.yaml").write_text(str(vggkit.load("A", input="3x64x64", width=0.05, num_classes=5)), encoding="utf-8")
    Path("old.pth").write_bytes(b"old")
    Path("text.pth").write_bytes(b"text")
    Path("folder.pth").mkdir()
    torch.save({**model.state_dict(), "extra.scale.gain": torch.ones(3)}, "more.pth")
    before = content(tmp_path)
    arguments, words = REFUSED[case]
    said = told("convert", *(argument.format(tmp_path.name) for argument in arguments))
    (error,) = [line for line in said.splitlines() if not line.startswith("Note: ")]
    assert words in error
    assert content(tmp_path) == before


@pytest.mark.parametrize("target", ["folder.pth", "nowhere/x.pth", "own.safetensors/x.h5"])
def test_where_nothing_can_be_written_it_is_said(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, one line with the reason."""
    monkeypatch.chdir(tmp_path)
    Path("folder.pth").mkdir()
    vggkit.save_weights(small("A"), "own.safetensors")
    result = run("convert", "own.safetensors", target)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {target}: can't be written: ")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.pth", "own.safetensors"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """HDF5 can't hold bfloat16, which shows in the middle of writing."""
    own, target = tmp_path / "own.safetensors", tmp_path / "old.h5"
    vggkit.save_weights(small("A", dtype="bfloat16"), own)
    target.write_bytes(b"old")
    with pytest.raises(CheckpointError, match="HDF5 has no bfloat16"):
        convert(own, target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.h5", "own.safetensors"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(layout: str, tmp_path: Path) -> None:
    """Whether it is full from the start, in the middle or at the last byte; HDF5 and torch can't say it themselves."""
    model = small("A")
    whole = in_layout(model, layout, tmp_path)
    size = whole.stat().st_size
    target = tmp_path / f"old-{whole.name}"
    target.write_bytes(b"old")
    before = sorted(path.name for path in tmp_path.iterdir())
    for limit in (0, 1000, size // 2, size - 1):
        with (
            file_size_limit(limit),
            pytest.raises(VggkitError, match=re.escape(f"{target}: can't be written: File too large")),
        ):
            convert(whole, target, layout=layout)
        assert target.read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pipe_and_a_device_are_written_to(layout: str, tmp_path: Path) -> None:
    """Through a link, as the ending says the format; a pipe gets a file's bytes, and both stay what they are."""
    model = small("A")
    whole = in_layout(model, layout, tmp_path)
    own = tmp_path / "own.safetensors"
    os.mkfifo(tmp_path / "pipe")
    for name, place in (("null", "/dev/null"), ("full", "/dev/full"), ("pipe", tmp_path / "pipe")):
        (tmp_path / f"{name}-{whole.name}").symlink_to(place)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit((tmp_path / "pipe").read_bytes)
        convert(own, tmp_path / f"pipe-{whole.name}", layout=layout)
        assert read.result() == whole.read_bytes()
    convert(own, tmp_path / f"null-{whole.name}", layout=layout)
    with pytest.raises(VggkitError, match=f"full-{whole.name}: can't be written: No space left on device"):
        convert(own, tmp_path / f"full-{whole.name}", layout=layout)
    assert all(stat.S_ISCHR(os.stat(path).st_mode) for path in ("/dev/null", "/dev/full"))
    assert (tmp_path / "pipe").is_fifo()


ENDINGS = {ending: layout for layout in LAYOUTS.values() for ending in layout.default_endings}
"""The layout that each ending stands for."""


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_ending_says_the_layout(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its letter case; what was written is said on stderr."""
    monkeypatch.chdir(tmp_path)
    vggkit.save_weights(small("A"), "own.safetensors")
    for target in (f"x{ending}", f"y{ending.upper()}"):
        result = run("convert", "own.safetensors", target)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{target}: A written\n")
        assert open_checkpoint(target).layout is ENDINGS[ending]


def test_the_configuration_can_be_said(tmp_path: Path) -> None:
    """--config says what the file doesn't: that it is A-LRN, and so which indices torchvision would give."""
    model = small("A-LRN")
    path = without_configuration(in_layout(model, "vggkit", tmp_path))
    target = tmp_path / "x.pth"
    assert convert(path, target).name == "A"
    assert "features.3.weight" in torch.load(target, weights_only=True)
    assert convert(path, target, config=model.network).name == "A-LRN"
    assert "features.4.weight" in torch.load(target, weights_only=True)


def test_wrong_arguments_raise_the_librarys_errors(tmp_path: Path) -> None:
    """From Python, too."""
    own = tmp_path / "own.safetensors"
    vggkit.save_weights(small("A"), own)
    with pytest.raises(ArgumentError, match="expected another file"):
        convert(own, own)
    with pytest.raises(VggkitError, match="can't be written"):
        convert(own, tmp_path / "nowhere" / "x.pth")

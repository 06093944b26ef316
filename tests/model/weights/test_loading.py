"""Loading: the libraries' own scores from the libraries' own files, to the last bit."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as distributed
from timm.models import adapt_input_conv
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import vggkit
from tests.base.test_files import file_size_limit
from tests.conftest import sample
from tests.keras_process import Keras
from tests.model.test_peers import OTHERS, SOME, fill, take, timms, torchvisions
from tests.model.weights.makers import LAYOUT_FILES, in_layout, scores, small, without_configuration
from vggkit import ArgumentError, CheckpointError, VggkitError
from vggkit.model.hub import HubVGG
from vggkit.model.weights.inspection import inspect

pytestmark = pytest.mark.usefixtures("rehearsed_here")


@pytest.mark.parametrize("name", SOME)
def test_torchvisions_checkpoint_gives_torchvisions_scores(name: str, tmp_path: Path) -> None:
    """A state dict of torchvision's, loaded from its file, gives the same scores to the last bit."""
    theirs = torchvisions(name)
    values = fill(theirs)
    take(theirs, values.values())
    torch.save(theirs.state_dict(), tmp_path / "checkpoint")
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    ours = vggkit.build(name, weights=tmp_path / "checkpoint").eval()
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert expected.std() > 0
    assert torch.equal(found, expected)
    assert ours.report is not None
    assert not ours.report.left


WRAPPERS: dict[str, Callable[[vggkit.VGG], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": DistributedDataParallel,
    "a compiled DistributedDataParallel": lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
    "an average of weights": AveragedModel,
}
"""What people put around a model."""


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_saved_without_its_wrapper(wrapper: str, tmp_path: Path) -> None:
    """The file is, to the byte, that of the model inside; loading into a wrapped model fills the one inside."""
    distributed.init_process_group("gloo", init_method=(tmp_path / "meeting").as_uri(), rank=0, world_size=1)
    try:
        wrapped, other = (WRAPPERS[wrapper](small("A", seed=seed)) for seed in (0, 1))
    finally:
        distributed.destroy_process_group()
    vggkit.save_weights(wrapped, tmp_path / "wrapped")
    vggkit.save_weights(small("A", seed=0), tmp_path / "plain")
    assert (tmp_path / "wrapped").read_bytes() == (tmp_path / "plain").read_bytes()
    vggkit.load_weights(other, tmp_path / "plain")
    vggkit.save_weights(other, tmp_path / "loaded")
    assert (tmp_path / "loaded").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_model_with_a_compiled_block_is_saved_as_any(tmp_path: Path) -> None:
    """`model.block1 = torch.compile(model.block1)` changes no name in the file."""
    model = small("A", seed=0)
    vggkit.save_weights(model, tmp_path / "plain")
    model.block1 = torch.compile(model.block1, backend="eager")
    vggkit.save_weights(model, tmp_path / "compiled")
    assert (tmp_path / "compiled").read_bytes() == (tmp_path / "plain").read_bytes()


def test_what_holds_no_model_is_refused_where_one_is_expected(tmp_path: Path) -> None:
    """Another module, wrapped or not, is named by its class."""
    for other in (nn.Linear(1, 1), nn.DataParallel(nn.Linear(1, 1)), None):
        with pytest.raises(ArgumentError, match=f"expected a model of vggkit.build, found '{type(other).__name__}'"):
            vggkit.save_weights(other, tmp_path / "x")  # type: ignore[arg-type] # that is the mistake


@pytest.mark.parametrize("name", sample(OTHERS, ["vgg11_bn"]))
def test_timms_checkpoint_gives_timms_scores(name: str, tmp_path: Path) -> None:
    """The same for timm, which runs FC layers as convolutions: maps and weights as loaded, scores in that form.

    The FC form's scores are timm's but for rounding: torch adds up a convolution in another order.
    """
    theirs = timms(name)
    take(theirs, fill(theirs).values())
    if name.endswith("_bn"):
        safetensors.torch.save_file(theirs.state_dict(), tmp_path / "checkpoint")
    else:
        torch.save(theirs.state_dict(), tmp_path / "checkpoint")
    ours = vggkit.build(name, weights=tmp_path / "checkpoint").eval()
    assert torch.equal(ours.fc1.weight, theirs.pre_logits.fc1.weight.flatten(1))
    assert torch.equal(ours.predictions.weight, theirs.head.fc.weight)
    dense = vggkit.to_fully_convolutional(ours)
    for batch, size in ((1, 224), (2, 224), (1, 256)):
        pictures = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            maps = theirs.forward_features(pictures)
            expected = theirs.forward_head(maps)
            assert torch.equal(ours.forward_features(pictures), maps)
            assert torch.equal(dense(pictures), expected)
            if size == 224:
                torch.testing.assert_close(ours(pictures), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        assert expected.std() > 0


KERAS = """
import h5py, keras, numpy
from keras.src.legacy.saving import legacy_h5_format
image = numpy.random.default_rng(0).normal(size=(1, side, side, 3)).astype("float32")
numpy.save("image", image)
for top in (True, False):
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(weights=None, include_top=top, input_shape=image.shape[1:])
    for layer in model.layers:
        if layer.get_weights():
            kernel, bias = layer.get_weights()
            scale = 1.4 if kernel.ndim == 4 else 1
            layer.set_weights([kernel * scale, numpy.random.default_rng(1).normal(size=bias.shape) * 0.1])
    numpy.save(f"{top}", model.predict(image, verbose=0))
    model.save_weights(f"{top}.weights.h5")
    model.save(f"{top}.keras")
    with h5py.File(f"{top}.legacy.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
"""


@pytest.mark.parametrize(
    ("name", "config", "side"), [pytest.param("VGG16", "D", 224, marks=pytest.mark.slow), ("VGG19", "E", 64)]
)
def test_kerass_checkpoints_give_kerass_probabilities(
    keras: Keras, name: str, config: str, side: int, tmp_path: Path
) -> None:
    """VGG16 and VGG19, with and without top, from the legacy format and both of Keras 3's: the same to 1e-5.

    VGG16 is as published; VGG19 is of 64×64 pixels, so that its file is a third as large.
    """
    import numpy

    keras.run(f"name, side = {name!r}, {side}{KERAS}", tmp_path)
    x = torch.from_numpy(numpy.load(tmp_path / "image.npy")).permute(0, 3, 1, 2).contiguous()
    for top in (True, False):
        expected = torch.from_numpy(numpy.load(tmp_path / f"{top}.npy"))
        for ending in ("legacy.h5", "weights.h5", "keras"):
            file = tmp_path / f"{top}.{ending}"
            if top:
                model = vggkit.build(config, input=tuple(x.shape[1:]), weights=file, softmax=True).eval()
            else:
                model = vggkit.load_model(file).eval()
                assert [placed.layer for placed in model.network] == [
                    placed.layer for placed in vggkit.Network.of(config) if placed.block
                ]
            with torch.no_grad():
                found = model(x)
            found = found if top else found.permute(0, 2, 3, 1)
            assert expected.std() > 0
            # not to the bit: Keras's kernels add up in another order, and scores of maps are larger than probabilities
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8 if top else 1e-4)


@pytest.mark.parametrize("layout", LAYOUT_FILES)
@pytest.mark.parametrize("config", ["A", "vgg13_bn"])
def test_every_layout_gives_the_same_scores(layout: str, config: str, tmp_path: Path) -> None:
    """A model saved in any layout, and told from that file alone, has the scores that it had."""
    model = small(config)
    path = in_layout(model, layout, tmp_path)
    assert torch.equal(scores(vggkit.load_model(path)), scores(model))
    loaded = vggkit.build(model.network, weights=without_configuration(path))
    assert torch.equal(scores(loaded), scores(model))


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_state_dicts_are_unwrapped(wrapper: str, prefix: str, tmp_path: Path) -> None:
    """A state dict in a dictionary with other things, its names behind a wrapper's prefix."""
    model = small()
    path = in_layout(model, "torchvision", tmp_path)
    state = {prefix + name: tensor for name, tensor in torch.load(path, weights_only=True).items()}
    torch.save({"epoch": 3, wrapper: state, "optimizer": {"lr": 0.1}}, path)
    assert inspect(path).layout == "torchvision's state dict"
    assert torch.equal(scores(vggkit.build(model.network, weights=path)), scores(model))


def test_a_files_old_format_is_read_too(tmp_path: Path) -> None:
    """The published files are of torch.save's format before 1.6."""
    model = small()
    path = in_layout(model, "torchvision", tmp_path)
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert torch.equal(scores(vggkit.build(model.network, weights=path)), scores(model))


def test_what_does_not_fit_is_listed_in_the_networks_terms(tmp_path: Path) -> None:
    """Each difference says the layer, both sides, and what to do."""
    path = in_layout(small(num_classes=10), "torchvision", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        vggkit.build("A", input="3x64x64", width=0.05, weights=path)
    assert str(caught.value) == (
        f"{path} does not fit A: predictions: checkpoint has 10 classes, model has 1000; pass num_classes=10, or"
        f" head='new' to keep the new head"
    )
    cases = {
        "checkpoint has no batch norm, model has; pass batch_norm=False": {"batch_norm": True},
        "fc1: checkpoint has 100 inputs, model has 225;": {"input": "3x96x96"},
        "block2_conv2: checkpoint has": {"config": "D"},
    }
    for words, changes in cases.items():
        options = {"config": "A", "input": "3x64x64", "width": 0.05, "num_classes": 10, **changes}
        with pytest.raises(CheckpointError, match=words.replace("(", r"\(")):
            vggkit.build(**options, weights=path)  # type: ignore[arg-type] # a mapping of mixed values


def test_a_new_head_keeps_its_first_values(tmp_path: Path) -> None:
    """With head='new' or include_top=False the blocks are loaded, and the classifier is as it was."""
    source = small(num_classes=10)
    path = in_layout(source, "torchvision", tmp_path)
    options = {"input": "3x64x64", "width": 0.05, "num_classes": 4, "seed": 5}
    fresh = vggkit.build("A", **options)  # type: ignore[arg-type] # a mapping of mixed values
    for changes in ({"head": "new"}, {"include_top": False}):
        model = vggkit.build("A", weights=path, **options, **changes)  # type: ignore[arg-type] # a mapping of mixed values
        assert torch.equal(model.block5.conv2.weight, source.block5.conv2.weight)
        assert model.predictions.weight.shape == fresh.predictions.weight.shape
        assert model.predictions.weight.std() > 0
        assert model.report is not None
        assert model.report.left == ("fc1", "fc2", "predictions")
    before = fresh.predictions.weight.clone()
    report = vggkit.load_weights(fresh, path, head="new")
    assert torch.equal(fresh.predictions.weight, before)
    assert torch.equal(fresh.block1.conv1.weight, source.block1.conv1.weight)
    assert report == fresh.report


def test_a_lenient_load_takes_what_fits(tmp_path: Path) -> None:
    """strict=False loads the layers that fit and leaves the others."""
    path = in_layout(small(num_classes=10), "torchvision", tmp_path)
    model = vggkit.build("A", input="3x64x64", width=0.05, weights=path, strict=False)
    assert model.report is not None
    assert model.report.left == ("predictions",)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
def test_kernels_for_three_colours_serve_other_channels_as_timms_do(
    channels: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One channel gets their sum, others their repetition, rescaled; it is said, and can be refused."""
    source = small()
    path = in_layout(source, "torchvision", tmp_path)
    options = {"input": f"{channels}x64x64", "width": 0.05, "num_classes": 7, "weights": path}
    with caplog.at_level(logging.WARNING, "vggkit"):
        model = vggkit.build("A", **options)  # type: ignore[arg-type] # a mapping of mixed values
    expected = adapt_input_conv(channels, source.block1.conv1.weight.detach())
    torch.testing.assert_close(model.block1.conv1.weight.detach(), expected, rtol=1e-6, atol=1e-7)
    assert "kernels for 3 colours were" in caplog.text
    with pytest.raises(CheckpointError, match=f"checkpoint has 3 input channels, model has {channels}; adapt_input"):
        vggkit.build("A", **options, adapt_input=False)  # type: ignore[arg-type] # a mapping of mixed values


def test_loading_keeps_an_optimizers_references(tmp_path: Path) -> None:
    """Values go into the parameters that are there, frozen ones stay frozen, and the dtype is the model's."""
    source = small()
    path = in_layout(source, "vggkit", tmp_path)
    model = small(seed=9, freeze=["block1"], dtype="float64")
    before = [id(parameter) for parameter in model.parameters()]
    vggkit.load_weights(model, path)
    assert [id(parameter) for parameter in model.parameters()] == before
    assert not model.block1.conv1.weight.requires_grad
    assert torch.equal(model.fc1.weight, source.fc1.weight.double())
    half = vggkit.build(source.network, weights=path, dtype="float16")
    assert torch.equal(half.fc1.weight, source.fc1.weight.half())


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    """What is asked wrongly ends in one line."""
    path = in_layout(small(), "vggkit", tmp_path)
    with pytest.raises(ArgumentError, match="head: expected 'new'"):
        vggkit.load_weights(small(), path, head="old")
    with pytest.raises(ArgumentError, match="model: expected a model of vggkit"):
        vggkit.load_weights(torch.nn.Linear(1, 1), path)  # type: ignore[arg-type] # that is the mistake
    with pytest.raises(ArgumentError, match="head='new' and include_top=False need weights="):
        vggkit.build("A", device="meta", head="new")
    for values in ({"weights": path}, {"init_from": path}):
        with pytest.raises(ArgumentError, match="'meta' has no room for values"):
            vggkit.build("A", device="meta", **values)  # type: ignore[arg-type] # a mapping of mixed values
    with pytest.raises(ArgumentError, match="expected no weights= with it"):
        vggkit.build("A", device="meta", weights=path, init_from=path)
    with pytest.raises(ArgumentError, match="nobody has published ImageNet weights for C"):
        vggkit.build("C", weights="imagenet")
    with pytest.raises(ArgumentError, match="has no values to save"):
        vggkit.save_weights(vggkit.build("A", device="meta"), tmp_path / "x")


@pytest.mark.parametrize("config", ["B", "D", "E"])
def test_growing_copies_what_the_paper_copied(config: str, tmp_path: Path) -> None:
    """A's first four convolutions and its FC layers, from a model or its file; the rest is random, and all is said."""
    donor = small("A")
    path = in_layout(donor, "keras", tmp_path)
    for source in (donor, path):
        model = small(config, init_from=source)
        copied = ["block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2", "fc1", "fc2", "predictions"]
        assert model.report is not None
        assert list(model.report.loaded) == copied
        for name in copied:
            ours, theirs = model.network.layer(name).module, donor.network.layer(name).module
            assert torch.equal(model.get_submodule(ours).weight, donor.get_submodule(theirs).weight)
        fresh = small(config)
        assert torch.equal(model.block4.conv1.weight, fresh.block4.conv1.weight)
        assert set(model.report.left) == {
            placed.name for placed in model.network if placed.layer.role == "weight"
        } - set(copied)


def test_growing_from_what_does_not_fit_is_refused() -> None:
    """A donor of other widths has nothing to give."""
    donor = vggkit.build("A", input="1x64x64", width=0.1, num_classes=3)
    with pytest.raises(CheckpointError, match="no layer of A has the shape"):
        small("D", init_from=donor)


def test_saving_needs_no_yaml_and_keeps_everything(tmp_path: Path) -> None:
    """A saved model of any configuration comes back equal, its configuration included."""
    text = "{name: mine, input: 2x9x7, blocks: [[{conv: 4, norm: batch, activation: gelu}, {avgpool: 3, stride: 2}]]}"
    model = vggkit.build(vggkit.loads(text), seed=3)
    vggkit.save_weights(model, tmp_path / "any")
    again = vggkit.load_model(tmp_path / "any")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["any"]


def test_a_full_disk_is_one_line_and_keeps_the_last_weights(tmp_path: Path) -> None:
    """Of a training that has saved before; and a device stays one."""
    path, model = tmp_path / "model.safetensors", small("A")
    vggkit.save_weights(model, path)
    before = path.read_bytes()
    with file_size_limit(len(before) // 2), pytest.raises(VggkitError, match="can't be written: File too large"):
        vggkit.save_weights(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(VggkitError, match="/dev/full: can't be written: No space left on device"):
        vggkit.save_weights(model, "/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_saved_weights_are_aligned_and_read_by_safetensors_itself(tmp_path: Path) -> None:
    """The file is the format's, and every weight lies at a multiple of 64 bytes once it is mapped."""
    model = small("vgg13_bn", input="3x224x224", width=0.25)
    vggkit.save_weights(model, tmp_path / "x.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "x.safetensors")
    state = model.state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    again = vggkit.load_model(tmp_path / "x.safetensors")
    assert {parameter.data_ptr() % 64 for parameter in again.parameters()} == {0}


PEAK = r"""
import re, resource, sys, torch, vggkit
def private():
    return int(re.search(r"RssAnon:\s+(\d+)", open("/proc/self/status").read()).group(1))
torch.zeros(1)
source = sys.argv[1]
anonymous = private()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = vggkit.build("D", input=sys.argv[2], weights=source)
total = sum(float(p.double().sum()) if p.numel() < 10**6 else float(p.sum()) for p in model.parameters())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, private() - anonymous)
"""


@pytest.mark.parametrize("layout", sample([*LAYOUT_FILES], ["vggkit"]))
def test_loading_needs_little_more_than_the_checkpoint(layout: str, tmp_path: Path) -> None:
    """From any layout, into a model that was never randomly initialised: at most 1.15 times the checkpoint.

    What can be memory-mapped is: it takes no memory of the process's own.
    """
    size = "3x224x224"
    model = vggkit.build("D", input=size, seed=0)
    path = in_layout(model, layout, tmp_path)
    del model
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), size], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    peak, private = (1024 * int(number) for number in done.stdout.split())
    assert peak <= 1.15 * path.stat().st_size
    if not layout.startswith("keras"):  # whose axes are reordered; the others' values stay in the file
        assert private <= 0.1 * path.stat().st_size


def test_a_keras_model_with_its_own_head_gives_its_features(keras: Keras, tmp_path: Path) -> None:
    """Layers inside another Keras model are found in order, from each of Keras's formats."""
    code = """
import keras
base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
head = [keras.layers.Flatten(), keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)]
model = keras.Sequential([base, *head])
model.save("own.keras"); model.save_weights("own.weights.h5"); model.save("own.h5")
"""
    keras.run(code, tmp_path)
    first = None
    for name in ("own.keras", "own.weights.h5", "own.h5"):
        model = vggkit.load_model(tmp_path / name)
        assert [p.layer.out_features for p in model.network if p.layer.stem == "fc"] == [6, 3]  # type: ignore[attr-defined]
        trunk = vggkit.build("D", input="3x32x32", weights=tmp_path / name, head="new")
        assert torch.equal(trunk.block5.conv3.weight, model.block5.conv3.weight)
        first = scores(model) if first is None else first
        assert torch.equal(scores(model), first)


TWO_SOFTMAXES = vggkit.loads("{input: 3x4x4, blocks: [[conv3-4]], classifier: [FC-4, soft-max, soft-max]}")


@pytest.mark.parametrize("form", [lambda model: model, HubVGG.of], ids=["as it is built", "for the Hub"])
@pytest.mark.parametrize("softmax", [False, True])
def test_a_model_leaves_out_its_last_softmax_alone(
    form: Callable[[vggkit.VGG], vggkit.VGG], softmax: bool, tmp_path: Path
) -> None:
    """The one before it is a layer like any other, and the weights are those of the whole network."""
    model = form(vggkit.build(TWO_SOFTMAXES, seed=0, softmax=softmax))
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    vggkit.export(TWO_SOFTMAXES, tmp_path / "x.onnx", weights=model)
    for source in (model, tmp_path / "x.onnx"):
        assert torch.equal(vggkit.build(TWO_SOFTMAXES, weights=source, softmax=softmax)(x), model(x))

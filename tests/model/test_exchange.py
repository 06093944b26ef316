"""Importing and exporting with weights: what goes together, and what does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vggkit
from tests.model.weights.makers import small
from vggkit import ArgumentError, CheckpointError
from vggkit.exchange.kinds import MODEL_FILES

WITH_WEIGHTS = [ending for ending, kind in MODEL_FILES.items() if kind.takes_weights]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        (name, ending)
        for name in ("A", "A-LRN", "vgg16_bn")
        for ending in WITH_WEIGHTS
        if (name, ending) != ("A-LRN", ".keras")  # Keras has no LRN
    ],
)
def test_weights_go_out_and_in_to_the_bit(name: str, ending: str, tmp_path: Path) -> None:
    """As a checkpoint of its own, as weights for a model that is there, and converted; without batch norm's counter."""
    model = small(name)
    path = tmp_path / f"x{ending}"
    vggkit.export(model, path)
    images = torch.rand(2, 3, 64, 64)
    wanted = model(images)
    out = tmp_path / "x.safetensors"
    config = vggkit.import_config(path, weights=out)
    assert config.input == (3, 64, 64)
    models = [
        vggkit.load_model(path),
        vggkit.load_model(out),
        vggkit.build(config, weights=path),
        vggkit.build(model.config, weights=path),
    ]
    assert all(torch.equal(one.eval()(images), wanted) for one in models)
    assert vggkit.inspect(path).known == name.replace("vgg16_bn", "D")


@pytest.mark.parametrize("ending", WITH_WEIGHTS)
def test_any_source_of_weights_is_taken(ending: str, tmp_path: Path) -> None:
    """A checkpoint, a module, and one that is exported itself: the same file."""
    model = small()
    vggkit.save_weights(model, tmp_path / "x.safetensors")
    sources: list[dict[str, Any]] = [
        {"source": model.config, "weights": tmp_path / "x.safetensors"},
        {"source": model.config, "weights": model},
        {"source": model},
        {"source": "A", "input": "3x64x64", "width": 0.05, "num_classes": 7, "weights": model},
    ]
    written = []
    for number, options in enumerate(sources):
        path = tmp_path / f"{number}{ending}"
        vggkit.export(path=path, **options)
        written.append(path.read_bytes())
    assert written == [written[0]] * 4


def test_a_module_of_anybodys_is_exported(tmp_path: Path) -> None:
    """It is described, and goes with its weights where the format has a place for them."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    vggkit.export(module, tmp_path / "x.caffemodel", input="3x8x8")
    vggkit.export(module, tmp_path / "x.prototxt", input="3x8x8")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(vggkit.load_model(tmp_path / "x.caffemodel").eval()(images), module(images))


@pytest.mark.parametrize(
    ("source", "name", "options", "says"),
    [
        ("A", "x.foo", {}, "x.foo: expected a file that ends in .onnx"),
        ("A", "x.caffemodel", {}, "x.caffemodel: a .caffemodel holds weights; expected a checkpoint that has them"),
        ("A", "x.prototxt", {"weights": "imagenet"}, "weights: a .prototxt has no place for weights"),
        ("A", "x.caffemodel", {"weights": 3}, "weights: expected a file, 'imagenet' or a torch module, found 'int'"),
        ("A", "x.prototxt", {"widht": 2}, "unknown override 'widht'"),
        ("A", "x.prototxt", {"activation": "gelu"}, "A: Caffe has no layer for block1_gelu1"),
        ("A-LRN", "x.keras", {}, r"A-LRN: Keras has no layer for block1_lrn \(LRN\)"),
    ],
)
def test_what_can_not_be_exported_is_one_line(
    source: Any, name: str, options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found and what was expected; no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=f"^{says}"):
        vggkit.export(source, name, **options)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """With what differs, in the network's terms."""
    with pytest.raises(CheckpointError, match="does not fit B"):
        vggkit.export("B", tmp_path / "x.caffemodel", weights=small(), input="3x64x64", width=0.05, num_classes=7)
    with pytest.raises(CheckpointError, match="its kernels are for another number of channels"):
        vggkit.export(
            "A", tmp_path / "x.caffemodel", weights=small(), in_channels=1, input="1x64x64", width=0.05, num_classes=7
        )
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_imported_is_one_line(tmp_path: Path) -> None:
    """No weights to write, the file that is read, a wrong size."""
    path = tmp_path / "x.prototxt"
    vggkit.export("A", path)
    for options, says in (
        ({"weights": tmp_path / "x.safetensors"}, "weights: .*x.prototxt holds no weights"),
        ({"input": "3x0x0"}, "input: expected channels × height × width"),
    ):
        with pytest.raises((ArgumentError, CheckpointError), match=says):
            vggkit.import_config(path, **options)
    vggkit.export(small(), tmp_path / "x.caffemodel")
    with pytest.raises(ArgumentError, match=r"x.caffemodel holds its weights itself"):
        vggkit.import_config(tmp_path / "x.caffemodel", path)
    with pytest.raises(ArgumentError, match="expected another file than the one that is read"):
        vggkit.import_config(tmp_path / "x.caffemodel", weights=tmp_path / "x.caffemodel")
    with pytest.raises(CheckpointError, match=r"nothing.prototxt: can't be read: No such file or directory"):
        vggkit.import_config(tmp_path / "nothing.prototxt")
    with pytest.raises(ArgumentError, match=r"expected a file that ends in .onnx"):
        vggkit.import_config(tmp_path / "x.safetensors")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.caffemodel", "x.prototxt"]


@pytest.mark.parametrize("ending", [".onnx", ".prototxt", ".caffemodel"])
def test_a_pipe_is_refused(ending: str, tmp_path: Path) -> None:
    """Nobody may ever write into it."""
    path = tmp_path / f"x{ending}"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=f"x{ending}: can't be read: it is a pipe or a device"):
        vggkit.import_config(path)


@pytest.mark.parametrize(("ending", "what"), [(".onnx", "a model of ONNX"), (".caffemodel", "a network of Caffe")])
def test_what_is_something_else_is_told_so(ending: str, what: str, tmp_path: Path) -> None:
    """A safetensors file under another name."""
    path = tmp_path / f"x{ending}"
    vggkit.save_weights(small(), tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").rename(path)
    with pytest.raises(CheckpointError, match=f"x{ending}: expected {what}, found other bytes: "):
        vggkit.import_config(path)


def test_a_file_without_weights_is_told_but_not_loaded(tmp_path: Path) -> None:
    """`inspect` says which network it is; who wants weights is told that there are none."""
    path = tmp_path / "x.prototxt"
    vggkit.export("E", path, num_classes=10)
    inspection = vggkit.inspect(path)
    assert (inspection.description, inspection.matched) == (
        "E, 10 classes, input 3×224×224",
        "not at all: it has no weights",
    )
    with pytest.raises(CheckpointError, match="expected weights of convolutions or FC layers, found no tensor at all"):
        vggkit.load_model(path)

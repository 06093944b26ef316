"""`vggkit import` and `vggkit export`: what they print and write, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

import vggkit
from tests.cli.test_app import printed, run, told
from tests.model.weights.makers import small


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own, with Caffe's two files of a small network in it."""
    monkeypatch.chdir(tmp_path)
    model = small()
    vggkit.export(model.config, "x.prototxt")
    vggkit.export(model, "x.caffemodel")


def test_import_prints_yaml_and_writes_it() -> None:
    """What goes to a file is what is printed; `--input` wins over the file's."""
    text = printed("import", "x.prototxt")
    assert vggkit.loads(text) == vggkit.import_config("x.prototxt")
    assert printed("import", "x.prototxt", "-o", "x.yaml") == ""
    assert Path("x.yaml").read_text(encoding="utf-8") == text
    assert "input: 3x96x96" in printed("import", "x.prototxt", "--input", "3x96x96")


@pytest.mark.parametrize("files", [["x.prototxt", "x.caffemodel"], ["x.caffemodel"]])
@pytest.mark.parametrize("target", ["y.safetensors", "y.pth", "y.h5"])
def test_import_writes_weights_in_any_layout(files: list[str], target: str) -> None:
    """With the weights of a second file, or its own."""
    printed("import", *files, "--weights", target)
    assert vggkit.inspect(target).description == "A, width 0.05, 7 classes, input 3×64×64"


def test_what_is_not_read_is_a_note() -> None:
    """On stderr; the YAML is on stdout all the same."""
    Path("y.prototxt").write_text(
        'layer { type: "Data" name: "d" top: "data" transform_param { crop_size: 8 mean_file: "m\x1b" } }'
        ' layer { type: "ReLU" name: "r" bottom: "data" top: "r" }'
    )
    result = run("import", "y.prototxt")
    assert result.exit_code == 0
    assert result.stderr == ("Note: y.prototxt: d (Data): its mean is in another file, 'm\\x1b', which is not read\n")
    assert vggkit.loads(result.stdout).input == (3, 8, 8)


def test_export_writes_a_file_and_says_what_it_is() -> None:
    """Changes and a size are made first; standard output stays empty."""
    result = run("export", "D", "--set", "num_classes=10", "--input", "3x64x64", "-o", "D.prototxt")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "D.prototxt: written, input data, output prob\n"
    assert vggkit.import_config("D.prototxt").classifier == vggkit.load("D", num_classes=10).classifier
    vggkit.save_weights(small(), "x.safetensors")
    Path("x.yaml").write_text(str(small().config))
    assert run("export", "x.yaml", "--weights", "x.safetensors", "-o", "y.caffemodel").exit_code == 0
    assert Path("y.caffemodel").read_bytes() == Path("x.caffemodel").read_bytes()
    result = run("export", "x.yaml", "--weights", "x.safetensors", "-o", "x.onnx")
    assert result.stderr == "x.onnx: written, opset 20, input image, output softmax\n"
    assert vggkit.inspect("x.onnx").description == "A, width 0.05, 7 classes, input 3×64×64"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["export", "D"],
            "--output: expected a file that ends in .onnx, .pt2, .keras, .prototxt or .caffemodel, found none",
        ),
        (
            ["export", "D", "-o", "-"],
            "--output: expected a file that ends in .onnx, .pt2, .keras, .prototxt or .caffemodel, found none",
        ),
        (
            ["export", "D", "-o", "D.caffemodel"],
            "D.caffemodel: a .caffemodel holds weights; expected a checkpoint that has them",
        ),
        (["export", "D", "-o", "D.prototxt", "--weights", "x.h5"], "weights: a .prototxt has no place for weights"),
        (
            ["export", "D", "-o", "D.caffemodel", "--weights", "no.pth"],
            "no.pth: can't be read: No such file or directory",
        ),
        (
            ["export", "x.prototxt", "-o", "y.onnx"],
            "x.prototxt: expected a file that ends in .yaml; `vggkit import` makes",
        ),
        (["summarize", "./x.prototxt"], "x.prototxt: expected a file that ends in .yaml; `vggkit import` makes"),
        (["summarize", "./x.caffemodel"], "x.caffemodel: expected a file that ends in .yaml; `vggkit import` makes"),
        (["import", "no.prototxt"], "no.prototxt: can't be read: No such file or directory"),
        (["import", "x.safetensors"], "x.safetensors: expected a file that ends in .onnx, .pt2, .keras, .prototxt"),
        (["import", "x.prototxt", "no.caffemodel"], "no.caffemodel: can't be read: No such file or directory"),
        (["import", "x.prototxt", "x.prototxt"], "x.prototxt: x.prototxt: "),
        (["import", "x.prototxt", "--weights", "y.h5"], "weights: x.prototxt holds no weights"),
        (["import", "x.caffemodel", "--weights", "y.foo"], "y.foo: expected a file that ends in .pth"),
        (["import", "x.caffemodel", "x.caffemodel"], "x.caffemodel holds its weights itself; expected no second file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    """Nothing is written."""
    text = told(*arguments)
    assert text.startswith(f"Error: {says}")
    assert len(text.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.caffemodel", "x.prototxt"]

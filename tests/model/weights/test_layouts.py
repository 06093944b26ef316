"""Layouts are classes with all their rules: how a new one comes in, and what each of them has to say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import vggkit
from tests.cli.test_app import printed
from vggkit.model.weights.layouts import LAYOUTS
from vggkit.notation.preprocess import PRESETS

PACKAGE = Path(vggkit.__file__).parent

BACKBONE = """

class Backbone(Torchvision):
    name = "backbone"
    title = "torchvision's names inside a detector"
    preset = "keras"
    default_endings = (".bin",)
    pattern = r"backbone\\.(features|classifier)\\.\\d+"

    def vocabularies(self, network):
        return [[name and f"backbone.{name}" for name in names] for names in super().vocabularies(network)]
"""
"""A layout that is torchvision's behind a prefix."""

USE = """
import torch, vggkit
from click.testing import CliRunner
from vggkit.cli import main

def run(*arguments):
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})

network = vggkit.Network.of("A", input="3x64x64", width=0.05, num_classes=7)
model = vggkit.build(network, seed=0).eval()
vggkit.save_weights(model, "own.safetensors")
assert run("convert", "own.safetensors", "x.pth", "--layout", "backbone").exit_code == 0
state = torch.load("x.pth", weights_only=True)
assert all(name.startswith("backbone.") for name in state), list(state)
assert vggkit.inspect("x.pth").layout == "torchvision's names inside a detector"
torch.save({name: tensor.clone() for name, tensor in state.items()}, "plain.pth")  # without its configuration
told = vggkit.inspect("plain.pth")
assert (told.layout, told.known) == ("torchvision's names inside a detector", "A")
assert told.matched == "by their names in backbone's layout"
assert "layout         torchvision's names inside a detector" in run("inspect", "plain.pth").output
for file in ("x.pth", "plain.pth"):
    loaded = vggkit.build(network, weights=file)
    assert loaded.report.layout == "backbone"
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in model.state_dict().items())
for layout, ending in {"torchvision": "pth", "timm": "pth", "keras": "h5", "keras3": "weights.h5"}.items():
    vggkit.convert("x.pth", f"there.{ending}", layout=layout)
    vggkit.convert(f"there.{ending}", "back.bin")
    back = torch.load("back.bin", weights_only=True)
    assert list(back) == list(state) and all(torch.equal(back[name], state[name]) for name in state)
assert "timm, keras, keras3, backbone or vggkit" in run("convert", "--help").output
assert "expected one of torchvision, timm, keras, keras3, backbone, vggkit" in run(
    "convert", "x.pth", "y.pth", "--layout", "caffe").output
assert "ends in .pth or .safetensors for backbone's layout" in run(
    "convert", "x.pth", "y.h5", "--layout", "backbone").output
classifier = vggkit.Classifier(network, weights="plain.pth")
assert (classifier.preprocess.colour, classifier.preprocess_origin) == ("bgr", "usual for backbone's layout")
"""


def test_a_new_layout_is_one_class(tmp_path: Path) -> None:
    """Added to a copy of the package, it is recognised, inspected, loaded, converted, listed and prepared for."""
    shutil.copytree(PACKAGE, tmp_path / "vggkit")
    shutil.copytree(PACKAGE.parent / "configs", tmp_path / "configs")
    layouts = tmp_path / "vggkit" / "model" / "weights" / "layouts.py"
    text = layouts.read_text(encoding="utf-8")
    assert (text.count("\n\nLAYOUTS: "), text.count("Vggkit())")) == (1, 1)
    text = text.replace("\n\nLAYOUTS: ", f"{BACKBONE}\n\nLAYOUTS: ").replace("Vggkit())", "Backbone(), Vggkit())")
    layouts.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_layout_is_under_its_name_and_says_what_is_used_of_it() -> None:
    """Its preset is one, its default endings are among its endings, and no two layouts stand for one ending."""
    assert [layout.name for layout in LAYOUTS.values()] == list(LAYOUTS)
    for layout in LAYOUTS.values():
        assert layout.preset in (None, *PRESETS)
        assert set(layout.default_endings) <= set(layout.endings)
    standing = [ending for layout in LAYOUTS.values() for ending in layout.default_endings]
    assert sorted(standing) == sorted({*standing})


def test_the_help_of_convert_lists_them() -> None:
    """As they are now, and no list of its own."""
    words = " ".join(printed("convert", "--help").split())
    assert f"--layout TEXT {', '.join([*LAYOUTS][:-1])} or {[*LAYOUTS][-1]}." in words


def test_no_layout_is_asked_for_its_name() -> None:
    """What differs by layout is a rule of its class: nobody compares names."""
    comparison = re.compile(r"layout(?:\.name)? (?:==|!=|in|not in) \(?[\"']")
    assert [path for path in PACKAGE.rglob("*.py") if comparison.search(path.read_text(encoding="utf-8"))] == []

"""`hubconf.py`: what torch.hub finds and builds in a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vggkit

ROOT = Path(__file__).parent.parent
CONFIGURATIONS = {
    "A": "A", "A_LRN": "A-LRN", "B": "B", "C": "C", "D": "D", "E": "E", "vgg11": "A", "vgg13": "B", "vgg16": "D",
    "vgg19": "E", "vgg11_bn": "A-BN", "vgg13_bn": "B-BN", "vgg16_bn": "D-BN", "vgg19_bn": "E-BN",
}  # fmt: skip
"""The configuration of each entry point."""

SMALL = "{input: 3x8x8, blocks: [[conv3-4, maxpool]], classifier: [FC-3]}"

ASK = """
import json, os, sys
import torch
from torch import hub

root, cache, file, weights = sys.argv[1:]

def load(*arguments, **options):
    return hub.load(root, *arguments, source="local", **options)

hub.set_dir(cache)  # list and help know checkouts by their names, and look for them here before they ask the network
known = {"github": "someone/vggkit:main", "trust_repo": True, "skip_validation": True}
listed = hub.list(**known)
print(json.dumps({
    "help": {name: hub.help(model=name, **known) for name in listed},
    "names": {name: load(name, device="meta").config.name for name in listed if name != "vgg"},
    "classes": load("vgg16_bn", device="meta", num_classes=10).predictions.out_features,
    "outputs": load("vgg", file, weights=weights).eval()(torch.ones(1, 3, 8, 8)).tolist(),
    "loaded": os.path.dirname(os.path.dirname(sys.modules["vggkit"].__file__)),
}))
"""


def test_torch_hub_lists_describes_and_builds_each_entry_point(tmp_path: Path) -> None:
    """The checkout's, whatever is installed; with weights, the outputs are the model's own."""
    checkout = tmp_path / "cache" / "someone_vggkit_main"
    checkout.parent.mkdir()
    checkout.symlink_to(ROOT)
    file, weights = tmp_path / "small.yaml", tmp_path / "small.safetensors"
    file.write_text(SMALL)
    model = vggkit.build(str(file), seed=0).eval()
    vggkit.save_weights(model, weights)
    command = [sys.executable, "-P", "-c", ASK, str(checkout), str(checkout.parent), str(file), str(weights)]
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["names"] == CONFIGURATIONS
    assert {*said["help"]} == {*CONFIGURATIONS, "vgg"}
    assert all("pretrained: whether" in text and "Returns:" in text for text in said["help"].values())
    assert said["help"]["C"].startswith("Configuration C of the paper, with 16 weight layers, three of them 1×1")
    assert said["classes"] == 10
    with torch.no_grad():
        assert said["outputs"] == model(torch.ones(1, 3, 8, 8)).tolist()
    assert said["loaded"] == str(checkout)


def load(*arguments: Any, **options: Any) -> Any:
    """Load from the checkout that is tested."""
    return torch.hub.load(str(ROOT), *arguments, source="local", **options)


def test_pretrained_is_the_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as weights="imagenet"; without it, no weights are asked for."""
    monkeypatch.setattr(vggkit, "build", lambda config, **options: (config, options))
    assert load("vgg19_bn", pretrained=True, seed=1) == ("vgg19_bn", {"weights": "imagenet", "seed": 1})
    assert load("vgg", "vgg13", True) == ("vgg13", {"weights": "imagenet"})
    assert load("D", pretrained=False, weights="timm") == ("D", {"weights": "timm"})
    assert load("E", pretrained=True, weights=None) == ("E", {"weights": "imagenet"})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["vgg16"], {"weights": "a.pth", "pretrained": True}, "pretrained: expected no weights= with it: one of them"),
        (["vgg16"], {"pretrained": "yes"}, "pretrained: expected True or False, found 'yes'"),
        (["vgg16"], {"num_clases": 10}, "build: unknown keyword 'num_clases'. Did you"),
        (["A_LRN"], {"pretrained": True}, "A-LRN"),
        (["vgg", "vgg15"], {}, "unknown configuration 'vgg15'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(arguments: list[str], options: dict[str, Any], message: str) -> None:
    """In vggkit's own words."""
    with pytest.raises(vggkit.VggkitError, match=message):
        load(*arguments, **options)


def test_every_dependency_is_needed() -> None:
    """A package that is installed with vggkit, or torch.hub would refuse where everything works."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = text.split("\ndependencies = [")[1].split("]")[0].replace("pyyaml", "yaml")
    module = torch.hub._import_module("hubconf", str(ROOT / "hubconf.py"))  # type: ignore[attr-defined]  # private
    assert all(f'"{name}>=' in required for name in module.dependencies)

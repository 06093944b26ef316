"""TorchScript: what torch.jit.script, trace and freeze make is read as the layers that it was made of."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor, nn

import vggkit
from tests import judges
from tests.conftest import sample
from tests.drawn import networks
from tests.exchange.nets import plainest, scores, with_statistics
from tests.exchange.programs.test_exported import LAYERS, ODD
from vggkit import ArgumentError, CheckpointError, Network

Maker = Callable[[nn.Module, Tensor], Any]

WAYS: dict[str, Maker] = {
    "script": lambda model, _: torch.jit.script(model),
    "trace": torch.jit.trace,
    "frozen": lambda model, _: torch.jit.freeze(torch.jit.script(model)),
    "frozen trace": lambda model, images: torch.jit.freeze(torch.jit.trace(model, images)),
}
"""How TorchScript is made of a model."""


def saved(model: nn.Module, images: Tensor, path: Path, way: str) -> None:
    """Have torch make and save TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that TorchScript is old
        torch.jit.save(WAYS[way](model.eval(), images), str(path))


def check(network: Network, way: str, path: Path) -> None:
    """Have torch save a network as TorchScript, and hold what is read against it."""
    if not network.weight_layers:
        return
    images = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    model = with_statistics(network)
    whole = nn.Sequential(model, nn.Softmax(dim=1)) if network.ends_in_softmax else model
    try:
        wanted = scores(model, images.clone())
        saved(whole, images.clone(), path, way)
    except (ValueError, RuntimeError):  # torch has no statistics of single values
        return
    config = vggkit.import_config(path, input=network.input_shape)
    found = scores(vggkit.build(config, weights=path).eval(), images.clone())
    if "frozen" in way:  # torch itself has put batch norms into convolutions
        assert numpy.allclose(found, wanted, atol=1e-5, rtol=1e-5, equal_nan=True)
        return
    assert plainest(Network.of(config)) == plainest(network)
    assert numpy.array_equal(found, wanted, equal_nan=True)


@pytest.mark.parametrize("way", WAYS)
@given(networks())
@settings(max_examples=6)
@example(Network.of(vggkit.loads(ODD)))
def test_a_drawn_model_is_read_to_the_bit(tmp_path_factory: pytest.TempPathFactory, way: str, network: Network) -> None:
    """Layer by layer; of a frozen one the outputs are those of torch's own."""
    check(network, way, tmp_path_factory.getbasetemp() / "x.pt")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@given(networks())
@settings(max_examples=150)
def test_so_are_many(tmp_path_factory: pytest.TempPathFactory, way: str, network: Network) -> None:
    """The same, of more of them."""
    check(network, way, tmp_path_factory.getbasetemp() / "x.pt")


@pytest.mark.parametrize("way", ["script", "trace"])
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_is_what_describe_says(layer: str, way: str, tmp_path: Path) -> None:
    """Of torch's own modules: the same configuration."""
    torch.manual_seed(0)
    model = LAYERS[layer]().eval()
    saved(model, torch.rand(2, 3, 8, 8), tmp_path / "x.pt", way)
    found = vggkit.import_config(tmp_path / "x.pt", input="3x8x8")
    wanted = vggkit.describe(model, input="3x8x8")
    assert (found.blocks, found.classifier) == (wanted.blocks, wanted.classifier)


NAMES = [(name, way) for name in ("vgg11", "vgg13_bn", "vgg19", "alexnet") for way in ("script", "trace")]


@pytest.mark.parametrize("named", sample(NAMES, [("vgg11", "script"), ("alexnet", "trace")]))
def test_torchvisions_models_are_read(named: tuple[str, str], tmp_path: Path) -> None:
    """They are what `describe` says."""
    name, way = named
    torchvision = judges.package("torchvision")
    model = torchvision.models.get_model(name, weights=None, num_classes=4).eval()
    saved(model, torch.rand(1, 3, 224, 224), tmp_path / "x.pt", way)
    found, wanted = vggkit.import_config(tmp_path / "x.pt"), vggkit.describe(model)
    assert (found.input, found.blocks, found.classifier) == (wanted.input, wanted.blocks, wanted.classifier)


def small() -> vggkit.VGG:
    """Return a small model."""
    return vggkit.build("vgg16_bn", input="3x64x64", width=0.05, num_classes=7, seed=0).eval()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ts", ".torchscript", ""])
def test_whatever_its_ending_it_is_a_checkpoint_too(ending: str, tmp_path: Path) -> None:
    """It is inspected, loaded into a model that is there, built from, and converted."""
    model, path, images = small(), tmp_path / f"x{ending}", torch.rand(2, 3, 64, 64)
    saved(model, images, path, "trace")
    assert vggkit.inspect(path).description == "D with batch norm, width 0.05, 7 classes, input 3×64×64"
    config = vggkit.import_config(path, weights=tmp_path / "y.safetensors")
    models = [
        vggkit.load_model(path),
        vggkit.load_model(tmp_path / "y.safetensors"),
        vggkit.build(config, weights=path),
        vggkit.build(model.config, weights=path),
    ]
    assert all(torch.equal(one.eval()(images), model(images)) for one in models)


def test_the_size_is_the_traced_ones_or_what_fits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A traced program says it; of a scripted one it is guessed, and said; the user's wins."""
    model = small()
    saved(model, torch.rand(1, 3, 64, 64), tmp_path / "x.pt", "trace")
    assert vggkit.import_config(tmp_path / "x.pt").input == (3, 64, 64)
    assert not caplog.records
    saved(model, torch.rand(1, 3, 64, 64), tmp_path / "x.pt", "script")
    assert vggkit.import_config(tmp_path / "x.pt").input == (3, 64, 64)
    assert "it does not say the size of its images: 3×64×64 fits; --input says another" in caplog.text
    assert vggkit.import_config(tmp_path / "x.pt", input="3x65x70").input == (3, 65, 70)
    with pytest.raises(CheckpointError, match="linear in fc1: expected a weight of 204×225, found 204×100"):
        vggkit.import_config(tmp_path / "x.pt", input="3x96x96")
    odd = vggkit.build("A", input="3x40x90", width=0.05, num_classes=7).eval()
    saved(odd, torch.rand(1), tmp_path / "y.pt", "script")
    assert torch.equal(vggkit.build(odd.config, weights=tmp_path / "y.pt").fc1.weight, odd.fc1.weight)
    with pytest.raises(
        CheckpointError, match="linear in fc1: expected a weight of 204×1225, found 204×50; --input says the"
    ):
        vggkit.load_model(tmp_path / "y.pt")


class Written(nn.Module):
    """Abstract: a module with two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)


class Skip(Written):
    """Adds its input to what it makes."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.a(x) + x


class Branch(Written):
    """Goes one of two ways."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        if x.sum() > 0:
            x = self.a(x)
        return x


class Parts(Written):
    """Puts two values behind each other."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return torch.cat([self.a(x), self.b(x)], 1)


class Twice(Written):
    """Uses weights twice."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.a(self.a(x))


class Two(Written):
    """Returns two values."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run it."""
        return self.a(x), self.b(x)


class Overwritten(Written):
    """Uses a value after it was overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        y = self.a(x)
        rows = y.flatten(1)
        y.relu_()
        return torch.sigmoid(rows)


class Endless(Written):
    """Never ends."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        n = 1
        while n > 0:
            n = n + 1
        return self.a(x)


class Loop(Written):
    """Runs as often as there are images."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        for _ in range(int(x.sum())):
            x = self.b(x)
        return x


class Raising(Written):
    """Refuses its images."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        if x.size(1) == 3:
            raise ValueError("no colours")
        return self.a(x)


REFUSED: dict[str, tuple[type[Written], str]] = {
    "a skip": (Skip, "add.*takes conv2d in a and the image; a network here is a chain"),
    "a branch": (Branch, r"code/__torch__/\S+, line \d+: which way it goes depends on its images"),
    "two parts": (Parts, "cat.*takes conv2d in a and conv2d in b; a network here"),
    "weights twice": (Twice, "conv2d in a: its weight is that of conv2d in a again"),
    "two results": (Two, "expected one tensor as its output, made of its image"),
    "overwritten": (Overwritten, "sigmoid.*takes a value that was overwritten in place before"),
    "endless": (Endless, "expected at most 150,000 steps, found more"),
    "a loop": (Loop, r"line \d+: it loops over something that is not known"),
    "an error": (Raising, r"line \d+: it raises an error: 'no colours'"),
}
"""What is no chain of layers, and what the refusal says."""


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_chain_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    """One line with the file, the operation or the line of its code, and the reason."""
    kind, says = REFUSED[what]
    saved(kind(), torch.rand(1), tmp_path / "x.pt", "script")
    with pytest.raises(CheckpointError, match=rf"^\S*x.pt: .*{says}") as caught:
        vggkit.import_config(tmp_path / "x.pt", input="3x8x8")
    assert "\n" not in str(caught.value)


def test_a_model_that_was_saved_in_training_is_read_as_in_evaluation(tmp_path: Path) -> None:
    """A scripted one knows both; a traced one only how it ran."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that TorchScript is old, and that outputs differ
        torch.jit.save(torch.jit.script(model.train()), str(tmp_path / "x.pt"))
        torch.jit.save(torch.jit.trace(model, torch.rand(2, 3, 8, 8), check_trace=False), str(tmp_path / "y.pt"))
    wanted = vggkit.describe(model, input="3x8x8")
    assert vggkit.import_config(tmp_path / "x.pt", input="3x8x8").blocks == wanted.blocks
    with pytest.raises(CheckpointError, match="batch_norm in 1: it measures the batch in evaluation too"):
        vggkit.import_config(tmp_path / "y.pt")


def test_a_checkpoint_is_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who imports one is told what to do; so is who exports to TorchScript."""
    monkeypatch.chdir(tmp_path)
    torch.save(small().state_dict(), "x.pt")
    says = r"x.pt: expected a file that ends in .onnx, .pt2, .*, or TorchScript; of a checkpoint, `vggkit inspect` says"
    with pytest.raises(ArgumentError, match=says):
        vggkit.import_config("x.pt")
    with pytest.raises(ArgumentError, match=r"no.pt: expected a file that ends in .onnx, .*, or TorchScript$"):
        vggkit.import_config("no.pt")
    with pytest.raises(ArgumentError, match=r"y.pt: expected a file that ends in .onnx, .pt2, [^T]*$"):
        vggkit.export("A", "y.pt")


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    """Without its code, with other code, without a tensor."""
    saved(small(), torch.rand(1, 3, 64, 64), tmp_path / "x.pt", "trace")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = next(name for name in members if "/batchnorm" in name and name.endswith(".py"))
    for name, content, says in (
        (code, None, r"has no method 'forward' in the file"),
        (code, b"class (", "expected code of TorchScript"),
        (code, b"\xff", "expected code of TorchScript"),
        ("x/data/0", None, "expected data/0 in it, found none"),
        ("x/data/0", b"123", "expected 3×3×3×3 values with strides"),
        ("x/data.pkl", b"\x80\x02K\x01.", "expected a module of TorchScript, found something else"),
        ("x/byteorder", b"big", "expected little-endian values"),
    ):
        with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
            for word, old in members.items():
                if word != name or content is not None:
                    archive.writestr(word, content if word == name and content is not None else old)
        with pytest.raises(CheckpointError, match=says):
            vggkit.import_config(tmp_path / "y.pt")


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    """Neither torch nor anything of the file is run."""
    saved(small(), torch.rand(1, 3, 64, 64), tmp_path / "x.pt", "script")
    code = "import sys, vggkit; vggkit.import_config('x.pt'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "False\n"

"""Exported programs: what is written is loaded by torch and computes what the model does; what torch writes is read."""

from __future__ import annotations

import io
import json
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
from vggkit import CheckpointError, Network
from vggkit.notation.zoo import family_names

TINY: dict[str, Any] = {"input": "3x64x64", "width": 0.05, "num_classes": 7}

ODD = (
    "{input: 3x12x10, blocks: [[{conv: 4, padding_mode: reflect}, {LRN: 4}, {conv: 6, groups: 2, dilation: 2, stride:"
    " 2, bias: false, norm: {groupnorm: 3}}, {maxpool: 3, stride: 1, padding: 1, ceil_mode: true}, {batchnorm: {affine:"
    " false}}, {conv: 4, activation: {gelu: {approximate: tanh}}}, {avgpool: 2, stride: 1, divisor_override: 3}]],"
    " classifier: [{adaptive-avgpool: 3x2}, {flatten: hwc}, FC-5, log-softmax]}"
)
"""Layers that are several operations, and options that few have."""


def some_images(network: Network, count: int = 2) -> Tensor:
    """Return images of a network's size."""
    return torch.randn(count, *network.input_shape, generator=torch.Generator().manual_seed(0))


def loaded(path: Path) -> Any:
    """Return the module that torch loads from a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        return torch.export.load(str(path)).module()


def exported(model: nn.Module, images: Tensor, path: Path, *, dynamic: bool = True) -> None:
    """Have torch export and save a model."""
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        torch.export.save(torch.export.export(model, (images,), dynamic_shapes=shapes), str(path))


# What is written


def check_written(network: Network, folder: Path) -> None:
    """Hold both forms of a file, without and with weights, against torch and the network itself."""
    vggkit.export(network, folder / "s.pt2")
    assert plainest(Network.of(vggkit.import_config(folder / "s.pt2"))) == plainest(network)
    if not network.weight_layers:
        return
    model = with_statistics(network)
    vggkit.export(network, folder / "x.pt2", weights=model)
    program = loaded(folder / "x.pt2")
    for count in (1, 3):
        images = some_images(network, count)
        try:
            wanted = scores(model, images.clone())
        except ValueError:  # torch has no statistics of single values
            continue
        with torch.no_grad():
            found = program(images.clone())
        assert torch.equal(found.nan_to_num(), torch.from_numpy(wanted).nan_to_num())


@given(networks())
@settings(max_examples=20)
@example(Network.of(vggkit.loads(ODD)))
def test_a_drawn_network_is_loaded_by_torch_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, network: Network
) -> None:
    """Every layer and option, for any number of images; and read back it is the same."""
    check_written(network, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@given(networks())
@settings(max_examples=300)
def test_so_are_many(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    """The same, of more of them."""
    check_written(network, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("name", sample(["A", "A-LRN", "C", "D", "E", "vgg16_bn"], ["A-LRN", "vgg16_bn"]))
def test_the_papers_networks_go_out_and_come_back(name: str, tmp_path: Path) -> None:
    """The configuration, its name and the weights are what they were."""
    network = Network.of(name, **TINY)
    model, images = with_statistics(network), some_images(network)
    assert vggkit.export(model, tmp_path / "x.pt2") == "schema 8.20, input image, output softmax"
    config = vggkit.import_config(tmp_path / "x.pt2", weights=tmp_path / "y.safetensors")
    assert config == network.config
    wanted = scores(model, images)
    assert torch.equal(loaded(tmp_path / "x.pt2")(images), torch.from_numpy(wanted))
    assert (scores(vggkit.load_model(tmp_path / "y.safetensors").eval(), images) == wanted).all()


@pytest.mark.parametrize("name", sample([*family_names()], ["cnn_m", "SSD300", "cifar_vgg11_gn"]))
def test_the_family_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    """Without weights: a few kilobytes, and torch gives the output's shape on the meta device."""
    network = Network.of(name)
    vggkit.export(network, tmp_path / "x.pt2")
    assert (tmp_path / "x.pt2").stat().st_size < 40_000
    assert plainest(Network.of(vggkit.import_config(tmp_path / "x.pt2"))) == plainest(network)
    output = loaded(tmp_path / "x.pt2")(torch.empty(5, *network.input_shape, device="meta"))
    assert output.shape == (5, *network.layers[-1].output_shape)


def test_a_file_that_was_changed_is_read_by_its_operations(tmp_path: Path) -> None:
    """What it states of itself counts only if its program is that of the configuration."""
    config = vggkit.loads("{name: stated, input: 3x8x8, blocks: [[conv3-4, {conv: 4, name: second}]]}")
    vggkit.export(config, tmp_path / "x.pt2")
    assert vggkit.import_config(tmp_path / "x.pt2") == config
    with zipfile.ZipFile(tmp_path / "x.pt2") as archive:
        program = archive.read("stated/models/model.json")
    for before, after in (
        (b"relu_.default", b"tanh.default"),
        (b"name: stated", b"extends: D"),
        (b"conv3-4", b"conv3-5"),
    ):
        found = vggkit.import_config(changed(tmp_path / "x.pt2", {"models/model.json": program.replace(before, after)}))
        wanted = "tanh" if b"tanh" in after else "relu"
        assert [placed.layer.keyword for placed in Network.of(found)] == ["conv", wanted] * 2
        assert found.name == "changed"


def test_torchs_state_dict_has_the_models_names(tmp_path: Path) -> None:
    """A program's parameters can be loaded and trained as the model's."""
    model = vggkit.build("vgg16_bn", **TINY, seed=0).eval()
    vggkit.export(model, tmp_path / "x.pt2")
    program = torch.export.load(str(tmp_path / "x.pt2"))
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    assert program.state_dict.keys() == state.keys()
    assert all(torch.equal(program.state_dict[name], value) for name, value in state.items())
    trained = {name for name, value in program.state_dict.items() if value.requires_grad}
    assert trained == {name for name, _ in model.named_parameters()}


def test_weights_begin_where_torch_puts_them(tmp_path: Path) -> None:
    """At a multiple of 64 bytes, so that whoever reads the file may map them."""
    model = vggkit.build("A", **TINY, seed=0)
    vggkit.export(model, tmp_path / "x.pt2")
    content = (tmp_path / "x.pt2").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pt2") as archive:
        for info in archive.infolist():
            if "/weight_" in info.filename:
                begin = info.header_offset + 30 + len(info.filename) + len(info.extra)
                assert begin % 64 == 0
                assert content[begin : begin + info.file_size] == archive.read(info)


# What torch writes


def check_read(network: Network, folder: Path, *, dynamic: bool) -> None:
    """Have torch export a network's modules, and hold what is read against them."""
    if not network.weight_layers:
        return
    model, images = with_statistics(network), some_images(network)
    try:
        wanted = scores(model, images.clone())
        whole = nn.Sequential(model, nn.Softmax(dim=1)) if network.ends_in_softmax else model
        exported(whole, images.clone(), folder / "x.pt2", dynamic=dynamic)
    except ValueError:  # torch has no statistics of single values
        return
    config = vggkit.import_config(folder / "x.pt2")
    assert plainest(Network.of(config)) == plainest(network)
    found = scores(vggkit.build(config, weights=folder / "x.pt2").eval(), images.clone())
    assert numpy.array_equal(found, wanted, equal_nan=True)


@pytest.mark.parametrize("dynamic", [True, False])
@given(networks())
@settings(max_examples=6)
@example(Network.of(vggkit.loads(ODD)))
def test_a_drawn_model_that_torch_exports_is_read_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, dynamic: bool, network: Network
) -> None:
    """Layer by layer, for any number of images and for a fixed one."""
    check_read(network, tmp_path_factory.getbasetemp(), dynamic=dynamic)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
@given(networks())
@settings(max_examples=150)
def test_so_are_many_models(tmp_path_factory: pytest.TempPathFactory, dynamic: bool, network: Network) -> None:
    """The same, of more of them."""
    check_read(network, tmp_path_factory.getbasetemp(), dynamic=dynamic)


@pytest.mark.parametrize("name", sample(["vgg11", "vgg13_bn", "vgg16", "vgg19_bn", "alexnet"], ["vgg11", "alexnet"]))
def test_torchvisions_models_are_read(name: str, tmp_path: Path) -> None:
    """Exported without values they are what `describe` says, each block where it was."""
    torchvision = judges.package("torchvision")
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None).eval()
        exported(model, torch.empty(2, 3, 224, 224), tmp_path / "x.pt2")
    described = vggkit.describe(model)
    assert vggkit.import_config(tmp_path / "x.pt2").blocks == described.blocks
    assert vggkit.import_config(tmp_path / "x.pt2").classifier == described.classifier


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(1, 0)),
    "same": lambda: nn.Conv2d(3, 4, 3, padding="same"),
    "valid": lambda: nn.Conv2d(3, 4, 3, padding="valid", bias=False),
    "depthwise": lambda: nn.Conv2d(3, 6, 3, groups=3),
    "circular": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "replicate": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"),
    "padded": lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)),
    "batch norm": lambda: nn.BatchNorm2d(3),
    "batch norm alone": lambda: nn.BatchNorm2d(3, affine=False, track_running_stats=False),
    "batch norm in a row": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192, eps=1e-3)),
    "group norm": lambda: nn.GroupNorm(3, 3),
    "LRN": lambda: nn.LocalResponseNorm(4, 1e-3, 0.5, 2.0),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(),
    "leaky": lambda: nn.LeakyReLU(0.2, inplace=True),
    "elu": lambda: nn.ELU(0.5, inplace=True),
    "silu": lambda: nn.SiLU(),
    "gelu": lambda: nn.GELU("tanh"),
    "hardtanh": lambda: nn.Hardtanh(-2.0, 3.0, inplace=True),
    "tanh": lambda: nn.Tanh(),
    "sigmoid": lambda: nn.Sigmoid(),
    "max pool": lambda: nn.MaxPool2d(3, 2, 1, 1, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
    "global": lambda: nn.AdaptiveAvgPool2d(1),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.3), nn.Tanh()),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False), nn.LogSoftmax(dim=-1)),
}
"""Each kind of layer, alone or with what it needs."""


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_is_what_describe_says(layer: str, tmp_path: Path) -> None:
    """Of torch's own modules: the same configuration."""
    torch.manual_seed(0)
    model = LAYERS[layer]().eval()
    exported(model, torch.rand(2, 3, 8, 8), tmp_path / "x.pt2")
    found, wanted = vggkit.import_config(tmp_path / "x.pt2"), vggkit.describe(model, input="3x8x8")
    assert (found.blocks, found.classifier) == (wanted.blocks, wanted.classifier)


class Written(nn.Module):
    """A module with two convolutions and a forward pass of choice."""

    def __init__(self, run: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Linear(8, 4)
        self.run = run

    def forward(self, x: Tensor) -> Any:
        """Run it."""
        return self.run(self, x)


def overwritten(m: Any, x: Tensor) -> Tensor:
    """Return what was made of a value before it was overwritten in place."""
    y = m.a(x)
    rows = y.flatten(1)
    y.relu_()
    return torch.sigmoid(rows)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "a skip": (lambda m, x: m.a(x) + m.b(x), "add .*takes conv2d in a and conv2d in b; a network here is a chain"),
    "a gate": (lambda m, x: m.a(x) * m.a(x).sigmoid(), "mul .*takes conv2d in a and sigmoid"),
    "a square": (lambda m, x: m.a(x) ** 2, "pow.*: no layer of a configuration does that for an input of 3×8×8"),
    "a factor": (lambda m, x: m.a(x) * 0.5, "mul.*: no layer of a configuration does that"),
    "several": (lambda m, x: (m.a(x), m.b(x)), "expected one tensor as its output, found 2 values"),
    "parts": (lambda m, x: m.a(x).chunk(3, 1)[0], "chunk .several results.*: no layer"),
    "weights twice": (lambda m, x: m.a(m.a(x)), "conv2d in a.*: its weight is that of conv2d in a again"),
    "weights computed": (
        lambda m, x: torch.nn.functional.conv2d(x, m.a.weight * 2), "its weights or numbers are computed as it runs"
    ),
    "overwritten": (overwritten, "sigmoid.* takes a value that was overwritten in place before"),
    "turned": (lambda m, x: m.a(x).transpose(2, 3), "moves values so, from 3×8×8 to 3×8×8"),
    "mixed": (lambda m, x: m.a(x).reshape(1, -1), "moves values so, from 3×8×8 to 384"),
    "sequences": (lambda m, x: m.fc(x), "linear in fc: its input is 3×8×8; expected flat features"),
    "padding alone": (lambda m, x: torch.nn.functional.pad(m.a(x), (1, 1, 1, 1)), "it pads maps, and no convolution"),
    "half": (lambda m, x: m.a(x).half().float(), "to.*: no layer of a configuration does that"),
    "training": (lambda m, x: torch.nn.functional.dropout(m.a(x), 0.5, True), "drops values in evaluation too"),
}  # fmt: skip
"""What is no chain of layers, and what the refusal says."""


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_chain_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    """One line with the file, the operation and the reason."""
    run, says = REFUSED[what]
    exported(Written(run).eval(), torch.rand(2, 3, 8, 8), tmp_path / "x.pt2", dynamic=False)
    with pytest.raises(CheckpointError, match=rf"^.*x.pt2: .*{says}") as caught:
        vggkit.import_config(tmp_path / "x.pt2")
    assert "\n" not in str(caught.value)


def changed(path: Path, changes: dict[str, bytes | None]) -> Path:
    """Return a copy of a file with other members, or without some."""
    target = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        names = [*old.namelist(), *(f"{root}/{name}" for name in changes if f"{root}/{name}" not in old.namelist())]
        for name in names:
            content = changes.get(name.partition("/")[2], old.read(name) if name in old.namelist() else None)
            if content is not None:
                new.writestr(name, content)
    return target


def test_another_file_says_what_it_is(tmp_path: Path) -> None:
    """An older or a newer layout, compiled code, TorchScript, no archive, big-endian values."""
    vggkit.export("A", tmp_path / "x.pt2", input="3x32x32", width=0.05)
    with zipfile.ZipFile(tmp_path / "x.pt2") as archive:
        program = json.loads(archive.read("A/models/model.json"))
    newer = json.dumps({**program, "schema_version": {"major": 9, "minor": 1}}).encode()
    wrong = json.dumps({**program, "graph_module": 3}).encode()
    for changes, says in (
        ({"models/model.json": None}, "expected an exported program with models/model.json in it"),
        ({"models/model.json": None, "serialized_exported_program.json": b"{}"}, "exported by a torch before 2.8"),
        ({"models/model.json": None, "data/aotinductor/model/x.so": b""}, "it was compiled by AOTInductor"),
        ({"models/model.json": None, "constants.pkl": b""}, "it is TorchScript; rename it"),
        ({"models/model.json": newer}, "expected version 8 of torch's schema of exported programs, found 9.1"),
        ({"models/model.json": wrong}, "models/model.json: 'Expected `object`, got `int`"),
        ({"models/model.json": b"{"}, "models/model.json: 'Input data was truncated'"),
        ({"byteorder": b"big"}, "expected little-endian values, found big-endian ones"),
        ({"data/weights/model.pt": b""}, "its weights are in a pickle"),
        ({"data/weights/weight_0": None}, "expected data/weights/weight_0 in it, found none"),
        ({"data/weights/weight_0": b"1234"}, "block1.conv1.weight': expected 3×3×3×3 values .*, found 1"),
    ):
        with pytest.raises(CheckpointError, match=says):
            vggkit.import_config(changed(tmp_path / "x.pt2", changes))
    (tmp_path / "y.pt2").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=r"y.pt2: expected an archive of torch's, found other bytes"):
        vggkit.import_config(tmp_path / "y.pt2")


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float64", "channels last"])
def test_other_formats_of_weights_are_read(format: str, tmp_path: Path) -> None:
    """Half and double precision, and weights whose channels lie last in memory."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval()
    kind = {"memory_format": torch.channels_last} if format == "channels last" else {"dtype": getattr(torch, format)}
    model = model.to(**kind)
    exported(model, torch.rand(2, 3, 8, 8, dtype=kind.get("dtype", torch.float32)), tmp_path / "x.pt2")
    found = vggkit.load_model(tmp_path / "x.pt2").state_dict()
    wanted = model.state_dict()
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(found.values(), wanted.values(), strict=True))


def test_the_users_size_wins(tmp_path: Path) -> None:
    """`input=` describes the program for other images, where it does not compute with the size of its own."""
    text = "{input: 3x64x64, blocks: [[conv3-4, maxpool]], classifier: [global-avgpool, FC-3]}"
    vggkit.export(vggkit.loads(text), tmp_path / "x.pt2")
    assert vggkit.import_config(tmp_path / "x.pt2", input="3x96x96").input == (3, 96, 96)
    exported(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(2, 3, 8, 8), tmp_path / "y.pt2")
    with pytest.raises(CheckpointError, match="conv2d in 0: expected a weight of 4×1×3×3, found 4×3×3×3"):
        vggkit.import_config(tmp_path / "y.pt2", input="1x8x8")


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    """Neither does writing without weights."""
    code = (
        "import sys, vggkit; vggkit.export('D', 'D.pt2'); vggkit.import_config('D.pt2'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "False\n"


def test_a_file_may_be_written_to_a_pipe() -> None:
    """Nothing is sought in it: the archive is written from its beginning to its end."""
    from vggkit.exchange.files import Written as Job
    from vggkit.exchange.kinds import MODEL_FILES

    class Pipe(io.RawIOBase):
        content = b""

        def writable(self) -> bool:
            return True

        def write(self, part: Any) -> int:
            self.content += bytes(part)
            return len(part)

    pipe: Any = Pipe()
    MODEL_FILES[".pt2"].exported(pipe, Job(Network.of("A", **TINY), None))
    assert zipfile.ZipFile(io.BytesIO(pipe.content)).testzip() is None

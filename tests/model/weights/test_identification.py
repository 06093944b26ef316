"""Telling what a checkpoint is from its names and shapes alone, as a file of another library has nothing else."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from msgspec.structs import replace

import vggkit
from tests.drawn import configs
from tests.keras_process import Keras
from tests.model.weights.makers import LAYOUT_FILES, in_layout, small, without_configuration
from vggkit import VGG, CheckpointError, Network
from vggkit.model.weights.container import CONFIG_KEY
from vggkit.model.weights.inspection import Inspection, inspect
from vggkit.model.weights.layouts import LAYOUTS

pytestmark = pytest.mark.usefixtures("rehearsed_here")

PAPERS = ["A", "A-LRN", "B", "C", "D", "E"]


def told(model: VGG, layout: str, folder: Path) -> Inspection:
    """Return what a file in a layout tells, without the configuration that vggkit keeps in it."""
    return inspect(without_configuration(in_layout(model, layout, folder)))


def build(inspection: Inspection) -> Network:
    """Return the network of the YAML that is printed."""
    assert inspection.yaml is not None, inspection.notes
    return Network.of(vggkit.loads(inspection.yaml))


def shapes(network: Network) -> list[tuple[str, tuple[int, ...]]]:
    """Return the shapes of a built network's parameters and buffers, in order."""
    model = vggkit.build(network, device="meta")
    return [(name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_norm", [None, True], ids=["plain", "bn"])
@pytest.mark.parametrize("name", PAPERS)
def test_every_shipped_configuration_is_named(name: str, batch_norm: bool | None, layout: str, tmp_path: Path) -> None:
    """Its letter, batch norm, width, classes and input; A and A-LRN are both said where the file can't tell them."""
    model = small(name, batch_norm=batch_norm)
    inspection = told(model, layout, tmp_path)
    alike = name in ("A", "A-LRN") and layout == "vggkit"
    norm = " with batch norm" if batch_norm else ""
    letters = "A or A-LRN" if alike else name
    assert inspection.description == f"{letters}{norm}, width 0.05, 7 classes, input 3×64×64"
    assert inspection.known == ("A" if alike else name)
    assert ("A and A-LRN have the same parameters: A is taken" in inspection.notes) is alike
    assert any("padding of 1×1 convolutions" in note for note in inspection.notes) is (name == "C")
    assert any("epsilon" in note for note in inspection.notes) is bool(batch_norm and "keras" in layout)
    assert shapes(build(inspection)) == shapes(model.network)
    if not alike:
        kinds = [placed.layer for placed in build(inspection) if placed.layer.role != "norm"]
        assert kinds == [placed.layer for placed in model.network if placed.layer.role != "norm"]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "classes": ({"num_classes": 10}, "D, width 0.05, 10 classes, input 3×64×64"),
    "grey": ({"in_channels": 1}, "D, width 0.05, 7 classes, input 1×64×64"),
    "five channels": ({"in_channels": 5}, "D, width 0.05, 7 classes, input 5×64×64"),
    "size": ({"input": "3x96x96"}, "D, width 0.05, 7 classes, input 3×96×96"),
    "smallest": ({"input": "3x32x32"}, "D, width 0.05, 7 classes, input 3×32×32"),
    "width": ({"width": 0.125}, "D, width 0.125, 7 classes, input 3×64×64"),
    "width that only the FC layers tell": ({"width": 0.0501}, "D, width 0.0501, 7 classes, input 3×64×64"),
    "gap": ({"head": "gap"}, "D, width 0.05, its own classifier (global-avgpool, FC-7), 7 classes, input ≥ 32×32"),
}


@pytest.mark.parametrize(
    ("change", "layout"),
    [(change, layout) for change in CHANGES for layout in LAYOUTS if (change, layout) != ("gap", "timm")],
)
def test_a_changed_configuration_is_named_with_its_changes(change: str, layout: str, tmp_path: Path) -> None:
    """Other classes, colours, input sizes, widths and heads; timm's layout has no other head."""
    changes, words = CHANGES[change]
    model = small("D", **changes)
    inspection = told(model, layout, tmp_path)
    assert (inspection.description, inspection.known) == (words, "D")
    assert shapes(build(inspection)) == shapes(model.network)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PAPERS)
def test_a_trunk_is_named(name: str, layout: str, tmp_path: Path) -> None:
    """Without a classifier the convolutions are enough."""
    config = replace(vggkit.load(name, width=0.05, input="3x64x64"), classifier=())
    inspection = told(vggkit.build(config, seed=0), layout, tmp_path)
    letters = "A or A-LRN" if name in ("A", "A-LRN") and layout == "vggkit" else name
    assert inspection.description == f"{letters}, width 0.05, no classifier, input ≥ 32×32"
    assert build(inspection).config.classifier == ()


def of_holes(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write a safetensors file of these shapes whose values never reach the disk: they can't be read, but are holes."""
    header: dict[str, Any] = {"__metadata__": metadata or {}}
    end = 0
    for key, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        kind = "I64" if tensor.dtype == torch.int64 else "F32"
        header[key] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_a_whole_network_is_told_from_a_file_of_holes(name: str, tmp_path: Path) -> None:
    """The full sizes, in a safetensors file whose values were never written to the disk: no value is read."""
    from torchvision.models import get_model

    with torch.device("meta"):
        theirs = get_model(name)
    path = of_holes(theirs.state_dict(), tmp_path / "holes")
    inspection = inspect(path)
    letter = {"vgg11": "A", "vgg16_bn": "D with batch norm"}[name]
    wanted = f"{letter}, 1000 classes, input ≥ 32×32 (224×224 without stretching its maps to 7×7)"
    assert inspection.description == wanted
    taken = letter.split()[0]
    assert inspection.notes == (f"strides, paddings, pools and activations are not in the file: taken to be {taken}'s",)
    assert inspection.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert path.stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("name", [*PAPERS, *vggkit.notation.zoo.family_names()])
def test_every_network_of_the_family_is_named(name: str, tmp_path: Path) -> None:
    """At full size, from names and shapes alone; where others have the same tensors all of them are said."""
    state = vggkit.build(name, device="meta").state_dict()
    inspection = inspect(of_holes(state, tmp_path / "holes"))
    alike = [other for other, tensors in tensors_of_all().items() if tensors == tensors_of_all()[name]]
    said = re.split(r", | and | have ", inspection.notes[0]) if inspection.notes else []
    if inspection.known == name:
        assert set(alike) - {name} <= set(said)
    else:  # another with these tensors, or a letter of the paper's with other classes
        assert {name, *alike} <= set(said)
        assert not re.search("width|classifier [(]", inspection.description)
    assert shapes(build(inspection)) == [(key.rpartition(".")[2], tuple(tensor.shape)) for key, tensor in state.items()]
    if inspection.known == name and name not in PAPERS:
        assert re.match(rf"{re.escape(name)}(,| or )", inspection.description)
        kinds = [placed.layer for placed in build(inspection)]
        assert kinds == [placed.layer for placed in Network.of(name)]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("panns_cnn14_trunk", {"in_channels": 3}),
        ("cifar_vgg16_width0.25", {"in_channels": 1}),
        ("cifar_vgg16_width0.25", {"num_classes": 11}),
    ],
)
def test_other_colours_or_classes_are_another_network(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """The family's networks are named where every tensor is theirs, and not where a layer had to be adapted."""
    model = vggkit.build(name, device="meta", **changes)
    inspection = inspect(of_holes(model.state_dict(), tmp_path / "holes"))
    assert inspection.known not in vggkit.notation.zoo.family_names()


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("cifar_kuangliu_vgg16", "D"),
        ("cifar_vgg16_gn", "cifar_vgg16_gn"),
        ("mnist_vgg16_4pool", "mnist_vgg16_4pool"),
        ("vgg16_cam_wsol_28", "vgg16_cam_wsol_28"),
    ],
)
def test_a_file_with_its_configuration_says_which_of_the_family_it_is(name: str, renamed: str, tmp_path: Path) -> None:
    """Others have the same tensors, but the configuration tells; under another name, the paper's blocks come first."""
    state = vggkit.build(name, device="meta").state_dict()
    for config, known in ((vggkit.load(name), name), (replace(vggkit.load(name), name="mine"), renamed)):
        inspection = inspect(of_holes(state, tmp_path / "holes", {CONFIG_KEY: str(config)}))
        assert inspection.known == known
        assert inspection.description.startswith(known)
        assert build(inspection).config == config


@lru_cache(maxsize=1)
def tensors_of_all() -> dict[str, tuple[tuple[str, tuple[int, ...]], ...]]:
    """Return the shapes of every shipped network's built model."""
    return {name: tuple(shapes(Network.of(name))) for name in [*PAPERS, *vggkit.notation.zoo.family_names()]}


def test_what_the_names_say_of_pools_is_believed(tmp_path: Path) -> None:
    """A's convolutions with one pool fewer are not A: torchvision's indices tell."""
    text = """
    input: 3x32x32
    blocks: [[conv3-64, maxpool], [conv3-128, maxpool], [conv3-256, conv3-256, conv3-512, conv3-512, maxpool],
      [conv3-512, conv3-512, maxpool]]
    """
    model = vggkit.build(vggkit.loads(text, width=0.05), seed=0)
    for layout in ("torchvision", "vggkit", "keras", "keras3"):
        inspection = told(model, layout, tmp_path)
        assert inspection.known is None
        assert [placed.layer for placed in build(inspection)] == [placed.layer for placed in model.network]


def test_numbered_convolutions_are_no_blocks(tmp_path: Path) -> None:
    """`conv1` … `conv8` count layers: D's and A's names would be `conv1_1`."""
    model = small("A")
    stems = iter([*(f"conv{number}" for number in range(1, 9)), "fc1", "fc2", "fc3"])
    names = {layer.module: next(stems) for layer in model.network if layer.layer.role == "weight"}
    state = model.state_dict()
    torch.save({f"{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": v for n, v in state.items()}, tmp_path / "x")
    assert inspect(tmp_path / "x").description == "A or A-LRN, width 0.05, 7 classes, input 3×64×64"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_oblong_maps_are_said_and_not_guessed_where_they_matter(layout: str, tmp_path: Path) -> None:
    """2×3 maps or 3×2: the same shapes; in Keras's order of values one of them would be wrong."""
    model = small("A", input="3x96x64")
    path = without_configuration(in_layout(model, layout, tmp_path))
    inspection = inspect(path)
    if layout == "timm":  # keeps the first FC layer as a convolution
        assert inspection.description == "A, width 0.05, 7 classes, input 3×96×64"
        return
    assert "only their product: 2×3 is taken" in inspection.notes[-1]
    if layout.startswith("keras"):
        with pytest.raises(CheckpointError, match=r"2×3 is taken; name the right one with --config"):
            vggkit.load_model(path)
    else:
        assert vggkit.load_model(path).network.input_shape == (3, 64, 96)
    again = vggkit.build(model.network, weights=path)
    assert torch.equal(again.fc1.weight, model.fc1.weight)


def test_shapes_without_elements_are_no_network(tmp_path: Path) -> None:
    """Layers of no channels end in words."""
    torch.save({"a.weight": torch.zeros(0, 3, 3, 3), "b.weight": torch.zeros(2, 4)}, tmp_path / "x")
    inspection = inspect(tmp_path / "x")
    assert (inspection.description, inspection.yaml) == ("can't be told", None)


KERAS = """
import keras, numpy
from keras import layers
keras.utils.set_random_seed(1)
x = image = keras.Input((16, 16, 3))
for number, (name, channels) in enumerate({"zeta": 4, "alpha": 4, "mu": 6, "beta": 6}.items()):
    x = layers.Conv2D(channels, 3, padding="same", name=name)(x)
    x = layers.BatchNormalization(name=f"norm_{name}")(x)
    x = layers.ReLU()(x)
    if number % 2:
        x = layers.MaxPooling2D()(x)
x = layers.Dense(5, activation="relu", name="hidden")(layers.Flatten()(x))
model = keras.Model(image, layers.Dense(3, activation="softmax", name="chosen")(x))
random = numpy.random.default_rng(1)
for layer in model.layers:
    values = [random.normal(size=value.shape) * 0.3 for value in layer.get_weights()]
    layer.set_weights([abs(v) if n == 3 else v for n, v in enumerate(values)] if values else values)
x = random.normal(size=(2, 16, 16, 3)).astype("float32")
numpy.savez("pictures.npz", x=x, y=model.predict(x, verbose=0))
model.save("own.keras"); model.save_weights("own.weights.h5"); model.save("own.h5")
"""


def test_a_keras_model_of_somebodys_own_is_told_and_gives_its_probabilities(keras: Keras, tmp_path: Path) -> None:
    """Names in no order, small variances, Keras's epsilon of batch norm: the same probabilities from each format."""
    import numpy

    keras.run(KERAS, tmp_path)
    pictures = numpy.load(tmp_path / "pictures.npz")
    x = torch.from_numpy(pictures["x"]).permute(0, 3, 1, 2).contiguous()
    for name in ("own.keras", "own.weights.h5", "own.h5"):
        with torch.no_grad():
            found = vggkit.load_model(tmp_path / name).eval()(x).softmax(dim=1)
        # not to the bit: Keras's kernels add up in another order
        torch.testing.assert_close(found, torch.from_numpy(pictures["y"]), rtol=1e-5, atol=1e-6)
        assert float(found.min()) > 0.01, "scores that saturate would hide a difference"


# Random networks


@st.composite
def plain_networks(draw: DrawFn) -> Network:
    """Draw a VGG-style network: blocks of 3×3 and 1×1 convolutions that end in pools, and up to three FC layers."""
    norm = draw(st.booleans())
    channels, side = st.integers(1, 6), 2 ** draw(st.integers(3, 4))
    blocks = [
        [f"conv{draw(st.sampled_from([3, 3, 1]))}-{draw(channels)}" for _ in range(draw(st.integers(1, 3)))]
        for _ in range(draw(st.integers(1, 3)))
    ]
    units = draw(st.lists(st.integers(1, 6), max_size=3))
    document = {
        "name": "drawn",
        "input": f"{draw(st.integers(1, 4))}x{side}x{side}",
        "defaults": {"norm": "batch"} if norm else {},
        "blocks": [[*block, "maxpool"] for block in blocks],
        "classifier": [f"{{FC: {number}, norm: none}}" if norm else f"FC-{number}" for number in units],
    }
    text = (
        yaml.safe_dump({key: value for key, value in document.items() if value}).replace("'{", "{").replace("}'", "}")
    )
    return Network.of(vggkit.loads(text))


@given(network=plain_networks(), layout=st.sampled_from(["torchvision", "keras", "keras3"]))
@settings(max_examples=30, deadline=None)
def test_the_printed_yaml_builds_a_random_network(
    network: Network, layout: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same shapes in the same order, and a load of the same values."""
    model = vggkit.build(network, seed=0)
    path = without_configuration(in_layout(model, layout, tmp_path_factory.mktemp("random")))
    found = build(inspect(path))
    assert shapes(found) == shapes(network)
    loaded = vggkit.build(found, weights=path)
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@given(text=configs())
@settings(max_examples=60, deadline=None)
def test_a_saved_random_model_comes_back_equal(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any configuration: the same configuration, and the same tensors to the bit."""
    model = vggkit.build(vggkit.loads(text), seed=0)
    if not model.state_dict():
        return
    path = tmp_path_factory.mktemp("random") / "x.safetensors"
    vggkit.save_weights(model, path)
    if not any(placed.layer.role == "weight" for placed in model.network):
        with pytest.raises(CheckpointError, match="expected weights of convolutions or FC layers"):
            vggkit.load_model(path)
        return
    again = vggkit.load_model(path)
    assert again.config == model.config
    assert list(again.state_dict()) == list(model.state_dict())
    for ours, theirs in zip(again.state_dict().values(), model.state_dict().values()):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_every_layout_is_tried() -> None:
    """A new layout needs a file name in the makers, and so a place in these tests."""
    assert set(LAYOUT_FILES) == set(LAYOUTS)

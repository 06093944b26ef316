"""Which layer is which where the names don't say: in order, by kind and shape; never by guessing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vggkit
from tests.cli.test_app import printed
from tests.keras_process import Keras
from tests.model.weights.makers import in_layout, small
from vggkit import VGG, CheckpointError, Network
from vggkit.model.weights.inspection import inspect
from vggkit.model.weights.layouts import open_checkpoint
from vggkit.model.weights.matching import Matching, match

pytestmark = pytest.mark.usefixtures("rehearsed_here")

State = dict[str, Tensor]


def state_of(model: VGG, folder: Path) -> State:
    """Return a model's state dict under torchvision's names."""
    return dict(torch.load(in_layout(model, "torchvision", folder), weights_only=True))


def renamed(model: VGG, names: Iterable[str]) -> State:
    """Return a model's state dict with a new name for each layer, in order."""
    stems: dict[str, str] = {}
    new, state = iter(names), {}
    for name, tensor in model.state_dict().items():
        layer, _, role = name.rpartition(".")
        if layer not in stems:
            stems[layer] = next(new)
        state[f"{stems[layer]}.{role}"] = tensor.clone()
    return state


def save(state: State, format: str, folder: Path) -> Path:
    """Save a state dict; safetensors forgets the order."""
    path = folder / f"x.{format}"
    if format == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


def matched(network: Network, path: Path) -> Matching:
    """Match a file with a network."""
    return match(network, open_checkpoint(path))


def assert_equal(path: Path, model: VGG) -> None:
    """Assert that a file gives a model of the same network the same tensors to the bit, statistics included."""
    loaded = vggkit.build(model.network, weights=path).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize("format", ["pth", "safetensors"])
@pytest.mark.parametrize("prefix", ["backbone.", "model.encoder.", "net.0."])
@pytest.mark.parametrize("config", ["D", "vgg13_bn"])
def test_a_wrapped_network_is_matched_in_order(config: str, prefix: str, format: str, tmp_path: Path) -> None:
    """Names behind the name of what wraps them, in both formats, with every statistic of batch norm."""
    model = small(config)
    state = {prefix + name: tensor for name, tensor in state_of(model, tmp_path).items()}
    path = save(state, format, tmp_path)
    matching = matched(model.network, path)
    assert (matching.by, matching.left, matching.unused) == ("in order, by kind and shape", (), ())
    assert_equal(path, model)


def test_a_wrapped_trunk_serves_beside_somebodys_own_head(tmp_path: Path) -> None:
    """The blocks are found, and the head is told: another width, another number of classes."""
    model = small("vgg13_bn")
    state = {f"backbone.{n}": t for n, t in state_of(model, tmp_path).items() if n.startswith("features")}
    state |= {"head.weight": torch.rand(4, 100), "head.bias": torch.rand(4)}
    path = save(state, "pth", tmp_path)
    trunk = vggkit.build(model.network, weights=path, head="new")
    assert torch.equal(trunk.block5.norm2.running_var, model.block5.norm2.running_var)
    assert inspect(path).description == (
        "B with batch norm, width 0.05, its own classifier (FC-4), 4 classes, input 3×64×64"
    )
    assert torch.equal(vggkit.load_model(path).state_dict()["predictions.weight"], state["head.weight"])


def test_names_that_say_nothing_are_matched_in_the_files_order(tmp_path: Path) -> None:
    """Torch keeps the order of a state dict; `inspect --tensors` shows what became of each."""
    model = small("vgg13_bn")
    path = save(renamed(model, (f"encoder.{letter}" for letter in "zyxwvutsrqponmlkjihgfedcba")), "pth", tmp_path)
    assert_equal(path, model)
    becomes = {row.name: row.becomes for row in inspect(path, config=model.network).tensors}
    assert becomes["encoder.z.weight"] == "block1.conv1.weight"
    assert becomes["encoder.y.running_var"] == "block1.norm1.running_var"
    assert becomes["encoder.d.bias"] == "predictions.bias"
    assert list(becomes.values()) == list(model.state_dict())
    lines = printed("inspect", str(path), "--tensors", COLUMNS="140").splitlines()
    row = next(line for line in lines if line.startswith("encoder.y.running_var"))
    assert row.split() == ["encoder.y.running_var", "3", "float32", "12", "block1.norm1.running_var"]


def test_another_libraries_modules_are_matched(tmp_path: Path) -> None:
    """A network written by hand, whose layers are called as its author liked, gives the same scores to the bit."""
    blocks = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    theirs = nn.Sequential()
    theirs.add_module("stem", nn.Sequential(*blocks))
    theirs.add_module("body", nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()))
    theirs.add_module("tail", nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5)))
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)  # type: ignore[arg-type] # it has one
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type] # likewise
    path = save(theirs.state_dict(), "pth", tmp_path)
    text = "{input: 3x8x8, defaults: {norm: batch}, blocks: [[conv3-4, maxpool], [conv3-4, maxpool]]}"
    config = vggkit.loads(text[:-1] + ", classifier: [{FC: 5, norm: none}]}")
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(vggkit.build(config, weights=path).eval()(x), theirs.eval()(x))


# What is refused


@pytest.mark.parametrize("names", ["cabdefgh", "hgfedcba"])
def test_equal_shapes_without_an_order_are_refused(names: str, tmp_path: Path) -> None:
    """Safetensors has its tensors sorted: names without numbers say nothing, and nothing is guessed."""
    config = vggkit.loads("{input: 3x8x8, blocks: [[conv3-3, conv3-3, conv3-3, maxpool]]}")
    model = vggkit.build(config, seed=0)
    path = save(renamed(model, names), "safetensors", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        vggkit.build(config, weights=path)
    first, second = sorted(names[:3])[:2]
    assert str(caught.value) == (
        f"{path}: {first} and {second} have the same shape, and nothing says which comes first; number them, or save"
        f" them in order with torch.save"
    )
    inspection = inspect(path)
    assert (inspection.description, inspection.matched) == ("can't be told", "not at all")
    assert "nothing says which comes first" in inspection.notes[0]


def test_numbers_in_names_are_an_order(tmp_path: Path) -> None:
    """Ten comes behind nine, whatever the alphabet says."""
    config = vggkit.loads(f"{{input: 3x8x8, blocks: [[{', '.join(['conv3-3'] * 12)}]]}}")
    model = vggkit.build(config, seed=0)
    path = save(renamed(model, (f"layer{number}.c" for number in range(12))), "safetensors", tmp_path)
    assert list(matched(model.network, path).pairs[-1].stored.tensors) == ["bias", "weight"]
    assert_equal(path, model)


def test_different_shapes_need_no_order(tmp_path: Path) -> None:
    """Names in alphabetical order that is the network's own: each shape fits one place only."""
    config = vggkit.loads("{input: 3x8x8, blocks: [[conv3-2, conv3-4, maxpool]], classifier: [FC-5]}")
    model = vggkit.build(config, seed=0)
    assert_equal(save(renamed(model, ["first", "second", "third"]), "safetensors", tmp_path), model)


def test_a_longer_trunk_that_fits_in_two_ways_is_refused(tmp_path: Path) -> None:
    """In one line that says both."""
    config = vggkit.loads("{name: short, input: 3x8x8, blocks: [[conv3-3, conv3-3]]}")
    longer = vggkit.build(vggkit.loads("{input: 3x8x8, blocks: [[conv3-3, conv3-3, conv3-3]]}"), seed=0)
    path = save(renamed(longer, ["x.0", "x.1", "x.2"]), "pth", tmp_path)
    for head in (None, "new"):
        with pytest.raises(CheckpointError) as caught:
            vggkit.build(config, weights=path, head=head)
        assert str(caught.value) == (
            f"{path}: it fits short in 2 ways, from x.0 on and from x.1 on; name its layers as short's (`vggkit names"
            f" short`), or keep only the ones meant"
        )


def test_a_longer_trunk_that_fits_in_one_way_gives_its_layers(tmp_path: Path) -> None:
    """Features are taken from where they fit, with the norms that stand there."""
    config = vggkit.loads("{input: 3x8x8, blocks: [[conv3-4, conv3-4]]}")
    longer = vggkit.build(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4, conv3-4, conv3-4]]}"), seed=0)
    path = save(renamed(longer, ["x.0", "x.1", "x.2"]), "pth", tmp_path)
    model = vggkit.build(config, weights=path, include_top=False)
    assert torch.equal(model.block1.conv2.weight, longer.block1.conv2.weight)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("features.2", (4, 3, 3, 3)),  # another number of channels
        ("features.2", (3, 3, 1, 9)),  # another kernel of as many elements
        ("features.2", (27, 3)),  # another kind of as many elements
        ("classifier.3", (1, 204 * 204)),  # another shape of as many elements
        ("classifier.3", (204, 12, 17, 1)[:2]),
    ],
)
def test_a_layer_of_another_kind_or_shape_does_not_fit(layer: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """It is neither taken by its name nor in order."""
    model = small("D")
    state = state_of(model, tmp_path)
    state[f"{layer}.weight"] = torch.rand(shape)
    for prefix in ("", "wrapped."):
        path = save({prefix + name: tensor for name, tensor in state.items()}, "pth", tmp_path)
        matching = matched(model.network, path)
        assert matching.differences
        with pytest.raises(CheckpointError, match=f"{model.network.layer(layer).name}: checkpoint has"):
            vggkit.build(model.network, weights=path)


def test_statistics_that_are_missing_do_not_fit(tmp_path: Path) -> None:
    """A batch norm without running statistics would have those of a new one."""
    model = small("vgg13_bn")
    state = state_of(model, tmp_path)
    del state["features.1.running_var"]
    path = save(state, "pth", tmp_path)
    with pytest.raises(CheckpointError, match="block1_norm1: checkpoint has no running_var"):
        vggkit.build(model.network, weights=path)


def test_two_layers_of_one_shape_are_not_swapped(tmp_path: Path) -> None:
    """Names win over the order in the file: D's blocks have three convolutions of one shape."""
    model = small("D")
    state = state_of(model, tmp_path)
    names = list(state)
    backwards = {name: state[name] for name in reversed(names)}
    assert_equal(save(backwards, "pth", tmp_path), model)
    assert not torch.equal(model.block3.conv2.weight, model.block3.conv3.weight)
    shuffled = {name: state[name] for name in sorted(names)}
    assert_equal(save(shuffled, "safetensors", tmp_path), model)


KERAS = """
import keras
from keras import layers
keras.utils.set_random_seed(3)
base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
head = [layers.Flatten(), layers.Dense(6, activation="relu", name="mine"), layers.Dense(3, name="classes")]
model = keras.Sequential([base, *head])
model.save("own.keras"); model.save_weights("own.weights.h5"); model.save("own.h5")
import numpy
kernel, dense = base.get_layer("block4_conv3").get_weights()[0], model.layers[-2].get_weights()[0]
numpy.savez("values.npz", kernel=kernel, dense=dense)
"""


def test_the_mapping_of_a_keras_model_with_its_own_head_is_shown(keras: Keras, tmp_path: Path) -> None:
    """From each format: which tensor becomes which parameter, and the values that Keras itself has there."""
    import numpy

    keras.run(KERAS, tmp_path)
    values = numpy.load(tmp_path / "values.npz")
    for name in ("own.keras", "own.weights.h5", "own.h5"):
        inspection = inspect(tmp_path / name)
        assert inspection.description == "D, its own classifier (FC-6, FC-3), 3 classes, input 3×32×32"
        becomes = [row.becomes for row in inspection.tensors if row.becomes]
        model = vggkit.load_model(tmp_path / name)
        assert sorted(becomes) == sorted(model.state_dict())
        kernel = model.block4.conv3.weight.permute(2, 3, 1, 0)
        assert torch.equal(kernel, torch.from_numpy(values["kernel"]))
        first = next(p.module for p in model.network if p.block is None and p.layer.role == "weight")
        assert torch.equal(model.get_submodule(first).weight.T, torch.from_numpy(values["dense"]))

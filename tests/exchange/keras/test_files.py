"""Keras's files: Keras opens what is written and computes what torch does; what Keras writes is read."""

# ruff: noqa: E501  # a line of a model, or what is said of one, is not broken

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import vggkit
from tests.conftest import sample
from tests.drawn import networks
from tests.exchange.nets import assert_close, layers, plainest, scores, with_statistics
from tests.keras_process import Keras
from tests.model.weights.hostile import keras_chain, keras_layer
from tests.model.weights.hostile import zipped as write_zip
from vggkit import ArgumentError, CheckpointError, Network
from vggkit.notation.config import in_torchs_order
from vggkit.notation.layers import Layer, MaxPool2d
from vggkit.notation.preprocess import spell_preprocess
from vggkit.notation.zoo import family_names

pytestmark = pytest.mark.usefixtures("rehearsed_here")

DRAWN = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # that of rehearsals is the same for each
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink what runs in other processes takes minutes
)

TINY = {"input": "3x64x64", "width": 0.05, "num_classes": 7}

OPENS = """
import glob, json, keras, numpy
shapes = {}
for path in sorted(glob.glob("*.keras")):
    stem = path.removesuffix(".keras")
    model = keras.models.load_model(path)
    shapes[stem] = [model.input_shape, model.output_shape, model.count_params()]
    try:
        images = numpy.load(stem + ".images.npy")
    except FileNotFoundError:
        continue
    numpy.save(stem + ".found.npy", model.predict(images, verbose=0))
    model.save(stem + ".again.keras")
print(json.dumps(shapes))
"""
"""Opens every file in a folder; predicts for the images beside it, and saves it again."""


def some_images(network: Network, count: int = 3) -> torch.Tensor:
    """Return images of a network's size."""
    return torch.randn(count, *network.input_shape, generator=torch.Generator().manual_seed(0))


def channels_last(shape: tuple[int, ...]) -> list[int | None]:
    """Return a shape of an image or a vector as Keras has it, with any batch."""
    return [None, *shape[1:], shape[0]] if len(shape) == 3 else [None, *shape]


def predicted(path: Path) -> numpy.ndarray[Any, Any]:
    """Return what Keras computed for a file, channels first."""
    found: numpy.ndarray[Any, Any] = numpy.load(path.with_suffix(".found.npy"))
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found


def give_images(path: Path, images: torch.Tensor) -> None:
    """Lay images beside a file."""
    numpy.save(path.with_suffix(".images.npy"), images.permute(0, 2, 3, 1).numpy())


# What is written

REFUSALS = [
    r"Keras has no layer for \w+ \(LRN\)",
    r"\w+: Keras has no layer that pads with padding_mode (reflect|replicate|circular)",
    r"\w+: Keras has no convolution with a stride and a dilation",
    r"\w+: Keras's pools have no dilation",
    r"\w+: Keras has no max pool that pads its \d+×\d+ input by [01]×[01] as this one does",
    r"\w+: Keras's average pool divides by its window's size; divisor_override has no word there",
    r"\w+: Keras has no average pool whose last window lies partly outside of the maps",
    r"\w+: Keras has no average pool that pads its \d+×\d+ input by [01]×[01], which does not count",
    r"\w+: Keras's batch normalisation keeps running statistics",
    r"\w+: Keras's batch normalisation has a momentum, and does not average all batches",
    r"\w+: Keras's gelu is exact; approximate: tanh has no word there",
    r"\w+: Keras has no activation from -?[\d.]+ to [\d.]+",
    r"\w+: Keras's leaky ReLU has a slope from 0, and this one -0.5",
]
"""Everything that Keras has no layer for, and nothing else."""


def is_written(network: Network, path: Path) -> bool:
    """Write a network; if it is refused, hold that this is one line with a good reason, and that there is no file."""
    try:
        vggkit.export(network, path)
    except ArgumentError as error:
        said = str(error)
    else:
        return True
    assert any(re.fullmatch(f"drawn: {reason}", said) for reason in REFUSALS), said
    assert not path.exists()
    return False


def computing(network: Network) -> list[Layer]:
    """Return what a network's layers compute, flattened in torch's order where weights can have it.

    The largest values of windows at every place, of which a pool of one value takes some, are those of a pool that
    steps as far.
    """
    found: list[Layer] = []
    for layer in plainest(Network.of(in_torchs_order(network.config))):
        last = found[-1] if found else None
        both = isinstance(layer, MaxPool2d) and isinstance(last, MaxPool2d)
        if both and layer.kernel_size == last.stride == (1, 1):
            found[-1] = replace(last, stride=layer.stride)
        else:
            found.append(layer)
    return found


def check_drawn(drawn: list[Network], folder: Path, keras: Keras) -> None:
    """Hold files without and with weights against Keras and the networks, and what Keras writes of them again."""
    written = [network for number, network in enumerate(drawn) if is_written(network, folder / f"s{number}.keras")]
    models: dict[str, tuple[vggkit.VGG, torch.Tensor]] = {}
    for path, network in zip(sorted(folder.glob("s*.keras"), key=lambda one: int(one.stem[1:])), written):
        assert vggkit.import_config(path) == network.config
        if network.weight_layers:
            model, images = with_statistics(network), some_images(network)
            with_weights = folder / f"x{path.stem[1:]}.keras"
            vggkit.export(network, with_weights, weights=model)
            give_images(with_weights, images)
            models[with_weights.stem] = model, images
    shapes = json.loads(keras.run(OPENS, folder))
    for path, network in zip(sorted(folder.glob("s*.keras"), key=lambda one: int(one.stem[1:])), written):
        ends = [channels_last(network.input_shape), channels_last(network.output_shape)]
        held = sum(
            numpy.prod(shape, dtype=int) for one in network for role, shape in one.held.items() if "num" not in role
        )
        assert shapes[path.stem] == [*ends, held]
    for stem, (model, images) in models.items():
        path, again = folder / f"{stem}.keras", folder / f"{stem}.again.keras"
        wanted = scores(model, images)
        assert_close(predicted(path), model, images, bound(model))
        assert numpy.array_equal(scores(vggkit.load_model(path).eval(), images), wanted)
        config = vggkit.import_config(again, weights=folder / "again.safetensors")
        assert computing(Network.of(config)) == computing(model.network)
        for source in (again, folder / "again.safetensors"):
            assert_close(scores(vggkit.load_model(source).eval(), images), model, images)


def bound(model: vggkit.VGG) -> float:
    """Return how far Keras may be from torch in float32, where values are 1.

    Sums are added up in another order. Of a group normalisation Keras computes the variance as E[x²] − E[x]² (`moments` in
    keras/src/backend/torch/nn.py), which keeps few digits of one that is small beside the mean.
    """
    return 1e-2 if any(placed.layer.keyword == "groupnorm" for placed in model.network) else 1e-6


def emptied(folder: Path) -> Path:
    """Return a folder without files."""
    for path in folder.glob("*.*"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is drawn."""
    return tmp_path_factory.mktemp("drawn")


@given(st.lists(networks(), min_size=8, max_size=8))
@settings(DRAWN, max_examples=3)
def test_a_drawn_network_computes_the_same_in_keras(folder: Path, keras: Keras, drawn: list[Network]) -> None:
    """Every layer and option: what Keras has no layer for is refused, all else it opens and computes as torch does.

    Saved again by Keras it says nothing of vggkit, and is read as what computes the same.
    """
    check_drawn(drawn, emptied(folder), keras)


@pytest.mark.slow
@given(st.lists(networks(), min_size=8, max_size=8))
@settings(DRAWN, max_examples=40)
def test_so_do_many(folder: Path, keras: Keras, drawn: list[Network]) -> None:
    """The same, of more of them."""
    check_drawn(drawn, emptied(folder), keras)


POOLS = [
    f"{{input: 2x{side}x{side + 1}, blocks: [[{{conv: 3, activation: {activation}}}, {pool}]]}}"
    for side in (7, 8)
    for activation in ("none", "relu")
    for pool in (
        "{maxpool: 3, stride: 2, padding: 1}", "{maxpool: 3, stride: 2, ceil_mode: true}", "{maxpool: 3, stride: 1, padding: 1}",
        "{maxpool: 2, stride: 2, ceil_mode: true}", "{maxpool: 3, stride: 3, padding: 1, ceil_mode: true}", "{maxpool: 2x3, padding: 0x1}",
        "{maxpool: 2, stride: 2, padding: 1}", "{avgpool: 3, stride: 2, padding: 1}", "{avgpool: 3, stride: 1, padding: 1, count_include_pad: false}",
        "{avgpool: 3, stride: 2, padding: 1, count_include_pad: false}", "{conv: 4, stride: 2}", "{conv: 4, stride: 3, padding: 2x1, kernel: 5x3}",
        "{conv: 3, groups: 3, kernel: 2, padding: 1, bias: false}", "{conv: 3, dilation: 2}", "{conv: 3, kernel: 4, padding: 1}", "{adaptive-avgpool: 3x2}", "{adaptive-avgpool: 1}",
    )
]  # fmt: skip
"""Windows on odd and even sides, behind values of both signs and of one."""


def test_windows_are_padded_as_keras_can(tmp_path: Path, keras: Keras) -> None:
    """By `padding="same"` where that is the same, else by a layer of zeros, else by taking every second place."""
    drawn = [Network.of(replace(vggkit.loads(text), name="drawn")) for text in POOLS]
    check_drawn(drawn, tmp_path, keras)
    refused = [text for number, text in enumerate(POOLS) if not (tmp_path / f"s{number}.keras").exists()]
    kept = "{maxpool: 3, stride: 2, padding: 1}"
    assert refused
    assert not any(kept in text or ("avgpool" not in text and "relu" in text) for text in refused)


@pytest.mark.parametrize("name", ["A", "C", "E", "vgg16_bn"])
def test_the_papers_networks_are_within_a_millionth(name: str, tmp_path: Path, keras: Keras) -> None:
    """In Keras, of float32: it adds up in another order. Read back they are the same to the last bit."""
    network = Network.of(name, **TINY)
    model, images = with_statistics(network), some_images(network)
    path = tmp_path / "x.keras"
    vggkit.export(network, path, weights=model)
    give_images(path, images)
    keras.run(OPENS, tmp_path)
    wanted = scores(model, images)
    assert numpy.abs(predicted(path) - wanted).max() < 1e-6
    config = vggkit.import_config(path, weights=tmp_path / "x.safetensors")
    assert config == network.config
    assert numpy.array_equal(scores(vggkit.load_model(tmp_path / "x.safetensors").eval(), images), wanted)
    assert numpy.array_equal(scores(vggkit.load_model(path).eval(), images), wanted)


def unstated(path: Path) -> Path:
    """Return a copy of a file that does not state its configuration, as Keras's own don't."""
    target = path.with_suffix(".unstated.keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    del metadata["vggkit_config"]
    write_zip(target, {**members, "metadata.json": json.dumps(metadata).encode()})
    return target


@pytest.mark.parametrize("name", sample([*family_names()], ["cnn_m", "SSD300", "cifar_vgg11_gn"]))
def test_the_family_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    """Without weights: the same configuration, and the same layers where it isn't stated; LRN is refused."""
    network, path = Network.of(name), tmp_path / "x.keras"
    if any(placed.layer.keyword == "LRN" for placed in network):
        with pytest.raises(ArgumentError, match=r"Keras has no layer for \w+ \(LRN\)"):
            vggkit.export(network, path)
        return
    vggkit.export(network, path)
    assert path.stat().st_size < 200_000
    assert vggkit.import_config(path) == network.config
    assert computing(Network.of(vggkit.import_config(unstated(path)))) == computing(network)
    assert vggkit.inspect(path).matched == "not at all: it has no weights"


def test_without_weights_kernels_are_zeros_in_keras_alone(tmp_path: Path, keras: Keras) -> None:
    """Keras opens it with kernels of 0 and everything else as a new layer has it; `clone_model` draws them anew."""
    path = tmp_path / "x.keras"
    vggkit.export("vgg16_bn", path, **TINY)
    assert path.stat().st_size < 200_000
    said = keras.run(
        """
import json, keras
model = keras.models.load_model("x.keras")
new = keras.models.clone_model(model)
values = lambda model: {v.path: v.numpy() for v in model.variables}
was = {path: (float(v.min()), float(v.max())) for path, v in values(model).items() if "seed" not in path}
kernels = [float(v.std()) for path, v in values(new).items() if path.endswith("kernel")]
print(json.dumps([was, kernels, model.layers[0].name, [v for v in model.layers[-1].output.shape]]))
""",
        tmp_path,
    )
    was, kernels, first, shape = json.loads(said)
    usual = {"kernel": 0.0, "bias": 0.0, "gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
    assert {path.rpartition("/")[2]: [usual[path.rpartition("/")[2]]] * 2 for path in was} == {
        path.rpartition("/")[2]: values for path, values in was.items()
    }
    assert all(path.rpartition("/")[2] in usual and values[0] == values[1] for path, values in was.items())
    assert min(kernels) > 0
    assert (first, shape) == ("block1_conv1", [None, 7])
    with pytest.raises(CheckpointError, match="expected weights of convolutions or FC layers, found no tensor at all"):
        vggkit.load_model(path)


def test_a_statement_counts_for_the_layers_it_is_written_with(tmp_path: Path) -> None:
    """Of another network, of a file, or of nothing it is passed by; nothing that it names is opened."""
    path = tmp_path / "x.keras"
    vggkit.export("A", path, **TINY)
    own = vggkit.import_config(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for statement in (str(vggkit.load("B")), "extends: /etc/passwd", "extends: A", "\x1b[31m", "[" * 10_000, 3):
        members["metadata.json"] = json.dumps({"vggkit_config": statement, "weights": "vggkit: none"}).encode()
        write_zip(path, members)
        found = vggkit.import_config(path)
        assert found.name == "x"
        assert plainest(Network.of(found)) == plainest(Network.of(own))


# What Keras writes

APPLICATIONS = """
import keras, numpy
for name in ("VGG16", "VGG19"):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=3)
    random = numpy.random.default_rng(0)
    for layer in model.layers:
        if len(layer.get_weights()) == 2:
            layer.bias.assign(random.random(layer.bias.shape))
    images = random.random((1, 32, 32, 3), "float32")
    numpy.save(name + ".images.npy", images)
    numpy.save(name + ".found.npy", model.predict(images, verbose=0))
    model.save(name + ".keras")
"""


def test_keras_own_vgg_is_the_papers(tmp_path: Path, keras: Keras) -> None:
    """VGG16 is D and VGG19 is E, but for dropout, which keras.applications has not; their outputs are Keras's."""
    keras.run(APPLICATIONS, tmp_path)
    for name, letter in (("VGG16", "D"), ("VGG19", "E")):
        path = tmp_path / f"{name}.keras"
        config = vggkit.import_config(path)
        assert plainest(Network.of(config)) == plainest(Network.of(letter, input="3x32x32", num_classes=3))
        assert vggkit.inspect(path).known == letter
        images = torch.from_numpy(numpy.load(path.with_suffix(".images.npy"))).permute(0, 3, 1, 2).contiguous()
        model = vggkit.build(config, weights=path).eval()
        assert_close(predicted(path), model, images)


READ: dict[str, tuple[str, str]] = {
    "same 3/2 odd": ("i(9, 7), conv(4, 3, strides=2, padding='same')", "conv3-4/2"),
    "same 2/2 even": ("i(8, 8), conv(4, 2, strides=2, padding='same')", "{conv: 4, kernel: 2, stride: 2, padding: 0}"),
    "same 5x3": ("i(8, 8), conv(4, (5, 3), padding='same', dilation_rate=(1, 2))", "conv: 4"),
    "valid": ("i(8, 8), conv(4, 3, strides=3, use_bias=False)", "conv: {bias: false}"),
    "groups": ("i(8, 8), conv(6, 3, groups=3)", "groups: 3"),
    "zeros": ("i(8, 8), L.ZeroPadding2D(2), conv(4, 3, strides=2)", "{conv: 4, stride: 2, padding: 2}"),
    "zeros on one side": ("i(8, 8), L.ZeroPadding2D(((1, 0), (1, 0))), conv(4, 3, strides=2)", "conv3-4/2"),
    "zeros twice": ("i(8, 8), L.ZeroPadding2D(1), L.ZeroPadding2D((0, 1)), conv(4, 3)", "padding: 1x2"),
    "zeros before a pool": (
        "i(8, 8), conv(4, 3, activation='relu'), L.ZeroPadding2D(1), L.MaxPooling2D(3, 2)",
        "{maxpool: 3, padding: 1}",
    ),
    "same pool, even": (
        "i(8, 8), conv(4, 3, padding='same'), L.MaxPooling2D(3, 2, 'same')",
        "{maxpool: 3, ceil_mode: true}",
    ),
    "same pool, odd": (
        "i(9, 9), conv(4, 3, padding='same'), L.MaxPooling2D(3, 2, 'same')",
        "{maxpool: 3, padding: 1}",
    ),
    "same pool of one value": (
        "i(3, 3), conv(4, 3), L.MaxPooling2D(2, 2, 'same')",
        "{maxpool: 2, ceil_mode: true}",
    ),
    "same average": (
        "i(9, 9), conv(4, 3, padding='same'), L.AveragePooling2D(3, 2, 'same')",
        "{avgpool: 3, padding: 1, count_include_pad: false}",
    ),
    "zeros before an average": (
        "i(9, 9), conv(4, 3, padding='same'), L.ZeroPadding2D(1), L.AveragePooling2D(3, 2)",
        "{avgpool: 3, padding: 1}",
    ),
    "global": ("i(8, 8), conv(4, 3), L.GlobalAveragePooling2D()", "global-avgpool, flatten"),
    "global, kept": ("i(8, 8), conv(4, 3), L.GlobalAveragePooling2D(keepdims=True), conv(2, 1)", "global-avgpool, "),
    "global, dense": (
        "i(8, 8), conv(4, 3), L.GlobalAveragePooling2D(), L.Dropout(0.5), L.Dense(3)",
        "classifier: [global-avgpool, dropout, FC-3]",
    ),
    "global, soft-max": ("i(8, 8), conv(4, 3), L.GlobalAveragePooling2D(), L.Softmax()", "flatten, soft-max"),
    "global, reshaped": (
        "i(8, 8), conv(4, 3), L.GlobalAveragePooling2D(), L.Reshape((1, 1, 4)), conv(2, 1), L.Flatten()",
        "global-avgpool",
    ),
    "global max": ("i(8, 8), conv(4, 3), L.GlobalMaxPooling2D(), L.Dense(3)", "{maxpool: 6, stride: 6}"),
    "adaptive": (
        "i(8, 8), conv(4, 3), L.AdaptiveAveragePooling2D((4, 3)), L.Flatten(), L.Dense(3)",
        "{adaptive-avgpool: 4x3}",
    ),
    "batch norm": (
        "i(8, 8), conv(4, 3), L.BatchNormalization(epsilon=0.1, momentum=0.8), L.ReLU()",
        "{eps: 0.1, momentum: 0.2}",
    ),
    "batch norm, plain": ("i(8, 8), conv(4, 3), L.BatchNormalization(center=False, scale=False)", "affine: false"),
    "batch norm, flat": (
        "i(4, 5), conv(4, 3), L.Flatten(), L.BatchNormalization(), L.Dense(3)",
        "flatten, {batchnorm: ",
    ),
    "group norm": ("i(8, 8), conv(4, 3), L.GroupNormalization(2, epsilon=0.1)", "{groupnorm: 2, eps: 0.1}"),
    "instance norm": ("i(8, 8), conv(4, 3), L.GroupNormalization(-1)", "groupnorm: 4"),
    "group norm, flat": ("i(4, 5), conv(4, 3), L.Flatten(), L.GroupNormalization(3), L.Dense(3)", "{flatten: hwc}"),
    "layer norm, flat": ("i(4, 5), conv(4, 3), L.Flatten(), L.LayerNormalization(), L.Dense(3)", "groupnorm: 1"),
    "layer norm, whole": (
        "i(4, 5), conv(4, 3), L.LayerNormalization([1, 2, 3], center=False, scale=False)",
        "{groupnorm: 1, eps: 0.001, affine: false}",
    ),
    "permuted": (
        "i(4, 5), conv(4, 3), L.Permute((3, 1, 2)), L.Flatten(), L.GroupNormalization(3), L.Dense(3)",
        "[flatten, {groupnorm: ",
    ),
    "permuted, dense": ("i(4, 5), conv(4, 3), L.Permute((3, 1, 2)), L.Flatten(), L.Dense(3)", "classifier: [FC-3]"),
    "flat": ("i(4, 5), conv(4, 3), L.Flatten()", "[{flatten: hwc}]"),
    "reshaped": ("i(4, 5), conv(4, 3), L.Reshape((24,)), L.Dense(3)", "classifier: [FC-3]"),
    "reshaped, any": ("i(4, 5), conv(4, 3), L.Reshape((2, 3, 4)), L.Reshape((-1,)), L.Dense(3)", "classifier: [FC-3]"),
    "leaky": (
        "i(4, 5), conv(4, 3), L.LeakyReLU(0.2), conv(4, 1, activation=L.LeakyReLU(0.1))",
        "activation: {leaky-relu: 0.2}",
    ),
    "activations": (
        "i(4, 5), *[conv(4, 1, activation=name) for name in 'relu elu gelu silu swish sigmoid tanh leaky_relu relu6 hard_tanh softmax log_softmax'.split()]",
        "log-softmax",
    ),
    "layers": (
        "i(4, 5), conv(4, 3), L.ReLU(6.), L.ReLU(negative_slope=0.3), L.ELU(0.5), L.Activation('gelu'), L.Softmax()",
        "min_val: 0.0, max_val: 6.0",
    ),
    "nested": (
        "i(9, 8), keras.Sequential([i(9, 8), conv(4, 3), keras.Sequential([i(7, 6, 4), conv(5, 3)])]), conv(4, 3), L.Flatten(), L.Dense(3)",
        "conv: 5",
    ),
    "functional": (
        "i(9, 8), functional(i(9, 8), conv(4, 3), conv(5, 3)), conv(4, 3), L.Flatten(), L.Dense(3)",
        "conv: 5",
    ),
    "in training alone": (
        "i(8, 8), L.RandomFlip(), conv(4, 3), L.GaussianNoise(0.1), L.SpatialDropout2D(0.3)",
        "conv: 4",
    ),
    "unbuilt": ("conv(4, 3), L.Flatten(), L.Dense(3)", "input: 3x8x7"),
}
"""Models in a short hand of Keras, and something that their YAML has."""

BUILDS = f"""
import keras, numpy
L, conv = keras.layers, keras.layers.Conv2D
def i(height, width, channels=3):
    return keras.Input((height, width, channels))
def functional(image, *layers):
    value = image
    for layer in layers:
        value = layer(value)
    return keras.Model(image, value)
for number, text in enumerate({[text for text, _ in READ.values()]!r}):
    random = numpy.random.default_rng(number)
    keras.utils.set_random_seed(number)
    parts = eval(f"[{{text}}]")
    for kind in ("sequential", "functional"):
        model = keras.Sequential(parts) if kind == "sequential" else functional(*parts)
        if not model.built:
            model.build((None, 8, 7, 3))
        images = random.normal(size=(2, *model.input_shape[1:])).astype("float32")
        for value in model.weights:
            if value.path.split("/")[-1] in ("bias", "beta", "gamma", "moving_mean", "moving_variance"):
                value.assign(random.random(value.shape) + 0.5)
        stem = f"{{number}}.{{kind}}"
        numpy.save(stem + ".images.npy", images)
        numpy.save(stem + ".found.npy", model.predict(images, verbose=0))
        model.save(stem + ".keras")
        if text.startswith("conv"):
            break
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, keras: Keras) -> Path:
    """A folder with all models, as Sequential and as Functional, and what Keras computes."""
    folder = tmp_path_factory.mktemp("built")
    keras.run(BUILDS, folder)
    return folder


@pytest.mark.parametrize("name", READ)
def test_what_keras_writes_is_read(name: str, built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both as a Sequential and as a Functional; imported with its weights, and loaded as a checkpoint."""
    _, expected = READ[name]
    paths = sorted(built.glob(f"{[*READ].index(name)}.*.keras"))
    assert len(paths) == (1 if name == "unbuilt" else 2)
    for path in paths:
        images = torch.from_numpy(numpy.load(path.with_suffix(".images.npy"))).permute(0, 3, 1, 2).contiguous()
        config = vggkit.import_config(path, weights=tmp_path / "x.safetensors")
        assert expected in str(config), str(config)
        for source in (tmp_path / "x.safetensors", path):
            assert_close(predicted(path), vggkit.load_model(source).eval(), images)
        assert layers(vggkit.load_model(path).config) == layers(config)
        assert "with the channels last; here these are first" in caplog.text
    assert ("does nothing when the network runs, and is left out" in caplog.text) is (name == "in training alone")


PREPARED = {
    "i(None, None), L.Resizing(8, 9), L.Rescaling(1 / 255), conv(2, 3)": ("3x8x9", {"resize": "8x9", "scale": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}),
    "i(8, 9), L.Rescaling(1 / 127.5, offset=-1), conv(2, 3)": ("3x8x9", {"scale": 127.5, "mean": [1, 1, 1], "std": [1, 1, 1]}),
    "i(20, 20), L.CenterCrop(8, 9), L.Normalization(mean=[1., 2., 3.], variance=[4., 4., 4.]), conv(2, 3)": ("3x8x9", {"crop": "8x9", "scale": 1, "mean": [1, 2, 3], "std": [2, 2, 2]}),
    "i(8, 9, 1), L.Rescaling(1 / 255), L.Normalization(mean=0.5, variance=0.25), conv(2, 3)": ("1x8x9", {"scale": 255, "mean": [0.5], "std": [0.5], "colour": "grey"}),
}  # fmt: skip
"""What a model does to pictures, the image behind it, and its `preprocess`."""

REFUSED = {
    "i(8, 8), conv(2, 3, strides=2, padding='same', name='c')": "no configuration can express padding 'same', more on one side of c",
    "i(8, 8), L.ZeroPadding2D(((0, 1), (0, 0))), conv(2, 3, name='c')": "no configuration can express zeros, more on one side of c",
    "i(8, 8), L.ZeroPadding2D(1, name='z'), L.ReLU(name='r'), conv(2, 3)": "no configuration can express zeros around the input of r",
    "i(8, 8), conv(2, 3), L.ZeroPadding2D(1, name='z')": "no configuration ends in zeros around maps, or in channels put elsewhere",
    "i(8, 8), conv(2, 3), L.ZeroPadding2D(1), L.MaxPooling2D(name='p')": "no configuration can express zeros around maps with values below 0 of p",
    "i(8, 8), conv(2, 3), L.AveragePooling2D(3, 1, 'same'), L.AveragePooling2D(2, 1, 'same', name='a')": "no configuration can express padding 'same' of a",
    "i(8, 8), conv(2, 3), L.Dense(3, name='d')": "no configuration can express maps that are not flattened of d",
    "i(8, 8), conv(2, 3), L.PReLU(name='p')": "no configuration can express PReLU of p",
    "i(8, 8), conv(2, 3, activation='selu', name='c')": "no configuration can express activation 'selu' of c",
    "i(8, 8), conv(2, 3), L.Permute((2, 1, 3), name='p')": "no configuration can express Permute of p",
    "i(8, 8), conv(2, 3), L.Reshape((36, 2), name='r')": "no configuration can express Reshape of r",
    "i(8, 8), conv(2, 3), L.LayerNormalization(name='n')": "no configuration can express LayerNormalization of n",
    "i(8, 8), conv(2, 3), L.BatchNormalization(axis=1, name='n')": "no configuration can express axis 1 of n",
    "i(8, 8), conv(2, 3), L.BatchNormalization(scale=False, name='n')": "no configuration can express scale False of n",
    "i(8, 8), conv(2, 3), L.Rescaling(2., name='s')": "no configuration can express Rescaling of s",
    "i(8, 8, 4), L.Rescaling(2., name='s'), conv(2, 3)": "no configuration can express Rescaling of s",
    "i(8, 8), L.Rescaling(-2., name='s'), conv(2, 3)": "s: its options make no sense: expected scales above 0, found -2.0",
    "i(8, 8), L.DepthwiseConv2D(3, name='d')": "no configuration can express DepthwiseConv2D of d",
    "i(8, 8), L.Lambda(lambda x: x, name='l'), conv(2, 3)": "no configuration can express Lambda of l",
    "i(None, 8), conv(2, 3)": "it does not say the size of its images; --input says it",
    "keras.Input((5,)), L.Dense(2)": "it does not say the size of its images; --input says it",
}  # fmt: skip
"""Models that no configuration is, and what is said."""

SAVES = f"""
import keras, warnings
warnings.simplefilter("ignore")
L, conv = keras.layers, keras.layers.Conv2D
def i(height, width, channels=3):
    return keras.Input((height, width, channels))
for number, text in enumerate({[*PREPARED, *REFUSED]!r}):
    keras.Sequential(eval(f"[{{text}}]")).save(f"{{number}}.keras")
image = i(8, 8)
first = conv(3, 3, padding="same", name="first")(image)
keras.Model(image, L.Add(name="add")([image, first])).save("skip.keras")
twice = conv(3, 3, padding="same", name="twice")
keras.Model(image, twice(twice(image))).save("shared.keras")
keras.Model(image, [first, L.ReLU()(first)]).save("outputs.keras")
keras.config.set_dtype_policy("mixed_float16")
keras.Sequential([i(8, 8), conv(2, 3, name="half")]).save("half.keras")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, keras: Keras) -> Path:
    """A folder with these models."""
    folder = tmp_path_factory.mktemp("saved")
    keras.run(SAVES, folder)
    return folder


@pytest.mark.parametrize("text", PREPARED)
def test_what_is_done_to_pictures_is_the_preprocess(text: str, saved: Path) -> None:
    """Rescaling, Normalization, Resizing and CenterCrop, before the first layer; the input is what they make."""
    shape, expected = PREPARED[text]
    config = vggkit.import_config(saved / f"{[*PREPARED].index(text)}.keras")
    assert "x".join(map(str, config.input)) == shape
    assert config.preprocess is not None
    found = spell_preprocess(config.preprocess)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_configuration_says_is_refused_with_its_place(text: str, saved: Path) -> None:
    """One line: which layer, and why."""
    path = saved / f"{len(PREPARED) + [*REFUSED].index(text)}.keras"
    with pytest.raises(CheckpointError) as caught:
        vggkit.import_config(path)
    assert str(caught.value) == f"{path}: {REFUSED[text]}"


def test_a_branch_is_refused_with_its_place(saved: Path) -> None:
    """A skip, a layer that runs twice, two outputs."""
    for stem, name in (("skip", "image|input_layer.*"), ("shared", "twice"), ("outputs", "first")):
        with pytest.raises(
            CheckpointError, match=rf"{stem}.keras: there is more than one way through '({name})'; a network"
        ):
            vggkit.import_config(saved / f"{stem}.keras")


def test_half_precision_is_said(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What computes in another dtype is read, aloud."""
    vggkit.import_config(saved / "half.keras")
    assert "half computes in 'mixed_float16'; here everything is float32" in caplog.text


def test_an_input_without_a_size_is_given_one(saved: Path) -> None:
    """`input=` says what the file does not."""
    number = len(PREPARED) + [*REFUSED].index("i(None, 8), conv(2, 3)")
    assert vggkit.import_config(saved / f"{number}.keras", input="3x20x30").input == (3, 20, 30)
    with pytest.raises(CheckpointError, match="its images have 3 channels, not 1"):
        vggkit.import_config(saved / f"{number}.keras", input="1x20x30")


def archive(path: Path, description: str, **tensors: tuple[int, ...]) -> Path:
    """Write an archive with a description and tensors of zeros, by their paths with a dot for a stroke."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, shape in tensors.items():
            file[name.replace("__", "/")] = numpy.zeros(shape, "f4")
    write_zip(path, {"model.weights.h5": content.getvalue(), "config.json": description.encode()})
    return path


CONV = keras_layer("Conv2D", "c", filters=8, kernel_size=3)


def test_weights_that_are_not_the_layers_are_refused(tmp_path: Path) -> None:
    """A tensor too few, of another shape, of no weights, or none at all."""
    path = tmp_path / "x.keras"
    for tensors, says in (
        ({}, "c: expected 2 tensors, found 0"),
        ({"layers__conv2d__vars__0": (3, 3, 3, 8)}, "c: expected 2 tensors, found 1"),
        (
            {"layers__conv2d__vars__0": (3, 3, 4, 8), "layers__conv2d__vars__1": (8,)},
            "c: expected a weight of 8×3×3×3, found 8×4×3×3",
        ),
        (
            {"layers__conv2d__vars__0__0": (3, 3, 3, 8), "layers__conv2d__vars__1": (8,)},
            "c: expected tensors of float16, float32 or float64, found 'a group'",
        ),
    ):
        with pytest.raises(CheckpointError) as caught:
            vggkit.import_config(archive(path, keras_chain(CONV), **tensors))
        assert str(caught.value) == f"{path}: {says}"
    for description, says in (
        ("{}", "expected a config.json that describes layers, found none"),
        ("{", "config.json is no JSON"),
    ):
        with pytest.raises(CheckpointError, match=says):
            vggkit.import_config(archive(path, description))


def test_files_of_before_keras_3_are_read(tmp_path: Path) -> None:
    """Weights under `_layer_checkpoint_dependencies`, calls as nested lists, and a model inside that is called again."""
    image = {
        "class_name": "InputLayer",
        "name": "image",
        "config": {"name": "image", "batch_input_shape": [None, 8, 8, 3]},
        "inbound_nodes": [],
    }
    inner = {**CONV, "name": "c", "inbound_nodes": [[["image", 0, 0, {}]]]}
    ends = {"input_layers": [["image", 0, 0]]}
    model = {
        "class_name": "Functional",
        "name": "m",
        "config": {"name": "m", "layers": [image, inner], **ends, "output_layers": [["c", 0, 0]]},
        "inbound_nodes": [[["image", 0, 0, {}]]],
    }
    last = {**keras_layer("Conv2D", "d", filters=2, kernel_size=1), "name": "d", "inbound_nodes": [[["m", 1, 0, {}]]]}
    whole = {
        "class_name": "Functional",
        "config": {"name": "w", "layers": [last, image, model], **ends, "output_layers": [["d", 0, 0]]},
    }
    path = archive(
        tmp_path / "x.keras",
        json.dumps(whole),
        _layer_checkpoint_dependencies__conv2d__vars__0=(1, 1, 8, 2),
        _layer_checkpoint_dependencies__conv2d__vars__1=(2,),
        _layer_checkpoint_dependencies__functional___layer_checkpoint_dependencies__conv2d__vars__0=(3, 3, 3, 8),
        _layer_checkpoint_dependencies__functional___layer_checkpoint_dependencies__conv2d__vars__1=(8,),
    )
    config = vggkit.import_config(path, weights=tmp_path / "x.safetensors")
    assert [placed.layer.out_channels for placed in Network.of(config)] == [8, 2]  # type: ignore[attr-defined] # both are convolutions
    assert vggkit.load_model(tmp_path / "x.safetensors").config.input == (3, 8, 8)


def test_what_keras_exports_of_our_networks_as_onnx_is_read(tmp_path: Path, keras: Keras) -> None:
    """From a file of ours through Keras to ONNX, and back: the same outputs."""
    network = Network.of("vgg16_bn", **TINY)
    model, images = with_statistics(network), some_images(network)
    vggkit.export(network, tmp_path / "x.keras", weights=model)
    code = "import keras, warnings; warnings.simplefilter('ignore')\n"
    code += "model = keras.models.load_model('x.keras'); model(keras.ops.zeros((1, 64, 64, 3)))\n"
    keras.run(f"{code}model.export('x.onnx', format='onnx', verbose=False)", tmp_path)
    config = vggkit.import_config(tmp_path / "x.onnx")
    assert_close(scores(vggkit.build(config, weights=tmp_path / "x.onnx").eval(), images), model, images)

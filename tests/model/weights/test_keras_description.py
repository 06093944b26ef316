"""What a Keras model says of itself: taken over, compared or refused; the judge is what Keras itself predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vggkit
from tests.cli.test_app import printed, run
from tests.conftest import sample
from tests.keras_process import Keras
from vggkit import VGG, CheckpointError
from vggkit.exchange.keras.description import KerasLayers, keras_layers
from vggkit.model.weights.inspection import inspect
from vggkit.model.weights.keras_description import described_config

pytestmark = pytest.mark.usefixtures("rehearsed_here")

LAYERS = {
    "plain": "[conv(), pool(), conv(), pool(), flat(), dense(4), last()]",
    "nested": "[keras.Sequential([keras.Input((None, None, 3)), conv(), pool()], name='inner'), conv(), gap(), last()]",
}
"""Models whose layers are read, in a short hand of Keras."""

LAYERS_CODE = f"""
import json, keras
from itertools import count
from keras import layers
gap, flat, norm, relu = layers.GlobalAveragePooling2D, layers.Flatten, layers.BatchNormalization, layers.ReLU
pool, drop, act = layers.MaxPooling2D, lambda: layers.Dropout(0.5), lambda: layers.Activation("relu")
last = lambda activation="softmax": layers.Dense(3, activation=activation, name="last")
def model(text):
    convs, units = count(), count()
    def conv(**options):
        usual = dict(filters=4, kernel_size=3, padding="same", activation="relu", name=f"conv{{next(convs)}}")
        return layers.Conv2D(**dict(usual, **options))
    def bare():
        return conv(activation=None)
    def dense(size, activation="relu"):
        return layers.Dense(size, activation=activation, name=f"fc{{next(units)}}")
    scope = dict(globals(), conv=conv, bare=bare, dense=dense)
    return keras.Sequential([keras.Input((12, 8, 3), name="image"), *eval(text, scope)])
print(json.dumps({{name: json.loads(model(text).to_json()) for name, text in {LAYERS!r}.items()}}))
"""


@pytest.fixture(scope="module")
def described(keras: Keras, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each model's description, as Keras itself writes it."""
    found: dict[str, Any] = json.loads(keras.run(LAYERS_CODE, tmp_path_factory.mktemp("keras")))
    return found


def test_layers_and_input_are_read_in_order(described: dict[str, Any]) -> None:
    """Also from a model inside another."""
    plain, nested = (keras_layers(described[name]) for name in ("plain", "nested"))
    assert [name for name in plain.names if name in ("image", "conv0", "conv1", "fc0", "last")] == [
        "image", "conv0", "conv1", "fc0", "last",
    ]  # fmt: skip
    words = [layer.word for layer in nested.layers if layer.word != "InputLayer"]
    assert words == ["Conv2D", "MaxPooling2D", "Conv2D", "GlobalAveragePooling2D", "Dense"]
    assert (plain.input, plain.channels) == ((3, 12, 8), 3)
    assert (plain.branches, nested.branches) == ((), ())


BRANCHING = """
import json, keras
from keras import layers
image = keras.Input((8, 8, 3), name="image")
conv = layers.Conv2D(3, 3, padding="same", name="conv")
first, pool = conv(image), layers.GlobalAveragePooling2D(name="gap")
twice = keras.Model(image, layers.Dense(2, name="last")(pool(conv(first))))
heads = keras.Model(image, [layers.Dense(3, name="one")(pool(first)), layers.Dense(3, name="two")(pool(first))])
straight = keras.Model(image, layers.Dense(2, name="end")(pool(first)))
print(json.dumps([json.loads(model.to_json()) for model in (twice, heads, straight)]))
"""


def test_more_than_one_way_is_told(keras: Keras, tmp_path: Path) -> None:
    """A layer that runs twice and one with two behind it make no chain, whatever their order in the file."""
    twice, heads, straight = json.loads(keras.run(BRANCHING, tmp_path))
    assert keras_layers(twice).branches == ("conv",)
    assert keras_layers(heads).branches != ()
    assert keras_layers(straight).branches == ()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["config", "layers", "class_name", "name", "batch_shape", "epsilon", "strides", "activation"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(anything)
def test_anything_else_says_something_or_nothing_and_never_fails(description: Any) -> None:
    """A file of a stranger may hold any JSON."""
    assert isinstance(keras_layers(description), KerasLayers)


SAVED = """
import keras, numpy
from keras import layers
keras.utils.set_random_seed(1)
parts = [keras.Input((16, 24, 3))]
for number, (name, channels) in enumerate({"zeta": 4, "alpha": 4, "mu": 4, "beta": 6}.items()):
    parts += [layers.Conv2D(channels, 3, padding="same", name=name)]
    parts += [layers.BatchNormalization(epsilon=0.1 + number / 5), layers.ReLU()]
    parts += [layers.MaxPooling2D()] * (number % 3 != 1)
model = keras.Sequential([*parts, layers.Flatten(), layers.Dense(3, activation="softmax", name="chosen")])
random = numpy.random.default_rng(1)
for layer in model.layers:
    values = [random.normal(size=value.shape) * 0.3 for value in layer.get_weights()]
    layer.set_weights([abs(v) if n == 3 else v for n, v in enumerate(values)] if values else values)
x = random.normal(size=(2, 16, 24, 3)).astype("float32")
numpy.savez("pictures.npz", x=x, y=model.predict(x, verbose=0))
model.save("own.keras"); model.save("own.h5"); model.save_weights("own.weights.h5")
odd = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(4, 3, 2, "same", activation="relu", name="c")])
odd.save("odd.keras")
parts = [keras.Input((64, 96, 3))]
for channels in (3, 6, 12, 12, 25, 25, 25, 25):
    parts.append(layers.Conv2D(channels, 3, padding="same", activation="relu"))
    parts += [layers.MaxPooling2D()] * (len(parts) in (2, 4, 7, 10, 13))
keras.Sequential([*parts, layers.Flatten(), layers.Dense(3, activation="softmax")]).save("A.keras")
"""


def test_a_described_model_gives_its_probabilities(keras: Keras, tmp_path: Path) -> None:
    """Epsilons, an oblong input and pools that only the description tells; without it nothing is guessed."""
    keras.run(SAVED, tmp_path)
    pictures = numpy.load(tmp_path / "pictures.npz")
    x = torch.from_numpy(pictures["x"]).permute(0, 3, 1, 2).contiguous()
    for name in ("own.keras", "own.h5"):
        assert inspect(tmp_path / name).notes == ()
        model = vggkit.load_model(tmp_path / name).eval()
        with torch.no_grad():
            found = model(x).softmax(dim=1)
        # not to the bit: Keras's kernels add up in another order
        torch.testing.assert_close(found, torch.from_numpy(pictures["y"]), rtol=1e-5, atol=1e-6)
        assert float(found.min()) > 0.01, "scores that saturate would hide a difference"
        assert model.network.input_shape == (3, 16, 24)
    oblong = inspect(tmp_path / "A.keras")
    assert oblong.description == "A, width 0.05, its own classifier (FC-3), 3 classes, input 3×64×96"
    assert oblong.notes == ()
    with pytest.raises(CheckpointError, match="not in the file"):
        vggkit.load_model(tmp_path / "own.weights.h5")
    with pytest.raises(CheckpointError, match=r"has padding 'same', more on one side of c, which no configuration can"):
        vggkit.load_model(tmp_path / "odd.keras")


# Its configuration


PLAIN = """
input: 3x12x8
blocks: [[conv3-4, maxpool], [conv3-6, maxpool]]
classifier: [FC-5, FC-3, soft-max]
"""
NORMED = PLAIN.replace("blocks", "defaults: {conv: {norm: {batchnorm: {eps: 1e-3}}}}\nblocks")
AVERAGED = PLAIN.replace("[FC-5", "[global-avgpool, FC-5")
GROUPED = PLAIN.replace("[conv3-4", "[{conv: 4, norm: {groupnorm: {groups: 1, eps: 1e-3}}}")

SAME = {
    "usual": ("[conv(4), pool(), conv(6), pool(), *end()]", PLAIN),
    "dropped": ("[conv(4), pool(), layers.SpatialDropout2D(0.2), conv(6), pool(), flat(), drop(), dense(5), last()]",
                PLAIN),
    "augmented": ("[layers.RandomFlip(), conv(4), pool(), conv(6), pool(), *end()]", PLAIN),
    "scores": ("[conv(4), pool(), conv(6), pool(), flat(), dense(5), last(None)]", PLAIN),
    "soft-max apart": ("[conv(4), pool(), conv(6), pool(), flat(), dense(5), last(None), layers.Softmax()]", PLAIN),
    "ReLU apart": ("[bare(4), layers.ReLU(), pool(), bare(6), act('relu'), pool(), *end()]", PLAIN),
    "batch norm": ("[bare(4), norm(), act('relu'), pool(), bare(6), norm(), act('relu'), pool(), *end()]",
                   NORMED),
    "by number": ("[conv(4, strides=1, dilation_rate=1), pool(2, 2), conv(6), pool(), *end()]", PLAIN),
    "same pool": ("[conv(4), pool(padding='same'), conv(6), pool(), *end()]", PLAIN),
    "average": ("[conv(4), pool(), conv(6), pool(), gap(), dense(5), last()]", AVERAGED),
    "nested": ("[keras.Sequential([keras.Input((12, 8, 3)), conv(4), pool()], name='inner'), conv(6), pool(), *end()]",
               PLAIN),
}  # fmt: skip
"""Models in a short hand of Keras, and a configuration that says the same."""

OTHER: dict[str, tuple[str, str, list[str]]] = {
    **{
        f"activation {name}": (
            f"[conv(4), pool(), conv(6, activation='{name}'), pool(), *end()]", PLAIN,
            [f"block2_conv1: the file's activation is {word}, this configuration's relu"],
        )
        for name, word in {"elu": "elu", "gelu": "gelu", "tanh": "tanh", "silu": "silu", "leaky_relu": "leaky-relu",
                           "relu6": "hardtanh", "linear": "none", "sigmoid": "sigmoid"}.items()
    },
    "leaky": ("[bare(4), layers.LeakyReLU(0.3), pool(), conv(6), pool(), *end()]", PLAIN,
              ["block1_conv1: the file's activation is leaky-relu, this configuration's relu"]),
    "slope": ("[bare(4), layers.ReLU(negative_slope=0.1), pool(), conv(6), pool(), *end()]", PLAIN,
              ["block1_conv1: the file's activation is leaky-relu, this configuration's relu"]),
    "maximum": ("[bare(4), layers.ReLU(max_value=0.5), pool(), conv(6), pool(), *end()]", PLAIN,
                ["block1_conv1: the file's activation is hardtanh, this configuration's relu"]),
    "a layer as activation": (
        "[conv(4, activation=layers.ELU(alpha=0.5)), pool(), conv(6), pool(), *end()]", PLAIN,
        ["block1_conv1: the file's activation is elu, this configuration's relu"]),
    "dense tanh": ("[conv(4), pool(), conv(6), pool(), flat(), dense(5, 'tanh'), last()]", PLAIN,
                   ["fc1: the file's activation is tanh, this configuration's relu"]),
    "dense linear": ("[conv(4), pool(), conv(6), pool(), flat(), dense(5, None), last()]", PLAIN,
                     ["fc1: the file's activation is none, this configuration's relu"]),
    "sigmoid end": ("[conv(4), pool(), conv(6), pool(), flat(), dense(5), last('sigmoid')]", PLAIN,
                    ["predictions: the file's activation is sigmoid, this configuration's none"]),
    "average pool": ("[conv(4), layers.AveragePooling2D(2), conv(6), pool(), *end()]", PLAIN,
                     ["block1_pool: the file's pool is avgpool, this configuration's maxpool"]),
    "3/2 same pool": ("[conv(4), pool(3, 2, 'same'), conv(6), pool(), *end()]", PLAIN,
                      ["block1_pool: the file's kernel is 3, this configuration's 2",
                       "block1_pool: the file's ceil_mode is True, this configuration's False"]),
    "1/2 pool": ("[conv(4), pool(1, 2), conv(6), pool(), *end()]", PLAIN,
                 ["block1_pool: the file's kernel is 1, this configuration's 2"]),
    "epsilon": ("[bare(4), norm(epsilon=0.3), act('relu'), pool(), bare(6), norm(), act('relu'), pool(), *end()]",
                NORMED, ["block1_norm1: the file's eps is 0.3, this configuration's 0.001"]),
    "norm behind ReLU": ("[conv(4), norm(), pool(), bare(6), norm(), act('relu'), pool(), *end()]",
                         NORMED,
                         ["block1_conv1: behind it the file has relu, batchnorm, this configuration batchnorm, relu"]),
    "dilation": ("[conv(4, dilation_rate=(1, 2)), pool(), conv(6), pool(), *end()]", PLAIN,
                 ["block1_conv1: the file's padding is 1x2, this configuration's 1",
                  "block1_conv1: the file's dilation is 1x2, this configuration's 1"]),
    "stride": ("[conv(4, padding='valid', strides=2), conv(6), layers.AveragePooling2D(2), gap(),"
               " dense(5), last()]", AVERAGED,
               ["block1_conv1: the file's stride is 2, this configuration's 1",
                "block1_conv1: the file's padding is 0, this configuration's 1",
                "block1_pool: the file has no maxpool there, this configuration has",
                "block2_pool: the file's pool is avgpool, this configuration's maxpool"]),
    "global max": ("[conv(4), pool(), conv(6), pool(), layers.GlobalMaxPooling2D(), dense(5), last()]", AVERAGED,
                   ["avgpool: the file's pool is maxpool, this configuration's global-avgpool"]),
    "groups": ("[bare(4), layers.GroupNormalization(2), act('relu'), pool(), conv(6), pool(), *end()]",
               GROUPED, ["block1_norm1: the file's groups is 2, this configuration's 1"]),
}  # fmt: skip
"""Models, a configuration whose tensors have the same shapes, and what is otherwise there."""

FOREIGN: dict[str, tuple[str, str, str]] = {
    "selu": ("[conv(4, activation='selu'), pool(), conv(6), pool(), *end()]", PLAIN,
             "block1_conv1: the file has activation 'selu' of conv0"),
    "threshold": ("[bare(4), layers.ReLU(threshold=0.1, name='r'), pool(), conv(6), pool(), *end()]",
                  PLAIN, "block1_conv1: the file has threshold 0.1 of r"),
    "LayerNormalization": ("[bare(4), layers.LayerNormalization(name='n'), act('relu'), pool(), conv(6), pool(),"
                           " *end()]", GROUPED, "block1_conv1: the file has LayerNormalization of n"),
    "Permute": ("[layers.Permute((2, 1, 3), name='p'), conv(4), pool(), conv(6), pool(), *end()]",
                PLAIN, "input: the file has Permute of p"),
    "one-sided padding": ("[conv(4, strides=2), conv(6), pool(), gap(), dense(5), last()]", AVERAGED,
                          "block1_conv1: the file has padding 'same', more on one side of conv0"),
}  # fmt: skip
"""Models that no configuration can express, one whose tensors have the same shapes, and what is said."""

PREPARING = {
    "Rescaling": ("[layers.Rescaling(0.5, 0.25, name='s'), conv(4), pool(), conv(6), pool(), *end()]",
                  {"scale": 2, "mean": -0.25, "std": 1}),
    "Normalization": ("[layers.Rescaling(2), layers.Normalization(mean=[1., 2., 3.], variance=[4., 2., 2.]), conv(4),"
                      " pool(), conv(6), pool(), *end()]",
                      {"scale": 0.5, "mean": [1, 2, 3], "std": [2, 2**0.5, 2**0.5]}),
    "Rescaling behind": ("[layers.Normalization(mean=1., variance=4.), layers.Rescaling([1., 2., 3.], -1.), conv(4),"
                         " pool(), conv(6), pool(), *end()]",
                         {"scale": 1, "mean": [3, 2, 5 / 3], "std": [2, 1, 2 / 3]}),
}  # fmt: skip
"""Models that prepare pictures themselves, and how."""

MODELS = {name: case[0] for cases in (SAME, OTHER, FOREIGN, PREPARING) for name, case in cases.items()}  # type: ignore[attr-defined] # four tables

CODE = f"""
import json, keras, numpy
from itertools import count
from keras import layers
keras.utils.set_random_seed(1)
gap, flat, norm = layers.GlobalAveragePooling2D, layers.Flatten, layers.BatchNormalization
pool, drop, act = layers.MaxPooling2D, lambda: layers.Dropout(0.5), layers.Activation
last = lambda activation="softmax": layers.Dense(3, activation=activation, name="last")
def model(text):
    convs, units = count(), count()
    def conv(channels, **options):
        usual = dict(kernel_size=3, padding="same", activation="relu", name=f"conv{{next(convs)}}")
        return layers.Conv2D(channels, **dict(usual, **options))
    def bare(channels):
        return conv(channels, activation=None)
    def dense(size, activation="relu"):
        return layers.Dense(size, activation=activation, name=f"fc{{next(units)}}")
    def end():
        return [flat(), dense(5), last()]
    return keras.Sequential([keras.Input((12, 8, 3), name="image"), *eval(text, dict(globals(), **locals()))])
random = numpy.random.default_rng(1)
x = random.normal(size=(6, 12, 8, 3)).astype("float32")
outputs = {{"x": x}}
for number, (name, text) in enumerate({MODELS!r}.items()):
    made = model(text)
    for layer in made._flatten_layers(include_self=False, recursive=True):
        if layer.weights and not isinstance(layer, (keras.Sequential, layers.Normalization)):
            values = [random.normal(size=value.shape) * 0.3 for value in layer.get_weights()]
            if "seed" not in str(layer.weights[0].path):
                layer.set_weights([abs(v) + 0.1 if n == 3 else v for n, v in enumerate(values)])
    outputs[name] = made.predict(x, verbose=0)
    made.save(f"{{number}}.keras")
    made.save(f"{{number}}.h5")
    made.save_weights(f"{{number}}.weights.h5")
numpy.savez("outputs.npz", **outputs)
"""

ENDINGS = sample(["keras", "h5"], ["keras"])
"""The same description is in both: as a member of an archive, and as an attribute."""


class Saved:
    """The models' files and what Keras predicts.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs = numpy.load(folder / "outputs.npz")

    def file(self, name: str, format: str) -> Path:
        """Return a model's file."""
        return self.folder / f"{list(MODELS).index(name)}.{format}"

    def is_as(self, name: str, model: VGG) -> bool:
        """Tell whether a model gives what Keras gives, scores or probabilities, up to the rounding of float32."""
        x = torch.from_numpy(self.outputs["x"]).permute(0, 3, 1, 2).contiguous()
        expected = torch.from_numpy(self.outputs[name])
        assert expected.std() > 0.01
        with torch.no_grad():
            scores = model.eval()(x)
        found = scores.softmax(1) if torch.allclose(expected.sum(1), torch.ones(6), atol=1e-4) else scores
        return torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def saved(keras: Keras, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Every model, saved by Keras itself."""
    folder = tmp_path_factory.mktemp("keras")
    keras.run(CODE, folder)
    return Saved(folder)


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_what_a_configuration_can_say_is_taken_over(name: str, format: str, saved: Saved) -> None:
    """load_model gives Keras's outputs, without a note; the YAML that inspect prints does too."""
    path = saved.file(name, format)
    model = vggkit.load_model(path)
    assert model.report is not None
    assert model.report.notes == ()
    assert saved.is_as(name, model)
    inspection = inspect(path)
    assert inspection.notes == ()
    assert inspection.yaml is not None
    again = vggkit.build(vggkit.loads(inspection.yaml), weights=path)
    assert again.report is not None
    assert again.report.notes == ()
    assert saved.is_as(name, again)


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("name", SAME)
def test_the_same_network_loads_without_a_word(name: str, format: str, saved: Saved) -> None:
    """Dropout, a last soft-max, layers that change pictures in training alone are no differences."""
    model = vggkit.build(vggkit.loads(SAME[name][1]), weights=saved.file(name, format))
    assert model.report is not None
    assert model.report.notes == ()
    assert saved.is_as(name, model)


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("name", OTHER)
def test_another_network_is_refused_in_its_terms(name: str, format: str, saved: Saved) -> None:
    """With strict=False each difference is a note, and the outputs are not Keras's."""
    _, text, said = OTHER[name]
    path = saved.file(name, format)
    with pytest.raises(CheckpointError) as caught:
        vggkit.build(vggkit.loads(text), weights=path)
    for line in said:
        assert line in str(caught.value)
    model = vggkit.build(vggkit.loads(text), weights=path, strict=False)
    assert model.report is not None
    assert list(model.report.notes) == said
    assert not saved.is_as(name, model)


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_configuration_can_say_is_refused(name: str, format: str, saved: Saved) -> None:
    """Told or given, in one line; inspect says it; with strict=False it is noted, and the outputs are not Keras's."""
    _, text, said = FOREIGN[name]
    path = saved.file(name, format)
    with pytest.raises(CheckpointError) as caught:
        vggkit.load_model(path)
    assert "which no configuration can express" in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert said.partition("has ")[2] in str(caught.value)
    assert any(said.partition("has ")[2] in note for note in inspect(path).notes)
    with pytest.raises(CheckpointError, match="which no configuration can express"):
        vggkit.build(vggkit.loads(text), weights=path)
    model = vggkit.build(vggkit.loads(text), weights=path, strict=False)
    assert model.report is not None
    assert any(note.startswith(said) for note in model.report.notes)
    assert not saved.is_as(name, model)


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("name", PREPARING)
def test_what_a_model_does_to_pictures_is_its_preprocess(name: str, format: str, saved: Saved) -> None:
    """load_model's configuration has it; of pictures that are prepared so its outputs are Keras's."""
    _, expected = PREPARING[name]
    path = saved.file(name, format)
    model = vggkit.load_model(path).eval()
    said = model.config.preprocess
    assert said is not None
    for key, value in expected.items():
        wanted = value if key == "scale" or isinstance(value, list) else [value] * 3
        assert getattr(said, key) == pytest.approx(wanted)  # a scale is turned over, which rounds
    x = torch.from_numpy(saved.outputs["x"]).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (said.mean, said.std))
    with torch.no_grad():
        found = model((x / said.scale - mean) / std).softmax(1)
    # Keras adds up in another order, of values up to 255
    torch.testing.assert_close(found, torch.from_numpy(saved.outputs[name]), rtol=1e-4, atol=1e-5)
    assert inspect(path).notes == ()
    again = vggkit.build(vggkit.loads(str(inspect(path).yaml)), weights=path)
    assert again.report is not None
    assert again.report.notes == ()
    with pytest.raises(CheckpointError, match=r"input: the file's network prepares pictures itself: scale .*, mean"):
        vggkit.build(vggkit.loads(PLAIN), weights=path)


def test_the_soft_max_at_the_end_is_in_the_yaml(saved: Saved) -> None:
    """Where the model has one, as an activation or as a layer, and not where it gives scores."""
    for name, there in (("usual", True), ("soft-max apart", True), ("scores", False), ("sigmoid end", False)):
        text = printed("inspect", str(saved.file(name, "keras")))
        assert ("soft-max" in text) is there, name


def test_what_weights_alone_do_not_say_is_assumed_aloud(
    saved: Saved, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Activations and pools of a .weights.h5: in the report, in the log, and on stderr of a command."""
    path = saved.file("average", "weights.h5")
    model = vggkit.load_model(path)
    assert model.report is not None
    first = "strides, paddings and activations are not in the file: taken to be the defaults"
    assert model.report.notes == (first, "where its pools are is not in the file: taken to be where channels change")
    assert first in caplog.text
    done = run("convert", str(path), str(tmp_path / "x.safetensors"))
    assert (done.exit_code, f"Note: {first}" in done.stderr) == (0, True)
    Image.new("RGB", (28, 28), "orange").save(tmp_path / "orange.png")
    done = run("classify", str(tmp_path / "orange.png"), "--weights", str(path), "--preprocess", "torch")
    assert (done.exit_code, done.stderr.count(f"Note: {first}")) == (0, 1)


HEADS = """
import keras
from keras import layers
parts = [keras.Input((12, 8, 3)), layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)]
parts += [layers.Conv2D(6, 3, padding="same", activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
keras.Sequential([*parts, layers.LayerNormalization(), layers.Dense(7), layers.PReLU()]).save("head.keras")
keras.Sequential([*parts, layers.UnitNormalization(), layers.Dense(7, activation="selu")]).save("head.h5")
"""


def test_a_head_that_is_replaced_may_be_anything(keras: Keras, tmp_path: Path) -> None:
    """What no configuration can express counts in the blocks alone, with head='new'; the blocks are compared."""
    keras.run(HEADS, tmp_path)
    for name in ("head.keras", "head.h5"):
        model = vggkit.build(vggkit.loads(PLAIN), weights=tmp_path / name, head="new")
        assert model.report is not None
        assert (model.report.notes, len(model.report.loaded)) == ((), 2)
        with pytest.raises(
            CheckpointError, match="block1_conv1: the file's activation is relu, this configuration's g"
        ):
            vggkit.build(vggkit.loads(PLAIN), activation="gelu", weights=tmp_path / name, head="new")
        with pytest.raises(CheckpointError, match="no configuration can express"):
            vggkit.load_model(tmp_path / name)


def test_an_epsilon_that_is_not_in_the_file_is_noted(saved: Saved) -> None:
    """Keras's default in load_model; with a configuration, its own where that is another than Keras's."""
    path = saved.file("batch norm", "weights.h5")
    told = vggkit.build(vggkit.loads(NORMED), weights=path)
    assert told.report is not None
    assert told.report.notes == ()
    assert saved.is_as("batch norm", told)
    other = vggkit.build(vggkit.loads(NORMED.replace("1e-3", "1e-5")), weights=path)
    assert other.report is not None
    assert other.report.notes == (
        "the epsilon of batch norm is not in the file: the configuration's, 1e-05, is taken; Keras's default is 0.001",
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
WORDS = ["Conv2D", "Dense", "ReLU", "MaxPooling2D", "BatchNormalization", "GroupNormalization", "Softmax", "Flatten"]
OPTIONS = ["filters", "units", "kernel_size", "strides", "padding", "activation", "epsilon", "groups", "axis", "rate"]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "class_name": st.sampled_from(WORDS),
                "config": st.dictionaries(st.sampled_from(OPTIONS), anything).map(lambda said: {**said, "name": "x"}),
            }
        ),
        max_size=6,
    )
)
def test_options_of_any_kind_are_read_or_told(layers: list[Any]) -> None:
    """A stranger's JSON gives a configuration or departures, and never fails."""
    described = keras_layers(json.loads(json.dumps({"config": {"layers": layers}})))
    for layer in described_config(described, "x", 3).departures:
        assert layer.text.endswith(" of x")

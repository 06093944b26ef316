"""What is read from the description that Keras writes into a file, as Keras writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vggkit
from tests.model.weights.makers import keras
from vggkit import CheckpointError
from vggkit.model.weights.inspection import inspect
from vggkit.model.weights.keras_layers import KerasLayers, keras_layers

MODELS = {
    "plain": "[conv(), pool(), conv(), pool(), flat(), dense(4), last()]",
    "nested": "[keras.Sequential([keras.Input((None, None, 3)), conv(), pool()], name='inner'), conv(), gap(), last()]",
}
"""Models in a short hand of Keras."""

CODE = f"""
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
print(json.dumps({{name: json.loads(model(text).to_json()) for name, text in {MODELS!r}.items()}}))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each model's description, as Keras itself writes it."""
    found: dict[str, Any] = json.loads(keras(CODE, tmp_path_factory.mktemp("keras")).splitlines()[-1])
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


def test_more_than_one_way_is_told(tmp_path: Path) -> None:
    """A layer that runs twice and one with two behind it make no chain, whatever their order in the file."""
    twice, heads, straight = json.loads(keras(BRANCHING, tmp_path).splitlines()[-1])
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


def test_a_described_model_gives_its_probabilities(tmp_path: Path) -> None:
    """Epsilons, an oblong input and pools that only the description tells; without it nothing is guessed."""
    keras(SAVED, tmp_path)
    pictures = numpy.load(tmp_path / "pictures.npz")
    x = torch.from_numpy(pictures["x"]).permute(0, 3, 1, 2).contiguous()
    for name in ("own.keras", "own.h5"):
        assert inspect(tmp_path / name).notes == ()
        model = vggkit.load_model(tmp_path / name).eval()
        with torch.no_grad():
            found = model(x).softmax(dim=1)
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

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
from tests.weights.makers import keras
from vggkit import CheckpointError
from vggkit.weights.inspection import inspect
from vggkit.weights.keras_layers import KerasLayers, keras_layers

MODELS = {
    "usual": "[conv(), pool(), conv(), pool(), flat(), dense(4), last()]",
    "batch norm": "[bare(), norm(epsilon=1e-5), relu(), pool(), bare(), norm(), act(), last()]",
    "usual by number": "[conv(strides=1, dilation_rate=1), pool(2, 2), gap(), last()]",
    "augmented": "[layers.RandomFlip(), conv(), pool(), gap(), drop(), last(activation=None), layers.Softmax()]",
    "one by one": "[conv(kernel_size=1, padding='valid'), pool(), gap(), last()]",
    "trunk": "[conv(), pool(), conv()]",
    "bare trunk": "[conv(), pool(), bare()]",
    "nested": "[keras.Sequential([keras.Input((None, None, 3)), conv(), pool()], name='inner'), conv(), gap(), last()]",
    "stride": "[conv(strides=2), gap(), last()]",
    "dilation": "[conv(dilation_rate=(1, 2)), gap(), last()]",
    "no padding": "[conv(padding='valid'), gap(), last()]",
    "other activation": "[conv(activation='elu'), gap(), dense(4, activation='tanh'), last(activation='sigmoid')]",
    "no activation": "[bare(), pool(), bare(), norm(), gap(), dense(4, None), last()]",
    "leaky": "[bare(), layers.LeakyReLU(name='l'), gap(), last()]",
    "capped": "[bare(), layers.ReLU(max_value=6, name='r'), gap(), last()]",
    "norm behind": "[conv(name='c'), norm(name='n'), gap(), last()]",
    "norm first": "[norm(name='n'), conv(), gap(), last()]",
    "other pool": "[conv(), pool(3, 2, name='p'), conv(), layers.AveragePooling2D(2, name='q'), gap(), last()]",
    "same pool": "[conv(), pool(padding='same', name='p'), gap(), last()]",
    "scaled": "[layers.Rescaling(1 / 255, name='s'), conv(), gap(), last()]",
}
"""Models of each oddity, in a short hand of Keras."""

DEPARTURES = {
    "stride": ["strides 2×2 of conv0"],
    "dilation": ["dilation_rate 1×2 of conv0"],
    "no padding": ["padding valid of conv0"],
    "other activation": ["activation 'elu' of conv0", "activation 'tanh' of fc0", "activation 'sigmoid' of last"],
    "no activation": ["no activation behind conv0", "no activation behind conv1", "no activation behind fc0"],
    "bare trunk": ["no activation behind conv1"],
    "leaky": ["LeakyReLU of l", "no activation behind conv0"],
    "capped": ["max_value 6 of r"],
    "norm behind": ["n behind c"],
    "norm first": ["n behind image"],
    "other pool": ["pool_size 3×3 of p", "AveragePooling2D of q"],
    "same pool": ["padding 'same' of p"],
    "scaled": ["Rescaling of s"],
}

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


@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_as_in_a_vgg_network_is_said(name: str, described: dict[str, Any]) -> None:
    """Strides, paddings, pools, activations and layers of other kinds; and nothing of what is usual."""
    assert list(keras_layers(described[name]).departures) == DEPARTURES.get(name, [])


def test_order_pools_epsilons_and_input_are_read(described: dict[str, Any]) -> None:
    """Also from a model inside another."""
    usual, norm, nested = (keras_layers(described[name]) for name in ("usual", "batch norm", "nested"))
    assert [name for name in usual.names if name in ("image", "conv0", "conv1", "fc0", "last")] == [
        "image", "conv0", "conv1", "fc0", "last",
    ]  # fmt: skip
    assert (usual.pools, norm.pools, nested.pools) == ({0, 1}, {0}, {0})
    assert sorted(norm.epsilons.values()) == [1e-5, 1e-3]
    assert usual.input == (3, 12, 8)


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
    with pytest.raises(CheckpointError, match=r"says strides 2×2 of c: that is not taken over; say"):
        vggkit.load_model(tmp_path / "odd.keras")

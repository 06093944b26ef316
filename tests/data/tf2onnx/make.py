"""Write the files here: Keras's models as tf2onnx writes them, and what TensorFlow computes.

    python -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0 tf2onnx==1.17.0
    venv/bin/python tests/data/tf2onnx/make.py

They lie here since TensorFlow is large and needs no place among what the tests install. Weights are random; the images
are those of `tests/exchange/onnx/test_keras.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy

L = keras.layers
FOLDER = Path(__file__).parent


def narrow_vgg16() -> keras.Model:
    """Return Keras's own VGG16 with a 64th of its channels, and fewer units."""
    config = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=7).get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)  # of the whole width
        for word in ("filters", "units"):
            if layer["config"].get(word, 0) > 7:
                layer["config"][word] //= 64 if word == "filters" else 256
    return keras.Model.from_config(config)


MODELS: dict[str, tuple[int, Any]] = {
    "same": (
        15,
        lambda: [
            keras.Input((8, 12, 3)),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            L.MaxPooling2D(),
            L.Conv2D(6, 3, padding="same"),
            L.BatchNormalization(),
            L.ReLU(),
            L.AveragePooling2D(2),
            L.Flatten(),
            L.Dense(5, activation="relu"),
            L.Dropout(0.5),
            L.Dense(3, activation="softmax"),
        ],
    ),
    "valid": (
        18,
        lambda: [
            keras.Input((16, 24, 3)),
            L.Rescaling(1 / 127.5, offset=-1),
            L.Conv2D(4, 3, activation="relu6"),
            L.MaxPooling2D(3, 2),
            L.Conv2D(6, (3, 1), use_bias=False),
            L.BatchNormalization(scale=False),
            L.ReLU(6),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ],
    ),
    "windows": (
        13,
        lambda: [
            keras.Input((16, 24, 1)),
            L.ZeroPadding2D(1),
            L.Conv2D(4, 3, strides=2, activation="relu"),
            L.MaxPooling2D(3, 2, padding="same"),
            L.Conv2D(4, 3, dilation_rate=2, padding="same", activation="elu"),
            L.ZeroPadding2D((1, 2)),
            L.Conv2D(4, (3, 5), activation="silu"),
            L.LeakyReLU(negative_slope=0.2),
            L.GlobalMaxPooling2D(),
            L.Dense(3, activation="log_softmax"),
        ],
    ),
    "averages": (
        15,
        lambda: [
            keras.Input((9, 13, 3)),
            L.Conv2D(4, 3, padding="same", activation="tanh"),
            L.AveragePooling2D(3, 1, padding="same"),
            L.AveragePooling2D(3, 2, padding="same"),
            L.GlobalAveragePooling2D(keepdims=True),
            L.Flatten(),
            L.Dense(3, activation="sigmoid"),
        ],
    ),
    "norms": (
        15,
        lambda: [
            keras.Input((8, 8, 3)),
            L.BatchNormalization(),
            L.Conv2D(4, 3, activation="relu"),
            L.MaxPooling2D(),
            L.BatchNormalization(),
            L.Flatten(),
            L.BatchNormalization(),
            L.Dense(3),
            L.BatchNormalization(),
            L.ReLU(),
            L.Dense(2),
            L.Softmax(),
        ],
    ),
    "maps": (
        15,
        lambda: [
            keras.Input((8, 12, 3)),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            L.Dropout(0.3),
            L.Conv2D(3, 1, activation="softmax"),
        ],
    ),
    "vgg16": (15, narrow_vgg16),
}
"""The opset of each file, and what makes its layers."""


def seeded(make: Any) -> tuple[keras.Model, numpy.ndarray[Any, Any]]:
    """Return a model of `MODELS` with the same weights each time, and pictures for it."""
    keras.utils.set_random_seed(1)
    made = make()
    model = keras.Sequential(made) if isinstance(made, list) else made
    randomize(model)
    return model, numpy.random.default_rng(0).random((2, *model.input_shape[1:]), "float32") * 255


def randomize(model: keras.Model) -> None:
    """Give what begins as 0 or 1 other values, which tf2onnx does not leave out."""
    random = numpy.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith(("bias", "beta", "gamma", "moving_mean", "moving_variance")):
            variable.assign(random.random(variable.shape, "float32") + 0.5)


def main() -> None:
    """Write every file, one process of tf2onnx each."""
    outputs = {}
    for name, (opset, make) in MODELS.items():
        model, images = seeded(make)
        outputs[name] = model(images, training=False).numpy().round(7).tolist()
        with tempfile.TemporaryDirectory() as folder:
            model.export(f"{folder}/model", verbose=False)
            command = ["-m", "tf2onnx.convert", "--saved-model", "model", "--opset", str(opset)]  # which it writes down
            output = ["--output", str(FOLDER / f"{name}.onnx")]
            subprocess.run([sys.executable, *command, *output], check=True, cwd=folder)
    (FOLDER / "outputs.json").write_text(json.dumps(outputs) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

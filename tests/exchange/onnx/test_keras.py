"""Keras's models in ONNX, as tf2onnx writes them from TensorFlow and as Keras itself does with torch behind it.

Both have images with the channels last. What is done to pictures before the first layer becomes `preprocess`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch

import vggkit
from tests import judges
from tests.exchange.nets import assert_close, scores
from tests.keras_process import Keras
from vggkit.notation.layers import Conv2d
from vggkit.notation.preprocess import Preprocess
from vggkit.notation.spelling import describe

DATA = Path(__file__).parents[2] / "data" / "tf2onnx"
OUTPUTS: dict[str, Any] = json.loads((DATA / "outputs.json").read_text(encoding="utf-8"))
"""What TensorFlow computed. `make.py` beside them makes the files."""

LAYERS = {
    "same": (
        "[[conv3-4, maxpool], [conv3-6, avgpool]]",
        "[{flatten: hwc}, FC-5, FC-3, soft-max]",
    ),
    "valid": (
        "[[{conv: 4, padding: 0, activation: {hardtanh: {min_val: 0, max_val: 6}}}, {maxpool: 3, stride: 2}],"
        " [{conv: 6, kernel: 3x1, padding: 0, activation: {hardtanh: {min_val: 0, max_val: 6}}}]]",
        "[global-avgpool, FC-3]",
    ),
    "windows": (
        "[[{conv: 4, stride: 2}, {maxpool: 3, stride: 2, ceil_mode: true}, {conv: 4, dilation: 2, activation: elu},"
        " {conv: 4, kernel: 3x5, activation: silu}, {leaky-relu: 0.2}, {maxpool: 4x6, stride: 1}]]",
        "[FC-3, log-softmax]",
    ),
    "averages": (
        "[[{conv: 4, activation: tanh}, {avgpool: 3, stride: 1, padding: 1, count_include_pad: false},"
        " {avgpool: 3, stride: 2, padding: 1, count_include_pad: false}]]",
        "[global-avgpool, {FC: 3, activation: sigmoid}]",
    ),
    "norms": (
        "[[batchnorm, {conv: 4, padding: 0}, maxpool, batchnorm]]",
        "[{flatten: hwc}, batchnorm, {FC: 3, norm: batch}, FC-2, soft-max]",
    ),
    "maps": ("[[conv3-4, {conv: 3, kernel: 1, activation: none}, soft-max]]", "[]"),
    "vgg16": (
        "[[conv3-1, conv3-1, maxpool], [conv3-2, conv3-2, maxpool], [conv3-4, conv3-4, conv3-4, maxpool],"
        " [conv3-8, conv3-8, conv3-8, maxpool], [conv3-8, conv3-8, conv3-8, maxpool]]",
        "[FC-16, FC-16, FC-7, soft-max]",
    ),
}
"""Blocks and classifier of each model."""


def images_of(name: str) -> numpy.ndarray[Any, Any]:
    """Return the pictures that a model was asked for, with the channels last."""
    sizes = [dim.dim_value for dim in onnx.load(str(DATA / f"{name}.onnx")).graph.input[0].type.tensor_type.shape.dim]
    return numpy.random.default_rng(0).random((2, *sizes[1:]), "float32") * 255


def prepared(images: numpy.ndarray[Any, Any], preprocess: Preprocess | None) -> torch.Tensor:
    """Return pictures as a network takes them."""
    if preprocess is not None:
        images = (images / preprocess.scale - numpy.array(preprocess.mean)) / numpy.array(preprocess.std)
    return torch.from_numpy(images.astype("float32")).permute(0, 3, 1, 2).contiguous()


def kinds(config: vggkit.Config) -> list[str]:
    """Return a network's layers in words, without what tools leave out: dropout, and a norm behind a convolution."""
    found: list[str] = []
    before = None
    for placed in vggkit.Network.of(config):
        layer = placed.layer
        if not layer.is_dropout and not (layer.is_norm and isinstance(before, Conv2d)):
            # the norm's shift becomes a bias
            found.append(layer.keyword if layer.is_norm else describe(layer).removesuffix(", no bias"))
        before = layer
    return found


def check(path: Path, name: str, wanted: numpy.ndarray[Any, Any]) -> None:
    """Hold what is read from a file against the model's layers, and against its outputs."""
    config = vggkit.import_config(path)
    blocks, classifier = LAYERS[name]
    _, height, width, channels = images_of(name).shape
    text = f"{{input: {channels}x{height}x{width}, blocks: {blocks}, classifier: {classifier}}}"
    assert kinds(config) == kinds(vggkit.loads(text))
    is_rescaled = name == "valid"
    assert config.preprocess == (Preprocess(scale=127.5, mean=(1.0,) * 3, std=(1.0,) * 3) if is_rescaled else None)
    model = vggkit.build(config, weights=path).eval()
    wanted = wanted.transpose(0, 3, 1, 2) if wanted.ndim == 4 else wanted
    assert_close(wanted, model, prepared(images_of(name), config.preprocess))


@pytest.mark.parametrize("name", LAYERS)
def test_what_tf2onnx_writes_is_read(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow's outputs, which onnxruntime has from the file too; that the channels are last is said."""
    path = DATA / f"{name}.onnx"
    runtime = judges.package("onnxruntime")
    runtime.set_default_logger_severity(4)
    session = runtime.InferenceSession(str(path))
    wanted = numpy.array(OUTPUTS[name], "float32")
    (found,) = session.run(None, {session.get_inputs()[0].name: images_of(name)})
    # they multiply in another order, and images have values up to 255
    assert numpy.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    check(path, name, wanted)
    assert "with the channels last; here these are first" in caplog.text
    assert ("its output has the channels last; here these are first" in caplog.text) == (name == "maps")


KERAS = f"""
import sys
sys.path.insert(0, {str(DATA)!r})
sys.dont_write_bytecode = True
import warnings
warnings.simplefilter("ignore")
import numpy
from make import MODELS, seeded
del MODELS["averages"]  # which Keras can't export
for name, (_, make) in MODELS.items():
    model, images = seeded(make)
    numpy.save(f"{{name}}.npy", model(images, training=False).detach().numpy())
    model.export(f"{{name}}.onnx", format="onnx", verbose=False)
"""


@pytest.fixture(scope="module")
def exported(keras: Keras, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the same models by Keras itself."""
    folder = tmp_path_factory.mktemp("keras")
    keras.run(KERAS, folder)
    return folder


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "averages"])
def test_what_keras_writes_is_read(name: str, exported: Path) -> None:
    """With torch behind it: Keras's own outputs."""
    check(exported / f"{name}.onnx", name, numpy.load(exported / f"{name}.npy"))


def test_pictures_are_rescaled_before_the_first_layer_alone(tmp_path: Path) -> None:
    """Behind a layer, a number that all values are multiplied by is none of a configuration."""
    model = onnx.load(str(DATA / "valid.onnx"))
    first = next(node for node in model.graph.node if node.op_type == "Mul")
    model.graph.node.insert(0, onnx.helper.make_node("Relu", [first.input[0]], ["positive"], name="first"))
    first.input[0] = "positive"
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(vggkit.CheckpointError, match="no layer of a configuration multiplies by"):
        vggkit.import_config(tmp_path / "x.onnx")


def test_a_network_that_rescales_is_exported_with_what_it_says(tmp_path: Path) -> None:
    """Its `preprocess` goes with it."""
    config = vggkit.import_config(DATA / "valid.onnx")
    vggkit.export(config, tmp_path / "x.onnx", weights=DATA / "valid.onnx")
    assert vggkit.import_config(tmp_path / "x.onnx") == config
    images = prepared(images_of("valid"), config.preprocess)
    first, second = (vggkit.load_model(path).eval() for path in (tmp_path / "x.onnx", DATA / "valid.onnx"))
    assert numpy.array_equal(scores(first, images), scores(second, images))

"""Caffe's files: both dialects in, one out, and OpenCV computes from them what torch computes."""

# ruff: noqa: E501  # a line of a file, or what is said of one, is not broken
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from msgspec.structs import replace

import vggkit
from tests import judges
from tests.conftest import sample
from tests.drawn import networks
from tests.exchange.nets import assert_close, layers, plainest, scores, with_statistics
from vggkit import ArgumentError, CheckpointError, Network
from vggkit.exchange import messages, prototext
from vggkit.exchange.caffe.schema import NET
from vggkit.network import all_names
from vggkit.notation.layers import AdaptiveAvgPool2d, BatchNorm, Hardtanh, Layer, LocalResponseNorm, Shape
from vggkit.notation.layers.windows import SteppingPool
from vggkit.notation.preprocess import Preprocess
from vggkit.notation.zoo import family_names


def read(text: str, folder: Path, name: str = "x.prototxt", **options: Any) -> vggkit.Config:
    """Import a text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return vggkit.import_config(path, **options)


OLD = {
    "conv": "CONVOLUTION",
    "relu": "RELU",
    "pool": "POOLING",
    "fc": "INNER_PRODUCT",
    "drop": "DROPOUT",
    "prob": "SOFTMAX",
}
NEW = {
    "conv": "Convolution",
    "relu": "ReLU",
    "pool": "Pooling",
    "fc": "InnerProduct",
    "drop": "Dropout",
    "prob": "Softmax",
}
BLOCKS = {"VGG_ILSVRC_16_layers": (2, 2, 3, 3, 3), "VGG_ILSVRC_19_layers": (2, 2, 4, 4, 4)}


def authors(name: str, dialect: str) -> str:
    """Return the deploy file of one of the authors' networks, in the structure that they published.

    Source: the names of their layers and blobs in gist 211839e770f7b538e2d8 (D) and 3785162f95cd2d5fee77 (E).
    """
    found: list[tuple[str, str, str, str]] = []  # kind, name, top, options
    for block, count in enumerate(BLOCKS[name], start=1):
        width = min(64 * 2 ** (block - 1), 512)
        for number in range(1, count + 1):
            conv = f"conv{block}_{number}"
            found.append(("conv", conv, conv, f"convolution_param {{ num_output: {width} pad: 1 kernel_size: 3 }}"))
            found.append(("relu", f"relu{block}_{number}", conv, ""))
        found.append(("pool", f"pool{block}", f"pool{block}", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"))
    for number, units in ((6, 4096), (7, 4096), (8, 1000)):
        fc = f"fc{number}"
        found.append(("fc", fc, fc, f"inner_product_param {{ num_output: {units} }}"))
        if number < 8:
            found.append(("relu", f"relu{number}", fc, ""))
            found.append(("drop", f"drop{number}", fc, "dropout_param { dropout_ratio: 0.5 }"))
    found.append(("prob", "prob", "prob", ""))
    word, types = ("layers", OLD) if dialect == "layers" else ("layer", {key: f'"{v}"' for key, v in NEW.items()})
    lines, bottom = [f'name: "{name}"\ninput: "data"'], "data"
    if dialect == "layers":
        lines.append("input_dim: 10\ninput_dim: 3\ninput_dim: 224\ninput_dim: 224")
    else:
        lines.append("input_shape { dim: 10 dim: 3 dim: 224 dim: 224 }")
    for kind, own, top, options in found:
        lines.append(f'{word} {{ bottom: "{bottom}" top: "{top}" name: "{own}" type: {types[kind]} {options} }}')
        bottom = top
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("dialect", ["layers", "layer"])
@pytest.mark.parametrize(("name", "ours"), [("VGG_ILSVRC_16_layers", "D"), ("VGG_ILSVRC_19_layers", "E")])
def test_the_authors_networks_are_d_and_e(name: str, ours: str, dialect: str, tmp_path: Path) -> None:
    """Their files become the paper's configuration, and `names` calls each layer as they do."""
    text = authors(name, dialect)
    config = read(text, tmp_path)
    assert config == replace(vggkit.load(ours), name=name, aliases=(), source=None, reported=None)
    called = [names.authors for names in all_names(Network.of(config)) if names.authors]
    assert called == re.findall(r'name: "(\w+)" type', text)
    assert vggkit.inspect(tmp_path / "x.prototxt").known == ours


@pytest.mark.parametrize("ours", ["D", "E"])
def test_what_is_written_has_the_authors_names(ours: str, tmp_path: Path) -> None:
    """Layer for layer, with their blobs: what works in place does so in both."""
    vggkit.export(ours, tmp_path / "x.prototxt")
    name = next(name for name in BLOCKS if str(len([*Network.of(ours).weight_layers])) in name)
    theirs = prototext.parse(authors(name, "layer"), NET).messages("layer")
    written = prototext.parse((tmp_path / "x.prototxt").read_text(), NET).messages("layer")[1:]
    for word in ("name", "type", "bottom", "top"):
        assert [layer.get(word) for layer in written] == [layer.get(word) for layer in theirs]


TRAIN_VAL = """
name: "small net"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 20 mean_value: 1 mean_value: 2 mean_value: 3 } data_param { source: "t" } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { mirror: false crop_size: 20 mean_value: 104 mean_value: 117 mean_value: 123.5 scale: 0.5 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 8 kernel_h: 3 kernel_w: 1 pad_h: 1 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { eps: 1e-4 } }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 1e-4 } }
layer { name: "dropped" type: "Dropout" bottom: "norm1" top: "norm1" include { phase: TRAIN } }
layer { name: "fc2" type: "InnerProduct" bottom: "norm1" top: "fc2" inner_product_param { num_output: 4 bias_term: false } }
layer { name: "elu2" type: "ELU" bottom: "fc2" top: "fc2" elu_param { alpha: 0.5 } }
layer { name: "fc3" type: "InnerProduct" bottom: "fc2" top: "fc3" inner_product_param { num_output: 3 } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc3" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc3" bottom: "label" top: "loss" }
"""


def test_a_network_for_training_is_read_as_it_is_tested(tmp_path: Path) -> None:
    """The phase TEST's data layer says how pictures are prepared; the loss becomes the soft-max that it holds."""
    config = read(TRAIN_VAL, tmp_path)
    text = (
        "{name: smallnet, input: 3x20x20, blocks: [[{conv: 8, kernel: 3x1, stride: 2, norm: {batchnorm:"
        " {eps: 1e-4}}, activation: {leaky-relu: 0.1}}, {avgpool: 3, ceil_mode: true}, {LRN: 3, alpha: 1e-4, k: 1}]],"
        " classifier: [{fc: 4, bias: false, activation: {elu: 0.5}, dropout: 0}, FC-3, soft-max]}"
    )
    assert layers(config) == layers(vggkit.loads(text))
    assert (config.name, config.input) == ("smallnet", (3, 20, 20))
    assert config.preprocess == Preprocess(
        crop=20, scale=1.0, mean=(104.0, 117.0, 123.5), std=(2.0, 2.0, 2.0), colour="bgr"
    )
    assert vggkit.loads(str(config)) == config


def test_the_older_dialect_for_training_is_read_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its data layer has the transformation among its own options; what lies in another file is said."""
    text = """
    layers { name: "data" type: IMAGE_DATA top: "data" top: "label"
      image_data_param { source: "x" new_height: 24 new_width: 32 crop_size: 16 mean_file: "mean.binaryproto" scale: 0.25 } }
    layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 weight_decay: 1 convolution_param { num_output: 2 kernel_size: 3 } }
    layers { name: "s" type: SIGMOID bottom: "c" top: "c" }
    layers { name: "t" type: TANH bottom: "c" top: "c" }
    layers { name: "f" type: FLATTEN bottom: "c" top: "f" }
    layers { name: "loss" type: SOFTMAX_LOSS bottom: "f" bottom: "label" }
    """
    config = read(text, tmp_path)
    assert config.preprocess == Preprocess(
        resize=(24, 32), crop=16, scale=1.0, mean=(0.0,) * 3, std=(4.0,) * 3, colour="bgr"
    )
    assert [layer.keyword for layer in layers(config)] == ["conv", "sigmoid", "tanh", "flatten", "soft-max"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'x.prototxt'}: data (ImageData): its mean is in another file, 'mean.binaryproto', which is not read"
    ]


def deploy(*lines: str, sizes: tuple[int, int, int] = (2, 9, 9)) -> str:
    """Return a file whose layers each take the one before; a line is a type and its options."""
    found, bottom = [f'input: "data" input_shape {{ dim: 1 {" ".join(f"dim: {size}" for size in sizes)} }}'], "data"
    for number, line in enumerate(lines):
        kind, _, options = line.partition(" ")
        found.append(f'layer {{ name: "l{number}" type: "{kind}" bottom: "{bottom}" top: "l{number}" {options} }}')
        bottom = f"l{number}"
    return "\n".join(found)


POOL = "Pooling pooling_param {{ {} }}".format

READ = {
    POOL("kernel_size: 2 stride: 2"): "{maxpool: 2, ceil_mode: true}",
    POOL("kernel_size: 3 stride: 2"): "{maxpool: 3, stride: 2}",
    POOL("kernel_size: 2 stride: 2 round_mode: FLOOR"): "maxpool",
    POOL("kernel_size: 2 stride: 2 ceil_mode: false"): "maxpool",
    POOL("pool: AVE kernel_size: 2 stride: 2 pad: 1"): "{avgpool: 2, padding: 1}",
    POOL("pool: AVE global_pooling: true"): "global-avgpool",
    POOL("global_pooling: true"): "{maxpool: 9, stride: 1}",
    POOL("kernel_h: 2 kernel_w: 1 stride_h: 1 stride_w: 2"): "{maxpool: 2x1, stride: 1x2}",
    "Convolution convolution_param { num_output: 4 kernel_size: 3 kernel_size: 1 group: 2 dilation: 2 pad: 2 pad: 0 bias_term: false }": (
        "{conv: 4, kernel: 3x1, groups: 2, dilation: 2, bias: false, activation: none}"
    ),
    "Swish": "silu",
    "Clip clip_param { min: -1 max: 2 }": "{hardtanh: {max_val: 2}}",
    "ReLU relu_param { engine: CAFFE }": "relu",
    "LRN": "{LRN: 5, alpha: 1, k: 1}",
    "Softmax softmax_param { axis: -3 }": "soft-max",
    "Dropout": "dropout",
}


@pytest.mark.parametrize(("line", "ours"), READ.items())
def test_a_layer_is_read_as_this(line: str, ours: str, tmp_path: Path) -> None:
    """Sizes given once, twice or by name; what is rounded up; Caffe's own defaults."""
    assert layers(read(deploy(line), tmp_path)) == layers(vggkit.loads(f"{{input: 2x9x9, blocks: [[{ours}]]}}"))


def test_a_logarithm_behind_a_softmax_is_one_layer(tmp_path: Path) -> None:
    """Caffe has no word for log-soft-max; both ways."""
    config = read(deploy("Softmax", "Log"), tmp_path)
    assert [layer.keyword for layer in layers(config)] == ["log-softmax"]
    vggkit.export(config, tmp_path / "y.prototxt")
    assert vggkit.import_config(tmp_path / "y.prototxt").blocks == config.blocks


REFUSED = {
    deploy("Concat"): "no layer of a configuration does what l0 (Concat) does for an input of 2×9×9",
    deploy("ReLU", "PReLU"): "no layer of a configuration does what l1 (PReLU) does for an input of 2×9×9",
    deploy(
        "Convolution convolution_param { num_output: 4 }"
    ): "l0 (Convolution): expected kernel_size once or twice, found 0 times",
    deploy(
        "Convolution convolution_param { kernel_size: 3 }"
    ): "l0 (Convolution): num_output: expected a whole number from 1, found None",
    deploy(
        "Convolution convolution_param { num_output: 3 kernel_size: 3 group: 2 }"
    ): "l0 (Convolution): 2 groups do not divide its 3 output channels",
    deploy(
        "Convolution convolution_param { num_output: 3 kernel_size: 11 }"
    ): "l0 (Convolution): a 11×11 window does not fit its 9×9 input padded by 0×0",
    deploy(
        "Convolution convolution_param { num_output: 3 kernel_size: 1 stride: 0 }"
    ): "l0 (Convolution): expected a kernel, stride, dilation and group of at least 1",
    deploy(
        "Convolution convolution_param { num_output: 3 kernel_size: 1 fuse_type: 2 }"
    ): "l0 (Convolution): convolution_param has 'fuse_type', which is not known",
    deploy(
        POOL("kernel_size: 1 stride: 3"), sizes=(1, 5, 5)
    ): "l0 (Pooling): its last window lies outside its 5×5 input",
    deploy(POOL("kernel_size: 2 pool: STOCHASTIC")): "l0 (Pooling): it pools with 'STOCHASTIC'; expected MAX or AVE",
    deploy(
        "LRN lrn_param { norm_region: WITHIN_CHANNEL }"
    ): "l0 (LRN): it normalises within each channel; expected ACROSS_CHANNELS",
    deploy(
        "Scale scale_param { bias_term: true }"
    ): "l0 (Scale): a scale of each channel belongs behind a batch normalisation",
    deploy("Log"): "l0 (Log): expected a soft-max before it",
    deploy(
        "Dropout dropout_param { scale_train: false }"
    ): "l0 (Dropout): it scales values when it runs, not in training; expected scale_train: true",
    deploy(
        "InnerProduct inner_product_param { num_output: 2 axis: 2 }"
    ): "l0 (InnerProduct): it begins at axis 2; expected axis 1",
    deploy("Flatten", POOL("kernel_size: 2")): "l1 (Pooling): its input is flat (162 features)",
    deploy("ReLU").replace("dim: 9", "dim: 0"): "it does not say the size of its images; --input says it",
    deploy("ReLU").replace("dim: 9", "dim: 99999999"): "expected sides from 1 to 65,536, found 99999999×99999999",
    'layer { name: "a" type: "ReLU" bottom: "x" top: "y" }': "it says nothing of its input: expected input, an Input layer or a layer with data",
    'input: "data"': "it has no layers",
    "": "it has no layers",
    'layers { layer { name: "a" type: "relu" } }': "it is in Caffe's format of 2013; Caffe's upgrade_net_proto_text brings it up to date",
    'layers { type: RELU } layer { type: "ReLU" }': "expected layer { … } or layers { … }, found both",
    "layers { type: RELUX }": "line 1: type: expected one of NONE, ACCURACY,",
    deploy("ReLU", "ReLU", "Eltwise").replace(
        'bottom: "l1"', 'bottom: "l1" bottom: "data"'
    ): "l2 (Eltwise) takes l1 (ReLU) and the image; a network here is a chain",
    deploy("ReLU", "ReLU", "ReLU").replace(
        'bottom: "l1"', 'bottom: "l0"'
    ): "l2 (ReLU) takes l0 (ReLU); a network here is a chain, each layer feeding only the next",
    deploy(
        *['InnerProduct param { name: "w" } inner_product_param { num_output: 162 }'] * 2
    ): "l1 (InnerProduct) shares its weights with l0 (InnerProduct)",
    TRAIN_VAL.replace("mean_value: 123.5", ""): "expected a mean_value for each of 2 channels, found 2",
}


@pytest.mark.parametrize(("text", "says"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_no_chain_of_layers_is_refused_with_its_place(text: str, says: str, tmp_path: Path) -> None:
    """One line: which layer, and why."""
    with pytest.raises(CheckpointError) as caught:
        read(text, tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'x.prototxt'}: {says}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{input: 2x9x9, blocks: [[conv3-4, gelu]]}", "Caffe has no layer for block1_gelu1 (gelu)"),
        ("{input: 2x9x9, blocks: [[{groupnorm: 1}]]}", "Caffe has no layer for block1_norm (groupnorm)"),
        ("{input: 2x9x9, blocks: [[{conv: 4, padding_mode: reflect}]]}", "block1_conv1: Caffe pads with zeros only"),
        (
            "{input: 2x9x9, blocks: [[{adaptive-avgpool: 4}]]}",
            "block1_avgpool: Caffe has no average pool from 9×9 to 4×4",
        ),
        ("{input: 2x9x9, blocks: [[{maxpool: 2, dilation: 2}]]}", "block1_pool: Caffe's pools have no dilation"),
        (
            "{input: 1x5x5, blocks: [[{maxpool: 1, stride: 3, ceil_mode: true}]]}",
            "block1_pool: Caffe makes 3×3 of its 5×5",
        ),
        ("{input: 2x9x9, blocks: [[{LRN: 4}]]}", "block1_lrn: Caffe's LRN has an odd size, and this one is 4"),
        ("{input: 2x9x9, classifier: [{flatten: hwc}, soft-max]}", "flatten: Caffe flattens channel by channel"),
    ],
)
def test_what_caffe_has_no_word_for_is_refused(text: str, says: str, tmp_path: Path) -> None:
    """With the layer's name, and no file is made."""
    with pytest.raises(ArgumentError, match=re.escape(says)):
        vggkit.export(vggkit.loads(text), tmp_path / "x.prototxt")
    assert not list(tmp_path.iterdir())


# Weights


def opencvs(folder: Path, images: torch.Tensor) -> numpy.ndarray[Any, Any]:
    """Return what OpenCV computes."""
    cv2 = judges.package("cv2")
    net = cv2.dnn.readNetFromCaffe(str(folder / "x.prototxt"), str(folder / "x.caffemodel"))
    net.setInput(images.numpy())
    found: numpy.ndarray[Any, Any] = net.forward()
    return found


def exported(model: vggkit.VGG, folder: Path) -> None:
    """Write both of Caffe's files of a model."""
    vggkit.export(model.config, folder / "x.prototxt")
    vggkit.save_weights(model, folder / "own.safetensors")
    vggkit.export(model.config, folder / "x.caffemodel", weights=folder / "own.safetensors")


def check_against_opencv(network: Network, folder: Path) -> None:
    """Hold both files against OpenCV, and what is read back from them against the model."""
    model = with_statistics(network)
    images = torch.rand(1, *network.input_shape, generator=torch.Generator().manual_seed(0))
    wanted = scores(model, images)
    exported(model, folder)
    config = vggkit.import_config(folder / "x.prototxt", folder / "x.caffemodel", weights=folder / "x.safetensors")
    back = vggkit.build(config, weights=folder / "x.safetensors").eval()
    again = vggkit.build(config, weights=folder / "x.caffemodel").eval()
    # else maps are flattened in another order, or the values of a window are added up in one
    to_a_size = any(isinstance(placed.layer, AdaptiveAvgPool2d) for placed in network)
    same = not to_a_size and plainest(Network.of(config)) == plainest(network)
    for one in (back, again):
        found = scores(one, images)
        assert not same or numpy.array_equal(found, wanted)
        assert_close(found, model, images)
    assert_close(opencvs(folder, images).reshape(wanted.shape), model, images, 1e-5)


def is_larger(layer: Layer, x: Shape) -> bool:
    """Tell whether a pool's window is larger than its padded maps."""
    if not isinstance(layer, SteppingPool):
        return False
    return any(axis.kernel > axis.size + 2 * axis.padding for axis in layer.places(x))


def opencv_knows(network: Network, folder: Path) -> bool:
    """Tell whether OpenCV 4.14 reads a network as Caffe's sources do.

    Not so its Clip, LRN's k, round_mode, and a window that lies partly outside of smaller maps.
    """
    if any(is_larger(placed.layer, placed.input_shape) for placed in network):
        return False
    vggkit.export(network, folder / "x.prototxt")
    return not any(
        isinstance(layer, Hardtanh)
        or (isinstance(layer, LocalResponseNorm) and layer.k != 1)
        or (isinstance(layer, BatchNorm) and not layer.track_running_stats)
        for layer in layers(network)
    ) and "round_mode" not in (folder / "x.prototxt").read_text(encoding="utf-8")


def drawn_against_opencv(network: Network, folder: Path) -> None:
    """Leave out what Caffe or OpenCV has no word for, and check the others."""
    with suppress(ArgumentError):
        if network.weight_layers and opencv_knows(network, folder):
            check_against_opencv(network, folder)


@given(networks())
@settings(max_examples=60)
def test_opencv_computes_what_torch_computes(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    """Drawn networks, every layer and option that Caffe has."""
    drawn_against_opencv(network, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@given(networks())
@settings(max_examples=400)
def test_so_it_does_with_many(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    """The same, of more of them."""
    drawn_against_opencv(network, tmp_path_factory.getbasetemp())


TINY = {"width": 0.05, "num_classes": 7}


@pytest.mark.parametrize("name", ["A", "C", "D", "vgg16_bn"])
def test_the_papers_networks_compute_the_same_in_opencv(name: str, tmp_path: Path) -> None:
    """Narrow ones, and D with batch norm."""
    check_against_opencv(Network.of(name, input="3x64x64", **TINY), tmp_path)


@pytest.mark.parametrize("name", sample([*family_names()], ["cnn_m", "SSD300"]))
def test_the_family_goes_to_caffe_and_back(name: str, tmp_path: Path) -> None:
    """The same layers, or a refusal with a layer's name."""
    network = Network.of(name)
    try:
        vggkit.export(network, tmp_path / "x.prototxt")
    except ArgumentError as error:
        assert re.match(rf"{re.escape(network.name)}: .*Caffe", str(error))  # noqa: PT017  # or it is written
        return
    back = Network.of(vggkit.import_config(tmp_path / "x.prototxt"))
    assert plainest(back) == plainest(network)


def test_a_caffemodel_alone_says_what_it_is(tmp_path: Path) -> None:
    """It has its layers, and a size of images that fits where it says none; old files have four sizes for all blobs."""
    model = with_statistics(Network.of("A", input="3x96x96", **TINY))
    exported(model, tmp_path)
    net = messages.parse(memoryview((tmp_path / "x.caffemodel").read_bytes()), NET)
    net.values["layer"].pop(0)
    net.values["layer"][0].values["bottom"] = ["data"]
    net.add("input", "data")
    for layer in net.messages("layer"):
        for blob in layer.messages("blobs"):
            sizes = [1] * 4 + blob.message("shape").all("dim")
            del blob.values["shape"]
            for word, size in zip(("num", "channels", "height", "width"), sizes[-4:]):
                blob.add(word, size)
            blob.values["data"] = [blob.all("data")][0]
    path = tmp_path / "old.caffemodel"
    path.write_bytes(b"".join(piece for piece in messages.serialized(net) if isinstance(piece, bytes)))
    inspection = vggkit.inspect(path)
    assert (inspection.known, inspection.description) == ("A", "A, width 0.05, 7 classes, input 3×96×96")
    assert inspection.format == "Caffe's caffemodel"
    loaded = vggkit.load_model(path).eval()
    images = torch.rand(1, 3, 96, 96)
    assert numpy.array_equal(scores(loaded, images), scores(model, images))


def test_statistics_are_divided_by_how_many_were_added_up(tmp_path: Path) -> None:
    """Caffe keeps sums of the means and variances, and their number."""
    text = "{input: 3x8x8, blocks: [[{conv: 4, norm: batch}]], classifier: [FC-5]}"
    model = with_statistics(Network.of(vggkit.loads(text)))
    vggkit.export(model, tmp_path / "x.caffemodel")
    net = messages.parse(memoryview((tmp_path / "x.caffemodel").read_bytes()), NET)
    norm = next(layer for layer in net.messages("layer") if layer.get("type") == "BatchNorm")
    for blob in norm.messages("blobs"):
        blob.values["data"] = [2 * value for value in blob.all("data")]
    (tmp_path / "y.caffemodel").write_bytes(b"".join(p for p in messages.serialized(net) if isinstance(p, bytes)))
    images = torch.rand(2, 3, 8, 8)
    assert numpy.array_equal(scores(vggkit.load_model(tmp_path / "y.caffemodel").eval(), images), scores(model, images))


def test_a_snapshot_of_a_training_run_is_read(tmp_path: Path) -> None:
    """Caffe saves the network of the phase TRAIN, with the layers that it adds where a blob is taken twice."""
    net = prototext.parse(TRAIN_VAL.replace("include { phase: TEST }", "include { phase: TEST stage: 'x' }"), NET)
    split = prototext.parse(
        'layer { name: "fc3_split" type: "Split" bottom: "fc3" top: "fc3_0" top: "fc3_1" }'
        ' layer { name: "accuracy" type: "Accuracy" bottom: "fc3_0" bottom: "label" top: "accuracy" }'
        ' layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc3_1" bottom: "label" top: "loss" }', NET,
    )  # fmt: skip
    net.values["layer"] = [layer for layer in net.messages("layer") if layer.get("name") not in ("accuracy", "loss")]
    net.values["layer"] += split.messages("layer")
    (tmp_path / "y.prototxt").write_text(prototext.written(net))
    assert layers(vggkit.import_config(tmp_path / "y.prototxt")) == layers(read(TRAIN_VAL, tmp_path))


def shapes_of(net: messages.Message) -> Iterator[tuple[str, list[list[int]]]]:
    """Yield the shapes of each layer's blobs."""
    for layer in net.messages("layer"):
        yield layer.get("name"), [blob.message("shape").all("dim") for blob in layer.messages("blobs")]


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    """Of another layer's shape, of no layer, none; one line each."""
    model = with_statistics(Network.of("A", input="3x32x32", **TINY))
    exported(model, tmp_path)
    (tmp_path / "other").mkdir()
    exported(with_statistics(Network.of("A", input="3x32x32", width=0.1, num_classes=7)), tmp_path / "other")
    with pytest.raises(
        CheckpointError, match=r"x.prototxt: conv1_1 \(Convolution\): expected weights of 3×3×3×3, found 6×3×3×3"
    ):
        vggkit.import_config(tmp_path / "x.prototxt", tmp_path / "other" / "x.caffemodel")
    (tmp_path / "named.prototxt").write_text((tmp_path / "x.prototxt").read_text().replace('"fc6"', '"fc_6"'))
    with pytest.raises(
        CheckpointError, match=r"the weights have none for fc_6 \(InnerProduct\); they have 'conv1_1, conv2_1"
    ):
        vggkit.import_config(tmp_path / "named.prototxt", tmp_path / "x.caffemodel")
    net = messages.parse(memoryview((tmp_path / "x.caffemodel").read_bytes()), NET)
    assert dict(shapes_of(net))["fc8"] == [[7, 204], [7]]
    assert json.loads(vggkit.inspect(tmp_path / "x.caffemodel").written("json"))["matched"] != "not at all"

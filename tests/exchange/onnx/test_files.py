"""ONNX's files: what is written passes ONNX's own checks and computes what torch does; what others write is read."""

# ruff: noqa: E501  # a line of a model, or what is said of one, is not broken

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

import vggkit
from tests import judges
from tests.conftest import sample
from tests.drawn import networks
from tests.exchange.nets import assert_close, layers, plainest, scores, with_statistics
from tests.exchange.onnx.makers import by_torch, checked, runtimes, some_images
from vggkit import ArgumentError, CheckpointError, Network
from vggkit.exchange.files import Written
from vggkit.exchange.kinds import MODEL_FILES
from vggkit.notation.layers import BatchNorm, Layer
from vggkit.notation.preprocess import Preprocess
from vggkit.notation.zoo import family_names, names

TINY = {"input": "3x64x64", "width": 0.05, "num_classes": 7}


# What is written


def unstated(path: Path) -> Path:
    """Return a copy of a file that does not state its configuration, as another tool's does not."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path.with_suffix(".unstated.onnx")))
    return path.with_suffix(".unstated.onnx")


def computing(network: Network) -> list[Layer]:
    """Return what a network's layers compute. Of batch normalisations a graph has a scale and a shift, always."""
    return [replace(layer, affine=True) if isinstance(layer, BatchNorm) else layer for layer in plainest(network)]


def check_read_back(network: Network, path: Path) -> None:
    """Hold what is read from a file against what was written: all of it, and without what it states what it computes."""
    assert vggkit.import_config(path) == network.config
    assert computing(Network.of(vggkit.import_config(unstated(path)))) == computing(network)


def check_drawn(network: Network, folder: Path) -> None:
    """Hold both forms of a file, without and with weights, against ONNX, onnxruntime and the network itself."""
    vggkit.export(network, folder / "s.onnx")
    checked(folder / "s.onnx")
    check_read_back(network, folder / "s.onnx")
    if not network.weight_layers:
        return
    model, images = with_statistics(network), some_images(network)
    vggkit.save_weights(model, folder / "own.safetensors")
    vggkit.export(network, folder / "x.onnx", weights=folder / "own.safetensors")
    checked(folder / "x.onnx")
    check_read_back(network, folder / "x.onnx")
    back = vggkit.build(network, weights=folder / "x.onnx").eval()
    state, wanted = back.state_dict(), model.state_dict()
    assert [*state] == [*wanted]
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items() if "num_batches" not in name)
    with suppress(ValueError):  # torch has no statistics of single values
        model(images)
        assert_close(runtimes(folder / "x.onnx", images), model, images)
        unnamed = folder / "x.unstated.onnx"
        again = vggkit.build(vggkit.import_config(unnamed), weights=unnamed).eval()
        assert_close(scores(again, images), model, images)


GROUPED = Network.of(vggkit.loads("{input: 2x9x9, blocks: [[maxpool]], classifier: [{flatten: hwc}, {groupnorm: 2}]}"))


@given(networks())
@example(GROUPED)
@settings(max_examples=40)
def test_a_drawn_network_computes_the_same_in_onnxruntime(
    tmp_path_factory: pytest.TempPathFactory, network: Network
) -> None:
    """Every layer and option; no layer is refused."""
    check_drawn(network, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@given(networks())
@settings(max_examples=500)
def test_so_do_many(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    """The same, of more of them."""
    check_drawn(network, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("name", ["A", "A-LRN", "C", "E", "vgg16_bn"])
def test_the_papers_networks_are_within_a_millionth(name: str, tmp_path: Path) -> None:
    """In onnxruntime; and read back they are the same to the last bit."""
    network = Network.of(name, **TINY)
    model, images = with_statistics(network), some_images(network)
    vggkit.export(model, tmp_path / "x.onnx")
    checked(tmp_path / "x.onnx")
    wanted = scores(model, images)
    vggkit.export(network, tmp_path / "y.onnx", weights=model)
    assert numpy.abs(runtimes(tmp_path / "y.onnx", images) - wanted).max() < 1e-6
    config = vggkit.import_config(tmp_path / "y.onnx", weights=tmp_path / "y.safetensors")
    assert config == network.config
    assert layers(vggkit.import_config(unstated(tmp_path / "y.onnx"))) == layers(network)
    assert numpy.array_equal(scores(vggkit.load_model(tmp_path / "y.safetensors").eval(), images), wanted)


@pytest.mark.parametrize("name", sample([*family_names()], ["cnn_m", "SSD300", "cifar_vgg11_gn"]))
def test_the_family_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    """Without weights: ONNX infers the shapes that the file says, and the layers are the same."""
    network = Network.of(name)
    vggkit.export(network, tmp_path / "x.onnx")
    model = checked(tmp_path / "x.onnx")
    said = {
        one.name: tuple(dim.dim_value for dim in one.type.tensor_type.shape.dim[1:]) for one in model.graph.value_info
    }
    assert said == {
        placed.module if placed.module in said else "": placed.output_shape
        for placed in network.layers[:-1]
        if placed.module in said
    }
    assert (tmp_path / "x.onnx").stat().st_size < 25_000
    check_read_back(network, tmp_path / "x.onnx")


def test_a_file_without_weights_says_all_shapes(tmp_path: Path) -> None:
    """A few kilobytes: each parameter is an input by its name in a state dict; the batch is any number."""
    path = tmp_path / "D.onnx"
    assert vggkit.export("D", path) == "opset 20, input image, output predictions_softmax".replace("predictions_", "")
    model = checked(path)
    assert path.stat().st_size < 10_000
    inputs = {
        one.name: [dim.dim_value or dim.dim_param for dim in one.type.tensor_type.shape.dim]
        for one in model.graph.input
    }
    assert inputs.pop("image") == ["N", 3, 224, 224]
    state = vggkit.build("D", device="meta").state_dict()
    assert inputs == {name: [*tensor.shape] for name, tensor in state.items()}
    between = {one.name for one in model.graph.value_info}
    assert between == {placed.module for placed in Network.of("D").layers[:-1]}


@pytest.mark.parametrize("name", names())
def test_netron_has_room_for_all_shapes(name: str, tmp_path: Path) -> None:
    """It writes a shape beside an arrow if that takes up to 16 characters, signs between numbers included (view.js)."""
    vggkit.export(name, tmp_path / "x.onnx")
    graph = onnx.load(str(tmp_path / "x.onnx")).graph
    for one in (*graph.input, *graph.value_info, *graph.output):
        shape = "×".join(str(dim.dim_value or dim.dim_param) for dim in one.type.tensor_type.shape.dim)
        assert 1 <= len(shape) <= 16


def test_the_batch_is_any_number(tmp_path: Path) -> None:
    """Whatever it was, also of a network that computes with it."""
    text = "{input: 3x8x8, blocks: [[{conv: 4, norm: {groupnorm: 2}}, {LRN: 4}]], classifier: [{flatten: hwc}, FC-5]}"
    network = Network.of(vggkit.loads(text))
    model = with_statistics(network)
    vggkit.export(model, tmp_path / "x.onnx")
    for count in (1, 2, 5):
        images = some_images(network, count)
        assert_close(runtimes(tmp_path / "x.onnx", images), model, images)


def test_what_is_too_large_for_a_file_is_refused() -> None:
    """Protocol buffers end at 2 GiB; nothing is written."""
    huge = Network.of(vggkit.loads("{input: 3x2x2, classifier: [FC-20000, FC-30000, FC-2]}"))
    tensors = {(placed.name, role): lambda: numpy.zeros(1) for placed in huge for role in placed.held}
    file = BytesIO()
    with pytest.raises(
        ArgumentError, match="an ONNX file has at most 2,147,483,647 bytes, and this one would have 2,4"
    ):
        MODEL_FILES[".onnx"].exported(file, Written(huge, tensors))
    assert not file.getvalue()


# What others write


Values = dict[str, Any]


def model_of(nodes: list[Any], values: Values, image: list[Any], opset: int, **options: Any) -> onnx.ModelProto:
    """Return a model of nodes, whose input is x and whose output y."""
    tensors = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in values.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)]
    if options.get("old"):  # before IR 4 each tensor was an input as well
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, [*t.dims]) for t in tensors]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors
    )
    ir = 3 if options.get("old") else 9
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def rand(*shape: int) -> numpy.ndarray[Any, Any]:
    """Return values."""
    return numpy.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def caffe2s() -> onnx.ModelProto:
    """Return a network as Caffe2's exporter wrote those of ONNX's model zoo: opset 7, dropout with a mask."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w0", "b0"], ["c"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"]),
        make("LRN", ["r"], ["n"], size=5, alpha=5e-4, beta=0.75, bias=2.0),
        make("MaxPool", ["n"], ["p"], kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
        make("Reshape", ["p", "sizes"], ["f"]),
        make("Gemm", ["f", "w1", "b1"], ["g"], transB=1),
        make("Relu", ["g"], ["h"]),
        make("Dropout", ["h"], ["d", "mask"], ratio=0.5),
        make("Gemm", ["d", "w2", "b2"], ["s"], transB=1),
        make("Softmax", ["s"], ["y"], axis=1),
    ]
    values = {
        "w0": rand(4, 3, 3, 3), "b0": rand(4), "sizes": numpy.array([1, 64]), "w1": rand(6, 64), "b1": rand(6),
        "w2": rand(5, 6), "b2": rand(5),
    }  # fmt: skip
    return model_of(nodes, values, [1, 3, 8, 8], 7, old=True)


def old_gelus() -> onnx.ModelProto:
    """Return what was written of GELU before ONNX had it, of a global average, and a reshape by the shape itself."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w0"], ["c"], kernel_shape=[3, 3]),
        make("Div", ["c", "root"], ["d"]),
        make("Erf", ["d"], ["e"]),
        make("Add", ["e", "one"], ["f"]),
        make("Mul", ["c", "f"], ["g"]),
        make("Mul", ["g", "half"], ["h"]),
        make("ReduceMean", ["h"], ["m"], axes=[2, 3], keepdims=1),
        make("Shape", ["m"], ["sizes"]),
        make("Slice", ["sizes"], ["first"], starts=[0], ends=[1]),
        make("Constant", [], ["rest"], value=numpy_helper.from_array(numpy.array([-1]))),
        make("Concat", ["first", "rest"], ["to"], axis=0),
        make("Reshape", ["m", "to"], ["flat"]),
        make("Gemm", ["flat", "w1", "b1"], ["y"]),
    ]
    values = {
        "w0": rand(4, 3, 3, 3), "root": numpy.float32(2**0.5), "one": numpy.float32(1), "half": numpy.float32(0.5),
        "w1": rand(4, 5), "b1": rand(1, 5),
    }  # fmt: skip
    return model_of(nodes, values, [None, 3, 8, 8], 9)


@pytest.mark.parametrize("make", [caffe2s, old_gelus], ids=lambda make: make.__name__)
def test_other_dialects_are_read(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    """The model that is built computes what onnxruntime does; as raw bytes, in typed fields, in a file beside it."""
    model = make()
    path = tmp_path / "x.onnx"
    onnx.save(model, str(path))
    config = vggkit.import_config(path)
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    wanted = runtimes(path, images, "x")
    files = [path, tmp_path / "typed.onnx", tmp_path / "beside.onnx"]
    typed = make()
    for tensor in typed.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == numpy.float32:
            tensor.ClearField("raw_data")
            tensor.float_data.extend(array.reshape(-1))
    onnx.save(typed, str(files[1]))
    onnx.save(make(), str(files[2]), save_as_external_data=True, location="beside.data", size_threshold=0)
    for file in files:
        assert_close(wanted, vggkit.build(config, weights=file).eval(), images)


def one(*nodes: Any, opset: int = 20, image: list[Any] | None = None, **values: Any) -> onnx.ModelProto:
    """Return a model whose nodes are written (operation, options), each behind the other, with further inputs by name."""
    made, source = [], "x"
    for place, (op, *rest) in enumerate(nodes):
        options = rest[-1] if rest and isinstance(rest[-1], dict) else {}
        names = [name for name in rest if isinstance(name, str)]
        output = "y" if place == len(nodes) - 1 else f"v{place}"
        made.append(helper.make_node(op, [source, *names], [output], name=f"n{place}", **options))
        source = output
    return model_of(made, values, image or ["b", 3, 8, 8], opset)


CONV = ("Conv", "w", {"kernel_shape": [3, 3]})
W = rand(4, 3, 3, 3)

REFUSED: dict[str, Callable[[], onnx.ModelProto]] = {
    "n0 (Softplus): no layer of a configuration does that for an input of 3×8×8": lambda: one(("Softplus",)),
    "n1 (Conv): pads: expected the same on both sides, found 0, 1, 1, 1": lambda: one(("Relu",), ("Conv", "w", {"pads": [0, 1, 1, 1]}), w=W),
    "n0 (Conv): expected weights of 4×1×3×3, found 4×3×3×3": lambda: one(("Conv", "w", {"group": 3}), w=W),
    "n0 (Conv): its weights are 'w', which is no tensor of the file": lambda: one(CONV),
    "n0 (Conv): expected weights in height and width, found 4×3×3": lambda: one(CONV, w=rand(4, 3, 3)),
    "n0 (Gemm): its input is 3×8×8; expected flat features": lambda: one(("Gemm", "w"), w=rand(3, 3)),
    "n1 (Gemm): expected weights for 192 inputs, found 3×3": lambda: one(("Flatten",), ("Gemm", "w"), w=rand(3, 3)),
    "n1 (Gemm): alpha: expected 1.0, found 0.5": lambda: one(("Flatten",), ("Gemm", "w", {"alpha": 0.5}), w=rand(192, 3)),
    "n2 (Relu): no layer of a configuration moves values as n1 (Flatten) does, from 3×8×8 to 192": lambda: one(("Transpose", {"perm": [0, 1, 3, 2]}), ("Flatten",), ("Relu",)),
    "n1 (Relu): no layer of a configuration does what it does to maps that were padded": lambda: one(("Pad", "p"), ("Relu",), p=numpy.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "n1 (Conv): pads: expected the same on both sides, found 0, 0, 1, 1": lambda: one(("Pad", "p"), CONV, w=W, p=numpy.array([0, 0, 0, 0, 0, 0, 1, 1])),
    "n1 (MaxPool): no layer of a configuration pads with constant 0 before it": lambda: one(("Pad", "p"), ("MaxPool", {"kernel_shape": [2, 2]}), p=numpy.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "n1 (MaxPool): no layer of a configuration pads with edge 0 before it": lambda: one(("Pad", "p", {"mode": "edge"}), ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}), p=numpy.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "n0 (Div): expected numbers other than 0 that are known, found 'z'": lambda: one(("Div", "z"), z=numpy.float32(0)),
    "n0 (Mul): no configuration prepares pictures so: expected scales above 0, found -2.0": lambda: one(("Mul", "z"), ("Relu",), z=numpy.float32(-2)),
    "no configuration prepares pictures so: expected pictures of 1 or 3 channels, found 4": lambda: one(("Mul", "z"), ("Relu",), z=numpy.float32(2), image=["b", 4, 8, 8]),
    "n1 (Mul): no layer of a configuration multiplies by 'f'": lambda: one(("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}), ("Mul", "f"), f=numpy.float32(0.5)),
    "n2 (Relu): no layer of a configuration averages the height alone": lambda: model_of([helper.make_node("Relu", ["x"], ["a"]), helper.make_node("MatMul", ["r", "a"], ["b"]), helper.make_node("Relu", ["b"], ["y"], name="n2")], {"r": numpy.eye(8, dtype="float32")}, ["b", 3, 8, 8], 20),
    "n1 (MatMul): no layer of a configuration multiplies 'r' by values": lambda: model_of([helper.make_node("Relu", ["x"], ["a"]), helper.make_node("MatMul", ["r", "a"], ["y"], name="n1")], {"r": rand(8, 8)}, ["b", 3, 8, 8], 20),
    "n0 (Clip): expected two bounds, found -inf and 3": lambda: one(("Clip", "", "h"), h=numpy.float32(3)),
    "n0 (Dropout): it drops values when it runs": lambda: one(("Dropout", "r", "t"), r=numpy.float32(0.5), t=numpy.array(True)),
    "n0 (Softmax): expected it over the channels": lambda: one(("Softmax", {"axis": 2})),
    "n0 (Softmax): before opset 13 it is over all values": lambda: one(("Softmax", {"axis": 1}), opset=11),
    "n0 (LRN): size: expected an odd number, found 4": lambda: one(("LRN", {"size": 4})),
    "n0 (Reshape): it can't make [7, -1] of 2×3×8×8": lambda: one(("Reshape", "s"), s=numpy.array([7, -1])),
    "n0 (Cast): it changes values to float16; expected float32": lambda: one(("Cast", {"to": TensorProto.FLOAT16})),
    "n0 (Add): no layer of a configuration adds 'z'": lambda: one(("Add", "z"), z=rand(3, 8, 8)),
    "its input 'x' is no batch of images of known sizes": lambda: one(("Relu",), image=["b", 3]),
    "it does not say the size of its images; --input says it": lambda: one(("Relu",), image=["b", 3, "h", "w"]),
    "n0 (MaxPool): a 9×9 pool does not fit its 8×8 input": lambda: one(("MaxPool", {"kernel_shape": [9, 9]})),
    "n0 (MaxPool): pads: expected the same on both sides, found 0, 0, 1, 2": lambda: one(("MaxPool", {"kernel_shape": [3, 3], "pads": [0, 0, 1, 2]})),
    "its operations are of 'com.microsoft'; expected ONNX's own": lambda: one(("Gelu", {"domain": "com.microsoft"})),
}  # fmt: skip


@pytest.mark.parametrize("says", REFUSED)
def test_what_is_no_chain_of_layers_is_refused_with_its_place(says: str, tmp_path: Path) -> None:
    """One line: which operation, and why."""
    path = tmp_path / "x.onnx"
    path.write_bytes(REFUSED[says]().SerializeToString())
    with pytest.raises(CheckpointError) as caught:
        vggkit.import_config(path)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "\n" not in str(caught.value)


def test_a_branch_is_refused_with_its_place(tmp_path: Path) -> None:
    """A skip, a value that is taken again, two outputs."""
    make = helper.make_node
    skip = [
        make("Relu", ["x"], ["a"], name="a"),
        make("Conv", ["a", "w"], ["b"], name="b", pads=[1] * 4),
        make("Add", ["a", "b"], ["y"], name="add"),
    ]
    again = [
        make("Relu", ["x"], ["a"], name="a"),
        make("Relu", ["a"], ["c"], name="c"),
        make("Conv", ["x", "w"], ["y"], name="late"),
    ]
    path = tmp_path / "x.onnx"
    for nodes, says in (
        (skip, r"b \(Conv\): no layer of a configuration does what b \(Conv\) and add \(Add\) do together"),
        (
            again,
            r"a \(Relu\): no layer of a configuration does what a \(Relu\) and c \(Relu\) and late \(Conv\) do together",
        ),
    ):
        path.write_bytes(model_of(nodes, {"w": rand(3, 3, 3, 3)}, ["b", 3, 8, 8], 20).SerializeToString())
        with pytest.raises(CheckpointError, match=says):
            vggkit.import_config(path)
    resnet = judges.package("torchvision").models.resnet18(num_classes=4).eval()
    by_torch(resnet, torch.rand(1, 3, 64, 64), path, "old")
    with pytest.raises(CheckpointError, match=r"/layer1/layer1.0/conv1/Conv \(Conv\): .*(several|together)"):
        vggkit.import_config(path)


@pytest.mark.parametrize("place", ["../x.data", "/etc/hostname", "none.data", "link.data", ""])
def test_tensors_elsewhere_are_not_read(place: str, tmp_path: Path) -> None:
    """Only a file beside this one, that is no link."""
    (tmp_path / "x.data").write_bytes(b"0" * 1000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.data").symlink_to(tmp_path / "x.data")
    model = one(CONV, w=W)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    path = tmp_path / "in" / "x.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"x.onnx: the tensor 'w': it lies in .*(beside this one)"):
        vggkit.import_config(path)


def test_pictures_that_are_normalized_are_read(tmp_path: Path) -> None:
    """(x/255 - mean) / std before the first layer: numbers are `preprocess`, and a shift of each channel a layer."""
    path = tmp_path / "x.onnx"
    mean, std = rand(3, 1, 1), numpy.abs(rand(1, 3, 1, 1)) + 0.5
    steps = [
        ("Mul", "one"),
        ("Div", "n"),
        ("Sub", "m"),
        ("Div", "s"),
        ("Conv", "w", {"kernel_shape": [3, 3]}),
        ("Relu",),
    ]
    path.write_bytes(one(*steps, one=numpy.float32(1), n=numpy.float32(255), m=mean, s=std, w=W).SerializeToString())
    config = vggkit.import_config(path)
    assert config.preprocess == Preprocess(scale=255.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert_close(runtimes(path, images * 255, "x"), vggkit.build(config, weights=path).eval(), images)


def test_an_input_without_a_size_is_given_one(tmp_path: Path) -> None:
    """`input=` says what the file does not."""
    path = tmp_path / "x.onnx"
    path.write_bytes(one(CONV, ("Relu",), image=["b", 3, "h", "w"], w=W).SerializeToString())
    assert vggkit.import_config(path, input="3x20x30").input == (3, 20, 30)
    assert re.search("conv: 4", str(vggkit.import_config(path, input="3x20x30")))

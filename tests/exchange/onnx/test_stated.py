"""What a file of our own states of its network: believed where the graph is that network's, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import vggkit
from tests.exchange.nets import with_statistics
from vggkit import Network

TEXT = """
name: mine
source: me
input: 3x9x9
preprocess: {crop: 9, scale: 1, mean: 0.5, std: 0.25, colour: bgr}
blocks:
  - [{conv: 4, padding: 1, name: first}]
  - [{batchnorm: {momentum: 0.2, affine: false}}, {avgpool: 2, padding: 1, ceil_mode: true, divisor_override: 3}]
  - [{adaptive-avgpool: 4}, {relu: {inplace: false}}, {dropout: 0}]
classifier: [{conv: 4, kernel: 1}, {adaptive-avgpool: 2}, FC-5, soft-max]
"""


def written(folder: Path, *, weights: bool = True) -> Path:
    """Write a network of which a graph alone would lose much."""
    network = Network.of(vggkit.loads(TEXT))
    vggkit.export(network, folder / "x.onnx", weights=with_statistics(network) if weights else None)
    return folder / "x.onnx"


@pytest.mark.parametrize("weights", [False, True])
def test_names_blocks_and_what_counts_in_training_come_back(weights: bool, tmp_path: Path) -> None:
    """The configuration is the same one, and its parameters are the same, too."""
    config = vggkit.import_config(written(tmp_path, weights=weights))
    assert config == vggkit.loads(TEXT)
    assert str(config) == str(vggkit.loads(TEXT))


def test_a_file_that_another_tool_has_written_again_is_still_ours(tmp_path: Path) -> None:
    """A description, a fixed number of images, tensors in another file and the order of fields change nothing."""
    path = written(tmp_path)
    model = onnx.load(str(path))
    model.graph.node[0].doc_string = "described"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(path), save_as_external_data=True, location="x.data", size_threshold=0)
    assert vggkit.import_config(path) == vggkit.loads(TEXT)


def attribute(model: ModelProto) -> None:
    """Normalise another way."""
    node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    node.attribute[0].f = 1e-3


def constant(model: ModelProto) -> None:
    """Average another way."""
    tensor = next(one for one in model.graph.initializer if one.name.endswith(".scale"))
    tensor.CopyFrom(numpy_helper.from_array(numpy.float32(4 / 2), tensor.name))


def width(model: ModelProto) -> None:
    """Cut a row off the last layer, as someone who prunes does."""
    for name in ("predictions.weight", "predictions.bias"):
        tensor = next(one for one in model.graph.initializer if one.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:-1], name))


def end(model: ModelProto) -> None:
    """Give the scores rather than the probabilities."""
    model.graph.node.pop()
    model.graph.output[0].name = "predictions"


CHANGES = {
    attribute: lambda config: "eps: 0.001" in str(config),
    constant: lambda config: "divisor_override: 2" in str(config),
    width: lambda config: config.classifier[-2].layer.out_features == 4,
    end: lambda config: "soft-max" not in str(config),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_graph_that_was_changed_is_read_itself(change: Callable[[ModelProto], None], tmp_path: Path) -> None:
    """What is said of it is then another network's."""
    path = written(tmp_path)
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    config = vggkit.import_config(path)
    assert CHANGES[change](config)
    assert config.source is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "extends: D", "extends: ./other.yaml", "blocks: [[conv3-4]]", TEXT.replace("FC-5", "FC-6"), "a: &a [*a]"],
)
def test_what_a_stranger_states_is_not_believed(text: str, tmp_path: Path) -> None:
    """No text, none of a configuration, or one of another network's; and no other file is looked at."""
    (tmp_path / "other.yaml").write_text(TEXT)
    path = written(tmp_path)
    model = onnx.load(str(path))
    model.metadata_props[0].value = text
    onnx.save(model, str(path))
    config = vggkit.import_config(path)
    assert (config.name, config.source) == ("mine", None)
    assert len(Network.of(config).weight_layers) == 3


def test_images_of_another_size_make_another_network(tmp_path: Path) -> None:
    """Whether the user says so, or the file."""
    path = tmp_path / "x.onnx"
    vggkit.export(vggkit.loads("{name: n, source: s, input: 3x8x8, blocks: [[conv3-4, maxpool]]}"), path)
    assert vggkit.import_config(path, input="3x8x8").source == "s"
    assert vggkit.import_config(path, input="3x9x9").source is None
    model = onnx.load(str(path))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 10
    onnx.save(model, str(path))
    config = vggkit.import_config(path)
    assert (config.input, config.source) == ((3, 10, 10), None)

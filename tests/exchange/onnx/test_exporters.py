"""What torch's two exporters write of networks is read back, and computes what it did."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings

import vggkit
from tests.conftest import sample
from tests.drawn import networks
from tests.exchange.nets import assert_close, scores, with_statistics
from tests.exchange.onnx.makers import by_torch, runtimes, some_images
from vggkit import CheckpointError, Network
from vggkit.notation.zoo import names

TINY = {"input": "3x64x64", "width": 0.05, "num_classes": 7}

EXPORTERS = ["old", "old, for training", "new", "new, one size"]

OTHERS = {
    "activations": (
        "{input: 3x16x16, blocks: [[{conv: 4, activation: gelu}, {conv: 4, activation: {gelu: {approximate: tanh}}},"
        " {conv: 4, activation: silu}, {conv: 4, activation: hardtanh}, {conv: 4, activation: {leaky-relu: 0.2}},"
        " {conv: 4, activation: {elu: 0.5}}, {conv: 4, activation: tanh}, {conv: 4, activation: sigmoid}]],"
        " classifier: [FC-5, log-softmax]}"
    ),
    "pools": (
        "{input: 3x19x17, blocks: [[conv3-4, {maxpool: 3, stride: 2, padding: 1, ceil_mode: true},"
        " {avgpool: 3, stride: 1, padding: 1, count_include_pad: false}, {avgpool: 2, ceil_mode: true}]],"
        " classifier: [global-avgpool, FC-5, soft-max]}"
    ),
    "convolutions": (
        "{input: 3x16x16, blocks: [[{conv: 6, stride: 2, bias: false}, {conv: 4, groups: 2, dilation: 2},"
        " {conv: 4, padding_mode: reflect}, {conv: 4, padding_mode: replicate}, {conv: 4, padding_mode: circular},"
        " {conv: 4, kernel: 3x2, padding: 1x0, padding_mode: circular}]],"
        " classifier: [{conv: 6, kernel: 8x7, padding: 0}, {conv: 5, kernel: 1, activation: none}, global-avgpool,"
        " flatten]}"
    ),
    "norms": (
        "{input: 3x16x16, blocks: [[{conv: 4, norm: {groupnorm: 2}}, LRN, {LRN: 4}, {batchnorm: {eps: 1e-3}}]],"
        " classifier: [FC-5, batchnorm, FC-3]}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("exporter", sample(EXPORTERS, ["old", "new"]))
@pytest.mark.parametrize("name", sample([*OTHERS, *names(), "vgg16_bn"], ["norms", "pools", "convolutions", "A-LRN"]))
def test_what_torchs_exporters_write_is_read(name: str, exporter: str, tmp_path: Path) -> None:
    """The model that is built has the outputs of the one that was exported."""
    network = Network.of(vggkit.loads(OTHERS[name]) if name in OTHERS else name, **({} if name in OTHERS else TINY))
    model, images = with_statistics(network), some_images(network)
    path = tmp_path / "x.onnx"
    whole = torch.nn.Sequential(model, torch.nn.Softmax(1)) if network.ends_in_softmax else model
    by_torch(whole.eval(), images, path, exporter)
    config = vggkit.import_config(path)
    found = vggkit.build(config, weights=path).eval()
    assert_close(scores(found, images), model, images)
    assert len(Network.of(config).weight_layers) == len(network.weight_layers)


NOT_READ = {"old": "nothing", "new": "GatherND"}
"""The operation that begins what is refused: an average to a size that does not divide."""


def check_exported(network: Network, folder: Path, exporter: str) -> None:
    """Hold what an exporter writes of a drawn network against what onnxruntime makes of that: one has errors itself."""
    model, images, path = with_statistics(network), some_images(network), folder / "x.onnx"
    whole = torch.nn.Sequential(model, torch.nn.Softmax(1)) if network.ends_in_softmax else model
    try:
        by_torch(whole.eval(), images, path, exporter)
        wanted = runtimes(path, images, onnx.load(str(path)).graph.input[0].name)
    except (ValueError, AssertionError, torch.onnx.errors.OnnxExporterError):  # it has no words for some options
        return
    except Exception as error:  # or writes what no runtime takes, such as a product of sizes that don't fit
        if "onnxruntime" not in type(error).__module__:
            raise
        return
    try:
        found = vggkit.build(vggkit.import_config(path), weights=path).eval()
    except CheckpointError as error:
        assert f"({NOT_READ[exporter]}): no layer of a configuration does" in str(error)  # noqa: PT017  # or it is read
        return
    assert_close(wanted, found, images)


@pytest.mark.parametrize("exporter", NOT_READ)
@given(networks().filter(lambda network: bool(network.weight_layers)))
@settings(max_examples=8)
def test_what_torchs_exporters_write_of_drawn_networks_is_read(
    exporter: str, tmp_path_factory: pytest.TempPathFactory, network: Network
) -> None:
    """Every layer and option, or a refusal with an operation's name."""
    check_exported(network, tmp_path_factory.getbasetemp(), exporter)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", NOT_READ)
@given(networks().filter(lambda network: bool(network.weight_layers)))
@settings(max_examples=40)
def test_so_is_that_of_many(exporter: str, tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    """The same, of more of them."""
    check_exported(network, tmp_path_factory.getbasetemp(), exporter)

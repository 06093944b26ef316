"""Conventions, each held against the tool itself where it installs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
import torchinfo
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests import judges
from tests.drawn import networks
from vggkit import Network
from vggkit.figures.conventions import CONVENTIONS, CountedNetwork, torchvisions_form

pytestmark = pytest.mark.filterwarnings("ignore")  # the tools' own, of deprecated things they use

EVERY_KIND = """
name: every kind
input: 3x20x20
defaults: {activation: none}
blocks:
  - [{conv: 8, bias: false, padding_mode: reflect}, batchnorm, relu, LRN, maxpool]
  - [{conv: 8, groups: 2}, {batchnorm: {affine: false}}, leaky-relu, {avgpool: 2}, {conv: 8, stride: 2}, elu]
  - [{conv: 6, dilation: 2}, {groupnorm: 3}, gelu, {groupnorm: {groups: 2, affine: false}}, silu, tanh, sigmoid]
  - [{batchnorm: {track_running_stats: false}}, hardtanh, {adaptive-avgpool: 3x2}, {adaptive-avgpool: 4}]
classifier: [{flatten: hwc}, {fc: 12, bias: false}, relu, {dropout: 0.5}, FC-5]
"""
SMALL = {
    "D": lambda: Network.of("D", width=0.125, input="3x32x32", num_classes=10),
    "A-LRN": lambda: Network.of("A-LRN", width=0.125, input="3x32x32", num_classes=10),
    "A, batch norm": lambda: Network.of("A", width=0.125, input="3x48x32", batch_norm=True),
    "C, global pool": lambda: Network.of("C", width=0.125, input="3x40x40", head="gap", batch_norm=True),
    "torchvision's": lambda: torchvisions_form(Network.of("A", width=0.0625, input="3x64x64", num_classes=10)),
    "every kind": lambda: Network.of(vggkit.loads(EVERY_KIND)),
}
"""Small networks of every kind of layer."""

Figures = dict[str, int]
TOOLS: dict[str, Callable[[Network, nn.Module], Figures]] = {}
"""What each tool says of a model, by the labels of its conventions."""


def tool(source: str) -> Callable[[Callable[[Network, nn.Module], Figures]], Callable[[Network, nn.Module], Figures]]:
    """Enter a function that asks a tool."""

    def enter(ask: Callable[[Network, nn.Module], Figures]) -> Callable[[Network, nn.Module], Figures]:
        TOOLS[source] = ask
        return ask

    return enter


def images(network: Network, batch: int = 1) -> Tensor:
    """Return images that fit a network."""
    return torch.zeros(batch, *network.input_shape)


@tool("torchinfo 1.8.0")
def torchinfos(network: Network, model: nn.Module) -> Figures:
    """Ask torchinfo about two images; it counts the Python object that holds them, too, which no MB shows."""
    seen = torchinfo.summary(model, input_data=images(network, 2), verbose=0, device="cpu")
    seen.total_input -= sys.getsizeof(torch.empty(0).untyped_storage())
    return {
        "Total mult-adds": seen.total_mult_adds,
        "Total params": seen.total_params,
        "Input size (MB)": seen.total_input,
        "Forward/backward pass size (MB)": seen.total_output_bytes,
        "Params size (MB)": seen.total_param_bytes,
        "Estimated Total Size (MB)": seen.total_input + seen.total_output_bytes + seen.total_param_bytes,
    }


@tool("fvcore 0.1.5")
def fvcores(network: Network, model: nn.Module) -> Figures:
    """Ask fvcore about two images."""
    fvcore = judges.package("fvcore.nn")

    def total(analysis: Any) -> int:
        return int(analysis(model, images(network, 2)).unsupported_ops_warnings(False).total())

    found = {"#flops, model.eval()": total(fvcore.FlopCountAnalysis)}
    found["#activations"] = total(fvcore.ActivationCountAnalysis)
    model.train()
    return {**found, "#flops, model.train()": total(fvcore.FlopCountAnalysis)}


@tool("thop 0.1.1")
def thops(network: Network, model: nn.Module) -> Figures:
    """Ask thop about two images."""
    thop = judges.package("thop")
    operations, parameters = thop.profile(model, inputs=(images(network, 2),), verbose=False)
    return {"ops": operations, "params": parameters}


@tool("ptflops 0.7.5")
def ptflopses(network: Network, model: nn.Module) -> Figures:
    """Ask ptflops in its three modes; it makes its one image itself."""
    ptflops = judges.package("ptflops")

    def ask(**options: Any) -> tuple[int, int]:
        said = ptflops.get_model_complexity_info(
            model, network.input_shape, as_strings=False, print_per_layer_stat=False, **options
        )
        assert said[0] is not None
        return said  # type: ignore[no-any-return]  # ptflops has no types

    return {
        "complexity, the default": ask()[0],
        "complexity, count_functional=False": ask(backend_specific_config={"count_functional": False})[0],
        'complexity, backend="aten"': ask(backend="aten")[0],
        "params": ask()[1],
    }


@tool("calflops 0.3.2")
def calflopses(network: Network, model: nn.Module) -> Figures:
    """Ask calflops about two images; it imports transformers, of which it uses nothing here."""
    stub: Any = ModuleType("transformers")
    stub.__spec__ = ModuleSpec("transformers", None)
    stub.AutoTokenizer = stub.AutoModel = stub.AutoConfig = None
    absent = "transformers" not in sys.modules
    if absent:
        sys.modules["transformers"] = stub
    try:
        calflops = pytest.importorskip("calflops", reason="calflops is not installed: it brings accelerate with it")
        flops, macs, _ = calflops.calculate_flops(
            model, input_shape=(2, *network.input_shape), output_as_string=False, print_results=False
        )
    finally:
        if absent:
            del sys.modules["transformers"]
    return {"FLOPs": flops, "MACs": macs, "fwd+bwd FLOPs": 3 * flops, "fwd+bwd MACs": 3 * macs}


@tool("DeepSpeed 0.19.8")
def deepspeeds(network: Network, model: nn.Module) -> Figures:
    """Ask DeepSpeed's profiler about two images."""
    profiler = pytest.importorskip(
        "deepspeed.profiling.flops_profiler",
        reason="DeepSpeed is not installed: it is compiled. Its rules were read in its source, which calflops copies",
    )
    flops, macs, _ = profiler.get_model_profile(
        model, (2, *network.input_shape), as_string=False, print_profile=False, warm_up=0
    )
    return {"fwd flops": flops, "fwd MACs": macs}


@tool("torch's FlopCounterMode 2.14")
def torchs(network: Network, model: nn.Module) -> Figures:
    """Ask torch about two images."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images(network, 2))
    return {"Total": counter.get_total_flops()}


def figures(network: Network, source: str, batch: int) -> Figures:
    """Return what the conventions say of a tool, by label."""
    counted = CountedNetwork(network, batch, "float32")
    return {
        convention.label: sum(part.amount for part in convention.parts(convention.counted(counted)))
        for convention in CONVENTIONS
        if str(convention.tool) == source
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_convention_is_what_torchsummary_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """torchsummary prints in MiB only; for a million images, which it takes on trust, its digits are many."""
    torchsummary = judges.package("torchsummary")
    network, batch = SMALL[name](), 1_000_000
    torchsummary.summary(vggkit.build(network).eval(), network.input_shape, batch_size=batch, device="cpu")
    printed = dict(re.findall(r"^([A-Z].*): ([0-9.,]+)$", capsys.readouterr().out, re.MULTILINE))
    ours = figures(network, "torchsummary 1.5.1", batch)
    assert int(printed["Total params"].replace(",", "")) == ours.pop("Total params")
    assert len(ours) == 4
    assert {label: f"{figure / 2**20:.2f}" for label, figure in ours.items()}.items() <= printed.items()


def test_torchsummary_counts_four_bytes_whatever_the_dtype() -> None:
    """A model in half precision is as large to torchsummary as one in single precision; torchinfo sees the dtype."""
    network = SMALL["D"]()
    half, single = CountedNetwork(network, 1, "float16"), CountedNetwork(network, 1, "float32")
    for convention in CONVENTIONS:
        if convention.tool.name in ("torchsummary", "torchinfo") and convention.quantity.endswith("bytes"):
            sizes = [sum(part.amount for part in convention.parts(counted)) for counted in (half, single)]
            assert sizes[1] == sizes[0] * (1 if convention.tool.name == "torchsummary" else 2)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("source", TOOLS)
def test_a_convention_is_what_its_tool_says(source: str, name: str) -> None:
    """Every figure of a tool is the tool's own, to the last one, for every kind of layer."""
    network = SMALL[name]()
    assert figures(network, source, batch=2) == TOOLS[source](network, vggkit.build(network).eval())


@pytest.mark.parametrize("source", ["torchinfo 1.8.0", "fvcore 0.1.5", "thop 0.1.1", "ptflops 0.7.5"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(network=networks())
def test_a_convention_is_what_its_tool_says_of_any_network(source: str, network: Network) -> None:
    """The same for random networks with every option."""
    model = vggkit.build(network).eval()
    try:
        model(images(network))
    except ValueError:  # batch norm of one value that has no running statistics
        assume(False)
    assert figures(network, source, batch=2) == TOOLS[source](network, model)

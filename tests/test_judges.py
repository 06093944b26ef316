"""The shipped configurations before the other libraries, the paper and algebra."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest
import timm
import torch
import torchinfo
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import vggkit
from vggkit.config import Config
from vggkit.layers import Conv2d
from vggkit.network import Network

TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}

FACTS = {
    "A": (132_851_392, 11_944, 132_863_336, 7_609_090_048, 9_116_136, 134, 150, 133),
    "A-LRN": (132_851_392, 11_944, 132_863_336, 7_609_090_048, 12_327_400, 134, 150, 133),
    "B": (133_035_712, 12_136, 133_047_848, 11_308_466_176, 13_933_032, 140, 156, 133),
    "C": (133_625_536, 13_416, 133_638_952, 11_770_888_192, 15_237_608, 140, 156, 134),
    "D": (138_344_128, 13_416, 138_357_544, 15_470_264_320, 15_237_608, 196, 212, 138),
    "E": (143_652_544, 14_696, 143_667_240, 19_632_062_464, 16_542_184, 252, 268, 144),
}
"""Weights, biases, parameters, MACs, output elements, fields of the last convolution and of pool5, and Table 2."""


@pytest.mark.parametrize("name", FACTS)
def test_the_figures_of_the_six_are_the_known_ones(name: str) -> None:
    """Counts, multiply-accumulates, outputs and receptive fields are exact, and round to the paper's Table 2."""
    summary = vggkit.summarize(name)
    totals = summary.totals
    fields = {row.name: row.receptive_field for row in summary}
    last_convolution = [row.name for row in summary if row.kind == "conv"][-1]
    found = (
        totals.weights, totals.biases, totals.parameters, totals.multiply_accumulates, totals.activation_elements,
        fields[last_convolution][0], fields["block5_pool"][0], round(totals.parameters / 1e6),
    )  # fmt: skip
    assert found == FACTS[name]


def shapes(model: torch.nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of a model's parameters, in order."""
    return [tuple(parameter.shape) for parameter in model.parameters()]


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_parameters_are_torchvisions_and_timms(name: str, batch_norm: bool) -> None:
    """Every parameter's shape, in order, is torchvision's; timm's too, whose FC layers are convolutions."""
    ours = shapes(vggkit.build(name, batch_norm=batch_norm, device="meta"))
    other = TORCHVISION[name] + ("_bn" if batch_norm else "")
    with torch.device("meta"):
        assert ours == shapes(getattr(torchvision.models, other)(weights=None, init_weights=False))
        theirs = shapes(timm.create_model(f"{other}.tv_in1k", pretrained=False))
    flat = [
        (shape[0], shape[1] * shape[2] * shape[3]) if shape[0] == 4096 and len(shape) == 4 else shape
        for shape in theirs
    ]
    assert ours == flat


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_scores_are_torchvisions_bit_for_bit(name: str, batch_norm: bool) -> None:
    """With torchvision's weights, copied in order, the scores are equal to the last bit."""
    torch.manual_seed(0)
    other = TORCHVISION[name] + ("_bn" if batch_norm else "")
    theirs = getattr(torchvision.models, other)(weights=None, init_weights=False, num_classes=7).eval()
    ours = vggkit.build(name, batch_norm=batch_norm, num_classes=7, device="meta").eval()
    copied = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(copied, assign=True)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", FACTS)
def test_parameters_and_shapes_are_torchinfos(name: str) -> None:
    """torchinfo counts the same parameters and sees the same output shape of every layer."""
    network = Network.of(name)
    model = vggkit.build(network, device="meta")
    info = torchinfo.summary(model, (1, 3, 224, 224), device="meta", verbose=0)
    assert info.total_params == vggkit.summarize(network).totals.parameters
    seen = {id(layer.module): tuple(layer.output_size[1:]) for layer in info.summary_list}
    for placed in network.layers[:-1]:
        assert seen[id(model.get_submodule(placed.module))] == placed.output_shape


# Algebra


def test_ds_total_is_the_sum_of_its_layers() -> None:
    """138,357,544, by the widths of Table 1 alone."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * before * after + after for before, after in pairwise(widths))
    units = [512 * 7 * 7, 4096, 4096, 1000]
    fully_connected = sum(before * after + after for before, after in pairwise(units))
    assert convolutions + fully_connected == 138_357_544 == vggkit.summarize("D").totals.parameters


def parameters(blocks: str, classes: int = 10, **overrides: object) -> int:
    """Return the parameters of a small network."""
    config = vggkit.loads(f"input: 3x8x8\nblocks: {blocks}\nclassifier: [global-avgpool, FC-{classes}]")
    return vggkit.summarize(config, **overrides).totals.parameters  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 50))
def test_counts_change_as_algebra_says(first: int, second: int, classes: int) -> None:
    """Doubling the width, adding a convolution, swapping 3×3 for 1×1, and more classes: each by its own formula."""
    base = parameters(f"[[conv3-{first}, conv3-{second}]]", classes)
    assert base == 27 * first + first + 9 * first * second + second + second * classes + classes
    doubled = 2 * (27 * first + first) + 36 * first * second + 2 * second + 2 * second * classes + classes
    assert parameters(f"[[conv3-{first}, conv3-{second}]]", classes, width=2) == doubled
    longer = parameters(f"[[conv3-{first}, conv3-{second}, conv3-{second}]]", classes)
    assert longer - base == 9 * second * second + second
    assert base - parameters(f"[[conv3-{first}, conv1-{second}]]", classes) == 8 * first * second
    assert parameters(f"[[conv3-{first}, conv3-{second}]]", classes + 1) - base == second + 1


def test_a_million_million_channels_are_counted_exactly() -> None:
    """conv3-10¹² is summed up in Python's integers."""
    totals = vggkit.summarize(vggkit.loads("blocks: [[conv3-1000000000000, conv3-1000000000000]]")).totals
    assert totals.weights == 27 * 10**12 + 9 * 10**24
    assert totals.multiply_accumulates == totals.weights * 224 * 224


def test_cs_one_by_one_convolutions_are_padded_by_nothing() -> None:
    """C's convolutions need 11,647,254,528 MACs; padding its 1×1 by 1 keeps the parameters and needs 12,071,534,592."""
    config = vggkit.load("C")
    padded = tuple(
        tuple(
            replace(entry, layer=replace(entry.layer, padding=(1, 1)))
            if isinstance(entry.layer, Conv2d) and entry.layer.kernel_size == (1, 1)
            else entry
            for entry in block
        )
        for block in config.blocks
    )

    def figures(config: Config) -> tuple[int, int]:
        summary = vggkit.summarize(config)
        convolutions = [row for row in summary if row.kind == "conv"]
        return sum(row.parameters for row in convolutions), sum(row.multiply_accumulates for row in convolutions)

    trunk = replace(config, classifier=())
    right, wrong = figures(trunk), figures(replace(trunk, blocks=padded))
    assert right[0] == wrong[0]
    assert (right[1], wrong[1]) == (11_647_254_528, 12_071_534_592)


@pytest.mark.parametrize(("image", "floor", "ceil"), [(300, 9, 10), (500, 15, 16)])
def test_floor_and_ceil_pooling_are_told_apart(image: int, floor: int, ceil: int) -> None:
    """At sizes that don't halve evenly, rounding up ends in larger maps, as the built model's."""
    for text, size in (("", floor), ("defaults: {maxpool: {ceil_mode: true}}\n", ceil)):
        blocks = "\n".join("  - [conv3-2, maxpool]" for _ in range(5))
        network = Network.of(vggkit.loads(f"{text}input: 1x{image}x{image}\nblocks:\n{blocks}"))
        assert network.output_shape == (2, size, size)
        assert vggkit.build(network, device="meta")(torch.empty(1, 1, image, image, device="meta")).shape[2] == size


# Without torch


def test_importing_vggkit_imports_nothing_heavy() -> None:
    """`import vggkit` takes no torch, rich, matplotlib or YAML; the commands that need no torch take none."""
    code = (
        "import sys, json, vggkit\n"
        "first = sorted({'torch', 'rich', 'matplotlib', 'yaml', 'msgspec', 'numpy'} & set(sys.modules))\n"
        "from vggkit.cli import main\n"
        "import io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    for arguments in ('summarize D', 'list', 'show D', 'names D', 'validate D', 'schema', 'memory D'):\n"
        "        try: main(arguments.split())\n"
        "        except SystemExit as end: assert end.code == 0\n"
        "print(json.dumps([first, 'torch' in sys.modules, 'matplotlib' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [[], False, False]

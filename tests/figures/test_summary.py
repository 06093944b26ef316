"""The summary: the published figures, the laws of arithmetic, and the flop counter."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests import drawn
from vggkit import Network, summarize
from vggkit.base.errors import ArgumentError
from vggkit.figures.summary import Summary, Totals
from vggkit.notation.layers import AvgPool2d, MaxPool2d, elements

NAMES = ["A", "A-LRN", "B", "C", "D", "E"]

# The published figures


FACTS = {
    "A": (132_851_392, 11_944, 132_863_336, 7_609_090_048, 9_116_136),
    "A-LRN": (132_851_392, 11_944, 132_863_336, 7_609_090_048, 12_327_400),
    "B": (133_035_712, 12_136, 133_047_848, 11_308_466_176, 13_933_032),
    "C": (133_625_536, 13_416, 133_638_952, 11_770_888_192, 15_237_608),
    "D": (138_344_128, 13_416, 138_357_544, 15_470_264_320, 15_237_608),
    "E": (143_652_544, 14_696, 143_667_240, 19_632_062_464, 16_542_184),
}
"""Weights, biases, parameters, multiply-accumulates, output elements with the input's, at 224 with 1000 classes."""

FIELDS = {"A": (134, 150), "A-LRN": (134, 150), "B": (140, 156), "C": (140, 156), "D": (196, 212), "E": (252, 268)}
"""Receptive fields of the last convolution and of the last pool."""


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_the_published_ones(name: str) -> None:
    """Each figure of the design's table of facts, exactly."""
    totals = summarize(name).totals
    assert (
        totals.weights,
        totals.biases,
        totals.parameters,
        totals.multiply_accumulates,
        totals.activation_elements,
    ) == FACTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_receptive_fields_are_the_published_ones(name: str) -> None:
    """The last convolution and the last pool see as much as the design's table says, with a stride of 16 and 32."""
    rows = {row.name: row for row in summarize(name)}
    conv = [row for row in rows.values() if row.kind == "conv"][-1]
    pool = rows["block5_pool"]
    assert (conv.receptive_field, pool.receptive_field) == tuple((side, side) for side in FIELDS[name])
    assert (conv.stride, pool.stride) == ((16, 16), (32, 32))
    assert Network.of(name).receptive_field == pool.receptive_field  # what stands behind the blocks sees everything


D = """
input        3x224x224        0    0           0 150528   1  1
block1_conv1 64x224x224    1728   64    86704128 3211264  3  1
block1_conv2 64x224x224   36864   64  1849688064 3211264  5  1
block1_pool  64x112x112       0    0           0 802816   6  2
block2_conv1 128x112x112  73728  128   924844032 1605632 10  2
block2_conv2 128x112x112 147456  128  1849688064 1605632 14  2
block2_pool  128x56x56        0    0           0 401408  16  4
block3_conv1 256x56x56   294912  256   924844032 802816  24  4
block3_conv2 256x56x56   589824  256  1849688064 802816  32  4
block3_conv3 256x56x56   589824  256  1849688064 802816  40  4
block3_pool  256x28x28        0    0           0 200704  44  8
block4_conv1 512x28x28  1179648  512   924844032 401408  60  8
block4_conv2 512x28x28  2359296  512  1849688064 401408  76  8
block4_conv3 512x28x28  2359296  512  1849688064 401408  92  8
block4_pool  512x14x14        0    0           0 100352 100 16
block5_conv1 512x14x14  2359296  512   462422016 100352 132 16
block5_conv2 512x14x14  2359296  512   462422016 100352 164 16
block5_conv3 512x14x14  2359296  512   462422016 100352 196 16
block5_pool  512x7x7          0    0           0  25088 212 32
fc1          4096      102760448 4096  102760448   4096 404 32
fc2          4096       16777216 4096   16777216   4096 404 32
predictions  1000        4096000 1000    4096000   1000 404 32
"""


def test_rows_of_d_are_exactly_these() -> None:
    """Name, shape, weights, biases, multiply-accumulates, activations, receptive field and stride of each row."""
    rows = [
        [
            row.name,
            "x".join(map(str, row.output_shape)),
            *(str(figure) for figure in (row.weights, row.biases, row.multiply_accumulates, row.activation_elements)),
            *(str(figure[0]) for figure in (row.receptive_field, row.stride)),
        ]
        for row in summarize("D")
    ]
    assert rows == [line.split() for line in D.strip().splitlines()]


def test_the_parameters_of_d_by_closed_formula() -> None:
    """138,357,544 is nine weights per pair of channels, the FC layers' products, and a bias for each output."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    units = [512 * 7 * 7, 4096, 4096, 1000]
    weights = sum(9 * a * b for a, b in pairwise(channels)) + sum(a * b for a, b in pairwise(units))
    assert weights + sum(channels[1:]) + sum(units[1:]) == 138_357_544
    assert sum(row.parameters for row in summarize("D")) == summarize("D").totals.parameters == 138_357_544


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_the_sums_of_the_rows(name: str) -> None:
    """No total has a life of its own."""
    summary = summarize(name, batch=3, batch_norm=True)
    for figure in (
        "weights",
        "biases",
        "parameters",
        "multiply_accumulates",
        "activation_elements",
        "activation_bytes",
        "statistics",
    ):
        assert getattr(summary.totals, figure) == sum(getattr(row, figure) for row in summary), figure


def test_d_has_sixteen_weight_layers_and_five_pools() -> None:
    """13 convolutions, 3 fully connected layers, 5 pools; the input is counted among none."""
    totals = summarize("D").totals
    assert totals.weight_layers == 16
    assert totals.layers_by_kind == {"conv": 13, "fc": 3, "maxpool": 5}
    assert totals.parameter_bytes == 4 * 138_357_544
    assert totals.floating_point_operations == 2 * 15_470_264_320


def test_a_batch_norm_has_a_row_and_statistics() -> None:
    """Scale and shift are parameters, running mean and variance are statistics that Keras counts too."""
    plain, normalized = summarize("D").totals, summarize("vgg16_bn").totals
    channels = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    assert normalized.parameters - plain.parameters == 2 * channels
    assert (normalized.statistics, normalized.stored) == (2 * channels, normalized.parameters + 2 * channels)
    assert normalized.stored_bytes == normalized.parameter_bytes + normalized.statistics_bytes == 4 * normalized.stored
    assert normalized.layers_by_kind["batchnorm"] == 13


def test_an_activation_that_needs_memory_of_its_own_has_a_row() -> None:
    """GELU can't work in place and is a row; ReLU, dropout, flatten and soft-max are rows only when expanded."""
    gelu = [row.name for row in summarize("A", activation="gelu") if row.kind == "gelu"]
    assert gelu == [f"block{block}_gelu{n}" for block, n in zip("12334455", "11121212")] + ["gelu1", "gelu2"]
    assert {row.kind for row in summarize("D")} == {"input", "conv", "maxpool", "fc"}
    expanded = summarize("D", expand=True)
    assert {row.kind for row in expanded} == {
        "input", "conv", "maxpool", "fc", "relu", "dropout", "flatten", "soft-max",
    }  # fmt: skip
    assert expanded.totals == summarize("D").totals
    assert len(expanded) == 1 + len(Network.of("D"))


# What batch and dtype scale


@pytest.mark.parametrize("name", ["A-LRN", "vgg16_bn"])
@pytest.mark.parametrize("batch", [2, 7, 10**18])
def test_a_batch_multiplies_activations_and_work_and_nothing_else(name: str, batch: int) -> None:
    """Parameters, shapes and fields stay; elements, bytes and multiply-accumulates are so many times as much."""
    scaled = {"multiply_accumulates", "activation_elements", "activation_bytes"}
    one, many = summarize(name).to_dict(), summarize(name, batch=batch).to_dict()
    for before, after in zip((*one["layers"], one["totals"]), (*many["layers"], many["totals"]), strict=True):
        assert {key: value * batch if key in scaled else value for key, value in before.items()} == after


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2), ("bfloat16", 2), ("float32", 4), ("float64", 8)])
def test_a_dtype_scales_bytes_and_nothing_else(dtype: str, size: int) -> None:
    """Every count stays; bytes are the elements times torch's itemsize."""
    assert getattr(torch, dtype).itemsize == size
    plain, typed = summarize("vgg16_bn"), summarize("vgg16_bn", dtype=dtype)
    for before, after in zip(plain, typed, strict=True):
        assert after.activation_bytes == size * before.activation_elements == size * after.activation_elements
        assert after.parameters == before.parameters
    assert typed.totals.parameter_bytes == size * plain.totals.parameters
    assert typed.totals.statistics_bytes == size * plain.totals.statistics


@pytest.mark.parametrize("batch", [0, -1, 1.0, True, "2", None, 10**18 + 1])
def test_a_wrong_batch_is_refused(batch: Any) -> None:
    """The message names the argument, what is allowed and what was found."""
    with pytest.raises(ArgumentError, match=r"^batch: expected a whole number from 1 to 1e\+18, found "):
        summarize("A", batch=batch)


@pytest.mark.parametrize("dtype", ["int8", "", "Float32", None, 4])
def test_a_wrong_dtype_is_refused(dtype: Any) -> None:
    """The message names the argument, what is allowed and what was found."""
    with pytest.raises(ArgumentError, match=r"^dtype: expected one of float32, float16, bfloat16, float64, found "):
        summarize("A", dtype=dtype)


# Drawn networks, against torch


@settings(max_examples=100, deadline=None)
@given(drawn.networks(), st.integers(2, 4))
def test_totals_are_what_the_model_has_and_the_flop_counter_counts(network: Network, batch: int) -> None:
    """Weights, biases and parameters are the model's own; multiply-accumulates are half of its operations."""
    model = vggkit.build(network, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(batch, *network.input_shape, device="meta"))
    totals = summarize(network, batch=batch).totals
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert totals.parameters == sum(sizes.values())
    assert totals.weights == sum(size for name, size in sizes.items() if name.endswith(".weight"))
    assert totals.biases == sum(size for name, size in sizes.items() if name.endswith(".bias"))
    assert 2 * totals.multiply_accumulates == counter.get_total_flops()


MODULES = {"conv": nn.Conv2d, "fc": nn.Linear, "batchnorm": nn.modules.batchnorm._BatchNorm, "groupnorm": nn.GroupNorm}


@settings(max_examples=50, deadline=None)
@given(drawn.networks(), st.sampled_from([*MODULES]), st.booleans())
def test_the_parameters_of_a_kind_are_those_of_its_modules(network: Network, kind: str, expand: bool) -> None:
    """Wherever they stand: convolutions in the classifier and normalisations behind FC layers, too."""
    modules = [module for module in vggkit.build(network, device="meta").modules() if isinstance(module, MODULES[kind])]
    expected = sum(parameter.numel() for module in modules for parameter in module.parameters())
    assert summarize(network, batch=3, expand=expand).parameters_of(kind) == expected


def outputs_in_new_memory(network: Network, batch: int) -> dict[str, int]:
    """Return the elements of each module's output, 0 where it lies in memory that was there before."""
    model = vggkit.build(network).eval()
    images = torch.zeros(batch, *network.input_shape)
    kept, counts = [images], {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            storages = {tensor.untyped_storage().data_ptr() for tensor in kept}
            counts[name] = output.numel() * (output.untyped_storage().data_ptr() not in storages)
            kept.append(output)

        return hook

    paths = {placed.module: placed.name for placed in network}
    for path, module in model.named_modules():
        if path in paths:
            module.register_forward_hook(note(paths[path]))
    with torch.no_grad():
        model(images)
    return counts


@settings(max_examples=150, deadline=None)
@given(drawn.networks(), st.integers(2, 4))
def test_activations_are_the_outputs_that_torch_gives_memory_of_their_own(network: Network, batch: int) -> None:
    """Row by row and in total, a soft-max's too wherever it is run; what the model has not is 0."""
    counts = outputs_in_new_memory(network, batch)
    rows = summarize(network, batch=batch, expand=True).rows[1:]
    assert {row.name: row.activation_elements for row in rows} == {row.name: counts.get(row.name, 0) for row in rows}
    total = batch * elements(network.input_shape) + sum(counts.values())
    assert summarize(network, batch=batch).totals.activation_elements == total


def test_a_soft_max_that_is_not_last_is_a_row_with_an_output_of_its_own() -> None:
    """Between FC layers, between convolutions and at the end of a trunk; at a classifier's end it is no output."""
    text = "{input: 3x8x8, blocks: [[conv3-4, soft-max]], classifier: [FC-5, soft-max, FC-3, soft-max]}"
    rows = summarize(vggkit.loads(text), expand=True)
    found = [(row.name, row.activation_elements) for row in rows if row.kind == "soft-max"]
    assert found == [("block1_softmax", 4 * 8 * 8), ("softmax", 5), ("softmax2", 0)]
    assert [row.name for row in summarize(vggkit.loads(text)) if row.kind == "soft-max"] == [
        "block1_softmax",
        "softmax",
    ]
    trunk = summarize(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4, soft-max]]}"))
    assert trunk.totals.activation_elements == 3 * 8 * 8 + 2 * 4 * 8 * 8


# Laws of arithmetic

widths = st.lists(st.integers(1, 10**6), min_size=2, max_size=6)


def stacked(channels: list[int], *more: str, classes: int = 10) -> Summary:
    """Summarize convolutions one behind the other on 8×8 RGB images, then entries, then one FC layer."""
    convolutions = [f"conv3-{count}" for count in channels]
    blocks = f"[[{', '.join([*convolutions, *more])}]]"
    return summarize(vggkit.loads(f"{{input: 3x8x8, blocks: {blocks}, classifier: [FC-{classes}]}}"))


@given(widths)
def test_weights_are_nine_for_each_pair_of_channels(channels: list[int]) -> None:
    """The totals of a stack of convolutions by closed formula."""
    totals = stacked(channels).totals
    inner = sum(9 * a * b for a, b in pairwise([3, *channels]))
    outer = channels[-1] * 64 * 10
    assert totals.weights == inner + outer
    assert totals.biases == sum(channels) + 10
    assert totals.multiply_accumulates == 64 * inner + outer
    assert totals.activation_elements == 64 * (3 + sum(channels)) + 10


@given(widths)
def test_doubling_the_width_quadruples_what_lies_inside(channels: list[int]) -> None:
    """The first layer and the last grow twofold, all between fourfold, biases but the classes' twofold."""
    config = stacked(channels)
    wide = stacked([2 * count for count in channels])
    (_, first, *inner, last), (_, wide_first, *wide_inner, wide_last) = config.rows, wide.rows
    assert wide_first.weights == 2 * first.weights
    assert [row.weights for row in wide_inner] == [4 * row.weights for row in inner]
    assert wide_last.weights == 2 * last.weights
    assert wide.totals.biases == 2 * config.totals.biases - 10


@pytest.mark.parametrize("name", NAMES)
def test_the_width_override_is_algebras(name: str) -> None:
    """Twice the width is four times the weights, but for those at the image and at the classes, which are two times."""
    rows, wide = summarize(name).rows, summarize(name, width=2).rows
    edges = {"block1_conv1", "predictions"}
    assert [row.weights for row in wide] == [row.weights * (2 if row.name in edges else 4) for row in rows]


@given(widths, st.integers(1, 10**6))
def test_a_further_convolution_adds_its_own_and_widens_the_next(channels: list[int], count: int) -> None:
    """Adding conv3-c adds 9·k·c + c parameters, and leaves the FC layer with c channels instead of k."""
    before, after = stacked(channels).totals, stacked(channels, f"conv3-{count}").totals
    last = channels[-1]
    assert after.parameters - before.parameters == 9 * last * count + count + 64 * 10 * (count - last)
    assert after.multiply_accumulates - before.multiply_accumulates == 64 * 9 * last * count + 640 * (count - last)


@given(widths)
def test_a_conv1_in_place_of_a_conv3_saves_eight_ninths_of_its_weights(channels: list[int]) -> None:
    """Swapping conv3 for conv1 takes away eight weights for each pair of channels, at each position, and no bias."""
    *front, last = channels
    three, one = stacked(channels).totals, stacked(front, f"conv1-{last}").totals
    assert three.weights - one.weights == 8 * front[-1] * last
    assert three.multiply_accumulates - one.multiply_accumulates == 64 * 8 * front[-1] * last
    assert (three.biases, three.activation_elements) == (one.biases, one.activation_elements)


@given(st.integers(1, 10**6))
def test_a_class_costs_a_row_of_weights_and_a_bias(classes: int) -> None:
    """D's parameters are linear in the number of classes: 4,096 weights and a bias for each."""
    assert summarize("D", num_classes=classes).totals.parameters == 138_357_544 + (classes - 1000) * 4097


def test_in_channels_change_the_first_layer_alone() -> None:
    """An image of one channel saves two thirds of the first convolution's weights."""
    assert summarize("D", in_channels=1).totals.parameters == 138_357_544 - 2 * 9 * 64


def counted_calls(channels: int) -> tuple[Totals, int]:
    """Return the totals of a network, and how many calls of functions they took."""
    config = vggkit.loads(f"blocks: [[conv3-{channels}, conv3-{channels}, maxpool]]\nclassifier: [FC-1000]")
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        totals = summarize(config).totals
    finally:
        sys.setprofile(before)
    return totals, calls


def test_ten_to_the_twelve_channels_are_summed_up_exactly_and_at_once() -> None:
    """Integers are Python's: no float, no overflow, and as many calls as for ten channels."""
    channels = 10**12
    _, few = counted_calls(10)
    totals, many = counted_calls(channels)
    assert many == few
    weights = 27 * channels + 9 * channels**2 + channels * 112**2 * 1000
    assert totals.weights == weights
    assert totals.parameters == weights + 2 * channels + 1000
    assert totals.multiply_accumulates == 224**2 * (27 * channels + 9 * channels**2) + channels * 112**2 * 1000


# Two conventions that change figures


def conv_work(summary: Summary) -> int:
    """Return the multiply-accumulates of the convolutions."""
    return sum(row.multiply_accumulates for row in summary if row.kind == "conv")


def test_the_1x1_convolutions_of_c_are_not_padded() -> None:
    """Padding them by 1 keeps every parameter and is wrong: it takes 424 million multiply-accumulates more."""
    text = vggkit.dump("C")
    for channels in ("256", "512"):
        text = text.replace(f"conv1-{channels}", f"{{conv: {channels}, kernel: 1, padding: 1}}")
    # the maps grow by 2 and 2 and end at 8×8
    padded = text.replace("maxpool]\nclassifier", "maxpool, {adaptive-avgpool: 7}]\nclassifier")
    right, wrong = summarize("C"), summarize(vggkit.loads(padded))
    assert right.totals.parameters == wrong.totals.parameters == 133_638_952
    assert conv_work(right) == 11_647_254_528
    assert conv_work(wrong) == 12_071_534_592


@pytest.mark.parametrize("side", [300, 500])
@pytest.mark.parametrize("pool", [MaxPool2d, AvgPool2d])
def test_floor_and_ceil_pooling_are_told_apart(side: int, pool: type[MaxPool2d | AvgPool2d]) -> None:
    """At 300 and 500 an odd map comes up, and both roundings give the sizes that torch gives."""
    words = {MaxPool2d: "maxpool", AvgPool2d: "avgpool"}
    ends = {}
    for ceil_mode in (False, True):
        entry = f"{{{words[pool]}: 2, ceil_mode: {str(ceil_mode).lower()}}}"
        blocks = ", ".join([f"[conv3-1, {entry}]"] * 5)
        rows = [row for row in summarize(vggkit.loads(f"{{input: 1x{side}x{side}, blocks: [{blocks}]}}")) if row.block]
        x = torch.empty(1, 1, side, side, device="meta")
        seen = []
        kind = {MaxPool2d: nn.MaxPool2d, AvgPool2d: nn.AvgPool2d}[pool]
        for _ in range(5):
            seen.append(tuple(x.shape[1:]))
            x = kind(2, stride=2, ceil_mode=ceil_mode)(x)
            seen.append(tuple(x.shape[1:]))
        assert [row.output_shape for row in rows] == seen
        ends[ceil_mode] = rows[-1].output_shape[1]
    assert ends == {300: {False: 9, True: 10}, 500: {False: 15, True: 16}}[side]


# The documented JSON


def test_the_dictionary_has_the_documented_keys_in_order() -> None:
    """Keys and their order are as issue 2 and docs/json.md document them."""
    said = summarize("D", batch=2, dtype="float16").to_dict()
    assert list(said) == ["name", "input", "batch", "dtype", "layers", "totals"]
    assert (said["name"], said["input"], said["batch"], said["dtype"]) == ("D", [3, 224, 224], 2, "float16")
    for layer in said["layers"]:
        assert list(layer) == [
            "name", "block", "kind", "notation", "output_shape", "weights", "biases", "parameters",
            "multiply_accumulates", "activation_elements", "activation_bytes", "receptive_field", "stride",
        ]  # fmt: skip
    assert list(said["totals"]) == [
        "weights", "biases", "parameters", "multiply_accumulates", "activation_elements", "activation_bytes",
        "weight_layers", "layers_by_kind", "parameter_bytes",
    ]  # fmt: skip


def test_a_row_in_the_dictionary_is_plain_data() -> None:
    """Lists and strings, as JSON gives them back."""
    row = summarize("D").to_dict()["layers"][2]
    assert row == {
        "name": "block1_conv2", "block": "block1", "kind": "conv", "notation": "conv3-64",
        "output_shape": [64, 224, 224], "weights": 36_864, "biases": 64, "parameters": 36_928,
        "multiply_accumulates": 1_849_688_064, "activation_elements": 3_211_264, "activation_bytes": 12_845_056,
        "receptive_field": [5, 5], "stride": [1, 1],
    }  # fmt: skip


def test_a_summary_is_the_same_whatever_it_is_made_from(tmp_path: Any) -> None:
    """A name, an alias, a path, a Config and a Network are equally good."""
    path = tmp_path / "D.yaml"
    vggkit.dump("D", path)
    expected = summarize("D")
    for source in ("d", "vgg16", path, str(path), vggkit.load("D"), Network.of("D")):
        assert summarize(source) == expected

"""Networks side by side: the paper's tables, the built models, torch's flop counter and memory tracker, and sums."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests import drawn, judges
from vggkit import Network, compare
from vggkit.base.errors import ArgumentError, ConfigError, VggkitError
from vggkit.figures.compare import FIGURES, MOST_PAIRS, Comparison, Diff, figure_name, split_changes
from vggkit.footprint.plan import Options
from vggkit.model import verify as verification

NAMES = ["A", "A-LRN", "B", "C", "D", "E"]

# The layers, as the paper's Table 1 has them; a star stands before what is bold there

TABLE_1 = """
input 3×224×224 | input 3×224×224 | input 3×224×224 | input 3×224×224 | input 3×224×224 | input 3×224×224
conv3-64        | conv3-64        | conv3-64        | conv3-64        | conv3-64        | conv3-64
                | *LRN            | *conv3-64       | conv3-64        | conv3-64        | conv3-64
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-128       | conv3-128       | conv3-128       | conv3-128       | conv3-128       | conv3-128
                |                 | *conv3-128      | conv3-128       | conv3-128       | conv3-128
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256
conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256       | conv3-256
                |                 |                 | *conv1-256      | *conv3-256      | conv3-256
                |                 |                 |                 |                 | *conv3-256
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
                |                 |                 | *conv1-512      | *conv3-512      | conv3-512
                |                 |                 |                 |                 | *conv3-512
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512       | conv3-512
                |                 |                 | *conv1-512      | *conv3-512      | conv3-512
                |                 |                 |                 |                 | *conv3-512
maxpool         | maxpool         | maxpool         | maxpool         | maxpool         | maxpool
FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096
FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096         | FC-4096
FC-1000         | FC-1000         | FC-1000         | FC-1000         | FC-1000         | FC-1000
soft-max        | soft-max        | soft-max        | soft-max        | soft-max        | soft-max
"""

SPANNING = ["input 3×224×224", *["maxpool"] * 5, "FC-4096", "FC-4096", "FC-1000", "soft-max"]
"""The rows that are one cell in the paper's table."""


def shown(comparison: Comparison) -> list[list[str]]:
    """Return the rows that are shown, a star before each cell that differs from the one to its left."""
    return [
        ["" if cell is None else f"{'*' if cell.differs else ''}{cell.text}" for cell in row.cells]
        for row in comparison.rows
        if row.shown
    ]


def of(*blocks: str, classifier: str = "FC-5") -> Network:
    """Return a small network of blocks, each the inside of a list in YAML."""
    lists = "".join(f"\n  - [{block}]" for block in blocks)
    return Network.of(vggkit.loads(f"input: 3x16x16\nblocks:{lists}\nclassifier: [{classifier}]"))


def test_the_rows_are_the_papers_table_1() -> None:
    """Without any argument all six are compared, and each row and each bold layer is the paper's."""
    paper = [[cell.strip() for cell in line.split("|")] for line in TABLE_1.strip("\n").splitlines()]
    assert shown(compare()) == paper


def test_the_rows_that_span_are_the_papers() -> None:
    """The input, the pools and the classifier are one cell, and so are no convolutions however equal."""
    rows = [row for row in compare().rows if row.shown and row.spans]
    assert [row.cells[0] and row.cells[0].text for row in rows] == SPANNING
    assert not compare("A", "A:input=3x64x64").rows[0].spans


def test_bold_is_before_the_left_column_in_any_order() -> None:
    """With the columns turned round, what differs is told from the new left; what is missing is blank."""
    rows = shown(compare("E", "D", "C"))
    assert rows[7:11] == [
        ["conv3-256", "conv3-256", "conv3-256"],
        ["conv3-256", "conv3-256", "conv3-256"],
        ["conv3-256", "conv3-256", "*conv1-256"],
        ["conv3-256", "", ""],
    ]


@pytest.mark.parametrize(
    ("left", "right", "rows"),
    [
        (  # norms go between, and the convolutions stay side by side
            of("conv3-4, conv3-4, maxpool"),
            of("{conv: 4, norm: batch}, {conv: 4, norm: batch}, maxpool"),
            [["conv3-4"] * 2, ["", "*batchnorm"], ["conv3-4"] * 2, ["", "*batchnorm"], ["maxpool"] * 2],
        ),
        (of("conv3-4, maxpool"), of("conv3-8, maxpool"), [["conv3-4", "*conv3-8"], ["maxpool"] * 2]),
        (  # a layer before the equal ones is a row of its own
            of("conv3-8, conv3-8, maxpool"),
            of("conv1-4, conv3-8, conv3-8, maxpool"),
            [["", "*conv1-4"], ["conv3-8"] * 2, ["conv3-8"] * 2, ["maxpool"] * 2],
        ),
        (of("conv3-4, maxpool"), of("conv3-4, avgpool"), [["conv3-4"] * 2, ["maxpool", "*avgpool"]]),
        (  # ReLU is unsaid until somebody has something else
            of("conv3-4, conv3-8"),
            of("{conv: 4, activation: gelu}, conv3-8"),
            [["conv3-4"] * 2, ["relu", "*gelu"], ["conv3-8"] * 2],
        ),
        (of("conv3-4"), of("{conv: 4, activation: none}"), [["conv3-4"] * 2, ["relu", ""]]),
        (  # no other sort of layer takes the place of a ReLU
            of("conv3-4"),
            of("{conv: 4, activation: none}, LRN"),
            [["conv3-4"] * 2, ["relu", ""], ["", "*LRN"]],
        ),
        (  # the name decides which of two convolutions has become smaller
            of("{conv: 8, activation: none}, {conv: 8, name: mine, activation: none}"),
            of("{conv: 4, name: mine, activation: none}"),
            [["conv3-8", ""], ["conv3-8", "*conv3-4"]],
        ),
        (of("conv3-4"), of("conv3-4", "conv3-8"), [["conv3-4"] * 2, ["", "*conv3-8"]]),
    ],
)
def test_layers_stand_beside_their_like(left: Network, right: Network, rows: list[list[str]]) -> None:
    """Equal layers are side by side, then such of one sort; the rest goes between."""
    assert shown(compare(left, right))[1:-1] == rows


def test_another_head_leaves_the_last_layer_beside_the_last() -> None:
    """With head=gap FC-1000 still stands beside FC-1000."""
    tail = shown(compare("D", "D:head=gap"))[-5:]
    assert tail == [
        ["", "*global-avgpool"], ["FC-4096", ""], ["FC-4096", ""], ["FC-1000", "FC-1000"], ["soft-max", "soft-max"],
    ]  # fmt: skip


def test_a_dropout_that_is_missing_is_seen() -> None:
    """Dropout 0.5 is unsaid, but not where one network has none."""
    assert ["dropout", ""] in shown(compare("A", "A:dropout=0"))
    assert ["dropout", "*dropout 0.3"] in shown(compare("A", "A:dropout=0.3"))
    assert not any("dropout" in row for row in shown(compare("A", "B:dropout=0.5")))


@settings(max_examples=25, deadline=None)
@given(drawn.networks(), drawn.networks())
def test_each_layer_stands_in_one_row_in_order(left: Network, right: Network) -> None:
    """Whatever the networks, each column read from the top is its network, the input before it."""
    rows = compare(left, right).rows
    for column, network in enumerate((left, right)):
        cells = [row.cells[column] for row in rows]
        assert [cell.row.name for cell in cells if cell] == ["input", *(placed.name for placed in network)]
    assert all(any(row.cells) for row in rows)


def test_very_long_blocks_are_aligned_from_the_top() -> None:
    """Where looking for the best alignment would take long, layer stands beside layer."""
    count = int((MOST_PAIRS**0.5) / 2) + 1
    left, right = of(", ".join(["conv1-2"] * count)), of(", ".join(["conv1-2"] * (count + 1)))
    rows = compare(left, right).rows
    assert sum(None in row.cells for row in rows) == 2  # a convolution and its ReLU


# The figures


def model_of(name: str) -> vggkit.VGG:
    """Return the built model, without memory."""
    return vggkit.build(name, device="meta").eval()


def numel(model: nn.Module, kind: type[nn.Module] = nn.Module) -> int:
    """Return the parameters of the modules of a kind."""
    modules = [module for module in model.modules() if isinstance(module, kind)]
    return sum(p.numel() for module in modules for p in module.parameters(recurse=kind is not nn.Module))


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_built_models(name: str) -> None:
    """Parameters in all, in convolutions and in FC layers, and depth are the module's; MACs the flop counter's half."""
    model, first = model_of(name), model_of("A")
    one = compare("A", name).networks[1]
    total = sum(p.numel() for p in model.parameters())
    assert one.figures()["parameters"] == total
    assert one.conv_parameters == numel(model, nn.Conv2d)
    assert one.fc_parameters == numel(model, nn.Linear)
    assert one.relative_parameters == total / sum(p.numel() for p in first.parameters())
    assert one.figures()["weight_layers"] == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(2, 3, 224, 224, device="meta"))
    assert compare(name, batch=2).networks[0].figures()["multiply_accumulates"] == counter.get_total_flops() // 2


def test_shares_go_by_the_kind_not_by_the_place() -> None:
    """A convolution in the classifier is a convolution, and batch norm is neither."""
    network = of("{conv: 4, norm: batch}", classifier="conv1-8, FC-7, FC-5")
    model = vggkit.build(network, device="meta")
    one = compare(network).networks[0]
    counts = (one.conv_parameters, one.fc_parameters, one.figures()["parameters"])
    assert counts == (numel(model, nn.Conv2d), numel(model, nn.Linear), sum(p.numel() for p in model.parameters()))
    assert sum(counts[:2]) == counts[2] - numel(model, nn.BatchNorm2d)


def test_parameters_in_millions_are_the_papers_table_2() -> None:
    """133, 133, 133, 134, 138 and 144 million."""
    parameters = [one.figures()["parameters"] for one in compare().networks]
    assert [round(number / 1e6) for number in parameters] == [133, 133, 133, 134, 138, 144]


TABLE_3 = {
    "A": [(256, 256, 29.6, 10.4)],
    "A-LRN": [(256, 256, 29.7, 10.5)],
    "B": [(256, 256, 28.7, 9.9)],
    "C": [(256, 256, 28.1, 9.4), (384, 384, 28.1, 9.3), ((256, 512), 384, 27.3, 8.8)],
    "D": [(256, 256, 27.0, 8.8), (384, 384, 26.8, 8.7), ((256, 512), 384, 25.6, 8.1)],
    "E": [(256, 256, 27.3, 9.0), (384, 384, 26.9, 8.7), ((256, 512), 384, 25.5, 8.0)],
}


def test_reported_errors_are_the_papers_table_3() -> None:
    """Each line of Table 3; the figure to sort by is the lowest."""
    for one in compare().networks:
        lines = TABLE_3[one.name]
        assert [(line.train, line.test, line.top1, line.top5) for line in one.reported] == lines
        assert one.figures()["top1_error"] == min(line[2] for line in lines)
        assert one.figures()["top5_error"] == min(line[3] for line in lines)


def test_what_was_changed_has_no_reported_errors() -> None:
    """The paper did not train D with batch norm."""
    one = compare("D:batch_norm=true").networks[0]
    assert (one.reported, one.figures()["top5_error"]) == ((), None)


def test_activations_and_receptive_fields_are_the_published_ones() -> None:
    """Output elements, the input included, times four; the field of the last pool."""
    networks = compare().networks
    elements = [9_116_136, 12_327_400, 13_933_032, 15_237_608, 15_237_608, 16_542_184]
    assert [one.figures()["activation_bytes"] for one in networks] == [4 * number for number in elements]
    assert [one.receptive_field for one in networks] == [(side, side) for side in (150, 150, 156, 156, 212, 268)]


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_peaks_are_what_the_tracker_measures(optimizer: str) -> None:
    """Inference and training peak of two small networks are MemTracker's, at the batch and with the optimizer asked."""
    sources = [Network.of(name, width=0.05, input="3x32x32") for name in ("A-LRN", "B")]
    comparison = compare(*sources, batch=3, optimizer=optimizer)
    for network, one in zip(sources, comparison.networks):
        options = Options(batch=3, optimizer=optimizer)
        assert one.training_peak_bytes == sum(verification.training_peak(network, options).values())
        options = Options(batch=3, mode="inference", optimizer="none")
        assert one.inference_peak_bytes == sum(verification.inference_peak(network, options).values())


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_batch_and_dtype_reach_every_figure(dtype: str) -> None:
    """Bytes, MACs and peaks are those of summarize and memory with the same arguments."""
    one = compare("A", batch=5, dtype=dtype, optimizer="adam").networks[0]
    totals = vggkit.summarize("A", batch=5, dtype=dtype).totals
    assert one.figures()["activation_bytes"] == totals.activation_bytes
    assert one.figures()["multiply_accumulates"] == totals.multiply_accumulates
    assert one.training_peak_bytes == vggkit.memory("A", batch=5, dtype=dtype, optimizer="adam").peak_bytes
    assert one.inference_peak_bytes == vggkit.memory("A", batch=5, dtype=dtype, mode="inference").peak_bytes


def test_without_parameters_nothing_is_relative() -> None:
    """A first network of pools alone: None, not a division by zero."""
    pools = Network.of(vggkit.loads("input: 3x8x8\nblocks: [[maxpool]]"))
    assert [one.relative_parameters for one in compare(pools, "A").networks] == [None, None]


# What is compared


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("D", ("D", ())),
        ("D:width=0.5", ("D", ("width=0.5",))),
        ("vgg16:batch_norm=true, input=3x64x64", ("vgg16", ("batch_norm=true", "input=3x64x64"))),
        ("/home/a:b/my.yaml", ("/home/a:b/my.yaml", ())),
        ("/home/a:b=c/my.yaml", ("/home/a:b=c/my.yaml", ())),
        ("/home/a:b/my.yaml:head=gap", ("/home/a:b/my.yaml", ("head=gap",))),
        (r"C:\nets\my.yaml", (r"C:\nets\my.yaml", ())),
        ("C:my.YML", ("C:my.YML", ())),
        (r"C:\nets\my.yaml:width=2", (r"C:\nets\my.yaml", ("width=2",))),
        ("C:/my.yaml:width=2,head=gap", ("C:/my.yaml", ("width=2", "head=gap"))),
    ],
)
def test_changes_stand_behind_the_last_colon(text: str, parts: tuple[str, tuple[str, ...]]) -> None:
    """A path may have colons, a drive letter too; what has a slash or ends in .yaml is no change."""
    assert split_changes(text) == parts


def test_changes_are_the_overrides_of_load() -> None:
    """A name with changes is the network that load gives with them, and says what was changed."""
    one = compare("D:batch_norm=true,width=0.5,input=3x64x64").networks[0]
    wanted = vggkit.summarize("D", batch_norm=True, width=0.5, input="3x64x64", expand=True)
    assert one.summary == wanted
    assert one.label == "D:batch_norm=true,width=0.5,input=3x64x64"


def test_a_columns_own_changes_win_over_those_of_all() -> None:
    """Keywords change every network but what says otherwise."""
    networks = compare("A", "A:num_classes=7", num_classes=10).networks
    assert [one.summary.rows[-1].output_shape for one in networks] == [(10,), (7,)]


def test_a_path_with_a_colon_is_found(tmp_path: Path) -> None:
    """With changes behind it and without."""
    folder = tmp_path / "a:b=c"
    folder.mkdir()
    path = folder / "my.yaml"
    path.write_text("extends: A\n")
    networks = compare(path, f"{path}:num_classes=10").networks
    assert [one.summary.rows[-1].output_shape for one in networks] == [(1000,), (10,)]


def test_equal_names_are_told_apart_by_what_was_typed(tmp_path: Path) -> None:
    """A file that calls its network D beside D: the file's path is the column's head."""
    path = tmp_path / "mine.yaml"
    path.write_text("extends: D\nname: D\noverrides: {width: 0.5}\n")
    assert [one.label for one in compare("D", path).networks] == ["D", str(path)]
    assert [one.label for one in compare("vgg16", "A").networks] == ["D", "A"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("D:width", "'D:width': expected key=value, such as num_classes=10, found 'width'"),
        ("D:", "'D:': expected key=value, such as num_classes=10, found ''"),
        ("D:width=", "'D:width=': width has no value"),
        ("D:widht=2", "unknown override 'widht'. Did you mean 'width'?"),
        ("D:width=abc", "'D:width=abc': width: expected a number above 0"),
    ],
)
def test_wrong_changes_say_where(source: str, message: str) -> None:
    """The message begins with what was typed."""
    with pytest.raises(ArgumentError) as caught:
        compare("A", source)
    assert message in str(caught.value)


def test_what_is_not_there_is_a_config_error() -> None:
    """An unknown name, with or without changes."""
    for source in ("Q", "Q:width=2", ":width=2"):
        with pytest.raises(ConfigError, match="unknown configuration"):
            compare(source)


# Sorting and choosing


def test_columns_are_sorted_by_a_figure() -> None:
    """Ascending, with - descending, equals in the order given; what is to the left and the first are the new ones."""
    assert [one.name for one in compare("E", "A", "C", sort="macs").networks] == ["A", "C", "E"]
    comparison = compare("A", "A-LRN", "E", sort="-parameters")
    assert [one.name for one in comparison.networks] == ["E", "A", "A-LRN"]
    assert comparison.networks[0].relative_parameters == 1.0
    assert shown(comparison)[2] == ["conv3-64", "", "*LRN"]


@pytest.mark.parametrize("sort", ["top5", "-top5"])
def test_networks_without_the_figure_come_last(sort: str) -> None:
    """D with batch norm has no reported error, whichever way the others are sorted."""
    order = [one.label for one in compare("D:batch_norm=true", "A", "E", sort=sort).networks]
    assert order == [*(["E", "A"] if sort == "top5" else ["A", "E"]), "D:batch_norm=true"]


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_can_be_sorted_by(key: str) -> None:
    """By its name and by each alias the order is that of the figures."""
    for word in (key, *FIGURES[key].aliases):
        values = [one.figures()[key] for one in compare("E", "C", "A", "D", sort=word).networks]
        if key == "relative_parameters":
            assert values[0] == 1.0
        assert values == sorted(values)


def test_an_unknown_figure_is_told_with_the_nearest() -> None:
    """Once the word is near, and else with all that there are."""
    with pytest.raises(ArgumentError, match=r"^sort: unknown figure 'parmeters'\. Did you mean 'parameters'\?$"):
        compare(sort="-parmeters")
    with pytest.raises(ArgumentError, match=r"Known: weight_layers, parameters, .*top5_error, layers"):
        figure_name("zzz", "only", ("layers",))
    assert len({word for name, figure in FIGURES.items() for word in (name, *figure.aliases)}) == sum(
        1 + len(figure.aliases) for figure in FIGURES.values()
    )


# Differences


def sums(diff: Diff) -> tuple[int, int, int]:
    """Return the sums of the changes' costs."""
    parameters, macs, activations = zip(*((0, 0, 0), *(change.costs for change in diff.changes)))
    return sum(parameters), sum(macs), sum(activations)


def built_cost(network: Network, batch: int) -> tuple[int, int]:
    """Return the parameters of the built model and half of what the flop counter counts."""
    model = vggkit.build(network, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(batch, *network.input_shape, device="meta"))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


PAIRS = [
    ("C", "D"),
    ("D", "vgg16_bn"),
    ("D", "E"),
    ("E", "A"),
    ("A", "A-LRN"),
    ("A-LRN", "B"),
    ("D", "D:head=gap"),
    ("D", "D:input=3x64x96"),
    ("D:activation=gelu", "D"),
    ("D", "D:width=0.3,num_classes=10,in_channels=1"),
    ("A", "A"),
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_the_changes_add_up_to_the_difference_of_the_models(left: str, right: str) -> None:
    """Parameters and MACs to that of the built models, bytes to that of the summaries' totals."""
    comparison = compare(left, right, batch=2)
    parameters, macs, size = sums(comparison.diff())
    one, other = (Network.of(split_changes(source)[0], **changes_of(source)) for source in (left, right))
    before, after = built_cost(one, 2), built_cost(other, 2)
    assert (parameters, macs) == (after[0] - before[0], after[1] - before[1])
    totals = [vggkit.summarize(network, batch=2).totals.activation_bytes for network in (one, other)]
    assert size == totals[1] - totals[0]


def changes_of(source: str) -> dict[str, Any]:
    """Return the changes behind a source as keywords."""
    words: dict[str, Any] = {"true": True}
    pairs = (change.split("=") for change in split_changes(source)[1])
    return {key: words.get(value, value) if not value[0].isdigit() or "x" in value else float(value)
            if "." in value else int(value) for key, value in pairs}  # fmt: skip


def test_a_peak_that_torch_refuses_is_none_and_a_line_says_why() -> None:
    """The other figures are there; the table, the differences and the picture say what would help."""
    name, refusal = "vgg11_slimming_bn1d", "torch can't run a training step at batch 1, as norm1 would normalize"
    comparison = compare("A", name)
    one = comparison.networks[1]
    assert (one.training_peak_bytes, comparison.to_dict()["networks"][1]["training_peak_bytes"]) == (None, None)
    assert one.inference_peak_bytes == vggkit.memory(name, mode="inference").peak_bytes
    assert refusal in " ".join(str(comparison).split())
    assert refusal in " ".join(str(comparison.diff()).split())
    assert [total.name for total in comparison.diff().totals][-1] == "inference_peak_bytes"
    assert compare(name, "A", sort="training_peak").networks[1].name == name
    with pytest.raises(ArgumentError, match=refusal):
        vggkit.plot("A", name, kind="compare")
    assert compare(name, batch=2).networks[0].training_peak_bytes == vggkit.memory(name, batch=2).peak_bytes


@settings(max_examples=25, deadline=None)
@given(drawn.networks(), drawn.networks())
def test_the_changes_of_any_two_networks_add_up(left: Network, right: Network) -> None:
    """Whatever was added, removed, renamed, changed or works in place: the sums are the totals' differences."""
    one, other = vggkit.summarize(left).totals, vggkit.summarize(right).totals
    diff = compare(left, right).diff()
    figures = ("parameters", "multiply_accumulates", "activation_bytes")
    assert sums(diff) == tuple(getattr(other, figure) - getattr(one, figure) for figure in figures)
    assert [total.more for total in diff.totals[:3]] == list(sums(diff))


def told(diff: Diff) -> list[tuple[str, str | None, str | None]]:
    """Return what became of each layer, by the layers' names."""
    return [
        (one.change, one.before.name if one.before else None, one.after.name if one.after else None)
        for one in diff.changes
    ]


def test_the_diff_names_what_was_added_removed_and_changed() -> None:
    """C to D: three convolutions changed; A to A-LRN: one LRN more; B to A-LRN: LRN for a convolution, and one less."""
    assert told(compare("C", "D").diff()) == [("changed", f"block{n}_conv3", f"block{n}_conv3") for n in (3, 4, 5)]
    assert told(compare("A", "A-LRN").diff()) == [("added", None, "block1_lrn")]
    assert told(compare("A-LRN", "A").diff()) == [("removed", "block1_lrn", None)]
    assert told(compare("B", "A-LRN").diff()) == [
        ("removed", "block1_conv2", None), ("added", None, "block1_lrn"), ("removed", "block2_conv2", None),
    ]  # fmt: skip
    assert told(compare("D", "D").diff()) == []
    assert [change for change, *_ in told(compare("D", "vgg16_bn").diff())] == ["added"] * 13


def test_a_layer_that_only_has_another_name_is_no_change() -> None:
    """A rename costs nothing; a layer that works on other maps costs something else and is changed."""
    renamed = Network.of(vggkit.loads("input: 3x16x16\nblocks: [[{conv: 4, name: mine}]]\nclassifier: [FC-5]"))
    assert told(compare(of("conv3-4"), renamed).diff()) == []
    changes = compare("A", "A:input=3x64x64").diff().changes
    assert {change.change for change in changes} == {"changed"}
    assert [change.after.name for change in changes if change.after][:2] == ["input", "block1_conv1"]
    assert changes[-1].after is not None
    assert changes[-1].after.name == "fc1"


def test_the_diff_is_of_two() -> None:
    """Of one or three it is refused in one line."""
    for sources in (("D",), ("A", "B", "C")):
        with pytest.raises(ArgumentError, match=f"^diff: expected two networks, found {len(sources)}$"):
            compare(*sources).diff()


# As data


def test_the_dict_is_json_and_has_every_figure() -> None:
    """It survives JSON, has a key per figure, and its rows are those shown."""
    comparison = compare("A", "A-LRN", "D:width=0.5", "D")
    data = comparison.to_dict()
    assert json.loads(json.dumps(data)) == data
    for entry, one in zip(data["networks"], comparison.networks):
        assert entry["name"] == one.label
        assert {key: entry[key] for key in FIGURES} == one.figures()
    cells = [[cell and cell["notation"] for cell in row["cells"]] for row in data["rows"]]
    assert cells == [[cell.removeprefix("*") or None for cell in row] for row in shown(comparison)]
    assert data["rows"][2]["cells"][:2] == [None, {"layer": "block1_lrn", "notation": "LRN", "differs": True}]


def test_the_diffs_dict_is_json() -> None:
    """Changes with both layers, and totals as before, after and more."""
    data = compare("C", "D").diff().to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["totals"]["parameters"] == [133_638_952, 138_357_544, 4_718_592]
    assert data["changes"][0] == {
        "change": "changed",
        "before": {"layer": "block3_conv3", "notation": "conv1-256", "output_shape": [256, 56, 56]},
        "after": {"layer": "block3_conv3", "notation": "conv3-256", "output_shape": [256, 56, 56]},
        "parameters": 256 * 256 * 8,
        "multiply_accumulates": 256 * 256 * 8 * 56 * 56,
        "activation_bytes": 0,
    }


def test_the_data_frame_has_a_row_per_network() -> None:
    """Names as index, a column per figure."""
    judges.package("pandas")
    frame = compare("A", "D").to_dataframe()
    assert list(frame.index) == ["A", "D"]
    assert list(frame.columns) == list(FIGURES)
    assert frame.loc["D", "parameters"] == 138_357_544


def test_without_pandas_the_data_frame_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what is missing."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(VggkitError, match=r"^to_dataframe needs pandas, which is not installed"):
        compare("A").to_dataframe()

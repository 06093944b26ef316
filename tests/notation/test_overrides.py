"""Overrides change what they say and nothing else, and name themselves where they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vggkit
from tests import scratch
from tests.notation.test_reading import problems, spelt
from vggkit.base.errors import ArgumentError
from vggkit.notation.layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    GroupNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
)
from vggkit.notation.overrides import OVERRIDES
from vggkit.notation.spelling import spell


def classes(config: vggkit.Config) -> list[int]:
    """Return the units of each FC layer."""
    return [entry.layer.out_features for entry in config.classifier if isinstance(entry.layer, Linear)]


def channels(config: vggkit.Config) -> list[int]:
    """Return the channels of each convolution of the blocks."""
    return [entry.layer.out_channels for block in config.blocks for entry in block if isinstance(entry.layer, Conv2d)]


def test_num_classes_sets_the_units_of_the_last_layer_only() -> None:
    """The two hidden FC layers stay, and so does everything else."""
    config = vggkit.load("D", num_classes=10)
    assert classes(config) == [4096, 4096, 10]
    assert config.blocks == vggkit.load("D").blocks


def test_num_classes_sets_the_channels_of_a_last_convolution() -> None:
    """A fully convolutional head ends in a convolution."""
    config = vggkit.loads("blocks: [[conv3-8]]\nclassifier: [conv7-16, conv1-5, global-avgpool]", num_classes=9)
    assert [getattr(entry.layer, "out_channels", None) for entry in config.classifier] == [16, 9, None]


def test_num_classes_of_a_trunk_says_which_override_adds_a_classifier() -> None:
    """A trunk has no classes."""
    with pytest.raises(ArgumentError, match=r"num_classes: network has no classifier; head=paper or head=gap adds one"):
        vggkit.loads("blocks: [[conv3-8]]", num_classes=10)


def test_input_and_in_channels_set_the_input() -> None:
    """`input` sets all three, `in_channels` the channels, also of a new input."""
    assert vggkit.load("D", input="1x32x48").input == (1, 32, 48)
    assert vggkit.load("D", input=(4, 32, 48)).input == (4, 32, 48)
    assert vggkit.load("D", in_channels=1).input == (1, 224, 224)
    assert vggkit.load("D", in_channels=1, input="3x32x32").input == (1, 32, 32)


def test_batch_norm_stands_behind_every_convolution_of_the_blocks() -> None:
    """As in torchvision's vgg16_bn: behind the 13 convolutions, before ReLU, and nowhere else."""
    config = vggkit.load("D", batch_norm=True)
    norms = [entry.norm for block in config.blocks for entry in block]
    assert norms.count(BatchNorm()) == 13
    assert all(
        (norm is not None) == isinstance(entry.layer, Conv2d)
        for block in config.blocks
        for entry, norm in zip(block, [e.norm for e in block])
    )
    assert all(entry.norm is None for entry in config.classifier)
    assert vggkit.load(config, batch_norm=True) == config


def test_batch_norm_leaves_other_norms_and_norms_that_stand_alone() -> None:
    """A convolution that has a norm gets no second one."""
    config = vggkit.loads(
        "blocks: [[{conv: 8, norm: group}, {conv: 8, activation: none}, batchnorm, relu, conv3-8]]", batch_norm=True
    )
    assert [entry.norm for entry in config.blocks[0]] == [GroupNorm(), None, None, None, BatchNorm()]


def test_batch_norm_false_takes_every_batch_norm_away() -> None:
    """Behind layers, standing alone, and in the defaults; other norms stay."""
    text = "defaults: {norm: batch}\nblocks: [[conv3-8, batchnorm, {conv: 8, norm: group}]]"
    config = vggkit.loads(f"{text}\nclassifier: [{{fc: 2, norm: batch}}]", batch_norm=False)
    assert [entry.norm for entry in config.blocks[0]] == [None, GroupNorm()]
    assert config.classifier[0].norm is None
    assert config.defaults.norm is None
    assert vggkit.load("D", batch_norm=False) == vggkit.load("D")
    assert spelt(vggkit.load(vggkit.load("D", batch_norm=True), batch_norm=False)).startswith(
        spelt(vggkit.load("A"))[:10]
    )


def test_dropout_sets_the_rate_behind_hidden_fc_layers() -> None:
    """Both of D's; the last layer has none; 0 takes them away."""
    assert [entry.dropout for entry in vggkit.load("D", dropout=0.2).classifier] == [0.2, 0.2, 0, 0]
    assert [entry.dropout for entry in vggkit.load("D", dropout=0).classifier] == [0, 0, 0, 0]


def test_dropout_sets_dropouts_that_stand_alone() -> None:
    """Those get the new rate and no second dropout stands beside them; 0 takes them away."""
    text = "defaults: {dropout: 0}\nblocks: [[conv3-8, {dropout: 0.1}]]\nclassifier: [FC-4, {dropout: 0.3}, FC-2]"
    config = vggkit.loads(text, dropout=0.4)
    assert config.blocks[0][1].layer == config.classifier[1].layer == Dropout(0.4)
    assert all(entry.dropout == 0 for entry in (*config.blocks[0], *config.classifier))
    none = vggkit.loads(text, dropout=0)
    assert [len(none.blocks[0]), len(none.classifier)] == [1, 2]


def test_width_multiplies_channels_and_units_but_not_the_classes() -> None:
    """Half of D: half the channels, half the hidden units, 1000 classes still."""
    config = vggkit.load("D", width=0.5)
    assert channels(config) == [32, 32, 64, 64, *[128] * 3, *[256] * 6]
    assert classes(config) == [2048, 2048, 1000]


@pytest.mark.parametrize(
    ("width", "wanted"), [(0.29, 29), (0.57, 57), (1.1, 110), ("1e-3", 1), (0.001, 1), (2, 200), (0.999, 99), (1, 100)]
)
def test_width_rounds_down_exactly_and_stays_at_least_1(width: Any, wanted: int) -> None:
    """0.29 of 100 channels are 29, though 0.29 · 100 is 28.999… in floating point."""
    config = vggkit.loads("blocks: [[conv3-100]]\nclassifier: [FC-7]", width=float(width))
    assert channels(config) == [wanted]
    assert classes(config) == [7]


@pytest.mark.parametrize(
    ("width", "wanted"),
    [("0.29 ceil", 29), ("1.1 ceil", 110), ("0.291 ceil", 30), ("0.001 ceil", 1), ("0.999 floor", 99)],
)
def test_width_rounds_as_its_rule_says(width: str, wanted: int) -> None:
    """Up or down, exactly: 1.1 · 100 is 110.00000000000001 in floating point, and its ceiling 111."""
    assert channels(vggkit.loads("blocks: [[conv3-100]]", width=width)) == [wanted]
    text = f"blocks: [[conv3-100]]\noverrides: {{width: {width}}}"
    assert channels(vggkit.loads(text)) == [wanted]


@pytest.mark.parametrize("multiple", [1, 4, 8, 9, 32])
@pytest.mark.parametrize("factor", [0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.4])
def test_width_as_a_multiple_is_mobilenets(factor: float, multiple: int) -> None:
    """torchvision's own function is the judge."""
    from torchvision.models._utils import _make_divisible

    for width in (*range(1, 130, 7), 20, 64, 512):  # 18 is nine tenths of 20, to the channel
        config = vggkit.loads(f"blocks: [[conv3-{width}]]", width=f"{factor} multiple of {multiple}")
        assert channels(config) == [_make_divisible(width * factor, multiple)]


WRONG_WIDTHS = ["0.5 round", "0.5ceil", "0.5  ceil", "0.5 multiple of 0", "multiple of 8", "0 ceil"]
WRONG_WIDTHS += ["-1 floor", "true", "true ceil", "inf ceil", ""]


@pytest.mark.parametrize("width", WRONG_WIDTHS)
def test_a_wrong_rounding_rule_is_told_with_the_right_ones(width: str) -> None:
    """One line with all three."""
    with pytest.raises(ArgumentError) as caught:
        vggkit.load("D", width=width)
    assert str(caught.value) == (
        f"width: expected a number above 0, alone or followed by floor, ceil or multiple of 8, found {width!r}"
    )


def test_activation_replaces_every_activation() -> None:
    """Behind layers and standing alone; `none` takes them away; the last layer still has none."""
    text = "blocks: [[conv3-8, {conv: 8, activation: none}, tanh]]\nclassifier: [FC-4, FC-2]"
    config = vggkit.loads(text, activation="silu")
    assert [entry.activation is not None for entry in config.blocks[0]] == [True, False, False]
    assert type(config.blocks[0][2].layer).__name__ == "SiLU"
    assert [entry.activation is not None for entry in config.classifier] == [True, False]
    none = vggkit.loads(text, activation="none")
    assert [entry.activation for entry in none.blocks[0]] == [None, None]
    long = vggkit.load("D", activation={"leaky-relu": 0.1})
    assert long.blocks[0][0].activation == LeakyReLU(negative_slope=0.1)


def test_pool_swaps_the_pools_of_the_blocks_with_their_windows() -> None:
    """avg for max and back; window, stride, padding and ceil_mode stay; the classifier's pools stay."""
    text = "blocks: [[{maxpool: 3, stride: 2, padding: 1, ceil_mode: true}, avgpool]]\nclassifier: [maxpool]"
    config = vggkit.loads(text, pool="avg")
    assert config.blocks[0][0].layer == AvgPool2d((3, 3), (2, 2), (1, 1), ceil_mode=True)
    assert config.classifier[0].layer == MaxPool2d()
    assert vggkit.load(config, pool="max").blocks[0][0].layer == MaxPool2d((3, 3), (2, 2), (1, 1), ceil_mode=True)
    assert vggkit.load("D", pool="max") == vggkit.load("D")


def test_pool_avg_of_a_dilated_pool_is_refused() -> None:
    """torch has no dilated average pool."""
    with pytest.raises(ArgumentError, match=r"pool: an average pool can't be dilated, and a pool of this network is"):
        vggkit.loads("blocks: [[{maxpool: 3, dilation: 2}]]", pool="avg")


def test_head_gap_is_a_global_average_and_one_fc_layer() -> None:
    """The classes stay as many as they were; the blocks stay."""
    config = vggkit.load("D", head="gap")
    assert [spell(entry.layer) for entry in config.classifier] == [
        "global-avgpool",
        "FC-1000",
        "soft-max",
    ]
    assert vggkit.summarize(config).totals.parameters == 14_714_688 + 512 * 1000 + 1000
    assert classes(vggkit.load("D", head="gap", num_classes=10)) == [10]


def test_head_paper_on_a_trunk_adds_the_papers_classifier() -> None:
    """A trunk gets FC-4096, FC-4096, FC-1000, soft-max; a gap head becomes the paper's again."""
    trunk = vggkit.loads("extends: D\nclassifier: []")
    assert vggkit.load(trunk, head="paper").classifier == vggkit.load("D").classifier
    assert vggkit.load(vggkit.load("D", head="gap"), head="paper").classifier == vggkit.load("D").classifier
    assert classes(vggkit.load(trunk, head="paper", num_classes=7)) == [4096, 4096, 7]


def test_overrides_are_the_same_in_a_file_and_as_keywords() -> None:
    """`overrides:` of a file and the keywords of `load` make one and the same network."""
    changes = {"num_classes": 10, "width": 0.5, "batch_norm": True, "pool": "avg", "dropout": 0.1, "head": "gap"}
    said = "num_classes: 10, width: 0.5, batch_norm: true, pool: avg, dropout: 0.1, head: gap"
    text = f"name: D\nextends: D\noverrides: {{{said}}}"
    loaded = vggkit.load("D", **changes)
    assert spelt(vggkit.loads(text)).split("input:")[1] == spelt(loaded).split("input:")[1]


def test_what_was_reported_is_dropped_with_a_change_and_kept_without() -> None:
    """The paper's figures are of the paper's network."""
    assert vggkit.load("D", num_classes=10).reported is None
    assert vggkit.load("D", num_classes=1000).reported is not None
    assert vggkit.load("D", num_classes=None).reported is not None


ALLOWED = {
    "head": "expected paper or gap, found",
    "num_classes": "expected a whole number from 1, found",
    "input": "expected channels × height × width, as in 3x224x224, found",
    "in_channels": "expected a whole number from 1, found",
    "width": "expected a number above 0",
    "pool": "expected max or avg, found",
    "activation": "expected one of relu, leaky-relu, elu, silu, hardtanh, gelu, tanh, sigmoid, none, found",
    "inplace": "expected true or false, found",
    "batch_norm": "expected true or false, found",
    "dropout": "expected a number from 0 to below 1, found",
}


def test_the_list_of_allowed_values_has_every_override() -> None:
    """A new override needs a line in the table of this test."""
    assert list(ALLOWED) == list(OVERRIDES)


WRONG = [(name, value) for name in ALLOWED for value in ("foo", -1, 0.5j, [], {}, ())]
WRONG.remove(("activation", {}))  # an empty mapping has a message of its own


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_override_names_itself_and_what_is_allowed(name: str, value: object) -> None:
    """From Python: the override, the allowed values, what was found."""
    with pytest.raises(ArgumentError) as caught:
        vggkit.load("D", **{name: value})
    wanted = "no layer in this entry" if (name, value) == ("activation", {}) else ALLOWED[name]
    assert str(caught.value).startswith(f"{name}: {wanted}")


@pytest.mark.parametrize("name", ALLOWED)
def test_a_wrong_override_of_a_file_is_told_at_its_place(name: str) -> None:
    """From a file: the same, with line and column."""
    (line,) = problems(f"extends: D\noverrides: {{{name}: foo}}")
    assert line.startswith(f"my.yaml:2:13: overrides: {name}: {ALLOWED[name]}")
    assert line.endswith("found 'foo'")


@pytest.mark.parametrize("value", [{1: 2}, {"": 1}, {"elu": 1, "x": 2}, {"maxpool": 2}, {}])
def test_a_wrong_mapping_for_an_activation_is_an_argument_error(value: dict[Any, Any]) -> None:
    """Mappings with odd keys are refused as any wrong value is."""
    with pytest.raises(ArgumentError, match=r"^activation: "):
        vggkit.load("D", activation=value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf"), 0])
def test_a_width_is_a_finite_number_above_0(value: float) -> None:
    """Infinity and not-a-number are no factors; the message says what is."""
    with pytest.raises(ArgumentError, match=r"^width: expected a number above 0\b.*, found "):
        vggkit.load("D", width=value)


def test_an_unknown_override_is_told_with_the_nearest() -> None:
    """From Python and from a file."""
    with pytest.raises(ArgumentError, match=r"unknown override 'num_class'\. Did you mean 'num_classes'\?"):
        vggkit.load("D", num_class=10)
    with pytest.raises(ArgumentError, match=r"unknown override 'foo'\. Known: head, num_classes, "):
        vggkit.load("D", foo=10)


# A new override

BIAS = """    "bias": Override(
        read=_of_type(Flag),
        apply=lambda config, wanted: _map_entries(
            config,
            lambda entry: (
                replace(entry, layer=replace(entry.layer, bias=wanted)) if entry.layer.role == "weight" else entry
            ),
        ),
        meaning="whether layers with weights have biases",
        schema={"type": "boolean"},
    ),
"""

USE_BIAS = """
import json, vggkit
from click.testing import CliRunner
from vggkit.cli import main
assert vggkit.summarize('D', bias=False).totals.biases == 0
assert vggkit.summarize(vggkit.loads('{extends: D, overrides: {bias: false}}')).totals.biases == 0
assert vggkit.build('A', bias=False, input='3x32x32', width=0.1).fc1.bias is None
assert [one.figures['biases'] for one in vggkit.find('A', vary={'bias': [False, True]}, figures='biases')] == [0, 11944]
done = CliRunner().invoke(main, 'summarize D --set bias=false --format json'.split())
assert json.loads(done.stdout)['totals']['biases'] == 0
assert '"bias"' in CliRunner().invoke(main, ['schema']).stdout
done = CliRunner().invoke(main, ['summarize', 'D', '--set', 'bais=1'])
assert "Did you mean 'bias'?" in done.stderr, done.stderr
"""


def test_a_new_override_is_one_entry(tmp_path: Path) -> None:
    """And a keyword for type checkers: files, functions, search, --set and the JSON Schema take it."""
    file = scratch.package(tmp_path) / "notation" / "overrides.py"
    scratch.add(file, '    "num_classes": Override(', BIAS)
    scratch.add(file, "    head: str | None\n", "    bias: bool | None\n")
    scratch.run(tmp_path, USE_BIAS)

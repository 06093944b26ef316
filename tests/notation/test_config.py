"""The shipped configurations are the paper's, and a configuration is written as it would be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vggkit
from vggkit.notation.layers import (
    Conv2d,
    Flatten,
    ReLU,
)
from vggkit.notation.spelling import spell

# Simonyan & Zisserman, arXiv:1409.1556v6: Table 1, typed in by hand as the judge of configs/
TABLE_1 = {
    "A": "3 p, 3 p, 3 3 p, 3 3 p, 3 3 p",
    "A-LRN": "3 LRN p, 3 p, 3 3 p, 3 3 p, 3 3 p",
    "B": "3 3 p, 3 3 p, 3 3 p, 3 3 p, 3 3 p",
    "C": "3 3 p, 3 3 p, 3 3 1 p, 3 3 1 p, 3 3 1 p",
    "D": "3 3 p, 3 3 p, 3 3 3 p, 3 3 3 p, 3 3 3 p",
    "E": "3 3 p, 3 3 p, 3 3 3 3 p, 3 3 3 3 p, 3 3 3 3 p",
}
CHANNELS = (64, 128, 256, 512, 512)
TABLE_2 = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
TABLE_3 = {
    "A": [(256, 256, 29.6, 10.4)],
    "A-LRN": [(256, 256, 29.7, 10.5)],
    "B": [(256, 256, 28.7, 9.9)],
    "C": [(256, 256, 28.1, 9.4), (384, 384, 28.1, 9.3), ((256, 512), 384, 27.3, 8.8)],
    "D": [(256, 256, 27.0, 8.8), (384, 384, 26.8, 8.7), ((256, 512), 384, 25.6, 8.1)],
    "E": [(256, 256, 27.3, 9.0), (384, 384, 26.9, 8.7), ((256, 512), 384, 25.5, 8.0)],
}


# the paper


@pytest.mark.parametrize("name", TABLE_1)
def test_blocks_are_the_columns_of_table_1(name: str) -> None:
    """Each shipped file's blocks are its column: kernels, channels, pools, LRN, in order."""
    config = vggkit.load(name)
    for block, row, channels in zip(config.blocks, TABLE_1[name].split(", "), CHANNELS, strict=True):
        words = {"p": "maxpool", "LRN": "LRN"}
        wanted = [words.get(part) or f"conv{part}-{channels}" for part in row.split()]
        assert [spell(entry.layer) for entry in block] == wanted


@pytest.mark.parametrize("name", TABLE_1)
def test_classifiers_are_table_1s_last_rows(name: str) -> None:
    """FC-4096, FC-4096, FC-1000, soft-max in every column, over a 224×224 RGB image."""
    config = vggkit.load(name)
    spelling = [spell(entry.layer) for entry in config.classifier]
    assert spelling == ["FC-4096", "FC-4096", "FC-1000", "soft-max"]
    assert config.input == (3, 224, 224)


@pytest.mark.parametrize("name", TABLE_1)
def test_hidden_layers_have_relu_and_the_two_first_fc_dropout(name: str) -> None:
    """ReLU behind every hidden layer, dropout 0.5 on the first two FC layers, none behind the last (Sect. 2.1, 3.1)."""
    config = vggkit.load(name)
    convs = [entry for block in config.blocks for entry in block if isinstance(entry.layer, Conv2d)]
    fc1, fc2, fc3, softmax = config.classifier
    assert {entry.activation for entry in (*convs, fc1, fc2)} == {ReLU()}
    assert [entry.dropout for entry in config.classifier] == [0.5, 0.5, 0, 0]
    assert fc3.activation is None
    assert softmax.activation is None
    assert all(entry.norm is None for entry in convs)


@pytest.mark.parametrize("name", TABLE_2)
def test_reported_parameters_are_table_2(name: str) -> None:
    """The parameters that a file reports are the paper's Table 2, and the true count rounded to millions."""
    config = vggkit.load(name)
    assert config.reported is not None
    assert config.reported.parameters_in_millions == TABLE_2[name]
    assert round(vggkit.summarize(config).totals.parameters / 1e6) == TABLE_2[name]


@pytest.mark.parametrize("name", TABLE_3)
def test_reported_errors_are_table_3(name: str) -> None:
    """The errors that a file reports are the paper's Table 3, for each training and test scale."""
    reported = vggkit.load(name).reported
    assert reported is not None
    assert [(row.train, row.test, row.top1, row.top5) for row in reported.single_scale] == TABLE_3[name]


# writing


@pytest.mark.parametrize("name", [*TABLE_1, "vgg16_bn"])
def test_a_shipped_configuration_is_its_own_canonical_text(name: str) -> None:
    """Dumped and loaded it is equal; dumped again it is the same text, in lines of at most 120 columns."""
    config = vggkit.load(name)
    text = vggkit.dump(config)
    assert vggkit.loads(text) == config
    assert vggkit.dump(vggkit.loads(text)) == text
    assert max(map(len, text.splitlines())) <= 120


def test_the_dump_of_d_reads_like_the_paper(golden: Any) -> None:
    """`show D` is the shipped file without its comments; `show vgg16_bn` says batch norm once."""
    golden("show-D.yaml", vggkit.dump("D"))
    golden("show-vgg16_bn.yaml", vggkit.dump("vgg16_bn"))


@pytest.mark.parametrize(
    "text",
    [
        "blocks: [[{adaptive-avgpool: 2x3}, {adaptive-avgpool: 7}]]",
        "blocks: [[{dropout: 0.0001e-99}, {dropout: 1e-9}, {LRN: 3, alpha: 1e17, beta: -0.0}]]",
        "blocks: [[conv3-64]]\noverrides: {width: 1e9}",
        "blocks: [[{batchnorm: {}}, {batchnorm: {momentum: null, eps: 1e-3}}, {groupnorm: 2}]]",
        "blocks: [[{conv: 3, kernel: 3x1, padding: 2x0, stride: 1x2, dilation: 4, groups: 3, padding_mode: circular}]]",
        "blocks: [[{conv: 3, norm: {batchnorm: {eps: 0.1}}, activation: {hardtanh: {min_val: 0}}, name: a}]]",
        "defaults: {norm: group, activation: none, fc: {norm: batch}}\nblocks: [[conv3-3, {conv: 3, norm: none}]]",
        "blocks: [[{flatten: hwc}, {dropout: 0}, {leaky-relu: -1}, {gelu: {approximate: tanh}}, {softmax: }]]",
        "blocks: [[relu]]\nclassifier: [{conv: 3, activation: relu}, {fc: 3, activation: relu, dropout: 0.5}, FC-3]",
        "blocks: [[conv3x1-3/2, {conv: 4, stride: 1x2, name: a}, {groupnorm: {4: 2, 8: 4}}]]\nnote: 'a: b'",
        "defaults: {conv: {stride: 2}, norm: {groupnorm: {64: 8}}}\nblocks: [[conv3-64, conv3-64/1, {conv: 8}]]",
        "extends: D\nnote: x\noverrides: {width: 0.3 multiple of 8}\nclassifier: [FC-9, FC-3, log-softmax]",
        "blocks: [[relu]]\nclassifier: [FC-3, {fc: 3, activation: relu, dropout: 0.5, bias: false}, relu]",
    ],
)
def test_a_dump_says_everything_that_a_file_said(text: str) -> None:
    """Options of every sort survive being written and read."""
    config = vggkit.loads(text)
    assert vggkit.loads(vggkit.dump(config)) == config


def test_a_dump_can_be_written_to_a_file(tmp_path: Path) -> None:
    """`dump(config, path)` writes what it returns."""
    text = vggkit.dump("C", tmp_path / "c.yaml")
    assert (tmp_path / "c.yaml").read_text(encoding="utf-8") == text
    assert vggkit.load(tmp_path / "c.yaml") == vggkit.load("C")


def test_positions_are_no_part_of_equality() -> None:
    """Two files that say the same in other lines are equal."""
    assert vggkit.loads("blocks: [[conv3-64]]") == vggkit.loads("\n\nblocks:\n  - - CONV3-64\n")


def test_a_config_prints_as_its_yaml() -> None:
    """`print(config)` is `vggkit show`."""
    assert str(vggkit.load("D")) == vggkit.dump("D")
    assert Flatten().order == "chw"

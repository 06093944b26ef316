"""Listings of a summary, held against Keras itself and against the lecture CS231n."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

import vggkit
from vggkit.base import tables
from vggkit.cli import main
from vggkit.figures.listings import keras_listing


def keras_text(*arguments: str, columns: int = 80) -> str:
    """Return what the command prints at a width."""
    command = ["summarize", *arguments, "--format", "keras"]
    result = CliRunner().invoke(main, command, env={"COLUMNS": str(columns)})
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize(("name", "model"), [("D", "VGG16"), ("E", "VGG19")])
def test_kerass_listing_is_its_own_line_by_line(
    name: str, model: str, columns: int, keras_says: dict[str, Any]
) -> None:
    """Names, types, shapes with None, counts, boxes, the three totals: each line is what keras.applications prints."""
    ours = keras_text(name, columns=columns).splitlines()
    wanted = keras_says[f"{model} {columns}"].splitlines()
    assert len(wanted) > 50
    for line, keras_line in zip(ours, wanted):
        assert line.rstrip() == keras_line.rstrip()
    assert len(ours) == len([*filter(None, wanted)])


def test_kerass_listing_of_d_is_a_golden_file(golden: Callable[[str, str], None]) -> None:
    """At Keras's own 88 columns."""
    golden("keras-D.txt", keras_text("D", columns=140))


def test_batch_norms_counts_follow_keras(keras_says: dict[str, Any]) -> None:
    """Keras counts a batch norm's running mean and variance as parameters that are not trained."""
    config = vggkit.loads(
        "name: small\ninput: 3x32x32\nblocks: [[{conv: 8, norm: batch}, maxpool]]\nclassifier: [FC-10]"
    )
    summary = vggkit.summarize(config, expand=True)
    ours = tables.text(keras_listing(summary), 80).splitlines()
    wanted = [line.rstrip() for line in keras_says["batch norm"].splitlines() if line]
    assert ours == wanted
    assert sum("│            32 │" in line for line in wanted) == 1


def test_kerass_totals_of_vgg16_bn_add_up() -> None:
    """Trainable and non-trainable are the total; the rows' counts are, too."""
    text = keras_text("vgg16_bn", columns=140)
    total, trained, kept = (int(line.split(": ")[1].split(" (")[0].replace(",", "")) for line in text.splitlines()[-3:])
    assert (total, trained, kept) == (138_374_440, 138_365_992, 2 * 4224)
    assert sum(int(line.split("│")[3].replace(",", "")) for line in text.splitlines() if line.startswith("│")) == total


def test_kerass_shapes_have_none_without_a_batch() -> None:
    """With --batch the shapes have a number, without it None."""
    assert "(8, 224, 224, 64)" in keras_text("D", "--batch", "8")
    assert "(1, 224, 224, 64)" in keras_text("D", "--batch", "1")
    assert "(None, 224, 224, 64)" in keras_text("D")


def test_other_networks_have_kerass_listing_too() -> None:
    """LRN, a global average and a network without aliases: every name and type is there."""
    text = keras_text("A-LRN", "--set", "head=gap", columns=140)
    assert text.startswith('Model: "a-lrn"\n')
    assert "block1_lrn " in text
    assert "(LocalResponseNormalization)" in text
    assert "avgpool (GlobalAveragePooling2D)" in text


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    """A name with square brackets is no style."""
    config = vggkit.loads("name: '[bold]x[/bold]'\nblocks: [[conv3-8]]")
    text = tables.text(keras_listing(vggkit.summarize(config, expand=True)), 80)
    assert text.startswith('Model: "[bold]x[/bold]"\n')


# https://cs231n.github.io/convolutional-networks/, "VGGNet in detail", its own lines (there "weights:", on the slides
# "params:"). Its two totals are not here: it says "TOTAL memory: 24M * 4 bytes ~= 93MB / image", but these lines add
# up to 15.2M values, which are 60.95 MB (reported as cs231n.github.io issue 88 in 2016, never answered).
LECTURE = """\
INPUT: [224x224x3]        memory:  224*224*3=150K   weights: 0
CONV3-64: [224x224x64]  memory:  224*224*64=3.2M   weights: (3*3*3)*64 = 1,728
CONV3-64: [224x224x64]  memory:  224*224*64=3.2M   weights: (3*3*64)*64 = 36,864
POOL2: [112x112x64]  memory:  112*112*64=800K   weights: 0
CONV3-128: [112x112x128]  memory:  112*112*128=1.6M   weights: (3*3*64)*128 = 73,728
CONV3-128: [112x112x128]  memory:  112*112*128=1.6M   weights: (3*3*128)*128 = 147,456
POOL2: [56x56x128]  memory:  56*56*128=400K   weights: 0
CONV3-256: [56x56x256]  memory:  56*56*256=800K   weights: (3*3*128)*256 = 294,912
CONV3-256: [56x56x256]  memory:  56*56*256=800K   weights: (3*3*256)*256 = 589,824
CONV3-256: [56x56x256]  memory:  56*56*256=800K   weights: (3*3*256)*256 = 589,824
POOL2: [28x28x256]  memory:  28*28*256=200K   weights: 0
CONV3-512: [28x28x512]  memory:  28*28*512=400K   weights: (3*3*256)*512 = 1,179,648
CONV3-512: [28x28x512]  memory:  28*28*512=400K   weights: (3*3*512)*512 = 2,359,296
CONV3-512: [28x28x512]  memory:  28*28*512=400K   weights: (3*3*512)*512 = 2,359,296
POOL2: [14x14x512]  memory:  14*14*512=100K   weights: 0
CONV3-512: [14x14x512]  memory:  14*14*512=100K   weights: (3*3*512)*512 = 2,359,296
CONV3-512: [14x14x512]  memory:  14*14*512=100K   weights: (3*3*512)*512 = 2,359,296
CONV3-512: [14x14x512]  memory:  14*14*512=100K   weights: (3*3*512)*512 = 2,359,296
POOL2: [7x7x512]  memory:  7*7*512=25K  weights: 0
FC: [1x1x4096]  memory:  4096  weights: 7*7*512*4096 = 102,760,448
FC: [1x1x4096]  memory:  4096  weights: 4096*4096 = 16,777,216
FC: [1x1x1000]  memory:  1000 weights: 4096*1000 = 4,096,000
""".splitlines()


def lecture_lines(*arguments: str) -> list[str]:
    """Return the lines that the command prints."""
    result = CliRunner().invoke(main, ["summarize", *arguments, "--format", "cs231n"])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def words(line: str) -> str:
    """Return a line with single blanks, in the slides' words."""
    return " ".join(line.replace("weights:", "params:").split())


def test_the_lectures_listing_is_its_own_line_by_line() -> None:
    """22 lines, the same but for the number of blanks."""
    ours = lecture_lines("D")
    for line, wanted in zip(ours, LECTURE):
        assert words(line) == words(wanted)
    assert ours[len(LECTURE)] == ""


def test_the_lectures_listing_of_d_is_a_golden_file(golden: Callable[[str, str], None]) -> None:
    """With its totals."""
    golden("cs231n-D.txt", "\n".join(lecture_lines("D")) + "\n")


@pytest.mark.parametrize(
    "arguments",
    [["D"], ["C"], ["E", "--batch", "8"], ["vgg16_bn", "--dtype", "float16"], ["A-LRN", "--set", "head=gap"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_the_lectures_totals_are_the_sums_of_the_lines(arguments: list[str]) -> None:
    """Memory: the products of each line, added; parameters: the counts behind each =, added."""
    lines = lecture_lines(*arguments)
    rows, (memory, params) = lines[:-3], lines[-2:]
    values = 0
    for row in rows:
        product = row.split("memory:")[1].split()[0].split("=")[0]
        assert re.fullmatch(r"[\d*]+", product)
        values += eval(product)
    counts = [int(row.split("params: ")[1].split(" = ")[-1].replace(",", "")) for row in rows]
    found = re.fullmatch(r"TOTAL memory: ([\d,]+) \* (\d) bytes = ([\d.]+) MB / .+ \(only forward\)", memory)
    assert found
    assert int(found[1].replace(",", "")) == values
    assert abs(values * int(found[2]) / 1e6 - float(found[3].replace(",", ""))) <= 0.005
    assert params == f"TOTAL params: {sum(counts):,} (biases not counted)"


def test_each_product_of_the_lecture_is_its_count() -> None:
    """The two sides of a = are equal: exactly for weights, to two digits for memory."""
    for row in lecture_lines("D")[:-3]:
        memory, params = row.split("memory:")[1].split("params:")
        if " = " in params:
            product, count = params.split(" = ")
            assert eval(product) == int(count.replace(",", ""))
        if "=" in memory:
            product, short = memory.strip().split("=")
            value = float(short[:-1]) * {"K": 1e3, "M": 1e6}[short[-1]]
            assert abs(eval(product) / value - 1) < 0.05


def test_d_has_the_corrected_total() -> None:
    """15,237,608 values and 138,344,128 weights, where the lecture says 24M and 138M."""
    memory, params = lecture_lines("D")[-2:]
    assert memory == "TOTAL memory: 15,237,608 * 4 bytes = 60.95 MB / image (only forward)"
    assert params == "TOTAL params: 138,344,128 (biases not counted)"


def test_batch_norm_lrn_and_other_pools_have_lines_of_their_own() -> None:
    """What the lecture has no word for goes by its own."""
    lines = "\n".join(lecture_lines("vgg16_bn", "--set", "pool=avg"))
    assert "\nBATCHNORM: [224x224x64]  memory:  224*224*64=3.2M   params: 64\n" in lines
    assert "\nPOOL2: [112x112x64]" in lines
    assert "\nLRN: [224x224x64]" in "\n".join(lecture_lines("A-LRN"))


def test_the_lectures_numbers_are_the_summarys() -> None:
    """The listing and the JSON say the same."""
    result = CliRunner().invoke(main, ["summarize", "D", "--format", "json"])
    layers = json.loads(result.stdout)["layers"]
    weights = [int(line.rsplit(" = ")[-1].replace(",", "")) if " = " in line else 0 for line in LECTURE]
    assert [layer["weights"] for layer in layers] == weights

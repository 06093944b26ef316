"""Numbers that tools, cards and lectures print are found under their names, with the exact difference."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torchvision

import vggkit
from tests import judges
from tests.cli.test_app import printed, run
from vggkit import Network, reconcile
from vggkit.base.errors import ArgumentError
from vggkit.base.tables import FORMATS
from vggkit.figures.conventions import CONVENTIONS, CountedNetwork
from vggkit.figures.reconcile import every_finding, read_number


@pytest.mark.parametrize(("name", "listing"), [("D", "VGG16 80"), ("E", "VGG19 80")])
def test_a_convention_is_what_keras_prints(name: str, listing: str, keras_says: dict[str, Any]) -> None:
    """The line of Keras's summary is found under Keras's name, both its numbers."""
    match = re.search(r"Total params: ([0-9,]+) \(([0-9.]+) MB\)", keras_says[listing])
    assert match is not None
    assert "Keras 3.15.1" in [finding.tool for finding in reconcile(name, match[1])]
    assert "Keras 3.15.1" in [finding.tool for finding in reconcile(name, f"{match[2]}MB")]


def test_keras_counts_running_statistics(keras_says: dict[str, Any]) -> None:
    """With batch norm Keras's total is larger than ours by the running statistics."""
    text = "{input: 3x32x32, blocks: [[conv3-8, maxpool]], classifier: [FC-10], overrides: {batch_norm: true}}"
    match = re.search(r"Total params: ([0-9,]+)", keras_says["batch norm"])
    assert match is not None
    found = {finding.tool: finding for finding in reconcile(vggkit.loads(text), match[1])}
    assert found["Keras 3.15.1"].difference == 16


WEIGHTS = [
    (name.lower(), weights)
    for name in ("VGG11", "VGG11_BN", "VGG13", "VGG13_BN", "VGG16", "VGG16_BN", "VGG19", "VGG19_BN")
    for weights in getattr(torchvision.models, f"{name}_Weights")
]


@pytest.mark.parametrize(("name", "weights"), WEIGHTS, ids=[str(weights) for _, weights in WEIGHTS])
def test_torchvisions_metadata_is_recognised(name: str, weights: Any) -> None:
    """num_params, _ops and _file_size of all its weights are found under its name."""
    for key, unit in (("num_params", ""), ("_ops", " GFLOPS"), ("_file_size", " MB")):
        labels = [
            finding.label
            for finding in reconcile(name, f"{weights.meta[key]}{unit}")
            if finding.tool == "torchvision's metadata 0.29.1"
        ]
        assert [label.split()[0] for label in labels] == [key]


CARD = {"Params (M)": "138.4M", "GMACs": "15.5 GMACs", "Activations (M)": "13.6M"}
"""The card of timm/vgg16.tv_in1k on the hub, commit 3394518."""


@pytest.mark.parametrize("label", CARD)
def test_timms_card_is_recognised(label: str) -> None:
    """Each number of the card is found under its name."""
    found = [finding for finding in reconcile("vgg16", CARD[label]) if finding.tool == "timm's card 1.0"]
    assert [finding.label for finding in found] == [label]


EXAMPLES = [
    ("15.48G", "torchinfo 1.8.0", "Total mult-adds", 15_483_821_032, 13_556_712),
    ("108.45MB", "torchinfo 1.8.0", "Forward/backward pass size (MB)", 108_453_696, 47_503_264),
    ("662.49", "torchinfo 1.8.0", "Estimated Total Size (MB)", 662_485_984, -1_060_506_896),
    ("218.78", "torchsummary 1.5.1", "Forward/backward pass size (MB)", 229_408_576, 168_458_144),
    ("527.79", "torchsummary 1.5.1", "Params size (MB)", 553_430_176, 0),
    ("527.79", "Keras 3.15.1", "Total params (MB)", 553_430_176, 0),
    ("93MB", "CS231n notes", "24M * 4 bytes ~= 93MB / image", 93_000_000, 32_049_568),
    ("96 MB", "CS231n slides", "24M * 4 bytes ~= 96MB / image", 96_000_000, 35_049_568),
    ("15.523e9", "ptflops 0.7.5", "complexity, the default", 15_523_225_576, 52_961_256),
    ("15503523304", "ptflops 0.7.5", "complexity, count_functional=False", 15_503_523_304, 33_258_984),
    ("15.48 GMac", "ptflops 0.7.5", 'complexity, backend="aten"', 15_483_821_032, 13_556_712),
    ("30.94 GFLOPs", "torch's FlopCounterMode 2.14", "Total", 30_940_528_640, 0),
    ("30.941B", "torch's FlopCounterMode 2.14", "Total", 30_940_528_640, 0),
    ("15,470,289,408", "fvcore 0.1.5", "#flops, model.eval()", 15_470_289_408, 25_088),
    ("15470314496", "thop 0.1.1", "ops", 15_470_314_496, 50_176),
    ("30,973,778,432 FLOPs", "calflops 0.3.2", "FLOPs", 30_973_778_432, 33_249_792),
    ("30.97 G", "DeepSpeed 0.19.8", "fwd flops", 30_973_778_432, 33_249_792),
    ("13.557M", "fvcore 0.1.5", "#activations", 13_556_712, -1_680_896),
    ("138344128", "CS231n", "TOTAL params", 138_344_128, -13_416),
    ("138M", "the paper", "Table 2, in millions", 138_357_544, 0),
    ("60.95 MB", "vggkit", "activations", 60_950_432, 0),
]
"""What people ask about D, who says it, and by how much it differs; counted from the tools' own output for D."""


@pytest.mark.parametrize(("number", "source", "label", "figure", "difference"), EXAMPLES)
def test_a_number_is_told(number: str, source: str, label: str, figure: int, difference: int) -> None:
    """The tool, the convention, the exact figure and the exact difference are among what is found."""
    found = [(f.tool, f.label, f.figure, f.difference) for f in reconcile("D", number)]
    assert (source, label, figure, difference) in found


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg16_bn", {}),
        ("D", {}),
        ("A-LRN", {"batch": 3, "dtype": "float16"}),
        ("A", {"input": "3x64x96", "num_classes": 7}),
    ],
)
def test_what_is_printed_is_found_and_its_parts_add_up(name: str, options: dict[str, Any]) -> None:
    """What any convention prints is found under its own name, and its parts are the figure, the first one ours."""
    for convention in CONVENTIONS:
        counted = CountedNetwork(
            Network.of(name, **{key: options[key] for key in ("input", "num_classes") if key in options}),
            1 if convention.tool.per_image else options.get("batch", 1),
            options.get("dtype", "float32"),
        )
        parts = convention.parts(counted)
        if not parts:
            continue
        printed = convention.writing.write(sum(part.amount for part in parts))
        found = [f for f in reconcile(name, printed, **options) if f.tool == str(convention.tool)]
        assert any(f.quantity == convention.quantity for f in found), (convention.tool, convention.label, printed)
        for finding in found:
            assert sum(part.amount for part in finding.parts) == finding.figure
            assert finding.difference == finding.figure - finding.ours
            assert finding.parts[0].amount == finding.ours or finding.quantity == "training bytes"


@pytest.mark.parametrize(
    ("name", "number", "label"),
    [
        ("D", "16", "weight layers"),
        ("D", 16, "weight layers"),
        ("D", "16 layers", "weight layers"),
        ("E", "19", "weight layers"),
        ("A", "11", "weight layers"),
        ("D", "212", "receptive field"),
        ("D", "212px", "receptive field"),
    ],
)
def test_a_small_whole_number_is_first_one_of_the_networks_own(name: str, number: str | int, label: str) -> None:
    """The layers that the paper counts, and the receptive field, before gigabytes that round to it."""
    first = reconcile(name, number)[0]
    assert (first.tool, first.label, first.difference) == ("vggkit", label, 0)
    assert str(first.figure) == "".join(filter(str.isdigit, str(number)))


def test_a_number_of_another_network_is_nobodys() -> None:
    """E's mult-adds are not D's, and the lecture says nothing of E."""
    assert not reconcile("D", "19.65G")
    assert reconcile("E", "19.65G")[0].label == "Total mult-adds"
    assert not reconcile("E", "93MB")


@pytest.mark.parametrize(
    ("number", "found"),
    [("15.484G", 2), ("15.483G", 0), ("15.4838G", 2), ("15.4837G", 0), ("15.484e9", 2), ("15.4G", 0)],
)
def test_the_digits_that_are_written_are_the_precision(number: str, found: int) -> None:
    """One that rounds to other digits is another number."""
    assert len([finding for finding in reconcile("D", number) if finding.figure == 15_483_821_032]) == found


@pytest.mark.parametrize(
    "number", ["", "G", "15.48X", "15,48G", "1.2.3", "-5", "15.48 GiFLOPs", "nan", "1e999", True, 1.5, "²"]
)
def test_what_is_no_number_is_refused_in_one_line(number: Any) -> None:
    """It says what was found and what is expected."""
    with pytest.raises(ArgumentError, match=r"^number: expected one such as 15\.48G.*, found .*$"):
        read_number(number)


def test_mebibytes_and_megabytes_are_told_apart() -> None:
    """MiB are 1024², whoever is asked; MB is what the tool means by it."""
    assert "torchinfo 1.8.0" in [finding.tool for finding in reconcile("D", "553.43MB")]
    assert "torchinfo 1.8.0" in [finding.tool for finding in reconcile("D", "527.79MiB")]
    assert "torchinfo 1.8.0" not in [finding.tool for finding in reconcile("D", "527.79MB")]


def test_the_batch_counts_where_the_tool_is_given_one() -> None:
    """torchinfo's figures are of the batch, torchvision's metadata of one image."""
    assert "torchinfo 1.8.0" in [finding.tool for finding in reconcile("D", 8 * 15_483_821_032, batch=8)]
    assert "torchvision's metadata 0.29.1" in [finding.tool for finding in reconcile("D", "15.47 GMACs", batch=8)]


def test_the_command_prints_what_the_function_returns() -> None:
    """The JSON is the findings' own, whether the unit is an argument of its own or not."""
    for arguments in (("30.94", "GFLOPs"), ("30.94 GFLOPs",), ("30.94GFLOPs",)):
        data = json.loads(printed("reconcile", "D", *arguments, "--format", "json"))
        assert data == {**reconcile("D", "30.94 GFLOPs").to_dict(), "number": " ".join(arguments)}
        assert [finding["tool"] for finding in data["findings"]] == ["vggkit", "torch's FlopCounterMode 2.14"]
        assert data["nearest"] == []


def test_the_table_says_who_how_much_and_why() -> None:
    """The tool with its version, every part, the sum and the exact difference; as Markdown too."""
    for format in ("table", "markdown"):
        text = printed("reconcile", "D", "108.45MB", "--format", format)
        for word in ("torchinfo 1.8.0", "60,950,432", "−602,112", "−6,121,472", "+54,226,848", "108,453,696"):
            assert word in text
        assert "47,503,264 more than vggkit's 60,950,432" in text


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("number", ["108.45MB", "15.6G"])
def test_each_format_is_as_it_was_looked_at(number: str, format: str, golden: Callable[[str, str], None]) -> None:
    """The text of each format is that of a golden file: of a number that a tool prints, and of one that none does."""
    golden(
        f"reconcile-D-{number}{FORMATS[format].endings[0]}", run("reconcile", "D", number, "--format", format).stdout
    )


def test_the_latex_compiles(tmp_path: Path) -> None:
    """Whatever is between the words of a convention goes through pdflatex."""
    pdflatex = judges.program("pdflatex")
    numbers = ("15.48G", "108.45MB", "93MB", "527.79", "1G")
    body = "\n".join(reconcile("D", number).written("latex") for number in numbers)
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "sheet.tex").write_text(document, encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "sheet.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_csv_says_what_a_figure_is_made_of() -> None:
    """A line for each finding, under the JSON's keys; the parts stand in one cell."""
    (line,) = csv.DictReader(printed("reconcile", "D", "108.45MB", "--format", "csv").splitlines())
    (finding,) = reconcile("D", "108.45MB")
    assert list(line) == list(finding.to_dict())
    assert (line["tool"], line["figure"], line["difference"]) == ("torchinfo 1.8.0", "108453696", "47503264")
    assert line["parts"].split("; ")[1] == "−602,112 the input left out"


def test_nobodys_number_ends_in_1_with_the_nearest_three() -> None:
    """The nearest three conventions are named, with how far they are; in each format."""
    for format in ("table", "markdown", "json"):
        result = run("reconcile", "D", "15.6G", "--format", format)
        assert (result.exit_code, result.stderr) == (1, "")
        assert result.stdout.count("15,523,225,576") + result.stdout.count("15523225576") >= 1
    assert len(json.loads(run("reconcile", "D", "15.6G", "--format", "json").stdout)["nearest"]) == 3
    assert "no convention gives this number" in run("reconcile", "D", "15.6G").stdout


@pytest.mark.parametrize("number", ["15,48G", "fifteen", "15.48 G 3"])
def test_no_number_is_one_line_and_exit_2(number: str) -> None:
    """What was found and what is expected, and nothing else."""
    result = run("reconcile", "D", number)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: number: expected one such as 15.48G")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("number", ["15.47G", "108.45MB", "527.79", "15.6G"])
def test_nothing_is_wider_than_the_terminal(number: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long lines go on below."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert max(map(len, run("reconcile", "D", number).stdout.splitlines())) <= width


def test_a_figure_of_torchvisions_model_is_told_as_such() -> None:
    """At 32×32 the parameters that everybody knows are those of torchvision's model, with its pool, and not of ours."""
    found = reconcile("D", 138_357_544, input="3x32x32")
    assert {finding.form for finding in found} == {"with torchvision's adaptive 7×7 average pool before the FC layers"}
    tools = {finding.tool for finding in found}
    assert "torchvision's metadata 0.29.1" in tools
    assert not tools & {"vggkit", "Keras 3.15.1", "the paper"}


def test_no_figure_is_given_for_a_step_that_torch_refuses() -> None:
    """With one image nobody's training memory is compared; with two it is."""
    network = Network.of("vgg11_slimming_bn1d")
    quantities = [{each.quantity for each in every_finding(network, "1GB", batch, "float32")} for batch in (1, 2)]
    assert quantities[1] - quantities[0] == {"saved bytes", "training bytes"}

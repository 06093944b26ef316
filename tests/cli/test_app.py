"""The command line: what it prints, where, how it ends, and that no input ends in a traceback."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result
from msgspec.structs import replace
from PIL import Image
from rich.cells import cell_len

import vggkit
from tests import scratch
from vggkit.cli import main
from vggkit.cli.options import TABLE_FORMATS
from vggkit.figures.measures import FOUND
from vggkit.search.find import Found

Run = Callable[..., Any]
ANSI = "\x1b["

TABLES = ".txt, .json, .csv, .md, .tex, .html or .htm, or --format"
"""What every table can be written to."""


def run(*arguments: str, **environment: str) -> Result:
    """Run the command in this process; a traceback is a failure at once."""
    result = CliRunner().invoke(main, arguments, env=environment, prog_name="vggkit")
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def told(*arguments: str, **environment: str) -> str:
    """Return stderr of a run that is refused: exit code 2, nothing on stdout."""
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def printed(*arguments: str, **environment: str) -> str:
    """Return stdout of a run that goes well and has nothing to remark."""
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


# every command and option

UPDATE = ("weight_decay", "foreach", "fused", "nesterov", "amsgrad", "momentum", "centered")
GROUP = (
    "ranks", "parallel", "rank", "bucket_cap_mb", "static_graph", "units", "reshard_after_forward", "replicas",
    "param_dtype", "reduce_dtype", "cut", "microbatches", "schedule", "balance",
)  # fmt: skip
PERCEPTUAL = ("taps", "cached_target", "trainable")
TRAINING = (
    "batch", "input", "dtype", "loss", "optimizer", *UPDATE, "freeze", "checkpoint", "autocast", "zero_grad",
    "accumulate", "ema", "clip_grad", "step_in_backward", "settings", "allocator",
)  # fmt: skip
TESTED = {
    "summarize": {
        "source", "batch", "input", "dtype", "settings", "formula", "expand", "training", "format", "output",
    },
    "memory": {
        "source", "mode", *PERCEPTUAL, *TRAINING, *GROUP, "context", "device", "limits", "solve", "timeline",
        "workspace", "format", "output",
    },
    "remedies": {
        "source", "limit", "mode", *PERCEPTUAL, *TRAINING, *GROUP, "context", "device", "workspace", "plot", "format",
        "output",
    },
    "plan": {
        "source", "ranks", "card", *TRAINING, "context", "device", "workspace", "sort", "plot", "format", "output",
    },
    "compare": {"sources", *TRAINING, *GROUP, "sort", "only", "diff", "format", "output"},
    "find": {"sources", "vary", *FOUND, "only", "sort", "limit", "pareto", *TRAINING, *GROUP, "format", "output"},
    "verify": {"source", "mode", *PERCEPTUAL, *TRAINING, *GROUP, "gloo", "device", "format", "output"},
    "plot": {"sources", "kind", "flat", "batch", "input", "dtype", "settings", "format", "output"},
    "explain": {"source", "layer", "batch", "input", "dtype", "settings", "format", "output"},
    "reconcile": {"source", "number", "batch", "input", "dtype", "settings", "format", "output"},
    "report": {"sources", "batch", "input", "dtype", "optimizer", "settings", "output"},
    "list": {"family", "format", "output"},
    "names": {"source", "settings", "format", "output"},
    "show": {"source", "input", "settings", "output"},
    "validate": {"files"},
    "schema": {"output"},
    "inspect": {"file", "config", "tensors", "format", "output"},
    "convert": {"source", "target", "layout", "config"},
    "import": {"file", "values", "weights", "input", "output"},
    "export": {"source", "weights", "input", "settings", "output"},
    "classify": {
        "images", "weights", "config", "labels", "preprocess", "top", "batch", "dense", "device", "plot", "verbose",
        "format", "output",
    },
}  # fmt: skip


@pytest.mark.parametrize("function", [vggkit.compare, vggkit.find])
def test_options_of_a_training_step_are_keywords_of_the_same_names(function: Callable[..., Any]) -> None:
    """Commands that compare networks hand each of them on."""
    keywords: dict[str, Any] = {
        "batch": 2, "dtype": "float32", "optimizer": "adamw", "weight_decay": 0.0, "amsgrad": True, "foreach": False,
        "freeze": ["block1", "fc1"], "checkpoint": ["block2"], "autocast": True, "accumulate": 3, "ema": True,
        "clip_grad": True, "zero_grad": "zero", "allocator": "expandable_segments:True", "loss": "soft-labels",
    }  # fmt: skip
    options = []
    for word, value in keywords.items():
        option = f"--{word.replace('_', '-')}"
        given = [",".join(value)] if isinstance(value, list) else [] if value is True else [str(value)]
        options += ["--no-foreach"] if word == "foreach" else [option, *given]
    only = ["training_peak_bytes", "reserved_bytes"]
    said = json.loads(printed(function.__name__, "A", *options, "--only", ",".join(only), "--format", "json"))
    made = vggkit.find("A", figures=only, **keywords) if function is vggkit.find else vggkit.compare("A", **keywords)
    assert said == (made.to_dict() if isinstance(made, Found) else made.to_dict(only))
    assert {word: said[word] for word in keywords} == keywords


def test_every_command_and_option_is_in_the_table_of_this_file() -> None:
    """A new command or option needs a test, and then a place in TESTED."""
    assert {name: {p.name for p in command.params} for name, command in main.commands.items()} == TESTED
    assert {parameter.name for parameter in main.params} == {"version"}


@pytest.mark.parametrize("command", TESTED)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_each_help_has_an_example_and_every_option(command: str, flag: str) -> None:
    """The help of a command mentions each of its options and arguments, and ends in an example of that command."""
    text = printed(command, flag)
    assert f"Example: vggkit {command}" in text
    for parameter in main.commands[command].params:
        words = parameter.opts if isinstance(parameter, click.Option) else [str(parameter.metavar)]
        assert all(word in text for word in words)
        assert not isinstance(parameter, click.Option) or parameter.help


@pytest.mark.parametrize("command", TESTED)
def test_each_helps_example_works(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the help shows can be typed."""
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("blocks: [[conv3-64]]")
    text = "{name: tiny, input: 3x8x8, preprocess: {resize: 8x8}, blocks: [[conv3-4]], classifier: [FC-3]}"
    vggkit.save_weights(vggkit.build(vggkit.loads(text)), "model.safetensors")
    Image.new("RGB", (9, 7), "red").save("tiger.png")
    vggkit.export("A", "deploy.prototxt")
    example = printed(command, "--help").split("Example: vggkit ")[1].split("\n")[0]
    result = run(*example.split(" > ")[0].split())
    assert result.exit_code == 0


def test_the_main_help_has_every_command_and_an_example() -> None:
    """`vggkit --help` lists the commands, each with what it does."""
    text = printed("--help")
    assert "Example: vggkit summarize D" in text
    for name, command in main.commands.items():
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE)
        assert command.get_short_help_str()


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2() -> None:
    """`vggkit` alone is a mistake that shows what could be typed."""
    result = run()
    assert result.exit_code == 2
    assert "Usage: vggkit [OPTIONS] COMMAND" in result.output


def test_version_is_the_packages() -> None:
    """`--version` prints name and version."""
    assert printed("--version") == f"vggkit {vggkit.__version__}\n"


# summarize


def test_the_summary_of_d_ends_in_138357544() -> None:
    """The newcomer's first command."""
    assert printed("summarize", "D").rstrip().endswith("138,357,544")


@pytest.mark.parametrize("name", ["D", "d", "vgg16", "VGG-16", "vgg_16"])
def test_a_configuration_goes_by_any_of_its_names(name: str) -> None:
    """Letter case, - and _ don't matter."""
    assert printed("summarize", name) == printed("summarize", "D")


def test_batch_dtype_and_input_change_the_figures() -> None:
    """Each option arrives where it should."""
    data = json.loads(
        printed("summarize", "D", "--batch", "2", "--dtype", "float16", "--input", "3x64x96", "--format", "json")
    )
    wanted = vggkit.summarize("D", batch=2, dtype="float16", input=(3, 64, 96)).to_dict()
    assert data == wanted
    assert (data["batch"], data["dtype"], data["input"]) == (2, "float16", [3, 64, 96])


def test_set_makes_every_override() -> None:
    """`--set` can be repeated, and takes numbers, words, sizes and truth values."""
    settings = [
        "num_classes=10",
        "batch_norm=true",
        "width=0.5",
        "dropout=0",
        "activation=gelu",
        "pool=avg",
        "head=gap",
    ]
    settings += ["in_channels=1", " input = 3x64x64 "]
    arguments = [part for setting in settings for part in ("--set", setting)]
    data = json.loads(printed("summarize", "D", *arguments, "--format", "json"))
    wanted = vggkit.summarize(
        "D", num_classes=10, batch_norm=True, width=0.5, dropout=0, activation="gelu", pool="avg", head="gap",
        in_channels=1, input="3x64x64",
    )  # fmt: skip
    assert data == wanted.to_dict()


def test_input_wins_over_set_input() -> None:
    """The option of its own is the stronger word."""
    data = json.loads(printed("summarize", "D", "--input", "3x64x64", "--set", "input=3x96x96", "--format", "json"))
    assert data["input"] == [3, 64, 64]


def test_expand_has_a_row_for_each_torch_module() -> None:
    """ReLU, dropout, flatten and soft-max too: 13 + 13 + 5 + 1 + 3 + 2·2 + 1 modules and the input."""
    rows = json.loads(printed("summarize", "D", "--expand", "--format", "json"))["layers"]
    assert len(rows) == 1 + 13 + 13 + 5 + 1 + 3 + 4 + 1
    assert [row["kind"] for row in rows].count("relu") == 15


@pytest.mark.parametrize("format", TABLE_FORMATS)
def test_each_format_of_a_summary_can_be_printed_and_written(format: str, tmp_path: Path) -> None:
    """What goes to a file is what goes through a pipe."""
    path = tmp_path / "file"
    text = printed("summarize", "D", "--format", format)
    assert printed("summarize", "D", "--format", format, "-o", str(path)) == ""
    assert path.read_text(encoding="utf-8") == text
    assert max(text.count("\n"), text.count("<tr>")) > 20


@pytest.mark.parametrize(
    ("name", "start"),
    [("x.json", "{"), ("x.csv", "name,block"), ("x.md", "| block"), ("x.tex", "%"), ("x.TEX", "%"), ("x.txt", "D: ")],
)
def test_the_format_goes_by_the_files_ending(name: str, start: str, tmp_path: Path) -> None:
    """json, csv, md and tex in any letter case; anything else is the table."""
    printed("summarize", "D", "-o", str(tmp_path / name))
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


ENDINGS = {
    ("summarize", "D"): TABLES,
    ("memory", "D"): TABLES,
    ("compare", "A", "D"): TABLES,
    ("find", "D"): ".txt, .json, .csv, .md, .tex, .html, .htm, .svg, .png or .pdf, or --format",
    ("remedies", "D", "8GB"): TABLES,
    ("plan", "D", "--ranks", "8"): TABLES,
    ("verify", "D"): TABLES,
    ("plot", "D"): ".svg, .png, .pdf, .tex, .mmd or .md",
    ("explain", "D"): TABLES,
    ("reconcile", "D", "15.5G"): TABLES,
    ("report", "D"): ".html or .htm",
    ("list",): TABLES,
    ("names", "D"): TABLES,
    ("show", "D"): ".yaml or .yml",
    ("schema",): ".json",
    ("inspect", "nowhere.pth"): TABLES,
    ("import", "nowhere.prototxt"): ".yaml or .yml",
    ("export", "D"): ".onnx, .pt2, .keras, .prototxt or .caffemodel",
    ("classify", "nowhere.png", "--weights", "nowhere.pth"): TABLES,
}
"""What each command's -o may end in."""


def test_every_command_that_writes_a_file_has_its_endings_below() -> None:
    """A new command with -o needs a line in the table."""
    assert {command[0] for command in ENDINGS} == {name for name, options in TESTED.items() if "output" in options}


@pytest.mark.parametrize("command", ENDINGS, ids=" ".join)
@pytest.mark.parametrize("ending", [".docx", ".JPG", ".x"])
def test_an_ending_that_a_command_does_not_write_is_refused(
    command: tuple[str, ...], ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than a table under that name, or YAML: the line says which endings there are, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    expected = f"Error: --output: expected a file that ends in {ENDINGS[command]}, found 'x{ending}'\n"
    assert told(*command, "-o", f"x{ending}") == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "name"), [("compare", "t.pdf"), ("memory D", "x.svg"), ("list", "z.pdf"), ("show D", "D.json")]
)
def test_the_formats_of_other_commands_are_refused(command: str, name: str, tmp_path: Path) -> None:
    """Each of these is what some command writes, and this one does not."""
    assert "--output: expected a file that ends in ." in told(*command.split(), "-o", str(tmp_path / name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["summarize D", "list --format json", "show D", "schema", "find D --format csv"])
def test_a_dash_is_standard_output(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-o -` prints what is printed without it, and makes no file of that name."""
    monkeypatch.chdir(tmp_path)
    assert printed(*command.split(), "-o", "-") == printed(*command.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "start"), [("plot A --flat", "<?xml"), ("report A", "<!doctype html>")])
def test_a_dash_prints_a_picture_and_a_page(
    command: str, start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These write a file where -o is not given; a dash is no file, and nothing is said beside what is printed."""
    monkeypatch.chdir(tmp_path)
    assert printed(*command.split(), "-o", "-").startswith(start)
    assert not list(tmp_path.iterdir())


def test_a_closed_standard_output_is_one_line() -> None:
    """Where a file that is opened would be taken for it."""
    command = f"{sys.executable} -m vggkit list >&-"
    child = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    assert (child.returncode, child.stderr) == (1, "Error: standard output: can't be written: it is closed\n")


def test_format_wins_over_the_ending(tmp_path: Path) -> None:
    """--format csv -o x.json writes CSV."""
    printed("summarize", "D", "-o", str(tmp_path / "x.json"), "--format", "csv")
    assert (tmp_path / "x.json").read_text(encoding="utf-8").startswith("name,block")


@pytest.mark.parametrize("format", ["json", "csv", "keras", "cs231n"])
def test_formula_is_refused_where_it_has_no_place(format: str, tmp_path: Path) -> None:
    """The formats of machines and of others have no formulas; an ending counts as a format."""
    wanted = f"Error: --formula: needs --format table, markdown, latex or html, found {format}\n"
    assert told("summarize", "D", "--formula", "--format", format) == wanted
    if format in ("json", "csv"):
        assert told("summarize", "D", "--formula", "-o", str(tmp_path / f"x.{format}")) == wanted


@pytest.mark.parametrize("format", ["keras", "cs231n"])
def test_expand_is_refused_where_the_rows_are_given(format: str) -> None:
    """The rows and columns of Keras's listing and of the lecture's are theirs."""
    wanted = f"Error: --expand: not available with --format {format}, whose rows and columns are fixed\n"
    assert told("summarize", "D", "--expand", "--format", format) == wanted


def test_a_network_with_maps_of_1_by_1_gets_a_note_on_stderr() -> None:
    """D at 32×32 says that its maps end at 1×1 and which options fit; the figures are on stdout all the same."""
    result = run("summarize", "D", "--input", "3x32x32")
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: D at 3×32×32: the maps end at 1×1")
    assert "head=gap" in result.stderr
    assert "3x224x224" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Note" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["summarize", "nope"], "Error: unknown configuration 'nope'. Known: A, A-LRN, B, C, D, E;"),
        (["summarize", "vgg161"], "Error: unknown configuration 'vgg161'. Did you mean 'VGG16'?"),
        (["summarize", ""], "Error: unknown configuration ''. Known: "),
        (["summarize", "x" * 100_000], "Error: unknown configuration 'xxx"),
        (["summarize", "\x1b[31mD"], r"Error: unknown configuration '\x1b[31mD'."),
        (["summarize", "nowhere.yaml"], "Error: nowhere.yaml: no such file"),
        (["summarize", "/"], "Error: /: can't be read: Is a directory"),
        (["summarize", "D", "--batch", "0"], "Error: batch: expected a whole number from 1"),
        (["summarize", "D", "--batch", "-1"], "Error: batch: expected a whole number from 1"),
        (["summarize", "D", "--batch", "1" + "0" * 4000], "Error: batch: expected a whole number from 1"),
        (
            ["summarize", "D", "--dtype", "int8"],
            "Error: dtype: expected one of float32, float16, bfloat16, float64",
        ),
        (
            ["summarize", "D", "--input", "3x0x1"],
            "Error: input: expected channels × height × width, as in 3x224x224, found",
        ),
        (
            ["summarize", "D", "--input", ""],
            "Error: input: expected channels × height × width, as in 3x224x224",
        ),
        (
            ["summarize", "D", "--set", "width"],
            "Error: --set: expected key=value, such as num_classes=10, found 'width'",
        ),
        (["summarize", "D", "--set", ""], "Error: --set: expected key=value, such as num_classes=10, found ''"),
        (["summarize", "D", "--set", "width="], "Error: --set: width has no value; expected key=value"),
        (["summarize", "D", "--set", "=3"], "Error: unknown override ''. Known: head,"),
        (["summarize", "D", "--set", "widht=3"], "Error: unknown override 'widht'. Did you mean 'width'?"),
        (["summarize", "D", "--set", "width=-1"], "Error: width: expected a number above 0"),
        (["summarize", "D", "--set", "width=nan"], "Error: width: expected a number above 0"),
        (["summarize", "D", "--set", "dropout=1"], "Error: dropout: expected a number from 0 to below 1, found 1"),
        (["summarize", "D", "--set", "batch_norm=yes"], "Error: batch_norm: expected true or false, found 'yes'"),
        (["summarize", "D", "--set", "pool=mean"], "Error: pool: expected max or avg, found 'mean'"),
        (["summarize", "D", "--set", "head=x"], "Error: head: expected paper or gap, found 'x'"),
        (["names", "D", "--set", "head=x"], "Error: head: expected paper or gap, found 'x'"),
        (["names", "nope"], "Error: unknown configuration 'nope'."),
        (["names", "D", "-o", "names.pdf"], "Error: --output: expected a file that ends in .txt, .json, .csv, .md,"),
        (
            ["list", "-o", "zoo.pdf"],
            f"Error: --output: expected a file that ends in {TABLES},",
        ),
        (["show", "D", "--set", "head=x"], "Error: head: expected paper or gap, found 'x'"),
        (["show", "D", "--input", "x"], "Error: input: expected channels × height × width"),
        (["show", "nope"], "Error: unknown configuration 'nope'."),
        (["validate", "nope"], "Error: unknown configuration 'nope'."),
    ],
)
def test_a_wrong_argument_is_one_clear_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    """What was found, what is allowed; nothing else."""
    text = told(*arguments)
    assert text.startswith(message)
    assert len(text.splitlines()) == 1
    assert len(text) < 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smumarize"], "No such command 'smumarize'"),
        (["summarize"], "Missing argument 'CONFIGURATION'"),
        (["summarize", "D", "E"], "Got unexpected extra argument (E)"),
        (["summarize", "D", "--batch", "many"], "'many' is not a valid integer"),
        (["summarize", "D", "--batch", "9" * 5000], "is not a valid integer"),
        (["summarize", "D", "--format", "xml"], "'xml' is not one of 'table', 'keras'"),
        (["summarize", "D", "--formul"], "No such option '--formul'. Did you mean '--formula'?"),
        (["find", "--flops", "<1G"], "No such option '--flops'. Did you mean '--macs'?"),
        (["compare", "--flops"], "No such option '--flops'."),
        (["summarize", "D", "-o", "."], "is a directory"),
        (["list", "D"], "Got unexpected extra argument (D)"),
        (["list", "--format", "svg"], "'svg' is not one of 'table', 'json', 'csv', 'markdown', 'latex'"),
        (["names"], "Missing argument 'CONFIGURATION'"),
        (["show"], "Missing argument 'CONFIGURATION'"),
        (["validate"], "Missing argument 'FILE...'"),
        (["schema", "D"], "Got unexpected extra argument (D)"),
    ],
)
def test_a_wrong_usage_shows_the_usage_and_exits_2(arguments: list[str], message: str) -> None:
    """click's own errors: the usage, where the help is, and what was wrong."""
    text = told(*arguments)
    assert text.startswith("Usage: vggkit")
    assert "--help' for help." in text.splitlines()[1]
    assert message in text.splitlines()[-1]


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_the_help_describes_each_command_in_a_whole_sentence(columns: int) -> None:
    """Folded where a line is too short, and cut nowhere."""
    text = " ".join(printed("--help", COLUMNS=str(columns)).split("Commands:")[1].split())
    assert "..." not in text
    for name, command in main.commands.items():
        first = (command.help or "").split("\n\n")[0]
        sentence = " ".join(first.split()).split(". ")[0]
        assert f"{name} {sentence}" in text


TABLES = [
    ("summarize", "E"),
    ("summarize", "vgg16_bn", "--training"),
    ("summarize", "D", "--formula"),
    ("summarize", "frcnn_trunk", "--expand"),
    ("list",),
    ("list", "--family"),
    ("names", "vgg19_bn"),
    ("memory", "D", "--batch", "64", "--optimizer", "adamw"),
    ("memory", "D", "--fit", "3GB", "--fit", "2.5GiB"),
    ("plan", "D", "--ranks", "16", "--card", "24GiB", "--batch", "256"),
    ("remedies", "E", "RTX 3070", "--batch", "80", "--optimizer", "adamw"),
    ("verify", "A", "--set", "width=0.125", "--input", "3x32x32"),
    ("compare", "C", "vgg16_bn"),
    ("compare", "A", "E", "--diff"),
    ("find", "--depth", "16..19", "--training-peak", "<4GB", "--sort", "macs"),
    ("explain", "D"),
    ("reconcile", "D", "108.45MB"),
]


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_a_table_fits_the_terminal_and_nothing_in_it_is_cut(command: tuple[str, ...], columns: int) -> None:
    """Columns go as a whole and are named, prose is folded; no number and no word ends in an ellipsis."""
    result = run(*command, COLUMNS=str(columns))
    assert result.exit_code == 0
    assert max(map(cell_len, result.stdout.splitlines())) <= columns
    assert not re.search(r"(?<!\+ )…", result.stdout)  # a rule of explain goes on so


# the other commands


def test_list_has_a_line_per_configuration() -> None:
    """Name, aliases, weight layers, parameters, multiply-accumulates."""
    text = printed("list")
    wanted = {
        "A": ("VGG11", "11", "132,863,336", "7,609,090,048"),
        "A-LRN": ("11", "132,863,336", "7,609,090,048"),
        "B": ("VGG13", "13", "133,047,848", "11,308,466,176"),
        "C": ("16", "133,638,952", "11,770,888,192"),
        "D": ("VGG16", "16", "138,357,544", "15,470,264,320"),
        "E": ("VGG19", "19", "143,667,240", "19,632,062,464"),
    }
    lines = {line.split()[0]: line.split() for line in text.splitlines()[2:]}
    assert list(lines) == list(wanted)
    for name, cells in wanted.items():
        assert [cell for cell in lines[name] if cell in cells] == list(cells)


@pytest.mark.parametrize("command", [["list"], ["names", "D"]])
@pytest.mark.parametrize("format", TABLE_FORMATS)
def test_each_format_of_a_list_can_be_printed_and_written(command: list[str], format: str, tmp_path: Path) -> None:
    """What goes to a file is what goes through a pipe."""
    text = printed(*command, "--format", format)
    printed(*command, "--format", format, "--output", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("command", [["list"], ["names", "D"]])
@pytest.mark.parametrize(
    ("name", "format"), [("x.json", "json"), ("x.csv", "csv"), ("x.md", "markdown"), ("x.txt", "table")]
)
def test_the_format_of_a_list_goes_by_the_ending(command: list[str], name: str, format: str, tmp_path: Path) -> None:
    """As for a summary."""
    printed(*command, "-o", str(tmp_path / name))
    assert (tmp_path / name).read_text(encoding="utf-8") == printed(*command, "--format", format)


def test_names_shows_all_vocabularies_side_by_side() -> None:
    """Here, the authors' Caffe model, torchvision, Keras: for D's first and last layers."""
    rows = {row["name"]: row for row in json.loads(printed("names", "D", "--format", "json"))}
    first = {"module": "block1.conv1", "authors": "conv1_1", "torchvision": "features.0", "keras": "block1_conv1"}
    last = {"module": "predictions", "authors": "fc8", "torchvision": "classifier.6", "keras": "predictions"}
    assert rows["block1_conv1"] == {"name": "block1_conv1", **first}
    assert rows["predictions"] == {"name": "predictions", **last}
    assert rows["block5_pool"]["torchvision"] == "features.30"


def test_names_takes_overrides() -> None:
    """`--set head=gap` has the names of that network."""
    assert "fc1" not in printed("names", "D", "--set", "head=gap")


def test_show_prints_the_resolved_yaml() -> None:
    """What it prints loads to what it showed, overrides applied."""
    text = printed("show", "D", "--set", "num_classes=10", "--input", "3x64x64")
    loaded, changed = vggkit.loads(text), vggkit.load("D", num_classes=10, input="3x64x64")
    assert replace(loaded, name=changed.name, aliases=changed.aliases, source=changed.source) == changed
    assert printed("show", "vgg16_bn") == vggkit.dump("vgg16_bn")


def test_show_says_that_it_is_changed() -> None:
    """What is printed is E no more, and is not called so; what changes nothing leaves the name."""
    shown = vggkit.loads(printed("show", "E", "--set", "head=gap", "--input", "3x64x64"))
    assert (shown.name, shown.aliases) == ("E-variant", ())
    assert shown.source == f"{vggkit.load('E').source}, changed: head=gap, input=3x64x64"
    assert printed("show", "E", "--set", "head=paper") == printed("show", "E")


def test_show_writes_a_file_that_can_be_extended(tmp_path: Path) -> None:
    """`show -o my.yaml`, then `summarize my.yaml`."""
    path = tmp_path / "my net.yaml"
    printed("show", "C", "--output", str(path))
    assert printed("summarize", str(path)) == printed("summarize", "C")


def test_validate_says_ok_for_each_good_file_and_exits_2_for_a_wrong_one(tmp_path: Path) -> None:
    """Good ones on stdout, wrong ones on stderr, all of them looked at; shapes are checked, too."""
    (tmp_path / "good.yaml").write_text("extends: A")
    (tmp_path / "wrong.yaml").write_text("blocks: [[convv3-64]]")
    (tmp_path / "small.yaml").write_text("extends: A\ninput: 3x16x16")
    files = [str(tmp_path / f"{name}.yaml") for name in ("wrong", "good", "small", "absent")]
    result = run("validate", *files, "D")
    assert result.exit_code == 2
    good, d = result.stdout.splitlines()
    assert good == f"{files[1]}: ok, 11 weight layers, 132,863,336 parameters"
    assert d == "D: ok, 16 weight layers, 138,357,544 parameters"
    assert "convv3-64" in result.stderr
    assert "block5_pool: a 2×2 pool does not fit its 1×1 input" in result.stderr
    assert f"{files[3]}: no such file" in result.stderr
    assert printed("validate", files[1], "E").count(": ok, ") == 2


def test_schema_prints_json_and_writes_it(tmp_path: Path) -> None:
    """The schema is JSON, and `-o` writes the same."""
    text = printed("schema")
    assert json.loads(text)["title"] == "vggkit configuration"
    printed("schema", "-o", str(tmp_path / "schema.json"))
    assert (tmp_path / "schema.json").read_text(encoding="utf-8") == text


# a file's problems


def problem(text: str, tmp_path: Path) -> list[str]:
    """Return the lines that are printed for a file with one problem, its folder taken away."""
    path = tmp_path / "my.yaml"
    path.write_bytes(text.encode())
    return told("summarize", str(path)).replace(f"{tmp_path}{os.sep}", "").splitlines()


def test_a_problem_is_shown_with_its_line_and_a_caret(tmp_path: Path) -> None:
    """The message, the offending line, and a caret under the very word."""
    assert problem("name: x\nblocks:\n  - [conv3-64, convv3-64, maxpool]\n", tmp_path) == [
        "my.yaml:3:16: unknown layer 'convv3-64' in block 1. Did you mean 'conv3-64'?",
        "      - [conv3-64, convv3-64, maxpool]",
        "                   ^",
    ]


@pytest.mark.parametrize(
    ("before", "shown"),
    [("- [\t\t", "- [  "), ('- ["é", ', None), ("- [   ", "- [   "), ("- [relu, # 日本\n  ", "  ")],
)
def test_the_caret_stands_behind_tabs_and_accents(before: str, shown: str | None, tmp_path: Path) -> None:
    """A tab is shown as one blank; a letter is one column wide."""
    lines = problem(f"blocks:\n{before}kaputt]\n", tmp_path)
    _, excerpt, caret = lines[-3:]
    assert shown is None or excerpt == f"    {shown}kaputt]"
    assert excerpt.index("kaputt") == caret.index("^")


def test_the_caret_stands_under_the_word_behind_wide_characters(tmp_path: Path) -> None:
    """Chinese and Japanese characters and emoji are two columns wide in a terminal."""
    lines = problem("{name: 日本語😀, blocks: [[kaputt]]}", tmp_path)
    assert lines[0].startswith("my.yaml:1:24: unknown layer 'kaputt'")
    assert lines[1] == "    {name: 日本語😀, blocks: [[kaputt]]}"
    assert lines[2] == " " * (4 + 23 + 4) + "^"


def test_a_long_line_is_cut_around_the_caret(tmp_path: Path) -> None:
    """Of a line of 100,000 characters about 100 are shown, the offending word among them."""
    lines = problem(f"blocks: [[{'relu, ' * 16_000}kaputt{', relu' * 600}]]", tmp_path)
    assert lines[0].startswith("my.yaml:1:96011: unknown layer 'kaputt' in block 1.")
    assert max(map(len, lines)) < 130
    assert lines[1].index("kaputt") == lines[2].index("^")
    assert lines[1].startswith("    …")


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """An escape sequence in a file is not sent to the terminal of the one who checks it."""
    for text in ('blocks: [["\\e[31mred"]]', "blocks: [[\x1b[31mred]]", "blocks: [[\x9b31mred, kaputt]]"):
        assert not {"\x1b", "\x9b"} & set("\n".join(problem(text, tmp_path)))


def test_every_problem_of_a_file_is_printed(tmp_path: Path) -> None:
    """Three mistakes: three messages with their excerpts."""
    lines = problem("nmae: x\nblocks: [[kaputt]]\nclassifier: [FC4]\n", tmp_path)
    assert len(lines) == 9
    assert [line.split(":")[1] for line in lines[::3]] == ["1", "2", "3"]


RUBBISH = [b"", b"\xff\xfe", b"\0", b"[" * 500_000, b"#" * 2**21, b"a: &a [*a]", b"!!python/object:os.system x"]


@pytest.mark.parametrize("data", RUBBISH, ids=["empty", "binary", "NUL", "deep", "huge", "recursive", "hostile"])
@pytest.mark.parametrize("command", ["summarize", "names", "show", "validate"])
def test_a_file_of_rubbish_is_refused_by_every_command(data: bytes, command: str, tmp_path: Path) -> None:
    """Empty, binary, deep, huge, recursive or hostile: exit code 2 and messages, no traceback."""
    (tmp_path / "my.yaml").write_bytes(data)
    assert "my.yaml" in told(command, str(tmp_path / "my.yaml"))


# writing


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last step fails, the file is what it was, nothing lies beside it, and the exit code is 1."""
    path = tmp_path / "old.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    result = run("summarize", "D", "-o", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {path}: can't be written: No space left on device\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.json"]
    assert path.read_text() == "old"


ENDED_AT = """
import os, signal
from vggkit.cli import main
step, number = {step!r}, signal.{signal}
signal.signal(number, signal.SIG_DFL)  # whoever started the tests may ignore it, as nohup does
before = getattr(os, step)
def ended(*arguments, **options):
    done = before(*arguments, **options)
    setattr(os, step, before)
    os.kill(os.getpid(), number)
    return done
setattr(os, step, ended)
main(["summarize", "D", "-o", {path!r}])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a word")
@pytest.mark.parametrize("ended", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("step", ["open", "chmod", "link", "replace"])
def test_what_is_ended_leaves_a_whole_file_and_no_other(step: str, ended: str, tmp_path: Path) -> None:
    """Right after each step of writing: the old file, or after the last step the new one; no traceback."""
    path = tmp_path / "old.json"
    path.write_text("old")
    program = ENDED_AT.format(step=step, signal=ended, path=str(path))
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert (child.returncode, child.stdout, child.stderr) == (128 + getattr(signal, ended), "", "")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == ("old" if step != "replace" else printed("summarize", "D", "--format", "json"))


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    """A program that calls the command line keeps its own handlers."""
    before = signal.getsignal(signal.SIGTERM)
    printed("list")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", ["list", "--help", "list --help", "--version", "show D", "validate D", "list --format json"]
)
def test_a_full_standard_output_is_one_line(command: str, unbuffered: str) -> None:
    """Whoever prints, and whether Python gathers what is printed or not: exit code 1, and Python ends in silence."""
    child = subprocess.run(
        f"{sys.executable} -m vggkit {command} > /dev/full",
        shell=True, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, timeout=600,
    )  # fmt: skip
    assert child.returncode == 1
    assert child.stderr == "Error: standard output: can't be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_where_nothing_can_be_said_the_exit_code_says_it() -> None:
    """Standard output and error are both full."""
    command = f"{sys.executable} -m vggkit list > /dev/full 2> /dev/full"
    assert subprocess.run(command, shell=True, timeout=600, check=False).returncode == 1


def test_a_wrong_configuration_leaves_the_old_file(tmp_path: Path) -> None:
    """Nothing is written when there is nothing to write."""
    path = tmp_path / "old.json"
    path.write_text("old")
    told("summarize", "nope", "-o", str(path))
    assert path.read_text() == "old"


@pytest.mark.parametrize("command", [["summarize", "D"], ["list"], ["names", "D"], ["show", "D"], ["schema"]])
def test_a_missing_folder_is_told(command: list[str], tmp_path: Path) -> None:
    """Each command that writes says which file it can't write, and exits 1."""
    path = tmp_path / "absent" / "x"
    result = run(*command, "-o", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {path}: can't be written: No such file or directory\n"


# real processes


def test_python_m_vggkit_is_the_same_command(process: Run) -> None:
    """`python -m vggkit` calls itself vggkit and prints what the command prints."""
    assert process("--version").stdout.decode() == f"vggkit {vggkit.__version__}\n"
    assert process("--help").stdout.decode().startswith("Usage: vggkit [OPTIONS] COMMAND")
    done = process("summarize", "C")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == printed("summarize", "C")


def test_a_pipe_gets_no_colour_codes_even_in_errors(process: Run, tmp_path: Path) -> None:
    """Neither results nor messages have escape sequences when they are not on a terminal."""
    (tmp_path / "x.yaml").write_text("blocks: [[kaputt]]")
    for arguments in (["summarize", "D"], ["list"], ["show", "D"], ["summarize", str(tmp_path / "x.yaml")], ["foo"]):
        done = process(*arguments, TERM="xterm-256color")
        assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("columns", ["", "x", "0", "-5", "²", "1", "20", "9" * 30, "9" * 5000])
@pytest.mark.parametrize("format", ["table", "keras"])
def test_odd_columns_are_no_error(columns: str, format: str) -> None:
    """Whatever COLUMNS is, something is printed."""
    assert printed("summarize", "D", "--format", format, COLUMNS=columns)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
@pytest.mark.parametrize("format", TABLE_FORMATS)
def test_any_encoding_of_the_terminal_will_do(format: str, encoding: str, process: Run) -> None:
    """A terminal that knows no × gets something in its place, never an error."""
    done = process("summarize", "D", "--format", format, PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, b"")
    assert max(done.stdout.count(b"\n"), done.stdout.count(b"<tr>")) > 20


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}], ids=str
)
def test_a_terminal_of_ascii_gets_ascii(environment: dict[str, str], process: Run) -> None:
    """Rules are dashes, × is x, and no character is a question mark; columns are aligned, as widths are of ASCII."""
    done = process("summarize", "D", "--formula", "--training", COLUMNS="100", **environment)
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[0] == "D: 3x224x224, batch 1, float32"
    assert re.fullmatch("-+", lines[3])
    assert "?" not in done.stdout.decode()
    assert len(lines[3]) <= 100


@pytest.mark.parametrize("columns", ["60", "100", "9" * 5000])
def test_a_terminal_of_windows_gets_what_it_knows(columns: str, process: Run) -> None:
    """Of the characters of a table cp1252 lacks only the rule's and the arrow's; the rest is as in UTF-8."""
    done = process("summarize", "D", COLUMNS=columns, PYTHONIOENCODING="cp1252")
    whole = process("summarize", "D", COLUMNS=columns).stdout.decode()
    assert done.stdout.decode("cp1252") == whole.replace("─", "-")


@pytest.mark.parametrize(
    "command", ["list", "memory D", "compare A D", "find D", "names D", "explain D", "reconcile D 16"]
)
def test_no_table_has_question_marks_in_ascii(command: str, process: Run) -> None:
    """Every character that our tables use has something of ASCII in its place."""
    done = process(*command.split(), LC_ALL="C")
    assert done.stdout.decode("ascii").count("?") == process(*command.split()).stdout.count(b"?")


def test_data_is_utf_8_whatever_the_locale(process: Run) -> None:
    """A script that exports LC_ALL=C gets the Markdown that everybody gets."""
    command = ("summarize", "D", "--format", "markdown")
    assert process(*command, LC_ALL="C").stdout == process(*command).stdout
    assert "×" in process(*command).stdout.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_a_terminal_takes_any_columns_and_ascii() -> None:
    """rich reads COLUMNS and LINES itself there, and would fail on thousands of digits."""
    text = in_terminal("summarize", "D", columns=100, COLUMNS="9" * 5000, LINES="9" * 5000, LC_ALL="C")
    lines = [line.rstrip() for line in uncoloured(text).splitlines()]
    assert lines == printed("summarize", "D", COLUMNS="100", LC_ALL="C").splitlines()
    assert "-----" in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_messages_fit_any_encoding(encoding: str, process: Run) -> None:
    """So does an error message with × in it."""
    done = process("summarize", "D", "--input", "3x1x1", PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"block1_pool" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["schema"], ["summarize", "D", "--format", "json"], ["summarize", "D"]])
def test_a_closed_pipe_is_no_traceback(arguments: list[str]) -> None:
    """`vggkit … | head -1` ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-m", "vggkit", *arguments]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert done.stderr == b""
    assert done.returncode in (0, 1)


def in_terminal(*arguments: str, columns: int = 100, **environment: str) -> str:
    """Run a command in a pseudo-terminal and return all that it shows."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "vggkit", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 300)[0]:  # a child that says nothing for so long hangs
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    child.wait(timeout=60)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def uncoloured(text: str) -> str:
    """Return a text without its colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_colour_and_its_own_width() -> None:
    """In a terminal of 100 columns no line is longer, the totals are the same, and there is colour."""
    text = in_terminal("summarize", "D", columns=100)
    assert ANSI in text
    plain = uncoloured(text)
    assert max(map(len, (line.rstrip() for line in plain.splitlines()))) <= 100
    assert [line.rstrip() for line in plain.splitlines()] == printed("summarize", "D", COLUMNS="100").splitlines()


def test_no_color_is_respected_in_a_terminal() -> None:
    """NO_COLOR=1 takes the colours away (no-color.org)."""
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", in_terminal("summarize", "D", NO_COLOR="1"))


def test_show_is_coloured_in_a_terminal_and_says_the_same() -> None:
    """The YAML in colours is the YAML."""
    text = in_terminal("show", "D", columns=130)
    assert ANSI in text
    assert "\n".join(line.rstrip() for line in uncoloured(text).splitlines()) + "\n" == vggkit.dump("D")


def test_an_error_is_coloured_in_a_terminal() -> None:
    """The word Error is red there."""
    assert in_terminal("summarize", "nope").startswith("\x1b[31mError: \x1b[0munknown configuration 'nope'.")


# completion


def completions(*words: str) -> list[str]:
    """Return what the shell would offer for the last word."""
    shell = BashComplete(main, {}, "vggkit", "_VGGKIT_COMPLETE")
    *before, last = words
    return [item.value for item in shell.get_completions(before, last) if item.type == "plain"]


def shipped(beginning: str) -> set[str]:
    """Return the names and aliases in the shipped files that begin so, in any letter case."""
    files = (Path(__file__).parents[2] / "configs").rglob("*.yaml")
    contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    names = {str(name) for content in contents for name in (content["name"], *content.get("aliases", []))}
    return {name for name in names if name.lower().startswith(beginning.lower())}


@pytest.mark.parametrize("command", ["summarize", "names", "show", "validate"])
def test_completion_completes_configuration_names(command: str) -> None:
    """Names and aliases of the paper's and of the family, in any letter case."""
    assert {"VGG11", "VGG13", "VGG16", "VGG19"} < set(completions(command, "vgg1"))
    for beginning in ("vgg1", "A", "zzz"):
        offered = completions(command, beginning)
        assert set(offered) == shipped(beginning)
        assert len(set(offered)) == len(offered)


def test_completion_completes_commands_options_and_formats() -> None:
    """click's own completion, for commands, options and the words of --format."""
    assert sorted(completions("s")) == ["schema", "show", "summarize"]
    assert "--formula" in completions("summarize", "D", "--f")
    assert completions("summarize", "D", "--format", "c") == ["cs231n", "csv"]


def test_completion_offers_files_too() -> None:
    """A path can be completed where a name can."""
    shell = BashComplete(main, {}, "vggkit", "_VGGKIT_COMPLETE")
    assert "file" in [item.type for item in shell.get_completions(["summarize"], "my")]


def test_completion_works_as_the_shell_calls_it(process: Run) -> None:
    """The environment variables that the shell sets, as the README's line has them set."""
    done = process(_VGGKIT_COMPLETE="bash_complete", COMP_WORDS="vggkit summarize vgg1", COMP_CWORD="2")
    assert {line.split(",")[1] for line in done.stdout.decode().split() if line.startswith("plain")} == shipped("vgg1")
    assert "_VGGKIT_COMPLETE=bash_complete" in process(_VGGKIT_COMPLETE="bash_source").stdout.decode()


LEAKY, CLIPPED = "{leaky-relu: 0.2}", "{hardtanh: {min_val: 0.0, max_val: 6.0}}"


def test_a_long_form_may_stand_on_the_command_line() -> None:
    """In --set, in --vary and behind a name; commas and colons inside of its braces separate nothing."""
    for long in (LEAKY, CLIPPED):
        made = vggkit.load("A", activation=yaml.safe_load(long))
        assert vggkit.loads(printed("show", "A", "--set", f"activation={long}")).blocks == made.blocks
        compared = json.loads(printed("compare", "A", f"A:activation={long},width=0.5", "--format", "json"))
        assert compared["networks"][1]["name"] == f"A:activation={long},width=0.5"
    found = json.loads(printed("find", "A", "--vary", f"activation=relu,{LEAKY},{CLIPPED}", "--format", "json"))
    changes = [one["changes"]["activation"] for one in found["found"]]
    assert changes == ["relu", *map(yaml.safe_load, (LEAKY, CLIPPED))]
    table = printed("find", f"A:activation={CLIPPED}", "--vary", "width=0.5,1", "--format", "csv").splitlines()
    assert [row[:2] for row in csv.reader(table[1:])] == [[f"A:activation={CLIPPED}", width] for width in ("0.5", "1")]


def test_a_variants_label_with_a_long_form_is_taken_back() -> None:
    """What find calls it builds the same network in compare."""
    (variant,) = vggkit.find("A", vary={"activation": yaml.safe_load(CLIPPED)})
    assert variant.label == f"A:activation={CLIPPED}"
    again = vggkit.compare(variant.label).networks[0].network
    assert again == vggkit.Network.of("A", activation=yaml.safe_load(CLIPPED))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{leaky-relu: 0.2", "Error: --set: activation: expected YAML such as {leaky-relu: 0.2}, found '{leaky-relu: "),
        ("{leaky-relu: a}", "Error: activation: "),
        ("{leaky-relu:0.2}", "Error: activation: "),
        ("[relu, tanh]", "Error: activation: "),
        ("{}", "Error: activation: "),
        (
            "{a: 1, a: 2}",
            "Error: --set: activation: expected YAML such as {leaky-relu: 0.2}, found '{a: 1, a: 2}' (key",
        ),
    ],
)
def test_a_long_form_that_is_none_is_one_line(value: str, message: str) -> None:
    """The key, what was found and what was expected."""
    said = told("show", "A", "--set", f"activation={value}")
    assert said.startswith(message)
    assert said.count("\n") == 1


DEPTH = '''
@main.command(epilog="Example: vggkit depth D")
@source_argument
@set_option
@format_option()
@output_option
def depth(source: str, settings: tuple[str, ...], format: str | None, output: Path | None) -> None:
    """Say how deep a network is."""
    from vggkit.base.tables import Column, Table, grid
    from vggkit.network import Network

    network = Network.of(source, **overrides(settings))
    record = {"name": network.name, "layers": len(network)}
    columns = [Column("layers", lambda row: str(row["layers"]), "right")]
    write_table(Table(grid(columns, [record]), records=[record]), format_of(format, output), output)

'''


def test_a_new_command_is_one_function(tmp_path: Path) -> None:
    """It takes the shared options, writes every format, and is listed with its sentence."""
    file = scratch.package(tmp_path) / "cli" / "figures.py"
    scratch.add(file, '\n@main.command(epilog="Example: vggkit explain', DEPTH)
    program = "from vggkit.cli import main; main({!r}.split(), prog_name='vggkit')"
    said = scratch.run(tmp_path, program.format("depth D --set head=gap --format json"))
    assert json.loads(said) == [{"name": "D", "layers": 35}]
    help = scratch.run(tmp_path, program.format("-h"))
    assert re.search(r"^  depth +Say how deep a network is\.$", help, re.MULTILINE)

"""`vggkit compare` on the command line: golden files, options, and how it ends."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import vggkit
from tests.cli.test_app import printed, run, told
from vggkit.cli.options import TABLE_FORMATS

Golden = Callable[[str, str], None]


@pytest.mark.parametrize(
    ("name", "arguments", "columns"),
    [
        ("piped.txt", (), None),
        ("60.txt", (), "60"),
        ("80.txt", (), "80"),
        ("140.txt", (), "140"),
        ("six.json", ("--format", "json"), None),
        ("six.csv", ("--format", "csv"), None),
        ("six.md", ("--format", "markdown"), None),
        ("six.tex", ("--format", "latex"), None),
        ("six.html", ("--format", "html"), None),
        ("changed.txt", ("D", "D:batch_norm=true,width=0.5", "D:input=3x64x64", "--batch", "8"), None),
        ("only.txt", ("--only", "macs,top5", "--sort", "-macs"), None),
        ("diff-C-D.txt", ("C", "D", "--diff"), None),
        ("diff-D-E-60.txt", ("D", "E", "--diff"), "60"),
        ("diff-D-bn.json", ("D", "vgg16_bn", "--diff", "--format", "json"), None),
        ("diff-C-D.csv", ("C", "D", "--diff", "--format", "csv"), None),
        ("diff-C-D.md", ("C", "D", "--diff", "--format", "markdown"), None),
        ("diff-C-D.tex", ("C", "D", "--diff", "--format", "latex"), None),
        ("diff-C-D.html", ("C", "D", "--diff", "--format", "html"), None),
    ],
)
def test_output_is_the_golden_file(name: str, arguments: tuple[str, ...], columns: str | None, golden: Golden) -> None:
    """Each format, narrow and wide, differences too."""
    environment = {"COLUMNS": columns} if columns else {}
    golden(f"compare-{name}", printed("compare", *arguments, **environment))


def test_the_json_is_that_of_the_python_function() -> None:
    """With every option that changes a figure; and so is the difference's."""
    sources = ("A", "D:head=gap")
    options = ("--batch", "3", "--dtype", "float16", "--optimizer", "adam", "--input", "3x64x64", "--sort", "params")
    keywords = {"batch": 3, "dtype": "float16", "optimizer": "adam", "input": "3x64x64"}
    data = json.loads(printed("compare", *sources, *options, "--set", "num_classes=10", "--format", "json"))
    assert data == vggkit.compare(*sources, **keywords, sort="params", num_classes=10).to_dict()
    assert (data["batch"], data["dtype"], data["optimizer"]) == (3, "float16", "adam")
    diff = json.loads(printed("compare", *sources, "--diff", "--format", "json"))
    assert diff == vggkit.compare(*sources).diff().to_dict()


def test_the_csv_has_the_jsons_figures() -> None:
    """A line per network, a column per figure."""
    rows = list(csv.DictReader(printed("compare", "--format", "csv").splitlines()))
    for row, entry in zip(rows, vggkit.compare().to_dict()["networks"], strict=True):
        del entry["reported"]
        shapes = {key: "x".join(map(str, value)) for key, value in entry.items() if isinstance(value, list)}
        assert row == {key: str(value) for key, value in {**entry, **shapes}.items()}


@pytest.mark.parametrize(
    ("ending", "start"),
    [
        (".json", "{"),
        (".csv", "name,"),
        (".md", "| "),
        (".tex", "% needs"),
        (".html", "<!doctype html>"),
        (".txt", "b"),
    ],
)
@pytest.mark.parametrize("diff", [False, True])
def test_the_ending_decides_the_format(ending: str, start: str, diff: bool, tmp_path: Path) -> None:
    """Of the comparison and of the difference; --format wins over it."""
    path = tmp_path / f"out{ending}"
    flags = ["--diff"] if diff else []
    assert printed("compare", "C", "D", *flags, "-o", str(path)) == ""
    text = path.read_text(encoding="utf-8")
    assert text.startswith({"name,": "change,", "b": "C → D: b"}.get(start, start) if diff else start)
    printed("compare", "C", "D", *flags, "-o", str(path), "--format", "latex")
    assert path.read_text(encoding="utf-8").startswith("% needs")


def test_only_shows_what_is_asked_for() -> None:
    """Figures by name or alias, layers by `layers`; the order is the table's."""
    text = printed("compare", "A", "--only", "MACs", "--only", "parameters, receptive-field")
    labels = [line.split("  ")[0] for line in text.splitlines()[3:] if line]
    assert labels == ["─" * len(labels[0]), "parameters", "MACs", "receptive field"]
    assert "conv3-64" in printed("compare", "A", "--only", "layers")
    assert "MACs" not in printed("compare", "A", "--only", "layers")


def test_paths_with_changes(tmp_path: Path) -> None:
    """A file, with a colon in its folder's name, as it is and with changes."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    path = folder / "mine.yaml"
    path.write_text("extends: A\n")
    entries = json.loads(printed("compare", str(path), f"{path}:num_classes=10", "--format", "json"))["networks"]
    wanted = [vggkit.summarize("A", num_classes=classes).totals.parameters for classes in (1000, 10)]
    assert [entry["parameters"] for entry in entries] == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Q",), "unknown configuration 'Q'"),
        (("D:width",), "'D:width': expected key=value"),
        (("D:widht=2",), "Did you mean 'width'?"),
        (("D:input=3x64",), "'D:input=3x64': input: expected"),
        (("--only", "macz"), "--only: unknown figure 'macz'. Did you mean 'macs'?"),
        (("--only", "zzz"), "--only: unknown figure 'zzz'. Known: weight_layers, parameters"),
        (("--only", ","), "--only: expected names, such as "),
        (("--sort", "layers"), "--sort: unknown figure 'layers'"),
        (("--sort", "-parametres"), "Did you mean 'parameters'?"),
        (("--diff",), "--diff: expected two configurations, found 0"),
        (("D", "--diff"), "--diff: expected two configurations, found 1"),
        (("C", "D", "--diff", "--only", "macs"), "--only can't be combined with --diff"),
        (("C", "D", "--diff", "--sort", "macs"), "--sort can't be combined with --diff"),
        (("D", "--batch", "0"), "batch: expected a whole number from 1"),
        (("D", "--dtype", "int8"), "dtype: expected one of"),
        (("D", "--optimizer", "adan"), "optimizer: expected one of none, sgd"),
        (("D", "--set", "width"), "--set: expected key=value"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    """Whatever is wrong is told in one line on stderr, with exit code 2."""
    said = told("compare", *arguments)
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_file_that_cannot_be_written_ends_in_1(tmp_path: Path) -> None:
    """A folder that is not there: one line, nothing on stdout."""
    result = run("compare", "A", "-o", str(tmp_path / "nowhere" / "x.md"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "can't be written" in result.stderr


def test_every_format_takes_no_torch() -> None:
    """Neither the comparison nor the difference imports torch, matplotlib or pandas."""
    code = (
        "import sys, io, contextlib, vggkit.cli as cli\n"
        f"for format in {list(TABLE_FORMATS)}:\n"
        "    for arguments in ([], ['C', 'D', '--diff']):\n"
        "        try:\n"
        "            with contextlib.redirect_stdout(io.StringIO()):\n"
        "                cli.main(['compare', *arguments, '--format', format])\n"
        "        except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

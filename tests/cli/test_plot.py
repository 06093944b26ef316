"""`vggkit plot` on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

import vggkit
from tests.cli.test_app import run, told
from vggkit.cli import main

ENDING_STARTS = [
    ("svg", b"<?xml"),
    ("png", b"\x89PNG"),
    ("pdf", b"%PDF"),
    ("tex", b"% A: 3"),
    ("mmd", b"---\ntitle"),
    ("md", b"```mermaid\n---\ntitle"),
]
"""What files begin with."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    """Return the names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("D",), "D-architecture.svg"),
        (("vgg16", "--flat"), "D-flat.svg"),
        (("E", "--kind", "cost"), "E-cost.svg"),
        (("C", "--kind", "receptive"), "C-receptive.svg"),
        (("A", "B", "D", "E", "--kind", "compare"), "A-B-D-E-compare.svg"),
        (("--kind", "compare"), "A-A-LRN-B-C-D-E-compare.svg"),
        (("D", "--kind", "cost", "--format", "png"), "D-cost.png"),
        (("D", "--format", "tikz"), "D-architecture.tex"),
        (("D", "--flat", "--format", "mermaid"), "D-flat.mmd"),
    ],
    ids=str,
)
def test_without_a_file_one_is_named_written_and_told(arguments: tuple[str, ...], name: str, folder: Path) -> None:
    """In the working directory; nothing is on stdout."""
    result = run("plot", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{name} drawn\n")
    assert files(folder) == [name]


def test_the_file_is_what_the_python_function_draws(folder: Path) -> None:
    """To the byte, with every option."""
    options = ("--batch", "4", "--dtype", "float16", "--input", "3x64x64", "--set", "num_classes=7", "-o", "x.svg")
    assert run("plot", "A", "--kind", "cost", *options).exit_code == 0
    picture = vggkit.plot("A", kind="cost", batch=4, dtype="float16", input="3x64x64", num_classes=7)
    assert (folder / "x.svg").read_bytes() == picture.to_bytes("svg")


@pytest.mark.parametrize(("ending", "start"), ENDING_STARTS)
def test_the_ending_decides_the_format(ending: str, start: bytes, folder: Path) -> None:
    """And an older file is replaced."""
    path = folder / f"picture.{ending}"
    path.write_text("older")
    assert run("plot", "A", "-o", path.name).exit_code == 0
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("D", "-o", "D.gif"),
            "--output: expected a file that ends in .svg, .png, .pdf, .tex, .mmd or .md, found 'D.gif'",
        ),
        (("D", "-o", "D"), "--output: expected a file that ends in .svg, .png, .pdf, .tex, .mmd or .md, found 'D'"),
        ((), "kind architecture: expected one network, found 0; kind compare draws several"),
        (("D", "E"), "kind architecture: expected one network, found 2; kind compare draws several"),
        (("D", "--kind", "recptive"), "found 'recptive'. Did you mean 'receptive'?"),
        (("D", "--batch", "8"), "batch: needs kind cost or compare, found architecture"),
        (("D", "--kind", "cost", "--flat"), "flat: needs kind architecture, found cost"),
        (("D", "--kind", "cost", "--dtype", "int8"), "dtype: expected one of float32"),
        (("nowhere.yaml",), "nowhere.yaml: no such file"),
        (
            ("D", "--format", "mermade"),
            "format: expected one of svg, png, pdf, tikz, mermaid, found 'mermade'. Did you mean 'mermaid'?",
        ),
        (("D", "--kind", "cost", "-o", "D.tex"), "found 'tikz'; tikz needs kind architecture"),
        (("--kind", "compare", "-o", "D.md"), "found 'mermaid'; mermaid needs kind architecture"),
        (("D", "--flat", "-o", "D.tex"), "found 'tikz'; tikz needs kind architecture, not flat"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_no_file(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    """Exit code 2."""
    text = told("plot", *arguments)
    assert message in text
    assert text.count("\n") == 1
    assert files(folder) == []


def test_a_file_that_cant_be_written_ends_in_1(folder: Path) -> None:
    """One line, and nothing is left behind."""
    result = run("plot", "A", "-o", "nowhere/A.svg")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: nowhere/A.svg: can't be written: No such file or directory\n"
    assert files(folder) == []


def test_an_older_file_stays_whole_if_the_new_one_fails(folder: Path) -> None:
    """A mistake in the configuration does not cost the picture that is there."""
    (folder / "x.svg").write_text("older")
    assert run("plot", "nowhere.yaml", "-o", "x.svg").exit_code == 2
    assert (folder / "x.svg").read_text() == "older"


def test_text_is_printed_as_it_is_written(folder: Path) -> None:
    """To standard output, in the format that is asked for; without one it is SVG."""
    for format in ("tikz", "mermaid", "svg"):
        result = run("plot", "A", "--format", format, "-o", "-")
        assert result.stdout.encode() == vggkit.plot("A").to_bytes(format)
    assert run("plot", "A", "-o", "-").stdout == result.stdout
    assert files(folder) == []


def test_the_formats_are_completed() -> None:
    """Those of every kind of picture."""
    offered = BashComplete(main, {}, "vggkit", "_").get_completions(["plot", "D", "--format"], "")
    assert [item.value for item in offered] == ["svg", "png", "pdf", "tikz", "mermaid"]


CODE = """
import sys
from vggkit.cli import main
for arguments in ("D", "D --flat", "D --kind cost", "D --kind receptive", "--kind compare"):
    try: main(["plot", *arguments.split()])
    except SystemExit as end: assert end.code == 0
print([name for name in ("torch", "matplotlib.pyplot", "rich") if name in sys.modules])
"""

TEXT = """
import sys
from vggkit.cli import main
for format in ("tikz", "mermaid"):
    try: main(["plot", "D", "--format", format])
    except SystemExit as end: assert end.code == 0
print([name for name in ("torch", "matplotlib", "numpy") if name in sys.modules])
"""


@pytest.mark.parametrize("code", [CODE, TEXT])
def test_no_picture_needs_torch_or_opens_a_window(code: str, folder: Path) -> None:
    """Neither torch nor pyplot, which would look for a display, is imported, and for text no matplotlib at all."""
    environment = {**os.environ, "PYTHONPATH": str(Path(vggkit.__file__).parent.parent), "MPLBACKEND": "tkagg"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=folder
    )
    assert done.stdout == "[]\n"

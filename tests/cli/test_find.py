"""`vggkit find` on the command line: golden files, options, files, and how it ends."""

from __future__ import annotations

import csv
import fcntl
import gc
import io
import json
import os
import select
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import vggkit
from tests.cli.test_app import in_terminal, printed, run, told, uncoloured
from tests.conftest import ROOT
from vggkit.figures.measures import FOUND
from vggkit.search import chunks
from vggkit.search import find as search

Golden = Callable[[str, str], None]
VARIED = (
    "D",
    "E",
    "--vary",
    "width=0.25,0.5,1",
    "--vary",
    "batch_norm=true,false",
    "--training-peak",
    "<4GiB",
    "--batch",
    "32",
)


@pytest.mark.parametrize(
    ("name", "arguments", "columns"),
    [
        ("piped.txt", VARIED, None),
        ("60.txt", VARIED, "60"),
        ("80.txt", VARIED, "80"),
        ("140.txt", VARIED, "140"),
        ("sorted.json", (*VARIED, "--sort", "-training_peak", "--limit", "3", "--format", "json"), None),
        ("stream.csv", (*VARIED, "--format", "csv"), None),
        ("sorted.csv", (*VARIED, "--sort", "macs", "--format", "csv"), None),
        ("varied.md", (*VARIED, "--pareto", "params,-field", "--format", "markdown"), None),
        ("varied.tex", (*VARIED, "--sort", "macs", "--format", "latex"), None),
        ("varied.html", (*VARIED, "--sort", "macs", "--format", "html"), None),
        ("reserved.txt", (*VARIED, "--reserved", "<4GiB", "--sort", "-reserved"), None),
        ("only.txt", ("A", "D:head=gap", "--only", "field,saved,weights", "--set", "num_classes=10"), None),
    ],
)
def test_output_is_the_golden_file(name: str, arguments: tuple[str, ...], columns: str | None, golden: Golden) -> None:
    """Each format, narrow and wide."""
    golden(f"find-{name}", printed("find", *arguments, **({"COLUMNS": columns} if columns else {})))


def test_the_json_is_that_of_the_python_function() -> None:
    """With every option."""
    arguments = (
        "A", "D", "--vary", "input=3x32x32,3x64x64", "--parameters", ">1M", "--parameters", "<=200M", "--macs", "<2G",
        "--training-peak", "1MB..9GiB", "--only", "field,macs", "--sort", "-params", "--limit", "3", "--pareto",
        "weights,saved", "--batch", "3", "--dtype", "bfloat16", "--optimizer", "adamw", "--set", "num_classes=10",
    )  # fmt: skip
    found = vggkit.find(
        "A", "D", vary={"input": ["3x32x32", "3x64x64"]}, figures=["field", "macs"], sort="-params", limit=3,
        where={"parameters": [">1M", "<=200M"], "macs": "<2G", "training_peak": "1MB..9GiB"}, batch=3,
        pareto=["weights", "saved"], dtype="bfloat16", optimizer="adamw", num_classes=10,
    )  # fmt: skip
    data = json.loads(printed("find", *arguments, "--format", "json"))
    assert data == found.to_dict()
    assert (len(data["found"]), data["matches"] > 2) == (3, True)


def test_each_condition_is_an_option() -> None:
    """By the figure's name and, where there is one, a short name."""
    for name, measure in FOUND.items():
        limit, none = ("1B..900PB", "<1B") if measure.unit == "B" else ("1..9T", "<1")
        for word in filter(None, (name, measure.short)):
            option = f"--{word.replace('_', '-')}"
            found = json.loads(printed("find", "A", option, limit, "--format", "json"))["found"]
            assert [one["name"] for one in found] == ["A"]
            assert name in found[0]
            assert json.loads(printed("find", "A", option, none, "--format", "json"))["found"] == []


def test_the_csv_can_be_read_back() -> None:
    """Each variant a line, in the order of what was typed, with the figures that it has alone."""
    text = printed(
        "find",
        "A",
        "B",
        "--vary",
        "width=0.5,1",
        "--vary",
        "input=3x32x32,3x64x64",
        "--only",
        "macs,field",
        "--format",
        "csv",
    )
    lines = list(csv.DictReader(io.StringIO(text)))
    wanted = list(product("AB", ["0.5", "1"], ["3x32x32", "3x64x64"]))
    assert [(line["name"], line["width"], line["input"]) for line in lines] == wanted
    for line in lines:
        totals = vggkit.summarize(line["name"], width=float(line["width"]), input=line["input"]).totals
        assert line["multiply_accumulates"] == str(totals.multiply_accumulates)
    assert list(lines[0]) == ["name", "width", "input", "multiply_accumulates", "receptive_field"]
    assert lines[0]["receptive_field"] == "150x150"


def test_csv_is_streamed_unless_all_of_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a sort, a limit or a front nothing is collected; the lines are the same, and only then without marks."""
    arguments = ("find", "A", "--vary", "num_classes=" + ",".join(map(str, range(1, 40))), "--parameters", "<128.87M")
    monkeypatch.setattr(chunks, "CHUNK", 7)
    collected = printed(*arguments, "--pareto", "params,macs", "--format", "csv")

    def refuse(*_: Any) -> Any:
        raise AssertionError("collected")

    monkeypatch.setattr(search, "collected", refuse)
    streamed = printed(*arguments, "--format", "csv")
    assert [line.rpartition(",")[0] for line in collected.splitlines()] == streamed.splitlines()
    assert len(streamed.splitlines()) > 20
    assert run(*arguments, "-o", str(tmp_path / "x.csv")).stdout == ""
    assert (tmp_path / "x.csv").read_text() == streamed


def test_a_search_that_fails_leaves_no_half_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An older file stays as it was, and nothing else lies beside it."""
    path = tmp_path / "x.csv"
    path.write_text("older")

    def failing(*_: Any) -> Any:
        yield chunks.Chunk([], 1, 0, None)
        raise vggkit.VggkitError("ended")

    monkeypatch.setattr(chunks, "chunks", failing)
    result = run("find", "A", "-o", str(path))
    assert (result.exit_code, result.stderr) == (1, "Error: ended\n")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.csv", "older")]


@pytest.mark.parametrize("size", [1, chunks.CHUNK])
def test_what_does_not_fit_is_counted_on_stderr(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says why the first was skipped, over chunks too; the rest is printed as ever."""
    monkeypatch.setattr(chunks, "CHUNK", size)
    result = run("find", "A", "D", "--vary", "input=3x16x16,3x32x32", "--format", "csv")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "2 of 4 skipped: the input, an override or the step does not fit them; the first: A:input=3x16"
    )
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stdout.splitlines()) == 3


def test_the_stream_has_what_is_worked_out_for_each_variant_alone() -> None:
    """The reserved bytes of every line are those of its network."""
    arguments = (
        "--vary",
        "width=0.1,0.5",
        "--input",
        "3x32x32",
        "--batch",
        "64",
        "--only",
        "reserved",
        "--format",
        "csv",
    )
    lines = list(csv.DictReader(io.StringIO(printed("find", "A", "B", *arguments))))
    assert [line["name"] for line in lines] == ["A", "A", "B", "B"]
    for line in lines:
        plan = vggkit.memory(line["name"], width=line["width"], input="3x32x32", batch=64, device="cuda")
        assert line["reserved_bytes"] == str(plan.reserved_bytes)


def test_a_large_search_for_what_takes_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line on stderr; a small one does not, nor one that works it out only for what is shown."""
    monkeypatch.setattr(chunks, "FEW", 3 * chunks.ALONE)
    monkeypatch.setattr(chunks, "cores", lambda: 1)
    search = ("find", "A", "--input", "3x32x32", "--only", "macs,reserved", "--vary")
    for arguments in (("num_classes=1,2,3",), ("num_classes=1,2,3,4", "--sort", "reserved", "--limit", "1")):
        assert run(*search, *arguments).stderr == (
            "Note: reserved CUDA memory takes 2 to 4 ms for each variant that meets the other conditions; there are up"
            f" to {len(arguments[0].split(','))}\n"
        )
    for arguments in (("num_classes=1,2",), ("num_classes=1,2,3", "--sort", "macs", "--limit", "1")):
        assert run(*search, *arguments).stderr == ""


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_pictures_ending_draws_it(ending: str, start: bytes, tmp_path: Path) -> None:
    """The same picture as Python's, and nothing on stdout."""
    path = tmp_path / f"x.{ending}"
    result = run("find", "A", "D", "--vary", "width=0.5,1", "-o", str(path))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{path} drawn\n")
    assert path.read_bytes().startswith(start)
    assert path.read_bytes() == vggkit.find("A", "D", vary={"width": [0.5, 1]}).plot().to_bytes(ending)


def test_the_picture_names_those_on_the_front(tmp_path: Path) -> None:
    """Each by its label where they are few, and in the description for those who can't see it."""
    path = tmp_path / "x.svg"
    assert run("find", "A", "D", "--vary", "head=gap,paper", "-o", str(path)).exit_code == 0
    text = path.read_text()
    assert ">A:head=gap</text>" in text
    assert ">D:head=gap</text>" not in text
    assert "On the Pareto front: A:head=gap:" in text


def test_many_points_are_one_image(tmp_path: Path) -> None:
    """An SVG of 3,000 points has no more than some hundred kilobytes."""
    path = tmp_path / "x.svg"
    numbers = ",".join(map(str, range(1, 3001)))
    assert (
        run("find", "A", "--vary", f"num_classes={numbers}", "--pareto", "params,-macs", "-o", str(path)).exit_code == 0
    )
    assert path.stat().st_size < 700_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Q",), "unknown configuration 'Q'"),
        (("D", "--vary", "width=1,x"), "vary: width: expected a number above 0"),
        (("D", "--vary", "width"), "--vary: width has no value; expected key=value"),
        (("D", "--vary", "width=1,"), "--vary: width has no value; expected key=value"),
        (("D", "--vary", "widht=1"), "vary: unknown override 'widht'. Did you mean 'width'?"),
        (("D", "--vary", "width=1", "--vary", "width=2"), "--vary: width is given twice"),
        (("D", "--vary", "width=1", "--set", "width=2"), "vary: width is varied and set"),
        (("D", "--vary", "input=3x32x32", "--input", "3x64x64"), "vary: input is varied and set"),
        (("D", "--parameters", "15Q"), "parameters: expected a condition such as <15M"),
        (("--params", "15M"), "parameters: expected a condition such as <15M, >=2.5G or 1M..5M, found '15M': 15M is"),
        (("--training-peak", "<4"), "found '<4': 4 has no unit"),
        (("--sort", "flops"), "--sort: unknown figure 'flops'. Did you mean 'macs'?"),
        (("D", "--training-peak", "<15M"), "training_peak_bytes: expected a condition such as <24GiB"),
        (("D", "--only", "macz"), "--only: unknown figure 'macz'. Did you mean 'macs'?"),
        (("D", "--only", ","), "--only: expected names, such as "),
        (("D", "--sort", "-name"), "--sort: unknown figure 'name'"),
        (("D", "--limit", "0"), "limit: expected a whole number from 1"),
        (("D", "--pareto", "macs"), "pareto: expected two figures"),
        (
            ("D", "-o", "x.gif"),
            "--output: expected a file that ends in .txt, .json, .csv, .md, .tex, .html, .htm, .svg, .png or .pdf, or",
        ),
        (("D", "--parameters", "<1", "-o", "x.svg"), "nothing was found, so there is nothing to draw"),
        (("D", "--input", "3x32"), "input: expected channels"),
        (("D", "--batch", "0"), "batch: expected a whole number from 1"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    """Whatever is wrong is told in one line on stderr, with exit code 2."""
    said = told("find", *arguments)
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["x.csv", "x.md", "x.svg"])
def test_a_file_that_cannot_be_written_ends_in_1(name: str, tmp_path: Path) -> None:
    """A folder that is not there: one line, nothing on stdout."""
    result = run("find", "A", "-o", str(tmp_path / "nowhere" / name))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "can't be written" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nothing_found_is_no_mistake() -> None:
    """The count says so, a CSV has its header, and the exit code is 0."""
    assert printed("find", "D", "--parameters", "<1") == "0 of 1: batch 1, float32\n"
    assert (
        printed("find", "D", "--parameters", "<1", "--only", "macs", "--format", "csv") == "name,multiply_accumulates\n"
    )
    assert json.loads(printed("find", "D", "--parameters", "<1", "--sort", "macs", "--format", "json"))["found"] == []


def test_all_cores_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search so large that processes are started prints the same lines."""
    numbers = ",".join(map(str, range(1, 5001)))
    arguments = ("find", "A", "--vary", f"num_classes={numbers}", "--only", "macs", "--format", "csv")
    alone = printed(*arguments)
    monkeypatch.setattr(chunks, "FEW", 100)
    monkeypatch.setattr(chunks, "cores", lambda: 2)
    assert printed(*arguments) == alone
    assert len(alone.splitlines()) == 5001


def test_a_limit_says_how_many_there_are_and_collects() -> None:
    """In the table's title; a CSV with a limit has its first lines, with marks."""
    assert printed("find", "A", "B", "D", "--limit", "2").startswith("3 of 3 (2 shown): batch 1, float32\n")
    lines = printed("find", "A", "B", "D", "--limit", "2", "--only", "macs", "--format", "csv").splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "A", "B"]
    assert lines[0].endswith(",pareto")


def test_a_limit_of_a_thousand_keeps_a_thousand() -> None:
    """The smallest of 1,200, as all of them sorted by hand."""
    numbers = ",".join(map(str, range(1200, 0, -1)))
    arguments = ("find", "A", "--vary", f"num_classes={numbers}", "--sort", "macs", "--format", "csv", "--only", "macs")
    lines = list(csv.DictReader(io.StringIO(printed(*arguments, "--limit", "1000"))))
    assert [int(line["num_classes"]) for line in lines] == list(range(1, 1001))


LONG = (
    "find", "A", "--vary", f"num_classes={','.join(map(str, range(1, 3001)))}",
    "--vary", f"width={','.join(str(number / 1000) for number in range(1, 3001))}", "--only", "macs", "--format", "csv",
)  # fmt: skip


INTERRUPTED = (1, -signal.SIGINT)
"""Exit codes after Ctrl-C. CPython exits by the signal if it came while a text was executed, as in dataclasses that are
being imported, even where it was caught (Python/pythonrun.c, unhandled_keyboard_interrupt)."""


def started(*more: str) -> subprocess.Popen[str]:
    """Start a search of nine million variants, by all cores."""
    return subprocess.Popen(
        [sys.executable, "-m", "vggkit", *LONG, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=ROOT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip


@pytest.mark.parametrize("everybody", [True, False])
def test_a_long_search_shows_its_first_lines_at_once_and_ends_at_ctrl_c(everybody: bool) -> None:
    """Exit code 1, no traceback, and whole lines: nothing but what stood in the pipe, the last number uncut.

    Ctrl-C reaches everybody in a terminal; `kill -INT` the search alone.
    """
    with started() as running:
        assert running.stdout is not None
        held = fcntl.fcntl(running.stdout, fcntl.F_GETPIPE_SZ) + io.DEFAULT_BUFFER_SIZE  # by the pipe, and by us
        lines = [running.stdout.readline() for _ in range(3)]
        (os.killpg if everybody else os.kill)(running.pid, signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    assert running.returncode in INTERRUPTED
    assert errors == "\nAborted!\n"
    assert len(out) <= held + 2 * select.PIPE_BUF
    assert lines[0] == "name,num_classes,width,multiply_accumulates\n"
    assert (lines[2] + out).endswith("\n")
    last = (lines[2] + out).splitlines()[-1]
    name, classes, width, macs = last.split(",")
    assert str(vggkit.summarize(name, num_classes=int(classes), width=width).totals.multiply_accumulates) == macs


def test_a_search_that_is_killed_leaves_no_process() -> None:
    """Those that worked for it would hold its pipe open, and whoever reads that would wait for ever."""
    with started() as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "name,num_classes,width,multiply_accumulates\n"
        running.stdout.readline()
        running.kill()
        running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL


def test_ctrl_c_leaves_whole_lines_in_a_named_pipe(tmp_path: Path) -> None:
    """As in a nameless one."""
    path = tmp_path / "x.csv"
    os.mkfifo(path)
    with started("-o", str(path)) as running:
        with path.open() as pipe:
            first = pipe.readline()
            os.killpg(running.pid, signal.SIGINT)
            rest = pipe.read()
        _, errors = running.communicate(timeout=60)
    assert running.returncode in INTERRUPTED
    assert errors == "\nAborted!\n"
    assert first == "name,num_classes,width,multiply_accumulates\n"
    assert rest.endswith("\n") or not rest


def written(process: int, folder: Path) -> int:
    """Return how many bytes a process has written to files in a folder that it has open, without a name or with one."""
    size, opened = 0, Path(f"/proc/{process}/fd")
    for path in opened.iterdir() if opened.exists() else folder.iterdir():
        with suppress(OSError):  # closed since
            if path.parent == folder or os.readlink(path).startswith(str(folder)):
                size += path.stat().st_size
    return size


def test_ctrl_c_leaves_nothing_of_a_long_searchs_file(tmp_path: Path) -> None:
    """Neither the file nor what it would have become."""
    with started("-o", str(tmp_path / "x.csv")) as running:
        while not written(running.pid, tmp_path):  # until the first chunk is
            assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode in INTERRUPTED
    assert errors == "\nAborted!\n"
    assert list(tmp_path.iterdir()) == []


def test_a_streams_memory_is_flat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is alive at the twentieth chunk is what was alive at the fifth, but for less than two chunks' lines."""
    alive = []
    every = chunks.chunks

    def watched(*arguments: Any) -> Any:
        for part in every(*arguments):
            yield part
            gc.collect()  # what waits for the collector is alive no more
            alive.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(chunks, "CHUNK", 100)
    monkeypatch.setattr(chunks, "chunks", watched)
    numbers = ",".join(map(str, range(1, 2001)))
    tracemalloc.start()
    try:
        assert run("find", "A", "--vary", f"num_classes={numbers}", "-o", str(tmp_path / "x.csv")).exit_code == 0
    finally:
        tracemalloc.stop()
    assert len(alive) == 20
    assert alive[19] - alive[4] < 50_000


def test_a_terminal_sees_a_bar_while_it_waits(tmp_path: Path) -> None:
    """On its own line, gone at the end; a pipe sees none, and what does not take long has none."""
    long = ("find", "A", "--vary", f"num_classes={','.join(map(str, range(1, 9000)))}", "-o", str(tmp_path / "x.csv"))
    shown = in_terminal(*long)
    assert "searching" in shown
    assert "100%" in uncoloured(shown)
    assert "searching" not in in_terminal("find", "A")
    assert run(*long).output == ""


def test_no_format_takes_torch() -> None:
    """Neither torch nor, without a picture, matplotlib is imported."""
    code = (
        "import sys, io, contextlib, vggkit.cli as cli\n"
        "for format in ('table', 'json', 'csv', 'markdown', 'latex', 'html'):\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()):\n"
        "            cli.main(['find', 'A', '--training-peak', '>1B', '--format', format])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_it_draws_itself_in_a_notebook() -> None:
    """As a table in HTML, and as text."""
    found = vggkit.find("A", "D", vary={"width": [0.5]})
    assert "<td" in found._repr_html_()
    assert str(found) == printed("find", "A", "D", "--vary", "width=0.5").rstrip("\n")
    assert found.to_csv() == printed(
        "find", "A", "D", "--vary", "width=0.5", "--pareto", "params,macs", "--format", "csv"
    )


def test_no_line_of_the_stream_begins_with_a_formula(tmp_path: Path) -> None:
    """The first of each part is a row as the others are, whether it is streamed or sorted."""
    path = tmp_path / "x.yaml"
    path.write_text('name: "=cmd|1"\nblocks: [[conv3-4]]\n')
    for more in ((), ("--sort", "macs")):
        first, second = printed("find", str(path), "--only", "macs", "--format", "csv", *more).splitlines()
        assert first.startswith("name,")
        assert second.startswith("'=cmd|1,")

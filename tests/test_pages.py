"""The documentation's shell sessions: each output shown is what the command prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vggkit.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COLUMNS = "100"


def run(command: str) -> str:
    """Return a command line as it stands in a terminal, and what it prints there."""
    words = shlex.split(command, comments=True)
    assert words[0] == "vggkit", command
    result = CliRunner().invoke(main, words[1:], env={"COLUMNS": COLUMNS}, prog_name="vggkit")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    lines = [line.rstrip() for line in result.output.splitlines()]
    return "\n".join([f"$ {command}", *lines]).rstrip() + "\n"


def sessions(text: str) -> Iterator[re.Match[str]]:
    """Yield the shell sessions of a page; writes each YAML file that it shows into the working directory before."""
    for fence in FENCE.finditer(text):
        name = re.match(r"# ([\w-]+\.yaml)\b", fence.group(2))
        if fence.group(1) == "yaml" and name is not None:
            Path(name.group(1)).write_text(fence.group(2), encoding="utf-8")
        if fence.group(1) == "console":
            yield fence


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_session_shows_what_the_commands_print(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A page's sessions run in order, in one folder; `--update-golden` writes what they print into the page."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    shown = printed = text
    for session in sessions(text):
        commands = re.findall(r"^\$ (.*)$", session.group(2), re.MULTILINE)
        fresh = "\n".join(run(command) for command in commands)
        printed = printed.replace(session.group(0), f"```console\n{fresh}```")
    if request.config.getoption("--update-golden"):
        page.write_text(printed, encoding="utf-8", newline="\n")
    else:
        assert shown == printed

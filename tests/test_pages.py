"""The documentation's pages, followed to the letter: what stands in them runs in order, and prints what they show."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vggkit.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COLUMNS = "100"
FOLLOWED = "tutorial.md"
"""The page whose commands without output are run, too; elsewhere they name files that the reader has."""


def invoked(command: str) -> Result:
    """Run a command line as it stands in a terminal."""
    words = shlex.split(command, comments=True)
    assert words[0] == "vggkit", command
    result = CliRunner().invoke(main, words[1:], env={"COLUMNS": COLUMNS}, prog_name="vggkit")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(command: str) -> str:
    """Return a command line as it stands in a terminal, and what it prints there."""
    result = invoked(command)
    lines = [line.rstrip() for line in result.output.splitlines()]
    return "\n".join([f"$ {command}", *lines]).rstrip() + "\n"


def examples(page: Path, block: re.Match[str], names: dict[str, Any]) -> None:
    """Run the Python examples of a block, in the names that the blocks before it left."""
    line = block.string.count("\n", 0, block.start(2))
    test = doctest.DocTestParser().get_doctest(block.group(2), names, page.name, str(page), line)
    doctest.DebugRunner().run(test, clear_globs=False)
    names.update(test.globs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_in_order_and_shows_what_is_printed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """In one folder: files are saved, examples and commands run; `--update-golden` writes what commands print."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    printed, names = text, {"__name__": "__main__"}
    for block in FENCE.finditer(text):
        language, content = block.groups()
        file = re.match(r"# ([\w-]+\.yaml)\b", content)
        if language == "yaml" and file is not None:
            Path(file.group(1)).write_text(content, encoding="utf-8")
        if language == "python":
            examples(page, block, names)
        if language == "console":
            commands = re.findall(r"^\$ (.*)$", content, re.MULTILINE)
            fresh = "\n".join(map(run, commands))
            printed = printed.replace(block.group(0), f"```console\n{fresh}```")
        if language == "sh" and page.name == FOLLOWED:
            for command in re.findall(r"^vggkit .*$", content, re.MULTILINE):
                assert invoked(command).exit_code == 0, command
    if request.config.getoption("--update-golden"):
        page.write_text(printed, encoding="utf-8", newline="\n")
    else:
        assert text == printed

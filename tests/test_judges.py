"""A judge that is missing is not passed over in silence."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import judges

HERE = Path(__file__).parent
ABSENT: list[Callable[[], object]] = [
    lambda: judges.missing("nobody is here"),
    lambda: judges.package("no_such_package"),
    lambda: judges.program("no-such-program"),
    lambda: judges.file("NO_SUCH_VARIABLE", "that file"),
]


@pytest.mark.parametrize("absent", ABSENT)
def test_a_missing_judge_is_a_failure_in_ci_and_a_skip_elsewhere(
    absent: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI is told by the variable that its runners set."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="in CI no judge may be missing"):
        absent()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        absent()


def test_who_is_there_is_returned() -> None:
    """A module, and the path of the first program that there is."""
    assert judges.package("json").dumps([]) == "[]"
    assert Path(judges.program("no-such-program", "sh")).name == "sh"


def test_a_file_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And missing if it is not there."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("JUDGE", str(tmp_path / "judge.js"))
    with pytest.raises(pytest.skip.Exception, match="JUDGE names no file, expected that of the judge"):
        judges.file("JUDGE", "that of the judge")
    (tmp_path / "judge.js").touch()
    assert judges.file("JUDGE", "that of the judge") == tmp_path / "judge.js"


@pytest.mark.parametrize(
    ("user", "there", "installed"),
    [
        (0, [], ["chromium", "texlive-pictures"]),
        (0, ["chromium"], ["texlive-pictures"]),
        (0, ["google-chrome", "kpsewhich"], []),
        (1000, [], []),
    ],
)
def test_ci_installs_the_judges_that_pip_cannot(
    user: int, there: list[str], installed: list[str], tmp_path: Path
) -> None:
    """Those that are missing, where it may; the script goes on if that fails."""
    text = (HERE.parent / ".ci" / "run").read_text(encoding="utf-8")
    match = re.search(r"^install_judges\(\) \{$.*?^\}$", text, re.DOTALL | re.MULTILINE)
    assert match is not None
    said = tmp_path / "said"
    programs = {"id": f"echo {user}", "apt-get": f'echo "$@" >> {said}; [ "$1" = update ]', **dict.fromkeys(there, "")}
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    bash = judges.program("bash")
    subprocess.run(
        [bash, "-euo", "pipefail", "-c", f"{match[0]}\ninstall_judges"], env={"PATH": str(tmp_path)}, check=True
    )
    asked = said.read_text().splitlines() if said.exists() else []
    assert [line.split()[-len(installed) :] for line in asked[1:]] == ([installed] if installed else [])


def sources() -> dict[str, str]:
    """Return the text of every Python file of the tests, by its path."""
    return {str(path.relative_to(HERE)): path.read_text(encoding="utf-8") for path in sorted(HERE.rglob("*.py"))}


def test_every_judge_is_asked_for_here() -> None:
    """No test looks for a package or a program itself, but for the two packages that the extra `test` can't install."""
    for name, text in sources().items():
        if name not in ("judges.py", "test_judges.py"):
            assert set(re.findall(r"importorskip\(\s*\"(\w+)", text)) <= {"calflops", "deepspeed"}, name
            assert "shutil.which" not in text, name


def test_no_test_reads_a_clock() -> None:
    """None measures how long something takes, or waits for a while and hopes; limits against hanging are no measure."""
    clock = r"\b(?:perf_counter|monotonic|process_time|sleep)(?:_ns)?\("
    assert {name: found for name, text in sources().items() if (found := re.findall(clock, text))} == {}

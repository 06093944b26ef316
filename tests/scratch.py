"""A copy of the package to change: what one adds in one place is at once everywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def package(tmp_path: Path) -> Path:
    """Copy the package and the configurations beside it; return the copy of the package."""
    copy = tmp_path / "vggkit"
    shutil.copytree(ROOT / "vggkit", copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return copy


def add(file: Path, before: str, text: str) -> None:
    """Insert text into a file of the copy, before a string that stands there once."""
    source = file.read_text(encoding="utf-8")
    assert source.count(before) == 1, f"{before!r} stands {source.count(before)} times in {file.name}"
    file.write_text(source.replace(before, text + before), encoding="utf-8")


def run(tmp_path: Path, program: str) -> str:
    """Run a Python program with the copy in place of the package; return what it printed."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""Whatever bytes a checkpoint has: one line, or a model; nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.weights.fuzz import ENDINGS

RUNS = [(ENDINGS, 500), *(pytest.param((format,), 5_000, marks=pytest.mark.slow) for format in ENDINGS)]


@pytest.mark.parametrize(("formats", "mutations"), RUNS)
def test_a_mutated_file_ends_in_one_line_or_loads(formats: tuple[str, ...], mutations: int, tmp_path: Path) -> None:
    """Flipped, cut, repeated and exchanged bytes of good files and of hostile ones: no traceback, crash or flood."""
    command = [sys.executable, "-m", "tests.model.weights.fuzz", str(mutations), *formats]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_800, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "defect" not in done.stdout
    assert {*re.findall("^(.*) 0 .*good good", done.stdout, re.MULTILINE)} == {*formats}

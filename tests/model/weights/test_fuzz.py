"""Whatever bytes a checkpoint has: one line, or a model; nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.weights.fuzz import FORMATS

MUTATIONS = 5_000


@pytest.mark.parametrize("format", FORMATS)
def test_a_mutated_file_ends_in_one_line_or_loads(format: str, tmp_path: Path) -> None:
    """Flipped, cut, repeated and exchanged bytes of good files and of hostile ones: no traceback, crash or flood."""
    command = [sys.executable, "-m", "tests.model.weights.fuzz", str(MUTATIONS), format]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_800, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "defect" not in done.stdout
    assert "good good" in done.stdout

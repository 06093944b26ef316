"""Keras on the torch backend, imported once; each program with it runs in a fork of that process."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.forking import Forks, status_of

MOST_SECONDS = 300
"""For one program; against hanging."""


class Keras(Forks):
    """The process in which Keras is."""

    def __init__(self) -> None:
        super().__init__(("keras",), {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""})

    def run(self, code: str, folder: Path) -> str:
        """Run a program in a folder; return what it prints."""
        with self.start(Path(__file__), {}) as running:
            answer = running.ask(code=code, folder=str(folder))
        assert answer["status"] == 0, answer["error"]
        printed: str = answer["output"]
        return printed


def _run(code: str, folder: str) -> int:
    """Run a program in a folder; return its status."""
    signal.alarm(MOST_SECONDS)
    os.chdir(folder)
    return status_of(partial(exec, code, {"__name__": "__main__"}))


def main() -> None:
    """Answer a program with its status and with what it said on standard output and standard error."""
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as error:
        os.dup2(output.fileno(), 1)
        os.dup2(error.fileno(), 2)
        status = _run(**json.loads(sys.stdin.readline()))
        output.seek(0)
        error.seek(0)
        print(json.dumps({"status": status, "output": output.read(), "error": error.read()}), file=answers)


if __name__ == "__main__":
    main()

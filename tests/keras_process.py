"""Keras on the torch backend, in a process that imports it once and runs each program in a fork of itself.

To import Keras takes far longer than what most tests ask of it. A fork has all that is imported and nothing that
another program made: names, seeds and models are each program's own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from tests.answering import Answering

MOST_SECONDS = 300
"""For one program; against hanging."""


class Keras(Answering):
    """The process in which Keras is."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "KERAS_BACKEND": "torch",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",  # what has threads can't be forked
        }
        super().__init__([sys.executable, "-m", "tests.keras_process"], environment)

    def run(self, code: str, folder: Path) -> str:
        """Run a program in a folder; return what it prints."""
        answer = self.ask(code=code, folder=str(folder))
        assert answer["status"] == 0, answer["error"]
        printed: str = answer["output"]
        return printed


def _run(code: str, folder: str) -> int:
    """Run a program in a fork of this process, in a folder; return its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    signal.alarm(MOST_SECONDS)
    status = 1
    try:
        os.chdir(folder)
        exec(code, {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Answer each program on standard input with its status and what it printed."""
    importlib.import_module("keras")
    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as error:
        os.dup2(output.fileno(), 1)
        os.dup2(error.fileno(), 2)
        for line in sys.stdin:
            answer: dict[str, Any] = {"status": _run(**json.loads(line))}
            for name, file in (("output", output), ("error", error)):
                file.seek(0)
                answer[name] = file.read()
                file.seek(0)
                file.truncate()
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

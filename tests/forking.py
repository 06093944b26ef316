"""A process that imports modules once, and runs programs that use them, each in a fork of itself.

To import torch or Keras takes far longer than what most tests ask of it. A fork has all that is imported, and nothing
of what another program did: it is as if it had been started for its program.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parent.parent
LARGEST = 2**16
"""Bytes of what is asked of the process."""


class Running:
    """A program that answers a question, a line of JSON on its standard input, with another on its standard output."""

    def __init__(self, connection: socket.socket) -> None:
        self.lines = connection.makefile("rw", encoding="utf-8", newline="\n")
        connection.close()  # when the file is closed, too

    def ask(self, **question: Any) -> Any:
        """Return the answer to a question."""
        self.lines.write(json.dumps(question) + "\n")
        self.lines.flush()
        line = self.lines.readline()
        assert line, "the program ended; what it said stands on standard error"
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.close()


class Forks:
    """The process.

    Args:
        modules: what it imports.
        environment: variables that it has besides ours. It must have no threads, so `OMP_NUM_THREADS` is 1.
    """

    def __init__(self, modules: tuple[str, ...], environment: dict[str, str]) -> None:
        self.control, other = socket.socketpair()
        with other:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(other.fileno()), *modules],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                pass_fds=[other.fileno()],
            )

    def start(self, program: Path, environment: dict[str, str]) -> Running:
        """Run a program, with more environment variables."""
        ours, theirs = socket.socketpair()
        with theirs:
            wanted = json.dumps({"program": str(program), "environment": environment}).encode()
            socket.send_fds(self.control, [wanted], [theirs.fileno()])
        return Running(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.close()
        self.process.wait()


def _run(program: str, environment: dict[str, str], connection: int) -> int:
    """Become a program; return its status."""
    os.environ.update(environment)
    os.dup2(connection, 0)
    os.dup2(connection, 1)
    os.close(connection)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.argv = [program]
    return status_of(partial(runpy.run_path, program, run_name="__main__"))


def status_of(program: Callable[[], Any]) -> int:
    """Run a program to its end; return its status, and say on standard error what went wrong."""
    try:
        program()
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    """Import what is asked for; fork for each program, until nobody can ask for another."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # forks need not look through it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        wanted, connections, _, _ = socket.recv_fds(control, LARGEST, 1)
        if not wanted:
            return
        if not os.fork():
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(_run(**json.loads(wanted), connection=connections[0]))
        os.close(connections[0])


if __name__ == "__main__":
    main()

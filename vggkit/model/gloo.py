"""Several ranks as processes of this machine, which send to each other by gloo, and measure what they hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from vggkit.base.errors import ArgumentError, BuildError, shorten
from vggkit.base.numbers import megabytes
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.rank import Measured
from vggkit.network import Network
from vggkit.notation.zoo import dump

PROGRAM = (sys.executable, "-m", "vggkit.model.rank_process")
"""The program that is a rank."""

TIMEOUT = 300
"""Seconds that a rank waits for the others, and that they may take longer than the first one that has ended."""

MOST_PROCESSES = 16
"""Ranks that may be processes of one machine."""

PROCESS_BYTES = 400_000_000
"""What a process takes that has imported torch, and is a rank; 330 MB of torch 2.14, on Linux."""

PAUSE = 0.02
"""Seconds between looking after the processes."""


class RankQuestion(msgspec.Struct, frozen=True):
    """What a rank is asked.

    Args:
        config: the text of a configuration.
        options: what a step is like, of this rank.
        store: the file through which the ranks find each other.
        seconds: how long it waits for the others.
    """

    config: str
    options: StepOptions
    store: str
    seconds: int


class Process(NamedTuple):
    """A rank.

    Args:
        rank: counted from 0.
        running: the process.
        folder: where its output is written.
    """

    rank: int
    running: subprocess.Popen[bytes]
    folder: Path

    @property
    def problem(self) -> str | None:
        """What went wrong, if it has ended so."""
        code = self.running.poll()
        if not code:
            return None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        last = self._output("err").decode(errors="replace").strip().rpartition("\n")[2]
        return f"gloo: rank {self.rank} {how}{f': {shorten(last, 200)}' if last else ''}; the others were ended"

    @property
    def measured(self) -> Measured:
        """What it has measured."""
        return msgspec.json.decode(self._output("out"), type=Measured)

    def _output(self, ending: str) -> bytes:
        return output_of(self.folder, self.rank, ending).read_bytes()


def output_of(folder: Path, rank: int, ending: str) -> Path:
    """Return the file into which a rank writes standard output ("out") or standard error ("err")."""
    return folder / f"{rank}.{ending}"


def measure_together(network: Network, options: StepOptions) -> list[Measured]:
    """Let each rank be a process, and return what it measures.

    Args:
        network: what is trained.
        options: what a step is like.

    Raises:
        BuildError: if a process ends early, or they wait for each other for too long.
    """
    with tempfile.TemporaryDirectory(prefix="vggkit-") as folder, _started(network, options, Path(folder)) as processes:
        _wait(processes)
        return [process.measured for process in processes]


@contextmanager
def _started(network: Network, options: StepOptions, folder: Path) -> Iterator[list[Process]]:
    """Start the ranks; none is left at the end."""
    with ExitStack() as stack:
        processes = []
        for rank in range(options.group.ranks):
            files = [stack.enter_context(output_of(folder, rank, ending).open("wb")) for ending in ("out", "err")]
            running = subprocess.Popen(
                PROGRAM, stdin=subprocess.PIPE, stdout=files[0], stderr=files[1], env={**LOCAL, **os.environ}
            )
            stack.callback(_end, running)
            processes.append(Process(rank, running, folder))
            question = RankQuestion(dump(network.config), options.of_rank(rank), str(folder / "store"), TIMEOUT)
            assert running.stdin is not None
            with suppress(BrokenPipeError):  # it has ended already; that is found later
                running.stdin.write(msgspec.json.encode(question) + b"\n")
                running.stdin.flush()
        yield processes


LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""What keeps the ranks from being reached from outside, unless somebody has said which network they use."""


def _end(running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.communicate()


def _wait(processes: Sequence[Process]) -> None:
    """Wait until all have ended.

    Raises:
        BuildError: names the first one that went wrong, or those that the others have waited for.
    """
    until: float | None = None
    while left := [process for process in processes if process.running.poll() is None]:
        _check(processes)
        if until is None and len(left) < len(processes):
            until = time.monotonic() + TIMEOUT
        if until is not None and time.monotonic() > until:
            raise BuildError(
                f"gloo: rank {left[0].rank} did not end in {TIMEOUT} seconds after the first one had; it was ended"
            )
        time.sleep(PAUSE)
    _check(processes)


def _check(processes: Sequence[Process]) -> None:
    """Raise what went wrong: where somebody was ended by a signal, the others have only missed it."""
    wrong = [process for process in processes if process.problem is not None]
    if wrong:
        first = min(wrong, key=lambda process: process.running.returncode >= 0)
        raise BuildError(first.problem)


# What is too much


def check_machine(peaks: Sequence[int]) -> None:
    """Refuse more ranks, or larger ones, than the machine has room for.

    Args:
        peaks: most bytes that each rank holds.

    Raises:
        ArgumentError: says what they take, and what there is.
    """
    if len(peaks) > MOST_PROCESSES:
        raise ArgumentError(
            f"ranks: expected at most {MOST_PROCESSES} processes with --gloo, found {len(peaks)}; without it any number"
        )
    needed, there = sum(peaks) + len(peaks) * PROCESS_BYTES, free_bytes()
    if needed > there:
        raise ArgumentError(
            f"gloo: {len(peaks)} processes would take {megabytes(needed)}, and this machine has {megabytes(there)};"
            " expected fewer ranks, a smaller batch or a smaller network. Without --gloo nothing is allocated"
        )


def free_bytes() -> int:
    """Return what the machine has for new processes; where it says nothing of that, all of its memory."""
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

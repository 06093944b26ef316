"""Ranks that are processes, which send to each other by gloo: what they measure, and what happens if one goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _get_work_registry_size
from torch.distributed import _functional_collectives as functional

import vggkit
from tests.cli.test_app import run, told
from tests.conftest import sample
from tests.footprint.ranks.test_replicas import TINY
from vggkit.base.errors import BuildError
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.model import gloo
from vggkit.model.gloo import RankQuestion, measure_together
from vggkit.model.rank import RankTracker, measure_alone
from vggkit.network import Network
from vggkit.notation.zoo import dump

NETWORK = Network.of(vggkit.loads(TINY))


def step(**options: Any) -> StepOptions:
    """Return the step of two ranks, unless something else is asked for."""
    return checked_options(NETWORK, **{"batch": 3, "ranks": 2, "parallel": "fsdp", **options})


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let ranks run other code than the program, which knows its question and its rank."""
    head = "import json, os, signal, sys; question = json.loads(sys.stdin.readline());"
    rank = "rank = question['options'].get('group', {}).get('rank');"
    monkeypatch.setattr(gloo, "PROGRAM", (sys.executable, "-c", f"{head} {rank}\n{code}"))


# What they measure


@pytest.mark.parametrize("parallel", sample(["ddp", "ddp-view", "zero1", "tensor", "tensor+ddp"], ["zero1"]))
def test_ranks_that_send_hold_what_a_rank_alone_does(parallel: str) -> None:
    """Without a communication hook, on real tensors."""
    options = step(parallel=parallel, ranks=4 if parallel == "tensor+ddp" else 2)
    alone = [measure_alone(NETWORK, options.of_rank(rank)) for rank in range(options.group.ranks)]
    assert measure_together(NETWORK, options) == alone


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_stages_that_send_may_hold_that_for_longer(schedule: str) -> None:
    """All else is as in a rank alone, and the peak at least."""
    options = step(parallel="pipeline", cut=["fc1"], batch=8, schedule=schedule)
    for rank, measured in enumerate(measure_together(NETWORK, options)):
        alone = measure_alone(NETWORK, options.of_rank(rank))
        assert alone.is_exact
        assert not measured.is_exact
        assert measured.peak_bytes >= alone.peak_bytes
        peaks = ("peak_bytes", "peak_with_copies", "is_exact")
        figures = [msgspec.structs.asdict(one) for one in (measured, alone)]
        assert len({tuple(value for word, value in one.items() if word not in peaks) for one in figures}) == 1


def test_gloos_copy_has_a_line_of_its_own(tmp_path: Path) -> None:
    """All that is claimed holds for both ranks; the copy of fc1's gradients is shown, and is no claim."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    options = ("--ranks", "2", "--parallel", "fsdp", "--batch", "3", "--gloo", "--format", "json")
    result = run("verify", str(tmp_path / "tiny.yaml"), *options)
    claims = [claim for claim in json.loads(result.stdout) if claim["ranks"]]
    assert result.exit_code == 0
    assert [claim["ranks"] for claim in claims if claim["what"].endswith(", peak")] == [[0], [1]]
    assert all(claim["equal"] for claim in claims if claim["exact"])
    shown = {claim["what"]: claim["measured"] for claim in claims if not claim["exact"]}
    # as MemTracker counted them where it saw the copy, in a loop written by hand
    assert shown == {
        "rank 0, peak with gloo's copy in reduce-scatter": 584_692,
        "rank 1, peak with gloo's copy in reduce-scatter": 584_528,
    }


def world() -> dist.ProcessGroup:
    """Return the group of all ranks."""
    ranks = dist.group.WORLD
    assert ranks is not None
    return ranks


ONES = torch.ones(16)
STARTED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "broadcast": lambda _, made: dist.broadcast(made.copy_(ONES), 0, async_op=True),
    "all-gather": lambda sent, made: dist.all_gather_single(made, sent, async_op=True),
    "reduce-scatter": lambda sent, made: dist.reduce_scatter_single(made, sent, async_op=True),
}
RETURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "all-reduce": lambda sent: functional.all_reduce(sent, "sum", world()),
    "all-gather": lambda sent: functional.all_gather_single(sent, 0, world()),
    "reduce-scatter": lambda sent: functional.reduce_scatter_single(sent, "sum", 0, world()),
}


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """Be the only rank of a group."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("name", STARTED)
def test_what_gloo_holds_is_not_counted(name: str) -> None:
    """Its threads hold what they send for as long as they like; here as long as somebody has the work."""
    with RankTracker() as tracker:
        sent, made = ONES.clone(), torch.zeros(16)
        work = STARTED[name](sent, made)
        assert work.wait()
        assert torch.equal(made, ONES)
        assert tracker.alive == 128
        del sent, made
        assert tracker.alive == 0


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("name", RETURNED)
def test_what_dtensors_send_is_there_at_once(name: str) -> None:
    """What comes back is counted, and nothing else is."""
    with RankTracker() as tracker:
        made = RETURNED[name](ONES)
        assert _get_work_registry_size() == 0  # nobody has to wait any more
        assert torch.equal(made, ONES)
        assert tracker.alive == 64


# What goes wrong


def left(*pids: int) -> list[int]:
    """Return the processes that are still there."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


DIES = """
open(os.path.dirname(question['store']) + f'/pid{rank}', 'w').write(str(os.getpid()))
if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""


def test_a_rank_that_dies_ends_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one line that names it; no process and no file is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started: list[subprocess.Popen[bytes]] = []
    own = gloo.subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(own(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(gloo.subprocess, "Popen", popen)
    program(monkeypatch, DIES)
    with pytest.raises(BuildError) as raised:
        measure_together(NETWORK, step(ranks=3))
    assert str(raised.value) == "gloo: rank 1 was ended by signal 9; the others were ended"
    assert len(started) == 3
    assert left(*(process.pid for process in started)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_fails_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of what it wrote, escaped."""
    program(monkeypatch, "if rank == 0: sys.exit('first\\nthe \\x1b[31mlast')\nsignal.pause()")
    with pytest.raises(BuildError) as raised:
        measure_together(NETWORK, step())
    assert str(raised.value) == "gloo: rank 0 ended with 1: 'the \\x1b[31mlast'; the others were ended"


KILLED_AND_NOTICED = """
import contextlib, select
pipe = os.path.dirname(question['store']) + '/pipe'
with contextlib.suppress(FileExistsError): os.mkfifo(pipe)
if rank == 1:
    open(pipe, 'w').write(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)
killed = int(open(pipe).read())
with contextlib.suppress(ProcessLookupError): select.select([os.pidfd_open(killed)], [], [])
sys.exit('Connection closed by peer')
"""


def test_whoever_was_killed_is_named_and_not_who_missed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's connection is closed, which it notices as soon as the first one is gone."""
    program(monkeypatch, KILLED_AND_NOTICED)
    monkeypatch.setattr(gloo, "PAUSE", 1.0)
    with pytest.raises(BuildError, match="gloo: rank 1 was ended by signal 9"):
        measure_together(NETWORK, step())


def test_a_rank_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time in which it should have is over."""
    monkeypatch.setattr(gloo, "TIMEOUT", 1)
    program(monkeypatch, "if rank == 0: sys.exit()\nsignal.pause()")
    with pytest.raises(
        BuildError, match=r"^gloo: rank 1 did not end in 1 seconds after the first one had; it was ended$"
    ):
        measure_together(NETWORK, step())


DIES_IN_A_STEP = """
import threading
from vggkit.model import rank as module, rank_process
own = module.RankTraining.step
def step(training):
    if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
    own(training)
module.RankTraining.step = step
import msgspec
from vggkit.model.gloo import RankQuestion
rank_process.answer(msgspec.convert(question, RankQuestion))
"""


def test_a_rank_that_dies_in_a_step_ends_the_one_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the time in which it would have to answer."""
    program(monkeypatch, DIES_IN_A_STEP)
    with pytest.raises(BuildError, match=r"^gloo: rank 1 was ended by signal 9"):
        measure_together(NETWORK, step())


def test_a_rank_ends_with_whoever_has_asked(tmp_path: Path) -> None:
    """Though it waits for another one that never comes."""
    question = RankQuestion(dump(NETWORK.config), step().of_rank(0), str(tmp_path / "store"), 600)
    with subprocess.Popen(gloo.PROGRAM, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdin is not None
        running.stdin.write(msgspec.json.encode(question) + b"\n")
        running.stdin.close()
        assert running.wait(timeout=120) == 1


# What is too much


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--gloo: needs several ranks, such as --ranks 2 --parallel ddp"),
        (("--ranks", "2", "--parallel", "ddp", "--device", "cuda"), "--gloo: needs --device cpu, found cuda"),
        (
            ("--ranks", "17", "--parallel", "ddp"),
            "ranks: expected at most 16 processes with --gloo, found 17; without it any number",
        ),
        (
            ("--ranks", "8", "--parallel", "ddp"),
            "gloo: 8 processes would take 25.84 GB, and this machine has 25.84 GB; expected fewer ranks, a smaller"
            " batch or a smaller network. Without --gloo nothing is allocated",
        ),
    ],
    ids=str,
)
def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str) -> None:
    """In one line, before a process starts: eight ranks by ddp hold 2,276,423,056 bytes each, and D has 553,430,176."""
    monkeypatch.setattr(gloo, "free_bytes", lambda: 8 * (2_276_423_056 + 553_430_176 + gloo.PROCESS_BYTES) - 1)
    monkeypatch.setattr(gloo, "PROGRAM", ("false",))
    assert told("verify", "D", *options, "--gloo") == f"Error: {said}\n"


def test_the_machine_has_some_memory() -> None:
    """At most what it was built with."""
    assert 0 < gloo.free_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

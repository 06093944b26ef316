"""One of several real processes, which train, save and load a small model by each strategy: `start` starts them.

They meet at a file, so that no port is taken, and talk by gloo.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed import pipelining
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage

import vggkit

ROOT = Path(__file__).parents[2]
SECONDS = 120
"""After so long a rank gives up waiting for another; none waits so long unless one is dead."""

CONFIG = vggkit.loads(
    "{name: x, input: 3x8x8, blocks: [[conv3-8, conv3-8, maxpool], [conv3-8]],"
    " classifier: [{fc: 26, dropout: 0}, {fc: 48, dropout: 0}, FC-10]}"
)
STEPS = 8
LIVED = 5
"""So many forward passes there are before a rank is killed in one: some steps, or a step and a microbatch."""


class Case(NamedTuple):
    """A strategy, and how a batch is shared.

    Args:
        name: what its files are called.
        parallel: the strategy.
        options: its options.
        ranks: how many processes train.
        shares: into how many parts a batch is divided: the ranks of each have the same images.
        schedule: which one runs the stages, if there are stages.
        is_whole: whether `save_weights` takes the model.
        is_in_parts: whether torch's `get_model_state_dict` has all of it.
    """

    name: str
    parallel: str
    options: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    ranks: int = 2
    shares: int = 2
    schedule: str = ""
    is_whole: bool = True
    is_in_parts: bool = True

    def share(self, rank: int) -> slice:
        """Return which images of a step are a rank's."""
        return slice(rank // (self.ranks // self.shares), None, self.shares)


CASES = [
    Case("ddp", "ddp"),
    Case("ddp-view", "ddp-view", {"bucket_cap_mb": 0.01, "static_graph": True}),
    Case("zero1", "zero1"),
    Case("fsdp", "fsdp"),
    Case("fsdp-layers", "fsdp", {"units": "layers", "reshard_after_forward": False}),
    Case("tensor", "tensor", shares=1),
    Case("tensor-of-3", "tensor", ranks=3, shares=1),
    Case("tensor-ddp", "tensor+ddp", ranks=4, is_in_parts=False),
    Case("gpipe", "pipeline", {"cut": "block2"}, shares=1, schedule="ScheduleGPipe", is_whole=False),
    Case(
        "1f1b",
        "pipeline",
        {"cut": "fc1", "batch": 8, "microbatches": 4},
        shares=1,
        schedule="Schedule1F1B",
        is_whole=False,
    ),
    Case("pipeline-ddp", "pipeline+ddp", {"cut": "block2"}, ranks=4, schedule="Schedule1F1B", is_whole=False),
    Case(
        "gpipe-ddp",
        "pipeline+ddp",
        {"cut": "block2", "batch": 4, "microbatches": 4},
        ranks=4,
        schedule="ScheduleGPipe",
        is_whole=False,
    ),
]


def start(command: list[str], ranks: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start a command once for each rank, as torchrun would, but with a file to meet at.

    Args:
        command: what Python runs; the rank, their number and the folder stand behind it.
        ranks: how many.
        folder: where they meet, and write.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command, str(rank), str(ranks), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(ranks)
    ]


def join(rank: int, ranks: int, folder: Path, seconds: float = SECONDS) -> None:
    """Meet the other ranks at a file."""
    store = dist.FileStore(str(folder / "meeting"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=seconds))


def small(seed: int) -> vggkit.VGG:
    """Return the model that is trained."""
    return vggkit.build(CONFIG, seed=seed, init="xavier")


def batches() -> list[tuple[Tensor, Tensor]]:
    """Return the images and classes of each step."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(8, 3, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator))
        for _ in range(STEPS)
    ]


def optimizer_of(model: nn.Module, parallel: str) -> torch.optim.Optimizer:
    """Return momentum SGD, whose state is spread over the ranks if the strategy is that."""
    if parallel == "zero1":
        return ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model: nn.Module, parallel: str, share: slice) -> list[float]:
    """Run the steps; return their losses.

    Args:
        model: as it runs on this rank.
        parallel: the strategy.
        share: which images are this rank's.
    """
    optimizer = optimizer_of(model, parallel)
    losses = []
    for images, classes in batches():
        loss = nn.functional.cross_entropy(model(images[share]), classes[share])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_stage(stage: PipelineStage, schedule: str, share: slice) -> list[float]:
    """Run the steps of a stage, four microbatches in each; return their losses, which the last stage has.

    Args:
        stage: this rank's.
        schedule: the schedule, by the name that its class has in torch.
        share: which images are this replica's.
    """
    running = getattr(pipelining, schedule)(stage, n_microbatches=4, loss_fn=nn.functional.cross_entropy)
    optimizer = optimizer_of(stage.submod, "pipeline")
    losses = []
    for every, truth in batches():
        images, classes = every[share], truth[share]
        parts: list[Tensor] = []
        optimizer.zero_grad()
        running.step(*[images] * stage.is_first, target=classes if stage.is_last else None, losses=parts)
        optimizer.step()
        losses += [torch.stack(parts).mean().item()] if parts else []
    return losses


def module_of(run: nn.Module | PipelineStage) -> nn.Module:
    """Return what has this rank's parameters."""
    return run.submod if isinstance(run, PipelineStage) else run


def play(case: Case, rank: int, folder: Path) -> None:
    """Train by a strategy from other weights on each rank, save whole and in parts, and load both.

    Args:
        case: the strategy.
        rank: this one.
        folder: where the files are written.
    """
    run = vggkit.parallelize(small(seed=rank), case.parallel, **case.options)
    share = case.share(rank)
    if isinstance(run, PipelineStage):
        losses = train_stage(run, case.schedule, share)
    else:
        losses = train(run, case.parallel, share)
    every = torch.tensor([*(losses or [0.0] * STEPS), len(losses) / STEPS])
    dist.all_reduce(every)
    if rank == 0:
        (folder / f"{case.name}.json").write_text(json.dumps((every[:-1] / every[-1]).tolist()))
    if case.is_whole:
        play_whole(case, run, rank, folder)
    if case.is_in_parts:
        play_parts(case, module_of(run), folder)


def play_whole(case: Case, model: nn.Module, rank: int, folder: Path) -> None:
    """Save a model, load it into another one, and save that."""
    vggkit.save_weights(model, folder / f"{case.name}.safetensors{rank or ''}")
    dist.barrier()
    loaded = vggkit.parallelize(small(seed=5), case.parallel, **case.options)
    vggkit.load_weights(loaded, folder / f"{case.name}.safetensors")
    vggkit.save_weights(loaded, folder / f"{case.name}.again{rank or ''}")


def play_parts(case: Case, model: nn.Module, folder: Path) -> None:
    """Let each rank save what it has, and load what ranks of this and of another strategy had."""
    parts = HuggingFaceStorageWriter(str(folder / case.name), save_distributed=True)
    dcp.save(get_model_state_dict(model), storage_writer=parts)
    dist.barrier()
    other = next(one.name for one in CASES if one.is_in_parts and one.ranks == case.ranks)
    for saved in (case.name, other):
        loaded = module_of(vggkit.parallelize(small(seed=5), case.parallel, **case.options))
        state = get_model_state_dict(loaded)
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder / saved)))
        set_model_state_dict(loaded, state)
        wanted = small(seed=5)
        vggkit.load_weights(wanted, folder / saved)
        found = {name: _whole(value) for name, value in get_model_state_dict(loaded).items()}
        check_equal({name: value for name, value in wanted.state_dict().items() if name in found}, found)


def _whole(value: Any) -> Tensor:
    tensor: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return tensor


def check_equal(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Compare weights."""
    assert list(wanted) == list(found)
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def die(case: Case, rank: int) -> None:
    """Train, and let the last rank be killed in the middle, when the others wait for what it sends."""
    run = vggkit.parallelize(small(seed=0), case.parallel, **case.options)
    steps = itertools.count()

    def kill(*_: object) -> None:
        if next(steps) == LIVED and rank == case.ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    module_of(run).register_forward_hook(kill)
    if isinstance(run, PipelineStage):
        train_stage(run, case.schedule, case.share(rank))
    else:
        train(run, case.parallel, case.share(rank))


def main(word: str, rank: int, ranks: int, folder: Path) -> None:
    """Play all strategies of so many ranks, or die by one."""
    torch.set_num_threads(1)
    join(rank, ranks, folder)
    for case in CASES:
        if word == "play" and case.ranks == ranks:
            play(case, rank, folder)
        elif word == case.name:
            die(case, rank)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

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
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.optim import ZeroRedundancyOptimizer

import vggkit

ROOT = Path(__file__).parents[2]
SECONDS = 120
"""After so long a rank gives up waiting for another; none waits so long unless one is dead."""

CONFIG = vggkit.loads(
    "{name: x, input: 3x8x8, blocks: [[conv3-8, conv3-8, maxpool], [conv3-8]],"
    " classifier: [{fc: 24, dropout: 0}, {fc: 48, dropout: 0}, FC-10]}"
)
STEPS = 3


class Case(NamedTuple):
    """A strategy, and how a batch is shared.

    Args:
        name: what its files are called.
        parallel: the strategy.
        options: its options.
        ranks: how many processes train.
        shares: into how many parts a batch is divided: the ranks of each have the same images.
        has_state: whether torch's `get_model_state_dict` has all of the model.
    """

    name: str
    parallel: str
    options: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    ranks: int = 2
    shares: int = 2
    has_state: bool = True


CASES = [
    Case("ddp", "ddp"),
    Case("ddp-view", "ddp-view", {"bucket_cap_mb": 0.01, "static_graph": True}),
    Case("zero1", "zero1"),
    Case("fsdp", "fsdp"),
    Case("fsdp-layers", "fsdp", {"units": "layers", "reshard_after_forward": False}),
    Case("tensor", "tensor", shares=1),
    Case("tensor-ddp", "tensor+ddp", ranks=4, has_state=False),
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


def train(model: nn.Module, parallel: str, own: slice) -> list[float]:
    """Run the steps; return their losses.

    Args:
        model: as it runs on this rank.
        parallel: the strategy.
        own: which images are this rank's.
    """
    optimizer = optimizer_of(model, parallel)
    losses = []
    for images, classes in batches():
        loss = nn.functional.cross_entropy(model(images[own]), classes[own])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimizer.step()
        losses.append(loss.item())
    return losses


def play(case: Case, rank: int, folder: Path) -> None:
    """Train by a strategy from other weights on each rank, save whole and in parts, and load both.

    Args:
        case: the strategy.
        rank: this one.
        folder: where the files are written.
    """
    model = vggkit.parallelize(small(seed=rank), case.parallel, **case.options)
    share = rank // (case.ranks // case.shares)
    losses = torch.tensor(train(model, case.parallel, slice(share, None, case.shares)))
    dist.all_reduce(losses)
    if rank == 0:
        (folder / f"{case.name}.json").write_text(json.dumps((losses / case.ranks).tolist()))
    vggkit.save_weights(model, folder / f"{case.name}.safetensors{rank or ''}")
    dist.barrier()
    loaded = vggkit.parallelize(small(seed=5), case.parallel, **case.options)
    vggkit.load_weights(loaded, folder / f"{case.name}.safetensors")
    vggkit.save_weights(loaded, folder / f"{case.name}.again{rank or ''}")
    if case.has_state:
        play_parts(case, model, folder)


def play_parts(case: Case, model: nn.Module, folder: Path) -> None:
    """Let each rank save what it has, and load what ranks of this and of another strategy had."""
    parts = HuggingFaceStorageWriter(str(folder / case.name), save_distributed=True)
    dcp.save(get_model_state_dict(model), storage_writer=parts)
    dist.barrier()
    for saved in (case.name, CASES[0].name):
        loaded = vggkit.parallelize(small(seed=5), case.parallel, **case.options)
        state = get_model_state_dict(loaded)
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder / saved)))
        set_model_state_dict(loaded, state)
        wanted = vggkit.load_model(folder / f"{saved}.safetensors").state_dict()
        check_equal(wanted, {name: _whole(value) for name, value in get_model_state_dict(loaded).items()})


def _whole(value: Any) -> Tensor:
    tensor: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return tensor


def check_equal(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Compare weights."""
    assert list(wanted) == list(found)
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def die(case: Case, rank: int) -> None:
    """Train, and let the last rank be killed in the second step, when the others wait for its gradients."""
    model = vggkit.parallelize(small(seed=0), case.parallel, **case.options)
    steps = itertools.count()

    def kill(*_: object) -> None:
        if next(steps) and rank == case.ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_hook(kill)
    train(model, case.parallel, slice(None))


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

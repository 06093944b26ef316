"""One of several real processes, which train, save and load a small model by each strategy: `start` starts them.

They meet at a file, so that no port is taken, and talk by gloo.
"""

from __future__ import annotations

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
    """A strategy, and how its batch is shared.

    Args:
        name: what its files are called.
        parallel: the strategy.
        options: its options.
        shares_batch: whether all ranks have the same images.
    """

    name: str
    parallel: str
    options: dict[str, Any]
    shares_batch: bool = False


CASES = [
    Case("ddp", "ddp", {}),
    Case("ddp-view", "ddp-view", {"bucket_cap_mb": 0.01, "static_graph": True}),
    Case("zero1", "zero1", {}),
    Case("fsdp", "fsdp", {}),
    Case("fsdp-layers", "fsdp", {"units": "layers", "reshard_after_forward": False}),
    Case("tensor", "tensor", {}, shares_batch=True),
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


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights, put together."""
    state: dict[str, Any] = get_model_state_dict(model)
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}


def play(case: Case, rank: int, ranks: int, folder: Path) -> None:
    """Train by a strategy from other weights on each rank, save whole and in parts, and load both."""
    model = vggkit.parallelize(small(seed=rank), case.parallel, **case.options)
    own = slice(None) if case.shares_batch else slice(rank, None, ranks)
    losses = torch.tensor(train(model, case.parallel, own))
    dist.all_reduce(losses)
    if rank == 0:
        (folder / f"{case.name}.json").write_text(json.dumps((losses / ranks).tolist()))
    vggkit.save_weights(model, folder / f"{case.name}{rank or ''}.safetensors")
    parts = HuggingFaceStorageWriter(str(folder / case.name), save_distributed=True)
    dcp.save(get_model_state_dict(model), storage_writer=parts)
    dist.barrier()

    trained = whole(model)
    loaded = vggkit.parallelize(small(seed=5), case.parallel, **case.options)
    vggkit.load_weights(loaded, folder / f"{case.name}.safetensors")
    check_equal(trained, whole(loaded))
    for saved in (case.name, CASES[0].name):  # the same in the same order on all ranks, or they wait for each other
        continued = vggkit.parallelize(small(seed=5), case.parallel, **case.options)
        state = get_model_state_dict(continued)
        dcp.load(state, storage_reader=HuggingFaceStorageReader(str(folder / saved)))
        set_model_state_dict(continued, state)
        check_equal(vggkit.load_model(folder / f"{saved}.safetensors").state_dict(), whole(continued))


def check_equal(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Compare weights."""
    assert list(wanted) == list(found)
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def die(case: Case, rank: int, ranks: int) -> None:
    """Train, and let the last rank be killed in the second step, when the others wait for its gradients."""
    model = vggkit.parallelize(small(seed=0), case.parallel, **case.options)
    step = 0

    def kill(*_: object) -> None:
        nonlocal step
        step += 1
        if step > 1 and rank == ranks - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_hook(kill)
    train(model, case.parallel, slice(None))


def main(word: str, rank: int, ranks: int, folder: Path) -> None:
    """Play all strategies, or die by one."""
    torch.set_num_threads(1)
    join(rank, ranks, folder)
    for case in CASES:
        if word == "play":
            play(case, rank, ranks, folder)
        elif word == case.name:
            die(case, rank, ranks)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

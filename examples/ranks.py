"""The digits example on several ranks, by each of torch's engines: the losses are those of one process.

Run `torchrun --standalone --nproc-per-node 2 examples/ranks.py --parallel fsdp` with vggkit and scikit-learn installed,
and `python examples/ranks.py` for one process; `tensor+ddp` and `pipeline+ddp` need `--nproc-per-node 4`. It takes
seconds on a processor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

import vggkit

CONFIG = Path(__file__).with_name("digits.yaml")
ALONE = "none"
EACH = ("ddp", "ddp-view", "zero1", "fsdp")
"""Strategies by which each rank has its part of a batch."""
SHARED = {ALONE: 1, "tensor": 1, "pipeline": 1, "tensor+ddp": 2, "pipeline+ddp": 2}
"""Into how many parts others divide a batch: one for each replica of the model, whose ranks follow each other."""
STAGED = ("pipeline", "pipeline+ddp")
"""Those that cut the model into stages: two of them, here."""
BATCH = 32
MICROBATCHES = 4

DTYPE = torch.float64
"""Sums over ranks are rounded otherwise; in float32 training would make much of that within some epochs."""

Step = Callable[[Tensor, Tensor], "Tensor | None"]
"""Runs forward and backward on images and classes, and returns the loss, if this rank has it."""


def built(seed: int) -> vggkit.VGG:
    """Return the model. Dropout and batch norm are left out, as each rank would draw, and average, its own."""
    return vggkit.build(CONFIG, batch_norm=False, dropout=0, seed=seed, dtype=DTYPE)


def inputs(digits: Tensor) -> Tensor:
    """Return digits of 0 … 16 as the network's inputs from 0 to 1."""
    return digits.to(DTYPE)[:, None] / 16


def options_of(parallel: str) -> dict[str, Any]:
    """Return what else `vggkit.parallelize` must know: of stages where they begin, and which shapes are sent."""
    if parallel not in STAGED:
        return {}
    return {"cut": "block2", "batch": BATCH // SHARED[parallel], "microbatches": MICROBATCHES}


def step_of(run: nn.Module | PipelineStage) -> Step:
    """Return a step of what `vggkit.parallelize` has returned."""
    if isinstance(run, PipelineStage):
        stage, schedule = run, ScheduleGPipe(run, MICROBATCHES, loss_fn=nn.functional.cross_entropy)

        def staged(images: Tensor, classes: Tensor) -> Tensor | None:
            losses: list[Tensor] = []
            schedule.step(*[images] * stage.is_first, target=classes if stage.is_last else None, losses=losses)
            return torch.stack(losses).mean() if losses else None

        return staged

    def plain(images: Tensor, classes: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(run(images), classes)
        loss.backward()
        return loss.detach()

    return plain


def mean(loss: Tensor | None) -> float:
    """Return the mean of the losses that the ranks have."""
    if not dist.is_initialized():
        return 0.0 if loss is None else loss.item()
    every = torch.zeros(2, dtype=DTYPE) if loss is None else torch.stack([loss, torch.ones_like(loss)])
    dist.all_reduce(every)
    return (every[0] / every[1]).item()


def train(run: nn.Module | PipelineStage, parallel: str, digits: Tensor, classes: Tensor, epochs: int) -> list[float]:
    """Fit a model to digits; return the mean loss of each epoch."""
    parameters = list((run.submod if isinstance(run, PipelineStage) else run).parameters())
    if parallel == "zero1":
        optimizer: torch.optim.Optimizer = ZeroRedundancyOptimizer(parameters, torch.optim.AdamW, lr=0.002)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=0.002)
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    parts = SHARED.get(parallel, ranks)
    own = slice(rank * parts // ranks, None, parts)
    step = step_of(run)
    order = torch.Generator().manual_seed(0)  # the same on all ranks
    means = []
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in torch.randperm(len(digits), generator=order).split(BATCH)[:-1]:  # the last one is smaller
            optimizer.zero_grad()
            losses.append(mean(step(inputs(digits[batch[own]]), classes[batch[own]])))
            optimizer.step()
        means.append(sum(losses) / len(losses))
        if rank == 0:
            print(f"{parallel}, epoch {epoch}: loss {means[-1]:.9f}", flush=True)
    return means


def save(run: nn.Module | PipelineStage, path: Path) -> Path:
    """Save a model, on all ranks; return what can be loaded: a file, or a folder with what each stage had."""
    if isinstance(run, PipelineStage):
        writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
        dcp.save(get_model_state_dict(run.submod), storage_writer=writer)
        return path
    file = path.with_suffix(".safetensors")
    vggkit.save_weights(run, file)
    return file


@torch.inference_mode()
def right(path: Path, digits: Tensor, classes: Tensor) -> int:
    """Load weights in one process; return how many digits are told right."""
    model = built(seed=1)
    vggkit.load_weights(model, path)
    return int((model.eval()(inputs(digits)).argmax(1) == classes).sum())


def main() -> None:
    """Train, save, load and test by each strategy that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parallel", nargs="+", default=[ALONE], choices=[*EACH, *SHARED], help="what the ranks do")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where the files are written")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="how long a rank waits for others")
    asked = parser.parse_args()

    data = load_digits()
    split = train_test_split(data.images, data.target, test_size=500, random_state=0)
    digits, held_out, classes, held_out_classes = map(torch.from_numpy, split)
    torch.set_num_threads(1)  # more would wait for each other: these layers are too small to share out
    asked.output.mkdir(parents=True, exist_ok=True)
    rank = 0
    if asked.parallel != [ALONE]:
        dist.init_process_group("gloo", timeout=timedelta(seconds=asked.timeout))
        rank = dist.get_rank()
    try:
        for parallel in asked.parallel:
            model = built(seed=rank)  # all ranks begin with the first one's weights
            run = model if parallel == ALONE else vggkit.parallelize(model, parallel, **options_of(parallel))
            train(run, parallel, digits, classes, asked.epochs)
            path = save(run, asked.output / f"digits-{parallel}")
            if dist.is_initialized():
                dist.barrier()  # until all is written
            if rank == 0:
                count = right(path, held_out, held_out_classes)
                print(f"{parallel}, loaded in one process: {count} of {len(held_out)} right", flush=True)
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise SystemExit(f"rank {rank} ends, as another one is gone or too slow: {error}") from None
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()

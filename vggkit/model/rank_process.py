"""The program that is one of several ranks: it trains with the others by gloo, and measures what it holds.

It reads a `RankQuestion` from a line of its standard input, and writes a `Measured` to its standard output. If whoever
has asked is gone, it ends.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from datetime import timedelta

import msgspec
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from vggkit.model.gloo import RankQuestion
from vggkit.model.rank import Measured, measure, measured_mesh
from vggkit.network import Network
from vggkit.notation.zoo import loads


def answer(question: RankQuestion) -> Measured:
    """Join the other ranks, train with them, and measure."""
    options, seconds = question.options, timedelta(seconds=question.seconds)
    group = options.group
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // group.ranks))
    store = FileStore(question.store, group.ranks)
    dist.init_process_group("gloo", store=store, rank=group.own, world_size=group.ranks, timeout=seconds)
    try:
        measured = measure(Network.of(loads(question.config)), options, measured_mesh(options))
        dist.barrier()  # nobody leaves while somebody is still sending
    finally:
        dist.destroy_process_group()
    return measured


def end_with_whoever_asked() -> None:
    """End as soon as standard input does."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    question = msgspec.json.decode(sys.stdin.buffer.readline(), type=RankQuestion)
    end_with_whoever_asked()
    sys.stdout.buffer.write(msgspec.json.encode(answer(question)))
    sys.stdout.flush()
    os._exit(0)  # threads of gloo's and ours are left

"""Let vggkit's own recorder run on the card, each question in a new process that has not used it.

A question is one of `vggkit.model.recording`, and what part of the card there is. It may say besides that kernels take
workspaces, as those of a real card do, and that the driver's addresses come in any order. The answer is the recorder's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import warnings
from typing import Any

import msgspec
import torch
import torch._dynamo  # every optimizer imports it, which takes a second
from torch import Tensor

from tests.footprint.card import play_steps
from vggkit.model import recorder
from vggkit.model.recording import Question

CUBLAS_WORKSPACE = 8_519_680
"""What a thread's first product allocates and keeps (aten/src/ATen/cuda/CublasHandlePool.cpp, :4096:2:16:8)."""

OF_THREADS: dict[int, Tensor] = {}


def take_workspaces(library: torch.library.Library) -> None:
    """Let kernels allocate what is no tensor of the network: for their own time, or a thread's first one for good."""

    def convolution(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
        y = play_steps.convolution(x, weight, *others)
        first = x.new_empty(x.numel() + 128)
        second = x.new_empty(weight.shape)
        del first, second
        return y

    def convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *others: Any) -> list[Tensor | None]:
        gradients: list[Tensor | None] = []
        for size, is_wanted in zip((x.shape, weight.shape, weight.shape[:1]), others[-1]):
            gradients.append(gradient.new_empty(size) if is_wanted else None)
            gradient.new_empty(weight.shape)  # as large as the weight's gradient, which may come next
        return gradients

    def product(left: Tensor, right: Tensor) -> Tensor:
        y = play_steps.product(left, right)
        thread = threading.get_ident()
        if thread not in OF_THREADS:
            OF_THREADS[thread] = torch.empty(CUBLAS_WORKSPACE, dtype=torch.uint8, device="cuda")
        return y

    def mean(x: Tensor, *_others: Any, out: Tensor, **_options: Any) -> Tensor:
        x.new_empty(128)
        return out

    library.impl("mean.out", mean, "CUDA", allow_override=True)
    library.impl("convolution", convolution, "CUDA", allow_override=True)
    library.impl("convolution_backward", convolution_backward, "CUDA", allow_override=True)
    library.impl("mm", product, "CUDA", allow_override=True)
    library.impl("addmm", lambda _, left, right, **_scales: product(left, right), "CUDA", allow_override=True)


def answer(line: str) -> None:
    """Print the answer to a question."""
    question = json.loads(line)
    if question.pop("workspaces", False):
        take_workspaces(library)
    if question.pop("scatters", False):
        os.environ["CARD_SCATTERS"] = "1"
    torch.cuda.set_per_process_memory_fraction(float(question.pop("share", 1)))
    sys.stdout.buffer.write(msgspec.json.encode(recorder.answer(msgspec.convert(question, Question))) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    gc.disable()  # as in the recorder
    warnings.simplefilter("ignore")
    torch.backends.cudnn.enabled = False  # its batch norm is replaced
    play_steps.replace(library := torch.library.Library("aten", "IMPL"))
    for line in sys.stdin:
        if not (process := os.fork()):
            answer(line)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit(1)

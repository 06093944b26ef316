"""The program that runs a loop of steps on a card and records what torch's allocator is asked for.

It reads a `Question` from standard input and writes a `Recording` to standard output, or a `Failure`.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
import torch._dynamo  # torch imports it in the first step, and so keeps the variables of that step
from torch import Tensor

from vggkit.base.errors import VggkitError
from vggkit.footprint.card import Figures
from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.recording import Failure, Question, Recording
from vggkit.model.steps import PerceptualLoop, Training, autocast, images_of, model_of
from vggkit.network import Network
from vggkit.notation.zoo import loads

IS_BY_ADDRESS = torch.__version__ < "2.13"  # compared as versions, not as texts
"""Whether the address decides between free blocks of the same size, and not the age of their segments; CUDA wheels have
had BlockComparatorSizeCounterAddress since 2.13.0 (pytorch/pytorch#183591)."""


class Inference:
    """A loop of forward passes in `eval()` mode without gradients; the arguments are those of `Training`."""

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.options = options
        self.model = model_of(network, options).eval()
        self.images = images_of(network, options, options.batch)
        self.scores: Tensor | None = None

    def step(self) -> None:
        """Run a forward pass. The scores of the pass before live until the new ones are there."""
        with torch.no_grad(), autocast(self.options):
            self.scores = self.model(self.images)


LOOPS: dict[str, Any] = {"training": Training, "inference": Inference, "perceptual": PerceptualLoop}
"""The loop of each mode of a step."""


class Events:
    """What has been asked of the allocator since the process started.

    Attributes:
        seen: how many entries of torch's history have been read.
        numbers: of each address that is allocated, which allocation it is, counted from 1.
        count: how many allocations there were.
        addresses: of each segment that was asked for, where it is.
        streams: of each allocation, its stream: 0 for the usual one, and the others in the order in which they come.
    """

    def __init__(self) -> None:
        torch.cuda.memory._record_memory_history("all", context=None)
        self.seen = 0
        self.numbers: dict[int, int] = {}
        self.count = 0
        self.addresses: list[int] = []
        self.streams: list[int] = []
        self._streams_seen = {0: 0}

    def read(self) -> list[int]:
        """Return what is new: bytes that are allocated (> 0), or that the n-th allocation is freed (-n)."""
        history = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
        events = []
        for entry in history[self.seen :]:
            if entry["action"] == "alloc":
                self.count += 1
                self.numbers[entry["addr"]] = self.count
                self.streams.append(self._streams_seen.setdefault(entry["stream"], len(self._streams_seen)))
                events.append(entry["size"])
            elif entry["action"] == "free_completed":
                events.append(-self.numbers.pop(entry["addr"]))
            elif entry["action"] == "segment_alloc":
                self.addresses.append(entry["addr"])
        self.seen = len(history)
        return events


def answer(question: Question) -> Recording | Failure:
    """Run a loop, in a process that has not used the card before."""
    network, options = Network.of(loads(question.config)), question.options
    if not torch.cuda.is_available():
        return Failure(
            f"device: expected a CUDA device that torch {torch.__version__} can use, found none; device cpu needs none"
        )
    try:
        return _recording(network, options, question.steps)
    except torch.OutOfMemoryError:
        return _full(network, options)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        return Failure(f"{network.name}: torch can't run {options.mode} on this card: {reason}")
    except VggkitError as error:
        return Failure(str(error))


@contextmanager
def loop_of(network: Network, options: StepOptions) -> Iterator[Any]:
    """Make a loop; of several ranks that of one of them, without the others."""
    if options.group == NO_GROUP:
        yield LOOPS[options.mode](network, options)
        return
    from vggkit.model.parallelize import mesh_of  # what several ranks need takes seconds to import
    from vggkit.model.rank import fake_group, set_up_of, training_of

    with fake_group(options.group):
        yield training_of(network, options, mesh_of(options.device, options.group), set_up_of(options))


def _recording(network: Network, options: StepOptions, count: int) -> Recording | Failure:
    torch.cuda.init()  # type: ignore[no-untyped-call]  # torch has no types here
    events = Events()
    figures: list[Figures] = []
    with loop_of(network, options) as loop:
        parts = [events.read()]
        for number in range(count):
            torch.cuda.reset_peak_memory_stats()
            for _ in range(1 if number else options.first_steps):
                loop.step()
            parts.append(events.read())
            figures.append(_figures())
        if figures[-1].retries:  # from here on the figures are those of this card, and no plan's
            return _full(network, options)
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return Recording(
            card=torch.cuda.get_device_name(),
            total_bytes=total,
            used_bytes=total - free,
            reserved_bytes=torch.cuda.memory_reserved(),
            parts=parts,
            addresses=events.addresses if IS_BY_ADDRESS else [],
            streams=events.streams if any(events.streams) else [],
            figures=figures,
        )


def _full(network: Network, options: StepOptions) -> Failure:
    _, total = torch.cuda.mem_get_info()
    return Failure(
        f"{network.name}: {options.mode} at batch {options.batch} fills the card of {total:,} bytes; expected a smaller"
        " batch, a larger card, or one that no other process uses"
    )


def _figures() -> Figures:
    statistics = torch.cuda.memory_stats()
    allocated, requested, reserved = (
        statistics[f"{kind}_bytes.all.peak"] for kind in ("allocated", "requested", "reserved")
    )
    return Figures(allocated, requested, reserved, statistics["num_alloc_retries"])


if __name__ == "__main__":
    gc.disable()  # tensors die with their last reference, not when the collector happens to come by
    warnings.simplefilter("ignore")
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    sys.stdout.buffer.write(msgspec.json.encode(answer(question)))

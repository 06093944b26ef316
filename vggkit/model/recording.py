"""What torch's CUDA allocator is asked for in a loop of steps on this machine's card, recorded in a process of its own.

torch reads the allocator's settings once, as it starts, and a card is empty only for a process that has used none of
it. So each loop has a new process, which runs `vggkit.model.recorder`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from vggkit.base.errors import BuildError, shorten
from vggkit.footprint.card import Figures
from vggkit.footprint.steps.options import StepOptions
from vggkit.network import Network
from vggkit.notation.zoo import dump

RECORDER = (sys.executable, "-m", "vggkit.model.recorder")
"""The program that runs a loop and records it."""

SETTINGS_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Where torch finds the allocator's settings; the second name is the old one."""

WITHOUT_CACHE = "PYTORCH_NO_CUDA_MEMORY_CACHING"
"""This variable switches the allocator off."""


class Question(msgspec.Struct, frozen=True):
    """What to record.

    Args:
        config: the text of a configuration.
        options: what a step is like; on CUDA.
        steps: how many to run.
    """

    config: str
    options: StepOptions
    steps: int


class Recording(msgspec.Struct, frozen=True, tag=True):
    """What torch's allocator was asked for from an empty card on, and what it took of it.

    Args:
        card: the card's name.
        total_bytes: what CUDA reports for it.
        used_bytes: what everybody has of the card after the last step.
        reserved_bytes: what this process's allocator has of that.
        parts: what was asked for before the first step, and in each step: bytes (> 0), or that the n-th allocation of
            all is freed (-n).
        addresses: where the driver has put the allocator's segments, in order, if that decides which block is taken;
            else none.
        streams: the stream of each allocation, in order, if there are several: 0 for the usual one, and the others in
            the order in which they come; else none.
        figures: the most bytes in each step.
    """

    card: str
    total_bytes: int
    used_bytes: int
    reserved_bytes: int
    parts: list[list[int]]
    addresses: list[int]
    streams: list[int]
    figures: list[Figures]


class Failure(msgspec.Struct, frozen=True, tag=True):
    """Why there is no recording.

    Args:
        message: one line, for people.
    """

    message: str


def record(network: Network, options: StepOptions, steps: int) -> Recording:
    """Run a loop of steps on this machine's card.

    Args:
        network: the network.
        options: what a step is like; on CUDA.
        steps: how many to run.

    Raises:
        BuildError: if there is no card, or the loop can't run on it.
    """
    answer = msgspec.json.decode(ask(Question(dump(network.config), options, steps)), type=Recording | Failure)
    if isinstance(answer, Failure):
        raise BuildError(answer.message)
    return answer


def ask(question: Question) -> bytes:
    """Return what the recorder writes, in a process of its own with the allocator's settings.

    Raises:
        BuildError: if the process breaks down.
    """
    environment = {**os.environ, **dict.fromkeys(SETTINGS_VARIABLES, question.options.allocator)}
    environment.pop(WITHOUT_CACHE, None)
    done = subprocess.run(RECORDER, input=msgspec.json.encode(question), capture_output=True, env=environment)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BuildError(f"device: the process on the card ended with {done.returncode}: {shorten(last, 200)}")
    return done.stdout

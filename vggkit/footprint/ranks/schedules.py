"""In which order a stage of a pipeline runs the microbatches of a step: one class for each order.

A stage runs each microbatch forward and backward. `torch.distributed.pipelining.schedules` has the same orders. When a
gradient that has been sent is freed depends on them, too: it lives as long as the variable that holds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from vggkit.base.eager import Storage


class Microbatches(Protocol):
    """A stage that runs microbatches, which are counted from 0."""

    def forward(self, number: int) -> None:
        """Receive a microbatch, run it forward, and send the output."""

    def backward(self, number: int) -> Storage | None:
        """Receive the output's gradient, run backward, and send the input's: the caller holds it, if there is one."""

    def let_go(self, sent: Storage | None) -> None:
        """Give up a gradient that has been sent."""


class Schedule(ABC):
    """An order of a step's microbatches."""

    name: ClassVar[str]
    """The word that asks for it."""

    torch_class: ClassVar[str]
    """Its class in `torch.distributed.pipelining`."""

    @abstractmethod
    def least(self, stages: int) -> int:
        """Return how many microbatches it needs at least."""

    @abstractmethod
    def ahead(self, stage: int, stages: int, microbatches: int) -> int:
        """Return how many microbatches a stage runs forward before the first one runs backward.

        Args:
            stage: counted from 0.
            stages: how many there are.
            microbatches: of a step.
        """

    @abstractmethod
    def run(self, stage: Microbatches, ahead: int, microbatches: int) -> None:
        """Run all microbatches.

        Args:
            stage: what runs them.
            ahead: how many run forward at first.
            microbatches: how many there are.
        """


class GPipe(Schedule):
    """All microbatches run forward, then all backward (Huang et al. 2019, arXiv:1811.06965)."""

    name = "gpipe"
    torch_class = "ScheduleGPipe"

    def least(self, stages: int) -> int:  # the rule of another order depends on them
        return 1

    def ahead(self, stage: int, stages: int, microbatches: int) -> int:  # it is the same for all stages
        return microbatches

    def run(self, stage: Microbatches, ahead: int, microbatches: int) -> None:  # they are equal
        for number in range(microbatches):
            stage.forward(number)
        sent = None
        for number in range(microbatches):
            stage.let_go(sent)  # torch's list of what is sent has that of what is received now
            sent = stage.backward(number)
        stage.let_go(sent)


class OneForwardOneBackward(Schedule):
    """A microbatch runs backward as soon as it can, then the next one forward (Narayanan et al. 2019, PipeDream)."""

    name = "1f1b"
    torch_class = "Schedule1F1B"

    def least(self, stages: int) -> int:
        return stages

    def ahead(self, stage: int, stages: int, microbatches: int) -> int:
        return min(microbatches, stages - stage)

    def run(self, stage: Microbatches, ahead: int, microbatches: int) -> None:
        for number in range(ahead):
            stage.forward(number)
        sent = None
        for number in range(microbatches):
            gradient = stage.backward(number)
            stage.let_go(sent)  # that of the microbatch before is there until now
            sent = gradient
            if ahead + number < microbatches:
                stage.forward(ahead + number)
        stage.let_go(sent)


SCHEDULES: dict[str, Schedule] = {schedule.name: schedule for schedule in (GPipe(), OneForwardOneBackward())}
"""Every order by the word that asks for it."""

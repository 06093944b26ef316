"""Network → what a card must have for its steps: blocks and segments, from an empty card.

A step of `plan` is walked through once, and what it allocates and frees is written down in order. A training loop plays
that list to the allocator: the parameters are made, and steps run until one leaves everything as the step before did.
"""

from __future__ import annotations

from typing import NamedTuple

from vggkit.base.eager import OPTIMIZER, Eager, Parameter, Storage, Tensor
from vggkit.footprint.allocator import Allocator, Block, OutOfMemory
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.plan import OPTIMIZER_STEP, Step, StepOptions
from vggkit.network import Network

MOST_STEPS = 10
"""Steps after which a loop that has not come to rest is taken as it is."""


class Event(NamedTuple):
    """An allocation or a free.

    Args:
        storage: a number, the same whenever the storage is allocated or freed again.
        size: bytes that are asked for; 0 to free it.
    """

    storage: int
    size: int


class Recorder(Eager):
    """A step that writes down what it allocates and frees, in order.

    Attributes:
        before: what is there when the step begins.
        states: what the optimizer keeps between steps.
        forward: events of the forward pass and the loss.
        rest: events from the end of autocast on, the optimizer's step excluded.
        step: events of the optimizer's step.
    """

    def __init__(self, options: StepOptions) -> None:
        super().__init__(options.batch, options.device, training=options.is_training)
        self.numbers: dict[Storage, int] = {}
        self.before: list[Event] = []
        self.states: list[Event] = []
        self.forward: list[Event] = []
        self.rest: list[Event] = []
        self.step: list[Event] = []
        self._ended = False

    def new(self, per_image: int, constant: int = 0, kind: int | None = None) -> Storage:
        storage = super().new(per_image, constant, kind)
        number = self.numbers[storage] = len(self.numbers)
        self._events(storage).append(Event(number, per_image * self.batch + constant))
        return storage

    def release(self, *held: Storage | Tensor | Parameter | None) -> None:
        for holder in held:
            super().release(holder)
            if holder is None:
                continue
            storage = holder if isinstance(holder, Storage) else holder.storage
            if storage.references == 0:
                self._events(storage).append(Event(self.numbers[storage], 0))

    def end_autocast(self) -> None:
        self._ended = True
        super().end_autocast()

    def _events(self, storage: Storage) -> list[Event]:
        if self.event == "start":
            return self.states if storage.kind == OPTIMIZER else self.before
        if self.event == OPTIMIZER_STEP:
            return self.step
        return self.rest if self._ended else self.forward


class Loop:
    """A training loop as a list of events for each of its parts.

    Args:
        network: the network.
        options: what its steps are like, checked; on CUDA.
    """

    def __init__(self, network: Network, options: StepOptions) -> None:
        recorder = Recorder(options)
        step = Step(network, options, recorder)
        step.check()
        gradients = {recorder.numbers[storage] for storage in step._gradients}
        self.before = [event for event in recorder.before if event.storage not in gradients]
        self.first = [*recorder.forward, *recorder.rest, *recorder.states, *recorder.step]
        self._later: tuple[list[Event], ...] = (self.first,)
        if not options.is_training:
            return
        loss = self.first.pop()  # it lives until the next one is there
        other = loss._replace(storage=len(recorder.numbers))
        freed = [
            Event(recorder.numbers[parameter.gradient], 0)
            for parameter in step._parameters
            if parameter.gradient is not None
        ]
        later = []
        for old, new in ((loss, other), (other, loss)):
            forward = [
                event._replace(storage=new.storage) if event.storage == loss.storage else event
                for event in recorder.forward
            ]
            later.append([*freed, *forward, old, *recorder.rest, *recorder.step[:-1]])
        self._later = tuple(later)

    def step(self, number: int) -> list[Event]:
        """Return the events of a step, counted from 0."""
        return self._later[(number - 1) % len(self._later)] if number else self.first


class Figures(NamedTuple):
    """The most bytes in a step.

    Args:
        allocated: of blocks.
        requested: of tensors.
        reserved: of segments, which the card must have.
        retries: how often everything cached had been given back by then.
    """

    allocated: int
    requested: int
    reserved: int
    retries: int


def run(loop: Loop, card_bytes: int, settings: Settings, steps: int | None = None) -> list[Figures | None]:
    """Run a loop on an empty card.

    Args:
        loop: the loop.
        card_bytes: what the card has.
        settings: of the allocator.
        steps: how many; if absent, until a step has the figures of the step before.

    Returns:
        The figures of each step; the last is None if it ran out of memory.
    """
    allocator = Allocator(card_bytes, settings)
    blocks: dict[int, Block] = {}
    done: list[Figures | None] = []
    try:
        play(allocator, blocks, loop.before)
        for number in range(steps or MOST_STEPS):
            allocator.reset_peaks()
            play(allocator, blocks, loop.step(number))
            figures = Figures(
                allocator.allocated.peak, allocator.requested.peak, allocator.reserved.peak, allocator.retries
            )
            done.append(figures)
            if steps is None and done[:-1] and done[-2] == figures:
                break
    except OutOfMemory:
        done.append(None)
    return done


def play(allocator: Allocator, blocks: dict[int, Block], events: list[Event]) -> None:
    """Play events; what is allocated stands in `blocks`."""
    allocate, free = allocator.allocate, allocator.free
    for storage, size in events:
        if size:
            blocks[storage] = allocate(size)
        else:
            free(blocks.pop(storage))

"""What a fit looks for, the number of images or the side of a square one, and how its step is made for each number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, NamedTuple

import msgspec

from vggkit.base.eager import Moment
from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.footprint.card import Loop
from vggkit.footprint.plan import peak_bytes
from vggkit.footprint.steps import STEPS, settled
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import smallest_batch, steps_with_room
from vggkit.footprint.steps.step import Step
from vggkit.network import Network, place
from vggkit.notation.layers import LARGEST, Shape, times


class LoopAtBatch(NamedTuple):
    """A loop of steps, and the number of images of each."""

    loop: Loop
    batch: int


class Sought(ABC):
    """A number that a step depends on, of which the largest is looked for.

    Args:
        network: the network.
        options: what the step is like, checked.

    Of several ranks all must have room, or the one which is asked for.

    Attributes:
        word: what `--solve` takes.
        spelled: how a number is written, with a place for it.
        next_title: title of the column with the next larger one.
    """

    word: ClassVar[str]
    spelled: ClassVar[str]
    next_title: ClassVar[str]

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.network = network
        self.options = options

    def shown(self, number: int) -> int:
        """Return a number as people see it."""
        return number

    def within(self, limit: int) -> Sought:  # the cuts of a pipeline depend on it
        """Return the same where all has been decided that depends on how many bytes there are."""
        return self

    @property
    @abstractmethod
    def title(self) -> str:
        """One line that describes the step without the number."""

    @cached_property
    @abstractmethod
    def smallest(self) -> int:
        """The smallest number with which torch runs the step."""

    def images(self, number: int) -> int:
        """Return the images of such a step, of all ranks."""
        return self.at(number)[1].images

    @abstractmethod
    def peak_bytes(self, number: int) -> int:
        """Return the most bytes of tensors alive at one moment, on the step's device and the fullest rank."""

    @abstractmethod
    def largest_of_tensors(self, limit: int) -> int:
        """Return the largest number whose tensors have room in so many bytes; one below the smallest if none has."""

    @abstractmethod
    def loops(self, number: int) -> list[LoopAtBatch]:
        """Return the allocations of such steps, of each sort of ranks."""

    @abstractmethod
    def at(self, number: int) -> tuple[Network, StepOptions]:
        """Return the network, and what such a step of it is like."""


class SoughtBatch(Sought):
    """The number of images: the bytes of nearly every storage are a line over it, so that one walk answers for all.

    Where a batch has several microbatches it is the number of images of each: all have as many.
    """

    word = "batch"
    spelled = "batch {}"
    next_title = "next batch"

    def __init__(self, network: Network, options: StepOptions) -> None:
        super().__init__(network, options.with_at_once(1))
        self._microbatches = self.options.batch

    def shown(self, number: int) -> int:
        return number * self._microbatches

    def within(self, limit: int) -> Sought:
        """Return the same for the cuts with which the largest batch has room."""
        if not self.options.has_cuts_to_find:
            return self
        found = self._cut_for(1)
        while True:
            following = found.largest_of_tensors(limit) + 1
            other = self._cut_for(following)
            if other.peak_bytes(following) > limit:  # with its cuts the fullest rank has the least there
                return found
            found = other

    def _cut_for(self, number: int) -> SoughtBatch:
        """Return the same with the cuts that are best for a batch."""
        return SoughtBatch(self.network, settled(*self.at(max(number, self.smallest))))

    @property
    def title(self) -> str:
        return f"{self.network.name}: {times(self.network.input_shape)}, {self.options.words}"

    @cached_property
    def smallest(self) -> int:
        return smallest_batch(self.network, self.options) // self._microbatches

    @cached_property
    def _steps(self) -> list[Step]:
        # of ranks by tensor a single image makes views of what else is copied
        return steps_with_room(*self.at(2))

    @cached_property
    def _moments(self) -> list[Moment]:
        return [moment for step in self._steps for moment in step.moments]

    @cached_property
    def _loops(self) -> list[Loop]:
        return [step.loop for step in self._steps]

    def peak_bytes(self, number: int) -> int:
        if self.options.device == "cpu":
            return max(moment.constant + moment.per_image * number for moment in self._moments)
        return peak_bytes(*self.at(number))

    def largest_of_tensors(self, limit: int) -> int:
        moments = self._moments
        if any(moment.constant > limit for moment in moments):
            return self.smallest - 1
        above = 1 + min((limit - moment.constant) // moment.per_image for moment in moments if moment.per_image)
        # on CUDA tensors are rounded up and kernels add up in parts, which takes more than the lines say
        fewer = _first(lambda fewer: above - fewer < self.smallest or self.peak_bytes(above - fewer) <= limit, 1)
        return max(above - fewer, self.smallest - 1)

    def loops(self, number: int) -> list[LoopAtBatch]:
        return [LoopAtBatch(loop, number) for loop in self._loops]

    def at(self, number: int) -> tuple[Network, StepOptions]:
        return self.network, self.options.replace(batch=self.shown(number))


class SoughtImage(Sought):
    """The side of a square image, where the network takes any size.

    Raises:
        ArgumentError: if its parameters depend on the image's size, or torch can't run the step at any.
    """

    word = "image"
    spelled = "{0}×{0} images"
    next_title = "next side"

    def __init__(self, network: Network, options: StepOptions) -> None:
        super().__init__(STEPS[options.mode].part(network, options), options)
        if not _takes_any_size(self.network):
            raise ArgumentError(
                f"image: {network.name} has parameters that depend on the image's size: its FC layers are made for one"
                " size of maps. Expected head=gap, a trunk, or an adaptive pool before them; or ask for the largest"
                " batch"
            )
        self.peak_bytes(LARGEST)  # refuses what torch can't run at any size

    @property
    def title(self) -> str:
        channels = self.network.input_shape[0]
        return f"{self.network.name}: {channels} channels, batch {self.options.batch}, {self.options.words}"

    @cached_property
    def smallest(self) -> int:
        return _first(self._runs, 1)

    def _runs(self, side: int) -> bool:
        try:
            return not any(step.refused for step in steps_with_room(_square(self.network, side), self.options))
        except ConfigError:  # it is too small for a layer
            return False

    def peak_bytes(self, number: int) -> int:
        return peak_bytes(_square(self.network, number), self.options)

    def largest_of_tensors(self, limit: int) -> int:
        return _first(lambda side: self.peak_bytes(side) > limit, self.smallest) - 1

    def loops(self, number: int) -> list[LoopAtBatch]:
        steps = steps_with_room(_square(self.network, number), self.options)
        return [LoopAtBatch(step.loop, self.options.at_once) for step in steps]

    def at(self, number: int) -> tuple[Network, StepOptions]:
        return _square(self.network, number), self.options


SOUGHT: dict[str, type[Sought]] = {kind.word: kind for kind in (SoughtBatch, SoughtImage)}
"""What can be looked for, by the word that asks for it."""


def _first(holds: Callable[[int], bool], start: int) -> int:
    """Return the first number from `start` on for which something holds; it holds for all larger ones as well."""
    low = high = start
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _square(network: Network, side: int) -> Network:
    shape = (network.input_shape[0], side, side)
    return place(msgspec.structs.replace(network.config, input=shape))


def _takes_any_size(network: Network) -> bool:
    """Tell whether the parameters are the same for images of any size.

    Maps never shrink where the image grows. So if the largest image gives the same parameters, all between do.
    """

    def parameters(of: Network) -> list[dict[str, Shape]]:
        return [placed.layer.parameters(placed.input_shape) for placed in of]

    try:
        return parameters(network) == parameters(_square(network, LARGEST))
    except ConfigError:  # this image does not fit, so the network does not take any size
        return False

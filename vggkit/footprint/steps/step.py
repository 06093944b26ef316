"""What every step has in common: a network's layers, run on tensors without values, and what they allocate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar

from vggkit.base.eager import (
    BUFFERS,
    INDEX_BYTES,
    INPUTS,
    PARAMETERS,
    START,
    Eager,
    Event,
    Moment,
    Parameter,
    PlacedRun,
    Storage,
    Tensor,
)
from vggkit.footprint import viewer
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import CardUse, Loop, card_use
from vggkit.footprint.ranks import Alone, Placed, Strategy
from vggkit.footprint.steps.options import Mode, StepOptions
from vggkit.network import ELEMENT_BYTES, Network, PlacedLayer
from vggkit.notation.layers import elements

CONSTRUCTION = "construction of the optimizer"
"""The event in which the optimizer is made, before the first step."""

ZERO_GRAD, CLIP_GRAD, OPTIMIZER_STEP = "zero_grad", "clip_grad_norm_", "optimizer step"
"""The events in which the gradients of the step before are freed, in which those of this step are clipped, and in which
the optimizer changes the parameters."""

Blocks = list[tuple[str | None, list[PlacedRun]]]
"""The layers of each block, and then those outside of blocks."""


class Step(ABC):
    """A step that has been walked through, whether or not torch would run it.

    Args:
        network: the network.
        options: what the step is like, checked.

    Attributes:
        moments: the alive bytes after each operation.
        saved: each storage that is kept for the backward pass, and the first layer that keeps it.
        outputs: bytes of each layer's output, 0 if that is in another's memory; the loss is the last, if there is one.
        run_again: names of the layers that the backward pass runs again to their end.
        refused: names of the normalisations that torch refuses to run.
        strategy: what a rank does besides, if several train together.
    """

    mode: ClassVar[Mode]
    """The word that asks for it."""

    words: ClassVar[str]
    """What it is called in a sentence."""

    is_training: ClassVar[bool]
    """Whether the model is in training mode: dropout drops, and batch norm takes the statistics of the batch."""

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.network = network
        self.options = options
        self._eager = eager = Eager(options.at_once, options.device, training=self.is_training)
        self.moments, self.saved, self.outputs = eager.moments, eager.kept, eager.outputs
        self.run_again, self.refused = eager.run_again, eager.refused
        self._element_bytes = ELEMENT_BYTES[options.dtype]
        self._parameters: list[Parameter] = []
        self._statistics: list[Storage] = []
        self._counters: list[Storage] = []
        self.strategy: Strategy = Alone(eager, options.group, Placed((), (), (), (), list, False, options.dtype, 1))
        self._before = eager.events
        self._walk()

    @abstractmethod
    def _walk(self) -> None:
        """Allocate what is there when the step begins, and run it."""

    @property
    @abstractmethod
    def loop(self) -> Loop:
        """What a loop of such steps allocates and frees, as `vggkit.footprint.card` has it."""

    @property
    @abstractmethod
    def steady_bytes(self) -> int:
        """Bytes of what the network has between steps: parameters, gradients and optimizer state."""

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the parameters between steps, of a rank that has parts of some the parts."""
        trained = set(self.strategy.placed.trained)
        whole = [parameter.storage for parameter in self._parameters if parameter not in trained]
        held = [storage for storage in self.strategy.kept if storage.kind == PARAMETERS]
        return sum(storage.size for storage in dict.fromkeys((*whole, *held)))

    @classmethod
    def part(cls, network: Network, options: StepOptions) -> Network:  # noqa: ARG003  # a kind may need them
        """Return the part of a network that is built for a step: all of it, unless a kind needs less."""
        return network

    @property
    def multiply_accumulates(self) -> int:
        """Those of a forward pass, for one image."""
        run = (placed for placed in self.network if placed.name in self.outputs)
        return sum(placed.layer.multiply_accumulates(placed.input_shape) for placed in run)

    @cached_property
    def peak(self) -> Moment:
        """The moment of most bytes, the first of several."""
        return max(self.moments, key=lambda moment: moment.size)

    def torch_snapshot(self) -> dict[str, Any]:
        """Return a steady step of the loop in the form of torch's memory snapshots."""
        if self.options.device == "cpu":
            return viewer.on_cpu(self.loop, self.options.at_once)
        return viewer.on_cuda(self.loop, self.options.at_once, self.options.allocator)

    def card_use(self) -> CardUse:
        """Return what it takes of a card that is never full, when it is one of a loop of such steps."""
        use = card_use(self.loop, self.options.at_once, Settings.of(self.options.allocator))
        assert use is not None  # this card is never full
        return use

    # What the walks are made of

    def _place(self, layers: Iterable[PlacedLayer], frozen: Container[str] = ()) -> Blocks:
        """Allocate the parameters and buffers of layers, of which some may be frozen; return the layers by block."""
        blocks = groupby(layers, key=lambda placed: placed.block)
        return [(block, [self._placed_run(one, one.name in frozen) for one in inside]) for block, inside in blocks]

    def _placed_run(self, placed: PlacedLayer, frozen: bool) -> PlacedRun:
        parameters, buffers = self._construct(placed, frozen=frozen)
        self._parameters += parameters.values()
        for shape, buffer in zip(placed.layer.buffers(placed.input_shape).values(), buffers):
            (self._statistics if shape else self._counters).append(buffer)
        return PlacedRun(placed.name, placed.layer, parameters, frozen)

    def _construct(self, placed: PlacedLayer, *, frozen: bool) -> tuple[dict[str, Parameter], list[Storage]]:
        """Allocate and return a layer's parameters, by name, and its buffers."""
        eager, size = self._eager, self._element_bytes
        eager.event = f"construction of {placed.name}"
        parameters = {}
        for name, shape in placed.layer.parameters(placed.input_shape).items():
            storage = eager.new(0, elements(shape) * size, PARAMETERS)
            storage.is_parameter = True
            parameters[name] = Parameter(storage, shape, size, requires_grad=not frozen)
        # the buffer without a shape is batch norm's counter of batches
        shapes = placed.layer.buffers(placed.input_shape).values()
        return parameters, [eager.new(0, elements(shape) * size if shape else INDEX_BYTES, BUFFERS) for shape in shapes]

    def _images(self, batches: int = 1) -> Tensor:
        """Allocate images of as many batches as are run one after the other; return those of one."""
        self._eager.event = START
        shape = self.network.input_shape
        storage = self._eager.new(elements(shape) * self._element_bytes * batches, kind=INPUTS)
        return Tensor(storage, shape, self._element_bytes)

    def _record(self) -> list[Event]:
        """Begin a new list of what is allocated and freed from now on, and return it."""
        self._eager.events = []
        return self._eager.events

    def _forward(self, x: Tensor, blocks: Blocks, word: str = "forward") -> Tensor:
        """Run the forward pass as the model does: the caller holds a block's input until the block returns.

        Args:
            x: the images.
            blocks: the layers.
            word: what the events are called.
        """
        eager = self._eager
        x = eager.alias(x)
        for block, layers in blocks:
            if block is None:
                return eager.run_layers(layers, x, word)
            run = eager.run_checkpoint if block in self.options.checkpoint else eager.run_layers
            y = run(layers, eager.alias(x), word)
            eager.release(x)
            x = y
        return x


def made_first(events: Iterable[Event], added: dict[Storage, Storage]) -> Iterator[Event]:
    """Yield the events of a first step, whose gradients become those of parameters that had none to add them to.

    Args:
        events: those of a later step.
        added: each gradient that was added to one that was there, and that one.
    """
    for event, storage, is_allocation in events:
        if storage not in added:
            yield event, storage, is_allocation
        elif is_allocation:
            yield event, added[storage], True

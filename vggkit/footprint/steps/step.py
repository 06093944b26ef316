"""What every step has in common: a network's layers, run on tensors without values, and what they allocate."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    Tensor,
)
from vggkit.footprint import viewer
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import CardUse, Loop, card_use
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
        refused: names of the normalisations that torch refuses to run.
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
        self._eager = eager = Eager(options.batch, options.device, training=self.is_training)
        self.moments, self.saved, self.outputs, self.refused = eager.moments, eager.kept, eager.outputs, eager.refused
        self._element_bytes = ELEMENT_BYTES[options.dtype]
        self._parameters: list[Parameter] = []
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
    def peak(self) -> Moment:
        """The moment of most bytes, the first of several."""
        return max(self.moments, key=lambda moment: moment.size)

    def torch_snapshot(self) -> dict[str, Any]:
        """Return a steady step of the loop in the form of torch's memory snapshots."""
        if self.options.device == "cpu":
            return viewer.on_cpu(self.loop, self.options.batch)
        return viewer.on_cuda(self.loop, self.options.batch, self.options.allocator)

    def card_use(self) -> CardUse:
        """Return what it takes of a card that is never full, when it is one of a loop of such steps."""
        use = card_use(self.loop, self.options.batch, Settings.of(self.options.allocator))
        assert use is not None  # this card is never full
        return use

    # What the walks are made of

    def _place_layers(self) -> Blocks:
        """Allocate parameters and buffers; return the layers of each block, and then those outside of blocks."""
        frozen = self.network.parts(self.options.freeze, "freeze")
        blocks = groupby(self.network.modules(), key=lambda placed: placed.block)
        return [(block, [self._placed_run(one, one.name in frozen) for one in layers]) for block, layers in blocks]

    def _placed_run(self, placed: PlacedLayer, frozen: bool) -> PlacedRun:
        self._eager.event = f"construction of {placed.name}"
        parameters = {}
        for name, shape in placed.layer.parameters(placed.input_shape).items():
            storage = self._eager.new(0, elements(shape) * self._element_bytes, PARAMETERS)
            storage.is_parameter = True
            parameters[name] = Parameter(storage, shape, self._element_bytes, requires_grad=not frozen)
        self._parameters += parameters.values()
        for shape in placed.layer.buffers(placed.input_shape).values():
            # the buffer without a shape is batch norm's counter of batches
            self._eager.new(0, elements(shape) * self._element_bytes if shape else INDEX_BYTES, BUFFERS)
        return PlacedRun(placed.name, placed.layer, parameters, frozen)

    def _images(self) -> Tensor:
        """Allocate the images."""
        self._eager.event = START
        shape = self.network.input_shape
        storage = self._eager.new(elements(shape) * self._element_bytes, kind=INPUTS)
        return Tensor(storage, shape, self._element_bytes)

    def _record(self) -> list[Event]:
        """Begin a new list of what is allocated and freed from now on, and return it."""
        self._eager.events = []
        return self._eager.events

    def _forward(self, x: Tensor, blocks: Blocks) -> Tensor:
        """Run the forward pass as the model does: the caller holds a block's input until the block returns."""
        eager = self._eager
        x = eager.alias(x)
        for block, layers in blocks:
            if block is None:
                return eager.run_layers(layers, x)
            run = eager.run_checkpoint if block in self.options.checkpoint else eager.run_layers
            y = run(layers, eager.alias(x))
            eager.release(x)
            x = y
        return x

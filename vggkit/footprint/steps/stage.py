"""A training step of a rank that runs a part of the network, as `torch.distributed.pipelining` does.

    for images, targets in batches:
        stage.zero_grad()
        schedule.step(images)  # on the first rank; on the last one schedule.step(target=targets), on others step()
        optimizer.step()

With autocast it is on in the stage's forward pass and in the loss, each time they run.

A batch is divided into microbatches, whose gradients are added up and divided by their number. The stage before is sent
the input's gradients, the stage behind the outputs. What is received lies in tensors that the first step makes. On the
last rank the outputs are joined to one tensor that nobody takes; they live until the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from vggkit.base.eager import COMMUNICATION, CUDA_BLOCK, GRADIENTS, Event, Parameter, Storage, Tensor
from vggkit.footprint.ranks import NO_GROUP, Group, Pipeline, Stage, stages_of
from vggkit.footprint.ranks.schedules import SCHEDULES
from vggkit.footprint.steps.inference import Inference
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.step import made_first
from vggkit.footprint.steps.training import Training
from vggkit.network import Network, PlacedLayer
from vggkit.notation.layers import elements

RECEIVING, SENDING, JOINING = "receive", "send", "joining the outputs"
"""The events in which a microbatch or a gradient comes or goes, and in which the last rank joins its outputs."""

CLEARING = "clear_runtime_states"
"""The event in which the outputs of the step before are freed."""


class StageTraining(Training):
    """The second step of a rank's loop: all microbatches in the order of the schedule, then the optimizer's step.

    Args:
        network: the network.
        options: what the step is like, checked.
        stage: what the rank runs; if absent, what the cuts say.
    """

    strategy: Pipeline

    def __init__(self, network: Network, options: StepOptions, stage: Stage | None = None) -> None:
        group = options.group
        self.stage = self._own_stage(network, group) if stage is None else stage
        self._microbatches = options.microbatches
        self._outputs: dict[int, Tensor] = {}
        self._input_gradients: dict[int, list[Storage]] = {}
        self._losses: dict[int, Tensor] = {}
        self._to_join: list[Tensor] = []
        self._latest: Tensor | None = None
        super().__init__(network, options)

    def _own_stage(self, network: Network, group: Group) -> Stage:
        stages = stages_of(network, group.cut)
        return stages[group.own % len(stages)]  # the ranks of a copy follow each other

    def _layers(self) -> Iterable[PlacedLayer]:
        return self.stage.layers

    def _arrival(self) -> list[Parameter]:
        # gradients come in the same order in every microbatch, so that one is enough
        group = replace(self.options.group, parallel=Pipeline.name, microbatches=1)
        alone = StageTraining(self.network, self.options.replace(group=group, batch=self.options.at_once), self.stage)
        return [self._trained[alone._trained.index(parameter)] for parameter in alone._arrived]

    def _walk(self) -> None:
        eager, stage = self._eager, self.stage
        schedule = SCHEDULES[self.options.group.schedule]
        ahead = schedule.ahead(stage.place, stage.stages, self._microbatches)
        self._blocks = self._build()
        self._received_element, self._sent_element = self._border_elements()
        self._images_of_step = self._images(self._microbatches) if stage.is_first else None
        self._targets_of_step = self._targets(self._microbatches) if stage.is_last else None
        self._made_once = self._record()
        self._receive_buffers()
        self._record()
        left = self._left_outputs()
        self._begin()
        eager.event = CLEARING
        eager.release(*left)
        eager.note()
        self._passes = self._record()
        self._added: dict[Storage, Storage] = {}
        schedule.run(self, ahead, self._microbatches)
        self._finish()
        self._end()
        self._record()
        eager.release(*self._to_join)

    def _border_elements(self) -> tuple[int, int]:
        """Return the bytes of an element of what is received and of the output; autocast casts in some layers."""
        if not self.options.autocast:
            return self._element_bytes, self._element_bytes
        options = self.options.replace(group=NO_GROUP).forward_only().replace(batch=CUDA_BLOCK)  # nothing is rounded
        outputs = Inference(self.network, options).outputs
        element, found = self._element_bytes, [self._element_bytes]
        for placed in self.network.modules():
            size = outputs[placed.name]  # 0 where it is in another's memory
            element = size // (elements(placed.output_shape) * CUDA_BLOCK) if size else element
            found.append(element)
        places = {placed.name: place for place, placed in enumerate(self.network.modules())}
        return found[places[self.stage.layers[0].name]], found[places[self.stage.layers[-1].name] + 1]

    def _receive_buffers(self) -> None:
        """Allocate what microbatches and gradients are received into, as the first step does."""
        eager, count = self._eager, self._microbatches
        eager.event = RECEIVING
        if not self.stage.is_first:
            per_image = elements(self.stage.layers[0].input_shape) * self._received_element
            self.strategy.activations = [eager.new(per_image, kind=COMMUNICATION) for _ in range(count)]
        if not self.stage.is_last:
            per_image = elements(self.stage.layers[-1].output_shape) * self._sent_element
            self.strategy.gradients = [eager.new(per_image, kind=COMMUNICATION) for _ in range(count)]

    def _left_outputs(self) -> list[Storage]:
        """Allocate the outputs of the step before."""
        if not self.stage.is_last:
            return []
        per_image = elements(self.network.output_shape) * self._sent_element
        return [self._eager.new(per_image) for _ in range(self._microbatches)]

    # What the schedule asks for

    def forward(self, number: int) -> None:
        eager = self._eager
        x = self._input(number)
        eager.autocast = self.options.autocast
        output = self._forward(x, self._blocks)
        eager.end_autocast()
        eager.release(self._latest)
        self._latest = eager.alias(output)
        self._outputs[number] = output
        if self.stage.is_last:
            self._to_join.append(eager.alias(output))
            self._losses[number] = self._loss_of(output)
        else:
            eager.event = SENDING
            self.strategy.sent(output.storage)

    def _input(self, number: int) -> Tensor:
        """Return a microbatch: a part of the images, or what is received."""
        if self._images_of_step is not None:
            return self._images_of_step
        buffer = self.strategy.activations[number]
        self.strategy.received(buffer)
        self._input_gradients[number] = []
        node = self._eager.leaf(self._input_gradients[number], RECEIVING)
        return Tensor(buffer, self.stage.layers[0].input_shape, self._received_element, node)

    def _loss_of(self, output: Tensor) -> Tensor:
        eager = self._eager
        assert self._targets_of_step is not None
        eager.start_loss()
        eager.autocast = self.options.autocast
        loss = self.options.loss_rules.run(eager, output, self._targets_of_step)
        eager.end_autocast()
        self.outputs["loss"] = loss.storage.size
        return loss

    def backward(self, number: int) -> Storage | None:
        eager = self._eager
        if number == 0:
            self.saved, eager.kept = dict(eager.kept), {}
        eager.added = {}
        hook = self._gradient_ready if number == self._microbatches - 1 else None
        output = self._outputs.pop(number)
        if self.stage.is_last:
            eager.backward(self._losses[number], hook, self.strategy.end_backward)
        else:
            received = self.strategy.gradients[number]
            self.strategy.received(received)
            eager.backward(output, hook, self.strategy.end_backward, received)
        if number == 0:
            self._added = {made: there for made, there in eager.added.items() if there.kind == GRADIENTS}
        eager.release(output)
        if self.stage.is_first:
            return None
        eager.event = SENDING
        [sent] = self._input_gradients.pop(number)
        eager.move(sent, COMMUNICATION)
        self.strategy.sent(sent)
        return sent

    def let_go(self, sent: Storage | None) -> None:
        self._eager.release(sent)

    def _finish(self) -> None:
        """Free the losses, and join the outputs."""
        eager = self._eager
        eager.event = JOINING
        eager.release(*self._losses.values(), self._latest)
        if self.stage.is_last:
            shape, size = self._to_join[0].shape, self._to_join[0].element_bytes
            joined = eager.new(elements(shape) * size * self._microbatches)
            eager.note()
            eager.release(joined)

    # The loop

    def _pass_events(self, number: int) -> Iterator[Event]:
        if number == 1:
            yield from self._made_once
            yield from self.strategy.in_first_forward
        else:
            for output in self._to_join:
                yield CLEARING, output.storage, False
        if number == 2:
            yield from self.strategy.rebuilt
        yield from made_first(self._passes, self._added) if number == 1 and self._added else self._passes

    @property
    def steady_bytes(self) -> int:
        return super().steady_bytes + sum(output.storage.size for output in self._to_join)

"""A step that trains the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vggkit.base.eager import (
    GRADIENTS,
    INPUTS,
    OPTIMIZER,
    WIDE,
    Eager,
    Event,
    Parameter,
    Storage,
    Tensor,
)
from vggkit.footprint.card import Loop
from vggkit.footprint.optimizers import Call
from vggkit.footprint.ranks import NO_GROUP, STRATEGIES, Placed
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.step import CLIP_GRAD, CONSTRUCTION, OPTIMIZER_STEP, ZERO_GRAD, Blocks, Step, made_first
from vggkit.network import Network, PlacedLayer

CHUNK = 65536
"""Elements that a block of threads goes through (aten/src/ATen/native/cuda/MultiTensorApply.cuh, kChunkSize)."""


class Part(NamedTuple):
    """A part of a step.

    Args:
        events: what is allocated and freed in it.
        updated: the parameters that an optimizer changes in it; none where no optimizer steps.
        stream: of CUDA, in which it begins.
    """

    events: list[Event]
    updated: Sequence[Parameter] = ()
    stream: int = 0


class MicroStep(NamedTuple):
    """A forward and a backward pass; a step has one, or several whose gradients are added up.

    Args:
        forward: what is allocated and freed in the forward pass and the loss.
        loss: what it makes last. It lives until the loss of the next one is there.
        backward: the parts of the backward pass.
        added: each gradient that was added to one that was there, and that one.
    """

    forward: list[Event]
    loss: Storage
    backward: list[Part]
    added: dict[Storage, Storage]


class Training(Step):
    """The second step of a training loop, when the optimizer has its state, or the first that is like all later ones.

    `zero_grad()`, forward pass, loss, backward pass, optimizer step. The loss of the step before lives until
    the new one is there. `vggkit.footprint.steps.options` says what may be otherwise.
    """

    mode = "training"
    words = "a training step"
    is_training = True

    def __init__(self, network: Network, options: StepOptions) -> None:
        self._copied: list[Storage] = []
        self._arrived: list[Parameter] = []
        self._loss: Tensor | None = None
        super().__init__(network, options)

    def _walk(self) -> None:
        blocks = self._build()
        images = self._images()
        targets = self._targets()
        self._record()  # `loop` says when these are made
        self._begin()
        self._micro_steps = list(self._made_micro_steps(images, targets, blocks))
        self._end()
        eager = self._eager
        self._record()
        eager.release(self._loss)

    def _build(self) -> Blocks:
        """Build the model, and what the rank and the loop have besides; return the layers by block."""
        eager, options = self._eager, self.options
        strategy = STRATEGIES[options.group.parallel]
        blocks = self._place(self._layers(), self.network.parts(options.freeze, "freeze"))
        self._trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        built = list(eager.events)
        placed = Placed(
            trained=self._trained,
            frozen=[parameter for parameter in self._parameters if not parameter.requires_grad],
            statistics=self._statistics,
            counters=self._counters,
            arrival=self._arrival,
            gradients_stay=options.zero_grad == "zero",
            dtype=options.dtype,
            passes=options.accumulate,
        )
        self.strategy = strategy(eager, options.group, placed)
        blocks = self.strategy.wrap(blocks)
        if options.ema:
            self._copy_model(self.strategy.copied(built))
        return blocks

    def _layers(self) -> Iterable[PlacedLayer]:
        """Return the layers that the rank's model has."""
        return STRATEGIES[self.options.group.parallel].built(self.network.modules())

    def _begin(self) -> None:
        """Begin a step: the optimizer has its state, and the gradients of the step before are freed."""
        eager, options = self._eager, self.options
        self._states = {parameter: self._made_states(parameter) for parameter in self.strategy.owned}
        if not options.step_in_backward:
            for parameter in self.strategy.trained:
                parameter.gradient = self.strategy.left_gradient(parameter)
        self._left = [parameter.gradient for parameter in self.strategy.trained if parameter.gradient is not None]
        eager.note()
        if options.zero_grad == "set_to_none":
            for parameter in self.strategy.trained:
                self._free_gradient(parameter)

    def _end(self) -> None:
        """Do what comes behind the last backward pass."""
        self._after: list[Part] = []
        if self.options.clip_grad and self.strategy.trained:
            self._after.append(self._clip())
        if not self.options.step_in_backward:
            self._after.append(self._update(self.strategy.owned))

    def _targets(self, batches: int = 1) -> Tensor:
        """Allocate what the outputs of as many batches are compared with; return those of one."""
        targets = self.options.loss_rules.targets(self.network.output_shape, self.options.output_dtype)
        storage = self._eager.new(targets.per_image * batches, kind=INPUTS)
        return Tensor(storage, targets.shape, targets.element_bytes)

    def _arrival(self) -> list[Parameter]:
        """Return the trained parameters in the order in which their gradients come, as in a process that is alone."""
        alone = Training(self.network, self.options.replace(group=NO_GROUP, accumulate=1))
        return [self._trained[alone._trained.index(parameter)] for parameter in alone._arrived]

    def _copy_model(self, built: Sequence[Event]) -> None:
        """Make the copy of the model that has the moving averages; running statistics are copied, too."""
        copies: dict[Storage, Storage] = {}
        for _, storage, is_allocation in built:
            if is_allocation:
                copies[storage] = self._eager.new(0, storage.constant, storage.kind)
            else:
                self._eager.release(copies.pop(storage))
        self._copied += copies.values()

    def _made_states(self, parameter: Parameter) -> list[Storage]:
        options = self.options
        sizes = options.rules.state(parameter, options.update, options.device)
        return [self._eager.new(0, size, OPTIMIZER) for size in sizes]

    def _free_gradient(self, parameter: Parameter) -> None:
        self._eager.release(parameter.gradient)
        parameter.gradient = None

    def _made_micro_steps(self, images: Tensor, targets: Tensor, blocks: Blocks) -> Iterator[MicroStep]:
        """Run the forward and backward passes of a step; those between the first and the last are all alike."""
        between = self.options.accumulate - 2
        yield self._micro_step(images, targets, blocks, is_first=True, is_last=between < 0)
        saved, self._eager.kept = self._eager.kept, {}
        if between > 0:
            seen = len(self.moments)
            again = self._micro_step(images, targets, blocks)
            self.moments += self.moments[seen:] * (between - 1)
            yield from [again] * between
        if between >= 0:
            yield self._micro_step(images, targets, blocks, is_last=True)
        self._eager.kept = saved

    def _micro_step(
        self, images: Tensor, targets: Tensor, blocks: Blocks, *, is_first: bool = False, is_last: bool = False
    ) -> MicroStep:
        eager = self._eager
        forward = self._record()
        if is_first:
            self.strategy.begin_step()
        eager.autocast = self.options.autocast
        output = self._returned(self._forward(self.strategy.begin_forward(images), blocks))
        self.strategy.end_forward()
        eager.start_loss()
        loss = self.options.loss_rules.run(eager, output, targets)
        eager.release(output)
        if self.options.accumulate > 1:
            whole, loss = loss, eager.scale_number(loss)
            eager.release(whole)
        eager.end_autocast()
        self._record()
        eager.release(self._loss)  # that of the micro-step before
        self._loss, self.outputs["loss"] = loss, loss.storage.size
        self._backward, eager.added = [Part(self._record())], {}
        if loss.node is not None:
            hook = self._gradient_ready if is_last else None
            hook = self._step_at_once if self.options.step_in_backward else hook
            eager.backward(loss, self.strategy.engine_hook(hook), self.strategy.end_backward)
        added = {made: there for made, there in eager.added.items() if there.kind == GRADIENTS}
        return MicroStep(forward, loss.storage, self._backward, added)

    def _returned(self, output: Tensor) -> Tensor:
        """Return a forward pass's output as the loss gets it."""
        return output

    def _gradient_ready(self, parameter: Parameter) -> None:
        self._arrived.append(parameter)
        self.strategy.gradient_ready(parameter)

    def _step_at_once(self, parameter: Parameter) -> None:
        """Change a parameter, which has its gradient, and free that."""
        self._backward.append(self._update([parameter]))
        self._backward.append(Part(self._record()))
        self._free_gradient(parameter)

    def _clip(self) -> Part:
        """Run `torch.nn.utils.clip_grad_norm_` (torch/nn/utils/clip_grad.py)."""
        eager = self._eager
        events = self._record()
        eager.event = CLIP_GRAD
        size = self._element_bytes
        partial = self._partial_sums() if self.options.device == "cuda" else None
        norms = [eager.new(0, size) for _ in self.strategy.trained]
        # zeros are made for parts without elements, and as many of the norms are left over (ForeachReduceOp.cu)
        without = sum(not parameter.storage.constant for parameter in self.strategy.trained) if partial else 0
        norms += [eager.new(0, size) for _ in range(without)]
        eager.note()
        count = len(self.strategy.trained)
        eager.release(partial, *norms[count - without : count])
        norms = [*norms[: count - without], *norms[count:]]
        stacked = eager.new(0, size * len(norms))
        eager.note()
        joined = self.strategy.joined_norms(stacked)
        total = eager.new(0, size)
        eager.note()
        eager.release(joined, *norms, stacked)
        increased, reciprocal, coefficient = (eager.new(0, size) for _ in range(3))  # max_norm / (total_norm + 1e-6)
        eager.note()
        eager.release(reciprocal, increased)
        clamped = eager.new(0, size)
        eager.note()
        eager.release(clamped, coefficient, total)
        return Part(events)

    def _partial_sums(self) -> Storage:
        """Allocate a sum for each chunk of each gradient (aten/src/ATen/native/cuda/ForeachReduceOp.cu)."""
        trained = self.strategy.trained
        largest = max(parameter.storage.constant for parameter in trained) // self._element_bytes
        chunks = -(-largest // CHUNK)
        return self._eager.new(0, len(trained) * chunks * max(self._element_bytes, WIDE))

    def _update(self, parameters: Sequence[Parameter]) -> Part:
        """Run the step of an optimizer."""
        eager = self._eager
        events, before = self._record(), (eager.event, eager.kind)
        eager.event, eager.kind = OPTIMIZER_STEP, OPTIMIZER
        options = self.options
        options.rules.step(Call(eager, parameters, options.update, options.early_steps + 1))
        eager.event, eager.kind = before
        return Part(events, parameters, eager.stream)

    @property
    def loop(self) -> Loop:
        gradients = [parameter.gradient for parameter in self.strategy.trained if parameter.gradient is not None]
        # views of buckets aren't freed; several gradients may be views of one tensor
        owned = [gradient for gradient in dict.fromkeys(gradients) if gradient.kind == GRADIENTS]
        freed = [(ZERO_GRAD, gradient, False) for gradient in owned if self.options.zero_grad == "set_to_none"]
        steps = self.options.first_steps
        first, *early = (list(self._events(number)) for number in range(1, steps + 1))
        if self.options.group.static_graph:
            first = _FirstOfStaticGraph(self.network, self.options).events_for(self)
        elif any(gradient.kind != GRADIENTS for gradient in self._left):
            first = _First(self.network, self.options).events_for(self)
        for events in early:
            first += [*freed, *events]
        return Loop(
            before=[*self._before, *self._construction()],
            first=first,
            later=[*freed, *self._events(steps + 1)],
        )

    def _construction(self) -> Iterator[Event]:
        """Yield what the constructors of the optimizers allocate and free."""
        alone = [[parameter] for parameter in self.strategy.trained]
        for group in alone if self.options.step_in_backward else [self.strategy.owned]:
            call = self._early_call(group, 0)
            self.options.rules.construct(call)
            yield from call.eager.events

    def _early_call(self, parameters: Sequence[Parameter], number: int, stream: int = 0) -> Call:
        """Return a call of an optimizer that is not part of the walk; it has events of its own."""
        eager = Eager(self.options.batch, self.options.device)
        eager.event, eager.kind = OPTIMIZER_STEP if number else CONSTRUCTION, OPTIMIZER
        eager.stream = stream
        return Call(eager, parameters, self.options.update, number)

    def _events(self, number: int) -> Iterator[Event]:
        """Yield what a step allocates and frees, counted from 1.

        The first one makes the gradients that stay and the optimizer's state.
        """
        yield from self._pass_events(number)
        for part in self._after:
            yield from self._part_events(part, {}, number)

    def _pass_events(self, number: int) -> Iterator[Event]:
        """Yield what the forward and backward passes of a step allocate and free."""
        if number == self.strategy.early_steps(self.options.group):
            yield from self.strategy.rebuilt
        is_first = number == 1
        loss = None if is_first else self._micro_steps[-1].loss
        for position, micro_step in enumerate(self._micro_steps):
            is_very_first = is_first and position == 0
            yield from self.strategy.first_forward(micro_step.forward) if is_very_first else micro_step.forward
            if loss is not None:
                yield micro_step.forward[-1][0], loss, False
            loss = micro_step.loss
            added = micro_step.added if is_very_first else {}
            for part in micro_step.backward:
                yield from self._part_events(part, added, number)

    def _part_events(self, part: Part, added: dict[Storage, Storage], number: int) -> Iterator[Event]:
        if part.updated and number <= self.options.early_steps:
            call = self._early_call(part.updated, number, part.stream)
            self.options.rules.step(call)
            yield from call.eager.events
        else:
            yield from made_first(part.events, added) if added else part.events

    @property
    def steady_bytes(self) -> int:
        states = [state for made in self._states.values() for state in made]
        every = (*self._copied, *self._left, *states, *self.strategy.kept)
        return sum(storage.size for storage in dict.fromkeys(every))  # gradients may be views of buckets

    def storages(self) -> Iterator[Storage]:
        """Yield what a step allocates, and what is there when it begins, in the order of the walk."""
        yield from self._left
        for events in (self._before, self.strategy.rebuilt, self._events(self.options.first_steps + 1)):
            yield from (storage for _, storage, is_allocation in events if is_allocation)


class _First(Training):
    """A first step that is walked through itself: no gradient is a view of a bucket yet."""

    _copy: Storage | None = None

    def _begin(self) -> None:
        super()._begin()
        for parameter in self.strategy.trained:
            if parameter.gradient is not None and parameter.gradient.kind != GRADIENTS:
                self._free_gradient(parameter)

    def events_for(self, steady: Training) -> list[Event]:
        """Return its events in a loop whose other steps are those of another walk."""
        own = (storage for storage in self.storages() if storage is not self._copy)
        same = dict(zip(own, steady.storages()))
        return [(event, same.get(storage, storage), is_made) for event, storage, is_made in self._events(1)]


class _FirstOfStaticGraph(_First):
    """The first step of ranks that are told that all steps are alike.

    torch copies its output, to be called when the copy has its gradient (`_DDPSink` in
    torch/nn/parallel/distributed.py), and looks at gradients when all are there (`delay_all_reduce` in reducer.cpp).
    """

    def _returned(self, output: Tensor) -> Tensor:
        eager = self._eager
        eager.event = "copy of the output"
        copy = eager.op(output, backward=lambda gradient: [eager.hold(gradient)])
        eager.release(output)
        self._copy = copy.storage
        return copy

    def _gradient_ready(self, parameter: Parameter) -> None:
        self._arrived.append(parameter)

    def _end(self) -> None:
        for parameter in self._arrived:
            self.strategy.gradient_ready(parameter)
        super()._end()

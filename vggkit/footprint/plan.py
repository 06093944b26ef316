"""Network → MemoryPlan: every byte that a step of eager PyTorch holds, when, and for what.

The step is the second one of a training loop, when the optimizer has its state: `zero_grad(set_to_none=True)`, forward
pass, cross-entropy, backward pass, optimizer step. Or, for inference, one forward pass in `eval()` mode without
gradients. Workspaces of cuDNN and cuBLAS are not included: they are no tensors of the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, SupportsIndex, cast

import msgspec

from vggkit.base.eager import (
    BUFFERS,
    GRADIENTS,
    INDEX_BYTES,
    INPUTS,
    KINDS,
    OPTIMIZER,
    PARAMETERS,
    Eager,
    Moment,
    Parameter,
    PlacedRun,
    Storage,
    Tensor,
)
from vggkit.base.errors import ArgumentError, ConfigError, did_you_mean, shorten
from vggkit.base.numbers import parse_bytes, whole
from vggkit.base.tables import Shown
from vggkit.figures.summary import check_batch, summarize
from vggkit.network import ELEMENT_BYTES, Dtype, Network, Source, dtype_name, place, several
from vggkit.notation.layers import LARGEST, BatchNorm, Shape, elements
from vggkit.notation.overrides import Overrides, check_keywords

if TYPE_CHECKING:
    from rich.console import Group
    from typing_extensions import Unpack

Mode = Literal["training", "inference"]


class OptimizerRule(NamedTuple):
    """What an optimizer keeps.

    Args:
        states: tensors as large as the parameter.
        adaptive: whether its step needs √v, and whether it counts its steps.
    """

    states: int
    adaptive: bool


OPTIMIZERS = {
    "none": OptimizerRule(0, adaptive=False),
    "sgd": OptimizerRule(0, adaptive=False),
    "sgd-momentum": OptimizerRule(1, adaptive=False),
    "adam": OptimizerRule(2, adaptive=True),
    "adamw": OptimizerRule(2, adaptive=True),
}
MODES = ("training", "inference")
DEVICES = ("cpu", "cuda")

STEP_BYTES = 4
"""Adam's step counter, a float32 on the CPU for each parameter (torch/optim/adam.py)."""


class Options(msgspec.Struct, frozen=True):
    """What a step is like.

    Args:
        batch: number of images.
        mode: "training" or "inference".
        dtype: of parameters, images and activations.
        optimizer: a key of `OPTIMIZERS`; "none" in inference.
        device: "cpu" or "cuda".
        freeze: blocks and layers that are not trained; their batch norms use running statistics.
        checkpoint: blocks that are run again in the backward pass.
        autocast: whether `torch.autocast` to bfloat16 is on in the forward pass and the loss.
    """

    batch: int = 1
    mode: Mode = "training"
    dtype: str = "float32"
    optimizer: str = "sgd-momentum"
    device: Literal["cpu", "cuda"] = "cpu"
    freeze: tuple[str, ...] = ()
    checkpoint: tuple[str, ...] = ()
    autocast: bool = False


class LayerMemory(msgspec.Struct, frozen=True):
    """What one layer holds.

    Args:
        name: the layer's; the last one is `loss`.
        saved_bytes: what autograd keeps for its backward pass and no layer before it has kept already.
        output_bytes: its output, 0 if that is in another layer's memory.
    """

    name: str
    saved_bytes: int
    output_bytes: int


class MemoryPlan(Shown, msgspec.Struct, frozen=True):
    """What a step holds.

    Args:
        name: the network's.
        input: shape of one image.
        options: what the step is like.
        peak_bytes: most bytes alive at one moment.
        peak_at: that moment: "backward of block3_pool".
        by_kind: the bytes of each kind at that moment.
        saved_for_backward_bytes: what autograd holds between the forward and the backward pass, each storage once,
            parameters and buffers excluded.
        steady_bytes: parameters, gradients and optimizer state, which are there between steps, too.
        layers: what each layer holds, the loss included.
        timeline: the alive bytes after each operation.
    """

    name: str
    input: Shape
    options: Options
    peak_bytes: int
    peak_at: str
    by_kind: dict[str, int]
    saved_for_backward_bytes: int
    steady_bytes: int
    layers: tuple[LayerMemory, ...]
    timeline: tuple[Moment, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {
            "name": self.name,
            "batch": self.options.batch,
            "dtype": self.options.dtype,
            "mode": self.options.mode,
            "optimizer": self.options.optimizer,
            "device": self.options.device,
            "peak_bytes": self.peak_bytes,
            "peak_at": self.peak_at,
            "by_kind": self.by_kind,
            "saved_for_backward_bytes": self.saved_for_backward_bytes,
            "steady_bytes": self.steady_bytes,
            "layers": [
                {"name": layer.name, "saved_bytes": layer.saved_bytes, "output_bytes": layer.output_bytes}
                for layer in self.layers
            ],
            "timeline": [
                {"event": moment.event, "bytes": moment.size, "by_kind": dict(zip(KINDS, moment.by_kind))}
                for moment in self.timeline
            ],
        }

    def __str__(self) -> str:
        from vggkit.footprint.plan_table import table_text

        return table_text(self)

    def __rich__(self) -> Group:
        from vggkit.footprint.plan_table import table

        return table(self)

    def _repr_html_(self) -> str:
        from vggkit.footprint.plan_table import html_text

        return html_text(self)


def memory(
    source: Source,
    *,
    batch: SupportsIndex = 1,
    mode: str = "training",
    dtype: Dtype = "float32",
    optimizer: str | None = None,
    device: str = "cpu",
    freeze: str | Iterable[str] = (),
    checkpoint: str | Iterable[str] = (),
    autocast: bool = False,
    **overrides: Unpack[Overrides],
) -> MemoryPlan:
    """Say what a step holds, to the byte.

    Args:
        source: a name, a path, a Config or a Network.
        batch: number of images.
        mode: "training" or "inference".
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        optimizer: none, sgd, sgd-momentum (if absent; without weight decay), adam or adamw; none in inference.
        device: cpu, or cuda, where dropout's mask is smaller and each tensor is rounded up to 512 bytes.
        freeze: blocks and layers that are not trained, a name or several.
        checkpoint: blocks that are run again in the backward pass, a name or several.
        autocast: whether `torch.autocast` to bfloat16 is on; the parameters are float32 then.
        overrides: changes to make, as for `load`.

    Returns:
        The plan.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values, or torch can't run the step: a batch or group norm
            would have a single value to take statistics of.

    >>> memory("D").peak_bytes
    1722992880
    """
    check_keywords(memory, overrides)
    network = Network.of(source, **overrides)
    options = checked_options(
        network, batch=batch, mode=mode, dtype=dtype, optimizer=optimizer, device=device, freeze=freeze,
        checkpoint=checkpoint, autocast=autocast,
    )  # fmt: skip
    return plan(network, options)


def checked_options(network: Network, **options: Any) -> Options:
    """Check the arguments of `memory`.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    options["batch"] = check_batch(options["batch"])
    options["dtype"] = dtype_name(options["dtype"])
    options["freeze"] = several(options["freeze"], "freeze")
    options["checkpoint"] = several(options["checkpoint"], "checkpoint")
    training = options["mode"] != "inference"
    options["optimizer"] = options["optimizer"] or ("sgd-momentum" if training else "none")
    for word, allowed in (
        ("mode", MODES),
        ("optimizer", tuple(OPTIMIZERS)),
        ("device", DEVICES),
    ):
        if options[word] not in allowed:
            advice = did_you_mean(str(options[word]), allowed)
            raise ArgumentError(
                f"{word}: expected one of {', '.join(allowed)}, found {shorten(options[word])}.{advice}"
            )
    if options["autocast"] and options["dtype"] != "float32":
        raise ArgumentError(f"autocast: expected dtype float32 with it, found {options['dtype']}")
    for word in () if training else ("optimizer", "freeze", "checkpoint"):
        if options[word] not in ("none", ()):
            raise ArgumentError(f"{word}: expected mode training with it, found inference")
    network.parts(options["freeze"], "freeze")
    network.blocks(options["checkpoint"], "checkpoint")
    return Options(**options)


def plan(network: Network, options: Options) -> MemoryPlan:
    """Walk through a step, whose options have been checked.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    step = _Step(network, options)
    step.check()
    return step.plan()


def refusal(network: Network, options: Options) -> str | None:
    """Return why torch refuses to run a step, and what would help; None if it runs it."""
    refused = _Step(network, options).eager.refused
    if not refused:
        return None
    placed = network.layer(refused[0])
    each = "channel" if isinstance(placed.layer, BatchNorm) else "group"
    helps = [words for words, changed, step in _changes(network, options) if not _Step(changed, step).eager.refused]
    return (
        f"{network.name}: torch can't run {'a training step' if options.mode == 'training' else 'inference'} at batch"
        f" {options.batch}, as {placed.name} would normalize a single value of each {each}. Expected"
        f" {', '.join(helps[:-1])}{', or ' if helps[1:] else ''}{helps[-1]}"
    )


def _changes(network: Network, options: Options) -> Iterator[tuple[str, Network, Options]]:
    """Return changes that can give a normalisation more than one value, or spare it its own statistics."""
    yield "batch 2 or more", network, replace_batch(options, 2)
    channels, height, width = network.input_shape
    with suppress(ConfigError):
        larger = place(msgspec.structs.replace(network.config, input=(channels, 4 * height, 4 * width)))
        yield "a larger input", larger, options
    if options.mode == "training":
        norms = tuple(placed.name for placed in network if isinstance(placed.layer, BatchNorm))
        freeze = (*options.freeze, *norms)
        yield "frozen batch norms", network, msgspec.structs.replace(options, freeze=freeze)
        yield "mode inference", network, forward_only(options)


def smallest_batch(network: Network, options: Options) -> int:
    """Return the smallest batch that torch runs: 2 where a normalisation would see a single value, else 1."""
    return 2 if _Step(network, replace_batch(options, 1)).eager.refused else 1


def peak_and_saved_bytes(
    network: Network, options: Options, largest: Callable[[Iterable[int]], int] = max
) -> tuple[int, int]:
    """Walk through a step, whose options have been checked, for two figures of its plan.

    Args:
        network: the network.
        options: what the step is like.
        largest: finds the largest of numbers; `vggkit.many` has one for networks whose sizes are many numbers.

    Returns:
        Most bytes alive at one moment, and what is saved for the backward pass.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    step = _Step(network, options)
    step.check()
    saved = sum(storage.size for storage in step.eager.kept)
    return largest(moment.size for moment in step.eager.moments), saved


class _Step:
    """A step that has been walked through, whether or not torch would run it."""

    def __init__(self, network: Network, options: Options) -> None:
        self.network = network
        self.options = options
        training = options.mode == "training"
        self.eager = Eager(options.batch, options.device, training=training, autograd=training)
        self.element_bytes = ELEMENT_BYTES[options.dtype]
        self.frozen = network.parts(options.freeze, "freeze")
        self.parameters: list[Parameter] = []
        self.loss_bytes = 0
        self.blocks: list[tuple[str, list[PlacedRun]]] = []
        self.head: list[PlacedRun] = []
        self._place_layers()
        images = elements(network.input_shape) * self.element_bytes
        self.images = self.eager.new(images, kind=INPUTS)
        labels = elements(network.output_shape[1:]) * INDEX_BYTES  # of a trunk: the class of each place of its maps
        self.labels = self.eager.new(labels, kind=INPUTS) if training else None
        self.trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        self.states = self._optimizer_state() if training else []
        self.gradients = [self.eager.new(0, p.storage.constant, GRADIENTS) for p in self.trained] if training else []
        self._run()

    def check(self) -> None:
        """Refuse a step that torch refuses."""
        if self.eager.refused:
            raise ArgumentError(str(refusal(self.network, self.options)))

    def plan(self) -> MemoryPlan:
        """Return what it holds."""
        eager = self.eager
        peak = max(eager.moments, key=lambda moment: moment.size)
        saved: dict[str, int] = {}
        for storage, layer in eager.kept.items():
            saved[layer] = saved.get(layer, 0) + storage.size
        training = self.options.mode == "training"
        outputs = {**eager.outputs, "loss": self.loss_bytes} if training else eager.outputs
        return MemoryPlan(
            name=self.network.name,
            input=self.network.input_shape,
            options=self.options,
            peak_bytes=peak.size,
            peak_at=peak.event,
            by_kind=dict(zip(KINDS, peak.by_kind)),
            saved_for_backward_bytes=sum(saved.values()),
            steady_bytes=self.steady_bytes,
            layers=tuple(LayerMemory(name, saved.get(name, 0), size) for name, size in outputs.items()),
            timeline=tuple(eager.moments),
        )

    @property
    def steady_bytes(self) -> int:
        """Parameters, gradients and optimizer state."""
        held = [parameter.storage for parameter in self.parameters] + self.gradients + self.states
        return sum(storage.size for storage in held)

    def _run(self) -> None:
        eager, options = self.eager, self.options
        eager.note()
        eager.release(*self.gradients)
        eager.autocast = options.autocast
        x = Tensor(self.images, self.network.input_shape, self.element_bytes)
        logits = self._forward(x)
        if self.labels is None:
            return
        loss = eager.cross_entropy(logits, self.labels)
        self.loss_bytes = loss.storage.size
        eager.release(logits)
        eager.end_autocast()
        if loss.node is not None:
            eager.backward(loss)
        if options.optimizer != "none":
            eager.optimizer_step(self.trained, adaptive=OPTIMIZERS[options.optimizer].adaptive)
        eager.release(loss)

    def _forward(self, x: Tensor) -> Tensor:
        """Run the forward pass as the model does: a block's input is held by its caller until the block returns."""
        eager = self.eager
        x = eager.alias(x)
        for name, layers in self.blocks:
            run = eager.run_checkpoint if name in self.options.checkpoint else eager.run_layers
            y = run(layers, eager.alias(x))
            eager.release(x)
            x = y
        return eager.run_layers(self.head, x)

    def _place_layers(self) -> None:
        for placed in self.network.modules():
            trained = placed.name not in self.frozen
            parameters = {
                name: self._parameter(elements(shape), trained)
                for name, shape in placed.layer.parameters(placed.input_shape).items()
            }
            for shape in placed.layer.buffers(placed.input_shape).values():
                size = elements(shape) * self.element_bytes if shape else INDEX_BYTES
                self.eager.new(0, size, BUFFERS)
            run = PlacedRun(placed.name, placed.layer, parameters, frozen=not trained)
            if placed.block is None:
                self.head.append(run)
            elif self.blocks and self.blocks[-1][0] == placed.block:
                self.blocks[-1][1].append(run)
            else:
                self.blocks.append((placed.block, [run]))

    def _parameter(self, count: int, trained: bool) -> Parameter:
        storage = self.eager.new(0, count * self.element_bytes, PARAMETERS)
        storage.is_parameter = True
        parameter = Parameter(storage, self.element_bytes, trained)
        self.parameters.append(parameter)
        return parameter

    def _optimizer_state(self) -> list[Storage]:
        rule = OPTIMIZERS[self.options.optimizer]
        counts = rule.adaptive and self.options.device == "cpu"  # the counter stays on the CPU
        return [
            self.eager.new(0, size, OPTIMIZER)
            for parameter in self.trained
            for size in (*([STEP_BYTES] if counts else []), *[parameter.storage.constant] * rule.states)
        ]


# Any batch


class LinearBytes(NamedTuple):
    """Bytes that are a line over the batch.

    Args:
        constant: bytes that don't grow with it.
        per_image: bytes that do, for one image.
    """

    constant: int
    per_image: int

    def at(self, batch: int) -> int:
        """Return the bytes at a batch."""
        return self.constant + self.per_image * batch


class Line(NamedTuple):
    """A moment of a step, at any batch.

    Args:
        event: what happens, as in the timeline of a plan.
        size: bytes in all.
        by_kind: bytes of each of `KINDS`.
    """

    event: str
    size: LinearBytes
    by_kind: tuple[LinearBytes, ...]


class Lines(msgspec.Struct, frozen=True):
    """A step at any batch.

    Args:
        moments: those that are the peak at some batch, in the step's order; the first of the highest is the peak.
        saved_for_backward: what autograd holds between the forward and the backward pass.
        steady_bytes: parameters, gradients and optimizer state.
        smallest_batch: the smallest that torch runs.
    """

    moments: tuple[Line, ...]
    saved_for_backward: LinearBytes
    steady_bytes: int
    smallest_batch: int

    def peak(self, batch: int) -> Line:
        """Return the moment of the peak at a batch."""
        return max(self.moments, key=lambda moment: moment.size.at(batch))


def lines(network: Network, options: Options) -> Lines:
    """Walk through a step for every batch at once.

    Every storage is a line over the batch, and which are alive when does not depend on it; so two batches say it all.

    Args:
        network: the network.
        options: what the step is like, checked; their batch does not matter.

    Raises:
        ArgumentError: if the device is not the CPU: elsewhere each storage is rounded up.

    >>> step = lines(Network.of("D"), Options())
    >>> step.peak(64).event, step.peak(64).size.at(64) == memory("D", batch=64).peak_bytes
    ('backward of block4_relu3', True)
    """
    if options.device != "cpu":
        raise ArgumentError(f"device: expected cpu, where bytes are a line over the batch, found {options.device}")
    one, two = (_Step(network, replace_batch(options, batch)).plan() for batch in (1, 2))
    moments = [
        Line(before.event, _through(before.size, after.size), tuple(map(_through, before.by_kind, after.by_kind)))
        for before, after in zip(one.timeline, two.timeline)
    ]
    saved = _through(one.saved_for_backward_bytes, two.saved_for_backward_bytes)
    return Lines(_highest(moments), saved, one.steady_bytes, smallest_batch(network, options))


def _through(one: int, two: int) -> LinearBytes:
    """Return the line that has these values at batch 1 and at batch 2."""
    return LinearBytes(2 * one - two, two - one)


def _highest(moments: list[Line]) -> tuple[Line, ...]:
    """Return the moments that are the first of the highest at some batch, in their order."""
    batch, highest = 1, [max(moments, key=lambda moment: moment.size.at(1))]
    while steeper := [moment for moment in moments if moment.size.per_image > highest[-1].size.per_image]:
        top = highest[-1].size
        overtaken = (
            -((moment.size.constant - top.constant) // (moment.size.per_image - top.per_image)) for moment in steeper
        )
        batch = max(batch + 1, min(overtaken))
        highest.append(max(moments, key=lambda moment: moment.size.at(batch)))
    return tuple(sorted(dict.fromkeys(highest), key=moments.index))


class SavedBytes(msgspec.Struct, frozen=True):
    """What the rows of a summary keep for the backward pass.

    Args:
        by_row: bytes by the row's name.
        total: their sum; the loss is not in it.
    """

    by_row: dict[str, int]
    total: int


def saved_by_row(plan: MemoryPlan, rows: Iterable[str]) -> SavedBytes:
    """Return the saved bytes of the rows of a summary; what a layer without a row keeps counts with the row before.

    Args:
        plan: a training step.
        rows: names of layers, in order.
    """
    rows = set(rows)
    saved: dict[str, int] = {}
    row = ""
    for layer in plan.layers[:-1]:  # the last is the loss, which is no layer of the network
        row = layer.name if layer.name in rows or not row else row
        saved[row] = saved.get(row, 0) + layer.saved_bytes
    return SavedBytes(saved, sum(saved.values()))


class Checkpoints(msgspec.Struct, frozen=True):
    """Blocks to run again in the backward pass, and what that gives and costs.

    Args:
        blocks: their names.
        peak_bytes: most bytes alive at one moment then.
        recomputed: multiply-accumulates that are run again for one image.
        forward: those of its whole forward pass.
    """

    blocks: tuple[str, ...]
    peak_bytes: int
    recomputed: int
    forward: int


class Alternatives(msgspec.Struct, frozen=True):
    """What the peak would be if one option were another; None where that makes no sense.

    Args:
        without_autocast: in plain float32.
        frozen_blocks: with the convolutions frozen.
        checkpoints: with the cheapest blocks checkpointed that give the peak of all of them.
    """

    without_autocast: int | None = None
    frozen_blocks: int | None = None
    checkpoints: Checkpoints | None = None


def alternatives(network: Network, options: Options) -> Alternatives:
    """Walk through the steps that a user might choose instead."""
    blocks = tuple(dict.fromkeys(placed.block for placed in network if placed.block))
    if options.mode == "inference" or not blocks:
        return Alternatives()

    def peak(**changes: Any) -> int:
        return plan(network, msgspec.structs.replace(options, **changes)).peak_bytes

    has_head = any(placed.block is None and placed.layer.role == "weight" for placed in network)
    return Alternatives(
        without_autocast=peak(autocast=False) if options.autocast else None,
        frozen_blocks=peak(freeze=blocks, checkpoint=()) if has_head and not options.freeze else None,
        checkpoints=None if options.checkpoint or options.freeze else cheapest_checkpoints(network, options),
    )


MOST_SETS = 256
"""So many sets of blocks are tried, which are all of eight blocks; a walk takes some milliseconds."""


def cheapest_checkpoints(network: Network, options: Options) -> Checkpoints:
    """Find the blocks whose checkpoints are as good as those of all blocks, and cost the fewest multiply-accumulates.

    Args:
        network: has blocks.
        options: of a training step, checked.

    Returns:
        The set; none of the blocks if checkpoints don't help, and all of them if `MOST_SETS` cheaper ones don't do.

    >>> cheapest_checkpoints(Network.of("D"), Options(batch=64)).blocks
    ('block1',)
    """
    costs = {placed.name: placed.layer.multiply_accumulates(placed.input_shape) for placed in network}
    names = tuple(dict.fromkeys(placed.block for placed in network if placed.block))

    def walked(blocks: tuple[str, ...]) -> MemoryPlan:
        return plan(network, msgspec.structs.replace(options, checkpoint=blocks))

    every = walked(names)
    moments = Counter(moment.event for moment in every.timeline)
    again = dict.fromkeys(names, 0)  # the recomputation of a block ends at its last saved tensor, maybe before a layer
    for placed in network:
        if placed.block and moments[f"recomputation of {placed.name}"] == moments[f"forward of {placed.name}"]:
            again[placed.block] += costs[placed.name]
    for blocks in islice(_cheapest_first(again), MOST_SETS):
        found = walked(blocks)
        if found.peak_bytes <= every.peak_bytes:
            break
    else:
        blocks, found = names, every
    return Checkpoints(blocks, found.peak_bytes, sum(again[block] for block in blocks), sum(costs.values()))


def _cheapest_first(costs: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Return every set of names, the cheapest first, of equal ones the smallest; the names in their own order."""
    names = sorted(costs, key=costs.__getitem__)
    waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    while waiting:
        cost, size, chosen = heappop(waiting)
        yield tuple(name for name in costs if name in [names[index] for index in chosen])
        after = chosen[-1] + 1 if chosen else 0
        if after < len(names):  # the next name beside the last one, and in its place
            more = cost + costs[names[after]]
            heappush(waiting, (more, size + 1, (*chosen, after)))
            if chosen:
                heappush(waiting, (more - costs[names[chosen[-1]]], size, (*chosen[:-1], after)))


# Budgets


class Overrun(NamedTuple):
    """A limit of a budget that a network exceeds.

    Args:
        limited: the name of the limit.
        batch: the batch at which it is meant; None where it is of one image.
        limit: what is allowed.
        actual: what the network needs.
    """

    limited: str
    batch: int | None
    limit: int
    actual: int


def overruns(network: Network) -> list[Overrun]:
    """Return what a network exceeds of its configuration's budget."""
    budget = network.config.budget
    if budget is None:
        return []
    totals = summarize(network).totals
    needs = [
        Overrun(word, None, limit, getattr(totals, word))
        for word in ("parameters", "multiply_accumulates")
        if (limit := getattr(budget, word)) is not None
    ]
    for mode, peak in (("inference", budget.inference_peak), ("training", budget.training_peak)):
        if peak is not None:
            actual = memory(network, batch=peak.batch, mode=mode).peak_bytes
            needs.append(Overrun(f"{mode}_peak", peak.batch, peak.limit_bytes, actual))
    return [need for need in needs if need.actual > need.limit]


# What fits


class Fit(msgspec.Struct, frozen=True):
    """The largest step that fits.

    Args:
        limit_bytes: the memory there is.
        solved: what was asked for: "batch" or "image".
        largest: that many images, or a square image of that side; 0 if not even the smallest fits.
        peak_bytes: what that needs; of the smallest if it does not fit.
        left_bytes: what is left then; negative if it does not fit.
        next: the one larger, or the smallest if it does not fit.
        missing_bytes: how much is missing for it.
    """

    limit_bytes: int
    solved: str
    largest: int
    peak_bytes: int
    left_bytes: int
    next: int
    missing_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


class StepArguments(Overrides, total=False):
    """The keywords of `memory` but batch, for type checkers."""

    mode: str
    dtype: Dtype
    optimizer: str | None
    device: str
    freeze: str | Iterable[str]
    checkpoint: str | Iterable[str]
    autocast: bool


def max_batch(source: Source, limit: str | SupportsIndex, **arguments: Unpack[StepArguments]) -> int:
    """Return the largest batch whose step fits.

    Args:
        source: a name, a path, a Config or a Network.
        limit: bytes, or text such as "24GiB".
        arguments: as for `memory`, except batch.

    Returns:
        The number of images; 0 if not even one fits, or two where torch can't run a step of one.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> max_batch("D", "24GiB")
    327
    """
    network, options = _network_and_options(source, {**arguments})
    return fit_batch(network, options, _limit(limit)).largest


def _network_and_options(source: Source, arguments: dict[str, Any]) -> tuple[Network, Options]:
    if "batch" in arguments:
        raise ArgumentError("batch: it is what is asked for; leave it out")
    check_keywords(max_batch, arguments, Options.__struct_fields__)
    said = {word: arguments.pop(word) for word in list(arguments) if word in Options.__struct_fields__}
    unsaid = {word: getattr(Options(), word) for word in Options.__struct_fields__}
    network = Network.of(source, **arguments)
    return network, checked_options(network, **{**unsaid, "optimizer": None, **said})


def _limit(limit: str | SupportsIndex) -> int:
    if isinstance(limit, str):
        return parse_bytes(limit)
    try:
        return whole(limit, "limit")
    except ArgumentError:
        raise ArgumentError(f"limit: expected bytes or text such as '24GiB', found {shorten(limit)}") from None


def fit_batch(network: Network, options: Options, limit: int) -> Fit:
    """Find the largest batch that fits, by arithmetic: every moment's bytes are a line over the batch."""
    moments = _Step(network, replace_batch(options, 1)).eager.moments
    smallest = smallest_batch(network, options)
    growing = [(limit - moment.constant) // moment.per_image for moment in moments if moment.per_image]
    largest = max(0, min(growing, default=0))
    if any(moment.constant > limit for moment in moments):
        largest = 0

    def peak(batch: int) -> int:
        if options.device == "cpu":
            return max(moment.per_image * batch + moment.constant for moment in moments)
        return plan(network, replace_batch(options, batch)).peak_bytes

    while largest >= smallest and peak(largest) > limit:  # CUDA rounds up, to a little more than the line says
        largest -= 1
    return _fit(limit, "batch", largest if largest >= smallest else 0, peak, smallest)


def forward_only(options: Options) -> Options:
    """Return the same options for a forward pass without gradients."""
    return msgspec.structs.replace(options, mode="inference", optimizer="none", freeze=(), checkpoint=())


def replace_batch(options: Options, batch: int) -> Options:
    """Return the same options for another batch."""
    return msgspec.structs.replace(options, batch=batch)


def fit_image(network: Network, options: Options, limit: int) -> Fit:
    """Find the side of the largest square image that fits, where the network takes any size.

    Raises:
        ArgumentError: if its parameters depend on the image's size, or torch can't run the step at any.
    """
    if not _any_size(network):
        raise ArgumentError(
            f"image: {network.name} has parameters that depend on the image's size: its FC layers are made for one"
            f" size of maps. Expected head=gap, a trunk, or an adaptive pool before them; or ask for the largest batch"
        )
    plan(_square(network, LARGEST), options)  # refuses what torch can't run at any size
    smallest = _smallest_image(network, options)

    def peak(side: int) -> int:
        return plan(_square(network, side), options).peak_bytes

    if peak(smallest) > limit:
        return _fit(limit, "image", 0, peak, smallest)
    low, high = smallest, 2 * smallest
    while peak(high) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if peak(middle) <= limit else (low, middle)
    return _fit(limit, "image", low, peak)


def _fit(limit: int, solved: str, largest: int, peak: Any, smallest: int = 1) -> Fit:
    after = largest + 1 if largest else smallest
    needed, missing = peak(largest or smallest), peak(after) - limit
    return Fit(limit, solved, largest, needed, limit - needed, after, missing)


def _square(network: Network, side: int) -> Network:
    shape = (network.input_shape[0], side, side)
    return place(msgspec.structs.replace(network.config, input=shape))


def _runs(network: Network, options: Options, side: int) -> bool:
    try:
        return not _Step(_square(network, side), options).eager.refused
    except ConfigError:  # it is too small for a layer
        return False


def _smallest_image(network: Network, options: Options) -> int:
    high = 1
    while not _runs(network, options, high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _runs(network, options, middle) else (middle, high)
    return high


def _any_size(network: Network) -> bool:
    """Tell whether the parameters are the same for images of any size.

    Maps never shrink where the image grows, and those that depend on it are larger at the end of the scale; so two
    sizes say it for all between them.
    """

    def parameters(of: Network) -> list[dict[str, Shape]]:
        return [placed.layer.parameters(placed.input_shape) for placed in of]

    try:
        return parameters(network) == parameters(_square(network, LARGEST))
    except ConfigError:  # what takes this size does not take any
        return False

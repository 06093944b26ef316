"""Network → MemoryPlan: every byte that a step of eager PyTorch holds, when, and for what.

The step is the second one of a training loop, when the optimizer has its state: `zero_grad(set_to_none=True)`, forward
pass, cross-entropy, backward pass, optimizer step. Or, for inference, one forward pass in `eval()` mode without
gradients. Workspaces of cuDNN and cuBLAS are not included, because they are not tensors of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar

import msgspec

from vggkit.base.eager import (
    BUFFERS,
    GRADIENTS,
    INDEX_BYTES,
    INPUTS,
    MEMORY_KINDS,
    OPTIMIZER,
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
from vggkit.base.errors import ArgumentError, ConfigError, did_you_mean, shorten
from vggkit.base.numbers import grouped, mebibytes, megabytes, percent
from vggkit.base.tables import Column, Shown, Table, grid
from vggkit.footprint import viewer
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import CardUse, Loop, card_use
from vggkit.footprint.optimizers import DEFAULT, NONE, OPTIMIZERS
from vggkit.network import ELEMENT_BYTES, Dtype, Network, PlacedLayer, Source, check_batch, dtype_name, place, several
from vggkit.notation.layers import Shape, elements, times
from vggkit.notation.overrides import Overrides, check_keywords

if TYPE_CHECKING:
    from typing_extensions import Unpack

Mode = Literal["training", "inference"]
Device = Literal["cpu", "cuda"]

MODES: tuple[Mode, ...] = ("training", "inference")
DEVICES: tuple[Device, ...] = ("cpu", "cuda")

Word = TypeVar("Word", bound=str)


class StepOptions(msgspec.Struct, frozen=True):
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
        allocator: settings of torch's CUDA allocator, as in PYTORCH_ALLOC_CONF.
    """

    batch: int = 1
    mode: Mode = "training"
    dtype: str = "float32"
    optimizer: str = DEFAULT
    device: Device = "cpu"
    freeze: tuple[str, ...] = ()
    checkpoint: tuple[str, ...] = ()
    autocast: bool = False
    allocator: str = ""

    @property
    def is_training(self) -> bool:
        """Whether there is a backward pass."""
        return self.mode == "training"

    def replace(self, **changes: Any) -> StepOptions:
        """Return the options with some of them changed."""
        return msgspec.structs.replace(self, **changes)

    def forward_only(self) -> StepOptions:
        """Return the same options for a forward pass without gradients."""
        return self.replace(mode="inference", optimizer=NONE, freeze=(), checkpoint=())

    @property
    def words(self) -> str:
        """The step in words, for a title; the batch is not included."""
        said: list[str] = [self.dtype, self.mode]
        if self.is_training:
            said.append(self.optimizer)
        if self.autocast:
            said.append("autocast to bfloat16")
        if self.freeze:
            said.append(f"frozen: {', '.join(self.freeze)}")
        if self.checkpoint:
            said.append(f"checkpointed: {', '.join(self.checkpoint)}")
        said.append(self.device)
        if self.allocator:
            said.append(self.allocator)
        return ", ".join(said)

    def title(self, name: str, image: Shape) -> str:
        """Return one line that describes the step of a network.

        Args:
            name: the network's.
            image: shape of one image.
        """
        return f"{name}: {times(image)}, batch {self.batch}, {self.words}"


class LayerMemory(msgspec.Struct, frozen=True):
    """What one layer holds.

    Args:
        name: the layer's; the last one is `loss`.
        saved_bytes: what autograd keeps for its backward pass, without what an earlier layer keeps already.
        output_bytes: its output; 0 if that is in another layer's memory.
    """

    name: str
    saved_bytes: int
    output_bytes: int


class MemoryPlan(Shown, msgspec.Struct, frozen=True):
    """What a step holds.

    Args:
        network: whose step it is.
        options: what the step is like.
        peak_bytes: most bytes alive at one moment.
        peak_at: that moment: "backward of block3_pool".
        by_kind: the bytes of each kind at that moment.
        saved_for_backward_bytes: what autograd holds between the forward and the backward pass, each storage once,
            parameters and buffers excluded.
        steady_bytes: parameters, gradients and optimizer state, which stay between steps.
        layers: what each layer holds, the loss included.
        timeline: the alive bytes after each operation.
        allocated_bytes: on CUDA, most bytes of the blocks that torch's allocator hands out in a steady step, as
            `torch.cuda.max_memory_allocated` says; None on the CPU.
        reserved_bytes: on CUDA, most bytes of its segments, as `torch.cuda.max_memory_reserved` says: what the card
            must have; None on the CPU.
        retries: on CUDA, how often it gives back what is cached to make room, on a card with room for the step; None on
            the CPU.
    """

    network: Network
    options: StepOptions
    peak_bytes: int
    peak_at: str
    by_kind: dict[str, int]
    saved_for_backward_bytes: int
    steady_bytes: int
    layers: tuple[LayerMemory, ...]
    timeline: tuple[Moment, ...]
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    retries: int | None = None

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def input(self) -> Shape:
        """Shape of one image."""
        return self.network.input_shape

    @property
    def title(self) -> str:
        """One line that describes the step and its network."""
        return self.options.title(self.name, self.input)

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
            "allocated_bytes": self.allocated_bytes,
            "reserved_bytes": self.reserved_bytes,
            "retries": self.retries,
            "layers": [
                {"name": layer.name, "saved_bytes": layer.saved_bytes, "output_bytes": layer.output_bytes}
                for layer in self.layers
            ],
            "timeline": [
                {"event": moment.event, "bytes": moment.size, "by_kind": dict(zip(MEMORY_KINDS, moment.by_kind))}
                for moment in self.timeline
            ],
        }

    def torch_snapshot(self) -> dict[str, Any]:
        """Return what `torch.cuda.memory._snapshot` returns after a steady step whose history was recorded.

        On CUDA the blocks lie where torch's allocator puts them, on a card with room for the step. On the CPU they lie
        in one arena: each in the smallest hole that is large enough.

        Returns:
            `segments` with their blocks when the step ends, and the step's allocations and frees in `device_traces`.

        >>> trace = memory("D").torch_snapshot()["device_traces"][0]
        >>> trace[-2]["action"], trace[-2]["frames"][0]["name"]
        ('free_completed', 'backward of block1_conv1')
        """
        return Step(self.network, self.options).torch_snapshot()

    def to_pickle(self) -> bytes:
        """Return `torch_snapshot` as a file that https://pytorch.org/memory_viz opens."""
        return viewer.pickled(self.torch_snapshot())

    def table(self, advice: Sequence[str] = ()) -> Table:
        """Return a row for each kind of memory at the peak, their sum, and sentences on what may surprise.

        Args:
            advice: sentences on other steps, such as `Remedies.sentences`.
        """
        total = self.peak_bytes
        columns: list[Column[tuple[str, int]]] = [
            Column("what", lambda row: MEMORY_KINDS[row[0]]),
            Column("bytes", lambda row: grouped(row[1]), "right", style="green"),
            Column("", lambda row: megabytes(row[1]), "right", rank=2),
            Column("share", lambda row: percent(row[1], total), "right", rank=1),
            Column("", lambda row: bar(row[1], total), rank=3, style="cyan"),
        ]
        alive = [(kind, size) for kind, size in self.by_kind.items() if size]
        footer = ["peak", grouped(total), megabytes(total), "", ""]
        data = [*self.by_kind.items(), ("peak", total)]
        if self.allocated_bytes is not None and self.reserved_bytes is not None:
            data += [("allocated", self.allocated_bytes), ("reserved", self.reserved_bytes)]
        return Table(
            grid(columns, alive, footer, title=self.title),
            records=[{"kind": kind, "bytes": size} for kind, size in data],
            data=self.to_dict(),
            notes=self._sentences(advice),
        )

    def _sentences(self, advice: Sequence[str]) -> list[str]:
        largest = max(self.by_kind, key=self.by_kind.__getitem__)
        share = percent(self.by_kind[largest], self.peak_bytes)
        said = [
            f"The peak is {megabytes(self.peak_bytes)} ({mebibytes(self.peak_bytes)}), in the {self.peak_at};"
            f" {share} of it are {MEMORY_KINDS[largest]}."
        ]
        if self.options.is_training:
            said.append(
                f"Kept for the backward pass: {megabytes(self.saved_for_backward_bytes)}. Kept between steps:"
                f" {megabytes(self.steady_bytes)} (parameters, gradients, optimizer)."
            )
        if self.peak_at == OPTIMIZER_STEP:
            said.append("At this batch the optimizer's own temporaries, not the activations, make the peak.")
        said += advice
        if self.allocated_bytes is not None and self.reserved_bytes is not None:
            holes = self.reserved_bytes - self.allocated_bytes
            said.append(
                f"What the card must have: {grouped(self.reserved_bytes)} bytes ({mebibytes(self.reserved_bytes)})"
                " reserved by torch's allocator."
            )
            said.append(
                f"Of them {grouped(self.allocated_bytes)} are allocated at most; {percent(holes, self.reserved_bytes)}"
                " are holes."
            )
            said.append("Workspaces of cuDNN and cuBLAS and the CUDA context are not included.")
        return said


BAR = 24
"""Width of a bar of 100 %, in characters."""


def bar(part: int, whole: int) -> str:
    """Draw a share as a bar, in eighths of a character."""
    eighths = round(BAR * 8 * part / whole)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


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
    allocator: str = "",
    **overrides: Unpack[Overrides],
) -> MemoryPlan:
    """Plan the memory of a step, to the byte.

    Args:
        source: a name, a path, a Config or a Network.
        batch: number of images.
        mode: "training" or "inference".
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        optimizer: none, sgd, sgd-momentum (the default; without weight decay), adam or adamw; none in inference.
        device: cpu, or cuda, where dropout's mask is smaller and each tensor is rounded up to 512 bytes; there the plan
            also says what torch's allocator reserves.
        freeze: blocks and layers that are not trained, a name or several.
        checkpoint: blocks that are run again in the backward pass, a name or several.
        autocast: whether `torch.autocast` to bfloat16 is on; the parameters are float32 then.
        allocator: settings of torch's CUDA allocator, as in PYTORCH_ALLOC_CONF: "expandable_segments:True".
        overrides: changes to make, as for `load`.

    Returns:
        The plan.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values, or torch can't run the step: a batch or group norm
            would have a single value to take statistics of.

    >>> memory("D").peak_bytes
    1722992880
    >>> memory("D", batch=16, device="cuda").reserved_bytes
    3474980864
    """
    check_keywords(memory, overrides)
    network = Network.of(source, **overrides)
    options = checked_options(
        network,
        batch=batch,
        mode=mode,
        dtype=dtype,
        optimizer=optimizer,
        device=device,
        freeze=freeze,
        checkpoint=checkpoint,
        autocast=autocast,
        allocator=allocator,
    )
    return plan_step(network, options)


def checked_options(
    network: Network,
    *,
    batch: SupportsIndex = 1,
    mode: str = "training",
    dtype: Dtype = "float32",
    optimizer: str | None = None,
    device: str = "cpu",
    freeze: str | Iterable[str] = (),
    checkpoint: str | Iterable[str] = (),
    autocast: bool = False,
    allocator: str = "",
) -> StepOptions:
    """Check arguments of a step; `memory` explains them.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    options = StepOptions(
        batch=check_batch(batch),
        dtype=dtype_name(dtype),
        freeze=several(freeze, "freeze"),
        checkpoint=several(checkpoint, "checkpoint"),
        mode=_one_of(MODES, mode, "mode"),
        optimizer=_one_of(OPTIMIZERS, optimizer or (NONE if mode == "inference" else DEFAULT), "optimizer"),
        device=_one_of(DEVICES, device, "device"),
        autocast=autocast,
        allocator=allocator,
    )
    if options.allocator and options.device != "cuda":
        raise ArgumentError(f"allocator: needs device cuda, found {options.device}")
    Settings.of(options.allocator)  # refuses what is wrong
    if options.autocast and options.dtype != "float32":
        raise ArgumentError(f"autocast: needs dtype float32, found {options.dtype}")
    if not options.is_training:
        allowed = options.forward_only()
        for word in ("optimizer", "freeze", "checkpoint"):
            if getattr(options, word) != getattr(allowed, word):
                raise ArgumentError(f"{word}: needs mode training, found inference")
    network.parts(options.freeze, "freeze")
    network.blocks(options.checkpoint, "checkpoint")
    return options


def _one_of(allowed: Iterable[Word], given: str, argument: str) -> Word:
    """Return an argument if it is one of the allowed words; refuse any other."""
    for word in allowed:
        if word == given:
            return word
    advice = did_you_mean(str(given), allowed)
    raise ArgumentError(f"{argument}: expected one of {', '.join(allowed)}, found {shorten(given)}.{advice}")


# Walking through a step

ZERO_GRAD, OPTIMIZER_STEP = "zero_grad", "optimizer step"
"""The events in which the gradients of the step before are freed, and in which the optimizer changes the parameters."""


class Step:
    """A step that has been walked through, whether or not torch would run it.

    Args:
        network: the network.
        options: what the step is like, checked.

    Attributes:
        moments: the alive bytes after each operation.
        saved: each storage that is kept for the backward pass, and the first layer that keeps it.
        refused: names of the normalisations that torch refuses to run.
    """

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.network = network
        self.options = options
        self._eager = eager = Eager(options.batch, options.device, training=options.is_training)
        self.moments, self.saved, self.refused = eager.moments, eager.kept, eager.refused
        self._optimizer = OPTIMIZERS[options.optimizer]
        self._element_bytes = ELEMENT_BYTES[options.dtype]
        self._parameters: list[Parameter] = []
        self._states: list[Storage] = []
        self._gradients: list[Storage] = []
        self._loss_bytes = 0
        self._before = eager.events
        self._of_forward: list[Event] = []
        self._of_backward: list[Event] = []
        self._of_update: list[Event] = []
        self._outlives: Storage | None = None
        self._walk()

    def check(self) -> None:
        """Refuse a step that torch refuses.

        Raises:
            ArgumentError: says why, and what would help.
        """
        if self.refused:
            raise ArgumentError(_refusal(self))

    @property
    def peak(self) -> Moment:
        """The moment of most bytes, the first of several."""
        return max(self.moments, key=lambda moment: moment.size)

    def plan(self) -> MemoryPlan:
        """Return what it holds."""
        eager, peak = self._eager, self.peak
        saved: dict[str, int] = {}
        for storage, layer in self.saved.items():
            saved[layer] = saved.get(layer, 0) + storage.size
        outputs = {**eager.outputs, "loss": self._loss_bytes} if self.options.is_training else eager.outputs
        steady = [parameter.storage for parameter in self._parameters] + self._gradients + self._states
        use = self.card_use() if self.options.device == "cuda" else None
        return MemoryPlan(
            network=self.network,
            options=self.options,
            peak_bytes=peak.size,
            peak_at=peak.event,
            by_kind=dict(zip(MEMORY_KINDS, peak.by_kind)),
            saved_for_backward_bytes=sum(saved.values()),
            steady_bytes=sum(storage.size for storage in steady),
            layers=tuple(LayerMemory(name, saved.get(name, 0), size) for name, size in outputs.items()),
            timeline=tuple(self.moments),
            allocated_bytes=use and use.allocated_bytes,
            reserved_bytes=use and use.reserved_bytes,
            retries=use and use.retries,
        )

    @property
    def loop(self) -> Loop:
        """What a loop of such steps allocates and frees, as `vggkit.footprint.card` has it."""
        gradients = [parameter.gradient for parameter in self._parameters]
        forward, outlives = self._of_forward, self._outlives
        made = [(OPTIMIZER_STEP, state, True) for state in self._states]
        freed = [(ZERO_GRAD, gradient, False) for gradient in gradients if gradient is not None]
        replaced = [] if outlives is None else [(forward[-1][0], outlives, False)]
        return Loop(
            before=self._before,
            first=[*forward, *self._of_backward, *made, *self._of_update],
            later=[*freed, *forward, *replaced, *self._of_backward, *self._of_update],
        )

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

    def _walk(self) -> None:
        """Allocate what is there when the step begins, and run it."""
        eager, options, network = self._eager, self.options, self.network
        blocks = self._place_layers()
        eager.event = START
        images = eager.new(elements(network.input_shape) * self._element_bytes, kind=INPUTS)
        x = Tensor(images, network.input_shape, self._element_bytes)
        if not options.is_training:
            eager.note()
            eager.autocast = options.autocast
            eager.events = self._of_forward
            y = self._forward(x, blocks)
            eager.end_autocast()
            self._outlives = None if y.storage is images else y.storage
            return
        places = elements(network.output_shape[1:])  # a trunk ends in maps, with a label for each position
        labels = eager.new(places * INDEX_BYTES, kind=INPUTS)
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        sizes = [parameter.storage.constant for parameter in trained]
        eager.events = []  # the first step makes these
        states = [state for size in sizes for state in self._optimizer.state(size, options.device)]
        self._states = [eager.new(0, size, OPTIMIZER) for size in states]
        self._gradients = [eager.new(0, size, GRADIENTS) for size in sizes]
        eager.note()
        eager.release(*self._gradients)  # zero_grad(set_to_none=True)
        eager.events = self._of_forward
        eager.autocast = options.autocast
        logits = self._forward(x, blocks)
        loss = eager.cross_entropy(logits, labels)
        self._loss_bytes = loss.storage.size
        eager.release(logits)
        eager.end_autocast()
        eager.events = self._of_backward
        if loss.node is not None:
            eager.backward(loss)
        eager.events = self._of_update
        eager.event, eager.kind = OPTIMIZER_STEP, OPTIMIZER
        self._optimizer.step(sizes, eager)
        self._outlives = loss.storage
        eager.events = []
        eager.release(loss)

    def _place_layers(self) -> list[tuple[str | None, list[PlacedRun]]]:
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
            parameters[name] = Parameter(storage, self._element_bytes, requires_grad=not frozen)
        self._parameters += parameters.values()
        for shape in placed.layer.buffers(placed.input_shape).values():
            # the buffer without a shape is batch norm's counter of batches
            self._eager.new(0, elements(shape) * self._element_bytes if shape else INDEX_BYTES, BUFFERS)
        return PlacedRun(placed.name, placed.layer, parameters, frozen)

    def _forward(self, x: Tensor, blocks: list[tuple[str | None, list[PlacedRun]]]) -> Tensor:
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


def plan_step(network: Network, options: StepOptions) -> MemoryPlan:
    """Plan a step whose options have been checked.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    step = Step(network, options)
    step.check()
    return step.plan()


def peak_bytes(network: Network, options: StepOptions) -> int:
    """Return the most bytes alive at one moment of a step whose options have been checked.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    return peak_and_saved_bytes(network, options)[0]


def peak_and_saved_bytes(
    network: Network, options: StepOptions, largest: Callable[[Iterable[int]], int] = max
) -> tuple[int, int]:
    """Return two figures of a step whose options have been checked, without the rest of its plan.

    Args:
        network: the network.
        options: what the step is like.
        largest: returns the largest of numbers; for sizes that are `Many`, `vggkit.base.many.largest`.

    Returns:
        Most bytes alive at one moment, and what is saved for the backward pass.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    step = Step(network, options)
    step.check()
    return largest(moment.size for moment in step.moments), sum(storage.size for storage in step.saved)


def reserved_on_card(network: Network, options: StepOptions) -> int:
    """Return what a card must have for a loop of steps, without the rest of their plan.

    Args:
        network: the network.
        options: what a step is like, checked; its device is taken as cuda.

    Returns:
        Most bytes that torch's allocator reserves in a steady step, on a card with room for it.

    Raises:
        ArgumentError: if torch refuses to run the step.

    >>> reserved_on_card(Network.of("D"), StepOptions(batch=16))
    3474980864
    """
    step = Step(network, options.replace(device="cuda"))
    step.check()
    return step.card_use().reserved_bytes


# What torch refuses


def refusal(network: Network, options: StepOptions) -> str | None:
    """Return why torch refuses to run a step, and what would help; None if it runs it."""
    step = Step(network, options)
    return _refusal(step) if step.refused else None


def _refusal(step: Step) -> str:
    network, options = step.network, step.options
    placed = network.layer(step.refused[0])
    each = "channel" if _is_over_the_batch(placed) else "group"
    helps = [words for words, changed, other in _changes(network, options) if not Step(changed, other).refused]
    return (
        f"{network.name}: torch can't run {'a training step' if options.is_training else 'inference'} at batch"
        f" {options.batch}, as {placed.name} would normalize a single value of each {each}. Expected"
        f" {', '.join(helps[:-1])}{', or ' if helps[1:] else ''}{helps[-1]}"
    )


def _changes(network: Network, options: StepOptions) -> Iterator[tuple[str, Network, StepOptions]]:
    """Yield changes that may help: a normalisation gets more values, or takes no statistics of the batch."""
    yield "batch 2 or more", network, options.replace(batch=2)
    channels, height, width = network.input_shape
    with suppress(ConfigError):
        larger = place(msgspec.structs.replace(network.config, input=(channels, 4 * height, 4 * width)))
        yield "a larger input", larger, options
    if options.is_training:
        norms = tuple(placed.name for placed in network if _is_over_the_batch(placed))
        yield "frozen batch norms", network, options.replace(freeze=(*options.freeze, *norms))
        yield "mode inference", network, options.forward_only()


def _is_over_the_batch(placed: PlacedLayer) -> bool:
    """Tell whether a layer's statistics are those of the whole batch, as batch norm's are."""
    return any(not kept.per_image for kept in placed.layer.kept(placed.input_shape))


def smallest_batch(network: Network, options: StepOptions) -> int:
    """Return the smallest batch that torch runs: 2 where a normalisation would see a single value, else 1."""
    return 2 if Step(network, options.replace(batch=1)).refused else 1


# The rows of a summary


class SavedBytes(msgspec.Struct, frozen=True):
    """What the rows of a summary keep for the backward pass.

    Args:
        by_row: bytes by the row's name.
        total: their sum; the loss is not in it.
    """

    by_row: dict[str, int]
    total: int


def saved_by_row(plan: MemoryPlan, rows: Iterable[str]) -> SavedBytes:
    """Return the saved bytes of a summary's rows; those of a layer without a row are added to the row before.

    Args:
        plan: a training step.
        rows: names of layers, in order.
    """
    rows = set(rows)
    saved: dict[str, int] = {}
    row = ""
    for layer in plan.layers[:-1]:  # the last is the loss, which is not a layer of the network
        row = layer.name if layer.name in rows or not row else row
        saved[row] = saved.get(row, 0) + layer.saved_bytes
    return SavedBytes(saved, sum(saved.values()))

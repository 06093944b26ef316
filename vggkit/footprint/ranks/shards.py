"""Each rank has a part of each parameter, and all of a few at a time: `torch.distributed.fsdp.fully_shard`.

A model is divided into units. Before a unit's forward pass its parameters are gathered from all ranks, and freed again
behind it; in the backward pass they are gathered once more, and their gradients are added up and divided among the
ranks. The next unit's parameters are gathered in advance: in the backward pass its all-gather runs before the layers of
the unit, in the forward pass the output of an all-gather lives until that of the next one is there
(torch/distributed/fsdp/_fully_shard).

Parameters are divided by rows. Where the rows can't be divided evenly, each rank has as many as the first one, and the
last ones have padding; their optimizers' state has none.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

from vggkit.base.copies import chunking, splitting
from vggkit.base.eager import (
    COMMUNICATION,
    GRADIENTS,
    PARAMETERS,
    TEMPORARIES,
    Eager,
    Event,
    GradientHook,
    Gradients,
    Parameter,
    PlacedRun,
    Runs,
    Storage,
    Tensor,
)
from vggkit.base.errors import ArgumentError
from vggkit.base.shapes import elements
from vggkit.footprint.ranks.group import ALONE, Group
from vggkit.footprint.ranks.parts import rows_of
from vggkit.footprint.ranks.strategy import Asked, Blocks, Choice, Placed, Strategy
from vggkit.footprint.ranks.traffic import Traffic, all_gather, all_reduce, reduce_scatter
from vggkit.network import ELEMENT_BYTES, Network

GATHERING, REDUCING = 1, 2
"""CUDA's streams beside that of the layers: what is gathered, and gradients that have been added up, are allocated in
them (`FSDPCommContext`, all_gather_copy_in_stream and reduce_scatter_stream)."""

FUSED_CASTS = {("bfloat16", "float32")}
"""From which dtype to which the kernel of `_chunk_cat` casts."""

WRAPPING = "construction of fully_shard"
"""The event in which a model is divided."""

FUSED = ("adam", "adamw")
"""Those whose fused kernel runs on parts of parameters, in torch 2.14."""

REFUSED = {
    "adafactor": "torch can't run its step on parts of FC layers, and what it takes for convolutions is not known",
    "rprop": "torch can't write through a mask into parts of parameters",
}
"""Optimizers whose step is not known or torch 2.14 can't run on parts of parameters, and why. Adafactor squares the
norms of columns in place, which in an FC layer are divided among the ranks."""


MIXED_DTYPES = ("bfloat16", "float16", "float32")
"""What parameters may be gathered in, and gradients added up in."""


class Precision(NamedTuple):
    """The dtypes of parameters and gradients: torch's `MixedPrecisionPolicy`, with its defaults for the rest.

    Args:
        model: of the parameters that the optimizer changes, and of their gradients.
        gathered: of the parameters that layers run on, and of the gradients that these make.
        reduced: of the gradients while they are added up.
    """

    model: str
    gathered: str
    reduced: str

    @classmethod
    def of(cls, group: Group, dtype: str) -> Precision:
        """Return the dtypes of a group's model (`FSDPParam.init_dtype_attrs`)."""
        gathered = group.param_dtype or dtype
        return cls(dtype, gathered, group.reduce_dtype or gathered)

    @property
    def casts_parameters(self) -> bool:
        """Whether parameters are cast before they are gathered."""
        return self.gathered != self.model

    @property
    def casts_gradients(self) -> bool:
        """Whether gradients are cast when they have been added up."""
        return self.reduced != self.model

    @property
    def gathered_bytes(self) -> int:
        """Bytes of an element of a gathered parameter."""
        return ELEMENT_BYTES[self.gathered]

    @property
    def reduced_bytes(self) -> int:
        """Bytes of an element that is added up."""
        return ELEMENT_BYTES[self.reduced]


class Shard(NamedTuple):
    """A rank's part of a parameter.

    Args:
        whole: the parameter as the layer sees it while it is gathered.
        own: the part as the optimizer sees it, without padding.
        padded: what holds the part, with padding.
    """

    whole: Parameter
    own: Parameter
    padded: Storage

    @property
    def padded_elements(self) -> int:
        """Elements of the part, with padding."""
        return self.padded.constant // self.own.element_bytes


class State(Enum):
    """What a unit is doing (`TrainingState`)."""

    IDLE = auto()
    PRE_BACKWARD = auto()
    POST_BACKWARD = auto()


class Unit:
    """Layers whose parameters are gathered together.

    Args:
        name: the block's, the layer's or the network's.
        shards: of their parameters.

    Attributes:
        state: what it is doing.
        x: its input in the dtype of the parameters, while it runs.
        gathered: the output of an all-gather that has not been copied out yet.
        unsharded: the whole parameters, while they are there.
        left: the gradients of the step before.
    """

    def __init__(self, name: str, shards: Sequence[Shard]) -> None:
        self.name = name
        self.shards = shards
        self.trained = [shard for shard in shards if shard.own.requires_grad]
        self.state = State.IDLE
        self.x: Tensor | None = None
        self.gathered: Storage | None = None
        self.unsharded: list[Storage] = []
        self.left: Storage | None = None


def elements_of(shards: Sequence[Shard]) -> int:
    """Return how many elements a rank has of some parameters, with padding."""
    return sum(shard.padded_elements for shard in shards)


class _RunInUnit(NamedTuple):
    """A layer of a unit; the first one opens it, and the last one closes it."""

    layer: Runs
    unit: Unit
    strategy: FullyShard
    opens: bool
    closes: bool

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run the layer, with its parameters gathered before and freed behind it."""
        # no unit begins in place, which torch would refuse: blocks don't, and of layers only activations and dropout do
        y = self.layer.run(self.strategy.enter(self.unit, x) if self.opens else x, parameters, eager)
        if self.closes:
            self.strategy.leave(self.unit, y)
        return y


class FullyShard(Strategy):
    """Parameters, gradients and the optimizer's state are divided among the ranks, row by row."""

    name = "fsdp"
    words = "has a part of each parameter, gradient and state of the optimizer, and all of a unit while it runs"
    takes = ("units", "reshard_after_forward", "param_dtype", "reduce_dtype")

    @classmethod
    def choices(cls, ranks: int) -> Iterable[Choice]:  # noqa: ARG003  # any number can choose them
        yield Choice({})
        yield Choice({"reshard_after_forward": False})
        yield from (Choice({"units": word}) for word in UNITS if word != ALONE.units)
        yield Choice({"param_dtype": "bfloat16", "reduce_dtype": "float32"}, changes_result=True)

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, group, placed)
        self.precision = Precision.of(group, placed.dtype)
        self.units: list[Unit] = []
        self._division: Sequence[Event] = ()
        self._images: Tensor | None = None
        self._run: list[Unit] = []
        self._last_gathered: Storage | None = None
        self._sending: Storage | None = None
        self._unit_of: dict[Parameter, Unit] = {}
        self._hook: GradientHook | None = None
        self._traffic = self._clipped = Traffic()

    # Parts

    def wrap(self, blocks: Blocks) -> Blocks:
        """Divide the model: `fully_shard` of each unit, then of the root."""
        built, self.eager.event = len(self.eager.events), WRAPPING
        units = UNITS[self.group.units](blocks)
        wrapped = iter([placed for name, layers in units for placed in self._made_unit(name, layers)])
        self._division = self.eager.events[built:]
        return [(block, [next(wrapped) for _ in layers]) for block, layers in blocks]

    def copied(self, built: Sequence[Event]) -> Sequence[Event]:
        return [*built, *self._division]

    def _made_unit(self, name: str, layers: Sequence[PlacedRun]) -> list[PlacedRun]:
        wholes = [parameter for placed in layers for parameter in placed.parameters.values()]
        if not wholes:
            return list(layers)
        shards = {whole: self._made_shard(whole) for whole in wholes}
        self.eager.release(*wholes)
        unit = Unit(name, list(shards.values()))
        self.units.append(unit)
        self._unit_of.update((shard.own, unit) for shard in unit.shards)
        last = len(layers) - 1
        return [
            placed._replace(
                layer=_RunInUnit(placed.layer, unit, self, place == 0, place == last),
                parameters={word: shards[whole].whole for word, whole in placed.parameters.items()},
            )
            for place, placed in enumerate(layers)
        ]

    def _made_shard(self, parameter: Parameter) -> Shard:
        rows, element = self._rows(parameter, self.group.own), self.precision.gathered_bytes
        row = parameter.storage.constant // parameter.shape[0]
        padded = self.eager.new(0, self._rows(parameter, 0) * row, PARAMETERS)
        own = Storage(0, rows * row, rows * row, PARAMETERS)
        size = elements(parameter.shape) * element
        gathered = Storage(0, size, size, PARAMETERS)
        gathered.is_parameter = True
        is_trained = parameter.requires_grad
        return Shard(
            Parameter(gathered, parameter.shape, element, is_trained),
            Parameter(own, (rows, *parameter.shape[1:]), parameter.element_bytes, is_trained),
            padded,
        )

    def _rows(self, parameter: Parameter, rank: int) -> int:
        return rows_of(parameter.shape[0], self.group.ranks, rank)

    @property
    def trained(self) -> Sequence[Parameter]:
        return [shard.own for unit in self.units for shard in unit.trained]

    @property
    def owned(self) -> Sequence[Parameter]:
        return self.trained

    @property
    def kept(self) -> Iterable[Storage]:
        return [shard.padded for unit in self.units for shard in unit.shards]

    def left_gradient(self, parameter: Parameter) -> Storage:
        """Return the gradients of the parameter's unit, which are views of one tensor."""
        unit = self._unit_of[parameter]
        if unit.left is not None:
            return self.eager.hold(unit.left)
        with self.eager.in_stream(REDUCING):
            unit.left = self.eager.new(0, self._gradient_bytes(unit), GRADIENTS)
        return unit.left

    def _gradient_bytes(self, unit: Unit) -> int:
        return elements_of(unit.trained) * ELEMENT_BYTES[self.precision.model]

    def likeness(self, rank: int) -> Hashable:
        return tuple(self._rows(shard.whole, rank) for unit in self.units for shard in unit.shards)

    def traffic(self, rank: int) -> Traffic:
        """Return what has been sent in each pass of the walk, and in clipping: all ranks send and receive the same."""
        return self._traffic.times(self.placed.passes).plus(self._clipped)

    # A step

    def begin_step(self) -> None:
        return

    def begin_forward(self, images: Tensor) -> Tensor:
        """Cast the images, and keep the cast as long as the model runs."""
        eager = self.eager
        self._traffic, eager.event = Traffic(), "cast of the images"
        self._images = self._cast(images) if self.precision.casts_parameters else eager.alias(images)
        return self._images

    def enter(self, unit: Unit, x: Tensor) -> Tensor:
        """Gather a unit's parameters; return its input, whose gradient ends the unit's backward pass."""
        eager, element = self.eager, self.precision.gathered_bytes
        unit.x = self._cast(x) if self.group.param_dtype and x.element_bytes != element else eager.alias(x)
        node = None
        if unit.state is not State.PRE_BACKWARD:
            with eager.beyond_recomputation():
                self._gather_in_forward(unit)
            node = eager.node([unit.x.edge])
        if node is None:
            return unit.x

        def backward(gradient: Storage) -> Gradients:
            self._end_backward(unit)
            return [eager.hold(gradient)]

        node.backward = backward
        return Tensor(unit.x.storage, x.shape, unit.x.element_bytes, node)

    def _cast(self, x: Tensor) -> Tensor:
        return self.eager.op(x, element_bytes=self.precision.gathered_bytes)

    def leave(self, unit: Unit, y: Tensor) -> None:
        """Free a unit's parameters, unless they stay; they are gathered again when the output has its gradient.

        Where a checkpointed block runs again, they stay until the unit's backward pass ends.
        """
        if self.eager.is_recomputing:
            with self.eager.beyond_recomputation():
                self._free_last_gathered()
        else:
            self._run.append(unit)
            if self.group.reshard_after_forward:
                self._reshard(unit)
            if y.node is not None:
                y.node.before = lambda: self._begin_backward(unit)
        self.eager.release(unit.x)
        unit.x = None

    def end_forward(self) -> None:
        self._free_last_gathered()
        self.eager.release(self._images)
        self._images = None

    def _free_last_gathered(self) -> None:
        self.eager.release(self._last_gathered)
        self._last_gathered = None

    def _gather_in_forward(self, unit: Unit) -> None:
        """Gather a unit's parameters, and keep the output of the all-gather until that of the next one is there."""
        before, self.eager.event = self.eager.event, f"all-gather of {unit.name}"
        self._gather(unit)
        if unit.gathered is not None:
            self._copy_out(unit)
            self._free_last_gathered()
            self._last_gathered, unit.gathered = unit.gathered, None
        self.eager.event = before

    def _gather(self, unit: Unit) -> None:
        """Make each rank's part that of all (`foreach_all_gather`)."""
        if unit.gathered is not None or unit.unsharded:
            return
        eager, ranks = self.eager, self.group.ranks
        size = elements_of(unit.shards) * self.precision.gathered_bytes
        with eager.in_stream(GATHERING):
            cast = eager.new(0, size, COMMUNICATION) if self.precision.casts_parameters else None
            unit.gathered = eager.new(0, size * ranks, COMMUNICATION)
        eager.note()
        eager.release(cast)
        self._traffic = self._traffic.plus(all_gather(size * ranks, ranks))

    def _copy_out(self, unit: Unit) -> None:
        ranks, element = self.group.ranks, self.precision.gathered_bytes
        parts = [shard.padded_elements * element for shard in unit.shards]
        unit.unsharded = [self.eager.new(0, ranks * part, PARAMETERS) for part in parts]
        # not asked on the CPU, where the parts may be those of many networks, which have no square root
        taken = self.eager.kernel_scratch(splitting(parts, ranks)) if self.eager.device == "cuda" else None
        self.eager.note()
        self.eager.release(taken)

    def _note_kernel(self, *sizes: int) -> None:
        """Run an operation; on CUDA its kernel takes so many bytes for itself."""
        eager = self.eager
        taken = [eager.new(0, size, TEMPORARIES) for size in sizes] if eager.device == "cuda" else []
        eager.note()
        eager.release(*taken)

    def _reshard(self, unit: Unit) -> None:
        self.eager.release(*unit.unsharded)
        unit.unsharded = []

    def _begin_backward(self, unit: Unit) -> None:
        """Gather a unit's parameters once more, and those of the unit that has run before it (`pre_backward`)."""
        eager, unit.state = self.eager, State.PRE_BACKWARD
        before, eager.event = eager.event, f"all-gather of {unit.name}"
        self._gather(unit)
        if unit.gathered is not None:
            self._copy_out(unit)
            eager.release(unit.gathered)
            unit.gathered = None
        place = self._run.index(unit)
        if place:
            eager.event = f"all-gather of {self._run[place - 1].name}"
            self._gather(self._run[place - 1])
        eager.event = before

    def _end_backward(self, unit: Unit) -> None:
        """Free a unit's parameters, and reduce its gradients (`post_backward`)."""
        eager, unit.state = self.eager, State.POST_BACKWARD
        before, eager.event = eager.event, f"reduce-scatter of {unit.name}"
        self._reshard(unit)
        eager.release(self._sending)
        self._sending = None
        shards = [shard for shard in unit.trained if shard.whole.gradient is not None]
        if shards:
            self._reduce(shards)
        eager.event = before

    def _reduce(self, shards: Sequence[Shard]) -> None:
        """Add up the gradients of all ranks, and keep the rank's part (`foreach_reduce`)."""
        eager, ranks = self.eager, self.group.ranks
        size = elements_of(shards) * self.precision.reduced_bytes
        self._sending = eager.new(0, size * ranks, COMMUNICATION)
        self._note_kernel(*self._copy_in_bytes(shards))
        *others, last = (shard.whole for shard in shards)
        self._free(*others)
        self._traffic = self._traffic.plus(reduce_scatter(size * ranks, ranks))
        with eager.in_stream(REDUCING):
            part = eager.new(0, size, GRADIENTS)
            eager.note()
            if self.precision.casts_gradients:
                reduced, part = part, eager.new(0, elements_of(shards) * shards[0].own.element_bytes, GRADIENTS)
                eager.note()
                eager.release(reduced)
            for shard in shards:
                self._receive(shard.own, part)
        eager.release(part)
        self._free(last)  # a variable of the function holds it

    def _copy_in_bytes(self, shards: Sequence[Shard]) -> Iterator[int]:
        """Yield what CUDA takes to copy gradients into the input of a reduce-scatter (`_chunk_cat_out_cuda`)."""
        precision, ranks = self.precision, self.group.ranks
        if (precision.gathered, precision.reduced) in FUSED_CASTS or precision.gathered == precision.reduced:
            yield chunking([shard.padded_elements * precision.reduced_bytes for shard in shards])
            return
        for shard in shards:  # what can't be divided evenly is padded
            if shard.whole.shape[0] % ranks:
                yield shard.padded_elements * ranks * precision.gathered_bytes

    def _receive(self, own: Parameter, part: Storage) -> None:
        if own.gradient is None:
            own.gradient = self.eager.hold(part)
        else:
            self.eager.added[part] = own.gradient
        if self._hook is not None:
            self._hook(own)

    def _free(self, *parameters: Parameter) -> None:
        for parameter in parameters:
            self.eager.release(parameter.gradient)
            parameter.gradient = None

    def joined_norms(self, norms: Storage) -> Storage:
        """Square a rank's norms, add up those of all ranks, and take the roots.

        (torch/distributed/tensor/_ops/_math_ops.py, `_NormPartial`.)
        """
        self._clipped = all_reduce(norms.constant, self.group.ranks)
        squares, sums, roots = (self._like(norms) for _ in range(3))
        self.eager.release(sums, squares)
        return roots

    def _like(self, storage: Storage) -> Storage:
        made = self.eager.new(0, storage.constant)
        self.eager.note()
        return made

    def engine_hook(self, hook: GradientHook | None) -> None:
        """Keep the hook: it is called with parts of parameters, not by autograd's engine."""
        self._hook = hook

    def gradient_ready(self, parameter: Parameter) -> None:
        return

    def end_backward(self) -> None:
        """End what no gradient of an input has ended, as that of the first unit, whose input are the images.

        Gathered in vain is a frozen unit that has run before the first trained one.
        """
        for unit in self.units:
            if unit.state is not State.POST_BACKWARD:
                self._end_backward(unit)
            unit.state = State.IDLE
            self.eager.release(unit.gathered)
            unit.gathered = None
        self.eager.release(self._sending)
        self._sending = None
        self._run = []

    # What can't be

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:
        if step.autocast and group.param_dtype == "float16":
            raise ArgumentError("autocast: expected param_dtype bfloat16 or float32 with it, found float16")
        if step.optimizer in REFUSED:
            raise ArgumentError(
                f"optimizer: {step.optimizer} can't be combined with parallel {cls.name}: {REFUSED[step.optimizer]}"
            )
        if step.update.fused and step.optimizer not in FUSED:
            raise ArgumentError(
                f"fused: parallel {cls.name} expects one of {', '.join(FUSED)}, found {step.optimizer}, whose kernel"
                " can't run on parts of parameters"
            )

    @classmethod
    def check_network(cls, group: Group, network: Network) -> None:  # noqa: ARG003  # it can be any
        return

    @classmethod
    def check_dtype(cls, group: Group, network: Network, dtype: str) -> None:
        """Refuse batch norms whose running statistics, which keep their dtype, torch can't use beside other weights."""
        if group.param_dtype in (None, dtype):
            return
        for placed in network.modules():
            keeps_statistics = any(placed.layer.buffers(placed.input_shape).values())
            is_affine = bool(placed.layer.parameters(placed.input_shape))
            if keeps_statistics and (is_affine or dtype != "float32"):
                raise ArgumentError(
                    f"param_dtype: {group.param_dtype} can't be combined with {placed.name}, as its running statistics"
                    f" stay {dtype}, and torch's batch norm wants them in the dtype of its parameters"
                )


Division = list[tuple[str, Sequence[PlacedRun]]]
"""The layers of each unit, with its name."""


def _each_block(blocks: Blocks) -> Division:
    """Return each block, and outside of blocks each layer."""
    division: Division = []
    for block, layers in blocks:
        division += _each_layer([(block, layers)]) if block is None else [(block, layers)]
    return division


def _each_layer(blocks: Blocks) -> Division:
    return [(placed.name, [placed]) for _, layers in blocks for placed in layers]


def _all(blocks: Blocks) -> Division:
    return [("the model", [placed for _, layers in blocks for placed in layers])]


UNITS = {"blocks": _each_block, "layers": _each_layer, "root": _all}
"""How a model is divided, by the word that asks for it. Units without parameters are none."""

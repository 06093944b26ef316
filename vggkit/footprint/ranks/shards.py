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

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from vggkit.base.eager import (
    COMMUNICATION,
    GRADIENTS,
    PARAMETERS,
    Eager,
    Gradients,
    Parameter,
    PlacedRun,
    Runs,
    Storage,
    Tensor,
)
from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks.group import ALONE, Group
from vggkit.footprint.ranks.parts import check_plain, rows_of
from vggkit.footprint.ranks.strategy import Asked, Blocks, Choice, Placed, Strategy
from vggkit.footprint.ranks.traffic import Traffic, all_gather, reduce_scatter
from vggkit.network import Network

WRAPPING = "construction of fully_shard"
"""The event in which a model is divided."""

FUSED = ("adam", "adamw")
"""Those whose fused kernel runs on parts of parameters, in torch 2.14."""


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


class Unit:
    """Layers whose parameters are gathered together.

    Args:
        name: the block's, the layer's or the network's.
        shards: of their parameters.

    Attributes:
        gathered: the output of an all-gather that has not been copied out yet.
        unsharded: the whole parameters, while they are there.
        is_reduced: whether their gradients have been divided among the ranks.
        left: the gradients of the step before.
    """

    def __init__(self, name: str, shards: Sequence[Shard]) -> None:
        self.name = name
        self.shards = shards
        self.gathered: Storage | None = None
        self.unsharded: list[Storage] = []
        self.is_reduced = False
        self.left: Storage | None = None

    @property
    def padded_bytes(self) -> int:
        """Bytes of a rank's part."""
        return sum(shard.padded.constant for shard in self.shards)


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
    takes = ("units", "reshard_after_forward")

    @classmethod
    def choices(cls, ranks: int) -> Iterable[Choice]:  # noqa: ARG003  # any number can choose them
        yield Choice({})
        yield Choice({"reshard_after_forward": False})
        yield from (Choice({"units": word}) for word in UNITS if word != ALONE.units)

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, group, placed)
        self.units: list[Unit] = []
        self._last_gathered: Storage | None = None
        self._sending: Storage | None = None
        self._unit_of: dict[Parameter, Unit] = {}

    # Parts

    def wrap(self, blocks: Blocks) -> Blocks:
        """Divide the model: `fully_shard` of each unit, then of the root."""
        self.eager.event = WRAPPING
        units = UNITS[self.group.units](blocks)
        wrapped = iter([placed for name, layers in units for placed in self._made_unit(name, layers)])
        return [(block, [next(wrapped) for _ in layers]) for block, layers in blocks]

    def _made_unit(self, name: str, layers: Sequence[PlacedRun]) -> list[PlacedRun]:
        parameters = [parameter for placed in layers for parameter in placed.parameters.values()]
        if not parameters:
            return list(layers)
        unit = Unit(name, [self._made_shard(parameter) for parameter in parameters])
        self.units.append(unit)
        self._unit_of.update((shard.own, unit) for shard in unit.shards)
        last = len(layers) - 1
        return [
            placed._replace(layer=_RunInUnit(placed.layer, unit, self, place == 0, place == last))
            for place, placed in enumerate(layers)
        ]

    def _made_shard(self, whole: Parameter) -> Shard:
        rows = self._rows(whole, self.group.own)
        row = whole.storage.constant // whole.shape[0]
        padded = self.eager.new(0, self._rows(whole, 0) * row, PARAMETERS)
        self.eager.release(whole.storage)
        own = Storage(0, rows * row, rows * row, PARAMETERS)
        return Shard(whole, Parameter(own, (rows, *whole.shape[1:]), whole.element_bytes, requires_grad=True), padded)

    def _rows(self, whole: Parameter, rank: int) -> int:
        return rows_of(whole.shape[0], self.group.ranks, rank)

    @property
    def trained(self) -> Sequence[Parameter]:
        return [shard.own for unit in self.units for shard in unit.shards]

    @property
    def owned(self) -> Sequence[Parameter]:
        return self.trained

    @property
    def kept(self) -> Iterable[Storage]:
        return [shard.padded for unit in self.units for shard in unit.shards]

    def left_gradient(self, parameter: Parameter) -> Storage:
        """Return the output of the unit's reduce-scatter, of which the gradients are views."""
        unit = self._unit_of[parameter]
        if unit.left is not None:
            return self.eager.hold(unit.left)
        unit.left = self.eager.new(0, unit.padded_bytes, GRADIENTS)
        return unit.left

    def likeness(self, rank: int) -> Hashable:
        return tuple(self._rows(shard.whole, rank) for unit in self.units for shard in unit.shards)

    def traffic(self, rank: int) -> Traffic:
        total = Traffic()
        for unit in self.units:
            size, ranks = unit.padded_bytes * self.group.ranks, self.group.ranks
            for _ in range(2 if self.group.reshard_after_forward else 1):
                total = total.plus(all_gather(size, ranks))
            total = total.plus(reduce_scatter(size, ranks))
        return total

    # A step

    def begin_step(self) -> None:
        for unit in self.units:
            unit.is_reduced = False

    def enter(self, unit: Unit, x: Tensor) -> Tensor:
        """Gather a unit's parameters; return its input, whose gradient ends the unit's backward pass."""
        before, self.eager.event = self.eager.event, f"all-gather of {unit.name}"
        self._gather(unit)
        self._copy_out(unit)
        self.eager.release(self._last_gathered)
        self._last_gathered, unit.gathered = unit.gathered, None
        self.eager.event = before
        node = self.eager.node([x.edge])
        if node is not None:

            def backward(gradient: Storage) -> Gradients:
                self._reduce(unit)
                return [self.eager.hold(gradient)]

            node.backward = backward
        return Tensor(x.storage, x.shape, x.element_bytes, node)

    def leave(self, unit: Unit, y: Tensor) -> None:
        """Free a unit's parameters, unless they stay; they are gathered again when the output has its gradient."""
        if self.group.reshard_after_forward:
            self._reshard(unit)
        assert y.node is not None
        y.node.before = lambda: self._begin_backward(unit)

    def end_forward(self) -> None:
        self.eager.release(self._last_gathered)
        self._last_gathered = None

    def _gather(self, unit: Unit) -> None:
        if unit.gathered is None and not unit.unsharded:
            unit.gathered = self.eager.new(0, unit.padded_bytes * self.group.ranks, COMMUNICATION)
            self.eager.note()

    def _copy_out(self, unit: Unit) -> None:
        ranks = self.group.ranks
        unit.unsharded = [self.eager.new(0, shard.padded.constant * ranks, PARAMETERS) for shard in unit.shards]
        self.eager.note()

    def _reshard(self, unit: Unit) -> None:
        self.eager.release(*unit.unsharded)
        unit.unsharded = []

    def _begin_backward(self, unit: Unit) -> None:
        before, self.eager.event = self.eager.event, f"all-gather of {unit.name}"
        if not unit.unsharded:
            self._gather(unit)
            self._copy_out(unit)
            self.eager.release(unit.gathered)
            unit.gathered = None
        place = self.units.index(unit)
        if place:
            self.eager.event = f"all-gather of {self.units[place - 1].name}"
            self._gather(self.units[place - 1])
        self.eager.event = before

    def _reduce(self, unit: Unit) -> None:
        """Add up the gradients of all ranks, and keep the rank's part (`post_backward`, `foreach_reduce`)."""
        eager = self.eager
        before, eager.event = eager.event, f"reduce-scatter of {unit.name}"
        unit.is_reduced = True
        self._reshard(unit)
        eager.release(self._sending)
        self._sending = eager.new(0, unit.padded_bytes * self.group.ranks, COMMUNICATION)
        eager.note()
        *others, last = (shard.whole for shard in unit.shards)
        self._free(*others)
        part = eager.new(0, unit.padded_bytes, GRADIENTS)
        eager.note()
        for shard in unit.shards:
            shard.own.gradient = eager.hold(part)
        eager.release(part)
        self._free(last)  # a variable of the function holds it
        eager.event = before

    def _free(self, *parameters: Parameter) -> None:
        for parameter in parameters:
            self.eager.release(parameter.gradient)
            parameter.gradient = None

    def gradient_ready(self, parameter: Parameter) -> None:
        return

    def end_backward(self) -> None:
        """Reduce what no gradient of an input has ended, as that of the first unit, whose input are the images."""
        for unit in self.units:
            if not unit.is_reduced:
                self._reduce(unit)
        self.eager.release(self._sending)
        self._sending = None

    @classmethod
    def check_network(cls, group: Group, network: Network) -> None:  # noqa: ARG003  # it can be any
        return

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:  # noqa: ARG003  # its own options go with everything
        check_plain(cls.name, step)
        if step.update.fused and step.optimizer not in FUSED:
            raise ArgumentError(
                f"fused: parallel {cls.name} expects one of {', '.join(FUSED)}, found {step.optimizer}, whose kernel"
                " can't run on parts of parameters"
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

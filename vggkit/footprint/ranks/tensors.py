"""Each rank has a part of the FC layers: `torch.distributed.tensor.parallel.parallelize_module`.

FC layers are most of a VGG network's parameters and few of its operations, so that their parameters are worth dividing,
and not their images (A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
arXiv:1404.5997). Here every rank has the same images, and runs the layers before the FC layers whole.

The first FC layer is divided by columns: each rank has some of its units, and all of its input (`ColwiseParallel`). The
second one is divided by rows: each rank has the weights of the units that it has, and the outputs of all ranks are
added up (`RowwiseParallel`). The third is divided by columns again, and so on. If the last one is, its outputs are
gathered. In the backward pass what is added up is the gradient of the input of a layer by columns.

The outputs are views, which autograd does not let anything work on in place. So activations behind the first FC layer
have outputs of their own.

Where not all ranks have as many units, what runs between a layer by columns and one by rows gets DTensors
(`use_local_output=False`), which know how many there are. They take the same memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from vggkit.base.eager import (
    COMMUNICATION,
    CUDA_BLOCK,
    PARAMETERS,
    TEMPORARIES,
    Eager,
    Event,
    Gradients,
    Parameter,
    PlacedRun,
    Storage,
    Tensor,
)
from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import grouped
from vggkit.base.shapes import Shape, elements
from vggkit.footprint.optimizers import OPTIMIZERS, Update
from vggkit.footprint.ranks.group import Group
from vggkit.footprint.ranks.parts import rows_of
from vggkit.footprint.ranks.strategy import Asked, Blocks, Placed, WholeModel
from vggkit.footprint.ranks.traffic import Traffic, all_gather, all_reduce
from vggkit.network import Network, PlacedLayer
from vggkit.notation.layers import Dropout, Hardtanh

WRAPPING = "construction of parallelize_module"
"""The event in which a model is divided."""

NOT_ON_PARTS = ("adafactor", "rprop")
"""Optimizers of which torch refuses to run the step on DTensors."""

UNIT_BY_UNIT = ("activation", "dropout")
"""Roles of layers that run on some units as on all."""


NEEDING_EVEN_PARTS = (Hardtanh,)
"""Activations whose gradient torch has no rule for on DTensors (`hardtanh_backward`, torch 2.14)."""

RANDOM_STATE = 16
"""Bytes of the state of a card's random numbers, a seed and an offset, and of what says which of them are equal."""


class _Columns(NamedTuple):
    """An FC layer of which a rank has some units."""

    name: str
    strategy: TensorParallel

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it on the whole input, of whose gradient each rank makes a summand."""
        node = eager.node([x.edge])
        if node is not None:

            def backward(_: Storage) -> Gradients:
                return [self.strategy.all_reduce(self.name, x)]

            node.backward = backward
        return _linear(Tensor(x.storage, x.shape, x.element_bytes, node), parameters, eager)


class _GatheredColumns(NamedTuple):
    """The same for the last one, whose output is whole on each rank."""

    columns: _Columns
    units: int

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it, and gather its output."""
        own = self.columns.run(x, parameters, eager)
        y = self.columns.strategy.all_gather(self.columns.name, own, self.units)
        eager.release(own)
        return y


class _Rows(NamedTuple):
    """An FC layer of which a rank has the weights of some inputs."""

    name: str
    strategy: TensorParallel

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it on these inputs, which gives a summand of the output; so is each rank's share of the bias."""
        x, weight, bias, casts = eager.lower(x, parameters["weight"], parameters.get("bias"))
        share = eager.new(*bias.size) if bias else None
        eager.note()
        summand = eager.linear(x, weight, bias, weight.shape[:1])
        eager.release(share, *casts)
        total = self.strategy.all_reduce(self.name, summand)
        eager.release(summand)
        return Tensor(total, summand.shape, summand.element_bytes, summand.node)


def _linear(x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
    weight = parameters["weight"]
    return eager.linear(x, weight, parameters.get("bias"), weight.shape[:1])


class TensorParallel(WholeModel):
    """A rank has the whole model, but of each FC layer a part."""

    name = "tensor"
    words = "has a part of each FC layer, and all other layers"

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, group, placed)
        self._parts: dict[Parameter, Parameter] = {}
        self._held: dict[Parameter, Storage] = {}
        self._division: Sequence[Event] = ()
        self._units: list[int] = []
        self._drawing: set[str] = set()
        self._traffic = Traffic()

    # Parts

    @classmethod
    def built(cls, layers: Iterable[PlacedLayer]) -> Iterable[PlacedLayer]:
        is_behind = False
        for placed in layers:
            layer = placed.layer.settled(placed.input_shape, writable=False) if is_behind else placed.layer
            yield replace(placed, layer=layer)
            is_behind = is_behind or is_fc(placed)

    @classmethod
    def batches(cls, group: Group) -> int:  # noqa: ARG003  # all ranks have the same images
        return 1

    def wrap(self, blocks: Blocks) -> Blocks:
        """Divide the model: `parallelize_module` with a style for each FC layer."""
        built = len(self.eager.events)
        self.eager.event = WRAPPING
        runs = [placed for _, inside in blocks for placed in inside]
        places = [place for place, placed in enumerate(runs) if has_matrix(shapes_of(placed))]
        self._drawing = self._forward_of_dropouts(runs, places)
        for number, place in enumerate(places):
            is_last = place == places[-1]
            runs[place] = self._by_rows(runs[place]) if number % 2 else self._by_columns(runs[place], is_last=is_last)
        self._division = self.eager.events[built:]
        by_name = {placed.name: placed for placed in runs}
        return [(block, [by_name[placed.name] for placed in inside]) for block, inside in blocks]

    def _forward_of_dropouts(self, runs: Sequence[PlacedRun], places: Sequence[int]) -> set[str]:
        """Return the events in which dropouts draw on the card, each rank for its part of a DTensor.

        Args:
            runs: all layers.
            places: where FC layers stand among them.
        """
        found: set[str] = set()
        for columns, rows in zip(places[::2], places[1::2]):
            if self.eager.device == "cuda" and runs[columns].parameters["weight"].shape[0] % self.group.ranks:
                between = runs[columns + 1 : rows]
                found |= {f"forward of {placed.name}" for placed in between if isinstance(placed.layer, Dropout)}
        return found

    def copied(self, built: Sequence[Event]) -> Sequence[Event]:
        return [*built, *self._division]

    def _by_columns(self, placed: PlacedRun, *, is_last: bool) -> PlacedRun:
        parts = {word: self._part(whole, 0) for word, whole in placed.parameters.items()}
        self.eager.release(*placed.parameters.values())  # `named_parameters` holds both until both are divided
        columns = _Columns(placed.name, self)
        self._units.append(placed.parameters["weight"].shape[0])
        if not is_last:
            return placed._replace(layer=columns, parameters=parts)
        return placed._replace(layer=_GatheredColumns(columns, self._units[-1]), parameters=parts)

    def _by_rows(self, placed: PlacedRun) -> PlacedRun:
        whole = placed.parameters["weight"]
        part = self._part(whole, 1)
        self.eager.release(whole)
        return placed._replace(layer=_Rows(placed.name, self), parameters={**placed.parameters, "weight": part})

    def _part(self, whole: Parameter, side: int) -> Parameter:
        """Divide a parameter (`Shard._shard_tensor`); all ranks receive as much, a smaller part has padding.

        What is not in one piece is copied: before it is sent, and columns without their padding, too. Padding of rows
        stays, and nothing is trained in it.

        Args:
            whole: the parameter.
            side: the one that is divided: 0 for rows, 1 for columns.
        """
        ranks, own = self.group.ranks, self.group.own
        counts = [rows_of(whole.shape[side], ranks, rank) for rank in range(ranks)]
        shapes = [(*whole.shape[:side], count, *whole.shape[side + 1 :]) for count in counts]
        sizes = [elements(shape) * whole.element_bytes for shape in shapes]
        is_apart = side == 1 and whole.shape[0] > 1
        copied = ranks if is_apart else sum(size < sizes[0] for size in sizes)
        copies = [self.eager.new(0, sizes[0], COMMUNICATION) for _ in range(copied)]
        self._held[whole] = self.eager.new(0, sizes[0], PARAMETERS)
        if is_apart and 0 < sizes[own] < sizes[0]:
            copies.append(self._held[whole])
            self._held[whole] = self.eager.new(0, sizes[own], PARAMETERS)
        self.eager.release(*copies)
        storage = Storage(0, sizes[own], sizes[own], PARAMETERS)
        storage.is_parameter = True
        self._parts[whole] = Parameter(storage, shapes[own], whole.element_bytes, whole.requires_grad)
        return self._parts[whole]

    @property
    def trained(self) -> Sequence[Parameter]:
        return [self._parts.get(parameter, parameter) for parameter in self.placed.trained]

    @property
    def kept(self) -> Iterable[Storage]:
        every = (*self.placed.trained, *self.placed.frozen)
        return [self._held.get(parameter, parameter.storage) for parameter in every]

    def likeness(self, rank: int) -> Hashable:
        return tuple(rows_of(units, self.group.ranks, rank) for units in self._units)

    # A step

    def traffic(self, rank: int) -> Traffic:
        """Return what has been sent in each pass of the walk: all ranks send and receive the same."""
        return self._traffic.times(self.placed.passes)

    def first_forward(self, events: Sequence[Event]) -> Iterator[Event]:
        """Yield what the first forward pass allocates and frees: there all ranks get the first one's random numbers.

        The first dropout on a DTensor has the first rank's state sent, on the card, and compares it with the rank's own
        (torch/distributed/tensor/_random.py, `OffsetBasedRNGTracker`).
        """
        before = next((event for event, _, is_made in events if is_made and event in self._drawing), None)
        for event, storage, is_made in events:
            if event == before:
                sent, own, equal = (Storage(0, RANDOM_STATE, CUDA_BLOCK, TEMPORARIES) for _ in range(3))
                yield from ((event, state, True) for state in (sent, own, equal))
                yield from ((event, state, False) for state in (equal, sent, own))
                before = None
            yield event, storage, is_made

    def begin_forward(self, images: Tensor) -> Tensor:
        """Begin to count what is sent: passes between the first and the last are walked through once."""
        self._traffic = Traffic()
        return images

    def all_reduce(self, name: str, x: Tensor) -> Storage:
        """Add up tensors of all ranks, into a new one."""
        before, self.eager.event = self.eager.event, f"all-reduce of {name}"
        self._traffic = self._traffic.plus(all_reduce(self._bytes(x.size[0]), self.group.ranks))
        total = self.eager.new(*x.size)
        self.eager.note()
        self.eager.event = before
        return total

    def all_gather(self, name: str, own: Tensor, units: int) -> Tensor:
        """Put units of all ranks side by side (torch/distributed/tensor/placement_types.py, `Shard`)."""
        eager, ranks, element = self.eager, self.group.ranks, own.element_bytes
        before, eager.event = eager.event, f"all-gather of {name}"
        node = eager.node([own.edge])
        if node is not None:

            def backward(_: Storage) -> Gradients:
                part = eager.new(*own.size)
                eager.note()
                return [part]

            node.backward = backward
        each = rows_of(units, ranks, 0)
        padded = None
        if own.shape != (each,):
            padded = eager.new(each * element)
            eager.note()
        self._traffic = self._traffic.plus(all_gather(self._bytes(ranks * each * element), ranks))
        y = eager.new(ranks * each * element)
        eager.note()
        if eager.batch > 1:  # the ranks' parts lie below each other; those of one image lie side by side already
            y = self._copied(y, ranks * each * element)
            if ranks * each != units:
                y = self._copied(y, units * element)
        eager.release(padded)
        eager.event = before
        return Tensor(y, (units,), element, node)

    def _copied(self, storage: Storage, per_image: int) -> Storage:
        copy = self.eager.new(per_image)
        self.eager.note()
        self.eager.release(storage)
        return copy

    def _bytes(self, per_image: int) -> int:
        return per_image * self.eager.batch

    # What can't be

    @classmethod
    def update_of(cls, step: Asked) -> Update:
        """Return no `foreach`, which torch would take on CUDA and then fail with, as `check` says."""
        rules = OPTIMIZERS[step.optimizer]
        is_free = "foreach" in rules.takes and step.update.foreach is None
        if is_free and rules.is_foreach(step.update, step.device):
            return replace(step.update, foreach=False)
        return step.update

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:  # noqa: ARG003  # it has no options
        joining = [("clip_grad", step.clip_grad), ("foreach", step.update.foreach), ("fused", step.update.fused)]
        for word, is_on in joining:
            if is_on:
                raise ArgumentError(
                    f"{word}: can't be combined with parallel {cls.name}, as torch joins no parts and whole parameters"
                )
        if step.optimizer in NOT_ON_PARTS:
            raise ArgumentError(
                f"optimizer: {step.optimizer} can't be combined with parallel {cls.name}: torch can't run its step on"
                " parts of parameters"
            )

    @classmethod
    def check_network(cls, group: Group, network: Network) -> None:
        layers = network.modules()
        places = [place for place, placed in enumerate(layers) if is_fc(placed)]
        if not places:
            raise ArgumentError(f"parallel: {cls.name} needs FC layers, and {network.name} has none")
        for columns in (layers[place] for place in places[::2]):
            if (units := columns.output_shape[0]) < group.ranks:  # torch can't run the optimizer's step then
                raise ArgumentError(
                    f"ranks: parallel {cls.name} expected at most as many as {columns.name} has units,"
                    f" {grouped(units)}, found {group.ranks}"
                )
        for first, second in zip(places[::2], places[1::2]):
            fc, units = layers[first].name, layers[first].output_shape[0]
            for between in layers[first + 1 : second]:
                if units % group.ranks and isinstance(between.layer, NEEDING_EVEN_PARTS):
                    raise ArgumentError(
                        f"ranks: parallel {cls.name} expected a number that divides the {grouped(units)} units of {fc},"
                        f" as torch can't train {between.name} on uneven parts, found {group.ranks}"
                    )
                if between.layer.role not in UNIT_BY_UNIT:
                    raise ArgumentError(
                        f"parallel: {cls.name} can't divide {fc}, as {between.name} behind it needs all of its units"
                    )


def is_fc(placed: PlacedLayer) -> bool:
    """Tell whether a layer is an FC layer."""
    return has_matrix(placed.layer.parameters(placed.input_shape))


def shapes_of(placed: PlacedRun) -> dict[str, Shape]:
    """Return the shapes of a layer's parameters."""
    return {word: parameter.shape for word, parameter in placed.parameters.items()}


def has_matrix(shapes: Mapping[str, Shape]) -> bool:
    """Tell whether a layer is an FC layer, from the shapes of its parameters: no other one's weight has two sides."""
    return len(shapes.get("weight", ())) == 2

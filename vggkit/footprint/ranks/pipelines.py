"""Each rank has some layers, a stage, through which a batch goes in parts: `torch.distributed.pipelining`.

A stage receives each microbatch from the stage before it, and its output's gradient from the one behind it, into
tensors that are made in the first step and stay (torch/distributed/pipelining/stage.py). The walk through a rank's step
is `vggkit.footprint.steps.stage`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import isqrt
from typing import ClassVar, NamedTuple

from msgspec.structs import replace

from vggkit.base.eager import Eager, Event, Storage
from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import grouped
from vggkit.footprint.ranks.group import ALONE, AUTO, Group
from vggkit.footprint.ranks.schedules import SCHEDULES
from vggkit.footprint.ranks.strategy import Asked, Choice, Placed, WholeModel
from vggkit.footprint.ranks.traffic import Traffic
from vggkit.network import Network, PlacedLayer

MOST_MICROBATCHES = 1000
"""Parts into which a batch may be divided: each is walked through, and played on a card."""


MEMORY, MACS = BALANCES = "memory", "macs"
"""What the largest stage may have the least of: `vggkit.footprint.steps.cuts` has a measure of each."""


class Stage(NamedTuple):
    """Layers that a rank runs.

    Args:
        place: which one it is, counted from 0.
        stages: how many there are.
        layers: its layers, as they are built for it.
    """

    place: int
    stages: int
    layers: tuple[PlacedLayer, ...]

    @property
    def is_first(self) -> bool:
        """Whether it has the images."""
        return self.place == 0

    @property
    def is_last(self) -> bool:
        """Whether it has the targets, and computes the loss."""
        return self.place == self.stages - 1


def stages_of(network: Network, cut: Iterable[str]) -> list[Stage]:
    """Divide a network's layers into stages.

    Args:
        network: the network.
        cut: names of the blocks and layers with which each stage but the first one begins, in any vocabulary.

    Raises:
        ArgumentError: if a name is unknown, repeated, out of order or that of the first layer.

    >>> [stage.layers[-1].name for stage in stages_of(Network.of("D"), ["block3", "fc6"])]
    ['block2_pool', 'flatten', 'predictions']
    """
    places = {placed.name: place for place, placed in enumerate(network.modules())}
    begins, before = [0], network.modules()[0].block or network.modules()[0].name
    for name in cut:
        place = min(places.get(part, len(places)) for part in network.parts(name, "cut"))
        if place == 0:
            raise ArgumentError(f"cut: expected what the second stage begins with, found {name}, which is the first")
        if place == len(places):
            raise ArgumentError(f"cut: {name} is not part of the model, which returns the scores before it")
        if place <= begins[-1]:
            raise ArgumentError(f"cut: expected names in the network's order, each once, found {name} behind {before}")
        begins.append(place)
        before = name
    return [
        Stage(index, len(begins), received(network.modules()[first:last]) if index else network.modules()[:last])
        for index, (first, last) in enumerate(zip(begins, [*begins[1:], len(places)]))
    ]


def received(layers: Sequence[PlacedLayer]) -> tuple[PlacedLayer, ...]:
    """Return layers as they are built for a stage: what is received must not be overwritten, which torch refuses."""
    built: list[PlacedLayer] = []
    for placed in layers:
        layer = placed.layer.settled(placed.input_shape, writable=False)
        built.append(replace(placed, layer=layer))
        if layer.storage() != "view":
            break
    return (*built, *layers[len(built) :])


class Pipeline(WholeModel):
    """A rank has a stage.

    Attributes:
        activations: what microbatches are received into.
        gradients: what their outputs' gradients are received into.
        in_first_forward: what is allocated and freed once, before the first forward pass of all.
    """

    name = "pipeline"
    words = "runs some of the layers, a stage, on one microbatch after the other"
    sends = "to and from its neighbours"
    takes: ClassVar[tuple[str, ...]] = ("cut", "microbatches", "schedule", "balance")

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, group, placed)
        self.activations: list[Storage] = []
        self.gradients: list[Storage] = []
        self.in_first_forward: list[Event] = []
        self._traffic = Traffic()

    @classmethod
    def choices(cls, ranks: int) -> Iterable[Choice]:  # noqa: ARG003  # any number can choose them
        return [Choice({"schedule": word} if word != ALONE.schedule else {}) for word in SCHEDULES]

    @classmethod
    def batches(cls, group: Group) -> int:  # noqa: ARG003  # the first rank has the images, the last one the targets
        return 1

    @classmethod
    def stages(cls, group: Group) -> int:
        return group.ranks

    @classmethod
    def models(cls, group: Group, network: Network) -> Iterable[tuple[str, Sequence[PlacedLayer]]]:
        if group.cut == AUTO:  # each stage that is found has a parameter that is trained, if there are any
            return super().models(group, network)
        return [(f"the stage from {stage.layers[0].name} on", stage.layers) for stage in stages_of(network, group.cut)]

    @classmethod
    def microbatches(cls, group: Group, batch: int) -> int:
        """Return into how many parts a batch is divided: as asked for; else the number of stages, or the next divisor.

        >>> [Pipeline.microbatches(Group(4, "pipeline"), batch) for batch in (64, 6, 3)]
        [4, 6, 3]
        """
        if group.microbatches is not None:
            return group.microbatches
        small = [number for number in range(1, isqrt(batch) + 1) if batch % number == 0]
        every = [*small, *(batch // number for number in small)]
        return min((number for number in every if number >= cls.stages(group)), default=batch)

    @classmethod
    def settled(cls, group: Group, batch: int | None = None) -> Group:
        return replace(group, microbatches=cls.microbatches(group, cls.stages(group) if batch is None else batch))

    @classmethod
    def sentences(cls, group: Group, batch: int) -> list[str]:
        count = cls.microbatches(group, batch)
        return [
            f"The stages behind the first begin with {' and '.join(group.cut)}; the batch runs in {count} parts of"
            f" {grouped(batch // count)}."
        ]

    @classmethod
    def check_batch(cls, group: Group, batch: int) -> None:
        count, least = cls.microbatches(group, batch), SCHEDULES[group.schedule].least(cls.stages(group))
        if batch % count:
            raise ArgumentError(
                f"microbatches: {batch} images can't be divided into {count} equal parts, and torch's stages receive"
                f" parts of one size; expected a number that divides {batch}"
            )
        if count < least:
            raise ArgumentError(
                f"batch: schedule {group.schedule} needs {least} images for as many stages, found {batch}"
            )
        if count > MOST_MICROBATCHES:
            raise ArgumentError(
                f"microbatches: expected at most {MOST_MICROBATCHES}, found {count} that divide {batch}"
            )

    @property
    def kept(self) -> Iterable[Storage]:
        return (*super().kept, *self.activations, *self.gradients)

    def likeness(self, rank: int) -> Hashable:
        return rank

    def traffic(self, rank: int) -> Traffic:  # no two ranks are alike
        return self._traffic

    # What is sent

    def received(self, what: Storage) -> None:
        """Take notice of what has been received."""
        self._traffic = self._traffic.plus(Traffic(received=what.per_image * self.eager.batch))

    def sent(self, what: Storage) -> None:
        """Take notice of what is sent."""
        self._traffic = self._traffic.plus(Traffic(sent=what.per_image * self.eager.batch))

    # What can't be

    @classmethod
    def check_network(cls, group: Group, network: Network) -> None:
        if group.cut != AUTO:
            stages_of(network, group.cut)

    @classmethod
    def check_cut(cls, group: Group) -> None:
        """Refuse more or fewer cuts than the ranks have stages for.

        Raises:
            ArgumentError: says how many were found and expected.
        """
        stages = cls.stages(group)
        if group.cut != AUTO and len(group.cut) != stages - 1:
            raise ArgumentError(
                f"cut: {group.ranks} ranks by {cls.name} expected a name for each of {stages} stages but the first,"
                f" found {len(group.cut)}"
            )

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:
        stages = cls.stages(group)
        if group.microbatches is not None and group.microbatches < SCHEDULES[group.schedule].least(stages):
            raise ArgumentError(
                f"microbatches: schedule {group.schedule} needs as many as there are stages, {stages}, or more;"
                f" found {group.microbatches}"
            )
        cls.check_cut(group)
        if group.cut != AUTO and group.balance != ALONE.balance:
            raise ArgumentError(f"balance: needs cut {AUTO}, found names")
        for word, usual, why in REFUSED:
            if getattr(step, word) != usual:
                raise ArgumentError(f"{word}: can't be combined with parallel {cls.name}, {why}")


REFUSED: tuple[tuple[str, object, str], ...] = (
    ("accumulate", 1, "whose microbatches are just that: their gradients are added up; expected microbatches"),
    ("clip_grad", False, "as clip_grad_norm_ would see the gradients of one stage, and not the norm of all"),
    ("step_in_backward", False, "where the gradients of all microbatches are added up before the step"),
)
"""Options of a loop that make no sense here: what they are usually, and why."""

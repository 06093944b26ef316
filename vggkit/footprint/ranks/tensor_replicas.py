"""Copies of a model whose FC layers are divided: `DistributedDataParallel(…, device_mesh=mesh["dp"])` of `tensor`.

DistributedDataParallel takes the divided parameters apart (torch/distributed/tensor/parallel/ddp.py): each rank trains
its part as a plain tensor, and averages the gradient with those of the same part in the other copies. In the first
forward pass the parts are made DTensors again, by operations that are recorded once and for all: they are older than
any layer's, so that the gradients of all parts come last, behind those of the first convolution.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from typing import NamedTuple

from vggkit.base.eager import Eager, Gradients, Node, Parameter, PlacedRun, Runs, Storage, Tensor
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import Update
from vggkit.footprint.ranks.group import Group
from vggkit.footprint.ranks.mesh import Mesh, across_copies, check_mesh, choices_of, within_copy
from vggkit.footprint.ranks.replicas import Replicas
from vggkit.footprint.ranks.strategy import Asked, Blocks, Choice, Placed
from vggkit.footprint.ranks.tensors import TensorParallel, has_matrix, is_fc, shapes_of
from vggkit.footprint.ranks.traffic import Traffic
from vggkit.network import Network


class _OfLocalTensors(NamedTuple):
    """An FC layer whose parameters are made of plain tensors by operations older than all others.

    Args:
        name: the layer's.
        layer: the layer.
        age: of the first parameter: how many more such operations are as old or older.
    """

    name: str
    layer: Runs
    age: int

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run the layer."""
        made = {
            word: self._made(parameter, eager, -self.age + place)
            for place, (word, parameter) in enumerate(parameters.items())
        }
        return self.layer.run(x, made, eager)

    def _made(self, parameter: Parameter, eager: Eager, order: int) -> Parameter:
        dtensor = Parameter(parameter.storage, parameter.shape, parameter.element_bytes, requires_grad=False)

        def backward(gradient: Storage) -> Gradients:
            return [eager.hold(gradient)]

        dtensor.node = Node(self.name, order, [parameter], None)
        dtensor.node.backward = backward
        return dtensor


class TensorReplicas(TensorParallel):
    """A rank has a part of each FC layer of its copy, and buckets for the gradients of all that it has."""

    name = "tensor+ddp"
    words = "has a part of each FC layer of its replica, all other layers, and buckets for all gradients"
    takes = ("bucket_cap_mb", "replicas")

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, within_copy(group), placed)
        self._taken_apart: list[Parameter] = []
        self._mesh = Mesh.of(group)
        self._across = across_copies(group)

    def wrap(self, blocks: Blocks) -> Blocks:
        """Divide the model, then wrap it."""
        divided = super().wrap(blocks)
        layers = [placed for _, inside in divided for placed in inside if has_matrix(shapes_of(placed))]
        ages = {}
        for placed in reversed(layers):
            self._taken_apart += reversed(placed.parameters.values())
            ages[placed.name] = len(self._taken_apart)
        wrapped = self.placed._replace(trained=self.trained, arrival=self._arrival)
        self.replicas = Replicas(self.eager, self._across, wrapped)
        self.rebuilt = self.replicas.rebuilt
        return [(block, [_made_of_local(placed, ages) for placed in inside]) for block, inside in divided]

    def _arrival(self) -> Sequence[Parameter]:
        """Return the parameters in the order in which their gradients come, those of FC layers behind all others."""
        others = {*self.trained} - {*self._taken_apart}
        return [*(parameter for parameter in self.placed.arrival() if parameter in others), *self._taken_apart]

    @property
    def kept(self) -> Iterable[Storage]:
        return (*super().kept, *self.replicas.buckets, *self.replicas.maps)

    @classmethod
    def early_steps(cls, group: Group) -> int:
        return Replicas.early_steps(group)

    def begin_step(self) -> None:
        self.replicas.begin_step()

    def traffic(self, rank: int) -> Traffic:
        """Return what is sent within a copy, which is the same for all, and between copies."""
        return super().traffic(rank).plus(self.replicas.traffic(self._mesh.place(rank).replica))

    def likeness(self, rank: int) -> Hashable:
        return super().likeness(self._mesh.place(rank).part)

    @classmethod
    def choices(cls, ranks: int) -> Iterable[Choice]:
        return choices_of(ranks)

    @classmethod
    def batches(cls, group: Group) -> int:
        return group.replicas

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:
        check_mesh(group)
        Replicas.check(across_copies(group), step)
        if step.clip_grad:
            raise ArgumentError(
                f"clip_grad: can't be combined with parallel {cls.name}, where torch would take the norm of each rank's"
                " own parts, and the ranks' whole layers would no longer be equal"
            )

    @classmethod
    def update_of(cls, step: Asked) -> Update:
        return step.update

    @classmethod
    def check_frozen(cls, network: Network, frozen: Container[str]) -> None:
        for placed in network.modules():
            if is_fc(placed) and placed.name in frozen:
                raise ArgumentError(
                    f"freeze: parallel {cls.name} can't freeze {placed.name}, as torch trains every parameter that it"
                    " takes apart"
                )

    @classmethod
    def check_network(cls, group: Group, network: Network) -> None:
        super().check_network(within_copy(group), network)


def _made_of_local(placed: PlacedRun, ages: dict[str, int]) -> PlacedRun:
    if placed.name not in ages:
        return placed
    return placed._replace(layer=_OfLocalTensors(placed.name, placed.layer, ages[placed.name]))

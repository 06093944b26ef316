"""Replicas of which each changes only some parameters: `torch.distributed.optim.ZeroRedundancyOptimizer`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property

from vggkit.base.eager import Parameter
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import NONE
from vggkit.footprint.ranks.group import Group
from vggkit.footprint.ranks.replicas import Replicas
from vggkit.footprint.ranks.strategy import Asked
from vggkit.footprint.ranks.traffic import Traffic, broadcast


def partition(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Give each parameter, the largest first, to the rank that has the fewest bytes (`_partition_parameters`).

    Args:
        sizes: the bytes of each.
        ranks: how many there are.

    Returns:
        The positions of each rank's parameters.

    >>> partition([1, 9, 4, 4], 2)
    [[1], [2, 3, 0]]
    """
    owned: list[list[int]] = [[] for _ in range(ranks)]
    filled = [0] * ranks
    for position in sorted(range(len(sizes)), key=lambda position: -sizes[position]):
        rank = filled.index(min(filled))
        owned[rank].append(position)
        filled[rank] += sizes[position]
    return owned


class ShardedOptimizer(Replicas):
    """`ddp`, whose optimizer's state is spread over the ranks by whole parameters.

    Each rank changes its own parameters, and then sends them to the others.
    """

    name = "zero1"
    words = "has the whole model, buckets for all gradients, and the optimizer's state of its own parameters"

    @cached_property
    def _partition(self) -> list[list[Parameter]]:
        trained = self.placed.trained
        owned = partition([parameter.storage.constant for parameter in trained], self.group.ranks)
        return [[trained[position] for position in positions] for positions in owned]

    @property
    def owned(self) -> Sequence[Parameter]:
        return self._partition[self.group.own]

    def traffic(self, rank: int) -> Traffic:
        total = super().traffic(rank)
        for source, size in self._broadcasts:
            total = total.plus(broadcast(size, self.group.ranks, rank, source))
        return total

    @cached_property
    def _broadcasts(self) -> list[tuple[int, int]]:
        """What is sent after a step: the rank that has changed a parameter, and the parameter's bytes."""
        return [
            (source, parameter.storage.constant) for source, owned in enumerate(self._partition) for parameter in owned
        ]

    def likeness(self, rank: int) -> Hashable:
        return tuple(parameter.shape for parameter in self._partition[rank])

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:
        super().check(group, step)
        if step.optimizer == NONE:
            raise ArgumentError(f"parallel: {cls.name} needs an optimizer, found {NONE}")

"""Ranks in two dimensions: copies of a model that is divided, of which each rank has a part of one.

They stand as in `init_device_mesh("cuda", (replicas, parts), mesh_dim_names=("dp", "tp"))`: the ranks of a copy follow
each other. A rank divides the model with those of its copy, and averages gradients with those that have its part of the
other copies.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks.group import ALONE, Group
from vggkit.footprint.ranks.strategy import Choice


class Place(NamedTuple):
    """Where a rank stands.

    Args:
        replica: the number of its copy.
        part: the number of its part.
    """

    replica: int
    part: int


class Mesh(NamedTuple):
    """The sides of the mesh.

    Args:
        replicas: how many copies of the model there are.
        parts: how many ranks have one together.
    """

    replicas: int
    parts: int

    @classmethod
    def of(cls, group: Group) -> Mesh:
        """Return the mesh of a group.

        >>> Mesh.of(Group(ranks=8, replicas=2))
        Mesh(replicas=2, parts=4)
        """
        return cls(group.replicas, group.ranks // group.replicas)

    def place(self, rank: int) -> Place:
        """Return where a rank stands.

        >>> Mesh(replicas=2, parts=4).place(5)
        Place(replica=1, part=1)
        """
        return Place(*divmod(rank, self.parts))


def sides_of(ranks: int) -> list[int]:
    """Return how many copies there may be, of two or more ranks each.

    >>> sides_of(12), sides_of(7)
    ([2, 3, 4, 6], [])
    """
    return [side for side in range(2, ranks // 2 + 1) if ranks % side == 0]


def choices_of(ranks: int) -> list[Choice]:
    """Return every number of copies; without any the default, whose refusal says why."""
    every = [Choice({"replicas": side} if side != ALONE.replicas else {}) for side in sides_of(ranks)]
    return every or [Choice({})]


def check_mesh(group: Group) -> None:
    """Refuse ranks that are no mesh of two or more copies with two or more ranks each.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    parallel, ranks = group.parallel, group.ranks
    sides = sides_of(ranks)
    if not sides:
        raise ArgumentError(f"ranks: parallel {parallel} expected a product of two numbers above 1, found {ranks}")
    if group.replicas not in sides:
        expected = f"{'one of ' if sides[1:] else ''}{', '.join(map(str, sides))}"
        raise ArgumentError(f"replicas: {ranks} ranks by {parallel} expected {expected}, found {group.replicas}")


def within_copy(group: Group) -> Group:
    """Return the ranks of a rank's own copy, as a group that divides a model."""
    mesh = Mesh.of(group)
    return replace(group, ranks=mesh.parts, rank=mesh.place(group.own).part)


def across_copies(group: Group) -> Group:
    """Return the ranks that have a rank's part of each copy, as a group that averages gradients."""
    mesh = Mesh.of(group)
    return replace(group, ranks=mesh.replicas, rank=mesh.place(group.own).replica)

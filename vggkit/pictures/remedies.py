"""Remedies as points: what each way to run a step takes, against what is run again for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vggkit.base.numbers import grouped, megabytes
from vggkit.footprint.remedies.remedies import Remedies, Remedy
from vggkit.pictures import front
from vggkit.pictures.plot import Picture, draw, file_name


class Figure(NamedTuple):
    """A figure of a way.

    Args:
        words: what people read.
        unit: its unit.
        write: writes a value for people.
    """

    words: str
    unit: str
    write: Callable[[int], str]

    def written(self, value: int) -> str:
        """Write a value for people."""
        return self.write(value)

    def key(self, value: int) -> int:
        """Return the number that stands for a value."""
        return value


def picture(found: Remedies) -> Picture:
    """Draw the remedies, and every set of blocks to checkpoint, whether it makes the step fit or not.

    The Pareto front is of those with which the step computes the same.

    Args:
        found: the remedies of a step.
    """
    ways = found.tradeoffs()
    same = [way for way in ways if not way.changes_result]
    shown = front.Points(
        things="ways to run the step",
        networks=found.network.name,
        subtitle=found.title,
        measures=(
            Figure("MACs that are run again for an image", "", grouped),
            Figure("peak" if found.as_it_is.reserved_bytes is None else "reserved CUDA memory", "B", megabytes),
        ),
        best="the result the same",
        points=tuple(
            front.Point(
                way.typed or "as it is",
                (way.recomputed_multiply_accumulates, way.bytes),
                on_front=not way.changes_result and not any(_beats(other, way) for other in same),
            )
            for way in ways
        ),
        limit=found.room.bytes,
    )
    return draw(front, shown, file_name("remedies", [found.network.name]))


def _beats(other: Remedy, way: Remedy) -> bool:
    """Tell whether another way is as good in both figures and better in one."""
    theirs = other.recomputed_multiply_accumulates, other.bytes
    ours = way.recomputed_multiply_accumulates, way.bytes
    return theirs != ours and all(one <= two for one, two in zip(theirs, ours))

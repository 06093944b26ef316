"""Remedies as points: what each way to run a step takes, against what is run again for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vggkit.base.numbers import grouped, megabytes
from vggkit.footprint.remedies.kinds import Price
from vggkit.footprint.remedies.remedies import Remedies, front_of
from vggkit.pictures import front, style
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


OTHERS = {
    "others with this loop": style.GREY,
    "another loop, the result the same": style.GREEN,
    "another result": style.ORANGE,
}
"""What ways are that are not on the front, and their colours."""

LOOP, RESULT = list(OTHERS)[1:]
KINDS = {Price.LOOP.word: LOOP, Price.RESULT.word: RESULT}
"""What they are by their price, if it is not one of this loop."""


def picture(found: Remedies) -> Picture:
    """Draw the remedies, and every change alone, whether it makes the step fit or not.

    The Pareto front is of those that leave the loop and the result as they are.

    Args:
        found: the remedies of a step.
    """
    ways = found.tradeoffs()
    best = {way.typed for way in front_of(ways)}
    shown = front.Points(
        things="ways to run the step",
        networks=found.network.name,
        subtitle=found.title,
        measures=(
            Figure("MACs that are run again for an image", "", grouped),
            Figure("peak" if found.as_it_is.reserved_bytes is None else "reserved CUDA memory", "B", megabytes),
        ),
        best="the loop and the result the same",
        points=tuple(
            front.Point(
                way.typed or "as it is",
                (way.recomputed_multiply_accumulates, way.bytes),
                on_front=way.typed in best,
                kind=KINDS.get(way.price, next(iter(OTHERS))),
            )
            for way in ways
        ),
        limit=found.room.bytes,
        kinds=OTHERS,
    )
    return draw(front, shown, file_name("remedies", [found.network.name]))

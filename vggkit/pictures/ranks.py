"""Strategies of several ranks as points: what the fullest rank holds, against what a rank sends."""

from __future__ import annotations

from vggkit.base.errors import VggkitError
from vggkit.base.numbers import megabytes
from vggkit.footprint.group_plan import GroupPlan
from vggkit.pictures import front, style
from vggkit.pictures.plot import Picture, draw, file_name
from vggkit.pictures.remedies import Figure

SAME, OTHER = "others", "another result"
KINDS = {SAME: style.GREY, OTHER: style.ORANGE}
"""What strategies are that are not on the front, and their colours."""


def picture(found: GroupPlan) -> Picture:
    """Draw the strategies that the ranks can do, whether they fit or not.

    Args:
        found: the strategies.

    Raises:
        VggkitError: if none of them can be used.
    """
    if not found.runnable:
        raise VggkitError(
            f"{found.network.name}: no strategy can be used by {found.ranks} ranks, so there is nothing to draw:"
            f" {found[0].reason}"
        )
    shown = front.Points(
        things="ways to share the work",
        networks=found.network.name,
        subtitle=found.title,
        measures=(
            Figure("sent by a rank in a step", "B", megabytes),
            Figure("peak" if found.options.device == "cpu" else "reserved CUDA memory", "B", megabytes),
        ),
        best="the result the same",
        points=tuple(
            front.Point(
                way.label,
                (way.sent_bytes, way.held_bytes),
                on_front=way.on_front,
                kind=OTHER if way.changes_result else SAME,
            )
            for way in found.runnable
        ),
        limit=found.room and found.room.bytes,
        kinds=KINDS,
    )
    return draw(front, shown, file_name("ranks", [found.network.name]))

"""What a card must have for a loop of steps: its allocations, played into torch's allocator from an empty card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from vggkit.base.eager import Event, Storage
from vggkit.footprint.allocator import Allocator, Block, OutOfMemory
from vggkit.footprint.allocator_settings import Settings

UNBOUNDED = 1 << 60
"""Bytes of a card that is never full."""


class Loop(NamedTuple):
    """The allocations of a loop of steps, and what ends them.

    A storage that outlives its step has the same name in the next: what is freed there is the one allocated first.

    Args:
        before: what is there when the loop begins.
        first: the first step.
        later: every other step.
    """

    before: Sequence[Event]
    first: Sequence[Event]
    later: Sequence[Event]


class CardUse(NamedTuple):
    """What the allocator did in a steady step.

    Args:
        allocated_bytes: most bytes of the blocks that were handed out.
        reserved_bytes: most bytes of the segments.
        retries: how often everything cached was given back for an allocation.
        ran_out: whether an allocation of any step found no room.
    """

    allocated_bytes: int
    reserved_bytes: int
    retries: int
    ran_out: bool = False

"""Problems as the command line shows them: the line of the message, the line of the file, a caret under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggkit.errors import Position, Problem
from vggkit.numbers import grouped, spell_bytes, spell_count

if TYPE_CHECKING:
    from vggkit.liveness import Overrun

BEFORE = 60
WIDTH = 100


def lines(problem: Problem) -> list[str]:
    """Return a problem's message and, if it has a place, the offending line with a caret."""
    return [str(problem), *excerpt(problem.position)] if problem.position else [str(problem)]


def excerpt(position: Position) -> list[str]:
    """Return the line of a position and a caret under its column; a long line is cut around it."""
    from rich.cells import cell_len

    start = max(0, position.column - 1 - BEFORE)
    text = position.text[start : start + WIDTH]
    shown = "".join(char if char.isprintable() else " " for char in text)
    if not shown.strip():
        return []
    head = "…" if start else ""
    caret = " " * cell_len(head + shown[: position.column - 1 - start])
    return [f"    {head}{shown.rstrip()}", f"    {caret}^"]


def overrun_line(overrun: Overrun) -> str:
    """Say what is over budget, by both figures in full."""
    if overrun.batch is None:
        return f"over budget: {overrun.limited} {grouped(overrun.actual)}, allowed {spell_count(overrun.limit)}"
    return (
        f"over budget: {overrun.limited} {grouped(overrun.actual)} bytes at batch {overrun.batch},"
        f" allowed {spell_bytes(overrun.limit)}"
    )

"""Problems as the command line shows them: the line of the message, the line of the file, a caret under it."""

from __future__ import annotations

from vggkit.errors import Position, Problem

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

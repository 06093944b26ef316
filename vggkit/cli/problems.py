"""Errors as the command line shows them: of a file the line of the message, the line of the file, a caret under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vggkit.base.errors import ConfigError, Position, Problem, VggkitError, escaped
from vggkit.base.numbers import grouped, spell_bytes, spell_count

if TYPE_CHECKING:
    from vggkit.footprint.plan import Overrun

BEFORE = 60
WIDTH = 100


def with_excerpt(problem: Problem) -> list[str]:
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


def print_error(error: VggkitError) -> None:
    """Print an error to stderr; a configuration's problems each with the offending line and a caret."""
    if not isinstance(error, ConfigError):
        message = escaped(str(error), keep="\n")
        click.echo(f"{click.style('Error:', fg='red')} {message}", err=True)
        return
    for problem in error.problems:
        message, *excerpt = with_excerpt(problem)
        head = "" if problem.position else click.style("Error: ", fg="red")
        click.echo(head + escaped(message), err=True)
        for line in excerpt:
            click.echo(click.style(line, fg="red" if line.strip() == "^" else None, dim=line.strip() != "^"), err=True)

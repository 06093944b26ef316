"""Errors as the command line shows them: the message and, for a problem in a file, its line with a caret under it."""

from __future__ import annotations

import click

from vggkit.base.errors import ConfigError, Position, Problem, VggkitError, escaped

BEFORE = 60
WIDTH = 100
"""Most characters of a line that are shown before the caret, and in all."""


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


def print_error(error: VggkitError) -> None:
    """Print an error to stderr. Each problem of a configuration has the offending line and a caret."""
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

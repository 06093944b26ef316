"""Draw the pictures of the README and of the documentation: `python docs/pictures.py`."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from vggkit import memory, plot, summarize
from vggkit.pictures.timeline import picture

WIDTH = 118


def summary_svg() -> str:
    """Return the terminal's table of D as an SVG picture with real text."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(summarize("D"))
    return console.export_svg(title="vggkit summarize D", theme=MONOKAI, unique_id="summarize-D")


def memory_svg() -> bytes:
    """Return a training step's timeline as an SVG picture with real text."""
    return picture(memory("D", batch=16, optimizer="adam"), "svg")


def architecture_svg() -> bytes:
    """Return D as blocks in perspective."""
    return plot("D").to_bytes("svg")


if __name__ == "__main__":
    folder = Path(__file__).parent
    (folder / "summarize-D.svg").write_text(summary_svg(), encoding="utf-8")
    (folder / "memory-D.svg").write_bytes(memory_svg())
    (folder / "architecture-D.svg").write_bytes(architecture_svg())

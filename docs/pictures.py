"""Draw the pictures of the README: `python docs/pictures.py`."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from vggkit import summarize

WIDTH = 118


def summary_svg() -> str:
    """Return the terminal's table of D as an SVG picture with real text."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(summarize("D"))
    return console.export_svg(title="vggkit summarize D", theme=MONOKAI, unique_id="summarize-D")


if __name__ == "__main__":
    (Path(__file__).parent / "summarize-D.svg").write_text(summary_svg(), encoding="utf-8")

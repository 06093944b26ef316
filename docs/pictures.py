"""Draw the pictures of the README and of the documentation: `python docs/pictures.py`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.terminal_theme import MONOKAI

from vggkit import max_batch, memory, plan, plot, remedies, summarize
from vggkit.base.numbers import mebibytes
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import UNBOUNDED, Loop, run
from vggkit.footprint.snapshot import snapshot
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
from vggkit.network import Network
from vggkit.pictures import segments, style
from vggkit.pictures.parts import MARGIN, Canvas
from vggkit.pictures.plot import draw
from vggkit.pictures.ranks import picture as ranks_picture
from vggkit.pictures.remedies import picture as remedies_picture
from vggkit.pictures.timeline import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 118

CARD = 24 * 2**30
"""Bytes of the card that is drawn."""

PINNED = 388
"""A batch of A whose tensors fit this card, and that runs out of memory."""

DEFAULT, EXPANDABLE = "", "expandable_segments:True"
"""The settings of the allocator that are compared."""


def summary_svg() -> str:
    """Return the terminal's table of D as an SVG picture with real text."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(summarize("D"))
    return console.export_svg(title="vggkit summarize D", theme=MONOKAI, unique_id="summarize-D")


def memory_svg() -> bytes:
    """Return a training step's timeline as an SVG picture with real text."""
    return picture(memory("D", batch=16, optimizer="adam"), "svg")


def remedies_svg() -> bytes:
    """Return what checkpoints of E take against what they run again, and its remedies."""
    return remedies_picture(remedies("E", "6GB", batch=64, optimizer="adamw", device="cuda")).to_bytes("svg")


def ranks_svg() -> bytes:
    """Return what eight ranks hold of D against what they send, by each strategy."""
    return ranks_picture(plan("D", ranks=8, batch=256, card="24GiB")).to_bytes("svg")


def architecture_svg() -> bytes:
    """Return D as blocks in perspective."""
    return plot("D").to_bytes("svg")


def segments_svg(batch: int, allocator: str, card_bytes: int) -> bytes:
    """Return a map of a card on which A is trained."""
    options = StepOptions(batch=batch, device="cuda", allocator=allocator)
    return draw(segments, snapshot(Network.of("A"), options, card_bytes), "segments").to_bytes("svg")


# Which batches of A run


BATCHES = range(220, 501)
"""Of each of them it is shown whether it runs."""

MEASURED = BATCHES[::4]
"""Of these it is shown what they take."""

RUNS, RETRIES, FAILS = "runs", "runs, with retries", "runs out of memory"
VERDICTS = {RUNS: style.GREEN, RETRIES: style.YELLOW, FAILS: style.VERMILION}
"""The colour of each verdict on a batch."""

LEFT, PLANE_WIDTH = MARGIN + 1.0, 6.2
PLANE = (LEFT, MARGIN + 1.5, PLANE_WIDTH, 2.4)
STRIPS = (LEFT, MARGIN + 0.4, PLANE_WIDTH, 0.85)
"""Where the lines and the verdicts are drawn: x, y, width and height, in inches."""


class Line(NamedTuple):
    """What batches take.

    Args:
        name: of what is counted.
        colour: of the line.
        sizes: bytes, for each of `MEASURED`.
    """

    name: str
    colour: str
    sizes: Sequence[int]


class Strip(NamedTuple):
    """Which batches run.

    Args:
        name: of the settings.
        verdicts: for each of `BATCHES` a key of `VERDICTS`.
    """

    name: str
    verdicts: Sequence[str]

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """Batches in a row with the same verdict: that, the first and the last."""
        groups = [list(group) for _, group in groupby(zip(BATCHES, self.verdicts), key=lambda pair: pair[1])]
        return [(group[0][1], group[0][0], group[-1][0]) for group in groups]

    @property
    def largest(self) -> int:
        """The last batch before the first that runs out of memory."""
        return next(first for verdict, first, _ in self.spans if verdict == FAILS) - 1


def batches_svg() -> bytes:
    """Return what batches of A take, and which of them run on a card."""
    network, options = Network.of("A"), StepOptions(device="cuda")
    loop = step_of(network, options).loop
    tensors = [step_of(network, options.replace(batch=batch)).peak.size for batch in MEASURED]
    lines = [
        Line("reserved, on a card that is never full", style.BLUE, reserved(loop, DEFAULT)),
        Line(f"the same, with {EXPANDABLE}", style.SKY_BLUE, reserved(loop, EXPANDABLE)),
        Line("tensors", style.INK, tensors),
    ]
    room = max_batch("A", CARD, device="cpu")
    strips = [
        Strip("default", verdicts(loop, DEFAULT)),
        Strip("expandable", verdicts(loop, EXPANDABLE)),
        Strip("tensors alone", [RUNS if batch <= room else FAILS for batch in BATCHES]),
    ]
    title = f"Which batches of A run on {mebibytes(CARD)}"
    with style.applied():
        figure = batches_figure(title, options.words, lines, strips)
    largest = ", ".join(f"{strip.name} {strip.largest}" for strip in strips)
    description = f"{title}. The largest batch such that it and every smaller one run: {largest}."
    return style.encoded(figure, "svg", title, description)


def reserved(loop: Loop, allocator: str) -> list[int]:
    """Return what is reserved on a card that is never full."""
    last = [run(loop, batch, UNBOUNDED, Settings.of(allocator))[-1] for batch in MEASURED]
    return [figures.reserved for figures in last if figures is not None]


def verdicts(loop: Loop, allocator: str) -> list[str]:
    """Return for each batch whether it runs on the card."""
    last = [run(loop, batch, CARD, Settings.of(allocator))[-1] for batch in BATCHES]
    return [FAILS if figures is None else RETRIES if figures.retries else RUNS for figures in last]


def batches_figure(title: str, subtitle: str, lines: Sequence[Line], strips: Sequence[Strip]) -> Figure:
    """Draw lines over the batch, and below them the verdicts."""
    canvas = Canvas(title, subtitle, VERDICTS, PLANE[0] + PLANE[2], PLANE[1] + PLANE[3])
    upper, lower = canvas.plane(*PLANE), canvas.plane(*STRIPS)
    for axes in (upper, lower):
        axes.set_xlim(BATCHES.start, BATCHES.stop - 1)
    draw_lines(upper, lines)
    for place, strip in enumerate(strips):
        draw_strip(lower, place, strip)
    lower.set_yticks(range(len(strips)), [strip.name for strip in strips])
    lower.set_ylim(len(strips) - 0.5, -0.5)
    lower.set_xlabel("batch", fontsize=style.TEXT_SIZE)
    lower.grid(visible=False)
    return canvas.figure


def draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw what batches take, and what the card has."""
    unit = 2**30
    for line in lines:
        axes.plot(MEASURED, [size / unit for size in line.sizes], color=line.colour, label=line.name)
    axes.axhline(CARD / unit, color=style.VERMILION, linewidth=1.0, linestyle="--", label="the card")
    axes.set_ylabel("GiB", fontsize=style.TEXT_SIZE)
    axes.legend(loc="upper left", frameon=False, fontsize=style.SMALL_SIZE)


def draw_strip(axes: Axes, place: int, strip: Strip) -> None:
    """Draw which batches run, with the last of each long row of those that do."""
    inches = PLANE_WIDTH / len(BATCHES)
    for verdict, first, last in strip.spans:
        axes.barh(place, last - first + 1, 0.8, first - 0.5, color=VERDICTS[verdict])
        if verdict != FAILS and style.text_width(str(last)) + 0.1 < (last - first) * inches:
            ink = style.ink_on(VERDICTS[verdict])
            axes.text(last - 2, place, str(last), fontsize=style.TEXT_SIZE, color=ink, ha="right", va="center_baseline")


PICTURES = {
    "summarize-D": lambda: summary_svg().encode(),
    "memory-D": memory_svg,
    "architecture-D": architecture_svg,
    "remedies-E": remedies_svg,
    "ranks-D": ranks_svg,
    "segments-A-64": lambda: segments_svg(64, DEFAULT, UNBOUNDED),
    "segments-A-388": lambda: segments_svg(PINNED, DEFAULT, CARD),
    "segments-A-388-expandable": lambda: segments_svg(PINNED, EXPANDABLE, CARD),
    "batches-A": batches_svg,
}

if __name__ == "__main__":
    for name, drawn in PICTURES.items():
        Path(__file__).with_name(f"{name}.svg").write_bytes(drawn())

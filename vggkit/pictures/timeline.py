"""MemoryPlan → a picture of the alive bytes over the step, stacked by kind, with its phases and its peak; or a page.

On CUDA a line shows what torch's allocator has reserved. It is level, as a steady step neither reserves nor gives back.
"""

from __future__ import annotations

from html import escape
from itertools import groupby
from string import Template
from textwrap import fill
from typing import TYPE_CHECKING, Any

from vggkit.base.eager import MEMORY_KINDS, Moment
from vggkit.base.numbers import grouped, megabytes, percent
from vggkit.footprint.plan import MemoryPlan
from vggkit.footprint.steps.step import CLIP_GRAD, OPTIMIZER_STEP
from vggkit.pictures import style
from vggkit.pictures.web import beside, embedded, inline_svg, script_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

COLOURS = {
    "parameters": style.BLUE,
    "buffers": style.SKY_BLUE,
    "gradients": style.VERMILION,
    "optimizer": style.ORANGE,
    "activations": style.GREEN,
    "temporaries": style.PURPLE,
    "inputs": style.GREY,
    "communication": style.YELLOW,
}

HATCHES = {"gradients": "///", "optimizer": "\\\\\\", "temporaries": "xx", "communication": ".."}
"""Keep the kinds apart where the picture is printed in grey."""

SIZE = (11.0, 5.5)
"""Inches of the picture's width and height."""

AXES = 6.5
"""Inches of the axes' width at least; the legend takes the rest."""

PEAK_SIZE = 10
"""Points of the letters at the peak."""

PEAK_GAP = 16
"""Points between them and what is drawn highest."""

RESOLUTION = 150
"""Dots per inch of a PNG."""

TITLE_WIDTH = 95
"""Most characters on a line of the title."""


def picture(plan: MemoryPlan, format: str) -> bytes:
    """Draw a timeline.

    Args:
        plan: whose timeline.
        format: "svg", "png" or "html".

    Returns:
        The file's content.
    """
    if format == "html":
        return _page(plan).encode()
    return _encoded(figure(plan), plan, format)


def figure(plan: MemoryPlan) -> Figure:
    """Draw a timeline."""
    from matplotlib.figure import Figure

    with style.applied():
        drawn = Figure(figsize=SIZE, layout="constrained")
        _draw(plan, drawn.add_subplot())
    return drawn


def _encoded(drawn: Figure, plan: MemoryPlan, format: str) -> bytes:
    return style.encoded(drawn, format, plan.title, description(plan), RESOLUTION)


def description(plan: MemoryPlan) -> str:
    """Say in words what the picture shows."""
    alive = [(MEMORY_KINDS[kind], size) for kind, size in plan.by_kind.items() if size]
    kinds = ", ".join(f"{words} {percent(size, plan.peak_bytes)}" for words, size in alive)
    peak = f"They peak at {megabytes(plan.peak_bytes)} in the {plan.peak_at}: {kinds}."
    said = f"Alive bytes over one step of {plan.title}. {peak}"
    if plan.reserved_bytes is None:
        return said
    return f"{said} The dashed line is what torch's allocator reserves, {megabytes(plan.reserved_bytes)}."


def phase(event: str) -> str:
    """Return the phase that an event belongs to."""
    if event in (CLIP_GRAD, OPTIMIZER_STEP):
        return "optimizer"
    return "backward" if event.startswith(("backward", "recomputation")) else "forward"


def _phase_of(plan: MemoryPlan, moment: Moment) -> str:
    """Return the phase of a moment; the step in the backward pass is part of that."""
    found = phase(moment.event)
    return "backward" if plan.options.step_in_backward and found == "optimizer" else found


def _draw(plan: MemoryPlan, axes: Any) -> None:
    moments = plan.timeline
    positions = range(len(moments) + 1)
    unit, name = _unit(plan.peak_bytes)
    highest = max(plan.peak_bytes, plan.reserved_bytes or 0) / unit
    bottom = [0.0] * len(moments)
    for index, (kind, colour) in enumerate(COLOURS.items()):
        values = [moment.by_kind[index] / unit for moment in moments]
        if not any(values):
            continue
        top = [low + value for low, value in zip(bottom, values)]
        axes.stairs(
            top,
            positions,
            baseline=bottom,
            fill=True,
            facecolor=colour,
            edgecolor="white",
            linewidth=0.0,
            hatch=HATCHES.get(kind),
            label=MEMORY_KINDS[kind],
        )
        bottom = top
    if plan.reserved_bytes is not None:
        label = f"reserved {megabytes(plan.reserved_bytes)}"
        axes.axhline(plan.reserved_bytes / unit, color="black", linewidth=1.2, linestyle="--", label=label)
    _mark_phases(plan, axes)
    _mark_peak(plan, axes, unit, highest)
    axes.set_title(fill(plan.title, TITLE_WIDTH), loc="left", fontweight="bold", pad=22)
    axes.set_ylabel(f"alive {name}")
    axes.set_xlabel("operations of the step, in order")
    axes.set_xlim(0, len(moments))
    axes.set_ylim(0, highest * 1.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, reverse=True)


def _unit(size: int) -> tuple[float, str]:
    return (1e9, "GB") if size >= 10**9 else (1e6, "MB") if size >= 10**6 else (1e3, "kB")


def _mark_phases(plan: MemoryPlan, axes: Any) -> None:
    """Draw a line between phases, and name each above the axes, in its middle.

    A name that is wider than its phase is left out, or begins where the last phase does.
    """
    for name, start, end in _phases(plan):
        if start:
            axes.axvline(start, color="black", linewidth=0.8, linestyle=":")
        is_last = end == len(plan.timeline)
        wide = end - start > len(plan.timeline) / 12
        if not wide and not is_last:
            continue
        axes.text(
            (start + end) / 2 if wide else start,
            1.01,
            name,
            transform=axes.get_xaxis_transform(),
            ha="center" if wide else "left",
            va="bottom",
            fontstyle="italic",
        )


def _phases(plan: MemoryPlan) -> Iterator[tuple[str, int, int]]:
    """Return each phase, with the moments where it begins and ends."""
    start = 0
    for name, group in groupby(plan.timeline, key=lambda moment: _phase_of(plan, moment)):
        end = start + len(list(group))
        yield name, start, end
        start = end


def _mark_peak(plan: MemoryPlan, axes: Any, unit: float, highest: float) -> None:
    """Write what the peak is above all that is drawn, inside a phase that is wide enough.

    Args:
        plan: whose peak.
        axes: where to write.
        unit: bytes of the axes' unit.
        highest: what is drawn highest, in that unit.
    """
    from matplotlib.transforms import offset_copy

    index = next(i for i, moment in enumerate(plan.timeline) if moment.size == plan.peak_bytes)
    text = f"peak {megabytes(plan.peak_bytes)}\n{plan.peak_at}"
    half = style.text_width(text, PEAK_SIZE) / AXES * len(plan.timeline) / 2
    start, end = _around(plan, index, 2 * half)
    axes.annotate(
        text,
        xy=(index + 0.5, plan.peak_bytes / unit),
        xytext=(max(start + half, min(index + 0.5, end - half)), highest),
        textcoords=offset_copy(axes.transData, axes.figure, y=PEAK_GAP, units="points"),
        ha="center",
        va="bottom",
        fontsize=PEAK_SIZE,
        arrowprops={"arrowstyle": "-|>", "color": "black"},
    )


def _around(plan: MemoryPlan, index: int, width: float) -> tuple[int, int]:
    """Return the first and last moment of the nearest phase in which a text has room; of all if none has.

    Args:
        plan: whose phases.
        index: the moment that the text is of.
        width: of the text, in moments.
    """
    spans = [(first, last) for _, first, last in _phases(plan) if last - first >= width]
    return min(spans, key=lambda span: max(span[0] - index, index - span[1]), default=(0, len(plan.timeline)))


# The page


def _page(plan: MemoryPlan) -> str:
    """Return the picture as a page whose crosshair names a moment, and says what is alive then."""
    drawn = figure(plan)
    svg = _encoded(drawn, plan, "svg").decode()  # only this lays out the axes, whose place is asked for below
    script = beside(__file__, "timeline.js")
    alive = [
        (kind, place)  # in the legend's order, the last one drawn first
        for place, kind in reversed(list(enumerate(COLOURS)))
        if any(moment.by_kind[place] for moment in plan.timeline)
    ]
    moments = []
    for moment in plan.timeline:
        sizes = [*(moment.by_kind[place] for _, place in alive), moment.size]
        texts = [[megabytes(size), grouped(size)] for size in sizes]
        moments.append({"event": moment.event, "bytes": moment.size, "texts": texts})
    data = {
        "plot": _place(drawn),
        "top_bytes": drawn.axes[0].get_ylim()[1] * _unit(plan.peak_bytes)[0],
        "peak": next(index for index, moment in enumerate(plan.timeline) if moment.size == plan.peak_bytes),
        "moments": moments,
    }
    return Template(beside(__file__, "timeline.html")).substitute(
        title=escape(plan.title),
        description=escape(description(plan)),
        picture=inline_svg(svg, "timeline"),
        kinds="".join(_kind(kind) for kind, _ in alive),
        reserved="" if plan.reserved_bytes is None else _reserved(plan.reserved_bytes),
        script=script,
        script_hash=script_hash(script),
        data=embedded(data),
    )


def _place(drawn: Figure) -> dict[str, float]:
    """Return where the axes are, in the points of the picture as SVG: from its upper left corner."""
    width, height = (72 * side for side in drawn.get_size_inches())
    box = drawn.axes[0].get_position()
    return {
        "left": box.x0 * width,
        "right": box.x1 * width,
        "top": (1 - box.y1) * height,
        "bottom": (1 - box.y0) * height,
    }


def _kind(kind: str) -> str:
    return (
        f'<tr><th scope="row"><span style="background:{COLOURS[kind]}"></span>{escape(MEMORY_KINDS[kind])}</th>'
        "<td></td><td></td></tr>"
    )


def _reserved(size: int) -> str:
    """Return the row of what is reserved, at every moment the same."""
    return f'<tr><th scope="row">reserved</th><td>{megabytes(size)}</td><td>{grouped(size)}</td></tr>'

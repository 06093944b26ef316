"""The alive bytes over a step, as a picture: stacked by kind, the phases marked, the peak labelled."""

from __future__ import annotations

from html import escape
from itertools import groupby
from textwrap import fill
from typing import TYPE_CHECKING, Any

from vggkit.numbers import megabytes, percent
from vggkit.render import style
from vggkit.render.memory import WORDS, title

if TYPE_CHECKING:
    from vggkit.liveness import MemoryPlan

COLOURS = {
    "parameters": style.BLUE,
    "buffers": style.SKY_BLUE,
    "gradients": style.VERMILION,
    "optimizer": style.ORANGE,
    "activations": style.GREEN,
    "temporaries": style.PURPLE,
    "inputs": style.GREY,
}

HATCHES = {"gradients": "///", "optimizer": "\\\\\\", "temporaries": "xx"}
"""So that the kinds stay apart in a grey print."""

SIZE = (11.0, 5.5)
RESOLUTION = 150
TITLE_WIDTH = 95
"""Characters of a title's line."""


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
    from matplotlib.figure import Figure

    with style.applied():
        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(plan, figure.add_subplot())
    return style.encoded(figure, format, title(plan), description(plan), RESOLUTION)


def description(plan: MemoryPlan) -> str:
    """Say in words what the picture shows."""
    kinds = ", ".join(f"{WORDS[kind]} {percent(size, plan.peak_bytes)}" for kind, size in plan.by_kind.items() if size)
    peak = f"They peak at {megabytes(plan.peak_bytes)} in the {plan.peak_at}: {kinds}."
    return f"Alive bytes over one step of {title(plan)}. {peak}"


def phase(event: str) -> str:
    """Return the phase that an event belongs to."""
    if event == "optimizer step":
        return "optimizer"
    return "backward" if event.startswith(("backward", "recomputation")) else "forward"


def _draw(plan: MemoryPlan, axes: Any) -> None:
    moments = plan.timeline
    positions = range(len(moments) + 1)
    unit, name = _unit(plan.peak_bytes)
    bottom = [0.0] * len(moments)
    for index, (kind, colour) in enumerate(COLOURS.items()):
        values = [moment.by_kind[index] / unit for moment in moments]
        if not any(values):
            continue
        top = [low + value for low, value in zip(bottom, values)]
        axes.stairs(
            top, positions, baseline=bottom, fill=True, facecolor=colour, edgecolor="white", linewidth=0.0,
            hatch=HATCHES.get(kind), label=WORDS[kind],
        )  # fmt: skip
        bottom = top
    _mark_phases(plan, axes)
    _mark_peak(plan, axes, unit)
    axes.set_title(fill(title(plan), TITLE_WIDTH), loc="left", fontweight="bold")
    axes.set_ylabel(f"alive {name}")
    axes.set_xlabel("operations of the step, in order")
    axes.set_xlim(0, len(moments))
    axes.set_ylim(0, plan.peak_bytes / unit * 1.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, reverse=True)


def _unit(size: int) -> tuple[float, str]:
    return (1e9, "GB") if size >= 10**9 else (1e6, "MB") if size >= 10**6 else (1e3, "kB")


def _mark_phases(plan: MemoryPlan, axes: Any) -> None:
    start = 0
    for name, group in groupby(plan.timeline, key=lambda moment: phase(moment.event)):
        end = start + len(list(group))
        if start:
            axes.axvline(start, color="black", linewidth=0.8, linestyle=":")
        wide = end - start > len(plan.timeline) / 12
        axes.text(
            (start + end) / 2, 0.98, name, transform=axes.get_xaxis_transform(), ha="center" if wide else "right",
            va="top", fontstyle="italic", rotation=0 if wide else 90,
        )  # fmt: skip
        start = end


def _mark_peak(plan: MemoryPlan, axes: Any, unit: float) -> None:
    index = next(i for i, moment in enumerate(plan.timeline) if moment.size == plan.peak_bytes)
    left = index > len(plan.timeline) / 2
    axes.annotate(
        f"peak {megabytes(plan.peak_bytes)}\n{plan.peak_at}",
        xy=(index + 0.5, plan.peak_bytes / unit),
        xytext=(-14 if left else 14, 16),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        arrowprops={"arrowstyle": "-|>", "color": "black"},
    )


def _page(plan: MemoryPlan) -> str:
    svg = picture(plan, "svg").decode()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title(plan))}</title>'
        "<style>body{font-family:sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "figure{margin:0;background:white}svg{width:100%;height:auto}</style></head>"
        f"<body><figure>{svg[svg.index('<svg') :]}<figcaption>{escape(description(plan))}</figcaption></figure>"
        "</body></html>\n"
    )

"""A memory plan as a table with bars and sentences, and what fits a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.base import tables
from vggkit.base.numbers import grouped, mebibytes, megabytes, percent
from vggkit.base.tables import Column, FittedTable, Grid, grid
from vggkit.notation.layers import times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from vggkit.footprint.plan import Alternatives, Fit, MemoryPlan, Options
    from vggkit.notation.layers import Shape

BAR = 24
"""Cells of a bar that stands for everything."""

WORDS = {
    "parameters": "parameters",
    "buffers": "running statistics",
    "gradients": "gradients of parameters",
    "optimizer": "optimizer",
    "activations": "activations",
    "temporaries": "temporaries",
    "inputs": "images and labels",
}
"""What the kinds are called for people."""


def plan_grid(plan: MemoryPlan) -> Grid:
    """Return a row per kind that is alive at the peak, and the sum."""
    kinds = [(kind, size) for kind, size in plan.by_kind.items() if size]
    total = plan.peak_bytes
    kind_columns: list[Column[tuple[str, int]]] = [
        Column("what", lambda row: WORDS[row[0]]),
        Column("bytes", lambda row: grouped(row[1]), "right", style="green"),
        Column("", lambda row: megabytes(row[1]), "right", rank=2),
        Column("share", lambda row: percent(row[1], total), "right", rank=1),
        Column("", lambda row: bar(row[1], total), rank=3, style="cyan"),
    ]
    return grid(kind_columns, kinds, ["peak", grouped(total), megabytes(total), "", ""])


def bar(part: int, whole: int) -> str:
    """Draw a share as a bar, in eighths of a cell."""
    eighths = round(BAR * 8 * part / whole)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def title(plan: MemoryPlan) -> str:
    """Return one line that says what a plan is of."""
    return heading(plan.name, plan.input, plan.options)


def heading(name: str, image: Shape, options: Options, solved: str = "") -> str:
    """Return one line that says what a step is of; what is solved for is left out."""
    shape = f"{image[0]} channels" if solved == "image" else times(image)
    said = [] if solved == "batch" else [f"batch {options.batch}"]
    said += [options.dtype, options.mode]
    if options.mode == "training":
        said.append(options.optimizer)
    said += ["autocast to bfloat16"] if options.autocast else []
    said += [f"frozen: {', '.join(options.freeze)}"] if options.freeze else []
    said += [f"checkpointed: {', '.join(options.checkpoint)}"] if options.checkpoint else []
    return f"{name}: {shape}, {', '.join([*said, options.device])}"


def sentences(plan: MemoryPlan, other: Alternatives | None = None) -> list[str]:
    """Say what dominates, where the peak is, and what people don't expect."""
    largest = max(plan.by_kind, key=plan.by_kind.__getitem__)
    share = percent(plan.by_kind[largest], plan.peak_bytes)
    said = [
        f"The peak is {megabytes(plan.peak_bytes)} ({mebibytes(plan.peak_bytes)}), in the {plan.peak_at};"
        f" {share} of it are {WORDS[largest]}."
    ]
    if plan.options.mode == "training":
        said.append(
            f"Kept for the backward pass: {megabytes(plan.saved_for_backward_bytes)}. Between steps stay"
            f" {megabytes(plan.steady_bytes)} (parameters, gradients, optimizer)."
        )
    if plan.peak_at == "optimizer step":
        said.append("At this batch the optimizer's own temporaries, not the activations, make the peak.")
    if other is not None:
        said += _alternatives(plan, other)
    if plan.options.device == "cuda":
        said.append("Workspaces of cuDNN and cuBLAS and the CUDA context are not included.")
    return said


def _alternatives(plan: MemoryPlan, other: Alternatives) -> list[str]:
    said = []
    if other.without_autocast is not None and other.without_autocast < plan.peak_bytes:
        said.append(
            f"Autocast holds more than plain float32 would ({megabytes(other.without_autocast)}): the bfloat16 copies"
            " of the weights outweigh the smaller activations at this batch."
        )
    if other.frozen_blocks is not None and other.frozen_blocks < plan.peak_bytes:
        said.append(f"With the convolutions frozen (--freeze) the peak would be {megabytes(other.frozen_blocks)}.")
    again = other.checkpoints
    if again is not None and again.peak_bytes < plan.peak_bytes:
        share = percent(again.recomputed, again.forward) if again.forward else "0 %"
        said.append(
            f"With --checkpoint {','.join(again.blocks)} it would be {megabytes(again.peak_bytes)}, for {share} of a"
            " forward pass more; with every block it would be no lower."
        )
    return said


def table(plan: MemoryPlan, other: Alternatives | None = None) -> Group:
    """Return the plan for the terminal."""
    from rich.console import Group
    from rich.text import Text

    return Group(FittedTable(plan_grid(plan)._replace(title=title(plan))), "", *map(Text, sentences(plan, other)))


def table_text(plan: MemoryPlan) -> str:
    """Return the table as plain text, without a line break at its end."""
    return tables.text(table(plan)).rstrip("\n")


def html_text(plan: MemoryPlan) -> str:
    """Return the table as HTML."""
    return tables.html(plan_grid(plan)._replace(title=title(plan)))


def in_format(plan: MemoryPlan, other: Alternatives, format: str) -> Any:
    """Return a plan in a format: a rich renderable for "table", text for json, csv and markdown."""
    if format == "json":
        return tables.json(plan.to_dict())
    if format == "csv":
        return tables.csv(["kind", "bytes"], [*plan.by_kind.items(), ("peak", plan.peak_bytes)])
    if format == "markdown":
        return tables.markdown(plan_grid(plan))
    return table(plan, other)


def _fits(fit: Fit) -> str:
    word = {"batch": "batch {}", "image": "{0}×{0} images"}[fit.solved]
    return word.format(fit.largest) if fit.largest else f"not even {word.format(fit.next)}"


def _limit(size: int) -> str:
    """Write a limit in the unit in which it is round."""
    return megabytes(size) if size % 10**6 == 0 else mebibytes(size)


def _next(fit: Fit) -> str:
    return str(fit.next)


FIT_COLUMNS: list[Column[Fit]] = [
    Column("memory", lambda fit: _limit(fit.limit_bytes), "right"),
    Column("fits", _fits, style="green"),
    Column("peak", lambda fit: megabytes(fit.peak_bytes), "right", rank=2),
    Column("left", lambda fit: megabytes(fit.left_bytes) if fit.largest else "–", "right", rank=1),
    Column("next", _next, "right", rank=3),
    Column("missing for it", lambda fit: megabytes(fit.missing_bytes), "right", rank=4),
]


def fits_in_format(heading: str, fits: Sequence[Fit], format: str) -> Any:
    """Return what fits in a format, as `in_format` does."""
    rows = grid(FIT_COLUMNS, fits)
    if format == "json":
        return tables.json([fit.to_dict() for fit in fits])
    if format == "csv":
        return tables.csv(list(fits[0].to_dict()), [list(fit.to_dict().values()) for fit in fits])
    return tables.markdown(rows) if format == "markdown" else FittedTable(rows._replace(title=heading))

"""A summary as others list it: as Keras's `model.summary()`, and as the lecture CS231n lists VGGNet."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from vggkit.base.numbers import grouped, keras_size, lecture_count, megabytes
from vggkit.figures.summary import channels_last, weight_formula, with_formula

if TYPE_CHECKING:
    from vggkit.figures.summary import Row, Summary

LINE_LENGTH = 88
POSITIONS = (0.45, 0.80, 1.0)
"""Keras's line length for a plain stack of layers, and where its columns end, as fractions of the line
(keras/src/utils/summary_utils.py)."""


def keras_listing(summary: Summary, batch: int | None = None) -> Any:
    """Return the listing of Keras as a rich renderable.

    Args:
        summary: with a row for every module.
        batch: number of images, printed in the shapes; None leaves it open, and prints None as Keras does.
    """
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    length = min(LINE_LENGTH, get_terminal_size().columns - 4)
    ends = [int(position * length) for position in POSITIONS]
    widths = [max(4, end - start) for start, end in zip([0, *ends], ends)]
    table = Table(
        Column("Layer (type)", width=widths[0]),
        Column("Output Shape", width=widths[1]),
        Column("Param #", width=widths[2], justify="right"),
        width=length,
        show_lines=True,
    )
    for row in summary:
        if row.layer is not None and (row.layer.fused_in_keras or row.layer.is_dropout):
            continue  # keras.applications has activations in the layer before them, and no dropout
        name = "input_layer (InputLayer)" if row.layer is None else f"{row.name} ({row.layer.keras_type})"
        shape = ", ".join(map(str, (batch, *channels_last(row.output_shape))))
        table.add_row(Text(name), Text(f"({shape})"), Text(grouped(row.stored)))
    model, totals = (summary.aliases[0] if summary.aliases else summary.name).lower(), summary.totals
    lines = [
        f" Total params: {grouped(totals.stored)} ({keras_size(totals.stored_bytes)})",
        f" Trainable params: {grouped(totals.parameters)} ({keras_size(totals.parameter_bytes)})",
        f" Non-trainable params: {grouped(totals.statistics)} ({keras_size(totals.statistics_bytes)})",
    ]
    return Group(Text(f'Model: "{model}"', style="bold"), table, *map(Text, lines))


def lecture_listing(summary: Summary) -> str:
    """Return the listing of the lecture (cs231n.github.io/convolutional-networks): a line per row, and two totals.

    The lines are the lecture's, and the totals are the sums of the lines. The lecture's own total is wrong: it says
    "24M * 4 bytes ~= 93MB / image", but its lines add up to 15.2M (reported as cs231n.github.io issue 88).
    """
    totals = summary.totals
    what = "image" if summary.batch == 1 else f"batch of {summary.batch}"
    element_bytes = totals.activation_bytes // totals.activation_elements
    lines = [
        *(_line(row, summary.batch) for row in summary),
        "",
        f"TOTAL memory: {grouped(totals.activation_elements)} * {element_bytes} bytes"
        f" = {megabytes(totals.activation_bytes)} / {what} (only forward)",
        f"TOTAL params: {grouped(totals.weights)} (biases not counted)",
    ]
    return "\n".join([*lines, ""])


def _line(row: Row, batch: int) -> str:
    shape = channels_last(row.output_shape) if len(row.output_shape) == 3 else (1, 1, *row.output_shape)
    params = with_formula(weight_formula(row, dot="*"), row.weights) or "0"
    return f"{_label(row)}: [{'x'.join(map(str, shape))}]  memory:  {_memory(row, batch)}   params: {params}"


def _memory(row: Row, batch: int) -> str:
    factors = [size for size in (batch, *channels_last(row.output_shape)) if size != 1]
    if not row.activation_elements:
        return "0"
    count = lecture_count(row.activation_elements)
    return f"{'*'.join(map(str, factors))}={count}" if len(factors) > 1 else count


def _label(row: Row) -> str:
    """Return `CONV3-64`, `POOL2`, `FC`."""
    if row.kind == "fc":
        return "FC"
    if row.layer is not None and row.layer.is_pool:
        window = row.layer.window(row.input_shape).extent
        return f"POOL{'x'.join(map(str, dict.fromkeys(window)))}"
    return row.notation.upper()

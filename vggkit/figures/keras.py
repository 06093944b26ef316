"""A summary as Keras's `model.summary()` prints it."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from vggkit.base.numbers import grouped, keras_size
from vggkit.figures.summary import channels_last

if TYPE_CHECKING:
    from vggkit.figures.summary import Summary

LINE_LENGTH = 88
"""Keras's line length for a plain stack of layers, and where its columns end (keras/src/utils/summary_utils.py)."""
POSITIONS = (0.45, 0.80, 1.0)


def listing(summary: Summary, batch: int | None = None) -> Any:
    """Return the listing as a rich renderable.

    Args:
        summary: with a row for every module.
        batch: number of images, printed in the shapes; None, as Keras prints it, if it is open.
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

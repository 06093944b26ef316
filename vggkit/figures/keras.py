"""A summary as Keras's `model.summary()` prints it."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from vggkit.base.numbers import grouped, keras_size

if TYPE_CHECKING:
    from vggkit.figures.summary import Row, Summary

LINE_LENGTH = 88
"""Keras's line length for a plain stack of layers, and where its columns end (keras/src/utils/summary_utils.py)."""
POSITIONS = (0.45, 0.80, 1.0)


def listing(summary: Summary, batch: int | None = None) -> Any:
    """Return the listing as a rich renderable.

    Args:
        summary: with a row for every module.
        batch: printed in the shapes; None as Keras prints where it is open.
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
        if shown(row):
            table.add_row(Text(_name(row)), Text(_shape(row, batch)), Text(grouped(row.stored)))
    return Group(Text(f'Model: "{_model_name(summary)}"', style="bold"), table, *map(Text, total_lines(summary)))


def shown(row: Row) -> bool:
    """Tell whether Keras has a layer of its own for it: activations are part of the layer before, dropout is absent."""
    return row.layer is None or (row.layer.role not in ("activation", "dropout") and row.layer.keras_type != "Softmax")


def total_lines(summary: Summary) -> list[str]:
    """Return the three totals."""
    totals = summary.totals
    return [
        f" Total params: {grouped(totals.stored)} ({keras_size(totals.stored_bytes)})",
        f" Trainable params: {grouped(totals.parameters)} ({keras_size(totals.parameter_bytes)})",
        f" Non-trainable params: {grouped(totals.statistics)} ({keras_size(totals.statistics_bytes)})",
    ]


def _name(row: Row) -> str:
    return "input_layer (InputLayer)" if row.layer is None else f"{row.name} ({row.layer.keras_type})"


def _shape(row: Row, batch: int | None) -> str:
    channels, *sizes = row.output_shape
    return f"({', '.join(map(str, (batch, *sizes, channels)))})"


def _model_name(summary: Summary) -> str:
    return (summary.aliases[0] if summary.aliases else summary.name).lower()

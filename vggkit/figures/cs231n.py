"""A summary as the lecture CS231n lists VGGNet (cs231n.github.io/convolutional-networks).

The lines are the lecture's; the totals are the sums of the lines. The lecture's own total is not: it says "24M * 4
bytes ~= 93MB / image", where its lines add up to 15.2M (reported as cs231n.github.io issue 88).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggkit.base.numbers import grouped, lecture_count, megabytes
from vggkit.figures.summary import channels_last, weight_formula, with_formula

if TYPE_CHECKING:
    from vggkit.figures.summary import Row, Summary


def listing(summary: Summary) -> str:
    """Return the listing, a line per row and two totals."""
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

"""Receptive fields and strides: bars as long as the figures, no line through a number."""

from __future__ import annotations

import pytest

import vggkit
from tests.pictures.drawings import FAMILY, ODD, SIX, bars, figure, network
from tests.pictures.written import texts, words


def test_the_receptive_fields_bars_are_as_long_as_the_fields() -> None:
    """Field and stride of each row, in their order, each written, too; the input's size is a line."""
    rows = vggkit.summarize("E").rows
    drawing = figure("E", "receptive")
    assert bars(drawing, 0) == [row.receptive_field[0] for row in rows]
    assert bars(drawing, 1) == [row.stride[0] for row in rows]
    said = words(drawing)
    assert [text for text in said if text.isdigit()] == [
        str(value) for values in zip(*((row.receptive_field[0], row.stride[0]) for row in rows)) for value in values
    ]
    assert [list(line.get_xdata()) for axes in drawing.axes for line in axes.lines] == [[224, 224]]


def test_height_and_width_are_told_apart_where_they_differ() -> None:
    """Two bars per layer, both numbers, both sizes of the input."""
    rows = vggkit.summarize(network("trunk")).rows
    drawing = figure("trunk", "receptive")
    for panel, what in enumerate(("receptive_field", "stride")):
        pairs = [getattr(row, what) for row in rows]
        assert bars(drawing, panel) == [*(height for height, _ in pairs), *(width for _, width in pairs)]
    written = {
        str(height) if height == width else f"{height}×{width}"
        for row in rows
        for height, width in (row.receptive_field, row.stride)
    }
    assert {"height", "width", *written} <= set(words(drawing))
    assert [list(line.get_xdata()) for axes in drawing.axes for line in axes.lines] == [[20, 20], [90, 90]]


@pytest.mark.parametrize("name", [*SIX, *ODD, *FAMILY])
def test_no_line_runs_through_a_number(name: str) -> None:
    """Where the input's dashed line would, the number stands behind it."""
    drawing = figure(name, "receptive")
    boxes = texts(drawing)
    for axes in drawing.axes:
        for line in axes.lines:
            [(x, low), (_, high)] = line.get_transform().transform(line.get_xydata())
            width = line.get_linewidth() * drawing.dpi / 72
            for text, box in boxes.items():
                crossed = box.x0 < x + width / 2 and x - width / 2 < box.x1 and box.y0 < high and low < box.y1
                assert not crossed, text

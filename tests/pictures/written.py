"""What is written in a picture, and that none of it is in the way."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from vggkit.pictures.style import applied


@cache
def texts(figure: Figure) -> dict[Text, Any]:
    """Return what is written, each with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    with applied():
        canvas.draw()
    unseen = [
        label
        for axes in figure.axes
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not axes.axison or not low <= tick.get_loc() <= high  # matplotlib draws no such tick
    ]
    every = figure.findobj(lambda artist: isinstance(artist, Text) and bool(artist.get_text().strip()))
    seen = [text for text in every if text.get_visible() and text not in unseen]
    return {text: Text.get_window_extent(text, canvas.get_renderer()) for text in seen}


def words(figure: Figure) -> list[str]:
    """Return what is written."""
    return [text.get_text() for text in texts(figure)]


def check_texts(figure: Figure) -> None:
    """Hold that no text leaves the canvas or covers another."""
    boxes = texts(figure)
    for text, box in boxes.items():
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    assert [(a.get_text(), b.get_text()) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])] == []

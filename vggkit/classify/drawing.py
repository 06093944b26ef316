"""A picture, drawn with its likeliest classes at its right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from vggkit.classify.pictures import open_picture
from vggkit.classify.predictions import Classified, percentage, share
from vggkit.pictures import style

if TYPE_CHECKING:
    from PIL import Image

BEST = 15
"""Most classes in a drawing."""

COLOURS = (style.BLUE, style.SKY_BLUE)
"""Colours of the bars: the likeliest class, and the others."""

INCHES = (5.0, 6.0)
"""Widths of the two halves."""

LABEL_WIDTH = 26
LABEL_LINES = 3
NAME_WIDTH = 48
NAME_LINES = 2
"""Most characters on a line, and most lines, of a class's label and of the picture's name."""

LINE_INCHES = 0.2
RESOLUTION = 150


def drawn(image: str | os.PathLike[str] | Image.Image, result: Classified) -> bytes:
    """Draw a picture and, at its right, its likeliest classes.

    Args:
        image: the file, or the picture itself.
        result: what the network sees in it; the first classes are drawn.

    Returns:
        A PNG file's content.

    Raises:
        PictureError: if the file can't be read.
    """
    best = result.predictions[:BEST]
    said = "; ".join(f"{prediction.label} {percentage(prediction.probability)}" for prediction in best)
    with style.applied():
        whole = figure(image, result)
    return style.encoded(whole, "png", os.path.basename(result.name), said, RESOLUTION)


def figure(image: str | os.PathLike[str] | Image.Image, result: Classified) -> Any:
    """Return the matplotlib figure that `drawn` saves."""
    from matplotlib.figure import Figure

    best = result.predictions[:BEST]
    labels = [_wrapped(prediction.label, LABEL_WIDTH, LABEL_LINES) for prediction in best]
    row = LINE_INCHES * (1 + max((label.count("\n") + 1 for label in labels), default=1))
    whole = Figure(figsize=(sum(INCHES), max(4.0, 0.8 + row * len(best))))
    whole.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    left, right = whole.subplots(1, 2, width_ratios=INCHES)
    _draw_image(left, _scaled_down(image), result.image)
    _draw_bars(right, labels, [prediction.probability for prediction in best])
    return whole


def _scaled_down(image: str | os.PathLike[str] | Image.Image) -> Image.Image:
    """Open a picture, in no more pixels than the drawing shows."""
    from PIL import Image

    opened = image.convert("RGB") if isinstance(image, Image.Image) else open_picture(image, "rgb")
    side = round(INCHES[0] * RESOLUTION) * 2
    if max(opened.size) <= side:
        return opened
    scale = side / max(opened.size)
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    return opened.resize(size, Image.Resampling.LANCZOS)


def _draw_image(axes: Any, image: Image.Image, name: str) -> None:
    axes.imshow(image, interpolation="nearest" if max(image.size) < 100 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(_wrapped(style.printable(os.path.basename(name) or name), NAME_WIDTH, NAME_LINES), fontsize=10)


def _draw_bars(axes: Any, labels: Sequence[str], probabilities: Sequence[float]) -> None:
    places = range(len(labels))
    colours = [COLOURS[min(place, 1)] for place in places]
    lengths = list(map(share, probabilities))
    axes.barh(places, lengths, height=0.6, color=colours)
    for place, length, probability in zip(places, lengths, probabilities):
        end = (length, place)
        axes.annotate(percentage(probability), end, xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, labels)
    axes.tick_params(left=False)
    axes.set_xticks([])
    axes.set_xlim(0, 1.25)
    axes.set_ylim(max(len(labels), 4) - 0.5, -0.5)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _wrapped(text: str, width: int, lines: int) -> str:
    broken = wrap(text, width) or [""]
    if len(broken) > lines:
        broken = [*broken[: lines - 1], f"{broken[lines - 1][: width - 1]}…"]
    return "\n".join(broken)

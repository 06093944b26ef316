"""What a network sees in pictures: as a table, as data, and drawn beside the picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Protocol

from vggkit.base import tables
from vggkit.pictures import style

if TYPE_CHECKING:
    from PIL import Image


class Predicted(Protocol):
    """A class and how likely it is."""

    @property
    def label(self) -> str: ...
    @property
    def wordnet_id(self) -> str | None: ...
    @property
    def index(self) -> int: ...
    @property
    def probability(self) -> float: ...


class Result(Protocol):
    """A picture's name and its classes, the likeliest first."""

    @property
    def image(self) -> str: ...
    @property
    def predictions(self) -> Sequence[Predicted]: ...


def dicts(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return results as plain data."""
    return [
        {
            "image": _encodable(result.image),
            "predictions": [
                {
                    "label": predicted.label,
                    "wordnet_id": predicted.wordnet_id,
                    "index": predicted.index,
                    "probability": predicted.probability,
                }
                for predicted in result.predictions
            ],
        }
        for result in results
    ]


def json_text(results: Iterable[Result]) -> str:
    """Write results as JSON."""
    return tables.json(dicts(results))


def csv_text(results: Iterable[Result]) -> str:
    """Write results as comma-separated values, a line per picture and class."""
    header = ("image", "rank", "label", "wordnet_id", "index", "probability")
    rows = [
        (entry["image"], rank, *(predicted[key] for key in header[2:]))
        for entry in dicts(results)
        for rank, predicted in enumerate(entry["predictions"], start=1)
    ]
    return tables.csv(header, rows)


def _encodable(name: str) -> str:
    """Return a file's name as UTF-8 can write it, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")


def percentage(probability: float) -> str:
    """Write a probability for people.

    >>> percentage(0.4567), percentage(1), percentage(0.00004)
    ('45.7 %', '100.0 %', '0.0 %')
    """
    return f"{100 * probability:.1f} %"


# Table


def table(results: Iterable[Result]) -> Any:
    """Return a rich renderable: under each picture's name its classes, their probabilities and bars."""
    return _Table(list(results))


INDENT = 2
PERCENTAGE = 7
"""Columns of "100.0 %"."""

LONGEST_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


class _Table:
    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.text import Text

        label, bar = self.widths(options.max_width)
        for number, result in enumerate(self.results):
            if number:
                yield Text()
            yield Text(style.printable(result.image), style="bold", overflow="fold")
            for predicted in result.predictions:
                yield _line(predicted, label, bar, options.ascii_only)

    def widths(self, width: int) -> tuple[int, int]:
        """Return the columns of a label and of a full bar; a long label leaves the bar a third of the line."""
        from rich.cells import cell_len

        labels = [cell_len(predicted.label) for result in self.results for predicted in result.predictions]
        free = max(width - INDENT - PERCENTAGE - 2 * tables.GAP, 2)
        label = max(min(max(labels, default=1), free - min(LONGEST_BAR, free // 3)), 1)
        return label, min(LONGEST_BAR, free - label)


def _line(predicted: Predicted, label: int, bar: int, ascii_only: bool) -> Any:
    from rich.text import Text

    name = Text(predicted.label)
    name.truncate(label, overflow="ellipsis", pad=True)
    gap = " " * tables.GAP
    amount = f"{percentage(predicted.probability):>{PERCENTAGE}}"
    blocks = _bar(predicted.probability, bar, ascii_only)
    return Text(no_wrap=True, overflow="crop").append(" " * INDENT).append(name).append(gap).append(
        amount, style="green"
    ).append(gap).append(blocks, style="cyan")  # fmt: skip


def _bar(probability: float, width: int, ascii_only: bool) -> str:
    share = _share(probability)
    if ascii_only:
        return "#" * round(share * width)
    full, eighths = divmod(round(share * width * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _share(probability: float) -> float:
    """Return how much of a full bar a probability is; a network gone wrong may say NaN."""
    return min(probability, 1.0) if probability > 0 else 0.0


# Picture


BEST = 15
"""A picture shows no more classes."""

COLOURS = (style.BLUE, style.SKY_BLUE)
"""Of the likeliest class and of the others."""

INCHES = (5.0, 6.0)
"""Widths of the two halves."""

LABEL_WIDTH = 26
LABEL_LINES = 3
NAME_WIDTH = 48
NAME_LINES = 2
LINE_INCHES = 0.2
RESOLUTION = 150


def picture(image: str | os.PathLike[str] | Image.Image, result: Result) -> bytes:
    """Draw a picture and, at its right, its best classes.

    Args:
        image: the file, or the picture itself.
        result: what the network sees in it; the first classes are drawn.

    Returns:
        A PNG file's content.

    Raises:
        PictureError: if the file can't be read.
    """
    best = result.predictions[:BEST]
    said = "; ".join(f"{predicted.label} {percentage(predicted.probability)}" for predicted in best)
    with style.applied():
        drawn = figure(image, result)
    return style.encoded(drawn, "png", _encodable(os.path.basename(result.image)), said, RESOLUTION)


def figure(image: str | os.PathLike[str] | Image.Image, result: Result) -> Any:
    """Return the matplotlib figure that `picture` saves."""
    from matplotlib.figure import Figure

    best = list(result.predictions[:BEST])
    labels = [_wrapped(predicted.label, LABEL_WIDTH, LABEL_LINES) for predicted in best]
    row = LINE_INCHES * (1 + max((label.count("\n") + 1 for label in labels), default=1))
    drawn = Figure(figsize=(sum(INCHES), max(4.0, 0.8 + row * len(best))))
    drawn.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    left, right = drawn.subplots(1, 2, width_ratios=INCHES)
    _draw_image(left, _shown(image), result.image)
    _draw_bars(right, labels, [predicted.probability for predicted in best])
    return drawn


def _shown(image: str | os.PathLike[str] | Image.Image) -> Image.Image:
    from PIL import Image

    from vggkit.notation.preprocess import open_picture

    opened = image.convert("RGB") if isinstance(image, Image.Image) else open_picture(image, "rgb")
    side = round(INCHES[0] * RESOLUTION) * 2  # finer than that, nobody sees it
    if max(opened.size) <= side:
        return opened
    scale = side / max(opened.size)
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    return opened.resize(size, Image.Resampling.LANCZOS)


def _draw_image(axes: Any, image: Image.Image, name: str) -> None:
    axes.imshow(image, interpolation="nearest" if max(image.size) < 100 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    title = _wrapped(style.printable(os.path.basename(name) or name), NAME_WIDTH, NAME_LINES)
    axes.set_title(title, fontsize=10)


def _draw_bars(axes: Any, labels: Sequence[str], probabilities: Sequence[float]) -> None:
    colours = [COLOURS[0], *COLOURS[1:] * len(labels)][: len(labels)]
    lengths = [_share(probability) for probability in probabilities]
    axes.barh(range(len(labels)), lengths, height=0.6, color=colours)
    for place, (probability, length) in enumerate(zip(probabilities, lengths)):
        axes.annotate(
            percentage(probability), (length, place), xytext=(4, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
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

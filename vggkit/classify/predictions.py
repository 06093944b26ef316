"""What a network sees in pictures: the likeliest classes of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from vggkit.base import tables
from vggkit.base.tables import Column, DrawnTable, Shown, Table, grid
from vggkit.pictures import style


class Prediction(msgspec.Struct, frozen=True):
    """A class and how likely it is.

    Args:
        label: its name.
        wordnet_id: its WordNet id in ImageNet; None for other classes.
        index: its place among the network's outputs.
        probability: from 0 to 1.
    """

    label: str
    wordnet_id: str | None
    index: int
    probability: float


class Classified(msgspec.Struct, frozen=True):
    """What a network sees in a picture.

    Args:
        image: the picture's path as it was given.
        predictions: the likeliest classes, the likeliest first.
    """

    image: str
    predictions: Sequence[Prediction]

    @property
    def name(self) -> str:
        """The path as valid UTF-8, whatever bytes it has."""
        return os.fsencode(self.image).decode("utf-8", "replace")


class Predictions(Shown, msgspec.Struct, frozen=True):
    """What a network sees in several pictures.

    Args:
        pictures: each with its classes.
    """

    pictures: Sequence[Classified]

    def table(self) -> Table:
        """Return a row for each picture and class."""
        return _PredictionsTable(self.pictures)


RECORD = ("image", "rank", "label", "wordnet_id", "index", "probability")
"""The columns of the CSV."""

COLUMNS: list[Column[dict[str, Any]]] = [
    Column("image", lambda record: record["image"]),
    Column("rank", lambda record: str(record["rank"]), "right"),
    Column("class", lambda record: record["label"]),
    Column("WordNet id", lambda record: record["wordnet_id"] or "–"),
    Column("index", lambda record: str(record["index"]), "right"),
    Column("probability", lambda record: percentage(record["probability"]), "right"),
]


class _PredictionsTable(DrawnTable):
    """A table that a terminal shows as bars below each picture's name."""

    def __init__(self, pictures: Sequence[Classified]) -> None:
        records = [
            {"image": picture.name, "rank": rank, **msgspec.structs.asdict(prediction)}
            for picture in pictures
            for rank, prediction in enumerate(picture.predictions, start=1)
        ]
        super().__init__(
            grid(COLUMNS, records, title="What the network sees"),
            records=records,
            columns=RECORD,
            data=[
                {"image": picture.name, "predictions": list(map(msgspec.structs.asdict, picture.predictions))}
                for picture in pictures
            ],
        )
        self.pictures = pictures

    def __rich__(self) -> Any:
        return _Bars(self.pictures)


def percentage(probability: float) -> str:
    """Write a probability for people.

    >>> percentage(0.4567), percentage(1), percentage(0.00004)
    ('45.7 %', '100.0 %', '0.0 %')
    """
    return f"{100 * probability:.1f} %"


def share(probability: float) -> float:
    """Return how much of a full bar a probability is; a broken network may give NaN."""
    return min(probability, 1.0) if probability > 0 else 0.0


INDENT = 2
PERCENTAGE = 7
"""Columns of "100.0 %"."""

LONGEST_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


class _Bars:
    """A rich renderable: under each picture's name its classes, their probabilities and bars."""

    def __init__(self, pictures: Sequence[Classified]) -> None:
        self.pictures = pictures

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.text import Text

        label, bar = self.widths(options.max_width)
        for number, picture in enumerate(self.pictures):
            if number:
                yield Text()
            yield Text(style.printable(picture.image), style="bold", overflow="fold")
            for prediction in picture.predictions:
                yield _line(prediction, label, bar, options.ascii_only)

    def widths(self, width: int) -> tuple[int, int]:
        """Return the columns of a label and of a full bar; a long label leaves the bar a third of the line."""
        from rich.cells import cell_len

        labels = [cell_len(prediction.label) for picture in self.pictures for prediction in picture.predictions]
        free = max(width - INDENT - PERCENTAGE - 2 * tables.GAP, 2)
        label = max(min(max(labels, default=1), free - min(LONGEST_BAR, free // 3)), 1)
        return label, min(LONGEST_BAR, free - label)


def _line(prediction: Prediction, label: int, bar: int, ascii_only: bool) -> Any:
    """Return a class with its probability and bar."""
    from rich.text import Text

    name = Text(prediction.label)
    name.truncate(label, overflow="ellipsis", pad=True)
    amount = Text(f"{percentage(prediction.probability):>{PERCENTAGE}}", style="green")
    length = share(prediction.probability) * bar
    full, eighths = divmod(round(8 * length), 8)
    blocks = "#" * round(length) if ascii_only else "█" * full + _EIGHTHS[eighths].strip()
    gap = " " * tables.GAP
    parts = (" " * INDENT, name, gap, amount, gap, Text(blocks, style="cyan"))
    return Text.assemble(*parts, no_wrap=True, overflow="crop")

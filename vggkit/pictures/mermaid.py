"""A network as a Mermaid flowchart, which GitHub and others draw in Markdown pages.

Each block is a column with a box for each layer, as in the flat picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from vggkit.base.errors import ArgumentError
from vggkit.notation.layers import times
from vggkit.pictures import style
from vggkit.pictures.flat import columns_of, description
from vggkit.pictures.parts import COLOURS, category, groups, title

if TYPE_CHECKING:
    from vggkit.figures.summary import Row, Summary

__all__ = ["fenced", "flowchart"]

MOST_ARROWS = 500
"""Mermaid draws no more (its setting `maxEdges`, which a page can't change)."""

MOST_CHARACTERS = 50_000
"""Mermaid reads no more (its setting `maxTextSize`, which a page can't change)."""

SHAPES = {
    "input": ("([", "])"),
    "convolution": ("[", "]"),
    "normalization": ("{{", "}}"),
    "activation": ("(", ")"),
    "pooling": ("[\\", "/]"),
    "fully connected": ("[[", "]]"),
    "soft-max": ("([", "])"),
}
"""What is written around the text of each category's box: a rectangle for a convolution, a trapezoid for pooling, …"""

PLAIN = frozenset(" .,-_/+×→")
"""The signs that mean nothing to Mermaid inside a text in quotes, beside letters and digits."""


def flowchart(summary: Summary) -> str:
    """Return the flowchart.

    Args:
        summary: with a row for every module.

    Raises:
        ArgumentError: if Mermaid would refuse it, because it has too many arrows or characters.
    """
    columns = columns_of(groups(summary))
    arrows = len(columns) - 1 + len([row for _, rows in columns for row in rows[1:]])
    if arrows > MOST_ARROWS:
        raise ArgumentError(
            f"{summary.name}: expected up to {MOST_ARROWS} arrows in a Mermaid flowchart, which draws no more,"
            f" found {arrows:,}"
        )
    text = "\n".join(_lines(summary, columns)) + "\n"
    if len(text) > MOST_CHARACTERS:
        raise ArgumentError(
            f"{summary.name}: expected up to {MOST_CHARACTERS:,} characters in a Mermaid flowchart, which reads no"
            f" more, found {len(text):,}"
        )
    return text


def fenced(flowchart: str) -> str:
    """Return a flowchart as it stands in a Markdown page.

    >>> fenced("flowchart LR")
    '```mermaid\\nflowchart LR```\\n'
    """
    return f"```mermaid\n{flowchart}```\n"


def _lines(summary: Summary, columns: Sequence[tuple[str, Sequence[Row]]]) -> Iterator[str]:
    yield from (
        "---",
        f"title: {json.dumps(style.printable(title(summary)), ensure_ascii=False)}",
        "---",
        "flowchart LR",
    )
    yield f"  accTitle: {_escaped(title(summary))}"
    yield f"  accDescr: {_escaped(description(summary))}"
    numbers = (f"layer{number}" for number, _ in enumerate(chain.from_iterable(rows for _, rows in columns)))
    ends = []
    for place, (name, rows) in enumerate(columns):
        boxes = {node: row for row, node in zip(rows, numbers)}
        ends.append(f"column{place}" if name else next(iter(boxes)))
        if name:
            yield f'  subgraph column{place}["{_escaped(name)}"]'
            yield "    direction TB"
        yield from (f"{'    ' if name else '  '}{_box(node, row)}" for node, row in boxes.items())
        yield from (f"    {before} --> {after}" for before, after in pairwise(boxes))
        if name:
            yield "  end"
    yield from (f"  {before} --> {after}" for before, after in pairwise(ends))
    there = {category(row) for _, rows in columns for row in rows}
    for kind, colour in COLOURS.items():
        if kind in there:
            look = f"fill:{style.lighter(colour, 0.55)},stroke:{colour},color:{style.INK}"
            yield f"  classDef {_class(kind)} {look}"


def _box(node: str, row: Row) -> str:
    """Return a layer's box: its notation, and below it the shape that comes out."""
    before, after = SHAPES[category(row)]
    text = f"{_escaped(row.notation)}<br>{_escaped(times(row.output_shape))}"
    return f'{node}{before}"{text}"{after}:::{_class(category(row))}'


def _class(kind: str) -> str:
    return kind.replace(" ", "_").replace("-", "_")


def _escaped(text: str) -> str:
    """Write every sign that Mermaid or HTML could read as something else as the number of the character."""
    return "".join(char if char.isalnum() or char in PLAIN else f"#{ord(char)};" for char in style.printable(text))

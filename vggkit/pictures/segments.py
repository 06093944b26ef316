"""Snapshot → a map of the card: each segment as wide as its bytes, its blocks in the colours of what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base.eager import MEMORY_KINDS
from vggkit.base.numbers import mebibytes
from vggkit.base.shapes import times
from vggkit.pictures import style
from vggkit.pictures.parts import HINTING, LONGEST_TITLE, MARGIN, Canvas, rectangle, shortened_text
from vggkit.pictures.timeline import COLOURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matplotlib.figure import Figure

    from vggkit.footprint.snapshot import Snapshot

WIDTH = 7.4
"""Inches of a row."""

BAR = 0.3
"""Inches of a segment's height."""

NOTE = 0.3
"""Inches of the line above the first row."""

ROW = 0.4
"""Inches from one row to the next."""

GAP = 0.05
"""Inches between two segments of a row."""

LABEL_GAP = 0.05
"""Inches between a label and the borders of its block."""

LONGEST_ROW = 0.17
"""An expandable segment may be as long as the card. It is broken where it is longer than this share of what is
reserved: into six rows, with room for the small pool in the last."""

HOLE = "holes"
HOLE_COLOUR = "#FFFFFF"
"""What the legend calls free blocks, and their colour."""

DASHES = (0, (4, 3))
"""How the outline is drawn of what is not reserved."""


class Piece(NamedTuple):
    """A block, or the part of it that a row has room for.

    Args:
        size: its bytes.
        kind: a key of `COLOURS`, or `HOLE`.
        block: bytes of the whole block.
    """

    size: int
    kind: str
    block: int


class Bar(NamedTuple):
    """A segment, or the part of it that a row has room for.

    Args:
        size: its bytes.
        pieces: in the order of their addresses.
        begins: whether the segment begins here, and not in the row before.
        ends: whether it ends here.
    """

    size: int
    pieces: tuple[Piece, ...]
    begins: bool
    ends: bool


def figure(snapshot: Snapshot) -> Figure:
    """Draw where everything lies."""
    widest = _widest(snapshot)
    scale = WIDTH / widest
    rows = _rows(_bars(snapshot, widest), scale)
    outlines = _outlines(snapshot)
    kinds = {piece.kind for row in rows for _, bar in row for piece in bar.pieces}
    legend = {MEMORY_KINDS[kind]: colour for kind, colour in COLOURS.items() if kind in kinds}
    if HOLE in kinds:
        legend[HOLE] = HOLE_COLOUR
    name = shortened_text(style.printable(snapshot.name), LONGEST_TITLE)
    heading = f"{name}: {times(snapshot.input)}, batch {snapshot.options.batch}"
    height = NOTE + ROW * (len(rows) + len(outlines))
    canvas = Canvas(heading, snapshot.options.words, legend, MARGIN + WIDTH, height)
    canvas.text(MARGIN, canvas.top - NOTE / 2, totals(snapshot))
    top = canvas.top - NOTE
    for row in rows:
        top -= ROW
        for x, bar in row:
            _draw(canvas, MARGIN + x, top, bar, scale)
    for text, size in outlines:
        top -= ROW
        _outline(canvas, top, text, size * scale)
    return canvas.figure


def title(snapshot: Snapshot) -> str:
    """Return one line that says what is drawn."""
    return snapshot.options.title(snapshot.name, snapshot.input)


def totals(snapshot: Snapshot) -> str:
    """Return one line of totals."""
    card = f" of {mebibytes(snapshot.card_bytes)}" if snapshot.is_bounded else ""
    step = "A steady step" if snapshot.refusal is None else f"Step {snapshot.step}"
    moment = f"{step}, {snapshot.event}" if snapshot.step else "Before the first step"
    sizes = f"{mebibytes(snapshot.reserved_bytes)}{card} reserved, {mebibytes(snapshot.allocated_bytes)} allocated"
    return f"{moment}: {sizes}."


def description(snapshot: Snapshot) -> str:
    """Say in words what the picture shows."""
    said = [f"The segments of torch's allocator and the blocks in them. {title(snapshot)}.", totals(snapshot)]
    if snapshot.holes:
        said.append(f"The largest hole has {mebibytes(snapshot.holes[0].size)}.")
    said += [f"{text[0].upper()}{text[1:]}." for text, _ in _outlines(snapshot)]
    return " ".join(said)


def _widest(snapshot: Snapshot) -> int:
    """Return the bytes of a row: those of the longest thing that is drawn in one piece."""
    whole = [segment.size for segment in snapshot.segments if not segment.is_expandable]
    asked = [] if snapshot.refusal is None else [snapshot.refusal.size]
    return max([*whole, *asked, int(snapshot.reserved_bytes * LONGEST_ROW)])


def _bars(snapshot: Snapshot, widest: int) -> Iterator[Bar]:
    """Yield the segments by address, those of the large pool first; one that is longer than a row in parts."""
    for segment in sorted(snapshot.segments, key=lambda segment: segment.is_small):
        pieces = [
            Piece(block.size, HOLE if block.is_free else snapshot.kinds[block.address], block.size)
            for block in segment.blocks
        ]
        begins, rest = True, segment.size
        while rest:
            size = min(rest, widest)
            row, pieces = _cut(pieces, size)
            rest -= size
            yield Bar(size, tuple(row), begins, not rest)
            begins = False


def _cut(pieces: Sequence[Piece], size: int) -> tuple[list[Piece], list[Piece]]:
    """Cut bytes off the front."""
    front: list[Piece] = []
    for place, piece in enumerate(pieces):
        if piece.size > size:
            parts = [piece._replace(size=size)] if size else []
            return front + parts, [piece._replace(size=piece.size - size), *pieces[place + 1 :]]
        front.append(piece)
        size -= piece.size
    return front, []


def _rows(bars: Iterable[Bar], scale: float) -> list[list[tuple[float, Bar]]]:
    """Put each bar into the first row that has room; return the bars of each row, and the inches where they begin."""
    rows: list[list[tuple[float, Bar]]] = []
    ends: list[float] = []
    for bar in bars:
        width = bar.size * scale
        row = next((row for row, end in enumerate(ends) if end + width <= WIDTH), len(rows))
        if row == len(rows):
            rows.append([])
            ends.append(0.0)
        rows[row].append((ends[row], bar))
        ends[row] += width + GAP
    return rows


def _outlines(snapshot: Snapshot) -> list[tuple[str, int]]:
    """Return what is not reserved, in words and bytes: what the card has left, and what is asked for in vain."""
    found: list[tuple[str, int]] = []
    if snapshot.is_bounded and snapshot.left_bytes:
        found.append((f"not reserved: {mebibytes(snapshot.left_bytes)}", snapshot.left_bytes))
    if snapshot.refusal is not None:
        kind = MEMORY_KINDS[snapshot.refusal.kind]
        found.append((f"asked for: {mebibytes(snapshot.refusal.size)} ({kind})", snapshot.refusal.size))
    return found


def _draw(canvas: Canvas, x: float, y: float, bar: Bar, scale: float) -> None:
    """Draw a segment; where it goes on in another row, its outline is open."""
    left = x
    for piece in bar.pieces:
        width = piece.size * scale
        colour = COLOURS.get(piece.kind, HOLE_COLOUR)
        canvas.shape(rectangle(x, y, width, BAR), facecolor=colour, edgecolor=style.INK, linewidth=0.3)
        text = mebibytes(piece.block)
        if 2 * piece.size >= piece.block and _label_width(text) <= width:
            _label(canvas, x + width / 2, y, text, color=style.ink_on(colour), ha="center")
        x += width
    _border(canvas, left, x, y, begins=bar.begins, ends=bar.ends, linewidth=1.0)


def _outline(canvas: Canvas, y: float, text: str, width: float) -> None:
    """Draw what is not reserved, with its words in it or behind it; what is longer than a row is open on the right."""
    right = MARGIN + min(width, WIDTH)
    _border(canvas, MARGIN, right, y, ends=width <= WIDTH * 1.001, linewidth=0.8, linestyle=DASHES)
    _label(canvas, LABEL_GAP + (MARGIN if _label_width(text) <= width else right), y, text)


def _border(
    canvas: Canvas, left: float, right: float, y: float, *, begins: bool = True, ends: bool = True, **options: Any
) -> None:
    """Draw the edges of a bar."""
    canvas.axes.hlines([y, y + BAR], left, right, color=style.INK, **options)
    canvas.axes.vlines([*([left] if begins else []), *([right] if ends else [])], y, y + BAR, style.INK, **options)


def _label(canvas: Canvas, x: float, y: float, text: str, **options: Any) -> None:
    canvas.text(x, y + BAR / 2, text, style.SMALL_SIZE, va="center_baseline", **options)


def _label_width(text: str) -> float:
    """Return the inches that a label takes in a block."""
    return style.text_width(text, style.SMALL_SIZE) * HINTING + 2 * LABEL_GAP

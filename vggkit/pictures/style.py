"""What all pictures share: colours, letters, and how a figure becomes a file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from html import escape
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE = "#0072B2"
SKY_BLUE = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#999999"
"""The colour-blind-safe palette of Okabe & Ito (2008)."""

INK = "#222222"
FAINT_INK = "#595959"
LINE = "#BBBBBB"
BAND = "#F2F2F2"
"""Colours of text, of less important text, of lines, and of background areas."""

TITLE_SIZE = 11.0
TEXT_SIZE = 8.5
SMALL_SIZE = 7.5
"""Sizes of letters, in points."""

RESOLUTION = 200
"""Dots per inch of a PNG file."""

LONGEST_SIDE = 60_000
"""Longest side in pixels: a longer picture gets fewer dots per inch, since renderers refuse 65,536."""

RULES = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that a picture is the same everywhere
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is no formula
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "vggkit",
    "pdf.fonttype": 42,
}

METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "png": {},
    "pdf": {"CreationDate": None, "ModDate": None},
}
"""Dates are left out, so that the same picture is the same file."""

PICTURE_FORMATS = tuple(METADATA)
"""What a picture can be written as; a file's ending says which."""


@contextmanager
def applied() -> Iterator[None]:
    """Draw in the house's style, whatever a user's matplotlibrc says."""
    from matplotlib import rc_context, rcParams

    changed = {name: value for name, value in _rules().items() if rcParams[name] != value}
    with rc_context(changed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # no font has every script
        yield


@cache
def _rules() -> dict[Any, Any]:
    """Return the settings to draw with: matplotlib's defaults, and ours over them."""
    from matplotlib import rcParamsDefault

    return {**{name: value for name, value in rcParamsDefault.items() if not name.startswith("backend")}, **RULES}


def encoded(figure: Figure, format: str, title: str, description: str, resolution: int = RESOLUTION) -> bytes:
    """Return a figure as a file's content: the same bytes for the same figure.

    Args:
        figure: the figure.
        format: one of `PICTURE_FORMATS`.
        title: what the file says it is.
        description: what screen readers say that it shows.
        resolution: of a PNG file, in dots per inch.
    """
    title, description = printable(title), printable(description)
    said: dict[str, dict[str, Any]] = {
        "svg": {},
        "png": {"Title": title, "Description": description},
        "pdf": {"Title": title, "Subject": description},
    }
    resolution = min(resolution, int(LONGEST_SIDE / max(figure.get_size_inches())))
    out = io.BytesIO()
    with applied():
        figure.savefig(out, format=format, dpi=resolution, metadata={**METADATA[format], **said[format]})
    return _accessible(out.getvalue().decode(), title, description) if format == "svg" else out.getvalue()


def _accessible(svg: str, title: str, description: str) -> bytes:
    """Give an SVG a title and a description that screen readers read."""
    start = svg.index("<svg")
    end = svg.index(">", start)
    number = f"{crc32(f'{title}{description}'.encode()):08x}"  # several pictures may stand in one page
    names = f' role="img" aria-labelledby="title-{number} description-{number}">'
    head = (
        f'<title id="title-{number}">{escape(title)}</title>'
        f'<desc id="description-{number}">{escape(description)}</desc>'
    )
    return (svg[:end] + names + head + svg[end + 1 :]).encode()


def printable(text: str) -> str:
    """Return a text with each unprintable character replaced, since fonts and XML can't have it.

    >>> printable("a\\x01b")
    'a\N{REPLACEMENT CHARACTER}b'
    """
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


@lru_cache(maxsize=2**12)
def text_width(text: str, size: float = TEXT_SIZE, bold: bool = False) -> float:
    """Return the width of a text's longest line, in inches.

    Args:
        text: what is written.
        size: of its letters, in points.
        bold: whether it is.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    letters = FontProperties(family=["DejaVu Sans"], size=size, weight="bold" if bold else "normal")
    widths = [text_to_path.get_text_width_height_descent(line, letters, False)[0] for line in text.split("\n") if line]
    return float(max(widths, default=0.0)) / 72


def lighter(colour: str, share: float) -> str:
    """Return a colour mixed with white.

    Args:
        colour: as #RRGGBB.
        share: of white, from 0 to 1.

    >>> lighter("#0072B2", 0.5)
    '#80B9D9'
    """
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{255 - int((255 - part) * (1 - share)):02X}" for part in parts)


def ink_on(colour: str) -> str:
    """Return the colour of text that is easier to read on a colour: `INK` or white.

    By contrast ratio (Web Content Accessibility Guidelines 2.2, "relative luminance").

    Args:
        colour: as #RRGGBB.

    >>> ink_on(BLUE), ink_on(YELLOW)
    ('#FFFFFF', '#222222')
    """
    paper, ink = _luminance("#FFFFFF"), _luminance(INK)
    under = _luminance(colour)
    return INK if (under + 0.05) / (ink + 0.05) >= (paper + 0.05) / (under + 0.05) else "#FFFFFF"


def _luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

"""Characters that a terminal's encoding can't show, and what stands for them."""

from __future__ import annotations

import codecs
import os
import sys

ERRORS = "vggkit"
"""What encodes with these errors has the characters below in the place of those that the encoding lacks."""

PLAIN = {
    **dict.fromkeys("−–─", "-"),
    **dict.fromkeys("⌋⌉", ")"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("█▉▊▋▌", "#"),
    **dict.fromkeys("▍▎▏", ""),
    "×": "x",
    "·": "*",
    "÷": "/",
    "…": "...",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "⌊": "floor(",
    "⌈": "ceil(",
    "√": "sqrt ",
    "²": "^2",
    "³": "^3",
    "✓": "yes",
    "✗": "no",
}
"""In ASCII, the characters that tables and messages use."""


def encoding() -> str:
    """Return the encoding of what is printed for people: LC_ALL=C asks for ASCII, where Python writes UTF-8."""
    said = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8") == "1"
    return "ascii" if os.environ.get("LC_ALL") in ("C", "POSIX") and not said else sys.stdout.encoding or "utf-8"


def shown(text: str, encoding: str) -> str:
    """Return a text in the characters of an encoding.

    >>> shown("3×224×224 → conv", "ascii")
    '3x224x224 -> conv'
    """
    return text.encode(encoding, ERRORS).decode(encoding)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(char, "?") for char in error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _plain)

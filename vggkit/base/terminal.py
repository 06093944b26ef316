"""Characters that a terminal's encoding can't show, and what is printed instead."""

from __future__ import annotations

import codecs
import os
import sys

ERRORS = "vggkit"
"""The name of an error handler of `str.encode`: it replaces the characters that the encoding lacks, as below."""

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
"""ASCII replacements of the characters that tables and messages use."""


def encoding() -> str:
    """Return the encoding of what is printed for people. LC_ALL=C asks for ASCII, although Python writes UTF-8."""
    said = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8") == "1"
    return "ascii" if os.environ.get("LC_ALL") in ("C", "POSIX") and not said else sys.stdout.encoding or "utf-8"


def shown(text: str, encoding: str) -> str:
    """Replace the characters of a text that an encoding lacks.

    >>> shown("3×224×224 → conv", "ascii")
    '3x224x224 -> conv'
    """
    return text.encode(encoding, ERRORS).decode(encoding)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(char, "?") for char in error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _plain)

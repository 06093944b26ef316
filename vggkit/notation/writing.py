"""Plain values → YAML text: one line where it fits, quotes only where they are needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from vggkit.notation.document import scalar

WIDTH = 118
"""A flow list longer than this is broken over lines."""

_PLAIN = re.compile(r"[A-Za-z0-9][\w./&+()-]*( [\w./&+()-]+)*", re.ASCII)
_PLAIN_LINE = re.compile(r"[A-Za-z0-9][\w./&+(),:'-]*( [\w./&+(),:'-]+)*", re.ASCII)


def flow(value: Any, indent: int | None = None) -> str:
    """Write a value in YAML's flow style.

    Args:
        value: a mapping, a list or a scalar.
        indent: a list that is too long for one line continues on lines with this indent; None keeps it on one line.

    >>> flow({"conv": 64, "bias": False, "stride": "2x1"})
    '{conv: 64, bias: false, stride: 2x1}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and scalar(value) is value else _quoted(value)
    if value is None:
        return "null"
    if not isinstance(value, (list, tuple)):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    items = [flow(item) for item in value]
    whole = f"[{', '.join(items)}]"
    if indent is None or indent + len(whole) <= WIDTH:
        return whole
    lines = [items[0]]
    for item in items[1:]:
        if indent + len(lines[-1]) + len(item) + 2 <= WIDTH:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return "[" + (",\n" + " " * indent).join(lines) + "]"


def line(text: str) -> str:
    """Write a text that is a key's value, up to the end of the line.

    >>> print(line("Table 1, column D"), line("a: b"), line("1e3"))
    Table 1, column D "a: b" "1e3"
    """
    plain = _PLAIN_LINE.fullmatch(text) and ": " not in text and not text.endswith(":")
    return text if plain and scalar(text) is text else _quoted(text)


def _quoted(text: str) -> str:
    quoted: str = yaml.dump(text, Dumper=yaml.CSafeDumper, default_style='"', width=2**20, allow_unicode=True)
    return quoted.rstrip("\n")

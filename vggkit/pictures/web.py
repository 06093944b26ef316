"""What self-contained pages share: templates, scripts and their data, and pictures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from vggkit.pictures import style

THEMED = {
    style.INK: "ink",
    "#000000": "ink",
    style.FAINT_INK: "faint",
    style.LINE: "line",
    style.BAND: "band",
    "#FFFFFF": "paper",
}
"""The CSS property that replaces each colour, so that pictures follow the page's light or dark theme."""


@cache
def beside(module: str, name: str) -> str:
    """Return the text of a file in a module's folder."""
    return Path(module).with_name(name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """Return the name by which a page's security policy allows its one script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def embedded(value: object) -> str:
    """Write a value as JSON that is safe in a script element.

    >>> embedded("</script><!--")
    '"\\\\u003c/script>\\\\u003c!--"'
    """
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def inline_svg(svg: str, name: str) -> str:
    """Return an SVG file as part of a page: without what only files need, and with ids of its own.

    Args:
        svg: the file, as matplotlib writes it.
        name: what its ids begin with.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"\s*<metadata>.*?</metadata>|\s*<style.*?</style>| xmlns(:xlink)?=\"[^\"]*\"", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r' id="', f' id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    svg = re.sub(r'aria-labelledby="(\S+) (\S+)"', rf'aria-labelledby="{name}-\1 {name}-\2"', svg)
    svg = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda said: f"{said[1]}: {_themed(said[2])}", svg)
    svg = re.sub(r' d="([^"]*)"', lambda path: f' d="{_shortened(path[1])}"', svg)
    return svg.replace("xlink:href", "href").strip()


def _themed(colour: str) -> str:
    """Return a colour, or the page's property in its place."""
    name = THEMED.get(colour.upper())
    return f"var(--{name}, {colour})" if name else colour


def _shortened(path: str) -> str:
    """Round a path's coordinates to a hundredth of a point."""
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path.split()))

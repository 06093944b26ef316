"""What the tests of networks side by side share."""

from __future__ import annotations

import vggkit
from vggkit import Network
from vggkit.figures.compare import Comparison


def shown(comparison: Comparison) -> list[list[str]]:
    """Return the rows that are shown, a star before each cell that differs from the one to its left."""
    return [
        ["" if cell is None else f"{'*' if cell.differs else ''}{cell.text}" for cell in row.cells]
        for row in comparison.rows
        if row.shown
    ]


def of(*blocks: str, classifier: str = "FC-5") -> Network:
    """Return a small network of blocks, each the inside of a list in YAML."""
    lists = "".join(f"\n  - [{block}]" for block in blocks)
    return Network.of(vggkit.loads(f"input: 3x16x16\nblocks:{lists}\nclassifier: [{classifier}]"))

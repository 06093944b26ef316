"""What reads each operation of ONNX."""

from __future__ import annotations

from collections.abc import Callable

from vggkit.base.entries import entering
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.walk import Walk

Reader = Callable[[Node, Walk], None]

READERS: dict[str, Reader] = {}
"""What reads each operation."""

reads = entering(READERS)
"""Has a function read operations, by their names."""

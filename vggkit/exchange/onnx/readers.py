"""What reads each operation of ONNX."""

from __future__ import annotations

from collections.abc import Callable

from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.walk import Walk

Reader = Callable[[Node, Walk], None]

READERS: dict[str, Reader] = {}
"""What reads each operation."""


def reads(*ops: str) -> Callable[[Reader], Reader]:
    """Have a function read operations."""

    def add(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(ops, reader))
        return reader

    return add

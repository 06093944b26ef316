"""The operations of a graph, as a file has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.exchange.layers import told
from vggkit.exchange.messages import MalformedError, Message

MOST_NODES = 20_000

OWN = ("", "ai.onnx")
"""The domains of ONNX's own operations."""


class Node(NamedTuple):
    """An operation.

    Args:
        op: its type.
        name: its own, or what it makes.
        inputs: the names of what it takes; empty for what is left out.
        outputs: the names of what it makes.
        attributes: its options.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Message]

    @property
    def told(self) -> str:
        """Its name and type, for messages."""
        return told(self.name, self.op)

    def integer(self, word: str, default: int) -> int:
        """Return an option that is a whole number."""
        value = self.attributes[word].get("i", 0) if word in self.attributes else default
        return int(value)

    def number(self, word: str, default: float) -> float:
        """Return an option that is a number."""
        return float(self.attributes[word].get("f", 0.0)) if word in self.attributes else default

    def text(self, word: str, default: str) -> str:
        """Return an option that is a word."""
        return str(self.attributes[word].get("s", "")) if word in self.attributes else default

    def integers(self, word: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an option that is several whole numbers."""
        return tuple(self.attributes[word].all("ints")) if word in self.attributes else tuple(default)

    def check(self, **wanted: Any) -> None:
        """Refuse options with another value than the one that a layer has.

        Raises:
            LayerError: says which.
        """
        for word, value in wanted.items():
            found: Any = value
            if isinstance(value, float):
                found = self.number(word, value)
            elif isinstance(value, str):
                found = self.text(word, value)
            elif isinstance(value, int):
                found = self.integer(word, value)
            if found != value:
                raise LayerError(f"{word}: expected {value}, found {found}")


def _squeeze_in(outer: Message) -> Message:
    """Return what is done where a size is 1, for a condition that asks so: torch writes `x.squeeze(1)` like that."""
    branches = [one.message("g") for one in outer.messages("attribute") if one.get("name") == "then_branch"]
    inner = [node for branch in branches for node in branch.messages("node")]
    squeezes = [node for node in inner if node.get("op_type") == "Squeeze"]
    constants = {node.get("output"): node for node in inner if node.get("op_type") == "Constant"}
    if len(squeezes) != 1 or len(inner) != 1 + len(constants):
        return outer
    (squeeze,) = squeezes
    source, *axes = squeeze.all("input")
    told = [one for node in constants.values() for one in node.messages("attribute")]
    attributes = squeeze.messages("attribute")
    if axes and len(told) == 1:  # the axes as a constant: as an option, they are the same
        number = told[0].message("t")
        content = bytes(number.get("raw_data", b"")) or b"".join(
            int(one).to_bytes(8, "little", signed=True) for one in number.all("int64_data")
        )
        sizes = [
            int.from_bytes(content[at : at + 8], "little", signed=True) for at in range(0, min(len(content), 64), 8)
        ]
        attributes = [Message(told[0].schema, name="axes", ints=sizes)]
    found = Message(outer.schema, name=outer.get("name"), op_type="Squeeze", input=[source], output=outer.all("output"))
    found.values["attribute"] = attributes
    return found


def nodes_of(graph: Message) -> list[Node]:
    """Return a graph's operations, in the order in which they run.

    Raises:
        MalformedError: if they are not ONNX's own, or too many.
    """
    found = []
    for outer in graph.messages("node"):
        message = _squeeze_in(outer) if outer.get("op_type") == "If" else outer
        if message.get("domain", "") not in OWN:
            raise MalformedError(
                f"its operations are of {escaped(shorten(message.get('domain')))}; expected ONNX's own"
            )
        outputs = tuple(message.all("output"))
        name = message.get("name") or (outputs[0] if outputs else "")
        attributes = {one.get("name", ""): one for one in message.messages("attribute")}
        found.append(Node(message.get("op_type", ""), name, tuple(message.all("input")), outputs, attributes))
        if len(found) > MOST_NODES:
            raise MalformedError(f"expected at most {MOST_NODES:,} operations, found more")
    return found

"""A graph that is written: nodes one behind the other, with what they need."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from vggkit.base.shapes import Shape, elements
from vggkit.exchange.files import Written
from vggkit.exchange.messages import Bulk, Message
from vggkit.exchange.onnx.schema import (
    ATTRIBUTE,
    ATTRIBUTE_TYPES,
    DIMENSION,
    GRAPH,
    NODE,
    NUMBERS,
    SHAPE,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE_INFO,
)
from vggkit.network import PlacedLayer

BATCH = "N"
"""The name of the images' first size, which is any number. Netron shows no shape that takes more than 16 characters."""
IMAGE = "image"
"""The name of the input."""
STATEMENT = "vggkit"
"""The key of the configuration among what a file says of itself."""
MOST_BYTES = 2**31 - 1
"""Of a file: protocol buffers are no larger."""

FLOAT, INT64 = "float32", "int64"


def value_info(name: str, shape: Sequence[int | str]) -> Message:
    """Return what is said of an input, an output or a value between: its type and shape."""
    dims = [Message(DIMENSION, **{"dim_param" if isinstance(size, str) else "dim_value": size}) for size in shape]
    tensor = Message(TENSOR_TYPE, elem_type=NUMBERS[FLOAT], shape=Message(SHAPE, dim=dims))
    return Message(VALUE_INFO, name=name, type=Message(TYPE, tensor_type=tensor))


class GraphWriter:
    """Writes the nodes of one layer after the other.

    Args:
        written: the network, and what reads its tensors.
    """

    def __init__(self, written: Written) -> None:
        self.written = written
        self.message = Message(GRAPH, name=written.network.name)
        self.message.add("input", value_info(IMAGE, [BATCH, *written.network.input_shape]))
        self.current = IMAGE
        self.placed: PlacedLayer = written.network.layers[0]
        self.last = False
        self.count = 0

    def begin(self, placed: PlacedLayer, *, last: bool) -> None:
        """Begin a layer; what is added now is part of it."""
        self.placed, self.last, self.count = placed, last, 0

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node.

        Args:
            op: what it does.
            inputs: the names of its inputs.
            attributes: its options; None leaves one out.

        Returns:
            The name of its output.
        """
        self.count += 1
        name = f"{self.placed.module}.{self.count}"
        node = Message(NODE, input=[*inputs], output=name, name=name, op_type=op)
        for word, value in attributes.items():
            if value is not None:
                node.add("attribute", _attribute(word, value))
        self.message.add("node", node)
        return name

    def end(self) -> None:
        """End a layer: its last operation and what that makes have its name."""
        self.current = self.placed.module
        last = self.message.messages("node")[-1]
        last.values.update(name=[self.current], output=[self.current])
        if not self.last:
            self.message.add("value_info", value_info(self.current, [BATCH, *self.placed.output_shape]))

    def tensor(self, role: str) -> str:
        """Return the name of one of the layer's tensors: as a `state_dict()` has it.

        Without weights it is an input of the graph.
        """
        name, shape = f"{self.placed.module}.{role}", self.placed.held[role]
        if self.written.tensors is None:
            self.message.add("input", value_info(name, shape))
            return name
        load = self.written.tensors[self.placed.name, role]
        tensor = Message(TENSOR, dims=[*shape] or None, data_type=NUMBERS[FLOAT], name=name)
        tensor.values["raw_data"] = [Bulk(4 * elements(shape), lambda: load().astype("<f4", copy=False))]
        self.message.add("initializer", tensor)
        return name

    def floats(self, word: str, shape: Shape, values: Sequence[float]) -> str:
        """Return the name of numbers that are no parameters of the network."""
        return self._constant(word, shape, FLOAT, struct.pack(f"<{len(values)}f", *values))

    def integers(self, word: str, *values: int) -> str:
        """Return the name of a vector of integers."""
        return self._constant(word, (len(values),), INT64, struct.pack(f"<{len(values)}q", *values))

    def _constant(self, word: str, shape: Shape, dtype: str, content: bytes) -> str:
        name = f"{self.placed.module}.{word}"
        dims = [*shape] or None
        self.message.add(
            "initializer", Message(TENSOR, dims=dims, data_type=NUMBERS[dtype], name=name, raw_data=content)
        )
        return name


def _attribute(word: str, value: Any) -> Message:
    if isinstance(value, str):
        field = "s"
    elif isinstance(value, float):
        field = "f"
    elif isinstance(value, int):
        field, value = "i", int(value)
    else:
        field, value = "ints", [*value]
    return Message(ATTRIBUTE, name=word, type=ATTRIBUTE_TYPES[field], **{field: value})

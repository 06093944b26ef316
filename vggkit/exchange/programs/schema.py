"""What an exported program has in its JSON: the parts of torch's schema that are read.

Source: torch/_export/serde/schema.py in pytorch/pytorch, version 8. A union there is an object with one key here.
"""

from __future__ import annotations

from typing import Any

import msgspec

SCHEMA_VERSION, TORCH_VERSION = (8, 20), "2.14.1"
"""Of what is written, and the torch that has it; each torch reads what has its own first number."""

STATEMENT = "vggkit.config"
"""Under this key a program's metadata has the configuration that it was made from, as YAML."""

FORMATS = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool",
    13: "bfloat16",
}  # fmt: skip
"""Number formats that are read, by `ScalarType`."""

FLOAT = 7
STRIDED = 7
"""`Layout.Strided`."""

Union = dict[str, Any]


class Meta(msgspec.Struct):
    """`TensorMeta`."""

    dtype: int
    sizes: list[Union]
    strides: list[Union]
    storage_offset: Union
    layout: int = STRIDED


class Payload(msgspec.Struct):
    """`PayloadMeta`: where a tensor lies in the archive."""

    path_name: str
    use_pickle: bool = False
    tensor_meta: Meta | None = None


class Payloads(msgspec.Struct):
    """`PayloadConfig`: all tensors by their names."""

    config: dict[str, Payload]


class Input(msgspec.Struct):
    """`NamedArgument`."""

    arg: Union
    name: str = ""
    kind: int | None = None


POSITIONAL, KEYWORD = 1, 2
"""`ArgumentKind`."""


class Node(msgspec.Struct):
    """An operation."""

    target: str
    inputs: list[Input]
    outputs: list[Union]
    metadata: dict[str, str] = {}
    name: str | None = None


class Graph(msgspec.Struct):
    """`Graph`."""

    nodes: list[Node]
    tensor_values: dict[str, Meta]


class Signature(msgspec.Struct):
    """`GraphSignature`."""

    input_specs: list[dict[str, Union]]
    output_specs: list[dict[str, Union]]


class GraphModule(msgspec.Struct):
    """`GraphModule`."""

    graph: Graph
    signature: Signature
    metadata: dict[str, str] = {}


class Version(msgspec.Struct):
    """`SchemaVersion`."""

    major: int
    minor: int


class Program(msgspec.Struct):
    """`ExportedProgram`."""

    graph_module: GraphModule
    schema_version: Version
    torch_version: str = ""

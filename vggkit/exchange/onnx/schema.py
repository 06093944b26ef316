"""ONNX's messages, as far as chains of layers have them. Source: onnx/onnx.proto in onnx/onnx."""

from __future__ import annotations

from vggkit.exchange.messages import Content, Field, Integer, Real, Schema, Submessage, Text, fields

INTEGER, FLOAT, DOUBLE, TEXT, CONTENT = Integer(), Real(), Real(double=True), Text(), Content()


ENTRY = Schema("StringStringEntryProto", fields(TEXT, "1:key", "2:value"))

TENSOR = Schema(
    "TensorProto",
    {
        "dims": Field(1, INTEGER, joined=True),
        **fields(INTEGER, "2:data_type", "14:data_location"),
        "float_data": Field(4, FLOAT, joined=True),
        "int32_data": Field(5, INTEGER, joined=True),
        "int64_data": Field(7, INTEGER, joined=True),
        "double_data": Field(10, DOUBLE, joined=True),
        "name": Field(8, TEXT),
        "raw_data": Field(9, CONTENT),
        "external_data": Field(13, Submessage(ENTRY)),
    },
)

ATTRIBUTE = Schema(
    "AttributeProto",
    {
        "name": Field(1, TEXT),
        "f": Field(2, FLOAT),
        "i": Field(3, INTEGER),
        "s": Field(4, TEXT),
        "t": Field(5, Submessage(TENSOR)),
        "floats": Field(7, FLOAT, joined=True),
        "ints": Field(8, INTEGER, joined=True),
        "type": Field(20, INTEGER),
    },
)

NODE = Schema(
    "NodeProto",
    {
        **fields(TEXT, "1:input", "2:output", "3:name", "4:op_type", "7:domain"),
        "attribute": Field(5, Submessage(ATTRIBUTE)),
    },
)

DIMENSION = Schema("Dimension", {"dim_value": Field(1, INTEGER), "dim_param": Field(2, TEXT)})
SHAPE = Schema("TensorShapeProto", {"dim": Field(1, Submessage(DIMENSION))})
TENSOR_TYPE = Schema("Tensor", {"elem_type": Field(1, INTEGER), "shape": Field(2, Submessage(SHAPE))})
TYPE = Schema("TypeProto", {"tensor_type": Field(1, Submessage(TENSOR_TYPE))})
VALUE_INFO = Schema("ValueInfoProto", {"name": Field(1, TEXT), "type": Field(2, Submessage(TYPE))})

GRAPH = Schema(
    "GraphProto",
    {
        "node": Field(1, Submessage(NODE)),
        "name": Field(2, TEXT),
        "initializer": Field(5, Submessage(TENSOR)),
        **fields(Submessage(VALUE_INFO), "11:input", "12:output", "13:value_info"),
    },
)

BRANCH = Schema("GraphProto", {"node": Field(1, Submessage(NODE)), "output": Field(12, Submessage(VALUE_INFO))})
ATTRIBUTE.add("g", Field(6, Submessage(BRANCH)))  # what an operation holds, as If does; one inside another is not read

OPSET = Schema("OperatorSetIdProto", {"domain": Field(1, TEXT), "version": Field(2, INTEGER)})

MODEL = Schema(
    "ModelProto",
    {
        "ir_version": Field(1, INTEGER),
        **fields(TEXT, "2:producer_name", "3:producer_version"),
        "opset_import": Field(8, Submessage(OPSET)),
        "graph": Field(7, Submessage(GRAPH)),
        "metadata_props": Field(14, Submessage(ENTRY)),
    },
)

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    16: "bfloat16",
}  # fmt: skip
"""torch's names of `TensorProto.DataType`."""

NUMBERS = {name: number for number, name in DTYPES.items()}

ATTRIBUTE_TYPES = {"f": 1, "i": 2, "s": 3, "t": 4, "floats": 6, "ints": 7}
"""`AttributeProto.AttributeType` by the field that has its value."""

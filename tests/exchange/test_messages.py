"""Protocol buffers as files and as text: what is written is what the protobuf library writes, and reads."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import judges
from vggkit.exchange import messages, prototext
from vggkit.exchange.caffe.schema import NET
from vggkit.exchange.messages import (
    Boolean,
    Bulk,
    Choice,
    Field,
    Integer,
    MalformedError,
    Message,
    Real,
    Schema,
    Submessage,
    Text,
)


def schemas(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and those inside it, each once."""
    found = {id(schema): schema}
    waiting = [schema]
    while waiting:
        for field in waiting.pop().fields.values():
            if isinstance(field.type, Submessage) and id(field.type.schema) not in found:
                found[id(field.type.schema)] = field.type.schema
                waiting.append(field.type.schema)
    yield from found.values()


@cache
def librarys(schema: Schema) -> Any:
    """Return the protobuf library's class for a message."""
    library = judges.package("google.protobuf")
    descriptor = judges.package("google.protobuf.descriptor_pb2")
    factory = judges.package("google.protobuf.message_factory")
    pool = judges.package("google.protobuf.descriptor_pool").DescriptorPool()
    assert library
    file = descriptor.FileDescriptorProto(name="x.proto", package="x", syntax="proto2")
    names = {id(one): f"M{number}" for number, one in enumerate(schemas(schema))}
    types = {Integer: 3, Boolean: 8, Text: 9, Choice: 14, Submessage: 11}
    for one in schemas(schema):
        message = file.message_type.add(name=names[id(one)])
        for word, field in one.fields.items():
            kind = types.get(type(field.type), 2)
            if isinstance(field.type, Real) and field.type.size == 8:
                kind = 1
            added = message.field.add(name=word, number=field.number, label=3, type=kind)
            if field.joined:
                added.options.packed = True
            if isinstance(field.type, Submessage):
                added.type_name = f".x.{names[id(field.type.schema)]}"
            if isinstance(field.type, Choice):
                choice = message.enum_type.add(name=f"E{word}")
                for label, value in field.type.words.items():
                    choice.value.add(name=f"{label}", number=value)
                added.type_name = f".x.{message.name}.E{word}"
    for one in file.message_type:  # a word belongs to what holds its enumeration, and may be there once
        seen: dict[str, str] = {}
        for choice in one.enum_type:
            assert not {value.name for value in choice.value} & {*seen}
            seen.update({value.name: choice.name for value in choice.value})
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName(f"x.{names[id(schema)]}"))


INNER = Schema("Inner", {"text": Field(1, Text()), "flag": Field(300, Boolean())})
OUTER = Schema(
    "Outer",
    {
        "number": Field(1, Integer()),
        "joined": Field(2, Integer(), joined=True),
        "single": Field(3, Real()),
        "double": Field(4, Real(double=True), joined=True),
        "choice": Field(5, Choice({"ONE": 1, "TWO": 2})),
        "inner": Field(16, Submessage(INNER)),
    },
)

numbers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=8)
inners = st.builds(
    lambda text, flag: Message(INNER, text=text, flag=flag),
    st.lists(texts, max_size=2),
    st.lists(st.booleans(), max_size=2),
)
outers = st.builds(
    lambda **fields: Message(OUTER, **fields),
    number=st.lists(numbers, max_size=3),
    joined=st.lists(numbers, min_size=1, max_size=3),
    single=st.lists(st.floats(width=32, allow_nan=False), max_size=3),
    double=st.lists(st.floats(allow_nan=False), min_size=1, max_size=3),
    choice=st.lists(st.sampled_from(["ONE", "TWO"]), max_size=2),
    inner=st.lists(inners, max_size=2),
)


def plain(message: Message) -> dict[str, Any]:
    """Return a message as plain values."""
    found = {}
    for word in message.values:
        values = [plain(value) if isinstance(value, Message) else value for value in message.all(word)]
        if values:
            found[word] = values
    return found


def theirs(message: Any) -> dict[str, Any]:
    """Return a message of the protobuf library as plain values."""
    found: dict[str, Any] = {}
    for field, values in message.ListFields():
        one = [theirs(value) if field.message_type else value for value in values]
        if field.enum_type:
            one = [field.enum_type.values_by_number[value].name for value in one]
        if field.type == field.TYPE_FLOAT:
            one = [messages.shortest(value) for value in one]
        found[field.name] = one
    return found


def stored(message: Message) -> bytes:
    """Return a message's bytes."""
    return b"".join(piece for piece in messages.serialized(message) if isinstance(piece, bytes))


@given(outers)
def test_the_protobuf_library_reads_what_is_written(message: Message) -> None:
    """The same values, from bytes and from text; and it writes what is read back here."""
    their_class = librarys(OUTER)
    read = their_class.FromString(stored(message))
    wanted = {
        word: [messages.shortest(v) for v in values] if word == "single" else values
        for word, values in plain(message).items()
    }
    assert theirs(read) == wanted
    assert plain(messages.parse(memoryview(read.SerializeToString()), OUTER)) == wanted
    text_format = judges.package("google.protobuf.text_format")
    assert theirs(text_format.Parse(prototext.written(message), their_class())) == wanted
    assert plain(prototext.parse(text_format.MessageToString(read), OUTER)) == wanted


def test_numbers_are_read_whether_they_are_stored_together_or_not() -> None:
    """A reader must take both, whatever the field says."""
    apart = b"".join(bytes([2 << 3, number]) for number in (1, 2, 3))
    together = bytes([2 << 3 | 2, 3, 1, 2, 3])
    assert messages.parse(memoryview(apart + together), OUTER).all("joined") == [1, 2, 3, 1, 2, 3]


def test_a_bulk_value_is_made_when_it_is_written() -> None:
    """Its size stands before it."""
    message = Message(Schema("B", {"data": Field(1, Real(), joined=True)}))
    message.values["data"] = [Bulk(8, lambda: b"12345678")]
    pieces = messages.serialized(message)
    assert pieces[0] == b"\x0a\x08"
    assert messages.size_of(pieces) == 10


TEXT = """
# a comment
number: 0x10 , number : -3;  # two
joined: [1, 2, 3]
single: 1e-4f
single: .5
choice: TWO
inner < text: 'a\\'b' "c\\n" flag: true >
inner: { text: "d" unknown { x: 1 y { z: "}" } } other: [ {}, { a: 1 } ] }
"""


def test_every_way_to_write_text_is_read() -> None:
    """Comments, commas, lists, brackets of both kinds, texts in pieces; and what the schema does not know."""
    message = prototext.parse(TEXT, OUTER)
    assert plain(message) == {
        "number": [16, -3],
        "joined": [1, 2, 3],
        "single": [1e-4, 0.5],
        "choice": ["TWO"],
        "inner": [{"text": ["a'bc\n"], "flag": [True]}, {"text": ["d"]}],
    }
    assert message.messages("inner")[1].unknown == ["unknown", "other"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("number: x", "line 1: number: expected a whole number, found 'x'"),
        ("\n\nsingle: abc", "line 3: single: expected a number, found 'abc'"),
        ("choice: THREE", "line 1: choice: expected one of ONE, TWO, found 'THREE'"),
        ("inner { text: 'a'", "line 1: expected a field or }, found the end of the file"),
        ("inner: 3", "line 1: inner: expected { … }, found '3'"),
        ("number { }", "line 1: number: expected a value, found {"),
        ("number 3", "line 1: expected : or { after 'number', found '3'"),
        ("number: }", "line 1: expected a value of 'number', found '}'"),
        ("number: 1 $", "line 1: expected a field, found '$'"),
        ("nummer: 1", "expected fields such as number, joined, single, found 'nummer'. Did you mean 'number'?"),
        ("inner {" * 40, "line 1: expected up to 32 brackets in one another"),
    ],
)
def test_a_wrong_text_is_told_with_its_line(text: str, says: str) -> None:
    """What was found, and what was expected."""
    with pytest.raises(MalformedError) as caught:
        prototext.parse(text, OUTER)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x08", "a number has no end"),
        (b"\x08" + b"\xff" * 11, "a number has no end"),
        (b"\x82\x01\x05ab", "it ends in the middle of a field"),
        (b"\x0b", "a field has the wire type 3"),
        (b"\x0d\x00\x00\x00\x00", "number of Outer has the wire type 5"),
        (b"\x80\x01\x05", "inner of Outer has the wire type 0"),
    ],
)
def test_wrong_bytes_are_told(content: bytes, says: str) -> None:
    """Where a file ends too early, or a value is stored as none of its type ever is."""
    with pytest.raises(MalformedError, match=says):
        messages.parse(memoryview(content), OUTER)


def test_numbers_and_depth_are_bounded() -> None:
    """Numbers that are read one by one, messages in one another, fields in all."""
    many = memoryview(b"\x12" + messages.varint(200_000) + b"\x01" * 200_000)
    with pytest.raises(MalformedError, match="at most 100,000 numbers"):
        messages.parse(many, OUTER).all("joined")
    nested = Schema("N", {})
    nested.fields = {"n": Field(1, Submessage(nested))}
    nested.by_number = {1: "n"}
    content = b""
    for _ in range(40):
        content = b"\x0a" + messages.varint(len(content)) + content
    with pytest.raises(MalformedError, match="up to 32 messages"):
        messages.parse(memoryview(content), nested)
    with pytest.raises(MalformedError, match="at most 500,000 fields"):
        messages.parse(memoryview(b"\x08\x01" * 500_001), OUTER)


def test_caffes_schema_is_one_that_the_library_takes() -> None:
    """Numbers and names are there once; a network reads the same from either."""
    text = 'name: "x" layer { name: "a" type: "Pooling" pooling_param { pool: AVE kernel_size: 3 } }'
    ours = prototext.parse(text, NET)
    assert theirs(librarys(NET).FromString(stored(ours))) == plain(ours)
    assert io.BytesIO(stored(ours)).getvalue().startswith(b"\x0a\x01x")

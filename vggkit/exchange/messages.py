"""Protocol buffers: messages with named fields, whatever they were read from, and the types that fields can have.

Source: protobuf.dev/programming-guides/encoding and protobuf.dev/reference/protobuf/textformat-spec. A file of somebody
else's is read with bounds on everything: its depth, its number of fields and every number that is unpacked.
"""

from __future__ import annotations

import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from math import copysign, inf
from typing import IO, Any, ClassVar, NamedTuple

from vggkit.base.errors import did_you_mean, escaped, shorten

MOST_DEPTH = 32
MOST_FIELDS = 500_000
"""Fields in one file, and words in a text."""
MOST_NUMBERS = 100_000
"""Numbers in one field that are read one by one; the values of weights are not."""

VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES = 0, 1, 2, 5
"""Wire types: how a field's value is stored."""


class MalformedError(ValueError):
    """A file whose bytes are no message of the expected type; whoever opened it says which file it is."""


class FieldType(ABC):
    """The type of a field: how its values are stored in a file, and how they are written in text."""

    wire: ClassVar[int]
    """The wire type of one value."""

    @abstractmethod
    def unpacked(self, stored: int | memoryview) -> Any:
        """Return the value of what is stored: a varint as its number, everything else as its bytes."""

    @abstractmethod
    def packed(self, value: Any) -> bytes:
        """Return the bytes of a value, without its tag and size."""

    @abstractmethod
    def spelt(self, value: Any) -> str:
        """Return the value as text."""

    @abstractmethod
    def read(self, word: str) -> Any:
        """Return the value of a word of a text.

        Raises:
            MalformedError: says what was expected.
        """


class Integer(FieldType):
    """int32, int64, uint32 or uint64."""

    wire = VARINT

    def unpacked(self, stored: int | memoryview) -> int:
        assert isinstance(stored, int)
        return stored - 2**64 if stored >= 2**63 else stored

    def packed(self, value: int) -> bytes:
        return varint(value % 2**64)

    def spelt(self, value: int) -> str:
        return str(value)

    def read(self, word: str) -> int:
        if not re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})", word):
            raise MalformedError(f"expected a whole number, found {shorten(word)}")
        return int(word, 16) if "x" in word.lower() else int(word)


class Boolean(FieldType):
    """bool."""

    wire = VARINT
    WORDS: ClassVar[dict[str, bool]] = {"true": True, "True": True, "t": True, "1": True} | dict.fromkeys(
        ("false", "False", "f", "0"), False
    )

    def unpacked(self, stored: int | memoryview) -> bool:
        return bool(stored)

    def packed(self, value: bool) -> bytes:
        return varint(int(value))

    def spelt(self, value: bool) -> str:
        return "true" if value else "false"

    def read(self, word: str) -> bool:
        if word not in self.WORDS:
            raise MalformedError(f"expected true or false, found {shorten(word)}")
        return self.WORDS[word]


class Real(FieldType):
    """float, or double.

    Args:
        double: whether it has 8 bytes rather than 4.
    """

    def __init__(self, double: bool = False) -> None:
        self.format = "<d" if double else "<f"
        self.wire = EIGHT_BYTES if double else FOUR_BYTES  # type: ignore[misc] # of this one, as its size

    @property
    def size(self) -> int:
        """Bytes of one value."""
        return struct.calcsize(self.format)

    def unpacked(self, stored: int | memoryview) -> float:
        assert isinstance(stored, memoryview)
        (value,) = struct.unpack(self.format, stored)
        return shortest(value) if self.size == 4 else float(value)

    def packed(self, value: float) -> bytes:
        return struct.pack(self.format, value)

    def spelt(self, value: float) -> str:
        return repr(value).removesuffix(".0")

    def read(self, word: str) -> float:
        try:
            value = float(word.rstrip("fF") if not word.lower().endswith("inf") else word)
        except ValueError:
            raise MalformedError(f"expected a number, found {shorten(word)}") from None
        try:
            return float(self.unpacked(memoryview(self.packed(value))))  # with no more digits than it keeps
        except OverflowError:
            return copysign(inf, value)


def shortest(value: float) -> float:
    """Return the shortest decimal that is this value in single precision: 0.1 rather than 0.10000000149011612.

    >>> import struct
    >>> shortest(struct.unpack("<f", struct.pack("<f", 0.1))[0])
    0.1
    """
    for digits in range(1, 9):
        short = float(f"{value:.{digits}g}")
        with suppress(OverflowError):  # rounded up beyond the largest
            if struct.unpack("<f", struct.pack("<f", short))[0] == value:
                return short
    return value


def inverted(value: float) -> float:
    """Return the inverse of the shortest decimal whose inverse is this value in single precision: 1/255 of 0.003921569.

    >>> 1 / inverted(0.003921569)
    255.0
    """
    single = Real()
    short = (float(f"{1 / value:.{digits}g}") for digits in range(1, 10) if value)
    return next((1 / one for one in short if one and single.read(repr(1 / one)) == single.read(repr(value))), value)


class Text(FieldType):
    """string."""

    wire = SIZED

    def unpacked(self, stored: int | memoryview) -> str:
        assert isinstance(stored, memoryview)
        return bytes(stored[:MOST_NUMBERS]).decode("utf-8", "replace")

    def packed(self, value: str) -> bytes:
        return value.encode()

    def spelt(self, value: str) -> str:
        return '"' + escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'

    def read(self, word: str) -> str:
        return word


class Content(FieldType):
    """bytes."""

    wire = SIZED

    def unpacked(self, stored: int | memoryview) -> memoryview:
        assert isinstance(stored, memoryview)
        return stored

    def packed(self, value: bytes) -> bytes:
        return value

    def spelt(self, value: bytes) -> str:
        raise NotImplementedError  # ONNX alone has bytes, and its files are no text

    def read(self, word: str) -> bytes:
        return word.encode()


class Choice(FieldType):
    """An enumeration: words, with a number each.

    Args:
        words: the numbers by their words.
    """

    wire = VARINT

    def __init__(self, words: Mapping[str, int]) -> None:
        self.words = words
        self.by_number = {number: word for word, number in words.items()}

    def unpacked(self, stored: int | memoryview) -> str:
        assert isinstance(stored, int)
        return self.by_number.get(stored, str(stored))

    def packed(self, value: str) -> bytes:
        return varint(self.words[value])

    def spelt(self, value: str) -> str:
        return value

    def read(self, word: str) -> str:
        if word.isdecimal() and len(word) < 10:
            return self.by_number.get(int(word), word)
        if word not in self.words:
            advice = did_you_mean(word, self.words)
            raise MalformedError(
                f"expected one of {', '.join(self.words)}, found {shorten(word)}{advice and '.' + advice}"
            )
        return word


class Submessage(FieldType):
    """A message inside another.

    Args:
        schema: its type.
    """

    wire = SIZED

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def unpacked(self, stored: int | memoryview) -> Any:
        raise NotImplementedError  # read by the reader, which counts

    def packed(self, value: Message) -> bytes:
        raise NotImplementedError  # and stored by `serialized`, in pieces

    def spelt(self, value: Message) -> str:
        raise NotImplementedError  # and written by prototext, with brackets and an indent

    def read(self, word: str) -> Any:
        raise MalformedError(f"expected {{ … }}, found {shorten(word)}")


class Field(NamedTuple):
    """A field of a message.

    Args:
        number: in a file.
        type: of its values.
        joined: whether several numbers are stored as one value, one behind the other.
    """

    number: int
    type: FieldType
    joined: bool = False


class Schema:
    """A type of message, as far as it matters here; what else a file has of it is passed by, and noted.

    Args:
        name: the message's.
        fields: by name.
    """

    def __init__(self, name: str, fields: Mapping[str, Field]) -> None:
        self.name = name
        self.fields = fields
        self.by_number = {field.number: word for word, field in fields.items()}

    def add(self, name: str, field: Field) -> None:
        """Add a field, whose message may have this one inside it."""
        self.fields = {**self.fields, name: field}
        self.by_number = {**self.by_number, field.number: name}


def fields(type: FieldType, *words: str) -> dict[str, Field]:
    """Return fields of one type by name, from "number:name"."""
    split = (word.split(":") for word in words)
    return {name: Field(int(number), type) for number, name in split}


class Packed(NamedTuple):
    """Numbers one behind the other, not read yet.

    Args:
        type: of each.
        content: their bytes.
    """

    type: FieldType
    content: memoryview

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.type, Real):
            size = self.type.size
            if len(self.content) % size:
                raise MalformedError(f"expected numbers of {size} bytes, found {len(self.content):,} bytes")
            _check_count(len(self.content) // size)
            for at in range(0, len(self.content), size):
                yield self.type.unpacked(self.content[at : at + size])
            return
        at = 0
        for count in range(len(self.content) + 1):
            if at >= len(self.content):
                return
            _check_count(count)
            number, at = read_varint(self.content, at)
            yield self.type.unpacked(number)


def _check_count(count: int) -> None:
    if count > MOST_NUMBERS:
        raise MalformedError(f"expected at most {MOST_NUMBERS:,} numbers in a field, found more")


class Message:
    """A message: values by the names of its fields, in order.

    Args:
        schema: its type.
        fields: the values that it has from the beginning; a list is several.
    """

    def __init__(self, schema: Schema, **fields: Any) -> None:
        self.schema = schema
        self.values: dict[str, list[Any]] = {}
        self.unknown: list[str] = []
        """What the schema has no name for: names in a text, numbers in a file."""
        for word, value in fields.items():
            assert word in schema.fields, word
            if value is not None:
                self.values[word] = list(value) if isinstance(value, (list, tuple)) else [value]

    def add(self, word: str, value: Any) -> None:
        """Add a value to a field."""
        self.values.setdefault(word, []).append(value)

    def all(self, word: str) -> list[Any]:
        """Return the values of a field, numbers that are stored together one by one."""
        found: list[Any] = []
        for value in self.values.get(word, ()):
            if isinstance(value, Packed):
                found += value
            else:
                found.append(value)
        return found

    def get(self, word: str, default: Any = None) -> Any:
        """Return the value of a field, the last if there are several, as protocol buffers have it."""
        values = self.all(word)
        return values[-1] if values else default

    def messages(self, word: str) -> list[Message]:
        """Return the messages of a field."""
        return [value for value in self.values.get(word, ()) if isinstance(value, Message)]

    def message(self, word: str) -> Message:
        """Return the message of a field, an empty one if there is none."""
        field = self.schema.fields[word].type
        assert isinstance(field, Submessage)
        found = self.messages(word)
        return found[-1] if found else Message(field.schema)

    def plain(self) -> dict[str, Any]:
        """Return the values of each field, messages inside it in this form."""
        return {
            word: [value.plain() if isinstance(value, Message) else value for value in self.all(word)]
            for word in self.values
        }

    def __contains__(self, word: str) -> bool:
        return bool(self.values.get(word))


# The wire format


def varint(number: int) -> bytes:
    """Return a number from 0 in groups of seven bits, the lowest first.

    >>> varint(300)
    b'\\xac\\x02'
    """
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def read_varint(content: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins somewhere, and where it ends.

    Raises:
        MalformedError: if it has no end.
    """
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number % 2**64, at
    raise MalformedError("a number has no end")


class _Reader:
    """Reads one file; counts what it has read."""

    def __init__(self) -> None:
        self.fields = 0

    def message(self, content: memoryview, schema: Schema, depth: int) -> Message:
        if depth > MOST_DEPTH:
            raise MalformedError(f"expected up to {MOST_DEPTH} messages in one another, found more")
        message = Message(schema)
        at = 0
        while at < len(content):
            self.fields += 1
            if self.fields > MOST_FIELDS:
                raise MalformedError(f"expected at most {MOST_FIELDS:,} fields, found more")
            tag, at = read_varint(content, at)
            wire, number = tag & 7, tag >> 3
            stored, at = self.stored(content, at, wire)
            word = schema.by_number.get(number)
            if word is None:
                message.unknown.append(f"field {number}")
            else:
                message.add(word, self.value(stored, wire, schema, word, depth))
        return message

    def stored(self, content: memoryview, at: int, wire: int) -> tuple[int | memoryview, int]:
        """Return what is stored somewhere, and where it ends."""
        if wire == VARINT:
            return read_varint(content, at)
        if wire == SIZED:
            size, at = read_varint(content, at)
        else:
            sizes = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
            if wire not in sizes:
                raise MalformedError(f"a field has the wire type {wire}, which there is not")
            size = sizes[wire]
        if at + size > len(content):
            raise MalformedError("it ends in the middle of a field")
        return content[at : at + size], at + size

    def value(self, stored: int | memoryview, wire: int, schema: Schema, word: str, depth: int) -> Any:
        field = schema.fields[word].type
        if isinstance(field, Submessage) and isinstance(stored, memoryview) and wire == SIZED:
            return self.message(stored, field.schema, depth + 1)
        if wire == field.wire and not isinstance(field, Submessage):
            return field.unpacked(stored)
        if wire == SIZED and isinstance(stored, memoryview) and field.wire != SIZED:
            return Packed(field, stored)
        raise MalformedError(f"{word} of {schema.name} has the wire type {wire}, which it never has")


def parse(content: memoryview, schema: Schema) -> Message:
    """Read a message from a file.

    Args:
        content: its bytes; what is large in it is not copied.
        schema: its type.

    Raises:
        MalformedError: if it is none.
    """
    return _Reader().message(content, schema, 0)


class Bulk(NamedTuple):
    """The bytes of a value that is too large to be held beside others: they are made when they are written.

    Args:
        size: how many.
        load: returns them, as an array of numpy's.
    """

    size: int
    load: Callable[[], Any]


def serialized(message: Message) -> list[bytes | Bulk]:
    """Return a message as it is stored, in pieces.

    Args:
        message: whose values may be `Bulk`.
    """
    pieces: list[bytes | Bulk] = []
    for word, held in message.values.items():
        field = message.schema.fields[word]
        is_bulk = any(isinstance(value, Bulk) for value in held)
        values = held if is_bulk else message.all(word)
        tag = varint(field.number << 3 | (SIZED if field.joined else field.type.wire))
        if field.joined and not is_bulk:
            content = b"".join(map(field.type.packed, values))
            pieces.append(tag + varint(len(content)) + content)
            continue
        for value in values:
            pieces += _field(tag, field.type, value)
    return pieces


def _field(tag: bytes, field: FieldType, value: Any) -> Iterable[bytes | Bulk]:
    if isinstance(value, Bulk):
        return [tag + varint(value.size), value]
    if isinstance(field, Submessage):
        inner = serialized(value)
        return [tag + varint(size_of(inner)), *inner]
    content = field.packed(value)
    return [tag + (varint(len(content)) if field.wire == SIZED else b"") + content]


def write(file: IO[bytes], pieces: Iterable[bytes | Bulk]) -> None:
    """Write pieces, one large value after the other."""
    for piece in pieces:
        file.write(piece if isinstance(piece, bytes) else memoryview(piece.load().reshape(-1)).cast("B"))


def size_of(pieces: Iterable[bytes | Bulk]) -> int:
    """Return how many bytes pieces have together."""
    return sum(piece.size if isinstance(piece, Bulk) else len(piece) for piece in pieces)

"""Protocol buffers as text, as Caffe's `.prototxt` files are.

Source: protobuf.dev/reference/protobuf/textformat-spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vggkit.base.errors import did_you_mean, escaped, shorten
from vggkit.exchange.messages import (
    MOST_DEPTH,
    MOST_FIELDS,
    MalformedError,
    Message,
    Schema,
    Submessage,
)

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\v\f]+|\#[^\n]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>[-+]?[A-Za-z0-9_.][A-Za-z0-9_.+-]*)
    |(?P<sign>[:{}<>\[\],;])""",
    re.VERBOSE,
)

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise MalformedError(f"line {line}: expected a field, found {escaped(shorten(text[at : at + 20]))}")
        if found.lastgroup != "space":
            yield _Token(str(found.lastgroup), found[0], line)
        line += found[0].count("\n")
        at = found.end()
    yield _Token("end", "", line)


def _quoted(word: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), word[1:-1])


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.count = 0
        self.token = next(self.tokens)

    def take(self) -> _Token:
        """Return the token that is next, and go on to the one after it."""
        token = self.token
        self.count += 1
        if self.count > MOST_FIELDS:
            raise MalformedError(f"expected at most {MOST_FIELDS:,} words, found more")
        if token.kind != "end":
            self.token = next(self.tokens)
        return token

    def is_next(self, *signs: str) -> bool:
        return self.token.kind == "sign" and self.token.text in signs

    def wrong(self, expected: str) -> MalformedError:
        found = "the end of the file" if self.token.kind == "end" else escaped(shorten(self.token.text))
        return MalformedError(f"line {self.token.line}: expected {expected}, found {found}")

    def message(self, schema: Schema | None, closing: str, depth: int) -> Message | None:
        """Read fields up to a closing bracket, or the end of the file; of an unknown message nothing is kept."""
        if depth > MOST_DEPTH:
            raise MalformedError(f"line {self.token.line}: expected up to {MOST_DEPTH} brackets in one another")
        message = None if schema is None else Message(schema)
        while not (self.is_next(closing) or (not closing and self.token.kind == "end")):
            if self.is_next(",", ";"):
                self.take()
                continue
            if self.token.kind != "word":
                raise self.wrong(f"a field{f' or {closing}' if closing else ''}")
            self.field(message, depth)
        self.take()
        return message

    def field(self, message: Message | None, depth: int) -> None:
        """Read a field: its name and its value, or a list of values."""
        name = self.take()
        field = None if message is None else message.schema.fields.get(name.text)
        inner = field.type.schema if field is not None and isinstance(field.type, Submessage) else None
        if message is not None and field is None:
            message.unknown.append(name.text)
        if self.is_next(":"):
            self.take()
        elif not self.is_next("{", "<"):
            raise self.wrong(f": or {{ after {escaped(shorten(name.text))}")
        listed = self.is_next("[")
        if listed:
            self.take()
        while not (listed and self.is_next("]")):
            if self.is_next("{", "<"):
                opening = self.take()
                value: object = self.message(inner, "}" if opening.text == "{" else ">", depth + 1)
                if field is not None and inner is None:
                    raise MalformedError(f"line {opening.line}: {name.text}: expected a value, found {{")
            else:
                value = self.value(None if message is None or field is None else message.schema, name)
            if message is not None and field is not None:
                message.add(name.text, value)
            if not listed:
                return
            if self.is_next(","):
                self.take()
        self.take()

    def value(self, schema: Schema | None, name: _Token) -> object:
        """Read a value that is no message."""
        token = self.take()
        if token.kind not in ("word", "text"):
            self.token = token
            raise self.wrong(f"a value of {escaped(shorten(name.text))}")
        word = _quoted(token.text) if token.kind == "text" else token.text
        while token.kind == "text" and self.token.kind == "text":  # texts one behind the other are one
            word += _quoted(self.take().text)
        if schema is None:
            return word
        try:
            return schema.fields[name.text].type.read(word)
        except MalformedError as error:
            raise MalformedError(f"line {token.line}: {name.text}: {error}") from None


def parse(text: str, schema: Schema) -> Message:
    """Read a message that is written as text.

    Args:
        text: the message.
        schema: its type.

    Raises:
        MalformedError: if it is none; says in which line.
    """
    message = _Reader(text).message(schema, "", 0)
    assert message is not None
    if message.unknown and not message.values:
        advice = did_you_mean(message.unknown[0], schema.fields)
        raise MalformedError(
            f"expected fields such as {', '.join(list(schema.fields)[:3])}, found"
            f" {escaped(shorten(message.unknown[0]))}.{advice}"
        )
    return message


def written(message: Message, indent: str = "") -> str:
    """Return a message as text, a field on each line.

    Args:
        message: the message.
        indent: what each line begins with.
    """
    lines = []
    for word, values in message.values.items():
        field = message.schema.fields[word].type
        for value in values:
            if isinstance(field, Submessage):
                lines.append(f"{indent}{word} {{\n{written(value, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{word}: {field.spelt(value)}\n")
    return "".join(lines)

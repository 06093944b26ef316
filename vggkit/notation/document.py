"""YAML text → plain values with their place in the file.

Nothing here knows about networks. A file may come from a stranger, so it is read as a stream of libyaml's events: no
Python object is ever constructed from a tag, and nesting, size and aliases are bounded. Plain scalars follow YAML 1.2:
`1e-4` is a number, `010` is ten, `on` is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import yaml

from vggkit.base.errors import ArgumentError, ConfigError, Position, Problem, shorten

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_DIGITS = 40
MAX_CHARACTERS = 1_000

_INTEGER = re.compile(rf"[-+]?[0-9]{{1,{MAX_DIGITS}}}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_PRINTABLE_ASCII = re.compile("[\t\n\r\x20-\x7e]*")
# as text: compiling it takes milliseconds, and few files need it
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class YamlNode:
    """A value and its place in the file.

    `value` is None, a bool, an int, a float, a str, a list of nodes, or a dict of nodes; the nodes of a dict's keys are
    in `keys`. `size` is the number of values inside, and an alias counts each time it is used. `depth` is the number of
    levels of lists and dicts inside.
    """

    __slots__ = ("depth", "keys", "position", "size", "value")

    def __init__(self, value: Any, position: Position) -> None:
        self.value = value
        self.position = position
        self.size = 1
        self.depth = 0
        self.keys: dict[str, YamlNode] = {}

    def plain(self) -> Any:
        """Return the value without positions."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    def hold(self, inner: YamlNode) -> None:
        """Add the size and depth of a value inside to one's own."""
        self.size += inner.size
        self.depth = max(self.depth, 1 + inner.depth)

    def at(self, path: Sequence[str | int], *, key: bool = False) -> Position:
        """Return the position of a value inside, or of the last step of the path that exists.

        Args:
            path: keys and indexes that lead to it.
            key: whether the place of the last key is meant, rather than that of its value.
        """
        node = self
        position = self.position
        for step in path:
            inside = node.value
            known = range(len(inside)) if isinstance(inside, list) else inside if isinstance(inside, dict) else ()
            if step not in known:
                break
            position = node.keys[step].position if key and isinstance(step, str) else inside[step].position
            node = inside[step]
        return position


def scalar(text: str) -> Any:
    """Resolve a plain (unquoted) scalar as YAML 1.2's core schema does, without infinities.

    >>> scalar("1e-4"), scalar("010"), scalar("on"), scalar("3x224x224")
    (0.0001, 10, 'on', '3x224x224')
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and isfinite(number := float(text)):
        return number
    return text


def setting(text: str) -> tuple[str, Any]:
    """Read a key and its value, as they are given on a command line; a value in braces or brackets is YAML.

    Raises:
        ArgumentError: if one of them is missing, or the value is not YAML.

    >>> setting("width=0.5"), setting("activation={leaky-relu: 0.2}")
    (('width', 0.5), ('activation', {'leaky-relu': 0.2}))
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ArgumentError(f"expected key=value, such as num_classes=10, found {shorten(text)}")
    key, value = key.strip(), value.strip()
    found = scalar(value)
    if value.startswith(("{", "[")):
        problems: list[Problem] = []
        try:
            found = read(value, key, problems).plain()
            if problems:
                raise ConfigError(problems)
        except ConfigError as error:
            expected = "expected YAML such as {leaky-relu: 0.2}"
            raise ArgumentError(f"{key}: {expected}, found {shorten(value)} ({error.problems[0].message})") from None
    if found is None:
        raise ArgumentError(f"{key} has no value; expected key=value, such as num_classes=10")
    return key, found


def split_outside(text: str, mark: str) -> list[str]:
    """Split a text at a mark, but not inside braces and brackets.

    >>> split_outside("activation={hardtanh: {min_val: 0, max_val: 6}},width=0.5", ",")
    ['activation={hardtanh: {min_val: 0, max_val: 6}}', 'width=0.5']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == mark and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def read(text: str | bytes, file: str, problems: list[Problem]) -> YamlNode:
    """Read one YAML document.

    Args:
        text: the document; bytes are UTF-8.
        file: its name, for messages.
        problems: a mistake that need not stop the reading is added here.

    Returns:
        The document's root.

    Raises:
        ConfigError: if it can't be read at all: not UTF-8, not YAML, too large, too deep.
    """
    return _Reader(text, file, problems).document()


class _Reader:
    def __init__(self, text: str | bytes, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.count = 0
        self.anchors: dict[str, YamlNode] = {}
        self.text = self._decode(text)
        self.lines = _LINE_END.split(self.text)
        self.events: Iterator[Any] = iter(())

    def _decode(self, text: str | bytes) -> str:
        start = Position(self.file, 1, 1, "")
        size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_BYTES:
            raise ConfigError([Problem(f"more than the {MAX_BYTES:,} bytes that a file may have", start)])
        try:
            text = (text if isinstance(text, str) else text.decode("utf-8")).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            place = self._place(error.object[: error.start].decode("utf-8"))
            raise ConfigError([Problem(f"not UTF-8 text: {error.reason}", place)]) from None
        if not _PRINTABLE_ASCII.fullmatch(text) and (found := re.search(_UNPRINTABLE, text)):
            place = self._place(text[: found.start()])
            raise ConfigError([Problem(f"character {found.group()!r} is not allowed in YAML", place)])
        return text

    def _place(self, before: str) -> Position:
        """Return the position right after a text."""
        lines = _LINE_END.split(before)
        return Position(self.file, len(lines), len(lines[-1]) + 1, lines[-1])

    def position(self, mark: Any) -> Position:
        line = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Position(self.file, mark.line + 1, mark.column + 1, line)

    def fail(self, message: str, mark: Any) -> ConfigError:
        return ConfigError([*self.problems, Problem(message, self.position(mark))])

    def document(self) -> YamlNode:
        try:
            self.events = iter(yaml.parse(self.text, Loader=yaml.CSafeLoader))
            next(self.events)  # the stream starts
            start = next(self.events)
            if isinstance(start, yaml.StreamEndEvent):
                raise self.fail(
                    "the file is empty; expected 'name', 'input', 'blocks' and 'classifier'", start.start_mark
                )
            root = self.node(next(self.events), 0)
            next(self.events)  # the document ends
            after = next(self.events)
            if not isinstance(after, yaml.StreamEndEvent):
                self.problems.append(Problem("a second document; a file holds one", self.position(after.start_mark)))
            return root
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = f"not YAML: {error.problem or error.context}"
            raise (self.fail(message, mark) if mark else ConfigError([Problem(f"{self.file}: {message}")])) from None
        except yaml.YAMLError as error:
            reason = str(error).split("\n")[0]
            raise ConfigError([Problem(f"{self.file}: not YAML: {reason}")]) from None

    def node(self, event: Any, depth: int) -> YamlNode:
        mark = event.start_mark
        is_alias = isinstance(event, yaml.AliasEvent)
        known = self.alias(event) if is_alias else None
        if depth + (known.depth if known else 0) > MAX_DEPTH:
            raise self.fail(f"nested more than {MAX_DEPTH} deep", mark)
        node = known or self.new(event, depth)
        self.count += node.size if is_alias else 1
        if self.count > MAX_VALUES:
            raise self.fail(f"more than {MAX_VALUES:,} values, aliases counted each time they are used", mark)
        return node

    def alias(self, event: Any) -> YamlNode:
        node = self.anchors.get(event.anchor)
        if node is None:
            message = f"alias '*{event.anchor}' is used before or inside the value that it names"
            raise self.fail(message, event.start_mark)
        return node

    def new(self, event: Any, depth: int) -> YamlNode:
        position = self.position(event.start_mark)
        if event.tag is not None and event.tag != "!":
            self.problems.append(Problem(f"tag {shorten(event.tag)}: tags are not used here; leave it out", position))
        if isinstance(event, yaml.ScalarEvent):
            node = YamlNode(self.scalar(event, position), position)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(position, depth)
        else:
            node = self.mapping(position, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def scalar(self, event: Any, position: Position) -> Any:
        text: str = event.value
        if len(text) > MAX_CHARACTERS:
            message = f"{len(text):,} characters in one value; expected at most {MAX_CHARACTERS:,}"
            self.problems.append(Problem(message, position))
            text = text[:MAX_CHARACTERS]
        unquoted = event.implicit[0]
        return scalar(text) if unquoted else text

    def sequence(self, position: Position, depth: int) -> YamlNode:
        items: list[YamlNode] = []
        node = YamlNode(items, position)
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = self.node(event, depth + 1)
            items.append(item)
            node.hold(item)
        return node

    def mapping(self, position: Position, depth: int) -> YamlNode:
        values: dict[str, YamlNode] = {}
        node = YamlNode(values, position)
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            value = self.node(next(self.events), depth + 1)
            node.hold(key)
            node.hold(value)
            if not isinstance(event, yaml.ScalarEvent):
                self.problems.append(Problem("a key must be a word", key.position))
            elif event.value in values:
                first = node.keys[event.value].position.line
                self.problems.append(
                    Problem(f"key {shorten(event.value)} is repeated; it was given first in line {first}", key.position)
                )
            else:
                values[event.value] = value
                node.keys[event.value] = key
        return node

"""The names of classes: ImageNet's, and those of a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from vggkit.base.errors import ArgumentError, file_name, shorten

LARGEST_FILE = 16 * 2**20
"""Most bytes of a file of labels."""


class Label(NamedTuple):
    """The names of a class.

    Args:
        name: the one for people.
        wordnet_id: that of the WordNet synset, as in n01440764, if it is known.
    """

    name: str
    wordnet_id: str | None = None


@lru_cache(maxsize=1)
def imagenet_labels() -> tuple[Label, ...]:
    """Return ImageNet's thousand classes in the order of every VGG network's outputs.

    >>> imagenet_labels()[0]
    Label(name='tench', wordnet_id='n01440764')
    """
    from importlib.resources import files

    return _read(files("vggkit.classify").joinpath("imagenet_labels.txt").read_bytes())


def read_labels(path: str | os.PathLike[str]) -> tuple[Label, ...]:
    """Read the names of classes from a file.

    Args:
        path: text with a line per class, optionally with a WordNet id before the name; or JSON: a list of names,
            names by index as in {"0": "cat"}, or Keras's {"0": ["n01440764", "tench"]}.

    Returns:
        The labels in the order of the indices.

    Raises:
        ArgumentError: says the file and what is wrong in it.
    """
    name = file_name(path)
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return _read(content)
    except ValueError as error:
        raise ArgumentError(f"{name}: {error}") from None


def _read(content: bytes) -> tuple[Label, ...]:
    if len(content) > LARGEST_FILE:
        raise ValueError(f"expected labels of at most {LARGEST_FILE // 2**20} MiB")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, found byte 0x{content[error.start]:02x} at offset {error.start}") from None
    if not text:
        raise ValueError("expected labels, found an empty file")
    return _from_json(text) if text[0] in "[{" else _from_lines(text.splitlines())


def _from_lines(lines: list[str]) -> tuple[Label, ...]:
    labels = []
    for number, line in enumerate(lines, start=1):
        with_id = re.fullmatch(r"(n[0-9]{8})\s+(.+)", line.strip())
        wordnet_id, name = with_id.groups() if with_id else (None, line)
        labels.append(Label(_name(name, f"line {number}"), wordnet_id))
    return tuple(labels)


def _from_json(text: str) -> tuple[Label, ...]:
    import msgspec

    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"expected JSON, as it begins with {text[0]}: {error}") from None
    entries = _in_order(value) if isinstance(value, Mapping) else value
    if not entries:
        raise ValueError("expected labels, found none")
    return tuple(_entry(entry, f"class {index}") for index, entry in enumerate(entries))


def _in_order(value: Mapping[str, Any]) -> list[Any]:
    wanted = [str(index) for index in range(len(value))]
    missing = next((index for index in wanted if index not in value), None)
    if missing is not None:
        known = set(wanted)
        wrong = next(key for key in value if key not in known)
        raise ValueError(f"expected the indices 0 to {len(value) - 1}, found {shorten(wrong)} and no {missing}")
    return [value[index] for index in wanted]


def _entry(entry: Any, where: str) -> Label:
    if isinstance(entry, str):
        return Label(_name(entry, where))
    if isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return Label(_name(entry[1], where), _name(entry[0], where))
    raise ValueError(f"{where}: expected a name or a WordNet id and a name, found {shorten(entry)}")


def _name(text: str, where: str) -> str:
    name = " ".join(text.split())
    if not name or not name.isprintable():
        raise ValueError(f"{where}: expected a name on one line, found {shorten(text)}")
    return name

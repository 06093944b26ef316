"""The errors of vggkit. Each message says where, what was found, what was expected and what to do.

VggkitError              whatever vggkit raises on purpose
├─ ConfigError           a configuration that can't be found or is wrong, with all its problems
├─ ArgumentError         an argument outside its allowed values
│  └─ MisleadingError    a condition that can be read, but can't be what was meant
├─ BuildError            a network that can't be built on this machine
├─ CheckpointError       a checkpoint or another tool's file that can't be read, or that doesn't fit
├─ PictureError          a picture that can't be read
├─ LayerError            a layer that doesn't fit its input; a ConfigError once its place is known
│  └─ TooSmallError      a layer whose window is larger than its input
└─ NotationError         an entry that is not in the notation; a ConfigError once its place is known
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

Word = TypeVar("Word", bound=str)


class Position:
    """A place in a file; two positions always compare equal, also with None.

    A position travels with the values that were read from a file, so that an error found much later can still
    point at the line. Equal values from different places must stay equal, hence the equality.

    Args:
        file: the file's name as the user gave it.
        line: counted from 1.
        column: counted from 1.
        text: the whole line.
    """

    __slots__ = ("column", "file", "line", "text")

    def __init__(self, file: str, line: int, column: int, text: str) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.text = text

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Position)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def __reduce__(self) -> tuple[type[Position], tuple[str, int, int, str]]:
        return Position, (self.file, self.line, self.column, self.text)


class Problem:
    """One thing that is wrong, and where.

    Args:
        message: what was found, what was expected and what to do, on one line.
        position: the place in the file, if there is one.
    """

    __slots__ = ("message", "position")

    def __init__(self, message: str, position: Position | None = None) -> None:
        self.message = message
        self.position = position

    def __str__(self) -> str:
        return self.message if self.position is None else f"{self.position!r}: {self.message}"

    def __reduce__(self) -> tuple[type[Problem], tuple[str, Position | None]]:
        return Problem, (self.message, self.position)


class VggkitError(Exception):
    """The base of every error that vggkit raises on purpose."""

    exit_code = 1


class ConfigError(VggkitError, ValueError):
    """A configuration that can't be found or doesn't make sense; all its problems together.

    Args:
        problems: at least one.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class ArgumentError(VggkitError, ValueError):
    """An argument outside its allowed values."""

    exit_code = 2


class MisleadingError(ArgumentError):
    """A condition that can be read, but can't be what was meant."""


class LayerError(VggkitError, ValueError):
    """A layer that does not fit its input; the network adds the layer's place."""


class TooSmallError(LayerError):
    """A layer whose window is larger than its input."""


class Fault(NamedTuple):
    """What is wrong with an entry.

    Args:
        path: the keys that lead to it inside the entry.
        message: what was found and expected.
        advice: a sentence on what to do, if there is one.
        at_key: whether the last key is wrong, rather than its value.
    """

    path: tuple[str, ...]
    message: str
    advice: str = ""
    at_key: bool = False

    def told(self, where: str = "") -> str:
        """Return the message and the advice on one line.

        Args:
            where: the entry's place, such as " in block 2"; it is added if the whole entry is wrong.
        """
        message = self.message if self.path else self.message + where
        return f"{message}.{self.advice}" if self.advice else message


class NotationError(VggkitError, ValueError):
    """An entry that is not in the notation.

    Args:
        faults: at least one.
    """

    exit_code = 2

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(fault.told() for fault in self.faults)


class BuildError(VggkitError):
    """A network that is right, but can't be built on this machine."""


class PictureError(VggkitError):
    """A picture that can't be read, or not at the size that is asked for."""


class CheckpointError(VggkitError, ValueError):
    """A checkpoint, or another tool's file, that can't be read, or whose weights don't fit the network."""

    exit_code = 2


ELSEWHERE = {
    "bf16": "bfloat16",
    "bn": "batch_norm",
    "classes": "num_classes",
    "conv2d": "conv",
    "double": "float64",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "gpu": "cuda",
    "half": "float16",
    **dict.fromkeys(("dense", "linear"), "fc"),
    **dict.fromkeys(("flop", "flops"), "macs"),
}
"""What other tools call something, and what it is called here."""


def nearest(word: str, known: Iterable[str], closeness: float = 0.6) -> str | None:
    """Return the known spelling that is closest to a word, if one is close.

    Args:
        word: what was found.
        known: what would have been right.
        closeness: how close it must be, from 0 to 1; among very many words, some word is always quite close.

    Returns:
        The nearest known spelling, compared without regard to letter case, or None.

    >>> nearest("kernal", ["kernel", "stride"]), nearest("gpu", ["cpu", "cuda"])
    ('kernel', 'cuda')
    """
    from difflib import get_close_matches  # only when something is wrong already

    # a single letter is not a misspelling of anything
    spelling = {candidate.lower(): candidate for candidate in known if len(candidate) > 1}
    here = ELSEWHERE.get(word.lower())
    if here in spelling:
        return spelling[here]
    # difflib is quadratic in the length; no right spelling is longer than this
    matches = get_close_matches(word[:64].lower(), spelling, n=1, cutoff=closeness)
    return spelling[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str], closeness: float = 0.6) -> str:
    """Return " Did you mean 'x'?" for the nearest known spelling, or an empty string."""
    match = nearest(word, known, closeness)
    return f" Did you mean '{match}'?" if match else ""


def shorten(found: object, limit: int = 60) -> str:
    """Write what was found for a one-line message, cut off if it is too long."""
    try:
        text = repr(found)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number of thousands of digits"
    except RecursionError:
        text = f"a {type(found).__name__} of thousands of levels"
    line, several, _ = text.partition("\n")
    if several:  # a value whose repr is a table
        text = f"{line}…"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def file_name(path: str | os.PathLike[str]) -> str:
    """Write a file's name for a one-line message, in quotes if it can't be printed as it is.

    >>> file_name("a.png"), file_name("a\\n.png")
    ('a.png', "'a\\\\n.png'")
    """
    name = os.fspath(path)
    return name if name.isprintable() else repr(name)


# with the characters that turn the writing direction
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def escaped(text: str, keep: str = "") -> str:
    r"""Escape the control characters of somebody else's text as JSON does, so that no terminal obeys them.

    Args:
        text: a name, a path, a message.
        keep: characters that stay as they are, such as the line breaks of a message of several lines.

    >>> escaped("conv1\x1b[31m")
    'conv1\\u001b[31m'
    """
    return _CONTROLS.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", text)


def one_of(allowed: Iterable[Word], given: object, argument: str) -> Word:
    """Return an argument if it is one of the allowed words.

    Args:
        allowed: the words.
        given: what was found.
        argument: the argument's name, for the message.

    Raises:
        ArgumentError: if it is any other.
    """
    words = list(allowed)
    for word in words:
        if word == given:
            return word
    advice = did_you_mean(str(given), words)
    raise ArgumentError(f"{argument}: expected one of {', '.join(words)}, found {shorten(given)}.{advice}")

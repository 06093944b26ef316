"""The exceptions that users see."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

import vggkit
from vggkit.base import errors
from vggkit.base.errors import (
    ArgumentError,
    BuildError,
    ConfigError,
    LayerError,
    Position,
    Problem,
    TooSmallError,
    VggkitError,
    did_you_mean,
    nearest,
    shorten,
)

PLACED = Problem("wrong", Position("my.yaml", 3, 4, "text"))


def test_a_config_error_says_all_its_problems_a_line_each() -> None:
    """Those with a place begin with file, line and column."""
    error = ConfigError([PLACED, Problem("lost")])
    assert str(error) == "my.yaml:3:4: wrong\nlost"
    assert [problem.message for problem in error.problems] == ["wrong", "lost"]


@pytest.mark.parametrize("kind", [ArgumentError, BuildError, ConfigError, LayerError, TooSmallError])
def test_every_error_is_a_vggkit_error(kind: type[Exception]) -> None:
    """One `except` catches them all; what comes of a wrong value is a ValueError, too."""
    assert issubclass(kind, VggkitError)
    assert issubclass(kind, ValueError) == (kind is not BuildError)


def test_every_error_is_in_the_tree_and_lives_there() -> None:
    """The tree at the file's top has each error under the one that it is a kind of; no other file begins a kind."""
    above: list[str] = []
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"([│ ├└─]*)([A-Z]\w*Error) ", line):
            depth = len(match[1]) // 3
            above[depth:] = [match[2]]
            drawn[match[2]] = above[depth - 1] if depth else "Exception"
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in kinds}
    package = Path(vggkit.__file__).parent
    files = {path.name: path.read_text("utf-8") for path in package.rglob("*.py")}
    begun = [name for name, text in files.items() if re.search(r"^class \w+\(VggkitError", text, re.MULTILINE)]
    assert begun == ["errors.py"]


def test_the_exit_codes_are_two_for_input_and_one_for_the_rest() -> None:
    """What the user can mend in the file or the arguments is 2."""
    codes = {kind.exit_code for kind in (ArgumentError, ConfigError)}
    assert codes == {2}
    assert VggkitError.exit_code == BuildError.exit_code == 1


def test_errors_survive_pickling_and_copying() -> None:
    """A process pool hands them on whole, places included."""
    for error in (ConfigError([PLACED]), copy.copy(ConfigError([PLACED]))):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == "my.yaml:3:4: wrong"
        assert again.problems[0].position.text == "text"


def test_a_config_with_places_survives_pickling() -> None:
    """Positions travel with it."""
    config = vggkit.loads("blocks: [[conv3-64]]", file="my.yaml")
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert repr(again.blocks[0][0].position) == "my.yaml:1:11"


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("kernal", "kernel"),
        ("KERNL", "kernel"),
        ("strid", "stride"),
        ("xyz", None),
        ("", None),
        ("kernel" * 20_000, None),
    ],
)
def test_the_nearest_spelling_is_found_if_one_is_near(word: str, wanted: str | None) -> None:
    """Without regard to letter case; a word of any length at once."""
    assert nearest(word, ["kernel", "stride"]) == wanted
    assert did_you_mean(word, ["kernel", "stride"]) == (f" Did you mean '{wanted}'?" if wanted else "")


@pytest.mark.parametrize(
    ("word", "known", "wanted"),
    [
        ("gpu", ["cpu", "cuda"], "cuda"),
        ("FLOPs", ["parameters", "macs"], "macs"),
        ("fp16", ["float32", "float16"], "float16"),
        ("gpu", ["cpu", "mps"], "cpu"),
        ("F", ["E", "D"], None),
        ("ga", ["A", "Gatys"], None),
        ("G", ["Gatys", "flow_vgg16_ucf101"], None),
    ],
)
def test_a_word_of_other_tools_is_told_and_a_short_one_is_like_no_long_one(
    word: str, known: list[str], wanted: str | None
) -> None:
    """What another tool calls it comes before what looks alike; a single letter is like no word."""
    assert nearest(word, known) == wanted


def test_what_was_found_is_shortened_to_one_printable_line() -> None:
    """Line breaks and escapes are written out, long values end in …, huge integers are no error."""
    assert shorten("a\nb\x1b") == r"'a\nb\x1b'"
    assert len(shorten("x" * 10**6)) == 60
    assert shorten("x" * 10**6).endswith("…")
    assert shorten(10**5000) == "a number of thousands of digits"

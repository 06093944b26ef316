"""YAML text → values that know where they stood: what is a number, what is refused, and where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vggkit.base.errors import ConfigError, Position
from vggkit.notation.document import MAX_BYTES, MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, YamlNode, read, scalar


def value(text: str | bytes) -> Any:
    """Return a document's plain value; nothing may be wrong with it."""
    problems: list[Any] = []
    node = read(text, "my.yaml", problems)
    assert problems == []
    return node.plain()


def node(text: str) -> YamlNode:
    """Return a document's root."""
    return read(text, "my.yaml", [])


def refusal(text: str | bytes) -> str:
    """Return what is wrong with a document, whether or not it could be read to its end."""
    problems: list[Any] = []
    try:
        read(text, "my.yaml", problems)
    except ConfigError as error:
        return str(error)
    assert problems
    return "\n".join(map(str, problems))


# scalars


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1", 1),
        ("-7", -7),
        ("+3", 3),
        ("010", 10),
        ("00", 0),
        ("9" * 40, int("9" * 40)),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1e-4", 0.0001),
        ("1E4", 10000.0),
        ("1e308", 1e308),
        ("5e-324", 5e-324),
        ("-0.0", -0.0),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("Null", None),
        ("", None),
    ],
)
def test_a_plain_scalar_is_what_yaml_1_2_says(text: str, wanted: object) -> None:
    """Numbers, truth values and null of YAML 1.2's core schema, type included."""
    found = value(f"x: {text}")["x"]
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "off",
        "yes",
        "no",
        "y",
        "n",
        "On",
        "tRue",
        "nULL",
        "1_000",
        "0x10",
        "0o7",
        "0b1",
        "1:30",
        "3x224x224",
        ".inf",
        "-.INF",
        ".nan",
        "nan",
        "inf",
        "1e400",
        "1e",
        "e4",
        ".",
        "-",
        "+",
        "1.2.3",
        "2024-01-01",
        "1e1000",
        "--1",
        "1 2",
        "=",
    ],
)
def test_everything_else_is_a_word(text: str) -> None:
    """YAML 1.1's on and yes, octal, sexagesimal, dates, infinities and numbers with _ are words."""
    assert scalar(text) == text


def test_a_huge_string_of_digits_is_a_word() -> None:
    """Python refuses to read integers of 4,300 digits, and takes its time below: more than 40 digits are a word."""
    assert value(f"x: {'9' * 41}")["x"] == "9" * 41
    assert value(f"x: {'9' * 900}.5")["x"] == "9" * 900 + ".5"


@pytest.mark.parametrize("word", ["1", "1e-4", "true", "null", "~", "", "010"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quoted_scalar_is_a_word(word: str, quote: str) -> None:
    """Quotes, and the block styles, make a word of anything."""
    assert value(f"x: {quote}{word}{quote}")["x"] == word
    if word:
        assert value(f"x: |-\n  {word}")["x"] == word
        assert value(f"x: >-\n  {word}")["x"] == word


def test_lists_and_mappings_come_in_both_styles() -> None:
    """Flow and block are the same."""
    wanted = {"a": [1, {"b": "c"}], "d": []}
    assert value("a: [1, {b: c}]\nd: []") == wanted
    assert value("a:\n  - 1\n  - b: c\nd: []\n") == wanted
    assert value('{"a": [1, {b: c}], d: []}') == wanted


def test_anchors_and_aliases_stand_for_their_values() -> None:
    """An alias is what its anchor named, in keys' values and in lists."""
    assert value("a: &x [1, 2]\nb: *x\nc: [*x, *x]") == {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}
    assert value("- &x 1\n- &x 2\n- *x") == [1, 2, 2]


def test_merge_keys_are_no_part_of_yaml_1_2() -> None:
    """`<<` is a key like any other."""
    assert value("a: &x {b: 1}\nc: {<<: *x}") == {"a": {"b": 1}, "c": {"<<": {"b": 1}}}


# encodings and line ends


@pytest.mark.parametrize("text", ["\ufeffa: ä\nb: 2", "a: ä\r\nb: 2\r\n", "a: ä\rb: 2", "a: ä\nb: 2"])
def test_line_ends_and_byte_order_marks_don_t_matter(text: str) -> None:
    """BOM, CRLF and CR, as text and as bytes; columns and lines are counted without them."""
    for form in (text, text.encode()):
        root = read(form, "my.yaml", [])
        assert root.plain() == {"a": "ä", "b": 2}
        assert repr(root.keys["a"].position) == "my.yaml:1:1"
        assert repr(root.value["b"].position) == "my.yaml:2:4"
        assert root.value["b"].position.text == "b: 2"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: \xff", "my.yaml:1:4: not UTF-8 text: "),
        ("ab: 1\nä: ".encode() + b"\xe4\n", "my.yaml:2:4: not UTF-8 text: "),
        ("a: b".encode("utf-16"), "my.yaml:1:1: not UTF-8 text: "),
        (b"a: 1\0", r"my.yaml:1:5: character '\x00' is not allowed in YAML"),
        (b"a: 1\nb: \x1b[31m", r"my.yaml:2:4: character '\x1b' is not allowed in YAML"),
        ("a: \x7f", r"my.yaml:1:4: character '\x7f' is not allowed in YAML"),
        ("a: \ud800", r"my.yaml:1:4: character '\ud800' is not allowed in YAML"),
        ("a: \uffff", r"my.yaml:1:4: character '\uffff' is not allowed in YAML"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(data: str | bytes, message: str) -> None:
    """Bytes that are not UTF-8 and characters that YAML doesn't allow: line and column of the first."""
    assert refusal(data).startswith(message)


# what is refused


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "\ufeff", "# one\n# two\n"])
def test_an_empty_file_says_what_was_expected(text: str) -> None:
    """Nothing, blank lines, a BOM, comments."""
    assert "the file is empty; expected 'name', 'input', 'blocks' and 'classifier'" in refusal(text)


def test_a_second_document_is_refused_at_its_place() -> None:
    """A file holds one; explicit marks around the one are fine."""
    assert refusal("a: 1\n---\nb: 2") == "my.yaml:2:1: a second document; a file holds one"
    assert value("---\na: 1\n...\n") == {"a": 1}
    assert value("%YAML 1.2\n---\na: 1\n") == {"a": 1}


def test_duplicate_keys_are_told_with_both_lines() -> None:
    """Each repetition, with the line of the first."""
    assert refusal("a: 1\nb: 2\na: 3\n'a': 4") == (
        "my.yaml:3:1: key 'a' is repeated; it was given first in line 1\n"
        "my.yaml:4:1: key 'a' is repeated; it was given first in line 1"
    )
    assert refusal("{x: {b: 1, c: 2,\n  b: 3}}") == "my.yaml:2:3: key 'b' is repeated; it was given first in line 1"


TAGS = [
    "!!python/object/apply:os.system ['touch hacked']",
    "!!python/object:os.system {}",
    "!!python/object/new:subprocess.Popen [[touch, hacked]]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!str 3",
    "!!binary aGk=",
    "!!set {a}",
    "!mine x",
    "!<tag:yaml.org,2002:int> 3",
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_refused_and_nothing_is_executed(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python objects, YAML's own types and private ones."""
    monkeypatch.chdir(tmp_path)
    assert refusal(f"x: {tag}").startswith("my.yaml:1:4: tag '")
    assert "tags are not used here; leave it out" in refusal(f"x: {tag}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[1]: 2", "? {a: b}\n: c", "? [x, y]\n: z"])
def test_a_key_that_is_no_word_is_refused(text: str) -> None:
    """Lists and mappings are no keys."""
    assert "a key must be a word" in refusal(text)


@pytest.mark.parametrize("text", ["a: &a [*a]", "&a {b: *a}", "a: &x {b: &y [*x]}", "*unknown", "a: *b\nb: &b 1"])
def test_an_alias_before_or_inside_its_anchor_is_refused(text: str) -> None:
    """Recursive and unknown aliases are told, with their place."""
    assert "is used before or inside the value that it names" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: {b",
        "a: 'x",
        "\ta: 1",
        "a: b: c",
        "a: 1\n b: 2",
        "]",
        "%FOO",
        "@x",
        "`",
        "a: |x",
        "- a\nb: 1",
        "&",
    ],
)
def test_what_is_no_yaml_is_told_with_line_and_column(text: str) -> None:
    """Broken syntax of many kinds is one line with a place."""
    message = refusal(text)
    assert message.startswith("my.yaml:")
    assert ": not YAML: " in message
    assert len(message.splitlines()) == 1


# bounds


def test_a_file_over_a_mebibyte_is_refused() -> None:
    """One byte more than 1 MiB, as text and as bytes; exactly 1 MiB is read."""
    comment = "a: 1\n#"
    fits = comment + "x" * (MAX_BYTES - len(comment))
    assert value(fits) == value(fits.encode()) == {"a": 1}
    for form in (fits + "x", fits.encode() + b"x"):
        assert f"more than the {MAX_BYTES:,} bytes" in refusal(form)


def test_a_text_of_more_bytes_than_characters_is_measured_in_bytes() -> None:
    """A mebibyte is a mebibyte, of text as of bytes."""
    text = "a: 1\n#" + "ä" * (MAX_BYTES // 2)
    assert refusal(text) == refusal(text.encode())


def test_depth_is_bounded() -> None:
    """32 levels are read, one more is refused at its place."""
    deep = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert value(deep[1:-1]) is not None
    assert refusal(f"[{deep}]") == f"my.yaml:1:34: nested more than {MAX_DEPTH} deep"


@pytest.mark.parametrize("link", ["[*a{}]", "{{x: *a{}}}", "[[[*a{}]]]"])
def test_a_chain_of_aliases_is_as_deep_as_what_it_names(link: str) -> None:
    """Each anchor nests the one before it, though no line is deep: what is read has 32 levels at most."""
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} {link.format(n - 1)}\n" for n in range(1, 400))
    assert refusal(chain).endswith(f": nested more than {MAX_DEPTH} deep")


def test_a_chain_of_aliases_has_32_levels() -> None:
    """One link more is refused at its place."""
    links = [f"a{n}: &a{n} [{f'*a{n - 1}' if n else 'x'}]" for n in range(MAX_DEPTH)]
    assert value("\n".join(links[:-1]))
    assert refusal("\n".join(links)) == f"my.yaml:32:12: nested more than {MAX_DEPTH} deep"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "{? ", "- - ", "[{", "&a [", "!x ["])
def test_deep_nesting_does_not_crash(opening: str) -> None:
    """Hundreds of thousands of brackets of every kind are refused, not the end of the process."""
    assert refusal(opening * (500_000 // len(opening)))


def test_values_are_bounded_with_aliases_counted_each_time() -> None:
    """A few aliases more than the bound are refused."""
    many = ", ".join(["x"] * 999)
    assert value(f"a: &a [{many}]\nb: [{', '.join(['*a'] * 18)}]")
    assert f"more than {MAX_VALUES:,} values" in refusal(f"a: &a [{many}]\nb: [{', '.join(['*a'] * 20)}]")


def test_a_long_value_is_refused() -> None:
    """A value of 1,000 characters is read, a longer one is told with its length."""
    assert value(f"a: {'x' * MAX_CHARACTERS}")
    assert refusal(f"a: {'x' * (MAX_CHARACTERS + 1)}").startswith(
        "my.yaml:1:4: 1,001 characters in one value; expected"
    )


LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
LAUGHING_MAPS = "a0: &a0 {x: lol, y: lol, z: lol}\n" + "".join(
    f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}, z: *a{n - 1}}}\n" for n in range(1, 30)
)
LONG_LAUGHS = "x: &a " + "k" * 900 + "\nblocks: [[" + "*a, " * 15_000 + "]]"
WIDE = "blocks: [[" + "k, " * 300_000 + "]]"
WORDS = "blocks: [[" + ", ".join(["k" * 900] * 1000) + "]]"
KEYS = "{" + ", ".join(f"k{n}" for n in range(100_000)) + "}"

ROOT = Path(__file__).parent.parent.parent
BOUNDED = """
import re, resource, sys
from pathlib import Path
import vggkit
from vggkit.base.errors import ConfigError
try:
    vggkit.loads("blocks: [[conv3-64, kaputt]]")
except ConfigError:
    pass
text = sys.stdin.read()
before = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_CPU, (int(before.ru_utime + before.ru_stime) + 2, 9))
try:
    vggkit.loads(text)
except ConfigError as error:
    refused = True
after = resource.getrusage(resource.RUSAGE_SELF)
status = Path("/proc/self/status")  # ru_maxrss would hold the parent's memory, too
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) if status.exists() else after.ru_maxrss
print(after.ru_utime - before.ru_utime, peak * 1024)
assert refused
"""


@pytest.mark.parametrize(
    "text",
    [LAUGHS, LAUGHING_MAPS, LONG_LAUGHS, WIDE, WORDS, KEYS, "[" * 1_000_000, "? " * 500_000, "&a " * 300_000],
    ids=["laughs", "maps", "long", "wide", "words", "keys", "deep", "questions", "anchors"],
)
def test_a_hostile_file_is_refused_in_a_second_and_50_megabytes(text: str) -> None:
    """A billion laughs and its like: under a second of processor time, and under 50 MB for the whole process."""
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    seconds, peak = map(float, done.stdout.split())
    assert peak < 50e6
    assert seconds < 1


# places


def test_each_node_knows_where_it_stood() -> None:
    """Keys, values, items, nested ones, counted from 1; aliases stand where their value stands."""
    root = node("name: D\nblocks:\n  - [conv3-64, {conv: 3,\n     kernel: 5}]\n  -\n    - &x maxpool\n    - *x\n")
    places = {
        (): (1, 1),
        ("name",): (1, 7),
        ("blocks",): (3, 3),
        ("blocks", 0): (3, 5),
        ("blocks", 0, 0): (3, 6),
        ("blocks", 0, 1): (3, 16),
        ("blocks", 0, 1, "conv"): (3, 23),
        ("blocks", 0, 1, "kernel"): (4, 14),
        ("blocks", 1): (6, 5),
    }
    for path, (line, column) in places.items():
        position = root.at(path)
        assert (position.line, position.column) == (line, column), path
    assert repr(root.at(("blocks", 0, 1, "kernel"), key=True)) == "my.yaml:4:6"
    assert root.keys["blocks"].position.text == "blocks:"


@pytest.mark.parametrize("path", [("nope",), ("a", 7), ("a", "x"), ("a", 0, "x"), ("a", 0, 0)])
def test_a_path_that_ends_early_gives_the_last_place_that_exists(path: tuple[str | int, ...]) -> None:
    """A message about something missing points at where it is missing."""
    root = node("a: [1]")
    wanted = {("nope",): (1, 1), ("a", 7): (1, 4), ("a", "x"): (1, 4)}.get(path, (1, 5))
    assert (root.at(path).line, root.at(path).column) == wanted


@pytest.mark.parametrize("before", ["ä", "日本", "😀", "é\u0301"])
def test_columns_count_characters_whatever_they_are(before: str) -> None:
    """Behind accents, wide characters and emoji the column is that of the character."""
    position = node(f"{{{before}: 1, b: 2}}").value["b"].position
    assert position.column == len(f"{{{before}: 1, b: ") + 1
    assert position.text[position.column - 1] == "2"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_lines_end_where_yaml_says(end: str) -> None:
    """All of YAML's line ends count, and the line's text is the line's."""
    position = node(f"a: 1{end}b: 2{end}c: 3").value["c"].position
    assert (position.line, position.column, position.text) == (3, 4, "c: 3")


def test_positions_are_equal_and_hash_alike() -> None:
    """Where something stood is no part of what it says."""
    assert Position("a", 1, 2, "x") == Position("b", 3, 4, "y")
    assert Position("a", 1, 2, "x") == None  # noqa: E711  # absent is a place like any other
    assert Position("a", 1, 2, "x") != "a:1:2"
    assert len({Position("a", 1, 2, "x"), Position("b", 3, 4, "y")}) == 1

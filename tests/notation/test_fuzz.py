"""Whatever a file or an argument says: a Config, or an error that says where; nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import vggkit
from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.notation.layers import KINDS
from vggkit.notation.overrides import OVERRIDES
from vggkit.notation.spelling import fields
from vggkit.notation.zoo import folder

SHIPPED = [path.read_text(encoding="utf-8") for path in sorted(folder().glob("*.yaml"))]
PLACE = re.compile(r"my\.yaml:[1-9]\d*:[1-9]\d*: \S.*")

LONG = """\
name: everything
aliases: [one, "two"]
source: "nobody: knows"
extends: D
input: 3x64x96
defaults: {norm: batch, dropout: 0.25, activation: {leaky-relu: 0.2}, conv: {bias: false}, maxpool: {ceil_mode: true}}
blocks:
  - [conv3-64, {conv: 32, kernel: 3x1, stride: 2, padding: 2x1, dilation: 2, groups: 2, name: first}, relu, maxpool]
  - - &layer {conv: 64, padding: 0, padding_mode: reflect, norm: {groupnorm: 8}, activation: none, dropout: 0.1}
    - *layer
    - {maxpool: 3, stride: 1, padding: 1, ceil_mode: true}
    - {batchnorm: {eps: 1e-3, affine: false, momentum: null}}
    - {LRN: 5, alpha: 5e-4}
classifier: [{adaptive-avgpool: 2x3}, {flatten: hwc}, {fc: 100, bias: false}, {dropout: 0.3}, FC-10, soft-max]
overrides: {num_classes: 7, width: 0.5, in_channels: 4}
reported: {parameters_in_millions: 3, single_scale: [{train: [256, 512], test: 384, top1: 25.6, top5: 8.1}]}
"""


HOSTILE = [
    "a0: &a0 [relu]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 40)) + "blocks: *a39\n",
    "name: '$\\foo$'\ninput: 3x8x8\nblocks: [[conv3-4, maxpool]]\n",
    f"input: 3x8x8\nblocks: [[{', '.join(['tanh'] * 300)}]]\n",
    "extends: /etc/passwd\nblocks: [[relu]]\n",
    "extends: /dev/tty\nblocks: [[relu]]\n",
]
"""What once took for ever, a traceback, or another file's lines: not all of it is valid, but all of it is mutated."""


def loaded(text: str) -> vggkit.Config | None:
    """Load a text: its Config, or None after every problem has been seen to be one line with a place."""
    try:
        return vggkit.loads(text, file="my.yaml")
    except ConfigError as error:
        found = [str(problem) for problem in error.problems]
    assert found
    assert [text for text in found if not (one_line(text) and PLACE.fullmatch(text))] == []
    return None


def one_line(text: object) -> bool:
    """Tell whether something is written on one line."""
    return len(str(text).splitlines()) == 1


def check(text: str) -> None:
    """Hold a text to every promise that is made of any text."""
    config = loaded(text)
    if config is None:
        return
    written = vggkit.dump(config)
    assert vggkit.loads(written, file="my.yaml") == config
    assert vggkit.dump(vggkit.loads(written, file="my.yaml")) == written
    try:
        network = vggkit.Network.of(config)
    except ConfigError as error:
        found = error.problems
    else:
        found = (str(vggkit.summarize(network)).splitlines()[0],)
    assert all(map(one_line, found))


NUMBERS = st.sampled_from(
    [
        "0",
        "-1",
        "1.5",
        "-0.0",
        "1e9",
        "1e-9",
        "0.0001e-99",
        "9" * 40,
        "9" * 41,
        ".5",
        "+3",
        "1_000",
        "010",
        "0x10",
        "3x3",
        "0x1",
        "1x0",
        "3×3",
        "1x2x3",
        "true",
        "null",
        "~",
        "no",
        "[1, 2]",
        "{a: 1}",
        ".inf",
        "nan",
        '"3"',
        "",
    ]
) | st.integers(-5, 300).map(str)
WORDS = sorted(
    {kind.keyword for kind in KINDS}
    | {word for kind in KINDS for word in fields(kind)}
    | {"name", "norm", "activation", "batch", "group", "none", "same", "reflect", "hwc", "tanh", "D", "vgg11_bn"}
    | {"aliases", "source", "extends", "input", "defaults", "blocks", "classifier", "overrides", "reported"}
    | {"parameters_in_millions", "single_scale", "train", "test", "top1", "top5", *OVERRIDES}
    | {
        "conv3-64",
        "conv3x1-8",
        "CONV1_8",
        "FC-10",
        "convv3-64",
        "conv3",
        "fc4096",
        "&a",
        "*a",
        "!!str",
        "?",
        "<<",
        "---",
    }
)
MARKS = st.sampled_from(
    ["\n", "\n  ", "\n  - ", "\n- ", ": ", ":", ", ", "[", "]", "{", "}", " ", " # ", '"', "'", "|"]
)
SOUP = st.lists(st.one_of(st.sampled_from(WORDS), NUMBERS, MARKS, MARKS), max_size=40).map("".join)


def flow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return flow lists and mappings of what is given."""
    lists = st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
    pairs = st.lists(st.tuples(st.sampled_from(WORDS), inner), max_size=4)
    return lists | pairs.map(lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items) + "}")


VALUES = st.recursive(st.sampled_from(WORDS) | NUMBERS, flow, max_leaves=12)
TOP = st.sampled_from(
    ["name", "aliases", "source", "extends", "input", "defaults", "blocks", "classifier"]
) | st.sampled_from(["overrides", "reported", "nmae", "blocks", "classifier"])
LAYERS = st.sampled_from(WORDS) | flow(NUMBERS | st.sampled_from(WORDS)) | VALUES
DOCUMENTS = st.builds(
    lambda blocks, others: (
        f"blocks: [{', '.join(f'[{block}]' for block in blocks)}]\n"
        + "".join(f"{key}: {value}\n" for key, value in others)
    ),
    st.lists(st.lists(LAYERS, max_size=4).map(", ".join), max_size=3),
    st.lists(st.tuples(TOP, VALUES), max_size=3),
)


@given(st.text(max_size=60))
@settings(max_examples=250, deadline=None)
def test_random_text_loads_or_says_where_it_is_wrong(text: str) -> None:
    """Any text at all is a Config or a ConfigError with places."""
    check(text)


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_random_bytes_load_or_raise_config_error(data: bytes) -> None:
    """Any bytes at all are a Config or a ConfigError."""
    found: tuple[object, ...] = ()
    try:
        vggkit.loads(data, file="my.yaml")
    except ConfigError as error:
        found = error.problems
    assert all(map(one_line, found))


@given(SOUP | VALUES | DOCUMENTS)
@settings(max_examples=500, deadline=None)
def test_random_words_of_the_notation_load_or_say_where_they_are_wrong(text: str) -> None:
    """Text made of the notation's own words and of YAML's marks is a Config or a ConfigError with places."""
    check(text)


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """Return a valid file with a few characters, tokens, numbers or lines changed."""
    text = draw(st.sampled_from([LONG, LONG, *SHIPPED, *HOSTILE]))
    for _ in range(draw(st.integers(1, 3))):
        pattern = draw(st.sampled_from([r"[^\n]*\n", r"[\w.-]+", r"\d+", r"\d+", r"[\s\S]"]))
        places = [match.span() for match in re.finditer(pattern, text)]
        if not places:
            continue
        start, end = draw(st.sampled_from(places))
        old = text[start:end]
        new = draw(st.sampled_from(["", old * 2, old[::-1]]) | NUMBERS | st.sampled_from(WORDS) | st.characters())
        text = text[:start] + new + text[end:]
    return text


@given(mutants())
@settings(max_examples=500, deadline=None)
def test_a_mutated_file_loads_or_says_where_it_is_wrong(text: str) -> None:
    """A valid file with a few things changed is a Config or a ConfigError with places."""
    check(text)


def test_what_was_hostile_loads_or_says_where_it_is_wrong() -> None:
    """Before it is mutated, too."""
    for text in HOSTILE:
        check(text)


def test_what_is_mutated_is_valid() -> None:
    """The files that the mutants come from load, so that a mutant can be close to right."""
    for text in (LONG, *SHIPPED):
        check(text)
        assert loaded(text) is not None


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=3),
    st.sampled_from(
        ["3x32x32", "1×8×8", "max", "avg", "gap", "paper", "none", "relu", "gelu", "leaky-relu", "dropout"]
    ),
    st.sampled_from(
        [1e308, 5e-324, 10**400, 10**39, 10**41, 0.29, 1 / 3, (3, 32, 32), [3, 0, 1], (1, 2), {"elu": 0.5}]
    ),
    st.sampled_from(
        [object, {1: 2}, {"": 1}, {"elu": {}}, {"elu": 1, "x": 2}, [[]], {"relu", "elu"}, 1 + 2j, b"max", ...]
    ),
)


@given(st.dictionaries(st.sampled_from([*OVERRIDES]) | st.text(max_size=6), ODD, max_size=3))
@settings(max_examples=400, deadline=None)
def test_random_overrides_make_a_config_or_raise_argument_error(changes: dict[str, Any]) -> None:
    """Any keyword with any value is a Config that can be written and read again, or an ArgumentError of one line."""
    changes.pop("source", None)
    message = "none"
    try:
        config = vggkit.load("D", **changes)
    except ArgumentError as error:
        message = str(error)
    else:
        assert vggkit.loads(vggkit.dump(config)) == config
    assert one_line(message)


def test_the_folder_of_shipped_files_is_the_packages() -> None:
    """The files that are mutated are the six that the package ships."""
    assert len(SHIPPED) == len(vggkit.names()) == 6
    assert Path(folder()).is_dir()

"""README and docs tell the truth: what they show is what the commands print."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import click
import pytest

from docs import pictures
from vggkit.classify.predictions import Classified, Prediction, Predictions
from vggkit.cli import main
from vggkit.footprint.steps.options import STEP_KEYWORDS
from vggkit.notation.layers import KINDS
from vggkit.notation.overrides import OVERRIDES
from vggkit.notation.reading import BUDGET, KEYS
from vggkit.notation.spelling import fields

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
JSON = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
NOTATION = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")


def words(svg: str) -> str:
    """Return the text of a picture, in order."""
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return " ".join(html.unescape(" ".join(texts)).replace("\xa0", " ").split())


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_what_is_drawn_today(name: str) -> None:
    """Each picture of the README and of the documentation has today's words, and today's description."""
    shipped = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")
    drawn = pictures.PICTURES[name]().decode()
    assert words(shipped) == words(drawn) != ""
    assert re.findall("<desc .*?</desc>", shipped) == re.findall("<desc .*?</desc>", drawn)


def test_every_picture_is_shown_and_described() -> None:
    """The pictures that are drawn are those that lie there; a page shows each, and says in words what it shows."""
    assert {path.stem for path in (ROOT / "docs").glob("*.svg")} == {*pictures.PICTURES}
    pages = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for name in pictures.PICTURES:
        assert re.search(rf"!\[[^\]]{{20,}}\]\((docs/)?{name}\.svg\)", pages), name


def test_the_json_of_classify_is_documented() -> None:
    """The page has each key of a picture and of a class, in order."""
    prediction = Prediction(label="bagel", wordnet_id="n07693725", index=931, probability=0.9)
    (picture,) = Predictions([Classified(image="a.jpg", predictions=(prediction,))]).table().data
    section = JSON.split("## The JSON of `vggkit classify --format json`")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [*picture, *picture["predictions"][0]]


def test_every_option_of_a_step_is_documented() -> None:
    """The page of the JSON has each of them, once for all commands."""
    section = JSON.split("## What a step is like")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert {word for row in rows for word in re.findall(r"`(\w+)`", row)} == {*STEP_KEYWORDS}


def test_exactly_two_commands_set_everything_up() -> None:
    """The README's set-up is two commands: one ends in the summary, one in the tests."""
    block = README.split("<!-- set up -->")[1].split("<!-- end -->")[0]
    commands = [line for line in block.splitlines() if line and not line.startswith("```")]
    assert [command.split("&&")[-1].strip() for command in commands] == ["vggkit summarize D", "pytest"]


def commands_in(text: str) -> list[list[str]]:
    """Return the vggkit commands of a text's shell blocks, without comments and redirections."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [shlex.split(line.split(" > ")[0], comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["vggkit"]]


@pytest.mark.parametrize("arguments", commands_in(README), ids=" ".join)
def test_the_readmes_commands_are_understood(arguments: list[str]) -> None:
    """Every command of the README names a command and options that exist."""
    name, *rest = arguments
    command = main.commands[name]
    parent = click.Context(main, **main.context_settings)  # without it click would keep a help option without -h
    command.make_context(name, rest, parent=parent)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_is_in_the_readme(command: str) -> None:
    """The README shows each command."""
    assert f"vggkit {command}" in README


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_and_option_is_in_the_notation(kind: type) -> None:
    """The notation's page has each kind's keyword and each of its options."""
    keyword = kind.keyword.lower() if kind.keyword == "FC" else kind.keyword
    assert f"`{kind.keyword}" in NOTATION or f"{{{keyword}:" in NOTATION
    primary = kind.primary
    for word, field in fields(kind).items():
        assert field.name == primary or f"{word}:" in NOTATION


@pytest.mark.parametrize("word", [*KEYS, *OVERRIDES, *BUDGET])
def test_every_key_override_and_limit_is_in_the_notation(word: str) -> None:
    """The notation's page has each key of a file, each override and each limit of a budget."""
    assert f"`{word}`" in NOTATION or f"  {word}:" in NOTATION


def test_every_option_says_what_it_does() -> None:
    """No option of any command lacks its help."""
    for command in main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)

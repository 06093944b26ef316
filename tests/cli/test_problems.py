"""A problem as the command line shows it: the line, and a caret under the very character."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

import vggkit
from vggkit.base.errors import ConfigError, Position, Problem
from vggkit.cli.problems import excerpt, with_excerpt


def caret_at(text: str, column: int) -> tuple[str, str]:
    """Return the character above the caret, and the shown line; the caret is where a terminal puts it."""
    shown, caret = excerpt(Position("my.yaml", 1, column, text))
    cells = cell_len(caret) - 1
    assert caret.strip() == "^"
    before = next(index for index in range(len(shown) + 1) if cell_len(shown[:index]) == cells)
    return shown[before : before + 1], shown


def test_a_problem_is_its_message_its_line_and_a_caret() -> None:
    """Three lines, indented by four."""
    problem = Problem("wrong", Position("my.yaml", 2, 9, "blocks: x"))
    assert with_excerpt(problem) == ["my.yaml:2:9: wrong", "    blocks: x", "            ^"]


def test_a_problem_without_a_place_is_one_line() -> None:
    """As an unknown name is."""
    assert with_excerpt(Problem("wrong")) == ["wrong"]


@pytest.mark.parametrize("before", ["", "a: ", "\t", "\t\ta:\t", "日本: ", "😀 ", "é: ", "x" * 59, "x" * 60, "x" * 61])
def test_the_caret_stands_under_its_character(before: str) -> None:
    """Behind tabs, wide characters, accents, and where a long line begins to be cut."""
    char, shown = caret_at(f"{before}Q, z", len(before) + 1)
    assert char == "Q"
    assert "\t" not in shown


@pytest.mark.parametrize("filler", ["x", "日", "\t"])
def test_a_very_long_line_is_cut_around_its_place(filler: str) -> None:
    """100,000 characters: about a hundred are shown, with … where the beginning is missing."""
    char, shown = caret_at(filler * 50_000 + "Q" + filler * 50_000, 50_001)
    assert char == "Q"
    assert shown.startswith("    …")
    assert len(shown) <= 4 + 1 + 100


def test_a_place_behind_the_lines_end_has_its_caret_there() -> None:
    """Something missing is missing behind the last character."""
    assert excerpt(Position("my.yaml", 1, 4, "a: ")) == ["    a:", "       ^"]


@pytest.mark.parametrize("text", ["", "   ", "\t"])
def test_an_empty_line_is_not_shown(text: str) -> None:
    """There is nothing to point at."""
    assert excerpt(Position("my.yaml", 1, 1, text)) == []


def test_control_characters_are_not_sent_to_the_terminal() -> None:
    """An escape in a file can't colour the terminal."""
    _, shown = caret_at("\x1b[31mQ", 6)
    assert "\x1b" not in shown


@pytest.mark.parametrize("text", ["blocks: [[conv3-64, {conv: 8, kernel: Q0}]]", "日本: 1\nblocks:\n\n  - [日Q]"])
def test_the_caret_of_a_real_problem_is_under_what_is_wrong(text: str) -> None:
    """From the text through the loader to the caret."""
    with pytest.raises(ConfigError) as caught:
        vggkit.loads(text, file="my.yaml")
    for problem in caught.value.problems:
        assert problem.position is not None
        char, _ = caret_at(problem.position.text, problem.position.column)
        assert char == problem.position.text[problem.position.column - 1]

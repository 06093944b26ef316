"""Texts and lists of any kind are written so that they are read as they were."""

from __future__ import annotations

import pytest

import vggkit
from vggkit.base.errors import ConfigError
from vggkit.notation.config import Entry
from vggkit.notation.layers import (
    Conv2d,
    ReLU,
)

ODD_NAMES = ["1e4", "true", "null", "on", "---", "it's", "[x]", "{x}", "&a", "*a", "!x", "日本語", "😀", "a,b", "a\\nb"]
ODD_NAMES += ["x:", "a: b", "a #b", " a", "a ", "- a", "\u00a0x", "\u2028x"]


@pytest.mark.parametrize(
    "name",
    [*"D1~-#'\"|>%@`ä×:?", *ODD_NAMES],
)
def test_a_name_with_odd_characters_is_written_and_read_again(name: str) -> None:
    """YAML's special characters and words, quotes, other alphabets: name, source and aliases come back as they were."""
    config = vggkit.Config(name, (name, f"{name} {name}"), name, blocks=((Entry(Conv2d(3), activation=ReLU()),),))
    if not name.isprintable():
        with pytest.raises(ConfigError, match="can be printed on one line"):
            vggkit.loads(vggkit.dump(config))
        return
    assert vggkit.loads(vggkit.dump(config)) == config


def test_long_blocks_are_broken_over_lines_of_at_most_120_columns() -> None:
    """A block of many layers, and a classifier of many, goes on in the next line."""
    layer = "{conv: 512, kernel: 3x1, dilation: 6, activation: none}"
    blocks = f"[[{', '.join(['conv3-512'] * 40)}], [{', '.join([layer] * 9)}]]"
    config = vggkit.loads(f"blocks: {blocks}\nclassifier: [{', '.join(['FC-4096'] * 30)}]")
    text = vggkit.dump(config)
    assert max(map(len, text.splitlines())) <= 120
    assert vggkit.loads(text) == config

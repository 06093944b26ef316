"""What every test of memory may use: torch's own CUDA allocator on a machine without a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.footprint.card import Card, build

Cards = Callable[[str, int, str], Card]


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cards]:
    """Return a process with torch on a card, by program, the card's bytes and settings; each is started once."""
    library = build(tmp_path_factory.mktemp("card"))
    running: dict[tuple[str, int, str], Card] = {}
    with ExitStack() as stack:

        def card(player: str, card_bytes: int, settings: str = "") -> Card:
            key = (player, card_bytes, settings)
            if key not in running:
                running[key] = stack.enter_context(Card(library, *key))
            return running[key]

        yield card

"""What tests of ranks share: a card that isn't there."""

from __future__ import annotations

import pytest

from tests.footprint.card import Card, Cards
from tests.footprint.grid import ROOMY


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A rank's card with room for everything."""
    return cards("../ranks/play_card.py", ROOMY, "")

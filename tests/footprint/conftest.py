"""What every test of memory may use: torch's own CUDA allocator on a machine without a card."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.footprint.card import Cards


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cards]:
    """Return a process with torch on a card, by program, the card's bytes and settings; each is started once."""
    with Cards(tmp_path_factory.mktemp("card")) as started:
        yield started

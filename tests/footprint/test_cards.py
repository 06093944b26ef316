"""Cards by name: every spelling finds its card, and no other."""

from __future__ import annotations

import pytest

from vggkit.base.errors import ArgumentError
from vggkit.footprint.cards import CARDS, Card, card_of


@pytest.mark.parametrize("limit", ["24GiB", " 24 gib ", "25769803776 B", 24 * 2**30])
def test_a_size_is_a_card_without_a_name(limit: str | int) -> None:
    """Bytes, or a number with its unit."""
    card = card_of(limit)
    assert (card.name, card.total_bytes) == (None, 24 * 1024**3)


@pytest.mark.parametrize(
    "spelling",
    ["RTX 4090", "rtx4090", "4090", "RTX-4090", "NVIDIA GeForce RTX 4090", "geforce rtx 4090", "RTX 4090 24GB"],
)
def test_letter_case_spaces_hyphens_and_brands_dont_matter(spelling: str) -> None:
    """As people write it, and as `torch.cuda.get_device_name()` gives it."""
    assert card_of(spelling) == card_of("RTX 4090")
    assert card_of(spelling).name == "RTX 4090"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_each_card_is_found_by_its_own_name(card: Card) -> None:
    """A name belongs to one card."""
    assert card_of(card.name or "") == (card.name, card.total_bytes, card.context_bytes)


def test_a_name_of_several_cards_is_refused() -> None:
    """The A100 was sold with 40 and with 80 GB; the message has both names."""
    with pytest.raises(ArgumentError, match="several cards called 'a100'; expected 'A100-40GB' or 'A100-80GB'"):
        card_of("a100")

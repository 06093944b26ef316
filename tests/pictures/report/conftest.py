"""What tests of a report may use: the card of the tests of memory."""

from __future__ import annotations

from tests.footprint.conftest import cards

__all__ = ["cards"]

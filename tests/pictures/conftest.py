"""A browser for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import judges


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start the browser."""
    chromium = judges.program("chromium", "chromium-browser", "google-chrome")
    with judges.package("playwright.sync_api").sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()

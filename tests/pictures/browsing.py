"""A page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 720}


class Tab:
    """A page in the browser, and what went wrong or was asked for while it was there."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.file = file
        self.context = browser.new_context(**{"viewport": DESKTOP, **options})
        self.context.set_default_timeout(60_000)  # against hanging: what is waited for comes at once
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def close(self) -> None:
        """Close it; nothing may have gone wrong, and nothing have been asked for but the page and what is in it."""
        self.context.close()
        assert self.wrong == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.file.as_uri()]

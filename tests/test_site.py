"""The documentation's site: it builds without a warning, and nothing is missing in it."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import click
import pytest

import vggkit
from vggkit.cli import main

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as can be."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def sections(page: Path) -> dict[str, str]:
    """Return the text of a page's sections, by what links to them are called."""
    parts = re.split(r'<section id="([^"]+)">', page.read_text(encoding="utf-8"))
    return {name: words(unescape(re.sub(r"<[^>]+>", "", html))) for name, html in zip(parts[1::2], parts[2::2])}


def words(text: str) -> str:
    """Return a text with one space wherever there are some."""
    return " ".join(text.split())


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    """Each command has a section, and there each of its options with what it says of itself."""
    said = sections(site / "cli.html")
    for name, command in main.commands.items():
        text = said[f"vggkit-{name}"]
        assert words(command.help or "missing").split(". ")[0] in text
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert [word for word in parameter.opts if word not in text] == []
                assert words(parameter.help or "missing") in text


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """The page of the Python functions has each name that the package exports."""
    page = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in vggkit.__all__ if f'id="vggkit.{name}"' not in page] == []


def test_every_page_is_reached_from_the_first(site: Path) -> None:
    """The start page's table leads to all pages."""
    start = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" in start} == pages
    assert {page.removesuffix(".md") + ".html" for page in pages} <= {path.name for path in site.iterdir()}

"""Files, folders and patterns are the pictures that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggkit.base.errors import ArgumentError
from vggkit.classify.files import find_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of files, and go there."""
    for name in (
        "b.JPG",
        "a.png",
        "a_pred.png",
        "notes.txt",
        ".hidden.png",
        "x/d.webp",
        "x/y/c.tiff",
        ".git/e.png",
        "empty/readme.md",
        "odd[1].png",
        "data.bin",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        (["."], "a.png b.JPG odd[1].png x/d.webp x/y/c.tiff"),
        (["x"], "x/d.webp x/y/c.tiff"),
        (["*"], "a.png b.JPG odd[1].png"),
        (["**/*.*"], "a.png b.JPG odd[1].png x/d.webp x/y/c.tiff"),
        (["x/*/*"], "x/y/c.tiff"),
        (["odd[1].png"], "odd[1].png"),
        (["missing.png", "data.bin", "a_pred.png"], "missing.png data.bin a_pred.png"),
        (["b.JPG", "*.png", "./b.JPG", "."], "b.JPG a.png odd[1].png x/d.webp x/y/c.tiff"),
        ([], ""),
    ],
)
@pytest.mark.usefixtures("folder")
def test_files_folders_and_patterns_are_expanded(sources: list[str], found: str) -> None:
    """Named files stay, folders and patterns give their pictures, and each picture comes once."""
    assert [path.as_posix() for path in find_pictures(sources)] == found.split()


@pytest.mark.parametrize(
    ("source", "message"),
    [("empty", "empty: no pictures in this folder"), ("*.bmp", "*.bmp: no pictures match this pattern")],
)
@pytest.mark.usefixtures("folder")
def test_nothing_found_is_an_error(source: str, message: str) -> None:
    """A folder or a pattern without pictures is said in one line."""
    with pytest.raises(ArgumentError) as caught:
        find_pictures([source])
    assert str(caught.value) == message

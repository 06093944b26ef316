"""Files are written whole or not at all, and what is no plain file is never replaced."""

from __future__ import annotations

import io
import os
import select
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from vggkit import files


def test_a_file_is_written_as_utf_8_with_plain_line_ends(tmp_path: Path) -> None:
    """On every system."""
    files.write_text(tmp_path / "x.txt", "3×3\nä\n")
    assert (tmp_path / "x.txt").read_bytes() == "3×3\nä\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_new_file_has_the_modes_that_the_umask_leaves(tmp_path: Path) -> None:
    """Not the 0600 of a temporary file."""
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "x.txt", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) == 0o640


def test_an_old_file_is_replaced_whole(tmp_path: Path) -> None:
    """A shorter text leaves nothing of a longer one."""
    (tmp_path / "x.txt").write_text("x" * 1000)
    files.write_text(str(tmp_path / "x.txt"), "y")
    assert (tmp_path / "x.txt").read_text() == "y"


@pytest.mark.parametrize("step", ["replace", "chmod"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step fails, and for Ctrl-C as well."""
    (tmp_path / "x.txt").write_text("old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "x.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_a_missing_or_closed_folder_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller says it in a clear line."""
    with pytest.raises(FileNotFoundError):
        files.write_text(tmp_path / "absent" / "x.txt", "x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError):
        files.write_text(tmp_path / "x.txt", "x")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """The link stays a link, and what it points to has the text; one that points nowhere makes its file."""
    for target in ("there.txt", "new.txt"):
        link = tmp_path / f"link-{target}"
        link.symlink_to(tmp_path / target)
        (tmp_path / "there.txt").write_text("old")
        files.write_text(link, "new")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """As are devices: `-o /dev/null` must not replace it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_text(pipe, "text")
        assert os.read(reading, 100) == b"text"
    finally:
        os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("length", [1, 7, 512, 4095, 4096, 4097, 9000])
def test_a_pipe_is_handed_lines_in_pieces_that_it_takes_whole(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece ends behind a line break and is no larger than PIPE_BUF, unless a line alone is."""
    pieces: list[bytes] = []
    text = ("x" * length + "\n") * 50 + "ä"

    def write(_: int, piece: bytes) -> int:
        pieces.append(piece)
        return len(piece)

    monkeypatch.setattr(files.os, "write", write)
    with open(os.devnull, "w", encoding="utf-8") as stream:
        files.write_lines(stream, text)
    assert b"".join(pieces).decode() == text
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert all(len(piece) <= max(select.PIPE_BUF, length + 1) for piece in pieces)
    assert all(len(left) + len(right) > select.PIPE_BUF for left, right in pairwise(pieces))


def test_what_was_printed_before_comes_before(tmp_path: Path) -> None:
    """The stream's own buffer is flushed first; a stream in memory takes lines as well."""
    with (tmp_path / "x.txt").open("w", encoding="utf-8") as stream:
        stream.write("first\n")
        files.write_lines(stream, "second\n")
    assert (tmp_path / "x.txt").read_text() == "first\nsecond\n"
    memory = io.StringIO()
    files.write_lines(memory, "x\n")
    assert memory.getvalue() == "x\n"

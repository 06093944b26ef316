"""Files are written whole or not at all, and what is no plain file is never replaced."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from vggkit.base import files
from vggkit.base.errors import VggkitError


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


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_a_replaced_file_passes_on_its_mode(mode: int, tmp_path: Path) -> None:
    """A private file stays private, and one for a group the group's, whatever the umask."""
    path = tmp_path / "x.txt"
    path.write_text("old")
    path.chmod(mode)
    files.write_text(path, "new")
    assert (stat.S_IMODE(path.stat().st_mode), path.read_text()) == (mode, "new")


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether temporary files have no name; without them, as on macOS, they have one."""
    if not request.param:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")
    return bool(request.param)


def test_a_private_file_is_private_while_it_is_written(unnamed: bool, tmp_path: Path) -> None:
    """Nobody else can open the temporary file, and read later what is written to it."""
    path = tmp_path / "x.txt"
    path.touch(mode=0o600)
    with files.opened(path) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        assert len(list(tmp_path.iterdir())) == (1 if unnamed else 2)
        file.write(b"new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from vggkit.base import files
with files.opened(sys.argv[1]) as file:
    file.write(bytes(100_000))
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


@pytest.mark.parametrize("killed", ["SIGTERM", "SIGKILL"])
def test_what_is_killed_leaves_nothing(killed: str, tmp_path: Path) -> None:
    """A training that saves its weights has no handler that could remove a file, so the file has no name."""
    path = tmp_path / "x.txt"
    path.write_text("old")
    with files.opened(path):
        if len(list(tmp_path.iterdir())) > 1:
            pytest.skip("this file system has no files without a name")
    path.write_text("old")
    child = subprocess.run([sys.executable, "-c", KILLED, str(path), killed], timeout=600, check=False)
    assert child.returncode == -getattr(signal, killed)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path: Path) -> None:
    """The temporary file's name is no longer."""
    path = tmp_path / ("x" * 255)
    files.write_text(path, "text")
    files.write_text(path, "text")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("step", ["replace", "chmod"])
@pytest.mark.usefixtures("unnamed")
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


def test_a_missing_or_closed_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which file, and why."""
    path = tmp_path / "absent" / "x.txt"
    with pytest.raises(VggkitError, match=re.escape(f"{path}: can't be written: No such file or directory")):
        files.write_text(path, "x")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(VggkitError, match="can't be written: Permission denied"):
        files.write_text(tmp_path / "x.txt", "x")


def test_a_folder_and_a_circle_of_links_are_one_line(tmp_path: Path) -> None:
    """And stay what they are."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "circle", "Too many levels of symbolic links")):
        with pytest.raises(VggkitError, match=f"can't be written: {reason}"):
            files.write_text(path, "x")
    assert (tmp_path / "circle").is_symlink()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk would."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.usefixtures("unnamed")
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """Wherever in the file it is noticed."""
    path = tmp_path / "x.txt"
    path.write_text("old")
    with file_size_limit(100_000), pytest.raises(VggkitError, match=f"{path}: can't be written: File too large"):
        files.write_bytes(path, bytes(200_000))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "old"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """The link stays a link, and what it points to has the text; one that points nowhere makes its file."""
    for target in ("there.txt", "new.txt"):
        link = tmp_path / f"link-{target}"
        link.symlink_to(tmp_path / target)
        (tmp_path / "there.txt").write_text("old")
        files.write_text(link, "new")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"


@pytest.mark.parametrize("through", ["pipe", "link"])
def test_a_pipe_is_written_to_and_stays_one(through: str, tmp_path: Path) -> None:
    """As are devices: `-o /dev/null` must not replace it; and a link to one is the same."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_text(tmp_path / through, "text")
        assert os.read(reading, 100) == b"text"
    finally:
        os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_socket_is_one_line_and_stays_one(tmp_path: Path) -> None:
    """It can't be opened as a file."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))
        with pytest.raises(VggkitError, match="can't be written: No such device or address"):
            files.write_text(path, "text")
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_full_device_is_one_line() -> None:
    """It stays a device."""
    with pytest.raises(VggkitError, match="/dev/full: can't be written: No space left on device"):
        files.write_text("/dev/full", "text")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_an_open_file_is_written_behind_what_stands_there(tmp_path: Path) -> None:
    """`-o /dev/stdout` goes on in the file that a shell has open, as the shell does after it."""
    with open(tmp_path / "out.txt", "ab", buffering=0) as out:
        out.write(b"before\n")
        files.write_text(f"/dev/fd/{out.fileno()}", "text\n")
        out.write(b"after\n")
    assert (tmp_path / "out.txt").read_text() == "before\ntext\nafter\n"


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

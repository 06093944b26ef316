"""Writing files so that none is ever half written, and no device, pipe or socket is replaced by a file."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TextIO

from vggkit.base.errors import VggkitError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, as UTF-8, whole or not at all.

    Args:
        path: the file.
        text: its text.

    Raises:
        VggkitError: if it can't be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: the file.
        content: its bytes.

    Raises:
        VggkitError: if it can't be written.
    """
    with opened(path) as file:
        file.write(content)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file to write. It appears when the block ends well; otherwise the old file stays as it was.

    Links are followed, and a new file gets the mode of the one that it replaces. A device or a pipe is written to
    directly; it can't be read, nor written out of order.

    Args:
        path: the file.

    Raises:
        VggkitError: if it can't be written.
    """
    try:
        with open(path, "ab") if _is_stream(path) else _replacing(path) as file:
            yield file
    except OSError as error:
        raise VggkitError(f"{os.fspath(path)}: can't be written: {error.strerror or error}") from None


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path leads to a device or a pipe, or to a file that a process has open (`/dev/stdout`)."""
    mode = _mode(path)
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))  # of /dev/stdout, /dev/fd/3, /proc/self/fd/3
    return mode is not None and (not stat.S_ISREG(mode) or folder == "/dev" or folder.startswith("/proc/"))


def _mode(path: str | os.PathLike[str]) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


@contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside a file. It replaces the file if the block ends well, and is removed otherwise."""
    target = Path(os.path.realpath(path))
    mode = _mode(target)
    permissions = 0o666 if mode is None else stat.S_IMODE(mode)
    # a short name: the file's own may be as long as a name can be
    temporary = target.with_name(f".vggkit-{os.urandom(8).hex()}")
    try:  # starts here, as a signal may end the process between any two lines
        with _temporary(temporary, permissions) as file:
            unnamed = os.fstat(file.fileno()).st_nlink == 0
            if mode is not None:
                os.chmod(file.fileno() if unnamed else temporary, permissions)  # the umask may have removed some
            yield file
            file.flush()
            if unnamed:  # Python follows the link only if it is given src_dir_fd, whatever that is
                link = f"/proc/self/fd/{file.fileno()}"
                os.link(link, temporary, src_dir_fd=file.fileno(), follow_symlinks=True)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _temporary(path: Path, permissions: int) -> IO[bytes]:
    """Open a new file, without a name where that is possible: then nothing is left if the process is killed."""
    if os.path.exists("/proc/self/fd"):
        with suppress(AttributeError, OSError):  # macOS and some file systems have no O_TMPFILE
            return open(os.open(path.parent, os.O_TMPFILE | os.O_RDWR, permissions), "w+b")
    return open(path, "x+b", opener=partial(os.open, mode=permissions))


def write_lines(stream: TextIO, lines: str) -> None:
    """Write lines so that Ctrl-C falls between two of them, never into a number.

    A pipe takes up to PIPE_BUF bytes whole or not at all (POSIX, `write`), so lines go there in pieces of that size.
    Only a single line that is longer can be cut.

    Args:
        stream: the stream, such as sys.stdout.
        lines: each with its line break.
    """
    try:
        descriptor = stream.fileno()
    except OSError:  # in memory
        descriptor = -1
    if descriptor < 0 or not hasattr(select, "PIPE_BUF"):  # Windows
        stream.write(lines)
        return
    stream.flush()
    for piece in _pieces(lines.encode(stream.encoding, stream.errors or "strict"), select.PIPE_BUF):
        written = 0
        while written < len(piece):  # anything but a pipe may take a part
            written += os.write(descriptor, piece[written:])


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    """Cut content after line breaks into pieces of at most `size` bytes; a longer line is a piece of its own."""
    start = 0
    while start < len(content):
        end = content.rfind(b"\n", start, start + size) + 1 if len(content) - start > size else len(content)
        end = end or content.find(b"\n", start) + 1 or len(content)
        yield content[start:end]
        start = end

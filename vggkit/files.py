"""Writing files so that nothing is ever half written."""

from __future__ import annotations

import os
import select
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, as UTF-8, whole or not at all.

    Args:
        path: where to.
        text: what.

    Raises:
        OSError: if the folder is not there or can't be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: where to.
        content: what.

    Raises:
        OSError: if the folder is not there or can't be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():  # a device or a pipe is written to, never replaced
        target.write_bytes(content)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file beside a file, which takes its place if the block ends well, and else is removed.

    Args:
        path: the file to be written or replaced.

    Raises:
        OSError: if the folder is not there or can't be written.
    """
    target = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_lines(stream: TextIO, lines: str) -> None:
    """Write lines so that Ctrl-C falls between two of them, never into a number.

    A pipe takes up to PIPE_BUF bytes whole or not at all (POSIX, `write`), so lines go there in pieces of that size.
    Only a single line that is longer can be cut.

    Args:
        stream: where to, such as sys.stdout.
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
    """Cut content behind line breaks into pieces of up to so many bytes; a longer line is a piece of its own."""
    start = 0
    while start < len(content):
        end = content.rfind(b"\n", start, start + size) + 1 if len(content) - start > size else len(content)
        end = end or content.find(b"\n", start) + 1 or len(content)
        yield content[start:end]
        start = end


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

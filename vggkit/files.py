"""Writing files so that nothing is ever half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

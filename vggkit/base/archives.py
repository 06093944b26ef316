"""Zip archives of tensors, opened only if that takes little memory."""

from __future__ import annotations

import os
import zipfile
from typing import BinaryIO

from vggkit.base.errors import CheckpointError, escaped, shorten

MOST_DIRECTORY = 2**23
"""Largest header, pickle or archive directory that is read, in bytes. D's has under 10,000."""


def open_archive(path: str) -> zipfile.ZipFile:
    """Open a zip archive, if its directory is small enough to read and names each member once.

    Raises:
        CheckpointError: if it is too large, or a name is there twice.
        zipfile.BadZipFile: if it is damaged.
    """
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 2**16 - 22))
        tail = file.read()
    record = tail.rfind(b"PK\x05\x06")
    size = tail[record + 12 : record + 16]
    if tail[record - 20 : record - 16] == b"PK\x06\x07":  # for archives over 4 GB the record stands before this one
        size = tail[record - 36 : record - 28]
    directory = int.from_bytes(size, "little") if record >= 0 else 0
    if directory > MOST_DIRECTORY:
        raise CheckpointError(
            f"{escaped(path)}: expected an archive of a few tensors, found a directory of {directory:,} bytes"
        )
    archive = zipfile.ZipFile(path)
    outside = next((info for info in archive.infolist() if info.compress_size > end), None)
    if outside is not None:  # zipfile would ask for so much memory before it reads
        archive.close()
        raise CheckpointError(
            f"{escaped(path)}: {shorten(outside.filename)} claims {outside.compress_size:,} bytes, in a file of {end:,}"
        )
    names = archive.namelist()
    if len(set(names)) < len(names):
        archive.close()
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise CheckpointError(f"{escaped(path)}: there are two members named {shorten(twice)}")
    return archive


def place_in(file: BinaryIO, member: zipfile.ZipInfo) -> int | None:
    """Return where a member's bytes begin, behind a header whose length is in itself; None if there is no header.

    Args:
        file: the archive.
        member: of it.
    """
    file.seek(member.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04" or len(header) < 30:
        return None
    return member.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))

"""Reads an HDF5 file in a process of its own, under limits: `python rehearsal.py FILE MEMBER LARGEST`.

On damaged bytes the HDF5 library itself may loop for ever, crash or take all memory, and raises nothing. So all that
will be read of a file is first read here. The reason for a refusal is printed in one line. This module imports nothing
of ours, so that it can run isolated.
"""

from __future__ import annotations

import os
import sys
import zipfile
from contextlib import suppress
from math import prod
from typing import Any

import h5py

REFUSED = 3
"""The exit status for a file that must not be opened."""

MOST_MEMORY = 400 * 10**6
"""Bytes beyond those of the libraries."""
MOST_SECONDS = 5
BYTES_A_SECOND = 2e7
"""Of processor time: MOST_SECONDS, and a second more for this many bytes of the file."""

MOST_OBJECTS = 20_000
MOST_DEPTH = 64
MOST_CHUNKS = 100_000
FILTERS = {1, 2, 3, 32000}
"""deflate, shuffle, fletcher32 and lzf. Source: the filters registered with the HDF Group."""


def limit(path: str) -> None:
    """Limit this process's memory and processor time, where the system can do that."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        seconds = int(MOST_SECONDS + os.path.getsize(path) / BYTES_A_SECOND)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with open("/proc/self/statm", encoding="ascii") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def rehearse(path: str, member: str, largest: int) -> None:
    """Read a file's structure, its attributes and its compressed values.

    Args:
        path: the file.
        member: the HDF5 file's name if the file is an archive; empty if it is HDF5 itself.
        largest: bytes of the largest attribute that is read.

    Raises:
        ValueError: if something in it is elsewhere, missing, or more than a checkpoint has.
    """
    with h5py.File(zipfile.ZipFile(path).open(member) if member else path, "r") as file:
        count = 0

        def follow(name: bytes, link: Any) -> str | None:
            """Return what is wrong with a name, which ends the walk; the library can't pass exceptions on."""
            nonlocal count
            count += 1
            if link.type != h5py.h5l.TYPE_HARD:
                return f"{_told(name)} lies in another file or place, which is not read"
            if count > MOST_OBJECTS:
                return f"expected up to {MOST_OBJECTS:,} groups and tensors, found more"
            if name.count(b"/") > MOST_DEPTH:
                return f"expected up to {MOST_DEPTH} groups in one another, found more"
            if h5py.h5o.get_info(file.id, name).rc > 1:
                return f"{_told(name)} has several names"
            return None

        wrong = file.id.links.visit(follow, info=True)
        if wrong is not None:
            raise ValueError(wrong)
        _read_attributes(file, largest)
        file.visititems(lambda name, thing: _read(name, thing, largest))


def _read(name: str | bytes, thing: Any, largest: int) -> None:
    _read_attributes(thing, largest)
    if not isinstance(thing, h5py.Dataset) or not thing.size:
        return
    if thing.external or thing.is_virtual:
        raise ValueError(f"{_told(name)} lies in another file, which is not read")
    if thing.chunks is None:
        # what lies in one piece is copied and can't go wrong
        if thing.id.get_storage_size() < thing.nbytes:
            raise ValueError(f"{_told(name)} claims {thing.nbytes:,} bytes and has no values")
        return
    properties = thing.id.get_create_plist()
    filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
    if not FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
        raise ValueError(f"{_told(name)} is compressed in an unknown way")
    chunks = prod(-(-side // step) for side, step in zip(thing.shape, thing.chunks))
    if chunks > MOST_CHUNKS or thing.id.get_num_chunks() != chunks:
        raise ValueError(f"{_told(name)} claims {thing.nbytes:,} bytes and has not all of its values")
    for selection in thing.iter_chunks():
        thing[selection]  # unpacked one at a time, in little memory


def _read_attributes(thing: Any, largest: int) -> None:
    for name in thing.attrs:
        attribute = thing.attrs.get_id(name)
        size = attribute.dtype.itemsize * prod(attribute.shape)
        if size > largest:
            raise ValueError(f"the attribute {_told(name)} claims {size:,} bytes")
        value = thing.attrs[name]
        if attribute.dtype.kind == "O":  # texts of any length, which may all be the same in the file
            texts = [value] if isinstance(value, (str, bytes)) else list(getattr(value, "flat", []))
            if sum(len(text) for text in texts if isinstance(text, (str, bytes))) > largest:
                raise ValueError(f"the attribute {_told(name)} has more than {largest:,} bytes")


def _told(name: str | bytes) -> str:
    text = ascii(name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name)
    return text if len(text) <= 60 else f"{text[:59]}…"


def main(path: str, member: str, largest: int) -> int:
    """Rehearse under limits; return the exit status, and print what is wrong."""
    limit(path)
    try:
        rehearse(path, member, largest)
    except Exception as error:  # a stranger's file can make the library raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.stdout.buffer.write((lines[0] if lines else type(error).__name__).encode("ascii", "backslashreplace"))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

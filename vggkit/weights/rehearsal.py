"""Reads all that is read of an HDF5 file, in a process of its own: `python rehearsal.py FILE MEMBER LARGEST`.

On damaged bytes the HDF5 library itself may loop for ever or crash, which no exception tells. It imports nothing of
ours, so that it can run isolated.
"""

from __future__ import annotations

import sys
import zipfile
from typing import Any

import h5py


def _read(thing: Any, largest: int) -> None:
    for name in thing.attrs:
        attribute = thing.attrs.get_id(name)
        size = attribute.dtype.itemsize
        for side in attribute.shape:
            size *= side
        if size <= largest:  # others are refused unread
            thing.attrs[name]
    if isinstance(thing, h5py.Dataset) and thing.chunks is not None and not thing.external:
        thing[...]  # what lies in one piece is copied and can't go wrong; chunks are unpacked


def rehearse(path: str, member: str, largest: int) -> None:
    """Read a file's structure, its attributes and its compressed values.

    Args:
        path: the file.
        member: the HDF5 file's name if the file is an archive; empty if it is HDF5 itself.
        largest: bytes of the largest attribute that is read.
    """
    with h5py.File(zipfile.ZipFile(path).open(member) if member else path, "r") as file:
        _read(file, largest)
        file.visititems(lambda _, thing: _read(thing, largest))


if __name__ == "__main__":
    rehearse(sys.argv[1], sys.argv[2], int(sys.argv[3]))

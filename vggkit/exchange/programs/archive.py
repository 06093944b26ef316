"""A zip archive as torch writes it: everything in one folder, values as they lie in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from math import prod

from vggkit.base.archives import open_archive, place_in
from vggkit.base.errors import escaped, shorten
from vggkit.base.shapes import Shape, times
from vggkit.exchange.files import MOST_TEXT, content_of
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.values import STORED, Values, in_file, unknown

MOST_AXES = 64
"""As torch allows."""


class Archive:
    """An open archive.

    Args:
        path: the file.

    Raises:
        CheckpointError: if its directory is too large, or harmful.
        MalformedError: if it is none of torch's.
        OSError: if it can't be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._content = content_of(path)
        try:
            self.zip = open_archive(path)
        except zipfile.BadZipFile:
            raise MalformedError("expected an archive of torch's, found other bytes") from None
        names = self.zip.namelist()
        self.root = f"{names[0].partition('/')[0]}/" if names and "/" in names[0] else ""
        if not all(name.startswith(self.root) for name in names):
            self.root = ""
        self.names = frozenset(name.removeprefix(self.root) for name in names)

    def has(self, name: str) -> bool:
        """Tell whether it has a member."""
        return name in self.names

    def text(self, name: str) -> bytes:
        """Return the content of a member that is small.

        Raises:
            MalformedError: if there is none, or it is large.
        """
        info = self._info(name)
        if max(info.file_size, info.compress_size) > MOST_TEXT:
            raise MalformedError(f"{self._told(name)} has {info.file_size:,} bytes")
        return self.zip.read(info)

    def content(self, name: str) -> memoryview:
        """Return the bytes of a member, which are read when they are looked at.

        Raises:
            MalformedError: if there is none, or it is compressed.
        """
        info = self._info(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise MalformedError(f"{self._told(name)} is compressed or encrypted, which torch doesn't do")
        with open(self.path, "rb") as file:
            begin = place_in(file, info)
        if begin is None or begin + info.file_size > len(self._content):
            raise MalformedError(f"{self._told(name)} lies outside of the file")
        return self._content[begin : begin + info.file_size]

    def is_little_endian(self) -> bool:
        """Tell whether its numbers begin with their lowest byte."""
        return not self.has("byteorder") or self.text("byteorder") == b"little"

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self.names:
            raise MalformedError(f"expected {self._told(name)} in it, found none")
        return self.zip.getinfo(self.root + name)

    @staticmethod
    def _told(name: str) -> str:
        return escaped(shorten(name).strip("'"))


def view(content: memoryview, shape: Shape, strides: Sequence[int], offset: int, dtype: str) -> Values:
    """Return a tensor whose values lie somewhere in a row of them.

    Args:
        content: the bytes of the row; none if the file has no values.
        shape: of the tensor.
        strides: the distances between neighbours along each axis, in elements.
        offset: the element of the row at which it begins.
        dtype: torch's name of it, one of STORED.

    Raises:
        MalformedError: if it is larger than the row, or reaches beyond it.
    """
    import numpy

    if dtype not in STORED:
        raise MalformedError(f"expected numbers of {', '.join(STORED)}, found {escaped(shorten(dtype))}")
    sizes = (*shape, *strides, offset)
    if len(shape) != len(strides) or len(shape) > MOST_AXES or not all(0 <= size < 2**63 for size in sizes):
        raise MalformedError(f"expected a tensor's shape and strides, found {shorten(shape)} and {shorten(strides)}")
    if not len(content):
        return unknown(shape)
    item = numpy.dtype(STORED[dtype]).itemsize
    span = 0 if 0 in shape else 1 + sum((size - 1) * step for size, step in zip(shape, strides))
    if (offset + span) * item > len(content) or prod(shape) > span:
        raise MalformedError(
            f"expected {times(shape) or 'one'} values with strides {shorten([*strides])} from {offset:,} on, found"
            f" {len(content) // item:,}"
        )
    row = in_file(content[offset * item : (offset + span) * item], (span,), dtype)
    steps = tuple(strides)

    def load() -> numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]:
        flat = row.load()
        return numpy.lib.stride_tricks.as_strided(
            flat, shape, [step * flat.itemsize for step in steps], writeable=False
        )

    return Values(shape, row.dtype, load)

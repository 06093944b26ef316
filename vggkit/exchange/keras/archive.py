"""A `.keras` archive: the layers as JSON, and the weights as HDF5."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import Any

from vggkit.base import hdf5
from vggkit.base.archives import open_archive
from vggkit.base.errors import CheckpointError, escaped

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
"""Its members. Source: keras/src/saving/saving_lib.py."""

MOST_JSON = 2**22
"""Bytes of the largest description that is read. D's has under 20,000."""

NO_WEIGHTS = "vggkit: none"
"""Under `weights` in the metadata, where the weights in a file are only there so that Keras opens it."""


class KerasArchive:
    """An open archive.

    Args:
        path: where it is.

    Raises:
        CheckpointError: if it is too large to be one.
        zipfile.BadZipFile: if it is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.path.getsize(path)
        """Bytes."""
        self._zip = open_archive(path)

    def json(self, member: str) -> Any:
        """Return what a member says; None if there is no such member."""
        if member not in self._zip.namelist():
            return None
        info = self._zip.getinfo(member)
        if info.file_size > MOST_JSON:
            raise self._wrong(f"{member} claims {info.file_size:,} bytes")
        with self._zip.open(info) as file:
            content = file.read(MOST_JSON + 1)
        try:
            return json.loads(content)  # Keras writes Infinity, which only this reads
        except RecursionError:
            raise self._wrong(f"{member} is nested too deeply") from None
        except ValueError as error:
            raise self._wrong(f"{member} is no JSON: {escaped(str(error))[:80]}") from None

    @property
    def has_weights(self) -> bool:
        """Whether the weights in it are somebody's."""
        metadata = self.json(METADATA)
        return not isinstance(metadata, dict) or metadata.get("weights") != NO_WEIGHTS

    def check_stored(self) -> None:
        """Refuse weights that are compressed.

        Raises:
            CheckpointError: if they are.
            KeyError: if there are none.
        """
        info = self._zip.getinfo(WEIGHTS)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:  # each step back would unpack all of it
            raise self._wrong(
                f"its {WEIGHTS} is compressed, which Keras doesn't do; unpack it, and pack it again with `zip -0`"
            )

    def rehearse(self) -> None:
        """Read the weights in another process first.

        Raises:
            CheckpointError: if they are compressed.
            KeyError: if there are none.
            ValueError: if they can't be read.
        """
        self.check_stored()
        hdf5.rehearse(self.path, WEIGHTS)

    def weights(self) -> Any:
        """Return the weights as an open HDF5 file, which is empty if they are nobody's."""
        import h5py

        return h5py.File(self._zip.open(WEIGHTS), "r") if self.has_weights else h5py.File(io.BytesIO(), "w")

    def _wrong(self, what: str) -> CheckpointError:
        return CheckpointError(f"{escaped(self.path)}: {what}")

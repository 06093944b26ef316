"""Keras's kind of file."""

from __future__ import annotations

import zipfile
from typing import IO

from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, ModelFile, Written
from vggkit.exchange.keras.archive import KerasArchive
from vggkit.exchange.keras.reading import imported
from vggkit.exchange.keras.writing import IMAGE, KERAS_VERSION, write
from vggkit.exchange.messages import MalformedError


class Keras(ModelFile):
    """An archive of `model.save`; without weights all kernels are 0 when Keras opens it."""

    title = "Keras"
    ending = ".keras"
    takes_weights = True
    needs_weights = False

    def read(self, given: Given) -> Imported:
        try:
            archive = KerasArchive(given.path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):  # zipfile raises all three
            raise MalformedError("expected an archive that Keras's model.save writes, found other bytes") from None
        return imported(archive, given)

    def write(self, file: IO[bytes], written: Written) -> str:
        layers = write(file, written)
        return f"Keras {KERAS_VERSION}, input {IMAGE}, output {layers[-1].name}"

"""ONNX's kind of file."""

from __future__ import annotations

from typing import IO

from vggkit.base.errors import LayerError
from vggkit.exchange import messages
from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, ModelFile, Written, message_in
from vggkit.exchange.onnx.graph import MOST_BYTES
from vggkit.exchange.onnx.reading import imported
from vggkit.exchange.onnx.schema import MODEL
from vggkit.exchange.onnx.writing import interface, model_of


class Onnx(ModelFile):
    """A graph of operations; without weights each tensor of the network is an input of it."""

    title = "ONNX"
    ending = ".onnx"
    takes_weights = True
    needs_weights = False

    def read(self, given: Given) -> Imported:
        return imported(message_in(given.path, MODEL, "a model of ONNX"), given)

    def write(self, file: IO[bytes], written: Written) -> str:
        model = model_of(written)
        pieces = messages.serialized(model)
        if (size := messages.size_of(pieces)) > MOST_BYTES:
            raise LayerError(f"an ONNX file has at most {MOST_BYTES:,} bytes, and this one would have {size:,}")
        messages.write(file, pieces)
        return interface(model)

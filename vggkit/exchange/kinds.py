"""Every kind of file that networks are exchanged in."""

from __future__ import annotations

import os

from vggkit.base.errors import ArgumentError, file_name
from vggkit.exchange.caffe.files import CaffeModel, Prototxt
from vggkit.exchange.files import ModelFile
from vggkit.exchange.keras.files import Keras
from vggkit.exchange.onnx.files import Onnx
from vggkit.exchange.programs.files import ExportedProgram

MODEL_FILES: dict[str, ModelFile] = {
    kind.ending: kind for kind in (Onnx(), ExportedProgram(), Keras(), Prototxt(), CaffeModel())
}
"""Every kind, by the ending of its files."""


def kind_of_file(path: str | os.PathLike[str]) -> ModelFile | None:
    """Return the kind of a file by its ending; None if it is none of these."""
    return MODEL_FILES.get(os.path.splitext(os.fspath(path))[1].lower())


def kind_asked_for(path: str | os.PathLike[str]) -> ModelFile:
    """Return the kind of a file by its ending.

    Raises:
        ArgumentError: if it is none of these.

    >>> kind_asked_for("deploy.prototxt").title
    "Caffe's prototxt"
    """
    kind = kind_of_file(path)
    if kind is None:
        raise ArgumentError(f"{file_name(path)}: expected a file that ends in {', '.join(MODEL_FILES)}")
    return kind

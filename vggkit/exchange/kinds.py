"""Every kind of file that networks are exchanged in."""

from __future__ import annotations

import os

from vggkit.base.errors import ArgumentError, file_name
from vggkit.exchange.caffe.files import CaffeModel, Prototxt
from vggkit.exchange.files import ModelFile, ReadableFile
from vggkit.exchange.keras.files import Keras
from vggkit.exchange.onnx.files import Onnx
from vggkit.exchange.programs.files import ExportedProgram, TorchScript, is_torch_script

MODEL_FILES: dict[str, ModelFile] = {
    kind.ending: kind for kind in (Onnx(), ExportedProgram(), Keras(), Prototxt(), CaffeModel())
}
"""Every kind that is read and written, by the ending of its files."""


ENDINGS = ", ".join(MODEL_FILES)


def kind_of_file(path: str | os.PathLike[str]) -> ReadableFile | None:
    """Return the kind of a file by its ending, or TorchScript by what is in it; None if it is none of these."""
    by_ending = MODEL_FILES.get(_ending(path))
    return by_ending or (TorchScript() if is_torch_script(path) else None)


def _ending(path: str | os.PathLike[str]) -> str:
    return os.path.splitext(os.fspath(path))[1].lower()


def kind_asked_for(path: str | os.PathLike[str]) -> ReadableFile:
    """Return the kind of a file that is to be read.

    Raises:
        ArgumentError: if it is none of these.

    >>> kind_asked_for("deploy.prototxt").title
    "Caffe's prototxt"
    """
    kind = kind_of_file(path)
    if kind is None:
        inspected = "; of a checkpoint, `vggkit inspect` says which network it is of" * os.path.exists(path)
        raise ArgumentError(f"{file_name(path)}: expected a file that ends in {ENDINGS}, or TorchScript{inspected}")
    return kind


def kind_to_write(path: str | os.PathLike[str]) -> ModelFile:
    """Return the kind of a file that is to be written, by its ending.

    Raises:
        ArgumentError: if it is none of these.

    >>> kind_to_write("deploy.prototxt").title
    "Caffe's prototxt"
    """
    kind = MODEL_FILES.get(_ending(path))
    if kind is None:
        raise ArgumentError(f"{file_name(path)}: expected a file that ends in {ENDINGS}")
    return kind

"""torch's kinds of files."""

from __future__ import annotations

import os
from typing import IO

from vggkit.base.errors import VggkitError
from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, ModelFile, ReadableFile, Written
from vggkit.exchange.programs import exported, script
from vggkit.exchange.programs.archive import Archive
from vggkit.exchange.programs.writing import interface, program_of


class ExportedProgram(ModelFile):
    """What `torch.export.save` writes."""

    title = "torch's exported program"
    ending = ".pt2"
    takes_weights = True
    needs_weights = False

    def read(self, given: Given) -> Imported:
        return exported.imported(given)

    def write(self, file: IO[bytes], written: Written) -> str:
        program = program_of(written)
        program.write(file)
        return interface(program)


class TorchScript(ReadableFile):
    """What `torch.jit.save` writes, whatever its ending: .pt, .pth, .ts."""

    title = "TorchScript"
    takes_weights = True

    def read(self, given: Given) -> Imported:
        return script.imported(given)


def is_torch_script(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is TorchScript; False if it can't be read."""
    if not os.path.isfile(path):  # a pipe is read once
        return False
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return False
        return script.is_script(Archive(os.fspath(path)))
    except (OSError, ValueError, NotImplementedError, VggkitError):  # zipfile has the third for what it can't unpack
        return False  # whoever reads it says what is wrong

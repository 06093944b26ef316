"""torch's kinds of files."""

from __future__ import annotations

from typing import IO

from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given, ModelFile, Written
from vggkit.exchange.programs.exported import imported
from vggkit.exchange.programs.writing import interface, program_of


class ExportedProgram(ModelFile):
    """What `torch.export.save` writes."""

    title = "torch's exported program"
    ending = ".pt2"
    takes_weights = True
    needs_weights = False

    def read(self, given: Given) -> Imported:
        return imported(given)

    def write(self, file: IO[bytes], written: Written) -> str:
        program = program_of(written)
        program.write(file)
        return interface(program)

"""A file of TorchScript → layers with their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vggkit.base.errors import LayerError, TooSmallError
from vggkit.base.pickles import TensorRecord
from vggkit.base.shapes import Shape, times
from vggkit.exchange.chain import Chain, Imported, likely_sides
from vggkit.exchange.files import Given
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.programs.archive import Archive
from vggkit.exchange.programs.calls import BATCH, Recorder, add_layers
from vggkit.exchange.programs.code import Code
from vggkit.exchange.programs.interpreter import Budget, Interpreter, Module
from vggkit.exchange.programs.objects import Pickles, ScriptObject
from vggkit.exchange.values import MisfitError
from vggkit.notation.config import Config
from vggkit.notation.preprocess import LARGEST_SIDE

PROGRAM, CONSTANTS, INPUTS = "data.pkl", "constants.pkl", "traced_inputs.pkl"
MOST_OBJECTS = 100_000
MOST_TRIES = 20
"""Sizes of images for which a program is followed, where it does not say its own."""


def is_script(archive: Archive) -> bool:
    """Tell whether an archive has TorchScript in it."""
    return archive.has(CONSTANTS) and archive.has(PROGRAM)


def imported(given: Given) -> Imported:
    """Read a network from TorchScript.

    Raises:
        MalformedError: if it is no such file.
        LayerError: if it can't be followed, is no chain, or has an operation that no layer of a configuration is.
    """
    archive = Archive(given.path)
    if not is_script(archive):
        raise MalformedError("expected TorchScript, as torch.jit.save writes it")
    if not archive.is_little_endian():
        raise MalformedError("expected little-endian values, found big-endian ones")
    pickles = Pickles(archive)
    program, constants = pickles.read(PROGRAM), pickles.read(CONSTANTS)
    if not isinstance(program, ScriptObject) or not isinstance(constants, tuple):
        raise MalformedError("expected a module of TorchScript, found something else in its data.pkl")
    code, budget = Code(archive), Budget()
    error: LayerError | None = None
    tried: Chain | None = None
    tries = 0
    for shape in _images(given, pickles, program, constants):
        if tried is not None and not tried.may_be_for(shape[1:]):
            continue
        if (tries := tries + 1) > MOST_TRIES:
            break
        recorder, tried = Recorder(shape), Chain(shape[1:])
        try:
            interpreter = Interpreter(code, pickles, constants, recorder, budget)
            add_layers(recorder, interpreter.run(Module("", program), "forward", [recorder.image]), tried)
        except (TooSmallError, MisfitError) as found:
            error = error or found
            continue
        network, tensors = tried.network(given.stem)
        is_said = given.image is not None or archive.has(INPUTS)
        notes = [f"it does not say the size of its images: {times(tried.image)} fits; --input says another"]
        return Imported(network, tensors, () if is_said else tuple(notes))
    raise LayerError(f"{error}" + "; --input says the size of its images" * (given.image is None))


def _images(given: Given, pickles: Pickles, program: ScriptObject, constants: Any) -> Iterator[Shape]:
    """Yield batches of images that a program may be for: what is said, what it was traced with, or what fits."""
    traced = _traced(pickles)
    batch = traced[0] if traced else BATCH
    if given.image is not None:
        yield (batch, *given.image)
    elif traced:
        yield traced
    else:
        if given.likely is not None:
            yield (batch, *given.likely)
        channels = next(_channels([program, *constants]), Config("").input[0])
        for side in likely_sides():
            yield batch, channels, side, side


def _traced(pickles: Pickles) -> Shape | None:
    """Return the shape of the images that a program was traced with; None if it is not known."""
    inputs = pickles.read(INPUTS)
    found = inputs.get("forward") if isinstance(inputs, dict) else None
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, TensorRecord) or len(first.shape) != 4:
        return None
    batch, channels, *sizes = first.shape
    is_small = 1 <= batch <= 2**10 and 1 <= channels <= 2**20 and all(1 <= size <= LARGEST_SIDE for size in sizes)
    return first.shape if is_small else None


def _channels(waiting: list[Any]) -> Iterator[int]:
    """Yield how many channels the first convolutions take, as their weights tell it."""
    seen = 0
    while waiting and seen < MOST_OBJECTS:
        seen += 1
        one = waiting.pop(0)
        if isinstance(one, TensorRecord) and len(one.shape) == 4 and 1 <= one.shape[1] <= 2**20:
            yield one.shape[1]
        elif isinstance(one, ScriptObject):
            waiting = [*one.attributes.values(), *waiting]

"""A program's operations on the values that come from its image, and the layers that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.shapes import Shape, times
from vggkit.exchange.chain import Chain
from vggkit.exchange.programs.moves import Move, layer_of_moves, moves_of
from vggkit.exchange.values import Values
from vggkit.modules.aten import Padding, Read, read_recorded
from vggkit.modules.steps import Called, chain, local_response_norm

BATCH = 2
"""Images, where a program takes any number: with more than one, what mixes them up shows."""

MOST_CALLS = 10_000

HANDED_ON = ("alias", "clone", "contiguous", "detach", "detach_", "lift_fresh_copy", "to", "_to_copy")
"""What returns the values as they are, unless it changes their format."""

FLOAT32 = 6
"""The number of this format in c10/core/ScalarType.h."""

SCALED = ("add", "div", "mul", "pow", "sub")
"""What computes values of the shape that they had, as in the parts of a local response normalisation."""


@dataclass
class Cell:
    """Memory that several values may lie in.

    Args:
        version: how often it was overwritten.
    """

    version: int = 0


class Value(NamedTuple):
    """What an operation made of the image.

    Args:
        number: 0 for the image, n for the output of the n-th operation.
        shape: the batch included; None if it is not known.
        cell: where it lies.
        version: of the cell, when it was made.
    """

    number: int
    shape: Shape | None
    cell: Cell
    version: int = 0


COMPUTED = object()
"""Stands for what a program computes without its image, and for tensors that are not in the file."""


class Call(NamedTuple):
    """An operation on a value that comes from the image.

    Args:
        path: of the module that does it, as the file has it; empty for the outermost.
        op: its name in ATen.
        args: with values in them.
        kwargs: the same.
        sources: the numbers of the values.
        shape: of the first of them, the batch included; None if it is not known.
        stale: whether one of the values had been overwritten.
        where: its place in the file, for messages.
    """

    path: str
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sources: tuple[int, ...]
    shape: Shape | None
    stale: bool
    where: str

    @property
    def name(self) -> str:
        """What it is called, with its place."""
        op = escaped(shorten(self.op).strip("'"))
        return f"{op} in {self.where}" if self.where else op

    def behind(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return its arguments behind its input.

        Raises:
            LayerError: if its input stands elsewhere.
        """
        if self.args:
            args, kwargs = self.args[1:], dict(self.kwargs)
            first = self.args[0]
        else:
            args, kwargs = (), {word: value for word, value in self.kwargs.items() if word not in ("self", "input")}
            first = self.kwargs.get("self", self.kwargs.get("input"))
        if not isinstance(first, Value) or len(self.sources) != 1:
            raise LayerError("it takes its input as something else than values")
        if any(arg is COMPUTED for arg in (*args, *kwargs.values())):
            raise LayerError("its weights or numbers are computed as it runs, or missing; expected those of the file")
        return args, kwargs

    def called(self) -> Called:
        """Return it as operations that belong together are compared."""
        args = tuple(arg for arg in self.args if not isinstance(arg, Value))
        return Called(self.op, args, self.sources, self.shape or ())


def values_in(arguments: Sequence[Any]) -> list[Value]:
    """Return the values of a program in arguments, and in lists among these, in order."""
    found: list[Value] = []
    for one in arguments:
        inner = one if isinstance(one, list) else [one]
        found += [value for value in inner if isinstance(value, Value)]
    return found


class Recorder:
    """Notes the operations of a program as it is followed.

    Args:
        shape: of the images, the batch included.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.calls: list[Call] = []
        self.image = Value(0, shape, Cell())

    def call(self, path: str, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> Value:
        """Note an operation.

        Args:
            path: of the module that does it.
            op: its name in ATen; one that ends in _ overwrites its input.
            args: at least one of these, or of `kwargs`, is a value.
            kwargs: arguments by their names.
            where: its place, for messages.

        Returns:
            What it makes.
        """
        taken = values_in([*args, *kwargs.values()])
        stale = any(value.version != value.cell.version for value in taken)
        first = taken[0]
        formats = [arg for arg in (*args, kwargs.get("dtype")) if type(arg) is int]
        if op in HANDED_ON and len(taken) == 1 and not stale and all(one == FLOAT32 for one in formats):
            return first
        if len(self.calls) >= MOST_CALLS:
            raise LayerError(f"expected at most {MOST_CALLS:,} operations, found more")
        sources = tuple(value.number for value in taken)
        call = Call(path, op, tuple(args), kwargs, sources, first.shape, stale, where)
        self.calls.append(call)
        shape, is_view = _output(call)
        if op.endswith("_") and not op.startswith("_"):
            first.cell.version += 1
            is_view = True
        cell = first.cell if is_view else Cell()
        return Value(len(self.calls), shape, cell, cell.version)


def _output(call: Call) -> tuple[Shape | None, bool]:
    """Return the shape of what an operation makes, None if it is not known, and whether that may lie in its input."""
    if call.op.removesuffix("_") in SCALED:
        return call.shape, False
    with suppress(LayerError):
        args, kwargs = call.behind()
        if call.shape is None:
            sizes = args[0] if call.op == "view" and args else None
            known = isinstance(sizes, (list, tuple)) and all(type(size) is int and size > 0 for size in sizes)
            return (tuple(sizes) if known and sizes else None), True
        moves = moves_of(call.op, call.shape, args, kwargs)
        if moves is not None:
            return moves[-1].shape, True
        found = read_recorded(call.op, call.shape[1:], args, kwargs)
        batch, *x = call.shape
        if isinstance(found, Padding):
            (height, width), (channels, *sizes) = found.pads, x
            return (batch, channels, sizes[0] + 2 * height, sizes[1] + 2 * width), False
        for one in found:
            x = [*one.layer.output_shape(tuple(x))]
        return (batch, *x), not found
    return None, True


# Layers


def add_layers(recorder: Recorder, output: Any, network: Chain) -> None:
    """Add the layers that a program's operations are.

    Args:
        recorder: has the operations.
        output: what the program returns.
        network: where to.

    Raises:
        LayerError: if they form no chain, or are no layers; says where.
    """
    if not isinstance(output, Value):
        raise LayerError("expected one tensor as its output, made of its image")
    if output.version != output.cell.version:
        raise LayerError("its output was overwritten in place")
    adder = _Adder(network, recorder.shape[0])
    for call in chain(_joined(recorder.calls), output.number):
        try:
            adder.add(call)
        except LayerError as error:
            why = str(error) or f"no layer of a configuration does that for an input of {times(network.shape)}"
            raise type(error)(f"{call.name}: {why}") from None
    adder.settle()


def _joined(calls: Sequence[Call]) -> list[Call]:
    """Return operations in which a function that a program has as several is one."""
    called = [call.called() for call in calls]
    found = [*calls]
    for number, call in enumerate(calls, start=1):
        if together := local_response_norm(called, number):
            source, shape, args = together
            value = Value(source, shape, Cell())
            op = "local_response_norm"
            found[number - 1] = call._replace(op=op, args=(value, *args), kwargs={}, sources=(source,), shape=shape)
    return found


class _Adder:
    """Adds layers one behind the other."""

    def __init__(self, network: Chain, batch: int) -> None:
        self.network, self.batch = network, batch
        self.moves: list[Move] = []
        self.mover: Call | None = None
        self.padding: Padding | None = None
        self.padder: Call | None = None
        self.users: dict[int, Call] = {}

    def add(self, call: Call) -> None:
        args, kwargs = call.behind()
        if call.shape is None:
            raise LayerError("the shape of its input is not known")
        moves = moves_of(call.op, call.shape, args, kwargs)
        if moves is not None:
            self.moves += moves
            self.mover = call
            return
        self.settle_moves()
        found = read_recorded(call.op, self.network.shape, args, kwargs)
        if isinstance(found, Padding):
            self.settle()
            self.padding, self.padder = found, call
            return
        for one in found:
            whole = self.padding.joined(one) if self.padding else one
            self.padding = None
            self.add_layer(call, whole)

    def add_layer(self, call: Call, one: Read) -> None:
        if one.layer.needs_flat and len(self.network.shape) == 3:
            raise LayerError(f"its input is {times(self.network.shape)}; expected flat features")
        for role, tensor in one.tensors.items():
            if not isinstance(tensor, Values):
                raise LayerError(f"its {role} is no tensor of the file")
            # statistics and shifts that are equal may be in a file once
            first = self.users.setdefault(id(tensor), call) if one.layer.is_weight_layer and role == "weight" else call
            if first is not call:
                raise LayerError(
                    f"its weight is that of {first.name} again; expected weights of its own for each layer"
                )
        self.network.add(call.path or call.op, one.layer, one.tensors)

    def settle(self) -> None:
        """Refuse a padding that is before no convolution, and have a flattening be a layer."""
        if self.padding is not None and self.padder is not None:
            raise LayerError(f"{self.padder.name}: it pads maps, and no convolution comes next")
        self.settle_moves()

    def settle_moves(self) -> None:
        if not self.moves or self.mover is None:
            return
        if self.padding is not None:
            self.settle()
        layer = layer_of_moves(self.moves, self.network.shape, self.batch)
        if layer is not None:
            self.network.add(self.mover.path or "flatten", layer)
        self.moves = []

"""Operations one behind the other: which of them lead to a result, and what several are together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape


class Operation(Protocol):
    """An operation on values that come from the image."""

    @property
    def name(self) -> str:
        """What it is called, with its place."""

    @property
    def sources(self) -> tuple[int, ...]:
        """The numbers of the values that it takes: 0 for the image, n for the output of the n-th operation."""

    @property
    def stale(self) -> bool:
        """Whether one of the values had been overwritten."""


Some = TypeVar("Some", bound=Operation)


def chain(operations: Sequence[Some], output: int) -> list[Some]:
    """Return the operations that lead to a value.

    Args:
        operations: all of them, in the order in which they run.
        output: the number of the value.

    Raises:
        LayerError: if they form no chain.
    """
    needed, waiting = {0}, [output]
    while waiting:
        if (number := waiting.pop()) not in needed:
            needed.add(number)
            waiting += operations[number - 1].sources
    found = [operation for number, operation in enumerate(operations, start=1) if number in needed]
    for operation in found:
        if len(operation.sources) > 1:
            taken = [operations[n - 1].name if n else "the image" for n in dict.fromkeys(operation.sources)]
            several = " and ".join(taken[:2]) if len(taken) > 1 else f"{taken[0]} several times"
            several += f" and {len(taken) - 2} more" if len(taken) > 2 else ""
            raise LayerError(
                f"{operation.name} takes {several}; a network here is a chain, each layer feeding only the next"
            )
        if operation.stale:
            raise LayerError(f"{operation.name} takes a value that was overwritten in place before")
    return found


class Called(NamedTuple):
    """An operation as it is called.

    Args:
        op: its name in ATen.
        args: what it takes besides values that come from the image, in order.
        sources: the numbers of these.
        shape: of the first of these, the batch included.
    """

    op: str
    args: tuple[Any, ...]
    sources: tuple[int, ...]
    shape: Shape


class Together(NamedTuple):
    """Operations that are a function of `torch.nn.functional` together.

    Args:
        source: the number of the value that they take.
        shape: of that value, the batch included.
        args: of the function, behind that value.
    """

    source: int
    shape: Shape
    args: tuple[Any, ...]


NORMALIZING = ("mul", "view", "pad", "avg_pool3d", "squeeze", "view", "mul", "add", "pow", "div")
"""The operations of torch/nn/functional.py's `local_response_norm`: x / (k + alpha · mean of x² over channels)^beta."""


def local_response_norm(called: Sequence[Called | None], last: int) -> Together | None:
    """Return the local response normalisation that operations are together; None if they are none.

    Args:
        called: all operations; None for one that is no part of any.
        last: the number of the one that divides.
    """
    found: list[Called] = []
    number = last
    for op in reversed(NORMALIZING):
        one = called[number - 1] if number else None
        if one is None or one.op != op:
            return None
        found.insert(0, one)
        number = one.sources[-1]
    squared, layered, padded, averaged, squeezed, back, scaled, added, power, divided = found
    batch, channels, height, width = shape = squared.shape if len(squared.shape) == 4 else (0, 0, 0, 0)
    source = squared.sources[0]
    with suppress(ValueError, TypeError, IndexError):  # other arguments than torch's function has
        (alpha,), (k,), (beta,), (size, *one_place) = scaled.args, added.args, power.args, averaged.args[0]
        if (
            (squared.sources, divided.sources) == ((source, source), (source, divided.sources[1]))
            and [*layered.args[0]] in ([batch, 1, channels, height, rest] for rest in (-1, width))
            and [*padded.args[0]] == [0, 0, 0, 0, size // 2, (size - 1) // 2]
            and (one_place, [*averaged.args[1]], squeezed.args) == ([1, 1], [1, 1, 1], (1,))
            and [*back.args[0]] == [*shape]
        ):
            return Together(source, shape, (size, alpha, beta, k))
    return None

"""Many whole numbers at once: a rule that is written for one number works for all of them.

The rules of layers and the walk through a training step add and multiply channels. Sometimes they ask a question: is
this 1? Do the groups divide it? `Many` does the arithmetic on numpy arrays, so that one walk answers for thousands of
networks. If the answer to a question is not the same for all, `Many` raises `Disagreement`, which says which numbers
answer alike. Whoever started the walk then starts it again for each part. So the figures always come from the rules
themselves, whatever the rules ask.

To a type checker `Many` is a kind of int. The numbers come in through the options of layers (`Conv2d.out_channels`).
A type of its own would have to appear in every option, shape, row and total of the package, although only a search
has many numbers. At run time it is not an int, because C code would read a single value from an int. An operation
that `Many` has no method for raises a TypeError; it never answers for one of the numbers alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    _Number = int
else:
    _Number = object

Number = TypeVar("Number", int, float)

Values = Any
"""An array of int64, of Python's own integers where those might be too small, or of floats."""

LARGEST_INT64 = 2**63 - 1


class Disagreement(Exception):  # noqa: N818  # a signal
    """The answer to a question is not the same for all.

    Args:
        labels: a number for each, equal for those that answer alike.
    """

    def __init__(self, labels: Values) -> None:
        super().__init__(labels)
        self.labels = labels


class Many(_Number):
    """Many numbers that are treated as one.

    Args:
        values: the numbers.
        bound: no absolute value is larger.
    """

    __slots__ = ("bound", "values")

    def __init__(self, values: Values, bound: int) -> None:
        self.values = values
        self.bound = bound

    def __repr__(self) -> str:
        return f"{self.values.min()} … {self.values.max()}"

    def __add__(self, other: int) -> Many:
        return _combined(np.add, operator.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: int) -> Many:
        return _combined(np.subtract, operator.add, self, other)

    def __rsub__(self, other: int) -> Many:
        return _combined(np.subtract, operator.add, other, self)

    def __mul__(self, other: int) -> Many:
        return _combined(np.multiply, operator.mul, self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> Many:
        return _combined(np.floor_divide, max, self, other)

    def __mod__(self, other: int) -> Many:
        return _combined(np.remainder, max, self, other)

    def __divmod__(self, other: int) -> tuple[Many, Many]:
        return self // other, self % other

    def __neg__(self) -> Many:
        return 0 - self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Many, int, float)) and _agreed(self.values == _values(other))

    def __lt__(self, other: int) -> bool:
        return _agreed(self.values < _values(other))

    def __le__(self, other: int) -> bool:
        return _agreed(self.values <= _values(other))

    def __gt__(self, other: int) -> bool:
        return _agreed(self.values > _values(other))

    def __ge__(self, other: int) -> bool:
        return _agreed(self.values >= _values(other))

    def __bool__(self) -> bool:
        return _agreed(self.values != 0)

    def __index__(self) -> int:
        """Return the number, if all are the same; raise Disagreement if not."""
        numbers, labels = np.unique(self.values, return_inverse=True)
        if len(numbers) > 1:
            raise Disagreement(labels)
        return int(numbers[0])

    __int__ = __index__

    def __hash__(self) -> int:
        return hash(int(self))

    def bit_length(self) -> int:
        """Return the number of bits, if all numbers are the same; raise Disagreement if not."""
        return int(self).bit_length()


def many(numbers: Sequence[Number]) -> Number:
    """Return numbers as one value; as a plain number if they are all the same.

    >>> many([64, 64]), many([64, 32]) * 3
    (64, 96 … 192)
    """
    if all(number == numbers[0] for number in numbers):
        return numbers[0]
    bound = int(max(map(abs, numbers))) + 1
    return Many(np.array(numbers, dtype=object if bound > LARGEST_INT64 else None), bound)


def largest(numbers: Iterable[int]) -> int:
    """Return the largest of numbers; of several `Many`, the largest at each position.

    >>> largest([many([1, 5]), 3, many([2, 0])])
    3 … 5
    """
    return reduce(_larger, numbers)


def listed(number: Number, count: int) -> list[Number]:
    """Return a list of plain numbers; a number that is only one is repeated.

    >>> listed(many([64, 32]), 2), listed(7, 2)
    ([64, 32], [7, 7])
    """
    return list(number.values.tolist()) if isinstance(number, Many) else [number] * count


def _larger(left: int, right: int) -> int:
    if isinstance(left, Many) or isinstance(right, Many):
        return _combined(np.maximum, max, left, right)
    return max(left, right)


def _combined(operation: Any, bound: Callable[[int, int], int], left: Any, right: Any) -> Many:
    """Combine numbers by an operation; `bound` says how large the result may be, given how large the operands are."""
    size = bound(_bound(left), _bound(right))
    if size > LARGEST_INT64:  # the bounds of many differences add up to too much: look at the numbers themselves
        size = bound(_largest(left), _largest(right))
    values = _values(left), _values(right)
    if size > LARGEST_INT64:
        values = _exact(values[0]), _exact(values[1])
    return Many(operation(*values), size)


def _agreed(answers: Values) -> bool:
    """Return the answer, if all give the same; raise Disagreement if not."""
    if answers.all():
        return True
    if not answers.any():
        return False
    raise Disagreement(answers.astype(int))


def _values(number: Any) -> Values:
    return number.values if isinstance(number, Many) else number


def _bound(number: Any) -> int:
    return number.bound if isinstance(number, Many) else abs(number)


def _largest(number: Any) -> int:
    return int(max(abs(number.values.max()), abs(number.values.min()))) if isinstance(number, Many) else abs(number)


def _exact(values: Values) -> Values:
    """Return Python's own integers, which can't overflow."""
    return values.astype(object) if isinstance(values, np.ndarray) else values

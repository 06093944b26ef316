"""The types of a layer's options: a Python type, annotated with the values that are allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from vggkit.base.shapes import Pair

LARGEST = 10**18
"""No number in a configuration is larger; sums and products of them may be."""


class Allowed(msgspec.Struct, frozen=True):
    """What values a field may have, beyond their Python type.

    It does the work of msgspec.Meta, which can crash the interpreter when it exits (msgspec's issue 717).

    Args:
        description: the allowed values in words, for messages and the schema.
        minimum: the smallest, of each number.
        above: an excluded lower bound.
        below: an excluded upper bound.
        maximum: the largest.
    """

    description: str
    minimum: int | None = None
    above: int | None = None
    below: int | None = None
    maximum: int | None = None

    def admits(self, value: Any) -> bool:
        """Tell whether a value, or each one inside a tuple, is finite and within the bounds."""
        if isinstance(value, tuple):
            return all(map(self.admits, value))
        return not isinstance(value, (int, float)) or (
            -LARGEST <= value <= LARGEST
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.maximum is None or value <= self.maximum)
        )


Count = Annotated[int, Allowed("a whole number from 1", minimum=1)]
Size = Annotated[Pair, Allowed("a whole number from 1, or height × width as in 3x1", minimum=1)]
Padding = Annotated[Pair, Allowed("a whole number from 0, or height × width as in 1x0", minimum=0)]
PaddingOrSame = Annotated[
    Pair | Literal["same"], Allowed("same, a whole number from 0, or height × width as in 1x0", minimum=0)
]
CountByWidth = Annotated[
    int | tuple[Pair, ...], Allowed("a whole number from 1, or one for each width as in {64: 4, 128: 8}", minimum=1)
]
Number = Annotated[float, Allowed("a number")]
Positive = Annotated[float, Allowed("a number above 0", above=0)]
Rate = Annotated[float, Allowed("a number from 0 to below 1", minimum=0, below=1)]
Flag = Annotated[bool, Allowed("true or false")]

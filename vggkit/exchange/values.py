"""The values of tensors in a file: their shape and type are known, and they are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape, elements, times
from vggkit.exchange.messages import MalformedError, Packed

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MisfitError(LayerError):
    """Values that do not have the shape that their layer's have."""


class Values(NamedTuple):
    """A tensor of a file.

    Args:
        shape: of the tensor.
        dtype: torch's name of it.
        load: returns them in this shape, perhaps as a view of the file.
        is_known: whether the file has them; else only their shape is known, and they can't be loaded.
    """

    shape: Shape
    dtype: str
    load: Callable[[], NDArray[Any]]
    is_known: bool = True

    def turned(self) -> Values:
        """Return a matrix with its axes exchanged."""
        return Values(self.shape[::-1], self.dtype, lambda: self.load().T, self.is_known)

    def shaped(self, shape: Shape) -> Values:
        """Return the same values in another shape, which differs in sizes of 1 alone.

        Raises:
            MisfitError: if they have more or fewer, or another shape.
        """
        if tuple(size for size in self.shape if size != 1) != tuple(size for size in shape if size != 1):
            raise MisfitError(f"expected weights of {times(shape)}, found {times(self.shape)}")
        return Values(shape, self.dtype, lambda: self.load().reshape(shape), self.is_known)


Tensors = Mapping[tuple[str, str], Values]
"""A network's tensors, by the names of their layer and torch's names."""

STORED = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8", "int32": "<i4",
    "int16": "<i2", "int8": "|i1", "uint8": "|u1", "bool": "|b1",
}  # fmt: skip
"""How numpy calls what lies in a file, by torch's names; bfloat16, which it does not have, as the bits of each."""


def in_file(content: memoryview, shape: Shape, dtype: str) -> Values:
    """Return the values that lie somewhere in a file.

    Args:
        content: their bytes.
        shape: of the tensor.
        dtype: torch's name of it, one of STORED.

    Raises:
        MalformedError: if these are too many bytes, or too few.
    """
    import numpy

    kind = numpy.dtype(STORED[dtype])
    if len(content) != elements(shape) * kind.itemsize:
        raise MalformedError(
            f"expected {elements(shape) * kind.itemsize:,} bytes for {times(shape)} values, found {len(content):,}"
        )
    if dtype == "bfloat16":  # the upper half of the float32 that it is
        return Values(
            shape,
            "float32",
            lambda: (numpy.frombuffer(content, kind).astype("<u4") << 16).view("<f4").reshape(shape),
        )
    return Values(shape, dtype, lambda: numpy.frombuffer(content, kind).reshape(shape))


def listed(pieces: Sequence[Any], numbers: Callable[[], Sequence[Any]], shape: Shape, dtype: str) -> Values:
    """Return the values that a message lists.

    Args:
        pieces: of the message's field; numbers that are stored together are read where they lie.
        numbers: returns them one by one.
        shape: of the tensor.
        dtype: torch's name of it, one of STORED but bfloat16.

    Raises:
        MalformedError: if there are too many, or too few.
    """
    if dtype in ("float32", "float64") and len(pieces) == 1 and isinstance(pieces[0], Packed):
        return in_file(pieces[0].content, shape, dtype)
    found = numbers()
    if len(found) != elements(shape):
        raise MalformedError(f"expected {elements(shape):,} values, found {len(found):,}")

    def load() -> NDArray[Any]:
        import numpy

        if dtype == "float16":  # as the bits of each
            return numpy.array(found, numpy.uint16).view(numpy.float16).reshape(shape)
        return numpy.array(found, dtype).reshape(shape)

    return Values(shape, dtype, load)


def unknown(shape: Shape) -> Values:
    """Return values that the file does not have."""

    def load() -> NDArray[Any]:
        raise MalformedError("the file has no weights")

    return Values(shape, "float32", load, is_known=False)


def constant(value: float, shape: Shape) -> Values:
    """Return values that are all the same."""

    def load() -> NDArray[Any]:
        import numpy

        return numpy.full(shape, value, numpy.float32)

    return Values(shape, "float32", load)

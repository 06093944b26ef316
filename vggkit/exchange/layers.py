"""What several tools say alike of layers."""

from __future__ import annotations

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.shapes import Shape
from vggkit.notation.layers import AdaptiveAvgPool2d, AvgPool2d, Dropout, GlobalAvgPool2d, Layer, MaxPool2d


def told(name: str, kind: str) -> str:
    """Return the name and the type of what is refused, for messages."""
    return escaped(f"{shorten(name).strip(chr(39))} ({shorten(kind).strip(chr(39))})")


def dropout(rate: float, word: str) -> Dropout:
    """Return a dropout with a rate that a file says.

    Args:
        rate: the part of values that is dropped.
        word: the file's word for it.

    Raises:
        LayerError: if there is no such rate.
    """
    if not 0 <= rate < 1:
        raise LayerError(f"{word}: expected a number from 0 to below 1, found {rate:g}")
    return Dropout(rate)


def largest(x: Shape) -> MaxPool2d:
    """Return the pool that takes the largest value of each whole map.

    Args:
        x: the maps, channels × height × width.
    """
    return MaxPool2d((x[1], x[2]), stride=(1, 1))


def with_windows(layer: AdaptiveAvgPool2d, x: Shape) -> Layer | None:
    """Return the average over windows of one size that is an average to a given size; None if that does not divide.

    Args:
        layer: the average to a given size.
        x: its input, channels × height × width.
    """
    (rows, columns), (height, width) = layer.output_size, x[1:]
    if (rows, columns) == (1, 1):
        return GlobalAvgPool2d()
    if height % rows or width % columns:
        return None
    window = height // rows, width // columns
    return AvgPool2d(window, stride=window)

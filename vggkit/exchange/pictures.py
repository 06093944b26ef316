"""What a model does to pictures before its first layer: a configuration's `preprocess`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vggkit.base.shapes import Pair, times
from vggkit.exchange.messages import Real
from vggkit.notation.preprocess import CHANNELS, Preprocess, parse_preprocess


class Preparation:
    """What was done to pictures so far: (x/scale − mean)/std, on pictures of a size.

    Args:
        channels: of a picture.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.scale = 1.0
        self.mean, self.std = [0.0] * channels, [1.0] * channels
        self.sizes: dict[str, str] = {}
        self.is_known = False
        """Whether anything was done."""

    def rescale(self, scale: Any, offset: Any) -> None:
        """Multiply values, and then add to them.

        Args:
            scale: a number, or one for each channel.
            offset: as `scale`.

        Raises:
            ValueError: if they are no such numbers.
        """
        scales, offsets = self._each(scale), self._each(offset)
        if min(scales) <= 0:
            raise ValueError(f"expected scales above 0, found {min(scales)}")
        if len({*scales}) == 1 and self.std == [1.0] * self.channels:
            self.scale /= scales[0]
            self.mean = [mean * scales[0] - offset for mean, offset in zip(self.mean, offsets)]
        else:
            self.std = [std / one for std, one in zip(self.std, scales)]
            self.mean = [mean - offset * std for mean, offset, std in zip(self.mean, offsets, self.std)]
        self.is_known = True

    def normalize(self, mean: Any, variance: Any) -> None:
        """Subtract means, and divide by the roots of variances."""
        variances = self._each(variance)
        if min(variances) <= 0:
            raise ValueError(f"expected variances above 0, found {min(variances)}")
        self.mean = [before + one * std for before, one, std in zip(self.mean, self._each(mean), self.std)]
        self.std = [std * one**0.5 for std, one in zip(self.std, variances)]
        self.is_known = True

    def resize(self, word: str, size: Pair, **others: str) -> None:
        """Note a size that pictures are resized or cropped to."""
        self.sizes |= {word: times(size).replace("×", "x"), **others}
        self.is_known = True

    def preprocess(self) -> Preprocess | None:
        """Return it as a configuration says it; None if nothing was done.

        Raises:
            ValueError: if it can't.
        """
        if not self.is_known:
            return None
        colour = {CHANNELS["rgb"]: "rgb", CHANNELS["grey"]: "grey"}.get(self.channels)
        if colour is None:
            raise ValueError(f"expected pictures of 1 or 3 channels, found {self.channels}")
        numbers = {
            "scale": _rounded(self.scale),
            "mean": [*map(_rounded, self.mean)],
            "std": [*map(_rounded, self.std)],
        }
        return parse_preprocess({**self.sizes, **numbers, "colour": colour})

    def _each(self, value: Any) -> Sequence[float]:
        """Return a number for each channel; arrays in JSON may have axes of one value."""
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        values = value if isinstance(value, list) else [value] * self.channels
        if len(values) != self.channels or not all(type(one) in (int, float) and abs(one) < 1e9 for one in values):
            raise ValueError(f"expected a number for each of {self.channels} channels")
        return [float(one) for one in values]


def _rounded(number: float) -> float:
    return Real().read(str(number))  # in single precision 1/(1/255) is 255 again

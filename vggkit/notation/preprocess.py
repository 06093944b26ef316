"""The `preprocess` of a configuration: how a picture becomes the network's input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from vggkit.base.errors import did_you_mean, shorten

Sides = int | tuple[int, int]
"""The shorter side, or height × width."""

CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
"""The orders of colour, and how many channels each has."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


class Preprocess(msgspec.Struct, frozen=True, kw_only=True):
    """How a picture becomes a network's input.

    Args:
        resize: the shorter side, or the exact height × width; None leaves the size as it is.
        crop: height × width cut from the centre after that, one number for a square; None cuts nothing.
        scale: values from 0 to 255 are divided by it.
        mean: subtracted from each channel after that, in the order of `colour`.
        std: divides each channel after that.
        colour: "rgb", "bgr" or "grey".
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
    """

    resize: Sides | None = None
    crop: Sides | None = None
    scale: float = 255.0
    mean: tuple[float, ...]
    std: tuple[float, ...]
    colour: str = "rgb"
    interpolation: str = "bilinear"


_TORCHVISION = Preprocess(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

PRESETS: dict[str, Preprocess] = {
    "torch": _TORCHVISION,
    "timm": _TORCHVISION,
    "keras": Preprocess(
        resize=(224, 224),
        scale=1.0,
        mean=(103.939, 116.779, 123.68),
        std=(1.0, 1.0, 1.0),
        colour="bgr",
        interpolation="nearest",
    ),
}
"""What each library does to pictures for its own VGG weights."""

LARGEST_SIDE = 65536
LARGEST_NUMBER = 1e9
"""Larger means, and scales below its inverse, leave the range of float32."""


def parse_preprocess(value: Any) -> Preprocess:
    """Read the `preprocess` of a configuration.

    Args:
        value: the name of a preset, or a mapping of the fields of `Preprocess`; sizes are numbers or `240x240`,
            a mean or std may be one number for every channel, and what is absent or null keeps its default.

    Returns:
        The typed value.

    Raises:
        ValueError: names the key, what was expected and what was found.

    >>> parse_preprocess({"crop": "240x320", "std": 0.5}).std
    (0.5, 0.5, 0.5)
    """
    presets = ", ".join(PRESETS)
    if isinstance(value, str):
        if value not in PRESETS:
            advice = did_you_mean(value, PRESETS)
            raise ValueError(f"expected {presets}, found {shorten(value)}{'.' if advice else ''}{advice}")
        return PRESETS[value]
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {presets} or options such as {{crop: 224}}, found {shorten(value)}")
    keys = [field.name for field in msgspec.structs.fields(Preprocess)]
    for key in value:
        if key not in keys:
            advice = did_you_mean(str(key), keys) or f" Known: {', '.join(keys)}"
            raise ValueError(f"unknown key {shorten(key)}.{advice}")

    def said(key: str, read: Callable[[Any], Any], default: Any) -> Any:
        try:
            return default if value.get(key) is None else read(value[key])
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    colour = said("colour", _one_of(*CHANNELS), "rgb")
    channels = CHANNELS[colour]
    return Preprocess(
        resize=said("resize", _sides, None),
        crop=said("crop", _sides, None),
        scale=said("scale", _divisor, 255.0),
        mean=said("mean", lambda found: _each(found, channels, _number), (0.0,) * channels),
        std=said("std", lambda found: _each(found, channels, _divisor), (1.0,) * channels),
        colour=colour,
        interpolation=said("interpolation", _one_of(*INTERPOLATIONS), "bilinear"),
    )


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            advice = did_you_mean(value, choices) if isinstance(value, str) else ""
            raise ValueError(f"expected {', '.join(choices)}, found {shorten(value)}{'.' if advice else ''}{advice}")
        return value

    return read


def _sides(value: Any) -> Sides:
    pair = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", value) if isinstance(value, str) else None
    sides = [int(side) for side in pair.groups()] if pair else [value]
    if not all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides):
        expected = f"a whole number from 1 to {LARGEST_SIDE}, or height × width as in 240x240"
        raise ValueError(f"expected {expected}, found {shorten(value)}")
    return (sides[0], sides[1]) if pair else sides[0]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST_NUMBER:
        raise ValueError(
            f"expected a number from -{LARGEST_NUMBER:.0e} to {LARGEST_NUMBER:.0e}, found {shorten(value)}"
        )
    return float(value)


def _divisor(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"expected a number above 0, found {shorten(value)}")
    if not 1 / LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        expected = f"a number from {1 / LARGEST_NUMBER:.0e} to {LARGEST_NUMBER:.0e}"
        raise ValueError(f"expected {expected}, found {shorten(value)}")
    return float(value)


def _each(value: Any, channels: int, read: Callable[[Any], float]) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        return (read(value),) * channels
    if len(value) != channels:
        numbers = "1 number" if channels == 1 else f"{channels} numbers, one for each channel"
        raise ValueError(f"expected {numbers}, found {shorten(list(value))}")
    return tuple(read(number) for number in value)


def spell_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    """Write a `Preprocess` as plain values; `parse_preprocess` reads them back as they were.

    >>> spell_preprocess(PRESETS["keras"])["resize"], spell_preprocess(PRESETS["keras"])["std"]
    ('224x224', [1, 1, 1])
    """

    def whole(number: float) -> int | float:
        return int(number) if number == int(number) else number

    sizes = {"resize": preprocess.resize, "crop": preprocess.crop}
    said = {key: size for key, size in sizes.items() if size is not None}
    return {
        **{key: size if isinstance(size, int) else "x".join(map(str, size)) for key, size in said.items()},
        "scale": whole(preprocess.scale),
        "mean": [whole(number) for number in preprocess.mean],
        "std": [whole(number) for number in preprocess.std],
        "colour": preprocess.colour,
        "interpolation": preprocess.interpolation,
    }

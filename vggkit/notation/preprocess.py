"""How a picture becomes a network's input: read, resized, cropped, scaled, and normalised.

Every step rounds as torchvision's, timm's and Keras's do, so that weights see the input they were trained for.
"""

from __future__ import annotations

import contextlib
import glob
import math
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vggkit.base.errors import ArgumentError, VggkitError, did_you_mean, shorten

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import Image

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
"""What the libraries do in front of their own VGG weights."""


class PictureError(VggkitError):
    """A picture that can't be read, or not at the size that is asked for."""


# Reading and writing what a file says


LARGEST_SIDE = 65536
LARGEST_NUMBER = 1e9
"""Larger means, and scales below its inverse, leave the range of float32."""


def parse_preprocess(value: Any) -> Preprocess:
    """Read how pictures are prepared.

    Args:
        value: the name of a preset, or a mapping of the fields of `Preprocess`; sizes are numbers or `240x240`,
            a mean or std may be one number for every channel, and what is absent or null keeps its default.

    Returns:
        The typed value.

    Raises:
        ValueError: says the key, what was expected and what was found.

    >>> parse_preprocess({"crop": "240x320", "std": 0.5}).std
    (0.5, 0.5, 0.5)
    """
    if isinstance(value, str):
        return _preset(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {_names()} or options such as {{crop: 224}}, found {shorten(value)}")
    for key in value:
        if key not in _KEYS:
            advice = did_you_mean(str(key), _KEYS) or f" Known: {', '.join(_KEYS)}"
            raise ValueError(f"unknown key {shorten(key)}.{advice}")
    said = {key: value[key] for key in _KEYS if value.get(key) is not None}
    colour = _said(said, "colour", _one_of(*CHANNELS), "rgb")
    channels = CHANNELS[colour]
    return Preprocess(
        resize=_said(said, "resize", _sides, None),
        crop=_said(said, "crop", _sides, None),
        scale=_said(said, "scale", _divisor, 255.0),
        mean=_said(said, "mean", lambda found: _each(found, channels, _number), (0.0,) * channels),
        std=_said(said, "std", lambda found: _each(found, channels, _divisor), (1.0,) * channels),
        colour=colour,
        interpolation=_said(said, "interpolation", _one_of(*INTERPOLATIONS), "bilinear"),
    )


_KEYS = tuple(field.name for field in msgspec.structs.fields(Preprocess))


def _preset(name: str) -> Preprocess:
    if name not in PRESETS:
        raise ValueError(f"expected {_names()}, found {shorten(name)}.{did_you_mean(name, PRESETS)}".removesuffix("."))
    return PRESETS[name]


def _names() -> str:
    return ", ".join(PRESETS)


def _said(said: Mapping[str, Any], key: str, read: Callable[[Any], Any], default: Any) -> Any:
    if key not in said:
        return default
    try:
        return read(said[key])
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


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
    """Write how pictures are prepared as plain values; `parse_preprocess` reads them back as they were.

    >>> spell_preprocess(PRESETS["keras"])["resize"], spell_preprocess(PRESETS["keras"])["std"]
    ('224x224', [1, 1, 1])
    """
    said: dict[str, Any] = {}
    for key in ("resize", "crop"):
        sides = getattr(preprocess, key)
        if sides is not None:
            said[key] = sides if isinstance(sides, int) else "x".join(map(str, sides))
    return {
        **said,
        "scale": _whole(preprocess.scale),
        "mean": [_whole(number) for number in preprocess.mean],
        "std": [_whole(number) for number in preprocess.std],
        "colour": preprocess.colour,
        "interpolation": preprocess.interpolation,
    }


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number


# Pictures


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are read: Pillow reads more, but some of those run other programs."""

_SILENCE = threading.Lock()


def check_there(path: str | os.PathLike[str]) -> None:
    """Check that a picture is a file.

    Raises:
        PictureError: if it is none.
    """
    if not os.path.isfile(path):
        reason = "not a file" if os.path.exists(path) else "no such file"
        raise PictureError(f"{printable(os.fspath(path))}: {reason}")


MOST_PIXELS = 50_000_000
"""A picture has no more, nor have all that threads look at together: 400 MB, as some of them are copied once."""

STRIP_PIXELS = 2**20
"""So many pixels are converted at once where that takes several times their memory."""


def open_picture(path: str | os.PathLike[str], colour: str = "rgb") -> Image.Image:
    """Read a picture as it is meant to be seen: upright, its first frame, on white where it is transparent.

    Args:
        path: a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM file.
        colour: "grey" for one channel; "rgb" and "bgr" for three, which here are in the order RGB.

    Returns:
        The picture in Pillow's mode "L" or "RGB".

    Raises:
        PictureError: if it can't be read; in one line, with the file and the reason.
    """
    with _picture(path, colour) as image:
        return image


@contextmanager
def _picture(path: str | os.PathLike[str], colour: str) -> Iterator[Image.Image]:
    """Give a picture, as `open_picture` does; other threads wait while there is no memory for theirs beside it."""
    name = printable(os.fspath(path))
    if not os.path.isfile(path):
        raise PictureError(f"{name}: {'not a file' if os.path.exists(path) else 'no such file'}")
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with _opened(path) as image:
            _check_depth(image)
            # these are held more than twice while they are decoded
            weight = 2 if image.format == "WEBP" or image.mode == "CMYK" or "progressive" in image.info else 1
            if weight * image.width * image.height > _most_pixels():
                raise PictureError(f"too large; expected at most {_most_pixels() // weight:,} pixels")
            with _AT_ONCE.taking(weight * image.width * image.height):
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                yield _flat(image, colour)
    except UnidentifiedImageError:
        raise PictureError(f"{name}: not a picture; expected JPEG, PNG, WebP, BMP, GIF, TIFF or PPM") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"{name}: too large; expected at most {_most_pixels():,} pixels") from None
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None
    except PermissionError as error:
        raise PictureError(f"{name}: {error.strerror}") from None
    except Exception as error:  # Pillow's decoders let through whatever a damaged file brings about
        reason = shorten(str(error) or type(error).__name__, 120)[1:-1]
        raise PictureError(f"{name}: the picture is cut off or damaged ({reason})") from None


def _most_pixels() -> int:
    from PIL import Image

    return min(MOST_PIXELS, Image.MAX_IMAGE_PIXELS or MOST_PIXELS)


class _Budget:
    """An amount of something that threads take from and give back.

    Args:
        size: how much there is.
    """

    def __init__(self, size: int) -> None:
        self.free = size
        self.changed = threading.Condition()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Hold an amount while the block runs, as soon as it is there."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            with self.changed:
                self.free += amount
                self.changed.notify_all()


_AT_ONCE = _Budget(MOST_PIXELS)


def _opened(path: str | os.PathLike[str]) -> Image.Image:
    from PIL import Image

    with _SILENCE, warnings.catch_warnings():  # which warnings are shown is the whole process's, hence the lock
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def printable(name: str) -> str:
    """Return a file's name as it may stand in a one-line message."""
    return name if name.isprintable() else repr(name)


def _flat(image: Image.Image, colour: str) -> Image.Image:
    """Return a picture of any mode without transparency, in 8 bits and the mode for a colour."""
    if image.mode.startswith("I"):
        image = _by_strips(image, "L", _eight_bits)
    if _transparent(image):
        image = _by_strips(image, "RGB", _on_white)
    mode = "L" if colour == "grey" else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _by_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture, some rows at a time."""
    from PIL import Image

    whole = Image.new(mode, image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        whole.paste(convert(image.crop(box)), box)
    return whole


def _transparent(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode[-1] in "Aa"


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy
    from PIL import Image

    values = numpy.asarray(image).astype(numpy.int64).clip(0)
    transparent = values == image.info.get("transparency")
    flat = numpy.where(transparent, 255, (values + 128) // 257)
    return Image.fromarray(flat.astype(numpy.uint8))


def _check_depth(image: Image.Image) -> None:
    """Refuse a picture whose white nobody knows: Pillow's modes of 16 and 32 bits hold other depths too."""
    from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

    bits = 32 if image.mode == "F" else 16
    if isinstance(image, TiffImageFile) and image.mode.startswith("I"):
        bits = image.tag_v2[BITSPERSAMPLE][0]
    if bits != 16:
        raise PictureError(f"{bits} bits a channel; expected 8 or 16")


def to_array(image: Image.Image, preprocess: Preprocess) -> NDArray[numpy.float32]:
    """Turn a picture into a network's input.

    Args:
        image: of any size; where it is smaller than the crop, black is added around it.
        preprocess: how.

    Returns:
        channels × height × width.

    Raises:
        PictureError: if the resized picture would be larger than any picture that may be read.
    """
    import numpy

    image = _resized(_flat(image, preprocess.colour), preprocess)
    if preprocess.crop is not None:
        image = _cropped(image, preprocess.crop)
    pixels = numpy.asarray(image, dtype=numpy.float32)
    channels = pixels.reshape(image.height, image.width, -1).transpose(2, 0, 1)
    if preprocess.colour == "bgr":
        channels = channels[::-1]
    array = numpy.array(channels, order="C")
    array /= numpy.float32(preprocess.scale)
    array -= numpy.array(preprocess.mean, dtype=numpy.float32)[:, None, None]
    array /= numpy.array(preprocess.std, dtype=numpy.float32)[:, None, None]
    return array


def _resized(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    from PIL.Image import Resampling

    if preprocess.resize is None:
        return image
    height, width = _resized_sides(image.height, image.width, preprocess.resize)
    _check_size(height, width)
    return image.resize((width, height), Resampling[preprocess.interpolation.upper()])


def _resized_sides(height: int, width: int, resize: Sides) -> Iterable[int]:
    if not isinstance(resize, int):
        return resize
    longer = int(resize * max(height, width) / min(height, width))  # in torchvision's order, which rounds
    return (longer, resize) if width <= height else (resize, longer)


def _cropped(image: Image.Image, crop: Sides) -> Image.Image:
    height, width = (crop, crop) if isinstance(crop, int) else crop
    _check_size(height, width)
    top, left = _offset(image.height, height), _offset(image.width, width)
    return image.crop((left, top, left + width, top + height))


def _offset(side: int, crop: int) -> int:
    """Return where a crop begins, rounded as torchvision does; before the picture where it is padded."""
    return -((crop - side) // 2) if crop > side else round((side - crop) / 2)


def _check_size(height: int, width: int) -> None:
    if height * width > _most_pixels():
        limit = f"expected at most {_most_pixels():,} pixels"
        raise PictureError(f"too large once it is resized, {height:,} × {width:,}; {limit}")


def decode(path: str | os.PathLike[str], preprocess: Preprocess) -> NDArray[numpy.float32]:
    """Read a picture as a network's input.

    Args:
        path: the file.
        preprocess: how.

    Returns:
        channels × height × width.

    Raises:
        PictureError: if it can't be read or resized.
    """
    with _picture(path, preprocess.colour) as image:
        return to_array(image, preprocess)


# Finding pictures


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
DRAWN = "_pred.png"
"""The ending of what is drawn beside a picture."""


def pictures(sources: Iterable[str]) -> list[Path]:
    """Find pictures.

    Args:
        sources: files, folders and patterns such as `photos/**/*.jpg`; a folder means every picture in it and in
            its folders, hidden ones left out. A `~` in front means the home folder.

    Returns:
        Each picture once, in the order of the sources and sorted within a folder or pattern. A file that is named
        stays, whatever its suffix and whether it is there or not. What is drawn beside a picture (see `drawings`) is
        no picture, unless it is named without the picture that it belongs to.

    Raises:
        ArgumentError: for a folder or a pattern without a picture.
    """
    found: dict[str, Path] = {}
    for source in sources:
        for path in _expanded(source):
            found.setdefault(os.path.abspath(path), path)
    return _without_drawings(found.values(), found.values())


def _expanded(source: str) -> list[Path]:
    if not source:
        raise ArgumentError("images: expected a file, a folder or a pattern, found ''")
    if not os.path.lexists(source):
        source = os.path.expanduser(source)
    if os.path.isdir(source):
        paths = _undrawn(filter(_is_picture, _files(source)))
        if not paths:
            raise ArgumentError(f"{printable(source)}: no pictures in this folder")
        return paths
    if os.path.lexists(source) or not glob.has_magic(source):
        return [Path(source)]
    matches = map(Path, glob.glob(source, recursive=True))
    paths = _undrawn(path for path in matches if _is_picture(path) and path.is_file())
    if not paths:
        raise ArgumentError(f"{printable(source)}: no pictures match this pattern")
    return paths


def _files(folder: str) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _undrawn(paths: Iterable[Path]) -> list[Path]:
    paths = sorted(paths)
    return _without_drawings(paths, _beside(paths))


def _without_drawings(paths: Iterable[Path], inputs: Iterable[Path]) -> list[Path]:
    """Leave out what is named as a drawing beside one of the inputs is."""
    names = {str(name) for path in inputs for name in (path, os.path.splitext(path)[0])}
    return [path for path in paths if not (str(path).endswith(DRAWN) and str(path).removesuffix(DRAWN) in names)]


def _beside(paths: Iterable[Path]) -> Iterator[Path]:
    """Find the pictures in the folders of these."""
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(OSError):  # a folder may let its files be read and not be listed
            yield from filter(_is_picture, folder.iterdir())


def drawings(paths: Sequence[Path]) -> list[Path]:
    """Say where the predictions for pictures are drawn.

    Args:
        paths: the pictures.

    Returns:
        For each a file beside it: NAME_pred.png for NAME.jpg; NAME.jpg_pred.png if there is NAME.png as well.
    """
    together = {*paths, *_beside(paths)}
    namesakes = Counter((path.parent, path.stem.lower()) for path in together)
    return [
        path.with_name(f"{path.stem if namesakes[path.parent, path.stem.lower()] == 1 else path.name}{DRAWN}")
        for path in paths
    ]

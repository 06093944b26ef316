"""Pictures as a network's input: opened, resized, cropped, scaled and normalised.

Every step rounds as torchvision's, timm's and Keras's do, so that weights see the input they were trained for.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vggkit.base.errors import PictureError, file_name, shorten
from vggkit.notation.preprocess import Preprocess, Sides

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from PIL import Image

READABLE = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The formats that are read: Pillow reads more, but some of those run other programs."""

_SILENCE = threading.Lock()


def check_there(path: str | os.PathLike[str]) -> None:
    """Check that a picture is a file.

    Raises:
        PictureError: if it is none.
    """
    if not os.path.isfile(path):
        reason = "not a file" if os.path.exists(path) else "no such file"
        raise PictureError(f"{file_name(path)}: {reason}")


MOST_PIXELS = 50_000_000
"""Most pixels of one picture, and of all that threads decode at once: up to 400 MB, since some are copied once."""

STRIP_PIXELS = 2**20
"""Where a conversion takes several times a picture's memory, this many pixels are converted at once."""


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
    """Give a picture, as `open_picture` does. Wait first while other threads' pictures need the memory."""
    check_there(path)
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = file_name(path)

    try:
        # the filters of warnings belong to the whole process, hence the lock
        with _SILENCE, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=READABLE)
        with opened as image:
            _check_depth(image)
            # these are held more than twice while they are decoded
            copies = 2 if image.format == "WEBP" or image.mode == "CMYK" or "progressive" in image.info else 1
            if copies * image.width * image.height > _most_pixels():
                raise PictureError(f"too large; expected at most {_most_pixels() // copies:,} pixels")
            with _BEING_DECODED.taking(copies * image.width * image.height):
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


class _Shared:
    """An amount of something that threads take from and give back.

    Args:
        size: how much there is.
    """

    def __init__(self, size: int) -> None:
        self.free = size
        self.changed = threading.Condition()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Wait until an amount is free, and hold it while the block runs."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            with self.changed:
                self.free += amount
                self.changed.notify_all()


_BEING_DECODED = _Shared(MOST_PIXELS)


def _flat(image: Image.Image, colour: str) -> Image.Image:
    """Return a picture of any mode without transparency, in 8 bits and the mode for a colour."""
    if image.mode.startswith("I"):
        image = _by_strips(image, "L", _eight_bits)
    if "transparency" in image.info or image.mode[-1] in "Aa":
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
    """Refuse a picture whose white value is unknown: Pillow's modes of 16 and 32 bits hold other depths, too."""
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
    if isinstance(preprocess.resize, int):
        shorter = preprocess.resize
        longer = int(shorter * max(image.size) / min(image.size))  # in torchvision's order, which rounds
        height, width = (longer, shorter) if image.width <= image.height else (shorter, longer)
    else:
        height, width = preprocess.resize
    _check_size(height, width)
    return image.resize((width, height), Resampling[preprocess.interpolation.upper()])


def _cropped(image: Image.Image, crop: Sides) -> Image.Image:
    height, width = (crop, crop) if isinstance(crop, int) else crop
    _check_size(height, width)
    top, left = _offset(image.height, height), _offset(image.width, width)
    return image.crop((left, top, left + width, top + height))


def _offset(side: int, crop: int) -> int:
    """Return where a crop begins, rounded as torchvision does; it is negative if the picture is padded."""
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

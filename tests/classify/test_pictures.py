"""Pictures become inputs bit for bit as torchvision, timm and Keras make them, whatever file they come from."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import VGG16_Weights

from tests.conftest import sample
from tests.keras_process import Keras
from tests.notation.test_preprocess import CUSTOM
from vggkit.base.errors import PictureError, VggkitError
from vggkit.classify import pictures
from vggkit.classify.pictures import decode, open_picture, to_array
from vggkit.notation.preprocess import PRESETS, parse_preprocess

SIZES = [(301, 200), (77, 640), (10, 10), (224, 224), (256, 256), (1, 40), (333, 257), (500, 375), (225, 999)]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a picture in which every pixel is another colour."""
    values = numpy.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return Image.fromarray(values).convert(mode)


def grey16(values: Any) -> Image.Image:
    """Return a 16-bit grey picture."""
    return Image.fromarray(numpy.asarray(values, dtype=numpy.uint16))


def same(left: Any, right: Any) -> bool:
    """Tell whether two arrays are equal to the last bit, in shape and type too."""
    left, right = numpy.asarray(left), numpy.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


# Inputs, judged by the libraries


@pytest.mark.parametrize("size", SIZES)
def test_torch_is_torchvisions_transform(size: tuple[int, int]) -> None:
    """The preset gives what the weights' own transforms give, whatever the size."""
    image = noise(*size)
    assert same(to_array(image, PRESETS["torch"]), VGG16_Weights.IMAGENET1K_V1.transforms()(image))


@pytest.mark.parametrize("size", SIZES)
def test_timm_is_timms_transform(size: tuple[int, int]) -> None:
    """The preset gives what timm's evaluation transform for its VGG gives."""
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg("vgg16.tv_in1k")
    assert config is not None
    transform = create_transform(**resolve_data_config(pretrained_cfg=config.to_dict()))
    image = noise(*size)
    assert same(to_array(image, PRESETS["timm"]), transform(image))


KERAS = """
import pathlib
import numpy, keras
for path in map(str, pathlib.Path().iterdir()):
    image = keras.utils.load_img(path, target_size=(224, 224))
    array = keras.applications.vgg16.preprocess_input(keras.utils.img_to_array(image))
    numpy.save(path + ".npy", array.transpose(2, 0, 1))
"""


def test_keras_is_kerass_transform(keras: Keras, tmp_path: Path) -> None:
    """The preset gives what Keras loads and prepares, from files of several modes and sizes."""
    paths = []
    for number, (size, mode, suffix) in enumerate(
        [(size, "RGB", "png") for size in SIZES]
        + [((301, 200), mode, "png") for mode in ("L", "P", "1")]
        + [((77, 640), "RGB", "jpg"), ((301, 200), "CMYK", "jpg")]
    ):
        paths.append(str(tmp_path / f"{number}.{suffix}"))
        noise(*size, mode).save(paths[-1])
    keras.run(KERAS, tmp_path)
    for path in paths:
        assert same(decode(path, PRESETS["keras"]), numpy.ascontiguousarray(numpy.load(f"{path}.npy"))), path


@pytest.mark.parametrize("said", CUSTOM)
@pytest.mark.parametrize("size", [(301, 200), (77, 640), (10, 10)])
def test_every_option_is_torchvisions(said: dict[str, Any], size: tuple[int, int]) -> None:
    """Any sizes, interpolation and normalisation give what torchvision's steps of these give, one after another."""
    preprocess = parse_preprocess(said)
    image = noise(*size, "L" if preprocess.colour == "grey" else "RGB")
    steps: list[Callable[[Any], Any]] = []
    if preprocess.resize is not None:
        mode = transforms.InterpolationMode(preprocess.interpolation)
        steps.append(transforms.Resize(preprocess.resize, mode))
    if preprocess.crop is not None:
        steps.append(transforms.CenterCrop(preprocess.crop))
    steps += [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    assert same(to_array(image, preprocess), transforms.Compose(steps)(image))


def test_every_value_is_divided_as_torch_divides() -> None:
    """All 256 values of a channel, scaled and normalised, have torch's last bit."""
    image = Image.fromarray(numpy.arange(256, dtype=numpy.uint8).reshape(16, 16))
    preprocess = parse_preprocess({"colour": "grey", "scale": 3, "mean": 0.485, "std": 0.229})
    values = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16) / 3
    assert same(to_array(image, preprocess), transforms.Normalize([0.485], [0.229])(values))


def test_bgr_is_rgb_backwards() -> None:
    """The channels are in the other order, and the mean is that of the channel it stands at."""
    image = noise(9, 7)
    backwards = to_array(image, parse_preprocess({"colour": "bgr", "mean": [3, 2, 1]}))
    assert same(backwards, to_array(image, parse_preprocess({"mean": [1, 2, 3]}))[::-1])
    assert backwards.flags.c_contiguous


def test_a_picture_that_would_grow_past_the_limit_is_refused(tmp_path: Path) -> None:
    """A line of pixels is not blown up to gigabytes; the message names the file and the size."""
    path = tmp_path / "line.png"
    Image.new("RGB", (30000, 1)).save(path)
    with pytest.raises(PictureError) as caught:
        decode(path, PRESETS["torch"])
    assert str(caught.value) == (
        f"{path}: too large once it is resized, 256 × 7,680,000; expected at most 50,000,000 pixels"
    )


# Files


HELD = {
    "png": "RGB L P 1",
    "jpg": "RGB L 1 CMYK",
    "webp": "RGB L P 1 CMYK",
    "bmp": "RGB L P 1",
    "gif": "RGB L P 1",
    "tif": "RGB L P 1 CMYK",
    "ppm": "RGB L 1",
}
"""The modes of pictures that each format can be written from."""


@pytest.mark.parametrize(
    ("suffix", "mode"), [(suffix, mode) for suffix, modes in HELD.items() for mode in modes.split()]
)
def test_opaque_modes_are_pillows(suffix: str, mode: str, tmp_path: Path) -> None:
    """A picture without transparency is what Pillow converts it to, in every format that can hold it."""
    path = tmp_path / f"picture.{suffix}"
    noise(31, 20, mode).save(path)
    with Image.open(path) as image:
        assert same(open_picture(path), image.convert("RGB"))
        assert same(open_picture(path, "bgr"), image.convert("RGB"))
        grey = open_picture(path, "grey")
        assert grey.mode == "L"
        assert same(grey, image.convert("L"))


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("RGBA", "webp"), ("LA", "png"), ("PA", "tif")])
def test_transparency_shows_white(mode: str, suffix: str, tmp_path: Path) -> None:
    """What is transparent is white, what is opaque is itself, and half is half-way."""
    path = tmp_path / f"picture.{suffix}"
    image = Image.new(mode, (3, 1))
    if mode == "PA":
        image.putpalette([level for level in range(256) for _ in range(3)])
    for x, alpha in enumerate((0, 255, 128)):
        image.putpixel((x, 0), (100,) * (len(image.getbands()) - 1) + (alpha,))
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert numpy.asarray(open_picture(path))[0].tolist() == [[255] * 3, [100] * 3, [177] * 3]
    assert numpy.asarray(open_picture(path, "grey"))[0].tolist() == [255, 100, 177]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_a_palettes_transparency_shows_white(transparency: Any, tmp_path: Path) -> None:
    """A transparent entry of a palette is white, whether one is named or each has its alpha."""
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 0, 0, 0])
    for x in range(3):
        image.putpixel((x, 0), x)
    path = tmp_path / "picture.png"
    image.save(path, transparency=transparency)
    last = [0] * 3 if transparency == 1 else [127] * 3
    assert numpy.asarray(open_picture(path))[0].tolist() == [[10, 20, 30], [255] * 3, last]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (7, 7, 7)), ("L", 7)])
def test_a_colour_key_shows_white(mode: str, key: Any, tmp_path: Path) -> None:
    """The colour that a PNG declares transparent is white."""
    path = tmp_path / "picture.png"
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 9 if mode == "L" else (9, 9, 9))
    image.save(path, transparency=key)
    assert numpy.asarray(open_picture(path, "grey"))[0].tolist() == [255, 9]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(suffix: str, tmp_path: Path) -> None:
    """Every 16-bit value becomes the nearest of the 256."""
    values = numpy.arange(65536).reshape(256, 256)
    path = tmp_path / f"picture.{suffix}"
    grey16(values).save(path)
    assert same(open_picture(path, "grey"), numpy.rint(values / 257).astype(numpy.uint8))
    assert same(numpy.asarray(open_picture(path))[:, :, 2], numpy.rint(values / 257).astype(numpy.uint8))


def test_a_colour_key_of_sixteen_bits_shows_white(tmp_path: Path) -> None:
    """The one 16-bit value that is transparent is white, its neighbour is not."""
    path = tmp_path / "picture.png"
    grey16([[1000, 1001]]).save(path, transparency=1000)
    assert numpy.asarray(open_picture(path, "grey"))[0].tolist() == [255, 4]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_are_refused(mode: str, tmp_path: Path) -> None:
    """Nobody knows what is white in them, so they are not guessed at."""
    path = tmp_path / "picture.tif"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert str(caught.value) == f"{path}: 32 bits a channel; expected 8 or 16"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(orientation: int, mode: str, tmp_path: Path) -> None:
    """All eight orientations of EXIF show the same picture."""
    upright = grey16(numpy.arange(600).reshape(20, 30) * 100) if mode == "I;16" else noise(30, 20, mode)
    plain, turned = tmp_path / "plain.png", tmp_path / "turned.png"
    upright.save(plain)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions, inverse to what the number asks for
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(turned, exif=exif)
    assert same(open_picture(turned), open_picture(plain))


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    """An animated GIF, WebP or PNG is its first frame."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"picture.{suffix}"
        options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert same(open_picture(path), frames[0]), suffix


def test_decoding_is_opening_and_preparing(tmp_path: Path) -> None:
    """A file gives the array of its picture, grey where grey is asked for."""
    path = tmp_path / "picture.png"
    noise(40, 30).save(path)
    for preprocess in (PRESETS["keras"], parse_preprocess({"colour": "grey"})):
        assert same(decode(path, preprocess), to_array(open_picture(path, preprocess.colour), preprocess))
    assert decode(path, parse_preprocess({"colour": "grey"})).shape == (1, 30, 40)


# What can't be read


def refusal(path: Path) -> str:
    """Return the message about a picture, which is one line, begins with the file's name, and warns of nothing."""
    with warnings.catch_warnings(record=True) as warned, pytest.raises(PictureError) as caught:
        open_picture(path)
    assert not warned
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_what_is_not_there_or_no_picture_is_said(tmp_path: Path) -> None:
    """A missing file, a folder, a text, an empty file and a format left out: each has its reason, in vggkit's error."""
    (tmp_path / "text.png").write_bytes(b"hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    noise(16, 16).save(tmp_path / "other.png", "PCX")
    for name in ("text.png", "empty.jpg", "other.png"):
        assert refusal(tmp_path / name) == "not a picture; expected JPEG, PNG, WebP, BMP, GIF, TIFF or PPM"
    assert refusal(tmp_path) == "not a file"
    assert refusal(tmp_path / "missing.png") == "no such file"
    assert issubclass(PictureError, VggkitError)
    assert PictureError.exit_code == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
def test_a_file_that_is_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    """Half a file is never half a picture, in any format."""
    path = tmp_path / f"picture.{suffix}"
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path).startswith(("the picture is cut off or damaged (", "not a picture"))


def test_a_damaged_file_gives_a_picture_or_one_line(tmp_path: Path) -> None:
    """Whatever bytes are wrong, nothing but PictureError comes out."""
    random = numpy.random.default_rng(0)
    path = tmp_path / "picture"
    for suffix in ("png", "jpeg", "webp", "bmp", "gif", "tiff", "ppm"):
        out = io.BytesIO()
        noise(16, 16).save(out, suffix)
        for _ in range(40):
            content = bytearray(out.getvalue())
            for place in random.integers(0, min(len(content), 200), 3):
                content[place] = random.integers(256)
            path.write_bytes(content)
            with warnings.catch_warnings(), contextlib.suppress(PictureError):
                warnings.simplefilter("ignore")
                assert open_picture(path).mode == "RGB"


@pytest.mark.parametrize("side", [11, 20])
def test_a_decompression_bomb_is_refused(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above Pillow's limit, where it warns and where it refuses, a picture isn't read."""
    path = tmp_path / "bomb.png"
    Image.new("L", (side, side)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert refusal(path) == "too large; expected at most 100 pixels"


def test_a_name_that_cant_be_printed_stays_on_its_line(tmp_path: Path) -> None:
    """A line break in a file's name does not break the message."""
    path = str(tmp_path / "a\nb.png")
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert str(caught.value) == f"{path!r}: no such file"


# hostile pictures


def huge(name: str, folder: Path) -> Path:
    """Write a picture of a few kilobytes that has as many pixels as a picture may have."""
    side = 4990 if name.endswith(".webp") else 7060
    turned = Image.Exif()
    turned[0x112] = 6
    modes: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "grey16.png": ("I;16", 30000, {}),
        "transparent.png": ("RGBA", (1, 2, 3, 40), {}),
        "palette.png": ("P", 3, {"transparency": 3}),
        "turned.jpg": ("RGB", (1, 2, 3), {"exif": turned, "subsampling": 0}),
        "lossless.webp": ("RGBA", (1, 2, 3, 40), {"lossless": True, "method": 0}),
    }
    mode, colour, options = modes[name]
    Image.new(mode, (side, side), colour).save(folder / name, **options)
    return folder / name


PEAK = """
import re, sys
from pathlib import Path
from PIL import Image
from vggkit.classify.pictures import decode
from vggkit.notation.preprocess import PRESETS
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
decode(sys.argv[1], PRESETS["torch"])
before = peak()
decode(sys.argv[2], PRESETS["torch"])
print(peak() - before)
"""


LARGEST = ["grey16.png", "transparent.png", "palette.png", "turned.jpg", "lossless.webp"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say a process's peak")
@pytest.mark.parametrize("name", sample(LARGEST, ["transparent.png", "turned.jpg"]))
def test_the_largest_picture_takes_less_than_500_megabytes(name: str, tmp_path: Path) -> None:
    """Of 16 bits, transparent, turned, or of a format that decodes into memory of its own."""
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small.png"), str(huge(name, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert int(done.stdout) * 1024 < 500e6


@pytest.mark.parametrize(
    ("mode", "size", "most"),
    [("RGB", (7072, 7072), 50), ("I;16", (9400, 9400), 50), ("CMYK", (5001, 5001), 25), ("YCbCr", (5001, 5001), 25)],
)
def test_a_larger_picture_is_one_line(mode: str, size: tuple[int, int], most: int, tmp_path: Path) -> None:
    """Before its pixels are decoded, however few bytes they are."""
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    Image.new(mode, size).save(path, progressive=mode == "YCbCr")
    with pytest.raises(PictureError, match=f"too large; expected at most {most},000,000 pixels"):
        open_picture(path)


def test_threads_share_the_pixels_that_may_be_decoded_at_once() -> None:
    """One that finds too few waits until they are given back, also where the block before it failed."""
    shared, order = pictures._Shared(10), list[str]()

    def second() -> None:
        with shared.taking(5):
            order.append("second")

    thread = Thread(target=second)
    with suppress(KeyError), shared.taking(6):
        thread.start()
        order.append("first")
        raise KeyError
    thread.join()
    assert order == ["first", "second"]
    assert shared.free == 10


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P"])
def test_strips_are_seamless(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is the same whether it is converted at once or by three rows at a time."""
    values = numpy.random.default_rng(0).integers(0, 256, (20, 10, 4), dtype=numpy.uint8)
    picture = {
        "I;16": grey16(values[..., 0].astype(numpy.uint16) * 257),
        "RGBA": Image.fromarray(values),
        "P": noise(10, 20, "P"),
    }[mode]
    picture.save(tmp_path / "x.png", **({"transparency": 7} if mode == "P" else {}))
    whole = open_picture(tmp_path / "x.png")
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 30)
    assert same(open_picture(tmp_path / "x.png"), whole)

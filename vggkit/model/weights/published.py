"""The passports of the published checkpoints: where they are, how to check them, how their images were prepared."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from vggkit.base.errors import ArgumentError, shorten


class Passport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known about one published checkpoint; None where something is not published or not known.

    Args:
        file: the name of the file, as it lies in the cache.
        configuration: the name of the configuration that it is for, as `vggkit.load("vgg16_bn").name` gives it.
        origin: who publishes it: torchvision, timm, keras, jcjohnson.
        address: where it can be fetched.
        bytes: its exact size.
        mebibytes: its size as torchvision publishes it, in MiB with three decimals.
        sha256_prefix: the first hexadecimal digits of its SHA-256.
        md5: its MD5, in hexadecimal.
        licence: an SPDX identifier.
        preprocess: how its images are prepared: resize, crop, scale, mean, std, colour and interpolation; a pixel of
            0 to 255 becomes (pixel / scale - mean) / std, with the channels in the order of colour.
        top1: accuracy on ImageNet's validation set in percent, as published.
        top5: likewise.
        classifier: whether its classifier can be used.
        known_gaps: a sentence on what is not known.
    """

    file: str
    configuration: str
    origin: str
    address: str | None
    bytes: int | None
    mebibytes: float | None
    sha256_prefix: str | None
    md5: str | None
    licence: str | None
    preprocess: dict[str, Any]
    top1: float | None
    top5: float | None
    classifier: bool
    known_gaps: str | None


HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What the hub calls every model's file."""


@lru_cache(maxsize=1)
def passports() -> tuple[Passport, ...]:
    """Return the passports of all published checkpoints that are known here.

    Returns:
        One passport a file, torchvision's first.

    >>> len(passports())
    23
    """
    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.load(text, Loader=yaml.CSafeLoader), tuple[Passport, ...])


def imagenet(name: str) -> Passport:
    """Return the passport of the weights that torchvision calls IMAGENET1K_V1.

    Args:
        name: the name of a configuration, such as D or D-BN.

    Returns:
        The passport.

    Raises:
        ArgumentError: if torchvision publishes none for this configuration.

    >>> imagenet("D").file
    'vgg16-397923af.pth'
    """
    known = {each.configuration: each for each in passports() if each.origin == "torchvision" and each.classifier}
    if name not in known:
        *others, last = sorted(known)
        raise ArgumentError(
            f"weights: nobody has published ImageNet weights for {_plain(name)}; "
            f"there are some for {', '.join(others)} and {last}"
        )
    return known[name]


def of_file(path: str | os.PathLike[str]) -> Passport | None:
    """Return the passport of a file, judged by its name alone.

    Args:
        path: the file; it is not opened and need not exist. On the hub timm's are all called model.safetensors, in a
            folder with the model's name.

    Returns:
        The passport, or None for a file of another name.

    >>> of_file("downloads/vgg19-dcbb9e9d.pth").configuration
    'E'
    >>> of_file("hub/models--timm--vgg16_bn.tv_in1k/snapshots/1/model.safetensors").configuration
    'D-BN'
    """
    *folders, name = Path(path).parts or ("",)
    names = {f"{folder.rpartition('--')[2]}.safetensors" for folder in folders} if name in HUB_FILES else {name}
    return next((passport for passport in passports() if passport.file in names), None)


def size_fits(passport: Passport, size: int) -> bool:
    """Tell whether a file of so many bytes can be the published one.

    Args:
        passport: of the published file.
        size: bytes.

    >>> size_fits(imagenet("D"), 553_433_881)
    True
    """
    if passport.bytes is not None:
        return size == passport.bytes
    return passport.mebibytes is None or round(size / 2**20, 3) == passport.mebibytes


def _plain(name: str) -> str:
    return name if name.isprintable() and len(name) <= 60 else shorten(name)

"""The published checkpoints: who publishes them, where they are, how to check them, how their images were prepared."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from vggkit.base.errors import ArgumentError, shorten
from vggkit.notation.preprocess import PRESETS, Preprocess, spell_preprocess


class Checksum(NamedTuple):
    """How to tell that a file is whole.

    Args:
        algorithm: hashlib's name.
        digits: the first hexadecimal digits, or all.
        words: how an error says what they are.
    """

    algorithm: str
    digits: str
    words: str


class Passport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
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
        preprocess: how its images are prepared, as a configuration's `preprocess:` says it.
        top1: accuracy on ImageNet's validation set in percent, as published.
        top5: likewise.
        classifier: whether its classifier can be used.
        known_gaps: a sentence on what is not known.
    """

    file: str
    configuration: str
    origin: str
    address: str | None
    bytes: int | None = None
    mebibytes: float | None = None
    sha256_prefix: str | None = None
    md5: str | None = None
    licence: str | None = None
    preprocess: dict[str, Any]
    top1: float | None = None
    top5: float | None = None
    classifier: bool = True
    known_gaps: str | None = None

    @property
    def checksum(self) -> Checksum | None:
        """How to tell that the file is whole; None if no checksum is known."""
        if self.sha256_prefix is not None:
            return Checksum("sha256", self.sha256_prefix, "SHA-256 starts with")
        return None if self.md5 is None else Checksum("md5", self.md5, "MD5 is")

    @property
    def expected_bytes(self) -> int | None:
        """Its size to 0.001 MiB; None if that is not known."""
        return ceil(self.mebibytes * 2**20) if self.bytes is None and self.mebibytes is not None else self.bytes

    def fits(self, size: int) -> bool:
        """Tell whether a file of a size in bytes can be the published one.

        >>> imagenet("D").fits(553_433_881)
        True
        """
        if self.bytes is not None:
            return size == self.bytes
        return self.mebibytes is None or round(size / 2**20, 3) == self.mebibytes


class Publisher(ABC):
    """Who publishes checkpoints: what all files of one publisher have in common."""

    name: str
    licence: str | None
    """An SPDX identifier."""
    preprocess: Preprocess
    """How images are prepared for its weights."""
    known_gaps: str | None
    """What is not known of any of its files."""
    has_imagenet = False
    """Whether `weights="imagenet"` stands for its files."""

    @abstractmethod
    def address(self, file: str) -> str | None:
        """Return where a file can be fetched; None if nowhere that is known."""

    @abstractmethod
    def sha256_prefix(self, file: str) -> str | None:
        """Return the first digits of a file's SHA-256, if its name has them."""

    def published_names(self, path: Path) -> set[str]:
        """Return the names under which a file at some path may have been published."""
        return {path.name}

    def passport(self, said: Mapping[str, Any]) -> Passport:
        """Return the passport of a file.

        Args:
            said: what published.yaml says of it.
        """
        file = said["file"]
        common = {
            "origin": self.name,
            "address": self.address(file),
            "sha256_prefix": self.sha256_prefix(file),
            "licence": self.licence,
            "preprocess": spell_preprocess(self.preprocess),
            "known_gaps": self.known_gaps,
        }
        return msgspec.convert({**common, **said}, Passport)


def _hash_in_name(file: str) -> str:
    """Return what stands behind the last hyphen: torch.hub's convention for the first digits of a SHA-256."""
    return Path(file).stem.rpartition("-")[2]


class Torchvision(Publisher):
    """torchvision's own training runs. Source: the weights enums in torchvision/models/vgg.py."""

    name = "torchvision"
    licence = "BSD-3-Clause"
    preprocess = PRESETS["torch"]
    known_gaps = "The exact size is not known."
    has_imagenet = True

    def address(self, file: str) -> str:
        return f"https://download.pytorch.org/models/{file}"

    def sha256_prefix(self, file: str) -> str:
        return _hash_in_name(file)


class Timm(Publisher):
    """timm's copies on the Hugging Face hub. Source: the pretrained configurations in timm/models/vgg.py."""

    name = "timm"
    licence = "BSD-3-Clause"
    preprocess = PRESETS["timm"]
    known_gaps = (
        "Size, checksum and accuracies are not known here, so a download can't be checked;"
        " the tag tv_in1k says that the weights are torchvision's."
    )
    HUB_FILES = ("model.safetensors", "pytorch_model.bin")
    """What the hub calls every model's file."""

    def address(self, file: str) -> str:
        return f"https://huggingface.co/timm/{file.removesuffix('.safetensors')}/resolve/main/model.safetensors"

    def sha256_prefix(self, file: str) -> None:
        return None

    def published_names(self, path: Path) -> set[str]:
        """Return the names that the model's folder stands for; on the hub every file has the same."""
        if path.name not in self.HUB_FILES:
            return super().published_names(path)
        return {f"{folder.rpartition('--')[2]}.safetensors" for folder in path.parts[:-1]}


class Keras(Publisher):
    """The files of keras.applications. Source: keras/src/applications/vgg16.py and vgg19.py.

    `preprocess` is that of `preprocess_input` (mode "caffe") behind `load_img(path, target_size=(224, 224))`.
    """

    name = "keras"
    licence = None
    preprocess = PRESETS["keras"]
    known_gaps = "The licence of the weights is not known here; they are the ones that Oxford published for Caffe."

    def address(self, file: str) -> str:
        model = file.partition("_")[0]
        return f"https://storage.googleapis.com/tensorflow/keras-applications/{model}/{file}"

    def sha256_prefix(self, file: str) -> None:
        return None


class Jcjohnson(Publisher):
    """The authors' Caffe models under torchvision's names. Source: the README of github.com/jcjohnson/pytorch-vgg."""

    name = "jcjohnson"
    licence = None
    preprocess = Preprocess(scale=1.0, mean=PRESETS["keras"].mean, std=PRESETS["keras"].std, colour="bgr")
    known_gaps = None

    def address(self, file: str) -> None:
        return None

    def sha256_prefix(self, file: str) -> str:
        return _hash_in_name(file)


PUBLISHERS: dict[str, Publisher] = {each.name: each for each in (Torchvision(), Timm(), Keras(), Jcjohnson())}


@lru_cache(maxsize=1)
def passports() -> tuple[Passport, ...]:
    """Return the passports of all published checkpoints that are known here.

    Returns:
        One passport a file, torchvision's first.

    >>> len(passports())
    23
    """
    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    said = yaml.load(text, Loader=yaml.CSafeLoader)
    return tuple(PUBLISHERS[origin].passport(each) for origin, files in said.items() for each in files)


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
    usable = [each for each in passports() if PUBLISHERS[each.origin].has_imagenet and each.classifier]
    known = {each.configuration: each for each in usable}
    if name not in known:
        *others, last = sorted(known)
        shown = name if name.isprintable() and len(name) <= 60 else shorten(name)
        raise ArgumentError(
            f"weights: nobody has published ImageNet weights for {shown}; "
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
    names = {name for publisher in PUBLISHERS.values() for name in publisher.published_names(Path(path))}
    return next((passport for passport in passports() if passport.file in names), None)

"""A kind of file that networks are exchanged in: one class for each, with every rule of it."""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from vggkit.base.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    LayerError,
    Problem,
    VggkitError,
    escaped,
    file_name,
    shorten,
)
from vggkit.base.shapes import Shape
from vggkit.exchange import messages
from vggkit.exchange.chain import Imported
from vggkit.exchange.messages import MalformedError, Message, Schema
from vggkit.network import Network, place
from vggkit.notation.config import Config
from vggkit.notation.reading import parse_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_TEXT = 2**23
"""Bytes of the largest text that is read. D's has 6,000."""


class Given(NamedTuple):
    """A file that is to be read.

    Args:
        path: where it is.
        image: the shape of one image, if the user says it.
        weights: the file with its weights, where that is another one.
        likely: the shape of an image that it may well be for, where it does not say it.
    """

    path: str
    image: Shape | None = None
    weights: str | None = None
    likely: Shape | None = None

    @property
    def stem(self) -> str:
        """A name for the network, made of the file's."""
        return plain_name(os.path.basename(self.path).split(".")[0])


def plain_name(text: str) -> str:
    """Return a text as a configuration's name: letters, digits, - and _, the first a letter.

    >>> plain_name("VGG ILSVRC/16"), plain_name("16")
    ('VGGILSVRC16', 'network16')
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "", text)[:100]
    return plain if re.match(r"[A-Za-z]", plain) else f"network{plain}"


class Written(NamedTuple):
    """A network that is to be written.

    Args:
        network: the network.
        tensors: what reads each of its tensors in torch's order of axes, as numpy's float32, by the names of its layer
            and torch's names; None if only its structure is asked for.
    """

    network: Network
    tensors: Mapping[tuple[str, str], Callable[[], NDArray[Any]]] | None


class ReadableFile(ABC):
    """A kind of file that is read."""

    title: ClassVar[str]
    """What it is called for people."""
    takes_weights: ClassVar[bool]
    """Whether it has a place for weights."""

    @abstractmethod
    def read(self, given: Given) -> Imported:
        """Read a file.

        Raises:
            MalformedError: if it is no such file, or has what no configuration says.
        """

    def imported(self, given: Given) -> Imported:
        """Read a file; whatever is wrong with it is one line.

        Raises:
            CheckpointError: if it can't be read, or has what no configuration says.
        """
        path = escaped(file_name(given.path))
        try:
            return self.read(given)
        except (MalformedError, LayerError) as error:
            raise CheckpointError(f"{path}: {escaped(str(error))}") from None
        except VggkitError:
            raise
        except OSError as error:
            where = escaped(file_name(error.filename or given.path))
            raise CheckpointError(f"{where}: can't be read: {error.strerror or error}") from None
        except Exception as error:  # a stranger's file can make its reader raise anything
            said = escaped(shorten(f"{type(error).__name__}: {error}", 120))
            raise CheckpointError(f"{path}: can't be read as {self.title}: {said}") from None


class ModelFile(ReadableFile):
    """A kind of file that is read and written."""

    ending: ClassVar[str]
    """Of its files' names."""
    needs_weights: ClassVar[bool]
    """Whether it is nothing without them."""

    @abstractmethod
    def write(self, file: IO[bytes], written: Written) -> str:
        """Write a file.

        Args:
            file: where to.
            written: what to write.

        Returns:
            What someone who uses the file must know: its version, the names of its input and output.

        Raises:
            LayerError: if the format has no place for a layer, before anything is written.
        """

    def suited(self, network: Network) -> Network:
        """Return the network that is written for another one: the same values, given the weights in its order."""
        return network

    def exported(self, file: IO[bytes], written: Written) -> str:
        """Write a file; what it has no place for is one line.

        Raises:
            ArgumentError: says which layer it has no place for, and why.
        """
        try:
            return self.write(file, written)
        except LayerError as error:
            raise ArgumentError(f"{written.network.name}: {error}") from None


def content_of(path: str) -> memoryview:
    """Return the bytes of a file, which are read when they are looked at.

    Raises:
        OSError: if it can't be read.
    """
    with _opened(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _opened(path: str) -> IO[bytes]:
    """Open a file, and no pipe or device, whose end may never come."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device", path)
    return open(path, "rb")


def message_in(path: str, schema: Schema, what: str) -> Message:
    """Return the message that a file is.

    Args:
        path: the file.
        schema: the message's type.
        what: what it is, for messages.

    Raises:
        MalformedError: if it is none.
        OSError: if it can't be read.
    """
    try:
        return messages.parse(content_of(path), schema)
    except MalformedError as error:
        raise MalformedError(f"expected {what}, found other bytes: {error}") from None


def text_of(path: str) -> str:
    """Return the text of a file.

    Raises:
        MalformedError: if it is too large, or no text.
        OSError: if it can't be read.
    """
    with _opened(path) as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise MalformedError(f"expected a text of up to {MOST_TEXT:,} bytes, found more")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise MalformedError("expected a text, found bytes that are none") from None


def network_stated(text: str, given: Given) -> Network | None:
    """Return the network whose configuration a file states; None if that makes no sense, or needs another one.

    Args:
        text: the configuration, as YAML.
        given: the file.
    """
    try:
        return place(parse_config(text, given.stem, _extended))
    except VggkitError:
        return None


def _extended(_: str) -> Config:
    raise ConfigError([Problem("extends: expected a configuration that says all itself")])

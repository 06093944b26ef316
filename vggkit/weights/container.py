"""Files with tensors in them, each format recognised by its content: what is in them, and reading one tensor.

Opening reads names, shapes and dtypes, not the values, wherever the format allows; nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from vggkit.errors import CheckpointError, shorten

if TYPE_CHECKING:
    import torch

CONFIG_KEY = "vggkit.config"
"""Under this key a file's metadata holds the canonical configuration, as YAML."""

MOST_TENSORS = 100_000
INFLATION = 16
"""No tensor may be so many times larger than its file: weights don't compress, bombs do."""

ALIGNMENT = 64
"""Bytes; torch's allocator gives addresses that this divides."""

MOST_EXIT_CODE = 255
"""What lies outside of 0 and this is a process that crashed: a signal's number below 0, or Windows's 0xC0000005."""

ELEMENT_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1,
}  # fmt: skip


class Stored(msgspec.Struct, frozen=True):
    """A tensor in a file, not read yet.

    Args:
        name: in the file's words.
        shape: as the file has it.
        dtype: torch's name of it.
        size: bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int


class Container(ABC):
    """An open file.

    Args:
        path: the file, as the user gave it.
    """

    format: ClassVar[str]
    """What the format is called."""
    ordered: bool
    """Whether the file keeps its tensors in the order in which the network has them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file_size = os.stat(path).st_size
        self.metadata: dict[str, str] = {}
        self.tensors: dict[str, Stored] = {}

    @abstractmethod
    def read(self, name: str) -> torch.Tensor:
        """Read one tensor, as the file has it; memory-mapped where the format allows."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn whatever a damaged file raises into one clear line."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # a stranger's file can make its reader raise anything
            raise CheckpointError(f"{self.path}: can't be read as {self.format}: {_first_line(error)}") from None

    def add(self, name: str, shape: tuple[int, ...], dtype: str, size: int) -> None:
        """Note a tensor of the file."""
        if size > INFLATION * max(self.file_size, 2**16):
            raise CheckpointError(
                f"{self.path}: {shorten(name)} claims {size:,} bytes, in a file of {self.file_size:,}"
            )
        if len(self.tensors) >= MOST_TENSORS:
            raise CheckpointError(f"{self.path}: expected at most {MOST_TENSORS:,} tensors, found more")
        self.tensors[name] = Stored(name, shape, dtype, size)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[0] if lines else type(error).__name__, 160).strip("'\"")


def open_container(path: str | os.PathLike[str]) -> Container:
    """Open a file with tensors in it.

    Args:
        path: a file of safetensors, PyTorch, HDF5 or Keras; its name doesn't matter.

    Raises:
        CheckpointError: if there is no such file, it is none of these, it is damaged, or it would execute code.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{shorten(path, 200).strip(chr(39))}: can't be read: {reason}") from None
    return _kind(path, head)(path)


def _kind(path: str, head: bytes) -> type[Container]:
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return Hdf5
    if head.startswith(b"PK\x03\x04"):
        return KerasZip if _is_keras(path) else PyTorch
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return SafeTensors
    if head.startswith(b"\x80"):
        return PyTorch
    found = "nothing" if not head else f"a file that begins with {shorten(head[:8])}"
    raise CheckpointError(f"{path}: expected a checkpoint of PyTorch, safetensors, HDF5 or Keras, found {found}")


def _is_keras(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return KerasZip.MEMBER in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError):
        return False  # PyTorch's reader will say what is wrong with it


class SafeTensors(Container):
    """A safetensors file: a JSON header, then the values."""

    format = "safetensors"
    ordered = False
    DTYPES: ClassVar[dict[str, str]] = {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
        "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    }  # fmt: skip

    def __init__(self, path: str) -> None:
        super().__init__(path)
        from safetensors import safe_open

        with self.reading(), safe_open(path, framework="numpy") as file:  # checks the header's sizes
            self.metadata = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118 (it has no __iter__)
                view = file.get_slice(name)
                dtype = self.DTYPES.get(view.get_dtype(), view.get_dtype().lower())
                shape = tuple(view.get_shape())
                self.add(name, shape, dtype, _size(shape, dtype))
        self._mapped: Any = None

    def read(self, name: str) -> torch.Tensor:
        with self.reading():
            if self._begins[name] % ALIGNMENT:
                return self._copied(name)
            if self._mapped is None:
                from safetensors import safe_open

                self._mapped = safe_open(self.path, framework="pt")
            tensor: torch.Tensor = self._mapped.get_tensor(name)
            return tensor

    def _copied(self, name: str) -> torch.Tensor:
        """Read values that are not aligned into memory that is: kernels round otherwise on odd addresses."""
        import torch

        stored = self.tensors[name]
        tensor = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
        with open(self.path, "rb") as file:
            file.seek(self._begins[name])
            file.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return tensor

    @cached_property
    def _begins(self) -> dict[str, int]:
        """Return where each tensor's values begin in the file, whose header has been checked."""
        with open(self.path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = msgspec.json.decode(file.read(length))
        return {name: 8 + length + header[name]["data_offsets"][0] for name in self.tensors}


def _size(shape: tuple[int, ...], dtype: str) -> int:
    size = ELEMENT_BYTES.get(dtype, 1)
    for side in shape:
        size *= side
    return size


class PyTorch(Container):
    """A file of `torch.save`: a zip archive, or before version 1.6 a row of pickles; never executed."""

    format = "PyTorch"
    ordered = True
    WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "ema")

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with self.reading():
            content = self._load()
        state = self._state(content)
        for name, tensor in state.items():
            size = tensor.numel() * tensor.element_size()
            self.add(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), size)
        self._state_dict = state
        said = getattr(state, "_metadata", None)
        config = said.get(CONFIG_KEY) if isinstance(said, Mapping) else None
        if isinstance(config, Mapping) and isinstance(config.get("yaml"), str):
            self.metadata[CONFIG_KEY] = config["yaml"]

    def _load(self) -> Any:
        import torch

        zipped = zipfile.is_zipfile(self.path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an odd pickle protocol: what can't be read is refused below
                return torch.load(self.path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # a stranger's file can make its reader raise anything
            blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
            if blocked is not None:
                raise CheckpointError(
                    f"{self.path}: refused, as it would run code: it asks for {blocked.group(1)}, and only tensors are"
                    f" read. Save the model's state_dict() instead of the model"
                ) from None
            if "Unsupported operand" in str(error):
                raise CheckpointError(f"{self.path}: refused: a pickle of something else than tensors") from None
            raise

    def _state(self, content: Any) -> dict[str, torch.Tensor]:
        """Return the tensors of a state dict, also of one that lies in a wrapper."""
        import torch

        if isinstance(content, Mapping):
            tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
            if tensors and all(isinstance(name, str) for name in tensors):
                return content if len(tensors) == len(content) else tensors  # type: ignore[return-value] # all tensors
            for wrapper in self.WRAPPERS:
                if isinstance(content.get(wrapper), Mapping):
                    return self._state(content[wrapper])
        found = f"keys such as {shorten(list(content)[:3])}" if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{self.path}: expected a state dict, names with tensors, found {found}")

    def read(self, name: str) -> torch.Tensor:
        return self._state_dict[name].detach()


class Hdf5(Container):
    """An HDF5 file, as Keras writes them."""

    format = "HDF5"
    ordered = False
    LARGEST_ATTRIBUTE = 2**24
    MEMBER = ""
    """The HDF5 file's name in an archive."""
    REHEARSAL = Path(__file__).with_name("rehearsal.py")
    REHEARSAL_SECONDS = 30.0

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._rehearse()
        with self.reading():
            self.file = self._open()
            self._scan()

    def _rehearse(self) -> None:
        """Refuse a file that the HDF5 library would loop on or crash at; a process of its own finds out."""
        command = [sys.executable, "-I", str(self.REHEARSAL), self.path, self.MEMBER, str(self.LARGEST_ATTRIBUTE)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=self.REHEARSAL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise self._damaged("never ends") from None
        if not 0 <= done.returncode <= MOST_EXIT_CODE:
            raise self._damaged("crashes")

    def _damaged(self, what_happens: str) -> CheckpointError:
        reason = f"it is damaged, reading it {what_happens}; save or download it again"
        return CheckpointError(f"{self.path}: can't be read as {self.format}: {reason}")

    def _open(self) -> Any:
        import h5py

        return h5py.File(self.path, "r")

    def _scan(self) -> None:
        import h5py

        config = self.attribute("/", CONFIG_KEY)
        if isinstance(config, bytes):
            self.metadata[CONFIG_KEY] = config.decode()

        def visit(name: str | bytes, thing: Any) -> None:
            if isinstance(name, bytes):
                raise CheckpointError(f"{self.path}: {shorten(name)} is no name")
            if isinstance(thing, h5py.Dataset):
                if thing.external or thing.is_virtual:
                    raise CheckpointError(f"{self.path}: {shorten(name)} lies in another file, which is not read")
                self.add(name, tuple(thing.shape or ()), str(thing.dtype), int(thing.nbytes))

        self.file.visititems(visit)

    def attribute(self, path: str, name: str) -> Any:
        """Return an attribute of a group; None if there is none.

        Raises:
            CheckpointError: if it can't be read, or claims to be larger than any.
        """
        with self.reading():
            thing = self.file.get(path)
            if thing is None or name not in thing.attrs:
                return None
            claimed = thing.attrs.get_id(name)
            size = claimed.dtype.itemsize
            for side in claimed.shape:
                size *= side
            if size > self.LARGEST_ATTRIBUTE:  # asked before it is read: the HDF5 library would try for minutes
                raise CheckpointError(f"{self.path}: the attribute {shorten(name)} claims {size:,} bytes")
            return thing.attrs[name]

    def description(self) -> Any:
        """Return what the file says of its layers, as Keras writes it in JSON; None if it says nothing."""
        with self.reading():
            text = self._description()
            return None if text is None else json.loads(text)  # Keras writes Infinity, which only this reads

    def _description(self) -> bytes | str | None:
        text = self.attribute("/", "model_config")
        return text if isinstance(text, (bytes, str)) else None

    def read(self, name: str) -> torch.Tensor:
        import torch

        with self.reading():
            return torch.from_numpy(self.file[name][...])


class KerasZip(Hdf5):
    """A `.keras` archive: the weights as HDF5, and the layers as JSON."""

    format = "Keras"
    MEMBER = "model.weights.h5"

    def _open(self) -> Any:
        import h5py

        self.archive = zipfile.ZipFile(self.path)
        info = self.archive.getinfo(self.MEMBER)
        if info.file_size > INFLATION * self.file_size:
            raise CheckpointError(f"{self.path}: its weights claim {info.file_size:,} bytes")
        return h5py.File(self.archive.open(info), "r")

    def _description(self) -> bytes | None:
        try:
            info = self.archive.getinfo("config.json")
        except KeyError:
            return None
        if info.file_size > self.LARGEST_ATTRIBUTE:
            raise CheckpointError(f"{self.path}: config.json claims {info.file_size:,} bytes")
        return self.archive.read(info)

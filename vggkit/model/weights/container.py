"""Files with tensors in them, a class for each format: how to recognise it, what is in the file, one tensor's values.

Opening reads names, shapes and dtypes, not the values, wherever the format allows; nothing in a file is ever executed.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple

import msgspec

from vggkit.base import hdf5
from vggkit.base.archives import MOST_DIRECTORY, open_archive, place_in
from vggkit.base.errors import ArgumentError, CheckpointError, escaped, shorten
from vggkit.base.pickles import MOST_DIMENSIONS, StorageRecord, TensorRecord, tensor_of, unpickle
from vggkit.exchange.chain import Imported
from vggkit.exchange.files import Given
from vggkit.exchange.keras.archive import CONFIG, KerasArchive
from vggkit.exchange.keras.archive import WEIGHTS as WEIGHTS_MEMBER
from vggkit.exchange.keras.stated import stated
from vggkit.exchange.kinds import kind_asked_for, kind_of_file

if TYPE_CHECKING:
    import torch

CONFIG_KEY = "vggkit.config"
"""Under this key a file's metadata holds the canonical configuration, as YAML."""

MOST_TENSORS = 100_000
MOST_NAME = 1_000
"""Most characters in the name of a tensor."""
MOST_METADATA = 2**20
"""Largest configuration in a file, in bytes."""

ALIGNMENT = 64
"""Bytes. torch's allocator gives addresses that are multiples of it."""

ELEMENT_BITS = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "int32": 32, "int16": 16, "int8": 8,
    "uint8": 8, "bool": 8, "uint16": 16, "uint32": 32, "uint64": 64, "complex64": 64, "complex128": 128,
    "float8_e4m3fn": 8, "float8_e5m2": 8, "float8_e8m0fnu": 8, "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8,
    "float6_e2m3": 6, "float6_e3m2": 6, "float4": 4,
}  # fmt: skip
"""Every dtype that a file may have, by torch's name where torch has it."""

WEIGHTS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""The dtypes of weights and counters. Tensors of other dtypes are listed, but not read."""


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
        path: the file.
    """

    format: str
    """What the format is called."""
    ordered: bool
    """Whether the file keeps its tensors in the order in which the network has them."""

    def __init__(self, path: str) -> None:
        self.location = path
        self.path = escaped(path)
        """The file, as it stands in errors and tables."""
        self.file_size = os.stat(path).st_size
        self.claimed = 0
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

    @property
    def is_structure(self) -> bool:
        """Whether it is of another tool, which has layers without weights."""
        return False

    inflation: ClassVar[int]
    """All tensors together may be this many times as large as the file: weights hardly compress, bombs do."""

    def add(self, name: str, shape: tuple[int, ...], dtype: str, size: int) -> None:
        """Note a tensor of the file."""
        if len(name) > MOST_NAME:
            raise CheckpointError(f"{self.path}: a tensor's name has {len(name):,} characters: {shorten(name)}")
        if name != escaped(name):
            raise CheckpointError(f"{self.path}: a tensor's name has control characters: {escaped(shorten(name))}")
        if name in self.tensors:
            raise CheckpointError(f"{self.path}: there are two tensors named {shorten(name)}")
        if len(shape) > MOST_DIMENSIONS:
            raise CheckpointError(f"{self.path}: {shorten(name)} has {len(shape):,} dimensions")
        self.claimed += size
        if self.claimed > self.inflation * max(self.file_size, 2**16):
            raise CheckpointError(
                f"{self.path}: its tensors up to {shorten(name)} claim {self.claimed:,} bytes, in a file of"
                f" {self.file_size:,}"
            )
        if len(self.tensors) >= MOST_TENSORS:
            raise CheckpointError(f"{self.path}: expected at most {MOST_TENSORS:,} tensors, found more")
        self.tensors[name] = Stored(name, shape, dtype, size)

    def configured(self, text: str) -> None:
        """Note the configuration that the file carries."""
        if len(text) > MOST_METADATA:
            raise CheckpointError(f"{self.path}: its configuration has {len(text):,} characters")
        self.metadata[CONFIG_KEY] = text


class Mapped(Container):
    """A file that holds tensors as memory does, so that they can be mapped."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._memory: Any = None

    def row(self, begin: int, elements: int, dtype: str) -> torch.Tensor:
        """Return consecutive values: memory-mapped if they are aligned, else a copy.

        Args:
            begin: where the first one is in the file.
            elements: how many.
            dtype: of each.
        """
        import torch

        if dtype not in WEIGHTS:
            raise CheckpointError(f"{self.path}: expected weights of {', '.join(WEIGHTS)}, found {dtype}")
        kind, size = getattr(torch, dtype), elements * ELEMENT_BITS[dtype] // 8
        if begin % ALIGNMENT or not elements:  # kernels round otherwise on odd addresses
            tensor = torch.empty(elements, dtype=kind)
            with open(self.location, "rb") as file:
                file.seek(begin)
                file.readinto(tensor.view(torch.uint8).numpy().data)
            return tensor
        if self._memory is None:
            self._memory = torch.UntypedStorage.from_file(self.location, False, self.file_size)
        part = self._memory[begin : begin + size]  # a storage of its own: who saves the tensor saves no more than it
        return torch.empty(0, dtype=kind).set_(part, 0, (elements,), (1,))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[0] if lines else type(error).__name__, 160).strip("'\"")


def open_container(path: str | os.PathLike[str], likely: tuple[int, ...] | None = None) -> Container:
    """Open a file with tensors in it.

    Args:
        path: a file of safetensors, PyTorch, HDF5, Keras or TorchScript, or a folder of safetensors, whatever its name;
            or another tool's file, by its ending.
        likely: the shape of an image that its network may well be for, where it does not say it.

    Raises:
        CheckpointError: if there is no such file, it is none of these, it is damaged, or it would execute code.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return SafeTensorsFolder(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{shorten(path, 200).strip(chr(39))}: can't be read: {reason}") from None
    if head.startswith(b"PK\x03\x04") and _is_keras(path):
        return KerasZip(path)
    return Exchanged(path, likely=likely) if kind_of_file(path) else _kind(path, head)(path)


def _kind(path: str, head: bytes) -> type[Container]:
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return Hdf5
    if head.startswith(b"PK\x03\x04"):
        return PyTorch
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return SafeTensors
    if head.startswith(b"\x80"):
        return PyTorch
    found = "nothing" if not head else f"a file that begins with {shorten(head[:8])}"
    raise CheckpointError(
        f"{escaped(path)}: expected a checkpoint of PyTorch, safetensors, HDF5 or Keras, found {found}"
    )


def _is_keras(path: str) -> bool:
    try:
        with open_archive(path) as archive:
            return WEIGHTS_MEMBER in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError):
        return False  # PyTorch's reader will say what is wrong with it


class SafeTensors(Mapped):
    """A safetensors file: a JSON header, then the values."""

    format = "safetensors"
    ordered = False
    inflation = 1
    DTYPES: ClassVar[dict[str, str]] = {
        "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
        "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32",
        "U64": "uint64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
        "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "F6_E2M3": "float6_e2m3", "F6_E3M2": "float6_e3m2", "F4": "float4",
    }  # fmt: skip
    """Source: `Dtype` and `bitsize` in safetensors/src/tensor.rs."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        from safetensors import safe_open

        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if MOST_DIRECTORY < length <= self.file_size:
                raise CheckpointError(
                    f"{self.path}: expected the header of a few tensors, found one of {length:,} bytes"
                )
            header = file.read(min(length, MOST_DIRECTORY))
        with self.reading():
            with safe_open(path, framework="numpy"):  # checks that each byte behind the header is one tensor's
                pass
            said = json.loads(header, object_pairs_hook=self._once)
        self.said: dict[str, str] = said.pop("__metadata__", {})
        """What its writer says besides."""
        if CONFIG_KEY in self.said:
            self.configured(self.said[CONFIG_KEY])
        self._begins = {}
        for name, entry in said.items():
            begin, end = entry["data_offsets"]
            self._begins[name] = 8 + length + begin
            dtype = self.DTYPES.get(entry["dtype"], entry["dtype"].lower())
            self.add(name, tuple(entry["shape"]), dtype, end - begin)

    def _once(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make a dict of an object in the header, whose keys must be different."""
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise CheckpointError(f"{self.path}: its header has {escaped(shorten(twice))} twice")
        return result

    def read(self, name: str) -> torch.Tensor:
        stored = self.tensors[name]
        with self.reading():
            return self.row(self._begins[name], math.prod(stored.shape), stored.dtype).reshape(stored.shape)


class Part(NamedTuple):
    """A tensor of a file that is a part of a larger one.

    Args:
        file: where it is.
        stored: the part.
        offsets: where it begins in the whole, along each axis.
    """

    file: SafeTensors
    stored: Stored
    offsets: tuple[int, ...]

    @property
    def place(self) -> tuple[slice, ...]:
        """Where it is in the whole."""
        return tuple(slice(begin, begin + side) for begin, side in zip(self.offsets, self.stored.shape))


class SafeTensorsFolder(Container):
    """A folder of safetensors files, each with what one of several ranks had.

    `torch.distributed.checkpoint.save` writes it with a `HuggingFaceStorageWriter(path, save_distributed=True)`. What
    it writes without one has pickles, which are not read.
    """

    format = "a folder of safetensors"
    ordered = False
    inflation = 1
    MOST_FILES = 4096
    OFFSETS = "DCP_SHARDING_INFO"
    """Under this key a file's metadata says where its parts begin (torch/distributed/checkpoint/_hf_utils.py)."""
    PICKLE = ".metadata"
    """What a folder has that was written without it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        names = sorted(os.listdir(path))
        files = [os.path.join(path, name) for name in names if name.endswith(".safetensors")]
        if not files or len(files) > self.MOST_FILES:
            found = f"a {self.PICKLE}, which is a pickle and not read" * (self.PICKLE in names)
            raise CheckpointError(
                f"{self.path}: expected a folder of 1 to {self.MOST_FILES:,} safetensors files, as"
                " torch.distributed.checkpoint writes with HuggingFaceStorageWriter(path, save_distributed=True), found"
                f" {found or len(files)}"
            )
        self._parts: dict[str, list[Part]] = {}
        self.file_size = 0
        for file in map(SafeTensors, files):
            self.file_size += file.file_size
            with file.reading():
                self._note(file)
        for name, parts in self._parts.items():
            self._join(name, parts)

    def _note(self, file: SafeTensors) -> None:
        said = json.loads(file.said.get(self.OFFSETS, "{}"))
        for name, stored in file.tensors.items():
            offsets = tuple(said[name]["saved_offsets"]) if name in said else (0,) * len(stored.shape)
            if len(offsets) != len(stored.shape) or not all(type(begin) is int and begin >= 0 for begin in offsets):
                raise CheckpointError(f"{file.path}: {shorten(name)} begins at no place, {shorten(offsets)}")
            self._parts.setdefault(name, []).append(Part(file, stored, offsets))

    def _join(self, name: str, parts: list[Part]) -> None:
        """Note the tensor that has these parts."""
        first = parts[0]
        kinds = {(part.stored.dtype, len(part.offsets)) for part in parts}
        if len(kinds) > 1:
            raise CheckpointError(f"{self.path}: parts of {shorten(name)} have several dtypes or numbers of axes")
        shape = tuple(max(part.place[axis].stop for part in parts) for axis in range(len(first.offsets)))
        if math.prod(shape) != sum(math.prod(part.stored.shape) for part in parts):
            raise self._torn(name)
        self.add(name, shape, first.stored.dtype, sum(part.stored.size for part in parts))

    def _torn(self, name: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {shorten(name)} is not whole, or twice there: a rank's file is missing?")

    def read(self, name: str) -> torch.Tensor:
        import torch

        stored, parts = self.tensors[name], self._parts[name]
        if len(parts) == 1:
            return parts[0].file.read(name)
        tensors = [part.file.read(name) for part in parts]
        whole = torch.empty(stored.shape, dtype=tensors[0].dtype)
        is_there = torch.zeros(stored.shape, dtype=torch.bool)
        for part, tensor in zip(parts, tensors):
            whole[part.place] = tensor
            is_there[part.place] = True
        if not is_there.all():  # they have as many elements as the whole, so two of them overlap
            raise self._torn(name)
        return whole


def write_safetensors(file: IO[bytes], state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, aligned, one after the other without a second copy of them all.

    The safetensors library itself puts the smallest dtypes last and pads the header to 8 bytes, so that mapped weights
    lie at odd addresses, where matrix kernels round otherwise than on torch's own memory. The format leaves the order
    of the tensors and the header's padding to the writer.

    Args:
        file: where to.
        state: the tensors by name.
        metadata: further text for the header.

    Raises:
        OSError: if it can't be written.
        ArgumentError: if a tensor's dtype has no place in the format.
    """
    import torch

    dtypes = {torch_name: name for name, torch_name in SafeTensors.DTYPES.items()}
    # sizes that keep what follows aligned first: counters of a few bytes last
    names = sorted(state, key=lambda name: (state[name].nbytes % ALIGNMENT != 0, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor, begin = state[name], end
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in dtypes:
            raise ArgumentError(f"{name}: expected one of {', '.join(dtypes)}, found {dtype}")
        end = begin + tensor.nbytes
        header[name] = {"dtype": dtypes[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in names:
        values = state[name].detach().cpu().contiguous().reshape(-1)
        file.write(values.view(torch.uint8).numpy().data)


class PyTorch(Mapped):
    """A file of `torch.save`: a zip archive, or before version 1.6 a row of pickles; never executed."""

    format = "PyTorch"
    ordered = True
    inflation = 4
    """Tensors that share their values are in the file once."""
    WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "ema")
    MAGIC_NUMBER = 0x1950A86A20F9469CFC6C

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._rows: dict[str, tuple[int, int]] = {}
        with self.reading():
            content = self._zipped() if zipfile.is_zipfile(path) else self._legacy()
        self._records, said = self._state(content)
        self._places = {name: self._place_of(name, tensor) for name, tensor in self._records.items()}
        for name, tensor in self._records.items():
            self.add(name, tensor.shape, tensor.dtype, math.prod(tensor.shape) * ELEMENT_BITS[tensor.dtype] // 8)
        config = said.get(CONFIG_KEY) if isinstance(said, dict) else None
        if isinstance(config, dict) and isinstance(config.get("yaml"), str):
            self.configured(config["yaml"])

    def _zipped(self) -> Any:
        """Read the pickle of an archive, and note where the values are."""
        with open_archive(self.location) as archive, open(self.location, "rb") as file:
            members = archive.infolist()
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise CheckpointError(
                        f"{self.path}: refused: {shorten(member.filename)} is compressed or encrypted, which torch.save"
                        f" doesn't do"
                    )
            roots = [name.rpartition("/")[0] for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
            if len(roots) != 1:
                raise CheckpointError(f"{self.path}: expected an archive of torch.save, found one without a data.pkl")
            root = roots[0]
            if f"{root}/byteorder" in archive.namelist() and self._member(archive, f"{root}/byteorder") != b"little":
                raise CheckpointError(f"{self.path}: expected little-endian values, found big-endian ones")
            for member in members:
                if member.filename.startswith(f"{root}/data/"):
                    self._rows[member.filename.removeprefix(f"{root}/data/")] = self._place(file, member)
            return unpickle(self.path, io.BytesIO(self._member(archive, f"{root}/data.pkl")))

    def _member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        info = archive.getinfo(name)
        if max(info.file_size, info.compress_size) > MOST_DIRECTORY:
            raise CheckpointError(f"{self.path}: {shorten(name)} has {info.file_size:,} bytes")
        return archive.read(info)

    def _place(self, file: BinaryIO, member: zipfile.ZipInfo) -> tuple[int, int]:
        """Return where a member's bytes begin, and how many they are."""
        begin = place_in(file, member)
        if begin is None or begin + member.file_size > self.file_size:
            raise CheckpointError(f"{self.path}: {shorten(member.filename)} lies outside of the file")
        return begin, member.file_size

    def _legacy(self) -> Any:
        """Read the five pickles of a file of before version 1.6, and note where the values behind them are."""
        with open(self.location, "rb") as file:
            pickles = io.BytesIO(file.read(MOST_DIRECTORY))
        magic, protocol, system = (unpickle(self.path, pickles) for _ in range(3))
        if magic != self.MAGIC_NUMBER or protocol != 1001 or not isinstance(system, dict):
            raise CheckpointError(f"{self.path}: refused: a pickle, but none of torch.save")
        if system.get("little_endian") is False:
            raise CheckpointError(f"{self.path}: expected little-endian values, found big-endian ones")
        storages: dict[str, StorageRecord] = {}
        content = unpickle(self.path, pickles, storages)
        keys = unpickle(self.path, pickles)
        begin = pickles.tell()
        with open(self.location, "rb") as file:
            for key in keys:
                file.seek(begin)
                begin += 8
                size = int.from_bytes(file.read(8), "little") * ELEMENT_BITS[storages[key].dtype or "uint8"] // 8
                self._rows[key] = begin, size
                begin += size
        if begin > self.file_size:
            raise CheckpointError(f"{self.path}: can't be read as PyTorch: it ends before its values do")
        return content

    def _state(self, content: Any) -> tuple[dict[str, TensorRecord], Any]:
        """Return the tensors of a state dict, also of one that lies in a wrapper, and its metadata."""
        seen: set[int] = set()
        while isinstance(content, dict) and id(content) not in seen:
            seen.add(id(content))
            tensors = {name: tensor for name, value in content.items() if (tensor := tensor_of(value))}
            if tensors and all(isinstance(name, str) for name in tensors):
                return tensors, getattr(content, "said", None)
            inner = next((content[word] for word in self.WRAPPERS if isinstance(content.get(word), dict)), None)
            if inner is None:
                break
            content = inner
        found = f"keys such as {shorten(list(content)[:3])}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{self.path}: expected a state dict, names with tensors, found {found}")

    def _place_of(self, name: str, tensor: TensorRecord) -> tuple[int, int]:
        """Return where a tensor begins in the file, and how many elements lie from its first one to its last."""
        storage, size = tensor.storage, ELEMENT_BITS.get(tensor.dtype, 0) // 8
        if not size:
            raise CheckpointError(f"{self.path}: {shorten(name)} has an unknown dtype, {shorten(tensor.dtype)}")
        if storage.key not in self._rows:
            raise CheckpointError(f"{self.path}: {shorten(name)} has no values in the file")
        begin, available = self._rows[storage.key]
        span = 0 if 0 in tensor.shape else 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride))
        held = storage.elements * (size if storage.dtype else 1)
        if (tensor.offset + span) * size > held or storage.start * size + held > available:
            raise CheckpointError(f"{self.path}: {shorten(name)} is larger than its values in the file")
        return begin + (storage.start + tensor.offset) * size, span

    def read(self, name: str) -> torch.Tensor:
        tensor, (begin, span) = self._records[name], self._places[name]
        with self.reading():
            return self.row(begin, span, tensor.dtype).as_strided(tensor.shape, tensor.stride)


class Hdf5(Container):
    """An HDF5 file, as Keras writes them."""

    format = "HDF5"
    ordered = False
    inflation = 16
    MEMBER = ""
    """The HDF5 file's name in an archive."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.rehearse()
        with self.reading():
            self.file = self._open()
            self._scan()

    def rehearse(self) -> None:
        """Read the file in another process first; refuse it if the library loops, crashes or opens other files."""
        try:
            hdf5.rehearse(self.location, self.MEMBER)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: can't be read as {self.format}: {error}") from None

    def _open(self) -> Any:
        import h5py

        return h5py.File(self.location, "r")

    def _scan(self) -> None:
        import h5py

        config = self.attribute("/", CONFIG_KEY)
        if isinstance(config, bytes):
            self.configured(config.decode())

        def visit(name: str | bytes, thing: Any) -> None:
            if isinstance(name, bytes):
                raise CheckpointError(f"{self.path}: {shorten(name)} is no name")
            if isinstance(thing, h5py.Dataset):
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
            if size > hdf5.LARGEST_ATTRIBUTE:  # asked before it is read: the HDF5 library would try for minutes
                raise CheckpointError(f"{self.path}: the attribute {shorten(name)} claims {size:,} bytes")
            return thing.attrs[name]

    def description(self) -> Any:
        """Return Keras's JSON description of the model; None if the file has none."""
        with self.reading():
            text = self._description()
            return None if text is None else json.loads(text)  # Keras writes Infinity, which only this reads

    def _description(self) -> bytes | str | None:
        text = self.attribute("/", "model_config")
        return text if isinstance(text, (bytes, str)) else None

    def read(self, name: str) -> torch.Tensor:
        import torch

        stored = self.tensors[name]
        if stored.dtype not in WEIGHTS:
            raise CheckpointError(f"{self.path}: {shorten(name)}: expected numbers, found {shorten(stored.dtype)}")
        with self.reading():
            return torch.from_numpy(self.file[name][...])


class Exchanged(Container):
    """A network in a file of another tool: its tensors go by the names of the network that it is read as.

    Args:
        path: the file.
        known: what it says; None reads it.
        likely: the shape of an image that it may well be for, where it does not say it.
    """

    ordered = True
    inflation = 1

    @property
    def is_structure(self) -> bool:
        return not self.tensors

    def __init__(self, path: str, known: Imported | None = None, likely: tuple[int, ...] | None = None) -> None:
        super().__init__(path)
        kind = kind_asked_for(path)
        self.format = kind.title
        self.network, tensors, self.notes = known or kind.imported(Given(path, likely=likely))
        self.metadata[CONFIG_KEY] = str(self.network.config)
        self.values = {
            f"{placed.module}.{role}": tensors[placed.name, role]
            for placed in self.network
            for role in placed.held
            if (placed.name, role) in tensors
        }
        for name, values in self.values.items():  # its reader has checked that the file has as many bytes
            size = math.prod(values.shape) * ELEMENT_BITS[values.dtype] // 8
            self.tensors[name] = Stored(name, values.shape, values.dtype, size)

    def read(self, name: str) -> torch.Tensor:
        import torch

        with self.reading():
            return torch.from_numpy(self.values[name].load().copy())


class KerasZip(Hdf5):
    """A `.keras` archive: the weights as HDF5, and the layers as JSON."""

    format = "Keras"
    MEMBER = WEIGHTS_MEMBER

    @property
    def is_structure(self) -> bool:
        return not self.archive.has_weights

    def rehearse(self) -> None:
        with self.reading():
            self.archive = KerasArchive(self.location)
            if self.archive.has_weights:
                self.archive.check_stored()
        if self.archive.has_weights:
            super().rehearse()

    def _open(self) -> Any:
        return self.archive.weights()

    def _scan(self) -> None:
        super()._scan()
        own = stated(self.archive, Given(self.location))
        if own is not None:
            self.configured(str(own.config))

    def description(self) -> Any:
        with self.reading():
            return self.archive.json(CONFIG)

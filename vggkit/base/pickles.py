"""The pickle in a file of `torch.save` → names with descriptions of tensors, by a machine of its own.

A pickle is a program. Python runs it and calls whatever a file names; torch's `weights_only` still allocates as many
bytes as a file asks for. The machine here knows the steps that a state dict and the checkpoints around it need. It
calls nothing, refuses everything else by name, and returns descriptions of tensors without their values.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO, NamedTuple

from vggkit.base.errors import CheckpointError, escaped, shorten

MOST_OPCODES = 2**20
"""A checkpoint of D with its optimizer's state has about 10,000."""

MOST_KEY = 2**63
"""Larger integers are refused as keys: many of them can be made to collide in a dict."""

MOST_DIMENSIONS = 64
"""As torch allows."""

STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
}  # fmt: skip
"""Dtypes by the names of torch's storage classes: torch.FloatStorage, torch.cuda.FloatStorage."""

SPECIAL = {
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no values",
    "_rebuild_wrapper_subclass": "a tensor of a class of its own",
}
"""Functions of torch that make other things than dense tensors."""


class StorageRecord(NamedTuple):
    """A row of values in the file, shared by the tensors that are views of it.

    Args:
        key: where the values are.
        dtype: torch's name of it; None if each tensor says its own.
        elements: how many; bytes if the dtype is None.
        start: where a view of the whole row begins, as files before torch 0.4 have them.
    """

    key: str
    dtype: str | None
    elements: int
    start: int = 0


class TensorRecord(NamedTuple):
    """A tensor in a file, without its values.

    Args:
        storage: where its values are.
        dtype: torch's name of it.
        offset: the element of the storage at which it begins.
        shape: elements along each axis.
        stride: the distance between neighbours along each axis, in elements.
    """

    storage: StorageRecord
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Ordered(dict[Any, Any]):
    """An OrderedDict of a file; `said` is the attribute in which a state dict keeps its metadata."""

    said: Any = None


class Global(NamedTuple):
    """The name of a class, function or dtype, which is never looked up."""

    name: str


class Opaque:
    """A value without tensors, whose contents are of no use here."""


class _Parameter:
    """A parameter as torch wrote it before version 0.4: made empty, and given its tensor afterwards."""

    tensor: TensorRecord | None = None


def tensor_of(value: Any) -> TensorRecord | None:
    """Return the tensor that a value of an unpickled file is; None if it is something else."""
    tensor = value.tensor if isinstance(value, _Parameter) else value
    return tensor if isinstance(tensor, TensorRecord) else None


def unpickle(
    path: str,
    file: BinaryIO,
    storages: dict[str, StorageRecord] | None = None,
    kind: type[Machine] | None = None,
) -> Any:
    """Run one pickle, from where the file stands to its end.

    Args:
        path: the file's, for errors.
        file: its bytes in memory.
        storages: is given the rows of values that the pickle mentions.
        kind: what knows more steps than those of a checkpoint.

    Returns:
        What it describes: dicts, lists, tuples, numbers, text, and a TensorRecord for each tensor.

    Raises:
        CheckpointError: if it does anything that a checkpoint does not need, too long, or is damaged.
    """
    machine = (kind or Machine)(path, {} if storages is None else storages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_OPCODES:
                raise CheckpointError(f"{path}: refused: its pickle has more than {MOST_OPCODES:,} steps")
            machine.run(opcode.name, argument)
        return machine.stack.pop()
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: can't be read as PyTorch: its pickle is damaged") from None


class Machine:
    """The stack, the marks in it and the memo of a pickle."""

    def __init__(self, path: str, storages: dict[str, StorageRecord]) -> None:
        self.path = path
        self.storages = storages
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def refused(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: refused: {what}; save the model's state_dict()")

    def run(self, opcode: str, argument: Any) -> None:
        """Take one step."""
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in ("PROTO", "STOP"):
            raise self.refused(f"a pickle of something else than tensors, with the step {opcode}")

    def mark(self, _: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2]):
            self.set_item(target, key, value)

    def set_item(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        if not (isinstance(key, (str, float)) or (isinstance(key, int) and abs(key) < MOST_KEY)):
            raise self.refused("a key that is no name")
        if key in target:
            raise CheckpointError(f"{self.path}: {shorten(key)} is there twice")
        target[key] = value

    def set_one(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def name(self, words: str) -> None:
        name = ".".join(words.split(" "))
        kind = SPECIAL.get(name.removeprefix("torch._utils."))
        if kind is not None:
            raise self.refused(f"it holds {kind}, and only dense tensors are read")
        if not self.knows(name):
            raise CheckpointError(
                f"{self.path}: refused, as it would run code: it asks for {escaped(name[:100])}, and only tensors are"
                f" read. Save the model's state_dict() instead of the model"
            )
        self.stack.append(Global(name))

    def knows(self, name: str) -> bool:
        """Tell whether a name may stand in a pickle."""
        return name in _CALLS or name in _CLASSES or bool(_storage_dtype(name)) or _is_dtype(name)

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise self.refused("a call of something else than what makes tensors")
        self.stack.append(self.called(function.name, arguments))

    def called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what stands for the result of a call."""
        if name not in _CALLS:
            raise self.refused("a call of something else than what makes tensors")
        return _CALLS[name](self, *arguments)

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        self.set_state(target, state)

    def set_state(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        if isinstance(target, Ordered) and isinstance(state, dict):
            target.said = state.get("_metadata")
        elif isinstance(target, _Parameter) and isinstance(state, tuple) and len(state) == len(_PARAMETER_STATE):
            target.tensor = tensor_of(state[0])
        elif not isinstance(target, Opaque):
            raise self.refused("a pickle of something else than tensors")

    def storage(self, _: Any) -> None:
        """Note a row of values: torch's persistent ids are ("storage", class, key, device, elements[, view])."""
        said = self.stack.pop()
        if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] != "storage":
            raise self.refused("a reference to something else than a tensor's values")
        kind, key, elements, view = said[1], said[2], said[4], said[5] if len(said) == 6 else None
        dtype = _storage_dtype(kind.name) if isinstance(kind, Global) else None
        if dtype is None or not isinstance(key, str) or not _is_size(elements):
            raise self.refused("values of an unknown kind")
        whole = StorageRecord(key, dtype or None, elements)
        if self.storages.setdefault(key, whole) != whole:
            raise self.refused("values of two kinds in one place")
        if view is not None:
            _, start, size = view
            if not (_is_size(start) and _is_size(size)) or start + size > elements:
                raise ValueError
            whole = whole._replace(elements=size, start=start)
        self.stack.append(whole)

    # what a pickle may call

    def ordered(self, pairs: Any = ()) -> Ordered:
        result = Ordered()
        for key, value in pairs:
            self.set_item(result, key, value)
        return result

    def tensor(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
        dtype: str | None = None,
    ) -> TensorRecord:
        if not isinstance(storage, StorageRecord) or not _is_size(offset):
            raise TypeError
        if not (_is_shape(shape) and _is_shape(stride) and len(shape) == len(stride)):
            raise self.refused("a tensor without a shape")
        if prod(shape) >= MOST_KEY:
            raise self.refused("a tensor of more elements than any has")
        if metadata:
            raise self.refused("a tensor that is a conjugate or negative view")
        dtype = storage.dtype or dtype
        if dtype is None:
            raise self.refused("a tensor without a dtype")
        return TensorRecord(storage, dtype, offset, shape, stride)

    def tensor_with_dtype(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> TensorRecord:
        if not isinstance(dtype, Global) or not _is_dtype(dtype.name):
            raise TypeError
        word = dtype.name.removeprefix("torch.")
        return self.tensor(storage, offset, shape, stride, requires_grad, hooks, metadata, dtype=word)

    def parameter(self, tensor: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Any:
        return tensor

    def empty_parameter(self) -> _Parameter:
        return _Parameter()

    def of_type(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """Make a tensor that has attributes, which are passed by."""
        if not isinstance(function, Global) or not isinstance(kind, Global) or kind.name not in _CLASSES:
            raise self.refused("a tensor of a class of its own")
        if not isinstance(arguments, tuple) or function.name not in _TENSORS:
            raise TypeError
        return _CALLS[function.name](self, *arguments)

    def size(self, sides: Any) -> Any:
        return sides

    def opaque(self, *arguments: Any) -> Opaque:
        return Opaque()


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_KEY


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS and all(map(_is_size, value))


def _storage_dtype(name: str) -> str | None:
    """Return the dtype of a storage class; empty if it has none of its own; None if it is no such class."""
    if name == "torch.storage.UntypedStorage":
        return ""
    module, _, word = name.rpartition(".")
    return STORAGES.get(word.removesuffix("Storage")) if module in ("torch", "torch.cuda") else None


def _is_dtype(name: str) -> bool:
    return re.fullmatch(r"torch\.(b?float|u?int|complex|bool)\w*", name) is not None


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_one(),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": Machine.name,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "BUILD": Machine.build,
    "BINPERSID": Machine.storage,
}
"""What each opcode does; those that are not here are refused."""

_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": Machine.tensor,
    "torch._utils._rebuild_tensor_v2": Machine.tensor,
    "torch._utils._rebuild_tensor_v3": Machine.tensor_with_dtype,
    "torch._utils._rebuild_parameter": Machine.parameter,
    "torch._utils._rebuild_parameter_with_state": Machine.parameter,
}
_CALLS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch.nn.parameter.Parameter": Machine.empty_parameter,
    "torch._tensor._rebuild_from_type_v2": Machine.of_type,
    "collections.OrderedDict": Machine.ordered,
    "torch.Size": Machine.size,
    "torch.device": Machine.opaque,
    "collections.Counter": Machine.opaque,  # a scheduler's milestones
    "_codecs.encode": Machine.opaque,  # bytes
}
"""What a pickle may call, and what stands for it here."""

_PARAMETER_STATE = ("tensor", "gradient", "hooks", "requires_grad", "volatile")

_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")

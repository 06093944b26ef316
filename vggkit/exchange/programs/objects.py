"""The modules in a file of TorchScript, with their attributes; no class of theirs is ever looked up."""

from __future__ import annotations

import io
from typing import Any

from vggkit.base.pickles import Machine, TensorRecord, unpickle
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.programs.archive import Archive, view
from vggkit.exchange.values import Values

CLASSES = "__torch__."
"""What the names of a file's own classes begin with."""

LISTS = "torch.jit._pickle.build_"
"""What the names of functions that make lists begin with: `build_intlist`, `build_tensorlist`."""

TAGGED = "torch.jit._pickle.restore_type_tag"
"""The function that gives a list or a dict its type in TorchScript."""


class ScriptObject:
    """An object of a class in the file.

    Args:
        kind: the name of its class.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.attributes: dict[str, Any] = {}


class ScriptMachine(Machine):
    """Knows the pickles of TorchScript: objects of the file's own classes, and lists of one type."""

    def knows(self, name: str) -> bool:
        """Tell whether a name may stand in a pickle."""
        return name.startswith((CLASSES, LISTS)) or name == TAGGED or super().knows(name)

    def called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what stands for the result of a call."""
        if name.startswith(CLASSES):
            return ScriptObject(name)
        if name.startswith(LISTS) or name == TAGGED:
            return arguments[0]
        return super().called(name, arguments)

    def set_state(self, target: Any, state: Any) -> None:
        """Give an object its attributes."""
        if not isinstance(target, ScriptObject):
            super().set_state(target, state)
        elif isinstance(state, dict):
            target.attributes.update(state)
        else:
            raise self.refused(f"an object of {target.kind} with a state of its own")


class Pickles:
    """The pickles in an archive, and the tensors that they name.

    Args:
        archive: it.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.tensors: dict[Any, Values] = {}

    def read(self, name: str) -> Any:
        """Return what a pickle has; None if there is none.

        Raises:
            CheckpointError: if it does anything but describe modules and tensors.
        """
        if not self.archive.has(name):
            return None
        return unpickle(self.archive.path, io.BytesIO(self.archive.text(name)), kind=ScriptMachine)

    def tensor(self, folder: str, record: TensorRecord) -> Values:
        """Return a tensor; the same for the same values.

        Args:
            folder: of its values in the archive.
            record: where they lie there.

        Raises:
            MalformedError: if they don't.
        """
        key = folder, record
        if key not in self.tensors:
            if record.storage.start:
                raise MalformedError("its tensors lie in one another")
            content = self.archive.content(f"{folder}/{record.storage.key}")
            self.tensors[key] = view(content, record.shape, record.stride, record.offset, record.dtype)
        return self.tensors[key]

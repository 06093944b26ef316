"""Whether a value is a torch module, told without torch: a program that has one has imported torch already."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing_extensions import TypeIs


class TorchModule(Protocol):
    """A module of torch, described so that a type checker needs no torch."""

    training: bool

    def eval(self) -> Any:
        """Set evaluation mode."""

    def state_dict(self) -> Any:
        """Return its parameters and buffers."""


def is_module(value: object) -> TypeIs[TorchModule]:
    """Tell whether a value is a module of torch, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)

"""vggkit: say a VGG network in the paper's own words, get the PyTorch model, and know exactly what it costs.

Everything is imported when it is first used, so that `import vggkit` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggkit.analysis import Summary, summarize
    from vggkit.config import Config
    from vggkit.errors import ArgumentError, BuildError, ConfigError, VggkitError
    from vggkit.liveness import MemoryPlan, max_batch, memory
    from vggkit.model import VGG, build
    from vggkit.network import Network
    from vggkit.zoo import dump, load, loads, names

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "errors",
    "BuildError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "MemoryPlan": "liveness",
    "Network": "network",
    "Summary": "analysis",
    "VGG": "model",
    "VggkitError": "errors",
    "build": "model",
    "dump": "zoo",
    "load": "zoo",
    "loads": "zoo",
    "max_batch": "liveness",
    "memory": "liveness",
    "names": "zoo",
    "summarize": "analysis",
}

__all__ = [
    "VGG",
    "ArgumentError",
    "BuildError",
    "Config",
    "ConfigError",
    "MemoryPlan",
    "Network",
    "Summary",
    "VggkitError",
    "build",
    "dump",
    "load",
    "loads",
    "max_batch",
    "memory",
    "names",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

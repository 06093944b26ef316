"""vggkit: say a VGG network in the paper's own words, get the PyTorch model, and know exactly what it costs.

Everything is imported when it is first used, so that `import vggkit` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggkit.analysis import Summary, summarize
    from vggkit.building import build, load_model
    from vggkit.classifier import Classifier
    from vggkit.config import Config
    from vggkit.errors import ArgumentError, BuildError, CheckpointError, ConfigError, VggkitError
    from vggkit.liveness import MemoryPlan, max_batch, memory
    from vggkit.model import VGG
    from vggkit.network import Network
    from vggkit.surgery import to_fully_convolutional
    from vggkit.taps import features
    from vggkit.weights.conversion import convert
    from vggkit.weights.loading import load_weights, save_weights
    from vggkit.zoo import dump, load, loads, names

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "errors",
    "BuildError": "errors",
    "CheckpointError": "errors",
    "Classifier": "classifier",
    "Config": "config",
    "ConfigError": "errors",
    "MemoryPlan": "liveness",
    "Network": "network",
    "Summary": "analysis",
    "VGG": "model",
    "VggkitError": "errors",
    "build": "building",
    "convert": "weights.conversion",
    "dump": "zoo",
    "features": "taps",
    "load": "zoo",
    "load_model": "building",
    "load_weights": "weights.loading",
    "loads": "zoo",
    "max_batch": "liveness",
    "memory": "liveness",
    "names": "zoo",
    "save_weights": "weights.loading",
    "summarize": "analysis",
    "to_fully_convolutional": "surgery",
}

__all__ = [
    "VGG",
    "ArgumentError",
    "BuildError",
    "CheckpointError",
    "Classifier",
    "Config",
    "ConfigError",
    "MemoryPlan",
    "Network",
    "Summary",
    "VggkitError",
    "build",
    "convert",
    "dump",
    "features",
    "load",
    "load_model",
    "load_weights",
    "loads",
    "max_batch",
    "memory",
    "names",
    "save_weights",
    "summarize",
    "to_fully_convolutional",
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

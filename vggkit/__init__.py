"""vggkit: say a VGG network in the paper's own words, get the PyTorch model, and know exactly what it costs.

Everything is imported when it is first used, so that `import vggkit` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vggkit.analysis import Summary, summarize
    from vggkit.building import build, load_model
    from vggkit.classifier import Classifier
    from vggkit.comparison import Comparison, compare
    from vggkit.config import Config
    from vggkit.drawing import Picture, plot
    from vggkit.errors import ArgumentError, BuildError, CheckpointError, ConfigError, VggkitError
    from vggkit.explanation import Explanation, explain
    from vggkit.liveness import MemoryPlan, max_batch, memory
    from vggkit.model import VGG
    from vggkit.network import Network
    from vggkit.reconciliation import Finding, reconcile
    from vggkit.reporting import Report, report
    from vggkit.search import Found, find
    from vggkit.surgery import to_fully_convolutional
    from vggkit.taps import features
    from vggkit.weights.conversion import convert
    from vggkit.weights.inspection import Inspection, inspect
    from vggkit.weights.loading import load_weights, save_weights
    from vggkit.zoo import dump, load, loads, names

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "errors",
    "BuildError": "errors",
    "CheckpointError": "errors",
    "Classifier": "classifier",
    "Comparison": "comparison",
    "Config": "config",
    "ConfigError": "errors",
    "Explanation": "explanation",
    "Finding": "reconciliation",
    "Found": "search",
    "Inspection": "weights.inspection",
    "MemoryPlan": "liveness",
    "Network": "network",
    "Picture": "drawing",
    "Report": "reporting",
    "Summary": "analysis",
    "VGG": "model",
    "VggkitError": "errors",
    "build": "building",
    "compare": "comparison",
    "convert": "weights.conversion",
    "dump": "zoo",
    "explain": "explanation",
    "features": "taps",
    "find": "search",
    "inspect": "weights.inspection",
    "load": "zoo",
    "load_model": "building",
    "load_weights": "weights.loading",
    "loads": "zoo",
    "max_batch": "liveness",
    "memory": "liveness",
    "names": "zoo",
    "plot": "drawing",
    "reconcile": "reconciliation",
    "report": "reporting",
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
    "Comparison",
    "Config",
    "ConfigError",
    "Explanation",
    "Finding",
    "Found",
    "Inspection",
    "MemoryPlan",
    "Network",
    "Picture",
    "Report",
    "Summary",
    "VggkitError",
    "build",
    "compare",
    "convert",
    "dump",
    "explain",
    "features",
    "find",
    "inspect",
    "load",
    "load_model",
    "load_weights",
    "loads",
    "max_batch",
    "memory",
    "names",
    "plot",
    "reconcile",
    "report",
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

"""vggkit: describe a VGG network in the paper's own notation, get the PyTorch model, and know exactly what it costs.

Everything is imported when it is first used, so that `import vggkit` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.base.version import __version__ as __version__

if TYPE_CHECKING:
    from vggkit.base.errors import ArgumentError, BuildError, CheckpointError, ConfigError, VggkitError
    from vggkit.classify.classifier import Classifier
    from vggkit.figures.compare import Comparison, compare
    from vggkit.figures.explain import Explanation, explain
    from vggkit.figures.reconcile import Finding, reconcile
    from vggkit.figures.summary import Summary, summarize
    from vggkit.footprint.fit import max_batch
    from vggkit.footprint.group_plan import GroupPlan, StrategyPlan, plan
    from vggkit.footprint.plan import MemoryPlan, memory
    from vggkit.footprint.remedies.remedies import Remedies, Remedy, remedies
    from vggkit.model.build import build, load_model
    from vggkit.model.exchange import export, import_config
    from vggkit.model.features import features
    from vggkit.model.module import VGG, to_fully_convolutional
    from vggkit.model.parallelize import parallelize
    from vggkit.model.weights.conversion import convert
    from vggkit.model.weights.inspection import Inspection, inspect
    from vggkit.model.weights.loading import load_weights, save_weights
    from vggkit.modules.describe import describe
    from vggkit.network import Network
    from vggkit.notation.config import Config
    from vggkit.notation.zoo import dump, load, loads, names
    from vggkit.pictures.plot import Picture, plot
    from vggkit.pictures.report.page import Report
    from vggkit.pictures.report.report import report
    from vggkit.search.find import Found, find


_HOMES = {
    "ArgumentError": "base.errors",
    "BuildError": "base.errors",
    "CheckpointError": "base.errors",
    "Classifier": "classify.classifier",
    "Comparison": "figures.compare",
    "Config": "notation.config",
    "ConfigError": "base.errors",
    "Explanation": "figures.explain",
    "Finding": "figures.reconcile",
    "Found": "search.find",
    "GroupPlan": "footprint.group_plan",
    "Inspection": "model.weights.inspection",
    "MemoryPlan": "footprint.plan",
    "Network": "network",
    "Picture": "pictures.plot",
    "Remedies": "footprint.remedies.remedies",
    "Remedy": "footprint.remedies.remedies",
    "Report": "pictures.report.page",
    "StrategyPlan": "footprint.group_plan",
    "Summary": "figures.summary",
    "VGG": "model.module",
    "VggkitError": "base.errors",
    "build": "model.build",
    "compare": "figures.compare",
    "convert": "model.weights.conversion",
    "describe": "modules.describe",
    "dump": "notation.zoo",
    "explain": "figures.explain",
    "export": "model.exchange",
    "features": "model.features",
    "find": "search.find",
    "import_config": "model.exchange",
    "inspect": "model.weights.inspection",
    "load": "notation.zoo",
    "load_model": "model.build",
    "load_weights": "model.weights.loading",
    "loads": "notation.zoo",
    "max_batch": "footprint.fit",
    "memory": "footprint.plan",
    "names": "notation.zoo",
    "parallelize": "model.parallelize",
    "plan": "footprint.group_plan",
    "plot": "pictures.plot",
    "reconcile": "figures.reconcile",
    "remedies": "footprint.remedies.remedies",
    "report": "pictures.report.report",
    "save_weights": "model.weights.loading",
    "summarize": "figures.summary",
    "to_fully_convolutional": "model.module",
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
    "GroupPlan",
    "Inspection",
    "MemoryPlan",
    "Network",
    "Picture",
    "Remedies",
    "Remedy",
    "Report",
    "StrategyPlan",
    "Summary",
    "VggkitError",
    "build",
    "compare",
    "convert",
    "describe",
    "dump",
    "explain",
    "export",
    "features",
    "find",
    "import_config",
    "inspect",
    "load",
    "load_model",
    "load_weights",
    "loads",
    "max_batch",
    "memory",
    "names",
    "parallelize",
    "plan",
    "plot",
    "reconcile",
    "remedies",
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

"""What tests of ONNX's files may use: files of other exporters, and the runtime that computes what they say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import onnx
import torch

from tests import judges
from vggkit import Network


def checked(path: Path) -> onnx.ModelProto:
    """Load a file that passes ONNX's checker and its strict shape inference."""
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def runtimes(path: Path, images: torch.Tensor, name: str = "image") -> numpy.ndarray[Any, Any]:
    """Return what onnxruntime computes."""
    runtime = judges.package("onnxruntime")
    runtime.set_default_logger_severity(4)
    found: numpy.ndarray[Any, Any] = runtime.InferenceSession(str(path)).run(None, {name: images.numpy()})[0]
    return found


def some_images(network: Network, count: int = 3) -> torch.Tensor:
    """Return images of a network's size."""
    return torch.randn(count, *network.input_shape, generator=torch.Generator().manual_seed(0))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's exporters from warning that the older is old."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def by_torch(model: torch.nn.Module, images: torch.Tensor, path: Path, exporter: str) -> None:
    """Export a model by one of torch's two exporters."""
    judges.package("onnxscript")
    options: dict[str, Any] = {
        "old": {"dynamo": False, "input_names": ["image"], "dynamic_axes": {"image": {0: "batch"}}},
        "old, for training": {
            "dynamo": False,
            "training": torch.onnx.TrainingMode.PRESERVE,
            "do_constant_folding": False,
            "opset_version": 13,
        },
        "new": {"dynamo": True, "dynamic_shapes": ({0: "batch"},), "verbose": False},
        "new, one size": {"dynamo": True, "verbose": False},
    }[exporter]
    with quiet():
        torch.onnx.export(model, (images,), str(path), **options)

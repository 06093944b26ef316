"""The network as boxes: their shapes are the built model's."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import vggkit
from tests.pictures.drawings import figure
from tests.pictures.written import words
from vggkit.pictures.flat import arrange
from vggkit.pictures.parts import groups


class Outputs(torch.nn.Module):
    """Runs a model and remembers the shape that comes out of each layer of some types."""

    TYPES = (
        torch.nn.Conv2d, torch.nn.MaxPool2d, torch.nn.Linear, torch.nn.BatchNorm2d, torch.nn.LocalResponseNorm,
    )  # fmt: skip

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.shapes: list[str] = []
        for module in model.modules():
            if isinstance(module, self.TYPES):
                module.register_forward_hook(self.remember)
        model(torch.zeros(1, 3, 224, 224, device="meta"))

    def remember(self, module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        """Note a shape."""
        self.shapes.append("×".join(map(str, output.shape[1:])))


@pytest.mark.parametrize("name", ["A-LRN", "C", "D", "vgg19_bn"])
def test_the_shapes_in_the_boxes_are_those_of_the_built_model(name: str) -> None:
    """Torch's own tensors, layer by layer; the input stands before them and soft-max behind them."""
    boxes = [text for text in words(figure(name, "flat")) if re.fullmatch("[0-9]+(×[0-9]+×[0-9]+)?", text)]
    assert boxes[1:-1] == Outputs(vggkit.build(name, device="meta")).shapes


def test_no_layer_stands_with_the_input() -> None:
    """Where the first layer is a normalization or an activation, and there are no blocks."""
    net = vggkit.loads("{input: 3x8x8, classifier: [batchnorm, relu, FC-3]}")
    columns = arrange(groups(vggkit.summarize(net, expand=True)))
    assert [[box.row.name for box in column.boxes] for column in columns] == [["input"], ["norm", "predictions"]]
    assert [column.name for column in columns] == ["", "classifier"]

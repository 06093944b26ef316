"""The figures are torchinfo's and the paper's."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torchinfo

import vggkit
from vggkit import Network
from vggkit.notation.layers import Softmax

NAMES = ["A", "A-LRN", "B", "C", "D", "E"]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_shapes_are_torchinfos(name: str, batch_norm: bool) -> None:
    """torchinfo counts the same parameters in every layer and in all, and sees the same output shapes."""
    network = Network.of(name, batch_norm=batch_norm)
    model = vggkit.build(network, device="meta")
    images = torch.empty(2, 3, 224, 224, device="meta")
    seen = torchinfo.summary(model, input_data=images, device="meta", verbose=0)
    summary = vggkit.summarize(network, expand=True, batch=2)
    assert summary.totals.parameters == seen.total_params == seen.trainable_params
    leaves = [info for info in seen.summary_list if info.is_leaf_layer]
    ours = [row for row in summary if row.layer is not None and not isinstance(row.layer, Softmax)]
    assert [(row.name.removeprefix(f"{row.block}_"), [2, *row.output_shape], row.parameters) for row in ours] == [
        (info.var_name, list(info.output_size), info.num_params) for info in leaves
    ]


@pytest.mark.parametrize("name", NAMES)
def test_torchinfos_mult_adds_are_ours_and_the_biases(name: str) -> None:
    """What torchinfo calls mult-adds are our multiply-accumulates and one addition for each biased output."""
    totals = vggkit.summarize(name).totals
    additions = sum(
        prod(row.output_shape) for row in vggkit.summarize(name) if row.layer is not None and row.layer.role == "weight"
    )
    model, image = vggkit.build(name, device="meta"), torch.empty(1, 3, 224, 224, device="meta")
    seen = torchinfo.summary(model, input_data=image, device="meta", verbose=0)
    assert seen.total_mult_adds == totals.multiply_accumulates + additions


TABLE_2 = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_in_millions_are_the_papers(name: str) -> None:
    """Table 2 of the paper, in millions, and so says the shipped file."""
    assert round(vggkit.summarize(name).totals.parameters / 10**6) == TABLE_2[name]
    reported = vggkit.load(name).reported
    assert reported is not None
    assert reported.parameters_in_millions == TABLE_2[name]


TABLE_1 = {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}


@pytest.mark.parametrize("name", NAMES)
def test_weight_layers_are_the_papers(name: str) -> None:
    """The head of Table 1: "11 weight layers" and so on."""
    assert vggkit.summarize(name).totals.weight_layers == TABLE_1[name]


TABLE_3 = {
    "A": [(256, 256, 29.6, 10.4)],
    "A-LRN": [(256, 256, 29.7, 10.5)],
    "B": [(256, 256, 28.7, 9.9)],
    "C": [(256, 256, 28.1, 9.4), (384, 384, 28.1, 9.3), ((256, 512), 384, 27.3, 8.8)],
    "D": [(256, 256, 27.0, 8.8), (384, 384, 26.8, 8.7), ((256, 512), 384, 25.6, 8.1)],
    "E": [(256, 256, 27.3, 9.0), (384, 384, 26.9, 8.7), ((256, 512), 384, 25.5, 8.0)],
}


@pytest.mark.parametrize("name", NAMES)
def test_reported_errors_are_the_papers(name: str) -> None:
    """Table 3 of the paper: sides of training and test images, top-1 and top-5 errors at a single scale."""
    reported = vggkit.load(name).reported
    assert reported is not None
    assert [(row.train, row.test, row.top1, row.top5) for row in reported.single_scale] == TABLE_3[name]

"""What a network adds to another: the changes add up to the difference of the built models."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests import drawn
from tests.figures.beside import of
from vggkit import Network, compare
from vggkit.base.errors import ArgumentError
from vggkit.figures.compared import split_changes
from vggkit.figures.diff import Diff


def sums(diff: Diff) -> tuple[int, int, int]:
    """Return the sums of the changes' costs."""
    parameters, macs, activations = zip(*((0, 0, 0), *(change.costs for change in diff.changes)))
    return sum(parameters), sum(macs), sum(activations)


def built_cost(network: Network, batch: int) -> tuple[int, int]:
    """Return the parameters of the built model and half of what the flop counter counts."""
    model = vggkit.build(network, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(batch, *network.input_shape, device="meta"))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


PAIRS = [
    ("C", "D"),
    ("D", "vgg16_bn"),
    ("D", "E"),
    ("E", "A"),
    ("A", "A-LRN"),
    ("A-LRN", "B"),
    ("D", "D:head=gap"),
    ("D", "D:input=3x64x96"),
    ("D:activation=gelu", "D"),
    ("D", "D:width=0.3,num_classes=10,in_channels=1"),
    ("A", "A"),
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_the_changes_add_up_to_the_difference_of_the_models(left: str, right: str) -> None:
    """Parameters and MACs to that of the built models, bytes to that of the summaries' totals."""
    comparison = compare(left, right, batch=2)
    parameters, macs, size = sums(comparison.diff())
    one, other = (Network.of(split_changes(source)[0], **changes_of(source)) for source in (left, right))
    before, after = built_cost(one, 2), built_cost(other, 2)
    assert (parameters, macs) == (after[0] - before[0], after[1] - before[1])
    totals = [vggkit.summarize(network, batch=2).totals.activation_bytes for network in (one, other)]
    assert size == totals[1] - totals[0]


def changes_of(source: str) -> dict[str, Any]:
    """Return the changes behind a source as keywords."""
    words: dict[str, Any] = {"true": True}
    pairs = (change.split("=") for change in split_changes(source)[1])
    return {key: words.get(value, value) if not value[0].isdigit() or "x" in value else float(value)
            if "." in value else int(value) for key, value in pairs}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(drawn.networks(), drawn.networks())
def test_the_changes_of_any_two_networks_add_up(left: Network, right: Network) -> None:
    """Whatever was added, removed, renamed, changed or works in place: the sums are the totals' differences."""
    one, other = vggkit.summarize(left).totals, vggkit.summarize(right).totals
    diff = compare(left, right).diff()
    figures = ("parameters", "multiply_accumulates", "activation_bytes")
    assert sums(diff) == tuple(getattr(other, figure) - getattr(one, figure) for figure in figures)
    assert [total.more for total in diff.totals[:3]] == list(sums(diff))


def told(diff: Diff) -> list[tuple[str, str | None, str | None]]:
    """Return what became of each layer, by the layers' names."""
    return [
        (one.change, one.before.name if one.before else None, one.after.name if one.after else None)
        for one in diff.changes
    ]


def test_the_diff_names_what_was_added_removed_and_changed() -> None:
    """C to D: three convolutions changed; A to A-LRN: one LRN more; B to A-LRN: LRN for a convolution, and one less."""
    assert told(compare("C", "D").diff()) == [("changed", f"block{n}_conv3", f"block{n}_conv3") for n in (3, 4, 5)]
    assert told(compare("A", "A-LRN").diff()) == [("added", None, "block1_lrn")]
    assert told(compare("A-LRN", "A").diff()) == [("removed", "block1_lrn", None)]
    assert told(compare("B", "A-LRN").diff()) == [
        ("removed", "block1_conv2", None), ("added", None, "block1_lrn"), ("removed", "block2_conv2", None),
    ]  # fmt: skip
    assert told(compare("D", "D").diff()) == []
    assert [change for change, *_ in told(compare("D", "vgg16_bn").diff())] == ["added"] * 13


def test_a_layer_that_only_has_another_name_is_no_change() -> None:
    """A rename costs nothing; a layer that works on other maps costs something else and is changed."""
    renamed = Network.of(vggkit.loads("input: 3x16x16\nblocks: [[{conv: 4, name: mine}]]\nclassifier: [FC-5]"))
    assert told(compare(of("conv3-4"), renamed).diff()) == []
    changes = compare("A", "A:input=3x64x64").diff().changes
    assert {change.change for change in changes} == {"changed"}
    assert [change.after.name for change in changes if change.after][:2] == ["input", "block1_conv1"]
    assert changes[-1].after is not None
    assert changes[-1].after.name == "fc1"


def test_the_diff_is_of_two() -> None:
    """Of one or three it is refused in one line."""
    for sources in (("D",), ("A", "B", "C")):
        with pytest.raises(ArgumentError, match=f"^diff: expected two networks, found {len(sources)}$"):
            compare(*sources).diff()


def test_the_diffs_dict_is_json() -> None:
    """Changes with both layers, and totals as before, after and more."""
    data = compare("C", "D").diff().to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["totals"]["parameters"] == [133_638_952, 138_357_544, 4_718_592]
    assert data["changes"][0] == {
        "change": "changed",
        "before": {"layer": "block3_conv3", "notation": "conv1-256", "output_shape": [256, 56, 56]},
        "after": {"layer": "block3_conv3", "notation": "conv3-256", "output_shape": [256, 56, 56]},
        "parameters": 256 * 256 * 8,
        "multiply_accumulates": 256 * 256 * 8 * 56 * 56,
        "activation_bytes": 0,
    }


# The table


def test_the_diff_says_what_the_changes_cost() -> None:
    """C to D: each change with its costs, and the sums below."""
    text = str(compare("C", "D").diff())
    assert re.search(r"~ +block3_conv3 +conv1-256 → conv3-256 +\+524,288 +\+1,644,167,168 +0\n", text)
    assert re.search(r"in all +\+4,718,592 +\+3,699,376,128 +0\n", text)
    assert re.search(r"parameters +133,638,952 +138,357,544 +\+4,718,592\n", text)


def test_the_diff_of_other_maps_says_their_shape() -> None:
    """A layer that is the same but works on other maps shows both shapes; a removed one is marked −."""
    text = str(compare("A", "A:input=3x64x64,head=gap").diff())
    assert "conv3-64, 64×224×224 → 64×64×64" in text
    assert re.search(r"− +fc1 +FC-4096 +−102,764,544", text)
    assert re.search(r"\+ +avgpool +global-avgpool +0 +0 +\+2.05 kB", text)


def test_without_changes_the_csv_has_its_header() -> None:
    """D beside itself: the names of the columns, and nothing below them."""
    header = "change,before,after,parameters,multiply_accumulates,activation_bytes\n"
    assert compare("D", "D").diff().to_csv() == header

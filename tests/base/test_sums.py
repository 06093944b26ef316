"""What kernels take to add up many rows, held against torch's own kernels on a card that isn't there."""

from __future__ import annotations

import pytest

from tests.footprint.card import Cards
from tests.footprint.grid import ROOMY, assert_torchs_order
from vggkit.base.sums import channel_sums, column_sums

BATCHES = (1020, 1021, 1536, 1792, 1793, 4080, 4081, 7000, 16_320, 16_321, 50_000)
"""Around those from which on there are parts, or more of them."""

ONE_COLUMN = (130_560, 130_561)
"""The same for a single column."""

FLAT = "{{input: {0}x1x1, classifier: [flatten, {1}, tanh, {{FC: 2, bias: false}}]}}"
MAPS = "{{input: {0}x{1}, blocks: [[{{conv: {0}, bias: false}}, batchnorm, tanh]]}}"


@pytest.mark.parametrize(
    "config",
    [
        *(f"{{input: 4x1x1, classifier: [FC-{units}]}}" for units in (1, 2, 10, 100, 512, 513, 1000, 4096)),
        *(FLAT.format(features, "batchnorm") for features in (1, 10, 33, 512)),
        FLAT.format(100, "{batchnorm: {affine: false}}"),
        MAPS.format(64, "1x1"),
        MAPS.format(1, "5x6"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"dtype": "float64"}, {"autocast": True}])
def test_sums_over_many_images_take_what_torchs_kernels_take(
    cards: Cards, config: str, options: dict[str, object]
) -> None:
    """The bias of an FC layer and the channels of a batch norm are added up in parts of the same bytes."""
    card = cards("play_steps.py", ROOMY, "")
    for batch in BATCHES if "FC-1]" not in config else (*BATCHES, *ONE_COLUMN):
        assert_torchs_order(card, {"config": config, "batch": batch, "optimizer": "none", **options}, steps=1)


@pytest.mark.parametrize(("units", "in_parts"), [(13_823, True), (13_825, False), (55_300, True), (221_188, False)])
def test_very_many_columns_are_added_up_at_once(cards: Cards, units: int, in_parts: bool) -> None:
    """They alone give the whole card work; so they do for units that are no multiple of 4, and for others."""
    question = {"config": f"{{input: 1x1x1, classifier: [FC-{units}]}}", "batch": 4081 if units % 4 else 1021}
    assert_torchs_order(cards("play_steps.py", ROOMY, ""), {**question, "optimizer": "none"}, steps=1)
    assert (column_sums(units, 4) is not None) == in_parts


def test_few_rows_are_added_up_at_once() -> None:
    """Up to 1,020 images no FC layer's sum has parts, and up to 1,792 no batch norm's."""
    for columns in range(1, 5000):
        sums = column_sums(columns, 4)
        assert sums is not None
        assert sums.split.parts(1020) == 0
        assert channel_sums(columns, 1, 8).split.parts(1792) == 0

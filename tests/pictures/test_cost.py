"""The costs of layers: bars as long as the figures, the largest written."""

from __future__ import annotations

import re

import pytest
from matplotlib.patches import Rectangle

import vggkit
from tests.pictures.drawings import ODD, SIX, bars, figure, network
from tests.pictures.written import words


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_the_costs_bars_are_as_long_as_the_figures(name: str) -> None:
    """In each panel, a bar per row of the summary, in their order."""
    net = network(name)
    rows = vggkit.summarize(net, batch=3, dtype="float16").rows
    drawing = figure(net, "cost", batch=3, dtype="float16")
    assert bars(drawing, 0) == [row.parameters for row in rows]
    assert bars(drawing, 1) == [row.multiply_accumulates for row in rows]
    assert bars(drawing, 2) == [row.activation_bytes for row in rows]


def test_the_largest_costs_are_written_with_their_shares() -> None:
    """The first FC layer holds three quarters of D's parameters, the first convolutions two fifths of its memory."""
    said = words(figure("D", "cost"))
    assert {"102.76 M (74.3 %)", "16.78 M (12.1 %)", "4.10 M (3.0 %)"} <= set(said)
    assert said.count("12.85 MB (21.1 %)") == 2
    assert any("most parameters: fc1, 74.3 %" in text for text in said)


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_what_ties_for_the_most_is_bold_alike(name: str) -> None:
    """Every layer that has most, and none where all that have any have as much; the subtitle counts them."""
    rows = vggkit.summarize(network(name)).rows
    drawing = figure(name, "cost")
    subtitle = next((text for text in words(drawing) if "most " in text), "")
    panels = [axes for axes in drawing.axes if any(isinstance(patch, Rectangle) for patch in axes.patches)]
    for axes, what, word in zip(
        panels, ("parameters", "multiply_accumulates", "activation_bytes"), ("parameters", "MACs", "activations")
    ):
        values = [getattr(row, what) for row in rows]
        most = [number for number, value in enumerate(values) if value and value == max(values)]
        alike = len(most) > 1 and len(most) == sum(map(bool, values))
        bold = [round(text.xy[1] - 0.2) for text in axes.texts if text.get_weight() == "bold"]
        assert bold == ([] if alike else most)
        [said] = re.findall(f"most {word}: ([^·]*)", subtitle) or [""]
        others = f" and {len(most) - 1} other" if len(most) > 1 else ""
        assert bool(most) == bool(said)
        assert others in said
        assert (" each" in said) == (len(most) > 1)


def test_the_subtitle_says_how_many_tie() -> None:
    """Six convolutions of D do as much work, and the first two make as large maps."""
    assert "most MACs: block1_conv2 and 5 others, 12.0 % each" in " ".join(words(figure("D", "cost")))
    description = vggkit.plot("D", kind="cost").description
    assert "most in block1_conv1 and 1 other, 12.85 MB (21.1 %) each" in description

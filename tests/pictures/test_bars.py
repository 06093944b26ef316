"""Bars of layers stay inside their panels."""

from __future__ import annotations

import pytest
from matplotlib.patches import Rectangle

from tests.pictures.drawings import ODD, SIX, figure


@pytest.mark.parametrize("kind", ["cost", "receptive"])
@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_bars_end_inside_their_panels(name: str, kind: str) -> None:
    """No bar is cut off."""
    for axes in figure(name, kind).axes:
        assert all(
            0 <= patch.get_width() <= axes.get_xlim()[1] for patch in axes.patches if isinstance(patch, Rectangle)
        )

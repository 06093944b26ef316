"""The table of measures: each figure is found by its names, and one that is added is everywhere at once."""

from __future__ import annotations

import pytest

from vggkit import compare
from vggkit.base.errors import ArgumentError
from vggkit.figures.measures import COMPARED, FOUND, MEASURES, figure_name


def test_every_spelling_finds_its_figure() -> None:
    """Letter case, - and _ don't matter, and no spelling is that of two figures."""
    spellings = [spelling for measure in MEASURES for spelling in measure.spellings]
    assert len(spellings) == len(set(spellings))
    for known in (COMPARED, FOUND):
        for name, measure in known.items():
            words = [spelling.upper().replace("_", "-") for spelling in measure.spellings]
            assert {figure_name(word, "x", known) for word in words} == {name}


def test_an_unknown_figure_is_told_with_the_nearest() -> None:
    """Once the word is near, and else with all that there are."""
    with pytest.raises(ArgumentError, match=r"^sort: unknown figure 'parmeters'\. Did you mean 'parameters'\?$"):
        compare(sort="-parmeters")
    with pytest.raises(ArgumentError, match=r"Known: weight_layers, parameters, .*top5_error, layers"):
        figure_name("zzz", "only", COMPARED, others=("layers",))

"""What a search gives: what meets the conditions, sorted and cut, and a front that is one."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vggkit
from vggkit.figures.measures import FOUND, Direction, direction
from vggkit.search import chunks, query
from vggkit.search.chunks import Variant
from vggkit.search.find import pareto_front

ALL = tuple(FOUND)


def test_without_sources_the_paper_and_the_family_are_searched() -> None:
    """Each of them once, by name, with the figures of its summary."""
    found = vggkit.find()
    assert [variant.name for variant in found] == [
        vggkit.load(name).name for name in (*vggkit.names(), *vggkit.notation.zoo.family_names())
    ]
    for variant in found:
        totals = vggkit.summarize(variant.name).totals
        assert variant.figures == {word: getattr(totals, word) for word in query.SHOWN}


def test_the_order_is_that_of_what_was_typed() -> None:
    """The last override changes fastest, whether it changes the structure or not."""
    found = vggkit.find("A", "B", vary={"width": [1, 0.5], "batch_norm": [False, True], "num_classes": [10, 5]})
    wanted = list(product("AB", [1, 0.5], [False, True], [10, 5]))
    assert [(variant.name, *variant.changes.values()) for variant in found] == wanted


def test_all_conditions_must_hold() -> None:
    """Several of a figure and several figures; a receptive field by its shorter side."""
    every = vggkit.find(figures=ALL)
    where: dict[str, Any] = {"parameters": [">1M", "<50M"], "inference_peak": "<100MB", "receptive_field": ">=100"}
    wanted = [
        variant
        for variant in every
        if 10**6 < variant.figures["parameters"] < 5 * 10**7
        and variant.figures["inference_peak_bytes"] < 10**8
        and min(variant.figures["receptive_field"]) >= 100
    ]
    found = vggkit.find(where=where, figures=ALL)
    assert 3 < len(wanted) < len(every) - 3
    assert [(variant.name, variant.figures) for variant in found] == [(one.name, one.figures) for one in wanted]


@pytest.mark.parametrize("word", ["macs", "-training_peak", "field", "-weight_layers"])
def test_it_is_sorted_before_it_is_cut(word: str) -> None:
    """Ties stay in the order of the zoo, from the largest too; a limit changes neither the marks nor the count."""
    name, descending = direction(word, "sort", FOUND).figure, word.startswith("-")

    def key(variant: Variant) -> int:
        value = variant.figures[name]
        value = min(value) if isinstance(value, tuple) else value
        return -value if descending else value

    wanted = sorted(vggkit.find(figures=ALL), key=key)
    whole = vggkit.find(figures=ALL, sort=word)
    assert [variant.name for variant in whole] == [variant.name for variant in wanted]
    cut = vggkit.find(figures=ALL, sort=word, limit=5)
    assert list(cut) == list(whole)[:5]
    assert (cut.matches, len(cut)) == (len(whole), 5)


def test_a_limit_without_an_order_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several chunks."""
    monkeypatch.setattr(chunks, "CHUNK", 3)
    found = vggkit.find("A", vary={"num_classes": list(range(1, 11))}, limit=5)
    assert [variant.changes["num_classes"] for variant in found] == [1, 2, 3, 4, 5]
    assert found.matches == 10


def test_a_receptive_field_compares_by_its_shorter_side() -> None:
    """In a condition and in the order: 5×1 sees less than 3×3."""
    sources = [
        vggkit.loads(f"{{name: '{kernel}', blocks: [[{{conv: 4, kernel: {kernel}, padding: 0}}]]}}")
        for kernel in ("3x3", "5x1", "2x9")
    ]
    found = vggkit.find(*sources, figures=["field"], sort="field")
    assert [variant.figures["receptive_field"] for variant in found] == [(5, 1), (2, 9), (3, 3)]
    assert [variant.name for variant in vggkit.find(*sources, where={"field": ">=3"})] == ["3x3"]
    assert [variant.name for variant in vggkit.find(*sources, where={"field": "=2"})] == ["2x9"]


# the Pareto front

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25)


@given(POINTS, st.booleans(), st.booleans())
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]], down: bool, right: bool) -> None:
    """Judged pair by pair, with ties and either direction."""
    directions = Direction("weights", down), Direction("biases", right)
    variants = [
        Variant(number, str(number), {}, dict(zip(("weights", "biases"), point))) for number, point in enumerate(points)
    ]
    signs = -1 if down else 1, -1 if right else 1
    signed = [(signs[0] * x, signs[1] * y) for x, y in points]
    wanted = {
        str(number)
        for number, (x, y) in enumerate(signed)
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in signed)
    }
    assert {variant.name for variant in pareto_front(variants, directions)} == wanted


@pytest.mark.parametrize(
    ("options", "pair"),
    [
        ({}, ("parameters", "multiply_accumulates")),
        ({"sort": "macs"}, ("parameters", "multiply_accumulates")),
        ({"sort": "training_peak"}, ("parameters", "training_peak_bytes")),
        ({"sort": "-training_peak"}, ("parameters", "training_peak_bytes")),
        ({"sort": "-field"}, ("parameters", "-receptive_field")),
        ({"sort": "macs", "pareto": ["weights", "-biases"]}, ("weights", "-biases")),
    ],
)
def test_the_front_is_of_what_was_asked(options: dict[str, Any], pair: tuple[str, str], monkeypatch: Any) -> None:
    """Two named figures, or parameters and what is sorted by; marked over chunks as by a judge of all pairs."""
    monkeypatch.setattr(chunks, "CHUNK", 10)
    found = vggkit.find(figures=ALL, **options)
    assert found.to_dict()["pareto"] == list(pair)

    def point(variant: Variant) -> tuple[Any, ...]:
        ends = []
        for word in pair:
            value = variant.figures[word.removeprefix("-")]
            value = min(value) if isinstance(value, tuple) else value
            ends.append(-value if word.startswith("-") else value)
        return tuple(ends)

    for variant in found:
        x, y = point(variant)
        others = [point(other) for other in found]
        assert variant.front is not any(a <= x and b <= y and (a, b) != (x, y) for a, b in others)
    assert found.front == tuple(variant for variant in found if variant.front)
    assert 0 < len(found.front) < len(found)

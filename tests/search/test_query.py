"""What a search is asked: conditions, an order, sources, and what is wrong."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vggkit
from vggkit.base.errors import ArgumentError, VggkitError
from vggkit.network import Network
from vggkit.search.query import Condition, condition

SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "": operator.eq}


@given(st.sampled_from(list(SIGNS)), st.integers(0, 50), st.integers(0, 50), st.sampled_from(["", "k", "M"]))
def test_a_condition_means_what_it_says(sign: str, limit: int, number: int, unit: str) -> None:
    """At the limit itself and beside it, with units."""
    scale = {"": 1, "k": 1000, "M": 10**6}[unit]
    for value in (number * scale, number * scale + 1, number * scale - 1):
        if sign in ("", "=") and unit:
            with pytest.raises(ArgumentError, match=f"{limit}{unit} is a rounded number; expected an exact one"):
                condition("parameters", f"{sign}{limit}{unit}")
            continue
        held = condition("parameters", f"{sign}{limit}{unit}").holds(value)
        assert held == SIGNS[sign](value, limit * scale)


def test_ranges_and_bytes() -> None:
    """The ends of a range belong to it; bytes are read as they are elsewhere."""
    assert condition("weights", " 1M .. 5M ") == Condition("weights", 10**6, 5 * 10**6)
    assert condition("activation_bytes", "<=24GiB") == Condition("activation_bytes", None, 24 * 2**30)
    assert condition("activation_bytes", ">= 800 MB") == Condition("activation_bytes", 800 * 10**6, None)
    assert condition("weight_layers", 16) == Condition("weight_layers", 16, 16)
    assert condition("training_peak_bytes", "=512B") == condition("training_peak_bytes", 512)
    assert condition("parameters", "138.357544M") == Condition("parameters", 138_357_544, 138_357_544)


@pytest.mark.parametrize(
    ("figure", "text", "low", "high"),
    [
        ("parameters", "15M", 14_500_000, 15_500_000),
        ("parameters", "=138.36M", 138_355_000, 138_365_000),
        ("training_peak_bytes", "1.72GB", 1_715_000_000, 1_725_000_000),
        ("training_peak_bytes", "4 GiB", 7 * 2**29, 9 * 2**29),
    ],
)
def test_a_rounded_number_is_refused_with_the_range_of_what_rounds_to_it(
    figure: str, text: str, low: int, high: int
) -> None:
    """No network has exactly 15,000,000 parameters: the message has a condition that can be used."""
    with pytest.raises(ArgumentError, match="is a rounded number; expected an exact one, or a range: ") as told:
        condition(figure, text)
    assert condition(figure, str(told.value).split(" a range: ")[1]) == Condition(figure, low, high)


@pytest.mark.parametrize(
    "text", ["", "<", "15X", "<>3", "1..", "..5", "5M..1M", "1..2..3", "-3", "<1e6", "1,5", "< 1.5"]
)
def test_wrong_conditions_are_told_in_one_line(text: str) -> None:
    """With what was found and what would have been right."""
    with pytest.raises(ArgumentError, match=r"^parameters: expected .*, found '") as told:
        condition("parameters", text)
    assert "\n" not in str(told.value)


# sources and errors


def test_sources_may_be_anything_with_changes_behind_it(tmp_path: Any) -> None:
    """A name, a path, a Config, a Network; a label is what `compare` takes."""
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, extends: A, classifier: [FC-9]}")
    found = vggkit.find("D:head=gap", path, vggkit.load("B"), Network.of("C"), vary={"width": [0.5]}, num_classes=9)
    assert [variant.name for variant in found] == ["D", "mine", "B", "C"]
    assert found[0].label == "D:head=gap,width=0.5"
    [compared] = vggkit.compare(found[0].label, num_classes=9).networks
    assert compared.summary.totals.parameters == found[0].figures["parameters"]
    assert found[1].figures["parameters"] == vggkit.summarize(path, width=0.5, num_classes=9).totals.parameters


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        (["Q"], {}, "unknown configuration 'Q'"),
        (["D:widht=1"], {}, "D:widht=1: unknown override 'widht'. Did you mean 'width'?"),
        (["D"], {"widht": 1}, "find: unknown keyword 'widht'. Did you mean 'width'?"),
        (["D"], {"vary": {"widht": [1]}}, "vary: unknown override 'widht'"),
        (["D"], {"vary": {"width": [0]}}, "vary: width: expected"),
        (["D"], {"vary": {"width": []}}, "vary: width has no values"),
        (["D"], {"vary": {"width": [1]}, "width": 0.5}, "vary: width is varied and set"),
        (["D:width=1"], {"vary": {"width": [1]}}, "vary: width is varied and set"),
        (["D"], {"where": {"macz": "<1"}}, "where: unknown figure 'macz'. Did you mean 'macs'?"),
        (["D"], {"where": {"training_peak": 24}}, None),
        (["D"], {"where": {"training_peak": "<24"}}, "found '<24': 24 has no unit; 24B are bytes"),
        (["D"], {"where": {"training_peak": "<24M"}}, "training_peak_bytes: expected a condition such as <24GiB"),
        (["D"], {"figures": ["x"]}, "figures: unknown figure 'x'. Known: weight_layers"),
        (["D"], {"sort": "name"}, "sort: unknown figure 'name'"),
        (["D"], {"limit": 0}, "limit: expected a whole number from 1, found 0"),
        (["D"], {"limit": True}, "limit: expected a whole number from 1, found True"),
        (["D"], {"pareto": ["macs"]}, "pareto: expected two figures, such as parameters,macs, found 'macs'"),
        (["D"], {"pareto": ["macs", "-macs"]}, "pareto: expected two figures"),
        (["D"], {"pareto": []}, "pareto: expected two figures"),
        (["D"], {"batch": 0}, "batch: expected a whole number from 1"),
        (["D"], {"dtype": "int8"}, "dtype: expected one of float32"),
        (["D"], {"optimizer": "adan"}, "optimizer: expected one of none"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(sources: list[str], options: dict[str, Any], message: str | None) -> None:
    """Before anything is worked out, whether or not it would fit; a bare number of bytes is one."""
    if message is None:
        assert len(vggkit.find(*sources, **options)) == 0
        return
    with pytest.raises(VggkitError) as told:
        vggkit.find(*sources, **options)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_too_many_variants_are_refused() -> None:
    """Rather than begun."""
    numbers = list(range(1, 1002))
    vary = {
        "num_classes": numbers,
        "width": numbers,
        "in_channels": numbers,
        "dropout": [i / 1001 for i in range(1001)],
    }
    with pytest.raises(ArgumentError, match=r"vary: expected up to 1e\+12 variants, found 1\.0e\+12"):
        vggkit.find("A", vary=vary)

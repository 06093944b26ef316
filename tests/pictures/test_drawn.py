"""Every kind of picture: no text is in the way, each number is in the data, and an SVG is read aloud."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vggkit
from tests import drawn
from tests.pictures.drawings import KINDS, NUMBER, ODD, SIX, figure, network
from tests.pictures.written import check_texts, words
from vggkit.base.numbers import grouped, megabytes, percent, shortened
from vggkit.pictures.style import printable

EACH_KIND = [
    pytest.param(name, kind, marks=[] if number % len(KINDS) == place or name == "D" else pytest.mark.slow)
    for number, name in enumerate([*SIX, *ODD])
    for place, kind in enumerate(KINDS)
]
"""All of them in every kind; but for D's, all but one picture of each are slow."""


@pytest.mark.parametrize(("name", "kind"), EACH_KIND)
def test_no_text_leaves_the_canvas_or_covers_another(name: str, kind: str) -> None:
    """By the boxes that the renderer gives."""
    check_texts(figure(name, kind))


@given(drawn.networks(), st.sampled_from(KINDS))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_of_any_network_is_in_the_way(net: vggkit.Network, kind: str) -> None:
    """The same for whatever can be written."""
    check_texts(figure(net, kind))


def formatted(numbers: set[int]) -> set[str]:
    """Return every way in which a count, or an amount of bytes, may be written."""
    spelt = {spell(number) for number in numbers for spell in (str, grouped, shortened, megabytes)}
    return {match for text in spelt for match in NUMBER.findall(text)}


@pytest.mark.parametrize(("name", "kind"), EACH_KIND)
def test_every_number_is_in_the_data(name: str, kind: str) -> None:
    """What is left of the texts without names and notations are numbers of the summary's rows and totals."""
    net = network(name)
    rows = vggkit.summarize(net, expand=True).rows
    totals = vggkit.summarize(net).totals
    counts = [totals.parameters, totals.multiply_accumulates, totals.activation_bytes]
    figures = set(totals.to_dict()["layers_by_kind"].values()) | {totals.weight_layers, *counts}
    for row in rows:
        figures |= {*row.output_shape, *row.receptive_field, *row.stride}
        figures |= {row.parameters, row.multiply_accumulates, row.activation_bytes}
    shares = {
        percent(value, whole).removesuffix(" %")
        for row in rows
        for value, whole in zip((row.parameters, row.multiply_accumulates, row.activation_bytes), counts)
        if whole
    }
    allowed = formatted(figures) | (shares if kind == "cost" else set())
    allowed |= set(re.findall(r"[0-9]+", "float32")) | ({"1"} if kind == "cost" else set())  # batch 1
    known = {row.notation for row in rows[1:]} | {row.name for row in rows[1:]}
    blocks = {row.block for row in rows if row.block}
    for text in words(figure(name, kind)):
        part = text in blocks or any(text.startswith(word[:29]) or text in word for word in known)
        if part and not text[0].isdigit():
            assert text.partition(" ×")[2] in {"", *map(str, range(2, len(rows)))}
            continue
        text = text.removeprefix(printable(net.name))
        text = re.sub("most (parameters|MACs|activations): [^,·]*,", "", text)  # a layer's name, and how many tie
        assert set(NUMBER.findall(text)) <= allowed, text


@pytest.mark.parametrize("kind", [*KINDS, "compare"])
@pytest.mark.parametrize("name", ["A", "batch norm", "named"])
def test_an_svg_has_real_text_a_title_and_a_description(name: str, kind: str) -> None:
    """It is well-formed, a screen reader is told what it is, and everything written in it can be searched."""
    flat = kind == "flat"
    picture = vggkit.plot(network(name), kind="architecture" if flat else kind, flat=flat)
    root = ElementTree.fromstring(picture.to_bytes("svg"))
    space = "{http://www.w3.org/2000/svg}"
    title, description = root[0], root[1]
    assert (title.tag, description.tag) == (f"{space}title", f"{space}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert "\ufffd" in (title.text or "") or title.text == picture.title
    assert len(description.text or "") > 80
    said = ["".join(text.itertext()) for text in root.iter(f"{space}text")]
    assert sorted(said) == sorted(words(picture.figure))

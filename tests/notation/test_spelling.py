"""The paper's notation, both ways: every kind, every option, and what is wrong with what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vggkit
from vggkit.base.errors import ConfigError, NotationError
from vggkit.notation.layers import (
    KINDS,
    Conv2d,
    CountByWidth,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    Linear,
    MaxPool2d,
    Padding,
    PaddingOrSame,
    Size,
)
from vggkit.notation.spelling import (
    FOLLOWERS,
    RESERVED_NAMES,
    allowed_values,
    describe,
    fields,
    kind_of,
    parse,
    parse_options,
    spell,
)

KIND = {kind.keyword: kind for kind in KINDS}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Draw values of a field's type, within what it allows."""
    allowed = allowed_values(kind)
    low = allowed.minimum if allowed.minimum is not None else 0
    if kind in (Size, Padding, PaddingOrSame):
        pairs = st.tuples(st.integers(low, 9), st.integers(low, 9))
        return pairs | st.just("same") if kind is PaddingOrSame else pairs
    if kind is CountByWidth:
        count = st.integers(low, 10**17)
        rows = st.dictionaries(count, count, min_size=1, max_size=3)
        return count | rows.map(lambda table: tuple(sorted(table.items())))
    inner = kind.__origin__
    if get_origin(inner) is Literal:
        return st.sampled_from(get_args(inner))
    parts = get_args(inner) or (inner,)
    numbers = {
        bool: st.booleans(),
        int: st.integers(low, 10**17),
        float: st.floats(
            -1e9 if allowed.minimum is None and allowed.above is None else 0,
            1 if allowed.below == 1 or allowed.maximum == 1 else 1e9,
            exclude_min=allowed.above is not None,
            exclude_max=allowed.below is not None,
        ),
        type(None): st.none(),
    }
    return st.one_of(*(numbers[part] for part in parts))


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Draw a layer of any kind with any options."""
    kind = draw(st.sampled_from(KINDS))
    said = {}
    for field in msgspec.structs.fields(kind):
        if field.required or draw(st.booleans()):
            said[field.name] = draw(values(field.type))
    return kind(**said)


# the round trip


@given(layers())
@settings(max_examples=600, deadline=None)
def test_what_is_spelt_is_parsed_as_it_was(layer: Layer) -> None:
    """parse(spell(layer)) is the layer, whatever its kind and its options."""
    spec = parse(spell(layer))
    assert spec.kind is type(layer)
    assert spec.layer() == layer
    assert spell(spec.layer()) == spell(layer)


@given(st.lists(layers(), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_what_is_written_in_a_file_is_read_as_it_was(drawn: list[Layer]) -> None:
    """The same through YAML, in a block, with nothing behind the layers."""
    entries = tuple(vggkit.notation.config.Entry(layer) for layer in drawn)
    config = vggkit.Config("x", blocks=(entries,))
    assert vggkit.loads(vggkit.dump(config)) == config


@given(layers(), st.data())
@settings(max_examples=300, deadline=None)
def test_letter_case_and_hyphens_of_a_short_form_don_t_matter(layer: Layer, data: st.DataObject) -> None:
    """CONV3-64, Soft_Max and MaxPool mean what the canonical spelling means."""
    spelt = spell(layer)
    if isinstance(spelt, Mapping):
        spelt = layer.keyword if not any(field.required for field in msgspec.structs.fields(type(layer))) else "conv3-8"
    cased = "".join(data.draw(st.sampled_from([char.lower(), char.upper()])) for char in spelt if char != "x")
    cased = cased if "x" not in spelt else spelt
    if not any(char.isdigit() for char in spelt):
        cased = cased.replace("-", data.draw(st.sampled_from(["", "-", "_", " "])))
    assert parse(cased) == parse(spelt)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("CONV3-64", "conv3-64"),
        ("Conv3x3-64", "conv3-64"),
        ("conv3x1-64", "conv3x1-64"),
        (" conv1-512 ", "conv1-512"),
        ("CONV3-64/2", "conv3-64/2"),
        ("conv3x3-64/2x2", "conv3-64/2"),
        ("conv3-64/2x1", "conv3-64/2x1"),
        ("conv3-64/1", "conv3-64"),
        ("LogSoftmax", "log-softmax"),
        ("fc-4096", "FC-4096"),
        ("MAXPOOL", "maxpool"),
        ("max-pool", "maxpool"),
        ("Max_Pool", "maxpool"),
        ("AvgPool", "avgpool"),
        ("lrn", "LRN"),
        ("softmax", "soft-max"),
        ("Soft_Max", "soft-max"),
        ("SOFT MAX", "soft-max"),
        ("globalavgpool", "global-avgpool"),
        ("BatchNorm", "batchnorm"),
        ("batch-norm", "batchnorm"),
        ("LeakyReLU", "leaky-relu"),
        ("ReLU", "relu"),
        ("GELU", "gelu"),
        ("Dropout", "dropout"),
        ("Flatten", "flatten"),
    ],
)
def test_the_canonical_spelling_is_the_papers(text: str, canonical: str) -> None:
    """Whatever came in, the paper's spelling goes out."""
    assert spell(parse(text).layer()) == canonical


@pytest.mark.parametrize(
    ("entry", "layer"),
    [
        ({"conv": 512, "kernel": 3, "dilation": 6, "padding": 6}, Conv2d(512, (3, 3), padding=(6, 6), dilation=(6, 6))),
        ({"conv": {"channels": 8, "kernel": "3x1"}}, Conv2d(8, (3, 1))),
        ({"conv": {"channels": 8}, "kernel": [3, 1]}, Conv2d(8, (3, 1))),
        ({"CONV": 8, "padding": "same"}, Conv2d(8)),
        ({"conv": None, "channels": 8, "kernel": "3×1"}, Conv2d(8, (3, 1))),
        ({"maxpool": 3, "stride": 1, "padding": 1, "ceil_mode": True}, MaxPool2d(3, 1, 1, ceil_mode=True)),
        ({"maxpool": {}}, MaxPool2d()),
        ({"fc": 10, "bias": False}, Linear(10, bias=False)),
        ({"flatten": "hwc"}, Flatten("hwc")),
        ({"groupnorm": {"64": 4, "128": 8}}, GroupNorm(((64, 4), (128, 8)))),
        ({"groupnorm": {"128": 8, "64": 4}, "eps": 1e-3}, GroupNorm(((64, 4), (128, 8)), eps=1e-3)),
        ({"groupnorm": {"groups": {"64": 4}, "affine": False}}, GroupNorm(((64, 4),), affine=False)),
        ({"global-avgpool": None}, GlobalAvgPool2d()),
        ({"global-avgpool": {}}, GlobalAvgPool2d()),
    ],
)
def test_a_long_form_has_its_options_beside_or_behind_its_keyword(entry: dict[str, Any], layer: Layer) -> None:
    """A mapping behind the keyword, options beside it, or both."""
    assert parse(entry).layer() == layer


def test_followers_and_a_name_are_no_part_of_the_layer() -> None:
    """norm, activation, dropout and name are said of what stands behind it."""
    spec = parse({"conv": 8, "norm": "batch", "activation": "none", "dropout": 0.1, "name": "conv6"})
    assert spec.layer() == Conv2d(8)
    assert type(spec.followers["norm"]) is kind_of("batchnorm")
    assert spec.followers["activation"] is None
    assert (spec.followers["dropout"], spec.name) == (0.1, "conv6")
    both = parse({"fc": 8, "dropout": 0.1})
    assert (both.kind, both.followers) == (Linear, {"dropout": 0.1})


@pytest.mark.parametrize("word", ["none", "NONE", None])
def test_a_follower_can_be_none(word: object) -> None:
    """none, in any letter case, and null."""
    assert parse({"conv": 8, "activation": word, "norm": word}).followers == {"activation": None, "norm": None}


# one line for people


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Conv2d(512, (3, 3), padding=(6, 6), dilation=(6, 6)), "conv3-512, padding 6, dilation 6"),
        (Conv2d(8, (3, 1), bias=False), "conv3x1-8, no bias"),
        (MaxPool2d((3, 3), ceil_mode=True), "maxpool 3, ceil_mode"),
        (Linear(10), "FC-10"),
    ],
)
def test_a_layer_is_described_on_one_line(layer: Layer, text: str) -> None:
    """Its short form, then what differs."""
    assert describe(layer) == text


@given(layers())
@settings(max_examples=200, deadline=None)
def test_any_layer_can_be_described(layer: Layer) -> None:
    """One line, beginning with the kind's own word."""
    text = describe(layer)
    assert len(text.splitlines()) == 1
    assert text.lower().startswith(layer.keyword.lower())


# what is wrong


def told(entry: object) -> str:
    """Return what is wrong with an entry."""
    with pytest.raises(NotationError) as caught:
        parse(entry)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("convv3-64", "conv3-64"),
        ("cnv3-64", "conv3-64"),
        ("conv3_64", "conv3-64"),
        ("conv3.64", "conv3-64"),
        ("conv3*64", "conv3-64"),
        ("3conv64", "conv3-64"),
        ("maxpol", "maxpool"),
        ("maxpool2", "maxpool"),
        ("maxpooling", "maxpool"),
        ("avgpol", "avgpool"),
        ("FC4096", "FC-4096"),
        ("FC_4096", "FC-4096"),
        ("fully4096", "FC-4096"),
        ("sofmax", "soft-max"),
        ("LNR", "LRN"),
        ("conv3-64-2", "conv3-64/2"),
        ("reluu", "relu"),
        ("batchnom", "batchnorm"),
        ("drop-out-", "dropout"),
        ("globalavgpol", "global-avgpool"),
        ("conv-64", "conv3-64"),
        ("conv64", "conv3-64"),
        ("Conv2d(64)", "conv3-64"),
        ("Conv2D(64)", "conv3-64"),
        ("Dense(10)", "FC-10"),
        ("Linear(4096)", "FC-4096"),
        ("MaxPool2d(2)", "maxpool"),
        ("nn.ReLU()", "relu"),
    ],
)
def test_a_misspelt_layer_is_told_with_the_right_spelling(text: str, right: str) -> None:
    """With the very numbers that it had."""
    if kind_of(text) is not None:
        assert spell(parse(text).layer()) == right
    else:
        assert told(text) == f"unknown layer '{text}'. Did you mean '{right}'?"


@pytest.mark.parametrize(
    "text", ["", "?", "attention", "conv", "64", "x" * 1000, "conv3-64-64-64", "🦊", "Conv2d(3, 64)"]
)
def test_a_layer_like_no_other_is_told_with_what_one_reads_like(text: str) -> None:
    """One line, and it names at least one right form."""
    message = told(text)
    assert len(message.splitlines()) == 1
    assert len(message) < 300
    assert any(word in message for word in ("conv3-64", "Did you mean"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"conv": 64, "kernal": 3}, "conv: unknown option 'kernal'. Did you mean 'kernel'?"),
        (
            {"conv": 64, "zzz": 3},
            "conv: unknown option 'zzz'. Known: channels, kernel, stride, padding,",
        ),
        ({"conv": 0}, "conv: channels: expected a whole number from 1, found 0"),
        ({"conv": 1.5}, "conv: channels: expected a whole number from 1, found 1.5"),
        ({"conv": True}, "conv: channels: expected a whole number from 1, found True"),
        ({"conv": "many"}, "conv: channels: expected a whole number from 1, found 'many'"),
        ({"conv": 8, "kernel": "3x"}, "conv: kernel: expected a whole number from 1, or height × width as in 3x1"),
        ({"conv": 8, "kernel": [1, 2, 3]}, "conv: kernel: expected a whole number from 1, or height × width"),
        ({"conv": 8, "kernel": "0x3"}, "conv: kernel: expected a whole number from 1, or height × width"),
        ({"conv": 8, "stride": -1}, "conv: stride: expected a whole number from 1"),
        ({"conv": 8, "padding": "valid"}, "conv: padding: expected same, a whole number from 0, or height × width"),
        ({"conv": 8, "padding": -1}, "conv: padding: expected same, a whole number from 0"),
        ({"conv": 8, "bias": "yes"}, "conv: bias: expected true or false, found 'yes'"),
        ({"conv": 8, "bias": 1}, "conv: bias: expected true or false, found 1"),
        ({"conv": 8, "padding_mode": "mirror"}, "conv: padding_mode: expected zeros, reflect, replicate or circular"),
        ({"conv": {}}, "conv: channels is missing, as in conv3-64"),
        ({"fc": None}, "FC: units is missing, as in FC-64"),
        ({"adaptive-avgpool": {}}, "adaptive-avgpool: size is missing, as in {adaptive-avgpool: 7x7}"),
        ({"maxpool": 2, "padding": "same"}, "maxpool: padding: expected a whole number from 0, or height × width"),
        ({"dropout": 1}, "dropout: p: expected a number from 0 to below 1, found 1"),
        ({"fc": 3, "dropout": -0.1}, "FC: dropout: expected a number from 0 to below 1, found -0.1"),
        ({"flatten": "whc"}, "flatten: order: expected chw or hwc, found 'whc'"),
        ({"batchnorm": 3}, "batchnorm: expected a mapping of its options (eps, momentum, affine, track_running_stats)"),
        ({"soft-max": 3}, "soft-max: expected a mapping of its options (none), found 3"),
        ({"batchnorm": {"eps": 0}}, "batchnorm: eps: expected a number above 0"),
        ({"batchnorm": {"momentum": 2}}, "batchnorm: momentum: expected a number from 0 to 1, or null"),
        ({"conv": 3, "norm": "layer"}, "conv: norm: expected one of batch, group, none, found 'layer'"),
        ({"conv": 3, "norm": "relu"}, "conv: norm: expected one of batch, group, none, found 'relu'"),
        ({"conv": 3, "norm": {"groupnorm": 0}}, "conv: norm: groupnorm: groups: expected a whole number from 1"),
        ({"conv": 3, "activation": "rely"}, "conv: activation: expected one of relu, leaky-relu, "),
        ({"conv": 3, "activation": 3}, "conv: activation: expected one of relu, leaky-relu, "),
        ({"conv": 3, "activation": {"relu": {"x": 1}}}, "conv: activation: relu: unknown option 'x'."),
        ({"conv": 3, "activation": {"relu": {}, "name": "x"}}, "conv: activation: expected one of relu, "),
        ({"conv": 3, "maxpool": 2}, "two layers in one entry: conv and maxpool"),
        ({"conv": 3, "channels": 2}, "conv: channels is given twice, as the value of conv and beside it"),
        ({"maxpool": {"stride": 3}, "stride": 2}, "maxpool: 'stride' is given twice, inside it and beside it"),
        (
            {"cnov": 3},
            "expected a key such as conv, maxpool or fc, found 'cnov'. Did you mean 'conv'?",
        ),
        ({}, "no layer in this entry: expected a key such as conv, maxpool or fc, found ''"),
        (3, "expected a layer such as conv3-64, found 3"),
        (None, "expected a layer such as conv3-64, found None"),
        (["conv3-64"], "expected a layer such as conv3-64, found ['conv3-64']"),
        (
            {"conv": 3, "name": "a b"},
            "conv: name: expected a name of letters, digits and _, such as conv4_3",
        ),
        ({"conv": 3, "name": 3}, "conv: name: expected a name of letters, digits and _, such as conv4_3, found 3"),
        ({"conv": 3, "name": "forward"}, "conv: name: forward is a method of the torch module; choose another name"),
        ({"groupnorm": {"64": 0}}, "groupnorm: groups: expected a whole number from 1, or one for each width as in"),
        ({"groupnorm": {"groups": {}}}, "groupnorm: groups: expected a whole number from 1, or one for each width"),
        ({"groupnorm": {"groups": [[64, 4]]}}, "groupnorm: groups: expected a whole number from 1, or one for each"),
        ({"groupnorm": {"64": 4, "groups": 2}}, "groupnorm: unknown option '64'."),
        ("conv3-64/0", "conv: stride: expected a whole number from 1, or height × width as in 3x1, found 0"),
        ("conv0-64", "conv: kernel: expected a whole number from 1, or height × width as in 3x1, found 0"),
        ("FC-0", "FC: units: expected a whole number from 1, found 0"),
    ],
)
def test_a_wrong_entry_says_what_was_found_and_what_was_expected(entry: object, message: str) -> None:
    """Each mistake in one line of words that a user can act on."""
    assert message in told(entry)
    assert len(told(entry).splitlines()) == 1


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("skip", "'skip' is a skip"),
        ("Shortcut", "'Shortcut' is a skip"),
        ("concat", "'concat' is a branch"),
        ("LSTM-256", "'LSTM-256' is a recurrent layer"),
        ("bi_gru", "'bi_gru' is a recurrent layer"),
        ("MaxUnpool2d", "'MaxUnpool2d' is unpooling"),
        ({"upsample": 2}, "'upsample' is unpooling"),
        ({"conv-transpose": 64, "kernel": 4}, "'conv-transpose' is unpooling"),
        ({"conv": 64, "residual": True}, "'residual' is a skip"),
        ({"conv": 64, "from": "conv4_3"}, "'from' is a skip"),
        (["conv3-64", "conv1-64"], "a list inside a list is a branch"),
        ([["conv3-64"], ["conv1-64"]], "a list inside a list is a branch"),
    ],
)
def test_what_is_not_a_chain_is_refused_with_a_line_that_says_so(entry: object, what: str) -> None:
    """Skips, branches, recurrent tails and unpooling."""
    assert told(entry) == (
        f"a network here is a chain, each layer feeding only the next, and {what}."
        " Write the chain up to it as a network of its own"
    )


def test_a_file_tells_where_it_is_no_chain() -> None:
    """With its place, and the block that it stands in."""
    with pytest.raises(ConfigError) as caught:
        vggkit.loads("blocks:\n  - [conv3-64, LSTM-3]", "my.yaml")
    assert str(caught.value) == (
        "my.yaml:2:16: a network here is a chain, each layer feeding only the next, and 'LSTM-3' is a recurrent layer"
        " in block 1. Write the chain up to it as a network of its own"
    )


def test_all_mistakes_of_an_entry_come_together() -> None:
    """Three options wrong: three lines."""
    assert len(told({"conv": 0, "kernel": 0, "strude": 1}).splitlines()) == 3


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.keyword)
def test_every_kind_has_a_long_form_and_refuses_unknown_options(kind: type[Layer]) -> None:
    """A new kind is in the notation at once: its keyword in any case, its options, its mistakes."""
    required = {word: 3 for word, field in fields(kind).items() if field.required}
    for word in (kind.keyword, kind.keyword.upper(), kind.keyword.replace("-", "_")):
        assert parse({word: required}).kind is kind
    assert "unknown option 'xyzzy'" in told({kind.keyword: {**required, "xyzzy": 1}})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.keyword)
def test_defaults_may_leave_out_what_a_layer_requires(kind: type[Layer]) -> None:
    """`defaults:` gives options of a kind, never its required ones nor a name."""
    assert parse_options(kind, {}).fields == {}
    for word in (*(word for word, field in fields(kind).items() if field.required), "name"):
        with pytest.raises(NotationError, match=f"{word} can't have a default"):
            parse_options(kind, {word: 3})


def test_names_that_torch_modules_need_are_refused() -> None:
    """A layer named `forward` would hide the method of the model."""
    import torch

    from vggkit.model.module import VGG

    taken = {name for name in (*dir(torch.nn.Sequential()), *dir(VGG)) if name[0] != "_" and name.isidentifier()}
    blocks = {name for name in taken if name.startswith("block")}
    assert taken - blocks <= RESERVED_NAMES


def test_the_words_of_followers_are_three() -> None:
    """norm, activation, dropout, in the order in which they stand behind a layer."""
    assert FOLLOWERS == ("norm", "activation", "dropout")


PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=9)
KEYS = st.sampled_from([*KIND, "name", "norm", "kernel"]) | st.text(max_size=5)


@given(
    st.recursive(
        PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
    )
)
@settings(max_examples=300, deadline=None)
def test_anything_is_a_layer_or_a_notation_error(entry: Any) -> None:
    """No value that YAML can give ends in another exception."""
    message = "a layer"
    try:
        parse(entry)
    except NotationError as error:
        message = str(error)
    assert message


def test_a_file_tells_where_an_option_stands() -> None:
    """The faults' paths become lines and columns."""
    text = "blocks:\n  - - {conv: 64,\n       kernel: 0,\n       strude: 1}\n    - maxpool: {stride: 0}\n"
    with pytest.raises(ConfigError) as caught:
        vggkit.loads(text, file="my.yaml")
    assert [str(problem).split(": ")[0] for problem in caught.value.problems] == [
        "my.yaml:3:16",
        "my.yaml:4:8",
        "my.yaml:5:25",
    ]

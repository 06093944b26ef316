"""Searches: every figure is that of the one network, the front is a front, and nothing is lost or moved."""

from __future__ import annotations

import math
import operator
import signal
from concurrent.futures import Executor, Future
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests.drawn import networks
from vggkit.base.errors import ArgumentError, VggkitError
from vggkit.figures import find as search
from vggkit.figures.find import FIGURES, Condition, Direction, Variant, condition, direction, pareto_front
from vggkit.footprint import plan as liveness
from vggkit.model import verify as verification
from vggkit.network import Network

ALL = tuple(FIGURES)


def plain_figures(network: Network, batch: int = 1, dtype: str = "float32", optimizer: str | None = None) -> Any:
    """Return the figures of one network, by the functions for one."""
    summary = vggkit.summarize(network, batch=batch, dtype=dtype, expand=True)
    training = vggkit.memory(network, batch=batch, dtype=dtype, optimizer=optimizer)
    [compared] = vggkit.compare(network, batch=batch, dtype=dtype, optimizer=optimizer).networks
    return {
        "weight_layers": summary.totals.weight_layers,
        "parameters": summary.totals.parameters,
        "weights": summary.totals.weights,
        "biases": summary.totals.biases,
        "conv_parameters": compared.conv_parameters,
        "fc_parameters": compared.fc_parameters,
        "multiply_accumulates": summary.totals.multiply_accumulates,
        "activation_bytes": summary.totals.activation_bytes,
        "receptive_field": compared.receptive_field,
        "inference_peak_bytes": vggkit.memory(network, batch=batch, dtype=dtype, mode="inference").peak_bytes,
        "training_peak_bytes": training.peak_bytes,
        "saved_for_backward_bytes": training.saved_for_backward_bytes,
    }


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "width": st.sampled_from([0.01, 0.3, 0.5, 1, 1.5, 4, "0.5 ceil", "0.7 multiple of 2", 1e17]),
    "num_classes": st.sampled_from([1, 2, 10, 1000, 10**15]),
    "input": st.sampled_from(["1x1x1", "2x5x5", "3x6x5", "3x9x9", "3x12x8", "3x64x64", "6x9x9", "3x10000001x99999999"]),
    "in_channels": st.sampled_from([1, 3, 6]),
    "dropout": st.sampled_from([0, 0.2, 0.5]),
    "batch_norm": st.booleans(),
    "pool": st.sampled_from(["max", "avg"]),
    "activation": st.sampled_from(["relu", "gelu", "silu", "none", "leaky-relu"]),
    "head": st.sampled_from(["paper", "gap"]),
}


@st.composite
def axes(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Draw overrides and values to vary, up to 30 variants."""
    words = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4, unique=True))
    varied: dict[str, list[Any]] = {}
    for word in words:
        most = 30
        for values in varied.values():
            most //= len(values)
        varied[word] = draw(st.lists(VALUES[word], min_size=1, max_size=max(1, min(4, most)), unique_by=str))
    return varied


def assert_exact(source: Any, varied: dict[str, list[Any]], **options: Any) -> None:
    """Hold a search against each of its variants worked out alone; what doesn't fit alone must be left out."""
    found = vggkit.find(source, vary=varied, figures=ALL, **options)
    wanted, left_out = [], 0
    for values in product(*varied.values()):
        changes = dict(zip(varied, values))
        try:
            wanted.append((changes, plain_figures(Network.of(source, **changes), **options)))
        except VggkitError:
            left_out += 1
    assert [(variant.changes, variant.figures) for variant in found] == wanted
    assert (found.left_out, found.matches) == (left_out, len(wanted))
    assert (found.reason is None) == (left_out == 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), axes(), st.sampled_from([1, 7, 10**6]), st.sampled_from(["float32", "bfloat16"]))
def test_each_figure_is_that_of_the_variant_alone(
    network: Network, varied: dict[str, list[Any]], batch: int, dtype: str
) -> None:
    """Of drawn networks of every layer kind, with numbers beyond a machine's integers and inputs that don't fit."""
    assert_exact(network.config, varied, batch=batch, dtype=dtype)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["A", "A-LRN", "C", "cifar_vgg16_gn", "panns_cnn14_trunk", "allcnn_c"]),
    axes(),
    st.sampled_from(["none", "sgd", "adamw"]),
)
def test_each_figure_of_the_zoos_variants_is_that_of_the_variant_alone(
    name: str, varied: dict[str, list[Any]], optimizer: str
) -> None:
    """Whatever is varied, with each sort of optimizer."""
    assert_exact(vggkit.load(name), varied, optimizer=optimizer)


def test_the_peak_may_be_at_another_moment_in_each_variant() -> None:
    """Narrow and wide networks have it in the backward pass of the maps or in that of the classifier."""
    widths, sides = [0.02, 0.1, 0.3, 1, 2], ["3x32x32", "3x64x32", "3x96x96"]
    moments = {vggkit.memory("B", width=width, input=side).peak_at for width in widths for side in sides}
    assert len(moments) > 2
    assert_exact(vggkit.load("B"), {"width": widths, "input": sides})


def test_the_peak_and_the_saved_bytes_are_measured_ones() -> None:
    """Of 4 variants at two batches: MemTracker and autograd's hooks see a step of the built model."""
    tiny = vggkit.loads("{name: tiny, input: 3x8x8, blocks: [[conv3-4, maxpool]], classifier: [FC-9, FC-5]}")
    peaks = set()
    for batch in (2, 5):
        options = liveness.Options(batch=batch, optimizer="adam")
        varied = {"width": [1, 2.5], "batch_norm": [True, False]}
        for variant in vggkit.find(tiny, vary=varied, figures=ALL, batch=batch, optimizer="adam"):
            network = Network.of(tiny, **variant.changes)
            peak = sum(verification.training_peak(network, options).values())
            saved = verification.saved_bytes(network, options)
            assert variant.figures["training_peak_bytes"] == peak
            assert variant.figures["saved_for_backward_bytes"] == saved
            peaks.add((peak, saved))
    assert len(peaks) == 8


def mobilenets(value: Fraction, divisor: int) -> int:
    """Round a width as `_make_divisible` of torchvision's MobileNetV2 does, in exact numbers."""
    rounded = max(divisor, int(value + Fraction(divisor, 2)) // divisor * divisor)
    return rounded + divisor if rounded < Fraction(9, 10) * value else rounded


RULES: dict[str, Any] = {
    "floor": lambda value: max(1, math.floor(value)),
    "ceil": math.ceil,
    "multiple of 8": lambda value: mobilenets(value, 8),
    "multiple of 3": lambda value: mobilenets(value, 3),
}


def test_widths_are_rounded_as_their_rule_says() -> None:
    """Each rule at many factors in one search, judged by the parameters of two convolutions and an FC layer by hand."""
    config = vggkit.loads("{input: 3x4x4, blocks: [[conv3-20, conv3-7, maxpool]], classifier: [FC-30, FC-10]}")
    factors = ["0.04", "0.1", "0.25", "0.29", "0.6", "1", "1.25", "1.4", "3"]
    words = [(factor, rule) for factor in factors for rule in RULES]
    found = vggkit.find(config, vary={"width": [f"{factor} {rule}" for factor, rule in words]})
    for variant, (factor, rule) in zip(found, words, strict=True):
        first, second, units = (RULES[rule](Fraction(factor) * width) for width in (20, 7, 30))
        convolutions = (9 * 3 + 1) * first + (9 * first + 1) * second
        wanted = convolutions + (4 * second + 1) * units + (units + 1) * 10
        assert variant.figures["parameters"] == wanted, variant.label
    assert len({variant.figures["parameters"] for variant in found}) > len(factors) * 2


def test_only_widths_that_are_too_large_are_left_out() -> None:
    """Wherever they stand among the others; the reason is that of the first."""
    config = vggkit.loads("{name: x, input: 3x4x4, blocks: [[conv3-20]], classifier: [FC-2]}")
    varied = {"width": [1e17, 0.5, 2, 3e17, 1], "num_classes": [3, 4]}
    assert_exact(config, varied)
    found = vggkit.find(config, vary=varied)
    assert ([variant.changes["width"] for variant in found], found.left_out) == ([0.5, 0.5, 2, 2, 1, 1], 4)
    assert found.reason is not None
    assert found.reason.startswith("x:width=1e+17,num_classes=3: ")


def test_parameters_and_macs_are_those_of_built_models() -> None:
    """Of 24 variants on the meta device: torch counts its own tensors, and its flop counter the operations."""
    varied = {"width": [0.25, 0.6], "batch_norm": [True, False], "head": ["paper", "gap"], "num_classes": [7, 10, 100]}
    found = vggkit.find("D", vary=varied, input="3x64x32", batch=2)
    assert len(found) == 24
    for variant in found:
        model = vggkit.build("D", device="meta", input="3x64x32", **variant.changes)
        assert variant.figures["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(2, 3, 64, 32, device="meta"))
        assert 2 * variant.figures["multiply_accumulates"] == counter.get_total_flops()


def test_without_sources_the_paper_and_the_family_are_searched() -> None:
    """Each of them once, by name, with the figures of its summary."""
    found = vggkit.find()
    assert [variant.name for variant in found] == [
        vggkit.load(name).name for name in (*vggkit.names(), *vggkit.notation.zoo.family_names())
    ]
    for variant in found:
        totals = vggkit.summarize(variant.name).totals
        assert variant.figures == {word: getattr(totals, word) for word in search.SHOWN}


def test_what_an_input_does_not_fit_is_left_out_and_counted() -> None:
    """The reason is told of the first: CNN-F's pools don't fit 32×32."""
    found = vggkit.find("D", "cnn_f", input="3x32x32")
    assert ([variant.name for variant in found], found.left_out) == (["D"], 1)
    assert found.reason is not None
    assert found.reason.startswith("cnn_f: ")
    assert "does not fit its" in found.reason


def test_what_an_override_leaves_no_layer_of_is_left_out() -> None:
    """As for the one network alone."""
    only_norm = vggkit.loads("{name: x, input: 1x4x4, classifier: [batchnorm]}")
    assert_exact(only_norm, {"batch_norm": [True, False]})
    with pytest.raises(vggkit.ConfigError, match=r"^x: no layer is left$"):
        Network.of(only_norm, batch_norm=False)


def test_the_order_is_that_of_what_was_typed() -> None:
    """The last override changes fastest, whether it changes the structure or not."""
    found = vggkit.find("A", "B", vary={"width": [1, 0.5], "batch_norm": [False, True], "num_classes": [10, 5]})
    wanted = list(product("AB", [1, 0.5], [False, True], [10, 5]))
    assert [(variant.name, *variant.changes.values()) for variant in found] == wanted


def test_chunks_and_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece, in small pieces, and by two processes: the same variants in the same order."""
    varied = {
        "num_classes": list(range(1, 1401)),
        "batch_norm": [True, False],
        "input": ["3x32x32", "1x1x1", "3x40x32"],
    }
    options: dict[str, Any] = {
        "vary": varied,
        "figures": ["parameters"],
        "where": {"parameters": ">33M"},
        "head": "gap",
    }
    options["head"] = "paper"
    whole = vggkit.find("A", **options)
    assert whole.query.total > 2 * search.CHUNK
    monkeypatch.setattr(search, "FEW", 0)
    assert vggkit.find("A", processes=2, **options) == whole
    monkeypatch.setattr(search, "CHUNK", 397)
    assert vggkit.find("A", **options) == whole
    assert vggkit.find("A", processes=2, **options) == whole


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")
def test_ctrl_c_waits_while_a_process_may_start() -> None:
    """One that is still importing would print a traceback; it inherits what is held back."""

    class Starting(Executor):
        def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Any:
            held.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
            result: Future[Any] = Future()
            result.set_result(arguments[0])
            return result

    held: list[bool] = []
    parts = [range(3), range(3, 5)]
    assert list(search._in_order(Starting(), parts, ahead=1)) == parts
    assert held == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_search_does_not_run_ahead() -> None:
    """Of 10¹² variants the first chunk is there at once."""
    numbers = list(range(1, 1001))
    vary = {
        "num_classes": numbers,
        "width": numbers,
        "in_channels": numbers,
        "dropout": [i / 1000 for i in range(1000)],
    }
    options: dict[str, Any] = {"where": {}, "figures": ["parameters"], "sort": None, "limit": None, "pareto": None}
    query = search.prepared(["A"], {}, vary=vary, batch=1, dtype="float32", optimizer=None, **options)
    assert query.total == 10**12
    assert next(search.chunks(query)).examined == search.CHUNK


def test_memory_is_worked_out_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a column, a filter, the sort or the front; each of them is enough."""

    class Asked(Exception):  # noqa: N818  # no error, but a sign that it was asked
        pass

    def refuse(*_: Any) -> Any:
        raise Asked

    monkeypatch.setattr(liveness, "peak_and_saved_bytes", refuse)
    assert len(vggkit.find("A", sort="macs", where={"params": ">1"})) == 1
    for options in (
        {"figures": ["saved"]},
        {"where": {"training_peak": "<1TB"}},
        {"sort": "-inference_peak"},
        {"pareto": ["params", "training_peak"]},
    ):
        with pytest.raises(Asked):
            vggkit.find("A", **options)


# conditions, order, limit

SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "": operator.eq}


@given(st.sampled_from(list(SIGNS)), st.integers(0, 50), st.integers(0, 50), st.sampled_from(["", "k", "M"]))
def test_a_condition_means_what_it_says(sign: str, limit: int, number: int, unit: str) -> None:
    """At the limit itself and beside it, with units."""
    scale = {"": 1, "k": 1000, "M": 10**6}[unit]
    for value in (number * scale, number * scale + 1, number * scale - 1):
        if sign in ("", "=") and unit:
            with pytest.raises(ArgumentError, match=f"{limit}{unit} is rounded, and would have to be exact"):
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
    with pytest.raises(ArgumentError, match="is rounded, and would have to be exact; what rounds to it is in ") as told:
        condition(figure, text)
    assert condition(figure, str(told.value).split(" is in ")[1]) == Condition(figure, low, high)


@pytest.mark.parametrize(
    "text", ["", "<", "15X", "<>3", "1..", "..5", "5M..1M", "1..2..3", "-3", "<1e6", "1,5", "< 1.5"]
)
def test_wrong_conditions_are_told_in_one_line(text: str) -> None:
    """With what was found and what would have been right."""
    with pytest.raises(ArgumentError, match=r"^parameters: expected .*, found '") as told:
        condition("parameters", text)
    assert "\n" not in str(told.value)


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
    name, descending = search.figure_name(word.removeprefix("-"), "sort"), word.startswith("-")

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
    monkeypatch.setattr(search, "CHUNK", 3)
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
        Variant(str(number), {}, dict(zip(("weights", "biases"), point))) for number, point in enumerate(points)
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
    monkeypatch.setattr(search, "CHUNK", 10)
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


def test_figures_and_directions_by_name_and_alias() -> None:
    """Letter case, - and _ don't matter."""
    assert direction(" -MACs ", "sort") == Direction("multiply_accumulates", True)
    assert str(direction("-training-peak", "sort")) == "-training_peak_bytes"
    for name, figure in FIGURES.items():
        assert {search.figure_name(word.upper(), "x") for word in (name, *figure.aliases)} == {name}

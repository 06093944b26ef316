"""A search at work: every figure is that of the one network, and nothing is lost or moved."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
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
from tests.footprint.card import Cards
from tests.footprint.test_loops import LOOPS
from vggkit.base.errors import ArgumentError, VggkitError
from vggkit.figures.measures import FOUND
from vggkit.footprint.ranks import STRATEGIES, Group
from vggkit.footprint.ranks.replicas import Replicas
from vggkit.footprint.ranks.strategy import Asked
from vggkit.footprint.steps.losses import LOSSES
from vggkit.footprint.steps.options import TRAINING_KEYWORDS, StepOptions
from vggkit.model import verify
from vggkit.network import Network
from vggkit.search import chunks, query

ALL = tuple(FOUND)


def plain_figures(network: Network, batch: int = 1, dtype: str = "float32", allocator: str = "", **options: Any) -> Any:
    """Return the figures of one network, by the functions for one."""
    summary = vggkit.summarize(network, batch=batch, dtype=dtype, expand=True)
    training = vggkit.memory(network, batch=batch, dtype=dtype, **options)
    reserved = reserved_bytes(network, batch=batch, dtype=dtype, allocator=allocator, **options)
    autocast = options.get("autocast", False)
    inference = vggkit.memory(network, batch=batch, dtype=dtype, mode="inference", autocast=autocast)
    [compared] = vggkit.compare(network, batch=batch, dtype=dtype, allocator=allocator, **options).networks
    assert compared.inference_peak_bytes == inference.peak_bytes
    assert compared.training_peak_bytes == training.peak_bytes
    assert compared.reserved_bytes == reserved
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
        "inference_peak_bytes": inference.peak_bytes,
        "training_peak_bytes": training.peak_bytes,
        "saved_for_backward_bytes": training.saved_for_backward_bytes,
        "reserved_bytes": reserved,
    }


def reserved_bytes(network: Network, **options: Any) -> int | None:
    """Return what a card must have; None if that is not known of what the ranks do."""
    if not on_card(options):
        return None
    plan = vggkit.memory(network, device="cuda", **options)
    return max(rank.bytes for rank in plan.by_rank) if plan.by_rank else plan.reserved_bytes


def on_card(options: Mapping[str, Any]) -> bool:
    """Tell whether what the ranks do is known on a card."""
    group = Group(**{word: value for word, value in options.items() if word in Group.__struct_fields__})
    try:
        STRATEGIES[group.parallel].check(group, StepOptions(device="cuda", group=group))
    except ArgumentError:
        return False
    return True


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
    figures = ALL if on_card(options) else [figure for figure in ALL if figure != "reserved_bytes"]
    found = vggkit.find(source, vary=varied, figures=figures, **options)
    wanted, left_out = [], 0
    for values in product(*varied.values()):
        changes = dict(zip(varied, values))
        try:
            every = plain_figures(Network.of(source, **changes), **options)
            wanted.append((changes, {figure: every[figure] for figure in figures}))
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
    st.sampled_from(list(LOOPS.values())),
)
def test_each_figure_of_the_zoos_variants_is_that_of_the_variant_alone(
    name: str, varied: dict[str, list[Any]], optimizer: str, loop: dict[str, Any]
) -> None:
    """Whatever is varied, with each sort of optimizer, in each loop."""
    if optimizer != "none" or "step_in_backward" not in loop:
        assert_exact(vggkit.load(name), varied, optimizer=optimizer, **loop)


TRAINED: dict[str, dict[str, Any]] = {
    "checkpoint": {"checkpoint": ["block1", "block3"]},
    "freeze": {"freeze": ["block1", "fc1"]},
    "autocast": {"autocast": True},
    "allocator": {"allocator": "expandable_segments:True"},
    "foreach": {"optimizer": "adam", "foreach": True, "amsgrad": True},
    "single": {"optimizer": "paper", "foreach": False, "nesterov": True},
    "fused": {"optimizer": "adagrad", "fused": True, "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.9, "centered": True},
    "adafactor": {"optimizer": "adafactor"},
    **{loss: {"loss": loss} for loss in LOSSES},
    "label smoothing": {"loss": "label-smoothing"},
    "soft labels": {"loss": "soft-labels", "autocast": True},
    "mean squared error": {"loss": "mean-squared-error", "accumulate": 2},
    **{word: loop for word, loop in LOOPS.items() if loop},
}


SHARED: dict[str, dict[str, Any]] = {
    "ddp": {"ranks": 3, "parallel": "ddp", "bucket_cap_mb": 0.1, "accumulate": 2},
    "static graph": {"ranks": 2, "parallel": "ddp-view", "static_graph": True},
    "zero1": {"ranks": 3, "parallel": "zero1", "optimizer": "adamw"},
    "rank 1 of zero1": {"ranks": 3, "parallel": "zero1", "rank": 1},
    "fsdp": {"ranks": 3, "parallel": "fsdp", "units": "layers", "reshard_after_forward": False},
    "mixed precision": {"ranks": 2, "parallel": "fsdp", "param_dtype": "bfloat16", "reduce_dtype": "float32"},
    "tensor": {"ranks": 2, "parallel": "tensor"},
    "tensor+ddp": {"ranks": 6, "parallel": "tensor+ddp", "replicas": 3},
    "pipeline": {"ranks": 2, "parallel": "pipeline", "cut": ["block3"], "balance": "memory"},
    "balanced pipeline": {"ranks": 2, "parallel": "pipeline", "balance": "macs"},
    "1f1b": {"ranks": 2, "parallel": "pipeline", "cut": ["block3"], "microbatches": 3, "schedule": "1f1b"},
}
"""What several ranks do."""

TRAINED |= SHARED


def test_each_option_of_the_training_step_has_a_case() -> None:
    """A new one needs a case in TRAINED."""
    assert {word for step in TRAINED.values() for word in step} == {*TRAINING_KEYWORDS}


@pytest.mark.parametrize("word", TRAINED)
def test_each_option_of_the_training_step_reaches_every_figure(word: str) -> None:
    """Of variants that are worked out together, and of one alone in `compare`."""
    varied = {"width": [0.05, 0.2, 0.4], "num_classes": [2, 5], "batch_norm": [True, False]}
    assert_exact(vggkit.load("A", input="3x32x32"), varied, batch=3, **TRAINED[word])


def test_a_network_that_ranks_cant_run_is_left_out() -> None:
    """As is what depends on numbers: one class can't be divided by two. In a comparison it has the reason instead."""
    shared = {"ranks": 2, "parallel": "tensor"}
    found = vggkit.find("A", "allcnn_c", figures="training_peak", vary={"num_classes": [1, 10]}, **shared)
    assert ([variant.label for variant in found], found.left_out) == (["A:num_classes=10"], 3)
    assert found.reason is not None
    assert "expected at most as many as predictions has units, 1, found 2" in found.reason
    columns = vggkit.compare("A", "allcnn_c", batch=4, **shared).networks
    assert columns[0].training_peak_bytes == vggkit.memory("A", batch=4, **shared).peak_bytes
    assert columns[1].training_peak_bytes is None
    assert columns[1].refusal == "allcnn_c: parallel: tensor needs FC layers, and allcnn_c has none"


class OnTheCpu(Replicas):
    """A strategy of which nothing is known on a card."""

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:  # noqa: ARG003  # the device decides
        if step.device == "cuda":
            raise ArgumentError("device: needs cpu")


def test_what_is_not_known_of_a_card_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search by it is refused at once; a comparison leaves it open."""
    monkeypatch.setitem(STRATEGIES, "ddp", OnTheCpu)
    shared = {"ranks": 2, "parallel": "ddp"}
    with pytest.raises(ArgumentError, match="reserved_bytes: device: needs cpu"):
        vggkit.find("A", where={"reserved": "<4GB"}, **shared)
    assert vggkit.compare("A", **shared).networks[0].reserved_bytes is None


def test_a_network_without_a_block_or_layer_that_is_named_is_left_out() -> None:
    """The reason says which it is."""
    for step, why in (
        ({"freeze": "fc1"}, "freeze: allcnn_c has no block or layer 'fc1'. `vggkit names allcnn_c` lists them"),
        ({"checkpoint": "block5"}, "checkpoint: expected block1 … block3 of allcnn_c, found 'block5'"),
    ):
        found = vggkit.find("A", "allcnn_c", "D", figures="training_peak", batch=2, **step)
        assert ([variant.name for variant in found], found.left_out) == (["A", "D"], 1)
        assert found.reason == f"allcnn_c: {why}"


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
        options = StepOptions(batch=batch, optimizer="adam")
        varied = {"width": [1, 2.5], "batch_norm": [True, False]}
        for variant in vggkit.find(tiny, vary=varied, figures=ALL, batch=batch, optimizer="adam"):
            network = Network.of(tiny, **variant.changes)
            peak = sum(verify.training_peak(network, options).values())
            saved = verify.saved_bytes(network, options)
            assert variant.figures["training_peak_bytes"] == peak
            assert variant.figures["saved_for_backward_bytes"] == saved
            peaks.add((peak, saved))
    assert len(peaks) == 8


def test_reserved_bytes_are_those_of_torchs_allocator(cards: Cards) -> None:
    """Of 8 variants at two batches: the sixth step of a training loop in torch on a card that isn't there."""
    card = cards("play_steps.py", 80 << 30, "")
    same: dict[str, Any] = {"input": "3x32x32", "num_classes": 10}
    varied = {"width": [0.25, 0.6], "batch_norm": [True, False]}
    reserved = set()
    steps: list[dict[str, Any]] = [
        {"batch": 2, "optimizer": "adamw", "foreach": False, "ema": True},
        {"batch": 64, "optimizer": "sgd-momentum", "checkpoint": ["block1"], "accumulate": 2},
    ]
    for step in steps:
        for variant in vggkit.find("A", vary=varied, figures="reserved", **step, **same):
            question = {"name": "A", "steps": 6, **step, **same, **variant.changes}
            assert variant.figures["reserved_bytes"] == card.ask(**question)[-1]["reserved"], variant.label
            reserved.add(variant.figures["reserved_bytes"])
    assert len(reserved) > 4


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
    assert whole.query.total > 2 * chunks.CHUNK
    monkeypatch.setattr(chunks, "FEW", 0)
    assert vggkit.find("A", processes=2, **options) == whole
    monkeypatch.setattr(chunks, "CHUNK", 397)
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
    assert list(chunks._in_order(Starting(), parts, ahead=1)) == parts
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
    asked = query.prepared(["A"], {}, vary=vary, batch=1, dtype="float32", training={}, **options)
    assert asked.total == 10**12
    assert next(chunks.chunks(asked)).examined == chunks.CHUNK


def test_memory_is_worked_out_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a column, a filter, the sort or the front; each of them is enough."""

    class Asked(Exception):  # noqa: N818  # no error, but a sign that it was asked
        pass

    def refuse(*_: Any) -> Any:
        raise Asked

    monkeypatch.setattr(chunks, "peak_and_saved_bytes", refuse)
    assert len(vggkit.find("A", sort="macs", where={"params": ">1"})) == 1
    for options in (
        {"figures": ["saved"]},
        {"where": {"training_peak": "<1TB"}},
        {"sort": "-inference_peak"},
        {"pareto": ["params", "training_peak"]},
    ):
        with pytest.raises(Asked):
            vggkit.find("A", **options)


# What is worked out for each variant alone


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The parameters of each network whose reserved bytes are worked out, which are then ten times as many."""
    asked: list[int] = []

    def counted(network: Network, _: StepOptions) -> int:
        asked.append(vggkit.summarize(network).totals.parameters)
        return 10 * asked[-1]

    monkeypatch.setattr(chunks, "reserved_on_card", counted)
    return asked


CLASSES = list(range(10, 40))
PARAMETERS = [vggkit.summarize("A", num_classes=number).totals.parameters for number in CLASSES]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"figures": "macs", "sort": "params"}, []),
        ({"figures": "reserved", "limit": 4}, PARAMETERS[:4]),
        ({"figures": "reserved", "sort": "-params", "limit": 3}, PARAMETERS[:-4:-1]),
        ({"figures": "reserved", "where": {"params": f"<={PARAMETERS[6]}"}}, PARAMETERS[:7]),
        ({"where": {"reserved": f"<={10 * PARAMETERS[6]}B", "params": f"<={PARAMETERS[9]}"}}, PARAMETERS[:10]),
        ({"sort": "-reserved", "limit": 2, "where": {"params": f">{PARAMETERS[20]}"}}, PARAMETERS[21:]),
        ({"pareto": ["params", "-reserved"], "limit": 1}, PARAMETERS),
    ],
)
@pytest.mark.parametrize("size", [chunks.CHUNK, 7])
def test_reserved_bytes_are_worked_out_where_they_decide_and_where_they_are_shown(
    options: dict[str, Any], wanted: list[int], size: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each variant that meets the other conditions; if they are only shown, for those within the limit."""
    monkeypatch.setattr(chunks, "CHUNK", size)
    found = vggkit.find("A", vary={"num_classes": CLASSES}, **options)
    assert asked == wanted
    for variant in found:
        assert variant.figures.get("reserved_bytes") == (10 * variant.figures["parameters"] if wanted else None)


def test_a_condition_on_reserved_bytes_is_one_of_all_conditions(asked: list[int]) -> None:
    """Its ends belong to it, and it may be given twice; what it rules out is no match."""
    low, high = 10 * PARAMETERS[4], 10 * PARAMETERS[8]
    where: dict[str, Any] = {"reserved": [f">={low}B", f"<{high}B"], "params": f">{PARAMETERS[5]}"}
    found = vggkit.find("A", vary={"num_classes": CLASSES}, where=where, sort="-reserved")
    assert [variant.figures["reserved_bytes"] for variant in found] == [10 * PARAMETERS[7], 10 * PARAMETERS[6]]
    assert (found.matches, len(asked)) == (2, len(CLASSES) - 6)


@pytest.mark.parametrize("limit", [None, 1])
def test_a_step_that_torch_refuses_has_no_reserved_bytes(limit: int | None) -> None:
    """The variant is skipped, as where its peak is asked for, even if only those within the limit are worked out."""
    found = vggkit.find("vgg11_slimming_bn1d", "A", figures="reserved", limit=limit)
    assert ([variant.name for variant in found], found.matches, found.left_out) == (["A"], 1, 1)
    assert "torch can't run a training step at batch 1" in str(found.reason)
    assert len(vggkit.find("vgg11_slimming_bn1d", "A", figures="reserved", limit=limit, batch=2)) == (limit or 2)


def test_processes_and_chunks_change_no_reserved_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By two processes, which start at fewer variants than for other figures, and in small pieces."""
    options: dict[str, Any] = {
        "vary": {"width": [0.1, 0.3, 0.5], "batch_norm": [True, False], "num_classes": [1, 100, 10_000]},
        "where": {"reserved": ">=1B"}, "sort": "reserved", "input": "3x32x32",
    }  # fmt: skip
    whole = vggkit.find("A", "B", **options)
    assert len({variant.figures["reserved_bytes"] for variant in whole}) > 4
    monkeypatch.setattr(chunks, "CHUNK", 5 * chunks.ALONE)
    assert vggkit.find("A", "B", **options) == whole
    monkeypatch.setattr(chunks, "FEW", whole.query.total * chunks.ALONE)
    assert vggkit.find("A", "B", processes=2, **options) == whole


def test_a_chunk_can_be_stopped_between_variants(asked: list[int]) -> None:
    """That of variants worked out alone takes long enough to."""
    options: dict[str, Any] = {"figures": [], "limit": None, "pareto": None, "batch": 1, "dtype": "float32"}
    wanted = query.prepared(["A"], {}, vary={"num_classes": CLASSES}, where={}, sort="reserved", training={}, **options)
    with pytest.raises(chunks.Stopped):
        chunks.chunk(wanted, range(wanted.total), stopped=lambda: len(asked) == 5)
    assert len(asked) == 5

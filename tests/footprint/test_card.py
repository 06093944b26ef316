"""What a card must have, held against training steps in torch on a card that isn't there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import vggkit
from tests.footprint.card import Card, Cards
from tests.footprint.grid import (
    BLOCKS,
    EXPANDABLE,
    GIB,
    ROOMY,
    WAYS,
    Question,
    assert_torchs_order,
    assert_torchs_plan,
    assert_torchs_steps,
    drawn_perceptual_losses,
    drawn_steps,
    loop_of,
)
from tests.footprint.updates import NETWORKS, cases, fewer, one_of_each, sampled
from vggkit.base.eager import Storage
from vggkit.footprint import card as card_module
from vggkit.footprint.allocator import Allocator
from vggkit.footprint.allocator_settings import MIB, Settings
from vggkit.footprint.card import Loop, Player, State
from vggkit.footprint.optimizers import Update
from vggkit.footprint.steps.options import checked_options
from vggkit.footprint.steps.refusals import runnable_step
from vggkit.network import Network


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A card with room for everything, with torch's own settings."""
    return cards("play_steps.py", ROOMY, "")


def loop(network: Network, **options: Any) -> Loop:
    """Return the loop of a network's steps."""
    return runnable_step(network, checked_options(network, device="cuda", **options)).loop


# Order


SMALL = {"input": "3x32x32", "width": 0.25, "num_classes": 10}
PERCEPTUAL = {"mode": "perceptual"}
CASES: dict[str, dict[str, Any]] = {
    "A": {},
    "A-LRN": {},
    "C, AdamW": {"optimizer": "adamw"},
    "A, no optimizer": {"optimizer": "none"},
    "A, batch norm": {"batch_norm": True},
    "A, autocast": {"autocast": True},
    "A-LRN, autocast": {"autocast": True},
    "A, autocast and batch norm": {"autocast": True, "batch_norm": True, "optimizer": "adam"},
    "A, two blocks frozen": {"freeze": ["block1", "block2"]},
    "A, a block checkpointed": {"checkpoint": ["block1"]},
    "D, every block checkpointed": {"checkpoint": BLOCKS},
    "A, checkpointed, autocast and batch norm": {"checkpoint": ["block2"], "autocast": True, "batch_norm": True},
    "A, bfloat16": {"dtype": "bfloat16"},
    "A, average pooling and no FC layers": {"pool": "avg", "head": "gap"},
    "A, GELU": {"activation": "gelu"},
    "A, no dropout": {"dropout": 0},
    "A, inference": {"mode": "inference"},
    "A-LRN, inference and autocast": {"mode": "inference", "autocast": True},
    "A, batch norm in inference": {"mode": "inference", "batch_norm": True},
    "A, batch norm in inference, bfloat16": {"mode": "inference", "batch_norm": True, "dtype": "bfloat16"},
    "A, batch norm, a block frozen": {"batch_norm": True, "freeze": ["block2", "fc1"]},
    "A, batch norm, bfloat16": {"batch_norm": True, "dtype": "bfloat16"},
    "A, batch norm, float64": {"batch_norm": True, "dtype": "float64"},
    "A, all frozen": {"freeze": [*BLOCKS, "fc1", "fc2", "predictions"]},
    "A, perceptual": {**PERCEPTUAL, "taps": ["conv1_1", "relu1_1", "pool1", "relu3_1"]},
    "A-LRN, perceptual, cached, a block checkpointed": {
        **PERCEPTUAL, "taps": ["relu2_1", "relu5_1"], "cached_target": True, "checkpoint": ["block1", "block2"],
    },
    "A, perceptual, trainable, batch norm": {
        **PERCEPTUAL, "taps": ["relu5_1", "fc6"], "trainable": True, "batch_norm": True,
    },
    "A, perceptual, trainable, autocast": {**PERCEPTUAL, "taps": ["relu2_1"], "trainable": True, "autocast": True},
}  # fmt: skip
"""Loops of steps, by words that begin with the configuration; of all of them the input is small."""


@pytest.mark.parametrize("words", CASES)
def test_everything_is_allocated_and_freed_in_torchs_order(card: Card, words: str) -> None:
    """From an empty card through three steps torch asks for the same bytes, and gives the same back in between."""
    assert_torchs_order(card, {"name": words.split(",")[0], "batch": 2, **SMALL, **CASES[words]})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "update"), sampled(list(cases(WAYS))))
def test_optimizers_allocate_and_free_in_torchs_order(card: Card, name: str, update: Update, network: str) -> None:
    """From the constructor on, with all options; in the first step and in all that differ from later ones.

    So the bytes that each step allocates and reserves are torch's, too.
    """
    question = {"config": NETWORKS[network], "batch": 2, "optimizer": name, **update.given}
    assert_torchs_order(card, question)
    training = loop_of(question)
    assert training is not None
    assert_torchs_plan(card, training, question, "")


@pytest.mark.parametrize(("name", "update"), sampled(one_of_each(list(cases(WAYS))), fewer))
def test_so_they_do_in_bfloat16(card: Card, name: str, update: Update) -> None:
    """The state has the parameters' dtype, but counters are float32."""
    question = {"config": NETWORKS["weights first"], "batch": 2, "optimizer": name, **update.given}
    assert_torchs_order(card, {**question, "dtype": "bfloat16"})


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"dtype": "bfloat16"}, {"dtype": "float64"}], ids=str)
def test_adafactors_norms_of_large_parameters_are_added_up_in_parts(card: Card, options: dict[str, Any]) -> None:
    """Kernels take memory for the norms of the FC layers' columns, and for those of whole parameters."""
    question = {"name": "A", "input": "3x64x64", "width": 0.3, "batch": 2, "optimizer": "adafactor", **options}
    assert_torchs_order(card, question)
    training = loop_of(question)
    assert training is not None
    assert_torchs_plan(card, training, question, "")


# Figures

TABLE = [
    ("A", 8, {}, 1_976_686_080, 2_373_976_064, 2_290_089_984),
    ("D", 1, {}, 1_726_436_864, 1_793_064_960, 2_084_569_088),
    ("D", 16, {}, 2_817_134_080, 3_474_980_864, 2_856_321_024),
    ("D", 64, {}, 6_348_213_760, 8_914_993_152, 6_511_656_960),
    ("D", 64, {"optimizer": "adamw"}, 6_902_431_232, 8_914_993_152, 6_973_030_400),
    ("E", 32, {"optimizer": "sgd"}, 3_627_383_296, 5_192_548_352, 3_718_250_496),
    ("C", 32, {"optimizer": "adamw"}, 4_482_842_112, 5_800_722_432, 4_506_779_648),
    ("A-LRN", 8, {"optimizer": "adamw"}, 3_066_152_960, 3_829_399_552, 3_149_922_304),
    ("D", 16, {"batch_norm": True}, 3_667_675_136, 4_330_618_880, 3_716_153_344),
    ("A", 128, {"optimizer": "adamw", **SMALL}, 60_740_608, 83_886_080, 81_788_928),
]
"""Of the second step: allocated bytes, reserved bytes, and those with expandable segments."""


@pytest.mark.parametrize(("name", "batch", "options", "allocated", "reserved", "expandable"), TABLE)
def test_allocated_and_reserved_bytes_are_torchs(
    cards: Cards, name: str, batch: int, options: dict[str, Any], allocated: int, reserved: int, expandable: int
) -> None:
    """Every figure of each step equals that of torch's allocator; the second step's are the published ones."""
    question = {"name": name, "batch": batch, **options}
    training = loop_of(question)
    assert training is not None
    second = []
    for text in ("", EXPANDABLE):
        said = assert_torchs_steps(cards("play_steps.py", ROOMY, text), training, question, ROOMY, text)[1]
        assert said is not None
        second.append(said)
    assert (second[0]["allocated"], second[0]["reserved"], second[1]["reserved"]) == (allocated, reserved, expandable)


# States


def state(*said: int, before: int = 0) -> State:
    """Return the state after allocations (> 0) and frees (< 0) of storages of a MiB each.

    Args:
        said: numbers of storages.
        before: how many segments have been given back by then.
    """
    allocator = Allocator(GIB)
    for _ in range(before):
        allocator.free(allocator.allocate(MIB))
        allocator.empty_cache()
    player = Player(Loop((), (), ()), 1, allocator)
    player.play([("event", ONES[abs(number)], number > 0) for number in said])
    return player.state


ONES = [Storage(0, MIB, MIB, 0) for _ in range(4)]
"""Storages of the same size."""


def test_a_state_is_whose_each_block_is_and_which_is_the_older_whatever_the_addresses() -> None:
    """The same blocks with other owners are another state; at other addresses they are the same."""
    assert state(1, 2) == state(1, 2) == state(1, 2, before=2)
    assert len({state(1, 2), state(2, 1), state(1, 2, 3), state(1, 2, 3, -3), state(1, 1)}) == 5
    assert state(1, 2, 1, -1) != state(1, 2)  # the same two, the other way round
    assert state(1, 1, 1, -1, 1) != state(1, 1, 1)  # the older one lies behind the younger one


# Drawn networks


NORMS = ["batchnorm", "{batchnorm: {affine: false}}", "{groupnorm: 2}", "{groupnorm: 2, affine: false}"]
KERNELS = [
    *(f"input: 4x5x6, blocks: [[conv3-4, {norm}, tanh]], classifier: [FC-3]" for norm in NORMS),
    *(f"input: 4x1x1, blocks: [[conv3-4, {norm}, tanh]], classifier: [FC-3]" for norm in NORMS),
    *(f"input: 4x5x6, classifier: [FC-4, {norm}, tanh, {{FC: 3, bias: false}}]" for norm in NORMS),
    "input: 4x5x6, blocks: [[{conv: 4, padding_mode: reflect}, {conv: 4, padding_mode: circular}, soft-max, conv3-2]]",
    "input: 4x5x6, blocks: [[conv3-4, batchnorm]], classifier: [flatten, relu, {leaky-relu: {}}, tanh, FC-3]",
    "input: 4x5x6, blocks: [[conv3-4, {batchnorm: {track_running_stats: false}}, conv3-2, batchnorm]]",
    "input: 4x1x1, classifier: [FC-4, {batchnorm: {track_running_stats: false}}, flatten, {hardtanh: {inplace: true}}]",
    "input: 4x5x6, blocks: [[conv3-4, silu, log-softmax, LRN, {dropout: 0.5}, conv3-2]]",
]
"""Networks whose layers have several kernels on CUDA, by their sizes and options."""


@pytest.mark.parametrize("text", KERNELS)
def test_each_kernels_own_tensors_are_counted(card: Card, text: str) -> None:
    """Normalisations, padding and soft-max take the kernels that torch takes, with all that these allocate."""
    config = f"{{name: x, {text}}}"
    network = Network.of(vggkit.loads(config))
    norms = [placed.name for placed in network if placed.layer.role == "norm"]
    blocks = sorted({placed.block for placed in network if placed.block})
    steps: list[dict[str, Any]] = [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "float64"},
        {"freeze": norms},
        {"freeze": norms, "checkpoint": blocks},
        {"freeze": [network.layers[0].name], "dtype": "bfloat16"},
        {"autocast": True},
        {"mode": "inference"},
        {"mode": "inference", "dtype": "bfloat16"},
        *(
            {"mode": "perceptual", "taps": names, "trainable": trainable, "dtype": dtype}
            for names in ([network.layers[-1].name], [placed.name for placed in network])
            for trainable in (False, True)
            for dtype in ("float32", "bfloat16")
        ),
    ]
    for options in steps:
        assert_torchs_order(card, {"config": config, "batch": 3, **options})


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes minutes
)
@given(drawn_steps(st.integers(2, 4)) | drawn_perceptual_losses(st.integers(2, 4)))
def test_drawn_networks_allocate_and_free_in_torchs_order(card: Card, question: Question) -> None:
    """The same for networks of every kind of layer, with blocks and layers frozen, checkpointed, in every dtype."""
    assume(loop_of(question) is not None)
    assert_torchs_order(card, question)


# Batches whose gradients are added up


@pytest.mark.parametrize("setting", ["", EXPANDABLE, "garbage_collection_threshold:0.6", "max_split_size_mb:32"])
@pytest.mark.parametrize("times", [5, 9, 33])
def test_rounds_that_are_left_out_change_nothing(monkeypatch: pytest.MonkeyPatch, times: int, setting: str) -> None:
    """The figures of each step are those of all its batches, played one by one, on a roomy card and on full ones."""
    network = Network.of("vgg11_bn", **SMALL)
    options = {"accumulate": times, "optimizer": "adamw", "checkpoint": ["block2"], "ema": times == 9}
    training, allocator = loop(network, batch=2, **options), Settings.of(setting)
    assert len(card_module.repeated(training.later)) == times - 3  # the first and the last are walked on their own
    roomy = card_module.run(training, 2, card_module.UNBOUNDED, allocator)
    assert roomy[-1] is not None
    sizes = [card_module.UNBOUNDED, *(roomy[-1].reserved * part // 100 for part in (100, 97, 94, 80))]
    found = [card_module.run(training, 2, size, allocator) for size in sizes]
    monkeypatch.setattr(card_module, "repeated", lambda events: range(0))  # noqa: ARG005  # as its caller names it
    assert found == [card_module.run(training, 2, size, allocator) for size in sizes]

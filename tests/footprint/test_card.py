"""What a card must have, held against training steps in torch on a card that isn't there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import vggkit
from tests.drawn import configs
from tests.footprint.card import Card
from tests.footprint.conftest import Cards
from vggkit.base.eager import Storage
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator import Allocator
from vggkit.footprint.allocator_settings import MIB, Settings
from vggkit.footprint.card import Loop, Player, State, run
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.steps.options import checked_options
from vggkit.footprint.steps.refusals import runnable_step
from vggkit.network import Network
from vggkit.notation.overrides import Overrides

GIB = 1 << 30
STEPS = 3
CONFIGURATIONS = ("A", "A-LRN", "B", "C", "D", "E")
EXPANDABLE = "expandable_segments:True"


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """A card with room for everything, with torch's own settings."""
    return cards("play_steps.py", 80 * GIB, "")


def loop(network: Network, **options: Any) -> Loop:
    """Return the loop of a network's steps."""
    return runnable_step(network, checked_options(network, device="cuda", **options)).loop


def figures(
    training: Loop, batch: int, card_bytes: int, text: str, steps: int | None = STEPS
) -> list[dict[str, int] | None]:
    """Return what the card's process returns: the figures of each step, None for one that ran out of memory."""
    done = run(training, batch, card_bytes, Settings.of(text), steps)
    return [None if step is None else step._asdict() for step in done]


def numbered(training: Loop, batch: int) -> list[int]:
    """Return what the card's process returns: bytes (> 0), or that the n-th allocation is freed (-n)."""
    numbers: dict[Storage, list[int]] = {}
    said: list[int] = []
    count = 0
    for part in (training.before, *(training.step(number) for number in range(STEPS))):
        for _, storage, is_allocation in part:
            if is_allocation:
                count += 1
                numbers.setdefault(storage, []).append(count)
                said.append(storage.per_image * batch + storage.constant)
            else:
                said.append(-numbers[storage].pop(0))
    return said


def in_order(said: list[int]) -> list[tuple[list[int], int]]:
    """Return each allocation with what is freed before it, whose order makes no difference; no frees at the end."""
    freed: list[int] = []
    allocations = []
    for event in said:
        if event > 0:
            allocations.append((sorted(freed), event))
            freed = []
        else:
            freed.append(event)
    return allocations


# Order


SMALL = {"input": "3x32x32", "width": 0.25, "num_classes": 10}
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
    "D, every block checkpointed": {"checkpoint": [f"block{number}" for number in range(1, 6)]},
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
    "A, all frozen": {"freeze": ["block1", "block2", "block3", "block4", "block5", "fc1", "fc2", "predictions"]},
}
"""Training loops, by words that begin with the configuration; of all of them the input is small."""


@pytest.mark.parametrize("words", CASES)
def test_everything_is_allocated_and_freed_in_torchs_order(card: Card, words: str) -> None:
    """From an empty card through three steps torch asks for the same bytes, and gives the same back in between."""
    name, options = words.split(",")[0], CASES[words]
    overrides = {word: options[word] for word in options if word in Overrides.__annotations__}
    others = {word: options[word] for word in options if word not in overrides}
    training = loop(Network.of(name, **{**SMALL, **overrides}), **others)
    said = card.ask(name=name, batch=2, steps=STEPS, events=True, **SMALL, **options)
    assert in_order(numbered(training, 2)) == in_order(said)


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
    overrides = {word: value for word, value in options.items() if word != "optimizer"}
    training = loop(Network.of(name, **overrides), optimizer=options.get("optimizer"))
    said = {}
    for text in ("", EXPANDABLE):
        said[text] = figures(training, batch, 80 * GIB, text)
        assert said[text] == cards("play_steps.py", 80 * GIB, text).ask(name=name, batch=batch, steps=STEPS, **options)
    second = said[""][1], said[EXPANDABLE][1]
    assert second[0] is not None
    assert second[1] is not None
    assert (second[0]["allocated"], second[0]["reserved"], second[1]["reserved"]) == (allocated, reserved, expandable)


MORE_STEPS = 12
STEADY: list[tuple[str, int, dict[str, Any]]] = [
    *((name, batch, {"optimizer": word}) for name in CONFIGURATIONS for batch in (1, 2, 8) for word in OPTIMIZERS),
    *((name, 4, {}) for name in ("cnn_f", "cnn_m", "vgg_face", "vgg13_bn")),
    ("cifar_chengyangfu_vgg16_bn", 1, {"optimizer": "sgd"}),  # takes 2 MiB more from its seventh step on
    ("D", 8, {"freeze": ["block1", "block2"]}),
    ("D", 8, {"freeze": ["block3"], "optimizer": "adamw", "batch_norm": True}),
    ("D", 8, {"checkpoint": ["block1", "block3"]}),
    ("E", 4, {"checkpoint": ["block1", "block2", "block3", "block4", "block5"], "optimizer": "adamw"}),
    ("D", 8, {"autocast": True}),
    ("A-LRN", 8, {"autocast": True, "checkpoint": ["block1"]}),
    ("D", 8, {"autocast": True, "batch_norm": True, "optimizer": "adamw"}),
    ("D", 8, {"dtype": "bfloat16"}),
    ("D", 8, {"mode": "inference"}),
    ("D", 8, {"mode": "inference", "batch_norm": True, "autocast": True}),
]
"""Configuration, batch, and options of a step."""
OFTEN = [case for case in STEADY if case[0] in ("A", "cifar_chengyangfu_vgg16_bn") or case[1] == 4]


@pytest.mark.parametrize("text", ["", EXPANDABLE])
@pytest.mark.parametrize(
    ("name", "batch", "options"),
    [pytest.param(*case, marks=[] if case in OFTEN else [pytest.mark.slow]) for case in STEADY],
)
def test_a_plan_says_what_a_steady_step_takes(
    cards: Cards, name: str, batch: int, options: dict[str, Any], text: str
) -> None:
    """Allocated bytes, reserved bytes and retries are those of torch's twelfth step."""
    said = cards("play_steps.py", 80 * GIB, text).ask(name=name, batch=batch, steps=MORE_STEPS, **options)
    plan = vggkit.memory(name, batch=batch, device="cuda", allocator=text, **options)
    assert (plan.allocated_bytes, plan.reserved_bytes) == (said[-1]["allocated"], said[-1]["reserved"])
    assert plan.retries == said[-1]["retries"] - said[-2]["retries"]


# Verdicts

WINDOW_STEPS = 10
MANY_STEPS = 40


def window(name: str, first: int, last: int, optimizer: str = "sgd-momentum", text: str = "") -> Any:
    """Return a window of batches to try on 24 GiB; it is slow, as each of them is a training loop in torch."""
    return pytest.param(name, range(first, last + 1), optimizer, text, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "batches", "optimizer", "text"),
    [
        ("A", range(377, 384), "sgd-momentum", ""),
        *(
            window(name, first, last, optimizer)
            for name, first, last in (("A", 360, 420), ("B", 280, 340), ("D", 285, 335), ("E", 300, 320))
            for optimizer in ("sgd-momentum", "adamw")
        ),
        window("E", 285, 300, "sgd"),
        window("A", 478, 490, text=EXPANDABLE),
        window("D", 310, 322, "adamw", EXPANDABLE),
        window("A", 360, 420, text="max_split_size_mb:128"),
        window("A", 360, 420, text="roundup_power2_divisions:8"),
        window("D", 285, 335, text="per_process_memory_fraction:0.9,garbage_collection_threshold:0.8"),
    ],
)
def test_the_batches_that_run_are_those_that_run_in_torch(
    cards: Cards, name: str, batches: range, optimizer: str, text: str
) -> None:
    """On 24 GiB the same steps run, with the same figures and as many retries, and the same ones run out of memory."""
    network = Network.of(name)
    card = cards("play_steps.py", 24 * GIB, text)
    training = loop(network, optimizer=optimizer)
    for batch in batches:
        said = card.ask(name=name, batch=batch, optimizer=optimizer, steps=WINDOW_STEPS)
        assert figures(training, batch, 24 * GIB, text, WINDOW_STEPS) == said, batch


@pytest.mark.parametrize(
    ("name", "batch", "optimizer", "text", "runs"),
    [
        ("D", 316, "sgd-momentum", "", 3),
        ("A", 380, "sgd-momentum", "", 2),
        ("B", 288, "sgd-momentum", "", 3),
        ("E", 285, "adamw", "", 10),
        ("D", 325, "sgd-momentum", EXPANDABLE, 19),
    ],
)
def test_a_loop_may_run_out_after_some_steps(
    cards: Cards, name: str, batch: int, optimizer: str, text: str, runs: int
) -> None:
    """Where each step gives back all that is cached, it leaves other holes, until a step finds no room."""
    said = cards("play_steps.py", 24 * GIB, text).ask(name=name, batch=batch, optimizer=optimizer, steps=MANY_STEPS)
    assert figures(loop(Network.of(name), optimizer=optimizer), batch, 24 * GIB, text, None) == said
    assert (len(said) - 1, said[-1]) == (runs, None)


@pytest.mark.parametrize(
    ("name", "batch", "text"),
    [
        *(("A", batch, "") for batch in (378, 381, 383, 392)),
        *(("B", batch, "") for batch in (285, 294, 300)),
        *(("D", batch, "") for batch in (292, 302, 308, 310)),  # 302 takes twelve steps to come to rest
        *(("D", batch, EXPANDABLE) for batch in (318, 320)),
    ],
)
def test_a_loop_that_comes_back_to_a_state_runs_on(cards: Cards, name: str, batch: int, text: str) -> None:
    """No step of torch's forty runs out, and the figures are those of the steps up to where the state came back."""
    said = cards("play_steps.py", 24 * GIB, text).ask(name=name, batch=batch, steps=MANY_STEPS)
    training = loop(Network.of(name))
    done = figures(training, batch, 24 * GIB, text, None)
    assert len(done) < MANY_STEPS
    assert figures(training, batch, 24 * GIB, text, MANY_STEPS) == said
    assert None not in said
    assert {step["reserved"] for step in said[len(done) :]} <= {step["reserved"] for step in done if step}


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
    "input: 4x5x6, blocks: [[conv3-4, silu, log-softmax, LRN, {dropout: 0.5}, conv3-2]]",
]
"""Networks whose layers have several kernels on CUDA, by their sizes and options."""


@pytest.mark.parametrize("text", KERNELS)
def test_each_kernels_own_tensors_are_counted(card: Card, text: str) -> None:
    """Normalisations, padding and soft-max take the kernels that torch takes, with all that these allocate."""
    config = f"{{name: x, {text}}}"
    network = Network.of(vggkit.loads(config))
    steps: list[dict[str, Any]] = [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "float64"},
        {"freeze": [placed.name for placed in network if placed.layer.role == "norm"]},
        {"freeze": [network.layers[0].name], "dtype": "bfloat16"},
        {"autocast": True},
        {"mode": "inference"},
        {"mode": "inference", "dtype": "bfloat16"},
    ]
    for options in steps:
        said = card.ask(name="x", config=config, batch=3, steps=STEPS, events=True, **options)
        assert in_order(numbered(loop(network, batch=3, **options), 3)) == in_order(said), options


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes minutes
)
@given(configs(), st.integers(2, 4), st.sampled_from(list(OPTIMIZERS)), st.booleans(), st.data())
def test_drawn_networks_allocate_and_free_in_torchs_order(
    card: Card, text: str, batch: int, optimizer: str, autocast: bool, data: st.DataObject
) -> None:
    """The same for networks of every kind of layer, with blocks frozen and checkpointed, in every dtype."""
    network = Network.of(vggkit.loads(text))
    blocks = sorted({placed.block for placed in network if placed.block})
    some = st.lists(st.sampled_from(blocks), unique=True) if blocks else st.just([])
    options: dict[str, Any] = {"batch": batch, "autocast": autocast}
    if not autocast:
        options["dtype"] = data.draw(st.sampled_from(["float32", "bfloat16", "float64"]))
    if data.draw(st.integers(0, 3)):
        options.update(optimizer=optimizer, checkpoint=data.draw(some), freeze=data.draw(some))
    else:
        options["mode"] = "inference"
    try:
        training = loop(network, **options)
    except ArgumentError:
        return  # torch refuses it
    said = card.ask(name="x", config=text, steps=STEPS, events=True, **options)
    assert in_order(numbered(training, batch)) == in_order(said)

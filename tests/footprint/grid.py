"""Loops of steps that are held against torch's allocator: `python -m tests.footprint.grid [PART...]` plays all of them.

The tests play samples of the same grids. A question is what the card's process is asked: the name or the text of a
configuration, overrides, and what the steps are like.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, count, cycle, product
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

import vggkit
from tests.drawn import configs
from tests.footprint.card import Card, Cards
from tests.footprint.updates import cases
from vggkit.base.eager import Storage
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import MOST_STEPS, Loop, run
from vggkit.footprint.optimizers import NONE, OPTIMIZERS
from vggkit.footprint.ranks import MIXED_DTYPES, UNITS
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.losses import LOSSES
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network
from vggkit.notation.overrides import Overrides

Question = dict[str, Any]
Figures = list[dict[str, int] | None]

GIB = 1 << 30
ROOMY, SMALL_CARD, FULL_CARD = 80 * GIB, 24 * GIB, 4 * GIB
"""Bytes of cards: with room for all that is asked here, and of two that the windows and the family fill."""
EXPANDABLE = "expandable_segments:True"
CONFIGURATIONS = ("A", "A-LRN", "B", "C", "D", "E")
BLOCKS = [f"block{number}" for number in range(1, 6)]
FAMILY: list[str] = sorted(json.loads((Path(__file__).parents[1] / "data" / "family.json").read_text(encoding="utf-8")))


# Grids

WAYS: list[dict[str, Any]] = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}]
"""On CUDA nothing is said, or what torch's implementation is."""
USUAL = ("none", "sgd", "sgd-momentum", "adam", "adamw")


def of_optimizers(
    names: Iterable[str], batches: Iterable[int], optimizers: Iterable[str] = OPTIMIZERS
) -> list[Question]:
    """Return training steps of configurations at some batches, with each of some optimizers."""
    return [
        {"name": name, "batch": batch, "optimizer": word} for name, batch, word in product(names, batches, optimizers)
    ]


FROZEN = ([], ["block1"], ["block1", "block2"], ["block3"], ["block2", "fc1"], ["fc1"], BLOCKS, [*BLOCKS, "fc1", "fc2"])
CHECKPOINTED = ([], ["block1"], ["block2", "block4"], BLOCKS)


def of_options(name: str) -> list[Question]:
    """Return steps of a configuration: each freezing with each checkpointing, in every dtype and with autocast."""
    questions: list[Question] = []
    for batch_norm, freeze, checkpoint in product((False, True), FROZEN, CHECKPOINTED):
        if batch_norm and name == "A-LRN":
            continue
        trained = {"name": name, "batch": 8, "batch_norm": batch_norm, "freeze": freeze, "checkpoint": checkpoint}
        questions += [
            {**trained, "optimizer": "adamw"},
            {**trained, "autocast": True},
            *({**trained, "dtype": dtype} for dtype in ("bfloat16", "float16", "float64")),
        ]
        if not freeze and not checkpoint:
            plain = {"name": name, "batch": 8, "batch_norm": batch_norm, "mode": "inference"}
            questions += [
                {**plain, "autocast": True},
                *({**plain, "dtype": dtype} for dtype in ("float32", "bfloat16")),
            ]
    return questions


@st.composite
def drawn_steps(draw: DrawFn, batches: st.SearchStrategy[int]) -> Question:
    """Draw steps of a drawn network, or inference: every option with every other."""
    text = draw(configs())
    network = Network.of(vggkit.loads(text))
    blocks = sorted({placed.block for placed in network if placed.block})
    chance = Random(text)  # hypothesis itself would draw the first of most lists
    question: Question = {"config": text, "batch": draw(batches), "autocast": chance.random() < 0.3}
    if not question["autocast"]:
        question["dtype"] = chance.choice(["float32", "bfloat16", "float16", "float64"])
    if chance.random() < 0.1:
        return {**question, "mode": "inference"}
    parts = [*blocks, *(placed.name for placed in network)]
    question["freeze"] = [part for part in parts if chance.random() < 0.15]
    question["checkpoint"] = [block for block in blocks if chance.random() < 0.5]
    question["loss"] = chance.choice([*LOSSES])
    word = chance.choice([*OPTIMIZERS])
    _, update = chance.choice([case for case in cases(WAYS) if case[0] == word])
    question |= {"optimizer": word, **update.given, "ema": chance.random() < 0.3}
    if word != NONE and chance.random() < 0.3:
        return {**question, "step_in_backward": True}
    question["zero_grad"] = chance.choice(["set_to_none", "zero"])
    question["accumulate"] = chance.choice([1, 1, 2, 3])
    return {**question, "clip_grad": chance.random() < 0.5}


SHARDS: list[dict[str, Any]] = [
    {},
    {"param_dtype": "bfloat16", "reduce_dtype": "float32"},
    {"reshard_after_forward": False},
    {"units": "layers", "param_dtype": "float16"},
    {"units": "layers", "reduce_dtype": "bfloat16"},
    {"units": "root"},
    {"units": "root", "reshard_after_forward": False, "param_dtype": "bfloat16"},
]
"""Options of `fsdp`."""


def of_shards(names: Iterable[str], ranks: Iterable[int], batches: Iterable[int]) -> list[Question]:
    """Return steps of a rank by `fsdp`: each configuration on each number of ranks, at each batch, by each optimizer.

    The options and whose step it is change from one to the next, so that each goes with each.
    """
    options, turns = cycle(SHARDS), count()
    return [
        {**question, "parallel": "fsdp", "ranks": number, "rank": next(turns) % number, **next(options)}
        for question in of_optimizers(names, batches, (*USUAL, "paper"))
        for number in ranks
    ]


def of_drawn_shards(number: int) -> list[Question]:
    """Return as many drawn steps of a rank by `fsdp`, with drawn options, which torch can run."""
    questions: list[Question] = []
    for place, question in enumerate(of_drawn_networks(4 * number)):
        chance = Random(place)
        ranks = chance.choice([2, 3, 4, 8, 16])
        question |= {"parallel": "fsdp", "ranks": ranks, "rank": chance.randrange(ranks)}
        question |= {"units": chance.choice([*UNITS]), "reshard_after_forward": chance.random() < 0.6}
        question |= {word: chance.choice([None, None, *MIXED_DTYPES]) for word in ("param_dtype", "reduce_dtype")}
        with suppress(ArgumentError):  # inference, or what is refused
            if loop_of(question) is not None:
                questions.append(question)
    return questions[:number]


TAPS = (["relu1_1"], ["conv1_1", "relu1_1", "pool1", "relu3_1"], ["relu2_1", "relu5_1"], ["pool5", "fc6", "relu7"])


def of_perceptual_losses(name: str) -> list[Question]:
    """Return perceptual losses of a configuration, at a batch as it trains a network and at one of a single image."""
    questions: list[Question] = []
    for taps, batch, checkpoint in product(TAPS, (1, 8), ([], ["block1", "block3"])):
        loss = {"name": name, "mode": "perceptual", "batch": batch, "taps": taps, "checkpoint": checkpoint}
        for changes in ({}, {"cached_target": True}, {"trainable": True}, {"cached_target": True, "trainable": True}):
            questions += [{**loss, **changes}, {**loss, **changes, "autocast": True}]
        questions.append({**loss, "dtype": "bfloat16"})
    return questions


@st.composite
def drawn_perceptual_losses(draw: DrawFn, batches: st.SearchStrategy[int]) -> Question:
    """Draw a perceptual loss of a drawn network, which compares up to four of its layers."""
    text = draw(configs())
    network = Network.of(vggkit.loads(text))
    question: Question = {"config": text, "batch": draw(batches), "mode": "perceptual", "autocast": draw(st.booleans())}
    if not question["autocast"]:
        question["dtype"] = draw(st.sampled_from(["float32", "bfloat16", "float16", "float64"]))
    names = st.sampled_from([placed.name for placed in network])
    question["taps"] = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    blocks = sorted({placed.block for placed in network if placed.block})
    question["checkpoint"] = [block for block in blocks if draw(st.booleans())]
    question["cached_target"], question["trainable"] = draw(st.booleans()), draw(st.booleans())
    return question


def of_drawn_networks(
    count: int, drawn: Callable[[st.SearchStrategy[int]], st.SearchStrategy[Question]] = drawn_steps
) -> list[Question]:
    """Return as many drawn steps that torch can run.

    Args:
        count: how many.
        drawn: draws them, with batches that it is given.
    """
    questions: list[Question] = []

    @settings(
        max_examples=2 * count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    @given(drawn(st.integers(1, 4) | st.integers(100, 20_000)))
    def collect(question: Question) -> None:
        if len(questions) < count and loop_of(question) is not None:
            questions.append(question)

    collect()
    return questions


WINDOW_STEPS = 10
WINDOWS: list[tuple[str, range, str, str]] = [
    *(
        (name, range(first, last + 1), optimizer, "")
        for name, first, last in (("A", 360, 420), ("B", 280, 340), ("D", 285, 335), ("E", 300, 320))
        for optimizer in ("sgd-momentum", "adamw")
    ),
    ("E", range(285, 301), "sgd", ""),
    ("A", range(478, 491), "sgd-momentum", EXPANDABLE),
    ("D", range(310, 323), "adamw", EXPANDABLE),
    ("A", range(360, 421), "sgd-momentum", "max_split_size_mb:128"),
    ("A", range(360, 421), "sgd-momentum", "roundup_power2_divisions:8"),
    ("D", range(285, 336), "sgd-momentum", "per_process_memory_fraction:0.9,garbage_collection_threshold:0.8"),
]
"""Configuration, batches around those that run out of memory on 24 GiB, optimizer, settings of the allocator."""


# Ours and theirs


def split(question: Question) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the overrides of a question, and what its steps are like."""
    overrides = {word: question[word] for word in question if word in Overrides.__annotations__}
    options = {word: question[word] for word in question if word not in (*overrides, "name", "config", "loop")}
    return overrides, {**options, **question.get("loop", {})}


def network_of(question: Question) -> Network:
    """Return the network of a question."""
    overrides, _ = split(question)
    return Network.of(vggkit.loads(question["config"]) if "config" in question else question["name"], **overrides)


def loop_of(question: Question) -> Loop | None:
    """Return the loop of a question, None if torch can't run its steps."""
    network = network_of(question)
    _, options = split(question)
    step = step_of(network, checked_options(network, device="cuda", **options))
    return None if step.refused else step.loop


def figures(training: Loop, batch: int, card_bytes: int, text: str, steps: int | None = None) -> Figures:
    """Return what the card's process returns: the figures of each step, None for one that ran out of memory."""
    done = run(training, batch, card_bytes, Settings.of(text), steps)
    return [None if step is None else step._asdict() for step in done]


def numbered(training: Loop, batch: int, steps: int) -> list[int]:
    """Return what the card's process returns: bytes (> 0), or that the n-th allocation is freed (-n)."""
    numbers: dict[Storage, list[int]] = {}
    said: list[int] = []
    count = 0
    training = training.at(batch)
    for part in (training.before, *(training.step(number) for number in range(steps))):
        for _, storage, is_allocation in part:
            if is_allocation:
                count += 1
                numbers.setdefault(storage, []).append(count)
                said.append(storage.bytes_at(batch))
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


def assert_torchs_order(card: Card, question: Question, steps: int = 3) -> None:
    """Hold what is asked of the allocator and given back to it, from an empty card on, against torch's.

    Args:
        card: with room, and torch's own settings.
        question: the steps; torch can run them.
        steps: how many the loop has.
    """
    training = loop_of(question)
    assert training is not None
    said = card.ask(**question, steps=early_steps(question) + steps - 1, events=True)
    assert in_order(numbered(training, question["batch"], steps)) == in_order(said), question


def assert_torchs_steps(
    card: Card, training: Loop, question: Question, card_bytes: int, text: str, steps: int | None = None
) -> Figures:
    """Hold each step's figures, and whether it runs, against torch's.

    Args:
        card: with these bytes and settings.
        training: the loop of the steps.
        question: the steps.
        card_bytes: what the card has.
        text: settings of the allocator.
        steps: how many; if absent, until the loop repeats itself.

    Returns:
        The figures of each step.
    """
    done = figures(training, question["batch"], card_bytes, text, steps)
    early = early_steps(question)
    said: Figures = card.ask(**question, steps=early + len(done) - 1)
    assert done == [most(said[:early]), *said[early:]], (text, question)
    return done


def early_steps(question: Question) -> int:
    """Return how many of torch's first steps the first step of the loop of a question stands for."""
    _, options = split(question)
    return checked_options(network_of(question), device="cuda", **options).early_steps


def most(steps: Figures) -> dict[str, int] | None:
    """Return the largest figures of steps; None if one ran out of memory."""
    ran = [step for step in steps if step is not None]
    return {word: max(step[word] for step in ran) for word in ran[0]} if ran == steps else None


def assert_torchs_plan(card: Card, training: Loop, question: Question, text: str) -> None:
    """Hold each step on a card of `ROOMY` bytes against torch's, and a plan's figures against the last."""
    last = assert_torchs_steps(card, training, question, ROOMY, text)[-1]
    assert last is not None
    _, options = split(question)
    plan = vggkit.memory(network_of(question), device="cuda", allocator=text, **options)
    planned = plan.allocated_bytes, plan.reserved_bytes, plan.retries
    assert planned == (last["allocated"], last["reserved"], 0), (text, question)


# By hand

Check = Callable[[], object]
"""Asserts something."""


def plans(cards: Cards, questions: Iterable[Question], player: str = "play_steps.py") -> Iterator[Check]:
    """Return a check of each plan that torch can run, for both kinds of segments."""
    for question, training in ((question, loop_of(question)) for question in questions):
        for text in ("", EXPANDABLE) if training is not None else ():
            yield partial(assert_torchs_plan, cards(player, ROOMY, text), training, question, text)


def verdicts(cards: Cards) -> Iterator[Check]:
    """Return a check of each batch of each window, with so many steps as a loop is played at most."""
    for name, batches, optimizer, text in WINDOWS:
        card = cards("play_steps.py", SMALL_CARD, text)
        for batch in batches:
            question = {"name": name, "batch": batch, "optimizer": optimizer}
            training = loop_of(question)
            assert training is not None
            yield partial(assert_torchs_steps, card, training, question, SMALL_CARD, text, MOST_STEPS)


def full_cards(cards: Cards, names: Iterable[str], optimizers: Iterable[str], tries: int) -> Iterator[Check]:
    """Return a check of about so many batches that nearly fill a card, for both kinds of segments."""
    for name, optimizer in product(names, optimizers):
        bound = vggkit.max_batch(name, FULL_CARD, device="cpu", optimizer=optimizer)
        training = loop_of({"name": name, "batch": 2, "optimizer": optimizer})
        assert training is not None
        for text, share in (("", 0.75), (EXPANDABLE, 0.93)):
            card = cards("play_steps.py", FULL_CARD, text)
            least = max(1, round(share * bound))
            for batch in range(least, bound + 1, max(1, (bound - least) // tries)):
                question = {"name": name, "batch": batch, "optimizer": optimizer}
                yield partial(assert_torchs_steps, card, training, question, FULL_CARD, text, WINDOW_STEPS)


PARTS: dict[str, Callable[[Cards], Iterator[Check]]] = {
    "configurations": lambda cards: plans(
        cards, of_optimizers(CONFIGURATIONS, (1, 2, 3, 7, 8, 16, 32, 33, 64, 100, 128, 200))
    ),
    "family": lambda cards: plans(cards, of_optimizers(FAMILY, (1, 2, 5, 16, 64, 128))),
    "options": lambda cards: plans(cards, chain.from_iterable(map(of_options, CONFIGURATIONS))),
    "perceptual": lambda cards: plans(cards, chain.from_iterable(map(of_perceptual_losses, CONFIGURATIONS))),
    "drawn": lambda cards: plans(cards, [*of_drawn_networks(400), *of_drawn_networks(400, drawn_perceptual_losses)]),
    "fsdp": lambda cards: plans(
        cards,
        [*of_shards(CONFIGURATIONS, (2, 3, 4, 8, 16), (1, 16, 64)), *of_drawn_shards(400)],
        player="../ranks/play_card.py",
    ),
    "verdicts": verdicts,
    "full cards": lambda cards: full_cards(cards, FAMILY, ("none", "sgd-momentum", "adamw"), 15),
}
"""What is played by hand, by the word that asks for it."""


def main() -> None:
    """Play the parts that are asked for, or all; say how many loops there were, and which differ."""
    with tempfile.TemporaryDirectory() as folder, Cards(Path(folder)) as cards:
        for part in sys.argv[1:] or PARTS:
            count = differ = 0
            for check in PARTS[part](cards):
                count += 1
                try:
                    check()
                except AssertionError as error:
                    differ += 1
                    print(error, flush=True)
            print(f"{part}: {count:,} loops, {differ} differ", flush=True)


if __name__ == "__main__":
    main()

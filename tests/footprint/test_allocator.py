"""The allocator, held against torch's own after each event."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random, randrange
from typing import Any

import pytest

from tests.footprint.card import Card, Cards
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator import Allocator, Block, OutOfMemory
from vggkit.footprint.allocator_settings import MIB, Settings

CARD = 320 * MIB
"""So small that it is often full."""

SETTINGS = (
    "",
    "max_split_size_mb:20",
    "max_split_size_mb:32,max_non_split_rounding_mb:24",
    "large_segment_size_mb:12",
    "large_segment_size_mb:40,max_split_size_mb:48",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:[1:8,4:2,16:0,>:16]",
    "roundup_power2_divisions:[8:4]",
    "per_process_memory_fraction:0.6",
    "per_process_memory_fraction:0.9,garbage_collection_threshold:0.3",
    "per_process_memory_fraction:0.9,garbage_collection_threshold:0.5,max_split_size_mb:24",
    "garbage_collection_threshold:0.2",
    "expandable_segments:True",
    "expandable_segments:True,max_split_size_mb:24",
    "expandable_segments:True,large_segment_size_mb:14",
    "expandable_segments:True,per_process_memory_fraction:0.7,garbage_collection_threshold:0.3",
    "expandable_segments:True,roundup_power2_divisions:8",
)

EDGES = (1, 511, 512, 513, MIB - 512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB, 20 * MIB + 1, 32 * MIB)
SCALES = ((1, 4096), (1, 2 * MIB), (MIB, 12 * MIB), (MIB, 12 * MIB), (10 * MIB, 30 * MIB), (20 * MIB, 90 * MIB))


def program(chance: Random) -> list[int]:
    """Draw what a program does: allocate bytes (> 0), free the n-th allocation (-n), empty the cache (0).

    It uses a few sizes again and again, as training does, and comes close to what the card has.
    """
    palette = [chance.choice(EDGES), *(chance.randint(*chance.choice(SCALES)) for _ in range(chance.randint(2, 9)))]
    live: dict[int, int] = {}
    said: list[int] = []
    allocations = 0
    for _ in range(chance.randint(20, 100)):
        fullness = sum(live.values()) / CARD
        if chance.random() < 0.02:
            said.append(0)
        elif live and chance.random() < 0.2 + 0.6 * fullness:
            freed = chance.choice(list(live))
            del live[freed]
            said.append(-freed)
        else:
            size = chance.choice(palette) if chance.random() < 0.7 else chance.randint(*chance.choice(SCALES))
            allocations += 1
            live[allocations] = size
            said.append(size)
    return said


def figures(allocator: Allocator) -> list[Any]:
    """Return what the card's process returns."""
    statistics = (allocator.allocated, allocator.requested, allocator.reserved)
    segments = [
        [
            "small" if segment.is_small else "large",
            segment.is_expandable,
            [
                [block.size, block.requested, "inactive" if block.is_free else "active_allocated"]
                for block in segment.blocks
            ],
        ]
        for segment in allocator.snapshot()
    ]
    return [
        *(one.current for one in statistics),
        *(one.peak for one in statistics),
        allocator.retries,
        allocator.ooms,
        segments,
    ]


def play(allocator: Allocator, said: list[int]) -> Iterator[list[Any]]:
    """Play events; return the figures after each."""
    blocks: list[Block | None] = []
    for event in said:
        if event > 0:
            try:
                blocks.append(allocator.allocate(event))
            except OutOfMemory:
                blocks.append(None)
        elif event < 0:
            block = blocks[-event - 1]
            if block is not None:
                allocator.free(block)
        else:
            allocator.empty_cache()
        yield figures(allocator)


@pytest.fixture(scope="session")
def card(cards: Cards) -> Card:
    """torch on a small card, which plays events."""
    return cards("play_events.py", CARD, "")


def assert_equal(card: Card, text: str, count: int) -> None:
    """Hold the allocator against torch's, event by event, for so many programs."""
    own = Settings.of(text)
    seed = 0 if os.environ.get("CI") == "true" else randrange(10**6)
    for number in range(count):
        said = program(Random(f"{text} {seed} {number}"))
        answers = card.ask(settings=text, share=own.memory_fraction, events=said)
        for done, (wanted, found) in enumerate(zip(answers, play(Allocator(CARD, own), said)), 1):
            assert found == wanted, f"program {seed} {number}, after {said[:done]}"


@pytest.mark.parametrize("text", SETTINGS)
def test_every_figure_and_every_block_are_torchs(card: Card, text: str) -> None:
    """After each allocation and each free, with every setting, figures and segments equal those of torch."""
    assert_equal(card, text, 20)


@pytest.mark.slow
@pytest.mark.parametrize("text", SETTINGS)
def test_many_more_programs_are_played_as_torch_plays_them(card: Card, text: str) -> None:
    """The same for hundreds of programs with each setting."""
    assert_equal(card, text, 300)


def test_a_program_finds_an_empty_card(card: Card) -> None:
    """An expandable segment that got no memory before the card was full is gone with its program, units and all."""
    full = [MIB] * (CARD // MIB)
    for text, said in (("expandable_segments:True", [*full, 5 * MIB]), (SETTINGS[14], [5 * MIB])):
        answers = card.ask(settings=text, share=1.0, events=said)
        assert list(play(Allocator(CARD, Settings.of(text)), said)) == answers


# Settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("expandable_segments", "expected 'setting:value', found 'expandable_segments'"),
        ("expandable_segments:", "expected 'setting:value', found 'expandable_segments:'"),
        ("expandable_segments=True", "expected 'setting:value', found 'expandable_segments=True'"),
        (",max_split_size_mb:64", "expected 'setting:value', found ',max_split_size_mb:64'"),
        ("roundup_power2_divisions:[4:2", "expected 'setting:value', found 'roundup_power2_divisions:[4:2'"),
        ("expandable_segments:true", "expandable_segments: expected True or False, found 'true'"),
        ("max_split_size_mb:much", "max_split_size_mb: expected a number of MiB, found 'much'"),
        ("max_split_size_mb:19", "max_split_size_mb: expected at least 20, the size of a large segment, found '19'"),
        (
            "max_split_size_mb:32,large_segment_size_mb:40",
            "max_split_size_mb: expected at least 40, the size of a large segment, found '32'",
        ),
        (
            "max_non_split_rounding_mb:19",
            "max_non_split_rounding_mb: expected at least 20, the size of a large segment, found '19'",
        ),
        ("large_segment_size_mb:10", "large_segment_size_mb: expected more than 10, found '10'"),
        (
            "garbage_collection_threshold:0",
            "garbage_collection_threshold: expected a number between 0 and 1, found '0'",
        ),
        (
            "garbage_collection_threshold:1",
            "garbage_collection_threshold: expected a number between 0 and 1, found '1'",
        ),
        ("per_process_memory_fraction:2", "per_process_memory_fraction: expected a number from 0 to 1, found '2'"),
        (
            "roundup_power2_divisions:3",
            "roundup_power2_divisions: expected a power of 2, or a list such as [256:1,512:2,>:4], found '3'",
        ),
        (
            "roundup_power2_divisions:[3:8]",
            "roundup_power2_divisions: expected powers of 2, 'MiB:divisions', or '>:divisions' for all that are larger,"
            " found '3:8'",
        ),
        (
            "roundup_power2_divisions:[4:3]",
            "roundup_power2_divisions: expected powers of 2, 'MiB:divisions', or '>:divisions' for all that are larger,"
            " found '4:3'",
        ),
        (
            "max_split_size:64",
            "expected one of expandable_segments, large_segment_size_mb, max_split_size_mb, max_non_split_rounding_mb,"
            " roundup_power2_divisions, garbage_collection_threshold, per_process_memory_fraction, found"
            " 'max_split_size'. Did you mean 'max_split_size_mb'?",
        ),
    ],
)
def test_a_wrong_setting_is_refused_as_torch_refuses_it(card: Card, text: str, problem: str) -> None:
    """The message says which setting is wrong, what was found and what is expected; torch takes none of them."""
    with pytest.raises(ArgumentError) as raised:
        Settings.of(text)
    assert str(raised.value) == f"allocator: {problem}"
    assert card.ask(settings=text, share=1.0, events=[]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " expandable_segments : True , max_split_size_mb : 64 ",
        "expandable_segments:True,",
        "max_split_size_mb:64,max_split_size_mb:128",
        "roundup_power2_divisions:[]",
        "roundup_power2_divisions:[>:8]",
        "roundup_power2_divisions:[256:0,65536:4,]",
        "pinned_use_background_threads:True,release_lock_on_cudamalloc:True",
    ],
)
def test_what_torch_reads_is_read(card: Card, text: str) -> None:
    """Spaces, a comma at the end, a setting said twice, and what concerns other memory are no mistakes."""
    Settings.of(text)
    assert card.ask(settings=text, share=1.0, events=[]) == []


def test_known_addresses_decide_between_blocks_of_the_same_size() -> None:
    """The free block at the lowest address is taken, as in torch before 2.13; else the one that was there first."""
    taken = []
    for addresses in ((), (64 * MIB, 32 * MIB)):
        allocator = Allocator(CARD, Settings(), addresses=addresses)
        blocks = [allocator.allocate(20 * MIB) for _ in range(3)]
        allocator.free(blocks[0])
        allocator.free(blocks[1])
        taken.append(blocks.index(allocator.allocate(20 * MIB)))
    assert taken == [0, 1]

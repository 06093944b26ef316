"""What runs on a card, held against training loops in torch on a card that isn't there."""

from __future__ import annotations

from typing import Any

import pytest

import vggkit
from tests.footprint.card import Cards
from vggkit.base.errors import ArgumentError
from vggkit.footprint import card_fit
from vggkit.footprint.card_fit import EXPANDABLE, CardFit, Room, fit_on_card, largest_on_card, room_of
from vggkit.footprint.cards import card_of
from vggkit.footprint.fit import ranges
from vggkit.footprint.sought import SoughtBatch, SoughtImage
from vggkit.footprint.steps.options import checked_options
from vggkit.network import Network

MIB = 1 << 20
SMALL = {"width": 0.125}
"""A network with room for some dozens of images of 3×224×224 in half a GiB."""
STEPS = 12
"""So many steps tell in torch what runs here: each of these loops has run out by then, or repeats itself."""


def batches(name: str, room: Room, allocator: str = "", optimizer: str | None = None, **overrides: Any) -> CardFit:
    """Return what fits of a training step."""
    network = Network.of(name, **overrides)
    options = checked_options(network, device="cuda", allocator=allocator, optimizer=optimizer)
    return fit_on_card(SoughtBatch(network, options), room)


# Verdicts


@pytest.mark.parametrize(
    ("name", "optimizer", "mebibytes"),
    [
        ("A", "sgd-momentum", 256),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("D", "adamw", 256), ("B", "sgd", 256))),
    ],
)
def test_what_is_said_to_run_runs_in_torch(cards: Cards, name: str, optimizer: str, mebibytes: int) -> None:
    """Each batch is a loop in torch: those that run, those that run without a retry, and those beyond the first gap."""
    fit = batches(name, room_of(mebibytes * MIB, 0, 0), optimizer=optimizer, **SMALL)
    tried = range(1, fit.tensors_alone + 3)
    last: dict[str, list[Any]] = {}
    for text in ("", EXPANDABLE):
        card = cards("play_steps.py", mebibytes * MIB, text)
        last[text] = [card.ask(name=name, batch=b, optimizer=optimizer, steps=STEPS, **SMALL)[-1] for b in tried]
    ran = [batch for batch, figures in zip(tried, last[""]) if figures is not None]
    fails = [batch for batch, figures in zip(tried, last[""]) if figures is None]
    retries = [batch for batch, figures in zip(tried, last[""]) if figures is None or figures["retries"]]
    expandable = [batch for batch, figures in zip(tried, last[EXPANDABLE]) if figures is None]
    assert (fit.largest, fit.next) == (fails[0] - 1, fails[0])
    assert fit.without_retries == retries[0] - 1
    assert fit.also_run == tuple(batch for batch in ran if batch > fails[0])
    assert fit.expandable_segments == expandable[0] - 1
    assert max(ran) <= fit.tensors_alone == fit.also_tried
    assert fit.reserved_bytes == last[""][fit.largest - 1]["reserved"]


@pytest.mark.parametrize(
    ("name", "options", "largest"),
    [
        ("A", {}, 378),
        ("A", {"allocator": EXPANDABLE}, 484),
        ("D", {}, 292),
        ("D", {"optimizer": "adamw"}, 294),
        ("B", {}, 285),
        ("E", {"optimizer": "sgd"}, 304),
    ],
)
def test_verdicts_of_torch_on_24_gib_are_said(name: str, options: dict[str, str], largest: int) -> None:
    """Without a context torch runs every batch up to here, and not the next one for forty steps."""
    assert vggkit.max_batch(name, "24GiB", context="0", **options) == largest


def test_more_steps_tell_more(cards: Cards) -> None:
    """Torch runs the next batch for some steps, up to nine, and then runs out."""
    card = cards("play_steps.py", 24 * 1024 * MIB, "")
    for name, optimizer, batch, steps in (("B", "sgd-momentum", 286, 4), ("E", "sgd", 305, 9)):
        said = card.ask(name=name, optimizer=optimizer, batch=batch, steps=STEPS)
        assert (len(said), said[-1]) == (steps + 1, None)


def test_the_largest_image_runs_in_torch(cards: Cards) -> None:
    """Each side is a loop in torch: all run up to the answer, and the next does not."""
    network = Network.of("A", head="gap", width=0.125)
    options = checked_options(network, device="cuda", batch=2)
    fit = fit_on_card(SoughtImage(network, options), room_of("16MiB", 0, 0))
    card = cards("play_steps.py", 16 * MIB, "")
    overrides = {"head": "gap", "width": 0.125}
    last = {
        side: card.ask(name="A", batch=2, steps=STEPS, input=f"3x{side}x{side}", **overrides)[-1]
        for side in range(fit.largest - 2, fit.largest + 2)
    }
    assert [side for side, figures in last.items() if figures is None] == [fit.next]


def test_settings_of_the_allocator_change_what_runs(cards: Cards) -> None:
    """With expandable segments the answer is theirs, and nothing is left to be said of them."""
    fit = batches("A", room_of("512MiB", 0, 0), EXPANDABLE, **SMALL)
    plain = batches("A", room_of("512MiB", 0, 0), **SMALL)
    assert (fit.largest, fit.expandable_segments) == (plain.expandable_segments, None)
    card = cards("play_steps.py", 512 * MIB, EXPANDABLE)
    last = [card.ask(name="A", batch=batch, steps=STEPS, **SMALL)[-1] for batch in (fit.largest, fit.next)]
    assert [figures is None for figures in last] == [False, True]


# The room


def test_context_and_workspaces_are_not_torchs() -> None:
    """What they take is as if the card were so much smaller."""
    whole = batches("A", room_of("512MiB", 0, 0), **SMALL)
    for room in (room_of("700MiB", "188MiB", 0), room_of("700MiB", "100MiB", "88MiB")):
        fit = batches("A", room, **SMALL)
        assert (fit.largest, fit.also_run, fit.left_bytes) == (whole.largest, whole.also_run, whole.left_bytes)
        assert (fit.limit_bytes, fit.context_bytes + fit.workspace_bytes) == (700 * MIB, 188 * MIB)


def test_a_share_of_the_card_is_a_share_of_all_of_it(cards: Cards) -> None:
    """per_process_memory_fraction is of what CUDA reports, whatever the context takes."""
    text = "per_process_memory_fraction:0.5"
    fit = batches("A", room_of("1GiB", "256MiB", 0), text, **SMALL)
    card = cards("play_steps.py", 1024 * MIB, text)
    last = [card.ask(name="A", batch=batch, steps=STEPS, **SMALL)[-1] for batch in (fit.largest, fit.next)]
    assert [figures is None for figures in last] == [False, True]


def test_a_named_card_has_its_own_context() -> None:
    """A name stands for the bytes that CUDA reports and those that it takes."""
    card = card_of("T4")
    assert vggkit.max_batch("A", "t4") == vggkit.max_batch("A", card.total_bytes, context=card.context_bytes)
    fit = batches("A", room_of("Tesla T4", None, 0))
    assert (fit.card, fit.limit_bytes, fit.context_bytes) == ("T4", card.total_bytes, card.context_bytes)


def test_nothing_runs_on_too_small_a_card() -> None:
    """The answer is 0, with what the smallest takes on a larger card; so it is of a card of context alone."""
    for limit in ("1GB", "1MB"):
        fit = batches("D", room_of(limit, None, 0))
        plan = vggkit.memory("D", device="cuda")
        assert (fit.largest, fit.without_retries, fit.also_run, fit.tensors_alone) == (0, 0, (), 0)
        assert (fit.next, fit.peak_bytes, fit.reserved_bytes) == (1, plan.peak_bytes, plan.reserved_bytes)
        assert fit.missing_bytes == -fit.left_bytes == plan.reserved_bytes + fit.context_bytes - fit.limit_bytes


def test_no_batch_that_torch_refuses_is_said_to_run() -> None:
    """Where a batch norm needs two images, two are the smallest that may run."""
    reserved = vggkit.memory("vgg11_slimming_bn1d", width=0.1, batch=2, device="cuda").reserved_bytes
    assert reserved is not None
    fit = batches("vgg11_slimming_bn1d", room_of(reserved, 0, 0), width=0.1)
    assert fit.largest >= 2
    assert batches("vgg11_slimming_bn1d", room_of(reserved - 30 * MIB, 0, 0), width=0.1).next == 2


@pytest.mark.parametrize("amount", ["3", "GiB", -1, "-1MB", True, 0.5])
def test_a_context_that_is_no_size_is_refused(amount: Any) -> None:
    """In one line that begins with its name; so is a workspace."""
    for word in ("context", "workspace"):
        with pytest.raises(ArgumentError, match=f"^{word}: expected "):
            vggkit.max_batch("A", "1GiB", **{word: amount})


def test_a_context_is_refused_where_tensors_are_counted() -> None:
    """On the CPU there is none."""
    with pytest.raises(ArgumentError, match="context: needs device cuda, found cpu, where tensors are counted"):
        vggkit.max_batch("A", "1GiB", device="cpu", context="1MiB")


# Many batches


def test_of_many_batches_some_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between one that runs and one that does not more are tried; the fit says how many were left out."""
    room = room_of("512MiB", 0, 0)
    every = batches("D", room, **SMALL)
    monkeypatch.setattr(card_fit, "MOST_TRIED", 8)
    monkeypatch.setattr(card_fit, "FINER", 2)
    monkeypatch.setattr(card_fit, "MOST_LARGER", 2)
    some = batches("D", room, **SMALL)
    assert (every.tried_every, some.tried_every) == (1, (every.tensors_alone - 1) // 8)
    assert some.tried_every > 4
    assert (some.largest, some.without_retries) == (every.largest, every.without_retries)
    assert some.also_tried == some.largest + 2


def test_millions_of_batches_are_answered() -> None:
    """A large card and a small network: the next batch does not run, and few of those before it were tried."""
    fit = batches("A", room_of("24GiB", 0, 0), input="3x32x32", width=0.03)
    assert fit.tried_every > 100
    assert fit.next == fit.largest + 1 > 100 * fit.tried_every


def test_ranges_are_short_and_complete() -> None:
    """Two that follow each other are two numbers; three are a range."""
    assert ranges([1]) == "1"
    assert ranges([294, 295, 297, 298, 299, 400]) == "294, 295, 297–299, 400"
    assert ranges([]) == ""


@pytest.mark.parametrize(("size", "fullest"), [(50, 0), (60, 1)])
def test_all_ranks_must_run(size: int, fullest: int) -> None:
    """The rank that runs the fewest images decides; by its holes that may be one that holds less than another."""
    network = Network.of("A", input="3x32x32", width=0.25, num_classes=10)
    options = checked_options(network, device="cuda", ranks=2, parallel="zero1", optimizer="adamw")
    room = room_of(size << 20, 0, 0)
    each = [largest_on_card(SoughtBatch(network, options.of_rank(rank)), room) for rank in range(2)]
    assert largest_on_card(SoughtBatch(network, options), room) == min(each) == each[fullest] < max(each)

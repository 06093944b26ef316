"""The viewer's file, held against torch's own snapshots of a card that isn't there, and read by torch's own readers."""

from __future__ import annotations

import base64
import pickle
import pickletools
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.card import Cards
from tests.footprint.grid import CONFIGURATIONS, EXPANDABLE, GIB
from tests.footprint.test_card import CASES, SMALL, loop
from tests.judges import package
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import UNBOUNDED, run
from vggkit.footprint.plan import MemoryPlan
from vggkit.network import Network
from vggkit.notation.overrides import Overrides

Snapshot = dict[str, Any]


# On CUDA: what torch's allocator does


def in_order(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the segments by pool, then address: in another run the pools may lie the other way round."""
    return sorted(segments, key=lambda segment: (segment["segment_type"], segment["address"]))


def layout(segments: list[dict[str, Any]]) -> list[Any]:
    """Return what can be compared of segments: everything but addresses, and what was asked for of holes."""
    figures = ("total_size", "allocated_size", "active_size", "segment_type", "is_expandable", "stream", "device")
    return [
        (
            [segment[figure] for figure in figures],
            [
                (
                    block["address"] - segment["address"],
                    block["size"],
                    block["state"],
                    block["requested_size"] if block["state"] == "active_allocated" else 0,
                )
                for block in segment["blocks"]
            ],
        )
        for segment in in_order(segments)
    ]


def acts(snapshot: Snapshot, trace: list[dict[str, Any]]) -> list[Any]:
    """Return each allocation with what is freed before it, whose order makes no difference: segment, offset, bytes."""
    segments = list(enumerate(in_order(snapshot["segments"])))
    freed: list[Any] = []
    done: list[Any] = []
    for action in trace:
        number, segment = next(
            (number, segment)
            for number, segment in segments
            if 0 <= action["addr"] - segment["address"] < segment["total_size"]
        )
        said = action["action"], number, action["addr"] - segment["address"], action["size"]
        if said[0] == "alloc":
            done.append((sorted(freed), said))
            freed = []
        else:
            freed.append(said)
    return [*done, sorted(freed)]


def check(cards: Cards, plan: MemoryPlan, **question: Any) -> None:
    """Hold the snapshot of a plan against that of torch after as many steps, with the last one's trace."""
    text = plan.options.allocator
    words = ("batch", "mode", "dtype", "optimizer", "autocast", "freeze", "checkpoint")
    options = {word: getattr(plan.options, word) for word in (*words, "taps", "cached_target", "trainable")}
    training = loop(plan.network, **options)
    steps = len(run(training, plan.options.batch, UNBOUNDED, Settings.of(text)))
    said = cards("play_steps.py", 80 * GIB, text).ask(**options, steps=steps, history=True, **question)[-1]
    own = plan.torch_snapshot()
    assert layout(own["segments"]) == layout(said["segments"])
    *trace, last = own["device_traces"][0]
    assert acts(own, trace) == acts(said, [action for action in said["trace"] if action["action"] != "snapshot"])
    assert last["action"] == "snapshot"


@pytest.mark.parametrize("text", ["", EXPANDABLE])
@pytest.mark.parametrize("name", sample(CONFIGURATIONS, ["A"]))
def test_segments_blocks_and_trace_are_torchs(cards: Cards, name: str, text: str) -> None:
    """Segments, blocks and the trace of a steady step equal those that torch records, for each configuration."""
    check(cards, vggkit.memory(name, batch=4, device="cuda", allocator=text), name=name)


@pytest.mark.parametrize("text", ["", EXPANDABLE])
@pytest.mark.parametrize("words", sample([*CASES], ["C, AdamW", "A, checkpointed, autocast and batch norm"]))
def test_every_kind_of_step_is_traced_as_torch_does(cards: Cards, words: str, text: str) -> None:
    """The same with each option of a step: autocast, checkpointing, inference …"""
    check(cards, small(words, device="cuda", allocator=text), name=words.split(",")[0], **changes(words))


def changes(words: str) -> dict[str, Any]:
    """Return the overrides of a case."""
    options = {**SMALL, **CASES[words]}
    return {word: value for word, value in options.items() if word in Overrides.__annotations__}


def small(words: str, **options: Any) -> MemoryPlan:
    """Return the plan of a case, with options of its own and others."""
    overrides = changes(words)
    own = {word: value for word, value in CASES[words].items() if word not in overrides}
    return vggkit.memory(Network.of(words.split(",")[0], **overrides), batch=2, **own, **options)


# On the CPU: one arena


Alive = list[tuple[str, dict[int, int]]]


def replayed(snapshot: Snapshot) -> Alive:
    """Return the address and size of all that is alive before the step and after each event, with its operation."""
    (segment,) = snapshot["segments"]
    *trace, _ = snapshot["device_traces"][0]
    alive = {block["address"]: block["size"] for block in segment["blocks"] if block["state"] == "active_allocated"}
    moments: Alive = []
    for action in reversed(trace):  # only what the step ends with is known
        moments.append((action["frames"][0]["name"], dict(alive)))
        if action["action"] == "alloc":
            assert alive.pop(action["addr"]) == action["size"]
        elif action["action"] == "free_completed":
            assert action["addr"] not in alive
            alive[action["addr"]] = action["size"]
    return [("start", alive), *reversed(moments)]


def most(sizes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the most bytes in each operation."""
    peaks: dict[str, int] = {}
    for operation, size in sizes:
        peaks[operation] = max(size, peaks.get(operation, 0))
    return peaks


@pytest.mark.parametrize("words", CASES)
def test_on_the_cpu_each_operation_holds_what_the_timeline_says(words: str) -> None:
    """To the byte, for each kind of step."""
    assert_timelines(small(words))


def assert_timelines(plan: MemoryPlan) -> None:
    """Hold each operation of a plan on the CPU against its timeline.

    Beside that there is what the step before has left: its loss or scores live until the new ones are there, and so
    does the loss of each forward pass where several are accumulated, of which the timeline has all but the first. A
    perceptual loss is a function, whose variables end with it.
    """
    snapshot = plan.torch_snapshot()
    start, *states = [(operation, sum(alive.values())) for operation, alive in replayed(snapshot)]
    # an operation that only frees holds what the one before has left
    made = [state for action, state in zip(snapshot["device_traces"][0], states) if action["action"] == "alloc"]
    peaks, said = most([start, *made]), most((moment.event, moment.size) for moment in plan.timeline)
    left = peaks["start"] - said["start"]
    last = next((layer.output_bytes for layer in reversed(plan.layers) if layer.output_bytes), 0)
    assert left == (0 if plan.options.mode == "perceptual" else last)
    until_the_loss = ("start",) if plan.options.accumulate > 1 else ("start", "forward")
    for operation, peak in peaks.items():
        assert peak - said[operation] == (left if operation.startswith(until_the_loss) else 0)


@pytest.mark.parametrize("words", CASES)
def test_in_the_arena_no_two_blocks_overlap(words: str) -> None:
    """Whatever is alive at a moment lies inside the segment, each block behind the one before."""
    snapshot = small(words).torch_snapshot()
    (segment,) = snapshot["segments"]
    for _, alive in replayed(snapshot):
        end = segment["address"]
        for address in sorted(alive):
            assert end <= address
            end = address + alive[address]
        assert end <= segment["address"] + segment["total_size"]


# Everywhere: what the viewer needs

PLANS = {
    "cpu": lambda: small("A"),
    "cpu, inference": lambda: small("A, inference"),
    "cuda": lambda: small("A, two blocks frozen", device="cuda"),
    "cuda, expandable segments": lambda: small("C, AdamW", device="cuda", allocator=EXPANDABLE),
    "cuda, large": lambda: vggkit.memory("E", batch=4096, device="cuda", allocator=EXPANDABLE),
}


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> MemoryPlan:
    """A plan of each kind."""
    return PLANS[request.param]()


def test_blocks_tile_their_segment(plan: MemoryPlan) -> None:
    """In order, without gaps; the segment's figures are sums over its blocks, and segments are apart."""
    beyond = 0
    for segment in plan.torch_snapshot()["segments"]:
        assert beyond < segment["address"]
        end = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == end
            assert block["size"] > 0
            end += block["size"]
        assert end == segment["address"] + segment["total_size"]
        active = [block for block in segment["blocks"] if block["state"] == "active_allocated"]
        assert segment["allocated_size"] == segment["active_size"] == sum(block["size"] for block in active)
        assert segment["requested_size"] == sum(block["requested_size"] for block in active)
        beyond = end


def test_on_cuda_the_segments_are_what_is_reserved(plan: MemoryPlan) -> None:
    """All of them together are what the plan says that the card must have."""
    if plan.options.device == "cuda":
        assert reserved_bytes(plan) == plan.reserved_bytes


def reserved_bytes(plan: MemoryPlan) -> int:
    """Return the bytes of all segments of a plan's snapshot."""
    return sum(segment["total_size"] for segment in plan.torch_snapshot()["segments"])


def test_frames_and_categories_say_what_memory_is_for(plan: MemoryPlan) -> None:
    """Each event has the operation and its number; each block has those of its allocation, or 0 if it was before."""
    categories = package("torch.profiler._memory_profiler").Category.__members__
    snapshot = plan.torch_snapshot()
    *trace, last = snapshot["device_traces"][0]
    assert (last["action"], last["category"]) == ("snapshot", "unknown")
    numbers: list[int] = []
    for action in trace:
        (frame,) = action["frames"]
        numbers.append(frame["line"])
        kind = {"gradients of parameters": "gradient", "activations": "activation"}.get(frame["filename"], "temporary")
        assert action["category"] == kind
        assert action["category"].upper() in categories
    assert sorted(numbers) == numbers
    assert set(numbers) == set(range(1, numbers[-1] + 1))
    made = {action["addr"]: action["frames"] for action in trace if action["action"] == "alloc"}
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    held = {block["address"]: block["frames"] for block in blocks if block["state"] == "active_allocated"}
    for address, (frame,) in held.items():
        assert frame["line"] == 0 or [frame] == made[address]
    before = {frame["filename"] for (frame,) in held.values() if frame["line"] == 0}
    assert {"parameters", "images and targets"} <= before <= {"parameters", "images and targets", "optimizer"}
    assert all(block["frames"] == [] for block in blocks if block["state"] == "inactive")


VIEWERS = {
    "PROTO", "FRAME", "MEMOIZE", "EMPTY_DICT", "EMPTY_LIST", "MARK", "SHORT_BINUNICODE", "BINUNICODE", "BININT",
    "BININT1", "BININT2", "LONG1", "TUPLE2", "NEWFALSE", "NEWTRUE", "BINGET", "LONG_BINGET", "APPEND", "APPENDS",
    "SETITEM", "SETITEMS", "STOP",
}  # fmt: skip
"""What the viewer can read of a pickle (torch/utils/viz/MemoryViz.js, unpickle)."""


def test_the_viewer_reads_every_opcode_and_number(plan: MemoryPlan) -> None:
    """It knows a part of the pickle protocols 2 to 4, and numbers below 2^53."""
    for opcode, value, _ in pickletools.genops(plan.to_pickle()):
        assert opcode.name in VIEWERS
        assert opcode.name != "PROTO" or value in (2, 3, 4)
        assert not isinstance(value, int) or value < 2**53
    assert pickle.loads(plan.to_pickle()) == plan.torch_snapshot()


# torch's own readers


def read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Return what `python -m torch.cuda._memory_viz ARGUMENTS` prints."""
    package("torch")
    monkeypatch.setattr(sys, "argv", ["_memory_viz", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))  # which it changes
    runpy.run_module("torch.cuda._memory_viz", run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:'torch.cuda._memory_viz' found in sys.modules")
def test_torchs_own_tools_read_the_file(
    plan: MemoryPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stats` counts the same bytes, `trace` names each event, `trace_plot` and `segment_plot` write pages."""
    file, page = tmp_path / "step.pickle", tmp_path / "page.html"
    file.write_bytes(plan.to_pickle())
    snapshot = plan.torch_snapshot()
    stats = read(capsys, monkeypatch, "stats", str(file))
    sizes = package("torch.cuda._memory_viz")._format_size
    assert f"total_reserved: {sizes(sum(one['total_size'] for one in snapshot['segments']))}\n" in stats
    assert f"total_allocated: {sizes(sum(one['requested_size'] for one in snapshot['segments']))}\n" in stats
    lines = read(capsys, monkeypatch, "trace", str(file)).splitlines()
    actions = [action["action"] for action in snapshot["device_traces"][0]]
    assert f"{len(actions)} entries" in lines
    assert sum(" = " in line for line in lines) == actions.count("alloc")
    assert sum(line.startswith("del ") for line in lines) == actions.count("free_requested")
    for word in ("trace_plot", "segment_plot"):
        read(capsys, monkeypatch, word, str(file), "-o", str(page))
        assert base64.b64encode(pickle.dumps(snapshot)).decode()[:100] in page.read_text()

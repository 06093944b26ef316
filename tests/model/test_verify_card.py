"""What is measured on a card, by torch's own allocator on one that isn't there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vggkit
from tests.cli.test_app import run
from tests.conftest import ROOT, sample
from tests.footprint.card import Cards
from tests.footprint.grid import CONFIGURATIONS
from vggkit.base.sums import column_sums
from vggkit.footprint import allocator
from vggkit.footprint.card import Loop
from vggkit.footprint.optimizers import OPTIMIZERS, MomentumSGD
from vggkit.footprint.ranks import replicas
from vggkit.footprint.steps.options import checked_options
from vggkit.footprint.steps.step import ZERO_GRAD
from vggkit.footprint.steps.training import Training
from vggkit.model import recording, verify_card
from vggkit.model.claims import Claim, Subject
from vggkit.model.recording import Question
from vggkit.model.verify_card import lifetimes, places
from vggkit.network import Network
from vggkit.notation.layers import elements

GIB = 1 << 30
EXPANDABLE = "expandable_segments:True"
SMALL: dict[str, Any] = {"input": "3x32x32", "width": 0.25, "num_classes": 10}
OPTIONS = ("--batch", "3", "--input", "3x32x32", "--set", "width=0.25")
PLAYER = "record_steps.py"
CUBLAS_WORKSPACE, FLOAT_BYTES = 8_519_680, 4
"""What a thread's first product allocates for good on the card that isn't there, as on most cards; a float32."""

OnCard = Callable[..., None]


@pytest.fixture
def on_card(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> OnCard:  # the fixture
    """Let recorders run on a card of 80 GiB that isn't there, or a share of it, with workspaces or without."""

    def use(**how: Any) -> None:
        def ask(question: Question) -> bytes:
            card = cards(PLAYER, 80 * GIB, question.options.allocator)
            return json.dumps(card.ask(**msgspec.to_builtins(question), **how)).encode()

        monkeypatch.setattr(recording, "ask", ask)

    return use


def measured(network: Network, **options: Any) -> dict[str, Claim]:
    """Return every claim by what it is of."""
    step = checked_options(network, device="cuda", **options)
    return {claim.what: claim for claim in verify_card.verify_card(network, step)}


# What holds

CASES = [
    *(
        (name, optimizer, text)
        for name in CONFIGURATIONS
        for optimizer in ("adamw", "none")
        for text in ("", EXPANDABLE)
    ),
    *(("A", optimizer, "") for optimizer in OPTIMIZERS if optimizer not in ("adamw", "none")),
    ("D", "sgd-momentum", ""),
]
OFTEN = [("A", "adamw", ""), ("B", "none", ""), ("D", "sgd-momentum", "")]


@pytest.mark.parametrize(
    ("name", "optimizer", "text"),
    [pytest.param(*case, marks=[] if case in OFTEN else [pytest.mark.slow]) for case in CASES],
)
def test_allocated_and_reserved_bytes_are_the_plans(on_card: OnCard, name: str, optimizer: str, text: str) -> None:
    """What torch's allocator took is what `vggkit.memory` says, in inference and in training, and the card holds it."""
    on_card()
    claims = measured(Network.of(name), batch=2, optimizer=optimizer, allocator=text)
    for mode, word in (("inference", None), ("training", optimizer)):
        plan = vggkit.memory(name, batch=2, mode=mode, optimizer=word, device="cuda", allocator=text)
        assert claims[f"{mode}, allocated"].measured == plan.allocated_bytes
        assert claims[f"{mode}, reserved"].measured == plan.reserved_bytes
        assert claims[f"{mode}, CUDA context (and other processes)"].measured == 0
    assert [claim.exact for claim in claims.values()] == [True, True, True, False] * 2
    assert all(claim.holds for claim in claims.values())


STEPS: list[dict[str, Any]] = [
    {"freeze": ["block1", "fc1"]},
    {"freeze": [*(f"block{number}" for number in range(1, 6)), "fc1", "fc2", "predictions"]},
    {"checkpoint": ["block1", "block3"], "optimizer": "adamw"},
    {"autocast": True},
    {"dtype": "bfloat16", "optimizer": "sgd"},
    {"mode": "inference"},
    {"mode": "perceptual", "taps": ["relu1_1", "relu3_1"]},
    {"mode": "perceptual", "taps": ["pool2"], "trainable": True, "cached_target": True, "checkpoint": ["block1"]},
]


def test_sums_in_parts_are_workspaces(on_card: OnCard) -> None:
    """How many parts there are depends on the card, so that they are none of the plan's allocations."""
    on_card()
    network = Network.of(vggkit.loads("{name: wide, input: 4x1x1, classifier: [FC-4096, FC-1]}"))
    claims = measured(network, batch=2000)
    sums = column_sums(4096, FLOAT_BYTES)
    assert sums is not None
    workspaces = sums.split.parts(2000) * sums.part_bytes + sums.counter_bytes
    assert claims["training, workspaces of cuDNN and cuBLAS"].measured == workspaces
    assert all(claim.holds for claim in claims.values())


@pytest.mark.parametrize("options", STEPS, ids=str)
@pytest.mark.parametrize("workspaces", [False, True])
def test_so_they_are_in_other_steps(on_card: OnCard, options: dict[str, Any], workspaces: bool) -> None:
    """Blocks frozen and checkpointed, autocast and another dtype, with workspaces and without."""
    on_card(workspaces=workspaces)
    claims = measured(Network.of("A", **SMALL), batch=3, **options)
    assert all(claim.holds for claim in claims.values())
    mode = options.get("mode", "training")
    modes = ("inference", mode) if mode == "training" else (mode,)
    assert list(dict.fromkeys(what.split(",")[0] for what in claims)) == [*modes]


SENSITIVE: dict[str, Any] = {"batch": 16, "checkpoint": ["block1", "block3"]}
"""A step of D in which free blocks of the same size decide what is reserved."""


def test_the_drivers_addresses_do_not_matter(on_card: OnCard) -> None:
    """Wherever the driver puts segments, of free blocks of the same size torch takes the one in the oldest."""
    on_card(workspaces=True, scatters=True)
    assert all(claim.holds for claim in measured(Network.of("D"), **SENSITIVE).values())


@pytest.mark.parametrize("text", ["", pytest.param(EXPANDABLE, marks=pytest.mark.slow)])
def test_workspaces_are_told_from_tensors(on_card: OnCard, text: str) -> None:
    """The plan is found among torch's allocations, the others are measured, and with them the figures are torch's."""
    on_card(workspaces=True)
    network, batch = Network.of("D"), 2
    claims = measured(network, batch=batch, allocator=text)
    assert all(claim.holds for claim in claims.values())
    assert [claim.exact for claim in claims.values()] == [True, False, False, False, True, True, False] * 2
    convolutions = [
        elements((batch, *placed.input_shape)) + 128 + elements(placed.layer.parameters(placed.input_shape)["weight"])
        for placed in network
        if placed.layer.keyword == "conv"
    ]
    largest = CUBLAS_WORKSPACE + FLOAT_BYTES * max(convolutions)
    assert claims["inference, workspaces of cuDNN and cuBLAS"].measured == largest
    threads = 2  # backward has its own
    wanted = threads * CUBLAS_WORKSPACE + FLOAT_BYTES * max(convolutions)
    assert claims["training, workspaces of cuDNN and cuBLAS"].measured == wanted
    plan = vggkit.memory("D", batch=batch, device="cuda", allocator=text)
    assert claims["training, allocated"].claimed == plan.allocated_bytes
    assert claims["training, reserved"].claimed == plan.reserved_bytes
    assert claims["training, allocated"].measured > plan.allocated_bytes


def test_the_documentation_shows_the_table(on_card: OnCard) -> None:
    """The table in docs/memory.md is what the command prints."""
    on_card()
    table = run("verify", "D", "--batch", "16", "--device", "cuda", COLUMNS="100").stdout
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    assert "\n".join(["```text", *map(str.rstrip, table.splitlines()), "```"]) in page


def test_a_loop_has_as_many_first_steps_as_the_optimizer(on_card: OnCard) -> None:
    """RAdam's first five differ from all later ones, and are one of the plan's."""
    on_card()
    claims = measured(Network.of("A", **SMALL), batch=3, optimizer="radam", foreach=False)
    assert all(claim.holds for claim in claims.values())


# Several ranks

OF_RANKS: dict[str, list[dict[str, Any]]] = {
    "ddp": [{}, {"accumulate": 2, "optimizer": "adamw"}, {"batch_norm": True}, {"allocator": EXPANDABLE}],
    "ddp-view": [{}, {"zero_grad": "zero"}],
    "zero1": [{"optimizer": "adamw"}],
    "tensor": [{}],
    "tensor+ddp": [{"optimizer": "adamw"}],
    "fsdp": [{}, {"optimizer": "adamw", "units": "layers"}, {"param_dtype": "bfloat16"}, {"checkpoint": ["block1"]}],
    "pipeline": [
        {"cut": ["block2", "block3", "fc1"]},
        {"cut": ["block2", "fc1", "fc2"], "schedule": "1f1b", "ema": True},
    ],
    "pipeline+ddp": [{"cut": ["block3"]}, {"cut": ["block3"], "batch_norm": True, "optimizer": "adamw"}],
}
RANKS = [f"{parallel}; {place}" for parallel, cases in OF_RANKS.items() for place in range(len(cases))]


@pytest.mark.parametrize("case", sample(RANKS, ["ddp; 1", "fsdp; 0", "pipeline+ddp; 0"]))
@pytest.mark.parametrize("workspaces", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ranks_take_of_their_cards_what_is_planned(on_card: OnCard, case: str, workspaces: bool) -> None:
    """Each that differs from others, in one process without the others; with workspaces and without."""
    on_card(workspaces=workspaces)
    parallel, place = case.split("; ")
    options = dict(OF_RANKS[parallel][int(place)])
    network = Network.of("A", batch_norm=options.pop("batch_norm", False), **SMALL)
    group: dict[str, Any] = {"ranks": 4, "parallel": parallel}
    claims = measured(network, batch=16, **group, **options)
    assert all(claim.holds for claim in claims.values())
    ranks = [claim.ranks for what, claim in claims.items() if what.endswith(", reserved")]
    assert sorted(rank for some in ranks for rank in some) == [0, 1, 2, 3]
    plan = vggkit.memory(network, batch=16, device="cuda", **group, **options)
    for some in ranks:
        claim = claims[f"{Subject.of_ranks(some).words}, reserved"]
        assert {plan.by_rank[rank].reserved_bytes for rank in some} == {claim.claimed}
        assert (claim.measured == claim.claimed) or workspaces


@pytest.mark.slow
def test_ranks_take_of_their_cards_what_was_measured(on_card: OnCard) -> None:
    """D with 16 images on each of eight ranks reserves 4,028,628,992 bytes by ddp, whoever measures."""
    on_card()
    claims = measured(Network.of("D"), batch=16, ranks=8, parallel="ddp")
    assert claims["ranks 0 to 7, reserved"].measured == 4_028_628_992


# What does not hold


def broken_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let vggkit's allocator take other segments than torch's."""
    monkeypatch.setattr(allocator, "SMALL_SEGMENT", 4 << 20)


def broken_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan have buffers before the step as well, which torch does not make."""
    monkeypatch.setattr(MomentumSGD, "prepare", MomentumSGD.make_state)


def broken_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan free the gradients of the step before at the end of the step, not where it begins."""
    own = Training.loop.fget
    assert own is not None

    def later(step: Training) -> Loop:
        loop = own(step)
        gradients = [event for event in loop.later if event[0] == ZERO_GRAD]
        return loop._replace(later=[*loop.later[len(gradients) :], *gradients])

    monkeypatch.setattr(Training, "loop", property(later))


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (broken_allocator, "training, reserved"),
        (broken_optimizer, "training, allocations of the plan, up to optimizer step"),
        (broken_lifetime, "training, allocations of the plan, up to backward of dropout2"),
    ],
)
@pytest.mark.parametrize("workspaces", [False, True])
def test_a_wrong_plan_ends_in_1(
    on_card: OnCard,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
    wrong: str,
    workspaces: bool,
) -> None:
    """A wrong allocator, a tensor too many and one that lives too long are marked, with workspaces and without."""
    on_card(workspaces=workspaces)
    broken(monkeypatch)
    result = run("verify", "A", *OPTIONS, "--device", "cuda", COLUMNS="200")
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line.startswith("✗") and wrong in line]


def test_a_wrong_plan_of_ranks_ends_in_1(on_card: OnCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets of another size are no longer found among torch's allocations."""
    on_card()
    monkeypatch.setattr(replicas, "BUCKET_MB", 0.01)
    result = run("verify", "A", *OPTIONS, "--device", "cuda", "--ranks", "2", "--parallel", "ddp", COLUMNS="200")
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line.startswith("✗") and "up to new buckets" in line]


# What can't be measured


@pytest.mark.parametrize(
    ("network", "batch", "share", "message"),
    [
        ("D", 4096, 1, "D: inference at batch 4096 fills the card of 85,899,345,920 bytes; expected a smaller batch, "),
        ("A", 376, 24 / 80, "A: training at batch 376 fills the card of 85,899,345,920 bytes; expected a smaller "),
        ("A", 10**18, 1, "A: torch can't run inference on this card: Storage size calculation overflowed with sizes="),
        ("A --set width=100", 1, 1, "A: its parameters need 5.15 TB, and cuda has 85.90 GB."),
    ],
)
def test_what_does_not_fit_is_one_line(on_card: OnCard, network: str, batch: int, share: float, message: str) -> None:
    """What runs out of memory, what only runs as torch gives back its cache, and what torch can't count or build."""
    on_card(share=share)
    result = run("verify", *network.split(), "--device", "cuda", "--batch", str(batch))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


# The process


SAYS_ITS_SETTINGS = """
import json, os
names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "CUDA_VISIBLE_DEVICES")
print(json.dumps({"type": "Failure", "message": ", ".join(str(os.environ.get(name)) for name in names)}))
"""


def test_the_process_has_the_settings_of_the_option_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variables of whoever asks say: the settings are the plan's, there is a cache, and all else stays."""
    monkeypatch.setattr(recording, "RECORDER", (sys.executable, "-c", SAYS_ITS_SETTINGS))
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:32")
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for settings in ("", EXPANDABLE):
        said = run("verify", "A", "--device", "cuda", "--allocator", settings).stderr
        assert said == f"Error: {settings}, {settings}, None, 3\n"


@pytest.mark.slow
def test_the_program_records_on_a_card(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:  # the fixture
    """From the command to the process and back."""
    for name, value in {**cards.environment, "CARD_BYTES": str(80 * GIB)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(recording, "RECORDER", (sys.executable, "-m", "tests.footprint.card.record_steps"))
    monkeypatch.chdir(ROOT)
    result = run("verify", "A", *OPTIONS, "--device", "cuda", "--allocator", EXPANDABLE, "--format", "json")
    claims = {claim["what"]: claim for claim in json.loads(result.stdout)}
    assert (result.exit_code, result.stderr) == (0, "")
    plan = vggkit.memory("A", batch=3, input="3x32x32", width=0.25, device="cuda", allocator=EXPANDABLE)
    assert claims["training, reserved"]["measured"] == plan.reserved_bytes


def test_a_process_that_breaks_down_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code and its last line are shown."""
    monkeypatch.setattr(recording, "RECORDER", (sys.executable, "-c", "raise SystemExit('first\\nthe \x1b[31mlast')"))
    result = run("verify", "A", "--device", "cuda")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: device: the process on the card ended with 1: 'the \\x1b[31mlast'\n"


NO_CARD = """
import sys
from vggkit.cli import main
try:
    main(["verify", "D", "--device", "cuda"])
finally:
    assert "torch" not in sys.modules
"""


def test_without_a_card_the_end_is_one_line() -> None:
    """The process that asks builds nothing, and doesn't even import torch."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", NO_CARD], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"Error: device: expected a CUDA device that torch \S+ can use, found none; device cpu needs none\n",
        done.stderr,
    )


# Lifetimes


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_a_plan_is_found_whatever_lies_between(sizes: list[int], data: st.DataObject) -> None:
    """Each allocation of a plan is found among workspaces of any size, which live while nothing else is allocated."""
    ends = [data.draw(st.integers(number, len(sizes))) for number in range(1, len(sizes) + 1)]
    planned, made, count = [], [], 0
    places_of: list[int] = []
    for number, size in enumerate(sizes):
        count += 1
        places_of.append(count)
        made.append(size)
        planned.append(size)
        for workspace in data.draw(st.lists(st.integers(1, 4), max_size=2)):
            count += 1
            made += [workspace, -count]
        freed = [before for before, end in enumerate(ends) if end == number + 1]
        planned += [-before - 1 for before in freed]
        made += [-places_of[before] for before in freed]
    assert len(places(lifetimes([planned]), lifetimes([made]))) == len(sizes)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ([[512, 1024], [-1, 2048]], 3),
        ([[512, 1024], [2048, -1]], 2),
        ([[512, -1, 1024], [2048, -2]], 0),
        ([[512, 1024], [-1, 4096]], 2),
        ([[512], [1024, -1, 2048]], 1),
        ([[512, 1024], [-1]], 2),
    ],
)
def test_a_plan_is_found_up_to_what_differs(made: list[list[int]], found: int) -> None:
    """A tensor that lives longer, one that is freed too early, another size, another step, and one that is not made."""
    assert len(places(lifetimes([[512, 1024], [-1, 2048]]), lifetimes(made))) == found

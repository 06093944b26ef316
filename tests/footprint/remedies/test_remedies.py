"""What makes a step fit, as values, tables and a command."""

from __future__ import annotations

import json

import pytest

import vggkit
from tests.cli.test_app import printed, run, told
from tests.footprint.card import Cards
from tests.footprint.remedies.macs import recomputed_macs
from vggkit import Network
from vggkit.footprint.steps.options import checked_options
from vggkit.model.verify import training_peak

TINY = Network.of("D", input="3x64x64", num_classes=10, width=0.25)


def test_block1_is_the_cheapest_for_d_in_5_gb() -> None:
    """The tensors of 64 images fit with its checkpoint alone, and the result is the same."""
    first = vggkit.remedies("D", "5GB", batch=64)[0]
    assert first.options == first.build_options == {"checkpoint": ("block1",)}
    assert first.kinds == ("checkpoint",)
    assert (first.peak_bytes, first.reserved_bytes, first.retries) == (4_987_005_672, None, None)
    assert first.recomputed_multiply_accumulates == recomputed_macs(Network.of("D"), ("block1",)) == 1_936_392_192
    assert not first.changes_result


@pytest.mark.parametrize(
    ("given", "device"),
    [
        (("24GiB",), "cpu"),
        (("RTX 4090",), "cuda"),
        (("24GiB", "--context", "0"), "cuda"),
        (("24GiB", "--workspace", "1GB"), "cuda"),
        (("RTX 4090", "--device", "cpu"), "cpu"),
        (("24GiB", "--device", "cuda"), "cuda"),
    ],
)
def test_a_card_by_name_is_a_card(given: tuple[str, ...], device: str) -> None:
    """So it is with what CUDA takes of it; in so many bytes tensors are counted. The notes say how to ask for both."""
    keywords = {option.removeprefix("--"): value for option, value in zip(given[1::2], given[2::2])}
    assert vggkit.remedies("A", given[0], **keywords).options.device == device
    said = " ".join(printed("remedies", "A", *given).split())
    assert ("--device cuda plays torch's allocator" in said) == (device == "cpu")
    assert ("--device cpu counts tensors alone" in said) == (device == "cuda")


def test_each_peak_is_torch_s_own() -> None:
    """MemTracker measures the step of each remedy of a small network."""
    arguments = {"batch": 8, "optimizer": "adamw", "foreach": True, "device": "cpu"}
    whole = vggkit.memory(TINY, **arguments).peak_bytes
    found = [remedy for part in (95, 60) for remedy in vggkit.remedies(TINY, whole * part // 100, **arguments)]
    assert {kind for remedy in found for kind in remedy.kinds} == {
        "optimizer", "freeze", "autocast", "fused", "foreach", "step_in_backward", "accumulate", "checkpoint",
    }  # fmt: skip
    for remedy in found:
        options = checked_options(TINY, **{**arguments, **remedy.options})
        assert sum(training_peak(TINY, options).values()) == remedy.peak_bytes


def test_what_is_said_to_run_on_a_card_runs_in_torch(cards: Cards) -> None:
    """Torch trains with each remedy until the loop repeats itself, and without one runs out of memory."""
    limit, arguments = 170 << 20, {"batch": 16, "optimizer": "adamw", "width": 0.125}
    found = vggkit.remedies("D", limit, context=0, **arguments)
    tried = found.remedies[:6]
    assert {kind for remedy in tried for kind in remedy.kinds} == {
        "freeze", "autocast", "allocator", "checkpoint", "step_in_backward", "accumulate", "optimizer",
    }  # fmt: skip
    assert cards("play_steps.py", limit, "").ask(name="D", steps=STEPS, **arguments)[-1] is None
    for remedy in tried:
        changed = {**arguments, **remedy.options}
        card = cards("play_steps.py", limit, changed.pop("allocator", ""))
        last = card.ask(name="D", steps=STEPS, **changed)[-1]
        assert last is not None
        assert last["reserved"] == remedy.reserved_bytes


STEPS = 12
"""So many steps tell in torch what runs here: each of these loops has run out by then, or repeats itself."""


def test_a_model_is_built_with_what_concerns_it() -> None:
    """Checkpoints and frozen blocks are the model's; the optimizer is the loop's."""
    found = vggkit.remedies("E", "6GB", batch=64, optimizer="adamw", device="cuda")
    both = next(remedy for remedy in found if set(remedy.kinds) == {"optimizer", "checkpoint"})
    assert set(both.options) == {"optimizer", "checkpoint"}
    assert set(both.build_options) == {"checkpoint"}
    assert vggkit.build("E", device="meta", **both.build_options).checkpoint == set(both.options["checkpoint"])


def test_a_step_that_fits_needs_no_remedy() -> None:
    """It says so, and exits with 0."""
    found = vggkit.remedies("D", "24GiB", batch=64, device="cuda")
    assert found.fits
    assert (len(found), found.nearest) == (0, None)
    assert found.as_it_is.reserved_bytes == vggkit.memory("D", batch=64, device="cuda").reserved_bytes
    assert "The step fits as it is." in printed("remedies", "D", "24GiB", "--batch", "64")


def test_where_nothing_fits_the_nearest_is_said() -> None:
    """It exits with 1."""
    result = run("remedies", "D", "1GB", "--batch", "64")
    assert result.exit_code == 1
    assert "Nothing that was tried makes the step fit, up to 3 changes at once. The nearest is" in result.output
    nearest = vggkit.remedies("D", "1GB", batch=64).nearest
    assert nearest is not None
    assert nearest.typed in " ".join(result.output.split())


def test_where_nothing_lowers_the_peak_there_is_no_nearest() -> None:
    """Inference of a single image in bfloat16 has nothing to change."""
    found = vggkit.remedies("D", "1MB", mode="inference", dtype="bfloat16")
    assert (found.fits, len(found), found.nearest) == (False, 0, None)
    assert "Nothing lowers its peak." in str(found)


PRICES = ["setting", "again", "loop", "result"]


def test_the_cheapest_comes_first() -> None:
    """A setting costs nothing; then what runs less again, then fewer changes."""
    found = vggkit.remedies("E", "8GB", batch=64, optimizer="adamw", device="cuda")
    costs = [
        (PRICES.index(remedy.price), remedy.recomputed_multiply_accumulates, len(remedy.kinds), remedy.bytes)
        for remedy in found
    ]
    assert costs == sorted(costs)
    assert [remedy.price for remedy in found] == ["setting", "again", "loop", "loop", "result", "result", "result"]
    assert [remedy.changes_result for remedy in found] == [remedy.price == "result" for remedy in found]


def test_the_json_has_every_figure() -> None:
    """The same as the value's."""
    data = json.loads(printed("remedies", "D", "5GB", "--batch", "64", "--format", "json"))
    found = vggkit.remedies("D", "5GB", batch=64)
    assert data == json.loads(json.dumps(found.to_dict()))
    assert data["remedies"][0]["options"] == {"checkpoint": ["block1"]}
    assert (data["limit_bytes"], data["context_bytes"], data["fits"]) == (5_000_000_000, 0, False)
    assert data["as_it_is"]["peak_bytes"] == 6_343_885_544


def test_a_row_of_csv_has_single_values() -> None:
    """Options are written as in a call; no cell is a formula."""
    lines = printed("remedies", "D", "5GB", "--batch", "64", "--format", "csv").splitlines()
    assert lines[0].startswith("kinds,options,build_options,typed")
    assert lines[1].startswith("checkpoint,\"checkpoint=('block1',)\",\"checkpoint=('block1',)\",'--checkpoint block1,")
    assert printed("remedies", "D", "24GiB", "--format", "csv").splitlines() == lines[:1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("D", "RTX"), "Error: CARD: expected a size such as 24GiB, or a card such as 'RTX 4090', found 'RTX'."),
        (("D", "8GB", "--batch", "0"), "Error: batch: expected a whole number from 1 to"),
        (("D", "8GB", "--context", "x"), "Error: --context: expected"),
        (("D", "8GB", "--workspace", "x"), "Error: --workspace: expected"),
        (("D", "8GB", "--device", "cpu", "--context", "1GB"), "Error: --context: needs device cuda, found cpu"),
        (
            ("D", "8GB", "--device", "cpu", "--allocator", "expandable_segments:True"),
            "Error: allocator: needs device cuda, found cpu",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    """It names the option, or the card."""
    assert told("remedies", *arguments).startswith(message)

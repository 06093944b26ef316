"""`vggkit memory` and `vggkit verify` on the command line, and budgets in `vggkit validate`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vggkit
from tests.cli.test_app import printed, run, told
from vggkit.base.numbers import megabytes
from vggkit.footprint.cards import card_of
from vggkit.model import verify


def test_the_table_and_the_sentence_say_the_peak() -> None:
    """D at batch 1: the bytes of each kind, the peak in full, where it is and what dominates."""
    text = printed("memory", "D")
    assert "1,722,992,880" in text
    assert "546,488,224" in text
    assert "in the backward of block3_relu3; 32.1 % of it are parameters." in text


def test_the_json_is_the_plans() -> None:
    """The JSON on the command line is that of the Python function, options included."""
    options = ("--batch", "3", "--optimizer", "adamw", "--freeze", "block1,block2", "--checkpoint", "block4")
    data = json.loads(printed("memory", "A", *options, "--format", "json"))
    plan = vggkit.memory("A", batch=3, optimizer="adamw", freeze=["block1", "block2"], checkpoint=["block4"])
    assert data == plan.to_dict()


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (("paper", "--weight-decay", "0", "--foreach"), {"weight_decay": 0, "foreach": True}),
        (("sgd-momentum", "--nesterov", "--no-foreach"), {"nesterov": True, "foreach": False}),
        (("adam", "--amsgrad", "--fused"), {"amsgrad": True, "fused": True}),
        (("rmsprop", "--momentum", "0.9", "--centered"), {"momentum": 0.9, "centered": True}),
    ],
)
def test_an_optimizers_options_are_the_functions_keywords(arguments: tuple[str, ...], keywords: dict[str, Any]) -> None:
    """Each changes the plan as the keyword of its name does."""
    data = json.loads(printed("memory", "A", "--optimizer", *arguments, "--format", "json"))
    assert data == vggkit.memory("A", optimizer=arguments[0], **keywords).to_dict()
    assert data != vggkit.memory("A", optimizer=arguments[0]).to_dict()


def test_the_csv_and_the_markdown_have_the_same_bytes() -> None:
    """Each format has every kind's bytes and the peak."""
    plan = vggkit.memory("A")
    csv = printed("memory", "A", "--format", "csv").splitlines()
    assert csv == ["kind,bytes", *(f"{kind},{size}" for kind, size in plan.by_kind.items()), f"peak,{plan.peak_bytes}"]
    markdown = printed("memory", "A", "--format", "markdown")
    assert all(f"{size:,}" in markdown for size in (*filter(None, plan.by_kind.values()), plan.peak_bytes))


def test_on_cuda_the_csv_has_what_the_card_must_have() -> None:
    """What is allocated and reserved stands below the peak."""
    plan = vggkit.memory("A", device="cuda")
    csv = printed("memory", "A", "--device", "cuda", "--format", "csv").splitlines()
    assert csv[-2:] == [f"allocated,{plan.allocated_bytes}", f"reserved,{plan.reserved_bytes}"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--autocast",), "Autocast holds more than plain float32 would (1.72 GB)"),
        (("--optimizer", "adam"), "the optimizer's own temporaries, not the activations, make the peak"),
        ((), "With --checkpoint block1 it would be 1.71 GB, at the cost of 12.5 % of a forward pass"),
        (("--batch", "64"), "With --checkpoint block1 it would be 4.99 GB, at the cost of 12.5 % of a forward pass"),
        (
            ("--device", "cuda"),
            "What the card must have: 1,793,064,960 bytes (1.67 GiB) reserved by torch's allocator.",
        ),
        (("--device", "cuda"), "Of them 1,726,961,152 are allocated at most; 3.7 % are holes."),
        (
            ("--device", "cuda", "--batch", "16", "--allocator", "expandable_segments:True"),
            "What the card must have: 2,856,321,024 bytes (2.66 GiB) reserved by torch's allocator.",
        ),
        (("--device", "cuda"), "Workspaces of cuDNN and cuBLAS and the CUDA context are not included."),
    ],
)
def test_what_people_do_not_expect_is_said(arguments: tuple[str, ...], sentence: str) -> None:
    """The surprises are named where they are so."""
    assert sentence in printed("memory", "D", *arguments)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), "parameters, gradients, optimizer"),
        (("--step-in-backward",), "parameters, optimizer"),
        (("--ema",), "parameters, gradients, optimizer, moving average"),
    ],
)
def test_what_is_kept_between_steps_is_named(options: tuple[str, ...], kept: str) -> None:
    """A step in the backward pass leaves no gradients, and a moving average is kept as well."""
    assert f"({kept})." in printed("memory", "A", *options)


def test_autocast_at_a_large_batch_is_no_surprise() -> None:
    """Where autocast saves memory nothing is said of it."""
    assert "Autocast holds more" not in printed("memory", "D", "--autocast", "--batch", "64")


def test_fit_tells_the_largest_batch_for_each_limit() -> None:
    """Each limit gets the batch, the bytes left, and what one image more lacks."""
    limits = ("--fit", "3GiB", "--fit", "2.5GB", "--format", "json")
    rows = json.loads(printed("memory", "D", *limits, "--device", "cpu"))
    assert [row["largest"] for row in rows] == [vggkit.max_batch("D", limit, device="cpu") for limit in limits[1:4:2]]
    for row in rows:
        assert row["left_bytes"] == row["limit_bytes"] - vggkit.memory("D", batch=row["largest"]).peak_bytes
        assert row["missing_bytes"] == vggkit.memory("D", batch=row["next"]).peak_bytes - row["limit_bytes"]
    rows = json.loads(printed("memory", "D", *limits))
    assert [row["largest"] for row in rows] == [vggkit.max_batch("D", limit) for limit in limits[1:4:2]]


def test_fit_takes_a_cards_name_and_says_what_is_not_torchs() -> None:
    """The context is the card's own unless --context says another; the workspace is that of --workspace."""
    text = printed("memory", "A", "--fit", "gtx1060-6gb", "--workspace", "64MiB")
    card = card_of("GTX 1060-6GB")
    assert "GTX 1060-6GB  batch" in text
    assert f"CUDA's context takes {megabytes(card.context_bytes)} (--context), workspaces" in text
    assert "67.11 MB (--workspace)" in " ".join(text.split())
    row = json.loads(printed("memory", "A", "--fit", "gtx1060-6gb", "--context", "0", "--format", "json"))[0]
    assert (row["card"], row["limit_bytes"], row["context_bytes"]) == ("GTX 1060-6GB", card.total_bytes, 0)
    assert row["largest"] == vggkit.max_batch("A", "GTX 1060-6GB", context="0")


def test_fit_says_what_happens_to_run_and_counts_tensors_on_the_cpu() -> None:
    """On a card the larger ones are named; on the CPU it is said that tensors are counted."""
    text = printed("memory", "A", "--fit", "24GiB", "--context", "0")
    assert "On 24.00 GiB larger ones happen to run: 381, 383, 392, " in text
    assert "Tensors are counted" in printed("memory", "A", "--fit", "24GiB", "--device", "cpu")


def test_fit_ends_in_1_if_nothing_fits() -> None:
    """Not even one image: exit code 1, and the table still says how much is missing."""
    for device, missing in (("cpu", "722.99 MB"), ("cuda", "793.06 MB")):
        result = run("memory", "D", "--fit", "1GB", "--device", device, *(["--context", "0"] * (device == "cuda")))
        assert (result.exit_code, result.stderr) == (1, "")
        assert "not even batch 1" in result.stdout
        assert missing in result.stdout


def test_solve_image_asks_for_the_largest_image() -> None:
    """With head=gap the side of the image is free."""
    solve = ("memory", "D", "--set", "head=gap", "--batch", "8", "--fit", "24GiB", "--solve", "image")
    assert "1478×1478 images" in printed(*solve, "--device", "cpu")
    assert "tensors alone" in printed(*solve[:-4], "--fit", "1GiB", *solve[-2:])


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_the_timeline_is_drawn(tmp_path: Path, ending: str) -> None:
    """A picture is written in the format of its ending, and said on stderr."""
    path = tmp_path / f"step.{ending}"
    result = run("memory", "A", "--timeline", str(path))
    assert (result.exit_code, result.stderr) == (0, f"{path} drawn\n")
    start = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}[ending]
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize("options", [(), ("--device", "cuda", "--allocator", "expandable_segments:True")])
def test_the_timeline_is_written_for_the_viewer(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A .pickle file has the plan's snapshot, whatever the case of its ending."""
    path = tmp_path / "step.PICKLE"
    result = run("memory", "A", "--timeline", str(path), *options)
    assert (result.exit_code, result.stderr) == (0, f"{path} written\n")
    plan = vggkit.memory("A", device="cuda", allocator=options[-1]) if options else vggkit.memory("A")
    assert path.read_bytes() == plan.to_pickle()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "0"), "batch: expected a whole number from 1"),
        (("--fit", "3"), "--fit: expected a number and a unit, as in 24GiB"),
        (("--optimizer", "adan"), "optimizer: expected one of none, sgd, sgd-momentum, paper, asgd, adam, "),
        (("--optimizer", "adan"), "rprop, found 'adan'. Did you mean 'adam'?"),
        (("--weight-decay", "-1"), "weight_decay: expected a number of 0 or more, found -1"),
        (("--amsgrad",), "amsgrad: expected an optimizer that has it (adam, adamw), found sgd-momentum"),
        (("--fused", "--foreach"), "fused: can't be combined with foreach; torch refuses both together"),
        (("--mode", "inference", "--no-foreach"), "foreach: needs mode training, found inference"),
        (("--freeze", "block9"), "freeze: D has no block or layer 'block9'"),
        (("--freeze", ""), "--freeze: expected names, such as block1,block2, found none"),
        (("--checkpoint", ","), "--checkpoint: expected names, such as block1,block2, found none"),
        (("--checkpoint", "fc1"), "checkpoint: expected block1 … block5 of D, found 'fc1'"),
        (("--mode", "train"), "Did you mean 'training'?"),
        (("--device", "gpu"), "device: expected one of cpu, cuda, found 'gpu'. Did you mean 'cuda'?"),
        (("--dtype", "int8"), "dtype: expected one of"),
        (("--device", "tpu"), "device: expected one of cpu, cuda"),
        (("--solve", "image"), "--solve: needs --fit, such as --fit 24GiB"),
        (("--batch", "2", "--fit", "8GB"), "--batch can't be combined with --fit, which looks for it"),
        (("--fit", "8GB", "--solve", "image"), "image: D has parameters that depend on the image's size"),
        (("--timeline", "step.pdf"), "--timeline: expected a file that ends in .svg, .png, .html or .pickle"),
        (("--timeline", "step.svg", "--fit", "8GB"), "--timeline can't be combined with --fit"),
        (("--output", "plan.yaml"), "--output: expected a file that ends in .txt, .json, .csv, .md, .tex, .html or"),
        (("--mode", "inference", "--checkpoint", "block1"), "checkpoint: needs mode training"),
        (("--autocast", "--dtype", "bfloat16"), "autocast: needs dtype float32"),
        (("--allocator", "expandable_segments:True"), "allocator: needs device cuda, found cpu"),
        (("--allocator", "cats:True", "--device", "cuda"), "allocator: expected one of expandable_segments, "),
        (
            ("--allocator", "expandable_segments:True", "--fit", "8GB", "--device", "cpu"),
            "allocator: needs device cuda",
        ),
        (
            ("--fit", "RTX 4091"),
            "--fit: expected a size such as 24GiB, or a card such as 'RTX 4090', found 'RTX 4091'.",
        ),
        (("--fit", "24GiB", "--context", "3"), "--context: expected a number and a unit"),
        (("--fit", "24GiB", "--workspace", "much"), "--workspace: expected a number and a unit"),
        (("--fit", "24GiB", "--device", "cpu", "--context", "1MB"), "--context: needs device cuda, found cpu"),
        (("--context", "300MiB"), "--context: needs --fit, such as --fit 24GiB"),
        (("--workspace", "300MiB"), "--workspace: needs --fit, such as --fit 24GiB"),
    ],
)
def test_wrong_options_end_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    """Whatever is wrong is told in one line on stderr, with exit code 2."""
    said = told("memory", "D", *arguments)
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_timeline_that_cannot_be_written_ends_in_1(tmp_path: Path) -> None:
    """A folder that is not there: one line, exit code 1, nothing on stdout."""
    result = run("memory", "D", "--timeline", str(tmp_path / "nowhere" / "step.svg"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "can't be written" in result.stderr


def test_memory_takes_no_torch() -> None:
    """Neither the plan nor what fits imports torch, and without a picture no matplotlib."""
    code = (
        "import sys, vggkit.cli as cli\n"
        "for arguments in (['memory', 'D'], ['memory', 'D', '--fit', '3GB'], ['validate', 'D']):\n"
        "    try: cli.main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# verify


def test_verify_sets_claims_beside_measurements() -> None:
    """Every claim of a small network holds, each with its judge."""
    options = ("--input", "3x32x32", "--set", "width=0.1", "--batch", "2", "--optimizer", "adamw")
    claims = json.loads(printed("verify", "A", *options, "--format", "json"))
    assert all(claim["equal"] for claim in claims)
    judges = {"torchinfo", "FlopCounterMode ÷ 2", "saved-tensor hooks", "MemTracker"}
    assert {claim["judge"] for claim in claims} == judges
    whats = [claim["what"] for claim in claims]
    assert {"parameters", "multiply-accumulates", "saved for backward", "inference peak", "training peak"} <= set(whats)


def test_verify_ends_in_1_if_a_claim_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that a judge contradicts is marked, and the exit code is 1."""
    monkeypatch.setattr(verify, "saved_bytes", lambda *_: 7)
    result = run("verify", "A", "--input", "3x32x32", "--set", "width=0.1")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines() if "saved for backward" in line] == ["✗"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--allocator", "expandable_segments:True"), "allocator: needs device cuda, found cpu"),
        (("--device", "cuda", "--allocator", "cats:True"), "allocator: expected one of expandable_segments, "),
        (("--device", "gpu"), "device: expected one of cpu, cuda, found 'gpu'. Did you mean 'cuda'?"),
    ],
)
def test_a_wrong_device_or_setting_of_verify_ends_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    """As with memory, and before anything is built."""
    said = told("verify", "D", *arguments)
    assert said.startswith(f"Error: {message}")
    assert len(said.splitlines()) == 1


# budgets


def test_a_network_over_its_budget_ends_in_1(tmp_path: Path) -> None:
    """`validate` names each exceeded limit with both figures; a wrong file beside it still wins with 2."""
    over, wrong = tmp_path / "over.yaml", tmp_path / "wrong.yaml"
    over.write_text("extends: D\nbudget: {parameters: 138M, training_peak: 24GiB at batch 64}\n")
    wrong.write_text("extends: Q\n")
    result = run("validate", str(over), "D")
    assert result.exit_code == 1
    assert result.stderr == f"{over}: over budget: parameters 138,357,544, allowed 138M\n"
    assert run("validate", str(over), str(wrong)).exit_code == 2

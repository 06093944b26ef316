"""What measures the claims, held against torch's own tools used by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy

import vggkit
from tests.cli.test_app import told
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.module import VGG
from vggkit.model.verify import Trainer
from vggkit.network import Network

BLOCKS = tuple(f"block{number}" for number in range(1, 6))
NETWORK = Network.of("A", batch_norm=True, input="3x32x32", num_classes=10, width=0.25)


def second_step(options: StepOptions) -> dict[str, int]:
    """Return the bytes of each kind, by MemTracker's names, at the peak of a new model's second step."""
    with FakeTensorMode():
        model = VGG(NETWORK, checkpoint=options.checkpoint)
        images, labels = torch.zeros(options.batch, 3, 32, 32), torch.zeros(options.batch, dtype=torch.int64)
        optimizer = torch.optim.AdamW(model.parameters()) if options.optimizer == "adamw" else None

        def step() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.autocast):
                loss = cross_entropy(model(images), labels)
            loss.backward()
            if optimizer is not None:
                optimizer.step()

        step()
        tracker = MemTracker()
        tracker.track_external(model, *([optimizer] if optimizer is not None else []), images, labels)
        with tracker:
            step()
    (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return {getattr(kind, "value", kind): size for kind, size in snapshot.items() if size}


NAMES = {
    "parameters": "Parameter",
    "buffers": "Buffer",
    "gradients": "Gradient",
    "optimizer": "Optstate",
    "activations": "Activation",
    "temporaries": "Temp",
    "inputs": "Other",
}


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "adamw"}, {"checkpoint": BLOCKS[1:3]}, {"autocast": True, "optimizer": "adamw"}],
    ids=str,
)
def test_a_trainer_sees_at_every_batch_what_memtracker_sees_of_a_new_model(options: dict[str, Any]) -> None:
    """In total and for each kind, whatever it measured before."""
    options = {"optimizer": "none", **options}
    trainer = Trainer(NETWORK, StepOptions(**options))
    for batch in (300, 2):
        measured = trainer.training_peak(batch)
        seen = second_step(StepOptions(batch=batch, **options))
        assert seen.pop("Total") == sum(measured.values())
        assert seen == {NAMES[kind]: size for kind, size in measured.items() if size}


@pytest.mark.parametrize(
    "options", [{}, {"freeze": BLOCKS[:2]}, {"checkpoint": BLOCKS}, {"freeze": ("block2",)}], ids=str
)
def test_a_trainer_measures_after_its_steps_what_a_new_one_does(options: dict[str, Any]) -> None:
    """Saved bytes and peaks of every kind, with frozen and with checkpointed blocks."""
    trainer = Trainer(NETWORK, StepOptions(**options))
    for batch in (5, 1):
        assert trainer.training_peak(batch) == Trainer(NETWORK, StepOptions(**options)).training_peak(batch)
        assert trainer.saved_bytes(batch) == Trainer(NETWORK, StepOptions(**options)).saved_bytes(batch)


@pytest.mark.parametrize("batch", [10**14, 10**18])
def test_a_step_of_more_bytes_than_torch_counts_is_one_line(batch: int) -> None:
    """Its sizes are integers of 64 bits."""
    said = told("verify", "A", "--batch", str(batch), "--set", "width=0.125")
    assert said.startswith("Error: batch: expected a step of less than 2^63 bytes, as torch counts no more; found ")
    assert said.count("\n") == 1


def test_the_papers_weight_decay_is_what_the_default_figure_is_without() -> None:
    """With it torch's SGD copies each gradient: D's peak at batch 1 is the documentation's, at batch 64 it stays."""
    trainer = Trainer(Network.of("D"), StepOptions(optimizer="paper"))
    (optimizer,) = trainer.training.optimizers
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4]
    peaks = {batch: sum(trainer.training_peak(batch).values()) for batch in (1, 64)}
    assert peaks == {1: 2_071_934_444, 64: plan_step(Network.of("D"), StepOptions(batch=64)).peak_bytes}
    text = (Path(__file__).parents[2] / "docs" / "memory.md").read_text(encoding="utf-8")
    assert all(f"{peak:,}" in text for peak in peaks.values())
    assert "without weight decay" in str(vggkit.explain("D"))

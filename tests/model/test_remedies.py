"""Remedies on the real model: set up on one that is built, and measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests.footprint.remedies.macs import step_macs
from vggkit import Network, Remedies
from vggkit.base.errors import ArgumentError
from vggkit.footprint.remedies.kinds import KINDS, ExpandableSegments, Kind
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import decided
from vggkit.model.module import VGG
from vggkit.model.verify import verify

TINY = Network.of("vgg11_bn", input="3x32x32", num_classes=10, width=0.25)
ARGUMENTS: dict[str, Any] = {"batch": 61, "optimizer": "adamw", "foreach": True}


@pytest.fixture(scope="module")
def found() -> Remedies:
    """Return what makes a step fit half of what it holds."""
    return vggkit.remedies(TINY, vggkit.memory(TINY, **ARGUMENTS).peak_bytes // 2, **ARGUMENTS)


def looks(model: VGG) -> tuple[Any, ...]:
    """Return what freezing and checkpointing change about a model."""
    return (
        model.checkpoint,
        model.frozen,
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
    )


def macs(model: VGG) -> int:
    """Return the multiply-accumulates of a training step of one image, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *TINY.input_shape, device="meta")).sum().backward()
    return int(counter.get_total_flops()) // 2


def test_a_model_that_is_built_gets_a_remedy(found: Remedies) -> None:
    """It is then as one that is built with it, and runs as much again; the rest is the loop's."""
    tried = [remedy for remedy in found if remedy.build_options]
    assert {word for remedy in tried for word in remedy.build_options} == {"freeze", "checkpoint"}
    for remedy in tried:
        model = vggkit.build(TINY, device="meta")
        left = model.apply_remedy(remedy)
        assert looks(model) == looks(vggkit.build(TINY, device="meta", **remedy.build_options))
        assert {**remedy.build_options, **left} == remedy.options
        assert not {"freeze", "checkpoint"} & set(left)
        options = remedy.build_options
        assert macs(model) == step_macs(TINY, options.get("checkpoint", ()), options.get("freeze", ()))


def test_a_remedy_of_the_loop_leaves_the_model_as_it_is(found: Remedies) -> None:
    """All of it is said to be left; checkpoints that are there stay."""
    remedy = next(remedy for remedy in found if not remedy.build_options)
    model = vggkit.build(TINY, device="meta", checkpoint="block2", freeze="block1")
    before = looks(model)
    assert model.apply_remedy(remedy) == remedy.options == remedy.loop_options
    assert looks(model) == before


def test_what_is_no_remedy_of_the_model_is_refused(found: Remedies) -> None:
    """In one line, before anything is changed."""
    model = vggkit.build(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4]]}"))
    before = looks(model)
    with pytest.raises(
        ArgumentError, match=r"^remedy: expected one of those that vggkit\.remedies finds, found 'dict'"
    ):
        model.apply_remedy({"checkpoint": ("block1",)})  # type: ignore[arg-type]  # what is refused
    remedy = next(remedy for remedy in found if "block2" in remedy.build_options.get("checkpoint", ()))
    with pytest.raises(ArgumentError, match="block2"):
        model.apply_remedy(remedy)
    assert looks(model) == before


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not isinstance(kind, ExpandableSegments)], ids=lambda kind: kind.name
)
def test_torch_holds_what_is_said_of_each_kind_of_change(kind: Kind) -> None:
    """Every claim of `verify` is equal, with the mildest change and with the last; a card's settings are none of it."""
    training = StepOptions(batch=4, optimizer="adamw").replace(foreach=True)
    loss = StepOptions(batch=2, mode="perceptual", optimizer="none", taps=("relu2_1",), trainable=True)
    ranks = StepOptions(batch=4, optimizer="adamw").replace(ranks=2, parallel="ddp")
    tried = 0
    for options in (training, loss, ranks):
        changes = list(kind.changes(TINY, options))
        for change in changes[:: max(1, len(changes) - 1)]:
            changed = decided(TINY, options.replace(**change.options))
            if changed is None:  # ranks can't run it
                continue
            claims = list(verify(TINY, changed))
            assert all(claim.claimed == claim.measured for claim in claims), claims
            tried += 1
    assert tried

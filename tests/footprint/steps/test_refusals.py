"""What torch refuses to run, held against torch itself."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vggkit
from tests.drawn import networks
from vggkit.base.errors import ArgumentError
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import refusal, smallest_batch
from vggkit.model import verify
from vggkit.network import Network

REFUSED = {
    "a batch norm of flat features": (
        "[{fc: 6, norm: batch}, FC-3]", "training", ("batch 2 or more", "frozen batch norms", "or mode inference"),
    ),
    "a batch norm of 1×1 maps": (
        "[maxpool, {conv: 4, norm: batch}, FC-3]", "training",
        ("batch 2 or more", "a larger input", "frozen batch norms", "or mode inference"),
    ),
    "a batch norm behind a global pool": (
        "[global-avgpool, batchnorm]", "training", ("batch 2 or more", "frozen batch norms", "or mode inference"),
    ),
    "a batch norm that keeps no statistics": (
        "[FC-6, {batchnorm: {track_running_stats: false}}]", "inference", ("batch 2 or more",),
    ),
    "a group norm with a group for each value": ("[FC-6, {groupnorm: 6}]", "inference", ("batch 2 or more",)),
}  # fmt: skip
"""A classifier behind 2×2 maps, the mode at batch 1 that torch refuses, and what helps."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_refuses_has_no_figures_but_a_line_with_what_helps(case: str) -> None:
    """The plan, the command, the search and the check by the real model say so; what is advised, torch runs."""
    classifier, mode, helps = REFUSED[case]
    config = vggkit.loads(f"{{name: refused, input: 3x4x4, blocks: [[conv3-4, maxpool]], classifier: {classifier}}}")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        vggkit.build(config).train(mode == "training")(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ArgumentError) as caught:
        vggkit.memory(config, mode=mode)
    message = str(caught.value)
    assert re.match(
        r"refused: torch can't run (a training step|inference) at batch 1, as norm1? would normalize", message
    )
    assert message.endswith(f"Expected {', '.join(helps)}")
    with pytest.raises(ArgumentError, match="torch can't run"):
        next(verify.verify(Network.of(config), StepOptions()))
    vggkit.build(config).train(mode == "training")(torch.zeros(2, 3, 4, 4))
    assert vggkit.memory(config, batch=2, mode=mode).peak_bytes
    assert all(claim.holds for claim in verify.verify(Network.of(config), StepOptions(batch=2)))
    if "a larger input" in helps:
        larger = vggkit.build(config, input="3x16x16")
        assert larger(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
        assert vggkit.memory(config, input="3x16x16").peak_bytes
    if "frozen batch norms" in helps:
        norms = [placed.name for placed in Network.of(config) if placed.layer.role == "norm"]
        assert vggkit.build(config, freeze=norms).train()(torch.zeros(1, 3, 4, 4)).shape[0] == 1
        assert vggkit.memory(config, freeze=norms).peak_bytes
    if "or mode inference" in helps:
        vggkit.build(config).eval()(torch.zeros(1, 3, 4, 4))
        assert vggkit.memory(config, mode="inference").peak_bytes


@given(networks(), st.sampled_from(["training", "inference"]), st.integers(1, 2))
@settings(max_examples=100, deadline=None)
def test_a_step_is_refused_exactly_where_torch_refuses_it(network: Network, mode: str, batch: int) -> None:
    """For any network, in training and inference, with one image and with two."""
    options = StepOptions(batch=batch, mode=mode, optimizer="none")  # type: ignore[arg-type]  # it is drawn
    model, images = vggkit.build(network).train(mode == "training"), torch.zeros(batch, *network.input_shape)
    if refusal(network, options) is None:
        model(images)
        assert plan_step(network, options).peak_bytes
    else:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            model(images)
        with pytest.raises(ArgumentError, match=f"torch can't run .* at batch {batch}"):
            plan_step(network, options)
        assert smallest_batch(network, options) == 2

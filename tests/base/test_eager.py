"""Drawn networks and options before MemTracker and autograd's hooks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vggkit
from tests.drawn import networks
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.model import verify
from vggkit.network import Network


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(networks(), st.integers(2, 5), st.sampled_from(list(OPTIMIZERS)), st.booleans(), st.data())
def test_memory_is_what_the_trackers_see(
    network: Network, batch: int, optimizer: str, autocast: bool, data: st.DataObject
) -> None:
    """Saved bytes, inference peak and training peak equal their judges' for any network and options."""
    blocks = sorted({placed.block for placed in network if placed.block})
    some_blocks = st.lists(st.sampled_from(blocks), unique=True).map(tuple) if blocks else st.just(())
    options = StepOptions(
        batch=batch,
        optimizer=optimizer,
        autocast=autocast,
        checkpoint=data.draw(some_blocks),
        freeze=data.draw(some_blocks),
    )
    inference = StepOptions(batch=batch, mode="inference", optimizer="none", autocast=autocast)
    assert plan_step(network, inference).by_kind == verify.inference_peak(network, inference)
    plan = plan_step(network, options)
    assert plan.saved_for_backward_bytes == verify.saved_bytes(network, options)
    assert plan.by_kind == verify.training_peak(network, options)


@pytest.mark.parametrize(
    "text",
    [
        "blocks: [[conv3-4], [batchnorm]], classifier: [FC-3]",
        "blocks: [[conv3-4], [conv3-4, {batchnorm: {affine: false}}]], classifier: [FC-3]",
        "blocks: [[conv3-4, maxpool]], classifier: [FC-6, flatten, {relu: {inplace: true}}, flatten, FC-5]",
    ],
)
def test_what_keeps_nothing_is_exact(text: str) -> None:
    """A frozen batch norm at a checkpoint's end keeps empty statistics; what is flat already is not made a view."""
    network = Network.of(vggkit.loads(f"{{name: x, input: 3x8x8, {text}}}"))
    blocks = tuple(dict.fromkeys(placed.block for placed in network if placed.block))
    for checkpoint in ((), blocks):
        options = StepOptions(batch=3, freeze=blocks[1:], checkpoint=checkpoint)
        plan = plan_step(network, options)
        assert plan.saved_for_backward_bytes == verify.saved_bytes(network, options)
        assert plan.by_kind == verify.training_peak(network, options)


@pytest.mark.parametrize("activation", ["relu", "leaky-relu", "elu", "hardtanh", "gelu"])
@pytest.mark.parametrize("flatten", ["flatten", "{flatten: hwc}"])
def test_an_activation_on_flattened_maps_is_exact(flatten: str, activation: str) -> None:
    """In place on a view its gradient is copied and cloned on the way back, whatever stands before and behind."""
    text = "{{name: x, input: 3x4x4, blocks: [[conv3-6, batchnorm]], classifier: [{}, {}{}]}}"
    for behind in ("", ", FC-5", ", tanh", f", {activation}"):
        network = Network.of(vggkit.loads(text.format(flatten, activation, behind)))
        for options in (StepOptions(batch=3), StepOptions(batch=2, optimizer="adam", autocast=True)):
            plan = plan_step(network, options)
            assert plan.saved_for_backward_bytes == verify.saved_bytes(network, options)
            assert plan.by_kind == verify.training_peak(network, options)

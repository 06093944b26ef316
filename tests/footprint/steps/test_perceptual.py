"""The network as a loss, held against MemTracker, autograd's hooks and torch's allocator."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests.conftest import sample
from tests.drawn import networks
from tests.footprint.card import Cards
from tests.footprint.grid import (
    CONFIGURATIONS,
    FULL_CARD,
    assert_torchs_steps,
    drawn_perceptual_losses,
    loop_of,
    of_drawn_networks,
    of_perceptual_losses,
    plans,
)
from vggkit.base.eager import INPUTS
from vggkit.footprint.fit import tensors_fit
from vggkit.footprint.plan import plan_step
from vggkit.footprint.remedies.kinds import run_again
from vggkit.footprint.sought import SoughtImage
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import checked_options
from vggkit.model import verify
from vggkit.network import Network

LPIPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
"""The layers that LPIPS compares (Zhang et al., arXiv:1801.03924; its lpips/pretrained_networks.py)."""


def assert_trackers_see_it(network: Network, **options: Any) -> None:
    """Hold the saved bytes and the peak of a perceptual loss against their judges, kind by kind."""
    checked = checked_options(network, mode="perceptual", **options)
    plan = plan_step(network, checked)
    assert plan.saved_for_backward_bytes == verify.perceptual_saved_bytes(network, checked), options
    assert plan.by_kind == verify.perceptual_peak(network, checked), options
    assert plan.peak_bytes == sum(plan.by_kind.values())


# The loop


class EachCall(MemTracker):  # type: ignore[no-untyped-call]  # torch does not type its __init_subclass__
    """MemTracker for modules that run twice in a step: its hooks, which refuse them, are for figures of modules."""

    def _pre_fw_hook(self, *_: object) -> None: ...

    def _post_fw_hook(self, *_: object) -> None: ...

    def _pre_bw_hook(self, *_: object) -> None: ...

    def _post_bw_hook(self, *_: object) -> None: ...


@pytest.mark.parametrize(("batch", "peak"), [(1, 219_815_176), (8, 1_346_510_088)])
def test_the_loop_that_people_write_has_the_published_peak(batch: int, peak: int) -> None:
    """The loop of the documentation on fake tensors, five taps of D at 3×256×256."""
    with FakeTensorMode():
        extractor = vggkit.features("D", LPIPS, frozen=True, input="3x256x256")
        images = torch.zeros(batch, 3, 256, 256, requires_grad=True)
        target = torch.zeros(batch, 3, 256, 256)

        def step() -> None:
            images.grad = None
            with torch.no_grad():
                wanted = extractor(target)
            found = extractor(images)
            loss: Any = sum(torch.nn.functional.mse_loss(found[tap], wanted[tap]) for tap in LPIPS)
            loss.backward()

        step()
        tracker = EachCall()
        tracker.track_external(extractor, images, target)
        with tracker:
            step()
    assert max(device["Total"] for device in tracker.get_tracker_snapshot("peak").values()) == peak
    assert vggkit.memory("D", input="3x256x256", mode="perceptual", taps=LPIPS, batch=batch).peak_bytes == peak


TAPS = {
    "an early one": ["relu1_1"],
    "before and behind an activation": ["conv1_1", "relu1_1", "pool1", "conv3_1"],
    "a whole trunk": ["relu2_1", "relu5_1"],
    "in the classifier": ["pool5", "fc6", "relu7", "fc8"],
    "in every vocabulary": ["block1_relu1", "features.3", "conv2_1", "block2.conv1"],
    "views and probabilities": ["flatten", "prob"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bfloat16": {"dtype": "bfloat16"},
    "cached target": {"cached_target": True},
    "trainable": {"trainable": True},
    "autocast": {"autocast": True},
    "trainable, autocast, a block checkpointed": {"trainable": True, "autocast": True, "checkpoint": ["block1"]},
    "cached, trainable, autocast": {"cached_target": True, "trainable": True, "autocast": True},
    "blocks checkpointed": {"checkpoint": ["block1", "block2", "block5"]},
}


@pytest.mark.parametrize("name", sample(CONFIGURATIONS, ["A-LRN"]))
@pytest.mark.parametrize("taps", sample(TAPS, ["before and behind an activation", "views and probabilities"]))
def test_each_network_is_exact(name: str, taps: str) -> None:
    """Small images, several taps and every option; batch norm with every other one."""
    for options, batch_norm in zip(OPTIONS.values(), cycle((False, True))):
        network = Network.of(name, input="3x32x32", width=0.25, num_classes=10, batch_norm=batch_norm)
        assert_trackers_see_it(network, taps=TAPS[taps], batch=3, **options)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(networks(), st.integers(2, 4), st.sampled_from(["float32", "bfloat16"]), st.data())
def test_drawn_networks_are_exact(network: Network, batch: int, dtype: str, data: st.DataObject) -> None:
    """With every kind of layer, any taps and any options."""
    names = st.sampled_from([placed.name for placed in network])
    blocks = {placed.block for placed in network if placed.block}
    assert_trackers_see_it(
        network,
        batch=batch,
        dtype=dtype,
        taps=data.draw(st.lists(names, min_size=1, max_size=4, unique=True)),
        checkpoint=[block for block in sorted(blocks) if data.draw(st.booleans())],
        cached_target=data.draw(st.booleans()),
        trainable=data.draw(st.booleans()),
        autocast=dtype == "float32" and data.draw(st.booleans()),
    )


# A card


@pytest.mark.parametrize("name", sample(CONFIGURATIONS, ["A"]))
def test_its_bytes_on_a_card_are_torchs(cards: Cards, name: str) -> None:
    """Allocated and reserved bytes from an empty card on, for both kinds of segments."""
    for check in plans(cards, of_perceptual_losses(name)[::17]):
        check()


@pytest.mark.parametrize("count", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_drawn_ones_have_torchs_bytes_on_a_card(cards: Cards, count: int) -> None:
    """The same for drawn networks, up to batches of thousands."""
    for check in plans(cards, of_drawn_networks(count, drawn_perceptual_losses)):
        check()


def test_the_largest_batch_runs_on_a_card_and_the_next_does_not(cards: Cards) -> None:
    """In torch's own allocator, on a card that they fill."""
    arguments: dict[str, Any] = {"mode": "perceptual", "taps": ["relu1_2", "relu2_2", "relu3_3"]}
    largest = vggkit.max_batch("D", FULL_CARD, context=0, **arguments)
    card = cards("play_steps.py", FULL_CARD, "")
    for batch, runs in ((largest, True), (largest + 1, False)):
        question = {"name": "D", "batch": batch, **arguments}
        loop = loop_of(question)
        assert loop is not None
        done = assert_torchs_steps(card, loop, question, FULL_CARD, "")
        assert (done[-1] is not None) is runs


# What the figures mean


def kinds(**options: Any) -> dict[str, int]:
    """Return the bytes of each kind at the peak of a perceptual loss of D."""
    return vggkit.memory("D", mode="perceptual", **{"taps": ["relu2_2"], **options}).by_kind


def test_what_comes_after_the_last_tap_is_not_there() -> None:
    """The parameters are those of the layers up to it: four convolutions of D, or all of its FC layers."""
    parameters = vggkit.summarize("D").rows
    first = [row.parameters for row in parameters if row.name in ("block1_conv1", "block1_conv2")]
    assert kinds(taps=["conv1_2"])["parameters"] == 4 * sum(first)
    assert kinds(taps=["fc8"])["parameters"] == 4 * 138_357_544
    assert vggkit.memory("D", mode="perceptual", taps=["conv1_2"]).layers[-2].name == "block1_conv2"


def test_a_network_that_nobody_froze_has_gradients_that_stay() -> None:
    """As many bytes as its parameters, between steps too; each step adds to them, for which a second copy is made."""
    plan = vggkit.memory("D", mode="perceptual", taps=["relu2_2"], trainable=True)
    frozen = vggkit.memory("D", mode="perceptual", taps=["relu2_2"])
    assert plan.by_kind["gradients"] == plan.by_kind["parameters"] == frozen.by_kind["parameters"]
    assert plan.steady_bytes == 2 * frozen.steady_bytes
    assert plan.peak_bytes > frozen.peak_bytes + frozen.steady_bytes


def test_a_cached_target_is_there_before_the_step() -> None:
    """Its activations are inputs; the passes for it are not in the timeline."""
    plain, cached = (vggkit.memory("A", mode="perceptual", taps="relu1_1", cached_target=it) for it in (False, True))
    activation = 4 * 64 * 224 * 224
    assert cached.timeline[0].by_kind[INPUTS] == plain.timeline[0].by_kind[INPUTS] + activation
    assert [any("target" in moment.event for moment in plan.timeline) for plan in (plain, cached)] == [True, False]


def test_the_square_image_that_fits_is_asked_of_what_is_built() -> None:
    """D takes images of one size because of its FC layers, which no tap needs; with a tap in them it is refused."""
    network = Network.of("D")
    options = checked_options(network, mode="perceptual", taps=["relu5_3"])
    side = tensors_fit(SoughtImage(network, options), 10**9).largest
    peaks = [
        vggkit.memory("D", input=f"3x{one}x{one}", mode="perceptual", taps="relu5_3").peak_bytes
        for one in (side, side + 1)
    ]
    assert peaks[0] <= 10**9 < peaks[1]
    with pytest.raises(vggkit.ArgumentError, match="image: D has parameters that depend on the image's size"):
        SoughtImage(network, checked_options(network, mode="perceptual", taps=["fc6"]))


@pytest.mark.parametrize("checkpoint", [("block1",), ("block1", "block3"), ("block2", "block3", "block5")])
def test_what_is_run_again_is_what_torch_counts(checkpoint: tuple[str, ...]) -> None:
    """torch's counter has that many more multiply-accumulates; a block after the last tap is not run at all."""
    taps = ("conv1_2", "relu3_2", "pool3")

    def macs(blocks: tuple[str, ...]) -> int:
        extractor = vggkit.features("D", taps, frozen=True, device="meta", checkpoint=blocks)
        images = torch.empty(1, 3, 224, 224, device="meta", requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            torch.stack([found.sum() for found in extractor(images).values()]).sum().backward()  # type: ignore[no-untyped-call]  # torch has no types here
        return counter.get_total_flops() // 2

    network = Network.of("D")
    step = step_of(network, checked_options(network, mode="perceptual", taps=taps, checkpoint=checkpoint))
    assert sum(run_again(step).values()) == macs(checkpoint) - macs(())


def test_two_names_of_a_layer_are_two_terms_of_the_loss() -> None:
    """The extractor gives one activation under both names."""
    network = Network.of("A", input="3x32x32", width=0.25)
    assert_trackers_see_it(network, taps=["relu1_1", "block1_relu1", "features.1"], batch=2)

"""What lowers a peak without a limit: the cheapest checkpoints, held against every set of blocks, and the sentences."""

from __future__ import annotations

from itertools import combinations

import pytest

import vggkit
from tests.cli.test_app import printed, run
from tests.conftest import sample
from tests.footprint.remedies.macs import recomputed_macs
from vggkit.base.numbers import megabytes, percent
from vggkit.footprint.card_fit import EXPANDABLE
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.plan import plan_step
from vggkit.footprint.remedies import search
from vggkit.footprint.remedies.advice import advice, cheapest_checkpoints
from vggkit.footprint.remedies.kinds import run_again
from vggkit.footprint.steps import refusals, step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.footprint.steps.step import Step
from vggkit.network import Network

SOME = sample(["A", "A-LRN", "B", "C", "D", "E"], ["A-LRN", "D"])
"""Those two have every kind of layer that the six have."""


def assert_no_cheaper_checkpoints(network: Network, options: StepOptions) -> None:
    """Hold the advised blocks against every set of blocks: none that peaks as low as all blocks costs less."""
    blocks = tuple(dict.fromkeys(placed.block for placed in network if placed.block))
    advised = cheapest_checkpoints(network, options)
    chosen_blocks = advised.options.checkpoint
    every = plan_step(network, options.replace(checkpoint=blocks))
    costs = {}
    for chosen in (chosen for size in range(len(blocks) + 1) for chosen in combinations(blocks, size)):
        peak = plan_step(network, options.replace(checkpoint=chosen)).peak_bytes
        if peak <= every.peak_bytes:
            costs[chosen] = (recomputed_macs(network, chosen, autocast=options.autocast), len(chosen))
        if chosen == chosen_blocks:
            assert advised.peak.size == peak
    assert costs[chosen_blocks] == (sum(run_again(advised).values()), len(chosen_blocks))
    assert costs[chosen_blocks] == min(costs.values())


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("batch", [1, 64])
def test_the_advised_checkpoints_are_the_cheapest_that_do(name: str, batch: int) -> None:
    """Every set of blocks is tried, and torch's counter says what it runs again."""
    assert_no_cheaper_checkpoints(
        Network.of(name, input="3x64x64", num_classes=10, width=0.25), StepOptions(batch=batch)
    )


def test_a_network_that_nobody_froze_is_told() -> None:
    """With the peak that it would have frozen; the share that is run again is one of the layers that are run at all."""
    arguments = ("memory", "D", "--batch", "8", "--mode", "perceptual", "--taps", "relu2_2")
    frozen = vggkit.memory("D", batch=8, mode="perceptual", taps="relu2_2")
    said = f"Nobody needs the parameters' gradients: with frozen=True the peak would be {megabytes(frozen.peak_bytes)}."
    assert said in " ".join(printed(*arguments, "--trainable").split())
    assert "Nobody needs" not in printed(*arguments)
    network = Network.of("D")
    options = StepOptions(batch=8, mode="perceptual", optimizer="none", taps=("relu5_3",), checkpoint=("block1",))
    convolutions = [placed for placed in network if placed.block]
    assert step_of(network, options).multiply_accumulates == sum(
        placed.layer.multiply_accumulates(placed.input_shape) for placed in convolutions
    )


CHECKPOINTED = {
    "a deep trunk": "[[conv3-8], [conv3-8, conv3-4], [conv3-8, maxpool], [conv1-16, conv3-4], [conv3-8, gelu]]",
    "ends in convolutions": "[[{conv: 8, activation: none}], [conv3-8, {conv: 4, activation: none}], [conv3-16]]",
    "LRN everywhere": "[[conv3-8, LRN], [conv3-8, LRN, maxpool], [conv3-8, LRN]]",
    "nothing to multiply": "[[tanh, sigmoid], [gelu, tanh], [maxpool]]",
    "equal blocks": "[[conv3-4, conv3-4], [conv3-4, conv3-4], [conv3-4, conv3-4], [conv3-4, conv3-4]]",
}
"""Blocks whose cheapest checkpoints are not the first."""


@pytest.mark.parametrize("case", CHECKPOINTED)
@pytest.mark.parametrize(
    "options", [StepOptions(batch=4), StepOptions(batch=3, optimizer="adamw", autocast=True)], ids=str
)
def test_so_they_are_where_it_is_not_the_first_block(case: str, options: StepOptions) -> None:
    """Also where a block ends in a convolution, which is not run again, and where nothing is multiplied."""
    text = f"{{input: 4x16x16, blocks: {CHECKPOINTED[case]}, classifier: [FC-3]}}"
    assert_no_cheaper_checkpoints(Network.of(vggkit.loads(text)), options)


def test_where_too_many_sets_are_cheaper_all_blocks_are_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty blocks have a million sets; no more than some hundreds are tried."""
    tried: list[StepOptions] = []

    def counted(network: Network, options: StepOptions) -> Step:
        tried.append(options)
        return step_of(network, options)

    monkeypatch.setattr(refusals, "step_of", counted)
    text = f"{{input: 2x8x8, blocks: [{', '.join(['[conv3-2, conv3-2]'] * 20)}]}}"
    network = Network.of(vggkit.loads(text))
    advised = cheapest_checkpoints(network, StepOptions(batch=8))
    assert len(tried) <= search.MOST_COMBINED + 3  # with the step as it is, and twice that with all checkpoints
    assert advised.options.checkpoint == tuple(f"block{number}" for number in range(1, 21))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_setting_that_lowers_the_peak_is_said_first(optimizer: str, device: str) -> None:
    """It costs nothing: the optimizer's step in one kernel, or one parameter after the other."""
    network = Network.of("A", input="3x32x32", num_classes=10, width=0.25)
    rules = OPTIMIZERS[optimizer]
    plain = {"optimizer": optimizer, "device": device}
    settings = {"--fused": {"fused": True}, "--no-foreach": {"foreach": False}}
    peaks = {
        typed: vggkit.memory(network, **plain, **setting).peak_bytes
        for typed, setting in settings.items()
        if next(iter(setting)) in rules.takes
    }
    said = list(advice(network, checked_options(network, **plain)))
    lowest = min(peaks.values(), default=0)
    if lowest and lowest < vggkit.memory(network, **plain).peak_bytes:
        typed = next(typed for typed, peak in peaks.items() if peak == lowest)
        assert said == [f"With {typed} it would be {megabytes(lowest)}, at no cost."]
    else:
        assert not any("at no cost" in sentence for sentence in said)


def test_of_d_with_adamw_a_fused_one_is_said() -> None:
    """At batch 1 the optimizer makes the peak; at 64 the activations do."""
    assert "With --fused it would be 2.28 GB, at no cost." in printed("memory", "D", "--optimizer", "adamw")
    assert "--fused" not in printed("memory", "D", "--optimizer", "adamw", "--batch", "64")


def said_of(*arguments: str) -> str:
    """Return what the table of `memory --fit` says of a larger number."""
    text = " ".join(printed("memory", *arguments).split())
    return text[text.index("With --") :].split(". ")[0]


def test_the_cheapest_checkpoints_for_one_more_image_are_said() -> None:
    """Every set is tried with it; the largest batch with them is that of `max_batch`."""
    network, limit = Network.of("D", input="3x64x64", num_classes=10, width=0.25), 200_000_000
    following = vggkit.max_batch(network, limit, device="cpu") + 1
    blocks = tuple(f"block{number}" for number in range(1, 6))
    sets = [chosen for size in range(1, 6) for chosen in combinations(blocks, size)]
    enough = [
        chosen for chosen in sets if vggkit.memory(network, batch=following, checkpoint=chosen).peak_bytes <= limit
    ]
    chosen = min(enough, key=lambda chosen: (recomputed_macs(network, chosen), len(chosen)))
    largest = vggkit.max_batch(network, limit, device="cpu", checkpoint=chosen)
    options = ("--input", "3x64x64", "--set", "num_classes=10", "--set", "width=0.25", "--device", "cpu")
    share = percent(
        recomputed_macs(network, chosen),
        sum(placed.layer.multiply_accumulates(placed.input_shape) for placed in network),
    )
    assert said_of("D", *options, "--fit", "200MB").startswith(
        f"With --checkpoint {','.join(chosen)} batch {largest} would run on 200.00 MB, at the cost of {share}"
    )


def test_on_a_card_a_setting_is_said_first() -> None:
    """Expandable segments, unless they are there; of each card, with the largest that `max_batch` finds."""
    options = ("A", "--set", "width=0.125", "--context", "0", "--fit", "256MiB", "--fit", "300MiB")
    arguments = {"width": 0.125, "context": 0}
    text = " ".join(printed("memory", *options).split())
    for limit in (256, 300):
        largest = vggkit.max_batch("A", f"{limit}MiB", allocator=EXPANDABLE, **arguments)
        assert f"With --allocator {EXPANDABLE} batch {largest} would run on {limit}.00 MiB, at no cost." in text
    largest = vggkit.max_batch("A", "256MiB", allocator=EXPANDABLE, checkpoint="block1", **arguments)
    said = said_of("A", "--set", "width=0.125", "--context", "0", "--fit", "256MiB", "--allocator", EXPANDABLE)
    assert said.startswith(f"With --checkpoint block1 batch {largest} would run on 256.00 MiB, at the cost of")
    said = said_of("A", "--set", "width=0.125", "--context", "0", "--fit", "300MiB", "--checkpoint", "block1")
    largest = vggkit.max_batch("A", "300MiB", allocator=EXPANDABLE, checkpoint="block1", **arguments)
    assert said == f"With --allocator {EXPANDABLE} batch {largest} would run on 300.00 MiB, at no cost"


def test_where_nothing_makes_room_nothing_is_said() -> None:
    """The parameters alone are too much; in a forward pass there is nothing to run again."""
    assert "With --" not in printed("memory", "D", "--fit", "2GB", "--device", "cpu", "--mode", "inference")
    assert "With --" not in run("memory", "D", "--fit", "1GB", "--device", "cpu").output


def test_autocast_at_batch_1_is_said_to_hold_more() -> None:
    """The copies of the weights outweigh the smaller activations; at batch 64 they don't."""
    assert "Autocast holds more than plain float32 would" in printed("memory", "D", "--autocast")
    assert "Autocast holds more" not in printed("memory", "D", "--autocast", "--batch", "64")

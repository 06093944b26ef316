"""What lowers a peak without a limit: the cheapest checkpoints, held against every set of blocks, and the sentences."""

from __future__ import annotations

from itertools import combinations

import pytest

import vggkit
from tests.cli.test_app import printed
from tests.conftest import sample
from tests.footprint.remedies.macs import recomputed_macs
from vggkit.base.numbers import megabytes
from vggkit.footprint.plan import plan_step
from vggkit.footprint.remedies import search
from vggkit.footprint.remedies.advice import cheapest_checkpoints
from vggkit.footprint.remedies.kinds import run_again
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
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

    monkeypatch.setattr(search, "step_of", counted)
    text = f"{{input: 2x8x8, blocks: [{', '.join(['[conv3-2, conv3-2]'] * 20)}]}}"
    network = Network.of(vggkit.loads(text))
    advised = cheapest_checkpoints(network, StepOptions(batch=8))
    assert len(tried) <= search.MOST_COMBINED + 1
    assert advised.options.checkpoint == tuple(f"block{number}" for number in range(1, 21))


def test_autocast_at_batch_1_is_said_to_hold_more() -> None:
    """The copies of the weights outweigh the smaller activations; at batch 64 they don't."""
    assert "Autocast holds more than plain float32 would" in printed("memory", "D", "--autocast")
    assert "Autocast holds more" not in printed("memory", "D", "--autocast", "--batch", "64")

"""What is known of peaks from few walks, held against a walk through each step."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import vggkit
from tests.footprint.grid import Question, drawn_perceptual_losses, drawn_steps, network_of, split
from vggkit.footprint.plan import peak_bytes
from vggkit.footprint.remedies import bounds
from vggkit.footprint.remedies.bounds import Bounds
from vggkit.footprint.sharing import Sharing, sharings
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.footprint.steps.refusals import decided
from vggkit.footprint.steps.step import Step
from vggkit.network import Network

BATCHES = 3, 2000


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink takes minutes
)
@given(drawn_steps(st.just(1)) | drawn_perceptual_losses(st.just(1)), st.booleans())
def test_on_the_cpu_every_peak_is_known_exactly(question: Question, is_accumulated: bool) -> None:
    """Of each set of blocks, at each batch, whatever was asked before; on a card no step holds less than is known."""
    network = network_of(question)
    options = checked_options(network, **split(question)[1])
    blocks = tuple(dict.fromkeys(placed.block for placed in network if placed.block))
    sets = [chosen for size in range(len(blocks) + 1) for chosen in combinations(blocks, size)]
    if is_accumulated and options.takes("accumulate"):
        options = options.replace(accumulate=5)
    known = Bounds(network)
    for chosen in sets if options.takes("checkpoint") else [()]:
        for batch in BATCHES:
            asked = options.replace(batch=batch, checkpoint=chosen)
            peak = step_of(network, asked).peak.size
            assert known.exceed(asked, peak - 1)
            assert not known.exceed(asked, peak)
            on_card = asked.replace(device="cuda")
            assert not known.exceed(on_card, step_of(network, on_card).peak.size)


STAGES = (
    "{input: 4x16x16, blocks: [[conv3-8, conv3-8, maxpool], [conv3-16, conv3-16], [conv3-16, conv3-16],"
    " [conv3-32, maxpool]], classifier: [FC-300, FC-5]}"
)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("cut", ["block3", "fc1"])
@pytest.mark.parametrize("rank", [0, 1])
def test_of_a_stage_whose_microbatches_meet_every_peak_is_known_exactly(cut: str, schedule: str, rank: int) -> None:
    """Blocks behind a block have kept what they need of an earlier microbatch, so that nothing is known of a part."""
    network, known = Network.of(vggkit.loads(STAGES)), Bounds(Network.of(vggkit.loads(STAGES)))
    blocks = tuple(f"block{number}" for number in range(1, 5))
    stage = {"ranks": 2, "parallel": "pipeline", "cut": cut, "schedule": schedule, "rank": rank}
    for chosen in (chosen for size in range(5) for chosen in combinations(blocks, size)):
        for batch in (2, 8):
            asked = decided(network, checked_options(network, batch=batch, checkpoint=chosen, **stage))
            assert asked is not None
            peak = step_of(network, asked).peak.size
            assert known.exceed(asked, peak - 1)
            assert not known.exceed(asked, peak)


@pytest.mark.parametrize("sharing", list(sharings(4)), ids=lambda sharing: sharing.typed)
def test_no_rank_holds_less_than_is_known(sharing: Sharing) -> None:
    """Of each way to share the work, whatever blocks are run again."""
    network, known = Network.of(vggkit.loads(STAGES)), Bounds(Network.of(vggkit.loads(STAGES)))
    for chosen in ((), ("block1",), ("block1", "block2"), ("block3",)):
        shared = sharing.of(checked_options(network, checkpoint=chosen), images=32, ranks=4)
        asked = decided(network, shared)
        assert asked is None or not known.exceed(asked, peak_bytes(network, asked))


def test_few_walks_answer_for_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first block alone holds too much, the others need not be tried; nor other batches, which are lines."""
    walks: list[StepOptions] = []

    def counted(network: Network, options: StepOptions) -> Step:
        walks.append(options)
        return step_of(network, options)

    monkeypatch.setattr(bounds, "step_of", counted)
    text = f"{{input: 4x16x16, blocks: [{', '.join(['[conv3-4, conv3-4, maxpool]'] * 4)}]}}"
    network = Network.of(vggkit.loads(text))
    known = Bounds(network)
    blocks = tuple(f"block{number}" for number in range(1, 5))
    sets = [chosen for size in range(5) for chosen in combinations(blocks, size)]
    assert all(known.exceed(StepOptions(batch=64, checkpoint=chosen), 500_000) for chosen in sets)
    assert len(walks) == 2
    assert known.exceed(StepOptions(batch=640), 5_000_000)
    assert len(walks) == 2
    assert not known.exceed(StepOptions(batch=64, checkpoint=blocks), 10**9)
    assert len(walks) == 3

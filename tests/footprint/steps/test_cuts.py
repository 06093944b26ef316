"""Where a pipeline is cut if nobody says it, held against all cuts that there are."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import vggkit
from tests.conftest import sample
from tests.drawn import networks
from tests.footprint.ranks.test_pipelines import TINY
from tests.footprint.ranks.test_replicas import SMALL
from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks import stages_of
from vggkit.footprint.steps import cuts
from vggkit.network import Network

FOLLOWING = ("norm", "activation", "dropout")


def every_cut(network: Network, ranks: int) -> list[tuple[str, ...]]:
    """Return every cut before layers that don't belong to the one before."""
    names = [placed.name for placed in network.modules()[1:] if placed.layer.role not in FOLLOWING]
    return list(combinations(names, ranks - 1))


def fullest(network: Network, cut: tuple[str, ...], arguments: dict[str, Any]) -> int | None:
    """Return what the fullest rank holds; None if a stage trains nothing."""
    try:
        return max(rank.bytes for rank in vggkit.memory(network, cut=cut, **arguments).by_rank)
    except ArgumentError:
        return None


def largest_macs(network: Network, cut: tuple[str, ...], _: dict[str, Any]) -> int | None:
    """Return the multiply-accumulates of the largest stage; None if a stage trains nothing."""
    stages = stages_of(network, cut)
    if not all(any(placed.layer.parameters(placed.input_shape) for placed in stage.layers) for stage in stages):
        return None
    return max(sum(one.layer.multiply_accumulates(one.input_shape) for one in stage.layers) for stage in stages)


def sent(network: Network, cut: tuple[str, ...]) -> int:
    """Return how many values of an image are sent between stages."""
    shapes = [stage.layers[0].input_shape for stage in stages_of(network, cut)[1:]]
    return sum(shape[0] * (shape[1] * shape[2] if len(shape) > 1 else 1) for shape in shapes)


FIGURES = {"memory": fullest, "macs": largest_macs}


def assert_it_is_the_best(network: Network, balance: str, arguments: dict[str, Any]) -> None:
    """Compare with all cuts: none has less, and of those that have as little none sends less."""
    figures = {cut: FIGURES[balance](network, cut, arguments) for cut in every_cut(network, arguments["ranks"])}
    known = {cut: figure for cut, figure in figures.items() if figure is not None}
    found = stages_of(network, vggkit.memory(network, balance=balance, **arguments).options.group.cut)
    cut = tuple(stage.layers[0].name for stage in found[1:])
    least = min(known.values())
    assert known[cut] == least
    assert sent(network, cut) == min(sent(network, one) for one, figure in known.items() if figure == least)


CASES = [
    f"{balance}; {ranks}; {schedule}; {parts} of {images}"
    for balance in FIGURES
    for ranks in (2, 3, 4, 5)
    for schedule in ("gpipe", "1f1b")
    for parts, images in ((5, 1), (6, 40), (8, 400))
]
FEW = ["memory; 3; gpipe; 6 of 40", "memory; 4; 1f1b; 8 of 400", "memory; 4; gpipe; 5 of 1", "macs; 4; gpipe; 5 of 1"]


@pytest.mark.parametrize("case", sample(CASES, FEW))
def test_no_other_cut_has_less(case: str) -> None:
    """At a batch at which parameters matter, and at those at which activations do."""
    balance, ranks, schedule, numbers = case.split("; ")
    parts, images = map(int, numbers.split(" of "))
    group: dict[str, Any] = {"ranks": int(ranks), "parallel": "pipeline", "schedule": schedule, "microbatches": parts}
    assert_it_is_the_best(Network.of(vggkit.loads(TINY)), balance, {"batch": parts * images, **group})


@pytest.mark.parametrize(
    "options",
    [
        {"freeze": "block1_conv1"},
        {"checkpoint": "block1"},
        {"optimizer": "adamw", "zero_grad": "zero"},
        {"device": "cuda"},
    ],
    ids=str,
)
def test_no_other_cut_has_less_in_a_special_loop(options: dict[str, Any]) -> None:
    """With frozen layers, blocks that are run again, another optimizer, and of what a card reserves."""
    group: dict[str, Any] = {"ranks": 3, "parallel": "pipeline", "microbatches": 4}
    assert_it_is_the_best(Network.of(vggkit.loads(TINY)), "memory", {"batch": 80, **group, **options})


@pytest.mark.slow
@given(networks(), st.integers(2, 4), st.sampled_from(["gpipe", "1f1b"]), st.integers(4, 6), st.integers(1, 60))
@settings(  # most drawn networks are too short for so many stages
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
def test_no_other_cut_of_a_drawn_network_has_less(
    network: Network, ranks: int, schedule: str, parts: int, images: int
) -> None:
    """Of whatever layers."""
    group: dict[str, Any] = {"ranks": ranks, "parallel": "pipeline", "schedule": schedule, "microbatches": parts}
    assume(2 <= len(every_cut(network, ranks)) <= 100)
    try:
        assert_it_is_the_best(network, "memory", {"batch": parts * images, **group})
    except ArgumentError:  # a normalisation would see a single value, or there are too few stages
        assume(False)


def test_few_stages_are_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """E has 300 stages of one or more layers, in each of eight places; bounds are enough for most."""
    walked: list[cuts.Edge] = []
    exact = cuts.Memory.exact

    def noting(self: cuts.Memory, edge: cuts.Edge) -> int:
        walked.append(edge)
        return exact(self, edge)

    monkeypatch.setattr(cuts.Memory, "exact", noting)
    vggkit.memory("E", batch=64, ranks=8, parallel="pipeline", schedule="1f1b")
    assert 0 < len(walked) < 100
    assert len(set(walked)) == len(walked)


def test_a_plan_says_which_cuts_were_chosen() -> None:
    """In the title, in a sentence and in the JSON; given as names they give the same figures."""
    plan = vggkit.memory("D", batch=64, ranks=4, parallel="pipeline")
    cut = plan.to_dict()["cut"]
    assert f"cut at {' and '.join(cut)}" in plan.title
    assert f"The stages behind the first begin with {' and '.join(cut)};" in str(plan)
    assert vggkit.memory("D", batch=64, ranks=4, parallel="pipeline", cut=cut).by_rank == plan.by_rank
    assert cut[0].startswith("block1_")
    assert "block2" in cut


def test_more_ranks_than_stages_are_refused() -> None:
    """Each needs a parameter that is trained; a copy of the model has its share of the ranks."""
    said = "parallel pipeline expected at most 11 stages, as A has no more with a parameter that is trained, found 12"
    with pytest.raises(ArgumentError, match=f"^ranks: {said}$"):
        vggkit.memory("A", batch=12, ranks=12, parallel="pipeline")
    assert len(vggkit.memory("A", batch=11, ranks=11, parallel="pipeline").by_rank) == 11
    with pytest.raises(ArgumentError, match=r"expected at most 9 stages, as A has no more .*, found 12$"):
        vggkit.memory("A", batch=12, ranks=24, parallel="pipeline+ddp", freeze=["block1", "block2"])


def test_networks_with_one_parameter_or_none_are_refused() -> None:
    """What can't be cut, and what no optimizer could be made for."""
    group: dict[str, Any] = {"batch": 2, "ranks": 2, "parallel": "pipeline"}
    with pytest.raises(ArgumentError, match="expected at most 1 stage, as x has no more"):
        vggkit.memory(vggkit.loads("{name: x, input: 3x8x8, blocks: [[conv3-2, maxpool]]}"), **group)
    with pytest.raises(ArgumentError, match=r"^parallel: pipeline needs a parameter that is trained, and x has none$"):
        vggkit.memory(vggkit.loads("{name: x, input: 3x8x8, blocks: [[maxpool, maxpool]]}"), **group)


def test_the_largest_batch_has_the_cuts_that_are_best_for_it() -> None:
    """With no cuts there is room for a larger one, and with the best of them for this one."""
    group: dict[str, Any] = {"ranks": 3, "parallel": "pipeline", "microbatches": 4}
    limit = 20_000_000
    most = vggkit.max_batch("A", limit, device="cpu", **group, **SMALL)
    plans = [vggkit.memory("A", batch=most + more, **group, **SMALL) for more in (0, 4)]
    assert plans[0].peak_bytes <= limit < plans[1].peak_bytes
    network = Network.of("A", **SMALL)
    trained = [cut for cut in every_cut(network, 3) if fullest(network, cut, {"batch": 4, **group}) is not None]
    assert max(vggkit.max_batch(network, limit, device="cpu", cut=cut, **group) for cut in trained) == most

"""Copies of a pipeline whose stages average gradients, held against torch's pipelining of DistributedDataParallel."""

from __future__ import annotations

from itertools import cycle, product
from typing import Any

import pytest

import vggkit
from tests.conftest import sample
from tests.footprint.card import Card
from tests.footprint.ranks.staged import peak, tracked
from tests.footprint.ranks.test_pipelines import CUTS, LOOPS, TINY
from tests.footprint.ranks.test_replicas import SMALL, assert_torchs_order, assert_torchs_steps
from vggkit.base.errors import ArgumentError
from vggkit.footprint.plan import plan_step
from vggkit.footprint.ranks import SCHEDULES, PipelineReplicas
from vggkit.footprint.ranks.traffic import all_reduce
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions, checked_options
from vggkit.network import Network


def ranks_of(network: Network, cut: list[str], replicas: int, **arguments: Any) -> list[StepOptions]:
    """Return what the step of each rank of the last copy is like."""
    stages = len(cut) + 1
    group: dict[str, Any] = {"ranks": stages * replicas, "parallel": "pipeline+ddp", "replicas": replicas, "cut": cut}
    last = range(stages * (replicas - 1), stages * replicas)
    return [checked_options(network, **group, rank=rank, **arguments) for rank in last]


# Against torch, by MemTracker on real tensors

WAYS: dict[str, dict[str, Any]] = {
    **LOOPS,
    "plain": {},
    "small buckets": {"bucket_cap_mb": 0.005},
    "adamw": {"optimizer": "adamw"},
    "one image each": {"batch": 5},
}
# the CPU's figures are those of fake tensors: of real ones batch norm keeps wider statistics of bfloat16, and the mean
# squared error, a single value, stays in memory as large as the output
ON_THE_CPU = [word for word, options in WAYS.items() if "autocast" not in options and word != "mean-squared-error"]
CASES = [f"{cut}; {schedule}; {word}" for cut, (word, schedule) in zip(cycle(CUTS), product(ON_THE_CPU, SCHEDULES))]


@pytest.mark.parametrize("case", sample(CASES, CASES[-3:]))
def test_each_rank_has_memtrackers_peak(case: str) -> None:
    """In two copies and in three, in each loop."""
    cut, schedule, word = case.split("; ")
    network, arguments = Network.of(vggkit.loads(TINY)), {"batch": 40, "microbatches": 5, "schedule": schedule}
    for options in ranks_of(network, CUTS[cut], 2 + (schedule == "1f1b"), **{**arguments, **WAYS[word]}):
        assert plan_step(network, options).peak_bytes == peak(network, options)


def test_the_buckets_are_torchs() -> None:
    """Sent once in a step, behind the last microbatch; what is sent between neighbours is that of a single copy."""
    network = Network.of(vggkit.loads(TINY))
    for options in ranks_of(network, ["block2"], 3, batch=8, microbatches=2, bucket_cap_mb=0.005):
        with tracked(network, options) as (training, _):
            for _ in range(3):
                training.sent.clear()
                training.step()
            sent = list(training.sent)
        strategy = step_of(network, options).strategy
        assert isinstance(strategy, PipelineReplicas)
        assert [bucket.constant for bucket in strategy.replicas.buckets] == sent
        group: dict[str, Any] = {"ranks": 2, "rank": options.group.own % 2, "parallel": "pipeline", "cut": "block2"}
        alone = vggkit.memory(network, batch=8, microbatches=2, **group)
        averaged = sum(all_reduce(size, 3).sent for size in sent)
        assert plan_step(network, options).sent_bytes == alone.sent_bytes + averaged


# Against torch's allocator, on the card that isn't there


@pytest.mark.parametrize("word", sample(list(WAYS), ["small buckets", "all together, 1f1b"]))
def test_each_loop_takes_of_a_card_what_torchs_allocator_says(card: Card, word: str) -> None:
    """All that is allocated and freed, in order, from the running statistics of the first step to the new buckets."""
    for rank, schedule in product(range(3), SCHEDULES):
        group = {"ranks": 6, "rank": rank, "parallel": "pipeline+ddp", "cut": ["block1_norm2", "fc1"]}
        question = {"config": TINY, "batch": 60, "microbatches": 5, **group, "schedule": schedule, **WAYS[word]}
        assert_torchs_order(card, question)
        assert_torchs_steps(card, question)


# What a plan says


def test_the_batch_is_a_replicas() -> None:
    """Ranks of the same stage hold the same, those of a copy follow each other."""
    plan = vggkit.memory("D", batch=32, ranks=8, parallel="pipeline+ddp", replicas=4, cut="block3")
    assert "batch 32 on each replica" in plan.title
    assert "The batch is one replica's, so that a step has 128 images in all." in str(plan)
    assert [rank.peak_bytes for rank in plan.by_rank] == [rank.peak_bytes for rank in plan.by_rank[:2]] * 4
    alone = vggkit.memory("D", batch=32, ranks=2, parallel="pipeline", cut="block3")
    trained = vggkit.summarize("D").totals.parameter_bytes
    more = [rank.peak_bytes - one.peak_bytes for rank, one in zip(plan.by_rank, alone.by_rank)]
    assert sum(more) == trained  # the buckets
    assert "to and from its neighbours, and in rings" in str(plan)


def test_cuts_are_found_for_each_copy() -> None:
    """As for a single one whose ranks have buckets besides."""
    plan = vggkit.memory("A", batch=8, ranks=6, parallel="pipeline+ddp", balance="macs", **SMALL)
    alone = vggkit.memory("A", batch=8, ranks=3, parallel="pipeline", balance="macs", **SMALL)
    assert plan.options.group.cut == alone.options.group.cut
    assert plan.options.microbatches == alone.options.microbatches


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ranks": 5}, "ranks: parallel pipeline+ddp expected a product of two numbers above 1, found 5"),
        ({"ranks": 6, "replicas": 4}, "replicas: 6 ranks by pipeline+ddp expected one of 2, 3, found 4"),
        ({"cut": "block3", "ranks": 6}, "cut: 6 ranks by pipeline+ddp expected a name for each of 3 stages"),
        ({"schedule": "1f1b", "microbatches": 1}, "microbatches: schedule 1f1b needs as many as there are stages, 2"),
        ({"static_graph": True}, "static_graph: expected a parallel that has it (ddp, ddp-view, zero1), found"),
        ({"accumulate": 2}, "accumulate: can't be combined with parallel pipeline+ddp, whose microbatches are just"),
        ({"step_in_backward": True}, "step_in_backward: can't be combined with parallel pipeline+ddp, where the"),
    ],
    ids=str,
)
def test_what_copies_of_a_pipeline_can_not_do_is_refused(options: dict[str, Any], said: str) -> None:
    """In one line that names the argument."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("D", **{"ranks": 4, "batch": 4, "parallel": "pipeline+ddp", **options})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)

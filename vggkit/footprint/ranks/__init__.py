"""One rank of several that train a network together: what it holds besides, and what it sends.

torch has an engine for each strategy; here each is a class, with all its rules. `group` says how many ranks there are
and what they do, `strategy` what every class must define, `traffic` what the operations send. The figures are those of
torch `TORCH`. A new strategy is one class, and its place in `STRATEGIES`.

What is not counted: buffers of NCCL, and what is broadcast when the model is wrapped, before the first step.
"""

from __future__ import annotations

from typing import Any

from vggkit.base.errors import ArgumentError, one_of, shorten
from vggkit.base.numbers import whole
from vggkit.footprint.ranks.group import AUTO, Group, GroupArguments
from vggkit.footprint.ranks.pipeline_replicas import PipelineReplicas
from vggkit.footprint.ranks.pipelines import BALANCES, MOST_MICROBATCHES, Pipeline, Stage, stages_of
from vggkit.footprint.ranks.replicas import Replicas, ReplicasInViews
from vggkit.footprint.ranks.schedules import SCHEDULES
from vggkit.footprint.ranks.shards import MIXED_DTYPES, UNITS, FullyShard
from vggkit.footprint.ranks.strategy import Alone, Choice, Placed, Strategy
from vggkit.footprint.ranks.tensor_replicas import TensorReplicas
from vggkit.footprint.ranks.tensors import TensorParallel
from vggkit.footprint.ranks.zero import ShardedOptimizer
from vggkit.network import several

__all__ = [
    "AUTO",
    "BALANCES",
    "MIXED_DTYPES",
    "MOST_RANKS",
    "NO_GROUP",
    "SCHEDULES",
    "STRATEGIES",
    "TORCH",
    "UNITS",
    "Alone",
    "Choice",
    "Group",
    "GroupArguments",
    "Pipeline",
    "PipelineReplicas",
    "Placed",
    "Stage",
    "Strategy",
    "checked_group",
    "stages_of",
]

STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind
    for kind in (
        Alone,
        Replicas,
        ReplicasInViews,
        ShardedOptimizer,
        FullyShard,
        TensorParallel,
        TensorReplicas,
        Pipeline,
        PipelineReplicas,
    )
}
"""Every strategy by the word that asks for it."""

NO_GROUP = Group()
"""One process."""

TORCH = "2.14"
"""The version of torch whose engines are planned."""

MOST_RANKS = 4096
"""Ranks that may be asked for."""


def checked_group(
    ranks: Any = 1,
    parallel: Any = Alone.name,
    rank: Any = None,
    bucket_cap_mb: Any = None,
    static_graph: Any = False,
    units: Any = "blocks",
    reshard_after_forward: Any = True,
    replicas: Any = 2,
    param_dtype: Any = None,
    reduce_dtype: Any = None,
    cut: Any = AUTO,
    microbatches: Any = None,
    schedule: Any = "gpipe",
    balance: Any = "memory",
) -> Group:
    """Check arguments of a group; `Group` explains them.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    count = whole(ranks, "ranks", largest=MOST_RANKS)
    strategy = STRATEGIES[one_of(STRATEGIES, parallel, "parallel")]
    together = [word for word in STRATEGIES if word != Alone.name]
    if count > 1 and strategy is Alone:
        raise ArgumentError(f"parallel: {count} ranks need one of {', '.join(together)}")
    if count == 1 and strategy is not Alone:
        raise ArgumentError(f"ranks: parallel {strategy.name} needs 2 or more, found 1")
    if rank is not None:
        if strategy is Alone:
            raise ArgumentError("rank: needs several ranks")
        whole(rank, "rank", least=0, largest=count - 1)
    if bucket_cap_mb is not None and (
        isinstance(bucket_cap_mb, bool) or not isinstance(bucket_cap_mb, (int, float)) or not 0 < bucket_cap_mb < 1e12
    ):
        raise ArgumentError(f"bucket_cap_mb: expected a number above 0 and below 1e+12, found {shorten(bucket_cap_mb)}")
    for word, value in (("static_graph", static_graph), ("reshard_after_forward", reshard_after_forward)):
        if not isinstance(value, bool):
            raise ArgumentError(f"{word}: expected True or False, found {shorten(value)}")
    if microbatches is not None:
        microbatches = whole(microbatches, "microbatches", largest=MOST_MICROBATCHES)
    names = several(cut, "cut")
    if AUTO in names and names != (AUTO,):
        raise ArgumentError(f"cut: {AUTO} can't be combined with names, found {shorten(', '.join(map(str, names)))}")
    group = Group(
        ranks=count,
        parallel=strategy.name,
        rank=rank,
        bucket_cap_mb=bucket_cap_mb,
        static_graph=static_graph,
        units=one_of(UNITS, units, "units"),
        reshard_after_forward=reshard_after_forward,
        replicas=whole(replicas, "replicas", least=2, largest=MOST_RANKS),
        param_dtype=_dtype(param_dtype, "param_dtype"),
        reduce_dtype=_dtype(reduce_dtype, "reduce_dtype"),
        cut=AUTO if names == (AUTO,) else names,
        microbatches=microbatches,
        schedule=one_of(SCHEDULES, schedule, "schedule"),
        balance=one_of(BALANCES, balance, "balance"),
    )
    for word in group.given:
        if word not in strategy.takes:
            having = ", ".join(kind.name for kind in STRATEGIES.values() if word in kind.takes)
            raise ArgumentError(f"{word}: expected a parallel that has it ({having}), found {strategy.name}")
    return group


def _dtype(given: Any, word: str) -> str | None:
    """Return torch's name of a dtype, or None if none is given."""
    return None if given is None else one_of(MIXED_DTYPES, str(given).removeprefix("torch."), word)

"""How many ranks train a network together, and how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex, TypedDict

import msgspec

from vggkit.network import Dtype

AUTO = "auto"
"""Cuts that are found."""


class Group(msgspec.Struct, frozen=True):
    """The ranks that train a network together, as torch's engines take them.

    Args:
        ranks: how many there are.
        parallel: what they do: a key of `vggkit.footprint.ranks.STRATEGIES`.
        rank: whose memory it is, counted from 0; None for the rank that holds the most.
        bucket_cap_mb: of `ddp`: a bucket of gradients is closed once it has so many MiB; None for torch's own choice,
            1 for the first and 25 for the others.
        static_graph: of `ddp`: whether torch is told that every step has the same graph.
        units: of `fsdp`: what is gathered together: "blocks" and single FC layers, "layers", or the whole model as the
            "root".
        reshard_after_forward: of `fsdp`: whether a unit's parameters are freed between its forward and its backward
            pass.
        replicas: of `tensor+ddp` and `pipeline+ddp`: how many copies of the divided model there are; each has its share
            of the ranks.
        param_dtype: of `fsdp`: the dtype in which parameters are gathered and layers run; None for the model's own.
        reduce_dtype: of `fsdp`: the dtype in which gradients are added up; None for that of `param_dtype`.
        cut: of `pipeline`: names of the blocks or layers with which each stage but the first one begins; "auto" for
            those that balance best.
        microbatches: of `pipeline`: into how many parts a batch is divided; None for as many as there are stages, or
            the next number that divides the batch.
        schedule: of `pipeline`: in which order they run: a key of `vggkit.footprint.ranks.schedules.SCHEDULES`.
        balance: of `cut="auto"`: what the largest stage has the least of: "memory", or "macs" for multiply-accumulates.
    """

    ranks: int = 1
    parallel: str = "none"
    rank: int | None = None
    bucket_cap_mb: float | None = None
    static_graph: bool = False
    units: str = "blocks"
    reshard_after_forward: bool = True
    replicas: int = 2
    param_dtype: str | None = None
    reduce_dtype: str | None = None
    cut: str | tuple[str, ...] = AUTO
    microbatches: int | None = None
    schedule: str = "gpipe"
    balance: str = "memory"

    @property
    def own(self) -> int:
        """The rank whose memory it is; the first one if nobody has asked for one."""
        return self.rank or 0

    @property
    def given(self) -> dict[str, Any]:
        """The options of a strategy that differ from their defaults."""
        every = {word: getattr(self, word) for word in OPTIONS}
        return {word: value for word, value in every.items() if value != getattr(ALONE, word)}

    @property
    def words(self) -> list[str]:
        """What differs from a single process, in words."""
        if self.ranks == 1:
            return []
        whose = "" if self.rank is None else f"rank {self.rank} of "
        said = [_said(word.replace("_", " "), value) for word, value in self.given.items()]
        return [f"{whose}{self.ranks} ranks by {self.parallel}", *said]


def _said(word: str, value: Any) -> str:
    if isinstance(value, bool):
        return word if value else f"no {word}"
    if isinstance(value, tuple):
        return f"{word} at {' and '.join(value)}"
    return f"{word} {value}"


OPTIONS = (
    "bucket_cap_mb",
    "static_graph",
    "units",
    "reshard_after_forward",
    "replicas",
    "param_dtype",
    "reduce_dtype",
    "cut",
    "microbatches",
    "schedule",
    "balance",
)
"""The fields that not every strategy has."""

ALONE = Group()


class GroupArguments(TypedDict, total=False):
    """The fields of `Group` as keywords, for type checkers."""

    ranks: SupportsIndex
    parallel: str
    rank: SupportsIndex | None
    bucket_cap_mb: float | None
    static_graph: bool
    units: str
    reshard_after_forward: bool
    replicas: SupportsIndex
    param_dtype: Dtype | None
    reduce_dtype: Dtype | None
    cut: str | Iterable[str]
    microbatches: SupportsIndex | None
    schedule: str
    balance: str

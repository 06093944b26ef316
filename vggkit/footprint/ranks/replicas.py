"""Each rank has the whole model, and gradients are averaged: `torch.nn.parallel.DistributedDataParallel`.

Gradients are copied into buckets, large tensors that are sent as a whole while the backward pass goes on
(torch/csrc/distributed/c10d/reducer.cpp). In the first step there is one bucket of everything. At the beginning of the
second one, as DistributedDataParallel then knows in which order gradients come, it makes the buckets that stay.

Of `accumulate` batches only the last one's backward pass sends gradients; the others run in `no_sync()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vggkit.base.eager import COMMUNICATION, Eager, Parameter, Storage
from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks.group import Group
from vggkit.footprint.ranks.strategy import Asked, Placed, WholeModel
from vggkit.footprint.ranks.traffic import Traffic, all_reduce, broadcast

MIB = 1 << 20

FIRST_BUCKET_MB, BUCKET_MB = 1, 25
"""MiB at which the first bucket is closed, and each other one, if nobody says anything
(kDefaultFirstBucketBytes in torch/csrc/distributed/c10d/reducer.hpp; _DEFAULT_BUCKET_CAP_MB in
torch/nn/parallel/distributed.py)."""

NUMBER_BYTES = 4
"""An int32, as the reducer keeps for each parameter."""

WRAPPING = "construction of DistributedDataParallel"
"""The event in which the model is wrapped."""

REBUILDING = "new buckets"
"""The event in which the buckets that stay are made."""

SYNCHRONISING = "broadcast of running statistics"
"""The event in which each rank gets rank 0's buffers, before the forward pass."""


def closed(sizes: Iterable[int], caps: Sequence[int]) -> list[list[int]]:
    """Put tensors into buckets (compute_bucket_assignment_by_size, in reducer.cpp).

    Args:
        sizes: the bytes of each, in order.
        caps: bytes at which the first bucket is closed, the second one, and so on; the last is for all further ones.

    Returns:
        The positions of each bucket's tensors.

    >>> closed([3, 3, 9, 1, 1], [4, 10])
    [[0, 1], [2, 3], [4]]
    """
    limits = list(caps)
    buckets: list[list[int]] = [[]]
    filled = 0
    for position, size in enumerate(sizes):
        buckets[-1].append(position)
        filled += size
        if filled >= limits[0]:
            limits = limits[1:] or limits
            buckets.append([])
            filled = 0
    return [bucket for bucket in buckets if bucket]


class Replicas(WholeModel):
    """Gradients are copied into the buckets, and the averages back."""

    name = "ddp"
    words = "has the whole model, and buckets for all gradients"
    takes = ("bucket_cap_mb", "static_graph")

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, group, placed)
        trained = placed.trained
        before, eager.event = eager.events, WRAPPING
        eager.events = []  # `rebuilt` says when the buckets that stay are made
        first = eager.new(0, sum(parameter.storage.constant for parameter in trained), COMMUNICATION)
        eager.release(first)
        eager.event = REBUILDING
        self.buckets = self._made_buckets(placed.arrival(), first)
        self.rebuilt, eager.events, eager.event = eager.events[2:], before, WRAPPING
        eager.events.append((WRAPPING, first, True))
        maps = (1 if eager.device == "cuda" else 2) if group.static_graph else 0  # one of the two is on the CPU
        self.maps = [eager.new(0, NUMBER_BYTES * len(trained), COMMUNICATION) for _ in range(maps)]

    def _made_buckets(self, arrived: Sequence[Parameter], first: Storage) -> dict[Storage, list[Parameter]]:
        """Allocate the buckets that stay, as soon as all ranks know what will be in each."""
        eager, cap = self.eager, self.group.bucket_cap_mb
        caps = [FIRST_BUCKET_MB * MIB, BUCKET_MB * MIB] if cap is None else [int(cap * MIB)]
        assigned = closed((parameter.storage.constant for parameter in arrived), caps)
        places = eager.new(0, NUMBER_BYTES * (len(arrived) + 1))
        lengths = eager.new(0, NUMBER_BYTES * len(assigned))
        eager.release(lengths, places)
        freed = (REBUILDING, first, False)
        eager.events += [] if self._outlives else [freed]
        buckets = {}
        for positions in assigned:
            held = [arrived[position] for position in positions]
            buckets[eager.new(0, sum(parameter.storage.constant for parameter in held), COMMUNICATION)] = held
        eager.events += [freed] if self._outlives else []
        return buckets

    @property
    def _outlives(self) -> bool:
        """Whether the first bucket is there until the others are, as gradients hold it."""
        return False

    @classmethod
    def early_steps(cls, group: Group) -> int:
        """Return 2; with a static graph the order of gradients is known one step later."""
        return 3 if group.static_graph else 2

    @property
    def kept(self) -> Iterable[Storage]:
        return (*super().kept, *self.buckets, *self.maps)

    def traffic(self, rank: int) -> Traffic:
        total, ranks = Traffic(), self.group.ranks
        for bucket in self.buckets:
            total = total.plus(all_reduce(bucket.constant, ranks))
        for buffer in (*self.placed.statistics, *self.placed.counters):
            total = total.plus(broadcast(buffer.constant, ranks, rank))
        return total

    def begin_step(self) -> None:
        """Get rank 0's buffers, those of each dtype joined to one tensor (torch/csrc/distributed/c10d/comm.cpp)."""
        eager, joined = self.eager, []
        eager.event = SYNCHRONISING
        for buffers in (self.placed.statistics, self.placed.counters):
            if len(buffers) > 1:
                joined.append(eager.new(0, sum(buffer.constant for buffer in buffers), COMMUNICATION))
                eager.note()
        eager.release(*joined)

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:
        if step.step_in_backward:
            raise ArgumentError(
                f"step_in_backward: can't be combined with parallel {cls.name}, as the step would come before the"
                " gradients of the other ranks"
            )
        if group.static_graph and step.accumulate > 1:
            raise ArgumentError(
                "static_graph: can't be combined with accumulate, as torch fails in a first backward pass that sends"
                " nothing"
            )


class ReplicasInViews(Replicas):
    """Gradients are views of the buckets, with `gradient_as_bucket_view=True`.

    A gradient that is not there before is made beside its bucket, copied into that, and freed.
    """

    name = "ddp-view"
    words = "has the whole model, and gradients in buckets"

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        super().__init__(eager, group, placed)
        self._bucket_of = {parameter: bucket for bucket, held in self.buckets.items() for parameter in held}

    @property
    def _outlives(self) -> bool:
        return self.placed.gradients_stay

    def gradient_ready(self, parameter: Parameter) -> None:
        bucket = self._bucket_of[parameter]
        if parameter.gradient is not bucket:
            self.eager.release(parameter.gradient)
            parameter.gradient = self.eager.hold(bucket)

    def left_gradient(self, parameter: Parameter) -> Storage:
        return self.eager.hold(self._bucket_of[parameter])

"""Copies of a pipeline: each stage is a `DistributedDataParallel` of those that have it.

torch's stages run every forward pass in `no_sync()`, and let only the last microbatch's backward pass send gradients
(torch/distributed/pipelining/stage.py, `backward_maybe_with_nosync`). So running statistics are handed out before the
first step only, and gradients are copied into buckets once in a step.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from vggkit.base.eager import Event, Storage
from vggkit.footprint.ranks.group import ALONE, Group
from vggkit.footprint.ranks.mesh import Mesh, across_copies, check_mesh, choices_of
from vggkit.footprint.ranks.pipelines import Pipeline
from vggkit.footprint.ranks.replicas import Replicas
from vggkit.footprint.ranks.schedules import SCHEDULES
from vggkit.footprint.ranks.strategy import Asked, Blocks, Choice
from vggkit.footprint.ranks.traffic import Traffic, all_reduce


class PipelineReplicas(Pipeline):
    """A rank has a stage of its copy, and buckets for its gradients."""

    name = "pipeline+ddp"
    words = "runs a stage of its replica, on one microbatch after the other, and has buckets for all gradients"
    sends = "to and from its neighbours, and in rings"
    takes = (*Pipeline.takes, "bucket_cap_mb", "replicas")
    early_steps = Replicas.early_steps

    def wrap(self, blocks: Blocks) -> Blocks:
        """Wrap the stage."""
        self.replicas = Replicas(self.eager, across_copies(self.group), self.placed)
        self.rebuilt = self.replicas.rebuilt
        self.in_first_forward = self._handed_out()
        return blocks

    def _handed_out(self) -> list[Event]:
        """Return what handing out running statistics allocates and frees, which is over before any other step."""
        eager = self.eager
        before, eager.events, moments = eager.events, [], len(eager.moments)
        self.replicas.begin_step()
        events, eager.events = eager.events, before
        del eager.moments[moments:]
        return events

    @property
    def kept(self) -> Iterable[Storage]:
        return (*super().kept, *self.replicas.buckets)

    def likeness(self, rank: int) -> Hashable:
        return Mesh.of(self.group).place(rank).part

    def traffic(self, rank: int) -> Traffic:
        """Return what is sent within a copy, and between copies."""
        total = super().traffic(rank)
        for bucket in self.replicas.buckets:
            total = total.plus(all_reduce(bucket.constant, self.group.replicas))
        return total

    @classmethod
    def choices(cls, ranks: int) -> Iterable[Choice]:
        for copies in choices_of(ranks):
            for word in SCHEDULES:
                yield Choice({**copies.options, **({"schedule": word} if word != ALONE.schedule else {})})

    @classmethod
    def batches(cls, group: Group) -> int:
        return group.replicas

    @classmethod
    def stages(cls, group: Group) -> int:
        return Mesh.of(group).parts

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:
        check_mesh(group)
        super().check(group, step)

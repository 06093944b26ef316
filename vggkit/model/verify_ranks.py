"""The user's proof of several ranks: runs torch's engines, and sets what each rank holds beside what was claimed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.ranks.traffic import Traffic
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import steps_of_ranks
from vggkit.footprint.steps.step import Step
from vggkit.model.claims import Claim, Subject
from vggkit.model.gloo import check_machine, measure_together
from vggkit.model.rank import Measured, measure_alone
from vggkit.network import Network

TRACKER, STORAGES, COLLECTIVES = "MemTracker", "storages", "collectives"
"""The judges: torch's tracker, the model's own tensors, and the operations by which torch sends, in rings."""


def verify_ranks(network: Network, options: StepOptions) -> Iterator[Claim]:
    """Measure each rank in this process, one that differs from others after the other.

    Args:
        network: what is trained.
        options: what a step is like; on the CPU. If they have a rank, it alone is measured.
    """
    alike: dict[tuple[Step, Traffic], list[int]] = {}
    for rank, step in asked(network, options):
        alike.setdefault((step, step.strategy.traffic(rank)), []).append(rank)
    for (step, traffic), ranks in alike.items():
        yield from rank_claims(step, traffic, measure_alone(network, step.options.of_rank(ranks[0])), ranks)


def verify_together(network: Network, options: StepOptions) -> Iterator[Claim]:
    """Measure all ranks at once, each in a process of this machine.

    Args:
        network: what is trained.
        options: what a step is like; on the CPU. If they have a rank, what it alone holds is compared.

    Raises:
        ArgumentError: if the machine has no room for the ranks.
        BuildError: if a process ends early, or they wait for each other for too long.
    """
    copied = step_of(network, options.replace(group=NO_GROUP)).parameter_bytes  # of what is sent, at most about that
    check_machine([step.peak.size + copied for step in steps_of_ranks(network, options)])
    return _claims_together(network, options)


def _claims_together(network: Network, options: StepOptions) -> Iterator[Claim]:
    steps = list(asked(network, options))
    _, first = steps[0]
    measured = measure_together(network, first.options)  # they say where a pipeline is cut
    for rank, step in steps:
        yield from rank_claims(step, step.strategy.traffic(rank), measured[rank], [rank])


def asked(network: Network, options: StepOptions) -> Iterator[tuple[int, Step]]:
    """Yield the ranks that are asked for, one or all, with the step of each."""
    for rank, step in enumerate(steps_of_ranks(network, options)):
        if options.group.rank in (None, rank):
            yield rank, step


def rank_claims(step: Step, traffic: Traffic, measured: Measured, ranks: Sequence[int]) -> Iterator[Claim]:
    """Set what is claimed of a rank beside what was measured of it.

    Args:
        step: what was planned.
        traffic: what it was planned to send and to receive.
        measured: what was measured.
        ranks: the rank, and those of which the same is claimed.
    """
    claim = Subject.of_ranks(ranks).claim
    yield claim("peak", step.peak.size, measured.peak_bytes, TRACKER, exact=measured.is_exact)
    if measured.peak_with_copies > measured.peak_bytes:
        what = "peak with gloo's copy in reduce-scatter"
        yield claim(what, step.peak.size, measured.peak_with_copies, TRACKER, exact=False)
    yield claim("parameters", step.parameter_bytes, measured.parameter_bytes, STORAGES)
    yield claim("between steps", step.steady_bytes, measured.steady_bytes, TRACKER)
    yield claim("sent in a step", traffic.sent, measured.sent_bytes, COLLECTIVES)
    yield claim("received in a step", traffic.received, measured.received_bytes, COLLECTIVES)

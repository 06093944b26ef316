"""The user's proof of several ranks: runs torch's engines, and sets what each rank holds beside what was claimed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggkit.footprint.ranks.traffic import Traffic
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import steps_of_ranks
from vggkit.footprint.steps.step import Step
from vggkit.model.claims import Claim
from vggkit.model.gloo import check_machine, measure_together
from vggkit.model.rank import Measured, check_known, measure_alone
from vggkit.network import Network

TRACKER, STORAGES, COLLECTIVES = "MemTracker", "storages", "collectives"
"""The judges: torch's tracker, the model's own tensors, and the operations by which torch sends, in rings."""


def verify_ranks(network: Network, options: StepOptions) -> Iterator[Claim]:
    """Measure each rank in this process, one that differs from others after the other.

    Args:
        network: what is trained.
        options: what a step is like; on the CPU. If they have a rank, it alone is measured.

    Raises:
        ArgumentError: if torch is not set up for the strategy here.
    """
    check_known(options)
    return _claims_alone(network, options)


def _claims_alone(network: Network, options: StepOptions) -> Iterator[Claim]:
    for (step, traffic), ranks in alike(network, options).items():
        measured = measure_alone(network, options.of_rank(ranks[0]))
        yield from rank_claims(step, traffic, measured, ranks)


def verify_together(network: Network, options: StepOptions) -> Iterator[Claim]:
    """Measure all ranks at once, each in a process of this machine.

    Args:
        network: what is trained.
        options: what a step is like; on the CPU. If they have a rank, what it alone holds is compared.

    Raises:
        ArgumentError: if torch is not set up for the strategy here, or the machine has no room for the ranks.
        BuildError: if a process ends early, or they wait for each other for too long.
    """
    check_known(options)
    steps = steps_of_ranks(network, options)
    check_machine([step.peak.size for step in steps])
    return _claims_together(network, options, steps)


def _claims_together(network: Network, options: StepOptions, steps: Sequence[Step]) -> Iterator[Claim]:
    for rank, measured in enumerate(measure_together(network, options)):
        if options.group.rank in (None, rank):
            step = steps[rank]
            yield from rank_claims(step, step.strategy.traffic(rank), measured, [rank])


def alike(network: Network, options: StepOptions) -> dict[tuple[Step, Traffic], list[int]]:
    """Return the ranks that are asked for by what is claimed of them: the step, and what it sends."""
    asked = options.group.rank
    found: dict[tuple[Step, Traffic], list[int]] = {}
    for rank, step in enumerate(steps_of_ranks(network, options)):
        if asked in (None, rank):
            found.setdefault((step, step.strategy.traffic(rank)), []).append(rank)
    return found


def rank_claims(step: Step, traffic: Traffic, measured: Measured, ranks: Sequence[int]) -> Iterator[Claim]:
    """Set what is claimed of a rank beside what was measured of it.

    Args:
        step: what was planned.
        traffic: what it was planned to send and to receive.
        measured: what was measured.
        ranks: the rank, and those of which the same is claimed.
    """
    for what, claimed, found, judge in (
        ("peak", step.peak.size, measured.peak_bytes, TRACKER),
        ("parameters", step.parameter_bytes, measured.parameter_bytes, STORAGES),
        ("between steps", step.steady_bytes, measured.steady_bytes, TRACKER),
        ("sent in a step", traffic.sent, measured.sent_bytes, COLLECTIVES),
        ("received in a step", traffic.received, measured.received_bytes, COLLECTIVES),
    ):
        yield Claim(f"{words(ranks)}, {what}", claimed, found, judge, ranks=tuple(ranks))
    if measured.peak_with_copies > measured.peak_bytes:
        what = f"{words(ranks)}, peak with gloo's copy in reduce-scatter"
        yield Claim(what, step.peak.size, measured.peak_with_copies, TRACKER, exact=False, ranks=tuple(ranks))


def words(ranks: Sequence[int]) -> str:
    """Write which ranks they are.

    >>> words([3]), words([0, 1]), words([1, 2, 3, 5])
    ('rank 3', 'ranks 0 and 1', 'ranks 1 to 3 and 5')
    """
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    said = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    *others, last = said
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(others)}{' and ' if others else ''}{last}"

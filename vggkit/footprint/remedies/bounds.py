"""What steps hold at least at their peak, from few walks: a search tries only those that this leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from vggkit.base.eager import Moment
from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.remedies.kinds import blocks_of
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
from vggkit.network import Network

Lines = tuple[tuple[int, int], ...]
"""Bytes for one image, and bytes that don't grow with the batch: the highest of these lines counts."""

Beginning = tuple[bool, ...]
"""Whether each of the first blocks is checkpointed; with one more True at its end it is the whole network."""


class Bounds:
    """The least that steps of a network hold at their peak.

    A walk answers for many steps:

    - at every batch of as many microbatches, since bytes are lines over it. On CUDA each tensor is rounded up, to a
      little more;
    - for any number of batches whose gradients are added up, since from the second on all are alike;
    - with all settings of the allocator, since they change no tensor;
    - as far as a block, whichever blocks behind it are checkpointed: in the forward pass those have not run yet, and
      when the backward pass comes to the block, they have given up all that they kept. Not of several ranks, which
      gather, send and receive for other blocks meanwhile.

    Of several ranks the first one is walked through, or the one that is asked for.

    Args:
        network: the network.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._blocks = blocks_of(network)
        ends = {block: end for end, block in enumerate(self._blocks, 1)}
        self._ends = {placed.name: ends[placed.block] for placed in network.modules() if placed.block}
        self._known: defaultdict[StepOptions, dict[Beginning, Lines]] = defaultdict(dict)

    def exceed(self, options: StepOptions, limit: int) -> bool:
        """Tell whether a step is known to hold more than so many bytes at its peak. On the CPU all that do are known.

        Args:
            options: what the step is like; all has been decided that depends on the network.
            limit: the bytes.

        >>> bounds = Bounds(Network.of("D"))
        >>> bounds.exceed(StepOptions(batch=64), 6_343_885_543), bounds.exceed(StepOptions(batch=64), 6_343_885_544)
        (True, False)
        """
        known = self._known[_single(options).replace(allocator="", checkpoint=())]
        for beginning in self._beginnings(options):
            if beginning not in known:
                known.update(self._walked(options))
            if any(per_image * options.at_once + constant > limit for per_image, constant in known[beginning]):
                return True
        return False

    def _beginnings(self, options: StepOptions) -> Iterator[Beginning]:
        chosen = tuple(block in options.checkpoint for block in self._blocks)
        for end in range(1, len(chosen) + 1):
            yield chosen[:end]
        yield *chosen, True

    def _walked(self, options: StepOptions) -> dict[Beginning, Lines]:
        """Return the highest lines of each block, and of what is in none."""
        step = step_of(self._network, _single(options))
        ends = self._ends if options.group == NO_GROUP else {}
        moments: dict[int, list[Moment]] = {end: [] for end in range(1, len(self._blocks) + 2)}
        for moment in step.moments:
            layer = moment.event.rpartition(" of ")[2]
            moments[ends.get(layer, len(self._blocks) + 1)].append(moment)
        return dict(zip(self._beginnings(options), map(_highest, moments.values())))


def _single(options: StepOptions) -> StepOptions:
    """Return what the smallest step is like that answers for others."""
    return options.replace(batch=options.microbatches, accumulate=min(options.accumulate, 2))


def _highest(moments: Iterable[Moment]) -> Lines:
    """Return the lines of moments that are not below another one at every batch."""
    highest: list[tuple[int, int]] = []
    for line in sorted({(moment.per_image, moment.constant) for moment in moments}, reverse=True):
        if not highest or line[1] > highest[-1][1]:
            highest.append(line)
    return tuple(highest)

"""What the peak of a training step would be if one option were changed, and the sentences that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Any

import msgspec

from vggkit.base.numbers import megabytes, percent
from vggkit.footprint.plan import peak_bytes
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import runnable_step
from vggkit.footprint.steps.step import Step
from vggkit.network import Network


class Checkpoints(msgspec.Struct, frozen=True):
    """Blocks to run again in the backward pass, with the memory and the work that this takes.

    Args:
        blocks: their names.
        peak_bytes: most bytes alive at one moment then.
        recomputed: multiply-accumulates that are run again, for one image.
        forward: multiply-accumulates of a whole forward pass, for one image.
    """

    blocks: tuple[str, ...]
    peak_bytes: int
    recomputed: int
    forward: int


class Remedies(msgspec.Struct, frozen=True):
    """What the peak would be if one option were changed; None where that makes no sense.

    Args:
        without_autocast: in plain float32.
        frozen_blocks: with the convolutions frozen.
        checkpoints: with the cheapest blocks checkpointed that give the peak of all of them.
    """

    without_autocast: int | None = None
    frozen_blocks: int | None = None
    checkpoints: Checkpoints | None = None

    def sentences(self, peak_bytes: int) -> list[str]:
        """Say what would lower a peak, and by how much."""
        said = []
        if self.without_autocast is not None and self.without_autocast < peak_bytes:
            said.append(
                f"Autocast holds more than plain float32 would ({megabytes(self.without_autocast)}): the bfloat16"
                " copies of the weights outweigh the smaller activations at this batch."
            )
        if self.frozen_blocks is not None and self.frozen_blocks < peak_bytes:
            said.append(f"With the convolutions frozen (--freeze) the peak would be {megabytes(self.frozen_blocks)}.")
        again = self.checkpoints
        if again is not None and again.peak_bytes < peak_bytes:
            share = percent(again.recomputed, again.forward) if again.forward else "0 %"
            said.append(
                f"With --checkpoint {','.join(again.blocks)} it would be {megabytes(again.peak_bytes)}, at the cost of"
                f" {share} of a forward pass; checkpointing every block would not lower it further."
            )
        return said


def remedies(network: Network, options: StepOptions) -> Remedies:
    """Plan the steps that a user might choose instead, and return their peaks."""
    blocks = tuple(dict.fromkeys(placed.block for placed in network if placed.block))
    if not options.takes("checkpoint") or not blocks:
        return Remedies()

    def peak(**changes: Any) -> int:
        return peak_bytes(network, options.replace(**changes))

    return Remedies(
        without_autocast=peak(autocast=False) if options.autocast else None,
        frozen_blocks=peak(freeze=blocks, checkpoint=()) if network.head and not options.freeze else None,
        checkpoints=None if options.checkpoint or options.freeze else cheapest_checkpoints(network, options),
    )


MOST_SETS = 256
"""At most this many sets of blocks are tried: all sets of eight blocks. Each takes some milliseconds."""


def cheapest_checkpoints(network: Network, options: StepOptions) -> Checkpoints:
    """Find the blocks whose checkpoints are as good as those of all blocks, and cost the fewest multiply-accumulates.

    Args:
        network: has blocks.
        options: of a training step, checked.

    Returns:
        The set. It is empty if checkpoints don't help. It has all blocks if none of the `MOST_SETS` cheapest sets does.

    >>> cheapest_checkpoints(Network.of("D"), StepOptions(batch=64)).blocks
    ('block1',)
    """
    costs = {placed.name: placed.layer.multiply_accumulates(placed.input_shape) for placed in network}
    names = tuple(dict.fromkeys(placed.block for placed in network if placed.block))

    def walked(blocks: tuple[str, ...]) -> Step:
        return runnable_step(network, options.replace(checkpoint=blocks))

    every = walked(names)
    moments = Counter(moment.event for moment in every.moments)
    again = dict.fromkeys(names, 0)
    for placed in network:
        # the recomputation of a block ends at its last saved tensor, which may come before its last layers
        if placed.block and moments[f"recomputation of {placed.name}"] == moments[f"forward of {placed.name}"]:
            again[placed.block] += costs[placed.name]
    for blocks in islice(_cheapest_first(again), MOST_SETS):
        found = walked(blocks)
        if found.peak.size <= every.peak.size:
            break
    else:
        blocks, found = names, every
    return Checkpoints(blocks, found.peak.size, sum(again[block] for block in blocks), sum(costs.values()))


def _cheapest_first(costs: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Yield every set of names, the cheapest first; of sets that cost the same, the smallest first."""
    names = sorted(costs, key=costs.__getitem__)
    waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    while waiting:
        cost, size, chosen = heappop(waiting)
        yield tuple(name for name in costs if name in [names[index] for index in chosen])
        after = chosen[-1] + 1 if chosen else 0
        if after < len(names):  # the set with the next name added, and with the last name replaced by it
            more = cost + costs[names[after]]
            heappush(waiting, (more, size + 1, (*chosen, after)))
            if chosen:
                heappush(waiting, (more - costs[names[chosen[-1]]], size, (*chosen[:-1], after)))

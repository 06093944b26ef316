"""What lowers the peak of a training step that has no limit, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from vggkit.base.numbers import megabytes, percent
from vggkit.footprint.card_fit import Room
from vggkit.footprint.cards import Card
from vggkit.footprint.remedies.kinds import Checkpointing, blocks_of, run_again
from vggkit.footprint.remedies.search import MOST_COMBINED, MainMemory, Search
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.step import Step
from vggkit.network import Network


def advice(network: Network, options: StepOptions) -> Iterator[str]:
    """Say what lowers the peak of a step at the lowest price, and where autocast raises it.

    Args:
        network: the network.
        options: what the step is like, checked.

    >>> next(advice(Network.of("D"), StepOptions(batch=64)))[:52]
    'With --checkpoint block1 it would be 4.99 GB, at the'
    """
    if not options.has_backward:
        return
    peak = step_of(network, options).peak.size
    if options.trainable:
        frozen = step_of(network, options.replace(trainable=False)).peak.size
        yield f"Nobody needs the parameters' gradients: with frozen=True the peak would be {megabytes(frozen)}."
    plain = step_of(network, options.replace(autocast=False)).peak.size
    if plain < peak:
        yield (
            f"Autocast holds more than plain float32 would ({megabytes(plain)}): the bfloat16 copies of the weights"
            " outweigh the smaller activations at this batch."
        )
    if options.freeze or options.checkpoint:
        return
    step = cheapest_checkpoints(network, options)
    if step.peak.size < peak:
        macs = step.multiply_accumulates
        share = percent(sum(run_again(step).values()), macs) if macs else "0 %"
        yield (
            f"With --checkpoint {','.join(step.options.checkpoint)} it would be {megabytes(step.peak.size)}, at the"
            f" cost of {share} of a forward pass; checkpointing every block would not lower it further."
        )


def cheapest_checkpoints(network: Network, options: StepOptions) -> Step:
    """Find the blocks whose checkpoints are as good as those of all blocks, and run the least again.

    Args:
        network: the network.
        options: of a training step, checked.

    Returns:
        The step with them. It has all blocks if none of the cheapest sets does.

    >>> cheapest_checkpoints(Network.of("D"), StepOptions(batch=64)).options.checkpoint
    ('block1',)
    """
    every = step_of(network, options.replace(checkpoint=blocks_of(network)))
    search = Search(network, options, MainMemory(Room(Card(None, every.peak.size, 0), 0, 0)))
    if search.as_it_is.taken is not None:
        return search.as_it_is.step
    way = search.cheapest((Checkpointing(),), most=MOST_COMBINED)
    return every if way is None else way.step

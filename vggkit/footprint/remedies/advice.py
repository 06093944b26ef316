"""The cheapest that lowers the peak of a step, or makes room for a larger one, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggkit.base.numbers import megabytes, percent
from vggkit.footprint.card_fit import CardFit, Room, largest_on_card
from vggkit.footprint.cards import Card
from vggkit.footprint.fit import Fit, name_of, tensors_fit
from vggkit.footprint.remedies.kinds import (
    Checkpointing,
    ExpandableSegments,
    FrozenLoss,
    Fused,
    Kind,
    OneByOne,
    blocks_of,
    run_again,
)
from vggkit.footprint.remedies.search import MOST_COMBINED, PLACES, MainMemory, Search, Way
from vggkit.footprint.sought import Sought
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import decided, steps_with_room
from vggkit.footprint.steps.step import Step
from vggkit.network import Network

SETTINGS: tuple[Kind, ...] = (Fused(), OneByOne(), ExpandableSegments())
"""The kinds that cost nothing, and leave everything as it is."""

NOTHING: tuple[Kind, ...] = (FrozenLoss(), *SETTINGS)
"""Those that cost nothing."""


def advice(network: Network, options: StepOptions) -> Iterator[str]:
    """Say what lowers the peak of a step at the lowest price, and where autocast raises it.

    A setting costs nothing; if none lowers the peak, checkpoints do it at the lowest price. Of several ranks it is the
    fullest one's peak.

    Args:
        network: the network.
        options: what the step is like, checked.

    >>> next(advice(Network.of("D"), StepOptions(batch=64)))[:52]
    'With --checkpoint block1 it would be 4.99 GB, at the'
    """
    if not options.has_backward:
        return
    peak = _fullest(network, options).peak.size
    if options.trainable:
        frozen = _fullest(network, options.replace(trainable=False)).peak.size
        yield f"Nobody needs the parameters' gradients: with frozen=True the peak would be {megabytes(frozen)}."
    plain = _fullest(network, options.replace(autocast=False)).peak.size
    if plain < peak:
        yield (
            f"Autocast holds more than plain float32 would ({megabytes(plain)}): the bfloat16 copies of the weights"
            " outweigh the smaller activations at this batch."
        )
    search = Search(network, options, MainMemory(Room(Card(None, peak, 0), 0, 0)))
    settings = [way for kind in SETTINGS for way in search.each(kind, MOST_COMBINED)]
    lowest = min(settings, key=lambda way: way.step.peak.size, default=search.as_it_is)
    if lowest.step.peak.size < peak:
        yield f"With {lowest.typed} it would be {megabytes(lowest.step.peak.size)}, at no cost."
        return
    if options.freeze or options.checkpoint:
        return
    step = cheapest_checkpoints(network, options)
    if step.peak.size < peak:
        yield (
            f"With --checkpoint {','.join(step.options.checkpoint)} it would be {megabytes(step.peak.size)}, at"
            f" {_cost(step, sum(run_again(step).values()))}; checkpointing every block would not lower it further."
        )


def _fullest(network: Network, options: StepOptions) -> Step:
    """Walk through a step; of several ranks, that of the fullest one."""
    return max(steps_with_room(network, options), key=lambda step: step.peak.size)


def fit_advice(sought: Sought, found: Sequence[Fit | CardFit], rooms: Sequence[Room]) -> Iterator[str]:
    """Say for each card the cheapest setting or checkpoints with which one more runs, and the largest that runs then.

    Args:
        sought: what was looked for.
        found: the largest on each card.
        rooms: the cards.
    """
    for fit, room in zip(found, rooms):
        search = Search(*sought.at(fit.next), PLACES[sought.options.device](room))
        ways = search.ways(NOTHING) or search.ways((*NOTHING, Checkpointing()))
        if not ways:
            continue
        way = min(ways, key=lambda way: way.cost)
        largest = _largest(sought, fit, room, way)
        if largest > fit.largest:
            number = sought.spelled.format(largest)
            yield f"With {way.typed} {number} would run on {name_of(fit)}, at {_cost(way.step, way.run_again)}."


def _largest(sought: Sought, fit: Fit | CardFit, room: Room, way: Way) -> int:
    """Return the largest number that runs with the changes of a way."""
    changed = type(sought)(sought.network, sought.options.replace(**way.options))
    if isinstance(fit, Fit):
        return tensors_fit(changed, room.bytes).largest
    is_known = set(way.options) == {ExpandableSegments.name} and fit.expandable_segments is not None
    return fit.expandable_segments or 0 if is_known else changed.shown(largest_on_card(changed, room))


def _cost(step: Step, again: int) -> str:
    """Say what so many multiply-accumulates are of a forward pass, if they are run again."""
    return f"the cost of {percent(again, step.multiply_accumulates)} of a forward pass" if again else "no cost"


def cheapest_checkpoints(network: Network, options: StepOptions) -> Step:
    """Find the blocks whose checkpoints are as good as those of all blocks, and run the least again.

    Args:
        network: the network.
        options: of a training step, checked.

    Returns:
        The step with them, of several ranks the fullest one's. It has all blocks if none of the cheapest sets does, and
        none if the ranks can't run blocks again.

    >>> cheapest_checkpoints(Network.of("D"), StepOptions(batch=64)).options.checkpoint
    ('block1',)
    """
    with_all = decided(network, options.replace(checkpoint=blocks_of(network)))
    if with_all is None:
        return _fullest(network, options)
    every = _fullest(network, with_all)
    search = Search(network, options, MainMemory(Room(Card(None, every.peak.size, 0), 0, 0)))
    if search.as_it_is.taken is not None:
        return search.as_it_is.step
    way = search.cheapest((Checkpointing(),), most=MOST_COMBINED)
    return every if way is None else way.step

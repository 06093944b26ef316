"""What can be changed about a step so that it takes less memory: one class for each kind of change, with all its rules.

A class has which options it may change and to what, how that is said in words and on the command line, and the price:
what must be run again for it, what is to be done about the loop, and whether a step computes something else then. A new
kind is one class in this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from enum import IntEnum
from heapq import heappop, heappush
from itertools import accumulate, islice
from typing import Any, ClassVar, NamedTuple

from vggkit.base.eager import PARAMETERS, Parameter, Storage
from vggkit.base.errors import ArgumentError
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card_fit import EXPANDABLE
from vggkit.footprint.optimizers import NONE, OPTIMIZERS
from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.sharing import sharings
from vggkit.footprint.steps.options import MOST_ACCUMULATED, StepOptions
from vggkit.footprint.steps.refusals import decided, is_over_the_batch, steps_with_room
from vggkit.footprint.steps.step import Step
from vggkit.network import Network


class Price(IntEnum):
    """What a change is paid for with, from the cheapest to the dearest; each computes the same except the last one."""

    SETTING = 0
    """Nothing: it is a setting."""

    AGAIN = 1
    """Time: a part of the network is run again."""

    LOOP = 2
    """Another loop: code to write, and more kernels, which are smaller."""

    RESULT = 3
    """Another result, by more than the order in which numbers are added up."""

    @property
    def word(self) -> str:
        """The word for it.

        >>> Price.AGAIN.word
        'again'
        """
        return self.name.lower()


class Change(NamedTuple):
    """Options that are changed.

    Args:
        options: keywords of `memory`, with their new values.
        words: what is different then.
        typed: the same as options of the command line.
        price: what it is paid for with.
        run_again: multiply-accumulates that the backward pass runs again for it, for one image.
    """

    options: dict[str, Any]
    words: str
    typed: str
    price: Price
    run_again: int = 0


class Kind(ABC):
    """A kind of change. `KINDS` has one of each final class."""

    name: ClassVar[str]
    """The word for it."""

    of_model: ClassVar[bool] = False
    """Whether its options are also those of `build`."""

    @abstractmethod
    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        """Yield the changes that can be made to a step, the mildest first; none where the kind has no place."""


class OtherSharing(Kind):
    """The ranks share the work in another way; a step has the same images."""

    name = "parallel"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        group = options.group
        if group == NO_GROUP:
            return
        own = {"parallel": group.parallel, **group.given}
        for sharing in sharings(group.ranks):
            if sharing.options == own:
                continue
            try:
                shared = sharing.of(options, options.images, group.ranks)
            except ArgumentError:  # the images can't be shared out like that
                continue
            left = [word for word in group.given if word not in sharing.options]
            batch = {"batch": shared.batch} if shared.batch != options.batch else {}
            is_alike = shared.at_once == options.at_once or not _trained_batch_norms(network, options)
            same = is_alike and not sharing.choice.changes_result
            yield Change(
                {**sharing.options, **{word: getattr(NO_GROUP, word) for word in left}, **batch},
                f"each rank {sharing.strategy.words}",
                " ".join([sharing.typed, *(f"--{word} {value}" for word, value in batch.items()), *_without(left)]),
                Price.LOOP if same else Price.RESULT,
            )


def _without(words: Sequence[str]) -> list[str]:
    """Say which options are left out."""
    options = " ".join("--" + word.replace("_", "-") for word in words)
    return [f"without {options}"] if words else []


def _trained_batch_norms(network: Network, options: StepOptions) -> list[str]:
    """Return the normalisations that take statistics of the batch."""
    frozen = network.parts(options.freeze, "freeze")
    return [placed.name for placed in network if is_over_the_batch(placed) and placed.name not in frozen]


class OtherOptimizer(Kind):
    """An optimizer that keeps less between steps, and has the options that were given."""

    name = "optimizer"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if not options.takes("optimizer"):
            return

        def kept(name: str) -> int:
            """Return how many tensors of a parameter's size are kept for it."""
            return sum(OPTIMIZERS[name].state(SOME_PARAMETER, options.update, options.device)) // SOME_BYTES

        able = [name for name, rules in OPTIMIZERS.items() if set(options.update.given) <= set(rules.takes)]
        first_of = {kept(name): name for name in reversed(able) if name != NONE}
        for amount in sorted(first_of, reverse=True):
            if amount < kept(options.optimizer):
                name = first_of[amount]
                yield Change({"optimizer": name}, f"{name} is the optimizer", f"--optimizer {name}", Price.RESULT)


SOME_BYTES = 1 << 20
SOME_PARAMETER = Parameter(Storage(0, SOME_BYTES, SOME_BYTES, PARAMETERS), (SOME_BYTES // 4,), 4, requires_grad=True)
"""A parameter, to compare what optimizers keep for it."""


class Freezing(Kind):
    """The first blocks are not trained, as where a network is fine-tuned."""

    name = "freeze"
    of_model = True

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if not options.takes("freeze"):
            return
        frozen = network.parts(options.freeze, "freeze")
        trained = {placed.name for placed in network.modules() if placed.layer.parameters(placed.input_shape)}
        for blocks in accumulate((block,) for block in blocks_of(network)):
            chosen = tuple(dict.fromkeys((*options.freeze, *blocks)))
            now = network.parts(chosen, "freeze")
            if now > frozen and not trained <= now:
                frozen = now
                words, typed = f"{_listed(blocks)} not trained", f"--freeze {','.join(chosen)}"
                yield Change({"freeze": chosen}, words, typed, Price.RESULT)


class FrozenLoss(Kind):
    """The network of a perceptual loss gets no gradients, which nobody uses."""

    name = "trainable"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if options.trainable:
            yield Change({"trainable": False}, "the network is frozen", "without --trainable", Price.SETTING)


class CachedTarget(Kind):
    """A target that stays the same goes through the network of a perceptual loss once."""

    name = "cached_target"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if options.takes("cached_target") and not options.cached_target:
            words = "the target is compared from memory"
            yield Change({"cached_target": True}, words, "--cached-target", Price.LOOP)


class Autocast(Kind):
    """The forward pass computes in bfloat16, or no longer does: at a small batch the weights' copies cost more."""

    name = "autocast"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if options.autocast:
            words = "the forward pass computes in float32"
            yield Change({"autocast": False}, words, "without --autocast", Price.RESULT)
        elif options.dtype == "float32":
            yield Change({"autocast": True}, "the forward pass computes in bfloat16", "--autocast", Price.RESULT)


class Fused(Kind):
    """A single kernel changes all parameters, without temporaries."""

    name = "fused"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        update = options.update
        if options.takes("update") and "fused" in options.rules.takes and not update.fused:
            together = {"foreach": None} if update.foreach else {}  # torch refuses both
            typed = "--fused without --foreach" if together else "--fused"
            yield Change({"fused": True, **together}, "one kernel changes all parameters", typed, Price.SETTING)


class OneByOne(Kind):
    """The optimizer changes one parameter after the other, so that it has the temporaries of one alone."""

    name = "foreach"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        rules = options.rules
        if options.takes("update") and "foreach" in rules.takes and rules.is_foreach(options.update, options.device):
            words = "the parameters are changed one by one"
            yield Change({"foreach": False}, words, "--no-foreach", Price.SETTING)


class StepInBackward(Kind):
    """Each parameter is changed as soon as its gradient is there, so that few gradients are there at a time."""

    name = "step_in_backward"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if options.can_step_in_backward and not options.step_in_backward:
            words = "each parameter is changed as soon as its gradient is there"
            yield Change({"step_in_backward": True}, words, "--step-in-backward", Price.LOOP)


class Accumulation(Kind):
    """The batch goes through the network in equal parts, whose gradients are added up.

    A batch norm that is trained takes the statistics of each part.
    """

    name = "accumulate"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if not options.takes("accumulate") or options.step_in_backward:
            return
        same = not _trained_batch_norms(network, options)
        for parts in range(2, MOST_ACCUMULATED // options.accumulate + 1):
            if options.batch % parts == 0:
                batch, times = options.batch // parts, options.accumulate * parts
                yield Change(
                    {"batch": batch, "accumulate": times},
                    f"{batch} image{'s' * (batch > 1)} at a time, {times} times",
                    f"--batch {batch} --accumulate {times}",
                    Price.LOOP if same else Price.RESULT,
                )


class ExpandableSegments(Kind):
    """torch's allocator makes its segments larger instead of adding further ones, so that fewer holes are left."""

    name = "allocator"

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if options.device == "cuda" and not Settings.of(options.allocator).expandable_segments:
            settings = ",".join(filter(None, (options.allocator, EXPANDABLE)))
            words = "the allocator's segments grow"
            yield Change({"allocator": settings}, words, f"--allocator {settings}", Price.SETTING)


class Checkpointing(Kind):
    """Blocks are run again in the backward pass, so that less is kept for it."""

    name = "checkpoint"
    of_model = True

    def changes(self, network: Network, options: StepOptions) -> Iterator[Change]:
        if not options.takes("checkpoint"):
            return
        blocks = blocks_of(network)
        with_all = decided(network, options.replace(checkpoint=blocks))
        if with_all is None:
            return
        costs = run_again(*steps_with_room(network, with_all))
        more = {block: cost for block, cost in costs.items() if block not in options.checkpoint}
        for added in islice(cheapest_first(more), 1, None):
            chosen = tuple(block for block in blocks if block in added or block in options.checkpoint)
            yield Change(
                {"checkpoint": chosen},
                f"{_listed(added)} run again in the backward pass",
                f"--checkpoint {','.join(chosen)}",
                Price.AGAIN,
                sum(more[block] for block in added),
            )


KINDS: tuple[Kind, ...] = tuple(
    kind()
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Kind) and not kind.__abstractmethods__
)
"""Each final class above, in the order in which they are applied: what checkpoints cost depends on the others."""


def blocks_of(network: Network) -> tuple[str, ...]:
    """Return the names of a network's blocks."""
    return tuple(dict.fromkeys(placed.block for placed in network if placed.block))


def run_again(*steps: Step) -> dict[str, int]:
    """Return the multiply-accumulates that a step runs again, for one image, by block.

    Args:
        steps: the step; of several ranks a step of each sort of them.

    Returns:
        Those of each block that the backward pass goes through. What is run again ends at the block's last saved
        tensor, which may come before its last layers.

    >>> steps = steps_with_room(Network.of("D"), StepOptions(checkpoint=("block1",)))
    >>> run_again(*steps)["block1"]
    1936392192
    """
    events = {moment.event for step in steps for moment in step.moments}
    repeated = {name for step in steps for name in step.run_again}
    again: dict[str, int] = {}
    for placed in steps[0].network:
        if placed.block and f"backward of {placed.name}" in events:
            macs = placed.layer.multiply_accumulates(placed.input_shape) if placed.name in repeated else 0
            again[placed.block] = again.get(placed.block, 0) + macs
    return again


def cheapest_first(costs: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Yield every set of names, the cheapest first; of sets that cost the same, the smallest first.

    >>> list(cheapest_first({"a": 3, "b": 1}))
    [(), ('b',), ('a',), ('a', 'b')]
    """
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


def _listed(blocks: tuple[str, ...]) -> str:
    """Write blocks as the subject of a sentence without its verb's rest.

    >>> _listed(("block1", "block2")), _listed(("block1",))
    ('block1 and block2 are', 'block1 is')
    """
    *others, last = blocks
    return f"{', '.join(others)} and {last} are" if others else f"{last} is"

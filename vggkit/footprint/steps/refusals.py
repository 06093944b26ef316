"""What torch refuses to run: normalisations that would take statistics of a single value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.footprint.ranks import NO_GROUP, STRATEGIES
from vggkit.footprint.steps import settled, step_of
from vggkit.footprint.steps.options import StepOptions, check_ranks
from vggkit.footprint.steps.step import Step
from vggkit.network import Network, PlacedLayer, place


def runnable_step(network: Network, options: StepOptions) -> Step:
    """Walk through a step that torch runs.

    Args:
        network: the network.
        options: what the step is like, checked.

    Raises:
        ArgumentError: if torch refuses to run it; says why, and what would help.
    """
    _check_batch(options)
    [step] = _runnable([step_of(network, options)])
    return step


def steps_of_ranks(network: Network, options: StepOptions) -> list[Step]:
    """Walk through the steps of all ranks; ranks that are alike share one.

    Raises:
        ArgumentError: if torch refuses to run one of them; says why, and what would help.
    """
    _check_batch(options)
    return _runnable(_walked_ranks(network, options))


def steps_with_room(network: Network, options: StepOptions) -> list[Step]:
    """Walk through the steps for which there must be room, whether or not torch would run them.

    Returns:
        That of the rank which is asked for; if nobody asks for one, a step of each sort of ranks.
    """
    if options.group == NO_GROUP or options.group.rank is not None:
        return [step_of(network, options)]
    return list(dict.fromkeys(_walked_ranks(network, options)))


def runnable_steps(network: Network, options: StepOptions) -> list[Step]:
    """Walk through the same steps, as torch runs them.

    Raises:
        ArgumentError: if it refuses to run one of them; says why, and what would help.
    """
    _check_batch(options)
    return _runnable(steps_with_room(network, options))


def _check_batch(options: StepOptions) -> None:
    STRATEGIES[options.group.parallel].check_batch(options.group, options.batch)


def decided(network: Network, options: StepOptions) -> StepOptions | None:
    """Return options in which all has been decided that depends on the network, None if ranks can't run such a step.

    Args:
        network: the network.
        options: what a step is like; all but what concerns ranks has been checked.
    """
    try:
        check_ranks(network, options)
        _check_batch(options)
        return settled(network, options)
    except ArgumentError:
        return None


def _runnable(steps: list[Step]) -> list[Step]:
    for step in steps:
        if step.refused:
            raise ArgumentError(_refusal(step))
    return steps


def _walked_ranks(network: Network, options: StepOptions) -> list[Step]:
    if options.group == NO_GROUP:
        return [step_of(network, options)]
    options = settled(network, options)
    first = step_of(network, options.of_rank(0))
    walked: list[tuple[object, Step]] = []  # no dict: the shapes may be those of many networks, which have no hash
    steps = []
    for rank in range(options.group.ranks):
        likeness = first.strategy.likeness(rank)
        alike = next((step for other, step in walked if other == likeness), None)
        steps.append(alike or (step_of(network, options.of_rank(rank)) if rank else first))
        if alike is None:
            walked.append((likeness, steps[-1]))
    return steps


def refusal(network: Network, options: StepOptions) -> str | None:
    """Return why torch or the ranks can't run a step, and what would help; None if they can."""
    try:
        check_ranks(network, options)
        runnable_steps(network, options)
    except ArgumentError as error:
        own = f"{network.name}: "
        return own + str(error).removeprefix(own)
    return None


def _refusal(step: Step) -> str:
    network, options = step.network, step.options
    placed = network.layer(step.refused[0])
    each = "channel" if is_over_the_batch(placed) else "group"
    helps = [words for words, changed, other in _changes(step) if not step_of(changed, other).refused]
    return (
        f"{network.name}: torch can't run {step.words} at batch"
        f" {options.batch}, as {placed.name} would normalize a single value of each {each}. Expected"
        f" {', '.join(helps[:-1])}{', or ' if helps[1:] else ''}{helps[-1]}"
    )


def _changes(step: Step) -> Iterator[tuple[str, Network, StepOptions]]:
    """Yield changes that may help: a normalisation gets more values, or takes no statistics of the batch."""
    network, options = step.network, step.options
    more = options.with_at_once(2)
    yield f"batch {more.batch} or more", network, more
    channels, height, width = network.input_shape
    with suppress(ConfigError):
        larger = place(msgspec.structs.replace(network.config, input=(channels, 4 * height, 4 * width)))
        yield "a larger input", larger, options
    if step.is_training:
        norms = tuple(placed.name for placed in network if is_over_the_batch(placed))
        yield "frozen batch norms", network, options.replace(freeze=(*options.freeze, *norms))
        yield "mode inference", network, options.forward_only()


def is_over_the_batch(placed: PlacedLayer) -> bool:
    """Tell whether a layer's statistics are those of the whole batch, as batch norm's are."""
    return any(not kept.per_image for kept in placed.layer.kept(placed.input_shape))


def smallest_batch(network: Network, options: StepOptions) -> int:
    """Return the smallest batch that torch runs: of 2 images where a normalisation would see a single value, else 1.

    A batch of several microbatches has as many in each.
    """
    single = options.with_at_once(1)
    if not any(placed.layer.is_norm for placed in network):
        return single.batch
    is_refused = any(step.refused for step in steps_with_room(network, single))
    return options.with_at_once(2).batch if is_refused else single.batch

"""What several ranks may do, side by side: what each strategy holds and sends for the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, one_of
from vggkit.base.numbers import grouped, megabytes, whole
from vggkit.base.tables import Column, Shown, Table, grid
from vggkit.footprint.card import UNBOUNDED
from vggkit.footprint.card_fit import Room, largest_on_card
from vggkit.footprint.cards import Card
from vggkit.footprint.fit import TENSORS_ARE_COUNTED, checked_room, size_text, tensors_fit
from vggkit.footprint.ranks import MOST_RANKS, Group
from vggkit.footprint.remedies.remedies import device_for
from vggkit.footprint.remedies.search import PLACES
from vggkit.footprint.sharing import Sharing, sharings
from vggkit.footprint.sought import SoughtBatch
from vggkit.footprint.steps.options import (
    LOOP_KEYWORDS,
    LoopArguments,
    StepOptions,
    check_ranks,
    checked_options,
)
from vggkit.footprint.steps.refusals import decided, steps_of_ranks
from vggkit.network import Dtype, Network, Source
from vggkit.notation.layers import times
from vggkit.notation.overrides import Overrides, divided

if TYPE_CHECKING:
    from typing_extensions import Unpack

ENDLESS = Room(Card(None, UNBOUNDED, 0), 0, 0)
"""Where everything fits, if nobody says which cards there are."""


class StrategyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What ranks hold and send that train together in one way.

    Args:
        parallel: what they do: a key of `vggkit.footprint.ranks.STRATEGIES`.
        options: the strategy's own options, as keywords of `memory`; none where all are as usual.
        typed: all of that as options of `vggkit memory`.
        changes_result: whether a step computes something else with these options.
        reason: why they can't; None if they can. All that follows is None if they can't.
        batches: how many batches they have at once: one on each rank, or on each replica of the model, or a single one.
        batch: images of each.
        fullest: the rank that holds the most, the first of several.
        peak_bytes: most bytes of its tensors alive at one moment.
        reserved_bytes: on CUDA, what torch's allocator reserves for it: on the card, or if the step does not run there,
            on one with room for it. None on the CPU, and where it is not known for the strategy.
        retries: on CUDA, how often the allocator of the fullest rank gives back in each step what it has cached.
        sent_bytes: the most that a rank sends in a step.
        received_bytes: the most that a rank receives.
        fits: whether all ranks have room; None if nobody says which cards there are.
        largest: the most images of a step, of all ranks, such that with these and with fewer all ranks have room; 0 if
            not even the smallest step fits. None if nobody says which cards there are.
        on_front: whether none that leaves the result as it is holds and sends as little, and less of one of them.
    """

    parallel: str
    options: dict[str, Any]
    typed: str
    changes_result: bool
    reason: str | None = None
    batches: int | None = None
    batch: int | None = None
    fullest: int | None = None
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    retries: int | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    fits: bool | None = None
    largest: int | None = None
    on_front: bool = False

    @property
    def label(self) -> str:
        """The strategy and its options as they are typed, for a table or a picture."""
        return self.typed.removeprefix("--parallel ")

    @property
    def held_bytes(self) -> int | None:
        """What the fullest rank must have: reserved bytes on CUDA, else the peak; None if the ranks can't do it."""
        return self.peak_bytes if self.reserved_bytes is None else self.reserved_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


class GroupPlan(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """What ranks hold and send in a step of the same images, by each strategy.

    Args:
        network: whose step it is.
        options: what the step is like, whatever the ranks do; its batch has the images of all.
        ranks: how many there are.
        room: what each has; None if nobody says it.
        strategies: the ways to share the work.
    """

    network: Network
    options: StepOptions
    ranks: int
    room: Room | None
    strategies: tuple[StrategyPlan, ...]

    def __len__(self) -> int:
        return len(self.strategies)

    def __iter__(self) -> Iterator[StrategyPlan]:
        return iter(self.strategies)

    def __getitem__(self, index: int) -> StrategyPlan:
        return self.strategies[index]

    @property
    def images(self) -> int:
        """Images of a step, of all ranks and all batches whose gradients are added up."""
        return self.options.batch

    @property
    def title(self) -> str:
        """One line that says whose step it is, and which ranks there are."""
        name, image = self.network.name, times(self.network.input_shape)
        where = "" if self.room is None else f", {self.room.card.name or size_text(self.room.card.total_bytes)} each"
        return f"{name}: {image}, {self.images} images in all on {self.ranks} ranks{where}, {self.options.words}"

    @property
    def runnable(self) -> tuple[StrategyPlan, ...]:
        """Those that the ranks can do."""
        return tuple(strategy for strategy in self.strategies if strategy.reason is None)

    def front(self) -> tuple[StrategyPlan, ...]:
        """Return the Pareto front of what the fullest rank holds and of what a rank sends, fits or not."""
        return tuple(strategy for strategy in self.strategies if strategy.on_front)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        step = self.options.to_dict()
        for word in ("batch", *Group.__struct_fields__):
            del step[word]
        room = self.room
        return {
            "name": self.network.name,
            "ranks": self.ranks,
            "images": self.images,
            **step,
            "card": room and room.card.name,
            "limit_bytes": room and room.card.total_bytes,
            "context_bytes": room and room.context_bytes,
            "workspace_bytes": room and room.workspace_bytes,
            "strategies": [strategy.to_dict() for strategy in self.strategies],
        }

    def table(self) -> Table:
        """Return a row for each strategy, and sentences on what else there is to know."""
        columns: list[Column[StrategyPlan]] = [
            Column("strategy", lambda way: way.label, fold=34, style="green"),
            Column("batches", self._batches, "right", rank=3),
            Column(
                "held" if self.options.device == "cpu" else "reserved", lambda way: _written(way.held_bytes), "right"
            ),
            Column("sent", lambda way: _written(way.sent_bytes), "right"),
            Column("received", lambda way: _written(way.received_bytes), "right", rank=4),
            Column("front", lambda way: "✓" if way.on_front else "", rank=2),
        ]
        if self.room is not None:
            columns += [
                Column("fits", lambda way: {True: "yes", False: "no", None: NONE}[way.fits], rank=1),
                Column(
                    "most images", lambda way: NONE if way.largest is None else grouped(way.largest), "right", rank=1
                ),
            ]
        return Table(
            grid(columns, self.strategies, title=self.title),
            records=[_record(strategy) for strategy in self.strategies],
            columns=StrategyPlan.__struct_fields__,
            data=self.to_dict(),
            notes=list(self._sentences()),
        )

    def _batches(self, way: StrategyPlan) -> str:
        """Write how the images are shared out."""
        if way.batches is None or way.batch is None:
            return NONE
        again = [self.options.accumulate] if self.options.accumulate > 1 else []
        return " × ".join(map(grouped, (way.batches, *again, way.batch)))

    def _sentences(self) -> Iterator[str]:
        unable: dict[str, list[str]] = {}
        for way in self.strategies:
            if way.reason is not None:
                unable.setdefault(way.reason, []).append(way.label)
        for reason, labels in unable.items():
            yield f"{', '.join(labels)} can't be used: {reason}."
        added = ", how many batches' gradients each adds up" if self.options.accumulate > 1 else ""
        yield (
            f"Batches: how many the ranks have at once{added}, and images of each. Held: by the fullest rank. Sent and"
            " received: the most by any rank in a step."
        )
        if self.room is not None:
            yield "Most images: of a step of all ranks, such that with these and with fewer all ranks have room."
        yield "Front: none that computes the same holds and sends as little, and less of one of them."
        if self.options.device == "cpu":
            yield TENSORS_ARE_COUNTED
            return
        counted = [way.label for way in self.runnable if way.reserved_bytes is None]
        if counted:
            yield f"Of {', '.join(counted)} tensors are counted, as what a card takes is not known; it must have more."
        if self.room is not None:
            yield (
                f"CUDA's context takes {megabytes(self.room.context_bytes)} (--context), workspaces of cuDNN and cuBLAS"
                f" {megabytes(self.room.workspace_bytes)} (--workspace). NCCL's own buffers are not included."
            )


NONE = "–"
"""In a table: there is no such figure."""


def _written(size: int | None) -> str:
    return NONE if size is None else megabytes(size)


def _record(strategy: StrategyPlan) -> dict[str, Any]:
    """Return a row of CSV, whose cells are single values."""
    return {**strategy.to_dict(), "options": " ".join(f"{word}={value}" for word, value in strategy.options.items())}


# What they are worked out from


class PlanArguments(Overrides, LoopArguments, total=False):
    """The keywords that `plan` passes on, for type checkers."""

    dtype: Dtype
    device: str


PLAN_KEYWORDS = (*LOOP_KEYWORDS, "dtype", "device")
"""The keywords of a step that `plan` takes, beside `batch`."""

SORTS: dict[str, Callable[[StrategyPlan], int | None]] = {
    "held": lambda way: way.held_bytes,
    "sent": lambda way: way.sent_bytes,
    "received": lambda way: way.received_bytes,
    "images": lambda way: way.largest,
}
"""What strategies can be sorted by."""


def plan(
    source: Source,
    *,
    ranks: SupportsIndex,
    batch: SupportsIndex | None = None,
    card: str | SupportsIndex | None = None,
    context: str | SupportsIndex | None = None,
    workspace: str | SupportsIndex = 0,
    sort: str | None = None,
    **arguments: Unpack[PlanArguments],
) -> GroupPlan:
    """Set side by side what several ranks hold and send, by each strategy.

    A step has the same images whatever they do: with `ddp` each rank has a part of them, with `tensor` all ranks have
    all of them.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        ranks: how many train together, 2 or more.
        batch: images of a step, of all ranks together; one for each rank if absent.
        card: what each rank has: a card such as "RTX 4090", a size such as "24GiB", or bytes.
        context: what CUDA itself takes of it; by default as documented for the card.
        workspace: what cuDNN and cuBLAS take for themselves; not modelled, so 0 by default.
        sort: "held", "sent", "received" or "images", from the least; "-images" sorts from the most.
        arguments: what is special about the training step, as for `memory`, except the ranks' own options; and changes
            to make, as for `load`. If no device is given, it is cuda for a card by name, and where `context` or
            `workspace` is given; else cpu, where tensors are counted.

    Returns:
        The strategies, each with the options that are worth comparing; those that can't be have the reason.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> ways = {way.label: way for way in plan("D", ranks=8, batch=256, card="8GB")}
    >>> [(ways[word].batch, ways[word].peak_bytes, ways[word].fits) for word in ("ddp", "tensor")]
    [(32, 4540247688, True), (256, 19188086756, False)]
    """
    given: dict[str, Any] = {"device": "cpu" if card is None else device_for(card, context, workspace), **arguments}
    overrides, of_step = divided(plan, given, PLAN_KEYWORDS)
    network = Network.of(source, **overrides)
    count = checked_ranks(ranks)
    options = checked_options(network, batch=count if batch is None else batch, **of_step)
    room = room_for(options, card, context, workspace)
    return group_plan(network, options, count, room, sharings(count), sort)


def checked_ranks(ranks: SupportsIndex) -> int:
    """Return how many train together.

    Raises:
        ArgumentError: if these are not several, or too many.
    """
    return whole(ranks, "ranks", least=2, largest=MOST_RANKS)


def room_for(
    options: StepOptions,
    card: str | SupportsIndex | None,
    context: str | SupportsIndex | None,
    workspace: str | SupportsIndex,
) -> Room | None:
    """Return the room of each rank, None if nobody says it; `plan` explains the arguments.

    Raises:
        ArgumentError: if one of them can't be read, or says what is taken of a card that is not given.
    """
    if card is not None:
        return checked_room(options, card, context, workspace)
    for word, given in (("context", context), ("workspace", workspace)):
        if given:
            raise ArgumentError(f"{word}: needs a card, such as 24GiB")
    return None


def group_plan(
    network: Network,
    options: StepOptions,
    ranks: int,
    room: Room | None,
    ways: Iterable[Sharing],
    sort: str | None = None,
) -> GroupPlan:
    """Set ways to share the work side by side, where all arguments but `sort` have been checked.

    Raises:
        ArgumentError: if there is nothing of that name to sort by.
    """
    key, is_descending = _sorting(sort)
    plans = _with_front([_strategy_plan(network, options, ranks, room, way) for way in ways])
    if key is not None:
        plans.sort(key=lambda plan: _place(key(plan), is_descending))
    return GroupPlan(network=network, options=options, ranks=ranks, room=room, strategies=tuple(plans))


def _sorting(sort: str | None) -> tuple[Callable[[StrategyPlan], int | None] | None, bool]:
    """Return what is sorted by, and whether from the most."""
    if sort is None:
        return None, False
    return SORTS[one_of(SORTS, sort.removeprefix("-"), "sort")], sort.startswith("-")


def _place(figure: int | None, is_descending: bool) -> tuple[bool, int]:
    """Return what a figure is sorted by; those without one come last."""
    return figure is None, 0 if figure is None else -figure if is_descending else figure


def _with_front(ways: Sequence[StrategyPlan]) -> list[StrategyPlan]:
    """Say which are on the front."""
    figures = [_figures(way) for way in ways]
    known = [each for each in figures if each is not None]
    return [
        replace(
            way,
            on_front=own is not None
            and not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in known),
        )
        for way, own in zip(ways, figures)
    ]


def _figures(way: StrategyPlan) -> tuple[int, int] | None:
    """Return what is held and sent; None of those that can't be on the front."""
    if way.held_bytes is None or way.sent_bytes is None or way.changes_result:
        return None
    return way.held_bytes, way.sent_bytes


def _strategy_plan(
    network: Network, options: StepOptions, ranks: int, room: Room | None, sharing: Sharing
) -> StrategyPlan:
    way = StrategyPlan(
        parallel=sharing.strategy.name,
        options=dict(sharing.choice.options),
        typed=sharing.typed,
        changes_result=sharing.choice.changes_result,
    )
    try:
        shared = _on_a_device(network, sharing.of(options, options.batch, ranks))
        steps = steps_of_ranks(network, shared)
    except ArgumentError as error:
        return replace(way, reason=str(error))
    place = PLACES[shared.device](room or ENDLESS)
    running = {step: place.taken(step) for step in dict.fromkeys(steps)}
    taken = {step: used or place.needed(step) for step, used in running.items()}
    fullest = max(range(ranks), key=lambda rank: taken[steps[rank]].bytes)
    use = taken[steps[fullest]]
    traffic = [step.strategy.traffic(rank) for rank, step in enumerate(steps)]
    return replace(
        way,
        batches=shared.batches,
        batch=shared.batch,
        fullest=fullest,
        peak_bytes=steps[fullest].peak.size,
        reserved_bytes=None if use.retries is None else use.bytes,
        retries=use.retries,
        sent_bytes=max(each.sent for each in traffic),
        received_bytes=max(each.received for each in traffic),
        fits=None if room is None else None not in running.values(),
        largest=None if room is None else _largest(network, shared, room),
    )


def _on_a_device(network: Network, options: StepOptions) -> StepOptions:
    """Return the options of ranks that can run such a step; what is not known of a card is asked of the CPU.

    Raises:
        ArgumentError: if the ranks can't run it on either; says why.
    """
    if options.device == "cpu" or decided(network, options) is not None:
        check_ranks(network, options)
        return options
    return _on_a_device(network, options.replace(device="cpu", allocator=""))


def _largest(network: Network, options: StepOptions, room: Room) -> int:
    """Return the most images in all for which every rank has room, 0 if there are none."""
    sought = SoughtBatch(network, options)
    if options.device == "cpu":
        return tensors_fit(sought, room.bytes).images
    number = largest_on_card(sought, room)
    return sought.images(number) if number else 0

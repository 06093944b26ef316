"""What makes a step fit, the cheapest first, as values and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import msgspec

from vggkit.base.numbers import megabytes, percent
from vggkit.base.tables import Column, Shown, Table, grid
from vggkit.footprint.card_fit import Room
from vggkit.footprint.cards import card_of
from vggkit.footprint.fit import TENSORS_ARE_COUNTED, FitArguments, checked_room, size_text
from vggkit.footprint.remedies.kinds import KINDS, Price
from vggkit.footprint.remedies.search import MOST_COMBINED, MOST_KINDS, PLACES, Place, Search, Way, fullest
from vggkit.footprint.steps.options import STEP_KEYWORDS, Device, StepOptions, checked_options
from vggkit.footprint.steps.refusals import runnable_steps
from vggkit.network import Network, Source
from vggkit.notation.overrides import divided

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Remedy(msgspec.Struct, frozen=True, kw_only=True):
    """One way to make a step smaller.

    Args:
        kinds: which kinds of change it makes: parallel, optimizer, freeze, trainable, cached_target, autocast, fused,
            foreach, step_in_backward, accumulate, allocator, checkpoint.
        options: what it changes, as keywords of `memory`.
        build_options: those of them that are keywords of `build`.
        typed: the same as options of the command line.
        words: what is different then.
        price: what it is paid for with: setting (nothing), again (a part is run again), loop (other code, and more
            kernels) or result.
        changes_result: whether a step computes something else then.
        recomputed_multiply_accumulates: what the backward pass runs again, for one image.
        peak_bytes: most bytes alive at one moment then.
        reserved_bytes: on CUDA, what torch's allocator reserves then: on the card, or if it does not run there, on one
            with room for it. None on the CPU.
        retries: on CUDA, how often the allocator gives back in each step what it has cached; None on the CPU.
    """

    kinds: tuple[str, ...]
    options: dict[str, Any]
    build_options: dict[str, Any]
    typed: str
    words: str
    price: str
    changes_result: bool
    recomputed_multiply_accumulates: int
    peak_bytes: int
    reserved_bytes: int | None
    retries: int | None

    @property
    def loop_options(self) -> dict[str, Any]:
        """What it changes in the loop and around it: the options that are none of `build`."""
        return {word: value for word, value in self.options.items() if word not in self.build_options}

    @property
    def bytes(self) -> int:
        """What must be there: reserved bytes on CUDA, the peak on the CPU."""
        return self.peak_bytes if self.reserved_bytes is None else self.reserved_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))


def _remedy(way: Way, place: Place) -> Remedy:
    """Return a way with its figures."""
    changes = list(zip(way.kinds, way.changes))
    taken = fullest(map(place.needed, way.steps)) if way.taken is None else way.taken
    return Remedy(
        kinds=tuple(kind.name for kind in way.kinds),
        options=way.options,
        build_options={
            word: value for kind, change in changes if kind.of_model for word, value in change.options.items()
        },
        typed=way.typed,
        words="; ".join(change.words for change in way.changes),
        price=way.price.word,
        changes_result=way.price is Price.RESULT,
        recomputed_multiply_accumulates=way.recomputed,
        peak_bytes=way.step.peak.size,
        reserved_bytes=None if taken.retries is None else taken.bytes,
        retries=taken.retries,
    )


class Remedies(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """The ways to make a step fit, the cheapest first.

    First come settings, then what runs a part of the network again, then what needs another loop, and at last what
    changes the result. Of those with the same price the one that runs less again comes first, then the one with fewer
    changes, then the one that takes less.

    Args:
        network: whose step it is.
        options: what the step is like as it is.
        room: where it must fit; on the CPU nothing is taken of it.
        multiply_accumulates: of a forward pass, for one image.
        fits: whether it fits as it is, so that it needs no remedy.
        as_it_is: its figures without a change.
        remedies: those that make it fit.
        nearest: if nothing does, the one with the lowest peak of all that were tried; None if nothing lowers it.
    """

    network: Network
    options: StepOptions
    room: Room
    multiply_accumulates: int
    fits: bool
    as_it_is: Remedy
    remedies: tuple[Remedy, ...]
    nearest: Remedy | None

    def __len__(self) -> int:
        return len(self.remedies)

    def __iter__(self) -> Iterator[Remedy]:
        return iter(self.remedies)

    def __getitem__(self, index: int) -> Remedy:
        return self.remedies[index]

    @property
    def title(self) -> str:
        """One line that says which step is to fit where."""
        where = self.room.card.name or size_text(self.room.card.total_bytes)
        return f"{self.options.title(self.network.name, self.network.input_shape)}, to fit {where}"

    def tradeoffs(self) -> tuple[Remedy, ...]:
        """Return the step as it is, its remedies, and each change alone, fits or not.

        Of the sets of blocks to checkpoint the 255 cheapest, which are all where there are up to eight blocks.
        """
        place = PLACES[self.options.device](self.room)
        search = Search(self.network, self.options, place)
        alone = [_remedy(way, place) for kind in KINDS for way in search.each(kind, MOST_COMBINED)]
        return tuple({way.typed: way for way in (self.as_it_is, *self.remedies, *alone)}.values())

    def front(self) -> tuple[Remedy, ...]:
        """Return the Pareto front of what a step takes and of what it runs again, fits or not.

        It is of those `tradeoffs` that leave the loop and the result as they are: each takes less than all that run as
        little again.

        >>> [(way.typed, way.peak_bytes) for way in remedies("D", "5GB", batch=64).front()]
        [('', 6343885544), ('--checkpoint block1', 4987005672)]
        """
        return front_of(self.tradeoffs())

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {
            "name": self.network.name,
            **self.options.to_dict(),
            "card": self.room.card.name,
            "limit_bytes": self.room.card.total_bytes,
            "context_bytes": self.room.context_bytes,
            "workspace_bytes": self.room.workspace_bytes,
            "multiply_accumulates": self.multiply_accumulates,
            "fits": self.fits,
            "as_it_is": self.as_it_is.to_dict(),
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "nearest": self.nearest and self.nearest.to_dict(),
        }

    def table(self) -> Table:
        """Return a row for the step as it is and one for each remedy, and sentences on what else there is to know."""
        rows = [self.as_it_is, *self.remedies]
        columns: list[Column[Remedy]] = [
            Column("remedy", lambda remedy: remedy.typed or "as it is", fold=34, style="green"),
            Column(
                "peak" if self.options.device == "cpu" else "reserved", lambda remedy: megabytes(remedy.bytes), "right"
            ),
            Column("run again", lambda remedy: self._share_again(remedy), "right", rank=2),
            Column("result", lambda remedy: "changes" if remedy.changes_result else "the same", rank=1),
            Column("retries", lambda remedy: str(remedy.retries or NONE), "right", rank=3),
            Column("what is different", lambda remedy: remedy.words or NONE, rank=4, fold=28),
        ]
        if not any(remedy.retries for remedy in rows):
            del columns[4]
        return Table(
            grid(columns, rows, title=self.title),
            records=[_record(remedy) for remedy in self.remedies],
            columns=Remedy.__struct_fields__,
            data=self.to_dict(),
            notes=self._sentences(),
        )

    def _share_again(self, remedy: Remedy) -> str:
        """Write what is run again as a share of a forward pass."""
        again = remedy.recomputed_multiply_accumulates
        return percent(again, self.multiply_accumulates) if again else NONE

    def _sentences(self) -> list[str]:
        there = f"There is room for {megabytes(self.room.bytes)}. {TENSORS_ARE_COUNTED}"
        if self.options.device == "cuda":
            there = (
                f"There is room for {megabytes(self.room.bytes)} in torch's allocator; --device cpu counts tensors"
                f" alone. CUDA's context takes {megabytes(self.room.context_bytes)} (--context), workspaces of cuDNN"
                f" and cuBLAS {megabytes(self.room.workspace_bytes)} (--workspace)."
            )
        if self.fits:
            return ["The step fits as it is.", there]
        if self.remedies:
            return [there, "Run again: the part of a forward pass that the backward pass repeats."]
        tried = f"Nothing that was tried makes the step fit, up to {MOST_KINDS} changes at once."
        if self.nearest is None:
            return [there, f"{tried} Nothing lowers its peak."]
        nearest = f"The nearest is {self.nearest.typed}, with {megabytes(self.nearest.bytes)}."
        return [there, f"{tried} {nearest}"]


NONE = "–"
"""In a table: nothing of this kind."""


def front_of(ways: Iterable[Remedy]) -> tuple[Remedy, ...]:
    """Return the Pareto front of ways, as `Remedies.front` explains it."""
    front: list[Remedy] = []
    for way in sorted(ways, key=lambda way: (way.recomputed_multiply_accumulates, way.bytes, len(way.kinds))):
        if way.price in (Price.SETTING.word, Price.AGAIN.word) and (not front or way.bytes < front[-1].bytes):
            front.append(way)
    return tuple(front)


def _record(remedy: Remedy) -> dict[str, Any]:
    """Return a row of CSV, whose cells are single values."""
    return {
        **remedy.to_dict(),
        "kinds": " ".join(remedy.kinds),
        "options": _spelt(remedy.options),
        "build_options": _spelt(remedy.build_options),
    }


def _spelt(options: dict[str, Any]) -> str:
    """Write keywords as in a call.

    >>> _spelt({"checkpoint": ("block1",), "autocast": True})
    "checkpoint=('block1',), autocast=True"
    """
    return ", ".join(f"{word}={value!r}" for word, value in options.items())


class RemedyArguments(FitArguments, total=False):
    """The keywords of `memory`, for type checkers."""

    batch: SupportsIndex


def remedies(
    source: Source,
    limit: str | SupportsIndex,
    *,
    context: str | SupportsIndex | None = None,
    workspace: str | SupportsIndex = 0,
    **arguments: Unpack[RemedyArguments],
) -> Remedies:
    """Find what makes a step fit, the cheapest first.

    Tried are settings (a fused optimizer, or one without foreach; expandable segments), every set of blocks to
    checkpoint, accumulation by every divisor of the batch, a step in the backward pass, autocast, freezing the first
    blocks, an optimizer that keeps less; in a perceptual loss freezing the network and caching the target; of several
    ranks every other strategy with the same images in all; and combinations of up to three of these. Of several ranks
    all must have room, or the one that is asked for.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        limit: a card such as "RTX 4090", a size such as "24GiB", or bytes.
        context: what CUDA itself takes of the card; by default as documented for the card.
        workspace: what cuDNN and cuBLAS take for themselves; not modelled, so 0 by default.
        arguments: as for `memory`. If no device is given, it is cuda for a card by name, and where `context` or
            `workspace` is given; else cpu, where tensors are counted.

    Returns:
        The remedies; none if the step fits as it is, or if nothing makes it fit.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values, or torch can't run the step.

    >>> [remedy.typed for remedy in remedies("D", "5GB", batch=64)]
    ['--checkpoint block1', '--batch 32 --accumulate 2', '--freeze block1', '--autocast']
    >>> remedies("E", "8GB", batch=64, optimizer="adamw", device="cuda")[0].options
    {'allocator': 'expandable_segments:True'}
    """
    given: dict[str, Any] = {"device": device_for(limit, context, workspace), **arguments}
    overrides, of_step = divided(remedies, given, STEP_KEYWORDS)
    network = Network.of(source, **overrides)
    options = checked_options(network, **of_step)
    return find_remedies(network, options, checked_room(options, limit, context, workspace))


def device_for(
    limit: str | SupportsIndex, context: str | SupportsIndex | None, workspace: str | SupportsIndex | None
) -> Device:
    """Return the device on which a step is to fit, if nobody says which; `remedies` explains the arguments.

    >>> device_for("RTX 4090", None, 0), device_for("24GiB", None, 0), device_for("24GiB", "300MiB", 0)
    ('cuda', 'cpu', 'cuda')
    """
    return "cuda" if card_of(limit).name or context is not None or workspace else "cpu"


def find_remedies(network: Network, options: StepOptions, room: Room) -> Remedies:
    """Find what makes a step fit whose options have been checked.

    Args:
        network: the network.
        options: what the step is like as it is.
        room: where it must fit.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    runnable_steps(network, options)
    place = PLACES[options.device](room)
    search = Search(network, options, place)
    fits = search.as_it_is.taken is not None
    found = [] if fits else search.ways()
    is_lower = not fits and not found and search.nearest.kinds
    return Remedies(
        network=network,
        options=options,
        room=room,
        multiply_accumulates=search.as_it_is.step.multiply_accumulates,
        fits=fits,
        as_it_is=_remedy(search.as_it_is, place),
        remedies=tuple(_remedy(way, place) for way in sorted(found, key=lambda way: way.cost)),
        nearest=_remedy(search.nearest, place) if is_lower else None,
    )

"""The work of a search: its variants are numbered, and computed in chunks by one process or several.

In a chunk, variants that differ only in numbers (width, classes, input, dropout) go through `place`, `summarize` and
the memory plan together: `vggkit.base.many` lets arrays take the place of numbers. So the rules for one network are
used, and the figures are the same.

What torch's allocator reserves can't be worked out like that, because the allocator's decisions differ from network to
network. It is worked out for one variant after the other, and only for those that meet all other conditions.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, VggkitError
from vggkit.base.many import Disagreement, largest, listed
from vggkit.figures.measures import FOUND
from vggkit.figures.summary import Summary, summarize
from vggkit.footprint.plan import peak_and_saved_bytes, reserved_on_card
from vggkit.footprint.steps.options import StepOptions, check_ranks
from vggkit.footprint.steps.refusals import runnable_steps
from vggkit.network import Network, place
from vggkit.notation.config import Config
from vggkit.notation.overrides import OVERRIDES
from vggkit.search.query import Query, labelled

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from multiprocessing.synchronize import Event

CHUNK = 4096
"""Variants computed at once: enough to keep numpy fast, few enough to take only some megabytes."""

FEW = 50_000
"""Fewer variants than this are done by one process before others have started."""

ALONE = 32
"""A variant with a figure that is worked out for it alone counts as so many others: 2 ms against some 50 µs."""

SHARES = 64
"""Chunks that a search with such figures has at least, down to `CHUNK` / `ALONE` variants: several for each process."""

NUMBERS = ("num_classes", "input", "in_channels", "width", "dropout")
"""The overrides whose values are numbers, so that all values are computed at once."""


class Variant(msgspec.Struct, frozen=True):
    """A network that was found.

    Args:
        number: its place among all variants of the search, from 0.
        name: of its configuration.
        changes: the overrides that were varied, as they were given.
        figures: by their names; counts and bytes are for the whole batch.
        front: whether no other variant that was found is better in one of the two figures of the Pareto front and as
            good in the other; None if that was not asked.
    """

    number: int
    name: str
    changes: dict[str, Any]
    figures: dict[str, Any]
    front: bool | None = None

    @property
    def label(self) -> str:
        """Its name, a colon and the changes, as `compare` takes them."""
        return labelled(self.name, self.changes)


class Chunk(NamedTuple):
    """The result of a part of a search.

    Args:
        variants: those that meet the conditions, in order.
        examined: how many there were.
        left_out: how many of them were skipped, because the input, an override or the step does not fit them.
        reason: why the first of those was.
    """

    variants: list[Variant]
    examined: int
    left_out: int
    reason: str | None


# A chunk


def chunk(query: Query, part: range, stopped: Callable[[], bool] = lambda: False) -> Chunk:
    """Compute the variants with these numbers.

    Args:
        query: what is searched.
        part: the numbers.
        stopped: tells whether to stop; it is called between groups of variants.

    Raises:
        Stopped: as soon as `stopped` says so.
    """
    places = _places(query, part)
    variants: list[Variant] = []
    misfits: list[int] = []
    for group in _groups(query, places):
        for rows, columns in _costs(query, places, group):
            if stopped():
                raise Stopped
            if columns is None:
                misfits += rows.tolist()
            else:
                variants += _matching(query, part, places, rows, columns)
    variants.sort(key=lambda variant: variant.number)
    if query.alone:
        variants = list(_matching_alone(query, variants, stopped))
    reason = _reason(query, part[min(misfits)]) if misfits else None
    return Chunk(variants, len(part), len(misfits), reason)


def _places(query: Query, part: range) -> Any:
    """Return for each number the places of its source and of its values, a row for the sources and for each axis."""
    return np.stack(np.unravel_index(np.arange(part.start, part.stop), query.shape))


def _groups(query: Query, places: Any) -> Iterator[Any]:
    """Split the variants of a chunk into groups that differ only in numbers."""
    structural = [0, *(1 + number for number, word in enumerate(query.varied) if word not in NUMBERS)]
    _, labels = np.unique(places[structural], axis=1, return_inverse=True)
    labels = labels.reshape(-1)  # NumPy 2.0 gives it two dimensions
    yield from (np.flatnonzero(labels == label) for label in range(labels.max() + 1))


def _costs(query: Query, places: Any, group: Any) -> Iterator[tuple[Any, dict[str, list[Any]] | None]]:
    """Work out the figures of a group, or of the parts that it must be split into; None for those that don't fit."""
    waiting = [group]
    while waiting:
        rows = waiting.pop()
        try:
            values = _values(query, places[:, rows])
        except Disagreement as signal:  # a rule decides differently for some of them: split the group there
            waiting += [rows[signal.labels == label] for label in np.unique(signal.labels)]
        except VggkitError:
            yield rows, None
        else:
            yield rows, {name: _column(value, len(rows)) for name, value in values.items()}


def _values(query: Query, places: Any) -> dict[str, Any]:
    """Work out the figures of variants for which every rule decides alike."""
    costs = LazyCosts(place(_config(query, places)), query.options)
    costs.options.check_names(costs.network)
    check_ranks(costs.network, costs.options)
    if query.alone or query.last:
        runnable_steps(costs.network, costs.options)  # their figures are of a step that torch must run
    return {name: FOUND[name].value(costs) for name in query.together}


def _column(value: Any, count: int) -> list[Any]:
    if isinstance(value, tuple):
        return list(zip(*(listed(side, count) for side in value)))
    return listed(value, count)


def _config(query: Query, places: Any) -> Config:
    """Return the configuration that stands for variants, with all changes made to it."""
    origin = query.sources[int(places[0][0])]
    changes = {**origin.fixed, **{axis.word: axis.at(indices) for axis, indices in zip(query.axes, places[1:])}}
    config = origin.config
    for word, override in OVERRIDES.items():
        if word in changes:
            try:
                config = override.apply(config, changes[word])
            except ValueError as error:
                raise ArgumentError(f"{word}: {error}") from None
    return config


def _matching(query: Query, part: range, places: Any, rows: Any, columns: dict[str, list[Any]]) -> Iterator[Variant]:
    """Return the variants that meet the conditions on figures that are worked out for many at once."""
    conditions = [each for each in query.conditions if each.figure in columns]
    for position, row in enumerate(rows.tolist()):
        if all(each.holds(columns[each.figure][position]) for each in conditions):
            figures = {name: column[position] for name, column in columns.items()}
            yield _variant(query, part[row], places[:, row].tolist(), figures)


def _matching_alone(query: Query, variants: Iterable[Variant], stopped: Callable[[], bool]) -> Iterator[Variant]:
    """Return those of some variants that meet the conditions on figures that are worked out for each alone, too."""
    conditions = [each for each in query.conditions if each.figure in query.alone]
    for variant in variants:
        if stopped():
            raise Stopped
        completed = with_figures(query, variant, query.alone)
        if all(each.holds(completed.figures[each.figure]) for each in conditions):
            yield completed


def with_figures(query: Query, variant: Variant, names: Iterable[str]) -> Variant:
    """Work out more figures of a variant."""
    places = _places(query, range(variant.number, variant.number + 1))
    costs = LazyCosts(place(_config(query, places)), query.options)
    return replace(variant, figures={**variant.figures, **{name: FOUND[name].value(costs) for name in names}})


def _variant(query: Query, number: int, indices: Sequence[int], figures: dict[str, Any]) -> Variant:
    origin = query.sources[indices[0]]
    varied = {axis.word: axis.values[index] for axis, index in zip(query.axes, indices[1:])}
    return Variant(number, origin.name, {**origin.changes, **varied}, figures)


def _reason(query: Query, number: int) -> str:
    """Say why a variant is skipped."""
    places = _places(query, range(number, number + 1))
    try:
        _values(query, places)
    except VggkitError as error:
        label = _variant(query, number, places[:, 0].tolist(), {}).label
        return f"{label}: {error}" if not str(error).startswith(label) else str(error)
    raise AssertionError("a variant that fits was skipped")


class LazyCosts:
    """What a network costs, each part worked out when it is asked for.

    Args:
        network: it may stand for many networks.
        options: what the training step is like.
    """

    relative_parameters: float | None = None
    """There is no first network."""

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.network = network
        self.options = options

    @cached_property
    def summary(self) -> Summary:
        """Rows and totals."""
        return summarize(self.network, batch=self.options.batch, dtype=self.options.dtype)

    @cached_property
    def _training(self) -> tuple[int, int]:
        return peak_and_saved_bytes(self.network, self.options, largest)

    @property
    def training_peak_bytes(self) -> int:
        """Most bytes alive in a training step."""
        return self._training[0]

    @property
    def saved_for_backward_bytes(self) -> int:
        """Bytes kept between forward and backward pass."""
        return self._training[1]

    @property
    def inference_peak_bytes(self) -> int:
        """Most bytes alive in a forward pass."""
        return peak_and_saved_bytes(self.network, self.options.forward_only(), largest)[0]

    @property
    def reserved_bytes(self) -> int:
        """Bytes that a card must have for a training step; only of one network."""
        return reserved_on_card(self.network, self.options)


# All chunks


def starts(query: Query) -> range:
    """Return where each chunk begins; the step is the number of variants of a chunk."""
    size = max(1, CHUNK // ALONE, min(CHUNK, query.total // SHARES)) if query.alone else CHUNK
    return range(0, query.total, size)


def is_large(query: Query) -> bool:
    """Tell whether a search takes so long that several processes should work on it."""
    return query.total * (ALONE if query.alone else 1) >= FEW


def chunks(query: Query, processes: int = 1) -> Generator[Chunk, None, None]:
    """Compute the variants chunk by chunk, in order; only a few chunks are in memory at a time.

    Args:
        query: what is searched.
        processes: how many processes work on it if it is large.
    """
    begins = starts(query)
    parts = (range(start, min(start + begins.step, query.total)) for start in begins)
    if processes == 1 or not is_large(query):
        yield from (chunk(query, part) for part in parts)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # spawning works everywhere; a fork of a program that has threads may hang
    context = get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(processes, context, initializer=_set_query, initargs=(query, stop))
    try:
        yield from _in_order(executor, parts, ahead=2 * processes)
    except BrokenProcessPool:
        raise VggkitError("a process that took part in the search was ended from outside; try again") from None
    finally:
        stop.set()  # a chunk that has been sent to a process can't be cancelled any more
        executor.shutdown(cancel_futures=True)


def cores() -> int:
    """Return how many processor cores this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 61)  # Windows can't wait for more


def _in_order(executor: Executor, parts: Iterable[range], ahead: int) -> Iterator[Chunk]:
    """Pass on the results in order, with at most `ahead` chunks in work or waiting."""
    waiting: deque[Future[Chunk]] = deque()
    for part in parts:
        if len(waiting) == ahead:
            yield waiting.popleft().result()
        with _interrupts_held():
            waiting.append(executor.submit(_chunk_of_query, part))
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they would receive it, too, and print a traceback."""
    import signal
    from threading import current_thread, main_thread

    if not hasattr(signal, "pthread_sigmask") or current_thread() is not main_thread():  # Windows; nobody interrupts it
        yield
        return
    held: list[int] = []
    # new processes inherit the mask; the handler is needed if another thread of this process takes the signal
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if held:
        signal.raise_signal(signal.SIGINT)


_QUERY: list[tuple[Query, Callable[[], bool]]] = []
"""In a process that works on chunks, what is searched, and whether to stop."""


class Stopped(Exception):  # noqa: N818  # a signal
    """Raised to leave a chunk whose result nobody needs any more."""


def _set_query(query: Query, stop: Event) -> None:
    """Make a process ready. It ignores Ctrl-C: the process that started it stops it then."""
    from signal import SIG_IGN, SIGINT, signal
    from threading import Thread

    signal(SIGINT, SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _QUERY[:] = [(query, stop.is_set)]


def _end_with_parent() -> None:
    """End this process when the one that started it ends: if that was killed, nothing else would end this one."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _chunk_of_query(part: range) -> Chunk:
    query, stopped = _QUERY[0]
    return chunk(query, part, stopped)

"""Networks → Report: gathers what the page says about them, within the limits of the page's own arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex, TypeVar

from vggkit.base.errors import ArgumentError
from vggkit.figures.compare import compare
from vggkit.figures.compared import Compared
from vggkit.figures.summary import summarize
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import Loop, run
from vggkit.footprint.card_fit import room_of
from vggkit.footprint.fit import LinearBytes, LinearStep, linear_step
from vggkit.footprint.plan import plan_step
from vggkit.footprint.sought import SoughtBatch
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
from vggkit.network import ELEMENT_BYTES, Dtype, Network, Source, check_batch, dtype_name, each_source
from vggkit.notation.overrides import Overrides, check_keywords
from vggkit.notation.zoo import dump
from vggkit.pictures import scatter
from vggkit.pictures.plot import draw, file_name, plot
from vggkit.pictures.report.page import CARD_GIB, CONTEXT_MIB, STEPS, NetworkReport, OnCard, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Unpack

MOST_REPORTED = 8
"""More networks of the paper's size than this make a page of more than a megabyte."""

LARGEST_BATCH = 65_536
"""The largest batch that a page's control takes, unless a figure would be too large for the page's arithmetic."""

LARGEST_COUNT = 2**53 - 1
"""A page computes in floating point: up to here integers are exact."""

LARGEST_BYTES = LARGEST_COUNT // 100
"""Up to here shares in percent are exact as well."""


def report(
    *sources: Source | Iterable[Source],
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    optimizer: str | None = None,
    **overrides: Unpack[Overrides],
) -> Report:
    """Write a page about one or several networks: tables, pictures, notation, and memory at any batch.

    Args:
        sources: names, paths, Configs, Networks or torch modules, or lists of them, with changes as in `compare`.
        batch: number of images when the page opens.
        dtype: float32, bfloat16, float16 or float64, when the page opens.
        optimizer: with which training is chosen when the page opens, as for `memory`.
        overrides: changes to make to each network, as for `load`.

    Returns:
        The report.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> report("D", batch=64).file_name
    'D-report.html'
    """
    chosen = each_source(sources)
    if not 1 <= len(chosen) <= MOST_REPORTED:
        raise ArgumentError(f"expected 1 to {MOST_REPORTED} networks in a report, found {len(chosen)}")
    check_keywords(report, overrides)
    batch, dtype = check_batch(batch), dtype_name(dtype)
    comparison = compare(*chosen, batch=batch, dtype=dtype, optimizer=optimizer, **overrides)
    networks = tuple(_of_network(one, batch, dtype, comparison.options.optimizer) for one in comparison.networks)
    steps = [step for one in networks for steps in one.steps.values() for step in steps.values()]
    name = file_name("compare", [one.label for one in comparison.networks])
    return Report(
        batch=batch,
        dtype=dtype,
        step=comparison.options.optimizer,
        smallest_batch=max(step.smallest_batch for step in steps),
        largest_batch=_largest_batch(networks, batch),
        networks=networks,
        comparison=comparison,
        picture=draw(scatter, comparison, name) if len(networks) > 1 else None,
    )


def _largest_batch(networks: tuple[NetworkReport, ...], batch: int) -> int:
    """Return the largest batch at which no figure of any network is too large for the page."""
    limits = {one.compared.label: _largest_batch_of(one) for one in networks}
    label = min(limits, key=limits.__getitem__)
    if limits[label] < 1:
        raise ArgumentError(f"{label}: its figures are too large for a page's arithmetic")
    largest = min(LARGEST_BATCH, limits[label])
    if batch > largest:
        raise ArgumentError(f"batch: expected up to {largest} in a report, found {batch}")
    return largest


def _largest_batch_of(one: NetworkReport) -> int:
    totals = one.image.totals
    outputs = LinearBytes(0, totals.activation_elements * max(ELEMENT_BYTES.values()))
    moments = [moment.size for steps in one.steps.values() for step in steps.values() for moment in step.moments]
    sizes = [(LARGEST_BYTES - size.constant) // size.per_image for size in (outputs, *moments) if size.per_image]
    return min(*sizes, LARGEST_COUNT // max(1, totals.multiply_accumulates))


def _of_network(one: Compared, batch: int, dtype: str, optimizer: str) -> NetworkReport:
    network = one.network
    first = StepOptions(batch=batch, dtype=dtype, **STEPS[optimizer])
    return NetworkReport(
        compared=one,
        summary=summarize(network, batch=batch, dtype=dtype),
        image=summarize(network),
        plan=plan_step(network, first),
        on_card=_on_card(network, first.replace(device="cuda")),
        steps=_steps(network),
        loops=_loops(network),
        notation=dump(network.config),
        pictures=(
            plot(network, kind="architecture"),
            plot(network, kind="cost", batch=batch, dtype=dtype),
        ),
    )


def _on_card(network: Network, options: StepOptions) -> OnCard:
    """Return what there is to say about a step on the card with which the page opens."""
    sought, room = SoughtBatch(network, options), room_of(f"{CARD_GIB}GiB", f"{CONTEXT_MIB}MiB", 0)
    [(loop, batch)] = sought.loops(options.batch)
    tensors_alone = sought.largest_of_tensors(room.bytes)
    return OnCard(
        plan=plan_step(network, options),
        steps=tuple(run(loop, batch, room.card.total_bytes, Settings(), taken=room.taken_bytes)),
        tensors_alone=tensors_alone if tensors_alone >= sought.smallest else 0,
        smallest=sought.smallest,
    )


Kind = TypeVar("Kind")


def _steps(network: Network) -> dict[str, dict[str, LinearStep]]:
    """Return for each dtype and step the memory at any batch."""
    return _of_each(lambda options: linear_step(network, options))


def _loops(network: Network) -> dict[str, dict[str, Loop]]:
    """Return for each dtype and step the allocations of a loop on a card."""
    return _of_each(lambda options: step_of(network, options.replace(device="cuda")).loop)


def _of_each(made: Callable[[StepOptions], Kind]) -> dict[str, dict[str, Kind]]:
    """Return something of every dtype and step; dtypes of the same size share it."""
    dtypes = {size: dtype for dtype, size in ELEMENT_BYTES.items()}
    by_size = {
        size: {word: made(StepOptions(dtype=dtype, **step)) for word, step in STEPS.items()}
        for size, dtype in dtypes.items()
    }
    return {dtype: by_size[size] for dtype, size in ELEMENT_BYTES.items()}

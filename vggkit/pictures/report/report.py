"""Networks → Report: everything that there is to say of them, for one page that works out memory by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec

from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import parse_bytes
from vggkit.base.tables import Shown
from vggkit.figures.compare import Compared, Comparison, compare
from vggkit.figures.summary import Summary, check_batch, summarize
from vggkit.footprint.plan import OPTIMIZERS, Fit, LinearBytes, Lines, MemoryPlan, Options, fit_batch, lines, plan
from vggkit.network import ELEMENT_BYTES, Dtype, Network, Source, dtype_name, each_source
from vggkit.notation.overrides import Overrides, check_keywords
from vggkit.notation.zoo import dump
from vggkit.pictures.plot import Picture, file_name, plot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Group
    from typing_extensions import Unpack

MOST_REPORTED = 8
"""More networks of the paper's size than this make a page of more than a megabyte."""

LARGEST_BATCH = 65_536
"""The largest batch that a page's control takes; less where a figure would be too large for the page's arithmetic."""

LARGEST_COUNT = 2**53 - 1
"""A page computes in floating point: up to here integers are exact."""

LARGEST_BYTES = LARGEST_COUNT // 100
"""Up to here shares in percent are exact as well."""

CARD_GIB = 24
"""Memory of the card that the page asks for at first, in GiB."""

INFERENCE = "inference"

STEPS: dict[str, dict[str, Any]] = {
    INFERENCE: {"mode": "inference", "optimizer": "none"},
    **{optimizer: {"mode": "training", "optimizer": optimizer} for optimizer in OPTIMIZERS},
}
"""What the page's control of the step says, and the options of it: inference, or training with an optimizer."""


class Reported(msgspec.Struct, frozen=True):
    """What a page says of one network.

    Args:
        compared: its figures, and the network itself.
        summary: its rows, for the page's first batch and dtype.
        image: its rows for one image, in float32.
        plan: the page's first step.
        fit: the largest batch of that step on the page's first card.
        steps: for each dtype and step the memory at any batch.
        notation: its configuration as YAML.
        pictures: of its architecture, and of what its layers cost.
    """

    compared: Compared
    summary: Summary
    image: Summary
    plan: MemoryPlan
    fit: Fit
    steps: dict[str, dict[str, Lines]]
    notation: str
    pictures: tuple[Picture, ...]

    @property
    def smallest_batch(self) -> int:
        """The smallest batch of which torch runs every step."""
        return max(step.smallest_batch for steps in self.steps.values() for step in steps.values())

    @property
    def largest_batch(self) -> int:
        """The largest batch at which no figure is too large for the page; 0 if there is none."""
        macs = self.image.totals.multiply_accumulates
        outputs = LinearBytes(0, self.image.totals.activation_elements * max(ELEMENT_BYTES.values()))
        moments = [moment.size for steps in self.steps.values() for step in steps.values() for moment in step.moments]
        limits = [(LARGEST_BYTES - size.constant) // size.per_image for size in (outputs, *moments) if size.per_image]
        return max(0, min(*limits, LARGEST_COUNT // max(1, macs)))


class Report(Shown, msgspec.Struct, frozen=True):
    """One or several networks as a page. Iterating gives what it says of each.

    Args:
        batch: number of images, at first.
        dtype: of parameters, images and activations, at first.
        step: a key of `STEPS`, at first.
        smallest_batch: the smallest that the page's control takes, where torch runs every step of every network.
        largest_batch: the largest.
        networks: what it says of each.
        comparison: the networks side by side.
        picture: of the comparison; None of a single network.
    """

    batch: int
    dtype: str
    step: str
    smallest_batch: int
    largest_batch: int
    networks: tuple[Reported, ...]
    comparison: Comparison
    picture: Picture | None

    def __iter__(self) -> Iterator[Reported]:
        return iter(self.networks)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def file_name(self) -> str:
        """A file's name for it, in characters that every file system takes."""
        return f"{file_name('report', [one.compared.label for one in self.networks])}.html"

    def to_html(self) -> str:
        """Return the page, which needs no other file and no network."""
        from vggkit.pictures.report.page import html_text

        return html_text(self)

    def __rich__(self) -> Group:
        return self.comparison.__rich__()

    def _repr_html_(self) -> str:
        from html import escape

        return f'<iframe srcdoc="{escape(self.to_html())}" width="100%" height="800"></iframe>'


def report(
    *sources: Source | Iterable[Source],
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    **overrides: Unpack[Overrides],
) -> Report:
    """Gather all that a page says of networks.

    Args:
        sources: names, paths, Configs or Networks, or lists of them, with changes behind them as in `compare`.
        batch: number of images, at first.
        dtype: float32, bfloat16, float16 or float64, at first.
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
    comparison = compare(*chosen, batch=batch, dtype=dtype, **overrides)
    networks = tuple(_reported(one, batch, dtype, comparison.optimizer) for one in comparison.networks)
    scatter = plot(*chosen, kind="compare", batch=batch, dtype=dtype, **overrides) if len(networks) > 1 else None
    return Report(
        batch=batch,
        dtype=dtype,
        step=comparison.optimizer,
        smallest_batch=max(one.smallest_batch for one in networks),
        largest_batch=_largest_batch(networks, batch),
        networks=networks,
        comparison=comparison,
        picture=scatter,
    )


def _largest_batch(networks: tuple[Reported, ...], batch: int) -> int:
    smallest = min(networks, key=lambda one: one.largest_batch)
    largest = min(LARGEST_BATCH, smallest.largest_batch)
    if not largest:
        raise ArgumentError(f"{smallest.compared.label}: its figures are too large for a page's arithmetic")
    if batch > largest:
        raise ArgumentError(f"batch: expected up to {largest} in a report, found {batch}")
    return largest


def _steps(network: Network) -> dict[str, dict[str, Lines]]:
    """Return for each dtype and step the memory at any batch; dtypes of one size have it in common."""
    dtypes = {size: dtype for dtype, size in ELEMENT_BYTES.items()}
    steps = {
        size: {word: lines(network, Options(dtype=dtype, **step)) for word, step in STEPS.items()}
        for size, dtype in dtypes.items()
    }
    return {dtype: steps[size] for dtype, size in ELEMENT_BYTES.items()}


def _reported(one: Compared, batch: int, dtype: str, optimizer: str) -> Reported:
    network = one.network
    first = Options(batch=batch, dtype=dtype, **STEPS[optimizer])
    return Reported(
        compared=one,
        summary=summarize(network, batch=batch, dtype=dtype),
        image=summarize(network),
        plan=plan(network, first),
        fit=fit_batch(network, first, parse_bytes(f"{CARD_GIB}GiB")),
        steps=_steps(network),
        notation=dump(network.config),
        pictures=(
            plot(network, kind="architecture"),
            plot(network, kind="cost", batch=batch, dtype=dtype),
        ),
    )

"""What one network adds to another, removes and changes, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from vggkit.base.numbers import signed, signed_megabytes
from vggkit.base.tables import Column, Shown, Table, grid, html
from vggkit.figures.alignment import Cell, sort_of
from vggkit.figures.compared import Compared, refusals, step_dict, step_title
from vggkit.figures.measures import FOUND, Count
from vggkit.figures.summary import Row
from vggkit.footprint.steps.options import StepOptions
from vggkit.notation.layers import times

TOTALS = tuple(
    FOUND[name]
    for name in (
        "parameters",
        "multiply_accumulates",
        "activation_bytes",
        "inference_peak_bytes",
        "training_peak_bytes",
    )
)
"""The figures of whole networks that are compared."""


class Change(msgspec.Struct, frozen=True):
    """What one layer adds to the cost of a network, or takes from it; for the whole batch.

    Args:
        change: what happened to the layer. It is "changed", too, if only its cost differs, since its maps
            have another size.
        before: the layer in the first network; None if it was added.
        after: the layer in the second network; None if it was removed.
        parameters: how many more trainable elements; negative if fewer, as for all costs.
        multiply_accumulates: how many more.
        activation_bytes: how many more bytes its output takes.
    """

    change: Literal["added", "removed", "changed"]
    before: Row | None
    after: Row | None
    parameters: int
    multiply_accumulates: int
    activation_bytes: int

    @property
    def costs(self) -> tuple[int, int, int]:
        """How many more parameters, multiply-accumulates and bytes."""
        return self.parameters, self.multiply_accumulates, self.activation_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the change as the documented JSON has it."""
        return {
            "change": self.change,
            "before": _layer_dict(self.before),
            "after": _layer_dict(self.after),
            "parameters": self.parameters,
            "multiply_accumulates": self.multiply_accumulates,
            "activation_bytes": self.activation_bytes,
        }

    def to_record(self) -> dict[str, Any]:
        """Return the change as a row of CSV: layers by their names."""
        return {
            "change": self.change,
            "before": self.before.name if self.before else None,
            "after": self.after.name if self.after else None,
            "parameters": self.parameters,
            "multiply_accumulates": self.multiply_accumulates,
            "activation_bytes": self.activation_bytes,
        }


def _layer_dict(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"layer": row.name, "notation": row.notation, "output_shape": list(row.output_shape)}


class Difference(NamedTuple):
    """A figure of two networks.

    Args:
        measure: which figure.
        before: that of the first.
        after: that of the second.
    """

    measure: Count
    before: int
    after: int

    @property
    def name(self) -> str:
        """The figure's name."""
        return self.measure.name

    @property
    def more(self) -> int:
        """By how much the second is larger."""
        return self.after - self.before


class Diff(Shown, msgspec.Struct, frozen=True):
    """What a network adds to another, removes and changes.

    Args:
        options: what the training step is like whose peak is given.
        before: the first network.
        after: the second network.
        changes: layer by layer; their costs add up to the difference of the totals.
    """

    options: StepOptions
    before: Compared
    after: Compared
    changes: tuple[Change, ...]

    @property
    def totals(self) -> tuple[Difference, ...]:
        """Figures of both networks. A figure is left out if torch can't run its step for one of them."""
        pairs = (Difference(measure, measure.value(self.before), measure.value(self.after)) for measure in TOTALS)
        return tuple(pair for pair in pairs if pair.before is not None and pair.after is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON: before, after, what the step is like, changes and totals."""
        return {
            "before": self.before.label,
            "after": self.after.label,
            **step_dict(self.options),
            "changes": [change.to_dict() for change in self.changes],
            "totals": {total.name: [total.before, total.after, total.more] for total in self.totals},
        }

    def table(self) -> Table:
        """Return a line for each change and their sum, then a line for each figure of the whole networks."""
        more = {total.name: total.more for total in self.totals}
        footer = [
            "",
            "in all",
            "",
            signed(more["parameters"]),
            signed(more["multiply_accumulates"]),
            signed_megabytes(more["activation_bytes"]),
        ]
        title = f"{self.before.label} → {self.after.label}: {step_title(self.options)}"
        return DiffTable(
            grid(CHANGE_COLUMNS, self.changes, footer, title=title),
            grid(TOTAL_COLUMNS, self.totals),
            records=[change.to_record() for change in self.changes],
            data=self.to_dict(),
            columns=("change", "before", "after", "parameters", "multiply_accumulates", "activation_bytes"),
            notes=refusals((self.before, self.after)),
        )


def changes(left: Cell | None, right: Cell | None) -> Iterable[Change]:
    """Return what happens to a layer. If one of another sort takes its place, one is removed and one is added."""
    before, after = left.row if left else None, right.row if right else None
    if before and after and sort_of(before) == sort_of(after):
        change = _change("changed", before, after)
        if before.notation != after.notation or any(change.costs):
            yield change
        return
    if before:
        yield _change("removed", before, None)
    if after:
        yield _change("added", None, after)


def _change(change: Literal["added", "removed", "changed"], before: Row | None, after: Row | None) -> Change:
    def more(figure: str) -> int:
        return int(getattr(after, figure, 0) - getattr(before, figure, 0))

    return Change(change, before, after, more("parameters"), more("multiply_accumulates"), more("activation_bytes"))


# The table

SIGNS = {"added": "+", "removed": "−", "changed": "~"}


def _before_and_after(change: Change, word: Callable[[Row], str]) -> str:
    """Write a word for the layer before and after; once if they are equal."""
    there = [word(row) for row in (change.before, change.after) if row]
    return " → ".join(dict.fromkeys(there))


def _what(change: Change) -> str:
    notation = _before_and_after(change, lambda row: row.notation)
    if change.before and change.after and change.before.notation == change.after.notation:
        return f"{notation}, {_before_and_after(change, lambda row: times(row.output_shape))}"
    return notation


CHANGE_COLUMNS: list[Column[Change]] = [
    Column("", lambda change: SIGNS[change.change], style="bold"),
    Column("layer", lambda change: _before_and_after(change, lambda row: row.name)),
    Column("what", _what, rank=1, style="cyan", fold=20),
    Column("parameters", lambda change: signed(change.parameters), "right", style="green"),
    Column("MACs", lambda change: signed(change.multiply_accumulates), "right", rank=2),
    Column("activations", lambda change: signed_megabytes(change.activation_bytes), "right", rank=3),
]

TOTAL_COLUMNS: list[Column[Difference]] = [
    Column("", lambda total: total.measure.words),
    Column("before", lambda total: total.measure.written(total.before), "right", rank=1),
    Column("after", lambda total: total.measure.written(total.after), "right", rank=1),
    Column("more", lambda total: total.measure.written_difference(total.more), "right", style="bold"),
]


class DiffTable(Table):
    """A table of changes and one of whole networks; in HTML the second has a title of its own."""

    def to_html(self) -> str:
        changes, totals = self.grids
        return html(changes) + html(totals._replace(title="in all"))

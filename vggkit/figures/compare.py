"""Several networks side by side: their layers aligned as in the paper's Table 1, their figures, what differs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, SupportsIndex

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, did_you_mean, shorten
from vggkit.base.tables import Shown, data_frame
from vggkit.figures.summary import Row, Summary, check_batch, summarize
from vggkit.footprint import plan as liveness
from vggkit.network import Dtype, Network, Source, dtype_name, each_source
from vggkit.notation.config import SingleScale
from vggkit.notation.document import setting, split_outside
from vggkit.notation.layers import Pair, times
from vggkit.notation.overrides import Overrides, check_keywords
from vggkit.notation.zoo import names

if TYPE_CHECKING:
    from rich.console import Group
    from typing_extensions import Unpack


class Compared(msgspec.Struct, frozen=True):
    """A network of a comparison and its figures, which are for the whole batch.

    Args:
        name: what stands above its column.
        changes: what was changed in it, each as key=value.
        network: the network itself.
        summary: its rows, a row for every module, and totals.
        relative_parameters: parameters divided by those of the first network; None if that has none.
        conv_parameters: those of convolutions.
        fc_parameters: those of fully connected layers.
        inference_peak_bytes: most bytes alive in a forward pass; None if torch can't run it.
        training_peak_bytes: most bytes alive in a training step; None if torch can't run it.
        refusal: why torch can't, and what would help; None if it can.
        receptive_field: height and width of the input that one value behind the last block sees.
        reported: errors that its publication gives.
    """

    name: str
    changes: tuple[str, ...]
    network: Network
    summary: Summary
    relative_parameters: float | None
    conv_parameters: int
    fc_parameters: int
    inference_peak_bytes: int | None
    training_peak_bytes: int | None
    refusal: str | None
    receptive_field: Pair
    reported: tuple[SingleScale, ...]

    @property
    def label(self) -> str:
        """Its name, and behind a colon what was changed."""
        return f"{self.name}:{','.join(self.changes)}" if self.changes else self.name

    def figures(self) -> dict[str, Any]:
        """Return every figure by its name."""
        return {name: figure.value(self) for name, figure in FIGURES.items()}


class Figure(NamedTuple):
    """A figure that networks are compared by.

    Args:
        aliases: other names that find it.
        value: a network's; None if it has none.
    """

    aliases: tuple[str, ...]
    value: Callable[[Compared], Any]


FIGURES: dict[str, Figure] = {
    "weight_layers": Figure(("depth",), lambda one: one.summary.totals.weight_layers),
    "parameters": Figure(("params",), lambda one: one.summary.totals.parameters),
    "relative_parameters": Figure(("relative",), lambda one: one.relative_parameters),
    "conv_parameters": Figure(("conv", "conv_share"), lambda one: one.conv_parameters),
    "fc_parameters": Figure(("fc", "fc_share"), lambda one: one.fc_parameters),
    "multiply_accumulates": Figure(("macs",), lambda one: one.summary.totals.multiply_accumulates),
    "activation_bytes": Figure(("activations",), lambda one: one.summary.totals.activation_bytes),
    "inference_peak_bytes": Figure(("inference", "inference_peak"), lambda one: one.inference_peak_bytes),
    "training_peak_bytes": Figure(("training", "training_peak"), lambda one: one.training_peak_bytes),
    "receptive_field": Figure(("field",), lambda one: list(one.receptive_field)),
    "top1_error": Figure(("top1",), lambda one: min((line.top1 for line in one.reported), default=None)),
    "top5_error": Figure(("top5",), lambda one: min((line.top5 for line in one.reported), default=None)),
}
"""Everything that columns can be sorted by and chosen from; an error is the lowest of those reported."""


def figure_name(word: str, argument: str, others: tuple[str, ...] = ()) -> str:
    """Return the name of a figure.

    Args:
        word: its name or an alias; letter case and - or _ don't matter.
        argument: what it was given for, for the message.
        others: what may be said besides.

    Raises:
        ArgumentError: if there is none of that name.

    >>> figure_name("MACs", "sort")
    'multiply_accumulates'
    """
    known = {alias: name for name, figure in FIGURES.items() for alias in (name, *figure.aliases)}
    known.update({other: other for other in others})
    plain = word.strip().lower().replace("-", "_")
    if plain not in known:
        advice = did_you_mean(plain, known) or f" Known: {', '.join((*FIGURES, *others))}"
        raise ArgumentError(f"{argument}: unknown figure {shorten(word)}.{advice}")
    return known[plain]


class Cell(msgspec.Struct, frozen=True):
    """A layer in a row of a comparison.

    Args:
        row: the layer in its network's summary.
        differs: whether the column to the left has another layer or none; False in the first column.
    """

    row: Row
    differs: bool

    @property
    def text(self) -> str:
        """What the paper calls the layer; of the input its shape."""
        return self.row.notation if self.row.layer else f"input {times(self.row.output_shape)}"


class AlignedRow(msgspec.Struct, frozen=True):
    """Layers of several networks that stand side by side.

    Args:
        block: the block they stand in; None for the input and in the classifier.
        cells: a layer of each network, or None.
        shown: False for what the paper leaves unsaid and all networks have: ReLU, dropout 0.5, flatten.
    """

    block: str | None
    cells: tuple[Cell | None, ...]
    shown: bool

    @property
    def spans(self) -> bool:
        """Whether all columns share one cell, as pools and the classifier do in the paper's table if they are equal."""
        first = self.cells[0]
        if first is None or any(cell is None or cell.text != first.text for cell in self.cells):
            return False
        return self.block is None or first.row.kind.endswith("pool")


class Comparison(Shown, msgspec.Struct, frozen=True):
    """Networks side by side.

    Args:
        batch: number of images.
        dtype: of parameters, images and activations.
        optimizer: of the training step whose peak is given.
        networks: the columns.
        rows: their layers, aligned.
    """

    batch: int
    dtype: str
    optimizer: str
    networks: tuple[Compared, ...]
    rows: tuple[AlignedRow, ...]

    def diff(self) -> Diff:
        """Return what the second of two networks adds, removes and changes.

        Raises:
            ArgumentError: if they are not two.
        """
        if len(self.networks) != 2:
            raise ArgumentError(f"diff: expected two networks, found {len(self.networks)}")
        changes = [change for row in self.rows for change in _changes(*row.cells) if row.shown]
        return Diff(self.batch, self.dtype, self.optimizer, *self.networks, tuple(changes))

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON: batch, dtype, optimizer, networks and rows."""
        return {
            "batch": self.batch,
            "dtype": self.dtype,
            "optimizer": self.optimizer,
            "networks": [
                {
                    "name": one.label,
                    "input": list(one.summary.input),
                    **one.figures(),
                    "reported": msgspec.json.decode(msgspec.json.encode(one.reported)),  # no tuples, as JSON has none
                }
                for one in self.networks
            ],
            "rows": [
                {
                    "block": row.block,
                    "cells": [
                        {"layer": cell.row.name, "notation": cell.text, "differs": cell.differs} if cell else None
                        for cell in row.cells
                    ],
                }
                for row in self.rows
                if row.shown
            ],
        }

    def to_dataframe(self) -> Any:
        """Return the figures as a pandas DataFrame, a row per network.

        Raises:
            VggkitError: if pandas is not installed.
        """
        return data_frame(({"name": one.label, **one.figures()} for one in self.networks), "name")

    def __str__(self) -> str:
        from vggkit.figures.compare_table import table_text

        return table_text(self)

    def __rich__(self) -> Group:
        from vggkit.figures.compare_table import table

        return table(self)

    def _repr_html_(self) -> str:
        from vggkit.figures.compare_table import html_text

        return html_text(self)


class Change(msgspec.Struct, frozen=True):
    """What one layer adds to the cost of a network, or takes from it; for the whole batch.

    Args:
        change: what became of the layer; one that costs something else for maps of another size is changed, too.
        before: the layer in the first network; None if it was added.
        after: the layer in the second network; None if it was removed.
        parameters: trainable elements more.
        multiply_accumulates: that many more.
        activation_bytes: bytes of its output more.
    """

    change: Literal["added", "removed", "changed"]
    before: Row | None
    after: Row | None
    parameters: int
    multiply_accumulates: int
    activation_bytes: int

    @property
    def costs(self) -> tuple[int, int, int]:
        """Parameters, multiply-accumulates and bytes more."""
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


def _layer_dict(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"layer": row.name, "notation": row.notation, "output_shape": list(row.output_shape)}


class Difference(NamedTuple):
    """A figure of two networks.

    Args:
        name: the figure's.
        before: of the first.
        after: of the second.
        more: by how much the second is larger.
    """

    name: str
    before: int
    after: int
    more: int


class Diff(Shown, msgspec.Struct, frozen=True):
    """What a network adds to another, removes and changes.

    Args:
        batch: number of images.
        dtype: of parameters, images and activations.
        optimizer: of the training step whose peak is given.
        before: the first network.
        after: the second network.
        changes: layer by layer; their costs add up to the difference of the totals.
    """

    batch: int
    dtype: str
    optimizer: str
    before: Compared
    after: Compared
    changes: tuple[Change, ...]

    @property
    def totals(self) -> tuple[Difference, ...]:
        """The figures that are bytes or counts, of both networks; none whose step torch can't run of one of them."""
        words = (
            "parameters", "multiply_accumulates", "activation_bytes", "inference_peak_bytes", "training_peak_bytes",
        )  # fmt: skip
        pairs = ((word, FIGURES[word].value(self.before), FIGURES[word].value(self.after)) for word in words)
        return tuple(
            Difference(word, before, after, after - before)
            for word, before, after in pairs
            if before is not None and after is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON: before, after, batch, dtype, optimizer, changes and totals."""
        return {
            "before": self.before.label,
            "after": self.after.label,
            "batch": self.batch,
            "dtype": self.dtype,
            "optimizer": self.optimizer,
            "changes": [change.to_dict() for change in self.changes],
            "totals": {total.name: [total.before, total.after, total.more] for total in self.totals},
        }

    def __str__(self) -> str:
        from vggkit.figures.compare_table import diff_text

        return diff_text(self)

    def __rich__(self) -> Group:
        from vggkit.figures.compare_table import diff_table

        return diff_table(self)

    def _repr_html_(self) -> str:
        from vggkit.figures.compare_table import diff_html

        return diff_html(self)


def compare(
    *sources: Source | Iterable[Source],
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    optimizer: str | None = None,
    sort: str | None = None,
    **overrides: Unpack[Overrides],
) -> Comparison:
    """Set networks side by side, as the paper's Table 1 does.

    Args:
        sources: names, paths, Configs or Networks, or lists of them; behind a name or path may stand changes, as in
            `D:batch_norm=true,width=0.5`. Without any, the paper's six.
        batch: number of images.
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        optimizer: of the training step: none, sgd, sgd-momentum (if absent; without weight decay), adam or adamw.
        sort: a figure that the columns are sorted by, as parameters or macs; with - before it from the largest.
        overrides: changes to make to every network, as for `load`.

    Returns:
        The comparison.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> [one.training_peak_bytes for one in compare("A", "D:batch_norm=true,head=gap", batch=64).networks]
    [4749085928, 8306309968]
    """
    check_keywords(compare, overrides)
    batch, dtype = check_batch(batch), dtype_name(dtype)
    key = None if sort is None else figure_name(sort.removeprefix("-"), "sort")
    chosen = each_source(sources)
    named = [_network(source, overrides) for source in chosen or names()]
    made = [_compared(network, changes, batch, dtype, optimizer) for network, changes in named]
    columns = _relative(_sorted(_labelled(made, chosen), key, descending=(sort or "").startswith("-")))
    return Comparison(
        batch=batch,
        dtype=dtype,
        optimizer=optimizer or liveness.Options().optimizer,
        networks=tuple(columns),
        rows=tuple(_rows([one.summary for one in columns])),
    )


def split_changes(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Split a source from the changes behind it; a path may have colons of its own.

    >>> split_changes("D:batch_norm=true,width=0.5"), split_changes("C:\\my.yaml")
    (('D', ('batch_norm=true', 'width=0.5')), ('C:\\my.yaml', ()))
    >>> split_changes("D:activation={leaky-relu: 0.2},width=0.5")
    ('D', ('activation={leaky-relu: 0.2}', 'width=0.5'))
    """
    *sources, changes = split_outside(text, ":")
    source = ":".join(sources)
    if not source or re.search(r"[/\\]|\.ya?ml$", changes, re.IGNORECASE):
        return text, ()
    return source, tuple(change.strip() for change in split_outside(changes, ","))


def _network(source: Source, overrides: Overrides) -> tuple[Network, tuple[str, ...]]:
    if not isinstance(source, (str, os.PathLike)):
        return Network.of(source, **overrides), ()
    plain, changes = split_changes(os.fspath(source))
    if not changes:
        return Network.of(plain, **overrides), ()
    try:
        return Network.of(plain, **{**overrides, **dict(map(setting, changes))}), changes
    except ArgumentError as error:
        raise ArgumentError(f"{shorten(os.fspath(source))}: {error}") from None


def _compared(network: Network, changes: tuple[str, ...], batch: int, dtype: str, optimizer: str | None) -> Compared:
    summary = summarize(network, batch=batch, dtype=dtype, expand=True)

    training = liveness.checked_options(
        network, batch=batch, mode="training", dtype=dtype, optimizer=optimizer, device="cpu", freeze=(), checkpoint=(),
        autocast=False,
    )  # fmt: skip
    steps = {"inference": liveness.forward_only(training), "training": training}
    refusals = {mode: liveness.refusal(network, step) for mode, step in steps.items()}
    peaks = {mode: None if refusals[mode] else liveness.plan(network, step).peak_bytes for mode, step in steps.items()}
    return Compared(
        name=network.name,
        changes=changes,
        network=network,
        summary=summary,
        relative_parameters=None,
        conv_parameters=summary.parameters_of("conv"),
        fc_parameters=summary.parameters_of("fc"),
        inference_peak_bytes=peaks["inference"],
        training_peak_bytes=peaks["training"],
        refusal=refusals["inference"] or refusals["training"],
        receptive_field=network.receptive_field,
        reported=network.config.reported.single_scale if network.config.reported else (),
    )


def _labelled(networks: list[Compared], sources: Sequence[Source]) -> list[Compared]:
    """Call networks whose labels are equal by what was typed, if that tells them apart."""
    labels = [one.label for one in networks]
    return [
        replace(one, name=split_changes(os.fspath(source))[0])
        if isinstance(source, (str, os.PathLike)) and labels.count(one.label) > 1
        else one
        for one, source in zip(networks, sources or labels)
    ]


def _sorted(networks: list[Compared], key: str | None, *, descending: bool) -> list[Compared]:
    """Sort by a figure; networks that have none come last."""
    if key is None:
        return networks
    value = FIGURES["parameters" if key == "relative_parameters" else key].value
    known = [one for one in networks if value(one) is not None]
    unknown = [one for one in networks if value(one) is None]
    return sorted(known, key=value, reverse=descending) + unknown


def _relative(networks: list[Compared]) -> list[Compared]:
    first = networks[0].summary.totals.parameters
    return [
        replace(one, relative_parameters=one.summary.totals.parameters / first if first else None) for one in networks
    ]


# Alignment

Slot = list[Row | None]
"""A layer of each network, or None."""

EXACT, SIMILAR, SAME_NAME = 100, 50, 1
"""What it is worth to set layers side by side that say the same, are of one sort; a name decides between equals."""

MOST_PAIRS = 250_000
"""Longer blocks are set side by side layer by layer from the top."""

UNSAID = ("relu", "dropout", "flatten")
"""What the paper's table leaves out: it has no parameters and no output of its own, and costs nothing."""


def _rows(summaries: Sequence[Summary]) -> Iterable[AlignedRow]:
    """Align networks block by block."""
    parts = [_parts(summary) for summary in summaries]
    blocks = max(([block for block in part if block] for part in parts), key=len)
    yield AlignedRow(None, _cells([part[""][0] for part in parts]), shown=True)
    for block in (*blocks, None):
        slots = _align([part.get(block, []) for part in parts])
        for slot, shown in zip(slots, _shown(slots)):
            yield AlignedRow(block, _cells(slot), shown)


def _parts(summary: Summary) -> dict[str | None, list[Row]]:
    """Return the rows of each block, those of the classifier under None, and the input under ""."""
    parts: dict[str | None, list[Row]] = {}
    for row in summary:
        parts.setdefault(row.block if row.layer else "", []).append(row)
    return parts


def _cells(slot: Slot) -> tuple[Cell | None, ...]:
    texts = [Cell(row, False).text if row else None for row in slot]
    return tuple(
        Cell(row, differs=number > 0 and texts[number] != texts[number - 1]) if row else None
        for number, row in enumerate(slot)
    )


def _sort(row: Row) -> str:
    """Return what makes layers alike: weight layers are, and so are pools."""
    if row.layer is None or row.layer.role == "other":
        return row.layer.stem if row.layer else "input"
    return row.layer.role


def _follows(row: Row) -> bool:
    """Tell whether a layer belongs to the one before it, so that only its like can take its place."""
    return _sort(row) in ("norm", "activation", "dropout", "flatten")


def _align(columns: Sequence[list[Row]]) -> list[Slot]:
    """Set lists of layers side by side, each beside those to the left of it."""
    slots: list[Slot] = [[row] for row in columns[0]]
    for number, column in enumerate(columns[1:], start=1):
        slots = [[*(slot or [None] * number), row] for slot, row in _pairs(slots, column)]
    return slots


def _pairs(slots: list[Slot], column: list[Row]) -> Iterable[tuple[Slot | None, Row | None]]:
    """Pair slots with layers so that the most alike stand side by side, as far to the top as possible.

    The rule is that of Needleman & Wunsch (1970), and a gap costs nothing.
    """
    if len(slots) * len(column) > MOST_PAIRS:
        yield from zip_longest(slots, column)
        return
    worth = [[_worth(slot, row) for row in column] for slot in slots]
    best = [[0] * (len(column) + 1) for _ in range(len(slots) + 1)]
    for i in reversed(range(len(slots))):
        for j in reversed(range(len(column))):
            best[i][j] = max(worth[i][j] + best[i + 1][j + 1], best[i + 1][j], best[i][j + 1])
    i = j = 0
    while i < len(slots) and j < len(column):
        if worth[i][j] + best[i + 1][j + 1] == best[i][j]:
            yield slots[i], column[j]
            i, j = i + 1, j + 1
        elif best[i + 1][j] == best[i][j]:
            yield slots[i], None
            i += 1
        else:
            yield None, column[j]
            j += 1
    yield from ((slot, None) for slot in slots[i:])
    yield from ((None, row) for row in column[j:])


def _worth(slot: Slot, row: Row) -> int:
    """Say how much it is worth to set a layer beside those of a slot; below 0 if it may not stand there."""
    there = [other for other in slot if other]
    same_name = SAME_NAME if any(other.name == row.name for other in there) else 0
    if any(other.notation == row.notation for other in there):
        return EXACT + same_name
    if any(_sort(other) == _sort(row) for other in there):
        return SIMILAR + same_name
    return -1 if _follows(row) or any(map(_follows, there)) else 0


def _shown(slots: list[Slot]) -> Iterable[bool]:
    """Tell for each slot of a block whether it is shown: what is unsaid is, where the networks disagree about it."""
    before: Slot = []
    for slot in slots:
        there = [row for row in slot if row]
        if any(row.notation not in UNSAID for row in there):
            yield True
        else:
            yield any(row is None and weight and _sort(weight) == "weight" for row, weight in zip(slot, before))
        if not any(map(_follows, there)):
            before = slot


# Differences


def _changes(left: Cell | None, right: Cell | None) -> Iterable[Change]:
    """Return what becomes of a layer; one that another sort of layer takes the place of is removed."""
    before, after = left.row if left else None, right.row if right else None
    if before and after and _sort(before) == _sort(after):
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

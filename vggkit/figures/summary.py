"""Network → Summary: a row per layer and totals, in exact integers, and the table that shows them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec

from vggkit.base.errors import ArgumentError, did_you_mean, shorten
from vggkit.base.numbers import grouped, megabytes, shortened
from vggkit.base.tables import Column, Grid, Shown, Table, grid
from vggkit.network import ELEMENT_BYTES, Dtype, Network, PlacedLayer, check_batch, dtype_name
from vggkit.notation.layers import Layer, Pair, Shape, elements, times
from vggkit.notation.overrides import check_keywords
from vggkit.notation.spelling import describe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggkit.footprint.plan import SavedBytes
    from vggkit.notation.config import Config
    from vggkit.notation.overrides import Overrides


class Row(msgspec.Struct, frozen=True):
    """What one layer is and costs; counts of activations and multiply-accumulates are for the whole batch.

    Args:
        name: as in the network; the first row is `input`.
        block: the block it is in; None for the input and in the classifier.
        layer: the layer itself; None for the input.
        kind: its keyword in lower case.
        notation: what the paper calls it, then what differs from the defaults.
        input_shape: output shape of the row before it, for one image.
        output_shape: for one image.
        weight_shape: shape of its parameter `weight`; empty if it has none.
        weights: trainable elements under torch's name `weight`.
        biases: trainable elements under torch's name `bias`.
        statistics: elements of running means and variances, which are kept but not trained.
        multiply_accumulates: of convolutions and FC layers, bias additions not counted.
        activation_elements: elements of its output; 0 if that is in another layer's memory, or if a model does not run
            the layer (the soft-max at a classifier's end).
        activation_bytes: the same in bytes.
        receptive_field: height and width of the input that one output value sees, padding ignored.
        stride: distance in input pixels between neighbouring output values.
    """

    name: str
    block: str | None
    layer: Layer | None
    kind: str
    notation: str
    input_shape: Shape
    output_shape: Shape
    weight_shape: Shape
    weights: int
    biases: int
    statistics: int
    multiply_accumulates: int
    activation_elements: int
    activation_bytes: int
    receptive_field: Pair
    stride: Pair

    @property
    def parameters(self) -> int:
        """Trainable elements."""
        return self.weights + self.biases

    @property
    def stored(self) -> int:
        """Trainable elements and running statistics, which Keras counts together."""
        return self.parameters + self.statistics

    def to_dict(self) -> dict[str, Any]:
        """Return the row as the documented JSON has it."""
        return {
            "name": self.name,
            "block": self.block,
            "kind": self.kind,
            "notation": self.notation,
            "output_shape": list(self.output_shape),
            "weights": self.weights,
            "biases": self.biases,
            "parameters": self.parameters,
            "multiply_accumulates": self.multiply_accumulates,
            "activation_elements": self.activation_elements,
            "activation_bytes": self.activation_bytes,
            "receptive_field": list(self.receptive_field),
            "stride": list(self.stride),
        }


class Totals(msgspec.Struct, frozen=True):
    """Sums over a network.

    Args:
        weights: trainable elements under torch's name `weight`.
        biases: trainable elements under torch's name `bias`.
        parameters: both.
        multiply_accumulates: for the batch.
        activation_elements: for the batch, the input included.
        activation_bytes: the same in bytes.
        weight_layers: convolutions and FC layers, as the paper counts depth.
        layers_by_kind: number of rows of each kind.
        parameter_bytes: of the parameters, buffers excluded.
        statistics: elements of running means and variances, which are kept but not trained.
        statistics_bytes: the same in bytes.
    """

    weights: int
    biases: int
    parameters: int
    multiply_accumulates: int
    activation_elements: int
    activation_bytes: int
    weight_layers: int
    layers_by_kind: dict[str, int]
    parameter_bytes: int
    statistics: int
    statistics_bytes: int

    @property
    def stored(self) -> int:
        """Trainable elements and running statistics, which Keras counts together."""
        return self.parameters + self.statistics

    @property
    def stored_bytes(self) -> int:
        """The same in bytes."""
        return self.parameter_bytes + self.statistics_bytes

    @property
    def floating_point_operations(self) -> int:
        """Two for each multiply-accumulate."""
        return 2 * self.multiply_accumulates

    def to_dict(self) -> dict[str, Any]:
        """Return the totals as the documented JSON has them."""
        return {
            "weights": self.weights,
            "biases": self.biases,
            "parameters": self.parameters,
            "multiply_accumulates": self.multiply_accumulates,
            "activation_elements": self.activation_elements,
            "activation_bytes": self.activation_bytes,
            "weight_layers": self.weight_layers,
            "layers_by_kind": self.layers_by_kind,
            "parameter_bytes": self.parameter_bytes,
        }


class Summary(Shown, msgspec.Struct, frozen=True):
    """What a network is and costs, layer by layer. Iterating gives its rows.

    Args:
        name: the network's.
        aliases: the network's other names.
        note: what is different about the network.
        input: shape of one image.
        batch: number of images.
        dtype: torch's name of the numbers' type.
        rows: the input, then a row per layer that owns parameters or an output of its own.
        totals: sums over the rows.
    """

    name: str
    aliases: tuple[str, ...]
    note: str | None
    input: Shape
    batch: int
    dtype: str
    rows: tuple[Row, ...]
    totals: Totals

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str | int) -> Row:
        """Return the row of a layer, by its name or its place."""
        if not isinstance(name, str):
            return self.rows[name]
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            advice = did_you_mean(name, rows) or " With expand=True every module has a row"
            raise ArgumentError(f"{self.name} has no row {shorten(name)}.{advice}")
        return rows[name]

    @property
    def title(self) -> str:
        """One line that says what the figures are of."""
        return f"{self.name}: {times(self.input)}, batch {self.batch}, {self.dtype}"

    def parameters_of(self, kind: str) -> int:
        """Return the trainable elements of the layers of one kind.

        Args:
            kind: a keyword in lower case, as a row has it: conv, fc, batchnorm, …
        """
        return sum(row.parameters for row in self.rows if row.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON: name, input, batch, dtype, layers and totals."""
        return {
            "name": self.name,
            "input": list(self.input),
            "batch": self.batch,
            "dtype": self.dtype,
            "layers": [row.to_dict() for row in self.rows],
            "totals": self.totals.to_dict(),
        }

    def table(self, *, formula: bool = False, saved: SavedBytes | None = None) -> Table:
        """Return the rows with their sums, and below them what the network is and costs.

        Args:
            formula: whether each count is shown with its working.
            saved: what is kept for the backward pass, for a column of it; None for no such column.
        """
        records = _records(self, saved)
        return Table(
            summary_grid(self, formula, saved),
            records=records,
            data={**self.to_dict(), "layers": records},
            below=[grid(FIGURES_COLUMNS, figures(self))],
        )


def summarize(
    source: str | os.PathLike[str] | Config | Network,
    *,
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    expand: bool = False,
    **overrides: Unpack[Overrides],
) -> Summary:
    """Summarize a network.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        batch: number of images.
        dtype: float32, float16, bfloat16 or float64.
        expand: whether every layer gets a row, even ReLU and dropout, and the soft-max after the scores.
        overrides: changes to make, as for `load`.

    Returns:
        The summary.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> summarize("D").totals.parameters
    138357544
    """
    check_keywords(summarize, overrides)
    batch, dtype = check_batch(batch), dtype_name(dtype)
    network = Network.of(source, **overrides)
    element_bytes = ELEMENT_BYTES[dtype]
    rows = [_input_row(network, batch, element_bytes)]
    every = [rows[0]]
    owning = {placed.name for placed in network.modules() if placed.layer.storage() == "new"}
    for placed in network:
        row = _row(placed, every[-1].output_shape, batch, element_bytes, owns_output=placed.name in owning)
        has_row = placed.name in owning or row.parameters > 0
        if expand or has_row:
            every.append(row)
        if has_row:
            rows.append(row)
    return Summary(
        name=network.name,
        aliases=network.config.aliases,
        note=network.config.note,
        input=network.input_shape,
        batch=batch,
        dtype=dtype,
        rows=tuple(every),
        totals=_totals(rows, element_bytes),
    )


def _input_row(network: Network, batch: int, element_bytes: int) -> Row:
    count = batch * elements(network.input_shape)
    return Row(
        name="input",
        block=None,
        layer=None,
        kind="input",
        notation="input",
        input_shape=network.input_shape,
        output_shape=network.input_shape,
        weight_shape=(),
        weights=0,
        biases=0,
        statistics=0,
        multiply_accumulates=0,
        activation_elements=count,
        activation_bytes=count * element_bytes,
        receptive_field=(1, 1),
        stride=(1, 1),
    )


def _row(placed: PlacedLayer, before: Shape, batch: int, element_bytes: int, *, owns_output: bool) -> Row:
    layer, x = placed.layer, placed.input_shape
    parameters = layer.parameters(x)
    count = batch * elements(placed.output_shape) if owns_output else 0
    return Row(
        name=placed.name,
        block=placed.block,
        layer=layer,
        kind=layer.kind,
        notation=describe(layer),
        input_shape=before,
        output_shape=placed.output_shape,
        weight_shape=parameters.get("weight", ()),
        weights=elements(parameters["weight"]) if "weight" in parameters else 0,
        biases=elements(parameters["bias"]) if "bias" in parameters else 0,
        statistics=sum(elements(shape) for shape in layer.buffers(x).values() if shape),
        multiply_accumulates=batch * layer.multiply_accumulates(x),
        activation_elements=count,
        activation_bytes=count * element_bytes,
        receptive_field=placed.receptive_field,
        stride=placed.stride,
    )


def _totals(rows: list[Row], element_bytes: int) -> Totals:
    layers = [row.layer for row in rows if row.layer is not None]
    weight_layers = [layer for layer in layers if layer.is_weight_layer]
    others = [layer for layer in layers if not layer.is_weight_layer]
    parameters = sum(row.parameters for row in rows)
    statistics = sum(row.statistics for row in rows)
    return Totals(
        weights=sum(row.weights for row in rows),
        biases=sum(row.biases for row in rows),
        parameters=parameters,
        multiply_accumulates=sum(row.multiply_accumulates for row in rows),
        activation_elements=sum(row.activation_elements for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        weight_layers=len(weight_layers),
        layers_by_kind=dict(Counter(layer.kind for layer in (*weight_layers, *others))),
        parameter_bytes=parameters * element_bytes,
        statistics=statistics,
        statistics_bytes=statistics * element_bytes,
    )


# The table


def window(size: Pair) -> str:
    """Write a size as one number if its sides are equal.

    >>> window((212, 212)), window((14, 6))
    ('212', '14×6')
    """
    return str(size[0]) if size[0] == size[1] else times(size)


def count(number: int) -> str:
    """Write a count in full, and nothing for zero."""
    return grouped(number) if number else ""


def weight_formula(row: Row, dot: str = "·") -> str:
    """Write how a layer's weights are counted: `(3·3·64)·64` for a convolution, `7·7·512·4096` for an FC layer.

    Args:
        row: the layer.
        dot: the sign for times.
    """
    if len(row.weight_shape) == 4:
        filters, channels, height, width = row.weight_shape
        return f"({height}{dot}{width}{dot}{channels}){dot}{filters}"
    if len(row.weight_shape) == 2:
        factors = [size for size in channels_last(row.input_shape) if size > 1] or [1]
        return dot.join(map(str, (*factors, row.weight_shape[0])))
    return "".join(map(str, row.weight_shape))


def channels_last(shape: Shape) -> Shape:
    """Return the shape as height, width, channels."""
    return (*shape[1:], shape[0])


def with_formula(formula: str, number: int) -> str:
    """Write a count after its working, if it has one; nothing for zero."""
    if not number:
        return ""
    return grouped(number) if formula == str(number) else f"{formula} = {grouped(number)}"


ORDER = (
    "layer", "saved", "output shape", "weights", "biases", "activations",
    "what", "parameters", "MACs", "field", "block",
)  # fmt: skip
"""A narrow terminal drops the last of these columns first. `saved` comes early: it is there only if asked for."""

FORMULA_ORDER = (
    "layer", "weights", "biases", "output shape", "saved", "activations",
    "what", "MACs", "parameters", "field", "block",
)  # fmt: skip
"""The same with workings. That of the parameters only repeats that of the weights, so it is dropped sooner."""


def _counts(summary: Summary, formula: bool) -> dict[str, Callable[[Row], str]]:
    """Return what writes the cells of counts, plain or with their workings."""
    if not formula:
        return {
            "weights": lambda row: count(row.weights),
            "parameters": lambda row: count(row.parameters),
            "MACs": lambda row: count(row.multiply_accumulates),
        }
    batch = f"{summary.batch}·" if summary.batch > 1 else ""

    def parameters(row: Row) -> str:
        bias = f" + {row.biases}" if row.biases else ""
        return with_formula(weight_formula(row) + bias, row.parameters)

    def multiply_accumulates(row: Row) -> str:
        positions = "".join(f"·{size}" for size in row.output_shape[1:])
        return with_formula(f"{batch}{weight_formula(row)}{positions}", row.multiply_accumulates)

    return {
        "weights": lambda row: with_formula(weight_formula(row), row.weights),
        "parameters": parameters,
        "MACs": multiply_accumulates,
    }


def _columns(summary: Summary, formula: bool, saved: SavedBytes | None) -> list[Column[Row]]:
    ranks = {header: rank for rank, header in enumerate(FORMULA_ORDER if formula else ORDER)}
    counts = _counts(summary, formula)
    first = {row.block: row.name for row in reversed(summary.rows) if row.block}
    blocks = {name: block.removeprefix("block") for block, name in first.items()}  # named in its first row only

    def column(header: str, cell: Callable[[Row], str], style: str = "", **options: Any) -> Column[Row]:
        return Column(header, cell, rank=ranks[header], style=style, **{"align": "right", **options})

    def size(number: int) -> str:
        return megabytes(number) if number else ""

    return [
        column("block", lambda row: blocks.get(row.name, ""), "dim"),
        column("layer", lambda row: row.name, align="left"),
        column("what", lambda row: row.notation, "cyan", align="left"),
        column("output shape", lambda row: times(row.output_shape)),
        column("weights", counts["weights"]),
        column("biases", lambda row: count(row.biases)),
        column("parameters", counts["parameters"], "green"),
        column("MACs", counts["MACs"]),
        column("activations", lambda row: size(row.activation_bytes)),
        *([column("saved", lambda row: size(saved.by_row.get(row.name, 0)))] if saved is not None else []),
        column("field", lambda row: window(row.receptive_field), "dim"),
    ]


def summary_grid(summary: Summary, formula: bool = False, saved: SavedBytes | None = None) -> Grid:
    """Return the summary as a grid, with a section for the input and for each block.

    Args:
        summary: what is shown.
        formula: whether each count is shown with its working.
        saved: what is kept for the backward pass, for a column of it; None for no such column.
    """
    totals = summary.totals
    ends = frozenset(
        index for index, (row, after) in enumerate(pairwise(summary)) if row.block != after.block or row.layer is None
    )
    counts = (totals.weights, totals.biases, totals.parameters, totals.multiply_accumulates)
    kept = [] if saved is None else [megabytes(saved.total)]
    footer = ["", "total", "", "", *map(grouped, counts), megabytes(totals.activation_bytes), *kept, ""]
    return grid(_columns(summary, formula, saved), summary, footer, ends, summary.title)


FIGURES_COLUMNS: list[Column[tuple[str, str, str]]] = [
    Column("", lambda figure: figure[0]),
    Column("", lambda figure: figure[1], "right", style="bold"),
    Column("", lambda figure: figure[2], style="dim", fold=16),
]


def figures(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the lines below the table: what it is, how much, and a remark."""
    totals = summary.totals
    kinds = ", ".join(f"{number} {kind}" for kind, number in totals.layers_by_kind.items())
    statistics = ("running statistics", grouped(totals.statistics), megabytes(totals.statistics_bytes))
    operations = f"{shortened(totals.floating_point_operations)}FLOPs (two each)"
    return [
        ("weight layers", str(totals.weight_layers), kinds),
        ("MACs", grouped(totals.multiply_accumulates), operations),
        ("activations", grouped(totals.activation_elements), f"{megabytes(totals.activation_bytes)}, input included"),
        *([statistics] if totals.statistics else []),
        ("weights", grouped(totals.weights), f"{megabytes(totals.parameter_bytes)} with the biases"),
        ("biases", grouped(totals.biases), ""),
        ("parameters", grouped(totals.parameters), ""),
    ]


def _records(summary: Summary, saved: SavedBytes | None) -> list[dict[str, Any]]:
    rows = [row.to_dict() for row in summary]
    return rows if saved is None else [{**row, "saved_bytes": saved.by_row.get(row["name"], 0)} for row in rows]

"""Network → Summary: a row per layer, and totals. Exact integers; what they look like is `render`'s affair."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec

from vggkit.config import check_keywords
from vggkit.errors import ArgumentError, did_you_mean, shorten
from vggkit.layers import LARGEST, Layer, Pair, Shape, elements
from vggkit.network import ELEMENT_BYTES, Dtype, Network, PlacedLayer, dtype_name
from vggkit.notation import describe
from vggkit.numbers import whole
from vggkit.render.columns import Shown, data_frame

if TYPE_CHECKING:
    from rich.console import Group
    from typing_extensions import Unpack

    from vggkit.config import Config, Overrides


class Row(msgspec.Struct, frozen=True):
    """What one layer is and costs; counts of activations and multiply-accumulates are for the whole batch.

    Args:
        name: as in the network; the first row is `input`.
        block: the block it stands in; None for the input and in the classifier.
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

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame, indexed by their names, with the JSON's keys as columns.

        Raises:
            VggkitError: if pandas is not installed.
        """
        return data_frame((row.to_dict() for row in self.rows), "name")

    def to_csv(self) -> str:
        """Return a line per row, with the JSON's keys as header."""
        from vggkit.render.summary import csv_text

        return csv_text(self)

    def __str__(self) -> str:
        from vggkit.render.summary import table_text

        return table_text(self)

    def __rich__(self) -> Group:
        from vggkit.render.summary import table

        return table(self)

    def _repr_html_(self) -> str:
        from vggkit.render.summary import html_text

        return html_text(self)


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
        source: a name, a path, a Config or a Network.
        batch: number of images.
        dtype: float32, float16, bfloat16 or float64.
        expand: whether every layer gets a row, ReLU and dropout too, and the soft-max that stands behind the scores.
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


def check_batch(batch: SupportsIndex) -> int:
    """Return a number of images.

    Raises:
        ArgumentError: says what was found and what was expected, if it is none.
    """
    return whole(batch, "batch", largest=LARGEST)


def _input_row(network: Network, batch: int, element_bytes: int) -> Row:
    count = batch * elements(network.input_shape)
    return Row(
        name="input", block=None, layer=None, kind="input", notation="input", input_shape=network.input_shape,
        output_shape=network.input_shape, weight_shape=(), weights=0, biases=0, statistics=0, multiply_accumulates=0,
        activation_elements=count, activation_bytes=count * element_bytes, receptive_field=(1, 1), stride=(1, 1),
    )  # fmt: skip


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
    weight_rows = [row for row in rows if row.layer is not None and row.layer.role == "weight"]
    other_rows = [row for row in rows if row.layer is not None and row.layer.role != "weight"]
    by_kind: dict[str, int] = {}
    for row in (*weight_rows, *other_rows):
        by_kind[row.kind] = by_kind.get(row.kind, 0) + 1
    parameters = sum(row.parameters for row in rows)
    statistics = sum(row.statistics for row in rows)
    return Totals(
        weights=sum(row.weights for row in rows),
        biases=sum(row.biases for row in rows),
        parameters=parameters,
        multiply_accumulates=sum(row.multiply_accumulates for row in rows),
        activation_elements=sum(row.activation_elements for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        weight_layers=len(weight_rows),
        layers_by_kind=by_kind,
        parameter_bytes=parameters * element_bytes,
        statistics=statistics,
        statistics_bytes=statistics * element_bytes,
    )

"""What a checkpoint is: as a table, as data."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base import tables
from vggkit.base.errors import escaped
from vggkit.base.numbers import grouped, megabytes
from vggkit.base.tables import Column, FittedTable, Grid, grid

if TYPE_CHECKING:
    from vggkit.model.weights.inspection import Inspection, TensorRow


class _Line(NamedTuple):
    what: str
    value: str


LINES: list[Column[_Line]] = [
    Column("", lambda line: line.what, style="cyan"),
    Column("", lambda line: line.value),
]

TENSORS: list[Column[TensorRow]] = [
    Column("tensor", lambda row: row.name),
    Column("shape", lambda row: "×".join(map(str, row.shape)) or "scalar", "right", rank=1),
    Column("dtype", lambda row: row.dtype, rank=3),
    Column("bytes", lambda row: grouped(row.bytes), "right", rank=2),
    Column("becomes", lambda row: row.becomes or "–", style="cyan"),
]


def _lines(inspection: Inspection) -> list[_Line]:
    lines = [
        _Line("format", inspection.format),
        _Line("layout", inspection.layout),
        _Line("configuration", inspection.description),
    ]
    if inspection.published:
        lines.append(_Line("published", inspection.published))
    lines += [
        _Line("parameters", grouped(inspection.parameters)),
        _Line("dtype", ", ".join(inspection.dtypes)),
        _Line("tensors", f"{grouped(len(inspection.tensors))}, {megabytes(inspection.bytes)}"),
        _Line("matched", inspection.matched),
    ]
    return [*lines, *(_Line("note", note) for note in inspection.notes)]


def folded(line: str, width: int) -> str:
    """Fold a line of YAML so that it still reads the same: further to the right than it begins."""
    indent = len(line) - len(line.lstrip())
    return fill(line, width, subsequent_indent=" " * (indent + 4), break_long_words=False, break_on_hyphens=False)


class Report:
    """A rich renderable: the facts, the YAML of what is not in the zoo, and the tensors if they are asked for."""

    def __init__(self, inspection: Inspection, tensors: bool) -> None:
        self.inspection = inspection
        self.tensors = tensors

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for line in _lines(self.inspection):
            table.add_row(line.what, Text(escaped(line.value)))
        yield Text(escaped(self.inspection.file), style="bold")
        yield table
        if self.inspection.known is None and self.inspection.yaml:
            lines = escaped(self.inspection.yaml.rstrip(), keep="\n").split("\n")
            yield Text("\n".join(["", *(folded(line, options.max_width) for line in lines)]))
        if self.tensors:
            yield Text("")
            yield FittedTable(tensors_grid(self.inspection))


def tensors_grid(inspection: Inspection) -> Grid:
    """Return a line per tensor."""
    return grid(TENSORS, inspection.tensors)


def dicts(inspection: Inspection) -> dict[str, Any]:
    """Return everything as data."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(inspection)
    return plain


def in_format(inspection: Inspection, format: str, tensors: bool) -> Any:
    """Return a report in a format: a rich renderable for "table", text for json, csv and markdown."""
    if format == "table":
        return Report(inspection, tensors)
    if format == "json":
        return tables.json(dicts(inspection))
    if format == "csv":
        rows = [[row.name, list(row.shape), row.dtype, row.bytes, row.becomes] for row in inspection.tensors]
        return tables.csv(["name", "shape", "dtype", "bytes", "becomes"], rows)
    facts = tables.markdown(grid(LINES, _lines(inspection)))
    return facts + (f"\n{tables.markdown(tensors_grid(inspection))}" if tensors else "")

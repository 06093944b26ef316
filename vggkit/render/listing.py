"""The zoo as a list, and the names of a network's layers side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.numbers import grouped
from vggkit.render import columns
from vggkit.render.columns import Column, FittedTable, Grid, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggkit.analysis import Summary
    from vggkit.naming import Names

ZOO_COLUMNS: list[Column[Summary]] = [
    Column("name", lambda summary: summary.name, style="cyan"),
    Column("aliases", lambda summary: ", ".join(summary.aliases), rank=1),
    Column("input", lambda summary: "×".join(map(str, summary.input)), rank=3),
    Column("weight layers", lambda summary: str(summary.totals.weight_layers), "right", rank=2),
    Column("parameters", lambda summary: grouped(summary.totals.parameters), "right", style="green"),
    Column("MACs", lambda summary: grouped(summary.totals.multiply_accumulates), "right"),
]

FAMILY_COLUMNS: list[Column[Summary]] = [
    *ZOO_COLUMNS,
    Column("what is different", lambda summary: summary.note or "", rank=4),
]

NAMES_COLUMNS: list[Column[Names]] = [
    Column("vggkit", lambda names: names.name, style="cyan"),
    Column("module", lambda names: names.module, rank=1),
    Column("authors (Caffe)", lambda names: names.authors or "–"),
    Column("torchvision", lambda names: names.torchvision or "–"),
    Column("Keras", lambda names: names.keras or "–"),
]


def zoo_grid(summaries: Sequence[Summary]) -> Grid:
    """Return a line per configuration."""
    return grid(ZOO_COLUMNS, summaries)


def zoo_dicts(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return the same as data, with the names of the summary's JSON."""
    return [
        {
            "name": summary.name,
            "aliases": list(summary.aliases),
            "input": list(summary.input),
            "weight_layers": summary.totals.weight_layers,
            "parameters": summary.totals.parameters,
            "multiply_accumulates": summary.totals.multiply_accumulates,
        }
        for summary in summaries
    ]


def family_grid(summaries: Sequence[Summary]) -> Grid:
    """Return a line per network of the family."""
    return grid(FAMILY_COLUMNS, summaries)


def family_dicts(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return the same as data."""
    return [{**known, "note": summary.note} for known, summary in zip(zoo_dicts(summaries), summaries)]


def names_grid(names: Sequence[Names]) -> Grid:
    """Return a line per layer."""
    return grid(NAMES_COLUMNS, names)


def names_dicts(names: Sequence[Names]) -> list[dict[str, Any]]:
    """Return the same as data."""
    return [entry._asdict() for entry in names]


def in_format(grid: Grid, dicts: list[dict[str, Any]], format: str) -> Any:
    """Return a list in a format: a rich renderable for "table", text for json, csv and markdown."""
    if format == "table":
        return FittedTable(grid)
    if format == "json":
        return columns.json(dicts)
    if format == "csv":
        return columns.csv(list(dicts[0]), [[*entry.values()] for entry in dicts])
    return columns.markdown(grid)


LIST_FORMATS = ("table", "json", "csv", "markdown")

"""The zoo as a list, and the names of a network's layers side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from vggkit.base import tables
from vggkit.base.numbers import grouped
from vggkit.base.tables import Column, FittedTable, Grid, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggkit.figures.summary import Summary
    from vggkit.network import Names

NAME: Column[Summary] = Column("name", lambda summary: summary.name, style="cyan")
ALIASES: Column[Summary] = Column("aliases", lambda summary: ", ".join(summary.aliases), rank=1)
COSTS: list[Column[Summary]] = [
    Column("input", lambda summary: "×".join(map(str, summary.input)), rank=5),
    Column("weight layers", lambda summary: str(summary.totals.weight_layers), "right", rank=4),
    Column("parameters", lambda summary: grouped(summary.totals.parameters), "right", rank=2, style="green"),
    Column("MACs", lambda summary: grouped(summary.totals.multiply_accumulates), "right", rank=3),
]

ZOO_COLUMNS = [NAME, ALIASES, *COSTS]

FAMILY_COLUMNS: list[Column[Summary]] = [
    NAME,
    msgspec.structs.replace(ALIASES, rank=6),
    *COSTS,
    Column("what is different", lambda summary: summary.note or "", rank=1, fold=28),
]
"""The family is listed for what is different about each of its networks."""

NAMES_COLUMNS: list[Column[Names]] = [
    Column("vggkit", lambda names: names.name, style="cyan"),
    Column("module", lambda names: names.module, rank=4),
    Column("authors (Caffe)", lambda names: names.authors or "–", rank=2),
    Column("torchvision", lambda names: names.torchvision or "–", rank=1),
    Column("Keras", lambda names: names.keras or "–", rank=3),
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
        return tables.json(dicts)
    if format == "csv":
        return tables.csv(list(dicts[0]), [[*entry.values()] for entry in dicts])
    return tables.markdown(grid)


LIST_FORMATS = ("table", "json", "csv", "markdown")

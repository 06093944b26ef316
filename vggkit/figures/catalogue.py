"""The configurations that come with vggkit, as a list with the main figures of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from vggkit.base.numbers import grouped
from vggkit.base.tables import Column, Shown, Table, grid
from vggkit.figures.summary import Summary, summarize
from vggkit.notation import zoo

NAME: Column[Summary] = Column("name", lambda summary: summary.name, style="cyan")
ALIASES: Column[Summary] = Column("aliases", lambda summary: ", ".join(summary.aliases), rank=1)
COSTS: list[Column[Summary]] = [
    Column("input", lambda summary: "×".join(map(str, summary.input)), rank=5),
    Column("weight layers", lambda summary: str(summary.totals.weight_layers), "right", rank=4),
    Column("parameters", lambda summary: grouped(summary.totals.parameters), "right", rank=2, style="green"),
    Column("MACs", lambda summary: grouped(summary.totals.multiply_accumulates), "right", rank=3),
]
NOTE: Column[Summary] = Column("what is different", lambda summary: summary.note or "", rank=1, fold=28)


class Catalogue(Shown):
    """The paper's configurations."""

    title = "The paper's configurations"
    columns = (NAME, ALIASES, *COSTS)

    def __init__(self) -> None:
        self.summaries = [summarize(name) for name in self.names()]

    def names(self) -> Iterable[str]:
        """Return the names of the configurations in it."""
        return zoo.names()

    def record(self, summary: Summary) -> dict[str, Any]:
        """Return a line as data, by the names that the summary's JSON has."""
        return {
            "name": summary.name,
            "aliases": list(summary.aliases),
            "input": list(summary.input),
            "weight_layers": summary.totals.weight_layers,
            "parameters": summary.totals.parameters,
            "multiply_accumulates": summary.totals.multiply_accumulates,
        }

    def table(self) -> Table:
        """Return a line per configuration."""
        return Table(
            grid(self.columns, self.summaries), records=list(map(self.record, self.summaries)), title=self.title
        )


class FamilyCatalogue(Catalogue):
    """The networks that research code made of the paper's, with what is different about each."""

    title = "The family of VGG networks"
    columns = (NAME, replace(ALIASES, rank=6), *COSTS, NOTE)

    def names(self) -> Iterable[str]:
        return zoo.family_names()

    def record(self, summary: Summary) -> dict[str, Any]:
        return {**super().record(summary), "note": summary.note}

"""Claims beside measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.base import tables
from vggkit.base.numbers import grouped
from vggkit.base.tables import Column, FittedTable, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggkit.model.verify import Claim

CLAIM_COLUMNS: list[Column[Claim]] = [
    Column("", lambda claim: verdict(claim)),
    Column("what", lambda claim: claim.what),
    Column("claimed", lambda claim: grouped(claim.claimed), "right"),
    Column("measured", lambda claim: grouped(claim.measured), "right", style="green"),
    Column("judge", lambda claim: claim.judge, rank=1),
]


def verdict(claim: Claim) -> str:
    """Return a sign for a claim: equal, wrong, or for information."""
    if not claim.exact:
        return "i"
    return "✓" if claim.holds else "✗"


def in_format(heading: str, claims: Sequence[Claim], format: str) -> Any:
    """Return claims in a format: a rich renderable for "table", text for json, csv and markdown."""
    dicts = [claim.to_dict() for claim in claims]
    rows = grid(CLAIM_COLUMNS, claims)
    if format == "json":
        return tables.json(dicts)
    if format == "csv":
        return tables.csv(list(dicts[0]), [list(entry.values()) for entry in dicts])
    return tables.markdown(rows) if format == "markdown" else FittedTable(rows._replace(title=heading))

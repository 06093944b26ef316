"""Claims beside measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.numbers import grouped
from vggkit.render import columns
from vggkit.render.columns import Column, FittedTable, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vggkit.verification import Claim

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
        return columns.json(dicts)
    if format == "csv":
        return columns.csv(list(dicts[0]), [list(entry.values()) for entry in dicts])
    return columns.markdown(rows) if format == "markdown" else FittedTable(rows, heading)

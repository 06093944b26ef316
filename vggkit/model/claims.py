"""What vggkit claims beside what somebody else measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from vggkit.base.numbers import grouped
from vggkit.base.tables import Column, Table, grid
from vggkit.footprint.ranks import NO_GROUP, TORCH, Group


class Claim(msgspec.Struct, frozen=True):
    """What vggkit claims, and what a judge measured.

    Args:
        what: the figure.
        claimed: by vggkit.
        measured: by the judge.
        judge: who measured.
        exact: whether the two should be equal; if not, the difference is shown for information.
        ranks: those of several that it is of; none if it is of the network, or of a process that is alone.
    """

    what: str
    claimed: int
    measured: int
    judge: str
    exact: bool = True
    ranks: tuple[int, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the claim is equal to the measurement, or need not be."""
        return not self.exact or self.claimed == self.measured

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {**msgspec.to_builtins(self), "equal": self.claimed == self.measured}


class Subject(NamedTuple):
    """What claims are of.

    Args:
        words: what it is called.
        ranks: those of several; none if it is no rank.
    """

    words: str
    ranks: tuple[int, ...] = ()

    @classmethod
    def of_ranks(cls, ranks: Sequence[int]) -> Subject:
        """Return ranks of which the same is claimed.

        >>> [Subject.of_ranks(ranks).words for ranks in ([3], [0, 1], [1, 2, 3, 5])]
        ['rank 3', 'ranks 0 and 1', 'ranks 1 to 3 and 5']
        """
        runs: list[list[int]] = []
        for rank in ranks:
            if runs and rank == runs[-1][-1] + 1:
                runs[-1].append(rank)
            else:
                runs.append([rank])
        said = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
        *others, last = said
        words = f"rank{'s' * (len(ranks) > 1)} {', '.join(others)}{' and ' if others else ''}{last}"
        return cls(words, tuple(ranks))

    def claim(self, what: str, claimed: int, measured: int, judge: str, *, exact: bool = True) -> Claim:
        """Return a claim of it."""
        return Claim(f"{self.words}, {what}", claimed, measured, judge, exact, self.ranks)


def version_notes(group: Group) -> list[str]:
    """Say that the installed torch is another one than that whose engines are planned, if it is."""
    import torch

    installed = ".".join(torch.__version__.split(".")[:2])
    if group == NO_GROUP or installed == TORCH:
        return []
    return [f"What several ranks hold is claimed as in torch {TORCH}; torch {torch.__version__} is installed."]


def claims_table(title: str, claims: Sequence[Claim], notes: Sequence[str] = ()) -> Table:
    """Return a row for each claim, behind a sign: equal, wrong, or for information.

    Args:
        title: of the table.
        claims: its rows.
        notes: sentences below it.
    """
    columns: list[Column[Claim]] = [
        Column("", lambda claim: ("✓" if claim.holds else "✗") if claim.exact else "i"),
        Column("what", lambda claim: claim.what),
        Column("claimed", lambda claim: grouped(claim.claimed), "right"),
        Column("measured", lambda claim: grouped(claim.measured), "right", style="green"),
        Column("judge", lambda claim: claim.judge, rank=1),
    ]
    return Table(grid(columns, claims, title=title), records=[claim.to_dict() for claim in claims], notes=notes)

"""Whose number it is: the tools that print it, what their figure is made of, and how far it is from vggkit's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggkit.base import tables
from vggkit.base.numbers import grouped
from vggkit.base.tables import Column, Grid, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group, RenderableType

    from vggkit.figures.reconcile import Finding


def difference(finding: Finding) -> str:
    """Say how a figure differs from vggkit's, exactly.

    >>> from vggkit import reconcile
    >>> difference(reconcile("D", "15.48G")[0])
    "13,556,712 more than vggkit's 15,470,264,320"
    """
    if not finding.difference:
        return "vggkit's figure too, for the network so built" if finding.form else "vggkit's own figure"
    word = "more" if finding.difference > 0 else "less"
    return f"{grouped(abs(finding.difference))} {word} than vggkit's {grouped(finding.ours)}"


def _unit(finding: Finding) -> str:
    return "bytes, " if finding.quantity.endswith("bytes") else ""


def _says(finding: Finding) -> str:
    form = f" ({finding.form})" if finding.form else ""
    return f"{finding.tool}, {finding.label}: {finding.printed}{form}"


def _signed(amount: int, first: bool) -> str:
    return grouped(amount) if first else f"{amount:+,}".replace("-", "−")


def grouped_findings(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings together that are the same figure, made of the same parts."""
    groups: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.quantity, finding.figure, finding.parts), []).append(finding)
    return list(groups.values())


def _block(findings: list[Finding]) -> RenderableType:
    """Draw what several tools say alike: who, the parts, their sum, and why."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    first = findings[0]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    told = len(first.parts) > 1
    if told:
        for index, part in enumerate(first.parts):
            table.add_row(Text(_signed(part.amount, not index)), Text(part.what))
    ours = f": {first.ours_is}" if not told or first.parts[0].amount != first.ours else ""
    total = f"{_unit(first)}{difference(first)}{ours}"
    table.add_row(Text(grouped(first.figure), style="bold green"), Text(total, style="bold"))
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        reasons.setdefault(finding.why, []).append(finding.tool)
    return Group(
        *(Text(_says(finding), style="bold cyan") for finding in findings),
        Padding(table, (0, 0, 0, 2)),
        *(Padding(Text(f"{', '.join(tools)}: {why}", style="dim"), (0, 0, 0, 2)) for why, tools in reasons.items()),
        "",
    )


def title(heading: str, number: str, findings: Sequence[Finding]) -> str:
    """Return the line above the findings."""
    if findings:
        return f"{number} of {heading}"
    return f"{number} of {heading}: no convention gives this number. The nearest:"


def table(heading: str, number: str, findings: Sequence[Finding], nearest: Sequence[Finding]) -> Group:
    """Return the findings for the terminal, or the nearest figures if there are none."""
    from rich.console import Group
    from rich.text import Text

    head = Text(f"{title(heading, number, findings)}\n", style="bold")
    if findings:
        return Group(head, *map(_block, grouped_findings(findings)))
    lines = [f"{_says(finding)}, exactly {grouped(finding.figure)}: {off(finding)}" for finding in nearest]
    return Group(head, *map(Text, lines))


def off(finding: Finding) -> str:
    """Say how far the number is from a figure."""
    return f"{100 * finding.distance:.3g} % off" if finding.distance < 10 else "far off"


COLUMNS: list[Column[Finding]] = [
    Column("tool", lambda finding: finding.tool),
    Column("what it prints", lambda finding: f"{finding.label}: {finding.printed}"),
    Column("counts", lambda finding: finding.quantity),
    Column("exactly", lambda finding: grouped(finding.figure), "right"),
    Column("difference", difference),
    Column("made of", lambda finding: _sum(finding)),
    Column("built", lambda finding: finding.form or "as configured"),
    Column("why", lambda finding: finding.why),
]


def _sum(finding: Finding) -> str:
    terms = (f"{_signed(part.amount, not index)} ({part.what})" for index, part in enumerate(finding.parts))
    return " ".join(terms)


def _grid(findings: Sequence[Finding], nearest: Sequence[Finding]) -> Grid:
    far = [] if findings else [Column("off", off, "right")]
    return grid([*COLUMNS, *far], findings or nearest)


def html_text(heading: str, number: str, findings: Sequence[Finding], nearest: Sequence[Finding]) -> str:
    """Return the findings as an HTML table, or the nearest figures if there are none."""
    return tables.html(_grid(findings, nearest)._replace(title=title(heading, number, findings)))


def in_format(heading: str, number: str, findings: Sequence[Finding], nearest: Sequence[Finding], format: str) -> Any:
    """Return findings in a format: a rich renderable for "table", text for json and markdown.

    Args:
        heading: says the network.
        number: what was asked for.
        findings: who says so.
        nearest: what is nearest; shown where nobody says so.
        format: "table", "json" or "markdown".
    """
    shown = [] if findings else nearest
    if format == "json":
        said = {"findings": [finding.to_dict() for finding in findings]}
        return tables.json({"number": number, **said, "nearest": [finding.to_dict() for finding in shown]})
    if format == "markdown":
        return f"{title(heading, number, findings)}\n\n{tables.markdown(_grid(findings, nearest))}"
    return table(heading, number, findings, shown)

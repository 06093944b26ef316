"""A number → Findings: which tool prints it, what it counts, and how far it is from vggkit's figure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import msgspec

from vggkit.base.errors import ArgumentError, shorten
from vggkit.base.numbers import grouped, plain, signed
from vggkit.base.tables import Column, DrawnTable, Shown, Table, grid
from vggkit.figures.conventions import (
    CONVENTIONS,
    OURS,
    TORCHVISIONS_FORM,
    Convention,
    CountedNetwork,
    Part,
    Quantity,
    torchvisions_form,
)
from vggkit.network import Dtype, Network, check_batch, dtype_name
from vggkit.notation.layers import times
from vggkit.notation.overrides import Overrides, check_keywords

if TYPE_CHECKING:
    from rich.console import RenderableType
    from typing_extensions import Unpack

    from vggkit.notation.config import Config


# The number


class Reading(NamedTuple):
    """A number as it was written.

    Args:
        value: the number in front of the unit.
        digit: the value of its last digit. A figure within half of that is the same number.
        power: of 1000 or 1024, as its prefix says; None if it had no unit at all.
        binary: whether the unit said MiB and the like.
        quantities: what the unit's noun can mean, the likeliest first; empty if it had none.
    """

    value: Fraction
    digit: Fraction
    power: int | None
    binary: bool
    quantities: tuple[Quantity, ...]


_BYTES: tuple[Quantity, ...] = (
    "activation bytes",
    "parameter bytes",
    "saved bytes",
    "inference bytes",
    "training bytes",
    "input bytes",
)
_NOUNS: dict[str, tuple[Quantity, ...]] = {
    "": (),
    **dict.fromkeys(("mac", "macs", "mult-adds", "multadds", "madds"), ("MACs",)),
    **dict.fromkeys(("flop", "flops", "ops"), ("FLOPs", "MACs")),
    **dict.fromkeys(("param", "params", "parameters"), ("parameters",)),
    **dict.fromkeys(("activations", "values"), ("activations",)),
    **dict.fromkeys(("layers", "weight-layers"), ("weight layers",)),
    **dict.fromkeys(("px", "pixels"), ("receptive field",)),
    **dict.fromkeys(("b", "byte", "bytes"), _BYTES),
}
_NUMBER = re.compile(
    r"[~≈]?\s*([0-9]{1,3}(?:,[0-9]{3}){1,9}|[0-9]{1,30})(?:\.([0-9]{0,20}))?(?:e\+?([0-9]{1,2}))?\s*([a-z-]*)",
    re.IGNORECASE,
)


def read_number(number: str | SupportsIndex) -> Reading:
    """Read a number with its unit.

    Args:
        number: `15.48G`, `108.45MB`, `30.94 GFLOPs`, `15.523e9`, `138,357,544`, `527.79`.

    Raises:
        ArgumentError: if it is no such number.

    >>> read_number("30.94 GFLOPs").value, read_number("30.94 GFLOPs").power
    (Fraction(1547, 50), 3)
    """
    found = plain(number)
    text = str(found).strip()
    match = _NUMBER.fullmatch(text) if isinstance(found, (str, int)) and not isinstance(found, bool) else None
    unit = _unit(match.group(4).lower(), bool(match.group(2))) if match else None
    if match is None or unit is None:
        raise ArgumentError(
            f"number: expected one such as 15.48G, 108.45MB, 527.79, 15.523e9 or 30.94 GFLOPs, found {shorten(number)}"
        )
    decimals, exponent = match.group(2) or "", int(match.group(3) or 0)
    digit = Fraction(10) ** (exponent - len(decimals))
    return Reading(int(match.group(1).replace(",", "") + decimals) * digit, digit, *unit)


def _unit(word: str, decimals: bool) -> tuple[int | None, bool, tuple[Quantity, ...]] | None:
    """Read a unit: the power of its prefix, whether it is binary, and what its noun can mean; None if it is no unit."""
    if word == "b" and decimals:
        return 3, False, ()  # billions: there is no half byte
    if word in _NOUNS:
        return (0 if word else None), False, _NOUNS[word]
    power, rest = "kmgt".find(word[0]) + 1, word[1:]
    if power and rest in ("i", "ib"):
        return power, True, _BYTES
    return (power, False, _NOUNS[rest]) if power and rest in _NOUNS else None


# The findings


class Finding(msgspec.Struct, frozen=True):
    """A figure that a tool prints for a network.

    Args:
        tool: who prints it, with its version.
        label: what the tool calls it.
        quantity: what it counts.
        printed: the figure as the tool writes it.
        figure: the exact figure; for a file's size, the bytes of its values.
        ours: vggkit's exact figure.
        ours_is: what that is.
        difference: the tool's figure minus vggkit's.
        parts: what the tool's figure is made of; they add up to it.
        why: what the convention is.
        form: how the network is built, if not as the configuration says.
        distance: how far the number is from the figure, as a share of the figure; 0 if all digits given agree.
    """

    tool: str
    label: str
    quantity: str
    printed: str
    figure: int
    ours: int
    ours_is: str
    difference: int
    parts: tuple[Part, ...]
    why: str
    form: str
    distance: float

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {**msgspec.structs.asdict(self), "parts": [part._asdict() for part in self.parts]}

    def differs(self) -> str:
        """Say how the figure differs from vggkit's, exactly.

        >>> reconcile("D", "15.48G")[0].differs()
        "13,556,712 more than vggkit's 15,470,264,320"
        """
        if not self.difference:
            return "also vggkit's figure, for a network built this way" if self.form else "vggkit's own figure"
        word = "more" if self.difference > 0 else "less"
        return f"{grouped(abs(self.difference))} {word} than vggkit's {grouped(self.ours)}"


class Findings(Shown, list[Finding]):
    """The figures that agree with a number, the best match first.

    Args:
        findings: the conventions.
        about: the network that it is about, its input, batch and dtype.
        number: what was asked for.
        nearest: the nearest conventions, which are shown if there are no findings.
    """

    def __init__(self, findings: Iterable[Finding], about: str, number: str, nearest: Sequence[Finding]) -> None:
        super().__init__(findings)
        self.about = about
        self.number = number
        self.nearest = tuple(nearest)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        nearest = [] if self else self.nearest
        return {
            "number": self.number,
            "findings": [finding.to_dict() for finding in self],
            "nearest": [finding.to_dict() for finding in nearest],
        }

    def table(self) -> Table:
        """Return the findings, or the nearest figures if there are none."""
        return FindingsTable(self)


def reconcile(
    source: str | os.PathLike[str] | Config | Network,
    number: str | SupportsIndex,
    *,
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    **overrides: Unpack[Overrides],
) -> Findings:
    """Say whose number this is: which tools print it for a network, and what they count.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        number: as it was read somewhere: `"15.48G"`, `"108.45MB"`, `138357544`.
        batch: number of images.
        dtype: float32, float16, bfloat16 or float64.
        overrides: changes to make, as for `load`.

    Returns:
        The figures that agree with the number in every digit given, the best match first; empty if no tool prints it.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if it is no number, or an argument is outside its allowed values.

    >>> [(finding.tool, finding.difference) for finding in reconcile("D", "108.45MB")]
    [('torchinfo 1.8.0', 47503264)]
    """
    check_keywords(reconcile, overrides)
    batch, dtype = check_batch(batch), dtype_name(dtype)
    network = Network.of(source, **overrides)
    every = every_finding(network, number, batch, dtype)
    about = f"{network.name} at {times(network.input_shape)}, batch {batch}, {dtype}"
    by_convention: dict[tuple[str, str], Finding] = {}  # a convention may be there twice: for two ways to build it
    for finding in every:
        by_convention.setdefault((finding.tool, finding.label), finding)
    nearest = list(by_convention.values())[:3]
    return Findings((finding for finding in every if not finding.distance), about, str(plain(number)), nearest)


def every_finding(network: Network, number: str | SupportsIndex, batch: int, dtype: str) -> list[Finding]:
    """Return what each convention gives for a network, the nearest to a number first.

    Raises:
        ArgumentError: if it is no number.
    """
    reading = read_number(number)
    found = [_judged(reading, convention, counted) for convention, counted in _figures(network, batch, dtype)]
    return [judged.finding for judged in sorted(found, key=lambda judged: judged.rank)]


def _figures(network: Network, batch: int, dtype: str) -> Iterator[tuple[Convention, CountedNetwork]]:
    """Yield each convention with the network, and with the network as torchvision builds it; each figure once."""
    forms = [CountedNetwork(network, batch, dtype)]
    theirs = torchvisions_form(network)
    if theirs is not None:
        forms.append(CountedNetwork(theirs, batch, dtype, TORCHVISIONS_FORM))
    said = set()
    for convention in CONVENTIONS:
        for form in forms if convention.tool.has_pool else forms[:1]:
            counted = convention.counted(form)
            parts = convention.parts(counted) if counted.gives(convention.quantity) else []
            figure = (convention.tool, convention.quantity, sum(part.amount for part in parts))
            if parts and figure not in said:
                said.add(figure)
                yield convention, counted


class _Judged(NamedTuple):
    """A finding, and what it is sorted by."""

    finding: Finding
    rank: tuple[Any, ...]


def _judged(reading: Reading, convention: Convention, counted: CountedNetwork) -> _Judged:
    parts = tuple(part for index, part in enumerate(convention.parts(counted)) if part.amount or not index)
    figure, ours = sum(part.amount for part in parts), counted.ours(convention.quantity)
    slack = convention.headers * sum(len(placed.held) for placed in counted.layers)
    distance, guessed = min(_distances(reading, convention, figure, slack))
    writing = convention.writing
    finding = Finding(
        tool=str(convention.tool),
        label=convention.label,
        quantity=convention.quantity,
        printed=writing.write(figure),
        figure=figure,
        ours=ours,
        ours_is=OURS[convention.quantity].words,
        difference=figure - ours,
        parts=parts,
        why=convention.why,
        form=counted.form,
        distance=float(distance),
    )
    noun = reading.quantities.index(convention.quantity) if convention.quantity in reading.quantities else 9
    decimals = Fraction(1, 10**writing.decimals) != reading.digit
    # of equally near figures first those in a unit that was given, then what the noun most likely means, then ours
    return _Judged(finding, (distance, guessed, noun, abs(finding.difference), decimals, bool(counted.form)))


def _distances(
    reading: Reading, convention: Convention, figure: int, slack: int
) -> Iterator[tuple[Fraction | float, bool]]:
    """Yield how far a number is from a figure in each unit that it may have, and whether the unit is a guess."""
    if reading.quantities and convention.quantity not in reading.quantities:
        yield inf, True
        return
    base = 1024 if reading.binary else convention.writing.base
    printed = convention.writing.power_of(figure)
    likely = {0, printed} if reading.power is None else {reading.power}
    guesses = {2, 3} - likely if reading.power is None and reading.digit < 1 else set()
    for power in (*likely, *guesses):
        scale = base**power
        meant, same = reading.value * scale, reading.digit * scale / 2
        missing = max(figure - meant, meant - figure - slack, Fraction(0))
        yield (missing / max(figure, 1) if missing > same else Fraction(0)), power in guesses


# The table


def _off(finding: Finding) -> str:
    return f"{100 * finding.distance:.3g} % off" if finding.distance < 10 else "far off"


def _signed(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Return the amount of each part, with a sign from the second on, and what it counts."""
    return [((signed if index else grouped)(part.amount), part.what) for index, part in enumerate(parts)]


COLUMNS: list[Column[Finding]] = [
    Column("tool", lambda finding: finding.tool),
    Column("what it prints", lambda finding: f"{finding.label}: {finding.printed}"),
    Column("counts", lambda finding: finding.quantity),
    Column("exactly", lambda finding: grouped(finding.figure), "right"),
    Column("difference", lambda finding: finding.differs(), fold=20),
    Column(
        "made of", lambda finding: " ".join(f"{amount} ({what})" for amount, what in _signed(finding.parts)), fold=28
    ),
    Column("built", lambda finding: finding.form or "as configured"),
    Column("why", lambda finding: finding.why, fold=28),
]


class FindingsTable(DrawnTable):
    """Findings: each figure with what it is made of.

    Args:
        findings: what is shown; the nearest conventions if there are none.
    """

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        title = f"{findings.number} of {findings.about}"
        columns, shown = COLUMNS, list(findings)
        if not findings:
            title = f"{title}: no convention gives this number. The nearest:"
            columns, shown = [*COLUMNS, Column("off", _off, "right")], list(findings.nearest)
        parts = [[" ".join(part) for part in _signed(finding.parts)] for finding in shown]
        super().__init__(
            grid(columns, shown, title=title),
            records=[{**finding.to_dict(), "parts": each} for finding, each in zip(shown, parts)],
            data=findings.to_dict(),
        )

    def __rich__(self) -> Any:
        """Draw findings of one figure together, or a line for each of the nearest."""
        from rich.console import Group
        from rich.text import Text

        groups: dict[Any, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.quantity, finding.figure, finding.parts), []).append(finding)
        lines = [
            f"{_says(finding)}, exactly {grouped(finding.figure)}: {_off(finding)}"
            for finding in (() if groups else self.findings.nearest)
        ]
        return Group(Text(f"{self.title}\n", style="bold"), *map(_block, groups.values()), *map(Text, lines))

    def to_markdown(self) -> str:
        """Return a GitHub table below the title."""
        return f"{self.title}\n\n{super().to_markdown()}"


def _says(finding: Finding) -> str:
    form = f" ({finding.form})" if finding.form else ""
    return f"{finding.tool}, {finding.label}: {finding.printed}{form}"


def _block(findings: list[Finding]) -> RenderableType:
    """Draw a figure that several tools share: the tools, its parts, their sum, and why."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    first = findings[0]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    if len(first.parts) > 1:
        for amount, what in _signed(first.parts):
            table.add_row(Text(amount), Text(what))
    unit = "bytes, " if first.quantity.endswith("bytes") else ""
    begins_with_ours = len(first.parts) > 1 and first.parts[0].amount == first.ours
    ours = "" if begins_with_ours else f": {first.ours_is}"
    table.add_row(Text(grouped(first.figure), style="bold green"), Text(f"{unit}{first.differs()}{ours}", style="bold"))
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        reasons.setdefault(finding.why, []).append(finding.tool)
    return Group(
        *(Text(_says(finding), style="bold cyan") for finding in findings),
        Padding(table, (0, 0, 0, 2)),
        *(Padding(Text(f"{', '.join(tools)}: {why}", style="dim"), (0, 0, 0, 2)) for why, tools in reasons.items()),
        "",
    )

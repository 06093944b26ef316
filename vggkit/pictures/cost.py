"""What each layer costs, as bars: parameters, MACs and activation bytes side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vggkit.base.numbers import grouped, megabytes, percent, shortened
from vggkit.pictures import style
from vggkit.pictures.bars import Sheet, limit, name_of
from vggkit.pictures.parts import LONGEST_TITLE, colour_of, colours_of, shortened_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from vggkit.figures.summary import Summary

LABELLED = 3
"""How many of the largest bars have labels; those that tie with the last of them have one too."""


class Panel(NamedTuple):
    """One figure of every layer.

    Args:
        name: of the figure.
        values: one for each layer.
        total: their sum.
        spell: writes a value.
        spell_total: writes the total.
    """

    name: str
    values: tuple[int, ...]
    total: int
    spell: Callable[[int], str]
    spell_total: Callable[[int], str]

    def labels(self) -> dict[int, str]:
        """Return the labels of the largest bars, by the layer's number: the value and its share of the total."""
        least = sorted(self.values)[-LABELLED:][0]
        return {
            number: f"{self.spell(value)} ({percent(value, self.total)})"
            for number, value in enumerate(self.values)
            if value and value >= least
        }

    @property
    def largest(self) -> list[int]:
        """The numbers of the layers with the largest value; several if they tie."""
        most = max(self.values)
        return [number for number, value in enumerate(self.values) if value == most]

    @property
    def outstanding(self) -> list[int]:
        """The same; none if all layers with a value above zero tie."""
        return [] if 1 < len(self.largest) == len(self.values) - self.values.count(0) else self.largest

    def most(self, names: Sequence[str], text: str) -> str:
        """Return which layers have most, and how much.

        Args:
            names: of all layers.
            text: how much.
        """
        first, others = names[self.largest[0]], len(self.largest) - 1
        if not others:
            return f"{first}, {text}"
        return f"{first} and {others} other{'s' if others > 1 else ''}, {text} each"


def panels(summary: Summary) -> list[Panel]:
    """Return what is drawn."""
    rows, totals = list(summary), summary.totals
    macs, activations = totals.multiply_accumulates, totals.activation_bytes
    return [
        Panel("parameters", tuple(row.parameters for row in rows), totals.parameters, shortened, grouped),
        Panel("MACs", tuple(row.multiply_accumulates for row in rows), macs, shortened, grouped),
        Panel("activations", tuple(row.activation_bytes for row in rows), activations, megabytes, megabytes),
    ]


def figure(summary: Summary) -> Figure:
    """Draw what a network costs.

    Args:
        summary: with a row for each layer that owns parameters or an output.
    """
    drawn = panels(summary)
    sheet = Sheet(summary.rows, (title(summary), _subtitle(summary)), colours_of(summary), len(drawn))
    for place, panel in enumerate(drawn):
        axes = sheet.panel(place, panel.name, f"{panel.spell_total(panel.total)} in all")
        sheet.bars(axes, panel.values, list(map(colour_of, summary)))
        labels = panel.labels()
        for number, text in labels.items():
            sheet.label(axes, number, panel.values[number], text, bold=number in panel.outstanding)
        axes.set_xlim(0, limit(dict(enumerate(panel.values)), labels))
    return sheet.figure


def title(summary: Summary) -> str:
    """Return one line that says what is drawn."""
    return shortened_text(style.printable(summary.title), LONGEST_TITLE)


def description(summary: Summary) -> str:
    """Say in words what the picture shows."""
    names = [row.name for row in summary]
    most = [
        f"{panel.name}: {panel.spell_total(panel.total)} in all, most in"
        f" {panel.most(names, panel.labels()[panel.largest[0]])}"
        for panel in panels(summary)
        if panel.total
    ]
    return f"What each layer of {title(summary)} costs, as bars. {'; '.join(most)}."


def _subtitle(summary: Summary) -> str:
    """Say in one line which layers cost most."""
    names = [name_of(row) for row in summary]
    most = [
        f"most {panel.name}: {panel.most(names, percent(max(panel.values), panel.total))}"
        for panel in panels(summary)
        if panel.total
    ]
    return " · ".join(most)

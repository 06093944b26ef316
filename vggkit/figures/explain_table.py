"""An explanation as plain workings, in Markdown, LaTeX and JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vggkit.base import tables
from vggkit.base.numbers import grouped
from vggkit.base.tables import Column, grid

if TYPE_CHECKING:
    from rich.console import Group

    from vggkit.figures.explain import Explanation, Step


def lines(step: Step) -> list[str]:
    """Return a step's equation: the rule, the numbers and the result, each once.

    >>> from vggkit import explain
    >>> lines(explain("D", "conv3_1").steps[5])
    ['k·k·c·f + f', '3·3·128·256 + 256', '295,168']
    """
    return list(dict.fromkeys((step.rule, step.working, grouped(step.result))))


def _legend(explanation: Explanation) -> str:
    return "; ".join(f"{symbol} {meaning}" for symbol, meaning in explanation.symbols.items())


def table(explanation: Explanation) -> Group:
    """Return the steps for the terminal, each as an equation with its reason below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    steps = Table.grid(padding=(0, 1, 0, 0))
    steps.add_column(no_wrap=True, style="cyan")
    steps.add_column(no_wrap=True)
    steps.add_column()
    for step in explanation:
        *shown, result = lines(step)
        for index, line in enumerate(shown):
            steps.add_row("" if index else step.quantity, "=", Text(line))
        unit = f" {step.unit}" if step.unit else ""
        steps.add_row("" if shown else step.quantity, "=", Text(f"{result}{unit}", style="bold green"))
        steps.add_row("", "", Text(step.why, style="dim"))
    legend = Text(_legend(explanation), style="dim")
    return Group(Text(f"{explanation.title}\n", style="bold"), steps, "", legend)


def table_text(explanation: Explanation) -> str:
    """Return the steps as plain text, without a line break at its end."""
    return tables.text(table(explanation)).rstrip("\n")


COLUMNS: list[Column[Step]] = [
    Column("quantity", lambda step: step.quantity),
    Column("rule", lambda step: step.rule),
    Column("with the numbers", lambda step: step.working),
    Column("result", lambda step: f"{grouped(step.result)} {step.unit}".rstrip(), "right"),
    Column("why", lambda step: step.why),
]


def html_text(explanation: Explanation) -> str:
    """Return the steps as an HTML table, for notebooks."""
    return tables.html(grid(COLUMNS, explanation, title=explanation.title))


def markdown_text(explanation: Explanation) -> str:
    """Return the steps as a GitHub table with a heading."""
    body = tables.markdown(grid(COLUMNS, explanation))
    return f"### {tables.markdown_cell(explanation.title)}\n\n{body}\n{tables.markdown_cell(_legend(explanation))}\n"


TERMS = 4
"""So many long summands stand on a line of LaTeX."""


def latex_text(explanation: Explanation) -> str:
    """Return the steps as displayed equations; they need the package amsmath."""
    blocks = [f"% needs \\usepackage{{amsmath}}\n\\subsection*{{{_words(explanation.title)}}}"]
    blocks += [_equation(step) for step in explanation]
    meanings = "; ".join(f"${math(symbol)}$ {_words(meaning)}" for symbol, meaning in explanation.symbols.items())
    return "\n\n".join([*blocks, *([meanings] if meanings else [])]) + "\n"


def _equation(step: Step) -> str:
    body = " \\\\\n& = ".join(map(_broken, lines(step)))
    unit = f"~\\text{{{step.unit}}}" if step.unit else ""
    head = f"\\text{{{_words(step.quantity)}}}"
    return f"\\begin{{align*}}\n{head} & = {body}{unit}\n\\end{{align*}}\n{_words(step.why)}"


def _broken(text: str) -> str:
    """Break a long sum into lines."""
    terms = text.split(" + ")
    if len(terms) <= TERMS:
        return math(text)
    pieces = [" + ".join(map(math, terms[start : start + TERMS])) for start in range(0, len(terms), TERMS)]
    return " \\\\\n& \\quad + ".join(pieces)


_MATH = {
    "·": "\\cdot ", "−": "-", ",": "{,}", "⌊": "\\left\\lfloor ", "⌋": "\\right\\rfloor ", "⌈": "\\left\\lceil ",
    "⌉": "\\right\\rceil ", "…": "\\ldots ",
}  # fmt: skip


def math(text: str) -> str:
    """Write a rule or a working in LaTeX's math.

    >>> math("⌊(h + 2·p − k)/s⌋ + 1")
    '\\\\left\\\\lfloor (h + 2\\\\cdot p - k)/s\\\\right\\\\rfloor  + 1'
    """
    words = re.sub(r"[A-Za-z][A-Za-z0-9]+(?:[ -][A-Za-z]+)*", lambda word: f"\\mathrm{{{_spaced(word[0])}}}", text)
    return "".join(_MATH.get(char, char) for char in words)


def _spaced(words: str) -> str:
    return words.replace(" ", "\\ ")


def _words(text: str) -> str:
    return tables.latex_cell(text)


def json_text(explanation: Explanation) -> str:
    """Return the documented JSON."""
    return tables.json(explanation.to_dict())

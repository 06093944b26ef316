"""The commands of pictures: plot and report."""

from __future__ import annotations

from pathlib import Path

import click

from vggkit.base.errors import ArgumentError
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import (
    FILE,
    STANDARD_OUTPUT,
    TABLE_FORMATS,
    dtype_option,
    format_of,
    input_option,
    optimizer_option,
    overrides,
    put,
    set_option,
    sources_argument,
)


@main.command(epilog="Example: vggkit plot D --kind cost -o D.svg")
@sources_argument
@click.option(
    "--kind",
    default="architecture",
    show_default=True,
    help="architecture, cost, compare or receptive.",
    shell_complete=completion.pictures,
)
@click.option("--flat", is_flag=True, help="Draw the architecture block by block, with a box for each layer.")
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images, for cost and compare.")
@input_option
@dtype_option(", for cost and compare", default=None)
@set_option
@click.option(
    "--format",
    help="svg, png or pdf; for the architecture also tikz or mermaid.  [default: svg, or by FILE's ending]",
    shell_complete=completion.picture_formats,
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="A .svg, .png, .pdf, .tex, .mmd or .md file; - prints it.  [default: named after what is drawn, such as"
    " D-cost.svg]",
)
def plot(
    sources: tuple[str, ...],
    kind: str,
    flat: bool,
    batch: int | None,
    input: str | None,
    dtype: str | None,
    settings: tuple[str, ...],
    format: str | None,
    output: Path | None,
) -> None:
    """Draw networks: what they look like and cost, and how they compare.

    One CONFIGURATION; for --kind compare any number, with changes as in D:width=0.5, or none for all six. A file is
    written; no window opens. TikZ is in the vocabulary of PlotNeuralNet and compiles with pdflatex. Mermaid is what
    GitHub draws in Markdown pages; a .md file has it in a fence.
    """
    from vggkit.pictures.plot import FORMATS
    from vggkit.pictures.plot import format_of as picture_format
    from vggkit.pictures.plot import plot as call

    try:
        word = format or (picture_format(output) if output not in (None, STANDARD_OUTPUT) else "svg")
    except ArgumentError as error:
        raise ArgumentError(f"--output: {error}") from None
    picture = call(*sources, kind=kind, flat=flat, batch=batch, dtype=dtype, **overrides(settings, input=input))
    content = picture.content(output or "", word)
    put(content, output or Path(f"{picture.name}{FORMATS[word][0]}"), "drawn")


@main.command("report", epilog="Example: vggkit report D E -o report.html")
@click.argument(
    "sources", nargs=-1, required=True, metavar="CONFIGURATION...", shell_complete=completion.configurations
)
@click.option(
    "--batch", type=int, default=1, show_default=True, metavar="N", help="Number of images when the page opens."
)
@input_option
@dtype_option(", when the page opens")
@optimizer_option
@set_option
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="A .html file; - prints it.  [default: named after the networks, such as D-report.html]",
)
def report_command(
    sources: tuple[str, ...],
    batch: int,
    input: str | None,
    dtype: str,
    optimizer: str | None,
    settings: tuple[str, ...],
    output: Path | None,
) -> None:
    """Write a page of networks: tables, pictures, notation, and memory for any batch, dtype and step.

    The page is self-contained: it needs no other file and no internet. A name or path may be followed by changes, as in
    D:width=0.5.
    """
    from vggkit.pictures.report.report import report as call

    if output not in (None, STANDARD_OUTPUT):
        format_of(None, output, {"html": TABLE_FORMATS["html"]})
    made = call(*sources, batch=batch, dtype=dtype, optimizer=optimizer, **overrides(settings, input=input))
    put(made.to_html().encode(), output or Path(made.file_name), "written")

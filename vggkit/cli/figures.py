"""The commands of figures: summarize, explain, reconcile, compare and find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vggkit.base.errors import ArgumentError
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import (
    TABLE_FORMATS,
    Formats,
    dtype_option,
    figure_options,
    format_of,
    format_option,
    input_option,
    names_option,
    output_option,
    overrides,
    set_option,
    source_argument,
    sources_argument,
    split,
    step_arguments,
    step_figure_options,
    write,
    write_table,
)

LISTINGS: Formats = {"keras": (), "cs231n": ()}
"""A summary as Keras and as the lecture CS231n list it."""

SUMMARY_FORMATS: Formats = {"table": TABLE_FORMATS["table"], **LISTINGS, **TABLE_FORMATS}


@main.command(epilog="Example: vggkit summarize D --batch 64 --set num_classes=10")
@source_argument
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images.  [default: 1]")
@input_option
@dtype_option()
@set_option
@click.option("--formula", is_flag=True, help="Show how each count is computed, such as (3·3·64)·64.")
@click.option("--expand", is_flag=True, help="Show a row for every torch module, even ReLU and dropout.")
@click.option("--training", is_flag=True, help="Show what each layer keeps for the backward pass, too.")
@format_option(SUMMARY_FORMATS)
@output_option
def summarize(
    source: str,
    batch: int | None,
    input: str | None,
    dtype: str,
    settings: tuple[str, ...],
    formula: bool,
    expand: bool,
    training: bool,
    format: str | None,
    output: Path | None,
) -> None:
    """Show each layer's shape, parameters, MACs and memory, and the totals."""
    from vggkit.figures.summary import summarize as call
    from vggkit.network import Network

    format = format_of(format, output, SUMMARY_FORMATS)
    if formula and format not in ("table", "markdown", "latex", "html"):
        raise ArgumentError(f"--formula: needs --format table, markdown, latex or html, found {format}")
    for flag, is_set in (("--expand", expand), ("--training", training)):
        if is_set and format in LISTINGS:
            raise ArgumentError(f"{flag}: not available with --format {format}, whose rows and columns are fixed")
    network = Network.of(source, **overrides(settings, input=input))
    every_module = expand or format == "keras"  # Keras lists flatten, too
    summary = call(network, batch=1 if batch is None else batch, dtype=dtype, expand=every_module)
    saved = None
    if training:
        from vggkit.footprint.plan import memory, saved_by_row

        saved = saved_by_row(memory(network, batch=summary.batch, dtype=dtype), [row.name for row in summary])
    for note in network.notes():
        click.echo(f"{click.style('Note:', fg='yellow')} {note}", err=True)
    if format == "keras":
        from vggkit.figures.listings import keras_listing

        write(keras_listing(summary, batch), output)
    elif format == "cs231n":
        from vggkit.figures.listings import lecture_listing

        write(lecture_listing(summary), output)
    else:
        write_table(summary.table(formula=formula, saved=saved), format, output)


@main.command(epilog="Example: vggkit explain D conv3_1")
@source_argument
@click.argument("layer", required=False, metavar="[LAYER]", shell_complete=completion.layers)
@figure_options
@format_option()
@output_option
def explain(
    source: str,
    layer: str | None,
    batch: int,
    input: str | None,
    dtype: str,
    settings: tuple[str, ...],
    format: str | None,
    output: Path | None,
) -> None:
    """Show how a layer's figures are computed, with the numbers put in.

    LAYER is a name here (block3_conv1), in Caffe (conv3_1) or in torchvision (features.10). Without one, the totals.
    """
    from vggkit.figures.explain import explain as call
    from vggkit.network import Network

    format = format_of(format, output)
    explanation = call(Network.of(source, **overrides(settings, input=input)), layer, batch=batch, dtype=dtype)
    write_table(explanation.table(), format, output)


@main.command(epilog="Example: vggkit reconcile D 15.48G")
@source_argument
@click.argument("number", nargs=-1, required=True, metavar="NUMBER")
@figure_options
@format_option()
@output_option
def reconcile(
    source: str,
    number: tuple[str, ...],
    batch: int,
    input: str | None,
    dtype: str,
    settings: tuple[str, ...],
    format: str | None,
    output: Path | None,
) -> None:
    """Say which tool or lecture prints this number, and what it counts.

    NUMBER is as it was printed: 15.48G, 108.45MB, 218.78, 15.523e9, 30.94 GFLOPs. Exit 1 if no convention gives it.
    """
    from vggkit.figures.reconcile import reconcile as call
    from vggkit.network import Network

    format = format_of(format, output)
    network = Network.of(source, **overrides(settings, input=input))
    findings = call(network, " ".join(number), batch=batch, dtype=dtype)
    write_table(findings.table(), format, output)
    click.get_current_context().exit(0 if findings else 1)


@main.command(epilog="Example: vggkit compare A D D:batch_norm=true,width=0.5")
@sources_argument
@step_figure_options
@click.option(
    "--sort",
    metavar="FIGURE",
    help="Sort the columns by this figure, such as macs; -macs sorts from the largest.",
    shell_complete=completion.compared,
)
@names_option("--only", "Figures to show, such as parameters,macs,top5; layers shows the layers.", completion.compared)
@click.option("--diff", is_flag=True, help="Show what the second of two adds, removes and changes, and its cost.")
@format_option()
@output_option
def compare(
    sources: tuple[str, ...],
    input: str | None,
    settings: tuple[str, ...],
    sort: str | None,
    only: tuple[str, ...],
    diff: bool,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Set networks side by side, as the paper's Table 1 does, and their figures.

    A name or path may be followed by changes, as for --set: D:batch_norm=true,width=0.5. Without a CONFIGURATION, the
    paper's six are compared.
    """
    from vggkit.figures.compare import LAYERS, SHOWN
    from vggkit.figures.compare import compare as call
    from vggkit.figures.measures import COMPARED, direction, figure_name

    if diff and (sort or only):
        raise ArgumentError(f"{'--sort' if sort else '--only'} can't be combined with --diff")
    if diff and len(sources) != 2:
        raise ArgumentError(f"--diff: expected two configurations, found {len(sources)}")
    format = format_of(format, output)
    words = split(only, "--only", "macs")
    shown = [figure_name(word, "--only", COMPARED, others=(LAYERS,)) for word in words] or SHOWN
    if sort is not None:
        direction(sort, "--sort", COMPARED)
    made = call(*sources, sort=sort, **step_arguments(options), **overrides(settings, input=input))
    write_table(made.diff().table() if diff else made.table(shown), format, output)

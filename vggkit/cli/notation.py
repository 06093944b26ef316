"""The commands of configurations: list, names, show, validate and schema."""

from __future__ import annotations

from pathlib import Path

import click

from vggkit.base.errors import VggkitError
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import (
    YAML_FORMATS,
    format_of,
    format_option,
    input_option,
    output_option,
    overrides,
    set_option,
    source_argument,
    write,
    write_table,
    write_yaml,
)
from vggkit.cli.problems import print_error


@main.command("list", epilog="Example: vggkit list --family")
@click.option("--family", is_flag=True, help="List the variants in research code instead.")
@format_option()
@output_option
def list_command(family: bool, format: str | None, output: Path | None) -> None:
    """List the configurations that come with vggkit: the paper's, or the whole family."""
    from vggkit.figures.catalogue import Catalogue, FamilyCatalogue

    format = format_of(format, output)
    catalogue = FamilyCatalogue() if family else Catalogue()
    write_table(catalogue.table(), format, output)


@main.command(epilog="Example: vggkit names D")
@source_argument
@set_option
@format_option()
@output_option
def names(source: str, settings: tuple[str, ...], format: str | None, output: Path | None) -> None:
    """Show each layer's names: vggkit's, Caffe's, torchvision's and Keras's."""
    from vggkit.network import Network, names_table

    format = format_of(format, output)
    write_table(names_table(Network.of(source, **overrides(settings))), format, output)


@main.command(epilog="Example: vggkit show vgg16_bn > my.yaml")
@source_argument
@input_option
@set_option
@output_option
def show(source: str, input: str | None, settings: tuple[str, ...], output: Path | None) -> None:
    """Print a configuration as YAML, with everything filled in.

    With --set or --input it is a variant, and its name and source say so.
    """
    from vggkit.notation.zoo import dump, load, variant

    format_of(None, output, YAML_FORMATS)
    changed = load(source, **overrides(settings, input=input))
    if changed != load(source):
        changed = variant(changed, [*settings, *([f"input={input}"] if input else [])])
    write_yaml(dump(changed), output)


@main.command(epilog="Example: vggkit validate my.yaml")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=completion.configurations)
def validate(files: tuple[str, ...]) -> None:
    """Check configuration files, their shapes and budgets.

    The exit code is 2 if one is wrong, and 1 if one is over its budget.
    """
    click.get_current_context().exit(max(map(_validate, files)))


def _validate(file: str) -> int:
    """Check one file and say so; return its exit code."""
    from vggkit.base.numbers import grouped
    from vggkit.figures.budget import overruns
    from vggkit.figures.summary import summarize
    from vggkit.network import Network

    try:
        network = Network.of(file)
        over = overruns(network)
    except VggkitError as error:
        print_error(error)
        return error.exit_code
    for overrun in over:
        click.echo(f"{file}: {overrun}", err=True)
    if not over:
        totals = summarize(network).totals
        click.echo(f"{file}: ok, {totals.weight_layers} weight layers, {grouped(totals.parameters)} parameters")
    return 1 if over else 0


@main.command(epilog="Example: vggkit schema -o schema.json")
@output_option
def schema(output: Path | None) -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from vggkit.base import tables
    from vggkit.notation import json_schema

    format_of(None, output, {"json": (".json",)})
    write(tables.json(json_schema.schema()), output)

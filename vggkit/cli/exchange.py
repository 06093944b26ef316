"""The commands of other tools' files: import and export."""

from __future__ import annotations

from pathlib import Path

import click

from vggkit.base.errors import ArgumentError, escaped
from vggkit.cli.app import main
from vggkit.cli.options import (
    YAML_FORMATS,
    either,
    format_of,
    input_option,
    output_option,
    overrides,
    set_option,
    source_argument,
    write_yaml,
)
from vggkit.exchange.kinds import MODEL_FILES

FILE = click.Path(path_type=str)


@main.command("import", epilog="Example: vggkit import deploy.prototxt > my.yaml")
@click.argument("file", metavar="FILE", type=FILE)
@click.argument("values", metavar="[CAFFEMODEL]", type=FILE, required=False)
@click.option(
    "--weights", type=FILE, metavar="OUT", help="Write the weights to this file, in a format that convert writes."
)
@input_option
@output_option
def import_command(file: str, values: str | None, weights: str | None, input: str | None, output: Path | None) -> None:
    """Print a network from another tool's file as YAML.

    FILE is an .onnx, torch's .pt2 or TorchScript, Keras's .keras, or a .prototxt or .caffemodel of Caffe; CAFFEMODEL
    has the weights of a .prototxt.
    A network that is not a chain of layers is refused with the place and the reason.
    """
    from vggkit.model.exchange import import_config

    format_of(None, output, YAML_FORMATS)
    write_yaml(str(import_config(file, values, input=input, weights=weights)), output)


@main.command(epilog="Example: vggkit export D -o D.prototxt")
@source_argument
@click.option("--weights", type=FILE, metavar="SOURCE", help="A checkpoint with the weights, or imagenet.")
@input_option
@set_option
@output_option
def export(source: str, weights: str | None, input: str | None, settings: tuple[str, ...], output: Path | None) -> None:
    """Write a network as another tool's file, which -o names.

    The ending says whose it is: .onnx, torch's .pt2 or Keras's .keras, with or without weights, or Caffe's .prototxt
    for the layers and .caffemodel for their weights as well.
    """
    from vggkit.model.exchange import export as call

    if output is None:
        raise ArgumentError(f"--output: expected a file that ends in {either(MODEL_FILES)}, found none")
    format_of(None, output, {"model": tuple(MODEL_FILES)})
    told = call(source, output, weights=weights, **overrides(settings, input=input))
    click.echo(f"{escaped(str(output))}: written, {told}", err=True)

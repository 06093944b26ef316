"""The commands of checkpoints: inspect and convert."""

from __future__ import annotations

from pathlib import Path

import click

from vggkit.base.errors import escaped
from vggkit.cli.app import main
from vggkit.cli.options import config_option, format_of, format_option, output_option, write_table


class _LayoutOption(click.Option):
    """An option whose help lists the layouts. They are imported only when the help is shown."""

    @property
    def help(self) -> str:
        from vggkit.model.weights.layouts import LAYOUTS

        *first, last = LAYOUTS
        return f"{', '.join(first)} or {last}.  [default: by OUT's ending]"

    @help.setter
    def help(self, _: str | None) -> None:
        """Ignore what click sets when it makes the option."""


@main.command(epilog="Example: vggkit inspect model.safetensors")
@click.argument("file", metavar="FILE", type=click.Path(path_type=str))
@config_option("Compare it with this configuration instead of identifying it.")
@click.option("--tensors", is_flag=True, help="List every tensor and the parameter that it becomes.")
@format_option()
@output_option
def inspect(file: str, config: str | None, tensors: bool, format: str | None, output: Path | None) -> None:
    """Identify a checkpoint: layout, configuration, parameters, bytes.

    FILE is a checkpoint of torchvision, timm, Keras or vggkit, or another file (.onnx, .pt2, TorchScript, .caffemodel).
    Nothing in it is executed. Where the format allows it, no values are read. Exit 1 if it does not fit the
    configuration of --config.
    """
    from vggkit.model.weights.inspection import inspect as call

    format = format_of(format, output)
    inspection = call(file, config)
    write_table(inspection.table(tensors=tensors), format, output)
    click.get_current_context().exit(1 if config is not None and inspection.notes else 0)


@main.command(epilog="Example: vggkit convert model.safetensors model.h5")
@click.argument("source", metavar="IN", type=click.Path(path_type=str))
@click.argument("target", metavar="OUT", type=click.Path(path_type=str))
@click.option("--layout", cls=_LayoutOption)
@config_option("Its configuration, if it can't be recognised from the shapes.")
def convert(source: str, target: str, layout: str | None, config: str | None) -> None:
    """Write a checkpoint in the layout of torchvision, timm, Keras or vggkit.

    OUT's ending sets the format: .pth is PyTorch's (torchvision's layout), .safetensors vggkit's, .h5 Keras's legacy
    format, .weights.h5 Keras 3's. Nothing is lost: converting back gives the same tensors.
    """
    from vggkit.model.weights.conversion import convert as call

    network = call(source, target, layout=layout, config=config)
    click.echo(f"{escaped(target)}: {network.name} written", err=True)

"""The command line: arguments → one call → one renderer. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vggkit import __version__
from vggkit.errors import ArgumentError, ConfigError, VggkitError, shorten

FORMATS = ("table", "keras", "cs231n", "json", "csv", "markdown", "latex")
LIST_FORMATS = ("table", "json", "csv", "markdown")
SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown", ".tex": "latex"}


class _Group(click.Group):
    """Ends every error that vggkit raises in clear lines on stderr and an exit code, never in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VggkitError as error:
            report(error)
            ctx.exit(error.exit_code)


def report(error: VggkitError) -> None:
    """Print an error to stderr; a configuration's problems each with the offending line and a caret."""
    if not isinstance(error, ConfigError):
        click.echo(f"{click.style('Error:', fg='red')} {error}", err=True)
        return
    from vggkit.render.problems import lines

    for problem in error.problems:
        message, *excerpt = lines(problem)
        head = "" if problem.position else click.style("Error: ", fg="red")
        click.echo(head + message, err=True)
        for line in excerpt:
            click.echo(click.style(line, fg="red" if line.strip() == "^" else None, dim=line.strip() != "^"), err=True)


def complete_configuration(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG001
    """Complete the names and aliases of shipped configurations, and files."""
    from click.shell_completion import CompletionItem

    from vggkit.zoo import known_names

    matches = [name for name in known_names() if name.lower().startswith(incomplete.lower())]
    return [*map(CompletionItem, matches), CompletionItem(incomplete, type="file")]


source_argument = click.argument("source", metavar="CONFIGURATION", shell_complete=complete_configuration)
input_option = click.option("--input", metavar="CxHxW", help="Shape of one image, as 3x224x224.")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the configuration, as num_classes=10 or batch_norm=true; repeatable.",
)
output_option = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead."
)


def list_format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format for lists."""
    return click.option(
        "--format",
        "format",
        type=click.Choice(LIST_FORMATS),
        default="table",
        show_default=True,
        help="How it is written.",
    )(function)


def overrides(settings: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Turn `--set key=value` and options of their own into overrides; an option wins."""
    from vggkit.document import scalar

    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ArgumentError(f"--set: expected key=value, such as num_classes=10, found {shorten(setting)}")
        changes[key.strip()] = scalar(value.strip())
        if changes[key.strip()] is None:
            raise ArgumentError(f"--set: {key.strip()} has no value; expected key=value, such as num_classes=10")
    changes.update({key: value for key, value in options.items() if value is not None})
    return changes


def write(content: Any, output: Path | None) -> None:
    """Print text or a rich renderable, or write it to a file."""
    from vggkit.render import columns

    if output is None:
        if isinstance(content, str):
            click.echo(content, nl=False)
        else:
            columns.show(content)
        return
    from vggkit.files import write_text

    try:
        write_text(output, content if isinstance(content, str) else columns.text(content))
    except OSError as error:
        raise VggkitError(f"{output}: can't be written: {error.strerror or error}") from None


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: vggkit summarize D",
)
@click.version_option(__version__, prog_name="vggkit", message="%(prog)s %(version)s")
def main() -> None:
    """Say a VGG network in the paper's own words, and know exactly what it costs before you run it.

    A CONFIGURATION is a name (A, A-LRN, B, C, D, E), an alias (vgg16, vgg16_bn) or the path of a YAML file.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that can't show × gets ? rather than an error


@main.command(epilog="Example: vggkit summarize D --batch 64 --set num_classes=10")
@source_argument
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images.  [default: 1]")
@input_option
@click.option("--dtype", default="float32", show_default=True, help="float32, float16, bfloat16 or float64.")
@set_option
@click.option("--formula", is_flag=True, help="Show how each count comes about, as (3·3·64)·64.")
@click.option("--expand", is_flag=True, help="A row for every torch module, ReLU and dropout too.")
@click.option(
    "--format", "format", type=click.Choice(FORMATS), help="How it is written.  [default: table, or by FILE's ending]"
)
@output_option
def summarize(
    source: str,
    batch: int | None,
    input: str | None,
    dtype: str,
    settings: tuple[str, ...],
    formula: bool,
    expand: bool,
    format: str | None,
    output: Path | None,
) -> None:
    """Show every layer with its shape, parameters, multiply-accumulates and memory, and the totals."""
    from vggkit.analysis import summarize as call
    from vggkit.network import Network

    format = format or SUFFIXES.get(output.suffix.lower() if output else "", "table")
    if formula and format not in ("table", "markdown", "latex"):
        raise ArgumentError(f"--formula: expected --format table, markdown or latex with it, found {format}")
    if expand and format in ("keras", "cs231n"):
        raise ArgumentError(f"--expand: {format} has the rows that it has; expected another --format")
    network = Network.of(source, **overrides(settings, input=input))
    batch_or_one = 1 if batch is None else batch
    summary = call(network, batch=batch_or_one, dtype=dtype, expand=expand or format == "keras")
    for note in network.notes():
        click.echo(f"{click.style('Note:', fg='yellow')} {note}", err=True)
    write(_summary_in(format, summary, formula, batch), output)


def _summary_in(format: str, summary: Any, formula: bool, batch: int | None) -> Any:
    from vggkit.render import summary as render

    if format == "keras":
        from vggkit.render import keras

        return keras.listing(summary, batch)
    if format == "cs231n":
        from vggkit.render import cs231n

        return cs231n.listing(summary)
    formats: dict[str, Callable[[], Any]] = {
        "table": lambda: render.table(summary, formula),
        "json": lambda: render.json_text(summary),
        "csv": lambda: render.csv_text(summary),
        "markdown": lambda: render.markdown_text(summary, formula),
        "latex": lambda: render.latex_text(summary, formula),
    }
    return formats[format]()


@main.command("list", epilog="Example: vggkit list")
@list_format_option
@output_option
def list_command(format: str, output: Path | None) -> None:
    """List the configurations that come with vggkit."""
    from vggkit.analysis import summarize as call
    from vggkit.render import listing
    from vggkit.zoo import names

    summaries = [call(name) for name in names()]
    write(listing.in_format(listing.zoo_grid(summaries), listing.zoo_dicts(summaries), format), output)


@main.command(epilog="Example: vggkit names D")
@source_argument
@set_option
@list_format_option
@output_option
def names(source: str, settings: tuple[str, ...], format: str, output: Path | None) -> None:
    """Show each layer's name here, in the authors' Caffe model, in torchvision and in Keras."""
    from vggkit.naming import all_names
    from vggkit.network import Network
    from vggkit.render import listing

    every = all_names(Network.of(source, **overrides(settings)))
    write(listing.in_format(listing.names_grid(every), listing.names_dicts(every), format), output)


@main.command(epilog="Example: vggkit show vgg16_bn > my.yaml")
@source_argument
@input_option
@set_option
@output_option
def show(source: str, input: str | None, settings: tuple[str, ...], output: Path | None) -> None:
    """Print a configuration as YAML, with everything that it extends and overrides resolved."""
    from vggkit.zoo import dump, load

    text = dump(load(source, **overrides(settings, input=input)))
    if output is None and sys.stdout.isatty():
        from rich.syntax import Syntax

        write(Syntax(text, "yaml", background_color="default", word_wrap=True), None)
    else:
        write(text, output)


@main.command(epilog="Example: vggkit validate my.yaml")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=complete_configuration)
def validate(files: tuple[str, ...]) -> None:
    """Check configuration files: notation, options and shapes. Exit 2 if one is wrong."""
    from vggkit.analysis import summarize as call
    from vggkit.numbers import grouped

    exit_code = 0
    for file in files:
        try:
            totals = call(file).totals
        except VggkitError as error:
            report(error)
            exit_code = error.exit_code
        else:
            click.echo(f"{file}: ok, {totals.weight_layers} weight layers, {grouped(totals.parameters)} parameters")
    click.get_current_context().exit(exit_code)


@main.command(epilog="Example: vggkit schema -o schema.json")
@output_option
def schema(output: Path | None) -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from vggkit.json_schema import schema as call
    from vggkit.render import columns

    write(columns.json(call()), output)

"""What commands have in common: options, formats, and where the output goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vggkit.base import tables
from vggkit.base.errors import ArgumentError, escaped, shorten
from vggkit.base.files import write_bytes, write_lines, write_text
from vggkit.base.tables import Table
from vggkit.cli import completion
from vggkit.footprint.optimizers import DEFAULT, OPTIMIZERS
from vggkit.footprint.ranks import AUTO, BALANCES, MIXED_DTYPES, SCHEDULES, STRATEGIES, UNITS, Alone
from vggkit.footprint.steps.losses import DEFAULT_LOSS, LOSSES

Formats = Mapping[str, tuple[str, ...]]
"""The formats that a command writes, the default first: the word for --format, and the endings of its files."""


TABLE_FORMATS: Formats = {word: format.endings for word, format in tables.FORMATS.items()}
"""The formats of every table."""


YAML_FORMATS: Formats = {"yaml": (".yaml", ".yml")}
"""The format of a configuration."""


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Adds one or several options or arguments to a command."""


FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


STANDARD_OUTPUT = Path("-")
"""What -o takes for standard output."""


def stacked(*decorators: Decorator) -> Decorator:
    """Return options as one decorator, in the order in which --help lists them."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorated


def either(words: Iterable[str]) -> str:
    """Write words as a choice.

    >>> either(["sgd", "adam", "adamw"])
    'sgd, adam or adamw'
    """
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def format_option(formats: Formats = TABLE_FORMATS) -> Decorator:
    """Add an option that says in which of some formats the output is written."""
    help = "Format of the output.  [default: table, or by FILE's ending]"
    return click.option("--format", type=click.Choice(list(formats)), help=help)


def names_option(
    name: str, help: str, complete: completion.Complete, default: tuple[str, ...] | None = None
) -> Decorator:
    """Add an option that takes names separated by commas, and may be repeated."""
    return click.option(name, metavar="NAME,…", multiple=True, default=default, help=help, shell_complete=complete)


def dtype_option(of: str = "", default: str | None = "float32") -> Decorator:
    """Add an option that says the type of numbers.

    Args:
        of: what it is for, where it is not for everything.
        default: None where a command must know whether the option was given.
    """
    shown = "" if default else "  [default: float32]"
    help = f"float32, float16, bfloat16 or float64{of}.{shown}"
    return click.option("--dtype", default=default, show_default=True, help=help, shell_complete=completion.dtypes)


def config_option(help: str) -> Decorator:
    """Add an option that says which configuration a checkpoint is of."""
    return click.option("--config", metavar="NAME_OR_YAML", help=help, shell_complete=completion.configurations)


source_argument = click.argument("source", metavar="CONFIGURATION", shell_complete=completion.configurations)


sources_argument = click.argument(
    "sources", nargs=-1, metavar="[CONFIGURATION]...", shell_complete=completion.configurations
)


batch_option = click.option("--batch", type=int, default=1, show_default=True, metavar="N", help="Number of images.")


input_option = click.option("--input", metavar="CxHxW", help="Shape of one image, such as 3x224x224.")


optimizer_option = click.option(
    "--optimizer",
    help=f"{either(OPTIMIZERS)}.  [default: {DEFAULT}, without weight decay]",
    shell_complete=completion.optimizers,
)


update_options = stacked(
    click.option("--weight-decay", type=float, metavar="NUMBER", help="Of the optimizer.  [default: its own]"),
    click.option(
        "--foreach/--no-foreach",
        default=None,
        help="Change all parameters together, or one by one.  [default: together on cuda, one by one on cpu]",
    ),
    click.option("--fused", is_flag=True, default=None, help="Change all parameters in one kernel."),
    click.option("--nesterov", is_flag=True, help="Nesterov's momentum, for SGD with momentum."),
    click.option("--amsgrad", is_flag=True, help="Keep the largest second moment, for Adam."),
    click.option("--momentum", type=float, default=0.0, metavar="NUMBER", help="Momentum of rmsprop.  [default: 0]"),
    click.option("--centered", is_flag=True, help="Divide by the gradient's variance, for rmsprop."),
)
"""The optimizer's own options: the fields of `vggkit.footprint.optimizers.Update`."""


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=completion.settings,
    help="Change the configuration, for example num_classes=10 or batch_norm=true; repeatable.",
)


output_option = click.option(
    "-o",
    "--output",
    type=FILE,
    callback=lambda ctx, param, path: None if path == STANDARD_OUTPUT else path,  # noqa: ARG005  # click's
    help="Write to a file instead; - is standard output.",
)


figure_options = stacked(batch_option, input_option, dtype_option(), set_option)
"""The options that a network's figures depend on."""


loop_options = stacked(
    click.option(
        "--loss",
        default=DEFAULT_LOSS,
        show_default=True,
        help=f"{either(LOSSES)}.",
        shell_complete=completion.losses,
    ),
    click.option(
        "--zero-grad",
        default="set_to_none",
        show_default=True,
        help="set_to_none or zero: whether gradients are freed before a step, or stay.",
        shell_complete=completion.zero_grads,
    ),
    click.option(
        "--accumulate",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="Add up the gradients of N batches before the optimizer steps.",
    ),
    click.option("--ema", is_flag=True, help="Have a moving average of the parameters."),
    click.option("--clip-grad", is_flag=True, help="Clip the gradients' norm before the optimizer steps."),
    click.option("--step-in-backward", is_flag=True, help="Change each parameter as soon as its gradient is there."),
)
"""What is special about the loop of a training step."""


step_options = stacked(
    input_option,
    dtype_option(),
    optimizer_option,
    update_options,
    names_option("--freeze", "Blocks and layers that are not trained, such as block1,block2.", completion.parts),
    names_option(
        "--checkpoint", "Blocks that are run again in the backward pass, such as block1,block2.", completion.blocks
    ),
    click.option("--autocast", is_flag=True, help="Run the forward pass in torch.autocast to bfloat16."),
    loop_options,
    set_option,
)
"""What a training step is like: the options of `vggkit.memory`."""


allocator_option = click.option(
    "--allocator",
    default="",
    metavar="SETTINGS",
    help="On cuda: settings of torch's allocator, as in PYTORCH_ALLOC_CONF (expandable_segments:True).",
)


device_options = stacked(
    click.option(
        "--device",
        help="cpu or cuda.  [default: cpu; for a card by name, or with --context or --workspace: cuda]",
        shell_complete=completion.devices,
    ),
    allocator_option,
)
"""Where a step runs for which there must be room."""


def taken_options(needed: str = "") -> Decorator:
    """Add options that say what is taken of a card.

    Args:
        needed: the option without which they say nothing, if there is one.
    """
    where = f"With {needed}: what" if needed else "What"
    return stacked(
        click.option(
            "--context", metavar="SIZE", help=f"{where} CUDA itself takes.  [default: as documented for the card]"
        ),
        click.option("--workspace", metavar="SIZE", help=f"{where} cuDNN and cuBLAS take.  [default: 0]"),
    )


def rank_option(help: str) -> Decorator:
    """Add an option that names a rank."""
    return click.option("--rank", type=int, metavar="N", help=help)


group_options = stacked(
    click.option(
        "--ranks",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="How many processes train together; --batch is one rank's, or that of a whole tensor or pipeline group.",
    ),
    click.option(
        "--parallel",
        default=Alone.name,
        show_default=True,
        help=f"What several ranks do: {either(word for word in STRATEGIES if word != Alone.name)}.",
        shell_complete=completion.strategies,
    ),
    click.option(
        "--bucket-cap-mb",
        type=float,
        metavar="NUMBER",
        help="Of ddp: MiB at which a bucket is closed.  [default: 1 for the first, 25 for the others]",
    ),
    click.option("--static-graph", is_flag=True, help="Of ddp: torch is told that every step has the same graph."),
    click.option(
        "--units",
        default="blocks",
        show_default=True,
        help=f"Of fsdp, what is gathered together: {either(UNITS)}.",
        shell_complete=completion.units,
    ),
    click.option(
        "--reshard-after-forward/--no-reshard-after-forward",
        default=True,
        help="Of fsdp: free a unit's parameters between its forward and its backward pass, or not.  [default: free]",
    ),
    click.option(
        "--replicas",
        type=int,
        default=2,
        show_default=True,
        metavar="N",
        help="Of tensor+ddp and pipeline+ddp: how many copies of the divided model there are.",
    ),
    click.option(
        "--param-dtype",
        help=f"Of fsdp: gather parameters and run layers in {either(MIXED_DTYPES)}.  [default: as --dtype]",
        shell_complete=completion.mixed_dtypes,
    ),
    click.option(
        "--reduce-dtype",
        help=f"Of fsdp: add gradients up in {either(MIXED_DTYPES)}.  [default: as --param-dtype]",
        shell_complete=completion.mixed_dtypes,
    ),
    names_option(
        "--cut",
        "Of pipeline: blocks or layers with which each stage but the first begins, such as block3,fc1.",
        completion.parts,
        default=(AUTO,),
    ),
    click.option(
        "--microbatches",
        type=int,
        metavar="N",
        help="Of pipeline: parts of a batch.  [default: as many as stages, or the next number that divides it]",
    ),
    click.option(
        "--schedule",
        default=next(iter(SCHEDULES)),
        show_default=True,
        help=f"Of pipeline, the order of microbatches: {either(SCHEDULES)}.",
        shell_complete=completion.schedules,
    ),
    click.option(
        "--balance",
        default=BALANCES[0],
        show_default=True,
        help=f"Of pipeline with --cut auto, what the largest stage has the least of: {either(BALANCES)}.",
        shell_complete=completion.balances,
    ),
)
"""Several ranks: the fields of `vggkit.footprint.ranks.Group`, except which rank it is."""


step_figure_options = stacked(
    batch_option,
    step_options,
    allocator_option,
    group_options,
    rank_option("Give the memory of this rank, counted from 0.  [default: the fullest one's]"),
)
"""The options that figures of a training step depend on, on the CPU or a card."""


NAMED_PARTS = {
    "freeze": "block1,block2",
    "checkpoint": "block1,block2",
    "taps": "relu1_2,relu2_2",
    "cut": "block3,fc1",
}
"""Options of a step that take names, and what would be right."""


def step_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's options as keywords, with each name of those that take several."""
    return {
        word: split(given, f"--{word}", NAMED_PARTS[word]) if word in NAMED_PARTS else given
        for word, given in options.items()
    }


def format_of(format: str | None, output: Path | None, formats: Formats = TABLE_FORMATS) -> str:
    """Return the format that --format or a file's ending asks for.

    Args:
        format: what --format says.
        output: what --output says.
        formats: those that the command writes; the first is for standard output and names without an ending.

    Raises:
        ArgumentError: if the command does not write what the ending asks for.
    """
    if format is not None:
        return format
    if output is None or not output.suffix:
        return next(iter(formats))
    for word, endings in formats.items():
        if output.suffix.lower() in endings:
            return word
    every = [ending for endings in formats.values() for ending in endings]
    raise wrong_ending("--output", output, every, ", or --format" if len(formats) > 1 else "")


def wrong_ending(option: str, path: Path, endings: Sequence[str], instead: str = "") -> ArgumentError:
    """Return the error of a file that ends in something that a command does not write."""
    return ArgumentError(
        f"{option}: expected a file that ends in {either(endings)}{instead}, found {shorten(str(path))}"
    )


def overrides(settings: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Turn `--set key=value` and options such as --input into overrides. If both set the same one, the option wins."""
    from vggkit.notation.document import setting
    from vggkit.notation.overrides import check_override

    try:
        changes = dict(map(setting, settings))
    except ArgumentError as error:
        raise ArgumentError(f"--set: {error}") from None
    for word in changes:
        check_override(word)
    changes.update({key: value for key, value in options.items() if value is not None})
    return changes


def split(names: tuple[str, ...], option: str, example: str) -> tuple[str, ...]:
    """Return the names of a repeatable option, each of which may hold several.

    Args:
        names: what was given; nothing if the option was not.
        option: its name, for the message.
        example: what would be right, for the message.

    Raises:
        ArgumentError: if it was given and names nothing.
    """
    found = tuple(name.strip() for text in names for name in text.split(",") if name.strip())
    if names and not found:
        raise ArgumentError(f"{option}: expected names, such as {example}, found none")
    return found


def write_table(table: Table, format: str, output: Path | None) -> None:
    """Print a table, or write it to a file, in one of `vggkit.base.tables.FORMATS`."""
    if format == "table" and output is None:
        tables.show(table)
    else:
        write(tables.FORMATS[format].write(table), output)


def write(content: Any, output: Path | None) -> None:
    """Print text or a rich renderable, or write it to a file."""
    if output is None:
        if isinstance(content, str):
            write_lines(sys.stdout, content)
        else:
            tables.show(content)
        return
    write_text(output, content if isinstance(content, str) else tables.text(content))


def write_yaml(text: str, output: Path | None) -> None:
    """Print a configuration, or write it to a file; a terminal gets it in colours."""
    if output is None and sys.stdout.isatty():
        from rich.syntax import Syntax

        write(Syntax(text.rstrip("\n"), "yaml", background_color="default", word_wrap=True), None)
    else:
        write(text, output)


def put(content: bytes, path: Path, done: str) -> None:
    """Write a file and say so, or print it."""
    if path == STANDARD_OUTPUT:
        click.echo(content, nl=False)
        return
    write_bytes(path, content)
    click.echo(f"{escaped(str(path))} {done}", err=True)


def with_bar(results: Any, total: int, doing: str = "classifying") -> Any:
    """Pass results on, with a progress bar on stderr if that is a terminal and there is something to wait for."""
    if total < 2 or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, doing, total, console=Console(stderr=True), transient=True)

"""The command line: arguments → one call → one renderer. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from vggkit import __version__, completion
from vggkit.errors import ArgumentError, ConfigError, VggkitError, escaped, nearest, shorten
from vggkit.files import opened, write_bytes, write_lines, write_text
from vggkit.render import terminal

FORMATS = ("table", "keras", "cs231n", "json", "csv", "markdown", "latex")
LIST_FORMATS = ("table", "json", "csv", "markdown")
SUFFIXES = {".txt": "table", ".json": "json", ".csv": "csv", ".md": "markdown", ".tex": "latex"}
"""The format that a file's ending asks for; a name without an ending asks for a table."""
HTML = {".html": "html", ".htm": "html"}


class _Command(click.Command):
    """Describes itself in a whole sentence, and suggests what an option of another tool is called here."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the whole sentence: click would cut it at the limit."""
        return super().get_short_help_str(sys.maxsize)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            # without their dashes, which would make any two alike
            names = [word.removeprefix("--") for param in self.params for word in param.opts if word.startswith("--")]
            near = nearest(error.option_name.removeprefix("--"), names)
            advice = f" Did you mean '--{near}'?" if near else ""
            raise click.NoSuchOption(
                error.option_name, f"No such option {shorten(error.option_name)}.{advice}", ctx=ctx
            ) from None


class _Group(click.Group):
    """Ends every error that vggkit raises in clear lines on stderr and an exit code, never in a traceback."""

    command_class = _Command

    def main(self, *args: Any, **extra: Any) -> Any:
        with _ended_by_signals():
            try:
                return super().main(*args, **extra)
            except OSError as error:  # every file's is an error of vggkit by now
                if error.errno is None or error.filename is not None:
                    raise
                _give_up(error)

    def invoke(self, ctx: click.Context) -> Any:
        logger, notes = logging.getLogger("vggkit"), _Notes()
        logger.addHandler(notes)
        try:
            return super().invoke(ctx)
        except VggkitError as error:
            report(error)
            ctx.exit(error.exit_code)
        finally:
            logger.removeHandler(notes)


class _Notes(logging.Handler):
    """Prints what is logged as a warning to stderr: what was assumed about a checkpoint, or changed in it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{click.style('Note:', fg='yellow')} {escaped(record.getMessage())}", err=True)


def _give_up(error: OSError) -> NoReturn:
    """End because nothing can be printed; what could not go out must not be tried again as Python ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    try:
        report(VggkitError(f"standard output: can't be written: {error.strerror}"))
    except OSError:  # nor can this
        os.dup2(nothing, sys.stderr.fileno())
    sys.exit(1)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End on SIGTERM, or when the terminal goes, as after an error: what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():  # no other may say what a signal does
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    unhandled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP
    try:
        for number in unhandled:
            signal.signal(number, _end)
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: object) -> None:  # noqa: ARG001  # Python's
    signal.signal(number, lambda *_: None)  # a second one must not disturb the removal
    sys.exit(128 + number)  # as shells say that a signal has ended a process


def report(error: VggkitError) -> None:
    """Print an error to stderr; a configuration's problems each with the offending line and a caret."""
    if not isinstance(error, ConfigError):
        message = escaped(str(error), keep="\n")
        click.echo(f"{click.style('Error:', fg='red')} {message}", err=True)
        return
    from vggkit.render.problems import lines

    for problem in error.problems:
        message, *excerpt = lines(problem)
        head = "" if problem.position else click.style("Error: ", fg="red")
        click.echo(head + escaped(message), err=True)
        for line in excerpt:
            click.echo(click.style(line, fg="red" if line.strip() == "^" else None, dim=line.strip() != "^"), err=True)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What adds an option or an argument to a command, or several."""

FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
LONGEST_WIDTH = 5
"""Digits of COLUMNS and LINES; what has more is no terminal's."""

STANDARD_OUTPUT = Path("-")
"""What -o takes for standard output."""


def stacked(*decorators: Decorator) -> Decorator:
    """Return options as one decorator, in the order in which --help lists them."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorated


def format_option(formats: Sequence[str]) -> Decorator:
    """Add an option that says in which of some formats the output is written."""
    return click.option(
        "--format", type=click.Choice(formats), help="How it is written.  [default: table, or by FILE's ending]"
    )


def names_option(name: str, help: str, complete: completion.Complete) -> Decorator:
    """Add an option that takes names separated by commas, and may be repeated."""
    return click.option(name, metavar="NAME,…", multiple=True, help=help, shell_complete=complete)


def dtype_option(of: str = "", default: str | None = "float32") -> Decorator:
    """Add an option that says the type of numbers.

    Args:
        of: what it is for, where it is not for everything.
        default: None where it is told whether it was given.
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
input_option = click.option("--input", metavar="CxHxW", help="Shape of one image, as 3x224x224.")
optimizer_option = click.option(
    "--optimizer",
    help="none, sgd, sgd-momentum, adam or adamw.  [default: sgd-momentum, without weight decay]",
    shell_complete=completion.optimizers,
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=completion.settings,
    help="Change the configuration, as num_classes=10 or batch_norm=true; repeatable.",
)
output_option = click.option(
    "-o",
    "--output",
    type=FILE,
    callback=lambda ctx, param, path: None if path == STANDARD_OUTPUT else path,  # noqa: ARG005  # click's
    help="Write to a file instead; - is standard output.",
)
list_format_option = format_option(LIST_FORMATS)

figure_options = stacked(batch_option, input_option, dtype_option(), set_option)
"""What a network's figures are for."""

step_figure_options = stacked(batch_option, input_option, dtype_option(), optimizer_option, set_option)
"""The same, where those of a training step are among them."""

step_options = stacked(
    input_option,
    dtype_option(),
    optimizer_option,
    names_option("--freeze", "Blocks and layers that are not trained, as block1,block2.", completion.parts),
    names_option(
        "--checkpoint", "Blocks that are run again in the backward pass, as block1,block2.", completion.blocks
    ),
    click.option("--autocast", is_flag=True, help="torch.autocast to bfloat16."),
    set_option,
)
"""What a training step is like: the options of `vggkit.memory`."""


def format_of(
    format: str | None, output: Path | None, formats: Sequence[str], suffixes: Mapping[str, str] = SUFFIXES
) -> str:
    """Return the format that is asked for, or that a file's ending asks for.

    Args:
        format: what --format says.
        output: what --output says.
        formats: those that the command writes; the first is for standard output and names without an ending.
        suffixes: the format that each ending asks for.

    Raises:
        ArgumentError: if the command does not write what the ending asks for.
    """
    if format is not None:
        return format
    if output is None or not output.suffix:
        return formats[0]
    endings = {ending: word for ending, word in suffixes.items() if word in formats}
    found = endings.get(output.suffix.lower())
    if found is None:
        raise wrong_ending("--output", output, list(endings), ", or --format" if len(formats) > 1 else "")
    return found


def wrong_ending(option: str, path: Path, endings: Sequence[str], instead: str = "") -> ArgumentError:
    """Return the error of a file that ends in something that a command does not write."""
    *first, last = endings
    expected = f"{', '.join(first)} or {last}" if first else last
    return ArgumentError(f"{option}: expected a file that ends in {expected}{instead}, found {shorten(str(path))}")


def overrides(settings: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Turn `--set key=value` and options of their own into overrides; an option wins."""
    from vggkit.config import check_override
    from vggkit.document import setting

    try:
        changes = dict(map(setting, settings))
    except ArgumentError as error:
        raise ArgumentError(f"--set: {error}") from None
    for word in changes:
        check_override(word)
    changes.update({key: value for key, value in options.items() if value is not None})
    return changes


def write(content: Any, output: Path | None) -> None:
    """Print text or a rich renderable, or write it to a file."""
    from vggkit.render import columns

    if output is None:
        if isinstance(content, str):
            write_lines(sys.stdout, content)
        else:
            columns.show(content)
        return
    write_text(output, content if isinstance(content, str) else columns.text(content))


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
    if sys.stdout is None:
        raise VggkitError("standard output: can't be written: it is closed")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=terminal.ERRORS)  # a terminal that can't show × gets x rather than an error
    for name in ("COLUMNS", "LINES"):
        if len(os.environ.get(name, "")) > LONGEST_WIDTH:  # rich reads any number of digits
            del os.environ[name]


@main.command(epilog="Example: vggkit summarize D --batch 64 --set num_classes=10")
@source_argument
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images.  [default: 1]")
@input_option
@dtype_option()
@set_option
@click.option("--formula", is_flag=True, help="Show how each count comes about, as (3·3·64)·64.")
@click.option("--expand", is_flag=True, help="A row for every torch module, ReLU and dropout too.")
@click.option("--training", is_flag=True, help="Show what each layer keeps for the backward pass, too.")
@format_option(FORMATS)
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
    from vggkit.analysis import summarize as call
    from vggkit.network import Network

    format = format_of(format, output, FORMATS)
    if formula and format not in ("table", "markdown", "latex"):
        raise ArgumentError(f"--formula: expected --format table, markdown or latex with it, found {format}")
    for flag, is_set in (("--expand", expand), ("--training", training)):
        if is_set and format in ("keras", "cs231n"):
            raise ArgumentError(f"{flag}: {format} has the rows and columns that it has; expected another --format")
    network = Network.of(source, **overrides(settings, input=input))
    batch_or_one = 1 if batch is None else batch
    summary = call(network, batch=batch_or_one, dtype=dtype, expand=expand or format == "keras")
    saved = _saved_bytes(network, summary) if training else None
    for note in network.notes():
        click.echo(f"{click.style('Note:', fg='yellow')} {note}", err=True)
    write(_summary_in(format, summary, formula, batch, saved), output)


def _saved_bytes(network: Any, summary: Any) -> Any:
    """Return what the rows of a summary keep for the backward pass."""
    from vggkit.liveness import memory, saved_by_row

    plan = memory(network, batch=summary.batch, dtype=summary.dtype)
    return saved_by_row(plan, [row.name for row in summary])


def _summary_in(format: str, summary: Any, formula: bool, batch: int | None, saved: Any) -> Any:
    from vggkit.render import summary as render

    if format == "keras":
        from vggkit.render import keras

        return keras.listing(summary, batch)
    if format == "cs231n":
        from vggkit.render import cs231n

        return cs231n.listing(summary)
    formats: dict[str, Callable[[], Any]] = {
        "table": lambda: render.table(summary, formula, saved),
        "json": lambda: render.json_text(summary, saved),
        "csv": lambda: render.csv_text(summary, saved),
        "markdown": lambda: render.markdown_text(summary, formula, saved),
        "latex": lambda: render.latex_text(summary, formula, saved),
    }
    return formats[format]()


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


@main.command(epilog="Example: vggkit memory D --batch 64 --optimizer adamw")
@source_argument
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images.  [default: 1]")
@click.option(
    "--mode", default="training", show_default=True, help="training or inference.", shell_complete=completion.modes
)
@step_options
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.", shell_complete=completion.devices)
@click.option("--fit", "limits", multiple=True, metavar="SIZE", help="The largest batch in 24GiB, 80GB, …; repeatable.")
@click.option(
    "--solve", type=click.Choice(("batch", "image")), help="With --fit: the largest batch, or the largest square image."
)
@click.option("--timeline", type=FILE, help="Draw the step to a .svg, .png or .html file.")
@list_format_option
@output_option
def memory(
    source: str,
    batch: int | None,
    mode: str,
    input: str | None,
    settings: tuple[str, ...],
    limits: tuple[str, ...],
    solve: str | None,
    timeline: Path | None,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Say what a step holds, to the byte, and what fits a card."""
    from vggkit import liveness
    from vggkit.network import Network
    from vggkit.render import memory as render

    _check_memory_options(batch, limits, solve, timeline)
    format = format_of(format, output, LIST_FORMATS)
    network = Network.of(source, **overrides(settings, input=input))
    options.update({word: split(options[word], f"--{word}", "block1,block2") for word in ("freeze", "checkpoint")})
    checked = liveness.checked_options(network, batch=1 if batch is None else batch, mode=mode, **options)
    if limits:
        sizes = [parse_limit(limit) for limit in limits]
        if solve == "image":
            fits = [liveness.fit_image(network, checked, size) for size in sizes]
        else:
            fits = [liveness.fit_batch(network, checked, size) for size in sizes]
        heading = render.heading(network.name, network.input_shape, checked, solved=solve or "batch")
        write(render.fits_in_format(heading, fits, format), output)
        click.get_current_context().exit(0 if all(fit.largest for fit in fits) else 1)
    plan = liveness.plan(network, checked)
    if timeline is not None:
        from vggkit.render.timeline import picture

        _put(picture(plan, timeline.suffix.lower().lstrip(".")), timeline, "drawn")
    write(render.in_format(plan, liveness.alternatives(network, checked), format), output)


def parse_limit(text: str) -> int:
    """Read the value of --fit."""
    from vggkit.numbers import parse_bytes

    try:
        return parse_bytes(text)
    except ArgumentError as error:
        raise ArgumentError(f"--fit: {error}") from None


TIMELINE_ENDINGS = (".svg", ".png", ".html")


def _check_memory_options(batch: int | None, limits: tuple[str, ...], solve: str | None, timeline: Path | None) -> None:
    if solve and not limits:
        raise ArgumentError("--solve: expected --fit with it, such as --fit 24GiB")
    if limits and batch is not None and solve != "image":
        raise ArgumentError("--batch: --fit asks for the batch; leave it out, or ask with --solve image")
    if limits and timeline is not None:
        raise ArgumentError("--timeline: expected no --fit with it")
    if timeline is not None and timeline.suffix.lower() not in TIMELINE_ENDINGS:
        raise wrong_ending("--timeline", timeline, TIMELINE_ENDINGS)


@main.command(epilog="Example: vggkit verify D --batch 2 --optimizer adamw")
@source_argument
@batch_option
@step_options
@list_format_option
@output_option
def verify(
    source: str,
    batch: int,
    input: str | None,
    settings: tuple[str, ...],
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Measure on the real model what vggkit claims.

    Where there is a CUDA device, a training step is measured on it as well. Exit 1 if a claim does not hold.
    """
    from vggkit import liveness
    from vggkit.network import Network
    from vggkit.render import memory as render_memory
    from vggkit.render import verification as render

    format = format_of(format, output, LIST_FORMATS)
    network = Network.of(source, **overrides(settings, input=input))
    options.update({word: split(options[word], f"--{word}", "block1,block2") for word in ("freeze", "checkpoint")})
    checked = liveness.checked_options(network, batch=batch, mode="training", device="cpu", **options)
    from vggkit.verification import verify as call  # torch

    claims = list(call(network, checked))
    heading = render_memory.heading(network.name, network.input_shape, checked)
    write(render.in_format(heading, claims, format), output)
    click.get_current_context().exit(0 if all(claim.holds for claim in claims) else 1)


EXPLAIN_FORMATS = ("table", "json", "markdown", "latex")


@main.command(epilog="Example: vggkit explain D conv3_1")
@source_argument
@click.argument("layer", required=False, metavar="[LAYER]", shell_complete=completion.layers)
@figure_options
@format_option(EXPLAIN_FORMATS)
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
    """Show how a layer's figures come about, with the numbers put in.

    LAYER is a name here (block3_conv1), in Caffe (conv3_1) or in torchvision (features.10). Without one, the totals.
    """
    from vggkit.explanation import explain as call
    from vggkit.network import Network
    from vggkit.render import explanation as render

    format = format_of(format, output, EXPLAIN_FORMATS)
    explanation = call(Network.of(source, **overrides(settings, input=input)), layer, batch=batch, dtype=dtype)
    formats: dict[str, Callable[[], Any]] = {
        "table": lambda: render.table(explanation),
        "json": lambda: render.json_text(explanation),
        "markdown": lambda: render.markdown_text(explanation),
        "latex": lambda: render.latex_text(explanation),
    }
    write(formats[format](), output)


RECONCILE_FORMATS = ("table", "json", "markdown")


@main.command(epilog="Example: vggkit reconcile D 15.48G")
@source_argument
@click.argument("number", nargs=-1, required=True, metavar="NUMBER")
@figure_options
@format_option(RECONCILE_FORMATS)
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
    from vggkit.network import Network
    from vggkit.reconciliation import reconcile as call
    from vggkit.render import reconciliation as render

    format = format_of(format, output, RECONCILE_FORMATS)
    network, text = Network.of(source, **overrides(settings, input=input)), " ".join(number)
    findings = call(network, text, batch=batch, dtype=dtype)
    write(render.in_format(findings.about, text, findings, findings.nearest, format), output)
    click.get_current_context().exit(0 if findings else 1)


COMPARE_FORMATS = ("table", "json", "csv", "markdown", "latex", "html")


@main.command(epilog="Example: vggkit compare A D D:batch_norm=true,width=0.5")
@sources_argument
@step_figure_options
@click.option(
    "--sort",
    metavar="FIGURE",
    help="Sort the columns, as macs; -macs is from the largest.",
    shell_complete=completion.compared,
)
@names_option("--only", "Figures to show, as parameters,macs,top5; layers for the layers.", completion.compared)
@click.option("--diff", is_flag=True, help="What the second of two adds, removes and changes, and what that costs.")
@format_option(COMPARE_FORMATS)
@output_option
def compare(
    sources: tuple[str, ...],
    batch: int,
    input: str | None,
    dtype: str,
    optimizer: str | None,
    settings: tuple[str, ...],
    sort: str | None,
    only: tuple[str, ...],
    diff: bool,
    format: str | None,
    output: Path | None,
) -> None:
    """Set networks side by side, as the paper's Table 1 does, and their figures.

    Behind a name or path may stand changes, as for --set: D:batch_norm=true,width=0.5. Without a CONFIGURATION, the
    paper's six are compared.
    """
    from vggkit.comparison import compare as call
    from vggkit.comparison import figure_name
    from vggkit.render import comparison as render

    if diff and (sort or only):
        raise ArgumentError(f"{'--sort' if sort else '--only'}: expected no --diff with it")
    if diff and len(sources) != 2:
        raise ArgumentError(f"--diff: expected two configurations, found {len(sources)}")
    format = format_of(format, output, COMPARE_FORMATS, {**SUFFIXES, **HTML})
    chosen = [figure_name(word, "--only", others=(render.LAYERS,)) for word in split(only, "--only", "macs")]
    if sort is not None:
        figure_name(sort.removeprefix("-"), "--sort")
    made = call(*sources, batch=batch, dtype=dtype, optimizer=optimizer, sort=sort, **overrides(settings, input=input))
    if diff:
        write(render.diff_in_format(made.diff(), format), output)
    else:
        write(render.in_format(made, format, chosen or render.EVERYTHING), output)


CONDITIONS: dict[str, tuple[str | None, str]] = {
    "weight_layers": ("depth", "As 16, >11 or 11..16."),
    "parameters": ("params", "As <15M, >=1M or 1M..15M; as often as you like, and so are all of these."),
    "weights": (None, "The same of weights."),
    "biases": (None, "… of biases."),
    "conv_parameters": (None, "… of the parameters of convolutions."),
    "fc_parameters": (None, "… of the parameters of FC layers."),
    "multiply_accumulates": ("macs", "… of multiply-accumulates."),
    "receptive_field": ("field", "… of its shorter side, in pixels."),
    "activation_bytes": ("activations", "As <24GiB or 1GB..2GB."),
    "inference_peak_bytes": ("inference_peak", "The same of the peak of a forward pass."),
    "training_peak_bytes": ("training_peak", "… of the peak of a training step."),
    "saved_for_backward_bytes": ("saved", "… of what is kept for the backward pass."),
}
"""The figures that `find` filters by, the short names of some, and what is said of them."""


def condition_option(name: str, short: str | None, help: str) -> Decorator:
    """Add an option for a figure that a search can filter by."""
    words = [f"--{word.replace('_', '-')}" for word in (name, short) if word]
    return click.option(*words, name, multiple=True, metavar="CONDITION", help=help)


condition_options = stacked(*(condition_option(name, *said) for name, said in CONDITIONS.items()))


@main.command(epilog="Example: vggkit find --input 3x32x32 --parameters 1M..15M --sort macs")
@sources_argument
@click.option(
    "--vary", multiple=True, metavar="KEY=VALUE,…", shell_complete=completion.settings,
    help="Try each value, as width=0.25,0.5,1 or batch_norm=true,false; repeated, every combination.",
)  # fmt: skip
@condition_options
@names_option("--only", "Figures to show, as parameters,macs,training_peak.", completion.figures)
@click.option(
    "--sort",
    metavar="FIGURE",
    help="What comes first, as macs; -macs is from the largest.",
    shell_complete=completion.figures,
)
@click.option("--limit", type=int, metavar="N", help="Keep the first N.")
@click.option(
    "--pareto",
    metavar="FIGURE,FIGURE",
    help="The figures of the Pareto front.  [default: parameters,macs]",
    shell_complete=completion.figures,
)
@step_figure_options
@list_format_option
@output_option
def find(
    sources: tuple[str, ...],
    vary: tuple[str, ...],
    only: tuple[str, ...],
    sort: str | None,
    limit: int | None,
    pareto: str | None,
    batch: int,
    input: str | None,
    dtype: str,
    optimizer: str | None,
    settings: tuple[str, ...],
    format: str | None,
    output: Path | None,
    **conditions: tuple[str, ...],
) -> None:
    """Search for networks that meet conditions: in the zoo, or among variants.

    Without a CONFIGURATION, the paper's six and the family are searched. The variants are every combination of the
    values of --vary. An -o file that ends in .svg, .png or .pdf gets a picture. CSV is written while the search goes
    on, unless --sort, --limit or --pareto needs all of it first; only then it says what is on the Pareto front.
    """
    from vggkit import search
    from vggkit.drawing import FORMATS as PICTURES
    from vggkit.render import search as render

    suffixes = {".csv": "csv", **SUFFIXES, **{f".{word}": word for word in PICTURES}}
    format = format_of(format, output, (*LIST_FORMATS, *PICTURES), suffixes)
    shown = split(only, "--only", "parameters,macs")
    front = None if pareto is None else split((pareto,), "--pareto", "parameters,macs")
    for word in shown:
        search.figure_name(word, "--only")
    if sort is not None:
        search.direction(sort, "--sort")
    query = search.prepared(
        sources, overrides(settings, input=input), vary=_varied(vary), where=conditions, figures=shown, sort=sort,
        limit=limit, pareto=front, batch=batch, dtype=dtype, optimizer=optimizer,
    )  # fmt: skip
    with closing(search.chunks(query, search.cores())) as chunks:
        parts = _with_bar(chunks, -(-query.total // search.CHUNK), "searching")
        if format == "csv" and sort is None and limit is None and pareto is None:
            count, reason = _write_parts(query, parts, output)
        else:
            found = search.collected(query, parts)
            count, reason = found.left_out, found.reason
            if format in PICTURES and output is not None:
                _put(found.plot().to_bytes(format), output, "drawn")
            else:
                write(render.in_format(found, format), output)
    if count:
        click.echo(render.left_out(count, query, reason), err=True)


def _varied(settings: tuple[str, ...]) -> dict[str, list[Any]]:
    """Turn `--vary key=value,value` into values by key."""
    from vggkit.document import setting, split_outside

    varied: dict[str, list[Any]] = {}
    for text in settings:
        key, _, values = text.partition("=")
        if key.strip() in varied:
            raise ArgumentError(
                f"--vary: {key.strip()} is given twice; expected all of its values at once, as {key.strip()}=…,…"
            )
        try:
            varied[key.strip()] = [setting(f"{key}={value}")[1] for value in split_outside(values, ",")]
        except ArgumentError as error:
            raise ArgumentError(f"--vary: {error}") from None
    return varied


def _write_parts(query: Any, parts: Any, output: Path | None) -> tuple[int, str | None]:
    """Write CSV while a search goes on; return how many variants were left out, and why the first of them."""
    from vggkit.render import search as render

    left_out, reason = 0, None
    with _opened(output) as put:
        put(render.csv_header(query))
        for part in parts:
            put(render.csv_lines(query, part))
            left_out += part.left_out
            reason = reason or part.reason
    return left_out, reason


@contextmanager
def _opened(output: Path | None) -> Iterator[Callable[[str], Any]]:
    """Give a function that prints text, or that writes it to a file, which is there when all is written."""
    if output is None:
        yield partial(write_lines, sys.stdout)
        return
    with opened(output) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield partial(write_lines, text)
        text.detach()


@main.command(epilog="Example: vggkit plot D --kind cost -o D.svg")
@sources_argument
@click.option(
    "--kind",
    default="architecture",
    show_default=True,
    help="architecture, cost, compare or receptive.",
    shell_complete=completion.pictures,
)
@click.option("--flat", is_flag=True, help="The architecture block by block, a box for each layer.")
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images, for cost and compare.")
@input_option
@dtype_option(", for cost and compare", default=None)
@set_option
@click.option(
    "-o", "--output", type=FILE,
    help="A .svg, .png or .pdf file; - prints SVG.  [default: named after what is drawn, as D-cost.svg]",
)  # fmt: skip
def plot(
    sources: tuple[str, ...],
    kind: str,
    flat: bool,
    batch: int | None,
    input: str | None,
    dtype: str | None,
    settings: tuple[str, ...],
    output: Path | None,
) -> None:
    """Draw networks: what they look like and cost, and how they compare.

    One CONFIGURATION; for --kind compare any number, with changes as in D:width=0.5, or none for all six. A file is
    written, and no window opens.
    """
    from vggkit.drawing import format_of as picture_format
    from vggkit.drawing import plot as call

    try:
        format = picture_format(output) if output not in (None, STANDARD_OUTPUT) else "svg"
    except ArgumentError as error:
        raise ArgumentError(f"--output: {error}") from None
    picture = call(*sources, kind=kind, flat=flat, batch=batch, dtype=dtype, **overrides(settings, input=input))
    _put(picture.to_bytes(format), output or Path(f"{picture.name}.svg"), "drawn")


def _put(content: bytes, path: Path, done: str) -> None:
    """Write a file and say so, or print it."""
    if path == STANDARD_OUTPUT:
        click.echo(content, nl=False)
        return
    write_bytes(path, content)
    click.echo(f"{escaped(str(path))} {done}", err=True)


@main.command("report", epilog="Example: vggkit report D E -o report.html")
@click.argument(
    "sources", nargs=-1, required=True, metavar="CONFIGURATION...", shell_complete=completion.configurations
)
@click.option("--batch", type=int, default=1, show_default=True, metavar="N", help="Number of images, at first.")
@input_option
@dtype_option(", at first")
@set_option
@click.option(
    "-o", "--output", type=FILE,
    help="A .html file; - prints it.  [default: named after the networks, as D-report.html]",
)  # fmt: skip
def report_command(
    sources: tuple[str, ...],
    batch: int,
    input: str | None,
    dtype: str,
    settings: tuple[str, ...],
    output: Path | None,
) -> None:
    """Write a page of networks: tables, pictures, notation, and memory for any batch, dtype and step.

    The page needs no other file and no network. Behind a name or path may stand changes, as in D:width=0.5.
    """
    from vggkit.reporting import report as call

    if output not in (None, STANDARD_OUTPUT):
        format_of(None, output, ("html",), HTML)
    made = call(*sources, batch=batch, dtype=dtype, **overrides(settings, input=input))
    _put(made.to_html().encode(), output or Path(made.file_name), "written")


@main.command("list", epilog="Example: vggkit list --family")
@click.option("--family", is_flag=True, help="The networks that research code made of the paper's, instead.")
@list_format_option
@output_option
def list_command(family: bool, format: str | None, output: Path | None) -> None:
    """List the configurations that come with vggkit: the paper's, or the whole family."""
    from vggkit.analysis import summarize as call
    from vggkit.render import listing
    from vggkit.zoo import family_names, names

    format = format_of(format, output, LIST_FORMATS)
    summaries = [call(name) for name in (family_names() if family else names())]
    rows, data = (
        (listing.family_grid(summaries), listing.family_dicts(summaries))
        if family
        else (listing.zoo_grid(summaries), listing.zoo_dicts(summaries))
    )
    write(listing.in_format(rows, data, format), output)


@main.command(epilog="Example: vggkit names D")
@source_argument
@set_option
@list_format_option
@output_option
def names(source: str, settings: tuple[str, ...], format: str | None, output: Path | None) -> None:
    """Show each layer's name here, in Caffe, torchvision and Keras."""
    from vggkit.naming import all_names
    from vggkit.network import Network
    from vggkit.render import listing

    format = format_of(format, output, LIST_FORMATS)
    every = all_names(Network.of(source, **overrides(settings)))
    write(listing.in_format(listing.names_grid(every), listing.names_dicts(every), format), output)


@main.command(epilog="Example: vggkit show vgg16_bn > my.yaml")
@source_argument
@input_option
@set_option
@output_option
def show(source: str, input: str | None, settings: tuple[str, ...], output: Path | None) -> None:
    """Print a configuration as YAML, everything resolved.

    What --set and --input change is a variant: its name and its source say so.
    """
    from vggkit.zoo import dump, load, variant

    format_of(None, output, ("yaml",), {".yaml": "yaml", ".yml": "yaml"})
    changed = load(source, **overrides(settings, input=input))
    if changed != load(source):
        changed = variant(changed, [*settings, *([f"input={input}"] if input else [])])
    text = dump(changed)
    if output is None and sys.stdout.isatty():
        from rich.syntax import Syntax

        write(Syntax(text.rstrip("\n"), "yaml", background_color="default", word_wrap=True), None)
    else:
        write(text, output)


@main.command(epilog="Example: vggkit validate my.yaml")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=completion.configurations)
def validate(files: tuple[str, ...]) -> None:
    """Check configuration files, their shapes and budgets.

    Exit 2 if one is wrong, 1 if one is over its budget.
    """
    click.get_current_context().exit(max(map(_validate, files)))


def _validate(file: str) -> int:
    """Check one file and say so; return its exit code."""
    from vggkit.analysis import summarize as call
    from vggkit.liveness import overruns
    from vggkit.network import Network
    from vggkit.numbers import grouped
    from vggkit.render.problems import overrun_line

    try:
        network = Network.of(file)
        over = overruns(network)
    except VggkitError as error:
        report(error)
        return error.exit_code
    for overrun in over:
        click.echo(f"{file}: {overrun_line(overrun)}", err=True)
    if not over:
        totals = call(network).totals
        click.echo(f"{file}: ok, {totals.weight_layers} weight layers, {grouped(totals.parameters)} parameters")
    return 1 if over else 0


@main.command(epilog="Example: vggkit schema -o schema.json")
@output_option
def schema(output: Path | None) -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from vggkit.json_schema import schema as call
    from vggkit.render import columns

    format_of(None, output, ("json",))
    write(columns.json(call()), output)


CLASSIFY_FORMATS = ("table", "json", "csv")


@main.command(epilog="Example: vggkit inspect model.safetensors")
@click.argument("file", metavar="FILE", type=click.Path(path_type=str))
@config_option("Hold it against this configuration instead of telling which.")
@click.option("--tensors", is_flag=True, help="List each tensor, and the parameter that it becomes.")
@list_format_option
@output_option
def inspect(file: str, config: str | None, tensors: bool, format: str | None, output: Path | None) -> None:
    """Say what a checkpoint is: layout, configuration, parameters, bytes.

    FILE is one of torchvision, timm, Keras or vggkit; its values are not read where the format allows, and nothing in
    it is executed. Exit 1 if a checkpoint does not fit the configuration of --config.
    """
    from vggkit.render import checkpoint as render
    from vggkit.weights.inspection import inspect as call

    format = format_of(format, output, LIST_FORMATS)
    inspection = call(file, config)
    write(render.in_format(inspection, format, tensors), output)
    click.get_current_context().exit(1 if config is not None and inspection.notes else 0)


@main.command(epilog="Example: vggkit convert model.safetensors model.h5")
@click.argument("source", metavar="IN", type=click.Path(path_type=str))
@click.argument("target", metavar="OUT", type=click.Path(path_type=str))
@click.option("--layout", help="torchvision, timm, keras, keras3 or vggkit.  [default: by OUT's ending]")
@config_option("Which configuration it is, where its shapes don't tell.")
def convert(source: str, target: str, layout: str | None, config: str | None) -> None:
    """Write a checkpoint in the layout of torchvision, timm, Keras or vggkit.

    OUT's ending says the format: .pth is PyTorch's (torchvision's layout), .safetensors vggkit's layout, .h5 Keras's
    legacy one, .weights.h5 Keras 3's. Nothing is lost, and converting back gives the same tensors.
    """
    from vggkit.weights.conversion import convert as call

    network = call(source, target, layout=layout, config=config)
    click.echo(f"{escaped(target)}: {network.name} written", err=True)


@main.command(epilog="Example: vggkit classify tiger.png --weights model.safetensors")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=str))
@click.option("--weights", required=True, metavar="SOURCE", help="A checkpoint, or imagenet.")
@config_option("The configuration.  [default: told from the checkpoint]")
@click.option("--labels", type=click.Path(path_type=str), metavar="FILE", help="Names of the classes: lines or JSON.")
@click.option("--preprocess", metavar="WORDS", help="torch, timm, keras or options as {resize: 256, crop: 224}.")
@click.option("--top", type=int, default=5, show_default=True, metavar="N", help="How many classes for each picture.")
@click.option("--batch", type=int, default=16, show_default=True, metavar="N", help="How many pictures at once.")
@click.option("--dense", is_flag=True, help="Look at whole pictures and average the scores, as the paper does.")
@click.option("--device", help="cpu, cuda, cuda:1, …  [default: torch's]", shell_complete=completion.devices)
@click.option(
    "--plot",
    is_flag=True,
    help="Draw each picture with its classes to NAME_pred.png beside it; where NAME.jpg stands beside NAME.png, to"
    " NAME.jpg_pred.png and NAME.png_pred.png.",
)
@click.option("--verbose", is_flag=True, help="Say how pictures are prepared, and what was loaded.")
@click.option("--format", type=click.Choice(CLASSIFY_FORMATS), help="How it is written.  [default: table, or by FILE]")
@output_option
def classify(
    images: tuple[str, ...],
    weights: str,
    config: str | None,
    labels: str | None,
    preprocess: str | None,
    top: int,
    batch: int,
    dense: bool,
    device: str | None,
    plot: bool,
    verbose: bool,
    format: str | None,
    output: Path | None,
) -> None:
    """Name what is in pictures: files, folders and patterns.

    Pictures are prepared as the weights were trained. One that can't be read is reported and left out; then the exit
    code is 1. Of a folder every picture is taken, but not what --plot drew there.
    """
    from vggkit.preprocessing import PictureError, drawings, pictures
    from vggkit.render import predictions as render

    format = format_of(format, output, CLASSIFY_FORMATS)
    if output is not None and not output.parent.is_dir():
        raise ArgumentError(f"--output: {output.parent}: no such folder")
    found = pictures(images)
    there = [path for path in found if _is_there(path)]
    results, errors = [], len(found) - len(there)
    if there:
        from vggkit.classifier import Classifier  # torch

        options = {"labels": labels, "preprocess": _plain(preprocess), "dense": dense, "device": device}
        classifier = Classifier(config, weights=weights, **options)
        if verbose:
            click.echo(f"network: {classifier.network.name}\nlayout: {classifier.report.layout}", err=True)
            click.echo(escaped(str(classifier.report), keep="\n"), err=True)
            click.echo(f"preprocess ({classifier.preprocess_origin}): {_spelt(classifier.preprocess)}", err=True)
        stream = _with_bar(classifier.stream(there, top=top, batch=batch), len(there))
        for result, target in zip(stream, drawings(there)):
            try:
                if isinstance(result, PictureError):
                    raise result
                results.append(result)
                if plot:
                    write_bytes(target, render.picture(result.image, result))
            except VggkitError as error:
                report(error)
                errors += 1
    formats: dict[str, Callable[[], Any]] = {
        "table": lambda: render.table(results),
        "json": lambda: render.json_text(results),
        "csv": lambda: render.csv_text(results),
    }
    if results or format != "table":
        write(formats[format](), output)
    click.get_current_context().exit(1 if errors else 0)


def _is_there(path: Path) -> bool:
    """Tell whether a picture is there, and report it if not: nobody waits for weights in vain."""
    from vggkit.preprocessing import PictureError, check_there

    try:
        check_there(path)
    except PictureError as error:
        report(error)
        return False
    return True


def _plain(text: str | None) -> Any:
    """Read the value of --preprocess: a word, or options in YAML's flow style."""
    if text is None or not text.lstrip().startswith("{"):
        return text
    from vggkit.document import read

    problems: list[Any] = []
    value = read(text, "--preprocess", problems).plain()
    if problems:
        raise ConfigError(problems)
    return value


def _spelt(preprocess: Any) -> str:
    from vggkit.preprocessing import spell_preprocess

    return "{" + ", ".join(f"{word}: {value}" for word, value in spell_preprocess(preprocess).items()) + "}"


def _with_bar(results: Any, total: int, doing: str = "classifying") -> Any:
    """Pass results on, with a progress bar on stderr if that is a terminal and there is something to wait for."""
    if total < 2 or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, doing, total, console=Console(stderr=True), transient=True)

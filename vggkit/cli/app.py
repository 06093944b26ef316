"""The command line: arguments → one call → one renderer. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from vggkit.base import terminal
from vggkit.base.errors import VggkitError, escaped, nearest, shorten
from vggkit.base.version import __version__
from vggkit.cli.problems import print_error


class _Command(click.Command):
    """A command. Its short help is a whole sentence, and an unknown option gets a suggestion."""

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
    """The group of commands. It prints every error of vggkit in clear lines on stderr, never as a traceback."""

    command_class = _Command

    def main(self, *args: Any, **extra: Any) -> Any:
        with _ended_by_signals():
            try:
                return super().main(*args, **extra)
            except OSError as error:  # errors of files are vggkit's own by now: this one is standard output's
                if error.errno is None or error.filename is not None:
                    raise
                _give_up(error)

    def invoke(self, ctx: click.Context) -> Any:
        logger, notes = logging.getLogger("vggkit"), _Notes()
        logger.addHandler(notes)
        try:
            return super().invoke(ctx)
        except VggkitError as error:
            print_error(error)
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
    """Exit because nothing can be printed. Python would try to print the rest as it ends, hence the null device."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    try:
        print_error(VggkitError(f"standard output: can't be written: {error.strerror}"))
    except OSError:  # nor can this
        os.dup2(nothing, sys.stderr.fileno())
    sys.exit(1)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End on SIGTERM, or when the terminal goes, as after an error: what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set what a signal does
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


LONGEST_WIDTH = 5
"""Most digits of COLUMNS and LINES; no terminal is larger."""


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: vggkit summarize D",
)
@click.version_option(__version__, prog_name="vggkit", message="%(prog)s %(version)s")
def main() -> None:
    """Describe a VGG network in the paper's own notation, and know exactly what it costs before you run it.

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

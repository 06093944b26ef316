"""The command of searches: find."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggkit.base.errors import ArgumentError
from vggkit.base.files import opened, write_lines
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import (
    TABLE_FORMATS,
    Decorator,
    format_of,
    format_option,
    names_option,
    output_option,
    overrides,
    put,
    sources_argument,
    split,
    stacked,
    step_arguments,
    step_figure_options,
    with_bar,
    write_table,
)
from vggkit.figures.measures import FOUND, Measure, direction, figure_name

if TYPE_CHECKING:
    from vggkit.search.chunks import Chunk
    from vggkit.search.query import Query


def condition_option(measure: Measure) -> Decorator:
    """Add an option for conditions of a figure."""
    words = [f"--{word.replace('_', '-')}" for word in (measure.name, measure.short) if word]
    time = f" Takes {measure.time_alone} per variant." if measure.time_alone else ""
    return click.option(*words, measure.name, multiple=True, metavar="CONDITION", help=f"{measure.condition}{time}")


condition_options = stacked(*map(condition_option, FOUND.values()))


@main.command(epilog="Example: vggkit find --input 3x32x32 --parameters 1M..15M --sort macs")
@sources_argument
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY=VALUE,…",
    shell_complete=completion.settings,
    help="Try each value, such as width=0.25,0.5,1 or batch_norm=true,false; if repeated, every combination.",
)
@condition_options
@names_option("--only", "Figures to show, such as parameters,macs,training_peak.", completion.figures)
@click.option(
    "--sort",
    metavar="FIGURE",
    help="Sort by this figure, such as macs; -macs sorts from the largest.",
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
@format_option()
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
    settings: tuple[str, ...],
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Search for networks that meet conditions: in the zoo, or among variants.

    Without a CONFIGURATION, the paper's six and the family are searched. The variants are every combination of the
    values of --vary. An -o file that ends in .svg, .png or .pdf gets a picture. CSV is written while the search goes
    on. With --sort, --limit or --pareto it is written at the end, and it also says what is on the Pareto front.
    """
    from vggkit.pictures.style import PICTURE_FORMATS
    from vggkit.search.chunks import chunks, cores, starts
    from vggkit.search.find import left_out, time_note
    from vggkit.search.query import prepared

    format = format_of(format, output, {**TABLE_FORMATS, **{word: (f".{word}",) for word in PICTURE_FORMATS}})
    figures = split(only, "--only", "parameters,macs")
    for word in figures:
        figure_name(word, "--only", FOUND)
    if sort is not None:
        direction(sort, "--sort", FOUND)
    conditions = {figure: options.pop(figure) for figure in FOUND}
    query = prepared(
        sources,
        overrides(settings, input=input),
        vary=_varied(vary),
        where=conditions,
        figures=figures,
        sort=sort,
        limit=limit,
        pareto=None if pareto is None else split((pareto,), "--pareto", "parameters,macs"),
        batch=batch,
        dtype=dtype,
        training=step_arguments(options),
    )
    if note := time_note(query):
        click.echo(f"{click.style('Note:', fg='yellow')} {note}", err=True)
    needs_all = format != "csv" or (sort, limit, pareto) != (None, None, None)
    with closing(chunks(query, cores())) as made:
        parts = with_bar(made, len(starts(query)), "searching")
        count, reason = _collect(query, parts, format, output) if needs_all else _stream(query, parts, output)
    if count:
        click.echo(left_out(count, query.total, reason), err=True)


def _varied(settings: tuple[str, ...]) -> dict[str, list[Any]]:
    """Turn `--vary key=value,value` into values by key."""
    from vggkit.notation.document import setting, split_outside

    varied: dict[str, list[Any]] = {}
    for text in settings:
        key, _, values = text.partition("=")
        if key.strip() in varied:
            raise ArgumentError(
                f"--vary: {key.strip()} is given twice; expected all of its values at once, such as {key.strip()}=…,…"
            )
        try:
            varied[key.strip()] = [setting(f"{key}={value}")[1] for value in split_outside(values, ",")]
        except ArgumentError as error:
            raise ArgumentError(f"--vary: {error}") from None
    return varied


def _collect(query: Query, parts: Iterator[Chunk], format: str, output: Path | None) -> tuple[int, str | None]:
    """Write what was found; return how many variants were skipped, and why the first of them was."""
    from vggkit.search.find import collected

    found = collected(query, parts)
    if format in TABLE_FORMATS or output is None:
        write_table(found.table(), format, output)
    else:
        put(found.plot().to_bytes(format), output, "drawn")
    return found.left_out, found.reason


def _stream(query: Query, parts: Iterator[Chunk], output: Path | None) -> tuple[int, str | None]:
    """Write CSV while a search goes on; return the same as `_collect`."""
    from vggkit.search.find import csv_header, csv_lines

    count, reason = 0, None
    with _opened(output) as put_text:
        put_text(csv_header(query))
        for part in parts:
            put_text(csv_lines(query, part))
            count += part.left_out
            reason = reason or part.reason
    return count, reason


@contextmanager
def _opened(output: Path | None) -> Iterator[Callable[[str], Any]]:
    """Give a function that prints text or writes it to a file. The file appears only when all is written."""
    if output is None:
        yield partial(write_lines, sys.stdout)
        return
    with opened(output) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield partial(write_lines, text)
        text.detach()

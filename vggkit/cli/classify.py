"""The command classify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vggkit.base.errors import ArgumentError, ConfigError, VggkitError, escaped
from vggkit.base.files import write_bytes
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import FORMATS, config_option, format_of, format_option, output_option, with_bar, write
from vggkit.cli.problems import report

CLASSIFY_FORMATS = {word: FORMATS[word] for word in ("table", "json", "csv")}


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
@format_option(CLASSIFY_FORMATS)
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
    from vggkit.classify import predictions as render
    from vggkit.notation.preprocess import PictureError, drawings, pictures

    format = format_of(format, output, CLASSIFY_FORMATS)
    if output is not None and not output.parent.is_dir():
        raise ArgumentError(f"--output: {output.parent}: no such folder")
    found = pictures(images)
    there = [path for path in found if _is_there(path)]
    results, errors = [], len(found) - len(there)
    if there:
        from vggkit.classify.classifier import Classifier  # torch

        options = {"labels": labels, "preprocess": _plain(preprocess), "dense": dense, "device": device}
        classifier = Classifier(config, weights=weights, **options)
        if verbose:
            click.echo(f"network: {classifier.network.name}\nlayout: {classifier.report.layout}", err=True)
            click.echo(escaped(str(classifier.report), keep="\n"), err=True)
            click.echo(f"preprocess ({classifier.preprocess_origin}): {_spelt(classifier.preprocess)}", err=True)
        stream = with_bar(classifier.stream(there, top=top, batch=batch), len(there))
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
    from vggkit.notation.preprocess import PictureError, check_there

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
    from vggkit.notation.document import read

    problems: list[Any] = []
    value = read(text, "--preprocess", problems).plain()
    if problems:
        raise ConfigError(problems)
    return value


def _spelt(preprocess: Any) -> str:
    from vggkit.notation.preprocess import spell_preprocess

    return "{" + ", ".join(f"{word}: {value}" for word, value in spell_preprocess(preprocess).items()) + "}"

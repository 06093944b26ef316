"""The command classify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggkit.base.errors import ArgumentError, ConfigError, PictureError, Problem, VggkitError, escaped
from vggkit.base.files import write_bytes
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import config_option, format_of, format_option, output_option, with_bar, write_table
from vggkit.cli.problems import print_error

if TYPE_CHECKING:
    from vggkit.classify.classifier import Classifier


@main.command(epilog="Example: vggkit classify tiger.png --weights model.safetensors")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=str))
@click.option("--weights", required=True, metavar="SOURCE", help="A checkpoint, or imagenet.")
@config_option("The configuration.  [default: recognised from the checkpoint]")
@click.option("--labels", type=click.Path(path_type=str), metavar="FILE", help="Names of the classes: lines or JSON.")
@click.option("--preprocess", metavar="WORDS", help="torch, timm, keras or options such as {resize: 256, crop: 224}.")
@click.option("--top", type=int, default=5, show_default=True, metavar="N", help="Number of classes for each picture.")
@click.option("--batch", type=int, default=16, show_default=True, metavar="N", help="Number of pictures at once.")
@click.option("--dense", is_flag=True, help="Classify whole pictures and average the scores, as in the paper.")
@click.option("--device", help="cpu, cuda, cuda:1, …  [default: torch's]", shell_complete=completion.devices)
@click.option(
    "--plot",
    is_flag=True,
    help="Draw each picture with its classes to NAME_pred.png beside it, or to NAME.jpg_pred.png if there is a NAME.png"
    " as well.",
)
@click.option("--verbose", is_flag=True, help="Say how pictures are prepared, and what was loaded.")
@format_option()
@output_option
def classify(
    images: tuple[str, ...],
    top: int,
    batch: int,
    plot: bool,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Classify pictures: files, folders and patterns.

    Pictures are prepared as the weights need them. A picture that can't be read is reported and skipped, and the exit
    code is 1. A folder means all of its pictures, without the drawings of --plot.
    """
    from vggkit.classify.files import drawing_paths, find_pictures
    from vggkit.classify.predictions import Classified, Predictions

    format = format_of(format, output)
    if output is not None and not output.parent.is_dir():
        raise ArgumentError(f"--output: {output.parent}: no such folder")
    found = find_pictures(images)
    there = [path for path in found if _is_there(path)]
    failed = len(there) < len(found)
    seen: list[Classified] = []
    results = _classifier(**options).stream(there, top=top, batch=batch) if there else ()
    for result, drawing in zip(with_bar(results, len(there), "classifying"), drawing_paths(there)):
        try:
            if isinstance(result, PictureError):
                raise result
            seen.append(result)
            if plot:
                from vggkit.classify.drawing import drawn

                write_bytes(drawing, drawn(result.image, result))
        except VggkitError as error:
            print_error(error)
            failed = True
    if seen or format != "table":
        write_table(Predictions(seen).table(), format, output)
    click.get_current_context().exit(1 if failed else 0)


def _is_there(path: Path) -> bool:
    """Tell whether a picture's file exists, and report it if not, before anybody waits for the weights."""
    from vggkit.classify.pictures import check_there

    try:
        check_there(path)
    except PictureError as error:
        print_error(error)
        return False
    return True


def _classifier(config: str | None, preprocess: str | None, verbose: bool, **options: Any) -> Classifier:
    """Return the classifier that the options describe."""
    from vggkit.classify.classifier import Classifier  # torch
    from vggkit.notation.preprocess import spell_preprocess
    from vggkit.notation.writing import flow

    classifier = Classifier(config, preprocess=_plain(preprocess), **options)
    if verbose:
        click.echo(f"network: {classifier.network.name}\nlayout: {classifier.report.layout}", err=True)
        click.echo(escaped(str(classifier.report), keep="\n"), err=True)
        prepared = flow(spell_preprocess(classifier.preprocess))
        click.echo(f"preprocess ({classifier.preprocess_origin}): {prepared}", err=True)
    return classifier


def _plain(text: str | None) -> Any:
    """Read the value of --preprocess: a word, or options in YAML's flow style."""
    if text is None or not text.lstrip().startswith("{"):
        return text
    from vggkit.notation.document import read

    problems: list[Problem] = []
    value = read(text, "--preprocess", problems).plain()
    if problems:
        raise ConfigError(problems)
    return value

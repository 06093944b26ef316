"""The listing of Keras's `model.summary()`, held against Keras itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

import vggkit
from vggkit.cli import main
from vggkit.figures import keras


def listing(*arguments: str, columns: int = 80) -> str:
    """Return what the command prints at a width."""
    command = ["summarize", *arguments, "--format", "keras"]
    result = CliRunner().invoke(main, command, env={"COLUMNS": str(columns)})
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize(("name", "model"), [("D", "VGG16"), ("E", "VGG19")])
def test_the_listing_is_keras_own_line_by_line(name: str, model: str, columns: int, keras_says: dict[str, Any]) -> None:
    """Names, types, shapes with None, counts, boxes, the three totals: each line is what keras.applications prints."""
    ours = listing(name, columns=columns).splitlines()
    wanted = keras_says[f"{model} {columns}"].splitlines()
    assert len(wanted) > 50
    for line, keras_line in zip(ours, wanted):
        assert line.rstrip() == keras_line.rstrip()
    assert len(ours) == len([*filter(None, wanted)])


def test_the_listing_of_d_stands_as_a_golden_file(golden: Callable[[str, str], None]) -> None:
    """At Keras's own 88 columns."""
    golden("keras-D.txt", listing("D", columns=140))


def test_batch_norms_counts_follow_keras(keras_says: dict[str, Any]) -> None:
    """Keras counts a batch norm's running mean and variance as parameters that are not trained."""
    config = vggkit.loads(
        "name: small\ninput: 3x32x32\nblocks: [[{conv: 8, norm: batch}, maxpool]]\nclassifier: [FC-10]"
    )
    from vggkit.base import tables

    summary = vggkit.summarize(config, expand=True)
    ours = tables.text(keras.listing(summary), 80).splitlines()
    wanted = [line.rstrip() for line in keras_says["batch norm"].splitlines() if line]
    assert ours == wanted
    assert sum("│            32 │" in line for line in wanted) == 1


def test_the_totals_of_vgg16_bn_add_up() -> None:
    """Trainable and non-trainable are the total; the rows' counts are, too."""
    text = listing("vgg16_bn", columns=140)
    total, trained, kept = (int(line.split(": ")[1].split(" (")[0].replace(",", "")) for line in text.splitlines()[-3:])
    assert (total, trained, kept) == (138_374_440, 138_365_992, 2 * 4224)
    assert sum(int(line.split("│")[3].replace(",", "")) for line in text.splitlines() if line.startswith("│")) == total


def test_a_batch_stands_in_the_place_of_none() -> None:
    """With --batch the shapes have a number, without it None."""
    assert "(8, 224, 224, 64)" in listing("D", "--batch", "8")
    assert "(1, 224, 224, 64)" in listing("D", "--batch", "1")
    assert "(None, 224, 224, 64)" in listing("D")


def test_other_networks_have_a_listing_too() -> None:
    """LRN, a global average and a network without aliases: every name and type is there."""
    text = listing("A-LRN", "--set", "head=gap", columns=140)
    assert text.startswith('Model: "a-lrn"\n')
    assert "block1_lrn " in text
    assert "(LocalResponseNormalization)" in text
    assert "avgpool (GlobalAveragePooling2D)" in text


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    """A name with square brackets is no style."""
    from vggkit.base import tables

    config = vggkit.loads("name: '[bold]x[/bold]'\nblocks: [[conv3-8]]")
    text = tables.text(keras.listing(vggkit.summarize(config, expand=True)), 80)
    assert text.startswith('Model: "[bold]x[/bold]"\n')

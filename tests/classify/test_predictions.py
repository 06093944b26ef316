"""Predictions as table, data and picture: nothing cut off, nothing over anything else, the bars in proportion."""

from __future__ import annotations

import csv
import io
import json
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest
from PIL import Image
from rich.cells import cell_len

from vggkit.base.tables import text
from vggkit.classify import predictions
from vggkit.notation.preprocess import PictureError
from vggkit.pictures import style


class Predicted(NamedTuple):
    """A class and its probability."""

    label: str
    wordnet_id: str | None
    index: int  # type: ignore[assignment] # a tuple has a method of this name
    probability: float


class Result(NamedTuple):
    """A picture's classes."""

    image: str
    predictions: list[Predicted]


LONG = "a class whose name goes on, and on, until nobody remembers how it began or why it has to be that long"
CAT = Result(
    "photos/cat.jpg",
    [
        Predicted("tabby cat", "n02123045", 281, 0.5),
        Predicted("tiger cat", "n02123159", 282, 0.25),
        Predicted(LONG, None, 7, 0.125),
        Predicted("lynx", None, 287, 0.00004),
    ],
)
DOG = Result("dog, left.png", [Predicted('the "dog"', None, 0, 1.0)])


@pytest.mark.parametrize("width", [20, 60, 80, 140, 10_000])
def test_a_table_fits_its_width(width: int) -> None:
    """No line is longer than the terminal, and every name, label and percentage begins in its column."""
    lines = text(predictions.table([CAT, DOG]), width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert (lines[0], lines[5], lines[6]) == ("photos/cat.jpg", "", "dog, left.png")
    assert len({line.index("%") for line in (*lines[1:5], lines[7])}) == 1
    for line, percentage in zip((*lines[1:5], lines[7]), ("50.0 %", "25.0 %", "12.5 %", "0.0 %", "100.0 %")):
        assert f" {percentage}" in line
    assert ("…" in lines[3]) == (width < 10_000)


@pytest.mark.parametrize("width", [60, 80, 140, 10_000])
def test_bars_are_in_proportion(width: int) -> None:
    """A bar of half the probability is half as long, to an eighth of a column; certainty is a full bar."""
    lines = text(predictions.table([CAT, DOG]), width).splitlines()
    eighths = [sum(" ▏▎▍▌▋▊▉█".index(char) for char in line.partition("%")[2].strip()) for line in lines if "%" in line]
    full = eighths[-1]
    assert full == 8 * max(15, min(40, full // 8))
    assert eighths == [round(full * predicted.probability) for predicted in (*CAT.predictions, *DOG.predictions)]


def test_wide_signs_and_wrong_numbers_stay_in_their_columns() -> None:
    """Labels in wide scripts line up, and a network that says NaN is shown saying so."""
    nan = Result("a\x1b[31m\n.png", [Predicted("猫" * 40, None, 0, float("nan")), Predicted("b", None, 1, 1.5)])
    lines = text(predictions.table([nan]), 60).splitlines()
    assert lines[0] == "a�[31m�.png"
    assert len({cell_len(line.partition("%")[0]) for line in lines[1:]}) == 1
    assert lines[1].endswith("nan %")
    cats = Result("cats.png", [Predicted("猫" * 10, None, 0, 0.5)])
    assert "猫" * 10 + "   50.0 %" in text(predictions.table([cats]), 60)


def test_a_terminal_without_blocks_has_signs() -> None:
    """Where only ASCII can be written, bars are rows of #."""
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    from rich.console import Console

    Console(file=out, width=60, color_system=None).print(predictions.table([DOG]))
    out.seek(0)
    assert "100.0 %  ####" in out.read()


def test_data_says_everything_exactly() -> None:
    """JSON holds every figure to the last digit, CSV a line per picture and class."""
    data = predictions.dicts([CAT, DOG])
    assert data[0]["image"] == "photos/cat.jpg"
    assert data[0]["predictions"][0] == {
        "label": "tabby cat", "wordnet_id": "n02123045", "index": 281, "probability": 0.5,
    }  # fmt: skip
    assert json.loads(predictions.json_text([CAT, DOG])) == data
    rows = list(csv.reader(io.StringIO(predictions.csv_text([CAT, DOG]))))
    assert rows[0] == ["image", "rank", "label", "wordnet_id", "index", "probability"]
    assert rows[2] == ["photos/cat.jpg", "2", "tiger cat", "n02123159", "282", "0.25"]
    assert rows[4][-1] == "4e-05"
    assert rows[5] == ["dog, left.png", "1", 'the "dog"', "", "0", "1.0"]


def test_a_name_of_any_bytes_can_be_written() -> None:
    """A file's name that is no UTF-8 does not stop JSON or CSV from being written as UTF-8."""
    odd = Result("a\udcff.png", DOG.predictions)
    assert predictions.json_text([odd]).encode()
    assert predictions.csv_text([odd]).encode()


# Pictures


MANY = Result("x" * 300, [Predicted(f"{index} {LONG}", None, index, 1 / (index + 1)) for index in range(30)])
NAN = Result("$x$.png", [Predicted("$a_1$ 猫", None, 0, float("nan"))])


def shades(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a picture with shades."""
    values = numpy.add.outer(numpy.arange(height), numpy.arange(width)) % 256
    return Image.fromarray(values.astype(numpy.uint8)).convert(mode)


PICTURES = [
    (shades(300, 200), CAT),
    (shades(8, 8, "L"), DOG),
    (shades(3000, 20), CAT),
    (shades(20, 3000), MANY),
    (shades(1, 1), NAN),
    (shades(50, 50), Result("none.png", [])),
]


@pytest.mark.parametrize(("image", "result"), PICTURES)
def test_a_picture_is_a_png_of_its_size(image: Image.Image, result: Result) -> None:
    """From the smallest to the widest and tallest, with no warning."""
    with Image.open(io.BytesIO(predictions.picture(image, result))) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width == sum(predictions.INCHES) * predictions.RESOLUTION


@pytest.mark.parametrize(("image", "result"), PICTURES)
@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_nothing_overlaps_or_is_cut_off(image: Image.Image, result: Result) -> None:
    """Every text and the picture stand inside the figure and beside one another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = predictions.figure(image, result)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call] # matplotlib has no types here
    left, right = figure.axes
    parts: list[Any] = [left.title, left.images[0], *right.texts, *right.get_yticklabels(), *right.patches]
    boxes = [part.get_window_extent(renderer) for part in parts]
    width, height = canvas.get_width_height()
    for box in boxes:
        if numpy.isfinite(box.extents).all():
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height
    for one, other in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert not (across > 0.5 and along > 0.5)


def test_a_picture_shows_what_the_result_says() -> None:
    """The name as title, labels from top to bottom, and the percentage at each bar of that length."""
    left, right = predictions.figure(shades(30, 20), CAT).axes
    assert left.get_title() == "cat.jpg"
    assert [bar.get_width() for bar in right.patches] == [predicted.probability for predicted in CAT.predictions]
    assert [note.get_text() for note in right.texts] == ["50.0 %", "25.0 %", "12.5 %", "0.0 %"]
    assert [note.get_text() for note in right.get_yticklabels()][:2] == ["tabby cat", "tiger cat"]
    assert right.yaxis_inverted()


def test_dollar_signs_are_no_formulas() -> None:
    """Names and labels are drawn as they are written."""
    with style.applied():
        left, right = predictions.figure(shades(30, 20), NAN).axes
    assert not any(text.get_parse_math() for text in (left.title, *right.get_yticklabels()))


def test_a_file_is_opened_as_inputs_are(tmp_path: Path) -> None:
    """A path draws the same picture as its content; one that can't be read is the usual error."""
    path = tmp_path / "picture.png"
    shades(30, 20).save(path)
    assert predictions.picture(path, CAT) == predictions.picture(shades(30, 20), CAT)
    with pytest.raises(PictureError, match="no such file"):
        predictions.picture(tmp_path / "none.png", CAT)

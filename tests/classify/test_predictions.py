"""Predictions in the terminal and as data: nothing cut off, nothing lost, the bars in proportion."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.cells import cell_len

from vggkit.base import tables
from vggkit.base.tables import text
from vggkit.classify.predictions import Classified, Prediction, Predictions

LONG = "a class whose name goes on, and on, until nobody remembers how it began or why it has to be that long"
CAT = Classified(
    "photos/cat.jpg",
    [
        Prediction("tabby cat", "n02123045", 281, 0.5),
        Prediction("tiger cat", "n02123159", 282, 0.25),
        Prediction(LONG, None, 7, 0.125),
        Prediction("lynx", None, 287, 0.00004),
    ],
)
DOG = Classified("dog, left.png", [Prediction('the "dog"', None, 0, 1.0)])


@pytest.mark.parametrize("width", [20, 60, 80, 140, 10_000])
def test_a_table_fits_its_width(width: int) -> None:
    """No line is longer than the terminal, and every name, label and percentage begins in its column."""
    lines = text(Predictions([CAT, DOG]), width).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert (lines[0], lines[5], lines[6]) == ("photos/cat.jpg", "", "dog, left.png")
    assert len({line.index("%") for line in (*lines[1:5], lines[7])}) == 1
    for line, percentage in zip((*lines[1:5], lines[7]), ("50.0 %", "25.0 %", "12.5 %", "0.0 %", "100.0 %")):
        assert f" {percentage}" in line
    assert ("…" in lines[3]) == (width < 10_000)


@pytest.mark.parametrize("width", [60, 80, 140, 10_000])
def test_bars_are_in_proportion(width: int) -> None:
    """A bar of half the probability is half as long, to an eighth of a column; certainty is a full bar."""
    lines = text(Predictions([CAT, DOG]), width).splitlines()
    eighths = [sum(" ▏▎▍▌▋▊▉█".index(char) for char in line.partition("%")[2].strip()) for line in lines if "%" in line]
    full = eighths[-1]
    assert full == 8 * max(15, min(40, full // 8))
    assert eighths == [round(full * predicted.probability) for predicted in (*CAT.predictions, *DOG.predictions)]


def test_wide_signs_and_wrong_numbers_stay_in_their_columns() -> None:
    """Labels in wide scripts line up, and a network that says NaN is shown saying so."""
    nan = Classified("a\x1b[31m\n.png", [Prediction("猫" * 40, None, 0, float("nan")), Prediction("b", None, 1, 1.5)])
    lines = text(Predictions([nan]), 60).splitlines()
    assert lines[0] == "a�[31m�.png"
    assert len({cell_len(line.partition("%")[0]) for line in lines[1:]}) == 1
    assert lines[1].endswith("nan %")
    cats = Classified("cats.png", [Prediction("猫" * 10, None, 0, 0.5)])
    assert "猫" * 10 + "   50.0 %" in text(Predictions([cats]), 60)


def test_a_terminal_without_blocks_has_signs() -> None:
    """Where only ASCII can be written, bars are rows of #."""
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    from rich.console import Console

    Console(file=out, width=60, color_system=None).print(Predictions([DOG]))
    out.seek(0)
    assert "100.0 %  ####" in out.read()


def test_data_says_everything_exactly() -> None:
    """JSON holds every figure to the last digit, CSV a line per picture and class."""
    data = json.loads(Predictions([CAT, DOG]).written("json"))
    assert data[0]["image"] == "photos/cat.jpg"
    assert data[0]["predictions"][0] == {
        "label": "tabby cat",
        "wordnet_id": "n02123045",
        "index": 281,
        "probability": 0.5,
    }
    rows = list(csv.reader(io.StringIO(Predictions([CAT, DOG]).written("csv"))))
    assert rows[0] == ["image", "rank", "label", "wordnet_id", "index", "probability"]
    assert rows[2] == ["photos/cat.jpg", "2", "tiger cat", "n02123159", "282", "0.25"]
    assert rows[4][-1] == "4e-05"
    assert rows[5] == ["dog, left.png", "1", 'the "dog"', "", "0", "1.0"]


def test_a_name_of_any_bytes_can_be_written() -> None:
    """A file's name that is no UTF-8 does not stop JSON or CSV from being written as UTF-8."""
    odd = Classified("a\udcff.png", DOG.predictions)
    assert Predictions([odd]).written("json").encode()
    assert Predictions([odd]).written("csv").encode()


@pytest.mark.parametrize("format", tables.FORMATS)
def test_every_format_has_every_class(format: str) -> None:
    """Each label stands in each format; no picture at all is a table without rows."""
    written = Predictions([CAT, DOG]).written(format)
    assert all(label in written for label in ("tabby cat", "tiger cat", "lynx"))
    assert "tabby cat" not in Predictions([]).written(format)


def test_no_picture_at_all_has_columns() -> None:
    """CSV names its columns even then, and JSON is an empty list."""
    assert Predictions([]).written("csv") == "image,rank,label,wordnet_id,index,probability\n"
    assert Predictions([]).written("json") == "[]\n"

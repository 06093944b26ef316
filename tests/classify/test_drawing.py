"""A picture drawn with its classes: nothing cut off, nothing over anything else."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from tests.classify.test_predictions import CAT, DOG, LONG
from vggkit.base.errors import PictureError
from vggkit.classify import drawing
from vggkit.classify.predictions import Classified, Prediction
from vggkit.pictures import style

MANY = Classified("x" * 300, [Prediction(f"{index} {LONG}", None, index, 1 / (index + 1)) for index in range(30)])
NAN = Classified("$x$.png", [Prediction("$a_1$ 猫", None, 0, float("nan"))])


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
    (shades(50, 50), Classified("none.png", [])),
]


@pytest.mark.parametrize(("image", "result"), PICTURES)
def test_a_picture_is_a_png_of_its_size(image: Image.Image, result: Classified) -> None:
    """From the smallest to the widest and tallest, with no warning."""
    with Image.open(io.BytesIO(drawing.drawn(image, result))) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width == sum(drawing.INCHES) * drawing.RESOLUTION


@pytest.mark.parametrize(("image", "result"), PICTURES)
@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_nothing_overlaps_or_is_cut_off(image: Image.Image, result: Classified) -> None:
    """Every text and the picture stand inside the figure and beside one another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = drawing.figure(image, result)
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
    left, right = drawing.figure(shades(30, 20), CAT).axes
    assert left.get_title() == "cat.jpg"
    assert [bar.get_width() for bar in right.patches] == [predicted.probability for predicted in CAT.predictions]
    assert [note.get_text() for note in right.texts] == ["50.0 %", "25.0 %", "12.5 %", "0.0 %"]
    assert [note.get_text() for note in right.get_yticklabels()][:2] == ["tabby cat", "tiger cat"]
    assert right.yaxis_inverted()


def test_dollar_signs_are_no_formulas() -> None:
    """Names and labels are drawn as they are written."""
    with style.applied():
        left, right = drawing.figure(shades(30, 20), NAN).axes
    assert not any(text.get_parse_math() for text in (left.title, *right.get_yticklabels()))


def test_a_file_is_opened_as_inputs_are(tmp_path: Path) -> None:
    """A path draws the same picture as its content; one that can't be read is the usual error."""
    path = tmp_path / "picture.png"
    shades(30, 20).save(path)
    assert drawing.drawn(path, CAT) == drawing.drawn(shades(30, 20), CAT)
    with pytest.raises(PictureError, match="no such file"):
        drawing.drawn(tmp_path / "none.png", CAT)

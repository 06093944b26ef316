"""How figures become files: the same bytes each time, fonts inside, words for those who can't see them."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from vggkit.pictures import style


def figure(width: float = 2.0) -> Figure:
    """Draw a word and a line."""
    with style.applied():
        drawn = Figure(figsize=(width, 1))
        axes = drawn.add_subplot()
        axes.plot([1, 2], [3, 4], marker="o")
        axes.set_xlabel("words")
    return drawn


@pytest.mark.parametrize("format", style.PICTURE_FORMATS)
def test_the_same_figure_is_the_same_file(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No date, no random identifiers, and nothing of a user's own settings."""
    first = style.encoded(figure(), format, "title", "description")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    own = {"font.family": "serif", "svg.fonttype": "path", "axes.facecolor": "red", "savefig.dpi": 30}
    with matplotlib.rc_context(own):
        assert style.encoded(figure(), format, "title", "description") == first
        assert {name: matplotlib.rcParams[name] for name in own} == {**own, "font.family": ["serif"]}


def test_title_and_description_are_in_every_format() -> None:
    """As an SVG's elements, a PNG's text and a PDF's information; what XML can't have is replaced."""
    title, description = "A & B <1>\x01", "×"
    svg = ElementTree.fromstring(style.encoded(figure(), "svg", title, description))
    assert [(child.tag.split("}")[1], child.text) for child in svg[:2]] == [("title", "A & B <1>\ufffd"), ("desc", "×")]
    with Image.open(io.BytesIO(style.encoded(figure(), "png", title, description))) as png:
        assert (png.info["Title"], png.info["Description"]) == ("A & B <1>\ufffd", "×")
    pdf = style.encoded(figure(), "pdf", "plain", "words")
    assert b"/Title (plain)" in pdf
    assert b"/Subject (words)" in pdf


def test_pictures_of_one_page_have_names_of_their_own() -> None:
    """The identifiers that aria-labelledby points at differ from picture to picture."""
    files = [style.encoded(figure(), "svg", title, "description").decode() for title in ("one", "two")]
    names = [re.findall('aria-labelledby="([^"]*)"', file)[0].split() for file in files]
    assert all(f'id="{name}"' in file for file, pair in zip(files, names) for name in pair)
    assert not set(names[0]) & set(names[1])


@pytest.mark.parametrize("colour", [style.BLUE, style.VERMILION, style.GREEN, style.YELLOW, style.GREY, "#FFFFFF"])
def test_text_on_a_colour_can_be_read(colour: str) -> None:
    """It has the better contrast of the two, and at least 3:1, as large text must have; black on white has 21:1."""
    contrasts = {text: contrast(text, colour) for text in (style.INK, "#FFFFFF")}
    assert contrasts[style.ink_on(colour)] == max(contrasts.values()) >= 3
    assert round(contrast("#000000", "#FFFFFF"), 9) == 21


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as the W3C's techniques write it (G18)."""
    lightnesses = []
    for colour in (one, other):
        linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in to_rgb(colour)]
        lightnesses.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lightnesses) + 0.05) / (min(lightnesses) + 0.05)


def test_text_stays_text() -> None:
    """An SVG's words can be searched; a PDF's fonts are inside, as TrueType outlines (type 42)."""
    assert b">words</text>" in style.encoded(figure(), "svg", "t", "d")
    pdf = style.encoded(figure(), "pdf", "t", "d")
    assert b"/CIDFontType2" in pdf
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_a_png_has_the_resolution_asked_for_unless_it_would_be_too_long() -> None:
    """200 dots per inch; fewer where the renderer would refuse."""
    with Image.open(io.BytesIO(style.encoded(figure(), "png", "t", "d"))) as png:
        assert png.size == (400, 200)
    with Image.open(io.BytesIO(style.encoded(figure(400), "png", "t", "d"))) as png:
        assert png.size == (60_000, 150)


def test_a_width_is_what_the_renderer_takes() -> None:
    """In inches, of the longest line, up to the renderer's rounding to pixels."""
    with style.applied():
        drawn = Figure(figsize=(5, 1), dpi=1000)
        for text, bold in (("conv3-512 ×3", False), ("138,357,544", True), ("→ 64×112×112", False), ("", False)):
            weight = "bold" if bold else "normal"
            written = drawn.text(0, 0, text, fontsize=9, weight=weight)
            width = written.get_window_extent().width / 1000
            # the figure lays letters out on whole pixels, a text's own width knows none
            assert style.text_width(f"i\n{text}", 9, bold) == pytest.approx(
                max(width, style.text_width("i", 9, bold)), rel=0.01
            )


def test_the_palettes_colours_are_okabes_and_itos() -> None:
    """Okabe & Ito (2008), without black."""
    palette = {style.ORANGE, style.SKY_BLUE, style.GREEN, style.YELLOW, style.BLUE, style.VERMILION, style.PURPLE}
    assert palette == {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}

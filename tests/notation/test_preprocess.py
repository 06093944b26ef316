"""How pictures are prepared: what a file may say of it, and how it is spelt."""

from __future__ import annotations

from typing import Any

import pytest

from vggkit.notation.preprocess import PRESETS, Preprocess, parse_preprocess, spell_preprocess

CUSTOM = [
    {"resize": 50, "crop": "33x47", "mean": 0.5, "std": 0.25, "interpolation": "bicubic"},
    {"resize": "61x40", "crop": 64, "mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "interpolation": "lanczos"},
    {"resize": 31, "colour": "grey", "mean": 0.4, "std": 0.3, "interpolation": "nearest"},
    {"crop": "20x500", "colour": "grey"},
    {},
]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_and_spelt_out(name: str) -> None:
    """A preset's name gives it, and what it is spelt as gives it back."""
    assert parse_preprocess(name) is PRESETS[name]
    assert parse_preprocess(spell_preprocess(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize("said", CUSTOM)
def test_spelling_and_reading_are_inverse(said: dict[str, Any]) -> None:
    """What is read and spelt is read as the same again, and spelt the same."""
    preprocess = parse_preprocess(said)
    spelt = spell_preprocess(preprocess)
    assert parse_preprocess(spelt) == preprocess
    assert spell_preprocess(parse_preprocess(spelt)) == spelt


def test_what_is_unsaid_has_its_default() -> None:
    """Absent and null mean no resize, no crop, values from 0 to 1, mean 0 and std 1."""
    plain = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3)
    assert parse_preprocess({}) == parse_preprocess(dict.fromkeys(spell_preprocess(plain))) == plain
    assert spell_preprocess(plain) == {
        "scale": 255,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "colour": "rgb",
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("tosch", "expected torch, timm, keras, found 'tosch'. Did you mean 'torch'?"),
        ("qq", "expected torch, timm, keras, found 'qq'"),
        (3, "expected torch, timm, keras or options such as {crop: 224}, found 3"),
        ({"rezise": 1}, "unknown key 'rezise'. Did you mean 'resize'?"),
        (
            {"q": 1},
            "unknown key 'q'. Known: resize, crop, scale, mean, std, colour, interpolation",
        ),
        (
            {"resize": 0},
            "resize: expected a whole number from 1 to 65536, or height × width as in 240x240, found 0",
        ),
        (
            {"crop": "240x65537"},
            "crop: expected a whole number from 1 to 65536, or height × width as in 240x240, found '240x65537'",
        ),
        ({"crop": True}, "crop: expected a whole number from 1 to 65536, or height × width as in 240x240, found True"),
        ({"scale": 0}, "scale: expected a number above 0, found 0"),
        ({"scale": float("inf")}, "scale: expected a number above 0, found inf"),
        ({"scale": 1e-30}, "scale: expected a number from 1e-09 to 1e+09, found 1e-30"),
        ({"mean": float("nan")}, "mean: expected a number from -1e+09 to 1e+09, found nan"),
        ({"mean": [1, 2]}, "mean: expected 3 numbers, one for each channel, found [1, 2]"),
        ({"mean": [1, 2, "3"]}, "mean: expected a number from -1e+09 to 1e+09, found '3'"),
        ({"mean": [1, 2, 3], "colour": "grey"}, "mean: expected 1 number, found [1, 2, 3]"),
        ({"std": [1, -1, 1]}, "std: expected a number above 0, found -1"),
        ({"colour": "gray"}, "colour: expected rgb, bgr, grey, found 'gray'. Did you mean 'grey'?"),
        ({"colour": []}, "colour: expected rgb, bgr, grey, found []"),
        (
            {"interpolation": "cubic"},
            "interpolation: expected nearest, bilinear, bicubic, lanczos, found 'cubic'. Did you mean 'bicubic'?",
        ),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(said: Any, message: str) -> None:
    """The key, what was expected, and what was found."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_preprocess(said)
    assert str(caught.value) == message

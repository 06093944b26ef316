"""How exact integers are shortened for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggkit.base.numbers import grouped, keras_size, lecture_count, mebibytes, megabytes, shortened


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_994, "999.99 k"),
        (999_995, "1.00 M"),
        (999_999, "1.00 M"),
        (10**6, "1.00 M"),
        (999_994_999, "999.99 M"),
        (999_995_000, "1.00 G"),
        (15_470_264_320, "15.47 G"),
        (10**12, "1.00 T"),
        (10**18, "1.00 E"),
        (10**21, "1,000.00 E"),
    ],
)
def test_a_count_is_shortened_at_the_right_unit(number: int, text: str) -> None:
    """No count is ever shown as 1,000.00 of a unit that has a larger one."""
    assert shortened(number) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_994, "999.99 kB"),
        (999_995, "1.00 MB"),
        (60_950_432, "60.95 MB"),
        (10**9, "1.00 GB"),
        (10**12, "1.00 TB"),
        (10**15, "1.00 PB"),
        (10**18, "1.00 EB"),
    ],
)
def test_bytes_are_decimal_megabytes(size: int, text: str) -> None:
    """1 MB is 10⁶ bytes."""
    assert megabytes(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (2**20 - 1, "1.00 MiB"),
        (2**20, "1.00 MiB"),
        (24 * 2**30, "24.00 GiB"),
        (2**40, "1.00 TiB"),
        (2**50, "1.00 PiB"),
        (2**60, "1.00 EiB"),
    ],
)
def test_mebibytes_are_binary_and_say_so(size: int, text: str) -> None:
    """1 MiB is 2²⁰ bytes."""
    assert mebibytes(size) == text


UNITS = {"": 1, "B": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
BINARY = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}


@given(st.integers(0, 10**21))
@settings(max_examples=300, deadline=None)
def test_a_shortened_number_is_the_number_to_half_of_its_last_digit(number: int) -> None:
    """Read again, it is at most half a hundredth of its unit away."""
    for text, units in (
        (shortened(number), UNITS),
        (megabytes(number).replace("kB", "k").rstrip("B") if number >= 1000 else megabytes(number), UNITS),
        (mebibytes(number), BINARY),
    ):
        value, _, unit = text.partition(" ")
        size = units[unit.strip()]
        error = abs(float(value.replace(",", "")) * size - number)
        assert error <= size / 200 * (1 + 1e-9) + number * 1e-15
        assert size == 1 or float(value.replace(",", "")) >= 1


@given(st.integers(0, 10**40))
@settings(max_examples=100, deadline=None)
def test_a_grouped_number_is_exact(number: int) -> None:
    """Commas are all that is added."""
    assert int(grouped(number).replace(",", "")) == number


def test_keras_sizes_are_keras_own(keras_says: dict[str, Any]) -> None:
    """2,000 random sizes, as keras.src.utils.summary_utils writes them, its slip above 1024 PB included."""
    wrong = [(size, keras_size(size), text) for size, text in keras_says["sizes"] if keras_size(size) != text]
    assert wrong == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (1000, "1000"),
        (4096, "4096"),
        (9999, "9999"),
        (10_000, "10K"),
        (25_088, "25K"),
        (100_352, "100K"),
        (150_528, "150K"),
        (401_408, "400K"),
        (999_999, "1M"),
        (1_605_632, "1.6M"),
        (3_211_264, "3.2M"),
        (10**9, "1G"),
    ],
)
def test_the_lecture_rounds_to_two_digits(number: int, text: str) -> None:
    """As the lecture's lines do: small ones in full, 150K, 3.2M."""
    assert lecture_count(number) == text

"""How exact integers are shortened for people; the only place where bytes become MB."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from vggkit.base.errors import ArgumentError, shorten


def plain(value: Any) -> Any:
    """Return Python's own numbers and lists for numpy's and torch's, also inside tuples and lists.

    >>> import numpy
    >>> plain(numpy.int64(3)), plain((numpy.int32(3), 224, 224)), plain("3x224x224")
    (3, (3, 224, 224), '3x224x224')
    """
    if isinstance(value, (tuple, list)):
        return [*map(plain, value)] if isinstance(value, list) else (*map(plain, value),)
    return value.tolist() if hasattr(value, "tolist") else value


def whole(number: object, argument: str, least: int = 1, largest: int | None = None) -> int:
    """Check a whole number.

    Args:
        number: Python's, numpy's or torch's.
        argument: the argument's name, for the message.
        least: the smallest that is allowed.
        largest: the largest that is allowed, or None.

    Raises:
        ArgumentError: says what was found and what was expected.

    >>> whole(3, "batch")
    3
    """
    found = plain(number)
    if isinstance(found, bool) or not isinstance(found, int) or found < least or (largest and found > largest):
        limit = "" if not largest else f" to {largest:.0e}" if largest > 10**6 else f" to {largest}"
        raise ArgumentError(f"{argument}: expected a whole number from {least}{limit}, found {shorten(number)}")
    return found


def grouped(number: int) -> str:
    """Write a number in full.

    >>> grouped(138357544)
    '138,357,544'
    """
    return f"{number:,}"


def megabytes(size: int) -> str:
    """Write bytes in the largest decimal unit, from kB to EB, that gives a number from 1; less than 1 kB in B.

    >>> megabytes(60950432), megabytes(553430176), megabytes(600)
    ('60.95 MB', '553.43 MB', '600 B')
    """
    return _in_units(size, 1000, ("kB", "MB", "GB", "TB", "PB", "EB"))


def signed(number: int) -> str:
    """Write a difference in full.

    >>> signed(4718592), signed(-64), signed(0)
    ('+4,718,592', '−64', '0')
    """
    return _with_sign(number, grouped)


def signed_megabytes(size: int) -> str:
    """Write a difference in bytes as `megabytes` does.

    >>> signed_megabytes(12845056), signed_megabytes(-600), signed_megabytes(0)
    ('+12.85 MB', '−600 B', '0')
    """
    return _with_sign(size, megabytes)


def _with_sign(number: int, write: Callable[[int], str]) -> str:
    if number == 0:
        return "0"
    return ("+" if number > 0 else "−") + write(abs(number))


def mebibytes(size: int) -> str:
    """Write bytes in binary units, from KiB.

    >>> mebibytes(553430176)
    '527.79 MiB'
    """
    return _in_units(size, 1024, ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))


def _in_units(size: int, base: int, units: tuple[str, ...]) -> str:
    if size < base:
        return f"{size} B"
    power = 1
    while power < len(units) and round(size / base**power, 2) >= base:
        power += 1
    return f"{size / base**power:,.2f} {units[power - 1]}"


def shortened(number: int) -> str:
    """Write a count with four significant digits and its unit.

    >>> shortened(15470264320), shortened(86704128), shortened(0), shortened(950)
    ('15.47 G', '86.70 M', '0', '950')
    """
    if number < 1000:
        return str(number)
    units = ("k", "M", "G", "T", "P", "E")
    power = 1
    while power < len(units) and round(number / 1000**power, 2) >= 1000:
        power += 1
    return f"{number / 1000**power:,.2f} {units[power - 1]}"


def percent(part: int, whole: int) -> str:
    """Write a share.

    >>> percent(553430176, 1722992880), percent(1, 10**9)
    ('32.1 %', '0.0 %')
    """
    return f"{100 * part / whole:.1f} %"


def keras_size(size: int) -> str:
    """Write bytes as Keras's summary does: divided by 1024, but called MB.

    >>> keras_size(553430176), keras_size(0)
    ('527.79 MB', '0.00 B')
    """
    value = float(size)
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if value < 1024:
            return f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} PB"  # Keras divides once too often here (keras/src/utils/summary_utils.py)


def lecture_count(number: int) -> str:
    """Write a count as the CS231n lecture does: two significant digits, small ones in full.

    >>> lecture_count(3211264), lecture_count(802816), lecture_count(25088), lecture_count(4096)
    ('3.2M', '800K', '25K', '4096')
    """
    if number < 10_000:
        return str(number)
    rounded = round(number, 1 - (len(str(number)) - 1))
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if rounded >= size:
            return f"{rounded / size:g}{unit}"
    return f"{rounded // 1000}K"


_UNITS = {
    f"{prefix}{i}b": base**power for power, prefix in enumerate("kmgtp", 1) for i, base in (("", 1000), ("i", 1024))
}


def parse_bytes(text: str) -> int:
    """Read an amount of memory.

    Args:
        text: a number and its unit: `24GiB` is 24·1024³ bytes, `24GB` is 24·10⁹, `600MB`, `1.5 TB`, `512 B`.

    Returns:
        Bytes, rounded down.

    Raises:
        ArgumentError: if there is no number or no unit.

    >>> parse_bytes("24GiB"), parse_bytes("24GB")
    (25769803776, 24000000000)
    """
    from fractions import Fraction

    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]+)\s*", text)
    unit = {**_UNITS, "b": 1}.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ArgumentError(f"expected a number and a unit, as in 24GiB, 24GB or 800MB, found {shorten(text)}")
    return int(Fraction(match.group(1)) * unit)


_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_count(text: str | int) -> int:
    """Read a count.

    Args:
        text: a number, optionally with k, M, G or T after it: `140M`, `15.5G`.

    Raises:
        ArgumentError: if it is not such a number.

    >>> parse_count("140M"), parse_count(7)
    (140000000, 7)
    """
    from fractions import Fraction

    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kKmMgGtT]?)", str(text).strip())
    if match is None or isinstance(text, bool):
        raise ArgumentError(f"expected a number such as 140M or 15.5G, found {shorten(text)}")
    return int(Fraction(match.group(1)) * _COUNT_UNITS[match.group(2).lower()])


def spell_count(number: int) -> str:
    """Write a count exactly, with the largest unit that divides it.

    >>> spell_count(140000000), spell_count(138357544)
    ('140M', '138357544')
    """
    return _spell(number, (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)), "")


def spell_bytes(size: int) -> str:
    """Write bytes exactly, with the largest unit that divides them.

    >>> spell_bytes(25769803776), spell_bytes(24000000000), spell_bytes(7)
    ('24GiB', '24GB', '7B')
    """
    binary = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    decimal = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
    return _spell(size, binary if size % 10**6 else decimal, "B")


def _spell(number: int, units: tuple[tuple[str, int], ...], plain: str) -> str:
    for unit, factor in units:
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return f"{number}{plain}"

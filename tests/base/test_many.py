"""Many numbers as one: the arithmetic is Python's own, and a question is answered only where all agree."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import gcd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggkit.base.many import Disagreement, Many, largest, listed, many

NUMBERS = st.one_of(st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 10**18), st.integers(-(10**20), 10**20))
LISTS = st.lists(NUMBERS, min_size=2, max_size=5)
OPERATIONS = [operator.add, operator.sub, operator.mul]
QUESTIONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@given(st.data(), LISTS)
def test_arithmetic_is_pythons_for_each(data: Any, start: list[int]) -> None:
    """Chains of sums, differences, products, quotients and remainders are exact, however large they grow."""
    wanted, got = start, many(start)
    for _ in range(data.draw(st.integers(1, 6))):
        other = data.draw(st.lists(NUMBERS, min_size=len(start), max_size=len(start)))
        if data.draw(st.booleans()):
            other = [other[0]] * len(start)
        operation = data.draw(st.sampled_from(OPERATIONS))
        if data.draw(st.booleans()):
            wanted, got = list(map(operation, wanted, other)), operation(got, many(other))
        else:
            wanted, got = list(map(operation, other, wanted)), operation(many(other), got)
        divisor = data.draw(st.integers(1, 10**6))
        quotient, rest = divmod(got, divisor)
        assert listed(quotient, len(start)) == [number // divisor for number in wanted]
        assert listed(rest, len(start)) == [number % divisor for number in wanted]
        assert listed(-got, len(start)) == [-number for number in wanted]
    assert listed(got, len(start)) == wanted
    assert all(type(number) is int for number in listed(got, len(start)))


@pytest.mark.parametrize(
    ("chain", "start"),
    [
        (lambda number: number * 3, [-4 * 10**18, 0]),
        (lambda number: number * 3, [4 * 10**18, 0]),
        (lambda number: number * 2, [2**62, 1]),
        (lambda number: number * -2 - 1, [2**62, 1]),
        (lambda number: number % 10**9 * 10**10, [-1, -2]),
        (lambda number: number // 2 * 10**11, [10**9, 10**9 + 4]),
        (lambda number: divmod(number, -3)[1] * 2**62, [5, 7]),
    ],
)
def test_what_int64_cannot_hold_is_exact(chain: Any, start: list[int]) -> None:
    """Behind a quotient, a remainder or a negative number too, and from its first number that is too large on."""
    assert listed(chain(many(start)), len(start)) == list(map(chain, start))


def test_numbers_stay_a_machines_as_long_as_they_can() -> None:
    """Sums and differences that come back leave them as fast as they were."""
    number = many([5, 7])
    for _ in range(70):
        number = number + number - number
    assert listed(number, 2) == [5, 7]
    assert number.values.dtype == "int64"


@given(LISTS, NUMBERS, st.sampled_from(QUESTIONS))
def test_a_question_is_answered_where_all_agree(numbers: list[int], other: int, question: Any) -> None:
    """Else the signal says who answers alike."""
    answers = [question(number, other) for number in numbers]
    number = many(numbers)
    if len(set(answers)) == 1:
        assert question(number, other) is answers[0]
        return
    with pytest.raises(Disagreement) as signal:
        question(number, other)
    labels = signal.value.labels.tolist()
    assert [label == labels[0] for label in labels] == [answer == answers[0] for answer in answers]


def test_equal_numbers_are_a_plain_number() -> None:
    """Nothing is slower than it need be, and nothing that all agree on is a question."""
    assert type(many([64, 64])) is int
    assert isinstance(many([64, 32]), Many)
    assert many([0.5, 0.5]) == 0.5


def test_where_a_plain_number_is_needed_each_one_stands_alone() -> None:
    """An index, a key of a dictionary, bits: equal numbers stay together."""
    number = many([6, 4, 6, 9])
    for use in (int, hash, lambda it: it.bit_length(), lambda it: gcd(it, 3), lambda it: {6: 1}[it]):
        with pytest.raises(Disagreement) as signal:
            use(number)
        labels = signal.value.labels.tolist()
        assert labels[0] == labels[2]
        assert len(set(labels)) == 3
    same = many([1, 2]) * 0 + 5
    assert (int(same), {5: "found"}[same], gcd(same, 10), same.bit_length()) == (5, "found", 5, 3)


def test_truth_is_a_question() -> None:
    """A rate of 0 drops nothing, any other drops."""
    assert many([0.1, 0.5])
    assert not many([1, 2]) * 0
    with pytest.raises(Disagreement):
        bool(many([0.0, 0.5]))


@given(st.lists(LISTS.map(lambda numbers: (numbers * 2)[:2]) | NUMBERS, min_size=1, max_size=6))
def test_the_largest_is_found_for_each(numbers: list[Any]) -> None:
    """Of lists and plain numbers together."""
    columns = [number if isinstance(number, list) else [number, number] for number in numbers]
    found = largest(many(number) if isinstance(number, list) else number for number in numbers)
    assert listed(found, 2) == [max(column) for column in zip(*columns)]


def test_it_shows_its_range() -> None:
    """In messages that nobody sees, and when debugging."""
    assert repr(many([64, 32])) == "32 … 64"


@pytest.mark.parametrize("operation", [operator.truediv, operator.pow, operator.and_, operator.lshift, operator.xor])
def test_what_many_numbers_cant_do_raises(operation: Callable[[int, int], object]) -> None:
    """To a type checker they are an int; what they have no method for is refused, and not answered for one of them."""
    with pytest.raises(TypeError):
        operation(many([64, 32]), 2)
    with pytest.raises(TypeError):
        f"{many([64, 32]):,}"

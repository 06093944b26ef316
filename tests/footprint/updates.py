"""Every optimizer with every combination of its options, as cases to parametrize tests with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import pytest

from vggkit.footprint.optimizers import OPTIMIZERS, Update

OWN: dict[str, list[dict[str, Any]]] = {
    "nesterov": [{}, {"nesterov": True}],
    "amsgrad": [{}, {"amsgrad": True}],
    "momentum": [{}, {"momentum": 0.9}],
    "centered": [{}, {"centered": True}],
    "weight_decay": [{"weight_decay": 0}, {"weight_decay": 0.01}],
}
"""What is tried of each option beside the implementation."""

Case = tuple[str, Update]


def cases(ways: Sequence[dict[str, Any]]) -> Iterator[Case]:
    """Yield the cases.

    Args:
        ways: options that choose one of torch's implementations; an optimizer that lacks one is left out.
    """
    for name, optimizer in OPTIMIZERS.items():
        possible = [way for way in ways if set(way) <= set(optimizer.takes)]
        for chosen in product(possible, *(OWN[word] for word in OWN if word in optimizer.takes)):
            yield name, Update(**{word: value for one in chosen for word, value in one.items()})


def words(case: Case) -> str:
    """Return a case in words."""
    return ", ".join([case[0], *case[1].words])


def few(every: Sequence[Case]) -> list[Case]:
    """Return three cases of each implementation: with no option on, with weight decay alone, and with all on."""
    return [case for alike in _of_implementations(every) for case in dict.fromkeys((*alike[:2], alike[-1]))]


def one_of_each(every: Sequence[Case]) -> list[Case]:
    """Return a case of each implementation: with all options on."""
    return [alike[-1] for alike in _of_implementations(every)]


def _of_implementations(every: Sequence[Case]) -> list[list[Case]]:
    alike: dict[Any, list[Case]] = {}
    for name, update in every:
        alike.setdefault((name, update.foreach, update.fused), []).append((name, update))
    return list(alike.values())


def fewer(every: Sequence[Case]) -> list[Case]:
    """Return a case of each optimizer: the first."""
    return list({name: (name, update) for name, update in reversed(every)}.values())


def sampled(every: Sequence[Case], often: Callable[[Sequence[Case]], list[Case]] = few) -> list[Any]:
    """Return cases as parameters, of which all but a few are slow."""
    quick = often(every)
    return [pytest.param(*case, id=words(case), marks=[] if case in quick else [pytest.mark.slow]) for case in every]


NETWORKS = {
    "weights first": "{name: x, input: 3x6x7, blocks: [[conv3-8, {conv: 4, norm: batch}]], classifier: [FC-20, FC-5]}",
    "vectors first": "{name: x, input: 3x6x7, blocks: [[batchnorm, conv1-8, conv3-9]], classifier: [FC-70, FC-5]}",
}
"""Networks that begin with a weight, or with what has one dimension, which Adafactor treats in this order."""

"""Functions that stand in a table by the names of what they deal with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Entering(Protocol[Function]):
    """What makes a decorator of names."""

    def __call__(self, *names: str) -> Callable[[Function], Function]:
        """Have a function stand under these names."""


def entering(table: dict[str, Function]) -> Entering[Function]:
    """Return what enters functions in a table, each under several names.

    >>> table = {}
    >>> reads = entering(table)
    >>> @reads("relu", "relu_")
    ... def read_relu(): ...
    >>> list(table)
    ['relu', 'relu_']
    """

    def under(*names: str) -> Callable[[Function], Function]:
        def enter(function: Function) -> Function:
            table.update(dict.fromkeys(names, function))
            return function

        return enter

    return under

"""Optimizers: one class each, with all its rules.

`rules` has what each class must define, the options that matter for memory, and what all have in common. Each family
has a file; a new optimizer is one class in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from vggkit.base.errors import ArgumentError, shorten
from vggkit.footprint.optimizers import descent, moments, signs, squares
from vggkit.footprint.optimizers.descent import MomentumSGD, NoOptimizer
from vggkit.footprint.optimizers.rules import Call, Optimizer, Update, UpdateArguments

__all__ = ["DEFAULT", "NONE", "OPTIMIZERS", "Call", "Optimizer", "Update", "UpdateArguments", "check_update"]


def _optimizers_in(family: ModuleType) -> Iterator[Optimizer]:
    """Yield one of each class of a module that has a name of its own, in order."""
    for kind in vars(family).values():
        if isinstance(kind, type) and issubclass(kind, Optimizer) and "name" in vars(kind):
            yield kind()


OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer for family in (descent, moments, squares, signs) for optimizer in _optimizers_in(family)
}
"""Every optimizer by its name."""

NONE, DEFAULT = NoOptimizer.name, MomentumSGD.name
"""The optimizer if none is asked for: in inference, and in training."""


def check_update(name: str, update: Update) -> None:
    """Refuse options that an optimizer does not have, and values that torch refuses.

    Args:
        name: the optimizer's.
        update: the options.

    Raises:
        ArgumentError: names the option, what was found and what is allowed.
    """
    for word, given in update.given.items():
        if word not in OPTIMIZERS[name].takes:
            having = ", ".join(other.name for other in OPTIMIZERS.values() if word in other.takes)
            fixed = ", ".join(other.name for other in OPTIMIZERS.values() if word in other.fixed)
            also = f"; set in {fixed}" if fixed else ""
            raise ArgumentError(f"{word}: expected an optimizer that has it ({having}{also}), found {name}")
        if word in Update.NUMBERS:
            if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < float("inf"):
                raise ArgumentError(f"{word}: expected a number of 0 or more, found {shorten(given)}")
        elif not isinstance(given, bool):
            raise ArgumentError(f"{word}: expected True or False, found {shorten(given)}")
    if update.foreach and update.fused:
        raise ArgumentError("fused: can't be combined with foreach; torch refuses both together")

"""What ranks that have parts of parameters have in common: how many rows are whose, and what is not known of them."""

from __future__ import annotations

from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks.strategy import Asked

PLAIN: dict[str, object] = {
    "device": "cpu",
    "freeze": (),
    "checkpoint": (),
    "autocast": False,
    "zero_grad": "set_to_none",
    "accumulate": 1,
    "ema": False,
    "clip_grad": False,
    "step_in_backward": False,
}
"""What a step must be like, as nothing else is known."""

REFUSED = {
    "adafactor": "its state depends on whole parameters",
    "rprop": "torch can't run its step on parts of parameters",
}
"""Optimizers that are not known or that torch refuses, and why."""


def rows_of(rows: int, ranks: int, rank: int) -> int:
    """Return how many rows a rank has: as many as the first, as long as there are so many (`torch.chunk`).

    >>> [rows_of(10, 4, rank) for rank in range(4)]
    [3, 3, 3, 1]
    """
    each = -(-rows // ranks)
    return max(0, min(each, rows - rank * each))


def check_plain(parallel: str, step: Asked) -> None:
    """Refuse what is not known of a strategy.

    Raises:
        ArgumentError: names the argument, and says why.
    """
    for word, usual in PLAIN.items():
        if getattr(step, word) != usual:
            raise ArgumentError(
                f"{word}: can't be combined with parallel {parallel}, whose figures are of plain loops on the CPU"
            )
    if step.optimizer in REFUSED:
        why = REFUSED[step.optimizer]
        raise ArgumentError(f"optimizer: {step.optimizer} can't be combined with parallel {parallel}: {why}")

"""Ways to share a step's images out among ranks: each strategy with those of its options that are worth comparing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks import STRATEGIES, Alone, Choice, Strategy, checked_group
from vggkit.footprint.steps.options import StepOptions


class Sharing(NamedTuple):
    """A way to share the work.

    Args:
        strategy: what the ranks do.
        choice: of its options.
    """

    strategy: type[Strategy]
    choice: Choice

    @property
    def options(self) -> dict[str, Any]:
        """It as keywords of `memory`."""
        return {"parallel": self.strategy.name, **self.choice.options}

    @property
    def typed(self) -> str:
        """The same as options of the command line."""
        return " ".join(map(_typed, self.options.items()))

    def of(self, options: StepOptions, images: int, ranks: int) -> StepOptions:
        """Return what each rank's step is like. That the ranks can run it has not been checked yet.

        Args:
            options: what the step is like, whatever the ranks do.
            images: of the step, of all ranks and all batches whose gradients are added up.
            ranks: how many there are.

        Raises:
            ArgumentError: if the images can't be shared out evenly, or these are not the ranks for it; says why.
        """
        shared = options.replace(group=checked_group(ranks=ranks, **self.options))
        parts = shared.batches * shared.accumulate
        if images % parts:
            raise ArgumentError(f"batch: expected a multiple of {parts}, found {images}")
        return shared.replace(batch=images // parts)


def sharings(ranks: int) -> Iterator[Sharing]:
    """Yield every strategy of so many ranks, first as it is and then with further options.

    >>> [sharing.typed for sharing in sharings(2)][:2]
    ['--parallel ddp', '--parallel ddp-view']
    """
    for strategy in STRATEGIES.values():
        if strategy is not Alone:
            yield from (Sharing(strategy, choice) for choice in strategy.choices(ranks))


def _typed(option: tuple[str, Any]) -> str:
    """Write an option as it is typed.

    >>> _typed(("units", "layers")), _typed(("reshard_after_forward", False)), _typed(("static_graph", True))
    ('--units layers', '--no-reshard-after-forward', '--static-graph')
    """
    name, value = option[0].replace("_", "-"), option[1]
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{name}"
    return f"--{name} {value}"

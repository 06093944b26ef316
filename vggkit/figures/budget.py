"""Network → Overruns: the limits of its configuration's budget that it exceeds."""

from __future__ import annotations

from typing import NamedTuple

from vggkit.base.numbers import grouped, spell_bytes, spell_count
from vggkit.figures.summary import summarize
from vggkit.footprint.plan import memory
from vggkit.network import Network


class Overrun(NamedTuple):
    """A limit of a budget that a network exceeds.

    Args:
        limited: the name of the limit.
        batch: the batch at which it is meant; None where it is of one image.
        limit: what is allowed.
        actual: what the network needs.
        words: what bytes are meant: "reserved" by torch's allocator on a card, or "of tensors".
    """

    limited: str
    batch: int | None
    limit: int
    actual: int
    words: str = ""

    def __str__(self) -> str:
        if self.batch is None:
            return f"over budget: {self.limited} {grouped(self.actual)}, allowed {spell_count(self.limit)}"
        return (
            f"over budget: {self.limited} {grouped(self.actual)} bytes {self.words} at batch {self.batch},"
            f" allowed {spell_bytes(self.limit)}"
        )


def overruns(network: Network) -> list[Overrun]:
    """Return what a network exceeds of its configuration's budget."""
    budget = network.config.budget
    if budget is None:
        return []
    totals = summarize(network).totals
    needs = [
        Overrun(word, None, limit, getattr(totals, word))
        for word in ("parameters", "multiply_accumulates")
        if (limit := getattr(budget, word)) is not None
    ]
    for mode, peak in (("inference", budget.inference_peak), ("training", budget.training_peak)):
        if peak is not None:
            plan = memory(network, batch=peak.batch, mode=mode, device=budget.device)
            reserved = plan.reserved_bytes
            actual, words = (plan.peak_bytes, "of tensors") if reserved is None else (reserved, "reserved")
            needs.append(Overrun(f"{mode}_peak", peak.batch, peak.limit_bytes, actual, words))
    return [need for need in needs if need.actual > need.limit]

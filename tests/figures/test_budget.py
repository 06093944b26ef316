"""Budgets: what is kept says nothing, and what is not is told with both figures."""

from __future__ import annotations

import vggkit
from vggkit.figures.budget import Overrun, overruns
from vggkit.network import Network


def test_a_budget_that_is_kept_says_nothing_and_one_that_is_not_says_all() -> None:
    """Each limit that is exceeded is told with both figures."""
    text = "extends: D\nbudget: {{parameters: {}, multiply_accumulates: 16G, training_peak: {} at batch 64}}"
    assert overruns(Network.of(vggkit.loads(text.format("140M", "24GiB")))) == []
    over = overruns(Network.of(vggkit.loads(text.format("138M", "8GiB"))))
    assert [(overrun.limited, overrun.actual) for overrun in over] == [
        ("parameters", 138_357_544),
        ("training_peak", 8_914_993_152),
    ]


def test_a_budget_is_of_a_card_unless_it_says_cpu() -> None:
    """What torch's allocator reserves counts, or the tensors; both are published figures of torch."""
    for device, actual, words in (("cuda", 8_914_993_152, "reserved"), ("cpu", 6_343_885_544, "of tensors")):
        text = f"extends: D\nbudget: {{training_peak: 4GiB at batch 64, device: {device}}}"
        config = vggkit.loads(text)
        assert vggkit.loads(str(config)) == config
        assert overruns(Network.of(config)) == [Overrun("training_peak", 64, 4 * 2**30, actual, words)]
    assert "device" not in str(vggkit.loads("extends: D\nbudget: {training_peak: 4GiB, device: cuda}"))


def test_a_budget_is_kept_at_its_limit_and_not_beyond() -> None:
    """To the parameter and to the byte, and each peak is that of its own mode."""
    text = "extends: D\nbudget: {{parameters: {}, inference_peak: {}kB at batch 1, training_peak: {}kB, device: cpu}}"
    assert overruns(Network.of(vggkit.loads(text.format(138_357_544, 579722.4, 1722992.88)))) == []
    over = overruns(Network.of(vggkit.loads(text.format(138_357_543, 579722.399, 1722992.879))))
    assert [(overrun.limited, overrun.actual - overrun.limit) for overrun in over] == [
        ("parameters", 1), ("inference_peak", 1), ("training_peak", 1),
    ]  # fmt: skip


def test_an_overrun_says_both_figures_in_full() -> None:
    """A count, and bytes with their batch."""
    count = Overrun("parameters", None, 138_000_000, 138_357_544)
    assert str(count) == "over budget: parameters 138,357,544, allowed 138M"
    peak = Overrun("training_peak", 64, 24 * 2**30, 25_769_803_777, "reserved")
    assert str(peak) == "over budget: training_peak 25,769,803,777 bytes reserved at batch 64, allowed 24GiB"

"""What a card must have: a step's walk with torch's allocator and without it, and verdicts beside torch's own.

Run `python -m benchmarks.card` in a checkout, in an environment with the test extra and gcc. Each time is the best of
several. torch's own allocator runs on a card that isn't there, without arithmetic, and gives the same verdicts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import vggkit
from tests.footprint.card import Card, Cards
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.card import Loop, card_use, run
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions

GIB = 1 << 30
BATCHES = range(283, 303)
"""Of D around the first that runs out of memory on 24 GiB."""


def seconds(call: Callable[[], object], times: int = 1, rounds: int = 5) -> float:
    """Return the seconds that a call takes, in the best of some rounds."""

    def once() -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - start) / times

    return min(once() for _ in range(rounds))


def pair(card: Card, loop: Loop, batch: int) -> tuple[float, float]:
    """Return the seconds that our verdict of a batch takes, and those that torch takes for as many steps."""
    steps = len(run(loop, batch, 24 * GIB, Settings()))
    ours = seconds(lambda: run(loop, batch, 24 * GIB, Settings()))
    return ours, seconds(lambda: card.ask(name="D", batch=batch, steps=steps))


def main() -> None:
    network = vggkit.Network.of("D")
    options = StepOptions(batch=16, device="cuda")
    walk = seconds(lambda: step_of(network, options).moments, 20)
    whole = seconds(lambda: card_use(step_of(network, options).loop, options.batch, Settings()), 20)
    print(
        f"a walk of D: {walk * 1000:.2f} ms; with the allocator, until the loop repeats itself: {whole * 1000:.2f} ms"
    )
    print(f"  {whole / walk:.2f} times (target 4)")
    for limit, target in (("24GiB", 2), ("80GiB", 6)):
        taken = seconds(partial(vggkit.max_batch, network, limit, context=0), rounds=3)
        print(f'max_batch("D", "{limit}"): {taken:.2f} s (target {target} s)')
    loop = step_of(network, options).loop
    with tempfile.TemporaryDirectory() as folder, Cards(Path(folder)) as cards:
        card = cards("play_steps.py", 24 * GIB)
        pairs = [pair(card, loop, batch) for batch in BATCHES]
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    print(f"a batch of D on 24 GiB: {ours * 1000:.1f} ms; torch, for as many steps: {theirs * 1000:.0f} ms")
    print(f"  {statistics.median(theirs / ours for ours, theirs in pairs):.1f} times faster than torch's own allocator")


if __name__ == "__main__":
    main()

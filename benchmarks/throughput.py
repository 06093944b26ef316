"""Calls a second in one process: summaries, loads, and models against torchvision.

Run `python benchmarks/throughput.py` in an environment with the test extra.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torchvision

import vggkit


def seconds(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def best(call: Callable[[], object], times: int, rounds: int = 5) -> float:
    return min(seconds(call, times) for _ in range(rounds))


def main() -> None:
    torch.set_num_threads(1)
    network, text = vggkit.Network.of("D"), vggkit.dump("D")
    print(f"summarize(network):            {1 / best(lambda: vggkit.summarize(network), 200):,.0f} a second")
    whole = best(lambda: vggkit.summarize(vggkit.Network.of(vggkit.loads(text))), 50)
    print(f"loads + network + summarize:   {1 / whole:,.0f} a second")
    vggkit.build("D", device="meta")
    print(f'memory("D"):                   {best(lambda: vggkit.memory(network), 50) * 1000:.2f} ms')
    tensors = best(lambda: vggkit.max_batch(network, "24GiB", device="cpu"), 50)
    print(f'max_batch(…, device="cpu"):     {tensors * 1000:.2f} ms')
    print(f'build("D", device="meta"):     {best(lambda: vggkit.build("D", device="meta"), 10) * 1000:.1f} ms')
    pairs = [
        (seconds(lambda: vggkit.build("D"), 1), seconds(lambda: torchvision.models.vgg16(weights=None), 1))
        for _ in range(6)
    ][1:]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours = statistics.median(ours for ours, _ in pairs)
    print(f'build("D"):                    {ours:.2f} s, {ratio:.2f} times torchvision\'s vgg16(weights=None)')


if __name__ == "__main__":
    main()

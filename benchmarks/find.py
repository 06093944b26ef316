"""Variants a second and the memory that they take: 100,000 of D with parameters, MACs and the peak of a training step.

Run `python benchmarks/find.py` in an environment with vggkit. The target is 5,000 variants a second on two cores, and
memory that does not grow with the search.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

TARGET = 5_000
CLASSES, WIDTHS = 1000, 50

MEASURED = """
import resource, sys
from vggkit.cli import main
try:
    main(sys.argv[1:])
finally:
    own, others = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(own, others, file=sys.stderr)
"""


def measure(classes: int) -> tuple[int, float, int, int]:
    """Return the number of variants, seconds, and the largest process's and worker's kilobytes, of a search to CSV."""
    arguments = [
        "find", "D", "--batch", "64", "--only", "parameters,macs,training_peak", "--format", "csv", "-o", os.devnull,
        "--vary", "num_classes=" + ",".join(map(str, range(1, classes + 1))),
        "--vary", "width=" + ",".join(f"{number / WIDTHS:g}" for number in range(1, WIDTHS + 1)),
        "--vary", "batch_norm=true,false",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    own, others = map(int, done.stderr.split()[-2:])
    return 2 * WIDTHS * classes, seconds, own, others


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for classes in (CLASSES, CLASSES * 5):
        count, seconds, own, worker = measure(classes)
        print(
            f"{count:>9,} variants: {seconds:5.1f} s, {count / seconds:7,.0f} a second on {cores} cores"
            f" (target {TARGET:,}); {own / 1024:.0f} MB, each worker up to {worker / 1024:.0f} MB"
        )


if __name__ == "__main__":
    main()

"""Whole processes: `vggkit summarize D` through a pipe against click, msgspec, yaml and rich, and against torchinfo.

Run `python benchmarks/startup.py` in an environment with the test extra. Prints medians and ratios.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

BASELINE = """
import click, msgspec, yaml
from rich.console import Console
from rich.table import Table
table = Table()
for column in range(10):
    table.add_column(str(column))
for row in range(41):
    table.add_row(*["1,234,567"] * 10)
Console(width=140).print(table)
"""

TORCHINFO = """
import torchinfo, torchvision
print(torchinfo.summary(torchvision.models.vgg16(weights=None), (1, 3, 224, 224), verbose=0))
"""

VGGKIT = [sys.executable, "-m", "vggkit", "summarize", "D"]


def seconds(command: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def main() -> None:
    pairs = [(seconds(VGGKIT), seconds([sys.executable, "-c", BASELINE])) for _ in range(12)][2:]
    vggkit = statistics.median(ours for ours, _ in pairs)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"vggkit summarize D: {vggkit * 1000:.0f} ms, {peak:.1f} MiB at most")
    print(f"against the bare imports and a table: {ratio:.2f} times")
    torchinfo = min(seconds([sys.executable, "-c", TORCHINFO]) for _ in range(3))
    print(f"torchvision's vgg16 through torchinfo: {torchinfo:.2f} s, {torchinfo / vggkit:.0f} times vggkit")


if __name__ == "__main__":
    main()

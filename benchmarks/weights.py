"""Pretrained weights: loading, features and classified folders, each against a peer measured in the same run.

Run `python benchmarks/weights.py [load] [features] [classify]` in an environment with the test extra; it needs 2 GB on
the disk for temporary files. Peers take turns, so that other work on the machine slows both alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import torch
import torchvision
from PIL import Image
from torchvision.models.feature_extraction import create_feature_extractor

import vggkit

Row = tuple[str, str, str]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turn(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median of each call in seconds; a first round that warms caches up does not move it."""
    taken = [[seconds(call) for call in calls] for _ in range(rounds)]
    return [statistics.median(each) for each in zip(*taken)]


def python(code: str, *arguments: str) -> str:
    """Run code in a process of its own, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def times(ours: float, theirs: float) -> str:
    return f"{theirs / ours:.2f} times as fast: {ours * 1000:,.0f} ms, torchvision {theirs * 1000:,.0f} ms"


# Loading

OUR_LOAD = 'import sys, vggkit; model = vggkit.build("D", weights=sys.argv[1])'
THEIR_LOAD = """
import sys, torch, torchvision
model = torchvision.models.vgg16(weights=None)
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
"""


def load(folder: Path) -> Iterator[Row]:
    ours, theirs = str(folder / "x.safetensors"), str(folder / "vgg16.pth")
    model = torchvision.models.vgg16(weights=None)
    torch.save(model.state_dict(), theirs)
    vggkit.save_weights(vggkit.build("D", weights=theirs), ours)
    image = torch.rand(1, 3, 224, 224)

    def our_model() -> torch.nn.Module:
        return vggkit.build("D", weights=ours)

    def their_model() -> torch.nn.Module:
        model = torchvision.models.vgg16(weights=None)
        model.load_state_dict(torch.load(theirs, weights_only=True))
        return model

    yield "load D", "≥ 5 times as fast", times(*in_turn(7, our_model, their_model))
    *pair, bare = in_turn(
        5, lambda: python(OUR_LOAD, ours), lambda: python(THEIR_LOAD, theirs), lambda: python("import torch")
    )
    yield "load D, whole process", "said", times(*pair)
    yield "of both, importing torch alone", "said", f"{bare * 1000:,.0f} ms"
    with torch.inference_mode():
        pair = in_turn(5, lambda: our_model().eval()(image), lambda: their_model().eval()(image))
    yield "load D, and one picture's scores", "said", times(*pair)


# Features

OURS, THEIRS = ["relu1_2", "relu2_2", "relu3_3"], ["features.3", "features.8", "features.15"]
PREAMBLE = """
import re, sys, torch, torchvision, vggkit
from torchvision.models.feature_extraction import create_feature_extractor
def resident(word):
    return int(re.search(word + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
images = torch.rand(4, 3, 224, 224)
start = resident("VmRSS")
"""
OUR_FEATURES = f"""{PREAMBLE}
taps = vggkit.features("D", {OURS}, weights=sys.argv[1])
"""
THEIR_FEATURES = f"""{PREAMBLE}
model = torchvision.models.vgg16(weights=None)
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
taps = create_feature_extractor(model.eval(), {THEIRS})
"""
PEAK = """
with torch.inference_mode():
    taps(images)
print(resident("VmHWM") - start)
"""  # Linux's own figure: getrusage's begins with what the process that started this one had


def allocated(call: Callable[[], object]) -> int:
    """Return the most bytes that torch's CPU allocator has handed out at one moment of a call, beyond those before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def features(folder: Path) -> Iterator[Row]:
    ours, theirs = str(folder / "x.safetensors"), str(folder / "vgg16.pth")
    model = torchvision.models.vgg16(weights=None).eval()
    torch.save(model.state_dict(), theirs)
    vggkit.save_weights(vggkit.build("D", weights=theirs), ours)
    our_taps = vggkit.features("D", OURS, weights=ours)
    their_taps = create_feature_extractor(model, THEIRS)
    images = torch.rand(4, 3, 224, 224)
    with torch.inference_mode():
        assert all(map(torch.equal, our_taps(images).values(), their_taps(images).values()))
        pair = in_turn(9, lambda: our_taps(images), lambda: their_taps(images))
        yield "features to relu3_3, batch 4", "≥ 1 times as fast", times(*pair)
        most = allocated(lambda: our_taps(images)), allocated(lambda: their_taps(images))
    yield "the call's peak of torch's allocator", "≤ 1 times the bytes", memory(*most)
    most = int(python(OUR_FEATURES + PEAK, ours)), int(python(THEIR_FEATURES + PEAK, theirs))
    yield "the process's peak, loading included", "≤ 1 times the bytes", memory(*most)


def memory(ours: int, theirs: int) -> str:
    return f"{ours / theirs:.2f} times: {ours / 1e6:,.0f} MB, torchvision {theirs / 1e6:,.0f} MB"


# Folders

PICTURES, BATCH = 100, 16
NETWORK, PEER = "A", torchvision.models.vgg11
"""The fastest of the paper's: it leaves the least time to decode pictures in."""


def draw(folder: Path) -> list[Path]:
    """Write JPEG files of 500×375: gradients with noise, which is as hard to decode as photographs."""
    random = numpy.random.default_rng(0)
    ramp = numpy.linspace(0, 200, 500)[None, :, None] * random.random((PICTURES, 1, 1, 3))
    paths = [folder / f"{number:03}.jpg" for number in range(PICTURES)]
    for path, colours in zip(paths, ramp):
        pixels = colours + random.integers(0, 55, (375, 500, 3))
        Image.fromarray(pixels.astype(numpy.uint8)).save(path, quality=90)
    return paths


def classify(folder: Path) -> Iterator[Row]:
    paths = draw(folder)
    torch.save(PEER(weights=None).state_dict(), folder / "checkpoint.pth")
    classifier = vggkit.Classifier(NETWORK, weights=folder / "checkpoint.pth")
    model = classifier.model
    batches = torch.rand(PICTURES, 3, 224, 224).split(BATCH)

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(batch)

    list(classifier.stream(paths[:BATCH]))
    ours, theirs = in_turn(3, lambda: list(classifier.stream(paths, batch=BATCH)), bare)
    rates = f"{PICTURES / ours:.2f} pictures a second, bare loop {PICTURES / theirs:.2f}"
    yield (
        f"classify a folder of {PICTURES} by {NETWORK}",
        "≥ 0.95 times as fast",
        f"{theirs / ours:.3f} times: {rates}",
    )


FIGURES: dict[str, Callable[[Path], Iterator[Row]]] = {"load": load, "features": features, "classify": classify}


def main() -> None:
    print(f"{torch.get_num_threads()} threads, load of the machine {os.getloadavg()[0]:.1f}")
    print(f"{'figure':<38}{'asked':<24}measured")
    for name in sys.argv[1:] or FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            for figure, asked, measured in FIGURES[name](Path(folder)):
                print(f"{figure:<38}{asked:<24}{measured}", flush=True)


if __name__ == "__main__":
    main()

"""What the shell offers to complete: the words of options, overrides and layers, each from where it is defined."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable

import pytest
from click.shell_completion import FishComplete

from vggkit import Network
from vggkit.cli import main
from vggkit.figures.measures import FOUND
from vggkit.footprint.cards import CARDS
from vggkit.footprint.group_plan import SORTS
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.steps.losses import LOSSES
from vggkit.footprint.steps.options import DEVICES, MODES
from vggkit.network import ELEMENT_BYTES
from vggkit.notation.overrides import OVERRIDES
from vggkit.pictures.plot import PICTURE_KINDS

DTYPED = ("summarize", "memory", "verify", "explain", "reconcile", "compare", "find", "plot", "report")


def offered(*words: str) -> list[str]:
    """Return what the shell would offer for the last word."""
    *before, last = words
    shell = FishComplete(main, {}, "vggkit", "_VGGKIT_COMPLETE")
    return [item.value for item in shell.get_completions(before, last) if item.type == "plain"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        *(((command, "D", "--dtype", ""), ELEMENT_BYTES) for command in DTYPED),
        *(((command, "D", "--optimizer", ""), OPTIMIZERS) for command in ("memory", "verify", "compare", "find")),
        (("plot", "D", "--kind", ""), PICTURE_KINDS),
        (("memory", "D", "--mode", ""), MODES),
        (("verify", "D", "--loss", ""), LOSSES),
        (("memory", "D", "--mode", "perceptual", "--taps", "relu1_1,relu1_"), ["relu1_1,relu1_1", "relu1_1,relu1_2"]),
        *(((command, "D", "--device", ""), DEVICES) for command in ("memory", "verify")),
        (("memory", "D", "--fit", ""), [card.name.replace(" ", "-") for card in CARDS]),
        (("find", "--sort", ""), FOUND),
        (("plan", "D", "--sort", ""), SORTS),
        (("plan", "D", "--card", ""), [card.name.replace(" ", "-") for card in CARDS]),
        (("find", "--pareto", ""), FOUND),
        *(((command, "D", "--set", ""), [f"{word}=" for word in OVERRIDES]) for command in ("summarize", "show")),
        (("find", "--vary", ""), [f"{word}=" for word in OVERRIDES]),
        (("explain", "D", ""), [placed.name for placed in Network.of("D")]),
        (("memory", "D", "--checkpoint", ""), [f"block{number}" for number in range(1, 6)]),
    ],
)
def test_every_word_is_offered(words: tuple[str, ...], wanted: Iterable[str]) -> None:
    """All that may be said, and nothing else."""
    assert offered(*words) == list(wanted)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("summarize", "D", "--dtype", "B"), ["bfloat16"]),
        (("summarize", "D", "--set", "num"), ["num_classes="]),
        (("summarize", "D", "--set", "batch_norm="), ["batch_norm=true", "batch_norm=false"]),
        (("summarize", "D", "--set", "head=g"), ["head=gap"]),
        (("summarize", "D", "--set", "activation=leaky"), ["activation=leaky-relu"]),
        (("summarize", "D", "--set", "width="), []),
        (("summarize", "D", "--set", "nothing="), []),
        (("find", "D", "--vary", "pool=max,a"), ["pool=max,avg"]),
        (("find", "D", "--only", "parameters,train"), ["parameters,training_peak_bytes"]),
        (("compare", "D", "--only", "top"), ["top1_error", "top5_error"]),
        (("compare", "D", "--only", "lay"), ["layers"]),
        (("explain", "D", "block3_c"), ["block3_conv1", "block3_conv2", "block3_conv3"]),
        (("explain", "D", "conv5_"), ["conv5_1", "conv5_2", "conv5_3"]),
        (("explain", "D", "classifier."), [f"classifier.{number}" for number in range(7)]),
        (("explain", "D", "--set", "head=gap", "fc1"), []),
        (("explain", "nosuch", "b"), []),
        (("memory", "D", "--freeze", "block1,block2_"), ["block1,block2_conv1", "block1,block2_conv2"]),
        (("memory", "D", "--batch", "3", "--freeze", "fc"), ["fc1", "fc2"]),
        (("memory", "--freeze", "b"), []),
        (("classify", "x.png", "--config", "thinet"), ["thinet_gap", "thinet_tiny"]),
    ],
)
def test_what_is_begun_is_completed(words: tuple[str, ...], wanted: list[str]) -> None:
    """The values behind a key, the last of several names, a layer in another vocabulary; nothing where all is wrong."""
    assert offered(*words) == wanted


def test_an_override_is_offered_with_its_meaning() -> None:
    """Shells that show a description beside a word have one to show."""
    shell = FishComplete(main, {}, "vggkit", "_VGGKIT_COMPLETE")
    (item,) = shell.get_completions(["summarize", "D", "--set"], "num")
    assert item.help == OVERRIDES["num_classes"].meaning


def test_completing_needs_no_torch() -> None:
    """Nobody waits for it at the prompt."""
    code = (
        "import sys, json\n"
        "from tests.cli.test_completion import offered\n"
        "words = [('explain', 'D', 'b'), ('memory', 'D', '--freeze', 'b'), ('plot', 'D', '--kind', ''),\n"
        "         ('find', '--only', ''), ('compare', '--only', ''), ('summarize', 'D', '--set', 'n')]\n"
        "print(json.dumps([all(map(bool, [offered(*word) for word in words])), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [True, False]

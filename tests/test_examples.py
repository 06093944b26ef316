"""The examples: run as their reader runs them, and judged by their files alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import vggkit
from tests.conftest import ROOT, sample

EXAMPLES = ROOT / "examples"
ASKED = 0.97


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the example once: its folder, and what it prints."""
    folder = tmp_path_factory.mktemp("digits") / "new"
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "error", str(EXAMPLES / "digits.py"), "--output", str(folder)]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def held_out() -> list[tuple[Any, int]]:
    """Return the digits that the example has not seen, as scikit-learn gives them: 8×8 values to 16, and a class."""
    data = load_digits()
    _, digits, _, classes = train_test_split(data.images, data.target, test_size=500, random_state=0)
    return list(zip(digits, classes.tolist()))


def test_the_digits_model_tells_digits_it_has_not_seen(trained: tuple[Path, str]) -> None:
    """The saved file alone tells at least 97 % of the held-out digits, and exactly as many as the example says."""
    folder, said = trained
    model = vggkit.load_model(folder / "digits.safetensors").eval()
    with torch.inference_mode():
        right = sum(
            int(model(torch.tensor(digit / 16, dtype=torch.float32)[None, None]).argmax()) == true
            for digit, true in held_out()
        )
    assert right / 500 >= ASKED
    assert f"held out: {right} of 500 right, {right / 500:.1%}\n" in said


def test_the_digits_model_is_told_by_inspect(trained: tuple[Path, str], process: Callable[..., Any]) -> None:
    """`vggkit inspect` names its classes and input, and prints the YAML that it was built from."""
    done = process("inspect", str(trained[0] / "digits.safetensors"))
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "with batch norm, 10 classes, input 1×8×8" in text
    config = vggkit.loads(text[text.index("name: digits") :])
    assert config == vggkit.load(EXAMPLES / "digits.yaml")


def test_the_digits_model_names_pictures(
    trained: tuple[Path, str], tmp_path: Path, process: Callable[..., Any]
) -> None:
    """`vggkit classify` tells at least 97 % of the held-out digits from PNG files, as sure as the model itself."""
    digits = held_out()
    for number, (digit, _) in enumerate(digits):
        Image.fromarray((digit * 15).astype("uint8")).save(tmp_path / f"{number:03}.png")
    done = process("classify", str(tmp_path), "--weights", str(trained[0] / "digits.safetensors"), "--format", "json")
    assert (done.returncode, done.stderr) == (0, b"")
    results = json.loads(done.stdout)
    assert [Path(result["image"]).name for result in results] == [f"{number:03}.png" for number in range(500)]
    best = [result["predictions"][0] for result in results]
    assert sum(found["index"] == true for found, (_, true) in zip(best, digits)) / 500 >= ASKED

    model = vggkit.load_model(trained[0] / "digits.safetensors").eval()
    with torch.inference_mode():
        x = torch.stack([torch.tensor(digit / 16, dtype=torch.float32)[None] for digit, _ in digits])
        shares = model(x).softmax(1).max(1)
    assert [found["index"] for found in best] == shares.indices.tolist()
    # in other batches torch's kernels add in another order
    assert [found["probability"] for found in best] == pytest.approx(shares.values.tolist(), rel=1e-5)


def test_what_the_digits_example_says_to_try_works(trained: tuple[Path, str], process: Callable[..., Any]) -> None:
    """The commands that it prints run as they stand; a picture's name begins with its class, and nearly all agree."""
    commands = [shlex.split(line) for line in trained[1].splitlines() if line.startswith("  vggkit ")]
    assert [command[1] for command in commands] == ["inspect", "classify"]
    inspected, classified = (process(*command[1:]) for command in commands)
    assert (inspected.returncode, classified.returncode) == (0, 0)
    named = re.findall(r"/(\d)-\d{3}\.png\n\s+class (\d) ", classified.stdout.decode())
    assert len(named) == len(list((trained[0] / "digits").iterdir())) == 20
    assert sum(true == found for true, found in named) >= 19


# Several ranks

OF_TWO = "ddp ddp-view zero1 fsdp tensor pipeline"
OF_FOUR = "tensor+ddp pipeline+ddp"
STAGED = ("pipeline", "pipeline+ddp")


def run_ranks(*command: str) -> str:
    """Run the example of several ranks; return what it prints."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("asked", sample(["fsdp", OF_TWO, OF_FOUR], ["fsdp"]))
def test_ranks_train_as_one_process_does(asked: str, tmp_path: Path) -> None:
    """By each strategy, the losses of each epoch are those of one process to nine digits; what is saved is loaded."""
    strategies = asked.split()
    script, options = str(EXAMPLES / "ranks.py"), ("--epochs", "1", "--output", str(tmp_path))
    alone = run_ranks("-W", "error", script, *options)
    assert re.fullmatch(r"(none, epoch \d: loss \d\.\d{9}\n)+none, loaded in one process: \d+ of 500 right\n", alone)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4" if asked == OF_FOUR else "2")
    said = run_ranks(*torchrun, script, "--parallel", *strategies, *options)
    assert said == "".join(alone.replace("none", strategy) for strategy in strategies)
    files = [f"digits-{strategy}.safetensors" for strategy in ("none", *strategies) if strategy not in STAGED]
    folders = [f"digits-{strategy}" for strategy in strategies if strategy in STAGED]
    assert {path.name for path in tmp_path.iterdir()} == {*files, *folders}

"""What every test may use: golden files, and the command as a process of its own."""

from __future__ import annotations

import difflib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.footprint.card import Cards
from tests.keras_process import Keras
from vggkit.base import hdf5, rehearsal

# no test depends on a clock, and in CI none on chance: there the drawn examples are the same every time
settings.register_profile(
    "plain", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=os.environ.get("CI") == "true"
)
settings.load_profile("plain")

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: as many workers as cores leave one for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore_glob = ["data/*.py"]  # what a type checker is shown, and nobody runs

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update-golden."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files that differ")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that has another name in each process: workers would find different tests, and run none."""
    for item in items:
        if " at 0x" in item.name:
            raise pytest.UsageError(f"{item.nodeid}: its name has an address; give it an id")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: to look through torch again and again takes 8 % of the time."""
    gc.freeze()


@pytest.fixture
def rehearsed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearse good HDF5 files in this process, for tests of what is in them: each process of its own takes 0.1 s."""
    in_its_own_process = hdf5.rehearse

    def rehearse(path: str, member: str = "") -> None:
        try:
            rehearsal.rehearse(path, member, hdf5.LARGEST_ATTRIBUTE)
        except Exception:  # what is refused is refused as users see it
            in_its_own_process(path, member)

    monkeypatch.setattr(hdf5, "rehearse", rehearse)


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cards]:
    """Return a process with torch on a card, by program, the card's bytes and settings; each is started once."""
    with Cards(tmp_path_factory.mktemp("card")) as started:
        yield started


def sample(values: Sequence[str], few: Sequence[str]) -> list[Any]:
    """Return the values to parametrize a test with; those that are not among the few are slow."""
    return [value if value in few else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with tests/golden/NAME, or rewrite that under --update-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        if not path.exists():
            pytest.fail(f"no golden file {name}; look at this, then run pytest --update-golden:\n{text}", pytrace=False)
        wanted = path.read_text(encoding="utf-8")
        if text != wanted:
            lines = difflib.unified_diff(wanted.splitlines(), text.splitlines(), name, "now", lineterm="")
            pytest.fail("\n".join(lines), pytrace=False)

    return compare


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what would change a table's width or colour."""
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TERM", "PYTHONIOENCODING", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def process() -> Run:
    """Run `python -m vggkit ARGUMENTS` as a process of its own; keywords are environment variables."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, "-m", "vggkit", *arguments],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def keras() -> Iterator[Keras]:
    """Start Keras once for all programs that run with it."""
    with Keras() as process:
        yield process


KERAS = """
import json, os, random
import keras
from keras.src.utils.summary_utils import readable_memory_size

def listing(model, columns):
    os.environ["COLUMNS"] = str(columns)
    lines = []
    model.summary(print_fn=lambda text, line_break=True: lines.append(text))
    return "\\n".join(lines)

said = {}
for name in ("VGG16", "VGG19"):
    keras.backend.clear_session()
    with keras.device("meta"):  # a summary has no values
        model = getattr(keras.applications, name)(weights=None)
    for columns in (60, 80, 140):
        said[f"{name} {columns}"] = listing(model, columns)
keras.backend.clear_session()
x = image = keras.Input((32, 32, 3))
for layer in (
    keras.layers.Conv2D(8, 3, padding="same", name="block1_conv1"),
    keras.layers.BatchNormalization(name="block1_norm1"),
    keras.layers.MaxPooling2D(name="block1_pool"),
    keras.layers.Flatten(name="flatten"),
    keras.layers.Dense(10, name="predictions"),
):
    x = layer(x)
said["batch norm"] = listing(keras.Model(image, x, name="small"), 80)
sizes = random.Random(1).choices(range(64), k=2000)
sizes = [0, 1, 1023, 1024, 1025, 2**20 - 1, *(random.Random(i).randrange(2**bits + 1) for i, bits in enumerate(sizes))]
said["sizes"] = [[size, readable_memory_size(size)] for size in sizes]
print(json.dumps(said))
"""


@pytest.fixture(scope="session")
def keras_says(keras: Keras, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Keras itself prints, asked once."""
    said: dict[str, Any] = json.loads(keras.run(KERAS, tmp_path_factory.mktemp("keras")))
    return said

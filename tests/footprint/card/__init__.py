"""torch's own CUDA allocator on a machine without a card, asked by the tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.forking import Forks, Running
from tests.judges import missing, package, program

HERE = Path(__file__).parent
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
"""What torch opens by name, and finds in `card.c`, too."""


def build(folder: Path) -> Path:
    """Build the card into a folder; return the library to load before torch."""
    gcc = program("gcc", "cc")
    if package("torch").version.cuda is None:
        missing("torch is built without CUDA")
    headers = [part for name in ("nvidia.cu13.include", "triton.backends.nvidia.include") for part in _folders(name)]
    library = folder / "card.so"
    command = [gcc, "-shared", "-fPIC", "-O1", *(f"-I{header}" for header in headers), HERE / "card.c", "-o", library]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        missing(f"the card can't be built: {done.stderr.strip().splitlines()[0]}")
    for name in LIBRARIES:
        (folder / name).symlink_to(library.name)
    return library


def _folders(module: str) -> list[str]:
    """Return where a package of headers lies, which is a folder without modules."""
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return []
    return list(spec.submodule_search_locations or ()) if spec else []


MODULES = ("torch._dynamo", "vggkit.model.recorder")
"""What the programs import, and torch when its optimizers run."""

Card = Running
"""A program in which torch runs on the card."""


class Cards(Forks):
    """Programs with torch on a card, by the card's bytes and the allocator's settings: each is started once.

    Args:
        folder: where the card is built.

    Attributes:
        environment: the variables with which torch finds a card.
    """

    def __init__(self, folder: Path) -> None:
        library = build(folder)
        self.environment = {
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(library.parent), os.environ.get("LD_LIBRARY_PATH")])),
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # running out of memory is what is asked for
        }
        super().__init__(MODULES, self.environment)
        self._running: dict[tuple[str, int, str], Card] = {}
        self._stack = ExitStack()

    def __call__(self, player: str, card_bytes: int, settings: str = "") -> Card:
        """Return a program.

        Args:
            player: the program that answers.
            card_bytes: how large the card is.
            settings: of the allocator.
        """
        key = (player, card_bytes, settings)
        if key not in self._running:
            environment = {"CARD_BYTES": str(card_bytes), "PYTORCH_ALLOC_CONF": settings}
            self._running[key] = self._stack.enter_context(self.start(HERE / player, environment))
        return self._running[key]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        super().__exit__(kind, error, trace)

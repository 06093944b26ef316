"""Mutated checkpoints, each opened and loaded: `python -m tests.model.weights.fuzz NUMBER [FORMAT...]`.

Seeds are small good files of every format and the hostile ones. A mutation flips bytes, cuts, repeats or exchanges
parts, or changes numbers and words in what says where the tensors are. Whatever comes out is one line of an error, or
a model. Work is done in processes of their own, so that a crash of the HDF5 library is seen and told.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import vggkit
from tests.model.weights.hostile import zipped
from tests.model.weights.hostile_programs import FILES
from tests.model.weights.makers import in_layout
from vggkit.base import hdf5, rehearsal
from vggkit.model.weights.inspection import inspect

ENDINGS = ("pth", "safetensors", "h5", "keras", "prototxt", "caffemodel", "onnx", "pt2", "pt")
GOOD = {"pth": 2, "safetensors": 2, "h5": 2, "keras": 3, "prototxt": 1, "caffemodel": 1, "onnx": 4, "pt2": 2, "pt": 2}
"""How many seeds of each format come first and are good."""
SMALL = 2**16
"""Bytes of the largest seed: of a larger one most mutations would change values alone."""
SECONDS = 1
"""Of processor time for one file; a guard: those that end take 0.03."""
MEMORY = 10**9
"""Bytes of addresses beyond those of the libraries; a guard."""
REHEARSED = "rehearsed"
TF2ONNX = Path(__file__).parents[2] / "data" / "tf2onnx"
"""Files that say more in operations than in what they state of themselves."""


def small_network() -> vggkit.VGG:
    """Return the model whose files are mutated, and that is loaded into."""
    return vggkit.build(
        vggkit.loads(
            "{input: 3x8x8, blocks: [[conv3-4, maxpool], [{conv: 6, norm: batch}]], classifier: [FC-5, FC-4, FC-3]}"
        ),
        seed=0,
    )


def seeds(folder: Path, formats: tuple[str, ...]) -> dict[str, list[bytes]]:
    """Return small files, good ones of every format and hostile ones of some."""
    good = folder / "good"
    good.mkdir()
    model = small_network()
    found: dict[str, list[bytes]] = {format: [] for format in ENDINGS}
    for layout in ("torchvision", "timm", "vggkit", "keras", "keras3"):
        path = in_layout(model, layout, good)
        found[path.suffix[1:]].append(path.read_bytes())
    old = good / "legacy.pth"
    torch.save(dict(model.state_dict()), old, _use_new_zipfile_serialization=False)
    found["pth"].append(old.read_bytes())
    whole = good / "whole.keras"
    zipped(whole, {"model.weights.h5": found["h5"][-1], "config.json": b"{}"})
    found["keras"].append(whole.read_bytes())
    for number, source in enumerate((model, model.config)):
        vggkit.export(source, good / f"{number}.keras")
        found["keras"].append((good / f"{number}.keras").read_bytes())
    for ending in ("prototxt", "caffemodel", "onnx", "pt2"):
        other = good / f"whole.{ending}"
        vggkit.export(model.config if ending == "prototxt" else model, other)
        found[ending].append(other.read_bytes())
    for ending in ("onnx", "pt2"):
        vggkit.export(model.config, good / f"layers.{ending}")
        found[ending].append((good / f"layers.{ending}").read_bytes())
    found["onnx"] += [(TF2ONNX / name).read_bytes() for name in ("maps.onnx", "valid.onnx")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that TorchScript is old
        programs = torch.jit.script(model), torch.jit.trace(model, torch.rand(1, 3, 8, 8))
        for number, program in enumerate(programs):
            torch.jit.save(program, str(good / f"{number}.pt"))
            found["pt"].append((good / f"{number}.pt").read_bytes())
    (folder / "hostile").mkdir()
    for name, (make, _) in FILES.items():
        path = folder / "hostile" / name
        if path.suffix[1:] not in formats:
            continue
        make(path)
        if path.stat().st_size <= SMALL:
            found[path.suffix[1:]].append(path.read_bytes())
    return found


NUMBERS = (0, 1, 2, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (
    b"layer {",
    b"dim: 3",
    b"conv1_1",
    b"weight",
    b"features.0",
    b"data.pkl",
    b"shape",
    b"[0]",
    b"F32",
    b"kernel",
    b"layer_names",
    b"\x80\x02",
    b"PK",
)


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return a file with one to four changes; most of them near its beginning or end, where structure is."""
    result = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not result:
            break
        part = chance.choice((len(result), 64, 1024, 4096))
        at = min(len(result) - 1, chance.randrange(part))
        at = chance.choice((at, len(result) - 1 - at))
        kind = chance.randrange(8)
        if kind < 2:
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            result[at] = chance.randrange(256)
        elif kind == 3:
            size = chance.choice((1, 2, 4, 8))
            result[at : at + size] = (chance.choice(NUMBERS) % 256**size).to_bytes(
                size, chance.choice(("little", "big"))
            )
        elif kind == 4:
            word = chance.choice(WORDS)
            result[at : at + chance.choice((0, len(word)))] = word
        elif kind == 5:
            del result[at : at + chance.choice((1, 8, 512, len(result)))]
        elif kind == 6:
            length, start = chance.randrange(1, 512), chance.randrange(max(1, len(other)))
            result[at : at + chance.choice((0, length))] = other[start : start + length]
        else:
            length, to = chance.randrange(1, 256), chance.randrange(len(result))
            result[to : to + chance.choice((0, length))] = result[at : at + length]
    return bytes(result)


def packed(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return an archive whose member is mutated, and whose checksums are right: what is inside is read, then."""
    import io

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        target = io.BytesIO()
        chosen = chance.choice([name for name in members if name.endswith((".pkl", ".h5", ".json"))])
        zipped(target, {**members, chosen: mutated(members[chosen], other, chance)})
    except Exception:  # a seed that is no archive to others either
        return mutated(content, other, chance)
    return target.getvalue()


def mutations(format: str, seeds: list[bytes], number: int, start: int) -> Iterator[bytes]:
    """Yield files, always the same for a number."""
    for at in range(start, number):
        chance = random.Random(at)
        # every other one of a good file: of a hostile one most mutations are refused for what it was
        content, other = seeds[at // 2 % GOOD[format] if at % 2 else at // 2 % len(seeds)], chance.choice(seeds)
        change = packed if content.startswith(b"PK") and at % 4 else mutated
        yield change(content, other, chance)


def _opened(path: Path, model: vggkit.VGG, tell: Callable[[str], None]) -> str:
    """Inspect a file and load it; return what came out."""
    said: list[str] = []

    def rehearsed(path: str, member: str = "") -> None:
        """Rehearse in this process, which may crash in it: that is what a rehearsal is for."""
        tell(REHEARSED)
        try:
            rehearsal.rehearse(path, member, hdf5.LARGEST_ATTRIBUTE)
        except Exception as error:
            raise ValueError(str(str(error).splitlines()[:1])) from None
        finally:
            tell("opened")

    hdf5.rehearse = rehearsed

    def used(path: Path) -> object:
        """Load a file's weights, or where it has a place for none, read what it says."""
        if path.suffix == ".prototxt":
            return vggkit.import_config(path)
        return vggkit.load_weights(model, path, strict=False)

    for act in (inspect, used, *([vggkit.import_config] if path.suffix == ".keras" else [])):
        try:
            act(path)
            said.append("good")
        except vggkit.VggkitError as error:
            text = str(error)
            if "allocate" in text or "MemoryError" in text or not text.startswith(str(path)):
                return f"defect: {text[:300]}"
            if len(text.splitlines()) > 1 and "does not fit" not in text:
                return f"defect: {text[:300]}"
            said.append("refused")
        except BaseException as error:
            return f"defect: {error!r}"[:300]
    return " ".join(said)


def _work(path: Path, files: Iterator[bytes], sender: int) -> None:
    """Open files one after the other; say before each step what is done, so that a crash is told from it."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    logging.getLogger("vggkit").setLevel(logging.CRITICAL)
    model = small_network()

    def tell(word: str) -> None:
        os.write(sender, f"{word}\n".encode("utf-8", "backslashreplace"))

    for content in files:
        path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whose signal ends this process
        tell("opened")
        tell("= " + _opened(path, model, tell).replace("\n", "\\n"))


def fuzz(format: str, seeds: list[bytes], number: int, folder: Path, first: int = 0) -> Counter[str]:
    """Open a number of mutations.

    Args:
        format: one of ENDINGS.
        seeds: files of it.
        number: how many mutations.
        folder: where to write them; a file with a defect is kept there.
        first: the number of the first mutation.

    Returns:
        How many came out how; what begins with "defect" should not be.
    """
    results: Counter[str] = Counter()
    done, path = first, folder / f"mutated.{format}"
    while done < number:
        receiver, sender = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(receiver)
                _work(path, mutations(format, seeds, number, done), sender)
            finally:
                os._exit(0)
        os.close(sender)
        last = ""
        with open(receiver, encoding="utf-8") as lines:
            for line in lines:
                last = line.rstrip("\n")
                if last.startswith("= "):
                    results[last[2:]] += 1
                    if "defect" in last:
                        (folder / f"defect_{done}.{format}").write_bytes(next(mutations(format, seeds, done + 1, done)))
                    done += 1
        _, status = os.waitpid(child, 0)
        if done < number:
            crash = f"ended by signal {os.WTERMSIG(status)}"
            if last == REHEARSED:
                results["ended in the rehearsal"] += 1
            else:
                results[f"defect: {crash} after {last!r}"] += 1
                shutil.copy(path, folder / f"defect_{done}.{format}")
            done += 1
    return results


def main() -> None:
    """Run as many mutations of each format as are asked for, and print what came out."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
    number, formats = int(sys.argv[1]), tuple(sys.argv[2:]) or ENDINGS
    found = seeds(folder, formats)
    for format in formats:
        for first in range(0, number, 1000):  # told piece by piece
            results = fuzz(format, found[format], min(number, first + 1000), folder, first)
            print(format, first, json.dumps(results), flush=True)
    print(folder)


if __name__ == "__main__":
    main()

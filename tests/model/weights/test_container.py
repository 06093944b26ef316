"""Opening files: each format by its content, and what is damaged or malicious in one line."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vggkit
from tests.model.weights.hostile import FILES, MOST_MEMORY, MOST_SECONDS, header
from tests.model.weights.makers import LAYOUT_FILES, archived, in_layout, scores, small
from vggkit import CheckpointError
from vggkit.model.weights.container import WEIGHTS, Hdf5, open_container
from vggkit.model.weights.inspection import inspect


@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_a_format_is_recognised_by_its_content(layout: str, tmp_path: Path) -> None:
    """A file without an ending loads as it would with the right one."""
    model = small()
    plain = tmp_path / "plain"
    shutil.move(in_layout(model, layout, tmp_path), plain)
    assert torch.equal(scores(vggkit.load_model(plain)), scores(model))


def saved(format: str, folder: Path) -> Path:
    """Save a small model in a layout, or as Keras's archive."""
    return archived(small(), folder) if format == "archive" else in_layout(small(), format, folder)


@pytest.mark.parametrize("layout", [*LAYOUT_FILES, "archive"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_truncated_file_ends_in_one_line(layout: str, share: float, tmp_path: Path) -> None:
    """Cut off anywhere, a file of each format is refused with its name."""
    path = saved(layout, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError) as caught:
        inspect(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


class Malicious:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_by_name(zipped: bool, tmp_path: Path) -> None:
    """Nothing of it is run, and what it asked for is named."""
    path, target = tmp_path / "evil.pth", tmp_path / "made"
    torch.save({"w": torch.zeros(2), "x": Malicious(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"refused, as it would run code: it asks for posix.mkdir"):
        inspect(path)
    path.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(CheckpointError, match="refused"):
        inspect(path)
    assert not target.exists()


def test_a_header_that_lies_about_sizes_is_refused(tmp_path: Path) -> None:
    """Safetensors whose header claims more than the file has, or a header longer than the file."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]}}).encode()
    path = tmp_path / "lies"
    for length in (len(header), 2**39):
        path.write_bytes(length.to_bytes(8, "little") + header + bytes(16))
        with pytest.raises(CheckpointError, match="can't be read as safetensors"):
            inspect(path)


def described(path: Path) -> list[tuple[int, int]]:
    """Return where a file's bytes are no tensor's values, but say what is where."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return [(0, 8 + int.from_bytes(content[:8], "little"))]
    if path.suffix in (".pth", ".keras"):
        return [(0, 4096), (len(content) - 4096, len(content))]
    import h5py

    values: list[tuple[int, int]] = []

    def note(_: str, thing: object) -> None:
        if isinstance(thing, h5py.Dataset) and thing.id.get_offset():
            values.append((thing.id.get_offset(), thing.id.get_offset() + thing.nbytes))

    with h5py.File(path) as file:
        file.visititems(note)
    starts = [0, *(end for _, end in sorted(values))]
    ends = [*(begin for begin, _ in sorted(values)), len(content)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


@pytest.mark.parametrize(
    ("layout", "flips"),
    [
        ("torchvision", 60),
        ("vggkit", 60),
        pytest.param("keras3", 25, marks=pytest.mark.slow),
        pytest.param("keras", 25, marks=pytest.mark.slow),
        pytest.param("archive", 25, marks=pytest.mark.slow),
    ],
)
def test_a_flipped_bit_ends_in_one_line_or_does_no_harm(layout: str, flips: int, tmp_path: Path) -> None:
    """One wrong bit in what describes the tensors: the file is refused with its name, or still says what it is."""
    path = saved(layout, tmp_path)
    content, places = path.read_bytes(), described(path)
    generator = random.Random(layout)
    errors = []
    for _ in range(flips):
        flipped = bytearray(content)
        place = generator.choice([at for start, end in places for at in range(start, end) if content[at]])
        flipped[place] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        try:
            inspect(path)
        except CheckpointError as error:
            errors.append(str(error))
    assert errors
    assert [error for error in errors if not error.startswith(f"{path}: ") or "\n" in error] == []


@pytest.mark.parametrize(
    ("happens", "seconds", "said"),
    [("import os; os.abort()", 60.0, "reading it crashes"), ("while True: pass", 0.5, "reading it never ends")],
)
@pytest.mark.parametrize("layout", ["keras", "keras3"])
def test_what_crashes_the_hdf5_library_is_refused(
    layout: str, happens: str, seconds: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read in a process of its own first, so that a crash or an endless loop ends in one line."""
    path = in_layout(small(), layout, tmp_path)
    script = tmp_path / "rehearsal.py"
    script.write_text(happens)
    monkeypatch.setattr(Hdf5, "REHEARSAL", script)
    monkeypatch.setattr(Hdf5, "REHEARSAL_SECONDS", seconds)
    with pytest.raises(CheckpointError, match=f"it is damaged, {said}; save or download it again"):
        inspect(path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """HDF5 gives names that are not UTF-8 as bytes."""
    import h5py

    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(b"layer\xff", data=[1.0])
    with pytest.raises(CheckpointError, match=r"x.h5: .* is no name"):
        inspect(path)


def test_a_hostile_file_ends_in_one_line_soon_and_in_little_memory(tmp_path: Path) -> None:
    """Each within 10 s of processor time and 500 MB beyond what is imported, with a line that says what it is."""
    for name, (make, _) in FILES.items():
        make(tmp_path / name)
    command = [sys.executable, "-m", "tests.model.weights.hostile", *(str(tmp_path / name) for name in FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    results = dict(zip(FILES, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, (_, says) in FILES.items():
        said, taken = results[name]["said"], (results[name]["seconds"], results[name]["memory"])
        assert (name, says in said, "\n" in said, said) == (name, True, False, said)
        assert (name, taken) <= (name, (MOST_SECONDS, MOST_MEMORY))


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("F64", 64), ("F32", 32), ("F16", 16), ("BF16", 16), ("I64", 64), ("U64", 64), ("I32", 32), ("U32", 32),
        ("I16", 16), ("U16", 16), ("I8", 8), ("U8", 8), ("BOOL", 8), ("C64", 64), ("F8_E4M3", 8), ("F8_E5M2", 8),
        ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("F6_E2M3", 6), ("F6_E3M2", 6), ("F4", 4),
    ],
)  # fmt: skip
def test_every_dtype_of_safetensors_has_its_size(dtype: str, bits: int, tmp_path: Path) -> None:
    """The library refuses a header whose sizes don't agree; what is no weight is refused when it is read."""
    path, shape = tmp_path / "x.safetensors", [4, 2, 2, 2]
    header(path, json.dumps({"w.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, 4 * bits]}}), 4 * bits)
    container = open_container(path)
    stored = container.tensors["w.weight"]
    assert stored.size == 32 * bits // 8
    if stored.dtype in WEIGHTS:
        assert torch.equal(container.read("w.weight"), torch.zeros(shape, dtype=getattr(torch, stored.dtype)))
    else:
        with pytest.raises(CheckpointError, match=f"expected weights of .*, found {stored.dtype}"):
            container.read("w.weight")

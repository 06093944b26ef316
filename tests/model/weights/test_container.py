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
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint
from safetensors.torch import save_file

import vggkit
from tests.model.weights.hostile import MOST_MEMORY, MOST_SECONDS, header
from tests.model.weights.hostile_programs import FILES
from tests.model.weights.makers import LAYOUT_FILES, archived, in_layout, scores, small
from vggkit import CheckpointError
from vggkit.base import hdf5
from vggkit.model.weights.container import WEIGHTS, SafeTensorsFolder, open_container
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
    monkeypatch.setattr(hdf5, "REHEARSAL", script)
    monkeypatch.setattr(hdf5, "REHEARSAL_SECONDS", seconds)
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


# A folder with what each rank had

FC1, FC2 = torch.arange(24.0).reshape(4, 6), torch.arange(24.0, 48).reshape(6, 4)
GRID = {"0-0": (slice(0, 3), slice(0, 3)), "0-3": (slice(0, 3), slice(3, 4)), "3-0": (slice(3, 6), slice(0, 3))}
"""Parts of FC2, beside which one is missing."""


def parts(folder: Path, files: dict[str, dict[str, tuple[torch.Tensor, list[Any]]]]) -> Path:
    """Write a file for each rank, as `HuggingFaceStorageWriter` does: tensors, each with where it begins."""
    folder.mkdir(exist_ok=True)
    for file, tensors in files.items():
        begins = {name: {"saved_offsets": offsets} for name, (_, offsets) in tensors.items()}
        state = {name: tensor.contiguous() for name, (tensor, _) in tensors.items()}
        save_file(state, folder / f"{file}.safetensors", {"DCP_SHARDING_INFO": json.dumps(begins)})
    return folder


def test_parts_of_tensors_are_put_together(tmp_path: Path) -> None:
    """By rows, columns and both, in whatever file they are, also of one that does not say where they begin."""
    grid = {f"rank{place}": {"grid": (FC2[at], [at[0].start, at[1].start])} for place, at in enumerate(GRID.values())}
    folder = parts(
        tmp_path / "parts",
        {
            **grid,
            "b": {"rows": (FC1[2:], [2, 0]), "columns": (FC2[:, :3], [0, 0]), "count": (torch.tensor(7), [])},
            "a": {"rows": (FC1[:2], [0, 0]), "columns": (FC2[:, 3:], [0, 3]), "grid": (FC2[3:, 3:], [3, 3])},
        },
    )
    save_file({"alone": FC1}, folder / "c.safetensors")
    (folder / "readme.txt").write_text("not read")
    container = open_container(folder)
    assert {name: stored.shape for name, stored in container.tensors.items()} == {
        "rows": (4, 6), "columns": (6, 4), "grid": (6, 4), "count": (), "alone": (4, 6),
    }  # fmt: skip
    assert container.tensors["grid"].size == FC2.nbytes
    for name, wanted in {"rows": FC1, "columns": FC2, "grid": FC2, "count": torch.tensor(7), "alone": FC1}.items():
        assert torch.equal(container.read(name), wanted)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected a folder of 1 to 4,096 safetensors files, as torch.distributed.checkpoint writes with"),
        ({"a": {"x": (FC1[:2], [0, 0])}, "b": {"x": (FC1[3:], [3, 0])}}, "'x' is not whole, or twice there"),
        ({"a": {"x": (FC1[:2], [0, 0])}, "b": {"x": (FC1[:2], [0, 0])}}, "'x' is not whole, or twice there"),
        ({"a": {"x": (FC1, [2**60, 0])}}, "'x' is not whole, or twice there"),
        ({"a": {"x": (FC1, [-1, 0])}}, "'x' begins at no place, (-1, 0)"),
        ({"a": {"x": (FC1, [0])}}, "'x' begins at no place, (0,)"),
        ({"a": {"x": (FC1, ["0", True])}}, "'x' begins at no place, ('0', True)"),
        ({"a": {"x": (FC1[:2], [0, 0])}, "b": {"x": (FC1[2:].int(), [2, 0])}}, "parts of 'x' have several dtypes"),
        ({"a": {"x": (FC1[:2], [0, 0])}, "b": {"x": (FC1[2], [2])}}, "parts of 'x' have several dtypes or numbers of"),
    ],
)
def test_parts_that_are_no_whole_are_refused(files: dict[str, Any], said: str, tmp_path: Path) -> None:
    """With the folder, the tensor and what is wrong."""
    folder = parts(tmp_path / "parts", files)
    with pytest.raises(CheckpointError) as refused:
        open_container(folder)
    assert said in str(refused.value)
    assert str(refused.value).startswith(str(folder))


def test_a_folder_of_very_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be opened."""
    folder = parts(tmp_path / "parts", {"a": {"x": (FC1, [0, 0])}, "b": {"y": (FC1, [0, 0])}})
    monkeypatch.setattr(SafeTensorsFolder, "MOST_FILES", 1)
    with pytest.raises(CheckpointError, match=r"expected a folder of 1 to 1 safetensors files, .*, found 2"):
        open_container(folder)


def test_parts_that_lie_on_each_other_are_refused(tmp_path: Path) -> None:
    """Where they have as many elements as the whole, so that others would have no value."""
    x = torch.ones(2, 2)
    corners = {"a": [0, 0], "b": [0, 1], "c": [2, 2]}
    folder = parts(tmp_path / "parts", {file: {"x": (x, offsets)} for file, offsets in corners.items()})
    save_file({"x": torch.ones(1, 4)}, folder / "d.safetensors")
    container = open_container(folder)
    assert container.tensors["x"].shape == (4, 4)
    with pytest.raises(CheckpointError, match="'x' is not whole, or twice there"):
        container.read("x")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # there is one process
def test_a_folder_of_pickles_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """What `torch.distributed.checkpoint.save` writes unless it is told otherwise."""
    torch.distributed.checkpoint.save({"x": FC1}, checkpoint_id=tmp_path / "pickles", no_dist=True)
    with pytest.raises(CheckpointError) as refused:
        open_container(tmp_path / "pickles")
    assert "HuggingFaceStorageWriter(path, save_distributed=True), found a .metadata, which is a pickle" in str(
        refused.value
    )


def test_a_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    """In one line."""
    folder = parts(tmp_path / "parts", {"a": {"x": (FC1, [0, 0])}})
    (folder / "b.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json")
    with pytest.raises(CheckpointError, match=r"b\.safetensors: can't be read as safetensors"):
        open_container(folder)
    (folder / "b.safetensors").unlink()
    save_file({"y": FC1}, folder / "c.safetensors", {"DCP_SHARDING_INFO": "{"})
    with pytest.raises(CheckpointError, match=r"c\.safetensors: can't be read as safetensors"):
        open_container(folder)

"""Opening files: each format by its content, and what is damaged or malicious in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import vggkit
from tests.weights.makers import LAYOUT_FILES, in_layout, scores, small
from vggkit import CheckpointError
from vggkit.weights.inspection import inspect


@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_a_format_is_recognised_by_its_content(layout: str, tmp_path: Path) -> None:
    """A file without an ending loads as it would with the right one."""
    model = small()
    plain = tmp_path / "plain"
    shutil.move(in_layout(model, layout, tmp_path), plain)
    assert torch.equal(scores(vggkit.load_model(plain)), scores(model))


@pytest.mark.parametrize("layout", LAYOUT_FILES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_truncated_file_ends_in_one_line(layout: str, share: float, tmp_path: Path) -> None:
    """Cut off anywhere, a file of each format is refused with its name."""
    path = in_layout(small(), layout, tmp_path)
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

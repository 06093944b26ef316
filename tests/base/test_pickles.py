"""Reading pickles with a machine of our own, held against torch.load."""

from __future__ import annotations

import io
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.model.weights.hostile import LEGACY, archive, pickled, tensor, text
from tests.model.weights.makers import small
from vggkit import CheckpointError
from vggkit.base.pickles import unpickle
from vggkit.model.weights.container import WEIGHTS, open_container


def training() -> dict[str, Any]:
    """Return a checkpoint of a training run: model, optimizer, scheduler, what else there is."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    return {
        "epoch": 3,
        "arch": "vgg16",
        "best": 71.5,
        "done": True,
        "none": None,
        "classes": ["a", "b"],
        "size": torch.Size((3, 4)),
        "device": torch.device("cpu"),
        "milestones": Counter([1, 2]),
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


def with_attribute() -> dict[str, Tensor]:
    """Return a parameter that has an attribute, which torch keeps."""
    parameter = nn.Parameter(torch.rand(2, 3))
    parameter.note = "kept"  # type: ignore[attr-defined]
    tensor = torch.rand(4)
    tensor.note = "kept"  # type: ignore[attr-defined]
    return {"a.weight": parameter, "b.weight": tensor}


BASE = torch.arange(60, dtype=torch.float32)

STATES: dict[str, Any] = {
    "model": lambda: small("vgg11_bn").state_dict(),
    "plain dict": lambda: dict(small().state_dict()),
    "training": training,
    "parameters": lambda: {"a.weight": nn.Parameter(torch.rand(2, 3)), "b.weight": nn.Buffer(torch.rand(2))},
    "attributes": with_attribute,
    "dtypes": lambda: {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in WEIGHTS},
    "views": lambda: {
        "transposed": BASE.view(6, 10).t(),
        "sliced": BASE.view(6, 10)[1:5, 2:9:3],
        "shared": BASE,
        "expanded": BASE[3:5].view(2, 1).expand(2, 5),
        "odd": BASE[1:],
    },
    "sizes": lambda: {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "empty view": BASE[60:],
        "one": BASE[:1],
    },
    "channels last": lambda: {"a.weight": torch.rand(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_every_tensor_is_as_torch_loads_it(state: str, zipped: bool, tmp_path: Path) -> None:
    """Values, shape, dtype and order, of archives and of files from before version 1.6."""
    path = tmp_path / "x.pth"
    torch.save(STATES[state](), path, _use_new_zipfile_serialization=zipped)
    wanted = torch.load(path, weights_only=True)
    wanted = wanted.get("state_dict", wanted)
    container = open_container(path)
    assert list(container.tensors) == list(wanted)
    for name, value in wanted.items():
        found = container.read(name)
        assert torch.equal(found, value)
        assert found.dtype == value.dtype
        assert found.untyped_storage().nbytes() <= value.untyped_storage().nbytes()
        assert container.tensors[name].shape == value.shape
        assert container.tensors[name].size == value.numel() * value.element_size()


def test_parameters_of_old_files_are_read(tmp_path: Path) -> None:
    """Before torch 0.4 a parameter was made empty and then given its tensor, as in the first published files."""
    values, path = torch.rand(4), tmp_path / "x.pth"
    ordered = b"ccollections\nOrderedDict\n)R"
    parameter = b"ctorch.nn.parameter\nParameter\n)\x81(" + tensor() + b"N" + ordered + b"\x88\x89tb"
    archive(path, pickled(b"}", text("a.weight"), parameter, b"s") | {"data/0": values.numpy().tobytes()})
    assert torch.equal(torch.load(path, weights_only=True)["a.weight"], values)
    assert torch.equal(open_container(path).read("a.weight"), values)


def test_a_view_of_a_storage_of_old_files_is_read(tmp_path: Path) -> None:
    """Before torch 0.4 a persistent id said which part of a row of values a storage is."""
    row = torch.arange(10.0)

    class Old(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, str) and value == "STORAGE":
                return "storage", torch.FloatStorage, "7", "cpu", 10, ("8", 2, 6)
            return None

    class Part:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor, ("STORAGE", 1, (2, 2), (2, 1))

    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Old(content, 2).dump({"a.weight": Part()})
    path = tmp_path / "x.pth"
    values = (10).to_bytes(8, "little") + row.numpy().tobytes()
    path.write_bytes(LEGACY + content.getvalue() + pickle.dumps(["7"], 2) + values)
    assert torch.equal(torch.load(path, weights_only=True)["a.weight"], row[3:7].view(2, 2))
    assert torch.equal(open_container(path).read("a.weight"), row[3:7].view(2, 2))


@pytest.mark.parametrize(
    "value", [{1, 2}, bytearray(3), complex(1, 2), 10**700, {10**30: 1}, {None: 1}, range(3), print, OSError("x")]
)
def test_what_no_checkpoint_needs_is_refused(value: object) -> None:
    """Sets, bytes, huge numbers, functions and objects end in one line, in every protocol."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps({"a": value}, protocol)
        with pytest.raises(CheckpointError, match=r"^x\.pth: (refused|can't be read)") as caught:
            unpickle("x.pth", io.BytesIO(content))
        assert "\n" not in str(caught.value)

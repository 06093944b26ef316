"""Checkpoints of every layout, small, as the libraries themselves write them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

import vggkit
from vggkit import VGG, Network
from vggkit.model.weights.conversion import convert

LAYOUT_FILES = {
    "torchvision": "torchvision.pth",
    "timm": "timm.safetensors",
    "keras": "keras.h5",
    "keras3": "keras.weights.h5",
    "vggkit": "vggkit.safetensors",
}
"""A file name for each layout."""


def small(config: str = "A", **changes: Any) -> VGG:
    """Return a small model with three FC layers behind 2×2 maps, and statistics that are not the identity's."""
    model = vggkit.build(config, **{"input": "3x64x64", "width": 0.05, "num_classes": 7, "seed": 0, **changes})
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "norm1.weight", "bias")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        if name.endswith("num_batches_tracked"):
            tensor.fill_(3)
    return model.eval()


def in_layout(model: VGG, layout: str, folder: Path) -> Path:
    """Save a model in a layout, by way of vggkit's own."""
    own = folder / "own.safetensors"
    vggkit.save_weights(model, own)
    target = folder / LAYOUT_FILES[layout]
    convert(own, target, layout=layout)
    return target


def archived(model: VGG, folder: Path) -> Path:
    """Save a model as Keras's archive: `.weights.h5` in a zip file."""
    weights, target = in_layout(model, "keras3", folder), folder / "archive.keras"
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(weights, "model.weights.h5")
        archive.writestr("config.json", "{}")
    return target


def without_configuration(path: Path) -> Path:
    """Take the configuration out of a file, as a file of another library has none."""
    if path.suffix == ".pth":
        torch.save(dict(torch.load(path, weights_only=True)), path)
    elif path.suffix == ".safetensors":
        from safetensors.torch import load_file, save_file

        state = {name: tensor.clone() for name, tensor in load_file(path).items()}
        save_file(state, path, {"format": "pt"})
    else:
        import h5py

        with h5py.File(path, "a") as file:
            del file.attrs["vggkit.config"]
    return path


def images(network: Network, batch: int = 2) -> torch.Tensor:
    """Return random images for a network."""
    return torch.rand(batch, *network.input_shape, generator=torch.Generator().manual_seed(2))


def scores(model: VGG) -> torch.Tensor:
    """Return a model's scores of those images, in evaluation mode."""
    with torch.no_grad():
        result: torch.Tensor = model.eval()(images(model.network))
        return result

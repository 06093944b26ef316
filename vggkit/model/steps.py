"""What a step is made of in torch: the model, its images and labels, the loss and the optimizer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.build import build
from vggkit.model.module import VGG
from vggkit.network import Network


def model_of(network: Network, options: StepOptions) -> VGG:
    """Build the model of a step, in training mode."""
    return build(
        network,
        device=options.device,
        dtype=options.dtype,
        freeze=options.freeze,
        checkpoint=options.checkpoint,
    )


def images_of(network: Network, options: StepOptions, batch: int) -> Tensor:
    """Return a batch of black images."""
    return torch.zeros(batch, *network.input_shape, dtype=getattr(torch, options.dtype), device=options.device)


def labels_of(network: Network, options: StepOptions, batch: int) -> Tensor:
    """Return the classes of images; of a network that ends in maps, the class of each of their places."""
    return torch.zeros(batch, *network.output_shape[1:], dtype=torch.int64, device=options.device)


def optimizer_of(model: VGG, options: StepOptions) -> torch.optim.Optimizer | None:
    """Return the optimizer of a model's trained parameters; None if there are none, or nothing changes them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer | None = None
    if trained:
        optimizer = OPTIMIZERS[options.optimizer].torch_optimizer(trained, torch.optim)
    return optimizer


def autocast(options: StepOptions) -> AbstractContextManager[Any]:
    """Return the context of the forward pass and the loss."""
    return torch.autocast(options.device, dtype=torch.bfloat16) if options.autocast else nullcontext()


def loss_of(model: VGG, images: Tensor, labels: Tensor, options: StepOptions) -> Tensor:
    """Run the forward pass and the loss."""
    with autocast(options):
        return nn.functional.cross_entropy(model(images), labels)


def learn(loss: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    """Run the backward pass, if there is one, and the optimizer's step."""
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
    if optimizer is not None:
        optimizer.step()

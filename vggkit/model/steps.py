"""What a step is made of in torch: the model, its images and targets, the loss and the optimizer; a perceptual loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from vggkit.footprint.steps.options import StepOptions
from vggkit.model.build import build
from vggkit.model.features import features
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


def targets_of(network: Network, options: StepOptions, batch: int) -> Tensor:
    """Return what the loss compares the outputs of images with."""
    targets = options.loss_rules.targets(network.output_shape, options.dtype)
    return torch.zeros(batch, *targets.shape, dtype=getattr(torch, targets.dtype), device=options.device)


def autocast(options: StepOptions) -> AbstractContextManager[Any]:
    """Return the context of the forward pass and the loss."""
    return torch.autocast(options.device, dtype=torch.bfloat16) if options.autocast else nullcontext()


class Training:
    """A training loop, whose model, images and targets are made in this order, once for all steps.

    Args:
        network: whose model.
        options: what a step is like.

    Attributes:
        model: what is trained.
        run: what is called for its forward pass.
        parameters: its own, or what this rank has of them.
        average: a second model, whose parameters are moving averages; None if there is none.
        images: the batch of every step.
        targets: what the loss compares the model's outputs with.
        optimizers: those that change the parameters; none if nothing changes them.
        loss: the last one.
    """

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.options = options
        model = self._built(network)
        self.model: nn.Module = model
        self.run = self._set_up(model)
        del model  # a stage of a pipeline has a part of it
        self.parameters = list(self.model.parameters())  # a divided model in replicas forgets some as it runs
        self.average = self._set_up_average(self._built(network)) if options.ema else None
        self.images = images_of(network, options, self._batch_of_images)
        self.targets = targets_of(network, options, self._batch_of_targets)
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        groups = [[parameter] for parameter in trained] if options.step_in_backward else [trained]
        made = [options.rules.torch_optimizer(group, options.update, self._optimizers) for group in groups if group]
        self.optimizers: list[torch.optim.Optimizer] = [optimizer for optimizer in made if optimizer is not None]
        if options.step_in_backward:
            for parameter, optimizer in zip(trained, self.optimizers):
                _step_in_backward(parameter, optimizer)
        self.loss: Tensor | None = None

    def _built(self, network: Network) -> VGG:
        """Build the model."""
        return model_of(network, self.options)

    @property
    def _batch_of_images(self) -> int:
        """How many images there are."""
        return self.options.batch

    @property
    def _batch_of_targets(self) -> int:
        """How many images there are targets for."""
        return self.options.batch

    def _set_up(self, model: VGG) -> nn.Module:
        """Return what is called for the forward pass: the model itself, unless something wraps it."""
        return model

    def _set_up_average(self, model: VGG) -> nn.Module:
        """Return the second model, which has the moving averages: as it is, unless the first one is divided."""
        return model

    @property
    def _optimizers(self) -> Any:
        """Where the optimizers are."""
        return torch.optim

    def _context_of(self, batch: int) -> AbstractContextManager[Any]:
        """Return the context of a batch of those whose gradients are added up, counted from 0."""
        return nullcontext()

    def forward(self) -> Tensor:
        """Run the forward pass and the loss."""
        with autocast(self.options):
            loss_of = self.options.loss_rules.torch_loss  # no variable holds the output while the loss is divided
            loss: Tensor = loss_of(self.run(self.images), self.targets, nn.functional)
            return loss / self.options.accumulate if self.options.accumulate > 1 else loss

    def step(self) -> None:
        """Run a step. The loss of the step before lives until the new one is there, as a loop's variable does."""
        options = self.options
        if not options.step_in_backward:
            self._zero_grad()
        self.run_batches()
        if options.clip_grad:
            nn.utils.clip_grad_norm_(self.parameters, max_norm=1.0)
        if not options.step_in_backward:
            for optimizer in self.optimizers:
                optimizer.step()
        if self.average is not None:
            with torch.no_grad():
                for average, parameter in zip(self.average.parameters(), self.parameters):
                    average.lerp_(parameter, 0.001)

    def run_batches(self) -> None:
        """Run the forward and the backward pass of a batch, or of several whose gradients are added up."""
        for batch in range(self.options.accumulate):
            with self._context_of(batch):
                self.loss = self.forward()
                if self.loss.requires_grad:
                    self.loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here

    def _zero_grad(self) -> None:
        """Free the gradients of the step before, or set them to zero."""
        for parameter in self.parameters:
            if self.options.zero_grad == "set_to_none":
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()


def _step_in_backward(parameter: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer change a parameter as soon as it has its gradient, and free that."""

    def step(_: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    parameter.register_post_accumulate_grad_hook(step)  # type: ignore[no-untyped-call]  # torch has no types here


class Compared(NamedTuple):
    """The variables of a step that compares images with a target.

    Args:
        loss: how much they differ.
        found: the images' activations.
        wanted: the target's.
    """

    loss: Tensor
    found: dict[str, Tensor]
    wanted: dict[str, Tensor]


class PerceptualLoss(nn.Module):
    """The loss of `vggkit.footprint.steps.perceptual`.

    Args:
        network: whose activations are compared.
        options: what a step is like.
    """

    def __init__(self, network: Network, options: StepOptions) -> None:
        super().__init__()
        self.options = options
        self.extractor = features(
            network,
            options.taps,
            frozen=not options.trainable,
            device=options.device,
            dtype=options.dtype,
            checkpoint=options.checkpoint,
        )

    def activations(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations of images without a graph."""
        with torch.no_grad():
            found: dict[str, Tensor] = self.extractor(images)
        return found

    def forward(self, images: Tensor, target: Tensor, cached: dict[str, Tensor] | None) -> Compared:
        """Compare images with a target.

        Args:
            images: require a gradient.
            target: other images.
            cached: the target's activations, if they were kept.
        """
        with autocast(self.options):
            wanted = self.activations(target) if cached is None else cached
            found = self.extractor(images)
            losses = (nn.functional.mse_loss(found[tap], wanted[tap]) for tap in self.options.taps)
            return Compared(cast(Tensor, sum(losses)), found, wanted)


class PerceptualLoop:
    """Steps that compare images with a target.

    Args:
        network: whose activations are compared.
        options: what a step is like.
    """

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.loss = PerceptualLoss(network, options)
        self.images = images_of(network, options, options.batch).requires_grad_()
        self.target = images_of(network, options, options.batch)
        self.cached: dict[str, Tensor] | None = None
        if options.cached_target:
            with autocast(options):
                self.cached = self.loss.activations(self.target)

    def compared(self) -> Compared:
        """Run the forward passes."""
        compared: Compared = self.loss(self.images, self.target, self.cached)
        return compared

    def step(self) -> None:
        """Run a step, whose variables live until it returns."""
        self.images.grad = None
        compared = self.compared()
        compared.loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here

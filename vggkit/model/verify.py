"""The user's proof on the CPU: builds the real model, runs it, and sets what was measured beside what was claimed.

Each judge is independent of the claims: torchinfo, torch's flop counter, autograd's hooks on saved tensors, and
MemTracker on fake tensors, which have sizes and no values, so that any batch can be judged on any machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchinfo
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from vggkit.base.eager import MEMORY_KINDS
from vggkit.base.errors import ArgumentError
from vggkit.figures.summary import summarize
from vggkit.footprint.plan import MemoryPlan, plan_step
from vggkit.footprint.ranks import NO_GROUP
from vggkit.footprint.steps.options import Mode, StepOptions
from vggkit.footprint.steps.refusals import smallest_batch
from vggkit.model.build import build
from vggkit.model.claims import Claim
from vggkit.model.module import VGG
from vggkit.model.steps import PerceptualLoop, Training, autocast, images_of, model_of, targets_of
from vggkit.model.tracking import FakeTensors, no_garbage_collection
from vggkit.model.verify_ranks import verify_ranks
from vggkit.network import Network

MOST_BYTES = 2**63
"""Torch's sizes are integers of 64 bits."""


def verify(
    network: Network,
    options: StepOptions,
    of_ranks: Callable[[Network, StepOptions], Iterator[Claim]] = verify_ranks,
) -> Iterator[Claim]:
    """Measure every claim about a network, one by one.

    Args:
        network: whose claims.
        options: what the step is like; on the CPU.
        of_ranks: what measures several ranks: `verify_ranks` one after the other, `verify_together` all at once.

    Raises:
        ArgumentError: if torch refuses to run the step, or it has more bytes than torch counts.
    """
    plan = plan_step(network, options)
    if plan.peak_bytes >= MOST_BYTES:
        raise ArgumentError(
            f"batch: expected a step of less than 2^63 bytes, as torch counts no more; found {plan.peak_bytes:,}"
        )
    # several ranks may be refused, before anything is measured
    memory_claims = MEMORY_CLAIMS[options.mode](plan) if options.group == NO_GROUP else of_ranks(network, options)
    yield from _static_claims(network, smallest_batch(network, options.forward_only()))
    yield from memory_claims


# Parameters, shapes and multiply-accumulates, by the real model on as few images as torch takes


def _static_claims(network: Network, batch: int) -> Iterator[Claim]:
    summary = summarize(network, batch=batch)
    model = build(network, seed=0).eval()
    images = torch.zeros(batch, *network.input_shape)
    info = torchinfo.summary(model, input_data=images, verbose=0)
    yield Claim("parameters", summary.totals.parameters, info.total_params, "torchinfo")
    measured = {id(layer.module): tuple(layer.output_size[1:]) for layer in info.summary_list}
    modules = network.modules()
    equal = sum(measured[id(model.get_submodule(placed.module))] == placed.output_shape for placed in modules)
    yield Claim("layers of equal output shape", len(modules), equal, "torchinfo")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    yield Claim(
        "multiply-accumulates",
        summary.totals.multiply_accumulates,
        counter.get_total_flops() // 2,
        "FlopCounterMode ÷ 2",
    )


# Memory, by autograd's hooks and MemTracker on fake tensors


def _training_claims(plan: MemoryPlan) -> Iterator[Claim]:
    """Measure a training step, and a forward pass of the same network."""
    network, options = plan.network, plan.options
    yield _saved_claim(plan, saved_bytes(network, options))
    yield from _inference_claims(plan_step(network, options.forward_only()))
    yield from _peak_claims("training peak", plan, training_peak(network, options))


def _inference_claims(plan: MemoryPlan) -> Iterator[Claim]:
    yield from _peak_claims("inference peak", plan, inference_peak(plan.network, plan.options))


def _perceptual_claims(plan: MemoryPlan) -> Iterator[Claim]:
    yield _saved_claim(plan, perceptual_saved_bytes(plan.network, plan.options))
    yield from _peak_claims("perceptual peak", plan, perceptual_peak(plan.network, plan.options))


MEMORY_CLAIMS: dict[Mode, Callable[[MemoryPlan], Iterator[Claim]]] = {
    "training": _training_claims,
    "inference": _inference_claims,
    "perceptual": _perceptual_claims,
}
"""What is measured in each mode of a step."""


def _saved_claim(plan: MemoryPlan, measured: int) -> Claim:
    return Claim("saved for backward", plan.saved_for_backward_bytes, measured, "saved-tensor hooks")


def _peak_claims(what: str, plan: MemoryPlan, measured: dict[str, int]) -> Iterator[Claim]:
    yield Claim(what, plan.peak_bytes, sum(measured.values()), "MemTracker")
    for kind in MEMORY_KINDS:
        if plan.by_kind[kind] or measured[kind]:
            yield Claim(f"{what}, {kind}", plan.by_kind[kind], measured[kind], "MemTracker")


TRACKED = {
    "Parameter": "parameters",
    "Buffer": "buffers",
    "Gradient": "gradients",
    "Optstate": "optimizer",
    "Activation": "activations",
    "Temp": "temporaries",
    "Other": "inputs",
}
"""MemTracker's names of our kinds."""


class Trainer:
    """A model in a training loop on fake tensors, whose next step is measured at any batch.

    What a step leaves behind, gradients and the optimizer's state, has the same size at every batch.

    Args:
        network: whose model.
        options: what the steps are like; their batch does not matter.
    """

    def __init__(self, network: Network, options: StepOptions) -> None:
        self.network = network
        self.options = options
        self.fake = FakeTensors()
        with self.fake:
            self.training = Training(network, options)
        self.steps = 0

    def saved_bytes(self, batch: int) -> int:
        """Count the bytes that autograd holds between the forward and the backward pass."""
        with self.fake:
            self._give(batch)
            return _saved_bytes(self.training.model, self.training.forward)

    def training_peak(self, batch: int) -> dict[str, int]:
        """Measure the peak of a step that is like all later ones, by kind."""
        with self.fake, no_garbage_collection():
            training = self.training
            self._give(batch)
            while self.steps < self.options.early_steps:
                training.step()
                self.steps += 1
            average = [] if training.average is None else [training.average]
            tracker = _Tracker(training.model, *average, *training.optimizers, training.images, training.targets)
            with tracker:
                training.step()
        return _peak(tracker)

    def _give(self, batch: int) -> None:
        """Give the loop a batch of so many images."""
        self.training.images = images_of(self.network, self.options, batch)
        self.training.targets = targets_of(self.network, self.options, batch)


def saved_bytes(network: Network, options: StepOptions) -> int:
    """Count the bytes that autograd holds between the forward and the backward pass of a training step."""
    return Trainer(network, options).saved_bytes(options.batch)


def training_peak(network: Network, options: StepOptions) -> dict[str, int]:
    """Measure the peak of a training step that is like all later ones, mostly the second, by kind."""
    return Trainer(network, options).training_peak(options.batch)


def inference_peak(network: Network, options: StepOptions) -> dict[str, int]:
    """Measure the peak of a forward pass in eval mode without gradients, by kind."""
    with FakeTensorMode(), no_garbage_collection():
        model = model_of(network, options.forward_only()).eval()
        images = images_of(network, options, options.batch)
        tracker = _Tracker(model, images)
        with tracker, torch.no_grad(), autocast(options):
            model(images)
    return _peak(tracker)


def perceptual_saved_bytes(network: Network, options: StepOptions) -> int:
    """Count the bytes that autograd holds between the passes and the backward pass of a perceptual loss."""
    with FakeTensors():
        loop = PerceptualLoop(network, options)
        return _saved_bytes(loop.loss, loop.compared)


def perceptual_peak(network: Network, options: StepOptions) -> dict[str, int]:
    """Measure the peak of the second step of a perceptual loss, by kind."""
    with FakeTensors(), no_garbage_collection():
        loop = PerceptualLoop(network, options)
        loop.step()
        tracker = _Tracker(loop.loss, loop.images, loop.target, *(loop.cached or {}).values())
        with tracker:
            loop.step()
    return _peak(tracker)


def _saved_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Count the bytes that autograd holds after a forward pass, each storage once, the model's own left out.

    Args:
        model: the model.
        forward: runs it, and returns what has the graph.
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    held: list[weakref.ref[_Held]] = []

    def pack(tensor: Tensor) -> _Held:
        kept = _Held(tensor)
        held.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        graph = forward()
    tensors = [kept.tensor for reference in held if (kept := reference()) is not None]
    sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    del graph
    return sum(size for storage, size in sizes.items() if storage not in own)


class _Held:
    """What autograd holds in a saved tensor's place; it dies with the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class _Tracker(MemTracker):  # type: ignore[no-untyped-call]  # torch does not type its __init_subclass__
    """MemTracker without the figures of each module, which nobody asks for and which take a third of its time.

    Args:
        model: what is measured.
        others: optimizers and tensors that are there before.
    """

    def __init__(self, model: nn.Module, *others: Any) -> None:
        super().__init__()
        self.track_external(model, *others)
        for parameter in model.parameters():
            if not parameter.requires_grad:  # MemTracker would hook every parameter, and a frozen one can't be
                self._param_to_grad_hook_handles[parameter] = (_NoHandle(), _NoHandle())

    def _update_peak_stats(self, peak_state: Any) -> None:
        modules, self.memory_tracking = self.memory_tracking, WeakIdKeyDictionary()
        super()._update_peak_stats(peak_state)
        self.memory_tracking = modules

    def _track_inputs_or_outputs(self, args: Any) -> int:
        return 0

    def get_tracker_snapshot(self, type: str = "current") -> dict[torch.device, dict[str, int]]:
        # MemTracker makes deep copies, of numbers
        snapshots = self._curr_mem_snap if type == "current" else self._peak_mem_snap
        return {device: dict(snapshot) for device, snapshot in snapshots.items()}

    def _update_and_maybe_create_winfos(self, t: Tensor | None, *arguments: Any, **options: Any) -> set[Any]:
        """Track a tensor; a gradient that has been freed as soon as it was used is none any more."""
        return set() if t is None else super()._update_and_maybe_create_winfos(t, *arguments, **options)

    def _pre_fw_hook(self, module: nn.Module, inputs: Any) -> None:
        """Forget an earlier forward pass of the model: MemTracker refuses a second one in a step."""
        if isinstance(module, VGG) and not self._mod_tracker.is_bw:
            self.reset_mod_stats()
        super()._pre_fw_hook(module, inputs)


class _NoHandle:
    def remove(self) -> None:
        """There is no hook to remove."""


def _peak(tracker: MemTracker) -> dict[str, int]:
    by_kind = dict.fromkeys(MEMORY_KINDS, 0)
    for device, snapshot in tracker.get_tracker_snapshot("peak").items():
        if device.type != "cpu":
            continue
        for kind, size in snapshot.items():
            name = getattr(kind, "value", kind)
            if name in TRACKED:
                by_kind[TRACKED[name]] = size
    return by_kind

"""The user's proof: builds the real model, runs it, and sets what was measured beside what was claimed.

Each judge is independent of the claims: torchinfo, torch's flop counter, autograd's hooks on saved tensors, and
MemTracker on fake tensors, which have sizes and no values, so that any batch can be judged on any machine.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import msgspec
import torch
import torchinfo
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from vggkit import liveness
from vggkit.analysis import summarize
from vggkit.building import build
from vggkit.eager import KINDS
from vggkit.layers import Softmax
from vggkit.liveness import MemoryPlan, Options
from vggkit.model import VGG
from vggkit.network import Network


class Claim(msgspec.Struct, frozen=True):
    """What vggkit claims, and what a judge measured.

    Args:
        what: the figure.
        claimed: by vggkit.
        measured: by the judge.
        judge: who measured.
        exact: whether the two should be equal; if not, the difference is shown for information.
    """

    what: str
    claimed: int
    measured: int
    judge: str
    exact: bool = True

    @property
    def holds(self) -> bool:
        """Whether the claim is equal to the measurement, or need not be."""
        return not self.exact or self.claimed == self.measured

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {**msgspec.to_builtins(self), "equal": self.claimed == self.measured}


def verify(network: Network, options: Options) -> Iterator[Claim]:
    """Measure every claim about a network, one by one.

    Args:
        network: whose claims.
        options: what the training step is like; on the CPU.
    """
    yield from _static_claims(network)
    yield from _memory_claims(network, options)
    if torch.cuda.is_available():
        yield from _cuda_claims(network, msgspec.structs.replace(options, device="cuda"))


# Parameters, shapes and multiply-accumulates, by the real model on one image


def _static_claims(network: Network) -> Iterator[Claim]:
    summary = summarize(network)
    model = build(network, seed=0).eval()
    images = torch.zeros(1, *network.input_shape)
    info = torchinfo.summary(model, input_data=images, verbose=0)
    yield Claim("parameters", summary.totals.parameters, info.total_params, "torchinfo")
    measured = {id(layer.module): tuple(layer.output_size[1:]) for layer in info.summary_list}
    placed = [layer for layer in network if layer.name in _built(network)]
    equal = sum(measured[id(model.get_submodule(layer.module))] == layer.output_shape for layer in placed)
    yield Claim("layers whose output shape is equal", len(placed), equal, "torchinfo")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    yield Claim(
        "multiply-accumulates",
        summary.totals.multiply_accumulates,
        counter.get_total_flops() // 2,
        "FlopCounterMode ÷ 2",
    )


def _built(network: Network) -> set[str]:
    """Return the names of the layers that a model has: all but the soft-max at its end."""
    layers = network.layers[:-1] if isinstance(network.layers[-1].layer, Softmax) else network.layers
    return {layer.name for layer in layers}


# Memory, by autograd's hooks and MemTracker on fake tensors


def _memory_claims(network: Network, options: Options) -> Iterator[Claim]:
    training = liveness.plan(network, options)
    inference = liveness.plan(network, _inference(options))
    judge = "saved-tensor hooks"
    yield Claim("saved for backward", training.saved_for_backward_bytes, saved_bytes(network, options), judge)
    yield from _peak_claims("inference peak", inference, inference_peak(network, options))
    yield from _peak_claims("training peak", training, training_peak(network, options))


def _inference(options: Options) -> Options:
    return msgspec.structs.replace(options, mode="inference", optimizer="none", freeze=(), checkpoint=())


def _peak_claims(what: str, plan: MemoryPlan, measured: dict[str, int]) -> Iterator[Claim]:
    yield Claim(what, plan.peak_bytes, sum(measured.values()), "MemTracker")
    for kind in KINDS:
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


class _Trainer:
    """A model and its training step, on fake tensors."""

    def __init__(self, network: Network, options: Options) -> None:
        self.options = options
        dtype = getattr(torch, options.dtype)
        self.model = _fake_model(network, options)
        self.images = torch.zeros(options.batch, *network.input_shape, dtype=dtype)
        self.labels = torch.zeros(options.batch, dtype=torch.int64)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = OPTIMIZERS[options.optimizer](trained) if trained else None

    def loss(self) -> Tensor:
        with _autocast(self.options):
            return nn.functional.cross_entropy(self.model(self.images), self.labels)

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        loss = self.loss()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        if self.optimizer is not None:
            self.optimizer.step()


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer | None]] = {
    "none": lambda _: None,
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def _fake_model(network: Network, options: Options) -> VGG:
    """Build a model inside FakeTensorMode, where parameters can't be converted once they are there."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    try:
        return VGG(network, checkpoint=options.checkpoint).freeze(*options.freeze)
    finally:
        torch.set_default_dtype(before)


def _autocast(options: Options) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if options.autocast else nullcontext()


def saved_bytes(network: Network, options: Options) -> int:
    """Count the bytes that autograd holds between the forward and the backward pass of a training step."""
    with FakeTensorMode():
        trainer = _Trainer(network, options)
        own = {_storage(tensor) for tensor in (*trainer.model.parameters(), *trainer.model.buffers())}
        held: list[weakref.ref[_Held]] = []

        def pack(tensor: Tensor) -> _Held:
            kept = _Held(tensor)
            held.append(weakref.ref(kept))
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            loss = trainer.loss()
        tensors = [kept.tensor for reference in held if (kept := reference()) is not None]
        sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
        del loss
    return sum(size for storage, size in sizes.items() if storage not in own)


class _Held:
    """What autograd holds in a saved tensor's place; it dies with the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def inference_peak(network: Network, options: Options) -> dict[str, int]:
    """Measure the peak of a forward pass in eval mode without gradients, by kind."""
    with FakeTensorMode():
        trainer = _Trainer(network, msgspec.structs.replace(options, freeze=(), checkpoint=(), optimizer="none"))
        trainer.model.eval()
        tracker = MemTracker()
        tracker.track_external(trainer.model, trainer.images)
        with tracker, torch.no_grad(), _autocast(options):
            trainer.model(trainer.images)
    return _peak(tracker)


def training_peak(network: Network, options: Options) -> dict[str, int]:
    """Measure the peak of the second training step, by kind."""
    with FakeTensorMode(), _no_garbage():
        trainer = _Trainer(network, options)
        trainer.step()
        tracker = MemTracker()
        optimizers = [trainer.optimizer] if trainer.optimizer else []
        tracker.track_external(trainer.model, *optimizers, trainer.images, trainer.labels)
        for parameter in trainer.model.parameters():
            if not parameter.requires_grad:  # MemTracker would hook every parameter, and a frozen one can't be
                tracker._param_to_grad_hook_handles[parameter] = (_NoHandle(), _NoHandle())
        with tracker:
            trainer.step()
    return _peak(tracker)


class _NoHandle:
    def remove(self) -> None:
        """There is no hook to remove."""


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Collect garbage before, so that tensors of earlier work don't die inside a measurement."""
    gc.collect()
    yield


def _peak(tracker: MemTracker) -> dict[str, int]:
    by_kind = dict.fromkeys(KINDS, 0)
    for device, snapshot in tracker.get_tracker_snapshot("peak").items():
        if device.type != "cpu":
            continue
        for kind, size in snapshot.items():
            name = getattr(kind, "value", kind)
            if name in TRACKED:
                by_kind[TRACKED[name]] = size
    return by_kind


# On a CUDA machine, by its allocator


def _cuda_claims(network: Network, options: Options) -> Iterator[Claim]:
    plan = liveness.plan(network, options)
    torch.cuda.empty_cache()
    model = build(
        network, device="cuda", dtype=options.dtype, freeze=options.freeze, checkpoint=options.checkpoint
    ).train()
    images = torch.zeros(options.batch, *network.input_shape, dtype=getattr(torch, options.dtype), device="cuda")
    labels = torch.zeros(options.batch, dtype=torch.int64, device="cuda")
    optimizer = OPTIMIZERS[options.optimizer]([p for p in model.parameters() if p.requires_grad])
    context = torch.autocast("cuda", dtype=torch.bfloat16) if options.autocast else nullcontext()
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        model.zero_grad(set_to_none=True)
        with context:
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if optimizer is not None:
            optimizer.step()
        del loss
    peak = torch.cuda.max_memory_allocated()
    yield Claim("training peak on CUDA, workspaces included", plan.peak_bytes, peak, "torch.cuda", exact=False)

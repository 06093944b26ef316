"""Let torch train a model on the card, and say what its allocator has handed out and reserved.

Convolutions, products of matrices and cuDNN's batch norm need a real card: outputs of the right shape take their
places, so that their workspaces are missing. All else is torch's own: dispatch, autograd, optimizers, allocator.
A question has the network, the batch and what the steps are like. The answer has the figures of each step, in order;
it ends with the step that ran out of memory, which has none. Or it has what was allocated and freed, or the request
that was refused.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch._dynamo  # torch imports it in the first step, and so keeps the variables of that step
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

import vggkit
from vggkit.footprint.optimizers import OPTIMIZERS, Update


def convolution(
    x: Tensor, weight: Tensor, _: Tensor | None, stride: Any, padding: Any, dilation: Any, *_others: Any
) -> Tensor:
    """Return an output of the right shape."""
    sides = [
        (side + 2 * pad - step * (kernel - 1) - 1) // stride + 1
        for side, kernel, pad, step, stride in zip(x.shape[2:], weight.shape[2:], padding, dilation, stride)
    ]
    return x.new_empty((x.shape[0], weight.shape[0], *sides))


def convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *others: Any) -> list[Tensor | None]:
    """Return gradients of the right shape, of what they are wanted of: the input, the weight, the bias."""
    sizes = (x.shape, weight.shape, weight.shape[:1])
    return [gradient.new_empty(size) if is_wanted else None for size, is_wanted in zip(sizes, others[-1])]


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return a product of the right shape."""
    return left.new_empty((left.shape[0], right.shape[1]))


def products(left: Tensor, right: Tensor) -> Tensor:
    """Return products of the right shape, of matrices side by side."""
    return left.new_empty((left.shape[0], left.shape[1], right.shape[2]))


OWN: dict[str, Any] = {}
"""torch's own kernels of what is replaced in part."""


def own(name: str, *inputs: Any) -> Any:
    """Call a kernel of torch's own."""
    return OWN[name].call_boxed(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *inputs)


def is_cudnns(x: Tensor, weight: Tensor | None) -> bool:
    """Tell whether cuDNN normalises it: affine, maps, not bfloat16 (Normalization.cpp, _select_batch_norm_backend)."""
    return x.dim() > 2 and weight is not None and x.dtype.itemsize > 2


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Any, mean: Any, variance: Any, training: bool, *others: Any
) -> Any:
    """Return an output and statistics as cuDNN does, which makes none in evaluation."""
    if not is_cudnns(x, weight):
        return own("native_batch_norm", x, weight, bias, mean, variance, training, *others)
    assert weight is not None
    channels = x.shape[1] if training else 0
    return torch.empty_like(x), weight.new_empty(channels), weight.new_empty(channels)


def batch_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor | None, *others: Any) -> Any:
    """Return all three gradients as cuDNN does; in evaluation torch's own kernel runs."""
    training = others[4]
    if not (training and is_cudnns(x, weight)):
        return own("native_batch_norm_backward", gradient, x, weight, *others)
    assert weight is not None
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


def replace(library: torch.library.Library) -> None:
    """Put something of the right shape in the place of what needs a real card.

    As kernels, not as a dispatch mode: under a mode every gradient passes through Python, where another reference to it
    keeps autograd from adding to it in place.
    """
    library.impl("convolution", convolution, "CUDA")
    library.impl("convolution_backward", convolution_backward, "CUDA")
    library.impl("mm", product, "CUDA")
    library.impl("bmm", products, "CUDA")
    library.impl("_local_scalar_dense", lambda _: 1.0, "CUDA")  # what an optimizer reads: a rate, a norm
    for name in ("native_batch_norm", "native_batch_norm_backward"):
        OWN[name] = torch.library.get_kernel(f"aten::{name}", "CUDA")
    library.impl("native_batch_norm", batch_norm, "CUDA")
    library.impl("native_batch_norm_backward", batch_norm_backward, "CUDA")
    library.impl("addmm", lambda _, left, right, **_scales: product(left, right), "CUDA")


def change(alone: weakref.ref[torch.optim.Optimizer], _: Tensor) -> None:
    """Change a parameter, and free its gradient."""
    optimizer = alone()
    assert optimizer is not None
    optimizer.step()
    optimizer.zero_grad()


LOSSES: dict[str, Callable[[Sequence[int], torch.dtype], tuple[Callable[..., Tensor], Sequence[int], torch.dtype]]] = {
    "cross-entropy": lambda shape, _: (cross_entropy, shape[1:], torch.int64),
    "label-smoothing": lambda shape, _: (partial(cross_entropy, label_smoothing=0.1), shape[1:], torch.int64),
    "soft-labels": lambda shape, _: (cross_entropy, shape, torch.float32),
    "mean-squared-error": lambda shape, dtype: (mse_loss, shape, dtype),
}
"""Each loss, and the shape for one image and the dtype of its targets, for an output's shape and a network's dtype."""


class Training:
    """A training loop from an empty card.

    Args:
        network: what to train.
        batch: number of images.
        optimizer: a key of vggkit's optimizers.
        update: the optimizer's options.
        autocast: whether autocast to bfloat16 is on.
        dtype: of the parameters and images.
        zero_grad: "set_to_none" or "zero".
        accumulate: how many batches' gradients are added up in a step.
        ema: whether a second model's parameters follow those of the first.
        clip_grad: whether the gradients' norm is clipped.
        step_in_backward: whether each parameter is changed as soon as it has its gradient.
        loss: a key of `LOSSES`.
        options: of `vggkit.build`.
    """

    def __init__(
        self,
        network: vggkit.Network,
        batch: int,
        optimizer: str,
        update: Update,
        autocast: bool,
        dtype: str,
        zero_grad: str = "set_to_none",
        accumulate: int = 1,
        ema: bool = False,
        clip_grad: bool = False,
        step_in_backward: bool = False,
        loss: str = "cross-entropy",
        **options: Any,
    ) -> None:
        self.model = vggkit.build(network, device="cuda", dtype=dtype, **options).train()
        self.averaged = vggkit.build(network, device="cuda", dtype=dtype, **options) if ema else None
        self.images = torch.empty(batch, *network.input_shape, dtype=getattr(torch, dtype), device="cuda")
        self.loss_of, shape, made = LOSSES[loss](network.output_shape, getattr(torch, dtype))
        self.targets = torch.empty(batch, *shape, dtype=made, device="cuda")
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = None
        self.alone: list[torch.optim.Optimizer] = []
        if step_in_backward:
            for parameter in trained:
                self.alone.append(OPTIMIZERS[optimizer].torch_optimizer([parameter], update, torch.optim))
                # a parameter that held its optimizer, which holds the parameter, would never be freed
                parameter.register_post_accumulate_grad_hook(partial(change, weakref.ref(self.alone[-1])))
        elif trained:
            self.optimizer = OPTIMIZERS[optimizer].torch_optimizer(trained, update, torch.optim)
        self.autocast, self.zero_grad, self.accumulate, self.clip_grad = autocast, zero_grad, accumulate, clip_grad

    def step(self) -> None:
        """Run a step; its loss lives until the next one is there, as a variable of a loop does."""
        self.model.zero_grad(set_to_none=self.zero_grad == "set_to_none")
        for _ in range(self.accumulate):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.autocast):
                if self.accumulate == 1:
                    self.loss = self.loss_of(self.model(self.images), self.targets)
                else:
                    self.loss = self.loss_of(self.model(self.images), self.targets) / self.accumulate
            if self.loss.requires_grad:
                self.loss.backward()
        if self.clip_grad:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if self.optimizer is not None:
            self.optimizer.step()
        if self.averaged is not None:
            with torch.no_grad():
                for average, parameter in zip(self.averaged.parameters(), self.model.parameters()):
                    average.lerp_(parameter, 0.001)


class Inference:
    """A loop of forward passes from an empty card; the arguments are those of `Training`."""

    def __init__(
        self,
        network: vggkit.Network,
        batch: int,
        _optimizer: str,
        _update: Update,
        autocast: bool,
        dtype: str,
        **_options: Any,
    ) -> None:
        self.model = vggkit.build(network, device="cuda", dtype=dtype).eval()
        self.images = torch.empty(batch, *network.input_shape, dtype=getattr(torch, dtype), device="cuda")
        self.autocast = autocast

    def step(self) -> None:
        """Run a forward pass; its output lives until the next one is there."""
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.autocast):
            self.scores = self.model(self.images)


class Perceptual:
    """A loop in which an image is changed until its activations are a target's, from an empty card.

    The arguments are those of `Training`; and which activations, whether the target's are made once, and whether
    somebody forgot to freeze the network.
    """

    def __init__(
        self,
        network: vggkit.Network,
        batch: int,
        _optimizer: str,
        _update: Update,
        autocast: bool,
        dtype: str,
        taps: Sequence[str],
        checkpoint: Sequence[str],
        cached_target: bool,
        trainable: bool,
    ) -> None:
        options: dict[str, Any] = {"device": "cuda", "dtype": dtype, "checkpoint": checkpoint}
        self.extractor = vggkit.features(network, taps, frozen=not trainable, **options)
        made = {"dtype": getattr(torch, dtype), "device": "cuda"}
        self.image = torch.empty(batch, *network.input_shape, requires_grad=True, **made)
        self.target = torch.empty(batch, *network.input_shape, **made)
        self.taps = taps
        self.autocast = autocast
        if cached_target:
            with self.context(), torch.no_grad():
                cached = self.extractor(self.target)
        self.cached = cached if cached_target else None

    def context(self) -> Any:
        """Return the context of everything but the backward pass."""
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.autocast)

    def step(self) -> None:
        """Run a step; its variables live until it returns."""
        self.image.grad = None
        with self.context():
            if self.cached is None:
                with torch.no_grad():
                    wanted = self.extractor(self.target)
            else:
                wanted = self.cached
            found = self.extractor(self.image)
            loss: Any = sum(torch.nn.functional.mse_loss(found[tap], wanted[tap]) for tap in self.taps)
        loss.backward()


LOOPS: dict[str, Any] = {"training": Training, "inference": Inference, "perceptual": Perceptual}
OF_TRAINING = ("loss", "zero_grad", "accumulate", "ema", "clip_grad", "step_in_backward")


def figures() -> dict[str, int]:
    """Return the most bytes since the peaks were reset, and how often everything cached was given back."""
    statistics = torch.cuda.memory_stats()
    peaks = {kind: statistics[f"{kind}_bytes.all.peak"] for kind in ("allocated", "requested", "reserved")}
    return {**peaks, "retries": statistics["num_alloc_retries"]}


def recorded() -> dict[str, Any]:
    """Return the segments with their blocks, and what was allocated and freed since this was last asked for."""
    said = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history("all", context=None, clear_history=True)
    return {"segments": said["segments"], "trace": said["device_traces"][0]}


def train(
    look: Callable[[], Any],
    batch: int,
    name: str = "",
    optimizer: str = "sgd-momentum",
    steps: int = 3,
    autocast: bool = False,
    mode: str = "training",
    dtype: str = "float32",
    freeze: Sequence[str] = (),
    checkpoint: Sequence[str] = (),
    taps: Sequence[str] = (),
    cached_target: bool = False,
    trainable: bool = False,
    config: str | None = None,
    **others: Any,
) -> list[Any]:
    """Train for some steps.

    Args:
        look: returns what there is to say after a step.
        batch: number of images.
        name: of a configuration.
        optimizer: a key of vggkit's optimizers.
        steps: how many.
        autocast: whether autocast to bfloat16 is on.
        mode: a key of `LOOPS`.
        dtype: of the parameters and images.
        freeze: blocks and layers that are not trained.
        checkpoint: blocks that are run again in the backward pass.
        taps: layers whose activations a perceptual loss compares.
        cached_target: whether the target's are made once.
        trainable: whether the network of a perceptual loss is not frozen.
        config: the text of a configuration file, in place of the name.
        others: the optimizer's options, those of `Training` that are `OF_TRAINING`, and changes to make.
    """
    update = Update(**{word: others.pop(word) for word in Update.__struct_fields__ if word in others})
    of_training = {word: others.pop(word) for word in OF_TRAINING if word in others}
    network = vggkit.Network.of(name if config is None else vggkit.loads(config), **others)
    done: list[Any] = []
    try:
        options: dict[str, Any] = {"checkpoint": checkpoint, **of_training}
        if mode == "perceptual":
            options |= {"taps": taps, "cached_target": cached_target, "trainable": trainable}
        else:
            options |= {"freeze": freeze}
        steps_of = LOOPS[mode](network, batch, optimizer, update, autocast, dtype, **options)
        for _ in range(steps):
            torch.cuda.reset_peak_memory_stats()
            steps_of.step()
            done.append(look())
    except torch.OutOfMemoryError as error:
        REFUSED.update(message=str(error), step=len(done) + 1)
        done.append(None)
    return done


REFUSED: dict[str, Any] = {}
"""The last request that was refused, and what the card was like then."""


def refuse(_device: int, segment: int, _card: int, left: int) -> None:
    """Note a request that is refused: torch calls this before the program learns of it, while all tensors are there."""
    segments = [
        [segment["address"], segment["segment_type"], list(map(block, segment["blocks"]))]
        for segment in torch.cuda.memory._snapshot()["segments"]
    ]
    REFUSED.update(segment=segment, left=left, segments=[segment[1:] for segment in sorted(segments)])


def block(said: dict[str, Any]) -> list[int]:
    """Return a block's size and what was asked for; a free one still has what was asked for before it was freed."""
    return [said["size"], said["requested_size"] if said["state"] == "active_allocated" else 0]


def answer(
    events: bool = False, refused: bool = False, history: bool = False, **question: Any
) -> list[Any] | dict[str, Any]:
    """Train on an empty card, and leave an empty one.

    Args:
        events: whether to answer with what was allocated and freed, in place of the figures.
        refused: whether to answer with the request that was refused.
        history: whether to answer with what lies where after each step, and how it came there.
        question: what to train, and how.
    """
    REFUSED.clear()
    torch.cuda.empty_cache()
    torch.cuda.reset_accumulated_memory_stats()
    if events:
        torch.cuda.memory._record_memory_history("all", context=None, clear_history=True)
    done = train(recorded if history else figures, **question)
    said = allocations() if events else dict(REFUSED) if refused else done
    empty()
    return said


def empty() -> None:
    """Empty the card.

    An error's traceback holds tensors, in a circle. Autograd's thread has its own, and lets go of them a little later.
    """
    for _ in range(MOST_COLLECTIONS):
        gc.collect()
        if not torch.cuda.memory_allocated():
            break
    else:
        sys.exit("tensors are left on the card")
    gc.freeze()  # what is left, such as what a first step imports, need not be looked through again
    torch.cuda.empty_cache()


MOST_COLLECTIONS = 10_000
"""So often garbage is collected until every tensor is gone."""


def allocations() -> list[int]:
    """Return what was asked of the allocator: bytes (> 0), or that the n-th allocation is freed (-n)."""
    said: list[int] = []
    numbers: dict[int, int] = {}
    count = 0
    for event in torch.cuda.memory._snapshot()["device_traces"][0]:
        if event["action"] == "alloc":
            count += 1
            numbers[event["addr"]] = count
            said.append(event["size"])
        elif event["action"] == "free_completed":
            said.append(-numbers.pop(event["addr"]))
    return said


def serve(answer: Callable[..., Any]) -> None:
    """Answer each question that comes in, with kernels replaced until the process ends."""
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    torch.backends.cudnn.enabled = False  # batch norm by torch's own kernel
    torch.cuda.init()
    warnings.simplefilter("ignore")  # of kernels that are replaced
    library = torch.library.Library("aten", "IMPL")
    replace(library)
    torch._C._cuda_attach_out_of_memory_observer(refuse)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(answer)

"""Network → MemoryPlan: every byte that a step of eager PyTorch holds, when, and for what.

`vggkit.footprint.steps` has what a step is in each mode. Workspaces of cuDNN and cuBLAS are not included, because they
are not tensors of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec

from vggkit.base.eager import MEMORY_KINDS, Moment
from vggkit.base.numbers import grouped, mebibytes, megabytes, percent
from vggkit.base.tables import Column, Shown, Table, grid
from vggkit.footprint import viewer
from vggkit.footprint.ranks import STRATEGIES, TORCH
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.losses import DEFAULT_LOSS
from vggkit.footprint.steps.options import OTHERS, OtherArguments, StepOptions, checked_options
from vggkit.footprint.steps.refusals import runnable_steps, steps_of_ranks
from vggkit.footprint.steps.step import OPTIMIZER_STEP, Step
from vggkit.network import Dtype, Network, Source
from vggkit.notation.layers import Shape
from vggkit.notation.overrides import Overrides, divided

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LayerMemory(msgspec.Struct, frozen=True):
    """What one layer holds.

    Args:
        name: the layer's; the last one is `loss`.
        saved_bytes: what autograd keeps for its backward pass, without what an earlier layer keeps already.
        output_bytes: its output; 0 if that is in another layer's memory.
    """

    name: str
    saved_bytes: int
    output_bytes: int


class RankMemory(msgspec.Struct, frozen=True):
    """What one rank of several holds and sends.

    Args:
        rank: counted from 0.
        peak_bytes: most bytes alive at one moment.
        reserved_bytes: on CUDA, what torch's allocator reserves; None on the CPU.
        sent_bytes: what it sends in a step.
        received_bytes: what it receives in a step.
    """

    rank: int
    peak_bytes: int
    reserved_bytes: int | None
    sent_bytes: int
    received_bytes: int

    @property
    def bytes(self) -> int:
        """What must be there: reserved bytes on CUDA, the peak on the CPU."""
        return self.peak_bytes if self.reserved_bytes is None else self.reserved_bytes


class MemoryPlan(Shown, msgspec.Struct, frozen=True):
    """What a step holds; of several ranks' steps, that of the rank which is asked for, or of the fullest one.

    Args:
        network: whose step it is.
        options: what the step is like.
        peak_bytes: most bytes alive at one moment.
        peak_at: that moment: "backward of block3_pool".
        by_kind: the bytes of each kind at that moment.
        saved_for_backward_bytes: what autograd holds between the forward and the backward pass, each storage once,
            parameters and buffers excluded.
        steady_bytes: what stays between steps: parameters, and in training gradients, optimizer state, a moving average
            and buckets to send.
        layers: what each layer holds, the loss included.
        timeline: the alive bytes after each operation.
        allocated_bytes: on CUDA, most bytes of the blocks that torch's allocator hands out in a steady step, as
            `torch.cuda.max_memory_allocated` says; None on the CPU.
        reserved_bytes: on CUDA, most bytes of its segments, as `torch.cuda.max_memory_reserved` says: what the card
            must have; None on the CPU.
        retries: on CUDA, how often it gives back what is cached to make room, on a card with room for the step; None on
            the CPU.
        sent_bytes: what is sent to other ranks in a step.
        received_bytes: what is received from them.
        by_rank: what each rank holds and sends.
    """

    network: Network
    options: StepOptions
    peak_bytes: int
    peak_at: str
    by_kind: dict[str, int]
    saved_for_backward_bytes: int
    steady_bytes: int
    layers: tuple[LayerMemory, ...]
    timeline: tuple[Moment, ...]
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    retries: int | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    by_rank: tuple[RankMemory, ...] = ()

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def input(self) -> Shape:
        """Shape of one image."""
        return self.network.input_shape

    @property
    def images(self) -> int:
        """Images of a step, of all ranks and all batches whose gradients are added up."""
        return self.options.images

    @property
    def title(self) -> str:
        """One line that describes the step and its network."""
        return self.options.title(self.name, self.input)

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {
            "name": self.name,
            **self.options.to_dict(),
            "peak_bytes": self.peak_bytes,
            "peak_at": self.peak_at,
            "by_kind": self.by_kind,
            "saved_for_backward_bytes": self.saved_for_backward_bytes,
            "steady_bytes": self.steady_bytes,
            "allocated_bytes": self.allocated_bytes,
            "reserved_bytes": self.reserved_bytes,
            "retries": self.retries,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "by_rank": [msgspec.structs.asdict(rank) for rank in self.by_rank],
            "layers": [
                {"name": layer.name, "saved_bytes": layer.saved_bytes, "output_bytes": layer.output_bytes}
                for layer in self.layers
            ],
            "timeline": [
                {"event": moment.event, "bytes": moment.size, "by_kind": dict(zip(MEMORY_KINDS, moment.by_kind))}
                for moment in self.timeline
            ],
        }

    def torch_snapshot(self) -> dict[str, Any]:
        """Return what `torch.cuda.memory._snapshot` returns after a steady step whose history was recorded.

        On CUDA the blocks lie where torch's allocator puts them, on a card with room for the step. On the CPU they lie
        in one arena: each in the smallest hole that is large enough.

        Returns:
            `segments` with their blocks when the step ends, and the step's allocations and frees in `device_traces`.

        >>> trace = memory("D").torch_snapshot()["device_traces"][0]
        >>> trace[-2]["action"], trace[-2]["frames"][0]["name"]
        ('free_completed', 'backward of block1_conv1')
        """
        return step_of(self.network, self.options).torch_snapshot()

    def to_pickle(self) -> bytes:
        """Return `torch_snapshot` as a file that https://pytorch.org/memory_viz opens."""
        return viewer.pickled(self.torch_snapshot())

    def table(self, advice: Sequence[str] = ()) -> Table:
        """Return a row for each kind of memory at the peak, their sum, and sentences on what may surprise.

        Args:
            advice: sentences on other steps, such as `vggkit.footprint.remedies.advice` has.
        """
        total = self.peak_bytes
        columns: list[Column[tuple[str, int]]] = [
            Column("what", lambda row: MEMORY_KINDS[row[0]]),
            Column("bytes", lambda row: grouped(row[1]), "right", style="green"),
            Column("", lambda row: megabytes(row[1]), "right", rank=2),
            Column("share", lambda row: percent(row[1], total), "right", rank=1),
            Column("", lambda row: bar(row[1], total), rank=3, style="cyan"),
        ]
        alive = [(kind, size) for kind, size in self.by_kind.items() if size]
        footer = ["peak", grouped(total), megabytes(total), "", ""]
        data = [*self.by_kind.items(), ("peak", total)]
        if self.allocated_bytes is not None and self.reserved_bytes is not None:
            data += [("allocated", self.allocated_bytes), ("reserved", self.reserved_bytes)]
        if self.by_rank:
            data += [("sent", self.sent_bytes), ("received", self.received_bytes)]
        return Table(
            grid(columns, alive, footer, title=self.title),
            records=[{"kind": kind, "bytes": size} for kind, size in data],
            data=self.to_dict(),
            notes=self._sentences(advice),
        )

    def _sentences(self, advice: Sequence[str]) -> list[str]:
        largest = max(self.by_kind, key=self.by_kind.__getitem__)
        share = percent(self.by_kind[largest], self.peak_bytes)
        said = [
            f"The peak is {megabytes(self.peak_bytes)} ({mebibytes(self.peak_bytes)}), in the {self.peak_at};"
            f" {share} of it are {KINDS_IN_SENTENCES.get(largest, MEMORY_KINDS[largest])}."
        ]
        if self.options.has_backward:
            what = f" ({', '.join(self._kept())})" if not self.by_rank else ""  # below it says what a rank has
            said.append(
                f"Kept for the backward pass: {megabytes(self.saved_for_backward_bytes)}. Kept between steps:"
                f" {megabytes(self.steady_bytes)}{what}."
            )
        if self.peak_at == OPTIMIZER_STEP:
            said.append("At this batch the optimizer's own temporaries, not the activations, make the peak.")
        said += [*advice, *self._group_sentences()]
        if self.allocated_bytes is not None and self.reserved_bytes is not None:
            holes = self.reserved_bytes - self.allocated_bytes
            said.append(
                f"What the card must have: {grouped(self.reserved_bytes)} bytes ({mebibytes(self.reserved_bytes)})"
                " reserved by torch's allocator."
            )
            said.append(
                f"Of them {grouped(self.allocated_bytes)} are allocated at most; {percent(holes, self.reserved_bytes)}"
                " are holes."
            )
            said.append("Workspaces of cuDNN and cuBLAS and the CUDA context are not included.")
        return said

    def _kept(self) -> Iterator[str]:
        """Yield what stays between steps, in words."""
        options = self.options
        yield "parameters"
        if options.trainable or (options.takes("optimizer") and not options.step_in_backward):
            yield "gradients"
        if options.takes("optimizer"):
            yield "optimizer"
        if options.ema:
            yield "moving average"

    def _group_sentences(self) -> list[str]:
        if not self.by_rank:
            return []
        group, images = self.options.group, grouped(self.images)
        strategy = STRATEGIES[group.parallel]
        whose = {1: "the group's", group.ranks: "one rank's"}.get(strategy.batches(group), "one replica's")
        said = [
            f"Each of {group.ranks} ranks {strategy.words}, as in torch {TORCH}.",
            f"The batch is {whose}, so that a step has {images} images in all.",
            *strategy.sentences(group, self.options.batch),
        ]
        fullest, emptiest = (choose(self.by_rank, key=lambda rank: rank.bytes) for choose in (max, min))
        if fullest.bytes == emptiest.bytes:
            said.append("All ranks hold the same.")
        else:
            said.append(
                f"Rank {fullest.rank} holds the most, {megabytes(fullest.bytes)}; rank {emptiest.rank} the least,"
                f" {megabytes(emptiest.bytes)}."
            )
        said.append(
            f"In a step this rank sends {megabytes(self.sent_bytes)} and receives {megabytes(self.received_bytes)},"
            f" {strategy.sends}. NCCL's own buffers are not included."
        )
        return said


KINDS_IN_SENTENCES = {"optimizer": "the optimizer's"}
"""A kind of memory that is one thing, in a sentence on its bytes."""

BAR = 24
"""Width of a bar of 100 %, in characters."""


def bar(part: int, whole: int) -> str:
    """Draw a share as a bar, in eighths of a character."""
    eighths = round(BAR * 8 * part / whole)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


class MemoryArguments(Overrides, OtherArguments, total=False):
    """The keywords that `memory` passes on, for type checkers."""


def memory(
    source: Source,
    *,
    batch: SupportsIndex = 1,
    mode: str = "training",
    dtype: Dtype = "float32",
    loss: str = DEFAULT_LOSS,
    optimizer: str | None = None,
    device: str = "cpu",
    freeze: str | Iterable[str] = (),
    checkpoint: str | Iterable[str] = (),
    taps: str | Iterable[str] = (),
    cached_target: bool = False,
    trainable: bool = False,
    autocast: bool = False,
    allocator: str = "",
    zero_grad: str = "set_to_none",
    accumulate: SupportsIndex = 1,
    ema: bool = False,
    clip_grad: bool = False,
    step_in_backward: bool = False,
    **others: Unpack[MemoryArguments],
) -> MemoryPlan:
    """Plan the memory of a step, to the byte.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        batch: number of images.
        mode: "training", "inference" or "perceptual": the network as a loss, as `Perceptual` has it.
        dtype: float32, bfloat16, float16 or float64, of parameters, images and activations.
        loss: cross-entropy, label-smoothing (cross-entropy with `label_smoothing`), soft-labels (cross-entropy with a
            probability of each class, as MixUp makes them) or mean-squared-error (with a value for each of the output).
        optimizer: none, sgd, sgd-momentum (the default; without weight decay), paper, asgd, adam, adamw, nadam, radam,
            adamax, rmsprop, adagrad, adadelta, adafactor or rprop; none in inference. paper is sgd-momentum with the
            paper's weight decay.
        device: cpu, or cuda, where dropout's mask is smaller and each tensor is rounded up to 512 bytes; there the plan
            also says what torch's allocator reserves.
        freeze: blocks and layers that are not trained, a name or several.
        checkpoint: blocks that are run again in the backward pass, a name or several.
        taps: of a perceptual loss: layers whose activations it compares, a name or several.
        cached_target: of a perceptual loss: whether the target's activations are computed once, before the loop.
        trainable: of a perceptual loss: whether the network's parameters require gradients, as they do unless somebody
            freezes them.
        autocast: whether `torch.autocast` to bfloat16 is on; the parameters are float32 then.
        allocator: settings of torch's CUDA allocator, as in PYTORCH_ALLOC_CONF: "expandable_segments:True".
        zero_grad: "set_to_none" frees the gradients before each step; with "zero" they stay, as with
            `zero_grad(set_to_none=False)`, and new ones are added to them.
        accumulate: number of batches whose gradients are added up before the optimizer steps.
        ema: whether a second model has moving averages of the parameters.
        clip_grad: whether `torch.nn.utils.clip_grad_norm_` is called before the optimizer steps.
        step_in_backward: whether each parameter has an optimizer of its own, which steps in the backward pass as soon
            as the gradient is there (`register_post_accumulate_grad_hook`), and frees it.
        others: the optimizer's own options (weight_decay, foreach, fused, nesterov, amsgrad, momentum, centered), as
            torch has them and `Update` explains them; what several ranks do (ranks, parallel, rank, bucket_cap_mb,
            static_graph, units, reshard_after_forward, replicas, param_dtype, reduce_dtype, cut, microbatches,
            schedule, balance), as `Group` explains it; and changes to make, as for `load`.

    Returns:
        The plan.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values, or torch can't run the step: a batch or group norm
            would have a single value to take statistics of.

    >>> memory("D").peak_bytes, memory("D", optimizer="paper").peak_bytes
    (1722992880, 2071934444)
    >>> memory("D", batch=16, device="cuda").reserved_bytes
    3474980864
    >>> memory("D", mode="perceptual", taps=["relu1_2", "relu2_2"]).peak_bytes
    95371528
    >>> memory("D", ranks=8, parallel="ddp").peak_bytes
    2276423056
    """
    overrides, of_others = divided(memory, others, OTHERS)
    network = Network.of(source, **overrides)
    options = checked_options(
        network,
        batch=batch,
        mode=mode,
        dtype=dtype,
        loss=loss,
        optimizer=optimizer,
        device=device,
        freeze=freeze,
        checkpoint=checkpoint,
        taps=taps,
        cached_target=cached_target,
        trainable=trainable,
        autocast=autocast,
        allocator=allocator,
        zero_grad=zero_grad,
        accumulate=accumulate,
        ema=ema,
        clip_grad=clip_grad,
        step_in_backward=step_in_backward,
        **of_others,
    )
    return plan_step(network, options)


def plan_step(network: Network, options: StepOptions) -> MemoryPlan:
    """Plan a step whose options have been checked.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    steps = steps_of_ranks(network, options)
    plans = {step: plan_of(step) for step in dict.fromkeys(steps)}
    if len(steps) == 1:
        return plans[steps[0]]
    by_rank = [
        RankMemory(rank, plans[step].peak_bytes, plans[step].reserved_bytes, *step.strategy.traffic(rank))
        for rank, step in enumerate(steps)
    ]
    fullest = max(by_rank, key=lambda rank: rank.bytes)
    shown = fullest if options.group.rank is None else by_rank[options.group.rank]
    return msgspec.structs.replace(
        plans[steps[shown.rank]],
        options=steps[shown.rank].options.of_rank(shown.rank),
        sent_bytes=shown.sent_bytes,
        received_bytes=shown.received_bytes,
        by_rank=tuple(by_rank),
    )


def plan_of(step: Step) -> MemoryPlan:
    """Return what a step holds."""
    saved: dict[str, int] = {}
    for storage, layer in step.saved.items():
        saved[layer] = saved.get(layer, 0) + storage.size
    peak = step.peak
    use = step.card_use() if step.options.device == "cuda" else None
    return MemoryPlan(
        network=step.network,
        options=step.options,
        peak_bytes=peak.size,
        peak_at=peak.event,
        by_kind=dict(zip(MEMORY_KINDS, peak.by_kind)),
        saved_for_backward_bytes=sum(saved.values()),
        steady_bytes=step.steady_bytes,
        layers=tuple(LayerMemory(name, saved.get(name, 0), size) for name, size in step.outputs.items()),
        timeline=tuple(step.moments),
        allocated_bytes=use and use.allocated_bytes,
        reserved_bytes=use and use.reserved_bytes,
        retries=use and use.retries,
    )


def peak_bytes(network: Network, options: StepOptions) -> int:
    """Return the most bytes alive at one moment of a step whose options have been checked, on the fullest rank.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    return max(step.peak.size for step in runnable_steps(network, options))


def peak_and_saved_bytes(
    network: Network, options: StepOptions, largest: Callable[[Iterable[int]], int] = max
) -> tuple[int, int]:
    """Return two figures of a step whose options have been checked, without the rest of its plan.

    Args:
        network: the network.
        options: what the step is like.
        largest: returns the largest of numbers; for sizes that are `Many`, `vggkit.base.many.largest`.

    Returns:
        Most bytes alive at one moment, and what is saved for the backward pass; of several ranks the fullest one's.

    Raises:
        ArgumentError: if torch refuses to run the step.
    """
    steps = runnable_steps(network, options)
    peaks = [largest(moment.size for moment in step.moments) for step in steps]
    fullest = max(range(len(steps)), key=peaks.__getitem__)
    return peaks[fullest], sum(storage.size for storage in steps[fullest].saved)


def reserved_on_card(network: Network, options: StepOptions) -> int:
    """Return what a card must have for a loop of steps, without the rest of their plan.

    Args:
        network: the network.
        options: what a step is like, checked; its device is taken as cuda.

    Returns:
        Most bytes that torch's allocator reserves in a steady step, on a card with room for it; of several ranks the
        most that one reserves.

    Raises:
        ArgumentError: if torch refuses to run the step.

    >>> reserved_on_card(Network.of("D"), StepOptions(batch=16))
    3474980864
    """
    steps = runnable_steps(network, options.replace(device="cuda"))
    return max(step.card_use().reserved_bytes for step in steps)


# The rows of a summary


class SavedBytes(msgspec.Struct, frozen=True):
    """What the rows of a summary keep for the backward pass.

    Args:
        by_row: bytes by the row's name.
        total: their sum; the loss is not in it.
    """

    by_row: dict[str, int]
    total: int


def saved_by_row(plan: MemoryPlan, rows: Iterable[str]) -> SavedBytes:
    """Return the saved bytes of a summary's rows; those of a layer without a row are added to the row before.

    Args:
        plan: a training step.
        rows: names of layers, in order.
    """
    rows = set(rows)
    saved: dict[str, int] = {}
    row = ""
    for layer in plan.layers[:-1]:  # the last is the loss, which is not a layer of the network
        row = layer.name if layer.name in rows or not row else row
        saved[row] = saved.get(row, 0) + layer.saved_bytes
    return SavedBytes(saved, sum(saved.values()))

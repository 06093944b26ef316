"""What eager PyTorch allocates and frees in a step, storage by storage, without PyTorch.

The operations of a network's layers run here on tensors that have a size but no values, in the order in which torch
dispatches them. A storage dies when its last reference goes: a Python variable, a saved tensor of the autograd graph,
or a gradient that is not used yet. After each operation the alive bytes are noted, as torch's MemTracker notes them.

Bytes are counted in two parts, those that grow with the batch and those that don't, so that a single walk answers for
every batch. Which operations a layer consists of is defined with the layer: its `run` is given an `Eager`, as its
`module` is given `torch.nn`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple, Protocol

from vggkit.base.shapes import Kept, Shape, elements
from vggkit.base.sums import PartialSums, Split, channel_sums, column_sums, total

MEMORY_KINDS = {
    "parameters": "parameters",
    "buffers": "running statistics",
    "gradients": "gradients of parameters",
    "optimizer": "optimizer",
    "activations": "activations",
    "temporaries": "temporaries",
    "inputs": "images and targets",
    "communication": "sent between ranks",
}
"""What memory is used for, and the words for it in tables."""

PARAMETERS, BUFFERS, GRADIENTS, OPTIMIZER, ACTIVATIONS, TEMPORARIES, INPUTS, COMMUNICATION = range(8)

CUDA_BLOCK = 512
"""On CUDA each tensor takes a multiple of these bytes (c10/cuda/CUDACachingAllocator.h, kMinBlockSize)."""

WIDE = 4
"""Bytes of the elements in which CUDA's kernels add up, if those of the input are not wider: float32."""

INDEX_BYTES = 8
"""An int64: labels, and the indices of max pooling."""

LEAF_ORDER = 2**64 - 1
"""A leaf's node runs as soon as it is ready (torch/csrc/autograd/functions/accumulate_grad.cpp, sequence_nr)."""

RECOMPUTATION = "recomputation"
"""What a forward pass is called that a checkpointed block runs in the backward pass."""

START = "start"
"""The event before any operation: what is there already is counted, images and targets are made."""


class Storage:
    """A piece of memory.

    Args:
        per_image: bytes that grow with the batch, for one image.
        constant: bytes that don't.
        size: bytes in all, rounded as the device rounds them.
        kind: what it is for: an index into `MEMORY_KINDS`.
        stream: of CUDA, in which it is allocated.
        is_scratch: whether it is what a kernel of CUDA takes for itself, and how much that is depends on the card.
    """

    __slots__ = ("constant", "is_parameter", "is_scratch", "kind", "per_image", "references", "size", "stream")

    def __init__(self, per_image: int, constant: int, size: int, kind: int) -> None:
        self.per_image = per_image
        self.constant = constant
        self.size = size
        self.kind = kind
        self.stream = 0
        self.references = 1
        self.is_parameter = False
        self.is_scratch = False

    @property
    def rule(self) -> tuple[int, ...]:
        """The numbers that give its bytes at any batch: those that don't grow, and those for one image."""
        return self.constant, self.per_image

    def bytes_at(self, batch: int) -> int:
        """Return its bytes at a batch."""
        return self.per_image * batch + self.constant


class Scratch(Storage):
    """What a kernel takes for itself to add up rows in parts. It has no bytes where the rows are added up at once.

    Args:
        split: into how many parts.
        constant_bytes: bytes, if there are parts.
        part_bytes: bytes of each part.
        size: bytes in all, rounded as the device rounds them.
    """

    __slots__ = ("constant_bytes", "part_bytes", "split")

    def __init__(self, split: Split, constant_bytes: int, part_bytes: int, size: int) -> None:
        super().__init__(0, 0, size, TEMPORARIES)
        self.is_scratch = True
        self.split = split
        self.constant_bytes = constant_bytes
        self.part_bytes = part_bytes

    @property
    def rule(self) -> tuple[int, ...]:
        """The numbers that give its bytes at any batch: those if there are parts, those of each part, and the split."""
        return self.constant_bytes, self.part_bytes, *self.split

    def bytes_at(self, batch: int) -> int:
        parts = self.split.parts(batch)
        return self.constant_bytes + parts * self.part_bytes if parts else 0


NOTHING = Storage(0, 0, 0, ACTIVATIONS)
"""The memory of an empty tensor, which is kept, too: that of statistics where a normalisation computes none."""
NOTHING.is_parameter = True  # it is never freed


class Tensor:
    """A tensor: where it lives, its shape for one image, its bytes per element, and the node that made it."""

    __slots__ = ("element_bytes", "is_view", "node", "shape", "storage")

    def __init__(
        self, storage: Storage, shape: Shape, element_bytes: int, node: Node | None = None, *, is_view: bool = False
    ) -> None:
        self.storage = storage
        self.shape = shape
        self.element_bytes = element_bytes
        self.node = node
        self.is_view = is_view

    @property
    def edge(self) -> Edge:
        """Where its gradient goes."""
        return self.node

    @property
    def is_leaf(self) -> bool:
        """Whether it requires a gradient, and no operation made it."""
        return self.node is not None and not self.node.edges

    @property
    def size(self) -> tuple[int, int]:
        """Bytes per image and constant bytes."""
        return elements(self.shape) * self.element_bytes, 0

    def cast_size(self, element_bytes: int) -> tuple[int, int]:
        """Bytes per image and constant bytes that it would have with other elements."""
        return elements(self.shape) * element_bytes, 0


class Parameter:
    """A parameter, or its copy in another dtype that autocast made."""

    __slots__ = ("element_bytes", "gradient", "node", "requires_grad", "shape", "storage")

    def __init__(self, storage: Storage, shape: Shape, element_bytes: int, requires_grad: bool) -> None:
        self.storage = storage
        self.shape = shape
        self.element_bytes = element_bytes
        self.requires_grad = requires_grad
        self.node: Node | None = None
        self.gradient: Storage | None = None

    @property
    def edge(self) -> Edge:
        """Where its gradient goes."""
        if self.node is not None:
            return self.node
        return self if self.requires_grad else None

    @property
    def is_leaf(self) -> bool:
        """Whether it requires a gradient, and no operation made it."""
        return self.requires_grad

    @property
    def size(self) -> tuple[int, int]:
        """Bytes per image and constant bytes."""
        return 0, self.storage.constant

    def cast_size(self, element_bytes: int) -> tuple[int, int]:
        """Bytes per image and constant bytes that it would have with other elements."""
        return 0, self.storage.constant // self.element_bytes * element_bytes


GradientHook = Callable[[Parameter], None]
"""What is called with a parameter that has its gradient."""

Gradients = list["Storage | None"]
Backward = Callable[[Storage], Gradients]


class Node:
    """A node of the autograd graph: what it keeps, how it makes its inputs' gradients, and where they go."""

    __slots__ = (
        "adjust",
        "backward",
        "before",
        "dependencies",
        "edges",
        "frame",
        "gradient",
        "layer",
        "order",
        "packs",
        "saved",
    )

    def __init__(self, layer: str, order: int, edges: Sequence[Edge], frame: Frame | None) -> None:
        self.layer = layer
        self.order = order
        self.edges = edges
        self.frame = frame
        self.backward: Backward | None = None
        self.before: Callable[[], None] | None = None
        self.adjust: Callable[[Storage, Gradients], Gradients] | None = None
        self.saved: list[Storage] = []
        self.packs: list[tuple[int, bool]] = []
        self.gradient: Storage | None = None
        self.dependencies = 0


Edge = Node | Parameter | None


class Frame:
    """A checkpointed block: its input is kept, and its saved tensors are made again when they are needed."""

    __slots__ = ("alive", "layers", "packs", "recomputed", "recomputing", "x")

    def __init__(self, x: Tensor, layers: Sequence[PlacedRun]) -> None:
        self.x = x
        self.layers = layers
        self.packs = 0
        self.alive = 0
        self.recomputing = -1
        self.recomputed: dict[int, Storage] = {}


class Runs(Protocol):
    """What runs on tensors without values: a layer."""

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Return the output, with a reference to it."""


class PlacedRun(NamedTuple):
    """A layer with its name and its parameters, ready to run; a frozen one runs in evaluation mode."""

    name: str
    layer: Runs
    parameters: dict[str, Parameter]
    frozen: bool = False


class Moment(NamedTuple):
    """The alive bytes after an operation.

    Args:
        event: "forward of block1_conv1", "backward of block3_pool", "optimizer step".
        size: bytes in all.
        per_image: those that grow with the batch, for one image, before any rounding.
        constant: those that don't.
        by_kind: bytes of each of `MEMORY_KINDS`.
    """

    event: str
    size: int
    per_image: int
    constant: int
    by_kind: tuple[int, ...]


Event = tuple[str, Storage, bool]
"""An allocation, or what ends it: the operation, as in `Moment`; the storage; and whether it is allocated."""


class _RecomputedEnough(Exception):  # noqa: N818  # a signal: torch stops a recomputation at its last saved tensor
    pass


class Eager:
    """A step of eager PyTorch.

    Args:
        batch: number of images.
        device: "cpu" or "cuda".
        training: whether dropout drops, batch norm computes statistics of the batch, and a graph is recorded.

    Attributes:
        frozen: whether the layer that runs is frozen: its batch norm uses running statistics, in training too.
        stream: of CUDA, in which operations run: 0, unless somebody changes it.
        moments: the alive bytes after each operation.
        events: each allocation and each end of one, in order; whoever drives the step may begin a new list.
        kept: each storage that is kept for the backward pass, and the first layer that keeps it.
        outputs: bytes of each layer's output, 0 if that is in another's memory.
        added: each gradient of a parameter that was added to one that was there, and that one.
        run_again: names of the layers that a backward pass has run again to their end.
        refused: the normalisations that torch refuses to run, because they would take statistics of a single value.
    """

    def __init__(self, batch: int, device: Literal["cpu", "cuda"] = "cpu", *, training: bool = True) -> None:
        self.batch = batch
        self.device = device
        self.training = training
        self.autograd = training
        self.autocast = False
        self.frozen = False
        self.event = START
        self.moments: list[Moment] = []
        self.events: list[Event] = []
        self.kept: dict[Storage, str] = {}
        self.outputs: dict[str, int] = {}
        self.added: dict[Storage, Storage] = {}
        self.run_again: set[str] = set()
        self.refused: list[str] = []
        self.kind = ACTIVATIONS
        self.stream = 0
        self._alive = [0] * len(MEMORY_KINDS)
        self._per_image = 0
        self._constant = 0
        self._order = 0
        self._layer = ""
        self._casts: dict[Tensor | Parameter, Tensor | Parameter] = {}
        self._frame: Frame | None = None
        self._recomputed: Frame | None = None
        self._scope: dict[Storage, int] | None = None
        self._cast_in_backward = False
        self._hook: GradientHook | None = None
        self._expanded: set[Storage] = set()

    # Storages

    def new(self, per_image: int, constant: int = 0, kind: int | None = None) -> Storage:
        """Allocate; the caller holds the first reference."""
        size = self._rounded(per_image * self.batch + constant)
        return self._allocate(Storage(per_image, constant, size, self.kind if kind is None else kind))

    def scratch(self, sums: PartialSums | None) -> list[Storage]:
        """Allocate what a kernel of CUDA's takes for itself to add up in parts: their sums, and the counters."""
        if sums is None or self.device == "cpu":
            return []
        split, of_parts, of_counters = sums
        parts = split.parts(self.batch)
        return [
            self._allocate(Scratch(split, 0, of_parts, self._rounded(parts * of_parts))),
            self._allocate(Scratch(split, of_counters, 0, self._rounded(of_counters if parts else 0))),
        ]

    def kernel_scratch(self, size: int) -> Storage | None:
        """Allocate what a kernel of CUDA's takes for itself: so many bytes on the card that is assumed."""
        if self.device == "cpu":
            return None
        storage = self.new(0, size, TEMPORARIES)
        storage.is_scratch = True
        return storage

    def _rounded(self, size: int) -> int:
        return -(-size // CUDA_BLOCK) * CUDA_BLOCK if self.device == "cuda" else size

    def _allocate(self, storage: Storage) -> Storage:
        storage.stream = self.stream
        self.events.append((self.event, storage, True))
        self._alive[storage.kind] += storage.size
        self._per_image += storage.per_image
        self._constant += storage.constant
        if self._scope is not None:
            self._scope[storage] = 1
        return storage

    def hold(self, storage: Storage) -> Storage:
        """Take one more reference."""
        storage.references += 1
        if self._scope is not None:
            self._scope[storage] = self._scope.get(storage, 0) + 1
        return storage

    def release(self, *held: Storage | Tensor | Parameter | None) -> None:
        """Give up references. A storage that has none left is freed."""
        for holder in held:
            if holder is None:
                continue
            storage = holder if isinstance(holder, Storage) else holder.storage
            storage.references -= 1
            if self._scope is not None:
                self._scope[storage] -= 1
            if storage.references == 0:
                self.events.append((self.event, storage, False))
                self._alive[storage.kind] -= storage.size
                self._per_image -= storage.per_image
                self._constant -= storage.constant

    def note(self) -> None:
        """Note the alive bytes: an operation has run."""
        alive = self._alive
        self.moments.append(Moment(self.event, sum(alive), self._per_image, self._constant, tuple(alive)))

    # The autograd graph

    def op(
        self,
        x: Tensor,
        *others: Tensor | Parameter | None,
        shape: Shape | None = None,
        element_bytes: int | None = None,
        keeps: Iterable[Tensor | Parameter] = (),
        keeps_output: bool = False,
        extras_before: Sequence[tuple[int, int]] = (),
        extras: Sequence[tuple[int, int]] = (),
        temporaries: Sequence[tuple[int, int]] = (),
        sums: PartialSums | None = None,
        in_place: bool = False,
        backward: Backward | None = None,
        adjust: Callable[[Storage, Gradients], Gradients] | None = None,
    ) -> Tensor:
        """Run one operation.

        Args:
            x: its input.
            others: its other inputs.
            shape: of the output, for one image; the input's if absent.
            element_bytes: of the output; the input's if absent.
            keeps: inputs that its backward pass needs.
            keeps_output: whether its backward pass needs the output.
            extras_before: bytes per image and constant bytes of each further tensor that it makes for its backward
                pass, before it makes the output.
            extras: the same, after it has made the output.
            temporaries: the same of each tensor that it frees again when it has run.
            sums: those that it makes, perhaps in parts.
            in_place: whether the output is written over the input.
            backward: makes the inputs' gradients from the output's; if absent, one as large as each input.
            adjust: what the engine does to those gradients before it passes them on.

        Returns:
            The output; the caller holds a reference to it.
        """
        shape = x.shape if shape is None else shape
        element_bytes = element_bytes or x.element_bytes
        inputs = (x, *others)
        edges = [None if tensor is None else tensor.edge for tensor in inputs]
        # real tensors, unlike fake ones, have the view made anew from what is viewed (AsStridedBackward0)
        renews_view = in_place and x.is_view and self.device == "cuda"
        if renews_view and x.node is not None:
            edges[0] = x.node.edges[0]
        node = self.node(edges)
        if node is not None:
            node.backward = backward or self._makes(
                *(None if one is None or edge is None else one.size for one, edge in zip(inputs, node.edges))
            )
            if in_place and x.is_view:
                node.backward = self._through_view(x, node.backward)
            node.adjust = adjust
            for tensor in keeps:
                self.keep(node, tensor.storage)
        made = [self.new(*extra) for extra in extras_before]
        storage = self.hold(x.storage) if in_place else self.new(elements(shape) * element_bytes)
        made += [self.new(*extra) for extra in extras]
        used = [self.new(*temporary) for temporary in temporaries]
        used += self.scratch(sums)
        self.note()
        self.release(*used)
        if node is not None:
            for extra in made:
                self.keep(node, extra)
            if keeps_output:
                self.keep(node, storage)
        self.release(*made)
        if renews_view:
            node = self.node([node])
            if node is not None:
                node.backward = self._makes(x.size)
        return Tensor(storage, shape, element_bytes, node, is_view=in_place and x.is_view)

    def linear(self, x: Tensor, weight: Parameter, bias: Parameter | None, shape: Shape) -> Tensor:
        """Run `torch.nn.functional.linear`: addmm, or mm without a bias."""
        x, weight, bias, casts = self.lower(x, weight, bias)
        of_x, of_weight, of_bias = x.edge, weight.edge, bias.edge if bias else None
        # of a group of ranks some may have no units
        sums = column_sums(elements(shape), max(x.element_bytes, WIDE)) if elements(shape) else None

        def backward(gradient: Storage) -> Gradients:
            wanted = [x.size if of_x else None, weight.size if of_weight else None]
            step = 1 if bias else -1  # addmm makes the input's gradient first, mm the weight's
            made = [None if size is None else self.new(*size) for size in wanted[::step]][::step]
            self.note()
            return [made[0], self.hold(gradient) if of_bias else None, made[1]]

        def adjust(_: Storage, made: Gradients) -> Gradients:
            if bias is None or not of_bias:
                return made
            total = self.new(*bias.size)  # the engine sums the gradient over the batch
            scratch = self.scratch(sums)
            self.note()
            self.release(*scratch, made[1])
            return [made[0], total, made[2]]

        keeps: list[Tensor | Parameter] = [*([x] if of_weight else []), *([weight] if of_x else [])]
        # the bias comes first, as the weight's gradient goes through its transpose
        y = self.op(x, bias, weight, shape=shape, keeps=keeps, backward=backward, adjust=adjust)
        self.release(*casts)
        return y

    def batch_norm(self, x: Tensor, parameters: dict[str, Parameter], statistics: Sequence[Kept]) -> Tensor:
        """Run a batch normalisation.

        Args:
            x: its input.
            parameters: its weight and bias, if it is affine.
            statistics: those that it computes and keeps; empty where it uses running statistics.
        """
        if self.device == "cpu":
            extras = self._statistics(x, statistics, x.element_bytes)
            # the kernel of fake tensors makes the input's gradient even if nobody wants it
            return self._normalize(x, parameters, extras, self._makes(x.size, *_wanted(parameters)))
        wide = max(x.element_bytes, WIDE)
        of_channel = 0, x.shape[0] * wide
        extras = self._statistics(x, statistics, wide)
        # cuDNN takes affine ones of maps (aten/src/ATen/native/Normalization.cpp, _select_batch_norm_backend)
        by_cudnn = len(x.shape) > 1 and "weight" in parameters and x.element_bytes >= WIDE
        of_x, of_parameters = x.size if x.edge else None, _wanted(parameters)
        of_cudnn = by_cudnn and bool(statistics)
        # torch's own kernels add up apart where channels lie side by side (aten/src/ATen/native/cuda/Normalization.cu)
        adds_up = bool(statistics) or any(of_parameters)
        adds_apart = not of_cudnn and adds_up and 1 in (x.shape[0], elements(x.shape[1:]))
        # behind cuDNN's, which has kept nothing, they work the deviation out again, unless one kernel does everything
        does_everything = of_x and adds_up and not adds_apart
        first = [of_channel] if by_cudnn and not of_cudnn and not does_everything else []
        of_all = [parameter.size for parameter in parameters.values()]  # made even if nobody wants them
        backward = self._makes(of_x, *of_parameters, first=first)
        if of_cudnn:
            backward = self._makes(x.size, *of_all)
        elif adds_apart:
            sums = channel_sums(x.shape[0], elements(x.shape[1:]), 2 * wide)

            def backward(_: Storage) -> Gradients:
                temporaries = [self.new(*size) for size in (*first, of_channel, of_channel)]
                others = [self.new(*size) for size in of_all]
                scratch = self.scratch(sums)
                self.note()
                self.release(*scratch)
                made = self.new(*of_x) if of_x else None
                self.note()
                self.release(*temporaries)
                return [made, *others]

        if not statistics and not by_cudnn:
            extras = [of_channel, of_channel]
        is_flat = not by_cudnn and statistics and elements(x.shape[1:]) == 1
        sums_of_x = channel_sums(x.shape[0], 1, 4 * wide) if is_flat else None
        return self._normalize(x, parameters, extras, backward, sums=sums_of_x)

    def group_norm(self, x: Tensor, parameters: dict[str, Parameter], statistics: Sequence[Kept]) -> Tensor:
        """Run a group normalisation; the arguments are those of `batch_norm`."""
        weight = parameters.get("weight")
        extras = self._statistics(x, statistics, x.element_bytes)
        if self.device == "cpu":
            # fake tensors run the backward pass as separate operations
            mixed = weight is not None and weight.element_bytes != x.element_bytes
            wide = WIDE if mixed else x.element_bytes
            backward = self._makes(x.cast_size(wide) if x.edge else None, *_wanted(parameters))
            return self._normalize(x, parameters, extras, backward, self._casts_back(x, wide))
        # aten/src/ATen/native/cuda/group_norm_kernel.cu
        wide = max(x.element_bytes, WIDE)
        of_group, of_channel = (elements(statistics[0].shape) * wide, 0), (x.shape[0] * wide, 0)
        is_flat = elements(x.shape[1:]) == 1
        temporaries = [of_group, of_group] if x.element_bytes < WIDE else []
        if weight and not is_flat:
            temporaries += [of_channel, of_channel]
        of_x = x.size if x.edge else None
        sums = [] if is_flat else [of_channel, of_channel]
        if of_x:
            sums += [of_group, of_group, *([of_channel] if weight and not is_flat else [])]
        backward = self._makes(of_x, *_wanted(parameters), last=sums)
        return self._normalize(x, parameters, extras, backward, temporaries=temporaries)

    def _statistics(self, x: Tensor, statistics: Sequence[Kept], element_bytes: int) -> list[tuple[int, int]]:
        """Return the bytes per image and constant bytes of each; note where torch refuses to compute one."""
        sizes = []
        for kept in statistics:
            if self.batch * elements(x.shape) == elements(kept.shape):  # torch/nn/functional.py, _verify_batch_size
                self.refused.append(self._layer)
            size = elements(kept.shape) * element_bytes
            sizes.append((size, 0) if kept.per_image else (0, size))
        return sizes

    def _normalize(
        self,
        x: Tensor,
        parameters: dict[str, Parameter],
        extras: Sequence[tuple[int, int]],
        backward: Backward,
        adjust: Callable[[Storage, Gradients], Gradients] | None = None,
        temporaries: Sequence[tuple[int, int]] = (),
        sums: PartialSums | None = None,
    ) -> Tensor:
        keeps: list[Tensor | Parameter] = [x, *([parameters["weight"]] if "weight" in parameters else [])]
        y = self.op(
            x,
            *parameters.values(),
            keeps=keeps,
            extras=extras,
            temporaries=temporaries,
            sums=sums,
            backward=backward,
            adjust=adjust,
        )
        if y.node is not None and not extras:
            self.keep(y.node, NOTHING)
        return y

    def softmax(self, x: Tensor) -> Tensor:
        """Run soft-max y; on CUDA its gradient needs g · y (aten/src/ATen/native/cuda/SoftMax.cu)."""
        scores, cast = self.raise_precision(x, only_on="cuda")
        product = [scores.size] if self.device == "cuda" else []
        y = self.op(scores, keeps_output=True, backward=self._makes(scores.size, last=product))
        self.release(cast)
        return y

    def add_number(self, x: Tensor) -> Tensor:
        """Run x + number, whose gradient is the output's own."""
        return self.op(x, backward=lambda gradient: [self.hold(gradient)])

    def power(self, x: Tensor) -> Tensor:
        """Run x ** number; its gradient is g · (exponent · x ** (exponent − 1))."""

        def backward(_: Storage) -> Gradients:
            power, product, made = self.new(*x.size), self.new(*x.size), self.new(*x.size)
            self.note()
            self.release(power, product)
            return [made]

        return self.op(x, keeps=(x,), backward=backward)

    def divide(self, x: Tensor, divisor: Tensor) -> Tensor:
        """Run x / divisor; the divisor's gradient, −g · ((x / divisor) / divisor), is made first."""
        wide = divisor.element_bytes
        size = x.cast_size(wide)

        def backward(_: Storage) -> Gradients:
            temporaries = [self.new(*size) for _ in range(3)]
            of_divisor = self.new(*size)
            self.note()
            self.release(*temporaries)
            of_x = self.new(*size)
            self.note()
            return [of_x, of_divisor]

        adjust = self._casts_back(x, wide)
        return self.op(x, divisor, element_bytes=wide, keeps=(x, divisor), backward=backward, adjust=adjust)

    def pad_circular(self, x: Tensor, shape: Shape, pads: tuple[int, int]) -> Tensor:
        """Pad with values from the opposite side as torch does: into a new tensor, slices are copied one by one."""
        whole = elements(shape) * x.element_bytes
        storage = self.new(whole)
        self.note()
        node: Node | None = None
        if self.autograd and x.edge is not None:
            first = self._slice(x.edge, x.size[0])
            node = self._copy_slice(whole, x.size[0], None, self._slice(first, x.size[0]))
            rows = shape[0] * shape[1] * pads[1] * x.element_bytes
            columns = shape[0] * pads[0] * shape[2] * x.element_bytes
            for size in filter(None, (rows, rows, columns, columns)):
                node = self._copy_slice(whole, size, node, self._slice(node, whole))
        return Tensor(storage, shape, x.element_bytes, node)

    def _slice(self, edge: Edge, size: int) -> Node:
        """Record a slice, whose gradient has the size of the whole."""
        node = self.node([edge])
        assert node is not None
        node.backward = self._makes((size, 0))
        return node

    def _copy_slice(self, whole: int, size: int, before: Node | None, source: Node) -> Node:
        """Record a copy into a slice: its gradients are the whole with the slice set to zero, and the slice's."""

        def backward(_: Storage) -> Gradients:
            of_whole, of_slice = self.new(whole), self.new(size)
            self.note()
            if before is not None:
                zeros = self.new(size)
                self.note()
                self.release(zeros)
            return [of_whole, of_slice]

        node = self.node([before, source])
        assert node is not None
        node.backward = backward
        return node

    def view(self, x: Tensor, shape: Shape) -> Tensor:
        """Return a view: the same storage in another shape."""
        node = self.node([x.edge])
        if node is not None:
            node.backward = lambda gradient: [self.hold(gradient)]
        return Tensor(self.hold(x.storage), shape, x.element_bytes, node, is_view=True)

    def _through_view(self, x: Tensor, backward: Backward) -> Backward:
        """Return how a gradient comes through an operation in place on a view.

        The operation changes the viewed tensor, too. So autograd copies that tensor's gradient, passes a clone of the
        viewed part to the operation, and copies the result back (torch/csrc/autograd/functions/tensor.cpp, CopySlices).
        """

        def copied(_: Storage) -> Gradients:
            whole, part = self.new(*x.size), self.new(*x.size)
            self.note()
            made, *others = backward(part)
            self.release(part, made)
            return [whole, *others]

        return copied

    def alias(self, x: Tensor) -> Tensor:
        """Return the tensor itself, with one more reference."""
        self.hold(x.storage)
        return x

    def like(self, x: Tensor) -> Tensor:
        """Return a tensor of the same size, outside the graph: a copy, or noise."""
        storage = self.new(*x.size)
        self.note()
        return Tensor(storage, x.shape, x.element_bytes)

    def node(self, edges: Sequence[Edge], *, always: bool = False) -> Node | None:
        """Record a node, if any of its inputs needs a gradient.

        Args:
            edges: where the inputs' gradients go.
            always: whether it is recorded without gradients, too, as are casts that autocast keeps.
        """
        if not (self.autograd or always) or not any(edge is not None for edge in edges):
            return None
        self._order += 1
        return Node(self._layer, self._order, edges, self._frame)

    def leaf(self, gradients: list[Storage], name: str = "images") -> Node:
        """Return the node of a tensor that requires a gradient, and that no operation made.

        Args:
            gradients: a list to put the gradient into.
            name: what the tensor is called in the timeline.
        """

        def backward(gradient: Storage) -> Gradients:
            gradients.append(self.hold(gradient))
            self.note()
            return []

        node = Node(name, LEAF_ORDER, (), None)
        node.backward = backward
        return node

    def keep(self, node: Node, storage: Storage) -> None:
        """Keep a storage for the backward pass; inside a checkpointed block only note that it will be needed."""
        frame = self._recomputed
        if frame is not None:
            frame.recomputing += 1
            if not storage.is_parameter:
                storage.references += 1  # held by the frame, beyond the recomputation's own references
                frame.recomputed[frame.recomputing] = storage
            if frame.recomputing + 1 == frame.packs:
                raise _RecomputedEnough
        elif self._frame is not None:
            node.packs.append((self._frame.packs, storage.is_parameter))
            self._frame.packs += 1
            self._frame.alive += 1
        elif not storage.is_parameter:
            node.saved.append(self.hold(storage))
            self.kept.setdefault(storage, self._layer)

    def _makes(
        self,
        *sizes: tuple[int, int] | None,
        first: Sequence[tuple[int, int]] = (),
        last: Sequence[tuple[int, int]] = (),
    ) -> Backward:
        """Return a backward pass that makes the inputs' gradients.

        Args:
            sizes: of the gradients, None where none is wanted.
            first: of the temporaries that are made before them.
            last: of those that are made after them.
        """

        def backward(_: Storage) -> Gradients:
            temporaries = [self.new(*size) for size in first]
            made = [None if size is None else self.new(*size) for size in sizes]
            temporaries += [self.new(*size) for size in last]
            self.note()
            self.release(*temporaries)
            return made

        return backward

    def _casts_back(self, x: Tensor, wide: int) -> Callable[[Storage, Gradients], Gradients]:
        """Return how the engine casts a gradient to the dtype of the operation's input x, if it was made in another.

        Args:
            x: the first input.
            wide: bytes of an element of the gradient that the operation makes.
        """

        def adjust(_: Storage, made: Gradients) -> Gradients:
            if wide == x.element_bytes or made[0] is None:
                return made
            cast = self.new(*x.size)
            self.note()
            self.release(made[0])
            return [cast, *made[1:]]

        return adjust

    def _expands(self, gradient: Storage) -> Gradients:
        """Return the gradient of what was added up: an expanded view of the sum's."""
        self._expanded.add(gradient)
        return [self.hold(gradient)]

    def _passes_on(self, edges: Sequence[Edge]) -> Backward:
        """Return a backward pass in which the inputs' gradients are the output's own."""
        return lambda gradient: [None if edge is None else self.hold(gradient) for edge in edges]

    # Layers

    def apply(
        self,
        x: Tensor,
        parameters: dict[str, Parameter],
        *,
        shape: Shape,
        keeps: Iterable[Kept],
        in_place: bool = False,
    ) -> Tensor:
        """Run a layer as one operation, as its rules describe it.

        Args:
            x: its input.
            parameters: its other inputs.
            shape: of the output, for one image.
            keeps: what its backward pass needs.
            in_place: whether the output is written over the input.
        """
        inputs: list[Tensor | Parameter] = []
        extras = []
        keeps_output = clones = False
        for kept in keeps:
            if kept.what == "input":
                inputs.append(x)
            elif kept.what == "output":
                keeps_output = True
            elif kept.what == "clone of the input":
                clones = x.edge is not None and self.autograd
            else:
                size = elements(kept.shape) * (kept.element_bytes or x.element_bytes)
                extras.append((size, 0) if kept.per_image else (0, size))
        copy = self.like(x) if clones else None
        if copy is not None:
            inputs.append(copy)
        y = self.op(
            x,
            *parameters.values(),
            shape=shape,
            keeps=inputs,
            keeps_output=keeps_output,
            extras=extras,
            in_place=in_place,
        )
        self.release(copy)
        return y

    def run_layers(self, layers: Sequence[PlacedRun], x: Tensor, word: str = "forward") -> Tensor:
        """Run layers as `nn.Sequential` does: each input is released when its layer has returned.

        Takes over the caller's reference to x; the output comes with one.
        """
        for placed in layers:
            self._layer, self.event, self.frozen = placed.name, f"{word} of {placed.name}", placed.frozen
            y = placed.layer.run(x, placed.parameters, self)
            if word == "forward":
                self.outputs[placed.name] = 0 if y.storage is x.storage else y.storage.size
            elif word == RECOMPUTATION:
                self.run_again.add(placed.name)
            self.release(x)
            x = y
        return x

    def run_checkpoint(self, layers: Sequence[PlacedRun], x: Tensor, word: str = "forward") -> Tensor:
        """Run layers as `torch.utils.checkpoint.checkpoint(…, use_reentrant=False)` does."""
        if not self.autograd:
            return self.run_layers(layers, x, word)
        self._frame = frame = Frame(x, layers)
        self.hold(x.storage)  # the frame's own
        y = self.run_layers(layers, x, word)
        self._frame = None
        if frame.alive == 0:
            self.release(x)
        else:
            self.kept.setdefault(x.storage, layers[0].name)
        return y

    @contextmanager
    def in_stream(self, stream: int) -> Iterator[None]:
        """Run operations in another stream of CUDA."""
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    @property
    def is_recomputing(self) -> bool:
        """Whether a checkpointed block runs again."""
        return self._recomputed is not None

    @contextmanager
    def beyond_recomputation(self) -> Iterator[None]:
        """Make storages that outlive the recomputation in which they are made, if there is one."""
        scope, self._scope = self._scope, None
        yield
        self._scope = scope

    def _recompute(self, frame: Frame) -> None:
        """Run a checkpointed block again, as far as its last saved tensor."""
        before = self.event, self.kind, self._casts, self.autocast, self._layer
        self._recomputed, self._scope = frame, {}
        self.kind, self.autograd, self._casts, self.autocast = ACTIVATIONS, True, {}, self._cast_in_backward
        with suppress(_RecomputedEnough):
            self.run_layers(frame.layers, self.alias(frame.x), RECOMPUTATION)
        scope, self._scope, self._recomputed = self._scope, None, None
        self.event, self.kind, self._casts, self.autocast, self._layer = before
        self.autograd = False
        for storage, references in scope.items():  # the recomputation's variables, graph and casts are freed
            self.release(*[storage] * references)

    # Autocast

    def cast(
        self, tensor: Tensor | Parameter | None, element_bytes: int
    ) -> tuple[Tensor | Parameter | None, Storage | None]:
        """Cast an operand as autocast does.

        Returns:
            The operand, and what must be released when the operation has returned. The narrower copy of a leaf that
            requires a gradient is kept until autocast ends, so the operation must not release it.
        """
        if tensor is None or tensor.element_bytes == element_bytes:
            return tensor, None
        if tensor in self._casts:
            return self._casts[tensor], None
        is_kept = tensor.is_leaf and element_bytes < tensor.element_bytes
        node = self.node([tensor.edge], always=is_kept)
        if node is not None:
            node.backward = self._makes(tensor.size)
        storage = self.new(*tensor.cast_size(element_bytes))
        self.note()
        copy: Tensor | Parameter
        if isinstance(tensor, Tensor):
            copy = Tensor(storage, tensor.shape, element_bytes, node)
        else:
            copy = Parameter(storage, tensor.shape, element_bytes, requires_grad=False)
            copy.node = node
        if is_kept:
            self._casts[tensor] = copy
            return copy, None
        return copy, storage

    def lower(
        self, x: Tensor, weight: Parameter, bias: Parameter | None
    ) -> tuple[Tensor, Parameter, Parameter | None, list[Storage | None]]:
        """Cast the operands of a convolution or an FC layer, the last one first; without autocast, return them."""
        if not self.autocast:
            return x, weight, bias, []
        low_bias, of_bias = self.cast(bias, 2)
        low_weight, of_weight = self.cast(weight, 2)
        low_x, of_x = self.cast(x, 2)
        assert isinstance(low_x, Tensor)
        assert isinstance(low_weight, Parameter)
        assert not isinstance(low_bias, Tensor)
        return low_x, low_weight, low_bias, [of_bias, of_weight, of_x]

    def raise_precision(self, x: Tensor, only_on: str | None = None) -> tuple[Tensor, Storage | None]:
        """Cast the input of an operation that autocast runs in float32; without autocast, return it.

        The operations are those of ATen/autocast_mode.h for CUDA, and of ATen/autocast_mode.cpp for the CPU.

        Args:
            x: the input.
            only_on: the only device on which autocast runs the operation in float32; if absent, it does so on both.
        """
        if not self.autocast or only_on not in (None, self.device):
            return x, None
        high, cast = self.cast(x, 4)
        assert isinstance(high, Tensor)
        return high, cast

    def raise_parameters(
        self, parameters: dict[str, Parameter], only_on: str
    ) -> tuple[dict[str, Parameter], list[Storage | None]]:
        """Cast the parameters of such an operation, the last one first, before its input."""
        raised, casts = dict(parameters), []
        for word, parameter in reversed(parameters.items()) if self.autocast and only_on == self.device else ():
            high, cast = self.cast(parameter, 4)
            assert isinstance(high, Parameter)
            raised[word] = high
            casts.append(cast)
        return raised, casts

    def end_autocast(self) -> None:
        """Leave the autocast context: the casts of the parameters are freed, unless the graph holds them."""
        self.release(*self._casts.values())
        self._casts = {}
        self._cast_in_backward, self.autocast = self.autocast, False

    # Loss and backward pass

    def start_loss(self) -> None:
        """Begin what follows the last layer."""
        self._layer, self.event = "loss", "forward of loss"

    def log_softmax(self, x: Tensor) -> Tensor:
        """Run log-softmax."""
        return self.op(x, keeps_output=True)

    def nll_loss(self, log_softmax: Tensor, labels: Tensor) -> Tensor:
        """Run `torch.nn.functional.nll_loss`: the likelihood of the labels."""
        likelihoods, cast = self.raise_precision(log_softmax)
        node = self.node([likelihoods.edge])
        if node is not None:
            node.backward = self._makes(likelihoods.size)
            self.keep(node, likelihoods.storage)
            self.keep(node, labels.storage)
        loss, weight = self.new(0, likelihoods.element_bytes), self.new(0, likelihoods.element_bytes)
        if len(likelihoods.shape) > 1:  # a loss for each position: nll_loss2d makes the two the other way round
            loss, weight = weight, loss
        self.note()
        if node is not None:
            self.keep(node, weight)
        self.release(weight, cast)
        return Tensor(loss, (), likelihoods.element_bytes, node)

    def sum_classes(self, x: Tensor) -> Tensor:
        """Run x.sum(1), whose gradient is an expanded view of the output's; autocast on CUDA adds up in float32."""
        wide = WIDE if self.autocast and self.device == "cuda" else x.element_bytes
        return self.op(
            x,
            shape=x.shape[1:],
            element_bytes=wide,
            backward=self._expands,
            adjust=self._casts_back(x, wide),
        )

    def multiply(self, x: Tensor, factor: Tensor) -> Tensor:
        """Run x · factor, which gets no gradient; the result has the wider elements of the two."""
        wide = max(x.element_bytes, factor.element_bytes)
        size = x.cast_size(wide)
        adjust = self._casts_back(x, wide)
        return self.op(x, element_bytes=wide, keeps=(factor,), backward=self._makes(size), adjust=adjust)

    def mask(self, x: Tensor) -> Tensor:
        """Run a comparison or a negation of truth values: a byte for each value."""
        storage = self.new(elements(x.shape))
        self.note()
        return Tensor(storage, x.shape, 1)

    # Single values

    def sum(self, x: Tensor) -> Tensor:
        """Run x.sum(), whose gradient is an expanded view of the output's."""
        return self._number([x.edge], x.element_bytes, self._expands, self._total(x))

    def count(self, mask: Tensor) -> Tensor:
        """Run mask.sum(), an int64; on CUDA the truth values are cast first (aten/src/ATen/native/ReduceOps.cpp)."""
        storage = self.new(0, INDEX_BYTES)
        cast = [self.new(*mask.cast_size(INDEX_BYTES))] if self.device == "cuda" else []
        scratch = self.scratch(total(elements(mask.shape), INDEX_BYTES))
        self.note()
        self.release(*cast, *scratch)
        return Tensor(storage, (), INDEX_BYTES)

    def scale_number(self, x: Tensor) -> Tensor:
        """Run −x, x · number or x / number."""
        return self._number([x.edge], x.element_bytes, self._makes((0, x.element_bytes)))

    def divide_number(self, x: Tensor, count: Tensor) -> Tensor:
        """Run x / count, which gets no gradient."""
        quotient = self.scale_number(x)
        if quotient.node is not None:
            self.keep(quotient.node, count.storage)
        return quotient

    def add_numbers(self, *numbers: Tensor) -> Tensor:
        """Run the sum of single values."""
        edges = [number.edge for number in numbers]
        return self._number(edges, numbers[0].element_bytes, self._passes_on(edges))

    def _total(self, x: Tensor) -> PartialSums:
        return total(elements(x.shape), max(x.element_bytes, WIDE))

    def _number(
        self, edges: Sequence[Edge], element_bytes: int, backward: Backward, sums: PartialSums | None = None
    ) -> Tensor:
        node = self.node(edges)
        if node is not None:
            node.backward = backward
        storage = self.new(0, element_bytes)
        scratch = self.scratch(sums)
        self.note()
        self.release(*scratch)
        return Tensor(storage, (), element_bytes, node)

    def mse_loss(self, x: Tensor, target: Tensor) -> Tensor:
        """Run `torch.nn.functional.mse_loss`, whose mean is over all values."""
        wide_target, of_target = self.raise_precision(target)
        wide_x, of_x = self.raise_precision(x)
        node = self.node([wide_x.edge])
        if node is not None:
            node.backward = self._makes(wide_x.size)
            self.keep(node, wide_x.storage)
            self.keep(node, wide_target.storage)
        if self.device == "cpu":
            loss = self.new(0, wide_x.element_bytes)
            self.note()
        else:
            # the output is made as large as the input and then made a single value, in the memory that it has
            # (aten/src/ATen/native/BinaryOps.cpp, mse_loss); the squares, of which the mean is taken, are another
            loss, squares = self.new(*wide_x.size), self.new(*wide_x.size)
            scratch = self.scratch(self._total(wide_x))
            self.note()
            self.release(squares, *scratch)
        self.release(of_x, of_target)
        return Tensor(loss, (), wide_x.element_bytes, node)

    def add_losses(self, losses: Iterable[Tensor]) -> Tensor:
        """Run `sum(losses)`, which begins with 0 + the first. Takes over the caller's references to them."""
        total: Tensor | None = None
        for loss in losses:
            added = self.add_numbers(loss, *([total] if total else []))
            self.release(total, loss)
            total = added
        assert total is not None
        return total

    def backward(
        self,
        output: Tensor,
        hook: GradientHook | None = None,
        end: Callable[[], None] | None = None,
        gradient: Storage | None = None,
    ) -> None:
        """Run the backward pass as the engine does: of the nodes that are ready, the one made last runs first.

        Args:
            output: where it begins: a loss, or the output of a part of a network.
            hook: is called with each parameter that has its gradient (`register_post_accumulate_grad_hook`).
            end: is called when all have theirs (the engine's `queue_callback`).
            gradient: the output's; if absent it is a loss, whose gradient is made.
        """
        root = output.node
        assert root is not None
        self.event = f"backward of {root.layer}"
        first = self._ones(output) if gradient is None else self.hold(gradient)
        before = self.kind, self.autograd
        self.kind, self.autograd, self._hook = TEMPORARIES, False, hook
        _count_dependencies(root)
        root.gradient = self.hold(first)
        ready = [(-root.order, root)]
        while ready:
            _, node = heapq.heappop(ready)
            self.event = f"backward of {node.layer}"
            for edge in self._run_node(node):
                heapq.heappush(ready, (-edge.order, edge))
        if end is not None:
            end()
        self.release(first)
        self.kind, self.autograd = before

    def _ones(self, loss: Tensor) -> Storage:
        """Make the gradient of a loss."""
        ones = self.new(0, loss.element_bytes)
        self.note()
        return ones

    def _run_node(self, node: Node) -> list[Node]:
        """Run a node; return the nodes that are ready now."""
        gradient, node.gradient, frame = node.gradient, None, node.frame
        assert gradient is not None
        assert node.backward is not None
        if node.before is not None:
            node.before()
        unpacked: list[Storage] = []
        if node.packs and frame is not None:
            if frame.recomputing < 0:
                self._recompute(frame)
            unpacked = [frame.recomputed.pop(index) for index, is_parameter in node.packs if not is_parameter]
        made = node.backward(gradient)
        self.release(*unpacked)
        if node.adjust is not None:
            made = node.adjust(gradient, made)
        self.release(gradient, *node.saved)
        if node.packs and frame is not None:
            frame.alive -= len(node.packs)
            if frame.alive == 0:
                self.release(frame.x)
        node.saved, node.backward, node.before, node.adjust = [], None, None, None
        return self._hand_on(node, made)

    def _hand_on(self, node: Node, made: Gradients) -> list[Node]:
        ready = []
        for storage, edge in zip(made, node.edges):
            if storage is None or not isinstance(edge, Node):
                continue
            if edge.gradient is None:
                edge.gradient = self.hold(storage)
            elif self.device == "cpu" or edge.gradient in self._expanded:
                # two uses of one tensor: fake tensors' gradients are added out of place, real ones' in place unless the
                # first is a view (torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace)
                total = self.new(storage.per_image, storage.constant)
                self.note()
                self.release(edge.gradient)
                edge.gradient = total
            edge.dependencies -= 1
            if edge.dependencies == 0:
                ready.append(edge)
        for storage, edge in zip(made, node.edges):
            if storage is not None and not isinstance(edge, Parameter):
                self.release(storage)
        for storage, edge in zip(made, node.edges):
            if storage is not None and isinstance(edge, Parameter):
                self._accumulate(edge, storage)
        return ready

    def _accumulate(self, parameter: Parameter, gradient: Storage) -> None:
        """Make a gradient that of a parameter, or add it to the one that it has, in place.

        The latter is case 2.3 of torch/csrc/autograd/functions/accumulate_grad.h.
        """
        self.move(gradient, GRADIENTS)
        self.note()
        if parameter.gradient is None:
            parameter.gradient = gradient
        else:
            self.added[gradient] = parameter.gradient
            self.release(gradient)
        if self._hook is not None:
            self._hook(parameter)

    def move(self, storage: Storage, kind: int) -> None:
        """Change what memory is for."""
        self._alive[storage.kind] -= storage.size
        storage.kind = kind
        self._alive[kind] += storage.size


def _wanted(parameters: dict[str, Parameter]) -> list[tuple[int, int] | None]:
    """Return the sizes of the gradients of parameters, None where none is wanted."""
    return [parameter.size if parameter.edge else None for parameter in parameters.values()]


def _count_dependencies(root: Node) -> None:
    seen, stack = {root}, [root]
    while stack:
        for edge in stack.pop().edges:
            if isinstance(edge, Node):
                edge.dependencies += 1
                if edge not in seen:
                    seen.add(edge)
                    stack.append(edge)

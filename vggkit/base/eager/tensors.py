"""Tensors that have a size but no values, and the autograd graph between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vggkit.base.shapes import Shape, elements
from vggkit.base.sums import Split

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
    """A checkpointed block: its input is kept, and its saved tensors are made again when they are needed.

    Args:
        x: its input.
        run: runs the block again on its input.
    """

    __slots__ = ("alive", "packs", "recomputed", "recomputing", "run", "x")

    def __init__(self, x: Tensor, run: Callable[[], object]) -> None:
        self.x = x
        self.run = run
        self.packs = 0
        self.alive = 0
        self.recomputing = -1
        self.recomputed: dict[int, Storage] = {}


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

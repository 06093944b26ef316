"""Storages that are made, held and released, and the bytes that are alive after each operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from vggkit.base.eager.tensors import (
    ACTIVATIONS,
    CUDA_BLOCK,
    MEMORY_KINDS,
    START,
    TEMPORARIES,
    Event,
    Moment,
    Parameter,
    Scratch,
    Storage,
    Tensor,
)
from vggkit.base.sums import PartialSums


class Memory:
    """The memory in which a step runs.

    Args:
        batch: number of images.
        device: "cpu" or "cuda".

    Attributes:
        event: the operation that runs, as in `Moment`.
        kind: what is allocated is for this, unless something else is said: an index into `MEMORY_KINDS`.
        stream: of CUDA, in which operations run: 0, unless somebody changes it.
        moments: the alive bytes after each operation.
        events: each allocation and each end of one, in order; whoever drives the step may begin a new list.
    """

    def __init__(self, batch: int, device: Literal["cpu", "cuda"]) -> None:
        self.batch = batch
        self.device = device
        self.event = START
        self.kind = ACTIVATIONS
        self.stream = 0
        self.moments: list[Moment] = []
        self.events: list[Event] = []
        self._alive = [0] * len(MEMORY_KINDS)
        self._per_image = 0
        self._constant = 0
        self._scope: dict[Storage, int] | None = None

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

    def move(self, storage: Storage, kind: int) -> None:
        """Change what memory is for."""
        self._alive[storage.kind] -= storage.size
        storage.kind = kind
        self._alive[kind] += storage.size

    def note(self) -> None:
        """Note the alive bytes: an operation has run."""
        alive = self._alive
        self.moments.append(Moment(self.event, sum(alive), self._per_image, self._constant, tuple(alive)))

    @contextmanager
    def in_stream(self, stream: int) -> Iterator[None]:
        """Run operations in another stream of CUDA."""
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    @contextmanager
    def beyond_recomputation(self) -> Iterator[None]:
        """Make storages that outlive the recomputation in which they are made, if there is one."""
        scope, self._scope = self._scope, None
        yield
        self._scope = scope

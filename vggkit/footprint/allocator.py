"""What torch's CUDA allocator does with a list of allocations: events in, blocks and segments out.

torch asks the driver for large segments, cuts blocks off them, and keeps what is freed for the next request. So what a
card must have is the segments, not the tensors. The rules are those of torch 2.14: c10/cuda/CUDACachingAllocator.cpp,
whose names stand behind each rule here, with the constants of c10/core/AllocatorConfig.h. They know nothing of layers.

One card is modelled, and no private pools of CUDA graphs. A plain training loop has one stream, and FSDP two more:
blocks and segments of one never serve another. Addresses ascend and none is given twice, so that of free blocks of the
same size the first is in the oldest segment. Before torch 2.13 the driver's addresses decided that
(pytorch/pytorch#183591), which may leave other holes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from vggkit.base.eager import CUDA_BLOCK
from vggkit.footprint.allocator_settings import MIB, Settings

SMALL_BYTES = 1 * MIB
"""The largest block of the small pool (kSmallSize)."""

SMALL_SEGMENT = 2 * MIB
"""The small pool's segments (kSmallBuffer)."""

OWN_SEGMENT_FROM = 10 * MIB
"""From here on a request gets a segment of its own size (kMinLargeAlloc), rounded up to `SEGMENT_ROUNDING`."""

SEGMENT_ROUNDING = 2 * MIB
"""What a large request's own segment is rounded up to (kRoundLarge), the size of the driver's pages."""

GAP = 2 * MIB
"""Addresses between two segments: they never touch."""

BEYOND = 1 << 57
"""Above all addresses of a process: its page tables have five levels at most (Intel's manual, volume 3A, 4.5)."""


class OutOfMemory(Exception):  # noqa: N818  # a verdict for whoever plays the events, not an error of vggkit's
    """The card has no room for a request, whatever the allocator gives back."""


class Statistic:
    """A number of bytes now, and the most there have been since the peak was last reset."""

    __slots__ = ("current", "peak")

    def __init__(self) -> None:
        self.current = self.peak = 0

    def grow(self, size: int) -> None:
        """Add bytes."""
        self.current += size
        if self.current > self.peak:
            self.peak = self.current

    def reset_peak(self) -> None:
        """Forget what there was."""
        self.peak = self.current


class Block:
    """A piece of a segment, whose neighbours are the blocks before and behind it there.

    Args:
        pool: where it is kept while it is free.
        address: where it begins.
        size: its bytes.
        stream: where it is handed out, and what it comes back to.
        is_mapped: whether there is memory behind its addresses; false only in an expandable segment.

    Attributes:
        requested: what was asked for, while it is allocated.
        is_free: whether it is cached, and may be handed out or merged.
        born: how often its pool had been searched when it was freed.
    """

    __slots__ = ("address", "born", "is_free", "is_mapped", "next", "pool", "previous", "requested", "size", "stream")

    def __init__(self, pool: Pool, address: int, size: int, stream: int = 0, *, is_mapped: bool = True) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.stream = stream
        self.is_mapped = is_mapped
        self.requested = 0
        self.is_free = True
        self.born = 0
        self.previous: Block | None = None
        self.next: Block | None = None

    @property
    def is_split(self) -> bool:
        """Whether it shares its segment with other blocks (is_split)."""
        return self.previous is not None or self.next is not None

    @property
    def age(self) -> int:
        """How often its pool has been searched since it was freed (gc_count)."""
        return self.pool.searches - self.born

    def cut(self, size: int) -> Block:
        """Cut bytes off its front; return them as a block of their own."""
        front = Block(self.pool, self.address, size, self.stream, is_mapped=self.is_mapped)
        front.previous, front.next = self.previous, self
        if self.previous is not None:
            self.previous.next = front
        self.previous = front
        self.address += size
        self.size -= size
        return front

    def absorb(self, neighbour: Block) -> None:
        """Take over the block before or behind it."""
        if neighbour is self.previous:
            self.address = neighbour.address
            self.previous = neighbour.previous
            if self.previous is not None:
                self.previous.next = self
        else:
            self.next = neighbour.next
            if self.next is not None:
                self.next.previous = self
        self.size += neighbour.size


class Pool:
    """The free blocks of a kind, small or large (BlockPool).

    Args:
        segment: bytes of a segment for requests that get none of their own size, and of what is mapped at a time.

    Attributes:
        free: the blocks that may be handed out, by stream, then size, then address.
        unmapped: the blocks without memory, by stream, then address.
        searches: how often a block was looked for, while garbage is collected.
    """

    def __init__(self, segment: int) -> None:
        self.segment = segment
        self.free: list[tuple[int, int, int, Block]] = []
        self.unmapped: list[tuple[int, int, Block]] = []
        self.searches = 0

    def insert(self, block: Block) -> None:
        """Keep a free block."""
        if block.is_mapped:
            block.born = self.searches
            insort(self.free, (block.stream, block.size, block.address, block))
        else:
            insort(self.unmapped, (block.stream, block.address, block))

    def remove(self, block: Block) -> None:
        """Give a free block up: it is handed out, merged or given back."""
        if block.is_mapped:
            del self.free[bisect_left(self.free, (block.stream, block.size, block.address))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.stream, block.address))]

    def first_of(self, size: int, stream: int = 0) -> int:
        """Return the place among the free blocks of the smallest one of a stream with so many bytes."""
        return bisect_left(self.free, (stream, size))

    def is_in_stream(self, place: int, stream: int) -> bool:
        """Tell whether there is a free block of a stream at a place."""
        return 0 <= place < len(self.free) and self.free[place][0] == stream

    def merge(self, block: Block) -> None:
        """Merge a block that is not kept with its free neighbours, as far as both or neither have memory."""
        for neighbour in (block.previous, block.next):
            if neighbour is not None and neighbour.is_free and neighbour.is_mapped == block.is_mapped:
                self.remove(neighbour)
                block.absorb(neighbour)


class BlockInfo(NamedTuple):
    """A block of a snapshot.

    Args:
        address: where it begins.
        size: its bytes.
        requested: what was asked for; 0 if it is free.
    """

    address: int
    size: int
    requested: int

    @property
    def is_free(self) -> bool:
        """Whether nobody has it."""
        return self.requested == 0


class SegmentInfo(NamedTuple):
    """A segment of a snapshot, or a mapped range of an expandable one.

    Args:
        address: where it begins.
        is_small: whether it is the small pool's.
        is_expandable: whether it is a part of an expandable segment.
        blocks: its blocks, which tile it.
        stream: whose it is.
    """

    address: int
    is_small: bool
    is_expandable: bool
    blocks: tuple[BlockInfo, ...]
    stream: int = 0

    @property
    def size(self) -> int:
        """Bytes of the segment."""
        return sum(block.size for block in self.blocks)


class Allocator:
    """torch's allocator on a card (DeviceCachingAllocator).

    Args:
        card_bytes: what the card has.
        settings: as in PYTORCH_ALLOC_CONF; torch's own defaults if absent.
        taken: bytes of the card that others have: CUDA's context, libraries.
        addresses: where a driver has put segments, in the order in which they were asked for, to decide as torch did
            before 2.13; all further ones lie above.

    Attributes:
        allocated: bytes of the blocks that are handed out (allocated_bytes).
        requested: what was asked for of them (requested_bytes).
        reserved: bytes that are taken from the card (reserved_bytes).
        retries: how often everything cached was given back for a request (num_alloc_retries).
        ooms: how often that did not help either (num_ooms).

    >>> allocator = Allocator(1 << 30)
    >>> block = allocator.allocate(3_000_000)
    >>> allocator.allocated.current, allocator.reserved.current
    (3000320, 20971520)
    """

    def __init__(
        self, card_bytes: int, settings: Settings | None = None, taken: int = 0, *, addresses: Sequence[int] = ()
    ) -> None:
        self.card_bytes = card_bytes
        self.room = card_bytes - taken
        self.settings = settings = settings or Settings()
        self.limit = settings.limit(card_bytes)
        self.allocated, self.requested, self.reserved = Statistic(), Statistic(), Statistic()
        self.retries = self.ooms = 0
        self.small = Pool(SMALL_SEGMENT)
        self.large = Pool(settings.large_segment)
        self._known_addresses = iter(addresses)
        self._next_address = BEYOND if addresses else 0
        self._live: dict[int, Block] = {}
        self._segments: Segments = (ExpandableSegments if settings.expandable_segments else PlainSegments)(self)
        self._ages = self.limit is not None and settings.garbage_collection_threshold > 0

    # What a program does

    def allocate(self, requested: int, stream: int = 0) -> Block:
        """Hand out a block (malloc).

        Args:
            requested: bytes, at least one: torch doesn't ask for a tensor without elements.
            stream: in which it is asked for.

        Raises:
            OutOfMemory: if the card has no room.
        """
        size = self.settings.rounded(requested)
        pool = self.small if size <= SMALL_BYTES else self.large
        block = self._find(pool, size, stream) or self._obtain(pool, size, stream)
        if self._segments.splits(block, size):
            rest = block
            block = rest.cut(size)
            pool.insert(rest)
        block.is_free = False
        block.requested = requested
        self._live[block.address] = block
        self.allocated.grow(block.size)
        self.requested.grow(requested)
        return block

    def free(self, block: Block) -> None:
        """Take a block back, and cache it (free_block)."""
        del self._live[block.address]
        self.allocated.current -= block.size
        self.requested.current -= block.requested
        block.is_free = True
        block.requested = 0
        block.pool.merge(block)
        block.pool.insert(block)

    def empty_cache(self) -> None:
        """Give back to the card what is cached and shares its segment with nobody (release_cached_blocks)."""
        self._segments.release(self.large)
        self._segments.release(self.small)

    def reset_peaks(self) -> None:
        """Let the peaks begin anew, as `torch.cuda.reset_peak_memory_stats` does."""
        for statistic in (self.allocated, self.requested, self.reserved):
            statistic.reset_peak()

    def blocks(self) -> list[Block]:
        """Return every block by address: those handed out, the free ones, and those without memory."""
        pools = self.small, self.large
        free = [block for pool in pools for *_, block in pool.free]
        unmapped = [block for pool in pools for *_, block in pool.unmapped]
        return sorted((*self._live.values(), *free, *unmapped), key=attrgetter("address"))

    def snapshot(self) -> list[SegmentInfo]:
        """Return the segments with their blocks, by address, as `torch.cuda.memory._snapshot` does."""
        heads = [
            block
            for block in self.blocks()
            if block.is_mapped and (block.previous is None or not block.previous.is_mapped)
        ]
        return [
            SegmentInfo(
                head.address,
                head.pool is self.small,
                self.settings.expandable_segments,
                tuple(BlockInfo(block.address, block.size, block.requested) for block in _mapped_from(head)),
                head.stream,
            )
            for head in heads
        ]

    # Where a block comes from

    def _find(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Take the free block that fits best (get_free_block)."""
        if self._ages:
            pool.searches += 1
        place = pool.first_of(size, stream)
        if not pool.is_in_stream(place, stream):
            return None
        block = pool.free[self._segments.best(pool, place)][-1]
        if not self.settings.lets_serve(block.size, size):
            return None
        pool.remove(block)
        return block

    def _obtain(self, pool: Pool, size: int, stream: int) -> Block:
        """Get a block from the card, if need be in exchange for what is cached."""
        segments = self._segments
        if self._ages:
            segments.collect_garbage()
        block = self._within_limit(pool, size, stream)
        if block is None and segments.release_oversize(pool, size, stream):
            block = self._within_limit(pool, size, stream)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._within_limit(pool, size, stream)
        if block is None:
            self.ooms += 1
            raise OutOfMemory
        return block

    def _within_limit(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Get a block from the card, unless it is more than this process may have (alloc_block)."""
        segment = segment_size(pool, size)
        if self.limit is not None and self.reserved.current + segment > self.limit:
            return None
        return self._segments.obtain(pool, size, segment, stream)

    def address_for(self, size: int, unit: int = SEGMENT_ROUNDING) -> int:
        """Return where a new segment begins: where the driver has put it, or at a multiple of a unit, beyond a gap."""
        known = next(self._known_addresses, None)
        if known is not None:
            return known
        address = _units(self._next_address + GAP, unit)
        self._next_address = address + size
        return address

    def reserve(self, size: int) -> bool:
        """Take memory from the card, if it has so much."""
        if self.reserved.current + size > self.room:
            return False
        self.reserved.grow(size)
        return True

    def give_back(self, size: int) -> None:
        """Give memory back to the card."""
        self.reserved.current -= size


def segment_size(pool: Pool, size: int) -> int:
    """Return the bytes of a segment for a block (get_allocation_size)."""
    if size < OWN_SEGMENT_FROM:
        return pool.segment
    return _units(size, SEGMENT_ROUNDING)


def _units(size: int, unit: int) -> int:
    """Round up to whole units."""
    return -(-size // unit) * unit


def _mapped_from(head: Block) -> Iterator[Block]:
    block: Block | None = head
    while block is not None and block.is_mapped:
        yield block
        block = block.next


class Segments(ABC):
    """A way to take memory from the card and to give it back; each final class has all its rules.

    Args:
        allocator: for whom.
    """

    def __init__(self, allocator: Allocator) -> None:
        self.allocator = allocator
        self.settings = allocator.settings

    @abstractmethod
    def splits(self, block: Block, size: int) -> bool:
        """Tell whether what is left of a block beyond so many bytes becomes a free block (should_split)."""

    @abstractmethod
    def best(self, pool: Pool, place: int) -> int:
        """Return the place of the free block that fits best, from the smallest that is large enough."""

    @abstractmethod
    def obtain(self, pool: Pool, size: int, segment: int, stream: int) -> Block | None:
        """Return a block from new memory, or None if the card has too little.

        Args:
            pool: whose block it becomes.
            size: what is needed.
            segment: bytes of a segment for it.
            stream: whose it becomes.
        """

    @abstractmethod
    def release(self, pool: Pool) -> None:
        """Give back what is cached in a pool, as far as that is possible (release_blocks)."""

    @abstractmethod
    def release_oversize(self, pool: Pool, size: int, stream: int) -> bool:
        """Give back cached blocks of a stream that are never split, enough for a request; tell whether there were."""

    @abstractmethod
    def collect_garbage(self) -> None:
        """Give back the large blocks that have long been cached, beyond the threshold of the settings."""


class PlainSegments(Segments):
    """Each segment is allocated as a whole, and given back as a whole (cudaMalloc, cudaFree)."""

    def splits(self, block: Block, size: int) -> bool:
        rest = block.size - size
        if block.pool is self.allocator.small:
            return rest >= CUDA_BLOCK
        return size < self.settings.max_split and rest > SMALL_BYTES

    def best(self, pool: Pool, place: int) -> int:
        return place

    def obtain(self, pool: Pool, size: int, segment: int, stream: int) -> Block | None:
        if not self.allocator.reserve(segment):
            return None
        return Block(pool, self.allocator.address_for(segment), segment, stream)

    def release(self, pool: Pool) -> None:
        for *_, block in list(pool.free):
            if not block.is_split:
                self._release_segment(block)

    def release_oversize(self, pool: Pool, size: int, stream: int) -> bool:
        """Release the smallest block that is large enough, or the largest ones until they are together.

        What is free and large enough, but was not handed out, is a block that is never split
        (release_available_cached_blocks).
        """
        if not self.settings.limits_splits:
            return False
        place = pool.first_of(size, stream)
        if pool.is_in_stream(place, stream):
            self._release_segment(pool.free[place][-1])
            return True
        released = 0
        while released < size and pool.is_in_stream(place := place - 1, stream):
            block = pool.free[place][-1]
            if block.size < self.settings.max_split:
                break
            released += block.size
            self._release_segment(block)
        return released >= size

    def collect_garbage(self) -> None:
        """Release blocks of at least mean age, again and again until enough is free (garbage_collect_cached_blocks)."""
        pool, limit = self.allocator.large, self.allocator.limit
        assert limit is not None
        excess = self.allocator.reserved.current - int(self.settings.garbage_collection_threshold * limit)
        whole = [block for *_, block in pool.free if not block.is_split]
        while excess > 0 and whole:
            mean = sum(block.age for block in whole) / len(whole)
            old = [block for block in whole if block.age >= mean]
            whole = [block for block in whole if block.age < mean]
            for block in old:
                excess -= block.size
                self._release_segment(block)

    def _release_segment(self, block: Block) -> None:
        """Give back a segment that is a single free block (release_block)."""
        block.pool.remove(block)
        self.allocator.give_back(block.size)


class ExpandableSegments(Segments):
    """A segment for each pool and stream, as long as the card has memory and more, mapped as it is needed.

    Only whole units of it can be mapped: 2 MiB in the small pool, 20 MiB in the large one.
    """

    def splits(self, block: Block, size: int) -> bool:
        return block.size - size >= CUDA_BLOCK

    def best(self, pool: Pool, place: int) -> int:
        """Skip a block that could grow: its size is what it may grow to (get_free_block)."""
        stream, *_, block = pool.free[place]
        while pool.is_in_stream(place + 1, stream) and _growable(pool.free[place + 1][-1]) < _growable(block):
            place += 1
            block = pool.free[place][-1]
        return place

    def obtain(self, pool: Pool, size: int, segment: int, stream: int) -> Block | None:
        """Map memory behind the lowest addresses that fit, free blocks among them (try_allocate_expandable_block)."""
        block: Block | None = self._with_room(pool, size, stream)
        if block is not None and not block.is_mapped:
            block = self._map(block, min(block.size, size))
        while block is not None and block.size < size:  # without memory is what follows, until the block absorbs it
            behind = block.next
            assert behind is not None
            block = self._map(behind, min(size - block.size, behind.size))
        if block is not None:
            pool.remove(block)
        return block

    def release(self, pool: Pool) -> None:
        for *_, block in list(pool.free):
            left = self._unmap(block)
            if not left.is_split:  # a whole segment without memory: its addresses are given back, too
                pool.remove(left)

    def release_oversize(self, pool: Pool, size: int, stream: int) -> bool:
        return False

    def collect_garbage(self) -> None:
        return

    def _with_room(self, pool: Pool, size: int, stream: int) -> Block:
        """Return where so many bytes fit at the lowest addresses of a stream (find_expandable_block)."""
        for block in (block for other, _, block in pool.unmapped if other == stream):
            start = block.previous if block.previous is not None and block.previous.is_free else block
            room = 0
            reached: Block | None = start
            while room < size and reached is not None and reached.is_free:
                room += reached.size
                reached = reached.next
            if room >= size:
                return start
        card = self.allocator.card_bytes
        length = _units(card + card // 8, pool.segment)  # addresses are reserved for 1 1/8 of the card
        fresh = Block(pool, self.allocator.address_for(length, pool.segment), length, stream, is_mapped=False)
        pool.insert(fresh)
        return fresh

    def _map(self, block: Block, size: int) -> Block | None:
        """Put memory behind the front of a block, in whole units; None if the card has too little (map_block)."""
        pool = block.pool
        mapped = _units(size, pool.segment)
        if not self.allocator.reserve(mapped):
            return None
        pool.remove(block)
        if mapped < block.size:
            rest = block
            block = rest.cut(mapped)
            pool.insert(rest)
        block.is_mapped = True
        pool.merge(block)
        pool.insert(block)
        return block

    def _unmap(self, block: Block) -> Block:
        """Take away the whole units of memory behind a free block; return what is left without (unmap_block)."""
        pool = block.pool
        end = block.address + block.size
        first, last = _units(block.address, pool.segment), end // pool.segment * pool.segment
        if first >= last:
            return block
        pool.remove(block)
        if block.address < first:
            pool.insert(block.cut(first - block.address))
        if last < end:
            rest = block
            block = rest.cut(last - first)
            pool.insert(rest)
        self.allocator.give_back(last - first)
        block.is_mapped = False
        pool.merge(block)
        pool.insert(block)
        return block


def _growable(block: Block) -> int:
    behind = block.next
    return block.size + (behind.size if behind is not None and not behind.is_mapped else 0)

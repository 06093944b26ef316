"use strict";

// torch's CUDA allocator, a loop of steps that is played in it, and the largest batch that runs. The rules are those of
// allocator.py, card.py and card_fit.py in vggkit's footprint, by the same names, for torch's default settings and for
// expandable segments. Their sources stand there. `rules` has their constants; sizes are in bytes.

// Rounds up to whole units, which are powers of 2: the division is exact.
function units(size, unit) {
  return Math.ceil(size / unit) * unit;
}

// A piece of a segment, whose neighbours are the blocks before and behind it there.
class Block {
  constructor(pool, address, size, isMapped = true) {
    this.pool = pool;
    this.address = address;
    this.size = size;
    this.isMapped = isMapped;
    this.isFree = true;
    this.previous = null;
    this.next = null;
  }

  get isSplit() {
    return this.previous !== null || this.next !== null;
  }

  // Cuts bytes off its front, which become a block of their own.
  cut(size) {
    const front = new Block(this.pool, this.address, size, this.isMapped);
    front.previous = this.previous;
    front.next = this;
    if (this.previous !== null) {
      this.previous.next = front;
    }
    this.previous = front;
    this.address += size;
    this.size -= size;
    return front;
  }

  // Takes over the block before or behind it.
  absorb(neighbour) {
    if (neighbour === this.previous) {
      this.address = neighbour.address;
      this.previous = neighbour.previous;
      if (this.previous !== null) {
        this.previous.next = this;
      }
    } else {
      this.next = neighbour.next;
      if (this.next !== null) {
        this.next.previous = this;
      }
    }
    this.size += neighbour.size;
  }
}

const bySize = (one, other) => one.size - other.size || one.address - other.address;
const byAddress = (one, other) => one.address - other.address;

// The free blocks of a kind, small or large: those with memory by size, those without by address.
class Pool {
  constructor(segment) {
    this.segment = segment;
    this.free = [];
    this.unmapped = [];
  }

  insert(block) {
    const [kept, order] = block.isMapped ? [this.free, bySize] : [this.unmapped, byAddress];
    kept.splice(placeIn(kept, block, order), 0, block);
  }

  remove(block) {
    const [kept, order] = block.isMapped ? [this.free, bySize] : [this.unmapped, byAddress];
    kept.splice(placeIn(kept, block, order), 1);
  }

  // The place among the free blocks of the smallest one with so many bytes.
  firstOf(size) {
    return placeIn(this.free, { size, address: -1 }, bySize);
  }

  // Merges a block that is not kept with its free neighbours, as far as both or neither have memory.
  merge(block) {
    for (const neighbour of [block.previous, block.next]) {
      if (neighbour !== null && neighbour.isFree && neighbour.isMapped === block.isMapped) {
        this.remove(neighbour);
        block.absorb(neighbour);
      }
    }
  }
}

// Where something stands in a sorted list, or would stand.
function placeIn(list, wanted, order) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order(list[middle], wanted) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The allocator on a card, of which it has so much room.
class Allocator {
  constructor({ bytes, room }, isExpandable) {
    this.cardBytes = bytes;
    this.room = room;
    this.allocated = this.allocatedPeak = 0;
    this.reserved = this.reservedPeak = 0;
    this.retries = 0;
    this.small = new Pool(rules.small_segment);
    this.large = new Pool(rules.large_segment);
    this.nextAddress = 0;
    this.segments = isExpandable ? new ExpandableSegments(this) : new PlainSegments(this);
  }

  // Hands out a block of a rounded size, or null if the card has no room.
  allocate(size) {
    const pool = size <= rules.small_bytes ? this.small : this.large;
    let block = this.find(pool, size) ?? this.obtain(pool, size);
    if (block === null) {
      return null;
    }
    if (this.segments.splits(block, size)) {
      const rest = block;
      block = rest.cut(size);
      pool.insert(rest);
    }
    block.isFree = false;
    this.allocated += block.size;
    this.allocatedPeak = Math.max(this.allocatedPeak, this.allocated);
    return block;
  }

  free(block) {
    this.allocated -= block.size;
    block.isFree = true;
    block.pool.merge(block);
    block.pool.insert(block);
  }

  find(pool, size) {
    const place = pool.firstOf(size);
    if (place === pool.free.length) {
      return null;
    }
    const block = pool.free[this.segments.best(pool, place)];
    pool.remove(block);
    return block;
  }

  // Gets a block from the card, if need be in exchange for what is cached.
  obtain(pool, size) {
    const segment = size < rules.own_segment_from ? pool.segment : units(size, rules.segment_rounding);
    let block = this.segments.obtain(pool, size, segment);
    if (block === null) {
      this.segments.release(this.large);
      this.segments.release(this.small);
      this.retries += 1;
      block = this.segments.obtain(pool, size, segment);
    }
    return block;
  }

  addressFor(size, unit) {
    const address = units(this.nextAddress, unit);
    this.nextAddress = address + size;
    return address;
  }

  reserve(size) {
    if (this.reserved + size > this.room) {
      return false;
    }
    this.reserved += size;
    this.reservedPeak = Math.max(this.reservedPeak, this.reserved);
    return true;
  }

  giveBack(size) {
    this.reserved -= size;
  }

  resetPeaks() {
    this.allocatedPeak = this.allocated;
    this.reservedPeak = this.reserved;
  }
}

// Each segment is allocated as a whole, and given back as a whole.
class PlainSegments {
  constructor(allocator) {
    this.allocator = allocator;
  }

  splits(block, size) {
    const rest = block.size - size;
    return block.pool === this.allocator.small ? rest >= rules.block : rest > rules.small_bytes;
  }

  best(_, place) {
    return place;
  }

  obtain(pool, _, segment) {
    if (!this.allocator.reserve(segment)) {
      return null;
    }
    return new Block(pool, this.allocator.addressFor(segment, rules.segment_rounding), segment);
  }

  release(pool) {
    for (const block of [...pool.free]) {
      if (!block.isSplit) {
        pool.remove(block);
        this.allocator.giveBack(block.size);
      }
    }
  }
}

// A segment for each pool, as long as the card has memory and more, which is mapped as it is needed, in whole units.
class ExpandableSegments {
  constructor(allocator) {
    this.allocator = allocator;
  }

  splits(block, size) {
    return block.size - size >= rules.block;
  }

  // Skips a block that could grow: its size is what it may grow to.
  best(pool, place) {
    const last = pool.free.length - 1;
    while (place < last && growable(pool.free[place + 1]) < growable(pool.free[place])) {
      place += 1;
    }
    return place;
  }

  obtain(pool, size) {
    let block = this.withRoom(pool, size);
    if (!block.isMapped) {
      block = this.map(block, Math.min(block.size, size));
    }
    while (block !== null && block.size < size) {
      block = this.map(block.next, Math.min(size - block.size, block.next.size));
    }
    if (block !== null) {
      pool.remove(block);
    }
    return block;
  }

  release(pool) {
    for (const block of [...pool.free]) {
      const left = this.unmap(block);
      if (!left.isSplit) {
        pool.remove(left);
      }
    }
  }

  // Where so many bytes fit at the lowest addresses.
  withRoom(pool, size) {
    for (const block of pool.unmapped) {
      const start = block.previous !== null && block.previous.isFree ? block.previous : block;
      let room = 0;
      for (let reached = start; room < size && reached !== null && reached.isFree; reached = reached.next) {
        room += reached.size;
      }
      if (room >= size) {
        return start;
      }
    }
    const card = this.allocator.cardBytes;
    const length = units(card + Math.floor(card / 8), pool.segment);
    const fresh = new Block(pool, this.allocator.addressFor(length, pool.segment), length, false);
    pool.insert(fresh);
    return fresh;
  }

  // Puts memory behind the front of a block; null if the card has too little.
  map(block, size) {
    const { pool } = block;
    const mapped = units(size, pool.segment);
    if (!this.allocator.reserve(mapped)) {
      return null;
    }
    pool.remove(block);
    if (mapped < block.size) {
      const rest = block;
      block = rest.cut(mapped);
      pool.insert(rest);
    }
    block.isMapped = true;
    pool.merge(block);
    pool.insert(block);
    return block;
  }

  // Takes away the whole units of memory behind a free block, and returns what is left without.
  unmap(block) {
    const { pool } = block;
    const end = block.address + block.size;
    const first = units(block.address, pool.segment);
    const last = end - (end % pool.segment);
    if (first >= last) {
      return block;
    }
    pool.remove(block);
    if (block.address < first) {
      pool.insert(block.cut(first - block.address));
    }
    if (last < end) {
      const rest = block;
      block = rest.cut(last - first);
      pool.insert(rest);
    }
    this.allocator.giveBack(last - first);
    block.isMapped = false;
    pool.merge(block);
    pool.insert(block);
    return block;
  }
}

function growable(block) {
  return block.size + (block.next !== null && !block.next.isMapped ? block.next.size : 0);
}

// A loop of steps

// A card that is never full. The figures of a page stay far below it, and addresses on it are exact.
const UNBOUNDED = { bytes: 2 ** 50, room: 2 ** 50 };

// A loop, from what the page has of it: the sizes of its storages, and its events. A positive event allocates the storage
// of that number, counted from 1; a negative one frees it.
function loopOf(loops, dtype, step) {
  const { storages, before, first, later } = loops.of[dtype][step];
  const events = (parts) => parts.flatMap((part) => loops.parts[part]);
  const sizes = storages.flatMap((list) => loops.storages[list]).map((size) => loops.sizes[size]);
  return { sizes, before: events(before), first: events(first), later: events(later) };
}

// The bytes of each storage's block at a batch; the first storage is number 1.
function blockSizes(loop, batch) {
  return [0, ...loop.sizes.map((size) => units(bytesAt(size, batch), rules.block))];
}

// The bytes of a storage at a batch. Its size is constant bytes and bytes per image. That of what a kernel takes to add up
// rows in parts is its bytes if there are parts, those of each part, and the split of sums.py in vggkit's base.
function bytesAt(size, batch) {
  if (size.length === 2) {
    return at(size, batch);
  }
  const [constant, ofPart, rowsPerImage, height, least, most, longest] = size;
  const rows = Math.ceil((rowsPerImage * batch) / height);
  const parts = Math.min(Math.max(most, Math.ceil(rows / longest)), Math.ceil(rows / rules.fewest_rows));
  return rows < least || parts === 1 ? 0 : constant + parts * ofPart;
}

// A loop that runs on an empty card.
class Player {
  constructor(loop, batch, card, isExpandable) {
    this.loop = loop;
    this.allocator = new Allocator(card, isExpandable);
    this.sizes = blockSizes(loop, batch);
    this.blocks = this.sizes.map(() => []); // of two blocks of a storage, the older one comes first
  }

  // Allocates and frees in order, and tells whether the card had room.
  plays(events) {
    for (const event of events) {
      if (this.sizes[Math.abs(event)] === 0) {
        continue; // it is not there at this batch
      }
      if (event < 0) {
        this.allocator.free(this.blocks[-event].shift());
        continue;
      }
      const block = this.allocator.allocate(this.sizes[event]);
      if (block === null) {
        return false;
      }
      block.owner = event;
      this.blocks[event].push(block);
    }
    return true;
  }

  // All that decides what further steps do: each block by address, and whose it is, whatever the addresses.
  state() {
    const { small, large } = this.allocator;
    const blocks = [...this.blocks, small.free, small.unmapped, large.free, large.unmapped].flat().sort(byAddress);
    const places = [];
    for (const { pool, previous, isMapped, isFree, owner, size } of blocks) {
      places.push(size, isFree ? 0 : owner, (pool === small) + 2 * (previous === null) + 4 * isMapped);
    }
    return places;
  }

  // Returns the figures of each step, until a step leaves a state that an earlier one has left, which proves that the loop
  // runs for ever; the last are null if it runs out of memory.
  run() {
    const { allocator, loop } = this;
    const done = [];
    const left = [];
    let hasRoom = this.plays(loop.before);
    while (hasRoom && done.length < rules.most_steps) {
      allocator.resetPeaks();
      hasRoom = this.plays(done.length ? loop.later : loop.first);
      if (hasRoom) {
        done.push({ allocated: allocator.allocatedPeak, reserved: allocator.reservedPeak, retries: allocator.retries });
        const state = this.state();
        if (left.some((other) => other.length === state.length && other.every((place, index) => place === state[index]))) {
          return done;
        }
        left.push(state);
      }
    }
    return hasRoom ? done : [...done, null];
  }
}

function run(loop, batch, card, isExpandable) {
  return new Player(loop, batch, card, isExpandable).run();
}

// What a steady step takes of a card with room for it.
function steadyUse(loop, batch, isExpandable) {
  return run(loop, batch, UNBOUNDED, isExpandable).at(-1);
}

// The largest batch

// The most bytes of tensors that are alive at one moment of a step: of the step alone, without the loss or the scores of
// the step before, which live until the new ones are there.
function tensorBytes(loop, batch) {
  const { before, first, later } = loop;
  const outlives = first.find((event) => event > 0 && !first.includes(-event) && later.indexOf(event) < later.indexOf(-event));
  const sizes = blockSizes(loop, batch);
  const change = (event) => (event > 0 ? sizes[event] : -sizes[-event]);
  const start = [...before, ...first].reduce((alive, event) => alive + change(event), outlives ? -sizes[outlives] : 0);
  let alive = start;
  let peak = start;
  for (const event of later) {
    if (event !== -outlives) {
      alive += change(event);
      peak = Math.max(peak, alive);
    }
  }
  return peak;
}

// The first number from a start on for which something holds; it holds for all larger ones as well.
function firstNumber(holds, start) {
  let low = start;
  let high = start;
  while (!holds(high)) {
    [low, high] = [high, 2 * high];
  }
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    [low, high] = holds(middle) ? [low, middle] : [middle, high];
  }
  return high;
}

// The largest batch whose tensors have room, or one less than the smallest.
function largestOfTensors(loop, smallest, card) {
  return firstNumber((batch) => tensorBytes(loop, batch) > card.room, smallest) - 1;
}

// Finds the largest batch such that it and every smaller one run, 0 if not even the smallest does; yields between tries. Of
// very many batches it tries some, evenly spread.
function* largestBatch(loop, smallest, card, isExpandable) {
  const bound = largestOfTensors(loop, smallest, card);
  const stride = Math.max(1, Math.floor((bound - smallest) / rules.most_tried));
  const lasts = new Map(); // the figures of each batch's last step

  function* runs(batch, isAtOnce) {
    if (!lasts.has(batch)) {
      yield;
      lasts.set(batch, run(loop, batch, card, isExpandable).at(-1));
    }
    const last = lasts.get(batch);
    return last !== null && !(isAtOnce && last.retries);
  }

  // The last batch before the first one of those tried that does not run.
  function* largest(isAtOnce, after) {
    let sound = Math.max(after, smallest - 1);
    for (let step = stride; ; step = Math.max(1, Math.floor(step / rules.finer))) {
      while (sound < bound && (yield* runs(Math.min(sound + step, bound), isAtOnce))) {
        sound = Math.min(sound + step, bound);
      }
      if (step === 1) {
        return sound < smallest ? 0 : sound;
      }
    }
  }

  return yield* largest(false, yield* largest(true, 0));
}

/// \file
/// A heap without an arena: shared tables in a memfd, and two owners that take chunks of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "heap/heap.hpp"
#include "segment/mapping.hpp"
#include "shared/layout.hpp"
#include "shared/own_slot.hpp"
#include "shared/protocol.hpp"
#include "shared/tables.hpp"

/// The tables of an arena of so many bytes, without participants.
struct bare_tables {
  explicit bare_tables(std::uint64_t bytes = std::uint64_t{32} << 20) {
    using namespace sharedmem;
    constexpr std::uint32_t slots = 64;
    const auto plan = geometry_plan::primary(bytes, slots, descriptor_bytes_for(slots));
    constexpr backing kind = std::end(os::segment_kinds)[-1];  // of which nothing can be left
    mapping memory = mapping::create(kind, plan.bytes, 1);
    if (!memory.commit(0, plan.at_descriptors - guard_bytes)) throw std::bad_alloc();
    header* h = make_header(memory.data(), plan, {static_cast<std::uint32_t>(kind), {1, 2}, 3, -1, slots});
    h->cache_limit.store(plan.bytes);
    h->slot_mark.store(slots);
    h->version.store(layout_version);
    words.open(std::move(memory));
  }
  sharedmem::tables words;
};

/// An owner of chunks: a heap with a process slot of its own.
struct owner {
  owner(bare_tables& tables, std::uint32_t number) : heap(tables.words, held) {
    using namespace sharedmem;
    held.reserve(std::uint64_t{tables.words.head().chunk_capacity} * descriptors_per_chunk);
    tables.words.slot(number).ctl.store(slot_word{slot_state::active, {1, 1, 0}}.bits());
    slot.open();
    slot.become(number);
    heap.open(slot);
  }

  /// A block of a size class, of fresh memory if there is no other.
  sharedmem::heap::taken take(std::uint32_t size_class) {
    const std::lock_guard lock(heap);
    while (!heap.has_room(size_class)) {
      sharedmem::slab* run = heap.uncache(1);
      if (run == nullptr) run = heap.claim_fresh(1);
      if (run == nullptr) return {};
      heap.cut(run, size_class);
    }
    return heap.take_small(size_class);
  }
  /// A run of chunks; no owner: there is no room.
  sharedmem::heap::taken take_run(std::uint32_t chunks) {
    const std::lock_guard lock(heap);
    sharedmem::slab* run = heap.uncache(chunks);
    if (run == nullptr) run = heap.claim_fresh(chunks);
    return run == nullptr ? sharedmem::heap::taken{} : heap.take_run(run);
  }
  void drop(const sharedmem::heap::taken& t) {
    const std::lock_guard lock(heap);
    heap.drop_unshared(*t.owner, t.index);
  }

  sharedmem::own_slot slot;
  sharedmem::records held;
  sharedmem::heap heap;
};

namespace heap_tools {

using namespace sharedmem;

inline chunk_state state_of(bare_tables& t, std::uint32_t c) {
  return owner_word::from(t.words.chunk(c).owner.load()).state;
}

inline std::uint32_t count(bare_tables& t, chunk_state wanted) {
  std::uint32_t found = 0;
  for (std::uint32_t c = 0; c < t.words.chunk_count(); ++c) found += state_of(t, c) == wanted ? 1 : 0;
  return found;
}

/// Shares a block as `arena::share` does: its generation.
inline std::uint64_t publish(bare_tables& t, owner& by, const heap::taken& block) {
  protocol<native_atomics, tables> rules(t.words);
  chunk_entry& c = t.words.chunk(block.owner->chunk);
  c.published.store(std::max(c.published.load(), block.index + 1));
  const std::uint64_t g =
      rules.publish(block.owner->first + block.index, by.slot.index(),
                    t.words.chunk_place(block.owner->chunk) + block.index * block.owner->block_bytes,
                    block.owner->block_bytes);
  block.owner->states[block.index].store(use::published);
  return g;
}

/// What another process does that frees a published block: it is FREE in the shared tables.
inline void free_elsewhere(bare_tables& t, std::uint32_t block, std::uint64_t generation) {
  t.words.block(block)[at_holders].store(0);
  t.words.block(block)[at_life].store(life_word{life_state::free, 0, generation + 1}.bits());
}

}  // namespace heap_tools

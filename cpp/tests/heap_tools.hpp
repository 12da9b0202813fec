/// \file
/// A heap without an arena: shared tables in a memfd, and two owners that take chunks of them.
#pragma once

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

/// The tables of an arena of so many bytes, with nobody in it.
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

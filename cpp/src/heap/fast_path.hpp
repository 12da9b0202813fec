#pragma once

/// Taking and giving small blocks by this thread's cache: without a lock, a system call or an atomic
/// read-modify-write. To be included where blocks are allocated and released.
#include <atomic>

#include "heap/heap.hpp"
#include "heap/thread_local_cache.hpp"

namespace sharedmem {

inline heap::taken heap::take_cached(std::uint32_t size_class) noexcept {
  thread_cache* cache = current_cache;
  if (cache == nullptr || cache->home.load(std::memory_order_relaxed) != this) [[unlikely]]
    return {};
  const within guard(*cache);
  magazine& m = cache->of_class[size_class];
  if (threads_stopped() || m.count == 0) [[unlikely]]
    return {};
  const cached_block b = m.blocks[--m.count];
  b.owner()->states[b.index()].store(use::in_use, std::memory_order_relaxed);
  return {b.owner(), b.index(), false};
}

inline bool heap::give_cached(slab& owner, std::uint32_t index) noexcept {
  thread_cache* cache = current_cache;
  const std::uint32_t c = owner.size_class;
  if (cache == nullptr || cache->home.load(std::memory_order_relaxed) != this || c >= cached_classes)
      [[unlikely]]
    return false;
  const within guard(*cache);
  magazine& m = cache->of_class[c];
  if (threads_stopped() || m.count >= m.capacity ||
      owner.states[index].load(std::memory_order_relaxed) != use::in_use) [[unlikely]]
    return false;
  owner.states[index].store(use::listed, std::memory_order_relaxed);
  m.blocks[m.count++] = cached_block(&owner, index);
  return true;
}

}  // namespace sharedmem

#pragma once

/// Taking and giving small blocks by this thread's cache: without a lock, a system call or an atomic
/// read-modify-write. To be included where blocks are allocated and released.
#include <atomic>

#include "heap/heap.hpp"
#include "heap/thread_local_cache.hpp"

namespace sharedmem {

/// Marks this thread as being within its cache; `heap::stop_threads` waits until it is not.
class within_cache {
 public:
  explicit within_cache(thread_cache& cache) noexcept : cache_(cache) {
    cache_.busy.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the other side runs membarrier(2)
  }
  ~within_cache() { cache_.busy.store(0, std::memory_order_release); }
  within_cache(const within_cache&) = delete;
  within_cache& operator=(const within_cache&) = delete;

 private:
  thread_cache& cache_;
};

inline heap::taken heap::take_cached(std::uint32_t size_class) noexcept {
  thread_cache* cache = current_cache;
  if (cache == nullptr || cache->home != this) [[unlikely]]
    return {};
  const within_cache guard(*cache);
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
  if (cache == nullptr || cache->home != this || c >= cached_classes) [[unlikely]]
    return false;
  const within_cache guard(*cache);
  magazine& m = cache->of_class[c];
  if (threads_stopped() || m.count >= m.capacity ||
      owner.states[index].load(std::memory_order_relaxed) != use::in_use) [[unlikely]]
    return false;
  owner.states[index].store(use::listed, std::memory_order_relaxed);
  m.blocks[m.count++] = cached_block(&owner, index);
  return true;
}

}  // namespace sharedmem

/// The caches of this process's threads: made on first use, given back when a thread ends, halted for fork.
#include <algorithm>
#include <mutex>

#include "heap/heap.hpp"
#include "heap/thread_local_cache.hpp"
#include "os/machine.hpp"

namespace sharedmem {

#if defined(__GLIBC__)
[[gnu::tls_model("initial-exec")]]  // 8 bytes of glibc's static TLS reserve; no call per access
#endif
thread_local thread_cache* current_cache = nullptr;

namespace {

/// Which arena state a cache belongs to; the cache itself may have been wiped by a fork.
struct owner_of_cache {
  thread_cache* cache = nullptr;
  heap* home = nullptr;
  ~owner_of_cache();
};

/// Heaps that exist: a thread may end after its cache's heap.
struct living_heaps {
  std::mutex lock;
  std::vector<heap*> all;
};

living_heaps& living() {
  static auto* const heaps = new living_heaps;  // outlives every thread
  return *heaps;
}

thread_local owner_of_cache mine;

owner_of_cache::~owner_of_cache() {
  current_cache = nullptr;
  if (cache == nullptr) return;
  living_heaps& heaps = living();
  const std::lock_guard ended(heaps.lock);
  if (std::find(heaps.all.begin(), heaps.all.end(), home) != heaps.all.end()) {
    home->leave(cache);
  }
  thread_cache::unmap(cache);
}

}  // namespace

void hold_caches() noexcept { living().lock.lock(); }

void let_caches_go() noexcept { living().lock.unlock(); }

void heap::open(const own_slot& self) {
  self_ = &self;
  owned.reserve(words.head().chunk_capacity);
  caches_usable = has_barrier();
  living_heaps& heaps = living();
  const std::lock_guard lock(heaps.lock);
  heaps.all.push_back(this);
}

void heap::leave(thread_cache* cache) noexcept {
  const std::lock_guard lock(*this);
  if (cache->home == this)
    for (magazine& m : cache->of_class) flush(m, 0);
  std::erase(caches, cache);
}

thread_cache* heap::ready_cache() noexcept {
  if (!caches_usable) return nullptr;
  thread_cache* cache = current_cache;
  if (cache != nullptr && cache->home != nullptr) return cache->home == this ? cache : nullptr;
  if (cache == nullptr) cache = thread_cache::map();
  if (cache == nullptr) return nullptr;
  mine.cache = cache;
  try {
    caches.push_back(cache);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  cache->make_ready(this);
  mine.home = this;
  current_cache = cache;
  return cache;
}

/// Waits until no other thread is within its cache; they take the slow path from now on, and stop at `pool`.
void heap::stop_threads() noexcept {
  forking.store(true, std::memory_order_relaxed);
  const auto is_another_threads = [](const thread_cache* cache) { return cache != current_cache; };
  if (std::none_of(caches.begin(), caches.end(), is_another_threads)) return;
  barrier_all_threads();  // pairs with `busy`: each thread sees `forking`, or we see its `busy`
  for (thread_cache* cache : caches)
    while (cache != current_cache && cache->busy.load(std::memory_order_acquire) != 0) yield_cpu();
}

void heap::forget_chunks() noexcept {
  // Slabs stay allocated: references of the parent's blocks point to them. They are never listed again.
  all_owned = nullptr;
  const std::uint64_t mark =
      words.head().chunk_mark.load(std::memory_order_seq_cst);  // none is owned above it
  for (std::uint64_t c = 0; c < mark && c < owned.size(); ++c)
    if (owned[c] != nullptr) owned[c] = nullptr;  // a table that is only read stays shared with the parent
  with_room.fill(nullptr);
  slabs_of_class.fill(0);
  cached_runs.clear();
  cached_bytes = 0;
  drop_caches();
}

void heap::resume_threads() noexcept { forking.store(false, std::memory_order_release); }

/// Forgets all caches without looking into them: what they list is not ours (any more). This thread's is
/// kept mapped, empty.
void heap::drop_caches() noexcept {
  thread_cache* kept = nullptr;
  for (thread_cache* cache : caches) {
    if (cache == current_cache)
      kept = cache;
    else
      thread_cache::unmap(cache);
  }
  caches.clear();
  if (kept == nullptr) return;
  caches.push_back(kept);  // room for it is there
  kept->make_ready(this);
}

void heap::flush_idle_caches() noexcept {
  stop_threads();
  for (thread_cache* cache : caches)
    if (cache->home == this)
      for (magazine& m : cache->of_class) flush(m, 0);
  resume_threads();
}

heap::~heap() {
  {
    living_heaps& heaps = living();
    const std::lock_guard lock(heaps.lock);
    std::erase(heaps.all, this);
  }
  for (thread_cache* cache : caches) cache->home = nullptr;  // its thread still points to it
  for (slab* s = all_owned; s != nullptr;) {
    slab* next = s->next_owned;
    slab::destroy(s);
    s = next;
  }
}

}  // namespace sharedmem

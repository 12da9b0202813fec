/// The caches of this process's threads: made on first use, given back when a thread ends, halted for fork.
#include <algorithm>
#include <mutex>

#include "machine.hpp"
#include "state.hpp"
#include "thread_local_cache.hpp"

namespace sharedmem {

#if defined(__GLIBC__)
[[gnu::tls_model("initial-exec")]]  // 8 bytes of glibc's static TLS reserve; no call per access
#endif
thread_local thread_cache* current_cache = nullptr;

namespace {

/// Which arena state a cache belongs to; the cache itself may have been wiped by a fork.
struct owner_of_cache {
  thread_cache* cache = nullptr;
  arena::state* home = nullptr;
  ~owner_of_cache();
};

/// Arena states that exist: a thread may end after its cache's arena.
struct living_states {
  std::mutex lock;
  std::vector<arena::state*> all;
};

living_states& living() {
  static auto* const states = new living_states;  // outlives every thread
  return *states;
}

thread_local owner_of_cache mine;

owner_of_cache::~owner_of_cache() {
  current_cache = nullptr;
  if (cache == nullptr) return;
  living_states& states = living();
  const std::lock_guard ended(states.lock);
  if (std::find(states.all.begin(), states.all.end(), home) != states.all.end()) {
    const std::lock_guard lock(home->pool);
    if (cache->home == home)
      for (magazine& m : cache->of_class) home->flush(m, 0);
    std::erase(home->caches, cache);
  }
  thread_cache::unmap(cache);
}

}  // namespace

void hold_caches() noexcept { living().lock.lock(); }

void let_caches_go() noexcept { living().lock.unlock(); }

void arena::state::enter_caches() {
  living_states& states = living();
  const std::lock_guard lock(states.lock);
  states.all.push_back(this);
}

thread_cache* arena::state::ready_cache() noexcept {
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
void arena::state::stop_threads() noexcept {
  forking.store(true, std::memory_order_relaxed);
  barrier_all_threads();  // pairs with `busy`: each thread sees `forking`, or we see its `busy`
  for (thread_cache* cache : caches)
    while (cache != current_cache && cache->busy.load(std::memory_order_acquire) != 0) yield_cpu();
}

void arena::state::resume_threads() noexcept { forking.store(false, std::memory_order_release); }

/// Forgets all caches without looking into them: what they list is not ours (any more). This thread's is
/// kept mapped, empty.
void arena::state::drop_caches() noexcept {
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

void arena::state::flush_idle_caches() noexcept {
  stop_threads();
  for (thread_cache* cache : caches)
    if (cache->home == this)
      for (magazine& m : cache->of_class) flush(m, 0);
  resume_threads();
}

arena::state::~state() {
  leave_budget();
  {
    living_states& states = living();
    const std::lock_guard lock(states.lock);
    std::erase(states.all, this);
  }
  for (thread_cache* cache : caches) cache->home = nullptr;  // its thread still points to it
  for (slab* s = all_owned; s != nullptr;) {
    slab* next = s->next_owned;
    slab::destroy(s);
    s = next;
  }
  if (identity != nullptr) identity_page::unmap(identity);
}

}  // namespace sharedmem

/// The caches of this process's threads: made on first use, given back when a thread ends, halted for fork.
#include <algorithm>
#include <mutex>

#include "heap/heap.hpp"
#include "heap/thread_local_cache.hpp"
#include "os/machine.hpp"
#include "os/threads.hpp"
#include "os/wiped.hpp"

namespace sharedmem {

#if defined(__GLIBC__)
[[gnu::tls_model("initial-exec")]]  // 8 bytes of glibc's static TLS reserve; no call per access
#endif
constinit thread_local thread_cache* current_cache = nullptr;

namespace {

/// Held while an ending thread gives its cache back, and while an arena that is left notifies its caches.
std::mutex& ending() {
  static auto* const lock = make_wiped<std::mutex>();  // outlives every thread
  return *lock;
}

/// What the thread has to give back when it ends, also while it serves no arena.
thread_local thread_cache* mine = nullptr;

/// True once the thread has begun to end: a destructor that runs later must not make another cache, which would never
/// be given back. It has no destructor, so it can be read as long as the thread runs.
thread_local bool ended = false;

void end_thread(void* context) noexcept {
  ended = true;
  current_cache = nullptr;
  auto* const cache = static_cast<thread_cache*>(context);
  const std::lock_guard alone(ending());
  if (auto* home = static_cast<heap*>(cache->home.load(std::memory_order_relaxed))) home->leave(cache);
  thread_cache::unmap(cache);
}

}  // namespace

void hold_caches() noexcept { ending().lock(); }

void let_caches_go() noexcept { ending().unlock(); }

void renew_caches() noexcept {
  ending().unlock();  // zeroed or not; tools that watch locks believe that it is held
  new (&ending()) std::mutex;
}

void heap::open(const own_slot& self) {
  self_ = &self;
  owned.reserve(words.head().chunk_capacity);
  // A thread has one cache, which is for its home arena.
  caches_usable = has_barrier() && words.head().names == 0;
}

void heap::leave(thread_cache* cache) noexcept {
  const std::lock_guard lock(*this);
  for (magazine& m : cache->of_class) flush(m, 0);
  std::erase(caches, cache);
}

thread_cache* heap::ready_cache() noexcept {
  if (!caches_usable || ended) return nullptr;
  thread_cache* cache = mine;
  if (cache == nullptr) {
    cache = thread_cache::map();
    if (cache == nullptr) return nullptr;
    if (!os::at_thread_end(end_thread, cache)) {
      thread_cache::unmap(cache);
      return nullptr;
    }
    mine = cache;
  }
  if (void* home = cache->home.load(std::memory_order_relaxed)) return home == this ? cache : nullptr;
  try {
    caches.push_back(cache);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  cache->make_ready(this);
  current_cache = cache;
  return cache;
}

/// Waits until no other thread is within its cache; they take the slow path from now on, and stop at `pool`.
void heap::stop_threads() noexcept {
  stopped.store(true, std::memory_order_relaxed);
  const auto is_another_threads = [](const thread_cache* cache) { return cache != current_cache; };
  if (std::none_of(caches.begin(), caches.end(), is_another_threads)) return;
  barrier_all_threads();  // pairs with `busy`: each thread sees `stopped`, or we see its `busy`
  for (thread_cache* cache : caches)
    for (unsigned round = 0; cache != current_cache && cache->busy.load(std::memory_order_acquire) != 0;)
      let_others_run(round++);
}

void heap::forget_chunks() noexcept {
  // Slabs stay allocated: references of the parent's blocks point to them. They are never listed again.
  all_owned = nullptr;
  const std::uint64_t mark =
      words.head().chunk_mark.load(std::memory_order_seq_cst);  // chunks above it have no owner
  for (std::uint64_t c = 0; c < mark && c < owned.size(); ++c)
    if (owned[c] != nullptr) owned[c] = nullptr;  // what is not written stays shared with the parent
  with_room.fill(nullptr);
  slabs_of_class.fill(0);
  cached_runs.clear();
  cached_bytes = 0;
  drop_caches();
}

void heap::resume_threads() noexcept { stopped.store(false, std::memory_order_release); }

/// Forgets all caches, in a forked child, where they were wiped. Their threads do not exist there, except the one
/// that forked, which is the first of the child. If another thread is first, it cannot tell which cache that is.
void heap::drop_caches() noexcept {
  if (is_first_thread() && !ended)
    for (thread_cache* cache : caches)
      if (cache != current_cache) thread_cache::unmap(cache);
  caches.clear();  // this thread's is listed again when it is used
}

void heap::flush_idle_caches() noexcept {
  stop_threads();
  for (thread_cache* cache : caches)
    for (magazine& m : cache->of_class) flush(m, 0);
  resume_threads();
}

heap::~heap() {
  if (self_ != nullptr && self_->known()) {
    const std::lock_guard alone(ending());  // a thread that ends meanwhile unmaps its cache
    for (thread_cache* cache : caches) cache->home.store(nullptr, std::memory_order_relaxed);
  }
  for (slab* s = all_owned; s != nullptr;) {
    slab* next = s->next_owned;
    slab::destroy(s);
    s = next;
  }
}

}  // namespace sharedmem

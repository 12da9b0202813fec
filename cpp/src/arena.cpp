#include <sharedmem/arena.hpp>

#include <algorithm>
#include <stdexcept>

#include <sharedmem/memory.hpp>

#include "machine.hpp"
#include "state.hpp"
#include "thread_local_cache.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire_order = std::memory_order_acquire;
constexpr auto release_order = std::memory_order_release;

/// Marks this thread as being within its cache; see arena::state::stop_threads.
class within {
 public:
  explicit within(thread_cache& cache) noexcept : cache_(cache) {
    cache_.busy.store(1, relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the other side runs membarrier(2)
  }
  ~within() { cache_.busy.store(0, release_order); }
  within(const within&) = delete;
  within& operator=(const within&) = delete;

 private:
  thread_cache& cache_;
};

/// Fresh blocks of 2 MiB and more get their pages at once, huge ones, up to this part of what is
/// available: whoever asks for more than that may mean to use it sparsely.
constexpr std::uint64_t eager_part = 2;

}  // namespace

arena::arena(std::unique_ptr<state> s) noexcept : s_(std::move(s)) {}

const locator& arena::where() const noexcept { return s_->where; }

allocation arena::allocate(std::uint64_t bytes, std::uint64_t alignment, pages how) {
  state& s = *s_;
  if (bytes <= max_cached_bytes && alignment - 1 < 64 && (alignment & (alignment - 1)) == 0) [[likely]] {
    thread_cache* cache = current_cache;
    if (cache != nullptr && cache->home == &s) [[likely]] {
      const within guard(*cache);
      magazine& m = cache->of_class[class_of(bytes == 0 ? 1 : bytes)];
      if (!s.forking.load(acquire_order) && m.count > 0) [[likely]] {
        const cached_block b = m.blocks[--m.count];
        slab* owner = b.owner();
        const std::uint32_t i = b.index();
        owner->states[i].store(use::in_use, relaxed);
        return {{this, owner, owner->first + i, s.epoch}, owner->block(i), owner->block_bytes, false};
      }
    }
  }
  return s.allocate_slowly(bytes, alignment, how);
}

allocation arena::state::allocate_slowly(std::uint64_t bytes, std::uint64_t alignment, pages how) {
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > chunk_bytes)
    throw std::invalid_argument("alignment must be a power of two up to 2 MiB, not " +
                                std::to_string(alignment));
  settle();
  if (in_overflow()) leave_overflow();
  if (bytes / chunk_bytes >= words.head().chunk_capacity) {
    const std::lock_guard lock(pool);
    reserve_memory(bytes, bytes);  // usually there is no such memory either, which says more
    no_room(bytes, "no arena of this size holds as much");
  }
  std::uint64_t wanted = std::max<std::uint64_t>(bytes, 1);
  // Blocks of a power of two are aligned to their own size: chunks are aligned to 2 MiB.
  if (alignment > 64) wanted = std::bit_ceil(std::max(wanted, alignment));
  if (alignment > 64 && wanted > max_class_bytes) wanted = std::max(bytes, max_class_bytes + 1);
  std::unique_lock lock(pool);
  taken t;
  if (wanted <= max_class_bytes) {
    const std::uint32_t c = class_of(wanted);
    t = take_small(c, bytes, lock);
    if (c < cached_classes && !forking.load(relaxed))
      if (thread_cache* cache = ready_cache()) fill(cache->of_class[c], c);
  } else {
    t = take_run(static_cast<std::uint32_t>((wanted - 1) / chunk_bytes + 1), bytes, lock);
  }
  lock.unlock();
  slab& from = *t.owner;
  const allocation a{
      {&self, &from, from.first + t.index, epoch}, from.block(t.index), from.block_bytes, t.zeroed};
  populate(from, a, bytes, how);
  return a;
}

/// Makes pages present as `how` asks. The block is the caller's: no lock.
void arena::state::populate(slab& from, const allocation& a, std::uint64_t bytes, pages how) noexcept {
  if (how == pages::lazy || bytes == 0 || from.populated) return;
  const bool is_run = from.size_class == no_class;
  if (how == pages::as_needed && (!is_run || !a.zeroed || bytes > available_memory().available / eager_part))
    return;
  mapping& memory = words.extent_of_chunk(from.chunk).memory;
  const std::uint64_t end = std::min(a.bytes, (bytes + page_bytes - 1) / page_bytes * page_bytes);
  const auto start = static_cast<std::size_t>(a.data - memory.data());
  const std::size_t from_page = start / page_bytes * page_bytes;
  memory.populate(
      from_page,
      static_cast<std::size_t>((start + end + page_bytes - 1) / page_bytes * page_bytes - from_page),
      populate_threads);
  if (is_run) from.populated = true;
}

void arena::release(block_ref& ref) noexcept {
  state& s = *s_;
  slab* owner = ref.owner;
  if (owner != nullptr) [[likely]] {
    thread_cache* cache = current_cache;
    const std::uint32_t c = owner->size_class;
    if (cache != nullptr && cache->home == &s && c < cached_classes) [[likely]] {
      const within guard(*cache);
      magazine& m = cache->of_class[c];
      const std::uint32_t i = ref.block - owner->first;
      // The epoch: a child forked without handlers must not list what it only inherited.
      if (!s.forking.load(acquire_order) && m.count < m.capacity && ref.epoch == s.epoch &&
          owner->states[i].load(relaxed) == use::in_use) [[likely]] {
        owner->states[i].store(use::listed, relaxed);
        m.blocks[m.count++] = cached_block(owner, i);
        ref = {};
        return;
      }
    }
  }
  s.release_slowly(ref);
  ref = {};
}

void arena::state::release_slowly(const block_ref& ref) noexcept {
  if (identity->slot_plus_one.load(relaxed) == 0) return;  // forked without handlers: not ours to give
  if (ref.epoch != epoch) return;
  const std::lock_guard stripe_lock(stripe(ref.block));
  slab* owner = ref.owner;
  if (owner != nullptr && owner->states[ref.block - owner->first].load(relaxed) == use::in_use) {
    const std::lock_guard lock(pool);
    const std::uint32_t c = owner->size_class;
    if (c < cached_classes && !forking.load(relaxed))
      if (thread_cache* cache = ready_cache()) {
        magazine& m = cache->of_class[c];
        flush(m, m.capacity / 2);
      }
    drop_unshared(*owner, ref.block - owner->first);
    return;
  }
  drop_published(ref.block);
}

std::uint64_t arena::trim() {
  state& s = *s_;
  s.settle();
  const std::lock_guard lock(s.pool);
  s.flush_idle_caches();
  s.sweep_all();
  for (std::uint32_t c = 0; c < class_count; ++c)
    for (slab* x = s.with_room[c]; x != nullptr;) {
      slab* next = x->next;
      s.dissolve_if_free(*x, true);
      x = next;
    }
  // What was handed out lazily and never touched is cached, but costs nothing: the system's count tells.
  const std::uint64_t before = s.resident();
  s.limit_cache(s.cached_everywhere() - s.cached_bytes);
  const std::uint64_t after = s.resident();
  return before > after ? before - after : 0;
}

std::uint64_t arena::collect(bool leases) {
  state& s = *s_;
  s.settle();
  const auto before = s.words.head().repairs.load(relaxed);
  const std::uint64_t cached = s.cached_everywhere();
  s.look_for_dead(true);
  s.expire(leases);
  const std::lock_guard lock(s.pool);
  s.adopt_orphans();
  s.sweep_returns();
  if (s.words.head().repairs.load(relaxed) != before) s.sweep_all();
  const std::uint64_t now = s.cached_everywhere();
  return now > cached ? now - cached : 0;
}

std::uint64_t arena::revoke(std::uint64_t older_than_ns) {
  state& s = *s_;
  s.settle();
  return s.revoke(older_than_ns);
}

std::uint64_t arena::cache_limit() const noexcept { return s_->words.head().cache_limit.load(relaxed); }

void arena::set_cache_limit(std::uint64_t bytes) noexcept {
  s_->words.head().cache_limit.store(bytes, relaxed);
  if (s_->identity->slot_plus_one.load(relaxed) == 0) return;
  const std::lock_guard lock(s_->pool);
  s_->limit_cache(bytes);
}

}  // namespace sharedmem

#include <sharedmem/arena.hpp>

#include <algorithm>
#include <stdexcept>

#include "copy_threads.hpp"
#include "heap/fast_path.hpp"
#include "os/identity.hpp"
#include "os/machine.hpp"
#include "os/memory.hpp"
#include "os/pages.hpp"
#include "placing.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

/// Fresh blocks of 2 MiB and more get their pages at once, huge ones, up to this part of what is
/// available: a program that allocates more may use the block sparsely.
constexpr std::uint64_t eager_part = 2;

}  // namespace

arena::arena(std::unique_ptr<state> s) noexcept : s_(std::move(s)) {}

const locator& arena::where() const noexcept { return s_->where; }

bool arena::allocate_cached(std::uint64_t bytes, std::uint64_t alignment, allocation& made) noexcept {
  if (placed_in != nullptr) [[unlikely]]
    return false;
  state& s = *s_;
  if (bytes <= max_cached_bytes && alignment - 1 < 64 && (alignment & (alignment - 1)) == 0) [[likely]] {
    const heap::taken t = s.pool.take_cached(class_of(bytes == 0 ? 1 : bytes));
    if (t.owner != nullptr) [[likely]] {
      made = {{this, t.owner, t.owner->first + t.index, s.refs.epoch()},
              t.owner->block(t.index),
              t.owner->block_bytes,
              false};
      return true;
    }
  }
  return false;
}

allocation arena::allocate(std::uint64_t bytes, std::uint64_t alignment, pages how) {
  allocation made;
  if (allocate_cached(bytes, alignment, made)) [[likely]]
    return made;
  return s_->allocate_slowly(bytes, alignment, how);
}

bool arena::is_of_this_user() const noexcept { return s_->user == effective_user(); }

allocation arena::state::allocate_slowly(std::uint64_t bytes, std::uint64_t alignment, pages how) {
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > chunk_bytes)
    throw std::invalid_argument("alignment must be a power of two up to 2 MiB, not " +
                                std::to_string(alignment));
  join_if_forked();
  if (peers.in_overflow()) member.leave_overflow();
  if (bytes / chunk_bytes >= words.head().chunk_capacity) {
    const std::lock_guard lock(pool);
    reserve_memory(bytes, bytes);  // usually throws: its message, on the memory of the machine, helps more
    no_room(bytes, "an arena of this size cannot hold that much");
  }
  std::uint64_t wanted = std::max<std::uint64_t>(bytes, 1);
  // Blocks of a power of two are aligned to their own size: chunks are aligned to 2 MiB.
  if (alignment > 64) wanted = std::bit_ceil(std::max(wanted, alignment));
  if (alignment > 64 && wanted > max_class_bytes) wanted = std::max(bytes, max_class_bytes + 1);
  std::unique_lock lock(pool);
  heap::taken t;
  if (wanted <= max_class_bytes) {
    const std::uint32_t c = class_of(wanted);
    t = take_small(c, bytes, lock);
    pool.fill_cache(c);
  } else {
    t = take_run(static_cast<std::uint32_t>((wanted - 1) / chunk_bytes + 1), bytes, lock);
  }
  lock.unlock();
  slab& from = *t.owner;
  const allocation a{
      {&self, &from, from.first + t.index, refs.epoch()}, from.block(t.index), from.block_bytes, t.zeroed};
  populate(from, a, bytes, how);
  return a;
}

/// Makes pages present as `how` says. The block belongs to the caller, so no lock is needed.
void arena::state::populate(slab& from, const allocation& a, std::uint64_t bytes, pages how) noexcept {
  if (how == pages::lazy || bytes == 0 || from.populated) return;
  const bool is_run = from.size_class == no_class;
  if (how == pages::as_needed && (!is_run || !a.zeroed || bytes > available_memory().available / eager_part))
    return;
  mapping& memory = words.extent_of_chunk(from.chunk).memory;
  const std::size_t page = os::page_size();
  const std::uint64_t end = std::min(a.bytes, (bytes + page - 1) / page * page);
  const auto start = static_cast<std::size_t>(a.data - memory.data());
  const std::size_t from_page = start / page * page;
  const auto size = static_cast<std::size_t>((start + end + page - 1) / page * page - from_page);
  memory.populate(from_page, size, size < mapping::threaded_from ? 1 : page_threads());
  if (is_run) from.populated = true;
}

void arena::release(block_ref& ref) noexcept {
  state& s = *s_;
  slab* owner = ref.owner;
  // The epoch: a child forked without handlers must not list what it only inherited.
  if (owner == nullptr || ref.epoch != s.refs.epoch() ||
      !s.pool.give_cached(*owner, ref.block - owner->first)) [[unlikely]]
    s.release_slowly(ref);
  ref = {};
}

void arena::state::release_slowly(const block_ref& ref) noexcept {
  if (!identity.known()) return;  // forked without handlers: not ours to give
  if (ref.epoch == refs.epoch()) refs.release(ref.block, ref.owner);
}

std::uint64_t arena::trim() {
  state& s = *s_;
  s.join_if_forked();
  const std::lock_guard lock(s.pool);
  // What was handed out lazily and never touched is cached, but costs nothing: the system's count tells.
  const std::uint64_t before = s.resident();
  s.pool.adopt_all_orphans();
  s.pool.trim();
  const std::uint64_t after = s.resident();
  return before > after ? before - after : 0;
}

std::uint64_t arena::collect(bool leases) {
  state& s = *s_;
  s.join_if_forked();
  const auto before = s.words.head().repairs.load(relaxed);
  std::uint64_t cached = 0;
  {
    const std::lock_guard lock(s.pool);
    cached = s.pool.cached_everywhere() + s.pool.orphaned_bytes();
  }
  s.repairs.look_for_dead(true);
  if (leases) s.repairs.expire(true);
  const std::lock_guard lock(s.pool);
  s.pool.sweep_returns();
  if (s.words.head().repairs.load(relaxed) != before) s.pool.sweep_all();
  const std::uint64_t now = s.pool.cached_everywhere() + s.pool.orphaned_bytes();
  return now > cached ? now - cached : 0;
}

std::uint64_t arena::revoke(std::uint64_t older_than_ns) {
  state& s = *s_;
  s.join_if_forked();
  return s.repairs.revoke(older_than_ns);
}

std::uint64_t arena::cache_limit() const noexcept { return s_->words.head().cache_limit.load(relaxed); }

void arena::set_cache_limit(std::uint64_t bytes) noexcept {
  s_->words.head().cache_limit.store(bytes, relaxed);
  if (!s_->identity.known()) return;
  const std::lock_guard lock(s_->pool);
  s_->pool.limit_cache(bytes);
}

}  // namespace sharedmem

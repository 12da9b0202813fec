/// Chunks whose owner has died: processes that need memory adopt them; beyond the cache limit they are given back.
/// The stores are those of the table in chunks.cpp.
#include <algorithm>

#include "heap/heap.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acq_rel = std::memory_order_acq_rel;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

/// Whether a chunk became an orphan since the last look at all of them that left none.
bool heap::orphans_to_see() const noexcept {
  return words.head().orphans.load(std::memory_order_acquire) != orphans_seen;
}

/// ORPHAN -> OWNED, `owner` being the word as it was read. False: another process was faster.
bool heap::take_orphan(std::uint32_t c, std::uint64_t owner) noexcept {
  const owner_word mine{chunk_state::owned, slot(), 0};
  if (!words.chunk(c).owner.compare_exchange_strong(owner, mine.bits(), acq_rel, relaxed)) return false;
  step<point::chunk_adopted>();
  return true;
}

/// An orphan that was taken and cannot be used, as there is no private memory for its table: others may take it.
void heap::leave_orphan(std::uint32_t c) noexcept {
  words.chunk(c).owner.store(owner_word{chunk_state::orphan, 0, 0}.bits(), std::memory_order_release);
  words.head().orphans.fetch_add(1, std::memory_order_release);
}

/// Calls `use(chunk, owner, cut)` for each orphan in the attached segments, until it returns false; `owner` is the
/// word that marks it as an orphan. Returns whether there can be no further orphan.
template <class Use>
bool heap::each_orphan(Use&& use) const {
  const auto mark = static_cast<std::uint32_t>(words.head().chunk_mark.load(sc));
  for (std::uint32_t c = 0; c < mark && c < words.chunk_count(); ++c) {
    const chunk_entry& e = words.chunk(c);
    const std::uint64_t owner = e.owner.load(relaxed);
    if (owner_word::from(owner).state != chunk_state::orphan || words.extent_of_chunk(c).lost()) continue;
    if (!use(c, owner, cut_word::from(e.cut.load(std::memory_order_acquire)))) return false;
  }
  return mark <= words.chunk_count();
}

/// Takes over the orphans for whose cut `wanted` is true, until `enough()`. Returns whether all orphans were seen and
/// none was left to others.
template <class Wanted, class Enough>
bool heap::adopt_where(Wanted&& wanted, Enough&& enough) {
  bool none_left = true;
  const bool all_seen = each_orphan([&](std::uint32_t c, std::uint64_t owner, cut_word cut) {
    if (enough()) return false;
    if (!wanted(cut)) {
      none_left = false;
      return true;
    }
    if (!take_orphan(c, owner)) return true;
    try {
      adopt(c);
    } catch (const std::bad_alloc&) {
      leave_orphan(c);
      none_left = false;
    }
    return true;
  });
  return all_seen && none_left;
}

bool heap::adopt_orphans(std::uint32_t chunks, std::uint32_t size_class) {
  if (!orphans_to_see()) return false;
  const auto there = [&] { return size_class != no_class ? has_room(size_class) : has_cached(chunks); };
  adopt_where(
      [&](cut_word cut) {
        return cut.size_class == size_class && (size_class != no_class || cut.run >= chunks);
      },
      there);
  return there() || adopt_all_orphans();
}

bool heap::adopt_all_orphans() {
  // Read before the look at all of them: what becomes an orphan meanwhile is looked for next time.
  const std::uint64_t now = words.head().orphans.load(std::memory_order_acquire);
  if (now == orphans_seen) return false;
  bool any = false;
  const bool all = adopt_where([&](cut_word) { return any = true; }, [] { return false; });
  if (all) orphans_seen = now;
  return any;
}

/// Whether no block of an orphan is in use. It stays so: only an owner hands out blocks.
bool heap::is_free_orphan(std::uint32_t c, cut_word cut) const noexcept {
  const chunk_entry& e = words.chunk(c);
  const bool small = cut.run == 1 && cut.size_class < class_count;
  const std::uint32_t count =
      std::min(small ? blocks_per_chunk(cut.size_class) : 1, e.capacity.load(relaxed));
  const std::uint32_t first = e.first.load(relaxed), published = e.published.load(relaxed);
  for (std::uint32_t i = 0; i < std::min(count, published); ++i)
    // Acquire, as in `sweep`: the process that freed it has finished writing to its bytes.
    if (life_word::from(words.block(first + i)[at_life].load(std::memory_order_acquire)).state !=
        life_state::free)
      return false;
  return true;
}

std::uint64_t heap::orphaned_bytes() const noexcept {
  if (!orphans_to_see()) return 0;
  std::uint64_t sum = 0;
  (void)each_orphan([&](std::uint32_t c, std::uint64_t, cut_word cut) {
    if (is_free_orphan(c, cut)) sum += std::max(cut.run, 1U) * chunk_bytes;
    return true;
  });
  return sum;
}

void heap::limit_orphans(std::uint64_t limit) noexcept {
  const std::uint64_t now = words.head().orphans.load(std::memory_order_acquire);
  if (now == orphans_limited) return;
  orphans_limited = now;
  std::uint64_t warm = cached_everywhere();
  (void)each_orphan([&](std::uint32_t c, std::uint64_t owner, cut_word cut) {
    if (!is_free_orphan(c, cut)) return true;
    const std::uint64_t bytes = std::max(cut.run, 1U) * chunk_bytes;
    if (warm + bytes <= limit) {
      warm += bytes;
      return true;
    }
    if (!take_orphan(c, owner)) return true;
    // Another one may have had it meanwhile, and died.
    cut = cut_word::from(words.chunk(c).cut.load(std::memory_order_acquire));
    if (!is_free_orphan(c, cut)) {
      leave_orphan(c);
      return true;
    }
    try {
      slab* run = adopt_as_run(c, cut.run);
      if (empty_run(*run))
        unclaim(run);
      else
        cache_run(run);
    } catch (const std::bad_alloc&) {
      leave_orphan(c);
      return false;
    }
    return true;
  });
}

/// Makes the private picture of a chunk that another process cut. Its bytes are not known to be zero.
void heap::adopt(std::uint32_t c) {
  chunk_entry& e = words.chunk(c);
  const auto cut = cut_word::from(e.cut.load(std::memory_order_acquire));
  if (cut.run == 1 && cut.size_class < class_count &&
      e.capacity.load(relaxed) >= blocks_per_chunk(cut.size_class)) {
    held.make_ready(e.first.load(relaxed), blocks_per_chunk(cut.size_class));
    slab* s = slab::make(blocks_per_chunk(cut.size_class));
    s->chunk = c;
    s->size_class = cut.size_class;
    s->block_bytes = class_bytes(cut.size_class);
    s->first = e.first.load(relaxed);
    s->data = words.chunk_data(c);
    s->carved = s->count;
    own(s);
    words.slot(slot()).chunks.fetch_add(1, relaxed);
    ++slabs_of_class[s->size_class];
    sweep(*s);
    return;
  }
  slab* run = adopt_as_run(c, cut.run);
  run->first = e.first.load(relaxed);
  sweep(*run);
}

/// Takes over an orphan, and those of `chunks` behind it that are its own, as a run with one block.
slab* heap::adopt_as_run(std::uint32_t c, std::uint32_t chunks) {
  std::uint32_t length = 1;
  const extent& x = words.extent_of_chunk(c);
  while (length < chunks && c + length < x.first_chunk + x.chunks &&
         owner_word::from(words.chunk(c + length).owner.load(relaxed)).state == chunk_state::inner)
    ++length;
  slab* run = new_run(c, length);
  for (std::uint32_t i = 1; i < length; ++i)
    words.chunk(c + i).owner.store(owner_word{chunk_state::inner, 0, i}.bits(), std::memory_order_release);
  words.chunk(c).cut.store(cut_word{no_class, length}.bits(), std::memory_order_release);
  run->carved = 1;
  own(run);
  words.slot(slot()).chunks.fetch_add(length, relaxed);
  return run;
}

}  // namespace sharedmem

/// Data space changes hands here: claiming, cutting into runs, adopting from the dead, giving back.
///
/// A run is a head chunk (OWNED, with its length in `cut`) and INNER chunks behind it. Its true length is
/// the smaller of what `cut` says and the number of INNER chunks that follow; each operation below keeps
/// that true between any two of its stores, so that an owner may die anywhere:
///
/// | operation | stores, in order                                                  | dead in between      |
/// | --------- | ----------------------------------------------------------------- | -------------------- |
/// | claim     | mark raised; UNCLAIMED -> OWNED each; head's cut; -> INNER each   | single chunks, orphans|
/// | split     | tail's cut; tail INNER -> OWNED; head's cut                       | two runs             |
/// | merge     | head's cut; second head OWNED -> INNER                            | two runs, or one     |
/// | give back | (pages punched) INNER -> UNCLAIMED from the end; head's cut; head | a shorter run        |
///
/// Only blocks that are FREE and in no use by the owner are in a chunk that is split, merged or given back.
#include <algorithm>
#include <bit>

#include <sharedmem/error.hpp>

#include "heap/heap.hpp"
#include "shared/raise_mark.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acq_rel = std::memory_order_acq_rel;
constexpr auto sc = std::memory_order_seq_cst;
constexpr std::uint32_t max_chunks = ~std::uint32_t{0};

void lower(word64& hint, std::uint64_t by) noexcept {
  std::uint64_t seen = hint.load(relaxed);
  while (!hint.compare_exchange_weak(seen, seen > by ? seen - by : 0, relaxed)) {
  }
}

/// UNCLAIMED -> OWNED(s) for [c, c + n); the index of the first that could not be had, or n. Nothing is
/// kept then.
std::uint32_t try_claim(tables& words, std::uint32_t c, std::uint32_t n, std::uint32_t s) noexcept {
  raise_mark(words.head().chunk_mark, std::uint64_t{c} + n);  // before: repair looks below the mark only
  const std::uint64_t mine = owner_word{chunk_state::owned, s, 0}.bits();
  for (std::uint32_t i = 0; i < n; ++i) {
    std::uint64_t none = owner_word{}.bits();
    if (words.chunk(c + i).owner.compare_exchange_strong(none, mine, acq_rel, relaxed)) {
      step<point::chunk_claimed>();
      continue;
    }
    for (std::uint32_t k = 0; k < i; ++k)
      words.chunk(c + k).owner.store(owner_word{}.bits(), std::memory_order_release);
    return i;
  }
  return n;
}

}  // namespace

slab* heap::new_run(std::uint32_t chunk, std::uint32_t chunks) {
  slab* run = slab::make(1);
  run->chunk = chunk;
  run->run = chunks;
  run->data = words.chunk_data(chunk);
  run->block_bytes = std::uint64_t{chunks} * chunk_bytes;
  return run;
}

void heap::own(slab* s) noexcept {
  owned[s->chunk] = s;
  owned[s->chunk + s->run - 1] = s;
  s->next_owned = all_owned;
  s->previous_owned = nullptr;
  if (all_owned != nullptr) all_owned->previous_owned = s;
  all_owned = s;
}

void heap::disown(slab* s) noexcept {
  owned[s->chunk] = nullptr;
  owned[s->chunk + s->run - 1] = nullptr;
  (s->previous_owned == nullptr ? all_owned : s->previous_owned->next_owned) = s->next_owned;
  if (s->next_owned != nullptr) s->next_owned->previous_owned = s->previous_owned;
}

slab* heap::claim_fresh(std::uint32_t n, std::uint32_t blocks) {
  header& h = words.head();
  const std::uint32_t s = slot();
  const auto mark = static_cast<std::uint32_t>(h.chunk_mark.load(sc));
  std::uint32_t found = words.chunk_count();
  const auto search = [&](std::uint32_t from, std::uint32_t to) {  // [from, to) lies in one extent
    for (std::uint32_t c = from; c + n <= to;) {
      if (words.chunk(c).owner.load(relaxed) != 0 || !can_describe(c, blocks)) {
        ++c;
        continue;
      }
      std::uint32_t i = 0;
      while (i < n && words.chunk(c + i).owner.load(relaxed) == 0) ++i;
      if (i == n) i = try_claim(words, c, n, s);
      if (i == n) {
        found = c;
        return true;
      }
      c += i + 1;
    }
    return false;
  };
  const auto search_all = [&](std::uint32_t from, std::uint32_t to) {
    for (std::uint32_t k = 0; k < words.extents(); ++k) {
      const extent& e = words.at(k);
      if (!e.lost() && search(std::max(from, e.first_chunk), std::min(to, e.first_chunk + e.chunks)))
        return true;
    }
    return false;
  };
  // `unclaimed` is only a hint: it does not count runs that reach across the mark, nor chunks of a claim that
  // failed half-way. The last search looks at all chunks for those.
  const bool any = (h.unclaimed.load(relaxed) >= n && search_all(0, mark)) || search_all(mark, max_chunks) ||
                   search_all(0, max_chunks);
  if (!any) return nullptr;
  if (found >= mark)
    h.unclaimed.fetch_add(found - mark, relaxed);
  else
    lower(h.unclaimed, std::min(n, mark - found));
  slab* run = nullptr;
  try {
    run = new_run(found, n);
  } catch (...) {
    for (std::uint32_t i = 0; i < n; ++i)
      words.chunk(found + i).owner.store(owner_word{}.bits(), std::memory_order_release);
    h.unclaimed.fetch_add(n, relaxed);
    throw;
  }
  run->zeroed = true;  // UNCLAIMED means punched
  words.chunk(found).cut.store(cut_word{no_class, n}.bits(), relaxed);
  words.chunk(found).emptied.store(0, relaxed);
  step<point::chunk_run_named>();
  for (std::uint32_t i = 1; i < n; ++i)
    words.chunk(found + i).owner.store(owner_word{chunk_state::inner, 0, i}.bits(),
                                       std::memory_order_release);
  words.slot(s).chunks.fetch_add(n, relaxed);
  own(run);
  return run;
}

bool heap::can_describe(std::uint32_t c, std::uint32_t count) const noexcept {
  if (words.chunk(c).capacity.load(relaxed) >= count) return true;
  const extent& x = words.extent_of_chunk(c);
  const word64& used = words.head().descriptors_used[&x - &words.at(0)];
  return used.load(relaxed) + std::bit_ceil(count) <= x.blocks;
}

/// Descriptors for `count` blocks in a chunk: the run it has if that is long enough, else a new one. Runs
/// have power-of-two lengths and an outgrown one is abandoned, so a chunk takes at most twice its largest.
/// A run never moves to another chunk: generations go on, and a stale bit in it is never somebody's claim.
void heap::ensure_descriptors(std::uint32_t c, std::uint32_t count) {
  chunk_entry& e = words.chunk(c);
  if (e.capacity.load(relaxed) >= count) return;
  const std::uint32_t length = std::bit_ceil(count);
  const extent& x = words.extent_of_chunk(c);
  const auto index = static_cast<std::uint32_t>(&x - &words.at(0));
  word64& used = words.head().descriptors_used[index];
  std::uint64_t at = used.load(relaxed);
  do {
    if (at + length > x.blocks)
      throw no_memory(
          "no block descriptors are left in this arena (" + std::to_string(x.blocks) +
          " in this segment, one per 256 bytes): its memory is cut into too many small arrays; a larger "
          "SHAREDMEM_ARENA_SIZE raises the limit");
  } while (!used.compare_exchange_weak(at, at + length, relaxed));
  e.published.store(0, sc);
  e.first.store(x.first_block + static_cast<std::uint32_t>(at), relaxed);
  e.capacity.store(length, std::memory_order_release);
}

slab* heap::split(slab* run, std::uint32_t keep) {
  const std::uint32_t tail_chunk = run->chunk + keep;
  const std::uint32_t tail_chunks = run->run - keep;
  slab* tail = new_run(tail_chunk, tail_chunks);
  tail->zeroed = run->zeroed;
  tail->populated = run->populated;
  disown(run);
  words.chunk(tail_chunk).cut.store(cut_word{no_class, tail_chunks}.bits(), relaxed);
  words.chunk(tail_chunk).emptied.store(0, relaxed);
  words.chunk(tail_chunk)
      .owner.store(owner_word{chunk_state::owned, slot(), 0}.bits(), std::memory_order_release);
  step<point::chunk_split>();
  words.chunk(run->chunk).cut.store(cut_word{no_class, keep}.bits(), std::memory_order_release);
  for (std::uint32_t i = 1; i < tail_chunks; ++i)
    words.chunk(tail_chunk + i)
        .owner.store(owner_word{chunk_state::inner, 0, i}.bits(), std::memory_order_release);
  run->run = keep;
  run->block_bytes = std::uint64_t{keep} * chunk_bytes;
  own(run);
  own(tail);
  return tail;
}

slab* heap::merge(slab* left, slab* right) noexcept {
  disown(left);
  disown(right);
  const std::uint32_t total = left->run + right->run;
  words.chunk(left->chunk).cut.store(cut_word{no_class, total}.bits(), std::memory_order_release);
  step<point::chunk_merged>();
  for (std::uint32_t i = left->run; i < total; ++i)
    words.chunk(left->chunk + i)
        .owner.store(owner_word{chunk_state::inner, 0, i}.bits(), std::memory_order_release);
  left->run = total;
  left->block_bytes = std::uint64_t{total} * chunk_bytes;
  left->zeroed = left->zeroed && right->zeroed;
  left->populated = left->populated && right->populated;
  slab::destroy(right);
  own(left);
  return left;
}

/// OWNED -> UNCLAIMED; the pages have been given back. Destroys `run`.
void heap::unclaim(slab* run) noexcept {
  disown(run);
  for (std::uint32_t i = run->run; i-- > 1;) {
    words.chunk(run->chunk + i).owner.store(owner_word{}.bits(), std::memory_order_release);
    step<point::chunk_shrunk>();
  }
  chunk_entry& head = words.chunk(run->chunk);
  head.cut.store(0, relaxed);
  head.emptied.store(0, relaxed);
  head.owner.store(owner_word{}.bits(), std::memory_order_release);
  step<point::chunk_given_back>();
  words.head().unclaimed.fetch_add(run->run, relaxed);
  lower(words.slot(slot()).chunks, run->run);
  slab::destroy(run);
}

/// Whether a chunk became an orphan since the last look at all of them that left none.
bool heap::orphans_to_see() const noexcept {
  return words.head().orphans.load(std::memory_order_acquire) != orphans_seen;
}

/// Calls `use(chunk, owner, cut)` for each orphan in the attached segments, until it returns false; `owner` is the
/// word that says so. Returns whether there can be no further orphan.
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
    const owner_word mine{chunk_state::owned, slot(), 0};
    if (!words.chunk(c).owner.compare_exchange_strong(owner, mine.bits(), acq_rel, relaxed)) return true;
    step<point::chunk_adopted>();
    try {
      adopt(c);
    } catch (const std::bad_alloc&) {  // no private memory for its table: another process may adopt it
      words.chunk(c).owner.store(owner_word{chunk_state::orphan, 0, 0}.bits(), std::memory_order_release);
      words.head().orphans.fetch_add(1, std::memory_order_release);
      none_left = false;
    }
    return true;
  });
  return all_seen && none_left;
}

bool heap::adopt_orphans(std::uint32_t chunks, std::uint32_t size_class) {
  if (!orphans_to_see()) return false;
  const auto there = [&] {
    return size_class != no_class ? has_room(size_class)
                                  : !cached_runs.empty() && cached_runs.rbegin()->first >= chunks;
  };
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

std::uint64_t heap::orphaned_bytes() const noexcept {
  if (!orphans_to_see()) return 0;
  std::uint64_t sum = 0;
  (void)each_orphan([&](std::uint32_t c, std::uint64_t, cut_word cut) {
    const chunk_entry& e = words.chunk(c);
    const bool small = cut.run == 1 && cut.size_class < class_count;
    const std::uint32_t count = small ? blocks_per_chunk(cut.size_class) : 1;
    if (e.capacity.load(relaxed) < count) return true;
    const std::uint32_t first = e.first.load(relaxed), published = e.published.load(relaxed);
    bool free = true;
    for (std::uint32_t i = 0; free && i < std::min(count, published); ++i)
      free = life_word::from(words.block(first + i)[at_life].load(relaxed)).state == life_state::free;
    if (free) sum += std::uint64_t{cut.run} * chunk_bytes;
    return true;
  });
  return sum;
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
  std::uint32_t length = 1;
  const extent& x = words.extent_of_chunk(c);
  while (length < cut.run && c + length < x.first_chunk + x.chunks &&
         owner_word::from(words.chunk(c + length).owner.load(relaxed)).state == chunk_state::inner)
    ++length;
  slab* run = new_run(c, length);
  for (std::uint32_t i = 1; i < length; ++i)
    words.chunk(c + i).owner.store(owner_word{chunk_state::inner, 0, i}.bits(), std::memory_order_release);
  e.cut.store(cut_word{no_class, length}.bits(), std::memory_order_release);
  run->first = e.first.load(relaxed);
  run->carved = 1;
  own(run);
  words.slot(slot()).chunks.fetch_add(length, relaxed);
  sweep(*run);
}

}  // namespace sharedmem

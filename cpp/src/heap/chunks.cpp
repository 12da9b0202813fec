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

/// Where memory must be committed, a chunk has its memory before it has an owner, so that adopting one of a dead owner
/// cannot fail. If another process then claims the chunk, the committed memory belongs to that one.
void commit_chunks(tables& words, std::uint32_t c, std::uint32_t n) {
  if constexpr (os::memory_is_promised) {
    mapping& memory = words.extent_of_chunk(c).memory;
    const std::size_t bytes = std::size_t{n} * chunk_bytes;
    if (!memory.commit(static_cast<std::size_t>(words.chunk_data(c) - memory.data()), bytes))
      throw no_memory("cannot allocate " + std::to_string(bytes) +
                      " bytes of shared memory: the system's commit limit has been reached; free "
                      "arrays, end other programs, or make the paging file larger");
  }
}

/// Whether chunks that were UNCLAIMED read as 0. \pre  they are claimed by now.
bool are_zero(tables& words, std::uint32_t c, std::uint32_t n) noexcept {
  if constexpr (!os::discarded_is_zero)
    for (std::uint32_t i = 0; i < n; ++i)
      if (words.chunk(c + i).not_zero.load(relaxed) != 0) return false;
  return true;
}

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
      if (i == n) {
        commit_chunks(words, c, n);
        i = try_claim(words, c, n, s);
      }
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
  run->zeroed = are_zero(words, found, n);  // UNCLAIMED means punched
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
/// A run never moves to another chunk: generations continue, and a stale bit in it is never taken for a claim.
void heap::ensure_descriptors(std::uint32_t c, std::uint32_t count) {
  chunk_entry& e = words.chunk(c);
  if (e.capacity.load(relaxed) >= count) return;
  const std::uint32_t length = std::bit_ceil(count);
  extent& x = words.extent_of_chunk(c);
  const auto index = static_cast<std::uint32_t>(&x - &words.at(0));
  word64& used = words.head().descriptors_used[index];
  std::uint64_t at = used.load(relaxed);
  do {
    if (at + length > x.blocks)
      throw no_memory(
          "no block descriptors are left in this arena (" + std::to_string(x.blocks) +
          " in this segment, one per 256 bytes): its memory is cut into too many small arrays; a larger "
          "SHAREDMEM_ARENA_SIZE raises the limit");
    // Before the count says that they are there: `has_block` goes by it.
    if (!tables::commit_descriptors(x, at, length, words.head().descriptor_bytes))
      throw no_memory("the system's commit limit has been reached by " + std::to_string(length) +
                      " block descriptors (its commit limit)");
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
  if constexpr (!os::discarded_is_zero)
    for (std::uint32_t i = 0; i < run->run; ++i) words.chunk(run->chunk + i).not_zero.store(1, relaxed);
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

}  // namespace sharedmem

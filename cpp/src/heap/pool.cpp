/// Blocks: cut from chunks, listed, taken, swept. Of shared memory only `life` of published blocks is read, to
/// see what came back.
#include <algorithm>

#include "heap/heap.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

constexpr std::uint64_t all_chunks = ~std::uint64_t{0};  // of participant_entry::returns
constexpr std::uint32_t all_of_them =
    ~std::uint32_t{0};  // no run is as long: `dissolve_spares` goes to the end

}  // namespace

// ---- free lists ---------------------------------------------------------------------------------

void heap::link(slab& s) noexcept {
  if (s.in_class_list) return;
  s.in_class_list = true;
  s.previous = nullptr;
  s.next = with_room[s.size_class];
  if (s.next != nullptr) s.next->previous = &s;
  with_room[s.size_class] = &s;
}

void heap::unlink(slab& s) noexcept {
  if (!s.in_class_list) return;
  s.in_class_list = false;
  (s.previous == nullptr ? with_room[s.size_class] : s.previous->next) = s.next;
  if (s.next != nullptr) s.next->previous = s.previous;
}

heap::taken heap::pop(slab& s) noexcept {
  taken t{&s, 0, false};
  if (s.free_count > 0) {
    t.index = s.stack[--s.free_count];
  } else {
    t.index = s.carved++;
    t.zeroed = s.zeroed;
  }
  s.states[t.index].store(use::in_use, relaxed);
  if (s.available() == 0) unlink(s);
  return t;
}

void heap::put(slab& s, std::uint32_t index) noexcept {
  s.states[index].store(use::listed, relaxed);
  s.stack[s.free_count++] = static_cast<std::uint16_t>(index);
  link(s);
}

void heap::drop_unshared(slab& s, std::uint32_t index) noexcept {
  if (s.size_class == no_class) {
    cache_run(&s);
    return;
  }
  put(s, index);
  dissolve_if_free(s);
}

/// A slab without a block in use becomes a free run again, unless it is the last of its class with room.
void heap::dissolve_if_free(slab& s) noexcept {
  if (!s.is_free() || (with_room[s.size_class] == &s && s.next == nullptr)) return;
  if (slab* run = dissolve(s)) cache_run(run);
}

/// Makes a run, which is not cached yet, of a slab without a block in use. nullptr: there is no private memory for it.
slab* heap::dissolve(slab& s) noexcept {
  slab* run = nullptr;
  try {
    run = new_run(s.chunk, 1);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  unlink(s);
  --slabs_of_class[s.size_class];
  run->populated = s.populated;
  words.chunk(s.chunk).cut.store(cut_word{no_class, 1}.bits(), std::memory_order_release);
  disown(&s);
  slab::destroy(&s);
  own(run);
  return run;
}

bool heap::dissolve_spares(std::uint32_t chunks) noexcept {
  for (std::uint32_t c = class_count; c-- > 0;)  // first those that are soon cut again
    for (slab* s = with_room[c]; s != nullptr && !has_cached(chunks);) {
      slab* next = s->next;
      if (s->is_free())
        if (slab* run = dissolve(*s)) keep_run(run, {});
      s = next;
    }
  return has_cached(chunks);
}

bool heap::reuse_spares(std::uint32_t chunks, std::uint64_t limit) noexcept {
  std::uint64_t warm = cached_everywhere();
  for (const slab* s : with_room)
    for (; s != nullptr; s = s->next)
      if (s->is_free()) warm += chunk_bytes;
  if (warm <= limit) return false;
  if (dissolve_spares(chunks)) return true;
  limit_cache(limit);
  return false;
}

void heap::cut(slab* run, std::uint32_t c) {
  const std::uint32_t count = blocks_per_chunk(c);
  slab* s = nullptr;
  try {
    ensure_descriptors(run->chunk, count);
    held.make_ready(words.chunk(run->chunk).first.load(relaxed),
                    count);  // so that a fork needs no memory for it
    s = slab::make(count);
  } catch (...) {
    cache_run(run);
    throw;
  }
  s->chunk = run->chunk;
  s->size_class = c;
  s->block_bytes = class_bytes(c);
  s->first = words.chunk(run->chunk).first.load(relaxed);
  s->data = run->data;
  s->zeroed = run->zeroed;
  s->populated = run->populated;
  disown(run);
  slab::destroy(run);
  words.chunk(s->chunk).cut.store(cut_word{c, 1}.bits(), std::memory_order_release);
  step<point::chunk_cut>();
  // One huge page fault costs less than a third of 512 small ones; the first slab of a class may stay
  // nearly empty, though.
  if (slabs_of_class[c] > 0 && s->zeroed && !s->populated) {
    extent& e = words.extent_of_chunk(s->chunk);
    e.memory.populate(static_cast<std::size_t>(s->data - e.memory.data()), chunk_bytes);
    s->populated = true;
  }
  own(s);
  ++slabs_of_class[c];
  link(*s);
}

// ---- what came back -----------------------------------------------------------------------------

void heap::list_if_free(std::uint32_t b, std::uint32_t c) noexcept {
  slab* s = c < owned.size() ? owned[c] : nullptr;
  if (s == nullptr || s->chunk != c || b - s->first >= s->count) return;
  const std::uint32_t i = b - s->first;
  const use state = s->states[i].load(std::memory_order_acquire);  // as in `sweep`
  if (i >= s->carved || state == use::listed || state == use::in_use) return;
  // Acquire: pairs with the freer's store of FREE; a new life sees no late write to the bytes.
  if (life_word::from(words.block(b)[at_life].load(std::memory_order_acquire)).state != life_state::free)
    return;
  if (s->size_class != no_class) {
    put(*s, i);
    dissolve_if_free(*s);
    return;
  }
  if (words.chunk(c).emptied.exchange(0, relaxed) != 0)
    unclaim(s);
  else
    cache_run(s);
}

void heap::sweep(slab& s) noexcept {
  const std::uint32_t published = words.chunk(s.chunk).published.load(std::memory_order_seq_cst);
  if (s.size_class == no_class) {
    if (published > 0) return list_if_free(s.first, s.chunk);
    if (s.states[0].load(relaxed) == use::unlisted) cache_run(&s);
    return;
  }
  for (std::uint32_t i = 0; i < s.carved; ++i) {
    // Acquire: pairs with `share`, which is not under `pool`; a thread that reads `published` sees LIVE or a later state.
    const use state = s.states[i].load(std::memory_order_acquire);
    if (state == use::listed || state == use::in_use) continue;
    if (i >= published ||
        life_word::from(words.block(s.first + i)[at_life].load(std::memory_order_acquire)).state ==
            life_state::free)
      put(s, i);
  }
  dissolve_if_free(s);
}

bool heap::sweep_returns() noexcept {
  participant_entry& mine = words.slot(slot());
  if (mine.returns.load(relaxed) == 0) return false;
  const std::uint64_t what = mine.returns.exchange(0, std::memory_order_acquire);
  const auto sweep_chunk = [&](std::uint32_t c) {
    if (words.chunk(c).has_returns.exchange(0, std::memory_order_acquire) != 0) sweep(*owned[c]);
  };
  if (what != all_chunks) {
    const auto c = static_cast<std::uint32_t>(what - 1);
    if (c < owned.size() && owned[c] != nullptr && owned[c]->chunk == c) sweep_chunk(c);
    return true;
  }
  for (slab* s = all_owned; s != nullptr;) {
    slab* following = s->next_owned;  // sweeping may merge s away, and with it a neighbour
    const std::uint32_t next_chunk = following == nullptr ? 0 : following->chunk;
    sweep_chunk(s->chunk);
    s = following == nullptr ? nullptr : owned[next_chunk];
    if (following != nullptr &&
        (s == nullptr || s->chunk != next_chunk)) {  // merged: start over, hints are cleared
      s = all_owned;
    }
  }
  return true;
}

bool heap::sweep_after_repairs() noexcept {
  const std::uint64_t repairs = words.head().repairs.load(std::memory_order_acquire);
  if (repairs == repairs_seen) return false;
  repairs_seen = repairs;
  sweep_all();
  return true;
}

void heap::sweep_all() noexcept {
  std::vector<std::uint32_t> heads;
  try {
    for (slab* s = all_owned; s != nullptr; s = s->next_owned) heads.push_back(s->chunk);
  } catch (const std::bad_alloc&) {
    return;  // the next sweep may find memory for the list
  }
  for (const std::uint32_t c : heads)
    if (owned[c] != nullptr && owned[c]->chunk == c) sweep(*owned[c]);
}

// ---- whole runs as blocks -----------------------------------------------------------------------

heap::taken heap::take_run(slab* run) {
  try {
    ensure_descriptors(run->chunk, 1);
    held.make_ready(words.chunk(run->chunk).first.load(relaxed), 1);
  } catch (...) {
    cache_run(run);
    throw;
  }
  run->first = words.chunk(run->chunk).first.load(relaxed);
  run->states[0].store(use::in_use, relaxed);
  run->carved = 1;
  const taken t{run, 0, run->zeroed};
  run->zeroed = false;
  return t;
}

void heap::trim() noexcept {
  flush_idle_caches();
  sweep_all();
  dissolve_spares(all_of_them);
  limit_cache(cached_everywhere() - cached_bytes);
}

// ---- thread caches ------------------------------------------------------------------------------

void heap::fill_cache(std::uint32_t c) noexcept {
  if (c >= cached_classes || threads_stopped()) return;
  thread_cache* cache = ready_cache();
  if (cache == nullptr) return;
  magazine& m = cache->of_class[c];
  while (m.count < m.capacity / 2 && with_room[c] != nullptr) {
    const taken t = pop(*with_room[c]);
    t.owner->states[t.index].store(use::listed, relaxed);
    m.blocks[m.count++] = cached_block(t.owner, t.index);
  }
}

void heap::make_cache_space(std::uint32_t c) noexcept {
  if (c >= cached_classes || threads_stopped()) return;
  thread_cache* cache = ready_cache();
  if (cache == nullptr) return;
  magazine& m = cache->of_class[c];
  flush(m, m.capacity / 2);
}

void heap::flush(magazine& m, std::uint32_t keep) noexcept {
  while (m.count > keep) {
    const cached_block b = m.blocks[--m.count];
    put(*b.owner(), b.index());
    dissolve_if_free(*b.owner());
  }
}

}  // namespace sharedmem

/// The owner's allocator: blocks out of chunks that this process owns. Everything here is private memory
/// under one lock of this process; only `life` of published blocks is read, to see what came back.
#include <algorithm>

#include "machine.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

constexpr std::uint64_t all_chunks = ~std::uint64_t{0};  // of participant_entry::returns

}  // namespace

// ---- free lists ---------------------------------------------------------------------------------

void arena::state::link(slab& s) noexcept {
  if (s.in_class_list) return;
  s.in_class_list = true;
  s.previous = nullptr;
  s.next = with_room[s.size_class];
  if (s.next != nullptr) s.next->previous = &s;
  with_room[s.size_class] = &s;
}

void arena::state::unlink(slab& s) noexcept {
  if (!s.in_class_list) return;
  s.in_class_list = false;
  (s.previous == nullptr ? with_room[s.size_class] : s.previous->next) = s.next;
  if (s.next != nullptr) s.next->previous = s.previous;
}

arena::state::taken arena::state::pop(slab& s) noexcept {
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

void arena::state::put(slab& s, std::uint32_t index) noexcept {
  s.states[index].store(use::listed, relaxed);
  s.stack[s.free_count++] = static_cast<std::uint16_t>(index);
  link(s);
}

void arena::state::drop_unshared(slab& s, std::uint32_t index) noexcept {
  if (s.size_class == no_class) {
    cache_run(&s);
    return;
  }
  put(s, index);
  dissolve_if_free(s, false);
}

/// A slab without a block in use becomes a free run again, unless it is the last of its class with room.
void arena::state::dissolve_if_free(slab& s, bool even_the_last) noexcept {
  if (s.available() != s.count) return;
  if (!even_the_last && with_room[s.size_class] == &s && s.next == nullptr) return;
  slab* run = nullptr;
  try {
    run = new_run(s.chunk, 1);
  } catch (const std::bad_alloc&) {
    return;
  }
  unlink(s);
  --slabs_of_class[s.size_class];
  run->populated = s.populated;
  words.chunk(s.chunk).cut.store(cut_word{no_class, 1}.bits(), std::memory_order_release);
  disown(&s);
  slab::destroy(&s);
  own(run);
  cache_run(run);
}

void arena::state::cut(slab* run, std::uint32_t c) {
  const std::uint32_t count = blocks_per_chunk(c);
  slab* s = nullptr;
  try {
    ensure_descriptors(run->chunk, count);
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

void arena::state::list_if_free(std::uint32_t b, std::uint32_t c) noexcept {
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
    dissolve_if_free(*s, false);
    return;
  }
  if (words.chunk(c).emptied.exchange(0, relaxed) != 0)
    unclaim(s);
  else
    cache_run(s);
}

void arena::state::sweep(slab& s) noexcept {
  const std::uint32_t published = words.chunk(s.chunk).published.load(std::memory_order_seq_cst);
  if (s.size_class == no_class) {
    if (published > 0) return list_if_free(s.first, s.chunk);
    if (s.states[0].load(relaxed) == use::unlisted) cache_run(&s);
    return;
  }
  for (std::uint32_t i = 0; i < s.carved; ++i) {
    // Acquire: pairs with `share`, which is not under `pool`; who reads `published` sees LIVE or what follows.
    const use state = s.states[i].load(std::memory_order_acquire);
    if (state == use::listed || state == use::in_use) continue;
    if (i >= published ||
        life_word::from(words.block(s.first + i)[at_life].load(std::memory_order_acquire)).state ==
            life_state::free)
      put(s, i);
  }
  dissolve_if_free(s, false);
}

bool arena::state::sweep_returns() noexcept {
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

void arena::state::sweep_all() noexcept {
  std::vector<std::uint32_t> heads;
  try {
    for (slab* s = all_owned; s != nullptr; s = s->next_owned) heads.push_back(s->chunk);
  } catch (const std::bad_alloc&) {
    return;  // later, then
  }
  for (const std::uint32_t c : heads)
    if (owned[c] != nullptr && owned[c]->chunk == c) sweep(*owned[c]);
}

// ---- getting room -------------------------------------------------------------------------------

/// All that can be had without asking the system for more, however long it takes. Lets go of `lock` meanwhile.
void arena::state::scrape_together(held_lock& lock) {
  lock.unlock();
  look_for_dead(true);
  expire(false);
  lock.lock();
  adopt_orphans();
  repairs_seen = words.head().repairs.load(std::memory_order_acquire);
  sweep_all();
}

/// A run of exactly `chunks`, or nullptr if meanwhile a slab of `size_class` has room.
slab* arena::state::obtain(std::uint32_t chunks, std::uint32_t size_class, std::uint64_t asked,
                           held_lock& lock) {
  const auto room = [&] { return size_class != no_class && with_room[size_class] != nullptr; };
  if (slab* run = uncache(chunks)) return run;
  if (sweep_returns()) {
    if (room()) return nullptr;
    if (slab* run = uncache(chunks)) return run;
  }
  lock.unlock();
  look_for_dead(false);
  if (const std::uint64_t now = monotonic_ns(); now - last_expiry.load(relaxed) > second_ns) {
    last_expiry.store(now, relaxed);
    expire(false);
  }
  lock.lock();
  bool news = adopt_orphans();
  if (const std::uint64_t repairs = words.head().repairs.load(std::memory_order_acquire);
      repairs != repairs_seen) {
    repairs_seen = repairs;  // a hint may have died with its giver
    sweep_all();
    news = true;
  }
  if (news || room()) {
    if (room()) return nullptr;
    if (slab* run = uncache(chunks)) return run;
  }
  const std::uint64_t bytes = std::uint64_t{chunks} * chunk_bytes;
  try {
    reserve_memory(bytes, asked);
  } catch (const no_memory&) {
    scrape_together(lock);
    if (room()) return nullptr;
    if (slab* run = uncache(chunks)) return run;
    limit_cache(0);
    reserve_memory(bytes, asked);
  }
  give_back_fragments(bytes);
  if (slab* run = claim_fresh(chunks)) return run;
  try {
    words.sync();
  } catch (const error&) {  // what cannot be attached here is no room; `extend` below tells why
  }
  if (slab* run = claim_fresh(chunks)) return run;
  scrape_together(lock);
  if (room()) return nullptr;
  if (slab* run = uncache(chunks)) return run;
  limit_cache(0);
  if (slab* run = claim_fresh(chunks)) return run;
  std::string why;
  try {
    for (int tries = 0; tries < 3; ++tries) {
      if (!words.extend(chunks)) {
        why = "no further segment can join the arena";
        break;
      }
      words.sync();
      if (slab* run = claim_fresh(chunks)) return run;
    }
  } catch (const error& refused) {
    why = std::string("a further segment was refused: ") + refused.what();
  }
  no_room(asked, why);
}

arena::state::taken arena::state::take_small(std::uint32_t c, std::uint64_t asked, held_lock& lock) {
  while (with_room[c] == nullptr) {
    if (sweep_returns() && with_room[c] != nullptr) break;
    if (slab* run = obtain(1, c, asked, lock)) cut(run, c);
  }
  return pop(*with_room[c]);
}

arena::state::taken arena::state::take_run(std::uint32_t chunks, std::uint64_t asked, held_lock& lock) {
  slab* run = obtain(chunks, no_class, asked, lock);
  try {
    ensure_descriptors(run->chunk, 1);
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

// ---- thread caches ------------------------------------------------------------------------------

void arena::state::fill(magazine& m, std::uint32_t c) noexcept {
  while (m.count < m.capacity / 2 && with_room[c] != nullptr) {
    const taken t = pop(*with_room[c]);
    t.owner->states[t.index].store(use::listed, relaxed);
    m.blocks[m.count++] = cached_block(t.owner, t.index);
  }
}

void arena::state::flush(magazine& m, std::uint32_t keep) noexcept {
  while (m.count > keep) {
    const cached_block b = m.blocks[--m.count];
    put(*b.owner(), b.index());
    dissolve_if_free(*b.owner(), false);
  }
}

}  // namespace sharedmem

/// Finding memory for a new block: what is tried, in order, when the heap has no free block.
#include "os/machine.hpp"
#include "state.hpp"

namespace sharedmem {

/// Everything that can be reclaimed without more memory from the system, however long it takes. Releases `lock`
/// meanwhile. `messages`: also those of dead senders whose grace is over. Such a message may still be loaded, so this
/// is done only if the allocation would be refused otherwise.
void arena::state::scrape_together(held_lock& lock, std::uint32_t chunks, bool messages) {
  lock.unlock();
  repairs.look_for_dead(true);
  if (messages) repairs.expire(false);
  lock.lock();
  pool.adopt_all_orphans();
  if (!pool.sweep_after_repairs()) pool.sweep_all();
  (void)pool.dissolve_spares(chunks);
}

/// A run of exactly `chunks`, or nullptr if meanwhile a slab of `size_class` has room. A run whose segment has no
/// block descriptors left is returned only if the arena cannot grow: using it then reports the error.
slab* arena::state::obtain(std::uint32_t chunks, std::uint32_t size_class, std::uint64_t asked,
                           held_lock& lock) {
  const std::uint32_t blocks = size_class == no_class ? 1 : blocks_per_chunk(size_class);
  const auto uncache = [&]() -> slab* {
    slab* run = pool.uncache(chunks);
    if (run == nullptr || pool.can_describe(run->chunk, blocks)) return run;
    pool.cache_run(run);
    return nullptr;
  };
  const auto room = [&] { return size_class != no_class && pool.has_room(size_class); };
  if (slab* run = uncache()) return run;
  if (pool.sweep_returns()) {
    if (room()) return nullptr;
    if (slab* run = uncache()) return run;
  }
  lock.unlock();
  repairs.look_for_dead(false);
  lock.lock();
  bool news = pool.adopt_orphans(chunks, size_class);
  pool.limit_orphans(words.head().cache_limit.load(std::memory_order_relaxed));
  if (pool.sweep_after_repairs()) news = true;
  if (news || room()) {
    if (room()) return nullptr;
    if (slab* run = uncache()) return run;
  }
  if (pool.reuse_spares(chunks, words.head().cache_limit.load(std::memory_order_relaxed)))
    if (slab* run = uncache()) return run;
  const std::uint64_t bytes = std::uint64_t{chunks} * chunk_bytes;
  try {
    reserve_memory(bytes, asked);
  } catch (const no_memory&) {
    scrape_together(lock, chunks, true);
    if (room()) return nullptr;
    if (slab* run = uncache()) return run;
    pool.limit_cache(0);
    reserve_memory(bytes, asked);
  }
  pool.give_back_fragments(bytes);
  if (slab* run = pool.claim_fresh(chunks, blocks)) return run;
  try {
    words.sync();
  } catch (const error&) {  // memory that cannot be attached here is not available; `extend` below says why
  }
  if (slab* run = pool.claim_fresh(chunks, blocks)) return run;
  scrape_together(lock, chunks, false);
  if (room()) return nullptr;
  if (slab* run = uncache()) return run;
  pool.limit_cache(0);
  if (slab* run = pool.claim_fresh(chunks, blocks)) return run;
  std::string why;
  try {
    for (int tries = 0; tries < 3; ++tries) {
      if (!words.extend(chunks)) {
        why = "no further segment can be added to the arena";
        break;
      }
      words.sync();
      if (slab* run = pool.claim_fresh(chunks, blocks)) return run;
    }
  } catch (const error& refused) {
    why = std::string("a further segment was refused: ") + refused.what();
  }
  scrape_together(lock, chunks, true);
  if (room()) return nullptr;
  if (slab* run = uncache()) return run;
  pool.limit_cache(0);
  if (slab* run = pool.claim_fresh(chunks, blocks)) return run;
  if (slab* run = pool.claim_fresh(chunks, 0)) return run;
  no_room(asked, why);
}

heap::taken arena::state::take_small(std::uint32_t size_class, std::uint64_t asked, held_lock& lock) {
  while (!pool.has_room(size_class)) {
    if (pool.sweep_returns() && pool.has_room(size_class)) break;
    if (slab* run = obtain(1, size_class, asked, lock)) pool.cut(run, size_class);
  }
  return pool.take_small(size_class);
}

heap::taken arena::state::take_run(std::uint32_t chunks, std::uint64_t asked, held_lock& lock) {
  return pool.take_run(obtain(chunks, no_class, asked, lock));
}

}  // namespace sharedmem

#include <doctest.h>

#include <cstdint>
#include <mutex>

#include "heap/heap.hpp"
#include "heap_tools.hpp"

using namespace sharedmem;
using namespace heap_tools;

TEST_CASE("chunks of a dead owner can be adopted, with their free memory") {
  bare_tables t;
  const std::uint32_t c = class_of(100'000);
  std::uint32_t chunk = 0, run = 0, held_block = 0;
  {
    owner dead(t, 1);
    const heap::taken kept = dead.take(c), dropped = dead.take(c);
    publish(t, dead, kept);
    held_block = kept.owner->first + kept.index;
    chunk = kept.owner->chunk;
    dead.drop(dropped);
    run = dead.take_run(3).owner->chunk;
  }
  for (const std::uint32_t k : {chunk, run})
    t.words.chunk(k).owner.store(owner_word{chunk_state::orphan, 0, 0}.bits());
  t.words.head().orphans.store(2);

  owner heir(t, 0);
  const std::lock_guard lock(heir.heap);
  CHECK(heir.heap.orphaned_bytes() == 3 * chunk_bytes);
  CHECK(heir.heap.adopt_all_orphans());
  CHECK(heir.heap.orphaned_bytes() == 0);
  CHECK(owner_word::from(t.words.chunk(chunk).owner.load()).slot == 0);
  slab* s = heir.heap.owned_at(chunk);
  REQUIRE(s != nullptr);
  CHECK(s->free_count == s->count - 1);
  CHECK(s->states[held_block - s->first].load() == use::unlisted);
  slab* free_run = heir.heap.uncache(3);  // never shared, so no process has it now
  REQUIRE(free_run != nullptr);
  CHECK(free_run->chunk == run);
  CHECK_FALSE(heir.heap.adopt_all_orphans());
}

TEST_CASE("free chunks of the dead beyond the limit are given back, and those with a block in use are not") {
  bare_tables t;
  const std::uint32_t c = class_of(100'000);
  std::uint32_t with_block = 0, runs[4] = {}, cut_and_free = 0;
  {
    owner dead(t, 1);
    const heap::taken kept = dead.take(c);
    publish(t, dead, kept);
    *kept.owner->block(kept.index) = std::byte{7};
    with_block = kept.owner->chunk;
    for (std::uint32_t i = 1; i < blocks_per_chunk(c); ++i) (void)dead.take(c);
    const heap::taken freed = dead.take(c);
    free_elsewhere(t, freed.owner->first + freed.index, publish(t, dead, freed));
    cut_and_free = freed.owner->chunk;
    for (std::uint32_t& run : runs) run = dead.take_run(2).owner->chunk;
  }
  REQUIRE(cut_and_free != with_block);
  const auto orphan = [&](std::uint32_t chunk) {
    *t.words.chunk_data(chunk) = std::byte{7};
    t.words.chunk(chunk).owner.store(owner_word{chunk_state::orphan, 0, 0}.bits());
    t.words.head().orphans.fetch_add(1);
  };
  for (const std::uint32_t chunk : {with_block, cut_and_free, runs[0], runs[1], runs[2]}) orphan(chunk);
  const auto given_back = [&](std::uint32_t chunk) {
    return state_of(t, chunk) == chunk_state::unclaimed &&
           (os::discarded_is_zero ? *t.words.chunk_data(chunk) == std::byte{0}
                                  : t.words.chunk(chunk).not_zero.load() != 0);
  };

  owner heir(t, 0);
  heir.drop(heir.take_run(1));
  const std::lock_guard lock(heir.heap);
  REQUIRE(heir.heap.orphaned_bytes() == 7 * chunk_bytes);
  heir.heap.limit_orphans(8 * chunk_bytes);
  CHECK(heir.heap.orphaned_bytes() == 7 * chunk_bytes);
  heir.heap.limit_orphans(0);
  CHECK(heir.heap.orphaned_bytes() == 7 * chunk_bytes);  // no orphan came since
  orphan(runs[3]);
  heir.heap.limit_orphans(5 * chunk_bytes);
  CHECK(heir.heap.orphaned_bytes() == 3 * chunk_bytes);  // and one is cached
  CHECK(state_of(t, cut_and_free) == chunk_state::orphan);
  CHECK(state_of(t, runs[0]) == chunk_state::orphan);
  for (const std::uint32_t run : {runs[1], runs[2], runs[3]}) {
    CHECK(given_back(run));
    CHECK(state_of(t, run + 1) == chunk_state::unclaimed);
  }
  t.words.head().orphans.fetch_add(1);
  heir.heap.limit_orphans(0);
  CHECK(heir.heap.orphaned_bytes() == 0);
  CHECK(given_back(cut_and_free));
  CHECK(given_back(runs[0]));
  CHECK(state_of(t, with_block) == chunk_state::orphan);
  CHECK(*t.words.chunk_data(with_block) == std::byte{7});
  CHECK(heir.heap.cached() == chunk_bytes);
  CHECK(t.words.slot(0).chunks.load() == 1);
}

TEST_CASE("adoption takes what is requested, and leaves the rest to others") {
  bare_tables t(std::uint64_t{64} << 20);
  const std::uint32_t c = class_of(100'000), other = class_of(50'000);
  std::uint32_t small[2] = {}, other_small = 0, runs[3] = {};
  {
    owner dead(t, 2);
    for (std::uint32_t& chunk : small) {
      const heap::taken block = dead.take(c);
      chunk = block.owner->chunk;
      for (std::uint32_t i = 1; i < blocks_per_chunk(c); ++i)
        (void)dead.take(c);  // full: the next is elsewhere
    }
    other_small = dead.take(other).owner->chunk;
    for (std::uint32_t& chunk : runs) chunk = dead.take_run(3).owner->chunk;
  }
  const auto orphan = [&](std::uint32_t chunk) {
    t.words.chunk(chunk).owner.store(owner_word{chunk_state::orphan, 0, 0}.bits());
    t.words.head().orphans.fetch_add(1);
  };
  for (const std::uint32_t chunk : {small[0], small[1], other_small, runs[0], runs[1], runs[2]})
    orphan(chunk);
  const auto is_mine = [&](std::uint32_t chunk, std::uint32_t slot) {
    const auto word = owner_word::from(t.words.chunk(chunk).owner.load());
    return word.state == chunk_state::owned && word.slot == slot;
  };

  owner one(t, 0), two(t, 1);
  {
    const std::lock_guard lock(one.heap);
    CHECK(one.heap.adopt_orphans(3, no_class));
    CHECK(one.heap.uncache(3) != nullptr);
    CHECK(one.heap.uncache(3) == nullptr);
    CHECK(one.heap.adopt_orphans(1, c));
    CHECK(is_mine(small[0], 0));
    CHECK(!is_mine(small[1], 0));
    CHECK(!is_mine(other_small, 0));
  }
  const std::lock_guard lock(two.heap);
  for (int i = 0; i < 2; ++i) {
    CHECK(two.heap.adopt_orphans(3, no_class));
    CHECK(two.heap.uncache(3) != nullptr);
  }
  CHECK(two.heap.adopt_orphans(1, c));
  CHECK(is_mine(small[1], 1));
  // Nothing of the kind is left: then all others.
  CHECK(two.heap.adopt_orphans(2, no_class));
  CHECK(is_mine(other_small, 1));
  CHECK_FALSE(two.heap.adopt_orphans(1, class_of(70'000)));
  CHECK(one.heap.orphaned_bytes() == 0);
}

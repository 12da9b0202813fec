#include <doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "heap/fast_path.hpp"
#include "heap_tools.hpp"

using namespace sharedmem;
using namespace heap_tools;

namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

}  // namespace

TEST_CASE("blocks of one class do not overlap, and a dropped one is taken again first") {
  bare_tables t;
  owner me(t, 0);
  const std::uint32_t c = class_of(1000);
  std::set<std::byte*> seen;
  std::vector<heap::taken> all;
  for (int i = 0; i < 3000; ++i) {
    const heap::taken b = me.take(c);
    REQUIRE(b.owner != nullptr);
    std::byte* at = b.owner->block(b.index);
    REQUIRE(seen.insert(at).second);
    std::memset(at, i & 0xff, class_bytes(c));
    all.push_back(b);
  }
  std::byte* previous = nullptr;
  for (std::byte* at : seen) {
    if (previous != nullptr) REQUIRE(at - previous >= static_cast<std::ptrdiff_t>(class_bytes(c)));
    previous = at;
  }
  me.drop(all[7]);
  const heap::taken again = me.take(c);
  CHECK(again.owner == all[7].owner);
  CHECK(again.index == all[7].index);
  CHECK_FALSE(again.zeroed);
}

TEST_CASE("fresh memory reads as zero and is reported as zeroed; memory that was used is not") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken fresh = me.take_run(2);
  CHECK(fresh.zeroed);
  CHECK(*fresh.owner->data == std::byte{0});
  me.drop(fresh);
  CHECK_FALSE(me.take_run(2).zeroed);
}

TEST_CASE("neighbouring free runs become one, and a longer run is cut for a shorter request") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken a = me.take_run(2), b = me.take_run(3), after = me.take_run(1);
  REQUIRE(b.owner->chunk == a.owner->chunk + 2);
  const std::uint32_t first = a.owner->chunk;
  me.drop(a);
  me.drop(b);
  CHECK(me.heap.cached() == 5 * chunk_bytes);
  const heap::taken five = me.take_run(5);
  CHECK(five.owner->chunk == first);
  CHECK(me.heap.cached() == 0);
  me.drop(five);
  const heap::taken two = me.take_run(2);
  CHECK(two.owner->chunk == first);
  CHECK(me.heap.cached() == 3 * chunk_bytes);
  CHECK(count(t, chunk_state::owned) == 3);  // the heads of: two, the rest, `after`
  (void)after;
}

TEST_CASE("a slab without a block in use becomes a run again, unless it is the last of its class") {
  bare_tables t;
  owner me(t, 0);
  const std::uint32_t c = class_of(mib / 2);
  std::vector<heap::taken> blocks;
  for (std::uint32_t i = 0; i < 2 * blocks_per_chunk(c); ++i) blocks.push_back(me.take(c));
  for (const heap::taken& b : blocks) me.drop(b);
  CHECK(me.heap.cached() == chunk_bytes);
  {
    const std::lock_guard lock(me.heap);
    me.heap.trim();
  }
  CHECK(me.heap.cached() == 0);
  CHECK(count(t, chunk_state::owned) == 0);
}

TEST_CASE("slabs that classes keep are used for other sizes, if all that is kept is more than the limit") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken used = me.take(class_of(200'000));
  for (const std::uint64_t bytes : {64, 20'000, 300'000, 400'000, 500'000, 600'000})
    me.drop(me.take(class_of(bytes)));
  const std::lock_guard lock(me.heap);
  CHECK_FALSE(me.heap.reuse_spares(1, 6 * chunk_bytes));
  CHECK(me.heap.cached() == 0);
  CHECK(me.heap.reuse_spares(1, 5 * chunk_bytes));
  CHECK(me.heap.cached() == chunk_bytes);
  CHECK_FALSE(me.heap.has_room(class_of(600'000)));
  CHECK(me.heap.has_room(class_of(64)));
  CHECK(me.heap.uncache(1) != nullptr);
  CHECK_FALSE(
      me.heap.reuse_spares(8, 2 * chunk_bytes));  // all are not as long: what is beyond the limit goes
  CHECK(me.heap.cached() == 2 * chunk_bytes);
  CHECK(count(t, chunk_state::owned) + count(t, chunk_state::inner) == 4);
  CHECK(me.heap.owned_at(used.owner->chunk) == used.owner);
}

TEST_CASE("beyond the limit cached runs are given back, and their pages with them") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken a = me.take_run(4);
  std::memset(a.owner->data, 1, 4 * chunk_bytes);
  const std::size_t before = t.words.at(0).memory.resident();
  me.drop(a);
  {
    const std::lock_guard lock(me.heap);
    CHECK(me.heap.limit_cache(chunk_bytes) == 3 * chunk_bytes);
  }
  CHECK(me.heap.cached() == chunk_bytes);
  CHECK(me.heap.cached_everywhere() == chunk_bytes);
  if (!os::memory_is_promised) CHECK(t.words.at(0).memory.resident() + 3 * chunk_bytes <= before);
  CHECK(count(t, chunk_state::owned) == 1);
}

TEST_CASE("fragments are given back, shortest first, until the requested amount is reached") {
  bare_tables t;
  owner me(t, 0);
  std::vector<heap::taken> runs, between;
  for (const std::uint32_t chunks : {1u, 2u, 3u}) {
    runs.push_back(me.take_run(chunks));
    between.push_back(me.take_run(1));
  }
  for (const heap::taken& r : runs) me.drop(r);
  const std::lock_guard lock(me.heap);
  me.heap.give_back_fragments(3 * chunk_bytes);
  CHECK(me.heap.cached() == 3 * chunk_bytes);
  CHECK(me.heap.uncache(3) != nullptr);
}

TEST_CASE("what another process freed is found by the hint, and without it by looking at everything") {
  bare_tables t;
  owner me(t, 0);
  const std::uint32_t c = class_of(mib);
  for (const bool hinted : {true, false}) {
    CAPTURE(hinted);
    const heap::taken b = me.take(c);
    const std::uint32_t index = b.owner->first + b.index;
    free_elsewhere(t, index, publish(t, me, b));
    const std::lock_guard lock(me.heap);
    CHECK_FALSE(me.heap.sweep_returns());
    if (hinted) {
      t.words.chunk(b.owner->chunk).has_returns.store(1);
      t.words.slot(0).returns.store(b.owner->chunk + 1);
      CHECK(me.heap.sweep_returns());
    } else {
      me.heap.sweep_all();
    }
    CHECK(b.owner->states[b.index].load() == use::listed);
  }
}

TEST_CASE("a published block that others still hold is not listed by any sweep") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken b = me.take(class_of(mib));
  publish(t, me, b);
  const std::lock_guard lock(me.heap);
  me.heap.sweep_all();
  me.heap.list_if_free(b.owner->first + b.index, b.owner->chunk);
  CHECK(b.owner->states[b.index].load() == use::published);
}

TEST_CASE("after a repair everything is looked at, once") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken b = me.take(class_of(mib));
  free_elsewhere(t, b.owner->first + b.index, publish(t, me, b));
  const std::lock_guard lock(me.heap);
  CHECK_FALSE(me.heap.sweep_after_repairs());
  t.words.head().repairs.fetch_add(1);
  CHECK(me.heap.sweep_after_repairs());
  CHECK(b.owner->states[b.index].load() == use::listed);
  CHECK_FALSE(me.heap.sweep_after_repairs());
}

TEST_CASE("two owners never claim the same chunk, and all of them can be claimed") {
  bare_tables t;
  owner one(t, 0), two(t, 1);
  std::map<std::uint32_t, int> taken_by;
  for (bool more = true; more;) {
    more = false;
    for (owner* o : {&one, &two}) {
      const heap::taken r = o->take_run(1);
      if (r.owner == nullptr) continue;
      more = true;
      REQUIRE(taken_by.emplace(r.owner->chunk, o == &one ? 0 : 1).second);
    }
  }
  CHECK(taken_by.size() == t.words.chunk_count());
}

TEST_CASE("a thread's cache gives and takes without the lock, and ends with its thread") {
  bare_tables t;
  owner me(t, 0);
  const std::uint32_t c = class_of(200);
  std::thread([&] {
    CHECK(me.heap.take_cached(c).owner == nullptr);
    const heap::taken first = me.take(c);
    {
      const std::lock_guard lock(me.heap);
      me.heap.fill_cache(c);
    }
    const heap::taken cached = me.heap.take_cached(c);
    REQUIRE(cached.owner != nullptr);
    CHECK(cached.owner->states[cached.index].load() == use::in_use);
    CHECK(me.heap.give_cached(*cached.owner, cached.index));
    CHECK_FALSE(me.heap.give_cached(*cached.owner, cached.index));  // it is listed already
    CHECK(me.heap.give_cached(*first.owner, first.index));
    {
      const std::lock_guard lock(me.heap);
      me.heap.stop_threads();
    }
    CHECK(me.heap.take_cached(c).owner == nullptr);
    me.heap.resume_threads();
    CHECK(me.heap.take_cached(c).owner != nullptr);
  }).join();
  const std::lock_guard lock(me.heap);
  me.heap.trim();
  std::uint32_t in_use = 0;
  me.heap.each_unshared([&](slab&, std::uint32_t) { ++in_use; });
  CHECK(in_use == 1);  // what the thread took last; all else that it cached came back
}

TEST_CASE("a forked child's heap is empty, and takes chunks of its own") {
  bare_tables t;
  owner me(t, 0);
  const heap::taken before = me.take(class_of(100));
  const std::uint32_t chunk = before.owner->chunk;
  me.slot.become(1);  // what a fork handler does in the child
  {
    const std::lock_guard lock(me.heap);
    me.heap.forget_chunks();
  }
  CHECK(me.heap.owned_at(chunk) == nullptr);
  CHECK(me.take(class_of(100)).owner->chunk != chunk);
  slab::destroy(before.owner);  // kept for references that a child has from its parent; here there are none
}

TEST_CASE("random lives: every byte belongs to one block at a time, and all comes back") {
  bare_tables t;
  owner me(t, 0);
  std::mt19937 random(20);
  struct life {
    heap::taken block;
    unsigned char value = 0;
  };
  std::vector<life> lives;
  const auto bytes_of = [](const life& l) { return l.block.owner->block_bytes; };
  const auto check_and_drop = [&](std::size_t i) {
    const life l = lives[i];
    const auto* at = reinterpret_cast<const unsigned char*>(l.block.owner->block(l.block.index));
    REQUIRE(at[0] == l.value);
    REQUIRE(at[bytes_of(l) - 1] == l.value);
    me.drop(l.block);
    lives[i] = lives.back();
    lives.pop_back();
  };
  for (int step = 0; step < 20'000; ++step) {
    if (lives.empty() || random() % 2 == 0) {
      const bool run = random() % 16 == 0;
      const heap::taken b = run ? me.take_run(random() % 3 + 1) : me.take(random() % class_count);
      if (b.owner == nullptr) continue;  // full: that is one of the states to be tried
      const auto value = static_cast<unsigned char>(random());
      auto* at = reinterpret_cast<unsigned char*>(b.owner->block(b.index));
      at[0] = at[b.owner->block_bytes - 1] = value;
      lives.push_back({b, value});
    } else {
      check_and_drop(random() % lives.size());
    }
  }
  while (!lives.empty()) check_and_drop(lives.size() - 1);
  const std::lock_guard lock(me.heap);
  me.heap.trim();
  CHECK(me.heap.cached() == 0);
  CHECK(count(t, chunk_state::owned) + count(t, chunk_state::inner) == 0);
}

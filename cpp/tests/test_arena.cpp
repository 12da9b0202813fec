#include <doctest.h>

#include <sys/shm.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <sharedmem/arena.hpp>
#include "shared/layout.hpp"

#include "arena_tools.hpp"

using namespace sharedmem;

namespace {

bool all_zero(const std::byte* data, std::uint64_t bytes) {
  return std::all_of(data, data + bytes, [](std::byte b) { return b == std::byte{0}; });
}

std::string why_not(arena& a, std::uint64_t bytes) {
  try {
    (void)a.allocate(bytes, 64, pages::lazy);
  } catch (const no_memory& refused) {
    return refused.what();
  }
  return "";
}

}  // namespace

TEST_CASE("blocks of any size are usable, aligned and apart") {
  const auto a = arena::create(128 * mib);
  std::vector<allocation> all;
  std::uint64_t seed = 0;
  for (const std::uint64_t bytes :
       {0ULL, 1ULL, 63ULL, 64ULL, 65ULL, 512ULL, 513ULL, 4096ULL, 32768ULL, 32769ULL, 100000ULL, 1ULL << 20,
        (1ULL << 20) + 1, 2ULL << 20, (2ULL << 20) + 1, 7ULL << 20}) {
    for (int i = 0; i < 3; ++i) {
      CAPTURE(bytes);
      all.push_back(a->allocate(bytes));
      CHECK(all.back().bytes >= bytes);
      CHECK(reinterpret_cast<std::uintptr_t>(all.back().data) % 64 == 0);
      CHECK(a->contains(all.back().data));
      fill(all.back().data, all.back().bytes, seed++);
    }
  }
  seed = 0;
  for (const allocation& x : all) {
    CHECK(filled(x.data, x.bytes, seed++));
    const allocation found = a->find(x.data + x.bytes - 1);
    CHECK(found.data == x.data);
    CHECK(found.bytes == x.bytes);
    CHECK(found.ref.block == x.ref.block);
  }
  for (allocation& x : all) a->release(x.ref);
  CHECK(a->find(all.back().data).ref.home == nullptr);
  nothing_left(*a);
}

TEST_CASE("alignment is kept up to two mebibytes") {
  const auto a = arena::create(128 * mib);
  for (std::uint64_t alignment = 1; alignment <= 2 * mib; alignment *= 2)
    for (const std::uint64_t bytes : {0ULL, 1ULL, 1000ULL, 300000ULL, 3ULL << 20}) {
      allocation x = a->allocate(bytes, alignment);
      CHECK(reinterpret_cast<std::uintptr_t>(x.data) % alignment == 0);
      CHECK(x.bytes >= bytes);
      a->release(x.ref);
    }
  for (const std::uint64_t wrong : {0ULL, 3ULL, 48ULL, 4ULL << 20})
    CHECK_THROWS_AS((void)a->allocate(10, wrong), std::invalid_argument);
  nothing_left(*a);
}

TEST_CASE("what is said to be zero is zero, after use as well") {
  const auto a = arena::create(tiny);
  for (const std::uint64_t limit : {0ULL, 8ULL << 20, 1ULL << 30}) {
    a->set_cache_limit(limit);
    for (int round = 0; round < 3; ++round)
      for (const std::uint64_t bytes : {64ULL, 5000ULL, 700000ULL, 5ULL << 20, 9ULL << 20}) {
        allocation x = a->allocate(bytes);
        if (x.zeroed) CHECK(all_zero(x.data, x.bytes));
        std::fill_n(x.data, x.bytes, std::byte{0xff});
        a->release(x.ref);
      }
    (void)a->trim();
  }
  nothing_left(*a);
}

TEST_CASE("a block that is released is used again") {
  const auto a = arena::create(tiny);
  for (const std::uint64_t bytes : {100ULL, 70000ULL, 5ULL << 20}) {
    allocation x = a->allocate(bytes);
    const std::byte* first = x.data;
    a->release(x.ref);
    CHECK(x.ref.home == nullptr);
    x = a->allocate(bytes);
    CHECK(x.data == first);
    a->release(x.ref);
    for (int i = 0; i < 20000; ++i) {
      x = a->allocate(bytes, 64, pages::lazy);
      (void)a->share(x.ref, false);
      a->release(x.ref);
    }
    CHECK(a->participants().at(0).chunks <= 8);
  }
  nothing_left(*a);
}

TEST_CASE("a full arena grows by segments, and says no with numbers at last") {
  const auto a = arena::create(tiny);
  std::vector<allocation> all;
  for (int i = 0; i < 40; ++i) all.push_back(make(*a, 2 * mib, static_cast<std::uint64_t>(i)));
  CHECK(a->statistics().segments > 2);
  for (std::uint64_t i = 0; i < 40; ++i) CHECK(filled(all[i].data, 2 * mib, i));
  for (allocation& x : all) a->release(x.ref);
  a->check();
  const std::string text = why_not(*a, std::uint64_t{1} << 50);
  CHECK(text.find("1.0 PiB") != std::string::npos);
  CHECK(text.find("limited by") != std::string::npos);
  for (const std::uint64_t absurd : {~std::uint64_t{0}, (~std::uint64_t{0} >> 1) + 2, std::uint64_t{1} << 63})
    CHECK_THROWS_AS((void)a->allocate(absurd, 128), no_memory);
  nothing_left(*a);
}

TEST_CASE("an arena whose block descriptors are used up grows by segments") {
  const auto a = arena::create(tiny);
  std::uint32_t segments = 0;
  for (int round = 0; round < 3; ++round) {  // chunks that have descriptors are found again
    std::vector<allocation> all;
    for (std::uint64_t i = 0; i < 150'000; ++i) all.push_back(make(*a, 8, i));
    all.push_back(make(*a, 2 * mib, 150'000));
    for (std::uint64_t i = 0; i < 150'000; ++i) REQUIRE(filled(all[i].data, 8, i));
    a->check();
    const std::uint32_t now = a->statistics().segments;
    CHECK(now > 2);  // the primary segment, the census, and more
    if (round > 0) CHECK(now == segments);
    segments = now;
    for (allocation& x : all) a->release(x.ref);
    a->trim();
  }
  nothing_left(*a);
}

TEST_CASE("claims: shared, acquired, stale, forged") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 1000, 1);
  const claim plain = a->share(x.ref, false);
  const claim leased = a->share(x.ref, true);
  CHECK(a->statistics().leases == 1);
  CHECK(a->statistics().bytes_in_flight == x.bytes);
  allocation same = a->acquire(plain);
  CHECK(same.data == x.data);
  block_ref third = a->duplicate(same.ref);
  a->release(x.ref);
  a->release(same.ref);
  CHECK(a->find(x.data).ref.home == a.get());
  a->release(third);
  CHECK(a->find(x.data).ref.home == nullptr);
  same = a->acquire(leased);  // its lease kept the block
  CHECK(filled(same.data, 1000, 1));
  CHECK(a->statistics().leases == 0);
  allocation again = a->acquire(leased);  // held: a second load is as good
  a->release(again.ref);
  a->release(same.ref);
  CHECK_THROWS_AS((void)a->acquire(leased), stale_handle);
  CHECK_THROWS_AS((void)a->acquire(plain), stale_handle);

  x = make(*a, 1000, 2);
  const claim fresh = a->share(x.ref, true);
  for (claim forged :
       {claim{fresh.block, fresh.generation + 1, no_lease, 0},
        claim{fresh.block + 1, fresh.generation, no_lease, 0}, claim{0xffffffff, 0, no_lease, 0},
        claim{fresh.block, ~std::uint64_t{0}, no_lease, 0},
        claim{fresh.block, fresh.generation + 1, fresh.lease, fresh.nonce},
        claim{fresh.block, fresh.generation | std::uint64_t{1} << 40, fresh.lease, fresh.nonce}})
    CHECK_THROWS_AS((void)a->acquire(forged), stale_handle);
  for (claim forged : {claim{0xffffffff, 0, 5, 1}, claim{fresh.block, 0, 0xfffffffe, 1},
                       claim{fresh.block, 0, fresh.lease, fresh.nonce + 1}})
    a->give_back(forged);
  allocation odd = a->acquire({fresh.block, fresh.generation, 0xfffffffe, 3});  // a lease that is none
  a->release(odd.ref);
  a->release(x.ref);
  nothing_left(*a);
}

TEST_CASE("leases: given back, revoked, and all of them out") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 100, 1);
  const claim unsent = a->share(x.ref, true);
  a->give_back(unsent);
  a->give_back(unsent);
  CHECK(a->statistics().leases == 0);
  (void)a->share(x.ref, true);
  CHECK(a->revoke(std::uint64_t{3600} * 1'000'000'000) == 0);
  CHECK(a->revoke(0) == 1);
  std::uint64_t taken = 0;
  try {
    for (;; ++taken) (void)a->share(x.ref, true);
  } catch (const no_memory& full) {
    CHECK(std::string(full.what()).find(std::to_string(taken)) != std::string::npos);
  }
  CHECK(taken == a->statistics().leases);
  allocation other = make(*a, 100, 2);  // allocating still works
  a->release(other.ref);
  CHECK(a->revoke(0) == taken);
  (void)a->share(x.ref, true);
  CHECK(a->revoke(0) == 1);
  a->release(x.ref);
  nothing_left(*a);
}

TEST_CASE("the cache keeps to its limit") {
  const auto a = arena::create(256 * mib);
  a->set_cache_limit(16 * mib);
  CHECK(a->cache_limit() == 16 * mib);
  for (int i = 0; i < 20; ++i) {
    allocation x = a->allocate(10 * mib);
    allocation y = a->allocate(10 * mib);
    if (i % 2 == 0) (void)a->share(x.ref, false);
    a->release(x.ref);
    a->release(y.ref);
    CHECK(a->statistics().cached_bytes <= 16 * mib);
    CHECK(a->statistics().resident_bytes <= 24 * mib);
  }
  CHECK(a->trim() <= 16 * mib);
  CHECK(a->statistics().cached_bytes == 0);
  nothing_left(*a);
}

TEST_CASE("arrays of many sizes, one after the other, keep no more warm than the cache may hold") {
  const auto a = arena::create(256 * mib);
  a->set_cache_limit(4 * mib);
  for (std::uint64_t bytes = 64 * kib; bytes <= mib; bytes += 32 * kib) {
    allocation x = make(*a, bytes, 1);
    a->release(x.ref);
    CHECK(a->statistics().resident_bytes <= 8 * mib);
  }
  nothing_left(*a);
}

TEST_CASE("slabs without a block in use serve longer arrays before the arena grows") {
  const auto a = arena::create(tiny);
  a->set_cache_limit(4 * tiny);
  for (std::uint64_t bytes = 256 * kib; bytes <= mib; bytes += 64 * kib) {
    allocation x = a->allocate(bytes);
    a->release(x.ref);
  }
  allocation large = a->allocate(tiny / 2 + 4 * mib);
  CHECK(a->statistics().segments == 2);
  a->release(large.ref);
  nothing_left(*a);
}

TEST_CASE("a stray write into the tables is found, and named") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 5000, 1);
  const claim c = a->share(x.ref, false);
  const auto stranger = arena::attach(a->where());  // holds nothing yet, so it looks
  auto* base = static_cast<std::byte*>(::shmat(a->where().segment.id, nullptr, 0));
  REQUIRE(base != reinterpret_cast<void*>(-1));
  auto& h = *reinterpret_cast<header*>(base);
  const auto what = [](auto&& act) -> std::string {
    try {
      act();
    } catch (const corrupted& found) {
      return found.what();
    }
    return "nothing";
  };
  const auto checked_with = [&](auto& place, std::uint64_t wrong) {
    const std::uint64_t right = place;
    place = static_cast<std::remove_reference_t<decltype(place)>>(wrong);
    std::string text = what([&] { a->check(); });
    place = static_cast<std::remove_reference_t<decltype(place)>>(right);
    CHECK(what([&] { a->check(); }) == "nothing");
    return text;
  };
  auto* descriptor = reinterpret_cast<std::uint64_t*>(base + h.at_descriptors + c.block * h.descriptor_bytes);
  const std::string block = "the descriptor of block " + std::to_string(c.block);
  for (const std::uint64_t wrong : {std::uint64_t{1}, std::uint64_t{1} << 60})
    CHECK(checked_with(descriptor[at_place], wrong).find(block) != std::string::npos);
  CHECK(checked_with(descriptor[at_bytes], std::uint64_t{1} << 60).find(block) != std::string::npos);
  CHECK(checked_with(h.chunks, 1 << 20).find("header") != std::string::npos);
  auto& owner = *reinterpret_cast<std::uint64_t*>(&reinterpret_cast<chunk_entry*>(base + h.at_chunks)->owner);
  CHECK(checked_with(owner, owner_word{chunk_state::owned, max_slots - 1, 0}.bits()).find("chunk 0") !=
        std::string::npos);
  auto& mark = *reinterpret_cast<std::uint64_t*>(&h.lease_marks[3 * 8]);
  CHECK(checked_with(mark, 0xffffffff).find("lease group 3") != std::string::npos);
  mark ^= 0xffffffff;
  CHECK(a->statistics().leases == 0);
  mark ^= 0xffffffff;
  descriptor[at_place] ^= std::uint64_t{1} << 60;
  const std::string loaded = what([&] { (void)stranger->acquire(c); });
  descriptor[at_place] ^= std::uint64_t{1} << 60;
  CHECK(loaded.find("the descriptor of block " + std::to_string(c.block)) != std::string::npos);
  allocation good = stranger->acquire(c);
  CHECK(filled(good.data, 5000, 1));
  stranger->release(good.ref);
  h.chunks ^= 1;
  CHECK_THROWS_AS((void)arena::attach(a->where()), corrupted);
  h.chunks ^= 1;
  ::shmdt(base);
  a->release(x.ref);
}

TEST_CASE("an arena that is being made, or of another version, is not attached") {
  const auto a = arena::create(tiny);
  auto* base = static_cast<std::byte*>(::shmat(a->where().segment.id, nullptr, 0));
  REQUIRE(base != reinterpret_cast<void*>(-1));
  word32& version = reinterpret_cast<header*>(base)->version;
  version.store(0);  // its maker is stopped, or was killed, before the last step
  CHECK_THROWS_AS((void)arena::attach(a->where()), stale_handle);
  version.store(layout_version + 1);
  CHECK_THROWS_AS((void)arena::attach(a->where()), corrupted);
  version.store(layout_version);
  CHECK(arena::attach(a->where())->statistics().participants == 2);
  ::shmdt(base);
  nothing_left(*a);
}

TEST_CASE("an arena that no longer exists is stale") {
  locator where;
  {
    const auto a = arena::create(tiny);
    where = a->where();
    CHECK_THROWS_AS((void)arena::attach([&] {
                      locator other = where;
                      ++other.uuid[0];
                      return other;
                    }()),
                    stale_handle);
    locator elsewhere = where;
    ++elsewhere.host;
    CHECK_THROWS_AS((void)arena::attach(elsewhere), stale_handle);
  }
  CHECK_THROWS_AS((void)arena::attach(where), stale_handle);
  CHECK(segments_of(::getpid()) == 0);
}

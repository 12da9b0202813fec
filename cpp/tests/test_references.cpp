/// References that are not what they seem: copied by a fork without handlers, stale, altered, or the last one.
#include <doctest.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"

using namespace sharedmem;

TEST_CASE("a child forked without handlers drops its copies: their memory stays its parent's") {
  const auto a = arena::create(tiny);
  for (const std::uint64_t bytes : {std::uint64_t{100}, 100 * kib, 3 * mib}) {
    CAPTURE(bytes);
    std::vector<allocation> inherited;
    for (std::uint64_t i = 0; i < 3; ++i) inherited.push_back(make(*a, bytes, i));
    child unannounced([&] {
      allocation first = make(*a, bytes, 10);  // it is a participant from now on
      for (allocation& x : inherited) a->release(x.ref);
      a->release(first.ref);
      for (std::uint64_t i = 0; i < 8; ++i) {
        const allocation own = make(*a, bytes, 20 + i);
        for (const allocation& x : inherited)
          if (own.data == x.data) return 1;
      }
      return 0;
    });
    CHECK(unannounced.wait() == 0);
    for (std::uint64_t i = 0; i < 3; ++i) {
      CHECK(filled(inherited[i].data, bytes, i));
      a->release(inherited[i].ref);
    }
  }
  nothing_left(*a, 2);
}

TEST_CASE("a handle whose lease is another block's takes no lease") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 5000, 1), y = make(*a, 5000, 2);
  const claim of_x = a->share(x.ref, true), of_y = a->share(y.ref, false);
  a->release(x.ref);
  allocation got = a->acquire({of_y.block, of_y.generation, of_x.lease, of_x.nonce});
  CHECK(filled(got.data, 5000, 2));
  CHECK(a->statistics().leases == 1);
  allocation still = a->acquire(of_x);
  CHECK(filled(still.data, 5000, 1));
  for (allocation* each : {&y, &got, &still}) a->release(each->ref);
  nothing_left(*a);
}

TEST_CASE("who owns the memory uses it again after another process dropped the last reference") {
  const auto a = arena::create(tiny);
  for (const std::uint64_t bytes : {256 * kib, 5 * mib}) {  // in a chunk of their own, and a run of chunks
    CAPTURE(bytes);
    channel ready, go;
    std::vector<allocation> all;
    for (std::uint64_t i = 0; i < 4 * mib / (256 * kib); ++i) all.push_back(make(*a, bytes, i));
    const std::uint64_t chunks = a->participants().at(0).chunks;
    auto last = fork_from(*a, [&] {
      (void)go.get<char>();
      for (allocation& x : all) a->release(x.ref);
      ready.put('r');
      sleep_for_ever();
      return 0;
    });
    for (allocation& x : all) a->release(x.ref);
    go.put('g');
    (void)ready.get<char>();
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = make(*a, bytes, i);
    CHECK(a->participants().at(0).chunks == chunks);
    for (allocation& x : all) a->release(x.ref);
  }
  nothing_left(*a, 2);
}

TEST_CASE("a stale handle is loaded again and again: blocks in their next lives are freed all the same") {
  const auto a = arena::create(tiny);
  // Where a block is loaded by its old generation while its last holder drops it, the drop may see the loader's bit.
  std::vector<claim> stale;
  std::vector<allocation> first;
  for (std::uint64_t i = 0; i < 64; ++i) {
    first.push_back(make(*a, 5000, i));
    stale.push_back(a->share(first.back().ref, false));
  }
  for (allocation& x : first) a->release(x.ref);
  auto loader = fork_from(*a, [&] {
    for (std::size_t i = 0;; i = (i + 1) % stale.size()) try {
        (void)a->acquire(stale[i]);
        return 1;
      } catch (const stale_handle&) {
      }
    return 0;
  });
  for (int round = 0; round < 3000; ++round) {
    for (allocation& x : first) x = a->allocate(5000);
    for (allocation& x : first) (void)a->share(x.ref, false);
    for (allocation& x : first) a->release(x.ref);
  }
  loader->kill();
  // Before anybody looks for the dead: that would free all that is unclaimed.
  CHECK(a->statistics().shared_blocks <= 1);
  nothing_left(*a, 2);
}

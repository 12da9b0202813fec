/// References that are not what they seem: copied by a fork without handlers, stale, altered, or the last one.
#include <doctest.h>

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <bit>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"
#include "arena_words.hpp"

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

TEST_CASE("the owner reuses the memory after another process dropped the last reference") {
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

TEST_CASE("a block is dropped while a stale handle of it is loaded: it is freed all the same") {
  const auto a = arena::create(tiny);
  allocation first = make(*a, 100'000, 1);
  const claim stale = a->share(first.ref, false);
  a->release(first.ref);
  channel done;
  auto loader = fork_from(*a, [&] {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) return 77;
    ::raise(SIGSTOP);
    try {
      (void)a->acquire(stale);
      return 1;
    } catch (const stale_handle&) {
    }
    done.put('d');
    sleep_for_ever();
    return 0;
  });
  int status = 0;
  ::waitpid(loader->pid(), &status, 0);
  if (!WIFSTOPPED(status)) {
    MESSAGE("skipped: ptrace is not allowed here");
    return;
  }
  allocation second = make(*a, 100'000, 2);
  REQUIRE(a->share(second.ref, false).block == stale.block);
  const arena_words words(*a);
  while (std::popcount(words.descriptor(stale.block)[at_holders].load()) <
         2) {  // until the loader's bit is set
    ::ptrace(PTRACE_SINGLESTEP, loader->pid(), nullptr, nullptr);
    ::waitpid(loader->pid(), &status, 0);
    REQUIRE(WIFSTOPPED(status));
  }
  a->release(second.ref);
  ::ptrace(PTRACE_DETACH, loader->pid(), nullptr, nullptr);
  (void)done.get<char>();
  CHECK(a->statistics().shared_blocks == 0);
  loader->kill();
  nothing_left(*a, 2);
}

TEST_CASE("a block that was carried is known by every address in it, until the last reference goes") {
  const auto a = arena::create(tiny);
  allocation x = make(*a, 5000, 1);
  const claim sent = a->share(x.ref, true);
  a->release(x.ref);
  allocation got = a->acquire(sent);
  CHECK(!a->find(got.data).carried);
  a->mark_carried(got.ref);
  CHECK(a->find(got.data).carried);
  CHECK(a->find(got.data + got.bytes - 1).carried);
  block_ref second = a->duplicate(got.ref);
  a->release(got.ref);
  CHECK(a->find(got.data).carried);
  a->release(second);
  std::vector<allocation> all;
  do all.push_back(make(*a, 5000, 2));
  while (all.back().data != got.data && all.size() < 100);
  const allocation& next = all.back();
  REQUIRE(next.data == got.data);  // the block is used again
  const claim again = a->share(next.ref, false);  // it has a record now, and that block's
  CHECK(!a->find(next.data).carried);
  allocation same = a->acquire(again);
  CHECK(!a->find(next.data).carried);
  a->release(same.ref);
  for (allocation& each : all) a->release(each.ref);
  nothing_left(*a);
}

#include <doctest.h>

#include <signal.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/queue.hpp>

#include "arena_tools.hpp"
#include "queue_layout.hpp"
#include "queue_tools.hpp"
#include "shared/fault.hpp"

using namespace sharedmem;
using namespace queue_tools;

namespace {

/// Everything that passes a step of the queue. Numbers of messages are those of the queue.
void use_queue(arena& a, queue& q, int arrays = 1) {
  for (std::uint64_t i = 0; i < 3; ++i) (void)put(q, text(i, 30), array_for(a, 4 + i, arrays));
  (void)put(q, text(7, 30));
  (void)next_number(q);
  (void)next_number(q);
  (void)q.set_ring(100);
  (void)next_number(q);
}

/// Runs `work` in a process that kills itself at a step.
template <class F>
void die_at(const char* step, arena& a, F&& work) {
  ::setenv("SHAREDMEM_FAULT", step, 1);
  const auto c = fork_from(a, [&] {
    work();
    return 0;
  });
  ::unsetenv("SHAREDMEM_FAULT");
  CHECK(c->wait() == -SIGKILL);
  (void)a.collect(true);
}

}  // namespace

TEST_CASE("a process is killed at each step of a queue, and the others go on") {
  int killed = 0, repaired = 0;
  for (unsigned p = 0; p < static_cast<unsigned>(point::count); ++p) {
    const std::string name = point_name(p);
    if (!name.starts_with("queue_") && !name.starts_with("lease_")) continue;
    if (name == "queue_repaired") continue;  // no process has died before
    for (int pass = 1; pass <= 8; ++pass) {
      CAPTURE(name);
      CAPTURE(pass);
      auto a = arena::create(tiny);
      bool reached = false;
      {
        auto q = made_in(*a);
        for (std::uint64_t i = 0; i < 4; ++i) (void)put(*q, text(i, 30), array_for(*a, i));
        ::setenv("SHAREDMEM_FAULT", (name + ":" + std::to_string(pass)).c_str(), 1);
        auto c = fork_from(*a, [&] {
          use_queue(*a, *q);
          return 0;
        });
        ::unsetenv("SHAREDMEM_FAULT");
        const int code = c->wait();
        reached = code != 0;
        if (reached) ++killed;
        (void)a->collect(true);
        queue::counts n;
        REQUIRE(q->count(n) == outcome::done);  // the lock is passed on
        CHECK(layout_of(*q).doing == queue::layout::work::nothing);
        (void)a->collect(true);
        // The rest is there, in order, with its arrays. Of the child's messages none is in the way.
        std::int64_t last = -1;
        std::uint64_t got = 0;
        for (std::int64_t number = next_number(*q); number >= 0; number = next_number(*q), ++got) {
          CHECK(number > last);
          if (last >= 0) CHECK(number == last + 1);
          last = number;
        }
        CHECK(got == n.waiting);
        CHECK(put(*q, text(9, 30), array_for(*a, last + 1 > 0 ? static_cast<std::uint64_t>(last + 1) : 0)) ==
              outcome::done);
        // Only the ring and this message are kept: what the dead process was handling was given back.
        CHECK(a->statistics().leases == 2);
        if (name.starts_with("queue_")) ++repaired;
      }
      nothing_left(*a, 2);
      if (!reached) break;
    }
  }
  CHECK(killed > 50);
  CHECK(repaired > 17);
}

TEST_CASE("what a process killed during repair leaves is repaired in turn") {
  for (const char* first :
       {"queue_leases_kept:1", "queue_get_committed:1", "queue_ring_kept:1", "queue_ring_committed:1"})
    for (const char* second : {"lease_returned:1", "queue_repaired:1"}) {
      CAPTURE(first);
      CAPTURE(second);
      auto a = arena::create(tiny);
      {
        auto q = made_in(*a);
        for (std::uint64_t i = 0; i < 4; ++i) (void)put(*q, text(i, 30), array_for(*a, i, 2));
        ::setenv("SHAREDMEM_FAULT", first, 1);
        CHECK(fork_from(*a, [&] {
                use_queue(*a, *q, 2);
                return 0;
              })->wait() != 0);
        ::setenv("SHAREDMEM_FAULT", second, 1);
        CHECK(fork_from(*a, [&] {
                queue::counts n;
                (void)q->count(n);
                return 0;
              })->wait() != 0);
        ::unsetenv("SHAREDMEM_FAULT");
        (void)a->collect(true);
        while (next_number(*q) >= 0) {
        }
        (void)a->collect(true);
        CHECK(a->statistics().leases == 1);
      }
      nothing_left(*a, 2);
    }
}

TEST_CASE("what a killed sender noted is not taken for what the next one is handling") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    die_at("queue_leases_kept:1", *a, [&] { (void)put(*q, text(0, 30), array_for(*a, 0)); });
    queue::counts n;
    CHECK(q->count(n) == outcome::done);
    die_at("queue_put_noted:1", *a, [&] { (void)put(*q, text(0, 500), array_for(*a, 0)); });
    CHECK(q->count(n) == outcome::done);
    CHECK(n.waiting == 0);
    CHECK(a->statistics().leases == 1);  // of the ring
  }
  nothing_left(*a, 2);
}

TEST_CASE("what a killed receiver noted is not taken for what the next one is handling") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    for (std::uint64_t i = 0; i < 2; ++i) CHECK(put(*q, text(i, 30), array_for(*a, i)) == outcome::done);
    die_at("queue_get_committed:1", *a, [&] { (void)next_number(*q); });
    // Until a shorter message, of which nothing is noted, lies where that one was.
    const auto bytes = text(5, 24);
    const queue_message m{{}, bytes, false, bytes.size(), queue_checksum(bytes)};
    std::size_t put = 0, count = 0;
    std::uint32_t seen = 0;
    for (; q->try_put({&m, 1}, count, seen) == outcome::done; ++put) {
    }
    CHECK(put > 100);
    die_at("queue_get_noted:1", *a, [&] { (void)next_number(*q); });
    for (std::size_t i = 0; i <= put; ++i) CHECK(next_number(*q) == static_cast<std::int64_t>(i + 1));
    CHECK(next_number(*q) == -1);
  }
  nothing_left(*a, 2);
}

TEST_CASE("a ring that was made too small meanwhile is not taken, and is given back at once") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    ::setenv("SHAREDMEM_FAULT", "lease_out:1:stop", 1);  // the lease of the new ring
    const auto stopped = fork_from(*a, [&] {
      MUST(q->set_ring(0) == outcome::busy);
      MUST(a->statistics().leases == 1);
      MUST(a->statistics().live_blocks == 2);
      return 0;
    });
    ::unsetenv("SHAREDMEM_FAULT");
    int status = 0;
    REQUIRE(::waitpid(stopped->pid(), &status, WUNTRACED) == stopped->pid());
    REQUIRE(WIFSTOPPED(status));
    for (std::uint64_t i = 0; i < 20; ++i) CHECK(put(*q, text(i, 2000)) == outcome::done);
    ::kill(stopped->pid(), SIGCONT);
    CHECK(stopped->wait() == 0);
    for (std::int64_t i = 0; i < 20; ++i) CHECK(next_number(*q) == i);
    CHECK(a->statistics().leases == 1);
  }
  nothing_left(*a, 2);
}

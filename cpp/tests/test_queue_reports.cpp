#include <doctest.h>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/inspect.hpp>
#include <sharedmem/queue.hpp>

#include "queue_reports.hpp"

#include "arena_tools.hpp"
#include "queue_tools.hpp"

using namespace sharedmem;
using namespace queue_tools;

namespace {

/// What one who takes part and one who does not see: the same.
std::vector<queue_report> seen_in(arena& a) {
  std::vector<queue_report> inside = queues_in(a);
  const auto found = inspect(a.where().segment);
  REQUIRE(found.has_value());
  const std::vector<queue_report>& outside = found->queues;
  REQUIRE(outside.size() == inside.size());
  for (std::size_t i = 0; i < inside.size(); ++i) {
    CHECK(inside[i].home == &a);
    CHECK(outside[i].home == nullptr);
    CHECK(outside[i].block == inside[i].block);
    CHECK(outside[i].readable == inside[i].readable);
    CHECK(outside[i].now.waiting == inside[i].now.waiting);
    CHECK(outside[i].now.bytes == inside[i].now.bytes);
    CHECK(outside[i].now.ring_bytes == inside[i].now.ring_bytes);
    CHECK(outside[i].kept_bytes == inside[i].kept_bytes);
    CHECK(outside[i].most == inside[i].most);
    CHECK(outside[i].maker == inside[i].maker);
    CHECK(outside[i].holders == inside[i].holders);
  }
  return inside;
}

const std::uint32_t me = static_cast<std::uint32_t>(::getpid());

}  // namespace

TEST_CASE("an arena lists its queues, oldest first, until they are dropped") {
  const auto a = arena::create(tiny);
  CHECK(seen_in(*a).empty());
  allocation before = a->allocate(queue::block_bytes);
  auto first = made_in(*a);
  a->release(before.ref);
  auto second = made_in(*a, 7);  // there, before the first one
  CHECK(second->block().ref.block < first->block().ref.block);
  allocation array = make(*a, 3 * kib, 1);
  put(*first, std::vector<std::byte>(90));
  put(*first, std::vector<std::byte>(100));
  queue_taken none;
  CHECK(get(*first, none) == outcome::done);
  CHECK(first->task_done() == outcome::done);
  put(*first, std::vector<std::byte>(10), {a->share(array.ref, true)});
  std::vector<queue_report> seen = seen_in(*a);
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].block == first->block().ref.block);
  CHECK(seen[1].block == second->block().ref.block);
  CHECK(seen[0].age_ns >= seen[1].age_ns);
  CHECK(seen[1].age_ns > 0);
  for (const queue_report& each : seen) {
    CHECK(each.readable);
    CHECK(each.maker == me);
    CHECK(each.holders == std::vector<std::uint32_t>{me});
    CHECK(each.sleepers.empty());
  }
  CHECK(seen[0].now.waiting == 2);
  CHECK(seen[0].now.unfinished == 2);
  CHECK(seen[0].now.bytes == 110);
  CHECK(seen[0].now.ring_bytes >= first_ring_bytes);
  CHECK(seen[0].kept_bytes >= 3 * kib);
  CHECK(seen[0].kept_bytes < 2 * 3 * kib);
  CHECK(seen[1].kept_bytes == 0);
  CHECK(seen[1].most == 7);
  queue::counts found;
  CHECK(first->look(found));
  CHECK(found.waiting == 2);
  a->release(array.ref);
  first.reset();
  seen = seen_in(*a);
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].most == 7);
  second.reset();
  CHECK(seen_in(*a).empty());
  nothing_left(*a);
}

TEST_CASE("the living holders and sleepers of a queue are listed, and not the dead") {
  const auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    const claim c = a->share(q->block().ref, false);
    const auto other = fork_from(*a, [&] {
      queue mine;
      allocation block = a->acquire(c);
      mine.open(block);
      queue_taken taken;
      std::uint32_t seen = 0;
      while (mine.try_get(1, taken, seen) == outcome::nothing)
        mine.wait_for_message(seen, std::chrono::seconds{60});
      return 0;
    });
    const auto pid = static_cast<std::uint32_t>(other->pid());
    std::vector<queue_report> seen;
    for (int i = 0; i < 60'000; ++i, ::usleep(1000)) {
      seen = queues_in(*a);  // of one side: the other process joins and attaches the queue meanwhile
      if (seen.at(0).sleepers.size() == 1) break;
    }
    seen = seen_in(*a);
    REQUIRE(seen.at(0).sleepers.size() == 1);
    CHECK(seen[0].sleepers[0].pid == pid);
    CHECK(seen[0].sleepers[0].what == queue::wanted::message);
    CHECK(seen[0].holders == std::vector<std::uint32_t>{me, pid});
    ::kill(other->pid(), SIGKILL);
    other->wait();
    seen = seen_in(*a);
    CHECK(seen.at(0).holders == std::vector<std::uint32_t>{me});
    CHECK(seen[0].sleepers.empty());
    (void)a->collect(true);
  }
  nothing_left(*a);
}

TEST_CASE("a look at what others change is of one moment") {
  const auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    std::atomic<bool> over{false};
    // One message at most, of as many bytes as its number: other pairs were never there.
    std::thread changes([&] {
      for (std::uint64_t i = 0; !over; ++i) {
        put(*q, std::vector<std::byte>(1 + i % 1000));
        queue_taken taken;
        std::uint32_t seen = 0;
        CHECK(q->try_get(1, taken, seen) == outcome::done);
      }
    });
    std::uint64_t looks = 0, last = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (looks < 20'000 && std::chrono::steady_clock::now() < end) {
      queue::state s{};
      if (!layout_of(*q).look(s)) continue;
      ++looks;
      const bool sound = s.put - s.taken <= 1 && (s.bytes == 0) == (s.put == s.taken) &&
                         s.unfinished == s.put && (s.bytes == 0 || s.bytes == 1 + s.taken % 1000) &&
                         s.put + s.taken >= last;
      if (!sound) CHECK(sound);
      last = s.put + s.taken;
    }
    over = true;
    changes.join();
    CHECK(looks > 0);
  }
  nothing_left(*a);
}

TEST_CASE("a report on a queue that changes all the time is consistent, or there is none") {
  auto at = std::make_unique<queue::layout>();
  at->states[0].ring_bytes = at->states[1].ring_bytes = first_ring_bytes;
  std::atomic<bool> over{false};
  std::thread changes([&] {
    while (!over) {
      queue::state next = at->now();
      next.put = ++next.taken;
      next.unfinished = 3 * next.put;
      next.bytes = 5 * next.put;
      at->commit(next);
    }
  });
  int mixed = 0;
  while (__atomic_load_n(&at->valid, __ATOMIC_RELAXED) == 0) spin_pause();  // until it has begun
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds{300};
  while (std::chrono::steady_clock::now() < end) {
    queue::state s{};
    if (at->look(s) && (s.put != s.taken || s.unfinished != 3 * s.put || s.bytes != 5 * s.put)) ++mixed;
  }
  over = true;
  changes.join();
  CHECK(mixed == 0);
}

TEST_CASE("invalid bytes in the block of a queue are never taken for a queue") {
  const auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    queue::layout& at = layout_of(*q);
    queue::state& now = at.states[at.valid & 1];
    std::vector<std::byte> before(queue::block_bytes);
    std::memcpy(before.data(), &at, before.size());
    const auto check_unreadable = [&] {
      const std::vector<queue_report> seen = seen_in(*a);
      REQUIRE(seen.size() == 1);
      CHECK(!seen[0].readable);
      CHECK(seen[0].kept_bytes >= first_ring_bytes);
      CHECK(seen[0].holders == std::vector<std::uint32_t>{me});
      std::memcpy(static_cast<void*>(&at), before.data(), before.size());
      CHECK(seen_in(*a).at(0).readable);
    };
    at.magic ^= 1;
    check_unreadable();
    at.valid = 2;
    check_unreadable();
    now.head = now.tail + 1;
    check_unreadable();
    now.tail += now.ring_bytes + 1;
    check_unreadable();
    now.taken = now.put + 1;
    check_unreadable();
    for (int i = 0; i < 256; ++i) {  // its contents are arbitrary, and nothing is read beyond it
      std::memset(static_cast<void*>(&at), i, queue::block_bytes);
      (void)seen_in(*a);
    }
    std::memcpy(static_cast<void*>(&at), before.data(), before.size());
  }
  nothing_left(*a);
}

TEST_CASE("leases kept by a block that is not a queue, or not any more, are not taken for a queue") {
  const auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    // A copy of a queue's bytes in another block.
    allocation copy = a->allocate(queue::block_bytes);
    std::memcpy(copy.data, q->block().data, queue::block_bytes);
    CHECK(seen_in(*a).size() == 1);
    // The same, and a lease says that it is kept there: another block, and one that makes no sense.
    allocation array = make(*a, 3 * kib, 1), small = a->allocate(64);
    const claim in_small = a->share(small.ref, false), far{1u << 30, 5, no_lease, 0},
                near{77, 3, no_lease, 0};
    for (const claim& keeper : {in_small, far, near}) {
      const claim lease = a->share(array.ref, true);
      CHECK(a->keep_in(lease, keeper));
      for (const queue_report& each : seen_in(*a))
        CHECK(each.readable == (each.block == q->block().ref.block));
      CHECK(a->give_back_kept(lease));
    }
    // The same bytes once more, in a block that kept a lease until it was freed, or that lives again.
    const claim in_copy = a->share(copy.ref, false), kept_there = a->share(array.ref, true);
    CHECK(a->keep_in(kept_there, in_copy));
    CHECK(seen_in(*a).size() == 2);
    a->release(copy.ref);
    CHECK(seen_in(*a).size() == 1);
    std::vector<allocation> others;
    do others.push_back(a->allocate(queue::block_bytes));
    while (others.back().data != copy.data && others.size() < 100'000);
    REQUIRE(others.back().data == copy.data);
    (void)a->share(others.back().ref, false);
    CHECK(seen_in(*a).size() == 1);
    CHECK(a->give_back_kept(kept_there));
    for (allocation& each : others) a->release(each.ref);
    a->release(array.ref);
    a->release(small.ref);
  }
  nothing_left(*a);
}

#include <doctest.h>

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include <unistd.h>

#include <sharedmem/arena.hpp>
#include <sharedmem/queue.hpp>

#include "arena_tools.hpp"
#include "os/traits.hpp"
#include "queue_layout.hpp"

using namespace sharedmem;
using namespace std::chrono_literals;

namespace {

void make(queue& q, arena& a) {
  allocation block = a.allocate(queue::block_bytes);
  q.create(block, 0);
}

/// Waits until so many sleepers are listed; what it saw then. Gives up after a minute.
std::vector<queue::sleeper> until(const queue& q, std::size_t count) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  for (;;) {
    std::vector<queue::sleeper> found = q.sleepers();
    if (found.size() == count || std::chrono::steady_clock::now() > end) return found;
    std::this_thread::sleep_for(1ms);
  }
}

}  // namespace

TEST_CASE("a sleeping thread is listed with what it waits for, and no longer") {
  auto a = arena::create(tiny);
  queue q;
  make(q, *a);
  CHECK(q.sleepers().empty());
  std::uint32_t seen = 0;
  queue_taken none;
  REQUIRE(q.try_get(1, none, seen) == queue::outcome::nothing);
  std::thread waiting([&] { q.wait_for_message(seen, 240ms); });
  const auto found = until(q, 1);
  REQUIRE(found.size() == 1);
  CHECK(found[0].pid == static_cast<std::uint32_t>(::getpid()));
  CHECK(found[0].what == queue::wanted::message);
  waiting.join();
  CHECK(q.sleepers().empty());
}

TEST_CASE("more sleepers than the list has words are let sleep unlisted") {
  auto a = arena::create(tiny);
  queue q;
  make(q, *a);
  std::uint32_t seen = 0;
  queue_taken none;
  REQUIRE(q.try_get(1, none, seen) == queue::outcome::nothing);
  std::vector<std::thread> waiting;
  for (std::size_t i = 0; i < queue::most_listed + 8; ++i)
    waiting.emplace_back([&] {
      for (int round = 0; round < 4; ++round) q.wait_for_message(seen, 240ms);
    });
  CHECK(until(q, queue::most_listed).size() == queue::most_listed);
  for (std::thread& each : waiting) each.join();
  CHECK(q.sleepers().empty());
}

TEST_CASE("a late ring does not forget a thread that came meanwhile") {
  queue_bell b;
  b.expect();  // a thread that finds the word changed, and does not sleep
  const std::uint32_t late = b.change();
  const std::uint32_t next = b.change();
  CHECK(late != 0);
  CHECK(next == late);
  b.ring(next, 1);  // wakes no thread, so that none is expected to sleep any more, where the system tells
  CHECK((b.change() == 0) == os::wakes_are_counted);
  b.expect();  // another thread, which is about to sleep
  b.ring(late, 1);
  const std::uint32_t seen = b.change();
  CHECK(seen != 0);
  b.expect();
  b.ring(seen, 1);
  CHECK(b.change() != 0);
}

TEST_CASE("a thread is expected to sleep also after the numbers of threads have wrapped around") {
  queue_bell b;
  b.expected = b.sleepers = ~0U;
  b.expect();
  CHECK(b.change() != 0);
}

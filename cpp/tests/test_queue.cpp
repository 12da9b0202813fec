#include <doctest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/home.hpp>
#include <sharedmem/queue.hpp>

#include "arena_tools.hpp"
#include "queue_tools.hpp"

using namespace sharedmem;
using namespace queue_tools;

TEST_CASE("a checksum changes with any byte and with the length") {
  std::vector<std::byte> bytes = text(1, 100);
  const std::uint64_t sum = queue_checksum(bytes);
  for (std::byte& b : bytes) {
    b ^= std::byte{4};
    CHECK(queue_checksum(bytes) != sum);
    b ^= std::byte{4};
  }
  CHECK(queue_checksum(bytes) == sum);
  CHECK(queue_checksum({bytes.data(), 99}) != sum);
  std::vector<std::byte> zeros(3);
  CHECK(queue_checksum({zeros.data(), 2}) != queue_checksum({zeros.data(), 3}));
}

TEST_CASE("messages come in order, through rings that grow and shrink") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    std::uint64_t put_so_far = 0, got = 0;
    for (const std::uint64_t round : {3, 700, 5, 4000, 1}) {
      for (std::uint64_t i = 0; i < round; ++i, ++put_so_far)
        REQUIRE(put(*q, text(put_so_far, put_so_far * 37 % (queue::most_inline + 1))) == outcome::done);
      queue::counts c;
      REQUIRE(q->count(c) == outcome::done);
      CHECK(c.waiting == round);
      REQUIRE(q->set_ring(1) == outcome::done);
      queue::counts in_new_ring;
      REQUIRE(q->count(in_new_ring) == outcome::done);
      CHECK(in_new_ring.bytes == c.bytes);
      CHECK(in_new_ring.ring_bytes > 2 * c.bytes);
      for (std::uint64_t i = 0; i < round; ++i, ++got) {
        queue_taken taken;
        REQUIRE(get(*q, taken) == outcome::done);
        const auto want = text(got, got * 37 % (queue::most_inline + 1));
        CHECK(taken.entries[0].number == got);
        CHECK(taken.bytes == want);
      }
      CHECK(next_number(*q) == -1);
      if (q->ring_is_large()) REQUIRE(q->set_ring(0) == outcome::done);
      REQUIRE(q->count(c) == outcome::done);
      CHECK(c.bytes == 0);
      CHECK(c.ring_bytes <= 4 * mib);
    }
  }
  nothing_left(*a);
}

TEST_CASE("a ring is used to its last byte, and what was done in it before is not settled again") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    std::uint64_t number = 0;
    CHECK(put(*q, text(0, 24), array_for(*a, number++)) == outcome::done);
    CHECK(next_number(*q) == 0);
    for (int round = 0; round < 3; ++round) {
      // Records of one size, so that a new one lies exactly where an old one was, and the ring is full.
      std::uint64_t there = 0;
      for (;; ++there, ++number) {
        const auto bytes = text(number, 24);
        const auto claims = array_for(*a, number);
        const queue_message m{claims, bytes, false, bytes.size(), queue_checksum(bytes)};
        std::size_t count = 0;
        std::uint32_t seen = 0;
        if (q->try_put({&m, 1}, count, seen) == outcome::done) continue;
        a->give_back(claims[0]);
        break;
      }
      CHECK(there > 100);
      for (; there > 0; --there) CHECK(next_number(*q) == static_cast<std::int64_t>(number - there));
      CHECK(next_number(*q) == -1);
    }
  }
  nothing_left(*a);
}

TEST_CASE("small messages fill a ring, and lie where one with an array was") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    CHECK(put(*q, text(0, 24), array_for(*a, 0)) == outcome::done);
    CHECK(next_number(*q) == 0);
    std::vector<std::vector<std::byte>> put_in;
    for (;;) {
      put_in.push_back(text(put_in.size(), 8));
      const queue_message m{{}, put_in.back(), false, 8, queue_checksum(put_in.back())};
      std::size_t count = 0;
      std::uint32_t seen = 0;
      if (q->try_put({&m, 1}, count, seen) != outcome::done) break;
    }
    put_in.pop_back();
    CHECK(put_in.size() > 300);
    queue_taken taken;
    REQUIRE(get(*q, taken, put_in.size() + 1) == outcome::done);
    REQUIRE(taken.entries.size() == put_in.size());
    for (std::size_t i = 0; i < put_in.size(); ++i)
      CHECK(std::memcmp(taken.bytes.data() + taken.entries[i].bytes_at, put_in[i].data(), 8) == 0);
  }
  nothing_left(*a);
}

TEST_CASE("a kept lease ends with the block that keeps it, also if that lives again") {
  auto a = arena::create(tiny);
  allocation keeper = make(*a, 1 * kib, 0);
  const claim kept_in = a->share(keeper.ref, false);
  CHECK(a->keep_in(array_for(*a, 1).at(0), kept_in));
  CHECK(a->drop_unkept() == 0);
  const std::byte* place = keeper.data;
  a->release(keeper.ref);
  std::vector<allocation> others;
  do others.push_back(make(*a, 1 * kib, 2));
  while (others.back().data != place && others.size() < 100'000);
  REQUIRE(others.back().data == place);
  (void)a->share(others.back().ref, false);
  CHECK(a->drop_unkept() == 1);
  for (allocation& each : others) a->release(each.ref);
  nothing_left(*a);
}

TEST_CASE("a bound, tasks, and several at once") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a, 3);
    for (std::uint64_t i = 0; i < 3; ++i) CHECK(put(*q, text(i, 10)) == outcome::done);
    CHECK(put(*q, text(3, 10)) == outcome::nothing);
    queue_taken taken;
    CHECK(get(*q, taken, 10) == outcome::done);
    CHECK(taken.entries.size() == 3);
    CHECK(taken.bytes.size() == 30);
    std::uint32_t seen = 0;
    CHECK(q->try_join(seen) == outcome::nothing);
    for (int i = 0; i < 3; ++i) CHECK(q->task_done() == outcome::done);
    CHECK(q->task_done() == outcome::nothing);
    CHECK(q->try_join(seen) == outcome::done);
  }
  nothing_left(*a);
}

TEST_CASE(
    "a queue keeps the arrays in its messages, whoever sent them, and gives all back when it is freed") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    fork_from(*a, [&] {
      for (std::uint64_t i = 0; i < 3; ++i) (void)put(*q, text(i, 20), array_for(*a, i));
      return 0;
    })->wait();
    (void)a->collect(true);  // would give back what the dead sent
    (void)a->revoke(0);      // and this what the living have
    CHECK(next_number(*q) == 0);
    CHECK(next_number(*q) == 1);
  }
  CHECK(a->statistics().leases == 0);
  nothing_left(*a);
}

TEST_CASE("an operation that has ended leaves no note") {
  auto a = arena::create(tiny);
  {
    auto q = made_in(*a);
    const auto noted = [&] { return layout_of(*q).doing; };
    CHECK(put(*q, text(0, 20), array_for(*a, 0)) == outcome::done);
    CHECK(noted() == queue::layout::work::nothing);
    CHECK(q->set_ring(100) == outcome::done);
    CHECK(noted() == queue::layout::work::nothing);
    CHECK(next_number(*q) == 0);
    CHECK(noted() == queue::layout::work::nothing);
  }
  nothing_left(*a);
}

TEST_CASE("a queue in a message of a queue goes with it") {
  auto a = arena::create(tiny);
  {
    auto outer = made_in(*a);
    auto inner = made_in(*a);
    CHECK(put(*inner, text(0, 20), array_for(*a, 0)) == outcome::done);
    const claim c = a->share(inner->block().ref, true);
    CHECK(put(*outer, text(0, 20), {c}) == outcome::done);
    inner.reset();
    CHECK(a->statistics().leases == 4);  // two rings, the inner queue and its array
  }
  CHECK(a->statistics().leases == 0);
  nothing_left(*a);
}

TEST_CASE("memory that is not a queue is refused") {
  auto a = arena::create(tiny);
  allocation block = a->allocate(queue::block_bytes);
  std::memset(block.data, 0, queue::block_bytes);
  {
    queue q;
    CHECK_THROWS_AS(q.open(block), std::invalid_argument);
  }
  nothing_left(*a);
}

TEST_CASE("threads of several processes pass every message once, each sender's in order") {
  auto a = arena::create(tiny);
  constexpr std::uint64_t senders = 3, each = 3000;
  {
    auto q = made_in(*a, 100);
    std::vector<std::unique_ptr<child>> children;
    for (std::uint64_t s = 0; s < senders; ++s)
      children.push_back(fork_from(*a, [&, s] {
        for (std::uint64_t i = 0; i < each; ++i) {
          std::uint64_t words[2] = {s, i};
          std::vector<std::byte> bytes(16);
          std::memcpy(bytes.data(), words, 16);
          const queue_message m{{}, bytes, false, 16, queue_checksum(bytes)};
          std::size_t count = 0;
          std::uint32_t seen = 0;
          for (;;) {
            const outcome how = q->try_put({&m, 1}, count, seen);
            if (how == outcome::done) break;
            if (how == outcome::busy) q->wait_for_lock(std::chrono::seconds{1});
            if (how == outcome::nothing) q->wait_for_room(seen, std::chrono::seconds{1});
            if (how == outcome::no_ring) (void)q->set_ring(queue::bytes_in_ring(m));
          }
        }
        return 0;
      }));
    std::uint64_t next[senders] = {};
    for (std::uint64_t got = 0; got < senders * each;) {
      queue_taken taken;
      std::uint32_t seen = 0;
      const outcome how = q->try_get(7, taken, seen);
      if (how == outcome::busy) q->wait_for_lock(std::chrono::seconds{1});
      if (how == outcome::nothing) q->wait_for_message(seen, std::chrono::seconds{1});
      for (const queue_entry& e : taken.entries) {
        std::uint64_t words[2];
        std::memcpy(words, taken.bytes.data() + e.bytes_at, 16);
        REQUIRE(e.number == got++);
        REQUIRE(words[1] == next[words[0]]++);
      }
    }
    for (auto& c : children) CHECK(c->wait() == 0);
  }
  nothing_left(*a);
}

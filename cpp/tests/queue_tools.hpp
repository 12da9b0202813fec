/// \file
/// What tests of queues have in common: queues, and messages that can be told again.
#pragma once

#include <doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/queue.hpp>

#include "arena_tools.hpp"
#include "queue_layout.hpp"

namespace queue_tools {

using namespace sharedmem;
using outcome = queue::outcome;

inline queue::layout& layout_of(queue& q) { return *reinterpret_cast<queue::layout*>(q.block().data); }

inline std::vector<std::byte> text(std::uint64_t number, std::size_t bytes) {
  std::vector<std::byte> made(bytes);
  for (std::size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>(number + i * 7);
  return made;
}

inline outcome put(queue& q, const std::vector<std::byte>& bytes, std::vector<claim> claims = {}) {
  const queue_message m{claims, bytes, false, bytes.size(), queue_checksum(bytes)};
  std::size_t count = 0;
  std::uint32_t seen = 0;
  outcome how = q.try_put({&m, 1}, count, seen);
  while (how == outcome::no_ring || how == outcome::busy) {
    if (how == outcome::no_ring) (void)q.set_ring(queue::bytes_in_ring(m));
    how = q.try_put({&m, 1}, count, seen);
  }
  CHECK(count == (how == outcome::done ? 1 : 0));
  return how;
}

inline outcome get(queue& q, queue_taken& taken, std::size_t most = 1) {
  std::uint32_t seen = 0;
  outcome how = outcome::busy;
  while ((how = q.try_get(most, taken, seen)) == outcome::busy) q.wait_for_lock(std::chrono::seconds{1});
  return how;
}

/// The number of the next message, which is checked; -1: there is none.
inline std::int64_t next_number(queue& q) {
  queue_taken taken;
  if (get(q, taken) != outcome::done) return -1;
  const queue_entry& e = taken.entries.at(0);
  const std::span<const std::byte> bytes{taken.bytes.data() + e.bytes_at, static_cast<std::size_t>(e.length)};
  CHECK(queue_checksum(bytes) == e.checksum);
  for (const claim& c : taken.claims) {
    allocation a = q.home()->acquire(c);
    CHECK(filled(a.data, 3 * kib, e.number));
    q.home()->release(a.ref);
  }
  return static_cast<std::int64_t>(e.number);
}

inline std::unique_ptr<queue> made_in(arena& a, std::uint64_t most = 0) {
  auto q = std::make_unique<queue>();
  allocation block = a.allocate(queue::block_bytes);
  q->create(block, most);
  return q;
}

/// Leases of `count` new arrays for the message of that number, as `next_number` checks them.
inline std::vector<claim> array_for(arena& a, std::uint64_t number, int count = 1) {
  std::vector<claim> made;
  for (; count > 0; --count) {
    allocation block = make(a, 3 * kib, number);
    made.push_back(a.share(block.ref, true));
    a.release(block.ref);
  }
  return made;
}

}  // namespace queue_tools

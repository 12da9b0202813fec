/// \file
/// What tests of arenas have in common: forks that an arena knows of, and bytes that can be told again.
#pragma once

#include <doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include <sharedmem/arena.hpp>
#include "arena_hooks.hpp"

#include "child.hpp"

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
/// As small as an arena can be, so that it is soon full.
inline constexpr std::uint64_t tiny = 32 * mib;

/// A child that is a participant: forked between the handlers that home.hpp would register.
template <class F>
std::unique_ptr<child> fork_from(sharedmem::arena& a, F&& work) {
  sharedmem::arena_hooks::prepare_fork(a);
  auto made = std::make_unique<child>([&] {
    sharedmem::arena_hooks::after_fork_in_child(a);
    return std::forward<F>(work)();
  });
  sharedmem::arena_hooks::after_fork_in_parent(a);
  return made;
}

/// Writes into each page, and into the last bytes, what only `seed` and the place give.
inline void fill(std::byte* data, std::uint64_t bytes, std::uint64_t seed) {
  for (std::uint64_t at = 0; at + 8 <= bytes; at += at + 4096 + 8 <= bytes ? 4096 : 8) {
    const std::uint64_t value = (seed + 1) * 0x9e3779b97f4a7c15U ^ at;
    std::memcpy(data + at, &value, 8);
  }
}

inline bool filled(const std::byte* data, std::uint64_t bytes, std::uint64_t seed) {
  for (std::uint64_t at = 0; at + 8 <= bytes; at += at + 4096 + 8 <= bytes ? 4096 : 8) {
    std::uint64_t value = 0;
    std::memcpy(&value, data + at, 8);
    if (value != ((seed + 1) * 0x9e3779b97f4a7c15U ^ at)) return false;
  }
  return true;
}

/// A block of `bytes` bytes that hold `seed`.
inline sharedmem::allocation make(sharedmem::arena& a, std::uint64_t bytes, std::uint64_t seed) {
  const sharedmem::allocation made = a.allocate(bytes, 64, sharedmem::pages::lazy);
  fill(made.data, bytes, seed);
  return made;
}

/// System V segments that the process `pid` made and that are still there.
inline int segments_of(pid_t pid) {
  std::ifstream table("/proc/sysvipc/shm");
  std::string line;
  int found = 0;
  while (std::getline(table, line)) {
    long key = 0, id = 0, mode = 0, size = 0, creator = 0;
    if (std::sscanf(line.c_str(), "%ld %ld %lo %ld %ld", &key, &id, reinterpret_cast<unsigned long*>(&mode),
                    &size, &creator) == 5 &&
        creator == pid)
      ++found;
  }
  return found;
}

/// After every array is gone: whatever was there comes back, to the last chunk.
/// `passes`: how often the dead are looked for.
inline void nothing_left(sharedmem::arena& a, int passes = 1) {
  for (int i = 0; i < passes; ++i) (void)a.collect(true);
  (void)a.trim();
  a.check();
  const sharedmem::arena_statistics s = a.statistics();
  CHECK(s.live_blocks == 0);
  CHECK(s.live_bytes == 0);
  CHECK(s.shared_blocks == 0);
  CHECK(s.leases == 0);
  CHECK(s.cached_bytes == 0);
  CHECK(s.participants == 1);
  CHECK(a.participants().at(0).chunks == 0);
  CHECK(a.idle());
}

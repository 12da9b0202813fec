/// \file
/// Tools for tests of arenas: forks that an arena is notified of, and bytes that can be recognised.
#pragma once

#include <doctest.h>

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <sharedmem/arena.hpp>
#include "arena_hooks.hpp"

#include "child.hpp"
#include "nothing_left.hpp"

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
/// As small as an arena can be, so that it is soon full.
inline constexpr std::uint64_t tiny = 32 * mib;

namespace forking {

/// The arena that `fork_from` forks with in this thread.
inline thread_local sharedmem::arena* along = nullptr;
/// What this thread does when the arena is ready for a fork, and has not forked.
inline thread_local std::function<void()> when_ready;
/// Whether the child takes its slot when it is started. If not, it does so itself, later.
inline thread_local bool at_once = true;

/// Registered before the library's own handlers, so that it runs after them before a fork, and before them after
/// it (pthread_atfork(3)): the order of locks is that of an arena which the library itself forks with.
[[gnu::constructor(101)]] inline void handle() {
  using hooks = sharedmem::arena_hooks;
  static bool handled = false;
  if (std::exchange(handled, true)) return;
  ::pthread_atfork(
      [] {
        if (along == nullptr) return;
        hooks::prepare_fork(*along);
        if (when_ready) when_ready();
      },
      [] {
        if (along != nullptr) hooks::after_fork_in_parent(*along);
      },
      [] {
        if (along != nullptr && at_once) hooks::after_fork_in_child(*along);
      });
}

}  // namespace forking

/// A child that is a participant of an arena that the library does not know as attached.
template <class F>
std::unique_ptr<child> fork_from(sharedmem::arena& a, F&& work) {
  sharedmem::arena* const before = std::exchange(forking::along, &a);
  auto made = std::make_unique<child>([&] {
    forking::along = nullptr;
    return std::forward<F>(work)();
  });
  forking::along = before;
  return made;
}

/// As `fork_from`; `ready` is called between the first handler and the fork.
template <class F>
std::unique_ptr<child> fork_when_ready(sharedmem::arena& a, std::function<void()> ready, F&& work) {
  forking::when_ready = std::move(ready);
  auto made = fork_from(a, std::forward<F>(work));
  forking::when_ready = nullptr;
  return made;
}

/// As `fork_when_ready`, but `work` has to call `after_fork_in_child`.
template <class F>
std::unique_ptr<child> fork_late(sharedmem::arena& a, std::function<void()> ready, F&& work) {
  forking::at_once = false;
  auto made = fork_when_ready(a, std::move(ready), [&] {
    forking::at_once = true;
    return std::forward<F>(work)();
  });
  forking::at_once = true;
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

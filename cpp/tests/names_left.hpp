#pragma once

/// What the tests share that are about arenas of names being left.
#include <doctest.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>

#include "arena_tools.hpp"
#include "registry.hpp"

namespace sharedmem {

/// System V segments that there are. Tests that count them run alone.
inline std::size_t segments() {
  std::ifstream list("/proc/sysvipc/shm");
  std::size_t lines = 0;
  for (std::string line; std::getline(list, line);) ++lines;
  return lines;
}

inline std::string full_name(const std::string& test) { return test + " of " + std::to_string(::getpid()); }

/// From now on this process uses names of that group, which no other test has.
inline void ask_in(const std::string& group) { ::setenv("SHAREDMEM_NAMESPACE", group.c_str(), 1); }

/// The same, and its arena is attached: the arena of another group is left if it is idle.
inline void move_to(const std::string& group) {
  ask_in(group);
  (void)name_arena();
}

/// Arenas that this process has attached, and lines of its map that are System V segments.
struct counts {
  std::size_t arenas = 0, mapped = 0;
  friend bool operator==(const counts&, const counts&) = default;
};

inline counts now() {
  counts n;
  registry& r = the_registry();
  {
    const registry_lock lock(r);
    for_each_attached(r, [&](entry&, std::uint32_t) { ++n.arenas; });
  }
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) n.mapped += line.find("/SYSV") != line.npos ? 1 : 0;
  return n;
}

/// Runs a test in a process of its own, which has the arena of one group, empty, and is given the counts of then.
template <class F>
int alone(F&& test) {
  const std::size_t before = segments();
  child one([&] {
    ::unsetenv("SHAREDMEM_ARENA");
    ::setenv("SHAREDMEM_ARENA_SIZE", "32MiB", 1);
    ::alarm(120);  // ends what waits for ever
    move_to(full_name("first"));
    return std::forward<F>(test)(now());
  });
  const int code = one.wait();
  CHECK(segments() == before);
  return code;
}

/// A block under a name; it is the caller's.
inline allocation bound(const char* name, std::uint64_t bytes, std::uint64_t seed) {
  name_ticket mine;
  if (!claim_name(name, mine)) throw std::runtime_error("lost");
  allocation x = make(*name_arena(mine), bytes, seed);
  bind_name(mine, x.ref, "described");
  return x;
}

inline allocation attached(const char* name) {
  name_found got = find_name(name);
  if (got.what != name_status::ready) throw std::runtime_error(std::string("no ") + name);
  return got.block;
}

/// Another process in the arena of a group; it reports how many there are.
class neighbour {
 public:
  explicit neighbour(const std::string& group)
      : process_([this, group] {
          ask_in(group);
          name_arena();
          answers_.put(std::uint32_t{0});
          while (requests_.get<char>() == 'n') answers_.put(name_arena().statistics().participants);
          return 0;
        }) {
    (void)answers_.get<std::uint32_t>();
  }
  std::uint32_t participants() {
    requests_.put('n');
    return answers_.get<std::uint32_t>();
  }

 private:
  channel requests_, answers_;
  child process_;
};

/// Another process that builds "x" in a group, until it is killed.
class builder {
 public:
  explicit builder(const std::string& group)
      : process_([this, group] {
          ask_in(group);
          name_ticket mine;
          MUST(claim_name("x", mine));
          claimed_.put('c');
          sleep_for_ever();
          return 0;
        }) {
    (void)claimed_.get<char>();
  }

 private:
  channel claimed_;
  child process_;
};

}  // namespace sharedmem

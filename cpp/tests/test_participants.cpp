#include <doctest.h>

#include <sys/resource.h>

#include <fstream>

#include <sharedmem/arena.hpp>

#include "arena_tools.hpp"

using namespace sharedmem;

TEST_CASE("a part of the arena that cannot be attached is room that is not there") {
  const auto a = arena::create(tiny);
  channel go;
  auto limited = fork_from(*a, [&] {
    std::uint64_t pages = 0;
    std::ifstream{"/proc/self/statm"} >> pages;
    const rlimit limit{pages * 4096 + 48 * mib, pages * 4096 + 48 * mib};
    ::setrlimit(RLIMIT_AS, &limit);
    (void)go.get<char>();
    try {
      for (;;) (void)a->allocate(3 * mib, 64, pages::lazy);
    } catch (const no_memory&) {
      return 0;
    }
  });
  allocation large = a->allocate(64 * mib, 64, pages::lazy);  // in a segment of its own
  go.put('g');
  CHECK(limited->wait() == 0);
  a->release(large.ref);
  nothing_left(*a, 2);
}

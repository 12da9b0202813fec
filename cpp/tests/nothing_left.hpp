/// \file
/// What tests of arenas check at their end, on every system.
#pragma once

#include <doctest.h>

#include <sharedmem/arena.hpp>

/// After every array is dropped: all memory comes back, to the last chunk.
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

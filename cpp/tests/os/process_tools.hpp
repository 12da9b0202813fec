/// \file
/// What the tests of arenas among processes that were not forked have in common.
#pragma once

#include <doctest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include <sharedmem/arena.hpp>
#include <sharedmem/handle.hpp>

#include "../nothing_left.hpp"
#include "roles.hpp"

using namespace sharedmem;
using roles::process;

inline constexpr std::uint64_t mib = std::uint64_t{1} << 20;
inline constexpr std::uint64_t tiny = 32 * mib;

/// Bytes that only `seed` and the place give, a word of each page.
inline void fill(const allocation& a, std::uint64_t seed) {
  for (std::uint64_t at = 0; at + 8 <= a.bytes; at += 4096) {
    const std::uint64_t word = seed * 0x9e3779b97f4a7c15U ^ at;
    std::memcpy(a.data + at, &word, 8);
  }
}
inline bool filled(const allocation& a, std::uint64_t seed) {
  for (std::uint64_t at = 0; at + 8 <= a.bytes; at += 4096) {
    std::uint64_t word = 0;
    std::memcpy(&word, a.data + at, 8);
    if (word != (seed * 0x9e3779b97f4a7c15U ^ at)) return false;
  }
  return true;
}

inline roles::arguments words_of(const arena& a) { return {to_text(a.where())}; }
inline std::unique_ptr<arena> arena_from(const roles::arguments& words) {
  return arena::attach(parse_locator(words.at(0)).value());
}

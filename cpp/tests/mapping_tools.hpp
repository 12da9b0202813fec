/// \file
/// What the tests of mappings have in common.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include <sharedmem/error.hpp>
#include "segment/mapping.hpp"

using namespace sharedmem;

inline constexpr std::size_t mebibyte = std::size_t{1} << 20;
/// Of this run: a memfd is looked for by its tag in all processes.
inline const std::uint64_t tag = static_cast<std::uint64_t>(::getpid()) << 32 | 0x9abc'def0;

/// A verifier that counts its calls, and accepts a segment whose first byte is 'S'.
inline bool starts_with_s(const void* base, std::size_t, void* context) {
  if (context != nullptr) ++*static_cast<int*>(context);
  return *static_cast<const char*>(base) == 'S';
}

inline bool accept(const void*, std::size_t, void*) { return true; }

inline mapping make(backing kind, std::size_t bytes = mebibyte, std::uint64_t its_tag = tag) {
  mapping made = mapping::create(kind, bytes, its_tag);
  made.data()[0] = std::byte{'S'};
  return made;
}

/// The lines of /proc/self/smaps about the mapping that begins at `base`.
inline std::string smaps(const void* base) {
  char start[32];
  std::snprintf(start, sizeof start, "%zx-", reinterpret_cast<std::size_t>(base));
  std::ifstream file{"/proc/self/smaps"};
  std::string all;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    const bool heading = line.find('-') < line.find(' ');
    if (heading) inside = line.starts_with(start);
    if (inside) all += line + "\n";
  }
  return all;
}

/// The error code that `work` throws; 0: it throws none.
inline int code_of(auto&& work) {
  try {
    work();
  } catch (const error& failure) {
    return failure.code().value();
  }
  return 0;
}

/// \file
/// Test cases that cannot run everywhere say so; main.cpp counts them, and exits with 77, which meson shows
/// as SKIP.
#pragma once

#include <doctest.h>

#ifndef _WIN32
#include <unistd.h>
#endif

#include <string>

/// Test cases of this program that were skipped.
inline int skipped_cases = 0;
/// What a child returns that was refused what it needs.
inline constexpr int not_allowed = 77;

/// False, with a message, if `there` is: the test case must return.
inline bool needs(bool there, const char* what) {
  if (there) return true;
  ++skipped_cases;
  MESSAGE("skipped: needs ", std::string(what));
  return false;
}

#ifndef _WIN32
inline bool needs_root() { return needs(::geteuid() == 0, "root"); }
#endif

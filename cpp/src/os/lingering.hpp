#pragma once

/// The process that lingers: what it keeps, and how it comes about. See `linger` in home.hpp.
#include <cstdint>
#include <span>
#include <vector>

namespace sharedmem {

/// Addresses [begin, end) that stay mapped, rounded to whole pages.
struct kept_range {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
  bool files_too = false;  // else only memory that is mapped from no file

  static kept_range of(const void* start, std::size_t bytes, bool files_too) noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(start);
    return {begin, begin + bytes, files_too};
  }
};

/// Adds what any process needs to run this library: its code and data, those of the C library, and the calling
/// thread's stack around `frame` and thread-local variables.
/// \throws std::bad_alloc
void keep_what_runs(const void* frame, std::vector<kept_range>& memory);

/// Forks, without fork handlers, an orphan process, in a session of its own and with all signals
/// blocked. True in that process, which may only call what is async-signal-safe; false in the caller, also where
/// fork failed.
bool fork_to_linger() noexcept;

/// In that process: gives back all memory and files that it inherited except those named, and the working
/// directory; signals have their default effect and none is blocked. From then on nothing else may be touched.
/// \param memory       ascending; an array that names itself.
/// \param descriptors  ascending.
void keep_only(std::span<const kept_range> memory, std::span<const int> descriptors) noexcept;

void sleep_ms(unsigned ms) noexcept;
[[noreturn]] void exit_now() noexcept;

}  // namespace sharedmem

/// \file
/// How much memory is available, according to the system.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sharedmem {

/// An estimate, out of date as soon as it is made; bytes.
struct memory_estimate {
  std::uint64_t available = 0;  ///< the least that any of the limits leaves now
  std::uint64_t total = 0;      ///< the least of the limits themselves
  const char* limit = "";       ///< which one `available` is of, as messages say it: "RAM" for instance
};

/// Available memory now: the smallest of
/// - memory that the kernel calls available, and free swap;
/// - for the memory cgroup of this process and each one above it that is visible, 63/64 of its limit less
///   its usage, not counting file pages that it would drop: a process that meets the limit is killed.
/// Reads some ten small files. If /proc is not available, `sysinfo` is used.
memory_estimate available_memory() noexcept;

/// Address space that `ulimit -v` leaves this process; UINT64_MAX: no limit.
std::uint64_t address_space_left() noexcept;

/// System limits of System V memory: of all segments together, and of one. UINT64_MAX: none, or
/// unknown.
std::uint64_t shmall_bytes() noexcept;
std::uint64_t shmmax_bytes() noexcept;

namespace os {
/// Bytes of a new arena where the user names no size: address space that memory is taken for as it is used.
std::uint64_t arena_wish() noexcept;
/// For messages: which settings of the system limit the size of a segment, a list that begins with ", ".
const char* size_knobs() noexcept;
}  // namespace os

}  // namespace sharedmem

/// \file
/// Who a process is, and whether it is still alive.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sharedmem/segment.hpp>

namespace sharedmem {

/// Start times of processes, in clock ticks, are taken modulo 2^34: five years at 100 Hz.
inline constexpr std::uint64_t start_mask = (std::uint64_t{1} << 34) - 1;

/// Identifies one process uniquely among those of the same `process_namespaces`: a pid may be reused, but not a pid
/// together with its start time.
struct process_id {
  std::uint32_t pid = 0;  ///< in its pid namespace
  /// Clock ticks from boot to its start, as its time namespace counts, modulo 2^34; 0: unknown.
  std::uint64_t start = 0;

  friend bool operator==(const process_id&, const process_id&) = default;
};

/// What gives a `process_id` its meaning: inode numbers of the namespaces of pids and of clocks.
struct process_namespaces {
  std::uint32_t pid = 0;  ///< 0: unknown, or the system gives another number at each look
  std::uint32_t time = 0;  ///< 0: unknown, or the kernel has none

  friend bool operator==(const process_namespaces&, const process_namespaces&) = default;
};

namespace os {
/// The pid of this process, in its pid namespace.
std::uint32_t pid() noexcept;
}  // namespace os

/// This process, determined at each call, so that the result is correct in a forked child.
process_id this_process() noexcept;

/// Which program this process runs: exec keeps pid and start time but changes this, and children inherit it
/// by fork. All copies of this library in one process read the same. 0: the system does not tell.
std::uint64_t this_program() noexcept;

/// The effective user of this process now.
std::uint32_t effective_user() noexcept;

/// The namespaces of this process, determined at each call.
process_namespaces this_namespaces() noexcept;

/// What is known about another process.
enum class liveness : std::uint8_t {
  alive,  ///< it runs, or did a moment ago
  dead,  ///< proven: it will never touch memory again
  unknown,  ///< it may be either
};

/// Whether `who` is alive.
/// Dead is: no such process; or its record in /proc is readable and shows another start time, or a
/// zombie without a thread left. A missing record proves nothing (hidepid), nor does one in a /proc
/// of other namespaces.
/// \pre  `who` was taken in the namespaces of this process.
liveness look_at(const process_id& who) noexcept;

/// Whether the process has begun to exit, or may have: true as well when /proc does not tell.
/// False proves that it has not given back its memory yet, unless by exec.
bool is_exiting(std::uint32_t pid) noexcept;

/// Whether the process has the segment in its address space.
/// \param pid       in the pid namespace of this process.
/// \param name      of the segment.
/// \param fallback  the answer where /proc does not tell.
bool maps_segment(std::uint32_t pid, const segment_name& name, bool fallback) noexcept;

/// Equal for two processes only if names of segments mean the same to both: one boot of one kernel,
/// one IPC namespace. Never 0. Settled at the first call, for forked children too.
std::uint64_t host_id() noexcept;

/// Fills `bytes` bytes at `out` from the kernel's generator.
/// \throws sharedmem::error  there is none.
void random_bytes(void* out, std::size_t bytes);

}  // namespace sharedmem

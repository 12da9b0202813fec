#pragma once

/// \file
/// Operations on large memory that are divided among threads if that is faster: copying, filling, allocating pages.
///
/// The threads are started for the call and joined before it returns; they block signals, and none of them acquires
/// a lock. If the system refuses to start a thread, the calling one does the work. There are at most as many threads as
/// SHAREDMEM_COPY_THREADS says. By default as many threads allocate pages as there are cores that this process
/// may use (sched_getaffinity(2), cpu.max of its control groups), and half as many copy, since a few
/// cores use all the memory's bandwidth; at most 8. Small memory is left to the calling thread alone.
#include <cstddef>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// Calls work(context, begin, end) for ranges that together are [0, count), in parallel if that is faster, and returns
/// when all calls have returned. Ranges begin at multiples of 64.
/// \param count       items.
/// \param item_bytes  of one item, greater than 0; `count * item_bytes` does not overflow.
/// \param work        called for each range, by any of the threads; must not acquire a lock that the caller has.
/// \param context     passed to `work`.
/// Threads: any.
SHAREDMEM_API void in_parts(std::size_t count, std::size_t item_bytes,
                            void (*work)(void* context, std::size_t begin, std::size_t end) noexcept,
                            void* context) noexcept;

/// Copies as memcpy does.
/// \pre the two do not overlap.
SHAREDMEM_API void copy_bytes(void* to, const void* from, std::size_t bytes) noexcept;
/// Fills as memset does.
SHAREDMEM_API void set_bytes(void* to, int value, std::size_t bytes) noexcept;

}  // namespace sharedmem

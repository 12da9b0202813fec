#pragma once

/// \file
/// Work on large memory that is divided among threads where that pays: copying, filling, making pages.
///
/// The threads are started for the call and are gone when it returns; they block signals, and none of them takes
/// a lock. Where the system gives no thread, the calling one does the work. How many there are: at most as many as
/// SHAREDMEM_COPY_THREADS says. Without it pages are made by as many threads as there are cores that this process
/// may use (sched_getaffinity(2), cpu.max of its control groups), and copies are made by half as many, since a few
/// cores use all the memory's bandwidth; at most 8. Small memory is left to the calling thread alone.
#include <cstddef>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// Calls work(context, begin, end) for ranges that together are [0, count), at once where that pays, and returns
/// when all calls have. Ranges begin at multiples of 64.
/// \param count       items.
/// \param item_bytes  of one item, greater than 0; `count * item_bytes` does not overflow.
/// \param work        called for each range, by any of the threads; it takes no lock that the caller has.
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

/// \file
/// Work that is divided among threads for the length of one call.
#pragma once

namespace sharedmem::os {

inline constexpr unsigned most_parts = 64;

/// Calls work(context, part) once for each part below `parts`, which is at most `most_parts`, and returns when all
/// have returned. Part 0 is done by the calling thread, each other one by a thread of its own, which has ended on
/// return. These threads block all signals but those of faults: handlers run in threads that the program knows. Where the system gives no
/// thread (EAGAIN) the calling one does that part, too.
/// Processes: a child that is forked meanwhile, by another thread, has none of these threads, and no part of the
/// work is done there. No lock is held.
void run_parts(unsigned parts, void (*work)(void* context, unsigned part) noexcept, void* context) noexcept;

/// Calls act(context) when the calling thread ends, before its thread-local variables without a destructor go, unless MinGW's
/// C++ runtime, which frees them before all else, emulates these. One call of this function for a thread. False: it cannot be done.
/// Processes: in a forked child this holds for the thread that forked.
bool at_thread_end(void (*act)(void* context) noexcept, void* context) noexcept;

/// Cores that this process may use: those it may run on, and no more than its control groups give time for. At
/// least 1. Looks at files at most once a second.
unsigned usable_cores() noexcept;

}  // namespace sharedmem::os

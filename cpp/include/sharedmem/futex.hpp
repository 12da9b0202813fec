/// \file
/// Sleeping until a word of memory changes, and waking the threads that sleep.
#pragma once

#include <chrono>
#include <cstdint>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// How a wait ended. In every case the caller checks the word again: `woken` may also come from a thread that used the
/// address before.
enum class wait_end : std::uint8_t {
  woken,        ///< a thread called `wake`
  changed,      ///< the word did not have the expected value, so the thread did not sleep
  timed_out,
  interrupted,  ///< a signal handler ran in this thread
};

/// Sleeps for at most `limit` if `word` still has the value `expected`; the kernel checks that and puts the thread to
/// sleep in one step, so that no `wake` after a change is missed. Threads of all processes that have the memory attached
/// may sleep on one word, at whatever addresses they have it; a thread that is killed meanwhile leaves nothing behind.
///
/// \param word      aligned to 4 bytes; it may lie in memory that is attached for reading only.
/// \param expected  the value that the caller has seen in it.
/// \param limit     by the monotonic clock; zero or less: the word is checked without sleeping.
/// \throws std::invalid_argument  `word` is not aligned.
/// \throws sharedmem::error       EFAULT: there is no memory; ENOSYS: the system has no such call.
[[nodiscard]] SHAREDMEM_API wait_end wait_on(const std::uint32_t* word, std::uint32_t expected,
                                             std::chrono::nanoseconds limit);

/// Wakes at most `count` of the threads that sleep on `word`, in unspecified order. Change the word first.
/// \return  how many were woken; 0 also if there is no such memory, and on Windows, which does not tell.
SHAREDMEM_API int wake(const std::uint32_t* word, int count) noexcept;

}  // namespace sharedmem

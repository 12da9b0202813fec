#include <sharedmem/futex.hpp>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include <sharedmem/error.hpp>

namespace sharedmem {
namespace {

/// What the call below reads: two words of the machine, whatever size the C library gives `time_t`. Machines of 32 bit
/// that came after the year 2038 was settled have the call with 64 bits only.
#if defined(SYS_futex)
constexpr long number = SYS_futex;
using kernel_time = long;
#else
constexpr long number = SYS_futex_time64;
using kernel_time = std::int64_t;
#endif

struct kernel_timespec {
  kernel_time seconds;
  kernel_time nanoseconds;
};

kernel_timespec span_of(std::chrono::nanoseconds limit) noexcept {
  constexpr std::int64_t second = 1'000'000'000;
  const std::int64_t count = std::max<std::int64_t>(limit.count(), 0);
  const std::int64_t most = std::numeric_limits<kernel_time>::max();
  return {static_cast<kernel_time>(std::min(count / second, most)), static_cast<kernel_time>(count % second)};
}

}  // namespace

// Not FUTEX_PRIVATE_FLAG: the word is found by the page that it lies in, not by its address in one process.

wait_end wait_on(const std::uint32_t* word, std::uint32_t expected, std::chrono::nanoseconds limit) {
  if (reinterpret_cast<std::uintptr_t>(word) % alignof(std::uint32_t) != 0) {
    throw std::invalid_argument("a word to wait on must be aligned to 4 bytes");
  }
  const kernel_timespec span = span_of(limit);
  if (syscall(number, word, FUTEX_WAIT, expected, &span, nullptr, 0) == 0) return wait_end::woken;
  switch (errno) {
    case EAGAIN: return wait_end::changed;
    case ETIMEDOUT: return wait_end::timed_out;
    case EINTR: return wait_end::interrupted;
    default: throw error(errno, "futex", "wait on a word of memory");
  }
}

int wake(const std::uint32_t* word, int count) noexcept {
  const int before = errno;
  const long woken = count < 1 ? 0 : syscall(number, word, FUTEX_WAKE, count, nullptr, nullptr, 0);
  errno = before;
  return woken < 0 ? 0 : static_cast<int>(woken);
}

}  // namespace sharedmem

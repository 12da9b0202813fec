#include "os/waiting.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace sharedmem::os {
namespace {

/// What the kernel reads, which follows the call, not this C library's timespec.
struct kernel_time {
  long seconds;
  long nanoseconds;
};

}  // namespace

void wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t value, std::uint64_t ns) noexcept {
  const kernel_time limit{static_cast<long>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  (void)::syscall(SYS_futex, &word, FUTEX_WAIT, value, &limit, nullptr, 0);
}

void wake_all(std::atomic<std::uint32_t>& word) noexcept {
  (void)::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace sharedmem::os

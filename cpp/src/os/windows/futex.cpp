/// Windows: WaitOnAddress and WakeByAddress work between threads of one process only. To notice changes by other processes,
/// a waiting thread looks at the word repeatedly: after 1 ms first, then after twice as long each time, up to 8 ms.
#include <sharedmem/futex.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "os/machine.hpp"
#include "os/windows/system.hpp"

namespace sharedmem {
namespace {

constexpr std::uint64_t millisecond = 1'000'000;
constexpr DWORD longest_ms = 8;

/// These functions exist since Windows 8. They are looked up at run time, because compilers differ in which import library
/// has them.
struct address_functions {
  decltype(&::WaitOnAddress) wait =
      os::find_function<decltype(&::WaitOnAddress)>(L"kernelbase.dll", "WaitOnAddress");
  decltype(&::WakeByAddressSingle) wake_one =
      os::find_function<decltype(&::WakeByAddressSingle)>(L"kernelbase.dll", "WakeByAddressSingle");
  decltype(&::WakeByAddressAll) wake_all =
      os::find_function<decltype(&::WakeByAddressAll)>(L"kernelbase.dll", "WakeByAddressAll");
};

const address_functions& functions() noexcept {
  static const address_functions found;
  return found;
}

/// Sleeps until a thread of this process wakes it or the time is over.
/// \return  true: it was woken.
bool sleep_on(std::uint32_t* at, std::uint32_t expected, DWORD ms) noexcept {
  if (functions().wait != nullptr) return functions().wait(at, &expected, sizeof expected, ms);
  ::Sleep(ms);
  return false;
}

}  // namespace

wait_end wait_on(const std::uint32_t* word, std::uint32_t expected, std::chrono::nanoseconds limit) {
  if (reinterpret_cast<std::uintptr_t>(word) % alignof(std::uint32_t) != 0) {
    throw std::invalid_argument("a word to wait on must be aligned to 4 bytes");
  }
  // The word may be in read-only memory. The cast is safe because the word is only read.
  auto* const at = const_cast<std::uint32_t*>(word);
  const std::atomic_ref<std::uint32_t> seen(*at);
  if (seen.load(std::memory_order_acquire) != expected) return wait_end::changed;
  const std::uint64_t begin = monotonic_ns();
  const auto span = static_cast<std::uint64_t>(std::max<std::int64_t>(limit.count(), 0));
  for (DWORD pause = 1;; pause = std::min(2 * pause, longest_ms)) {
    const std::uint64_t passed = monotonic_ns() - begin;
    if (passed >= span) return wait_end::timed_out;
    const std::uint64_t left_ms = (span - passed + millisecond - 1) / millisecond;
    const bool woken = sleep_on(at, expected, static_cast<DWORD>(std::min<std::uint64_t>(pause, left_ms)));
    if (woken || seen.load(std::memory_order_acquire) != expected) return wait_end::woken;
  }
}

// Returns 0 because the system does not tell how many threads were woken. Threads of other processes look by themselves.
int wake(const std::uint32_t* word, int count) noexcept {
  auto* const at = const_cast<std::uint32_t*>(word);
  if (count == 1 && functions().wake_one != nullptr)
    functions().wake_one(at);
  else if (count > 1 && functions().wake_all != nullptr)
    functions().wake_all(at);
  return 0;
}

}  // namespace sharedmem

/// \file
/// Sleeping until a word of shared memory changes.
#pragma once

#include <atomic>
#include <cstdint>

namespace sharedmem::os {

/// Sleeps while `word` is `value`, at most `ns` nanoseconds. Wakes early for a signal, and for nothing at times: the
/// caller looks again.
/// Processes: whoever has the memory of `word`, at any address, may wake who sleeps.
void wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t value, std::uint64_t ns) noexcept;
/// Wakes all who sleep on `word`.
void wake_all(std::atomic<std::uint32_t>& word) noexcept;

}  // namespace sharedmem::os

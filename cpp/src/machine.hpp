#pragma once

/// What the allocator asks of the machine itself. Threads: any.
#include <cstdint>

namespace sharedmem {

/// CLOCK_MONOTONIC in nanoseconds; differs between time namespaces (time_namespaces(7)).
std::uint64_t monotonic_ns() noexcept;
unsigned core_count() noexcept;
/// Bytes of RAM.
std::uint64_t physical_memory() noexcept;
void yield_cpu() noexcept;

}  // namespace sharedmem

#pragma once

/// Settings that the environment has for more than one part of the library.
#include <cstdint>
#include <optional>

namespace sharedmem {

/// The text of a variable; nullptr: it is not set, or empty, or this is a set-user-ID program.
const char* setting(const char* name) noexcept;

/// A number of bytes, such as "8GiB" (1024s); nothing: it is not set.
/// \throws std::invalid_argument  it is set to something else.
std::optional<std::uint64_t> size_setting(const char* name);

/// A whole number from 1 to `most`; 0: it is not set.
/// \throws std::invalid_argument  it is set to something else.
unsigned count_setting(const char* name, unsigned most);

/// Seconds that a process which ends may leave a lingering process for: SHAREDMEM_LINGER, default 10, at most
/// an hour; 0: none.
/// \throws std::invalid_argument  it is set to something else.
double linger_seconds();

}  // namespace sharedmem

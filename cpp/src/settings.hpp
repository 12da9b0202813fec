#pragma once

/// Settings that the environment has for more than one part of the library.
namespace sharedmem {

/// Seconds that a process which ends may leave a lingering process for: SHAREDMEM_LINGER, default 10, at most
/// an hour; 0: none.
/// \throws std::invalid_argument  it is set to something else.
double linger_seconds();

}  // namespace sharedmem

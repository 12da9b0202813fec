#pragma once

/// How many threads work on large memory.

namespace sharedmem {

/// Reads SHAREDMEM_COPY_THREADS; until then there is no setting.
/// \throws std::invalid_argument  it is not a number from 1 to 64.
void read_copy_threads();

/// Threads by which pages are made, or memory is copied: the setting, or else what copying.hpp says.
unsigned page_threads() noexcept;
unsigned copy_threads() noexcept;

}  // namespace sharedmem

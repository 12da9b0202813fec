#pragma once

/// How many threads large memory is worth.

namespace sharedmem {

/// Reads SHAREDMEM_COPY_THREADS; until then there is no setting.
/// \throws std::invalid_argument  it is no number from 1 to 64.
void read_copy_threads();

/// Threads by which pages are made, or memory is copied: the setting, or else what copying.hpp says.
unsigned page_threads() noexcept;
unsigned copy_threads() noexcept;

}  // namespace sharedmem

#pragma once

/// Marks: words that say how far a table was ever used, so that a walk over it can stop there.
#include <atomic>
#include <type_traits>

namespace sharedmem {

/// Raises `mark` to at least `to`. A process that is about to write beyond a mark raises it first, so that a walk that
/// reads it afterwards goes far enough. The order of both accesses, seq_cst, is that of the writes that follow.
/// Threads and processes: any, at any time.
template <class Number>
void raise_mark(std::atomic<Number>& mark, std::type_identity_t<Number> to) noexcept {
  Number seen = mark.load(std::memory_order_seq_cst);
  while (seen < to && !mark.compare_exchange_weak(seen, to, std::memory_order_seq_cst)) {
  }
}

}  // namespace sharedmem

#pragma once

#include <atomic>

#include "heap/thread_cache.hpp"

namespace sharedmem {

/// This thread's cache, or nullptr. It serves the first arena that the thread allocated from.
/// Its initializer is a constant: each use is a plain load, without a look whether it was initialized.
extern constinit thread_local thread_cache* current_cache;

/// Marks this thread as being within its cache; see heap::stop_threads.
class within {
 public:
  explicit within(thread_cache& cache) noexcept : cache_(cache) {
    cache_.busy.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the other side runs membarrier(2)
  }
  ~within() { cache_.busy.store(0, std::memory_order_release); }
  within(const within&) = delete;
  within& operator=(const within&) = delete;

 private:
  thread_cache& cache_;
};

}  // namespace sharedmem

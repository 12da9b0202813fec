#pragma once

#include "heap/thread_cache.hpp"

namespace sharedmem {

/// This thread's cache, or nullptr. It serves the first arena that the thread allocated from.
extern thread_local thread_cache* current_cache;

}  // namespace sharedmem

#pragma once
/// \file
/// Handlers of fork(2), where there is fork.
#ifndef _WIN32
#include <pthread.h>
#endif

namespace sharedmem_pyx {

/// pthread_atfork(3). The value has no meaning: it is for variables whose initialization calls this.
inline int at_fork([[maybe_unused]] void (*prepare)(), [[maybe_unused]] void (*parent)(),
                   [[maybe_unused]] void (*child)()) noexcept {
#ifdef _WIN32
  return 0;
#else
  return ::pthread_atfork(prepare, parent, child);
#endif
}

}  // namespace sharedmem_pyx

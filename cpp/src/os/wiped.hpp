#pragma once

/// Locks and counts of threads that a forked child does not have.
#include <new>

#include "os/machine.hpp"

namespace sharedmem {

/// A T that every forked child finds zeroed, with fork handlers or without (madvise(2), MADV_WIPEONFORK): a mutex
/// is free there, though another thread of the parent held it. Never destroyed.
/// A zeroed T must be a fresh one. So is a std::mutex where the library is built: PTHREAD_MUTEX_INITIALIZER of
/// glibc and musl has zeros only.
template <class T>
T* make_wiped() {
  void* p = map_private(sizeof(T));
  if (p == nullptr) return new T;
  wipe_on_fork(p, sizeof(T));  // without it a child made by raw clone must not use the library
  return new (p) T;
}

}  // namespace sharedmem

#include "heap/thread_cache.hpp"

#include <new>

#include "os/machine.hpp"

namespace sharedmem {

thread_cache* thread_cache::map() noexcept {
  void* p = map_private(sizeof(thread_cache));
  if (p == nullptr) return nullptr;
  if (wipe_on_fork(p, sizeof(thread_cache))) return new (p) thread_cache;  // default-initialised: zeros stay
  unmap_private(p, sizeof(thread_cache));
  return nullptr;
}

void thread_cache::unmap(thread_cache* cache) noexcept { unmap_private(cache, sizeof(thread_cache)); }

}  // namespace sharedmem

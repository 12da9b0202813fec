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

identity_page* identity_page::map() noexcept {
  void* p = map_private(sizeof(identity_page));
  if (p == nullptr) return nullptr;
  wipe_on_fork(p, sizeof(identity_page));  // without it a child made by raw clone must not use the library
  return new (p) identity_page;
}

void identity_page::unmap(identity_page* page) noexcept { unmap_private(page, sizeof(identity_page)); }

}  // namespace sharedmem

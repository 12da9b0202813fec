#pragma once

/// Free small blocks kept for one thread, so that allocating and dropping one takes no lock.
/// A cache lies in pages that a forked child finds zeroed (madvise(2), MADV_WIPEONFORK). In a child made
/// without fork handlers all counts and capacities are therefore 0: nothing can be taken from the cache or put
/// into it, so that every call takes the slow path, which notices that this is a new process.
#include <array>
#include <atomic>
#include <cstdint>

#include "heap/slab.hpp"

namespace sharedmem {

inline constexpr std::uint64_t max_cached_bytes = 32768;
inline constexpr std::uint32_t cached_classes = class_of(max_cached_bytes) + 1;

/// Blocks of one class a thread keeps: at most 64, and at most 64 KiB of them.
constexpr std::uint32_t magazine_capacity(std::uint32_t c) noexcept {
  const std::uint64_t n = 65536 / class_bytes(c);
  return n > 64 ? 64 : n < 2 ? 2 : static_cast<std::uint32_t>(n);
}

/// A free block: its slab's address and its index there.
class cached_block {
 public:
  cached_block() = default;
  cached_block(slab* s, std::uint32_t index) noexcept
      : bits_{static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(s)) << 16 | index} {}
  slab* owner() const noexcept { return reinterpret_cast<slab*>(static_cast<std::uintptr_t>(bits_ >> 16)); }
  std::uint32_t index() const noexcept { return bits_ & 0xffff; }

 private:
  std::uint64_t bits_;  // user addresses have at most 47 bits
};

struct magazine {
  std::uint32_t count;
  std::uint32_t capacity;
  cached_block* blocks;
};

struct thread_cache {
  /// The heap whose blocks these are, which has the cache in its list; null after a fork, and when that
  /// heap is gone. Other threads only write null, at a time when the arena may not be used.
  std::atomic<void*> home;
  /// Set around each use; prepare_fork waits until no thread is within (asymmetric: it pairs with a
  /// membarrier(2) there, so that here a plain store is enough).
  std::atomic<std::uint32_t> busy;
  std::array<magazine, cached_classes> of_class;
  std::array<cached_block, 2048> store;

  void make_ready(void* owner) noexcept {
    cached_block* at = store.data();
    for (std::uint32_t c = 0; c < cached_classes; ++c) {
      of_class[c] = {0, magazine_capacity(c), at};
      at += magazine_capacity(c);
    }
    home.store(owner, std::memory_order_relaxed);
  }

  /// A new cache, all zeros, which a forked child finds zeroed again; nullptr if the system refuses.
  static thread_cache* map() noexcept;
  static void unmap(thread_cache*) noexcept;
};

/// Called before fork: until it is over no thread that ends gives its cache back, and no arena is destroyed.
void hold_caches() noexcept;
void let_caches_go() noexcept;  ///< in the parent
void renew_caches() noexcept;   ///< in the child

}  // namespace sharedmem

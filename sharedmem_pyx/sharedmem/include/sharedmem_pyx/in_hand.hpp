#pragma once
/// \file
/// Blocks that C code of a thread holds while it copies: no Python object has them, so nothing would drop
/// them in a child that another thread forks meanwhile. The child does not have that thread, and gives them
/// back itself.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include <sharedmem/home.hpp>
#include <sharedmem_pyx/forking.hpp>

namespace sharedmem_pyx {

/// Where a note is written.
struct block_in_hand {
  std::atomic<const void*> thread{nullptr};  ///< names it; null: the entry is free
  sharedmem::block_ref ref;
};

/// A note that the calling thread holds a block. What is not noted, since there are too many at once, is held
/// by children that are forked meanwhile until they end. Threads: each note is of one thread. Processes:
/// `release_of_other_threads` is called once in each forked child.
class in_hand {
 public:
  in_hand() noexcept = default;
  in_hand(const in_hand&) = delete;
  in_hand& operator=(const in_hand&) = delete;

  /// Brackets each step before which, or after which, a block is held and not noted: no fork begins
  /// meanwhile, or waits a little for its end. Such a step must not wait for anything but memory: the forking
  /// thread may hold any lock.
  static void begin_step() noexcept {
    while (true) {
      steps.fetch_add(1);
      if (forks.load() == 0) return;
      steps.fetch_sub(1);
      pause();
    }
  }
  static void end_step() noexcept { steps.fetch_sub(1); }

  void enter(const sharedmem::block_ref& ref) noexcept {
    for (block_in_hand& each : entries) {
      const void* seen = each.thread.load(std::memory_order_relaxed);
      if (seen != nullptr || !each.thread.compare_exchange_strong(seen, &being_written)) continue;
      each.ref = ref;
      each.thread.store(&this_thread);
      at_ = &each;
      return;
    }
  }
  void leave() noexcept {
    if (at_ != nullptr) at_->thread.store(nullptr);
    at_ = nullptr;
  }

  /// In a forked child: gives back what threads held that it does not have.
  static void release_of_other_threads() noexcept {
    for (block_in_hand& each : entries) {
      const void* thread = each.thread.load();
      if (thread == nullptr || thread == &this_thread) continue;
      each.thread.store(nullptr);
      if (thread != &being_written) sharedmem::release(each.ref);
    }
  }

 private:
  static void pause() noexcept { std::this_thread::sleep_for(std::chrono::microseconds{50}); }
  /// A fork waits for steps that have begun, but not for ever: one may wait for a lock that this fork has
  /// taken. A step may take long where memory is slow to get, or the machine too busy to run its thread.
  static void before_fork() noexcept {
    forks.fetch_add(1);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{2};
    while (steps.load() != 0 && std::chrono::steady_clock::now() < end) pause();
  }

  inline static thread_local char this_thread = 0;  // its address names the thread
  inline static char being_written = 0;
  inline static std::array<block_in_hand, 64> entries;
  inline static std::atomic<std::uint32_t> steps{0}, forks{0};
  inline static const int handlers = at_fork(
      before_fork, [] { forks.fetch_sub(1); },
      [] {
        steps.store(0);
        forks.store(0);
      });

  block_in_hand* at_ = nullptr;
};

}  // namespace sharedmem_pyx

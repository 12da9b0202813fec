#pragma once

/// What lies in the block of a queue, and the lock around it. The protocol is in queue.hpp and doc/queues.rst.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <sharedmem/futex.hpp>
#include <sharedmem/queue.hpp>

#include "os/traits.hpp"
#include "shared/fault.hpp"

namespace sharedmem {

inline constexpr std::uint64_t queue_magic = 0x0100'4555'4555'516d;  // "mQUEUE", a version
inline constexpr std::uint64_t first_ring_bytes = 16 * 1024;
inline constexpr std::uint64_t record_unit = 16;  // records begin at multiples of it
inline constexpr std::uint32_t no_message = 1, in_block_flag = 2;  // flags of a record

inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// A word on which threads sleep, and a hint whether one does.
struct alignas(64) queue_bell {
  std::uint32_t word = 0;
  // 0: no thread sleeps; else the number of the last thread that announced that it would sleep.
  std::uint32_t sleepers = 0;
  // How many threads announced that so far. Never reset, or a late `ring` could mistake one thread for another.
  std::uint32_t expected = 0;

  std::uint32_t load(std::memory_order how) noexcept { return std::atomic_ref(word).load(how); }
  /// With the queue's lock: the caller, who found the word as it is, is about to sleep.
  void expect() noexcept {
    if (++expected == 0) expected = 1;
    std::atomic_ref(sleepers).store(expected, std::memory_order_relaxed);
  }
  /// With the lock, after a commit. The value is for `ring`; 0: no thread sleeps.
  std::uint32_t change() noexcept {
    std::atomic_ref w(word);
    w.store(w.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    return std::atomic_ref(sleepers).load(std::memory_order_relaxed);
  }
  /// Without the lock. A thread that is about to sleep sees that the word changed; a later one has changed `sleepers`.
  void ring(std::uint32_t seen, int count) noexcept {
    if (seen == 0) return;
    if (wake(&word, count) == 0 && os::wakes_are_counted)
      std::atomic_ref(sleepers).compare_exchange_strong(seen, 0, std::memory_order_relaxed);
  }
};

/// A word of the list of sleepers: free, or used by a thread of the process during the life of the object.
class listed_sleeper {
 public:
  /// Lists the caller in one of the words, if one is free or that of a dead process.
  listed_sleeper(std::span<std::uint64_t, queue::most_listed> words, queue::wanted what) noexcept;
  ~listed_sleeper() {
    if (at_ != nullptr) std::atomic_ref(*at_).store(0, std::memory_order_relaxed);
  }
  listed_sleeper(const listed_sleeper&) = delete;
  listed_sleeper& operator=(const listed_sleeper&) = delete;

 private:
  std::uint64_t* at_ = nullptr;
};

/// What the queue consists of at a moment.
struct queue::state {
  std::uint64_t head, tail;  // bytes taken and put, of records; their places are these modulo `ring_bytes`
  std::uint64_t taken, put;  // messages
  std::uint64_t unfinished;
  std::uint64_t bytes;  // of the messages that are there
  std::uint64_t ring_bytes;
  claim ring;
};

/// A message in the ring: this, then its claims, then its bytes unless these are in a block.
struct queue::record {
  std::uint32_t size;  // of all of it, a multiple of `record_unit`
  std::uint32_t flags;  // with `no_message` the rest is not there: unused bytes before the ring's end
  std::uint32_t claims;
  std::uint32_t reserved;
  std::uint64_t length;
  std::uint64_t checksum;
  std::uint64_t number;
};

struct queue::layout {
  enum class work : std::uint32_t { nothing, putting, taking, replacing };

  std::uint64_t magic;
  std::uint64_t most;
  std::uint64_t made;   // when, by the monotonic clock,
  std::uint32_t maker;  // and the pid that made it: for reports
  alignas(64) std::byte mutex[robust_mutex::bytes];
  queue_bell messages;  // rung after `put`
  queue_bell room;      // after `get`
  queue_bell tasks;     // when there is no unfinished task
  alignas(64) std::uint32_t valid;  // which of the states; a store of this is the commit
  work doing;                       // what the owner of the lock has in hand,
  std::uint64_t from, to;           // messages of these bytes,
  claim ring;                       // or this ring, in exchange for `old_ring`
  claim old_ring;
  alignas(64) state states[2];
  // The sleeping threads, for reports; nothing depends on it. The word of a process that is killed in its sleep stays
  // until a report is made, or another thread needs it.
  alignas(64) std::uint64_t sleepers[most_listed];

  const state& now() const noexcept { return states[valid & 1]; }
  // What a killed process leaves is what it did up to some instruction: the compiler must not move stores across these.
  void commit(const state& next) noexcept {
    write(states[~valid & 1], next);
    in_order([this] { std::atomic_ref(valid).store(~valid & 1, std::memory_order_release); });
  }
  void note(work what) noexcept {
    in_order([&] { std::atomic_ref(doing).store(what, std::memory_order_release); });
  }
  template <class F>
  static void in_order(F&& store) noexcept {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    store();
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  void done() noexcept { note(work::nothing); }

  /// Writes the copy that is not valid. `look` may still be reading that copy, if it was valid when `look` began; a
  /// thread that reads a word of this write also sees the commit before it.
  static void write(state& to, const state& from) noexcept {
    static_assert(sizeof(state) % sizeof(std::uint32_t) == 0);
    std::uint32_t words[sizeof(state) / sizeof(std::uint32_t)];
    std::memcpy(words, &from, sizeof words);
    std::atomic_thread_fence(std::memory_order_release);
    auto* at = reinterpret_cast<std::uint32_t*>(&to);
    for (const std::uint32_t word : words) __atomic_store_n(at++, word, __ATOMIC_RELAXED);
  }

  /// The valid state, without the lock, and without a store: the memory may be mapped read-only. False: it was changed
  /// during each of many attempts to read it, or is invalid.
  bool look(state& found) const noexcept;
};

/// The processes in a list of sleepers that are not known to be dead.
std::vector<queue::sleeper> sleepers_in(std::span<const std::uint64_t, queue::most_listed> words);

/// The lock, for a scope, unless another has it.
class queue::guard {
 public:
  explicit guard(queue& q) : mutex_{q.mutex_} {
    auto how = mutex_.try_lock();
    for (int i = 0; i < spins && how == robust_mutex::outcome::busy; ++i) {
      spin_pause();
      how = mutex_.try_lock();
    }
    held_ = how != robust_mutex::outcome::busy;
    if (!held_) return;
    step<point::queue_locked>();
    // Also if no dead process was found: a repairing process may be killed, too, or run out of memory there.
    if (q.at_->doing == layout::work::nothing) return;
    try {
      q.repair();
    } catch (...) {
      unlock();
      throw;
    }
  }
  guard(const guard&) = delete;
  guard& operator=(const guard&) = delete;
  ~guard() { unlock(); }
  void unlock() noexcept {
    if (!std::exchange(held_, false)) return;
    mutex_.unlock();
    step<point::queue_unlocked>();
  }
  explicit operator bool() const noexcept { return held_; }

 private:
  static constexpr int spins = 200;  // some microseconds

  robust_mutex mutex_;
  bool held_ = false;
};

}  // namespace sharedmem
